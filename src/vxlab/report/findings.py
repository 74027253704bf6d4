"""The answers of `verify` and `check`: on a terminal, as plain lines, as JSON, as JUnit XML."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vxlab.checks.finding import Finding
from vxlab.engine.verify import Answered, verdict
from vxlab.errors import JournalError
from vxlab.report import text

_WIDEST = 24  # columns for the place of a finding
_BAD = 12
_SHOWN = 4  # findings of a check that is good; all of one that is not


def show(answers: Sequence[Answered], *, every: bool) -> None:
    """Each check with its evidence; what is good and repeats itself is cut short.

    Args:
        every: show all findings.
    """
    for answer in answers:
        text.say(f"{text.mark(answer.ok)} {text.style(answer.check.question, 'bold')}")
        shown = _chosen(answer.findings, every)
        width = max(len(f.where) for f in shown)
        for finding in shown:
            _finding(finding, width)
        left = len(answer.findings) - len(shown)
        if left:
            good = sum(f.ok is True for f in answer.findings)
            kind = f"{left} more" if answer.ok or left > good else f"{left} good"
            text.say(text.style(f"    and {kind} (-v shows all)", "dim"))


def _chosen(findings: Sequence[Finding], every: bool) -> list[Finding]:
    bad = [f for f in findings if not f.ok]
    if every or (len(findings) <= _SHOWN and not bad):
        return list(findings)
    return bad[:_BAD] or list(findings[: _SHOWN - 1])


def _finding(finding: Finding, width: int) -> None:
    colour = text.MARKS[finding.ok][2]
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
    lead = f"    {finding.where:<{width}}  "
    if width > _WIDEST:  # two containers: the evidence goes on a line of its own
        text.say(lead.rstrip())
        lead = "      "
    indent = " " * len(lead)
    seen = text.wrapped(finding.seen, len(lead), columns)
    text.say(lead + (seen if finding.ok else text.style(seen, colour)))
    if finding.wanted and not finding.ok:
        text.say(f"{indent}wanted: {text.wrapped(finding.wanted, len(lead) + 8, columns)}")
    if finding.fix:
        text.say(f"{indent}fix: {finding.fix}")


def as_json(lab: str, answers: Sequence[Answered]) -> dict[str, Any]:
    """The stable form: ``ok`` is true, false, or null where nothing could be measured."""
    return {
        "lab": lab,
        "ok": verdict(a.ok for a in answers),
        "checks": [
            {
                "code": answer.check.code,
                "question": answer.check.question,
                "ok": answer.ok,
                "findings": [
                    {
                        "where": f.where,
                        "ok": f.ok,
                        "seen": f.seen,
                        "wanted": f.wanted,
                        "fix": f.fix,
                    }
                    for f in answer.findings
                ],
            }
            for answer in answers
        ],
    }


#: What XML cannot hold, not even escaped (XML 1.0, production 2), such as control characters.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _xml(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def write_junit(path: Path, lab: str, answers: Sequence[Answered], seconds: float) -> None:
    """The answers as JUnit XML: a test case per finding; what was not measured is an error.

    Raises:
        JournalError: the file cannot be written.
    """
    from xml.etree import ElementTree

    findings = [f for a in answers for f in a.findings]
    suite = ElementTree.Element(
        "testsuite",
        name=f"vxlab {lab}",
        tests=str(len(findings)),
        failures=str(sum(f.ok is False for f in findings)),
        errors=str(sum(f.ok is None for f in findings)),
        time=f"{seconds:.3f}",
    )
    for answer in answers:
        for finding in answer.findings:
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"vxlab.{answer.check.code}", name=finding.where
            )
            if finding.ok is True:
                ElementTree.SubElement(case, "system-out").text = _xml(finding.seen)
                continue
            kind = "failure" if finding.ok is False else "error"
            ElementTree.SubElement(case, kind, message=_xml(finding.seen)).text = _xml(
                f"wanted: {finding.wanted}"
            )
    try:
        ElementTree.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)
    except OSError as error:
        raise JournalError(f"cannot write {path}: {error.strerror}") from None
