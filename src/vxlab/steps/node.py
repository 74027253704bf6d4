"""The nodes: machines with namespaces of their own, each on a cable to the switch."""

from __future__ import annotations

from collections.abc import Iterator

from vxlab.lab import Node
from vxlab.ops import AddVeth, Op, SetAlias, SetMaster, SetMtu, SetUp, StartNode
from vxlab.steps.site import SWITCH, Site, States


def plan(site: Site, node: Node, states: States) -> Iterator[Op]:
    """A node has its own network, processes, host name, /run and /var/log, as a host has.

    Its network interface is one end of a veth pair; the other end, named like the node, is plugged
    into the switch.
    """
    lab = site.lab
    yield StartNode(
        name=node.name,
        directory=f"{site.directory}/nodes/{node.name}",
        hosts=f"{site.directory}/hosts",
        busybox=site.busybox,
    )
    yield AddVeth(name=node.name, peer=lab.underlay.interface, peer_ns=node.name)
    yield SetAlias(name=node.name, alias=lab.mark)
    yield SetMtu(name=node.name, mtu=lab.underlay.mtu)
    yield SetMaster(name=node.name, master=SWITCH)
    yield SetUp(name=node.name)


def hosts(site: Site) -> str:
    """The nodes' /etc/hosts: every node by its name."""
    lines = ["127.0.0.1 localhost", *(f"{n.address.ip} {n.name}" for n in site.lab.nodes)]
    return "\n".join(lines) + "\n"
