"""The kernel's filter of a trace lets its own packets through, in whatever wrapping."""

from __future__ import annotations

import pytest

from journeys import NODE1, NODE2, A, B, complaint, echo, ether, ipv4, pieces, tcp, udp, vxlan
from vxlab.sniff import Instruction
from vxlab.trace.journey_filter import wanted


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
    "back": ether(ipv4(B, A, tcp(80, 1, 2, 3, 18), proto=6)),
    "in VXLAN": ether(vxlan(ether(REQUEST))),
    "an error in VXLAN": ether(vxlan(ether(ipv4("10.5.1.1", "10.5.3.3", complaint(1, REQUEST))))),
    "masqueraded": ether(ipv4(NODE1, B, udp(1, 2, b""), proto=17)),
    "an error": ether(ipv4(NODE2, NODE1, complaint(3, vxlan(ether(REQUEST))))),
    "a later fragment": ether(pieces(vxlan(ether(ipv4(A, B, echo(size=1472)))), 1000)[1]),
}


@pytest.mark.parametrize("frame", LET_THROUGH.values(), ids=LET_THROUGH.keys())
def test_own_packets_pass(frame: bytes) -> None:
    """There, back, wrapped, in pieces, and what others say about them."""
    assert runs(wanted(A, B, "vxlan"), frame)


KEPT_OUT = {
    "ARP": bytes(12) + b"\x08\x06" + bytes(28),
    "other containers": ether(ipv4(*OTHER, udp(1, 2, b"x" * 60), proto=17)),
    "other containers in VXLAN": ether(vxlan(ether(ipv4(*OTHER, udp(1, 2, b"x"), proto=17)))),
    "etcd": ether(ipv4(NODE1, NODE2, tcp(2379, 1, 2, 3, 16), proto=6)),
    "short": b"\0" * 20,
}


@pytest.mark.parametrize("frame", KEPT_OUT.values(), ids=KEPT_OUT.keys())
def test_other_traffic_is_kept_out(frame: bytes) -> None:
    """A busy lab does not fill the captures' buffers."""
    assert not runs(wanted(A, B, "vxlan"), frame)


def test_the_udp_backend_has_no_inner_ethernet_header() -> None:
    """The inner IP header begins right behind UDP's."""
    carried = ether(ipv4(NODE1, NODE2, udp(8285, 8285, REQUEST), proto=17))
    assert runs(wanted(A, B, "udp"), carried)
    assert not runs(wanted(*OTHER, "host-gw"), carried)
