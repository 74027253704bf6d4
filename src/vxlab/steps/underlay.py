"""The underlay: the nodes' own network, which will carry the encapsulated packets."""

from __future__ import annotations

from collections.abc import Iterator

from vxlab.lab import Node
from vxlab.ops import AddAddress, AddNeighbours, Op, SetAlias, SetMac, SetMtu, SetSysctl, SetUp
from vxlab.steps.site import Site, States

#: From this many nodes on they are told each other's MACs instead of asking with ARP. The kernel
#: keeps the ARP entries of all namespaces of a machine in one table, by default of 1024 entries
#: (net.ipv4.neigh.default.gc_thresh3): a large lab would overflow it, for the host too. Permanent
#: entries do not count.
ARP_LIMIT = 16


def mac(node: Node) -> str:
    """The MAC of a node's underlay interface: locally administered, its last bytes the address."""
    return ":".join(f"{byte:02x}" for byte in (2, 0, *node.address.ip.packed))


def plan(site: Site, node: Node, states: States) -> Iterator[Op]:
    """Each node gets its address on the network between the nodes (192.168.56.21, .22 ...).

    This interface is where the outer packets leave; its MTU, 1500 bytes, is what the overlay's MTU
    is reckoned from.
    """
    lab, nic = site.lab, site.lab.underlay.interface
    if not lab.ipv6:
        yield SetSysctl(key="net.ipv6.conf.all.disable_ipv6", value="1")
    yield SetUp(name="lo")
    yield SetAlias(name=nic, alias=lab.mark)
    yield SetMac(name=nic, mac=mac(node))
    yield SetMtu(name=nic, mtu=lab.underlay.mtu)
    yield AddAddress(name=nic, address=str(node.address))
    yield SetUp(name=nic)
    if len(lab.nodes) > ARP_LIMIT:
        others = (peer for peer in lab.nodes if peer is not node)
        yield AddNeighbours(name=nic, entries=tuple(f"{p.address.ip} {mac(p)}" for p in others))
