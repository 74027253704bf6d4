"""Hosts have clocks of their own: order comes from the packets, times from one host only."""

from __future__ import annotations

from dataclasses import replace

import pytest

import talk
from journeys import (
    NODE1,
    NODE2,
    SOURCE,
    WAY,
    A,
    B,
    Wire,
    complaint,
    echo,
    ether,
    hop,
    ipv4,
    mirrored,
    told,
    vxlan,
)
from vxlab.packet import decode
from vxlab.sniff import Frame
from vxlab.trace.clocks import Clocks
from vxlab.trace.journey import Journey, Leg, Role, Seen

SECOND = 1_000_000_000

#: The talk's lab on two real hosts.
HOSTS = replace(
    talk.TALK,
    nodes=tuple(replace(node, ssh=f"root@{node.name}") for node in talk.TALK.nodes),
)


def apart(wire: Wire, shift: int, node: str = "node02") -> Wire:
    """The same frames, with one host's clock set otherwise."""
    for name, frames in wire.frames.items():
        if name.startswith(node):
            wire.frames[name] = [replace(f, ns=f.ns + shift) for f in frames]
    return wire


def only(wire: Wire) -> Journey:
    (journey,) = told(wire, lab=HOSTS)
    return journey


def names(leg: Leg) -> list[str]:
    return [str(stop.hop) for stop in leg.stops]


@pytest.mark.parametrize("shift", [-3600 * SECOND, -5000, 0, 5000, 40 * SECOND])
def test_a_clock_that_is_wrong_changes_nothing(shift: int) -> None:
    """The journey is the same, whatever one host's clock shows."""
    journey = only(apart(Wire().ping(), shift))
    request, answer = journey.legs
    assert (names(request), names(answer)) == (
        [name for name, *_ in WAY],
        [name for name, *_ in mirrored()],
    )
    assert [stop.since_start for stop in request.stops] == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    assert [stop.since_last for stop in request.stops] == [None, 1, 1, 1, 1, None, 1, 1, 1, 1]
    assert [stop.since_start for stop in answer.stops] == [5, 6, 7, 8, 9, 15, 16, 17, 18, 19]
    assert [stop.since_last for stop in answer.stops] == [None, 1, 1, 1, 1, None, 1, 1, 1, 1]
    assert (journey.ok, journey.round_trip) == (True, 19.0)


def test_the_time_between_hosts_needs_no_common_clock() -> None:
    """eth0 to eth0 is 11 µs on the one host, 9 on the other: 2 µs outside, there and back."""
    assert only(apart(Wire().ping(), 7 * SECOND)).between == 2.0


@pytest.mark.parametrize("hops", [0, 4, 5])
def test_without_an_answer_there_is_no_time_between(hops: int) -> None:
    """What did not come back cannot be compared."""
    assert only(apart(Wire().ping(back=hops), SECOND)).between is None


def test_one_kernel_has_one_clock() -> None:
    """A local lab's hops are compared, and need no time between hosts."""
    (journey,) = told(Wire().ping())
    assert [stop.since_start for stop in journey.legs[0].stops] == [float(i) for i in range(10)]
    assert journey.between is None


def test_a_loop_is_told_in_the_order_of_its_ttl() -> None:
    """Two hosts that send a packet to and fro: each router counts the TTL down."""
    wire = Wire().ping(there=7)
    frame = ether(ipv4(A, B, echo(), ttl=62, ident=101))
    wire.see("node02:eth0", "out", ether(vxlan(frame, NODE2, NODE1)))
    wire.see("node01:eth0", "in", ether(vxlan(frame, NODE2, NODE1)))
    later = ether(ipv4(A, B, echo(), ttl=61, ident=101))
    wire.see("node01:eth0", "out", ether(vxlan(later)))
    (request,) = only(apart(wire, -SECOND)).legs
    assert names(request)[5:] == [
        "node02:eth0",
        "node02:flannel.1",
        "node02:eth0",
        "node01:eth0",
        "node01:eth0",
    ]


def test_a_packet_that_is_sent_again_is_two() -> None:
    """200 ms later at the same hop of the same host is another transmission, on both hosts."""
    wire = Wire()
    for _ in range(2):
        wire.pass_by(WAY, A, B, echo(), ident=101)
        wire.now += 300_000_000
    first, second = only(apart(wire, -3 * SECOND)).legs[:2]
    assert names(first) == names(second) == [name for name, *_ in WAY]
    assert (first.again, second.again) == (False, True)


def test_errors_come_before_answers() -> None:
    """A router's complaint on the way is told behind the packet that it is about."""
    wire = Wire().ping(there=4)
    quoted = ipv4(A, B, echo(), ttl=63, ident=101)
    wire.see("node01/container01:vethNS", "in", ether(ipv4(NODE1, A, complaint(1, quoted))))
    journey = only(apart(wire, SECOND, "node01"))
    assert [leg.role for leg in journey.legs] == ["request", "error"]


@pytest.mark.parametrize(
    ("role", "about", "first"),
    [
        ("request", "request", "node01"),
        ("answer", "answer", "node02"),
        ("error", "request", "node02"),
        ("error", "answer", "node02"),
    ],
)
def test_without_a_frame_that_leaves_the_source_decides(
    role: Role, about: Role, first: str
) -> None:
    """A request goes away from the source's host, everything else comes back to it."""
    packet = decode(ether(ipv4(A, B, echo())))
    both = [
        Seen(hop(f"{node}:cbr0"), Frame(ns, "in", b"", 0), packet, packet, 1, role, about)
        for node, ns in (("node01", 900), ("node02", 100))
    ]
    both.sort(key=Clocks(HOSTS, SOURCE, both).order)
    assert both[0].hop.node == first
