"""The underlay: the nodes' own network, which will carry the encapsulated packets."""

from __future__ import annotations

from collections.abc import Iterator

from vxlab.lab import Node
from vxlab.ops import AddAddress, Op, SetAlias, SetMtu, SetSysctl, SetUp
from vxlab.steps.site import Site, States


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
    yield SetMtu(name=nic, mtu=lab.underlay.mtu)
    yield AddAddress(name=nic, address=str(node.address))
    yield SetUp(name=nic)
