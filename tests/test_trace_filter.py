"""The kernel's filter of a trace lets its own packets through, in whatever wrapping."""

from __future__ import annotations

import pytest

from journeys import NODE1, NODE2, A, B, complaint, echo, ether, ipv4, pieces, tcp, udp, vxlan
from vxlab.sniff import Instruction
from vxlab.trace.bpf import compile as compiled
from vxlab.trace.journey import Protocol
from vxlab.trace.journey_filter import expression, wanted


def runs(program: tuple[Instruction, ...], frame: bytes) -> bool:
    """What the kernel's interpreter answers (linux/filter.h), for the instructions used here."""
    a = x = at = 0
    sizes = {0x00: 4, 0x08: 2, 0x10: 1}
    while True:
        code, yes, no, k = program[at]
        at += 1
        if code in (0x20, 0x28, 0x30, 0x40, 0x50):
            place, size = k + (x if code & 0x40 else 0), sizes[code & 0x18]
            if place + size > len(frame):
                return False
            a = int.from_bytes(frame[place : place + size], "big")
        elif code == 0xB1:
            x = 4 * (frame[k] & 15)
        elif code in (0x15, 0x45):
            at += yes if (a == k if code == 0x15 else a & k) else no
        else:
            assert code == 6
            return k > 0


OTHER = "10.5.3.10", "10.5.4.10"
REQUEST = ipv4(A, B, echo())

LET_THROUGH = {
    "plain": ether(REQUEST),
    "back": ether(ipv4(B, A, echo(0))),
    "in VXLAN": ether(vxlan(ether(REQUEST))),
    "an error in VXLAN": ether(vxlan(ether(ipv4("10.5.1.1", "10.5.3.3", complaint(1, REQUEST))))),
    "masqueraded": ether(ipv4(NODE1, B, echo())),
    "an error": ether(ipv4(NODE2, NODE1, complaint(3, vxlan(ether(REQUEST))))),
    "a later fragment": ether(pieces(vxlan(ether(ipv4(A, B, echo(size=1472)))), 1000)[1]),
}


SYN, RST, ACK = (tcp(80, 1, 2, 3, flags) for flags in (2, 20, 16))
DATAGRAM = udp(1, 2, b"x" * 60)

CONNECTIONS = {
    "SYN": ether(ipv4(A, B, SYN, proto=6)),
    "RST in VXLAN": ether(vxlan(ether(ipv4(B, A, RST, proto=6)))),
    "SYN, masqueraded": ether(ipv4(NODE1, B, SYN, proto=6)),
}
DATAGRAMS = {
    "datagram": ether(ipv4(A, B, DATAGRAM, proto=17)),
    "datagram in VXLAN": ether(vxlan(ether(ipv4(B, A, DATAGRAM, proto=17)))),
}


def both(src: str, dst: str, backend: str, protocol: Protocol, frame: bytes) -> bool:
    """What our own program and tcpdump's say; they have to say the same."""
    ours = runs(wanted(src, dst, backend, protocol), frame)
    theirs = runs(tuple(compiled(expression(src, dst, backend, protocol), "EN10MB")), frame)
    assert ours == theirs
    return ours


@pytest.mark.parametrize("protocol", ["icmp", "tcp", "udp"])
@pytest.mark.parametrize("frame", LET_THROUGH.values(), ids=LET_THROUGH.keys())
def test_own_packets_pass(frame: bytes, protocol: Protocol) -> None:
    """There, back, wrapped, in pieces, and what others say about them."""
    assert both(A, B, "vxlan", protocol, frame)


@pytest.mark.parametrize("frame", CONNECTIONS.values(), ids=CONNECTIONS.keys())
def test_connections_pass_where_they_are_the_probes(frame: bytes) -> None:
    """Other traffic of the same containers is no probe."""
    assert [both(A, B, "vxlan", kind, frame) for kind in ("tcp", "icmp", "udp")] == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("frame", DATAGRAMS.values(), ids=DATAGRAMS.keys())
def test_datagrams_pass_where_they_are_the_probes(frame: bytes) -> None:
    """Other traffic of the same containers is no probe."""
    assert [both(A, B, "vxlan", kind, frame) for kind in ("udp", "icmp", "tcp")] == [
        True,
        False,
        False,
    ]


KEPT_OUT = {
    "ARP": bytes(12) + b"\x08\x06" + bytes(28),
    "other containers": ether(ipv4(*OTHER, DATAGRAM, proto=17)),
    "other containers in VXLAN": ether(vxlan(ether(ipv4(*OTHER, DATAGRAM, proto=17)))),
    "etcd": ether(ipv4(NODE1, NODE2, ACK + b"x", proto=6)),
    "short": b"\0" * 20,
}


@pytest.mark.parametrize("protocol", ["icmp", "tcp", "udp"])
@pytest.mark.parametrize("frame", KEPT_OUT.values(), ids=KEPT_OUT.keys())
def test_other_traffic_is_kept_out(frame: bytes, protocol: Protocol) -> None:
    """A busy lab does not fill the captures' buffers."""
    assert not both(A, B, "vxlan", protocol, frame)


def test_on_a_host_no_session_is_caught() -> None:
    """What goes on inside a TCP connection would be caught again on its way here."""
    program = tuple(compiled(expression(A, NODE2, "vxlan", "tcp"), "EN10MB"))
    assert not runs(program, ether(ipv4("192.0.2.1", NODE2, ACK + b"x", proto=6)))
    assert runs(program, ether(ipv4("192.0.2.1", NODE2, SYN, proto=6)))


def test_the_udp_backend_has_no_inner_ethernet_header() -> None:
    """The inner IP header begins right behind UDP's."""
    carried = ether(ipv4(NODE1, NODE2, udp(8285, 8285, REQUEST), proto=17))
    assert both(A, B, "udp", "icmp", carried)
    assert not both(*OTHER, "host-gw", "udp", carried)
