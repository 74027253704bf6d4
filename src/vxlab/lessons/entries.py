"""What flannel put into a lab's nodes: entries, routes, VTEPs, sockets, each line explained."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network

from vxlab.lab import Lab, Node
from vxlab.lessons.told import Line, fdb_text, neighbour_text, remark, route_text, vxlan_text
from vxlab.state import UdpSocket
from vxlab.steps import overlay
from vxlab.steps.site import States


def missing(place: str, command: str, what: str) -> Line:
    return Line(place, command, "", what, ok=False)


def first(lab: Lab) -> Node:
    """The node of the examples: that of the first container, or simply the first."""
    return next((node for node in lab.nodes if node.containers), lab.nodes[0])


def _peers(lab: Lab) -> Iterator[Node]:
    here = first(lab)
    return (node for node in lab.nodes if node is not here)


def _around(here: Node, subnet: IPv4Network, device: str, states: States) -> str:
    """How packets for a subnet get there without the tunnel (DirectRouting); empty if they do."""
    route = states[here.name].net.route(str(subnet))
    return route_text(route) if route is not None and route.dev != device else ""


def neighbours(lab: Lab, states: States) -> Iterator[Line]:
    here, device = first(lab), overlay.device(lab)
    command = f"ip neigh show dev {device}"
    entries = [n for n in states[here.name].net.neighbours if n.dev == device]
    for peer in _peers(lab):
        subnet = overlay.subnet_of(states[peer.name])
        if subnet is None:
            yield remark(f"{peer.name} has no subnet yet", ok=False)
            continue
        if around := _around(here, subnet, device, states):
            yield remark(f"{peer.name} needs no entry: {around}")
            continue
        hop = str(subnet.network_address)
        entry = next((n for n in entries if n.address == hop), None)
        if entry is None:
            yield missing(here.name, command, f"no entry for {hop}, {peer.name}'s subnet")
            continue
        link = states[peer.name].net.links.get(device)
        right = link is not None and link.mac == entry.mac
        whose = f"the MAC of {peer.name}'s VTEP" if right else f"not {peer.name}'s VTEP"
        words = f"{hop} stands for {peer.name}'s subnet {subnet}; {entry.mac} is {whose}"
        yield Line(here.name, command, neighbour_text(entry), words, ok=right)


def fdb(lab: Lab, states: States) -> Iterator[Line]:
    here, device = first(lab), overlay.device(lab)
    command = f"bridge fdb show dev {device}"
    entries = [f for f in states[here.name].net.fdb if f.dev == device and f.dst]
    macs = set()
    for peer in _peers(lab):
        link = states[peer.name].net.links.get(device)
        if link is None:
            yield remark(f"{peer.name} has no {device}", ok=False)
            continue
        subnet = overlay.subnet_of(states[peer.name])
        if subnet and (around := _around(here, subnet, device, states)):
            yield remark(f"{peer.name} needs no entry: {around}")
            continue
        macs.add(link.mac)
        entry = next((f for f in entries if f.mac == link.mac), None)
        if entry is None:
            yield missing(here.name, command, f"no entry for {link.mac}, {peer.name}'s VTEP")
            continue
        right = entry.dst == str(peer.address.ip)
        where = peer.name if right else f"not {peer.name}, which is {peer.address.ip}"
        words = f"frames for {peer.name}'s VTEP, {entry.mac}, go to {entry.dst}: {where}"
        yield Line(here.name, command, fdb_text(entry), words, ok=right)
    for entry in entries:
        if entry.mac not in macs:
            words = f"{entry.mac} is no VTEP of this lab"
            yield Line(here.name, command, fdb_text(entry), words, ok=False)


def routes(lab: Lab, states: States) -> Iterator[Line]:
    here = first(lab)
    net = states[here.name].net
    if lab.overlay.backend_type == "udp":
        route = net.route(str(lab.overlay.network))
        if route is None:
            yield missing(here.name, "ip route", f"no route to {lab.overlay.network}")
        else:
            words = f"the whole overlay goes to flanneld, through {route.dev}"
            yield Line(here.name, "ip route", route_text(route), words)
        return
    for peer in _peers(lab):
        subnet = overlay.subnet_of(states[peer.name])
        route = net.route(str(subnet)) if subnet else None
        if subnet is None:
            yield remark(f"{peer.name} has no subnet yet", ok=False)
        elif route is None:
            yield missing(here.name, "ip route", f"no route to {subnet}, {peer.name}'s subnet")
        else:
            plain = f"{peer.name} itself, by its underlay address"
            next_hop = plain if route.via == str(peer.address.ip) else f"through {route.dev}"
            words = f"{peer.name}'s subnet: {next_hop}"
            yield Line(here.name, "ip route", route_text(route), words)


def vteps(lab: Lab, states: States) -> Iterator[Line]:
    device = overlay.device(lab)
    command = f"ip -d link show {device}"
    for node in lab.nodes:
        link = states[node.name].net.links.get(device)
        if link is None or link.vxlan is None:
            yield missing(node.name, command, f"{node.name} has no {device}")
            continue
        x = link.vxlan
        words = f"{node.name}'s VTEP has the MAC {link.mac}; it wraps in VNI {x.vni} and sends"
        words += f" from {x.local} to UDP port {x.port}"
        yield Line(node.name, command, f"link/ether {link.mac} {vxlan_text(link)}", words)


def sockets(lab: Lab, states: States) -> Iterator[Line]:
    port = lab.overlay.port
    command = f"ss -lunp 'sport = :{port}'"
    for node in lab.nodes:
        bound = [s for s in states[node.name].udp if s.port == port]
        yield _socket(node.name, command, port, bound)


def _socket(node: str, command: str, port: int, bound: list[UdpSocket]) -> Line:
    if not bound:
        return missing(node, command, f"UDP {port} is not open")
    owner = " ".join(s.process for s in bound if s.process)
    if owner:
        return Line(node, command, f"*:{port} {owner}", "a process has the port", ok=False)
    return Line(node, command, f"0.0.0.0:{port}", "open, and no process: the kernel's own socket")


def flanneld_socket(lab: Lab, states: States) -> Iterator[Line]:
    for node in lab.nodes:
        bound = [s for s in states[node.name].udp if "flannel" in s.process]
        if not bound:
            yield missing(node.name, "ss -lunp", "flanneld has no UDP port open")
        for s in bound:
            words = f"the outer packets go to UDP port {s.port}; flanneld reads them"
            yield Line(node.name, "ss -lunp", f"*:{s.port} {s.process}", words)
