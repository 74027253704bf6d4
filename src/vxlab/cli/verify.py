"""``vxlab verify``: does the overlay work, and why?"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from vxlab.cli import choose
from vxlab.cli.login import login
from vxlab.report import text

_EXIT = {True: 0, False: 1, None: 2}


@click.command("verify")
@click.argument("lab", required=False, shell_complete=choose.complete_lab)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--junit", type=click.Path(path_type=Path), help="Write a JUnit XML file, too.")
@click.option("-v", "--verbose", is_flag=True, help="Show every finding, not the first few.")
def command(lab: str | None, as_json: bool, junit: Path | None, verbose: bool) -> None:
    """Prove that LAB works, with the evidence: from etcd's leases to the packets on the wire.

    Exit code 0: all good. 1: a check failed. 2: something could not be measured.
    """
    from vxlab.engine.running import Running
    from vxlab.engine.verify import verdict, verify
    from vxlab.report import findings

    begun = time.monotonic()
    running = Running.attach(choose.directory(lab), login())
    try:
        answers = verify(running, text.doing)
    finally:
        text.doing("")
        running.close()
    spent = time.monotonic() - begun
    name = running.site.lab.name
    ok = verdict(a.ok for a in answers)
    if junit is not None:
        findings.write_junit(junit, name, answers, spent)
    if as_json:
        text.dump(findings.as_json(name, answers))
    else:
        findings.show(answers, every=verbose)
        words = {True: "works", False: "does not work as it should", None: "is not proven to work"}
        good = sum(a.ok is True for a in answers)
        colour = text.MARKS[ok][2]
        line = f"{name} {words[ok]}: {good} of {len(answers)} checks good in {text.seconds(spent)}"
        text.say(text.style(line, colour))
    sys.exit(_EXIT[ok])
