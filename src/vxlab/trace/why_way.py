"""Where the kernels' tables send a packet, hop by hop, and which entry decided each time.

The way is worked out from snapshots as the kernels do it: the longest prefix among the routes of
the main table, the neighbour entry of the next hop, the FDB entry of its MAC, then the underlay.
It is what should happen; `vxlab.trace.journey_told` sets beside it what was seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

from vxlab.lab import Container, Lab, Node
from vxlab.sniff import Direction
from vxlab.state import Link, Net, Route, State
from vxlab.steps import bridge, overlay
from vxlab.steps.site import SWITCH, States
from vxlab.steps.veth import INSIDE
from vxlab.trace.hops import Hop
from vxlab.trace.why import (
    End,
    Entry,
    Place,
    Step,
    Way,
    addresses,
    fdb_of,
    known,
    lookup,
    neighbour_of,
    port_entry,
    resolved,
    shown,
)

#: Steps after which a way is taken for a loop; the longest in a lab without one has 10.
_MOST_STEPS = 40


def way(lab: Lab, states: States, start: Place, target: str) -> Way:
    """The way of a packet from a container or a node to an address.

    Args:
        lab: the lab.
        states: what the nodes look like; one that is not there cannot be walked through.
        start: where the packet is sent.
        target: its destination address.
    """
    walk = _Walk(lab, states, target)
    try:
        walk.begin(start)
    except _EndError as over:
        walk.end = over.end
    return Way(tuple(walk.steps), walk.end, walk.leaves, walk.encapsulated)


class _EndError(Exception):
    """The packet cannot go on."""

    def __init__(self, code: str, where: str, text: str) -> None:
        super().__init__(text)
        self.end = End(code, where, text)


class _Walk:
    """A packet on its way: the steps so far, and the rules by which it takes the next one."""

    def __init__(self, lab: Lab, states: States, target: str) -> None:
        self.lab = lab
        self.states = states
        self.target = target
        self.steps: list[Step] = []
        self.end: End | None = None
        self.leaves = False
        self.encapsulated = False

    # --- what is there --------------------------------------------------------------------------

    def net(self, node: str) -> Net:
        return self.states.get(node, State()).net

    def link(self, place: str, net: Net, name: str) -> Link:
        """An interface that the packet is to pass; it must be there and up."""
        link = net.links.get(name)
        what = f"the switch's port to {name}" if place == SWITCH else name
        on = "" if place == SWITCH else f" on {place}"
        if link is None:
            raise _EndError("no-link", place, f"{what} does not exist{on}")
        if not link.up:
            raise _EndError("link-down", place, f"{what} is down{on}")
        return link

    def step(
        self, hop: Hop, direction: Direction, why: Iterator[Entry] | tuple[Entry, ...]
    ) -> None:
        self.steps.append(Step(hop, direction, tuple(why)))
        if len(self.steps) > _MOST_STEPS:
            raise _EndError("loop", hop.node, "the routes go round in a circle until the TTL is 0")

    # --- containers -----------------------------------------------------------------------------

    def begin(self, start: Place) -> None:
        if not start.container:
            self.send(start.node)
            return
        node = self.lab.node(start.node)
        container = next(c for c in node.containers if c.name == start.container)
        self.leave_container(container)

    def leave_container(self, container: Container) -> None:
        place, net = container.full_name, self.states[container.node].net_of(container.name)
        route = lookup(net, self.target)
        if route is None:
            dead = "".join(f"; {n} is down" for n, link in net.links.items() if not link.up)
            raise _EndError("no-route", place, f"{place} has no route to {self.target}{dead}")
        self.link(place, net, route.dev)
        next_hop = route.via or self.target
        why = [Entry("route", place, shown(route)), *resolved(net, place, next_hop, route.dev)]
        self.step(Hop(container.node, container.name, route.dev), "out", tuple(why))
        node, here = container.node, self.net(container.node)
        cable = self.link(node, here, container.veth)
        other_end = Entry("cable", node, f"{container.veth} is the other end of {route.dev}")
        self.step(Hop(node, "", container.veth), "in", (other_end,))
        if cable.master != bridge.NAME:
            raise _EndError("no-bridge", node, f"{container.veth} is not a port of {bridge.NAME}")
        self.bridged(node, next_hop)

    def bridged(self, node: str, next_hop: str) -> None:
        """Through cbr0: to the node itself, or on to another container's port."""
        here = self.net(node)
        bridge_link = self.link(node, here, bridge.NAME)
        if next_hop in addresses(Net(links={bridge.NAME: bridge_link})):
            own = f"{next_hop} is {bridge.NAME}'s own address: up to {node}, not to another port"
            self.step(Hop(node, "", bridge.NAME), "in", (Entry("bridge", node, own),))
            self.routed(node)
            return
        self.into_container(node, next_hop)

    def behind_bridge(self, node: str, address: str) -> Container | None:
        """The container of a node that has an address."""
        state = self.states.get(node, State())
        for container in self.lab.node(node).containers:
            if address in addresses(state.net_of(container.name)):
                return container
        return None

    def known_or_end(self, node: str, address: str) -> None:
        """Without a neighbour entry, and nobody to answer ARP, cbr0 does not even send it."""
        if neighbour_of(self.net(node), address, bridge.NAME) is None:
            raise _EndError("no-neighbour", node, f"nobody at {bridge.NAME} has {address}")

    def into_container(self, node: str, address: str) -> None:
        """From cbr0 through the port of the container that has an address."""
        container = self.behind_bridge(node, address)
        if container is None:
            raise _EndError("no-neighbour", node, f"nobody at {bridge.NAME} has {address}")
        state = self.states[node]
        port = self.link(node, state.net, container.veth)
        if port.master != bridge.NAME:
            text = f"{container.veth} is not a port of {bridge.NAME}"
            raise _EndError("no-bridge", node, text)
        link = self.link(container.full_name, state.net_of(container.name), INSIDE)
        self.step(Hop(node, "", port.name), "out", (port_entry(state.net, node, link, port),))
        cable = Entry("cable", node, f"{INSIDE} is the other end of {port.name}")
        self.step(Hop(node, container.name, INSIDE), "in", (cable,))
        if address != self.target:
            text = f"{container.full_name} has {address}, and does not pass on what is for"
            raise _EndError("forwarding", container.full_name, f"{text} {self.target}")

    # --- nodes ----------------------------------------------------------------------------------

    def routed(self, node: str) -> None:
        """A packet has come to a node: it is the node's own, or to be passed on."""
        here = self.net(node)
        if self.target in addresses(here):
            return
        if here.sysctls.get("net.ipv4.ip_forward") != "1":
            text = f"{node} does not pass packets on: net.ipv4.ip_forward = 0"
            raise _EndError("forwarding", node, text)
        self.send(node)

    def send(self, node: str) -> None:
        """By the node's routes to the interface that the packet leaves by."""
        here = self.net(node)
        route = lookup(here, self.target)
        device = overlay.device(self.lab)
        if route is None:
            raise _EndError("no-route", node, self.no_route(node, here))
        if not route.dev:
            raise _EndError("no-route", node, f"{node}'s route {shown(route)}")
        link = self.link(node, here, route.dev)
        decided = Entry("route", node, shown(route))
        next_hop = route.via or self.target
        if route.dev == bridge.NAME:
            if self.behind_bridge(node, next_hop) is None:
                self.known_or_end(node, next_hop)
            why = (decided, *resolved(here, node, next_hop, route.dev))
            self.step(Hop(node, "", bridge.NAME), "out", why)
            self.into_container(node, next_hop)
        elif link.vxlan is not None:
            self.tunnel(node, link, next_hop, decided)
        elif route.dev == device:
            self.through_flanneld(node, decided)
        else:
            self.underlay(node, route, decided, ())

    def no_route(self, node: str, net: Net) -> str:
        text = f"{node} has no route to {self.target}"
        device = overlay.device(self.lab)
        if not device or IPv4Address(self.target) not in self.lab.overlay.network:
            return text
        link = net.links.get(device)
        if link is None:
            return f"{device} does not exist on {node}, and with it went the route to {self.target}"
        if not link.up:
            return f"{device} is down on {node}, and with it went the route to {self.target}"
        return text

    def tunnel(self, node: str, link: Link, next_hop: str, decided: Entry) -> None:
        """The VTEP's work: next hop -> MAC -> node, then the underlay carries the outer packet."""
        here, dev = self.net(node), link.name
        neighbour = neighbour_of(here, next_hop, dev)
        if neighbour is None:
            text = f"{node} has no neighbour entry for {next_hop} on {dev}: no MAC to send it to"
            raise _EndError("no-neighbour", node, text)
        self.step(Hop(node, "", dev), "out", (decided, known(node, neighbour)))
        entry = fdb_of(here, neighbour.mac, dev)
        if entry is None:
            text = f"{node} has no FDB entry for {neighbour.mac} on {dev}: no node to send it to"
            raise _EndError("no-fdb", node, text)
        self.encapsulated = True
        fdb = Entry("fdb", node, f"{entry.mac} dev {dev} dst {entry.dst} {entry.state}".rstrip())
        route = lookup(here, entry.dst)
        if route is None or not route.dev:
            text = f"{node} has no route to {entry.dst}, the other VTEP's address"
            raise _EndError("no-route", node, text)
        outer = Entry("route", node, shown(route))
        peer = self.wire(node, route, entry.dst, (fdb, outer))
        if peer is not None:
            self.out_of_tunnel(peer, link, neighbour.mac)

    def out_of_tunnel(self, peer: Node, sent_by: Link, mac: str) -> None:
        """The other node hands the packet to the VTEP with the same UDP port and VNI."""
        here, sender = self.net(peer.name), sent_by.vxlan
        assert sender is not None  # noqa: S101 - the caller looked
        name = peer.name
        vteps = [link for link in here.links.values() if link.vxlan is not None]
        for vtep in vteps:
            there = vtep.vxlan
            if there is None or (there.vni, there.port) != (sender.vni, sender.port):
                continue
            self.link(name, here, vtep.name)
            text = f"UDP {there.port}, VNI {there.vni}: that is {vtep.name}"
            self.step(Hop(name, "", vtep.name), "in", (Entry("vtep", name, text),))
            if vtep.mac != mac:
                text = f"the frame is for {mac}, but {vtep.name} on {name} has {vtep.mac}"
                raise _EndError("wrong-mac", name, f"{text}: the sender's entries are outdated")
            self.routed(name)
            return
        text = f"{name} has no VTEP for VNI {sender.vni} on UDP {sender.port}"
        for vtep in vteps:
            if vtep.vxlan is not None:
                text += f"; {vtep.name} has VNI {vtep.vxlan.vni} on UDP {vtep.vxlan.port}"
        raise _EndError("no-vtep", name, text)

    def through_flanneld(self, node: str, decided: Entry) -> None:
        """flannel's udp backend: flanneld itself carries the packet to the other node."""
        dev = overlay.device(self.lab)
        self.step(Hop(node, "", dev), "out", (decided,))
        peer = next((n for n in self.lab.nodes if self.leased(n)), None)
        if peer is None:
            text = f"no node leases a subnet with {self.target}"
            raise _EndError("no-route", node, text)
        self.encapsulated = True
        address = str(peer.address.ip)
        carried = Entry("flannel", node, f"flanneld: {self.target} is in the subnet of {address}")
        route = lookup(self.net(node), address)
        if route is None or not route.dev:
            raise _EndError("no-route", node, f"{node} has no route to {address}")
        if self.wire(node, route, address, (carried, Entry("route", node, shown(route)))) is None:
            return
        self.link(peer.name, self.net(peer.name), dev)
        text = f"flanneld of {peer.name} writes it to {dev}"
        self.step(Hop(peer.name, "", dev), "in", (Entry("flannel", peer.name, text),))
        self.routed(peer.name)

    def leased(self, node: Node) -> bool:
        subnet = overlay.subnet_of(self.states.get(node.name, State()))
        return subnet is not None and IPv4Address(self.target) in subnet

    def underlay(self, node: str, route: Route, decided: Entry, why: tuple[Entry, ...]) -> None:
        """Plain routing from node to node, without encapsulation."""
        peer = self.wire(node, route, route.via or self.target, (*why, decided))
        if peer is not None:
            self.routed(peer.name)

    def wire(self, node: str, route: Route, address: str, why: tuple[Entry, ...]) -> Node | None:
        """Over the underlay to the node that has an address; None if the lab ends there."""
        here = self.net(node)
        link = self.link(node, here, route.dev)
        entries = resolved(here, node, route.via or address, route.dev)
        self.step(Hop(node, "", link.name), "out", (*why, *entries))
        peer = next((n for n in self.lab.nodes if str(n.address.ip) == address), None)
        if peer is None:
            if IPv4Address(address) in self.lab.underlay.network and address != self.target:
                text = f"no node has {address}, which {node} sends it to"
                raise _EndError("no-neighbour", node, text)
            self.leaves = True
            return None
        for port in (node, peer.name):  # without the switch's state, as on real hosts, none
            if SWITCH in self.states:
                self.link(SWITCH, self.net(SWITCH), port)
        nic = self.link(peer.name, self.net(peer.name), self.lab.nic(peer))
        text = f"{address} is an address of {nic.name} on {peer.name}"
        self.step(Hop(peer.name, "", nic.name), "in", (Entry("wire", peer.name, text),))
        return peer
