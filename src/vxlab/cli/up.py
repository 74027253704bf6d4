"""``vxlab up``: build a lab, continue one, or repair what drifted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vxlab.cli import choose
from vxlab.cli.building import cargo, local_site, programs, wanted_lab
from vxlab.cli.login import accept_new_option, login
from vxlab.errors import UsageError
from vxlab.journal import LabDirectory
from vxlab.lab import Lab
from vxlab.report import text

if TYPE_CHECKING:
    from vxlab.engine.up import Result
    from vxlab.nodes.cargo import Cargo
    from vxlab.report.progress import Progress


@click.command("up")
@click.argument("lab", required=False, shell_complete=choose.complete_lab)
@accept_new_option
@click.option("--nodes", type=click.IntRange(1, 1000), help="How many nodes the talk's lab gets.")
@click.option("--to", metavar="STEP", help="Stop after this step; `vxlab up` goes on.")
@click.option("--dry-run", is_flag=True, help="Print the commands as typed by hand; do nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Print every operation.")
def command(
    lab: str | None,
    nodes: int | None,
    to: str | None,
    dry_run: bool,
    as_json: bool,
    verbose: bool,
    accept_new: bool,
) -> None:
    """Build LAB (a lab file, or a lab's name; default: the talk's two nodes).

    On a lab that is up it changes nothing and says so; what drifted is repaired and told.
    """
    from vxlab.report.progress import Progress

    wanted = wanted_lab(lab, nodes)
    _check_step(wanted, to)
    directory = LabDirectory(wanted.name)
    if dry_run:
        from vxlab.cli.dry_run import dry_run as rehearsed

        rehearsed(wanted, directory, to, as_json=as_json)
        return
    progress = Progress(wanted, quiet=as_json, verbose=verbose)
    with directory.locked("vxlab up", create=True), progress:
        result = _up(wanted, directory, progress, to, accept_new=accept_new, verbose=verbose)
    if as_json:
        text.dump(_as_json(result, progress))
    else:
        _tell(result, to)


def _check_step(lab: Lab, to: str | None) -> None:
    from vxlab.steps import steps_of

    names = [step.name for step in steps_of(lab)]
    if to is not None and to not in names:
        raise UsageError(f"there is no step {to!r}", hint=f"the steps are {', '.join(names)}")


def _up(
    lab: Lab,
    directory: LabDirectory,
    progress: Progress,
    to: str | None,
    *,
    accept_new: bool,
    verbose: bool,
) -> Result:
    """Build the lab where it belongs: on this machine or on its hosts."""
    if lab.remote:
        from vxlab.engine import hosts

        def goods() -> Cargo:
            return cargo(programs(verbose=verbose))

        return hosts.up(lab, directory, goods, login(accept_new=accept_new), progress, to)
    from vxlab.engine import up

    return up.up(local_site(lab, directory, programs(verbose=verbose)), directory, progress, to)


def _tell(result: Result, to: str | None) -> None:
    lab = result.lab
    spent = text.seconds(result.seconds)
    if to is not None:
        text.say(f"{lab.name} is built up to the step {to} ({spent}); `vxlab up` goes on")
        return
    if not result.changes:
        text.say(f"{lab.name} is up and as wanted; nothing changed ({spent})")
        return
    if result.fresh:
        size = f"{text.plural(len(lab.nodes), 'node')}, "
        size += text.plural(len(lab.containers), "container")
        text.say(f"{lab.name} is up: {size} in {spent}")
        text.say("next: vxlab verify · vxlab status · vxlab shell · vxlab teardown")
        return
    rows = [(c.node, c.step, c.reason) for c in result.changes if c.reason]
    text.say(f"{lab.name} is up; repaired with {text.plural(len(rows), 'change')} in {spent}:")
    text.reasons(rows)


def _as_json(result: Result, progress: Progress) -> dict[str, object]:
    return {
        "lab": result.lab.name,
        "fresh": result.fresh,
        "seconds": round(result.seconds, 4),
        "steps": [row.as_json() for row in progress.rows.values()],
        "changes": [
            {"step": c.step, "node": c.node, "reason": c.reason, "command": str(c.op)}
            for c in result.changes
        ],
    }
