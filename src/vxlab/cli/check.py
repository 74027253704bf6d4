"""``vxlab check``: what this machine, or the hosts of a lab, can do; tried for real."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import click

from vxlab.cli import choose
from vxlab.cli.login import accept_new_option, login
from vxlab.report import text


class _Finding(Protocol):
    @property
    def title(self) -> str: ...
    @property
    def ok(self) -> bool | None: ...
    @property
    def seen(self) -> str: ...
    @property
    def todo(self) -> str: ...


@click.command("check")
@click.argument("lab", required=False, shell_complete=choose.complete_lab)
@accept_new_option
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Show what was seen for each.")
def command(lab: str | None, accept_new: bool, as_json: bool, verbose: bool) -> None:
    """Try everything that a lab needs from this machine; nothing is left behind.

    With the file or name of a LAB on real hosts: what its hosts can do, without changing anything.

    Exit code 0: a lab runs here. 69: something is missing; each says what to do about it.
    """
    from vxlab.errors import MissingError

    every = _hosts(lab, accept_new=accept_new) if lab is not None else _here()
    bad = [f for group in every.values() for f in group if f.ok is False]
    if as_json:
        rows = [asdict(f) for group in every.values() for f in group]  # type: ignore[call-overload]
        text.dump({"ok": not bad, "findings": rows})
        sys.exit(MissingError.exit_code if bad else 0)
    width = max(len(f.title) for group in every.values() for f in group)
    for place, group in every.items():
        if place:
            text.say(text.style(place, "bold"))
        _show(group, width, verbose=verbose)
    where = "these hosts" if lab is not None else "this machine"
    if bad:
        text.say(text.style(f"{text.plural(len(bad), 'problem')} on {where}", "red"))
    else:
        text.say(text.style(f"a lab runs on {where}", "green"))
    sys.exit(MissingError.exit_code if bad else 0)


def _here() -> dict[str, Sequence[_Finding]]:
    from vxlab import preflight

    return {"": preflight.run()}


def _hosts(named: str, *, accept_new: bool) -> dict[str, Sequence[_Finding]]:
    """What the hosts of a lab say, by host."""
    from vxlab import labfile
    from vxlab.engine import hosts
    from vxlab.engine.running import stored_lab
    from vxlab.errors import UsageError
    from vxlab.nodes.remote import close, connected, targets

    is_file = choose.looks_like_file(named)
    lab = labfile.load(Path(named)) if is_file else stored_lab(choose.directory(named))
    if lab is None or not lab.remote:
        hint = "`vxlab check` without a lab looks at this machine"
        raise UsageError(f"{named!r} is no lab on real hosts", hint=hint)
    nodes = connected(lab.name, targets(lab), login(accept_new=accept_new))
    try:
        findings, _ = hosts.examine(lab, nodes)
    finally:
        close(nodes)
    return {n.name: [f for f in findings if f.host == n.name] for n in lab.nodes}


def _show(findings: Sequence[_Finding], width: int, *, verbose: bool) -> None:
    for finding in findings:
        seen = finding.seen.splitlines()[0] if finding.seen else ""
        text.say(f"{text.mark(finding.ok)} {finding.title:<{width}}  {seen}".rstrip())
        if finding.ok is not True or verbose:
            for line in finding.todo.splitlines():
                text.say(f"{'':<{width + 4}}{line}")
