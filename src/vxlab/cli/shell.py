"""``vxlab shell``: get into a node or container."""

from __future__ import annotations

import click

from vxlab.cli import choose, where


@click.command("shell")
@click.argument(
    "place",
    metavar="[NODE|CONTAINER]",
    required=False,
    shell_complete=choose.complete_place,
)
@click.option("--lab", help="Which lab; default: the only one.")
def command(place: str | None, lab: str | None) -> None:
    """Open a shell in a node or container (default: the first container).

    A container's shell is busybox in its own root. A node's shell sees what the talk shows:
    ps -ef, /var/log/etcd.log, /var/run/flannel/subnet.env, etcdctl, bridge fdb show.
    """
    where.enter(place, lab, ())
