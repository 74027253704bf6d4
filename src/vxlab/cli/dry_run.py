"""``vxlab up --dry-run``: what would be typed, per step and node; nothing is changed or made."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace

from vxlab.journal import LabDirectory
from vxlab.lab import Lab
from vxlab.rehearsal import Command, Rehearsed, known, rehearse
from vxlab.report import text
from vxlab.steps import BY_NAME
from vxlab.steps.site import Site


def dry_run(lab: Lab, directory: LabDirectory, to: str | None, *, as_json: bool) -> None:
    """Print the commands; of a lab that runs on this machine, those that `up` would run now.

    Hosts behind SSH are not asked anything.

    Raises:
        UsageError: a different lab of this name is there.
    """
    from vxlab.engine.running import stored_lab

    built = stored_lab(directory) if directory.exists() else None
    lab = known(lab, built)
    if built is not None:
        from vxlab.engine.up import refuse_another

        refuse_another(lab, directory)
    record = None if lab.remote else directory.world()
    runs = record is not None and record.alive()
    rehearsed = _pending(directory, to) if runs else rehearse(_site(lab, directory), to=to)
    if as_json:
        text.dump([each.as_json() for each in rehearsed])
        return
    if built is not None and lab.remote:
        text.tell(f"{lab.name} was built before; its hosts are not asked, so this is all of it")
    if runs and not rehearsed:
        text.say(f"{lab.name} is up and as wanted; `vxlab up` would change nothing")
    elif runs:
        text.tell(f"{lab.name} is up; this is what `vxlab up` would mend")
    _print(rehearsed)


def _site(lab: Lab, directory: LabDirectory) -> Site:
    """The lab with its programs under the names that a person would call them by."""
    return Site(
        lab=lab,
        directory=str(directory.path),
        etcd="etcd",
        flanneld="flanneld",
        busybox="busybox",
        programs="busybox",
    )


def _pending(directory: LabDirectory, to: str | None) -> list[Rehearsed]:
    """What the nodes lack now; they and etcd are read."""
    from vxlab.cli.login import login
    from vxlab.engine.running import Running

    running = Running.attach(directory, login())
    try:
        states = running.states()
        where = running.site.lab.etcd.node
        if running.etcd_node.running() and running.etcd_node.alive("etcd"):
            server = running.etcd()
            server.wait_healthy()
            states[where] = replace(states[where], keys=server.keys())
        return rehearse(running.site, states, to)
    finally:
        running.close()


def _print(rehearsed: Sequence[Rehearsed]) -> None:
    width = shutil.get_terminal_size((100, 40)).columns
    wide = max((len(each.node) for each in rehearsed), default=0) + 2
    step = ""
    for each in rehearsed:
        if each.step != step:
            text.say(("\n" if step else "") + text.style(_title(each.step), "bold"))
            step = each.step
        for number, line in enumerate(_lines(each.commands, max(width - wide - 2, 40))):
            text.say(f"  {'' if number else each.node:<{wide}}{line}")


def _title(step: str) -> str:
    return f"{step}: {BY_NAME[step].title}"


def _lines(commands: Sequence[Command], width: int) -> list[str]:
    """The commands with their notes; one note for several commands is told once."""
    lines: list[str] = []
    note = ""
    for command in commands:
        if command.note and command.note != note:
            wrapped = text.wrapped(command.note, 2, width).split("\n")
            lines += [text.style(f"# {line.strip()}", "dim") for line in wrapped]
        note = command.note
        lines += command.folded(width)
    return lines
