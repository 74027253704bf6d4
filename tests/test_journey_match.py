"""A probe is found again at every hop, whatever was done to it on the way; others' packets not."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from journeys import (
    NODE1,
    NODE2,
    TOKEN,
    A,
    B,
    Wire,
    complaint,
    echo,
    ether,
    ipv4,
    pieces,
    probe,
    tcp,
    told,
    udp,
    vxlan,
)
from vxlab.trace.journey import Probe, Seen
from vxlab.trace.journey_match import Matcher

NIC = "node01:eth0"


def match(wire: Wire, *probes: Probe, flanneld: int | None = None) -> list[Seen]:
    matcher = Matcher(probes or [probe()], vxlan_ports={8472}, flanneld_port=flanneld)
    return sorted(matcher.match(wire.watched), key=lambda seen: seen.frame.ns)


def roles(wire: Wire, *probes: Probe) -> list[tuple[int, str, str]]:
    return [(seen.probe, seen.role, seen.about) for seen in match(wire, *probes)]


def one(data: bytes) -> Wire:
    """A wire that one frame passed."""
    wire = Wire()
    wire.see(NIC, "out", data)
    return wire


REQUEST = ipv4(A, B, echo())
THERE = (1, "request", "request")
BACK = (1, "answer", "answer")


def test_a_ping_is_seen_at_all_hops_there_and_back() -> None:
    """Plain and encapsulated, the same token is the same packet."""
    seen = match(Wire().ping())
    assert [s.role for s in seen] == ["request"] * 10 + ["answer"] * 10
    assert [s.encapsulated for s in seen[:10]] == ["eth0" in s.hop.interface for s in seen[:10]]


def test_of_several_probes_each_has_its_own() -> None:
    """Tokens tell the probes apart."""
    wire = Wire().ping().ping(seq=2, token=b"another!")
    found = roles(wire, probe(), probe(2, token=b"another!"))
    assert found == [THERE] * 10 + [BACK] * 10 + [(2, *THERE[1:])] * 10 + [(2, *BACK[1:])] * 10


@pytest.mark.parametrize(
    "packet",
    [
        ipv4(A, B, echo(token=b"somebody")),
        ipv4(A, B, echo(seq=9)),
        ipv4(A, B, udp(1, 2, TOKEN)),
        ipv4(A, B, tcp(7, 1, 99, 0, 2), proto=6),
        ipv4(A, B, b"\x08"),
        ipv4(A, B, complaint(1, ipv4(B, A, echo(token=b"somebody")))),
        b"",
        b"\x45",
    ],
)
def test_others_packets_are_not_taken_for_the_probe(packet: bytes) -> None:
    """Another ping between the same containers, or broken bytes."""
    assert roles(one(ether(packet))) == []


def test_nat_changes_addresses_and_identifiers_but_not_the_token() -> None:
    """A masqueraded ping is still the same."""
    assert roles(one(ether(ipv4(NODE1, "8.8.8.8", echo())))) == [THERE]


def test_inner_fragments_belong_together() -> None:
    """Later fragments have no token; addresses and IP id tell, also where the first is missing."""
    first, second, third = pieces(ipv4(A, B, echo(size=3000), ident=5), 1450)
    wire = Wire()
    wire.see("node01:cbr0", "in", ether(third))
    wire.see(NIC, "out", ether(vxlan(ether(second))))
    wire.see("node01:cbr0", "in", ether(first))
    assert roles(wire) == [THERE] * 3
    assert [seen.piece for seen in match(wire)] == [(0, 2848), (0, 1424), (0, 0)]


def test_outer_fragments_belong_together() -> None:
    """The outer packet was cut up: only its first piece shows the inner packet."""
    first, second = pieces(vxlan(ether(ipv4(A, B, echo(size=1472), ident=5))), 1500)
    wire = Wire()
    wire.see(NIC, "out", ether(second))
    wire.see(NIC, "out", ether(first))
    assert roles(wire) == [THERE] * 2
    assert [seen.piece for seen in match(wire)] == [(1480, 0), (0, 0)]


def test_another_packets_fragments_do_not_belong_to_it() -> None:
    """The IP id differs."""
    first, _ = pieces(ipv4(A, B, echo(size=2000), ident=5), 1450)
    _, stranger = pieces(ipv4(A, B, echo(size=2000, token=b"somebody"), ident=6), 1450)
    wire = one(ether(first))
    wire.see(NIC, "out", ether(stranger))
    assert len(match(wire)) == 1


def test_an_icmp_error_is_about_the_packet_it_quotes() -> None:
    """A router's words about the request, and about the answer."""
    about_request = ether(ipv4("10.5.1.1", A, complaint(0, REQUEST)))
    about_answer = ether(ipv4("10.5.2.1", B, complaint(0, ipv4(B, A, echo(0)))))
    assert roles(one(about_request)) == [(1, "error", "request")]
    assert roles(one(about_answer)) == [(1, "error", "answer")]


def test_an_icmp_error_about_the_outer_packet_is_about_the_inner_one() -> None:
    """A node without a VTEP says "port unreachable" to the other node."""
    outer = vxlan(ether(REQUEST))
    assert roles(one(ether(ipv4(NODE2, NODE1, complaint(3, outer))))) == [(1, "error", "request")]


UDP = Probe(1, "udp", A, B, 50000, 9999, TOKEN, 56)


def test_udp_is_known_by_token_or_ports() -> None:
    """A service's answer need not hold the token; a closed port's quotes it."""
    request = ipv4(A, B, udp(50000, 9999, TOKEN + b"data"), proto=17)
    assert roles(one(ether(request)), UDP) == [THERE]
    assert roles(one(ether(ipv4(B, A, udp(9999, 50000, b"hello"), proto=17))), UDP) == [BACK]
    assert roles(one(ether(ipv4(B, A, udp(9999, 50000, TOKEN), proto=17))), UDP) == [BACK]
    assert roles(one(ether(ipv4(B, A, udp(9999, 50001, b"hello"), proto=17))), UDP) == []
    refusal = ipv4(B, A, complaint(3, request))
    assert roles(one(ether(refusal)), UDP) == [(1, "error", "request")]


TCP = Probe(1, "tcp", A, B, 50000, 80)


@pytest.mark.parametrize(
    ("flags", "ack", "found"),
    [
        (2 | 16, 1001, [BACK]),
        (4 | 16, 1001, [BACK]),
        (16, 1001, []),  # an ACK of the open connection
        (2 | 16, 1002, []),  # of another connection
    ],
)
def test_tcp_is_a_syn_and_its_first_answer(
    flags: int, ack: int, found: list[tuple[int, str, str]]
) -> None:
    """SYN and ACK, or RST, by the sequence number that the SYN began with."""
    wire = one(ether(ipv4(A, B, tcp(50000, 80, 1000, 0, 2), proto=6)))
    wire.see(NIC, "in", ether(ipv4(B, A, tcp(80, 50000, 5, ack, flags), proto=6)))
    assert roles(wire, TCP) == [THERE, *found]


def test_a_short_quote_of_a_syn_is_enough() -> None:
    """RFC 792 lets a router quote 8 bytes behind the IP header."""
    syn = ipv4(A, B, tcp(50000, 80, 1000, 0, 2), proto=6)
    wire = one(ether(syn))
    wire.see(NIC, "in", ether(ipv4("10.5.1.1", A, complaint(1, syn[:28]))))
    assert roles(wire, TCP) == [THERE, (1, "error", "request")]


def test_flannels_udp_backend_carries_ip_packets() -> None:
    """Behind UDP 8285 an IP header follows at once."""
    carried = ipv4(NODE1, NODE2, udp(8285, 8285, REQUEST), proto=17)
    (seen,) = match(one(ether(carried)), flanneld=8285)
    assert (str(seen.ip and seen.ip.dst), seen.ip_length) == (B, 112)


@pytest.mark.parametrize("seed", range(20))
def test_broken_frames_are_passed_over(seed: int) -> None:
    """Cut short, or with bytes of noise in them: nothing is raised, whatever a capture holds."""
    chance = random.Random(seed)  # noqa: S311
    wire = Wire().ping()
    wire.see(NIC, "out", ether(vxlan(ether(pieces(ipv4(A, B, echo(size=3000)), 1400)[1]))))
    wire.see(NIC, "out", ether(ipv4(NODE2, NODE1, complaint(3, vxlan(ether(REQUEST))))))
    noisy = Wire()
    for name, frames in wire.frames.items():
        for frame in frames:
            data = bytearray(frame.data)
            for _ in range(chance.randrange(8)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            noisy.see(name, frame.direction, bytes(data[: chance.randrange(len(data) + 1)]))
    for probes in ([probe()], [UDP], [TCP]):
        assert {journey.ok for journey in told(noisy, probes)} <= {True, False}


# --- probes of other programs ---------------------------------------------------------------------


def busybox(seq: int, *, token: bytes = b"\x11\x22\x33\x44", fill: bytes = b"\xa7") -> bytes:
    """An echo request's data as busybox writes it: the time in 4 bytes, then the filling."""
    body = token + fill * 52
    return echo(8, seq, body[:8])[:8] + body


FOREIGN = probe(sport=0, dport=0, token=b"", fill=b"\xa7")


def test_a_token_is_learnt_where_the_addresses_are_the_probes_own() -> None:
    """Seen in the container it is known behind NAT, too, and in its answer."""
    wire = Wire()
    wire.see("node01/container01:vethNS", "out", ether(ipv4(A, B, busybox(0))))
    wire.see(NIC, "out", ether(ipv4("192.168.56.21", B, busybox(0))))
    wire.see(NIC, "in", ether(ipv4(B, "192.168.56.21", b"\0" + busybox(0)[1:])))
    assert roles(wire, FOREIGN) == [THERE, THERE, BACK]


@pytest.mark.parametrize(
    "data",
    [busybox(1), busybox(0, fill=b"\xa8"), echo(8, 0)],
    ids=["another number", "another filling", "another ping"],
)
def test_another_ping_is_not_taken_for_the_probe(data: bytes) -> None:
    """Sequence number and filling have to be the probe's."""
    assert roles(one(ether(ipv4(A, B, data))), FOREIGN) == []


def test_another_containers_ping_is_not_taken_for_the_probe() -> None:
    """The addresses have to be the probe's where it is learnt."""
    assert roles(one(ether(ipv4("10.5.1.11", B, busybox(0)))), FOREIGN) == []


def test_pings_with_the_same_data_are_told_apart_by_their_numbers() -> None:
    """iputils fills small probes with the filling alone."""
    wire = Wire()
    for seq in (1, 2):
        body = b"\xa7" * 8
        wire.see(NIC, "out", ether(ipv4(A, B, echo(8, seq, body, 8))))
        wire.see(NIC, "in", ether(ipv4(B, A, echo(0, seq, body, 8))))
    both = [replace(FOREIGN, number=n, dport=n, size=8) for n in (1, 2)]
    assert roles(wire, *both) == [
        (1, "request", "request"),
        (1, "answer", "answer"),
        (2, "request", "request"),
        (2, "answer", "answer"),
    ]


def test_a_datagrams_port_is_learnt_for_its_answer() -> None:
    """A service's answer without the token goes to the port that the datagram came from."""
    wire = Wire()
    wire.see(NIC, "out", ether(ipv4(A, B, udp(50123, 9999, TOKEN + b"data"), proto=17)))
    wire.see(NIC, "in", ether(ipv4(B, A, udp(9999, 50123, b"hello"), proto=17)))
    wire.see(NIC, "in", ether(ipv4(B, A, udp(9999, 50124, b"hello"), proto=17)))
    sent = probe(protocol="udp", sport=0, dport=9999)
    assert roles(wire, sent) == [THERE, BACK]


def test_a_connections_port_is_learnt_in_the_order_of_the_probes() -> None:
    """Of two the first got lost in the node: the second stays the second, also its answer."""
    wire = Wire()
    first, second = tcp(50001, 80, 111, 0, 2), tcp(50002, 80, 222, 0, 2)
    wire.see(NIC, "out", ether(ipv4(A, B, second, proto=6)))
    wire.see(NIC, "in", ether(ipv4(B, A, tcp(80, 50002, 0, 223, 20), proto=6)))
    for segment in (first, first, second, tcp(50003, 80, 333, 0, 2)):
        wire.see("node01/container01:vethNS", "out", ether(ipv4(A, B, segment, proto=6)))
    both = [probe(number=n, protocol="tcp", sport=0, dport=80, token=b"") for n in (1, 2)]
    assert sorted(roles(wire, *both)) == [
        (1, "request", "request"),
        (1, "request", "request"),
        (2, "answer", "answer"),
        (2, "request", "request"),
        (2, "request", "request"),
    ]
