"""What a node looks like: the snapshot program's output and what is made of it.

Golden cases are pairs of files in ``cases/state``: NAME.txt, what the program printed, and
NAME.json, the state. ``node01`` and ``switch`` were printed by a lab, the others were written for
what a lab does not show when all is well.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golden import CASES, agrees
from vxlab.state import (
    SYSCTLS,
    Firewall,
    Net,
    Route,
    SnapshotError,
    State,
    SubnetEnv,
    parse,
    parse_proc_route,
    parse_subnet_env,
    program,
)

NAMES = sorted(path.stem for path in (CASES / "state").glob("*.txt"))
REAL = (CASES / "state" / "node01.txt").read_text(encoding="utf-8")
ENV = """\
FLANNEL_NETWORK=10.5.0.0/16
FLANNEL_SUBNET=10.5.74.1/24
FLANNEL_MTU=1450
FLANNEL_IPMASQ=false
"""
LEASE = SubnetEnv(IPv4Network("10.5.0.0/16"), IPv4Interface("10.5.74.1/24"), 1450)


@pytest.mark.parametrize("name", NAMES)
def test_golden_case(name: str) -> None:
    """Everything that a check or a plan may ask about a node."""
    output = (CASES / "state" / f"{name}.txt").read_text(encoding="utf-8")
    shown = json.dumps(asdict(parse(output)), indent=1, default=str) + "\n"
    agrees(f"state/{name}.json", shown)


def test_a_real_node() -> None:
    """The talk's node01, in a few words."""
    state = parse(REAL)
    flannel = state.net.links["flannel.1"]
    assert state.subnet_env == LEASE
    assert (flannel.kind, flannel.mtu, flannel.vxlan and flannel.vxlan.vni) == ("vxlan", 1450, 1)
    assert state.net_of("container01").links["vethNS"].addresses == ("10.5.74.10/24",)
    assert state.net_of("container01").route("default") == Route(
        "default", "10.5.74.1", "vethNS", "boot", "global"
    )
    assert {name: p.alive for name, p in state.daemons.items()} == {"etcd": True, "flannel": True}
    assert state.daemons["etcd"].command.split()[0] == "/usr/local/bin/etcd"
    assert [(s.port, s.process) for s in state.udp] == [(8472, "")]


def test_the_network_of_what_is_not_there_is_empty() -> None:
    """A container that does not run has no interface; that is an answer, not an error."""
    assert State().net_of("container01") == Net()
    assert State().net_of("") == Net()
    assert Net().route("default") is None


# --- the program --------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("files", [None, (), ("/run/it's here", "/var/log/etcd.log")])
def test_the_program_is_a_shell_program(inside: bool, files: tuple[str, ...] | None) -> None:
    """A shell can read it, and it asks for every sysctl that a snapshot holds."""
    text = program(inside=inside, files=files)
    read = subprocess.run(
        ["sh", "-n"], input=text, capture_output=True, text=True, check=False, timeout=10
    )
    assert (read.returncode, read.stderr) == (0, "")
    assert [key.replace(".", "/") in text for key in SYSCTLS] == [True] * len(SYSCTLS)


def test_a_node_of_this_machine_is_not_asked_what_it_lends() -> None:
    """Its firewall and its files go with its namespaces: a snapshot need not read them."""
    text = program()
    assert [word for word in ("iptables", "nft", "sha256sum", "conf/*") if word in text] == []


def test_a_real_host_is_asked_for_files_that_a_shell_would_take_apart() -> None:
    """The paths are words of their own, whatever is in them."""
    text = program(files=("/run/it's here", "/var/$(reboot)"))
    assert """for f in '/run/it'"'"'s here' '/var/$(reboot)'; do""" in text


# --- a real host --------------------------------------------------------------------------------


def lends(*sections: str) -> State:
    """A snapshot of node01 with what only a real host tells."""
    return parse(REAL.replace("@@ end\n", "\n".join((*sections, "@@ end", ""))))


def test_a_node_of_this_machine_has_no_firewall_of_its_own() -> None:
    """Not asked is not the same as nothing there."""
    state = parse(REAL)
    assert (state.files, state.firewall) == ({}, None)


@pytest.mark.parametrize(
    ("sections", "firewall"),
    [
        (["@@ firewall", "@@ nft"], Firewall("", False, False, False)),
        (["@@ firewall"], Firewall("", False, False, False)),
        (["@@ firewall", "policy DROP"], Firewall("DROP", True, True, False)),
        (["@@ firewall", "policy DROP", "@@ nft"], Firewall("DROP", False, False, False)),
        (
            ["@@ firewall", "policy ACCEPT", "@@ nft", "table", "chain INPUT"],
            Firewall("ACCEPT", True, False, False),
        ),
        (
            ["@@ firewall", "policy ACCEPT", "flannel", "@@ nft", "table", "chain FORWARD"],
            Firewall("ACCEPT", True, True, True),
        ),
        (
            ["@@ firewall", "@@ nft", "table", "chain FORWARD"],
            Firewall("", True, True, False),
        ),
    ],
    ids=["nothing", "nothing, no nft", "no nft", "legacy", "other chain", "flannel", "foreign"],
)
def test_the_firewall(sections: list[str], firewall: Firewall) -> None:
    """The FORWARD chain's policy, flannel's rules, and what iptables-nft made for itself.

    Without nft a table that iptables tells of is one, with its chains. Where both are there and
    only iptables knows the table, it is its older variant, which has its own.
    """
    assert lends(*sections).firewall == firewall


def test_files() -> None:
    """A digest, or a word for what has no contents to compare; paths may have blanks."""
    digest = "0" * 64
    lines = [f"{digest}  /a/b c", "directory /run/etcd", "log /var/log/etcd.log"]
    assert lends("@@ files", *lines).files == {
        "/a/b c": digest,
        "/run/etcd": "directory",
        "/var/log/etcd.log": "log",
    }


def test_a_line_that_is_no_file() -> None:
    """A word alone: a program's complaint."""
    with pytest.raises(SnapshotError, match="cannot read the snapshot"):
        lends("@@ files", "sha256sum:")


def test_sysctls_of_interfaces() -> None:
    """sysctl(8)'s names: a dot in an interface's name is a slash there."""
    state = lends(
        "@@ forwarding",
        "net/ipv4/conf/all/forwarding 1",
        "net/ipv4/conf/eth0.100/forwarding 0",
        "net/ipv4/conf/all/accept_redirects 0",
    )
    assert state.net.sysctls == {
        **parse(REAL).net.sysctls,
        "net.ipv4.conf.all.forwarding": "1",
        "net.ipv4.conf.eth0/100.forwarding": "0",
        "net.ipv4.conf.all.accept_redirects": "0",
    }


@given(st.sampled_from(["firewall", "nft", "files", "forwarding"]), st.lists(st.text()))
def test_garbage_from_a_real_host(section: str, lines: list[str]) -> None:
    """Whatever the tools print there."""
    parses(REAL.replace("@@ end\n", "\n".join((f"@@ {section}", *lines, "@@ end", ""))))


# --- output that is not whole -------------------------------------------------------------------


def test_output_that_is_cut_off() -> None:
    """At whatever byte it ends: a node that is half known is not known.

    But the very last, the line end after the end mark: nothing is missing then.
    """
    whole = len(REAL) - 1
    refused = 0
    for end in [*range(0, whole, 97), *range(whole - 60, whole)]:
        with pytest.raises(SnapshotError, match="ends before the program did"):
            parse(REAL[:end])
        refused += 1
    assert refused > 100
    assert parse(REAL[:whole]) == parse(REAL)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("@@ net\n", "@@ nit\n"),
        ("@@ fdb\n", ""),
        ("@@ udp\n", ""),
        ("@@ subnet_env\n", ""),
        ('"mtu":1500', '"MTU":1500'),
        ('"flags":["BROADCAST"', '"flags":[["BROADCAST"'),
        ("UNCONN 0      0      0.0.0.0:8472", "UNCONN"),
        ("net/ipv4/ip_forward 1", "net/ipv4/ip_forward"),
        ("27 523331 1", "27"),
        ("@@ machine container01", "@@ machine"),
        ("@@ net\n", "@@ net\n[]\n"),
        ("@@ net\n", "@@ net\nip: command not found\n"),
        ("@@ fdb\n[", "@@ fdb\n[5,"),
        ('"linkinfo":{', '"linkinfo":5,"x":{'),
    ],
)
def test_output_that_is_malformed(old: str, new: str) -> None:
    """A missing section, a row without its fields, a program's complaint in the middle."""
    assert old in REAL
    with pytest.raises(SnapshotError, match="cannot read the snapshot"):
        parse(REAL.replace(old, new, 1))


def test_nesting_that_exhausts_the_json_reader() -> None:
    """Thousands of brackets make Python's reader give up in a way of its own."""
    with pytest.raises(SnapshotError):
        parse(REAL.replace("@@ fdb\n[", "@@ fdb\n" + "[" * 100_000, 1))


def parses(output: str) -> None:
    """Whatever it is, it is a state or a SnapshotError."""
    try:
        assert isinstance(parse(output), State)
    except SnapshotError:
        return


@given(st.text())
def test_garbage(output: str) -> None:
    """Any text."""
    parses(output)
    parses(output + "\n@@ end\n")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["ifname", "mtu", "flags", "addr_info", "linkinfo", "dst", "dev"]),
            inner,
            max_size=7,
        )
    ),
)


@given(st.lists(_JSON, min_size=4, max_size=4), st.text(max_size=20), st.text(max_size=20))
def test_garbage_in_the_right_form(documents: list[object], udp: str, record: str) -> None:
    """Sections that hold other JSON, other lines than the tools print."""
    links, routes, neighbours, fdb = map(json.dumps, documents)
    parses(
        f"@@ net\n{links}\n{routes}\n{neighbours}\n@@ fdb\n{fdb}\n@@ udp\n{udp}\n"
        f"@@ sysctl\n@@ subnet_env\n{record}\n@@ daemon etcd\n{record}\n@@ end\n"
    )


@given(st.data())
def test_lines_of_a_real_snapshot_in_disorder(data: st.DataObject) -> None:
    """Two programs' outputs mixed up, lines lost or doubled."""
    lines = st.sampled_from(REAL.splitlines())
    parses("\n".join([*data.draw(st.lists(lines, max_size=40)), "@@ end"]))


# --- subnet.env ---------------------------------------------------------------------------------


def test_subnet_env() -> None:
    """The lease as flanneld writes it."""
    assert parse_subnet_env(ENV) == LEASE


def test_subnet_env_half_written() -> None:
    """At whatever byte it ends: no lease, or the right one. An MTU of 14 would be neither."""
    seen = {parse_subnet_env(ENV[:end]) for end in range(len(ENV) + 1)}
    assert seen == {None, LEASE}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("10.5.0.0/16", "10.5.0.0/99"),
        ("10.5.0.0/16", "10.5.0.1/16"),
        ("10.5.74.1/24", ""),
        ("10.5.74.1/24", "fd00::1/64"),
        ("1450", "much"),
        ("FLANNEL_MTU", "MTU"),
        ("FLANNEL_IPMASQ=false\n", ""),
    ],
)
def test_subnet_env_that_is_none(old: str, new: str) -> None:
    """What holds no lease is as good as no file: flanneld will write another."""
    assert parse_subnet_env(ENV.replace(old, new)) is None


@given(st.text())
def test_subnet_env_of_garbage(text: str) -> None:
    """Any text is no lease."""
    assert parse_subnet_env(text) is None


# --- /proc/net/route ----------------------------------------------------------------------------

ANY = str(IPv4Address(0))
HEADER = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"


def number(address: str) -> str:
    """An address as the kernel prints it there: the number in this machine's byte order."""
    packed = IPv4Interface(address).ip.packed
    return f"{int.from_bytes(packed, sys.byteorder):08X}"


def test_proc_net_route() -> None:
    """Destinations with their lengths; the default route is 0.0.0.0/0."""
    rows = [
        ("flannel.1", "10.5.11.0", "10.5.11.0", "255.255.255.0"),
        ("eth0", "192.168.56.0", ANY, "255.255.255.0"),
        ("eth0", ANY, "192.168.56.1", ANY),
        ("eth0", "10.9.9.9", "192.168.56.1", "255.255.255.255"),
    ]
    text = HEADER + "".join(
        f"{dev}\t{number(dst)}\t{number(via)}\t0003\t0\t0\t0\t{number(mask)}\t0\t0\t0\n"
        for dev, dst, via, mask in rows
    )
    networks = ("10.5.11.0/24", "192.168.56.0/24", "0.0.0.0/0", "10.9.9.9/32")
    assert parse_proc_route(text) == frozenset(map(IPv4Network, networks))


@pytest.mark.parametrize("text", ["", HEADER])
def test_proc_net_route_without_routes(text: str) -> None:
    """A new namespace has none; the kernel then prints the header or nothing."""
    assert parse_proc_route(text) == frozenset()


def test_proc_net_route_of_this_machine() -> None:
    """What the kernel here prints can be read."""
    with open("/proc/net/route", encoding="ascii") as file:
        text = file.read()
    assert len(parse_proc_route(text)) <= max(len(text.splitlines()) - 1, 0)
