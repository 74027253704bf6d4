"""The way out of the container: a default route through the bridge."""

from __future__ import annotations

from collections.abc import Iterator

from vxlab.lab import Node
from vxlab.ops import AddRoute, Op
from vxlab.steps.site import Site, States
from vxlab.steps.veth import INSIDE


def plan(site: Site, node: Node, states: States) -> Iterator[Op]:
    """What is not in its own subnet the container sends to the gateway, the bridge's address."""
    lease = states[node.name].subnet_env
    if lease is None:
        return
    for container in node.containers:
        yield AddRoute(dst="default", via=str(lease.subnet.ip), dev=INSIDE, ns=container.name)
