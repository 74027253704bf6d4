"""Filters for captures: names become addresses, and the underlay is looked into.

The kernel itself runs the programs here: a filter may be attached to any socket, so one end of a
socket pair is asked which frames it lets through.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from test_packet import FRAMES, encapsulated, ethernet, ipv4, ping, tcp, udp, vxlan, write_pcap
from vxlab import labfile
from vxlab.errors import UsageError
from vxlab.sniff import Instruction
from vxlab.trace import bpf
from vxlab.trace.capture_filter import IN_UDP, Filter, addresses, on_underlay, within
from vxlab.trace.capture_sieve import Sieve
from vxlab.trace.hops import Hop, every

needs_tcpdump = pytest.mark.skipif(
    shutil.which("tcpdump") is None and not Path("/usr/sbin/tcpdump").exists(),
    reason="FILTERS WERE NOT COMPILED: tcpdump is not installed",
)

LAB = labfile.default()
AT = {"node01/container01": "10.5.34.10", "node02/container02": "10.5.72.10"}


def look() -> Mapping[str, str]:
    return AT


def never() -> Mapping[str, str]:
    raise AssertionError("the nodes were looked at")


@pytest.mark.parametrize(
    ("filter_", "expected"),
    [
        ("icmp and host container01", "icmp and host 10.5.34.10"),
        ("src node01/container01", "src 10.5.34.10"),
        ("(host container01 or node02)", "(host 10.5.34.10 or 192.168.56.22)"),
        ("!host container01", "!host 10.5.34.10"),
    ],
)
def test_containers_and_nodes_stand_for_their_addresses(filter_: str, expected: str) -> None:
    """Wherever a filter takes an address."""
    assert addresses(LAB, filter_, look) == expected


@pytest.mark.parametrize(
    "filter_",
    [
        "udp port 8472 and (ip[62:4]==0x0A2A0107 or ip[66:4]==0x0A2A0107)",
        "ip[2:2]/4 > 7 and tcp[tcpflags] & tcp-syn != 0",
        "ether host aa:bb:cc:dd:ee:ff or host xcontainer01 or net container01.example",
        "",
    ],
)
def test_all_else_is_left_alone(filter_: str) -> None:
    """The nodes are not looked at if no container is named."""
    assert addresses(LAB, filter_, never) == filter_


def test_a_word_of_the_language_is_never_a_name() -> None:
    """A container called icmp is told by its node, too."""
    text = "nodes:\n  node01: {containers: [icmp]}\n  node02: {containers: [two]}\n"
    lab = labfile.loads(text, "lab.yaml")
    found = {"node01/icmp": "10.5.1.10"}
    assert addresses(lab, "icmp and host node01/icmp", lambda: found) == "icmp and host 10.5.1.10"


def test_names_that_stand_for_nothing_are_told() -> None:
    """Of two containers with one name it is not known which; one that is down has no address."""
    text = "nodes:\n  node01: {containers: [one]}\n  node02: {containers: [one]}\n"
    lab = labfile.loads(text, "lab.yaml")
    with pytest.raises(UsageError, match="may be any of node01/one, node02/one"):
        addresses(lab, "host one", look)
    with pytest.raises(UsageError, match="node01/container01 has no address"):
        addresses(LAB, "host container01", dict)


def passed(program: Sequence[Instruction], frames: Iterable[bytes]) -> list[bool]:
    """Which frames the kernel lets through, for each of them."""
    with closing(Sieve(program)) as sieve:
        return [sieve.takes(frame) for frame in frames]


def by_libpcap(tmp_path: Path, filter_: str, frames: Sequence[bytes]) -> list[bool]:
    """Which frames tcpdump takes out of a file, for each of them."""
    write_pcap(tmp_path / "all.pcap", frames)
    argv = [str(bpf.tcpdump()), "-r", str(tmp_path / "all.pcap"), "-w", "-", filter_]
    done = subprocess.run(argv, capture_output=True, check=True)
    seconds, data = set(), done.stdout[24:]
    while data:
        second, _, kept, _ = struct.unpack_from("=IIII", data)
        seconds.add(second)  # the frame's number, see `write_pcap`
        data = data[16 + kept :]
    return [i in seconds for i in range(len(frames))]


FILTERS = [
    "icmp",
    "not icmp",
    "arp",
    "host 10.5.34.10",
    "src host 10.5.34.10 or dst port 53",
    "tcp[tcpflags] & tcp-syn != 0",
    "icmp[icmptype] == icmp-echo",
    "ip6",
    "icmp6",
    "len > 90",
    "greater 60 and less 98 and not arp",
    "len >= 98 and (host 10.5.34.10 or port 9999) and not tcp",
    "ip proto 17 and ip[8] < 64",
    "ether broadcast or ether multicast",
    "udp port 8472 and (ip[62:4]==0x0A05220A or ip[66:4]==0x0A05220A)",
    "portrange 1-100 or net 10.5.0.0/16",
    "ip[6:2] & 0x1fff != 0",
    " or ".join(f"host 10.1.{i}.7" for i in range(60)) + " or icmp",
]


@needs_tcpdump
@pytest.mark.parametrize("filter_", FILTERS)
def test_on_the_underlay_the_filter_is_asked_about_what_vxlan_carries(
    tmp_path: Path, filter_: str
) -> None:
    """As libpcap itself takes the inner frames alone, or the outer ones as they are."""
    inner = list(FRAMES.values())
    outer = [ethernet(ipv4(udp(vxlan(frame)), 17)) for frame in inner]
    plain = bpf.compile(filter_)
    program = within(plain, plain, {8472, 4789})
    theirs = by_libpcap(tmp_path, filter_, inner), by_libpcap(tmp_path, filter_, outer)
    assert passed(program, outer) == [a or b for a, b in zip(*theirs, strict=True)]


@needs_tcpdump
@pytest.mark.parametrize("filter_", [*FILTERS, "vlan 100 or host 10.5.34.10"])
def test_what_a_host_keeps_and_is_then_asked_about_is_what_passes_here(
    tmp_path: Path, filter_: str
) -> None:
    """A host's tcpdump has no words for what is inside: it keeps more, and nothing too little."""
    frames = [*FRAMES.values(), *(ethernet(ipv4(udp(vxlan(f)), 17)) for f in FRAMES.values())]
    wanted, nic = Filter(filter_, frozenset({8472, 4789})), Hop("node01", "", "eth0")
    program = wanted.program(LAB, nic, bpf.compile)
    kept = by_libpcap(tmp_path, wanted.expression(LAB, nic), frames)
    assert wanted.inside(LAB, nic)
    assert [a and b for a, b in zip(kept, passed(program, frames), strict=True)] == passed(
        program, frames
    )
    assert wanted.expression(LAB, Hop("node01", "", "cbr0")) == filter_


@needs_tcpdump
def test_only_vxlan_is_looked_into() -> None:
    """Another port or protocol, options, a later fragment: there is nothing inside."""
    carried = udp(vxlan(ethernet(ping())))
    whole = ethernet(ipv4(carried, 17))
    frames = [
        whole,
        ethernet(ipv4(carried, 17, frag=0x2000)),
        ethernet(ipv4(carried, 17, frag=0x2010)),
        ethernet(ipv4(carried, 6)),
        ethernet(ipv4(carried, 17, options=bytes(4))),
        whole[:14] + b"\x46" + whole[15:],
        ethernet(ipv4(udp(vxlan(ethernet(ping())), dport=4790), 17)),
        ethernet(ipv4(carried, 17), 0x86DD),
        ethernet(ping()),
        ethernet(ipv4(tcp(b""), 6)),
        encapsulated()[:40],
        b"",
    ]
    plain = bpf.compile("icmp")
    found = passed(within(plain, plain, {8472}), [frame or b"\0" for frame in frames])
    assert found == [True, True] + [False] * 6 + [True] + [False] * 3


@needs_tcpdump
def test_flannels_udp_backend_is_looked_into() -> None:
    """There the inner packet begins with its IP header, right behind UDP."""
    inner, outer = bpf.compile("icmp", "RAW"), bpf.compile("icmp")
    frames = [ethernet(ipv4(udp(packet, dport=8285), 17)) for packet in (ping(), ipv4(tcp(b""), 6))]
    assert passed(within(inner, outer, {8285}, IN_UDP), frames) == [True, False]


def test_what_cannot_be_moved_is_told() -> None:
    """A filter that asks for more than the packet, or that would be too long for the kernel."""
    keep = (0x06, 0, 0, 262144)
    for program in ([(0x20, 0, 0, 0xFFFFF000), keep], [(0x16, 0, 0, 0)], [keep] * 4096):
        with pytest.raises(UsageError, match="cannot be looked for inside") as raised:
            within(program, program, {8472})
        assert "--outer" in raised.value.hint
    far = [(0x15, 255, 0, 1), *[(0x80, 0, 0, 0)] * 255, keep, keep]
    with pytest.raises(UsageError, match="cannot be looked for inside"):
        within(far, far, {8472})


def compiled(text: str, link: str) -> list[Instruction]:
    """A compiler whose programs tell what they were compiled from."""
    return [(0x06, 0, 0, {"EN10MB": 1, "RAW": 2}[link])]


def test_the_program_fits_the_hop() -> None:
    """Longer on the underlay; as it is elsewhere, without encapsulation, and with --outer."""
    long = [hop.name for hop in every(LAB) if len(_program(hop)) > 1]
    assert long == ["node01:eth0", "node02:eth0"]
    assert len(_program(Hop("switch", "", "node01"))) > 1
    assert {len(_program(hop, outer=True)) for hop in every(LAB)} == {1}
    assert {len(_program(hop, ports=frozenset())) for hop in every(LAB)} == {1}
    assert not on_underlay(LAB, Hop("node01", "container01", "eth0"))


def _program(
    hop: Hop, *, outer: bool = False, ports: frozenset[int] = frozenset({8472})
) -> list[Instruction]:
    return Filter("icmp", ports, outer).program(LAB, hop, compiled)


def test_a_tun_device_gets_a_program_for_ip() -> None:
    """flannel0's frames have no Ethernet header; what the underlay carries has none either."""
    lab = replace(LAB, overlay=replace(LAB.overlay, backend={"Type": "udp"}))
    filter_ = Filter("icmp", frozenset({8285}))
    assert filter_.program(lab, Hop("node01", "", "flannel0"), compiled) == [(6, 0, 0, 2)]
    program = filter_.program(lab, Hop("node01", "", "eth0"), compiled)
    assert program[-2:] == [(6, 0, 0, 2), (6, 0, 0, 1)]
