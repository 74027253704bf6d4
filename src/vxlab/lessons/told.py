"""The way of a packet in words: every line of every table on it, and what the line says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vxlab.lab import Lab
from vxlab.lessons.way import Way
from vxlab.mtu import OVERHEAD
from vxlab.state import FdbEntry, Link, Neighbour, Route
from vxlab.steps import bridge, overlay
from vxlab.steps.veth import INSIDE


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that a command shows in a lab, and what it means.

    Args:
        place: where the command is typed: node01, container01; empty for a remark.
        command: what shows it.
        shown: the part of its output that counts, as the command spells it; empty if it is missing.
        words: what it says.
        ok: whether it is there and right.
        brief: the same as a part of one sentence about the whole way.
    """

    place: str
    command: str
    shown: str
    words: str
    ok: bool = True
    brief: str = ""


def remark(words: str, *, ok: bool = True) -> Line:
    """Something to say of a lab that no command shows."""
    return Line("", "", "", words, ok)


def route_text(route: Route) -> str:
    """A route as `ip route` prints it."""
    words = [route.dst]
    protocol = "" if route.protocol == "boot" else route.protocol
    scope = "" if route.scope == "global" else route.scope
    pairs = (("via", route.via), ("dev", route.dev), ("proto", protocol), ("scope", scope))
    for name, value in pairs:
        words += [name, value] if value else []
    return " ".join([*words, *(["onlink"] if route.onlink else [])])


def neighbour_text(entry: Neighbour) -> str:
    """An entry as `ip neigh show dev ...` prints it."""
    return f"{entry.address} lladdr {entry.mac} {entry.state}"


def fdb_text(entry: FdbEntry) -> str:
    """An entry as `bridge fdb show dev ...` prints it."""
    words = [entry.mac, *(["dst", entry.dst] if entry.dst else []), "self", entry.state]
    return " ".join(word for word in words if word)


def vxlan_text(link: Link) -> str:
    """What `ip -d link show` prints of a VXLAN interface, without its defaults."""
    if link.vxlan is None:
        return ""
    x = link.vxlan
    learning = "" if x.learning else " nolearning"
    return f"vxlan id {x.vni} local {x.local} dstport {x.port}{learning}"


def sentence(lines: Iterator[Line]) -> str:
    """The whole way, as far as the tables lead, in one sentence."""
    parts = [line.brief for line in lines if line.brief]
    text = "; ".join(parts)
    return text[:1].upper() + text[1:] + "." if text else ""


def tell(lab: Lab, way: Way) -> Iterator[Line]:
    """Line by line, to the first one that is missing or wrong: there the packet stays."""
    for line in _all(lab, way):
        yield line
        if not line.ok:
            return


def _all(lab: Lab, way: Way) -> Iterator[Line]:
    yield gateway(way)
    yield plugged(way)
    yield forwards(way)
    yield routed(way)
    if way.tunnel:
        yield resolved(way)
        yield placed(way)
        yield wrapped(lab, way)
    elif way.device is not None and way.device.kind == "tun":
        yield handed_over(way)
    else:
        yield direct(lab, way)
    yield arrives(way)


def gateway(way: Way) -> Line:
    """Out of the container."""
    route, command = way.default, "ip route"
    if route is None:
        words = f"there is no default route: ping {way.target} says Network is unreachable"
        return Line(way.src.name, command, "", words, ok=False, brief=words)
    words = f"{way.target} is not in {way.subnet}, so the packet goes to the gateway, {route.via}"
    return Line(way.src.name, command, f"default via {route.via} dev {route.dev}", words)


def plugged(way: Way) -> Line:
    """Through the cable and into the bridge, whose address the gateway's is."""
    veth, command = way.src.veth, f"ip link show master {bridge.NAME}"
    if way.port is None or way.port.master != bridge.NAME or way.bridge is None:
        words = f"{veth} is not plugged into {bridge.NAME}"
        return Line(way.src.node, command, "", words, ok=False, brief=words)
    addresses = " ".join(way.bridge.addresses) or "none"
    shown = f"{veth} mtu {way.port.mtu} master {bridge.NAME}"
    if not way.in_bridge:
        words = f"{veth} and {bridge.NAME} (address: {addresses}) do not lead to the gateway"
        return Line(way.src.node, command, shown, words, ok=False, brief=words)
    words = f"the other end of the cable {INSIDE} is a port of {bridge.NAME}, which has {addresses}"
    return Line(way.src.node, command, shown, words)


def forwards(way: Way) -> Line:
    """The node is a router."""
    command, node = "sysctl net.ipv4.ip_forward", way.src.node
    if not way.forwards:
        words = f"{node} drops what is not its own: ip_forward is not 1"
        return Line(node, command, "net.ipv4.ip_forward = 0", words, ok=False, brief=words)
    words = f"{node} passes on what is not its own"
    return Line(node, command, "net.ipv4.ip_forward = 1", words)


def routed(way: Way) -> Line:
    """Which interface and which next hop."""
    node, route = way.src.node, way.route
    if route is None:
        words = f"{node} has no route to {way.target}"
        return Line(node, "ip route", "", words, ok=False, brief=words)
    hop = f", next hop {route.via}" if route.via else ""
    words = f"packets for {route.dst} leave {node} through {route.dev}{hop}"
    brief = f"the packet for {way.target} leaves {node} through {route.dev}"
    if way.device is None or not way.device.up:
        words = f"{route.dev} is down, or gone"
        return Line(node, "ip route", route_text(route), words, ok=False, brief=words)
    return Line(node, "ip route", route_text(route), words, brief=brief)


def resolved(way: Way) -> Line:
    """Which MAC the next hop has."""
    assert way.route is not None  # noqa: S101 - `tell` stops at a missing route
    node, command = way.src.node, f"ip neigh show dev {way.route.dev}"
    hop = way.route.via or way.target
    if way.neighbour is None:
        words = f"there is no neighbour entry for {hop}: nobody answers ARP on {way.route.dev}"
        return Line(node, command, "", words, ok=False, brief=words)
    mac, shown = way.neighbour.mac, neighbour_text(way.neighbour)
    brief = f"the neighbour entry for {hop} gives {mac}"
    if mac != way.vtep:
        wrong = f"{brief}, but {way.peer.name}'s VTEP has {way.vtep or 'no MAC: it is gone'}"
        return Line(node, command, shown, wrong, ok=False, brief=wrong)
    return Line(node, command, shown, f"{brief}: {way.peer.name}'s VTEP", brief=brief)


def placed(way: Way) -> Line:
    """Which node that MAC is behind."""
    assert way.route is not None  # noqa: S101 - as above
    assert way.neighbour is not None  # noqa: S101 - as above
    node, command = way.src.node, f"bridge fdb show dev {way.route.dev}"
    mac = way.neighbour.mac
    if way.entry is None:
        words = f"the FDB has no entry for {mac}: the frame is dropped"
        return Line(node, command, "", words, ok=False, brief=words)
    brief = f"the FDB sends that MAC to {way.to}"
    if way.to != str(way.peer.address.ip):
        wrong = f"{brief}, but {way.peer.name} is {way.peer.address.ip}"
        return Line(node, command, fdb_text(way.entry), wrong, ok=False, brief=wrong)
    words = f"the FDB sends frames for {mac} to {way.to}: {way.peer.name}"
    return Line(node, command, fdb_text(way.entry), words, brief=f"{brief} ({way.peer.name})")


def wrapped(lab: Lab, way: Way) -> Line:
    """What is put in front, and where it leaves the node."""
    link = way.device
    assert link is not None  # noqa: S101 - it is a tunnel
    assert link.vxlan is not None  # noqa: S101 - it is a tunnel
    x = link.vxlan
    words = (
        f"the kernel puts {OVERHEAD['vxlan']} bytes in front (VNI {x.vni}, UDP port {x.port},"
        f" {x.local} to {way.to}) and sends it out of {way.nic}"
    )
    command = f"ip -d link show {link.name}"
    return Line(way.src.node, command, vxlan_text(link), words)


def handed_over(way: Way) -> Line:
    """To flanneld, which sends it itself."""
    assert way.route is not None  # noqa: S101 - as above
    name = way.route.dev
    words = f"flanneld reads the packet from {name} and sends it in UDP: no neighbour, no FDB entry"
    brief = f"flanneld reads it there and sends it to {way.peer.name} itself"
    return Line(way.src.node, f"ip -d link show {name}", f"{name} tun", words, brief=brief)


def direct(lab: Lab, way: Way) -> Line:
    """To the other node as it is."""
    assert way.route is not None  # noqa: S101 - as above
    node, peer = way.src.node, way.peer
    via = way.to or "no gateway"
    brief = f"its next hop is {via}"
    command = f"ip route get {way.target}"
    shown = f"{way.target} via {way.to} dev {way.route.dev}" if way.to else ""
    if via != str(peer.address.ip):
        wrong = f"{brief}, but {peer.name} is {peer.address.ip}"
        return Line(node, command, shown, wrong, ok=False, brief=wrong)
    kind = lab.overlay.backend_type
    if overlay.encapsulated(lab):
        wrong = f"{brief}: not through {overlay.device(lab)}, as VXLAN would"
        return Line(node, command, shown, wrong, ok=False, brief=wrong)
    name = "DirectRouting" if kind == "vxlan" else kind
    words = (
        f"{name}: the packet goes to {peer.name} as it is, with no neighbour or FDB entry of"
        f" flannel's"
    )
    return Line(
        node, command, shown, words, brief=f"{brief} ({peer.name}), nothing is put in front"
    )


def arrives(way: Way) -> Line:
    """From the other node's underlay interface to its bridge and its container."""
    node, route = way.peer.name, way.arrival
    if route is None or route.dev != bridge.NAME:
        words = f"{node} has no route to {way.target} on {bridge.NAME}"
        return Line(node, "ip route", "", words, ok=False, brief=words)
    words = f"{node} finds {way.target} on {bridge.NAME}: {way.dst.name} is on that bridge"
    return Line(node, "ip route", route_text(route), words)
