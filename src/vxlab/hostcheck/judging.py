"""All that there is to say about a lab's hosts before anything is changed on them."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping

from vxlab.hostcheck import machine as machines
from vxlab.hostcheck import neighbours, routing, taken, underlay
from vxlab.hostcheck.facts import Facts
from vxlab.hostcheck.finding import HostFinding
from vxlab.hostcheck.underlay import Places
from vxlab.lab import Lab, Node


def judge(
    lab: Lab,
    facts: Mapping[str, Facts],
    owned: Mapping[str, frozenset[str]],
    *,
    machine: str = "",
    now: float | None = None,
) -> list[HostFinding]:
    """Whether the hosts can carry the lab's two networks: all findings, good and bad.

    Args:
        lab: as the lab file has it.
        facts: every host, by its node's name.
        owned: what is this lab's own on each host, by the host's journal: interfaces, daemons
            (``etcd``, ``flannel``) and paths.
        machine: what the programs that travel are built for; the controller's own kind if empty.
        now: seconds since the epoch when the hosts were asked; None leaves their clocks alone.

    Returns:
        The findings, node by node in the lab's order.
    """
    where = underlay.places(lab, facts)
    built = machine or platform.machine()
    nodes = [node for node in lab.nodes if node.name in facts]
    found = [
        finding
        for node in nodes
        for finding in _host(
            lab, node, facts[node.name], where, owned.get(node.name, frozenset()), built, now
        )
    ]
    found += underlay.doubles(lab, facts, where)
    found += underlay.same_machines(lab, facts, where)
    found += underlay.mtus(lab, where)
    order = {node.name: index for index, node in enumerate(nodes)}
    return sorted(found, key=lambda finding: order[finding.host])


def _host(
    lab: Lab,
    node: Node,
    facts: Facts,
    where: Places,
    own: frozenset[str],
    machine: str,
    now: float | None,
) -> Iterator[HostFinding]:
    yield from machines.architecture(node, facts, machine)
    yield from machines.programs(node, facts)
    yield from machines.container(node, facts)
    yield from machines.kernel(lab, node, facts)
    yield from machines.space(lab, node, facts)
    yield from machines.mounts(lab, node, facts)
    yield from machines.manners(node, facts, now)
    if not facts.nics:
        return  # there is no ip that tells of the network; `programs` says so
    yield from underlay.interface(lab, node, facts)
    yield from routing.ways(lab, node, facts, where)
    yield from routing.overlay(lab, node, facts, where, own)
    yield from taken.labs(lab, node, facts)
    yield from taken.ports(lab, node, facts, where, own)
    yield from taken.interfaces(lab, node, facts, own)
    yield from taken.files(lab, node, facts, own)
    yield from neighbours.flannel(node, facts, own)
    yield from neighbours.others(node, facts, own)
    yield from neighbours.firewall(lab, node, facts, where)
    yield from neighbours.forwarding(node, facts, own)
