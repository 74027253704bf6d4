"""``vxlab schema``: the lab file's JSON schema."""

from __future__ import annotations

import click

from vxlab.report import text


@click.command("schema")
def command() -> None:
    """Print the lab file's JSON schema; editors complete and check lab files with it."""
    from vxlab import labfile

    text.dump(labfile.schema())
