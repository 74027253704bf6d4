"""A journey says which hops saw the packet, what changed there, and where it was lost, and why."""

from __future__ import annotations

from dataclasses import replace

import pytest

import talk
from journeys import (
    NODE1,
    NODE2,
    TARGET,
    TOKEN,
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
    pieces,
    probe,
    states,
    tcp,
    told,
    trace,
    udp,
    vxlan,
)
from vxlab.sniff import Frame
from vxlab.state import Link, Net, Route, State
from vxlab.trace.journey import Journey, Leg, Probe
from vxlab.trace.why import Place
from vxlab.trace.why_lost import Counters


def only(wire: Wire, **kwargs: object) -> Journey:
    (journey,) = told(wire, **kwargs)  # type: ignore[arg-type]
    return journey


def names(leg: Leg) -> list[str]:
    return [str(stop.hop) for stop in leg.stops]


def test_a_ping_goes_there_and_back() -> None:
    """Every hop in its order, each with the time since the start and since the hop before."""
    journey = only(Wire().ping())
    request, answer = journey.legs
    assert journey.ok is True
    assert names(request) == [name for name, *_ in WAY]
    assert names(answer) == [name for name, *_ in mirrored()]
    assert [stop.since_start for stop in request.stops] == [float(i) for i in range(10)]
    assert [stop.since_last for stop in request.stops] == [None, *[1.0] * 9]
    assert journey.round_trip == 19.0
    assert (request.arrived, answer.arrived) == (True, True)
    assert request.what == "echo request, id 7 seq 1"


def test_what_changed_at_each_hop() -> None:
    """Routers count the TTL down and rewrite MACs; the VTEPs add 50 bytes and take them away."""
    request = only(Wire().ping()).legs[0]
    changed = {str(s.hop): [c.kind for c in s.changes] for s in request.stops if s.changes}
    assert changed == {
        "node01:flannel.1": ["ttl", "macs"],
        "node01:eth0": ["encapsulated"],
        "node02:flannel.1": ["decapsulated"],
        "node02:cbr0": ["ttl", "macs"],
    }
    (wrapped,) = request.stops[4].changes
    assert wrapped.values == {
        "overhead": 50,
        "outer_src": NODE1,
        "outer_dst": NODE2,
        "outer_ttl": 64,
        "udp_sport": 41000,
        "udp_dport": 8472,
        "vni": 1,
    }
    assert request.stops[3].changes[0].text == "TTL 64 -> 63"


def test_why_it_went_there() -> None:
    """Route, neighbour entry and FDB entry, as the kernel has them."""
    request = only(Wire().ping()).legs[0]
    assert [entry.text for entry in request.stops[3].why] == [
        "10.5.2.0/24 via 10.5.2.0 dev flannel.1 onlink",
        "10.5.2.0 dev flannel.1 lladdr 5a:00:00:00:00:02 PERMANENT",
    ]
    assert request.stops[4].why[0].text == (
        "5a:00:00:00:00:02 dev flannel.1 dst 192.168.56.22 permanent"
    )


@pytest.mark.parametrize("there", range(1, 10))
def test_the_last_hop_of_a_lost_request_is_marked(there: int) -> None:
    """Wherever it disappears, that is the end of the tree; the hops behind are told."""
    journey = only(Wire().ping(there=there))
    (request,) = journey.legs
    assert (journey.ok, request.arrived) == (False, False)
    assert str(request.stops[-1].hop) == WAY[there - 1][0]
    assert [str(h) for h in request.missed] == [name for name, *_ in WAY[there:]]
    assert request.reasons


@pytest.mark.parametrize("back", range(1, 10))
def test_the_last_hop_of_a_lost_answer_is_marked(back: int) -> None:
    """The request arrived, the answer did not."""
    journey = only(Wire().ping(back=back))
    request, answer = journey.legs
    assert (journey.ok, request.arrived, answer.arrived) == (False, True, False)
    assert str(answer.stops[-1].hop) == mirrored()[back - 1][0]


def test_no_answer_is_a_leg_of_its_own() -> None:
    """The target got the request and said nothing."""
    journey = only(Wire().ping(back=0))
    assert [(leg.role, leg.arrived, len(leg.stops)) for leg in journey.legs] == [
        ("request", True, 10),
        ("answer", False, 0),
    ]
    assert journey.legs[1].reasons[-1].text == "node02/container02 sent no answer"


def test_lost_frames_of_the_capture_are_no_lost_packets() -> None:
    """What a capture with drops did not see may have been there: not measured."""
    wire = Wire().ping(there=4)
    assert trace(wire).ok is False
    wire.dropped["node01:eth0"] = 3
    assert (trace(wire).ok, trace(wire).dropped) == (None, 3)


def test_an_answer_proves_the_request_arrived() -> None:
    """Even where the last hop could not be watched."""
    wire = Wire().ping()
    del wire.frames["node02/container02:vethNS"]
    wire.errors["node02/container02:vethNS"] = "Network is down"
    journey = only(wire)
    assert (journey.ok, journey.legs[0].arrived, journey.legs[0].reasons) == (True, True, ())


def test_hops_with_the_same_stamp_keep_the_tables_order() -> None:
    """The kernel stamps a packet once as it comes in; what follows may have the same time."""
    wire = Wire().ping()
    for name in ("node02:flannel.1", "node02:eth0"):
        first, *rest = wire.frames[name]
        wire.frames[name] = [replace(first, ns=wire.frames["node02:eth0"][0].ns), *rest]
    assert names(only(wire).legs[0]) == [name for name, *_ in WAY]


def test_a_packet_seen_twice_is_told() -> None:
    """A duplicate is not a second packet."""
    wire = Wire().ping()
    name = "node01:eth0"
    wire.frames[name].insert(1, replace(wire.frames[name][0], ns=wire.frames[name][0].ns + 50))
    request = only(wire).legs[0]
    assert request.stops[4].duplicates == 1
    assert request.note == "seen twice at eth0 on node01"


def test_a_retransmission_is_a_leg_of_its_own() -> None:
    """TCP sends its SYN again after a second; the first was lost on the way."""
    asked = Probe(1, "tcp", A, B, 50000, 80)
    wire = Wire()
    syn = tcp(50000, 80, 1000, 0, 2)
    wire.pass_by(WAY[:3], A, B, syn, proto=6, ident=1)
    wire.now += 1_000_000_000
    wire.pass_by(WAY, A, B, syn, proto=6, ident=2)
    wire.pass_by(mirrored(), B, A, tcp(80, 50000, 9, 1001, 18), proto=6, ident=0)
    (journey,) = told(wire, [asked])
    assert [(leg.what, leg.again, leg.arrived) for leg in journey.legs] == [
        ("TCP SYN 50000 -> 80", False, True),
        ("TCP SYN 50000 -> 80", True, True),
        ("TCP SYN, ACK 80 -> 50000", False, True),
    ]
    assert journey.ok is True


def test_the_same_packet_after_a_while_was_sent_again() -> None:
    """Answers without an IP id cannot be told by it, but by the time between them."""
    wire = Wire()
    wire.pass_by(WAY, A, B, echo(), ident=0)
    wire.now += 300_000_000
    wire.pass_by(WAY, A, B, echo(), ident=0)
    legs = only(wire).legs
    assert [(leg.role, leg.again) for leg in legs] == [
        ("request", False),
        ("request", True),
        ("answer", False),
    ]


def test_fragments_are_one_packet() -> None:
    """Cut by the source, seen in pieces, put together again by a node."""
    whole = ipv4(A, B, echo(size=3000), ident=5)
    wire = Wire()
    for fragment in pieces(whole, 1450):
        wire.see("node01/container01:vethNS", "out", ether(fragment))
    wire.see("node01:cbr0", "in", ether(whole))
    first, second = only(wire).legs[0].stops
    assert [seen.ip_length for seen in first.pieces] == [1444, 1444, 180]
    assert first.changes[0].text == "cut into 3 fragments of 1444 + 1444 + 180 bytes"
    assert second.changes[0].text == "3 fragments put together again"
    assert (first.duplicates, second.duplicates) == (0, 0)


def test_fragments_of_the_outer_packet_are_one_stop() -> None:
    """The underlay's MTU is too small for the outer packet; +50 bytes all the same."""
    inner = ether(ipv4(A, B, echo(size=1400), ttl=63, ident=5))
    wire = Wire()
    wire.see("node01:flannel.1", "out", inner)
    for fragment in pieces(vxlan(inner), 1000):
        wire.see("node01:eth0", "out", ether(fragment))
    stops = only(wire).legs[0].stops
    assert [str(stop.hop) for stop in stops] == ["node01:flannel.1", "node01:eth0"]
    assert [c.kind for c in stops[1].changes] == ["encapsulated", "fragmented"]
    assert stops[1].changes[0].values["overhead"] == 50


def test_a_closed_udp_port_is_an_answer() -> None:
    """The target's "port unreachable" shows that the datagram arrived."""
    asked = Probe(1, "udp", A, B, 50000, 9999, TOKEN, 56)
    request = udp(50000, 9999, TOKEN)
    wire = Wire()
    wire.pass_by(WAY, A, B, request, proto=17)
    refusal = complaint(3, ipv4(A, B, request, proto=17))
    wire.pass_by(mirrored(), B, A, refusal, ident=9)
    (journey,) = told(wire, [asked])
    assert (journey.ok, journey.legs[1].role) == (True, "answer")
    assert journey.legs[1].what == "ICMP port unreachable"


def test_a_routers_error_is_no_answer() -> None:
    """A node on the way complains; that is a leg, and a reason."""
    wire = Wire().ping(there=3)
    error = complaint(1, ipv4(A, B, echo()))
    for name, direction in (
        ("node01:cbr0", "out"),
        ("node01:vethlocal", "out"),
        ("node01/container01:vethNS", "in"),
    ):
        wire.see(name, direction, ether(ipv4("10.5.1.1", A, error, ident=9)))  # type: ignore[arg-type]
    journey = only(wire)
    request, said = journey.legs
    assert (journey.ok, said.role, said.arrived) == (False, "error", True)
    assert said.stops[0].why[0].kind == "route"
    assert "node01 (10.5.1.1) says: host unreachable" in [r.text for r in request.reasons]


def test_masquerading_is_seen_and_the_answer_finds_back() -> None:
    """NAT changes the source on the way out; conntrack brings the answer back."""
    lab = talk.TALK
    wire = Wire()
    asked = probe(dst=NODE2)
    for name, direction, src in (
        ("node01/container01:vethNS", "out", A),
        ("node01:cbr0", "in", A),
        ("node01:eth0", "out", NODE1),
        ("node02:eth0", "in", NODE1),
    ):
        wire.see(name, direction, ether(ipv4(src, NODE2, echo())))  # type: ignore[arg-type]
    for name, direction, dst in (
        ("node02:eth0", "out", NODE1),
        ("node01:eth0", "in", NODE1),
        ("node01:cbr0", "out", A),
        ("node01/container01:vethNS", "in", A),
    ):
        wire.see(name, direction, ether(ipv4(NODE2, dst, echo(0), ident=8)))  # type: ignore[arg-type]
    (journey,) = told(wire, [asked], lab=lab, at=Place("node02"))
    request, answer = journey.legs
    assert [c.text for c in request.stops[2].changes] == [f"source address {A} -> {NODE1} (NAT)"]
    assert (journey.ok, request.arrived, answer.arrived) == (True, True, True)
    assert [entry.kind for entry in answer.stops[2].why][:2] == ["nat", "route"]


def test_a_probe_that_was_refused_has_no_legs() -> None:
    """The container's own kernel did not send it; without a route the table says why."""
    refused = probe(refused="Message too long, mtu=1450")
    (journey,) = told(Wire(), [refused])
    assert (journey.ok, journey.legs) == (False, ())
    assert [r.text for r in journey.reasons] == ["the kernel says: Message too long, mtu=1450"]

    state = states()["node01"]
    inside = {"container01": replace(state.inside["container01"], routes=())}
    (journey,) = told(
        Wire(), [probe(refused="Network is unreachable")], node01=replace(state, inside=inside)
    )
    assert [r.code for r in journey.reasons] == ["no-route", "refused"]


def test_a_probe_that_no_hop_saw() -> None:
    """Nothing came out of the container: its gateway does not answer ARP."""
    (reason,) = only(Wire()).reasons
    assert reason.code == "no-neighbour"
    state = states()["node01"]
    links = {n: x for n, x in state.net.links.items() if n != "cbr0"}
    damaged = replace(state, net=replace(state.net, links=links))
    (reason,) = only(Wire(), node01=damaged).reasons
    assert reason.text == "cbr0 does not exist on node01"


def test_out_of_the_lab_is_out_of_sight() -> None:
    """An address that nobody in the lab has: the NIC is the last hop, an answer may come."""
    state = states()["node01"]
    routes = (*state.net.routes, Route("default", "", "eth0"))
    outward = replace(state, net=replace(state.net, routes=routes))
    wire = Wire()
    for name, direction in (("node01:cbr0", "in"), ("node01:eth0", "out")):
        wire.see(name, direction, ether(ipv4(A, "8.8.8.8", echo())))  # type: ignore[arg-type]
    (journey,) = told(wire, [probe(dst="8.8.8.8")], at=None, node01=outward)
    assert [(leg.role, leg.arrived) for leg in journey.legs] == [
        ("request", None),
        ("answer", False),
    ]
    assert journey.legs[1].reasons[0].text == "it left the lab, and no answer came back"


def test_a_rule_that_dropped_meanwhile_is_the_reason() -> None:
    """iptables' own counter of the rule grew between the two looks."""
    rule = "filter: -A FORWARD -p icmp -j DROP"
    journey = only(Wire().ping(there=3), grown={"node01": Counters(rules={rule: 1})})
    (reason,) = journey.legs[0].reasons
    assert reason.code == "iptables"
    assert "-A FORWARD -p icmp -j DROP" in reason.text


def test_a_rule_at_the_target_is_the_reason_for_silence() -> None:
    """The request came to the gateway, whose INPUT chain dropped it."""
    wire = Wire()
    wire.pass_by(WAY[:3], A, "10.5.1.1", echo())
    grown = {"node01": Counters(rules={"filter: -P INPUT DROP": 1})}
    (journey,) = told(wire, [probe(dst="10.5.1.1")], at=Place("node01"), grown=grown)
    assert journey.legs[0].arrived is True
    assert journey.legs[1].reasons[0].code == "iptables"


def test_longer_than_the_next_interface_takes() -> None:
    """A don't-fragment packet and a smaller MTU on the other node."""
    state = states()["node01"]
    links = dict(state.net.links)
    links["flannel.1"] = replace(links["flannel.1"], mtu=1000)
    small = replace(state, net=replace(state.net, links=links))
    wire = Wire()
    wire.pass_by(WAY[:3], A, B, echo(size=1200), df=1)
    (reason,) = only(wire, node01=small).legs[0].reasons
    assert reason.text == (
        "1228 bytes are more than the MTU of flannel.1 on node01, 1000, and it must not be cut "
        "(don't fragment)"
    )
    whole = Wire()
    whole.pass_by(WAY[:3], A, B, echo(size=1200))
    assert only(whole, node01=small).legs[0].reasons[0].code == "unknown"


def test_nothing_here_needs_states_of_other_nodes() -> None:
    """A node that was not read cannot be walked through, and that is said, not raised."""
    journey = only(
        Wire().ping(there=5), node02=State(net=Net(links={"x": Link("x", "", 1, True, "")}))
    )
    assert journey.legs[0].reasons[0].text == "eth0 does not exist on node02"


def test_frames_of_a_gateway_ping() -> None:
    """The gateway is cbr0 itself: three hops there, three back, no VXLAN."""
    wire = Wire()
    gateway = "10.5.1.1"
    wire.pass_by(WAY[:3], A, gateway, echo())
    for name in ("node01:cbr0", "node01:vethlocal"):
        wire.see(name, "out", ether(ipv4(gateway, A, echo(0), ident=3)))
    wire.see("node01/container01:vethNS", "in", ether(ipv4(gateway, A, echo(0), ident=3)))
    (journey,) = told(wire, [probe(dst=gateway)], at=Place("node01"))
    assert journey.ok is True
    assert [(len(leg.stops), leg.arrived, leg.encapsulated) for leg in journey.legs] == [
        (3, True, False),
        (3, True, False),
    ]


def test_a_loop_shows_every_round() -> None:
    """The same hop with a smaller TTL is another stop, not a duplicate."""
    wire = Wire()
    for ttl in (64, 62, 60):
        frame = ether(ipv4(A, B, echo(), ttl=ttl))
        wire.frames.setdefault("node01:cbr0", []).append(Frame(wire.now, "in", frame, len(frame)))
        wire.now += 1000
    request = only(wire).legs[0]
    assert len(request.stops) == 3
    assert request.note == ""
    assert hop("node01:cbr0") == request.stops[2].hop
    assert TARGET.container == "container02"
