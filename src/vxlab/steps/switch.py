"""The underlay's switch: the talk's host-only network, as a bridge that joins the nodes' cables."""

from __future__ import annotations

from collections.abc import Iterator

from vxlab.lab import Node
from vxlab.ops import AddBridge, Op, SetAlias, SetMtu, SetSysctl, SetUp
from vxlab.steps.site import SWITCH, Site, States


def plan(site: Site, node: Node, states: States) -> Iterator[Op]:
    """The nodes are machines on one network. On one machine a bridge is that network.

    It has no address: the lab is not reachable from the host, nor the host from the lab.
    """
    lab = site.lab
    if not lab.ipv6:
        # IPv6 autoconfiguration sends multicast, which confuses learners and captures.
        yield SetSysctl(key="net.ipv6.conf.all.disable_ipv6", value="1")
    yield AddBridge(name=SWITCH)
    yield SetAlias(name=SWITCH, alias=lab.mark)
    yield SetMtu(name=SWITCH, mtu=lab.underlay.mtu)
    yield SetUp(name=SWITCH)
