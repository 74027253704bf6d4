"""The bridge: the containers' switch on the node, and their gateway."""

from __future__ import annotations

from collections.abc import Iterator

from vxlab.lab import Node
from vxlab.ops import AddAddress, AddBridge, Op, SetAlias, SetMaster, SetMtu, SetUp
from vxlab.steps.site import Site, States

NAME = "cbr0"


def plan(site: Site, node: Node, states: States) -> Iterator[Op]:
    """cbr0 joins the node's containers; it holds FLANNEL_SUBNET's address, the gateway's.

    No physical interface is in it. The gateway now answers; the other node's container does not.
    """
    lease = states[node.name].subnet_env
    yield AddBridge(name=NAME)
    yield SetAlias(name=NAME, alias=site.lab.mark)
    for container in node.containers:
        yield SetMaster(name=container.veth, master=NAME)
        yield SetUp(name=container.veth)
    yield SetMtu(name=NAME, mtu=site.lab.overlay_mtu)
    if lease is not None:
        yield AddAddress(name=NAME, address=str(lease.subnet))
    yield SetUp(name=NAME)
