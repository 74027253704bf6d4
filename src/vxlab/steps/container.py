"""The containers: a busybox root file system in namespaces of its own, nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from vxlab.lab import Node
from vxlab.ops import Op, SetUp, StartContainer
from vxlab.steps.site import Site, States

ROOT = "/run/container-demo"


def plan(site: Site, node: Node, states: States) -> Iterator[Op]:
    """A container is a process in new namespaces: mounts, host name, IPC, network, PIDs, users.

    It sees no interface but its own lo. Root in it is an ordinary user outside.
    """
    for container in node.containers:
        yield StartContainer(
            name=container.name,
            root=f"{ROOT}/{container.name}",
            programs=site.programs,
            ipv6=site.lab.ipv6,
        )
        yield SetUp(name="lo", ns=container.name)
