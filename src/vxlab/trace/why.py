"""Which entry of a kernel's tables decides where a packet goes, read from a node's snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Literal

from vxlab.lab import Lab
from vxlab.sniff import Direction
from vxlab.state import FdbEntry, Link, Neighbour, Net, Route, State
from vxlab.steps.site import States
from vxlab.trace.hops import Hop

Kind = Literal["route", "neighbour", "fdb", "bridge", "cable", "vtep", "wire", "flannel", "nat"]


@dataclass(frozen=True, slots=True)
class Entry:
    """What decided: a line of a kernel's table, in the words of iproute2."""

    kind: Kind
    where: str  # node01 or node01/container01
    text: str


@dataclass(frozen=True, slots=True)
class Step:
    """A hop that the tables send the packet through, and why it goes there."""

    hop: Hop
    direction: Direction
    why: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class End:
    """Why a packet cannot go on behind the last step of its way."""

    code: str  # stable, such as no-route
    where: str
    text: str


@dataclass(frozen=True, slots=True)
class Way:
    """The way of a packet by the tables, from its first hop to its last."""

    steps: tuple[Step, ...] = ()
    end: End | None = None  # None: it arrives, or leaves the lab
    leaves: bool = False  # for an address that no node and no container of the lab has
    encapsulated: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where a packet starts or arrives: a node, or a container on it."""

    node: str
    container: str = ""

    def __str__(self) -> str:
        return f"{self.node}/{self.container}" if self.container else self.node


def lookup(net: Net, address: str) -> Route | None:
    """The route that an address takes: the longest prefix of the main table (ip-route(8))."""
    target = IPv4Address(address)
    fitting = [
        (IPv4Network("0.0.0.0/0" if r.dst == "default" else r.dst, strict=False).prefixlen, -i, r)
        for i, r in enumerate(net.routes)
        if r.dst == "default" or target in IPv4Network(r.dst, strict=False)
    ]
    # Of several with one prefix the kernel lists the one with the lowest metric first.
    return max(fitting, key=lambda found: found[:2])[2] if fitting else None


def owner(lab: Lab, states: States, address: str) -> Place | None:
    """Who in the lab has an address, by the nodes' state; None for an address outside."""
    for node in lab.nodes:
        state = states.get(node.name, State())
        for container in node.containers:
            if address in addresses(state.net_of(container.name)):
                return Place(node.name, container.name)
        if address == str(node.address.ip) or address in addresses(state.net):
            return Place(node.name)
    return None


def addresses(net: Net) -> set[str]:
    every = (a for link in net.links.values() for a in link.addresses)
    return {str(IPv4Interface(address).ip) for address in every}


def shown(route: Route) -> str:
    """A route as `ip route` prints it."""
    via = f" via {route.via}" if route.via else ""
    dev = f" dev {route.dev}" if route.dev else " (blackhole or unreachable)"
    return f"{route.dst}{via}{dev}{' onlink' if route.onlink else ''}"


def neighbour_of(net: Net, address: str, dev: str) -> Neighbour | None:
    return next((n for n in net.neighbours if (n.address, n.dev) == (address, dev)), None)


def known(place: str, entry: Neighbour) -> Entry:
    text = f"{entry.address} dev {entry.dev} lladdr {entry.mac} {entry.state}".rstrip()
    return Entry("neighbour", place, text)


def resolved(net: Net, place: str, address: str, dev: str) -> tuple[Entry, ...]:
    """The neighbour entry of the next hop; ARP makes one on a link where others answer."""
    found = neighbour_of(net, address, dev)
    return (known(place, found),) if found is not None else ()


def fdb_of(net: Net, mac: str, dev: str) -> FdbEntry | None:
    return next((f for f in net.fdb if (f.mac, f.dev) == (mac, dev) and f.dst), None)


def port_entry(net: Net, node: str, inside: Link, port: Link) -> Entry:
    """The bridge's own table, or the lack of an entry, which floods."""
    if any((f.mac, f.dev) == (inside.mac, port.name) for f in net.fdb):
        return Entry("bridge", node, f"{inside.mac} dev {port.name} master {port.master}")
    text = f"{inside.mac} is behind {port.name}, not learnt: {port.master} sends it to every port"
    return Entry("bridge", node, text)
