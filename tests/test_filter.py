"""``vxlab filter``: the talk's filter for every kind of underlay, against packets and kernel."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, Literal

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import talk
from conftest import Vxlab
from golden import agrees
from lablib import LAB
from networks import namespaces, needs_root, overlay
from test_bpf import matches, needs_tcpdump
from test_packet import arp, encapsulated, ethernet, ipv4, ipv6, udp, vlan, vxlan
from vxlab import labfile
from vxlab.cli.filter import command
from vxlab.engine.running import save
from vxlab.errors import OperationError, UsageError, VxlabError
from vxlab.journal import LabDirectory
from vxlab.namespaces import in_netns
from vxlab.packet import ETHERTYPE_IPV4, ETHERTYPE_IPV6, UDP, IPv4, IPv6, decode
from vxlab.probe import Endpoint, ping_all
from vxlab.script import PATH
from vxlab.sniff import Sniffer
from vxlab.trace import bpf
from vxlab.trace.bpfrun import Printer
from vxlab.trace.talkfilter import End, TalkFilter, Wire, wire_of

TALK = "10.42.1.7"
VXLAN = Wire()
BOTH: tuple[End, ...] = ("src", "dst")
ENDS = st.sampled_from([BOTH, ("src",), ("dst",)])
V4, V6 = st.ip_addresses(v=4), st.ip_addresses(v=6)

KEYS = [
    "asked",
    "lab",
    "address",
    "hexadecimal",
    "backend",
    "port",
    "outer",
    "inner",
    "vlan",
    "interface",
    "filter",
    "command",
    "surer",
    "offsets",
    "headers",
    "overhead",
    "limits",
    "bytecode",
    "bytecode_missing",
    "notes",
]


def filtered(*words: str) -> str:
    done = CliRunner().invoke(command, words)
    assert (done.exit_code, done.exception) == (0, None)
    return done.output


def refused(*words: str) -> VxlabError:
    done = CliRunner().invoke(command, words)
    assert isinstance(done.exception, VxlabError)
    return done.exception


def made(address: str, wire: Wire = VXLAN, ends: tuple[End, ...] = BOTH) -> TalkFilter:
    return TalkFilter(ip_address(address), wire, ends)


# --- the form ---------------------------------------------------------------------------------


def test_it_is_the_talks_to_the_letter() -> None:
    """10.42.1.7 as the talk writes it."""
    talks = made(TALK)
    assert talks.hexadecimal == "0x0A2A0107"
    assert talks.expression == "port 8472 and (ip[62:4]==0x0A2A0107 or ip[66:4]==0x0A2A0107)"
    assert [row.size for row in talks.rows] == [20, 8, 8, 14]


@pytest.mark.parametrize(
    ("address", "wire", "ends", "expected"),
    [
        (TALK, Wire(), ("src",), "port 8472 and ip[62:4]==0x0A2A0107"),
        (TALK, Wire(port=4789), ("dst",), "port 4789 and ip[66:4]==0x0A2A0107"),
        (
            TALK,
            Wire("udp", 8285),
            BOTH,
            "port 8285 and (ip[40:4]==0x0A2A0107 or ip[44:4]==0x0A2A0107)",
        ),
        (TALK, Wire("host-gw"), BOTH, "ip[12:4]==0x0A2A0107 or ip[16:4]==0x0A2A0107"),
        (
            TALK,
            Wire("host-gw", vlan=9),
            BOTH,
            "vlan 9 and (ip[12:4]==0x0A2A0107 or ip[16:4]==0x0A2A0107)",
        ),
        (TALK, Wire(outer=6), ("src",), "port 8472 and ip6[82:4]==0x0A2A0107"),
        (TALK, Wire(vlan=0), ("dst",), "vlan and port 8472 and ip[66:4]==0x0A2A0107"),
        (
            "2001:db8::5",
            Wire(),
            ("src",),
            "port 8472 and ip[58:4]==0x20010DB8 and ip[62:4]==0x00000000 and "
            "ip[66:4]==0x00000000 and ip[70:4]==0x00000005",
        ),
        (
            "2001:db8::5",
            Wire("host-gw"),
            ("dst",),
            "ip6[24:4]==0x20010DB8 and ip6[28:4]==0x00000000 and "
            "ip6[32:4]==0x00000000 and ip6[36:4]==0x00000005",
        ),
    ],
)
def test_offsets_follow_the_wire(
    address: str, wire: Wire, ends: tuple[End, ...], expected: str
) -> None:
    """Backend, port, outer and inner version, VLAN tag."""
    assert made(address, wire, ends).expression == expected


def test_the_udp_backend_knows_no_ipv6() -> None:
    """Neither inside nor outside (flannel, backends.md)."""
    for address, wire in ("fd00::1", Wire("udp", 8285)), (TALK, Wire("udp", 8285, 6)):
        with pytest.raises(UsageError, match="carries IPv4 in IPv4 only"):
            made(address, wire)


# --- against packets, in the kernel -----------------------------------------------------------


def on_the_wire(src: str, dst: str, wire: Wire, options: bytes = b"") -> bytes:
    """A frame of the underlay that carries a packet from one container to the other."""
    version = ip_address(src).version
    inner = (ipv4 if version == 4 else ipv6)(udp(b"hello", dport=5000), 17, src, dst)
    kind = ETHERTYPE_IPV4 if version == 4 else ETHERTYPE_IPV6
    tags = b"" if wire.vlan is None else vlan(wire.vlan or 3)
    if wire.backend == "host-gw":
        return ethernet(inner, kind, tags=tags)
    body = inner if wire.backend == "udp" else vxlan(ethernet(inner, kind))
    body = udp(body, dport=wire.port)
    if wire.outer == 6:
        return ethernet(ipv6(body, 17), ETHERTYPE_IPV6, tags=tags)
    return ethernet(ipv4(body, 17, options=options), tags=tags)


WIRES = st.builds(
    Wire,
    st.just("vxlan"),
    st.sampled_from([8472, 4789, 8285, 65535]),
    st.sampled_from([4, 6]),
    st.sampled_from([None, 0, 1, 4094]),
) | st.sampled_from([Wire("host-gw", 0), Wire("host-gw", 0, 4, 7), Wire("udp", 8285)])


@given(V4, V4, V6, V6, st.booleans(), WIRES, ENDS)
def test_numbers_agree_with_decode(
    a4: IPv4Address,
    b4: IPv4Address,
    a6: IPv6Address,
    b6: IPv6Address,
    six: bool,
    wire: Wire,
    ends: tuple[End, ...],
) -> None:
    """Where the filter looks, the packet that was decoded has the address, to the byte."""
    src, dst = (a6, b6) if six and wire.backend != "udp" else (a4, b4)
    frame = on_the_wire(str(src), str(dst), wire)
    decoded = decode(frame, vxlan_ports={wire.port})
    if wire.backend == "udp":
        carrier = decoded.find(UDP)
        assert carrier is not None
        start = carrier.end
    else:
        inner = (decoded.inner or decoded).outer_ip
        assert isinstance(inner, IPv4 | IPv6)
        assert (inner.src, inner.dst) == (src, dst)
        start = inner.offset
    for end, address in ("src", src), ("dst", dst):
        talks = TalkFilter(address, wire, ends)
        at = talks.link + talks.offset("src" if end == "src" else "dst")
        assert at == start + talks.place("src" if end == "src" else "dst")
        assert frame[at : at + len(address.packed)] == address.packed
        assert int(talks.hexadecimal, 16) == int(address)


@needs_tcpdump
@given(st.data(), WIRES, ENDS)
def test_the_kernel_finds_what_it_should(
    data: st.DataObject, wire: Wire, ends: tuple[End, ...]
) -> None:
    """The compiled filter, run by the kernel on whole packets: from, to, and neither."""
    family = V4 if wire.backend == "udp" else data.draw(st.sampled_from([V4, V6]))
    address, other, third = data.draw(st.lists(family, min_size=3, max_size=3, unique=True))
    talks = TalkFilter(address, wire, ends)
    program = bpf.compile(talks.expression)
    assert matches(
        program,
        on_the_wire(str(address), str(other), wire),
        on_the_wire(str(other), str(address), wire),
        on_the_wire(str(other), str(third), wire),
    ) == ["src" in ends, "dst" in ends, False]


@needs_tcpdump
def test_where_the_talks_form_fails_and_the_other_does_not() -> None:
    """Options in the outer IPv4 header: ip[62:4] looks too far in front, udp[42:4] does not."""
    talks = made("10.5.1.10")
    frames = [on_the_wire("10.5.1.10", "10.5.2.10", VXLAN, bytes(n)) for n in (0, 8, 40)]
    assert matches(bpf.compile(talks.expression), *frames) == [True, False, False]
    assert talks.surer == "port 8472 and (udp[42:4]==0x0A05010A or udp[46:4]==0x0A05010A)"
    assert matches(bpf.compile(talks.surer), *frames) == [True, True, True]


@needs_tcpdump
def test_four_bytes_of_options_put_the_source_where_the_destination_was() -> None:
    """The talk's form then takes a packet from the container for one to it."""
    (longer,) = [on_the_wire("10.5.1.10", "10.5.2.10", VXLAN, bytes(4))]
    to_it = made("10.5.1.10", ends=("dst",))
    assert matches(bpf.compile(to_it.expression), longer) == [True]
    assert matches(bpf.compile(to_it.surer), longer) == [False]


@needs_tcpdump
def test_the_other_limits_are_real() -> None:
    """Each case that the filter is said not to find is one that the kernel does not find."""
    talks = made("10.5.1.10")
    frames = [
        on_the_wire("10.5.1.10", "10.5.2.10", Wire(outer=6)),
        on_the_wire("10.5.1.10", "10.5.2.10", Wire(vlan=5)),
        ethernet(ipv4(on_the_wire("10.5.1.10", "10.5.2.10", Wire())[34:], 17, frag=185)),
        encapsulated(arp()),
        ethernet(ipv4(udp(vxlan(ethernet(arp(), 0x0806))), 17)),
    ]
    assert matches(bpf.compile(talks.expression), *frames) == [False] * 5
    assert [limit.words.split()[0] for limit in talks.limits] == [
        "an",
        "packets",
        "frames",
        "of",
        "ARP",
    ]
    asks = ethernet(arp(), 0x0806)
    direct = made("10.5.1.10", Wire("host-gw"))
    assert matches(bpf.compile(direct.expression), asks) == [False]
    assert (direct.surer, matches(bpf.compile(direct.surer), asks)) == ("host 10.5.1.10", [True])


@needs_tcpdump
@given(V4 | V6, WIRES, ENDS)
def test_what_is_told_is_what_is_there(
    address: IPv4Address | IPv6Address, wire: Wire, ends: tuple[End, ...]
) -> None:
    """The instructions that compare the address are explained as reading the inner address."""
    if wire.backend == "udp" and address.version == 6:
        return
    talks = TalkFilter(address, wire, ends)
    told = bpf.explain(bpf.compile(talks.expression), talks.inside)
    prefix = "inner " if wire.encapsulated else ""
    for end in ends:
        at = talks.link + talks.offset(end)
        (line,) = (e.words for e in told if e.assembly.endswith(f" ld       [{at}]"))
        name = {"src": "source", "dst": "destination"}[end]
        assert f"Load the {prefix}IPv{address.version} {name} address" in line


# --- what is printed ----------------------------------------------------------------------------


@needs_tcpdump
@pytest.mark.parametrize("columns", ["80", "120"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("talk", [TALK]),
        ("port", [TALK, "--port", "4789"]),
        ("src", [TALK, "--src"]),
        ("dst", [TALK, "--dst"]),
        ("udp", [TALK, "--backend", "udp"]),
        ("host-gw", [TALK, "--backend", "host-gw"]),
        ("inner6", ["2001:db8::5"]),
        ("outer6", [TALK, "--outer-ipv6"]),
        ("vlan", [TALK, "--vlan", "7"]),
    ],
)
def test_the_screen(
    home: Path, monkeypatch: pytest.MonkeyPatch, columns: str, name: str, words: list[str]
) -> None:
    """Golden, at two widths; only what is to be copied may be longer than the line."""
    monkeypatch.setenv("COLUMNS", columns)
    shown = filtered(*words)
    agrees(f"filter/{name}-{columns}.txt", shown)
    long = [line for line in shown.splitlines() if len(line) > int(columns)]
    assert all("==0x" in line for line in long)


@needs_tcpdump
def test_for_programs(home: Path) -> None:
    """Stable keys, and the same facts as on the screen."""
    told = json.loads(filtered(TALK, "--json"))
    assert list(told) == KEYS
    agrees("filter/talk.json", json.dumps(told, indent=1) + "\n")
    nothing = json.loads(filtered("fd00::1", "--backend", "host-gw", "--vlan", "any", "--json"))
    assert list(nothing) == KEYS
    assert (nothing["headers"], nothing["overhead"], nothing["port"]) == ([], 0, None)
    assert (nothing["vlan"], nothing["offsets"]) == (0, {"src": 8, "dst": 24})


def test_both_ends_may_be_named(home: Path) -> None:
    """--src --dst is what one gets without either."""
    one, other = (json.loads(filtered(TALK, *w, "--json")) for w in ([], ["--src", "--dst"]))
    assert one == other


def test_without_tcpdump_all_but_the_bytecode(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler is missing: the filter is told all the same, and why there is no more."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(bpf, "_SYSTEM", ())
    shown = filtered(TALK)
    assert "port 8472 and (ip[62:4]==0x0A2A0107 or ip[66:4]==0x0A2A0107)" in shown
    assert "BPF bytecode: not shown, since tcpdump is not installed" in shown
    assert "tcpdump" in shown.splitlines()[-1] or "install" in shown.splitlines()[-1]
    told = json.loads(filtered(TALK, "--json"))
    assert (list(told), told["bytecode"]) == (KEYS, [])
    assert told["bytecode_missing"].startswith("tcpdump is not installed")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nobody"], "'nobody' is no IP address, and there is no lab with such a node"),
        (["10.5.1.300"], "'10.5.1.300' is no IP address, and there is no lab"),
        (["10.5.1.10/24"], "'10.5.1.10/24' is more than an address"),
        (["fe80::1%eth0"], "'fe80::1%eth0' is more than an address"),
        ([TALK, "--vlan", "4095"], "'4095' is no VLAN id"),
        ([TALK, "--vlan", "x"], "'x' is no VLAN id"),
        ([TALK, "--run", "node01"], "--run needs a lab that is up"),
        ([TALK, "--run", "node01", "--json"], "--run prints packets, not JSON"),
        ([TALK, "-c", "3"], "-c goes with --run"),
        ([TALK, "--backend", "host-gw", "--port", "1"], "--port makes no sense"),
        ([TALK, "--backend", "host-gw", "--outer-ipv6"], "--outer-ipv6 makes no sense"),
        (["fd00::1", "--backend", "udp"], "flannel's udp backend carries IPv4 in IPv4 only"),
        ([TALK, "--lab", "nowhere"], "there is no lab called 'nowhere'"),
    ],
)
def test_what_makes_no_sense(home: Path, words: list[str], message: str) -> None:
    """One error with exit code 64, and what to do."""
    error = refused(*words)
    assert (error.exit_code, message in error.message) == (64, True)
    assert error.hint


# --- of a lab -----------------------------------------------------------------------------------


def stored(text: str) -> None:
    """A lab as `up` leaves it, though it is down."""
    lab = labfile.loads(text, "lab.yaml")
    directory = LabDirectory(lab.name)
    with directory.locked("test", create=True):
        save(directory, talk.site(lab))


@pytest.mark.parametrize(
    ("backend", "words", "expected"),
    [
        ("{Type: vxlan, Port: 4789}", [], "port 4789 and ip[62:4]==0x0A05010A"),
        ("{Type: vxlan, Port: 4789}", ["--port", "99"], "port 99 and ip[62:4]==0x0A05010A"),
        ("{Type: vxlan, DirectRouting: true}", [], "ip[12:4]==0x0A05010A"),
        (
            "{Type: vxlan, DirectRouting: true, Port: 5555}",
            ["--backend", "vxlan"],
            "port 5555 and ip[62:4]==0x0A05010A",
        ),
        ("{Type: host-gw}", [], "ip[12:4]==0x0A05010A"),
        ("{Type: host-gw}", ["--backend", "vxlan"], "port 8472 and ip[62:4]==0x0A05010A"),
        ("{Type: udp}", [], "port 8285 and ip[40:4]==0x0A05010A"),
        ("{Type: udp, Port: 1234}", [], "port 1234 and ip[40:4]==0x0A05010A"),
    ],
)
def test_the_labs_backend_decides(
    home: Path, backend: str, words: list[str], expected: str
) -> None:
    """Port and offsets are the lab's; the command line has the last word."""
    stored(f"name: small\noverlay:\n  backend: {backend}\n")
    told = json.loads(filtered("10.5.1.10", "--src", "--json", *words))
    assert (told["lab"], told["interface"], told["filter"]) == ("small", "eth0", expected)


def test_an_address_of_another_network_is_noticed(home: Path) -> None:
    """It may be meant; it is said."""
    stored("name: small\n")
    told = json.loads(filtered(TALK, "--json"))
    assert told["notes"] == [f"{TALK} is not in 10.5.0.0/16, the overlay of the lab 'small'"]
    assert json.loads(filtered("10.5.1.10", "--json"))["notes"] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["container09"], "has no node or container 'container09'"),
        (["switch"], "switch is no node of the lab"),
        ([TALK, "--run", "switch"], "switch is no node of the lab"),
        ([TALK, "--run", "container01"], "container01 is a container"),
        ([TALK, "--run", "node09"], "has no node or container 'node09'"),
        (["container01"], "there is no lab called"),
        ([TALK, "--run", "node01"], "there is no lab called"),
    ],
)
def test_names_that_the_lab_does_not_have(home: Path, words: list[str], message: str) -> None:
    """Told before anything is looked at; a lab that is not up has no addresses."""
    stored("name: small\n")
    error = refused(*words)
    assert (error.exit_code, message in error.message) == (64, True)


def test_a_wire_is_made_of_options() -> None:
    """flannel's ports where none is named."""
    version: Literal[4, 6] = 4
    ports = {b: wire_of(b, port=None, outer=version, vlan=None).port for b in ("vxlan", "udp")}
    assert ports == {"vxlan": 8472, "udp": 8285}


# --- on a real underlay -------------------------------------------------------------------------


@pytest.mark.kernel
@needs_root
@needs_tcpdump
def test_on_the_underlay_it_shows_one_container_only() -> None:
    """Two containers ping the third: attached to a capture, the filter shows just the one's."""
    with overlay() as net:
        net.ip("c1", "addr add 10.5.1.11/24 dev eth0")
        captures: dict[str, Any] = {}
        for address in ("10.5.1.10", "10.5.1.11", "10.5.1.99", "10.5.2.10"):
            program = bpf.compile(made(address).expression)
            captures[address] = Sniffer(net.path("n1"), "eth0", bpf=program)
        for source in ("10.5.1.10", "10.5.1.11"):
            ping_from(net.path("c1"), source, "10.5.2.10")
        seen = {address: inner_sources(sniffer) for address, sniffer in captures.items()}
        for sniffer in captures.values():
            sniffer.close()
    assert seen["10.5.1.10"] == {("10.5.1.10", "10.5.2.10"), ("10.5.2.10", "10.5.1.10")}
    assert seen["10.5.1.11"] == {("10.5.1.11", "10.5.2.10"), ("10.5.2.10", "10.5.1.11")}
    assert seen["10.5.2.10"] == seen["10.5.1.10"] | seen["10.5.1.11"]
    assert seen["10.5.1.99"] == set()


def ping_from(netns: str, source: str, target: str) -> None:
    """One answered echo request with a source address of our choice."""
    ends = [Endpoint("a", source, netns), Endpoint("b", target, netns)]
    assert ping_all(ends, [("a", "b")], timeout=5)["a", "b"].ok


def inner_sources(sniffer: Sniffer) -> set[tuple[str, str]]:
    found = set()
    while frames := sniffer.poll():
        for frame in frames:
            inner = decode(frame.data).inner
            assert inner is not None
            assert inner.outer_ip is not None
            found.add((str(inner.outer_ip.src), str(inner.outer_ip.dst)))
    return found


@pytest.mark.kernel
@needs_root
@needs_tcpdump
@pytest.mark.parametrize("vlan_id", [None, 5])
def test_what_an_ordinary_user_is_shown(
    vlan_id: int | None, capfd: pytest.CaptureFixture[str]
) -> None:
    """tcpdump is fed: two matching frames among others, then it ends. A VLAN tag is found, too."""
    wire = Wire(vlan=vlan_id)
    talks = made("10.5.1.10", wire)
    frames = [
        on_the_wire("10.5.1.99", "10.5.2.10", wire),
        on_the_wire("10.5.1.10", "10.5.2.10", wire),
    ]
    with namespaces("a", "b") as net:
        net.ip("a", "link add eth0 type veth peer name eth0 netns @b ", "link set eth0 up")
        net.ip("b", "link set eth0 up")
        net.settle()
        printer = Printer(2)
        done = threading.Event()
        sending = threading.Thread(target=send_until, args=(net.path("a"), frames, done))
        sending.start()
        try:
            _, lost = printer.run(net.path("b"), "eth0", talks.expression, vlan=vlan_id is not None)
        finally:
            done.set()
            sending.join()
            printer.close()
    shown = capfd.readouterr().out
    assert (shown.count("IP 10.5.1.10.40000 > 10.5.2.10.5000"), lost) == (2, 0)
    assert "10.5.1.99" not in shown


def send_until(netns: str, frames: list[bytes], done: threading.Event) -> None:
    """Put frames on the wire again and again: nobody tells when the capture has begun."""
    with in_netns(netns, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)) as sock:
        sock.bind(("eth0", 0))
        while not done.wait(0.01):
            for frame in frames:
                sock.send(frame)


@needs_tcpdump
def test_a_printer_that_is_fed_nothing_ends() -> None:
    """The filter does not compile, or the lab cannot be entered: no process is left."""
    printer = Printer(None)
    with pytest.raises(UsageError, match="the filter does not compile"):
        printer.run("/nowhere", "eth0", "foo bar", vlan=False)
    printer.close()
    assert printer._process.returncode == 0
    printer = Printer(None)
    with pytest.raises(OperationError, match="cannot capture"):
        printer.run("/nowhere", "eth0", "ip", vlan=False)
    printer.close()
    assert printer._process.returncode == 0


# --- in a lab that is up ------------------------------------------------------------------------

in_a_lab = [pytest.mark.kernel, *LAB, needs_tcpdump]


def marked(test: Any) -> Any:
    for mark in in_a_lab:
        test = mark(test)
    return test


@pytest.fixture
def lab(vxlab: Vxlab, tmp_path: Path) -> Iterator[Vxlab]:
    """The talk's lab with two containers on its first node, up."""
    file = tmp_path / "lab.yaml"
    file.write_text("name: talk\nnodes:\n  node01: {containers: 2}\n  node02: {}\n")
    assert vxlab("up", str(file)).returncode == 0
    yield vxlab
    vxlab("teardown")


def address_of(vxlab: Vxlab, name: str) -> str:
    done = vxlab("filter", name, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return str(json.loads(done.stdout)["address"])


@marked
def test_names_are_resolved(lab: Vxlab) -> None:
    """A container's name stands for its address, a node's for the one it has on flannel.1."""
    shown = lab("exec", "container01", "--", "ip", "-4", "addr", "show", "vethNS").stdout
    assert f" {address_of(lab, 'container01')}/24 " in shown
    assert address_of(lab, "node01/container01") == address_of(lab, "container01")
    shown = lab("exec", "node02", "--", "ip", "-4", "addr", "show", "flannel.1").stdout
    assert f" {address_of(lab, 'node02')}/32 " in shown


@marked
def test_run_shows_that_containers_packets_only(lab: Vxlab) -> None:
    """Live on the node, until Ctrl-C: what the neighbour container sends is not shown."""
    one, other = address_of(lab, "container01"), address_of(lab, "container01-2")
    far = address_of(lab, "container02")
    words = [sys.executable, "-m", "vxlab", "filter", "container01", "--run", "node01"]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        told = ""
        while "listening on eth0" not in told:
            line = running.stderr.readline()
            assert line, told
            told += line
        for name in ("container01-2", "container01"):
            lab("exec", name, "--", "ping", "-c", "1", "-W", "5", far)
        shown = ""
        while f"IP {far} > {one}: ICMP echo reply" not in shown:
            line = running.stdout.readline()
            assert line, shown
            shown += line
        running.send_signal(signal.SIGINT)
        shown += running.stdout.read()
        told += running.stderr.read()
    assert (running.returncode, other in shown) == (0, False)
    assert f"IP {one} > {far}: ICMP echo request" in shown
    assert told.startswith("node01: tcpdump -n -i eth0 ")
    assert "0 packets dropped by kernel" in told


@marked
def test_run_ends_by_itself(lab: Vxlab) -> None:
    """-c 1: after one packet, here the gateway's answer on the way from node02."""
    far = address_of(lab, "container02")
    words = [sys.executable, "-m", "vxlab", "filter", far, "--run", "node02", "-c", "1", "--src"]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as running:
        assert running.stderr is not None
        told = ""
        while "listening on eth0" not in told:
            line = running.stderr.readline()
            assert line, told
            told += line
        lab("exec", "container01", "--", "ping", "-c", "1", "-W", "5", far)
        shown, rest = running.communicate(timeout=60)
    assert (running.returncode, shown.count("ICMP echo reply")) == (0, 1)
    assert "1 packet captured" in rest


@marked
def test_run_without_tcpdump(lab: Vxlab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Exit code 69, and how to get it. A PATH of links stands for a machine without tcpdump."""
    monkeypatch.setattr(bpf, "_SYSTEM", ())
    for name in ("nsenter", "sh", "cat", "ip", "bridge"):
        found = shutil.which(name, path=PATH)
        assert found is not None
        (tmp_path / name).symlink_to(found)
    monkeypatch.setenv("PATH", str(tmp_path))
    stub = "import sys; from vxlab.trace import bpf; bpf._SYSTEM = (); from vxlab.cli import main;"
    argv = [sys.executable, "-c", f"{stub} sys.argv[0] = 'vxlab'; main()"]
    done = subprocess.run(
        [*argv, "filter", TALK, "--run", "node01"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (69, "")
    assert "error: tcpdump is not installed" in done.stderr
