"""The cable: a veth pair from each container to its node."""

from __future__ import annotations

from collections.abc import Iterator

from vxlab.lab import Node
from vxlab.ops import AddVeth, Op, SetAlias
from vxlab.steps.site import Site, States

#: The container's end, in every container.
INSIDE = "vethNS"


def plan(site: Site, node: Node, states: States) -> Iterator[Op]:
    """A veth pair is a cable: vethlocal stays on the node, vethNS goes into the container.

    Both ends start with an MTU of 1500 bytes.
    """
    for container in node.containers:
        yield AddVeth(name=container.veth, peer=INSIDE, peer_ns=container.name)
        yield SetAlias(name=container.veth, alias=site.lab.mark)
        yield SetAlias(name=INSIDE, alias=site.lab.mark, ns=container.name)
