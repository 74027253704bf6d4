"""``vxlab check``: what this machine can do, tried for real."""

from __future__ import annotations

import sys

import click

from vxlab.report import text


@click.command("check")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Show what was seen for each.")
def command(as_json: bool, verbose: bool) -> None:
    """Try everything that a lab needs from this machine; nothing is left behind.

    Exit code 0: a lab runs here. 69: something is missing; each says what to do about it.
    """
    from dataclasses import asdict

    from vxlab import preflight
    from vxlab.errors import MissingError

    findings = preflight.run()
    bad = [f for f in findings if f.ok is False]
    if as_json:
        text.dump({"ok": not bad, "findings": [asdict(f) for f in findings]})
        sys.exit(MissingError.exit_code if bad else 0)
    width = max(len(f.title) for f in findings)
    for finding in findings:
        seen = finding.seen.splitlines()[0] if finding.seen else ""
        text.say(f"{text.mark(finding.ok)} {finding.title:<{width}}  {seen}".rstrip())
        if finding.ok is not True or verbose:
            for line in finding.todo.splitlines():
                text.say(f"{'':<{width + 4}}{line}")
    if bad:
        text.say(text.style(f"{text.plural(len(bad), 'thing')} missing for a lab", "red"))
    else:
        text.say(text.style("a lab runs on this machine", "green"))
    sys.exit(MissingError.exit_code if bad else 0)
