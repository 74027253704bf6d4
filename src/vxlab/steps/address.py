"""The container's address, out of the subnet that flannel gave the node."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Interface

from vxlab.lab import Container, Node
from vxlab.ops import AddAddress, Op, SetUp
from vxlab.state import State
from vxlab.steps.site import Site, States
from vxlab.steps.veth import INSIDE


def container_address(container: Container, state: State) -> IPv4Interface | None:
    """The node's subnet with the host number .10 (.11, .12 ... for further containers).

    None as long as flannel has not given the node a subnet.
    """
    if state.subnet_env is None:
        return None
    network = state.subnet_env.subnet.network
    return IPv4Interface((network[container.host_number], network.prefixlen))


def plan(site: Site, node: Node, states: States) -> Iterator[Op]:
    """flannel wrote the node's subnet to subnet.env; the container gets number 10 of it.

    The container now reaches its own subnet. For anything else: ``Network is unreachable``.
    """
    for container in node.containers:
        address = container_address(container, states[node.name])
        if address is not None:
            yield AddAddress(name=INSIDE, address=str(address), ns=container.name)
        yield SetUp(name=INSIDE, ns=container.name)
