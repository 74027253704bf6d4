"""Real hosts in a lab file: what is known of them before they were asked, and what is stored.

What is refused is among the golden cases of `test_labfile`, ``cases/labfile/hosts-*``.
"""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import jsonschema
import pytest

from vxlab import labfile
from vxlab.lab import ANYWHERE, UNKNOWN, Container, Etcd, Lab, Node, Overlay, Underlay
from vxlab.labfile import LabFileError

LABS = Path(__file__).parent.parent / "labs"

TALK_SSH = Lab(
    name="talk-ssh",
    underlay=Underlay(ANYWHERE, 0, ""),
    overlay=Overlay(IPv4Network("10.5.0.0/16"), 24, {"Type": "vxlan"}),
    etcd=Etcd("node01", 2379, 10, 50),
    nodes=(
        Node(
            "node01",
            IPv4Interface("192.168.56.21/32"),
            (Container("container01", "node01", 10, "vethlocal"),),
            ssh="vagrant@192.168.56.21",
        ),
        Node(
            "node02",
            IPv4Interface("192.168.56.22/32"),
            (Container("container02", "node02", 10, "vethlocal"),),
            ssh="vagrant@192.168.56.22",
        ),
    ),
)


def read(text: str) -> Lab:
    return labfile.loads(text, "lab.yaml")


def stored(lab: Lab) -> Lab:
    """The lab as it is after it was stored and read again; an editor takes what is stored."""
    text = labfile.dumps(lab)
    jsonschema.validate(json.loads(text), labfile.schema())
    return labfile.loads(text, "stored")


def problems(text: str) -> list[tuple[int, str]]:
    """Line and path of everything that is wrong with a text."""
    with pytest.raises(LabFileError) as caught:
        read(text)
    return [(problem.line, problem.path) for problem in caught.value.problems]


# What a file describes


def test_two_hosts_are_the_talk_on_machines_that_are_not_ours() -> None:
    """Everything but the underlay is the talk's; that is the hosts' own."""
    assert labfile.load(LABS / "ssh-two-hosts.yaml") == TALK_SSH


def test_what_is_commented_out_in_the_shipped_lab_works() -> None:
    """Taking away the # gives plain http."""
    text = (LABS / "ssh-two-hosts.yaml").read_text(encoding="utf-8")
    lab = read(text.replace("# etcd:", "etcd:"))
    assert lab == replace(TALK_SSH, etcd=Etcd("node01", 2379, 10, 50, insecure=True))


def test_every_key_reaches_the_lab() -> None:
    """Each key of the form has its place in a lab of real hosts."""
    text = """
      underlay: {network: 10.0.0.0/8, mtu: 1400, interface: ens3}
      overlay: {network: 172.16.0.0/16, backend: {MTU: 1400}}
      etcd: {node: b, insecure: true}
      nodes:
        a: {ssh: vm-a, address: 10.0.0.1, containers: [web, db], subnet: 172.16.3.0/24}
        b: {ssh: "me@[fe80::1%eth0]:2222", address: 10.1.0.1/24, interface: eth1, containers: 0}
        c: {ssh: "vm-c:65535"}
    """
    lab = read(text)
    containers = (Container("web", "a", 10, "vethlocal"), Container("db", "a", 11, "vethlocal2"))
    third = (Container("container03", "c", 10, "vethlocal"),)
    subnet = IPv4Network("172.16.3.0/24")
    assert lab.underlay == Underlay(IPv4Network("10.0.0.0/8"), 1400, "ens3")
    assert lab.etcd == Etcd("b", 2379, 10, 50, insecure=True)
    assert lab.nodes == (
        Node("a", IPv4Interface("10.0.0.1/32"), containers, subnet, "vm-a", "ens3"),
        Node("b", IPv4Interface("10.1.0.1/24"), (), None, "me@[fe80::1%eth0]:2222", "eth1"),
        Node("c", UNKNOWN, third, None, "vm-c:65535", "ens3"),
    )
    assert [lab.nic(node) for node in lab.nodes] == ["ens3", "eth1", "ens3"]
    assert stored(lab) == lab


@pytest.mark.parametrize(
    "target",
    [
        "vm",
        "VM_1.example.org",
        "host.",
        "192.168.56.21",
        "[::1]",
        "[fe80::1%eth0]:22",
        "me@host",
        "me@example.org@host:1",
        r"EXAMPLE\me@host",
        "me_2.b+c-d@host:65535",
        "21",
    ],
)
def test_the_target_is_kept_as_it_was_written(target: str) -> None:
    """What OpenSSH makes of it is for the OpenSSH configuration to say."""
    lab = read(json.dumps({"nodes": {"a": {"ssh": target, "address": "10.0.0.1"}}}))
    assert [node.ssh for node in lab.nodes] == [target]
    assert stored(lab) == lab


@pytest.mark.parametrize(
    "text",
    [
        "nodes: {a: {ssh: 'vm:22', address: 10.0.0.1}, b: {ssh: 'vm:2222', address: 10.0.0.2}}",
        "nodes: {a: {ssh: '[::1]', address: 10.0.0.1}, b: {ssh: '[::2]', address: 10.0.0.2}}",
        "nodes: {a: {ssh: a, interface: eth0}, b: {ssh: b, interface: eth0}}",
        "underlay: {interface: eth1}\nnodes: {a: {ssh: a}, b: {ssh: b}}",
        "underlay: {network: 10.0.0.0/31}\n"
        "nodes: {a: {ssh: a, address: 10.0.0.0/31}, b: {ssh: b, address: 10.0.0.1/31}}",
        "nodes: {a: {ssh: a, address: 10.4.255.255}, b: {ssh: b, address: 10.6.0.0}}",
        "nodes: {a: {ssh: a, address: 1.0.0.1}, b: {ssh: b, address: 223.255.255.254}}",
        "overlay: {backend: {MTU: 65535}}\nnodes: {a: {ssh: a, address: 10.0.0.1}}",
        "overlay: {backend: {Type: host-gw}}\n"
        "nodes: {a: {ssh: a, address: 10.0.0.1/24}, b: {ssh: b, address: 10.0.1.1/24}}",
        "etcd: {insecure: false}",
    ],
)
def test_the_last_value_that_is_still_right_passes(text: str) -> None:
    """The near side of the edges whose far side is among the golden cases."""
    lab = read(text)
    assert stored(lab) == lab


def test_as_many_hosts_as_connections() -> None:
    """250 hosts are taken, 251 are among the golden cases."""
    nodes = {f"n{i}": {"ssh": f"h{i}", "address": f"10.0.0.{i}"} for i in range(1, 251)}
    lab = read(json.dumps({"nodes": nodes}))
    assert len(lab.nodes) == 250
    assert stored(lab) == lab


def test_a_hosts_address_is_not_held_against_the_talks_network() -> None:
    """Hosts may be in different networks with routers between them."""
    lab = read("nodes: {a: {ssh: a, address: 10.0.0.1}, b: {ssh: b, address: 172.16.0.1/12}}")
    assert [str(node.address) for node in lab.nodes] == ["10.0.0.1/32", "172.16.0.1/12"]
    assert lab.underlay.network == ANYWHERE


# What is not known yet


def test_the_mtu_is_unknown_until_the_hosts_were_asked() -> None:
    """No number is made up; where flannel's own option says one, that is the one."""
    host = "nodes: {a: {ssh: a, interface: eth1}}"
    assert read(host).overlay_mtu == 0
    assert read(f"overlay: {{backend: {{Type: host-gw}}}}\n{host}").overlay_mtu == 0
    assert read(f"overlay: {{backend: {{MTU: 1400}}}}\n{host}").overlay_mtu == 1350
    assert read(f"underlay: {{mtu: 1400}}\n{host}").overlay_mtu == 1350


def test_a_host_told_by_its_interface_has_no_address_yet() -> None:
    """It is looked up on the host, and so is the interface of one that is told by its address."""
    lab = read("nodes: {a: {ssh: a, interface: eth1}, b: {ssh: b, address: 10.0.0.1}}")
    assert [node.address for node in lab.nodes] == [UNKNOWN, IPv4Interface("10.0.0.1/32")]
    assert [lab.nic(node) for node in lab.nodes] == ["eth1", ""]


def test_real_hosts_speak_tls_unless_told_otherwise() -> None:
    """The scheme of etcd's URL tells."""
    host = "nodes: {a: {ssh: a, address: 10.0.0.1}}"
    assert [read(host).tls, read(host).etcd_url] == [True, "https://10.0.0.1:2379"]
    plain = read(f"etcd: {{insecure: yes}}\n{host}")
    assert [plain.tls, plain.etcd_url] == [False, "http://10.0.0.1:2379"]
    assert [read("").remote, read("").tls] == [False, False]


# There and back


def test_a_lab_whose_hosts_were_asked_is_stored_with_the_answers() -> None:
    """Real prefix lengths, interfaces and the MTU come back as they were, /31 and /32 too."""
    lab = read(
        "nodes: {a: {ssh: a, interface: eth1}, b: {ssh: b, address: 10.0.0.2}, "
        "c: {ssh: c, address: 10.0.0.3}}"
    )
    answers = {"a": "10.0.0.0/31", "b": "10.0.0.2/24", "c": "10.0.0.3/32"}
    nodes = tuple(
        replace(node, address=IPv4Interface(answers[node.name]), interface="enp0s8")
        for node in lab.nodes
    )
    asked = replace(lab, nodes=nodes, underlay=replace(lab.underlay, mtu=1460))
    assert stored(asked) == asked
    assert stored(asked).overlay_mtu == 1410


def test_an_underlay_that_turns_out_to_be_in_the_overlay_is_not_stored_in_silence() -> None:
    """Reading a stored lab checks what the hosts said, as if the user had written it."""
    lab = read("nodes: {a: {ssh: a, interface: eth1}}")
    found = replace(lab.nodes[0], address=IPv4Interface("10.5.0.7/24"))
    with pytest.raises(LabFileError, match="the lab file has a problem") as caught:
        stored(replace(lab, nodes=(found,)))
    assert [problem.path for problem in caught.value.problems] == ["overlay.network"]


def test_a_stored_local_lab_says_nothing_of_hosts() -> None:
    """`two-node.yaml` is the whole of it."""
    text = labfile.dumps(labfile.default())
    assert [word for word in ("ssh", "insecure") if word in text] == []


def test_the_largest_lab_of_hosts_can_be_stored_and_read(tmp_path: Path) -> None:
    """250 hosts with the longest targets and 10000 containers stay within what is read."""
    nodes = {
        f"n{number:014d}": {
            "ssh": f"{'u' * 240}@h{number:03d}:65535"[-255:],
            "address": str(IPv4Address("192.168.100.100") + number),
            "interface": "i" * 15,
            "containers": [f"c{n:062d}" for n in range(40)],
            "subnet": f"10.100.{number}.0/24",
        }
        for number in range(1, 251)
    }
    lab = read(json.dumps({"overlay": {"network": "10.0.0.0/8"}, "nodes": nodes}))
    path = tmp_path / "stored.json"
    path.write_text(labfile.dumps(lab), encoding="utf-8")
    assert labfile.load(path) == lab
    assert len(lab.containers) == 10_000


# What is said


def test_nodes_with_a_wrong_ssh_are_real_hosts_all_the_same() -> None:
    """A mistake is reported once, not as a mix of hosts and local nodes with what follows."""
    text = """\
etcd: {insecure: true}
nodes:
  a: {ssh: h, address: 10.0.0.1}
  b: {shh: h2, address: 10.0.0.2}
  c: {ssh: -x, interface: eth1}
  d: 5
"""
    assert problems(text) == [(4, "nodes.b.shh"), (5, "nodes.c.ssh"), (6, "nodes.d")]


@pytest.mark.parametrize(
    ("nodes", "path"),
    [
        ("5", "nodes"),
        ("{a: 5}", "nodes.a"),
        ("{a: {ssh: -x, interface: eth1}}", "nodes.a.ssh"),
        ("{a: {ssh: h, address: x}}", "nodes.a.address"),
        ("{a: {ssh: h, interface: x y}}", "nodes.a.interface"),
        ("{a: {ssh: h, adress: 10.0.0.1}}", "nodes.a.adress"),
        ("{a: {ssh: h, interface: eth1}, a: {ssh: h, interface: eth1}}", "nodes.a"),
    ],
)
def test_what_only_hosts_have_is_no_second_problem(nodes: str, path: str) -> None:
    """Whether the nodes are real hosts is not guessed from what could not be understood."""
    assert problems(f"etcd: {{insecure: true}}\nnodes: {nodes}\n") == [(2, path)]


def test_a_wrong_interface_for_all_is_no_second_problem() -> None:
    """The hosts have one, if not a good one."""
    text = "underlay: {interface: lo}\nnodes: {a: {ssh: a}, b: {ssh: b}}"
    assert problems(text) == [(1, "underlay.interface")]


def test_a_wrong_target_does_not_hide_the_address() -> None:
    """All that is wrong with a host is said at once."""
    assert problems("nodes:\n  a:\n    ssh: -x\n    address: 127.0.0.1\n") == [
        (3, "nodes.a.ssh"),
        (4, "nodes.a.address"),
    ]


def test_a_password_is_not_repeated() -> None:
    """One that was put where it does not belong goes neither to the terminal nor to a log."""
    with pytest.raises(LabFileError) as caught:
        read("nodes: {a: {ssh: 'me:secret@host', address: 10.0.0.1}}")
    assert "secret" not in json.dumps(caught.value.as_json())
    assert "a password" in caught.value.detail
