"""``vxlab teardown``: take a lab away, all of it, also after a crash."""

from __future__ import annotations

import click

from vxlab.cli import choose
from vxlab.report import text


@click.command("teardown")
@click.argument("lab", required=False, shell_complete=choose.complete_lab)
@click.option("--all", "every", is_flag=True, help="Take all labs away.")
@click.option("--force", is_flag=True, help="Also where the lab's journal cannot be read.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(lab: str | None, every: bool, force: bool, as_json: bool) -> None:
    """Take LAB away (a name or a lab file; default: the only lab there is).

    A lab that is not there is not an error.
    """
    from vxlab import journal
    from vxlab.engine.down import down

    targets = (
        [journal.LabDirectory(name) for name in journal.names()]
        if every
        else [choose.directory(lab)]
    )
    report = []
    for directory in targets:
        with directory.locked("vxlab teardown"):
            result = down(directory, force=force)
        report.append({"lab": directory.name, "existed": result.existed, "ran": result.ran})
        if not as_json:
            words = "is gone" if result.existed else "is not there; nothing to do"
            text.say(f"{directory.name} {words}")
    if as_json:
        text.dump(report)
    elif not targets:
        text.say("there is no lab; nothing to do")
