"""The way of a packet by the kernels' tables; what tables, rules and counters say of a loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from journeys import WAY as TALKS_WAY
from journeys import A, B, Wire, mirrored, probe, states, told
from vxlab import labfile
from vxlab.lab import Lab
from vxlab.state import Link, Neighbour, Net, Route, State, Vxlan
from vxlab.steps.site import SWITCH
from vxlab.trace.why import Place, lookup, owner, shown
from vxlab.trace.why_lost import Counters, read_links, read_rules, read_stack
from vxlab.trace.why_way import way

LABS = Path(__file__).parents[1] / "labs"
FIRST, SECOND = Place("node01", "container01"), Place("node02", "container02")
TALK = labfile.default()


def lab_of(backend: dict[str, object]) -> Lab:
    return replace(TALK, overlay=replace(TALK.overlay, backend=backend))  # type: ignore[arg-type]


def steps(lab: Lab, start: Place, target: str, at: Mapping[str, State] | None = None) -> list[str]:
    found = way(lab, at or states(lab), start, target)
    assert found.end is None
    return [f"{step.hop} {step.direction}" for step in found.steps]


def test_from_container_to_container() -> None:
    """The talk's way, and the same back."""
    assert steps(TALK, FIRST, B) == [f"{name} {direction}" for name, direction, *_ in TALKS_WAY]
    assert steps(TALK, SECOND, A) == [f"{name} {direction}" for name, direction, *_ in mirrored()]
    assert way(TALK, states(), FIRST, B).encapsulated


def test_to_the_gateway() -> None:
    """The gateway is the node's own address on cbr0; from there it comes back through the port."""
    assert steps(TALK, FIRST, "10.5.1.1") == [
        "node01/container01:vethNS out",
        "node01:vethlocal in",
        "node01:cbr0 in",
    ]
    assert steps(TALK, Place("node01"), A) == [
        "node01:cbr0 out",
        "node01:vethlocal out",
        "node01/container01:vethNS in",
    ]


def test_to_another_node() -> None:
    """An underlay address is reached without VXLAN, and answers through it."""
    there = way(TALK, states(), FIRST, "192.168.56.22")
    assert ([str(s.hop) for s in there.steps][-2:], there.encapsulated) == (
        ["node01:eth0", "node02:eth0"],
        False,
    )
    assert way(TALK, states(), Place("node02"), A).encapsulated


def test_on_one_node_it_is_bridged() -> None:
    """From port to port: cbr0 itself does not see it."""
    lab = labfile.load(LABS / "four-node.yaml")
    assert steps(lab, FIRST, "10.5.1.11") == [
        "node01/container01:vethNS out",
        "node01:vethlocal in",
        "node01:vethlocal2 out",
        "node01/container01-2:vethNS in",
    ]


@pytest.mark.parametrize(
    "backend", [{"Type": "host-gw"}, {"Type": "vxlan", "DirectRouting": True}], ids=str
)
def test_plain_routes_do_not_encapsulate(backend: dict[str, object]) -> None:
    """host-gw and DirectRouting go from NIC to NIC."""
    found = way(lab_of(backend), states(lab_of(backend)), FIRST, B)
    assert [str(step.hop) for step in found.steps][2:6] == [
        "node01:cbr0",
        "node01:eth0",
        "node02:eth0",
        "node02:cbr0",
    ]
    assert (found.encapsulated, found.end) == (False, None)


def test_flannels_udp_backend_goes_through_flanneld() -> None:
    """flannel0 on both nodes; flanneld carries the packet between."""
    lab = lab_of({"Type": "udp"})
    found = way(lab, states(lab), FIRST, B)
    assert [str(step.hop) for step in found.steps][3:7] == [
        "node01:flannel0",
        "node01:eth0",
        "node02:eth0",
        "node02:flannel0",
    ]
    assert (found.encapsulated, found.end) == (True, None)


def test_out_of_the_lab() -> None:
    """By the default route, if the node has one."""
    every = states()
    node = every["node01"]
    net = replace(node.net, routes=(*node.net.routes, Route("default", "", "eth0")))
    found = way(TALK, {**every, "node01": replace(node, net=net)}, FIRST, "8.8.8.8")
    assert (found.leaves, found.end, str(found.steps[-1].hop)) == (True, None, "node01:eth0")


def test_the_longest_prefix_decides() -> None:
    """As in the kernel; of equal ones the first, which has the lower metric."""
    routes = (
        Route("default", "1.1.1.1", "eth0"),
        Route("10.5.0.0/16", "", "flannel0"),
        Route("10.5.2.0/24", "", "first"),
        Route("10.5.2.0/24", "", "second"),
    )
    net = Net(routes=routes)
    found = [lookup(net, a) for a in ("10.5.2.7", "10.5.3.7", "9.9.9.9")]
    assert [route.dev for route in found if route] == ["first", "flannel0", "eth0"]
    assert lookup(Net(routes=routes[1:]), "9.9.9.9") is None
    assert shown(routes[0]) == "default via 1.1.1.1 dev eth0"


def test_who_has_an_address() -> None:
    """Containers, gateways, VTEPs and NICs; nobody else."""
    asked = [A, "10.5.2.1", "192.168.56.22", "8.8.8.8"]
    assert [owner(TALK, states(), address) for address in asked] == [
        FIRST,
        Place("node02"),
        Place("node02"),
        None,
    ]


# --- damage -------------------------------------------------------------------------------------

Damage = Callable[[Net], Net]


def without(name: str) -> Damage:
    return lambda net: replace(net, links={n: x for n, x in net.links.items() if n != name})


def linked(name: str, **fields: object) -> Damage:
    def change(net: Net) -> Net:
        link: Link = replace(net.links[name], **fields)  # type: ignore[arg-type]
        return replace(net, links={**net.links, name: link})

    return change


def keeping(field: str, keep: Callable[[object], bool]) -> Damage:
    def change(net: Net) -> Net:
        kept: Any = {field: tuple(filter(keep, getattr(net, field)))}
        return replace(net, **kept)

    return change


def no_overlay_route(net: Net) -> Net:
    return replace(net, routes=tuple(r for r in net.routes if r.dev != "flannel.1"))


def down(net: Net) -> Net:
    """flannel.1 down: the kernel takes its route away."""
    return linked("flannel.1", up=False)(no_overlay_route(net))


OTHER_VNI = Vxlan(7, 8472, "", False)
OTHER_PORT = Vxlan(1, 4789, "", False)

DAMAGES: list[tuple[str, Damage, str, int, str]] = [
    # node, damage, code, hops that see the packet, a part of what is said
    ("node01", no_overlay_route, "no-route", 3, "node01 has no route to 10.5.2.10"),
    ("node01", down, "no-route", 3, "flannel.1 is down on node01, and with it went the route"),
    ("node01", linked("flannel.1", up=False), "link-down", 3, "flannel.1 is down on node01"),
    ("node01", keeping("neighbours", lambda n: False), "no-neighbour", 3, "10.5.2.0 on flannel.1"),
    (
        "node01",
        keeping("fdb", lambda f: f.dev != "flannel.1"),  # type: ignore[attr-defined]
        "no-fdb",
        4,
        "no FDB entry for 5a:00:00:00:00:02",
    ),
    ("node01", lambda n: replace(n, sysctls={}), "forwarding", 3, "ip_forward = 0"),
    ("node01", linked("vethlocal", master=""), "no-bridge", 2, "not a port of cbr0"),
    ("node01", linked("cbr0", up=False), "link-down", 2, "cbr0 is down on node01"),
    ("node01", linked("eth0", up=False), "link-down", 4, "eth0 is down on node01"),
    ("node02", linked("eth0", up=False), "link-down", 5, "eth0 is down on node02"),
    ("node02", without("flannel.1"), "no-vtep", 6, "node02 has no VTEP for VNI 1 on UDP 8472"),
    ("node02", linked("flannel.1", vxlan=OTHER_VNI), "no-vtep", 6, "flannel.1 has VNI 7"),
    ("node02", linked("flannel.1", vxlan=OTHER_PORT), "no-vtep", 6, "VNI 1 on UDP 4789"),
    ("node02", linked("flannel.1", mac="5a:00:00:00:00:99"), "wrong-mac", 7, "are outdated"),
    ("node02", lambda n: replace(n, sysctls={}), "forwarding", 7, "node02 does not pass"),
    ("node02", keeping("routes", lambda r: r.dev != "cbr0"), "no-route", 7, "no route"),  # type: ignore[attr-defined]
    ("node02", linked("vethlocal", up=False), "link-down", 8, "vethlocal is down on node02"),
    (SWITCH, linked("node02", up=False), "link-down", 5, "the switch's port to node02 is down"),
]


@pytest.mark.parametrize(("node", "damage", "code", "seen", "text"), DAMAGES)
def test_damage_is_the_reason(node: str, damage: Damage, code: str, seen: int, text: str) -> None:
    """Where the tables end is where the packet is seen last, and they say why."""
    every = states()
    damaged = replace(every[node], net=damage(every[node].net))
    found = way(TALK, {**every, node: damaged}, FIRST, B)
    assert found.end is not None
    assert (found.end.code, len(found.steps)) == (code, seen)
    assert text in found.end.text

    (journey,) = told(Wire().ping(there=seen), [probe()], **{node: damaged})
    (request,) = journey.legs
    assert (len(request.stops), request.reasons[0].code) == (seen, code)


def test_a_container_that_is_gone() -> None:
    """Nobody behind the bridge has the address."""
    every = states()
    gone = replace(every["node02"], inside={})
    found = way(TALK, {**every, "node02": gone}, FIRST, B)
    assert found.end is not None
    assert (found.end.code, found.end.text) == ("no-neighbour", "nobody at cbr0 has 10.5.2.10")
    assert str(found.steps[-1].hop) == "node02:flannel.1"
    (journey,) = told(Wire().ping(there=7), [probe()], node02=gone)
    assert journey.legs[0].reasons[0].code == "no-neighbour"

    # As long as the neighbour entry is there, cbr0 sends to it.
    entries = (*gone.net.neighbours, Neighbour(B, "cbr0", "0a:00:00:00:02:00", "STALE"))
    stale = replace(gone, net=replace(gone.net, neighbours=entries))
    found = way(TALK, {**every, "node02": stale}, FIRST, B)
    assert str(found.steps[-1].hop) == "node02:cbr0"
    (journey,) = told(Wire().ping(there=7), [probe()], node02=stale)
    assert journey.legs[0].reasons[0].code == "no-neighbour"


def test_routes_that_go_round() -> None:
    """Two nodes that send a packet to each other."""
    lab = lab_of({"Type": "host-gw"})
    every = states(lab)
    for name, via in (("node01", "192.168.56.22"), ("node02", "192.168.56.21")):
        state = every[name]
        routes = (*state.net.routes, Route("10.5.9.0/24", via, "eth0"))
        every[name] = replace(state, net=replace(state.net, routes=routes))
    end = way(lab, every, FIRST, "10.5.9.1").end
    assert end is not None
    assert end.code == "loop"


# --- counters -----------------------------------------------------------------------------------

SAVED = """\
# Generated by iptables-save
*filter
:INPUT ACCEPT [10:840]
:FORWARD DROP [3:252]
:MINE - [0:0]
[2:168] -A FORWARD -s 10.5.1.10/32 -p icmp -j DROP
[7:588] -A FORWARD -j ACCEPT
[1:84] -A MINE -m comment --comment "a -j DROP in words" -j REJECT --reject-with icmp-net-prohibited
COMMIT
*mangle
[4:336] -A PREROUTING -j DROP
COMMIT
"""


def test_rules_that_drop() -> None:
    """Only DROP and REJECT, with their packets, and policies that drop."""
    assert read_rules(SAVED) == {
        "filter: -P FORWARD DROP": 3,
        "filter: -A FORWARD -s 10.5.1.10/32 -p icmp -j DROP": 2,
        'filter: -A MINE -m comment --comment "a -j DROP in words" -j REJECT --reject-with '
        "icmp-net-prohibited": 1,
        "mangle: -A PREROUTING -j DROP": 4,
    }
    assert read_rules("") == {}


def test_what_links_lost() -> None:
    """The columns of /proc/net/dev."""
    text = "Inter-|\n face |\n  eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 9 0\n"
    assert read_links(text) == {
        "eth0 rx errors": 3,
        "eth0 rx dropped": 4,
        "eth0 tx errors": 7,
        "eth0 tx dropped": 8,
        "eth0 tx carrier": 9,
    }


def test_what_the_stack_threw_away() -> None:
    """Only counters that tell of a loss."""
    text = "Ip: Forwarding OutNoRoutes\nIp: 1 5\nTcpExt: IPReversePathFilter X\nTcpExt: 2 9\n"
    assert read_stack(text) == {"IpOutNoRoutes": 5, "TcpExtIPReversePathFilter": 2}


def test_only_what_grew_counts() -> None:
    """What was counted before the probe has nothing to do with it."""
    before = Counters({"rule": 5}, {"eth0 rx dropped": 1}, {"IpInDiscards": 2})
    after = Counters({"rule": 5, "new": 1}, {"eth0 rx dropped": 4}, {"IpInDiscards": 2})
    assert after.since(before) == Counters({"new": 1}, {"eth0 rx dropped": 3}, {})


def test_counters_explain_where_tables_do_not() -> None:
    """rp_filter, for one, is in no table."""
    grown = {"node02": Counters({}, {"eth0 rx dropped": 1}, {"TcpExtIPReversePathFilter": 1})}
    (journey,) = told(Wire().ping(there=7), grown=grown)
    assert [r.text for r in journey.legs[0].reasons] == [
        "the reverse path filter (rp_filter) dropped it (TcpExtIPReversePathFilter +1 on node02)",
        "eth0 rx dropped +1 on node02",
    ]


def test_an_interface_that_could_not_be_watched_is_named() -> None:
    """Where nothing else tells."""
    wire = Wire().ping(there=3)
    wire.errors["node01:flannel.1"] = "No such device"
    (journey,) = told(wire)
    (reason,) = journey.legs[0].reasons
    assert reason.text == "flannel.1 could not be watched: No such device"
