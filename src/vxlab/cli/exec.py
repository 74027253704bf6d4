"""``vxlab exec``: run one command in a node or container."""

from __future__ import annotations

import click

from vxlab.cli import choose, where


@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.option("--lab", help="Which lab; default: the only one.")
@click.argument("place", metavar="NODE|CONTAINER", shell_complete=choose.complete_place)
@click.argument("words", metavar="-- COMMAND [ARG ...]", nargs=-1, required=True)
def command(place: str, words: tuple[str, ...], lab: str | None) -> None:
    """Run COMMAND in a node or container; the exit code is the command's."""
    where.enter(place, lab, words[1:] if words[0] == "--" and len(words) > 1 else words)
