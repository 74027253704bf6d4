"""The host: the places that a lab makes on a machine which is not its own."""

from __future__ import annotations

from collections.abc import Iterator

from vxlab.lab import Node
from vxlab.ops import MakePlace, Op
from vxlab.state import RECORDS, SUBNET_ENV
from vxlab.steps import container, etcd, flannel
from vxlab.steps.site import Site, States


def places(site: Site, node: Node) -> Iterator[MakePlace]:
    """Every directory and log of the lab on a real host; teardown removes them all."""
    yield MakePlace(path=RECORDS)
    yield MakePlace(path=container.ROOT)
    yield MakePlace(path=SUBNET_ENV.rpartition("/")[0])
    yield MakePlace(path=flannel.LOG, directory=False)
    if node.name == site.lab.etcd.node:
        yield MakePlace(path=etcd.DIRECTORY)
        yield MakePlace(path=etcd.LOG, directory=False)


def plan(site: Site, node: Node, states: States) -> Iterator[Op]:
    """A real host lends the lab a few directories below /run, and two logs in /var/log.

    None of them was there before; what a host has already is never taken over.
    """
    yield from places(site, node)
