"""The lab file: what it describes, and what is said when it describes nothing that can be built.

Golden cases are pairs of files in ``cases/labfile``: NAME.yaml, and in NAME.txt what is reported
for it. ``VXLAB_REGEN=1 pytest tests/test_labfile.py`` writes the .txt files and labs/
vxlab.schema.json anew; the diff is the review.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml

from vxlab import labfile
from vxlab.lab import Container, Etcd, Lab, Node, Overlay, Underlay
from vxlab.labfile import LabFileError, Problem
from vxlab.labfile import form as labform

HERE = Path(__file__).parent
CASES = HERE / "cases" / "labfile"
LABS = HERE.parent / "labs"
REGENERATE = os.environ.get("VXLAB_REGEN") == "1"
CASE_NAMES = sorted(path.stem for path in CASES.glob("*.yaml"))
LAB_NAMES = sorted(path.stem for path in LABS.glob("*.yaml"))

TALK = Lab(
    name="talk",
    underlay=Underlay(IPv4Network("192.168.56.0/24"), 1500, "eth0"),
    overlay=Overlay(IPv4Network("10.5.0.0/16"), 24, {"Type": "vxlan"}),
    etcd=Etcd("node01", 2379, 10, 50),
    nodes=(
        Node(
            "node01",
            IPv4Interface("192.168.56.21/24"),
            (Container("container01", "node01", 10, "vethlocal"),),
        ),
        Node(
            "node02",
            IPv4Interface("192.168.56.22/24"),
            (Container("container02", "node02", 10, "vethlocal"),),
        ),
    ),
)


def problems(text: str) -> list[tuple[int, str]]:
    """Line and path of everything that is wrong with a text."""
    with pytest.raises(LabFileError) as caught:
        labfile.loads(text, "lab.yaml")
    return [(problem.line, problem.path) for problem in caught.value.problems]


def plain_pyyaml(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take libyaml away from PyYAML, as in a build without it."""
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)


# What a file describes


@pytest.mark.parametrize(
    "text", ["", "\n", "# nothing\n", "---\n", "~", "{}", "\ufeff", "nodes:\n"]
)
def test_an_empty_file_is_the_lab_of_the_talk(text: str) -> None:
    """Everything may be left out; what is left is the talk's, field by field."""
    assert labfile.loads(text, "lab.yaml") == TALK


def test_default_is_the_lab_of_the_talk() -> None:
    """No file at all describes the same lab as an empty one."""
    assert labfile.default() == TALK


def test_mappings_with_nothing_in_them_are_defaults() -> None:
    """A key whose children are commented out leaves the defaults."""
    text = "underlay:\noverlay:\n  backend:\netcd:\nnodes:\n  node01:\n  node02:\n"
    assert labfile.loads(text, "lab.yaml") == TALK


def test_every_key_reaches_the_lab() -> None:
    """Each key of the form has its place in the lab."""
    text = """
      name: other
      underlay: {network: 172.16.0.0/16, mtu: 1400, interface: ens3}
      overlay:
        network: 10.6.0.0/16
        subnet_length: 25
        subnet_min: 10.6.2.0
        subnet_max: 10.6.9.128
        backend: {Type: vxlan, VNI: 7, MTU: 1400, Port: 4789, GBP: yes, Learning: off}
      etcd: {node: b, port: 4001, heartbeat_interval: 100, election_timeout: 1000}
      ipv6: true
      nodes:
        a: {address: 172.16.3.4, containers: [web, db], subnet: 10.6.3.0/25}
        b: {address: 172.16.3.5/16, containers: 0}
    """
    backend: dict[str, str | int | bool] = {
        "Type": "vxlan",
        "VNI": 7,
        "MTU": 1400,
        "Port": 4789,
        "GBP": True,
        "Learning": False,
    }
    containers = (Container("web", "a", 10, "vethlocal"), Container("db", "a", 11, "vethlocal2"))
    assert labfile.loads(text, "lab.yaml") == Lab(
        name="other",
        underlay=Underlay(IPv4Network("172.16.0.0/16"), 1400, "ens3"),
        overlay=Overlay(
            IPv4Network("10.6.0.0/16"),
            25,
            backend,
            IPv4Address("10.6.2.0"),
            IPv4Address("10.6.9.128"),
        ),
        etcd=Etcd("b", 4001, 100, 1000),
        nodes=(
            Node("a", IPv4Interface("172.16.3.4/16"), containers, IPv4Network("10.6.3.0/25")),
            Node("b", IPv4Interface("172.16.3.5/16"), ()),
        ),
        ipv6=True,
    )


def test_the_backend_goes_to_etcd_as_the_user_wrote_it() -> None:
    """flannel reads the options in the user's order, with none added."""
    lab = labfile.loads("overlay: {backend: {Port: 4789, VNI: 3, Type: vxlan}}", "lab.yaml")
    assert json.dumps(lab.overlay.backend) == '{"Port": 4789, "VNI": 3, "Type": "vxlan"}'


def test_a_backend_without_a_type_is_vxlan() -> None:
    """flannel has no default type, so vxlab puts the talk's in front."""
    lab = labfile.loads("overlay: {backend: {VNI: 3}}", "lab.yaml")
    assert list(lab.overlay.backend.items()) == [("Type", "vxlan"), ("VNI", 3)]


def test_the_default_configuration_is_the_value_of_the_talk() -> None:
    """What goes to etcd is what the talk puts there, character by character."""
    config = labfile.loads("", "lab.yaml").overlay.flannel_config()
    assert config == '{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}'


@pytest.mark.parametrize(
    ("network", "length"), [("10.5.0.0/22", 24), ("10.5.0.0/23", 25), ("10.5.0.0/26", 28)]
)
def test_small_overlays_get_the_subnets_that_flannel_would_cut(network: str, length: int) -> None:
    """flannel's default is a /24, or a quarter of the network when that holds fewer than four."""
    lab = labfile.loads(f"overlay: {{network: {network}}}", "lab.yaml")
    assert lab.overlay.subnet_length == length


def test_addresses_left_out_go_round_those_that_are_taken() -> None:
    """node NN has .20+NN unless another node has it."""
    text = "nodes: {a: {address: 192.168.56.22}, b: , c: , d: {address: 192.168.56.24}, e: }"
    lab = labfile.loads(text, "lab.yaml")
    assert [str(n.address.ip)[-2:] for n in lab.nodes] == ["22", "23", "25", "24", "26"]


def test_addresses_come_round_in_a_small_network() -> None:
    """A /28 has no .21 of its own to start from; all of its 14 hosts are used in the end."""
    nodes = "".join(f"  n{i}:\n" for i in range(14))
    lab = labfile.loads(f"underlay: {{network: 192.168.56.16/28}}\nnodes:\n{nodes}", "lab.yaml")
    hosts = sorted(int(node.address.ip) & 0xFF for node in lab.nodes)
    assert hosts == list(range(17, 31))


def test_containers_are_counted_per_node() -> None:
    """A node's first container is called after its position, further ones get a number."""
    lab = labfile.loads("nodes: {a: {containers: 3}, b: }", "lab.yaml")
    assert [(c.full_name, c.host_number, c.veth) for c in lab.containers] == [
        ("a/container01", 10, "vethlocal"),
        ("a/container01-2", 11, "vethlocal2"),
        ("a/container01-3", 12, "vethlocal3"),
        ("b/container02", 10, "vethlocal"),
    ]


def test_two_nodes_may_use_the_same_container_name() -> None:
    """Container names are told apart by their node."""
    lab = labfile.loads("nodes: {a: {containers: [web]}, b: {containers: [web]}}", "lab.yaml")
    assert [c.full_name for c in lab.containers] == ["a/web", "b/web"]


def test_aliases_repeat_what_they_stand_for() -> None:
    """YAML's anchors save typing, as in any YAML file."""
    lab = labfile.loads("nodes: {a: &a {containers: 2}, b: *a}", "lab.yaml")
    assert [len(node.containers) for node in lab.nodes] == [2, 2]


@pytest.mark.parametrize(
    "text",
    [
        "underlay: {mtu: 626}",
        "underlay: {mtu: 65535}",
        "underlay: {mtu: 1330}\nipv6: true",
        "underlay: {mtu: 576}\noverlay: {backend: {Type: host-gw}}",
        "underlay: {mtu: 604}\noverlay: {backend: {Type: udp}}",
        "overlay: {backend: {MTU: 626}}",
        "overlay: {backend: {MTU: 1500}}",
        "overlay: {backend: {VNI: 9999999}}",
        "overlay: {backend: {Port: 65535}}",
        "overlay: {subnet_length: 28}\nnodes: {a: {containers: 5}}",
        "overlay: {subnet_length: 30}\nnodes: {a: {containers: 0}}",
        "overlay: {subnet_min: 10.5.3.0, subnet_max: 10.5.3.0}\nnodes: {a: }",
        "overlay: {network: 10.5.0.0/24, subnet_length: 26}\nnodes: {a: , b: , c: }",
        "overlay: {subnet_min: 10.5.0.0}\nnodes: {a: {subnet: 10.5.0.0/24}}",
        "nodes: {a: {subnet: 10.5.1.0/24}, b: {subnet: 10.5.255.0/24}}",
        "nodes: {a: {address: 192.168.56.1}, b: {address: 192.168.56.254}}",
        "nodes: {a: {containers: 245}}",
        "nodes: {fifteen-letters: }",
        "underlay: {interface: fifteen_letters}",
        "underlay: {interface: bond0.100}",
        "etcd: {heartbeat_interval: 100, election_timeout: 500}",
        f"name: {'a' * 31}",
    ],
)
def test_the_last_value_that_is_still_right_passes(text: str) -> None:
    """The near side of the edges whose far side is among the golden cases."""
    assert labfile.loads(text, "lab.yaml").source == "lab.yaml"


# Larger labs


@pytest.mark.parametrize(
    ("nodes", "underlay", "overlay", "last"),
    [
        (1, "192.168.56.0/24", "10.5.0.0/16", "192.168.56.21/24"),
        (234, "192.168.56.0/24", "10.5.0.0/16", "192.168.56.254/24"),
        (235, "192.168.0.0/16", "10.5.0.0/16", "192.168.1.1/16"),
        (255, "192.168.0.0/16", "10.5.0.0/16", "192.168.1.21/16"),
        (256, "192.168.0.0/16", "10.0.0.0/8", "192.168.1.22/16"),
        (300, "192.168.0.0/16", "10.0.0.0/8", "192.168.1.66/16"),
        (1023, "192.168.0.0/16", "10.0.0.0/8", "192.168.4.27/16"),
    ],
)
def test_default_widens_its_networks(nodes: int, underlay: str, overlay: str, last: str) -> None:
    """Many nodes need more addresses and more subnets; subnets stay /24, the container's .10."""
    lab = labfile.default(nodes)
    assert [str(lab.underlay.network), str(lab.overlay.network)] == [underlay, overlay]
    assert [lab.nodes[-1].name, str(lab.nodes[-1].address)] == [f"node{nodes:02d}", last]
    assert lab.overlay.subnet_length == 24
    assert len({node.address for node in lab.nodes}) == nodes


@pytest.mark.parametrize(("nodes", "name"), [(0, "a"), (-1, "a"), (1024, "a"), (2, ""), (2, "A")])
def test_default_refuses_what_no_lab_can_have(nodes: int, name: str) -> None:
    """Counts and names come from the command line and are held to the same rules."""
    with pytest.raises(LabFileError, match="the lab file has a problem"):
        labfile.default(nodes, name)


def test_default_needs_no_yaml_library() -> None:
    """The lab without a file starts without the import of a parser."""
    code = (
        "import sys; from vxlab import labfile; labfile.dumps(labfile.default(300)); "
        "sys.exit('yaml' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# There and back


@pytest.mark.parametrize("name", LAB_NAMES)
def test_dumps_and_loads_are_inverse_for_the_labs(name: str) -> None:
    """A stored lab is the lab it was."""
    lab = labfile.load(LABS / f"{name}.yaml")
    assert labfile.loads(labfile.dumps(lab), "stored") == lab


def test_dumps_keeps_what_is_pinned_and_the_order() -> None:
    """Pinned subnets, bounds, absent containers and the order of options survive."""
    text = """
      overlay: {subnet_min: 10.5.2.0, subnet_max: 10.5.9.0, backend: {VNI: 2, Type: vxlan}}
      nodes: {z: {containers: 0}, a: {containers: 2, subnet: 10.5.3.0/24}}
    """
    lab = labfile.loads(text, "lab.yaml")
    again = labfile.loads(labfile.dumps(lab), "stored")
    assert again == lab
    assert list(again.overlay.backend) == ["VNI", "Type"]
    assert labfile.dumps(again) == labfile.dumps(lab)


def test_the_largest_lab_can_be_stored_and_read(tmp_path: Path) -> None:
    """1023 nodes and 10000 containers with the longest names stay within what is read."""
    left = 10_000
    document: dict[str, dict[str, Any]] = {
        "underlay": {"network": "172.16.0.0/16"},
        "overlay": {"network": "10.0.0.0/8"},
        "nodes": {},
    }
    for number in range(1023):
        names = [f"c{n:062d}" for n in range(min(245, left))]
        left -= len(names)
        subnet = f"10.{number // 256 + 1}.{number % 256}.0/24"
        document["nodes"][f"n{number:014d}"] = {"containers": names, "subnet": subnet}
    lab = labfile.loads(json.dumps(document), "lab.yaml")
    path = tmp_path / "stored.json"
    path.write_text(labfile.dumps(lab), encoding="utf-8")
    assert labfile.load(path) == lab
    assert len(lab.containers) == 10_000


# What is said


@pytest.mark.parametrize("name", CASE_NAMES)
def test_golden_case(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every mistake is reported with its line, what is there, what could be and a way out."""
    if name.startswith("syntax-") and not yaml.__with_libyaml__:
        pytest.skip("libyaml is missing, and PyYAML's own parser words syntax errors differently")
    monkeypatch.chdir(CASES)
    with pytest.raises(LabFileError) as caught:
        labfile.load(Path(f"{name}.yaml"))
    expected = CASES / f"{name}.txt"
    if REGENERATE:
        expected.write_text(caught.value.detail + "\n", encoding="utf-8")
    assert caught.value.detail + "\n" == expected.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [n for n in CASE_NAMES if not n.startswith("syntax-")])
def test_golden_case_without_libyaml(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyYAML's own parser leads to the same words."""
    plain_pyyaml(monkeypatch)
    test_golden_case(name, monkeypatch)


@pytest.mark.parametrize("name", [n for n in CASE_NAMES if n.startswith("syntax-")])
def test_syntax_errors_without_libyaml(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyYAML's own parser has other words, and they come as one problem with a line."""
    plain_pyyaml(monkeypatch)
    with pytest.raises(LabFileError) as caught:
        labfile.load(CASES / f"{name}.yaml")
    assert [problem.line > 0 for problem in caught.value.problems] == [True]


@pytest.mark.parametrize("text", [r'name: "\UFFFFFFFF"', f"%YAML 1.{'1' * 5000}\n---\n"])
def test_numbers_that_stop_the_plain_scanner(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyYAML's own scanner raises plain Python errors for these; a problem comes out."""
    plain_pyyaml(monkeypatch)
    assert problems(text) == [(1, "")]


def test_every_case_is_expected_somewhere() -> None:
    """No expectation outlives its case."""
    assert sorted(path.stem for path in CASES.glob("*.txt")) == CASE_NAMES


def test_the_error_carries_every_problem() -> None:
    """Programs get the problems as data, in the order of the lines."""
    with pytest.raises(LabFileError) as caught:
        labfile.loads("nodes:\n  node01: {adress: 1}\nname: Talk\n", "lab.yaml")
    error = caught.value
    expected = (
        Problem(
            "lab.yaml",
            2,
            "nodes.node01.adress",
            "an unknown key",
            "one of ssh, address, interface, containers, subnet",
            "did you mean address?",
        ),
        Problem(
            "lab.yaml",
            3,
            "name",
            "'Talk'",
            "at most 31 lowercase letters, digits and hyphens, no hyphen first",
            "such as talk",
        ),
    )
    assert error.problems == expected
    assert error.exit_code == 65
    assert error.message == "the lab file has 2 problems"
    assert error.where == "lab.yaml"
    listed = json.loads(json.dumps(error.as_json()))["problems"]
    assert [Problem(**fields) for fields in listed] == list(expected)


def test_a_mistake_is_reported_once() -> None:
    """What depends on a wrong value is not reported with it."""
    assert problems("underlay: {network: nonsense}\nnodes: {a: {address: 10.0.0.1}}") == [
        (1, "underlay.network")
    ]
    assert problems("underlay:\n  netwrk: 10.0.0.0/24\nnodes: {a: {address: 10.0.0.1}}") == [
        (2, "underlay.netwrk")
    ]
    assert problems("nodes: 5\netcd: {node: b}") == [(1, "nodes")]


def test_a_wrong_key_does_not_hide_what_is_under_it() -> None:
    """A node with an impossible name is still looked at."""
    assert problems("nodes:\n  A:\n    address: 10.0.0.1\n") == [
        (2, "nodes.A"),
        (3, "nodes.A.address"),
    ]


def test_the_list_of_problems_ends() -> None:
    """A file of nonsense does not fill the terminal."""
    text = "\n".join(f"key{n}: 1" for n in range(1000))
    with pytest.raises(LabFileError, match="at least 100 problems") as caught:
        labfile.loads(text, "lab.yaml")
    assert len(caught.value.problems) == 100


def test_aliases_cannot_make_a_short_file_long() -> None:
    """A list of a thousand names on a thousand nodes is a million containers in a few lines."""
    names = ", ".join(f"c{n}" for n in range(1000))
    nodes = "\n".join(f"  n{n}: *all" for n in range(1000))
    text = f"nodes:\n  n: &all {{containers: [{names}]}}\n{nodes}\n"
    assert problems(text) == [(1, "")]


def test_half_characters_are_a_problem() -> None:
    """Text from elsewhere can hold lone surrogates, which no YAML can."""
    assert problems("name: talk\nnodes: \ud800") == [(2, "")]


@pytest.mark.parametrize("source", ["a\nb.yaml", "\x1b[31m.yaml"])
def test_a_problem_is_one_printable_line(source: str) -> None:
    """Neither the file's name nor its content can write on the terminal."""
    with pytest.raises(LabFileError) as caught:
        labfile.loads('"\\e\\n": "\\e\\n"', source)
    assert [str(p).isprintable() for p in caught.value.problems] == [True]


# Files that cannot be read


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    """The name of the file and the system's words are in the error."""
    path = tmp_path / "none.yaml"
    with pytest.raises(LabFileError) as caught:
        labfile.load(path)
    assert caught.value.detail == (
        f"{path}: found no such file or directory, wanted a readable lab file"
    )


def test_a_directory_is_no_lab_file(tmp_path: Path) -> None:
    """A directory is refused in the system's words."""
    with pytest.raises(LabFileError) as caught:
        labfile.load(tmp_path)
    assert caught.value.problems[0].found == "is a directory"


def test_a_path_that_cannot_be_is_no_lab_file() -> None:
    """A NUL in a path is an error of the path, not of vxlab."""
    with pytest.raises(LabFileError) as caught:
        labfile.load(Path("a\0b"))
    assert caught.value.problems[0].wanted == "a readable lab file"


def test_an_endless_file_is_refused() -> None:
    """No more than 1 MiB is read of anything."""
    with pytest.raises(LabFileError) as caught:
        labfile.load(Path("/dev/zero"))
    assert caught.value.problems[0].found == "more than 1 MiB"


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    """Some editors put one there."""
    path = tmp_path / "lab.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: marked\n")
    assert labfile.load(path).name == "marked"


# The labs that come with vxlab


def test_the_labs_have_names_of_their_own() -> None:
    """All of them can be up at once."""
    names = [labfile.load(LABS / f"{name}.yaml").name for name in LAB_NAMES]
    expected = ["direct-routing", "four-node", "host-gw", "jumbo", "talk-ssh", "talk", "vni-port"]
    assert names == expected


def test_two_node_is_the_default() -> None:
    """two-node.yaml spells out what an empty file means."""
    assert labfile.load(LABS / "two-node.yaml") == labfile.default()


def test_two_node_spells_everything_out() -> None:
    """Every key of the file is there to be changed, except those that replace a choice."""
    written = yaml.safe_load((LABS / "two-node.yaml").read_text(encoding="utf-8"))
    stored = json.loads(labfile.dumps(TALK))
    for node in stored["nodes"].values():
        node["address"] = node["address"].partition("/")[0]
    assert written == stored


def test_four_node_has_eight_containers() -> None:
    """Two containers a node, at .10 and .11, the last two with names of their own."""
    lab = labfile.load(LABS / "four-node.yaml")
    assert [str(node.address.ip) for node in lab.nodes] == [
        f"192.168.56.{host}" for host in range(21, 25)
    ]
    assert [c.host_number for c in lab.containers] == [10, 11] * 4
    assert [c.name for c in lab.containers[:2]] == ["container01", "container01-2"]
    assert [c.name for c in lab.nodes[3].containers] == ["web", "db"]


def test_jumbo_leaves_8950_bytes() -> None:
    """9000 less VXLAN's 50; a ping adds 28 bytes of headers."""
    lab = labfile.load(LABS / "jumbo.yaml")
    assert [lab.underlay.mtu, lab.overlay_mtu, lab.overlay_mtu - 28] == [9000, 8950, 8922]


def test_host_gw_leaves_the_full_mtu() -> None:
    """Nothing is put in front of a packet."""
    lab = labfile.load(LABS / "host-gw.yaml")
    assert [lab.overlay.backend_type, lab.overlay_mtu] == ["host-gw", 1500]
    assert dict(lab.overlay.backend) == {"Type": "host-gw"}


def test_direct_routing_keeps_the_mtu_of_the_tunnel() -> None:
    """The tunnel may be needed one day."""
    lab = labfile.load(LABS / "direct-routing.yaml")
    assert [lab.overlay.direct_routing, lab.overlay_mtu] == [True, 1450]
    assert dict(lab.overlay.backend) == {"Type": "vxlan", "DirectRouting": True}


def test_vni_port_uses_both() -> None:
    """VNI 42 on IANA's port."""
    lab = labfile.load(LABS / "vni-port.yaml")
    assert [lab.overlay.vni, lab.overlay.port] == [42, 4789]
    assert dict(lab.overlay.backend) == {"Type": "vxlan", "VNI": 42, "Port": 4789}


@pytest.mark.parametrize("name", LAB_NAMES)
def test_the_labs_point_editors_to_the_schema(name: str) -> None:
    """The first line is the one that YAML language servers look for."""
    first = (LABS / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=vxlab.schema.json"


# The schema


def test_backend_options_are_those_of_the_forms() -> None:
    """The table behind the hint knows what the forms know."""
    forms: dict[str, type[msgspec.Struct]]
    forms = {"vxlan": labform.VxlanForm, "host-gw": labform.HostGwForm, "udp": labform.UdpForm}
    options: dict[str, tuple[str, ...]] = {}
    for kind, form in forms.items():
        for field in msgspec.structs.fields(form):
            options[field.encode_name] = (*options.get(field.encode_name, ()), kind)
    assert options == labform.BACKEND_OPTIONS


def test_the_schema_file_is_current() -> None:
    """Editors see the form that vxlab reads."""
    path = LABS / "vxlab.schema.json"
    if REGENERATE:
        path.write_text(json.dumps(labfile.schema(), indent=2) + "\n", encoding="utf-8")
    assert json.loads(path.read_text(encoding="utf-8")) == labfile.schema()


@pytest.mark.parametrize("name", LAB_NAMES)
def test_the_schema_takes_the_labs(name: str) -> None:
    """An editor shows no error in a lab that works, written by hand or stored."""
    path = LABS / f"{name}.yaml"
    jsonschema.validate(yaml.safe_load(path.read_text(encoding="utf-8")), labfile.schema())
    jsonschema.validate(json.loads(labfile.dumps(labfile.load(path))), labfile.schema())


@pytest.mark.parametrize(
    "document",
    [
        {"nme": "talk"},
        {"name": "Talk"},
        {"name": "talk\n"},
        {"underlay": {"mtu": 67}},
        {"underlay": {"interface": "lo"}},
        {"overlay": {"network": "10.5.0.0"}},
        {"overlay": {"backend": {"Type": "host-gw", "VNI": 1}}},
        {"nodes": {}},
        {"nodes": {"switch": None}},
        {"nodes": {"a": {"containers": ["web", "Web"]}}},
        {"nodes": {"a": {"ssh": "-oProxyCommand=x", "address": "10.0.0.1"}}},
        {"nodes": {"a": {"ssh": "h:65536", "address": "10.0.0.1"}}},
        {"nodes": {"a": {"ssh": "h", "interface": "cbr0"}}},
    ],
)
def test_the_schema_refuses_what_the_form_refuses(document: object) -> None:
    """An editor underlines what vxlab would refuse."""
    assert problems(json.dumps(document)) != []
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, labfile.schema())
