"""Forwarding: the node passes packets on that are not its own."""

from __future__ import annotations

from collections.abc import Iterator

from vxlab.lab import Node
from vxlab.ops import Op, SetSysctl
from vxlab.steps.site import Site, States


def plan(site: Site, node: Node, states: States) -> Iterator[Op]:
    """With ip_forward the node is a router: from cbr0 to flannel.1 and back. Now the ping works."""
    yield SetSysctl(key="net.ipv4.ip_forward", value="1")
