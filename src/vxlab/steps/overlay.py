"""What flannel puts into the kernel for every other node, and what of it is missing."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network

from vxlab.lab import Lab, Node
from vxlab.packet import LINUX_VXLAN_PORT
from vxlab.state import State
from vxlab.steps.site import States


def device(lab: Lab) -> str:
    """The interface that flannel makes for the overlay; none for host-gw."""
    names = {"vxlan": f"flannel.{lab.overlay.vni}", "udp": "flannel0"}
    return names.get(lab.overlay.backend_type, "")


def encapsulated(lab: Lab) -> bool:
    """Whether packets between nodes travel in VXLAN; all nodes are on one underlay network."""
    return lab.overlay.backend_type == "vxlan" and not lab.overlay.direct_routing


def vxlan_ports(lab: Lab) -> set[int]:
    """The UDP ports to look for VXLAN at: the lab's, and usual ones that it should not be.

    A VTEP that sends to the wrong port is to be seen doing it.
    """
    return {lab.overlay.port, LINUX_VXLAN_PORT, 4789}


def subnet_of(state: State) -> IPv4Network | None:
    return state.subnet_env.subnet.network if state.subnet_env else None


def routed(lab: Lab, node: Node, states: States) -> frozenset[IPv4Network]:
    """The destinations that flannel must have given the node a route to, once all have leases."""
    if lab.overlay.backend_type == "udp":
        return frozenset({lab.overlay.network})  # flanneld itself knows the nodes
    others = (subnet_of(states[peer.name]) for peer in lab.nodes if peer.name != node.name)
    return frozenset(subnet for subnet in others if subnet is not None)


def missing(lab: Lab, node: Node, states: States) -> Iterator[str]:
    """What the node lacks to reach the other nodes' subnets; nothing if flannel's work is whole.

    Nodes that have no lease yet are passed over: their flanneld will tell.
    """
    here = states[node.name]
    name = device(lab)
    if name:
        link = here.net.links.get(name)
        if link is None:
            yield f"{name} does not exist"
            return
        if not link.up:
            yield f"{name} is down"
            return
        if other := misfit(lab, here):
            yield other
            return
    for peer in lab.nodes:
        there = states.get(peer.name, State())
        subnet = subnet_of(there)
        if peer.name == node.name or subnet is None:
            continue
        yield from _missing_for(lab, here, peer, there, subnet)


def misfit(lab: Lab, here: State) -> str:
    """How flannel's VXLAN interface differs from the lab's; empty if it does not, or is not there.

    flanneld takes an interface of the right name and VNI over as it is, whatever its port.
    """
    link = here.net.links.get(device(lab))
    if link is None or lab.overlay.backend_type != "vxlan":
        return ""
    if link.vxlan is None:
        return f"{link.name} is no VXLAN interface"
    seen, wanted = (link.vxlan.vni, link.vxlan.port), (lab.overlay.vni, lab.overlay.port)
    if seen == wanted:
        return ""
    return f"{link.name} has VNI {seen[0]} and port {seen[1]}, wanted {wanted[0]} and {wanted[1]}"


def _missing_for(
    lab: Lab, here: State, peer: Node, there: State, subnet: IPv4Network
) -> Iterator[str]:
    if lab.overlay.backend_type == "udp":
        return
    address = str(peer.address.ip)
    route = here.net.route(str(subnet))
    if route is None:
        yield f"no route to {subnet} ({peer.name})"
    elif not encapsulated(lab) and route.via != address:
        yield f"the route to {subnet} goes via {route.via}, wanted {address} ({peer.name})"
    remote = there.net.links.get(device(lab))
    if not encapsulated(lab) or remote is None:
        return
    vtep = str(subnet.network_address)
    if not any(n.address == vtep and n.mac == remote.mac for n in here.net.neighbours):
        yield f"no neighbour entry {vtep} -> {remote.mac} ({peer.name})"
    if not any(f.mac == remote.mac and f.dst == address for f in here.net.fdb):
        yield f"no FDB entry {remote.mac} -> {address} ({peer.name})"
