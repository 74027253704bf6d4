"""The MTU of the container's cable. The number itself is decided in `vxlab.mtu`."""

from __future__ import annotations

from collections.abc import Iterator

from vxlab.lab import Node
from vxlab.ops import Op, SetMtu
from vxlab.steps.site import Site, States
from vxlab.steps.veth import INSIDE


def plan(site: Site, node: Node, states: States) -> Iterator[Op]:
    """VXLAN puts 50 bytes in front of every packet, and the underlay carries 1500.

    So both ends of the cable get 1450: a full-size packet, encapsulated, just fits. With 1500
    inside, it would be cut up on the way, or dropped where it must not be.
    """
    for container in node.containers:
        yield SetMtu(name=container.veth, mtu=site.lab.overlay_mtu)
        yield SetMtu(name=INSIDE, mtu=site.lab.overlay_mtu, ns=container.name)
