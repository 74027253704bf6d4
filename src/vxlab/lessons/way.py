"""The way of a packet from one container to another, looked up in the tables of a lab."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from vxlab.lab import Container, Lab, Node
from vxlab.state import FdbEntry, Link, Neighbour, Net, Route, State
from vxlab.steps import bridge, overlay
from vxlab.steps.site import States
from vxlab.steps.veth import INSIDE


@dataclass(frozen=True, slots=True)
class Way:
    """What the tables say about packets from one container to another, on another node.

    None stands for an entry that is missing. Nothing here is what should be; all is what is there.
    """

    src: Container
    dst: Container
    source: str  # the containers' addresses
    target: str
    peer: Node  # where `dst` is
    subnet: IPv4Network  # the source's own
    default: Route | None  # the container's, to the gateway
    port: Link | None  # the node's end of the cable
    bridge: Link | None
    forwards: bool
    route: Route | None  # the node's, to `target`
    device: Link | None  # which the route leads out of
    neighbour: Neighbour | None  # of the route's next hop, on a VXLAN interface
    entry: FdbEntry | None  # of the neighbour's MAC
    nic: str  # which the outer packet leaves by
    arrival: Route | None  # the other node's, to `target`
    vtep: str  # the MAC of the other node's VXLAN interface

    @property
    def tunnel(self) -> bool:
        """Whether the route leads into VXLAN."""
        return self.device is not None and self.device.vxlan is not None

    @property
    def to(self) -> str:
        """The underlay address that packets are sent to; empty if the tables do not tell."""
        if self.tunnel:
            return self.entry.dst if self.entry else ""
        return self.route.via if self.route else ""

    @property
    def in_bridge(self) -> bool:
        """Whether the container's cable is plugged into a bridge that has the gateway's address."""
        if self.port is None or self.bridge is None or self.default is None:
            return False
        addresses = [address.partition("/")[0] for address in self.bridge.addresses]
        plugged = self.port.master == self.bridge.name and self.port.up and self.bridge.up
        return plugged and self.default.via in addresses

    @property
    def whole(self) -> bool:
        """Whether every table has what the packet needs, and sends it to the right node."""
        peer = str(self.peer.address.ip)
        arrives = self.arrival is not None and self.arrival.dev == bridge.NAME
        leaves = self.route is not None and self.device is not None and self.device.up
        if self.device is None or not (self.in_bridge and leaves and arrives):
            return False
        if self.tunnel and (self.neighbour is None or self.neighbour.mac != self.vtep):
            return False
        plain = self.tunnel or self.device.kind != "tun"
        return self.forwards and (self.to == peer if plain else True)


def address_of(container: Container, states: States) -> str:
    """The address that a container has now, with prefix length; empty if it has none."""
    net = states.get(container.node, State()).net_of(container.name)
    link = net.links.get(INSIDE)
    return link.addresses[0] if link and link.addresses else ""


def best_route(net: Net, target: str) -> Route | None:
    """The route that the kernel takes to an address: that with the longest prefix."""
    address = IPv4Address(target)

    def network(route: Route) -> IPv4Network:
        return IPv4Network("0.0.0.0/0" if route.dst == "default" else route.dst)

    matching = [route for route in net.routes if address in network(route)]
    return max(matching, key=lambda route: network(route).prefixlen, default=None)


def ways(lab: Lab, states: States) -> Iterator[Way]:
    """Between every two containers that have an address, on two nodes."""
    there = [(c, address_of(c, states)) for c in lab.containers]
    placed = [(c, address) for c, address in there if address]
    for src, source in placed:
        for dst, target in placed:
            if src.node != dst.node:
                yield _way(lab, states, src, IPv4Interface(source), dst, IPv4Interface(target))


def between(lab: Lab, states: States) -> Way | None:
    """The example: from the first container to the first one on another node."""
    return next(ways(lab, states), None)


def _way(
    lab: Lab,
    states: States,
    src: Container,
    source: IPv4Interface,
    dst: Container,
    target: IPv4Interface,
) -> Way:
    here, there = states[src.node], states[dst.node]
    address = str(target.ip)
    route = best_route(here.net, address)
    if route is not None and route.dst == "default":
        route = None  # it leads out of the lab
    device = here.net.links.get(route.dev) if route else None
    neighbour = entry = None
    if route and device and device.vxlan:
        hop = route.via or address
        neighbour = next(
            (n for n in here.net.neighbours if (n.dev, n.address) == (route.dev, hop)), None
        )
    if neighbour is not None:
        same = ((f.dev, f.mac) == (neighbour.dev, neighbour.mac) and f.dst for f in here.net.fdb)
        entry = next((f for f, yes in zip(here.net.fdb, same, strict=True) if yes), None)
    peer, node = lab.node(dst.node), lab.node(src.node)
    carrier = best_route(here.net, str(peer.address.ip))
    remote = there.net.links.get(overlay.device(lab))
    return Way(
        src=src,
        dst=dst,
        source=str(source.ip),
        target=address,
        peer=peer,
        subnet=source.network,
        default=here.net_of(src.name).route("default"),
        port=here.net.links.get(src.veth),
        bridge=here.net.links.get(bridge.NAME),
        forwards=here.net.sysctls.get("net.ipv4.ip_forward") == "1",
        route=route,
        device=device,
        neighbour=neighbour,
        entry=entry,
        nic=carrier.dev if carrier else lab.nic(node),
        arrival=best_route(there.net, address),
        vtep=remote.mac if remote else "",
    )
