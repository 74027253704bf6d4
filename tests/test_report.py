"""What a person or a program reads: words, tables, errors, findings as text, JSON and JUnit XML."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import talk
from vxlab.checks import CHECKS
from vxlab.checks.finding import Evidence, Finding
from vxlab.engine.events import OpDone, StepFinished, StepStarted, Told
from vxlab.engine.running import places
from vxlab.engine.verify import Answered
from vxlab.errors import JournalError, OperationError, VxlabError
from vxlab.ops import SetMtu
from vxlab.report import findings, text
from vxlab.report.progress import Download, Progress
from vxlab.steps import steps_of

STEPS = steps_of(talk.TALK)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal with colours, to become stdout."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def answered(evidence: Evidence | None = None) -> list[Answered]:
    """All checks' answers, by default of a lab that works."""
    seen = evidence or talk.evidence()
    return [Answered(check, tuple(check.answer(seen))) for check in CHECKS]


def with_findings(*found: Finding) -> list[Answered]:
    return [Answered(CHECKS[0], found)]


def output(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


# --- words --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0 ms"), (0.0124, "12 ms"), (0.9994, "999 ms"), (0.9996, "1.0 s"), (61.25, "61.2 s")],
)
def test_seconds(value: float, shown: str) -> None:
    """Milliseconds below a second; never ``1000 ms``."""
    assert text.seconds(value) == shown


@pytest.mark.parametrize(("count", "shown"), [(0, "0 nodes"), (1, "1 node"), (2, "2 nodes")])
def test_plural(count: int, shown: str) -> None:
    """One is singular."""
    assert text.plural(count, "node") == shown


def test_table() -> None:
    """Columns as wide as their widest cell, no blanks at the line's end."""
    shown = text.table([["a", "1"], ["bbb", ""]], header=["name", "n"])
    assert shown == "  name  n\n  a     1\n  bbb"
    assert text.table([]) == ""


def test_wrapped() -> None:
    """A long line goes on under its own beginning; a long word is not broken."""
    assert text.wrapped("a b " + "c" * 40, 4, 44) == "a b\n    " + "c" * 40
    assert text.wrapped("short", 4, 10_000) == "short"


# --- colours ------------------------------------------------------------------------------------


def test_colours_on_a_terminal(terminal: Terminal) -> None:
    """Where a person looks."""
    with redirect_stdout(terminal):
        shown = text.style("ok", "green"), text.mark(True)
    assert shown == ("\x1b[32mok\x1b[0m", "\x1b[32m✔\x1b[0m")


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colours_where_they_are_not_wanted(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """NO_COLOR (no-color.org), or a terminal that cannot."""
    monkeypatch.setenv(name, value)
    with redirect_stdout(terminal):
        shown = text.style("ok", "green"), text.mark(False)
    assert shown == ("ok", "✘")


def test_an_empty_no_color_counts_as_unset(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As no-color.org says."""
    monkeypatch.setenv("NO_COLOR", "")
    with redirect_stdout(terminal):
        assert text.style("ok", "green") != "ok"


def test_a_pipe_gets_plain_words(capsys: pytest.CaptureFixture[str]) -> None:
    """No escape codes, and verdicts as words that grep finds."""
    assert (text.style("ok", "red"), text.mark(None)) == ("ok", "unknown")
    findings.show(answered(), every=True)
    text.error(OperationError("it broke", where="node01", detail="a\nb", hint="mend it"))
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err


def test_what_is_being_done_is_for_terminals_only(capsys: pytest.CaptureFixture[str]) -> None:
    """A line that is replaced would be garbage in a log."""
    text.doing("pinging")
    assert capsys.readouterr() == ("", "")


# --- errors -------------------------------------------------------------------------------------


def test_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """What happened, where, what was said, what to do; on stderr."""
    text.error(
        OperationError(
            "cannot do: ip link set dev eth0 mtu 70000",
            where="node01 · underlay",
            detail="RTNETLINK answers: Invalid argument\n(MTU greater than device maximum)",
            hint="choose a smaller MTU",
        )
    )
    assert capsys.readouterr() == (
        "",
        "error: cannot do: ip link set dev eth0 mtu 70000\n"
        "  where  node01 · underlay\n"
        "  said   RTNETLINK answers: Invalid argument\n"
        "         (MTU greater than device maximum)\n"
        "  do     choose a smaller MTU\n",
    )


def test_an_error_without_particulars(capsys: pytest.CaptureFixture[str]) -> None:
    """Empty parts leave no empty lines."""
    text.error(VxlabError("it broke"))
    assert capsys.readouterr().err == "error: it broke\n"


def test_an_error_as_json() -> None:
    """The stable object, with the exit code that goes with it."""
    error = JournalError("cannot write", where="/lab", hint="free space")
    assert error.as_json() == {
        "error": "JournalError",
        "message": "cannot write",
        "where": "/lab",
        "detail": "",
        "hint": "free space",
        "exit_code": 74,
    }


# --- findings -----------------------------------------------------------------------------------

GOOD = Finding("mtu", "node01", True, "eth0 1500")
BAD = Finding("mtu", "node02", False, "eth0 1400", "eth0 1500", "vxlab up")
UNKNOWN = Finding("mtu", "node03", None, "cannot look", "eth0 1500")


def test_findings_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    """Bad ones with what was wanted and what mends them; good ones are counted."""
    findings.show(with_findings(GOOD, BAD, UNKNOWN), every=False)
    assert output(capsys).splitlines()[1:] == [
        "    node02  eth0 1400",
        "            wanted: eth0 1500",
        "            fix: vxlab up",
        "    node03  cannot look",
        "            wanted: eth0 1500",
        "    and 1 good (-v shows all)",
    ]


def test_the_line_of_a_check(capsys: pytest.CaptureFixture[str]) -> None:
    """Its verdict and its question."""
    for ok, word in ((True, "ok     "), (False, "FAILED "), (None, "unknown")):
        findings.show(with_findings(replace(GOOD, ok=ok)), every=False)
        assert output(capsys).splitlines()[0] == f"{word} {CHECKS[0].question}"


def test_good_findings_that_repeat_themselves_are_cut_short(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Fifty nodes that are all well need not be read one by one, but can be."""
    many = with_findings(*(replace(GOOD, where=f"node{i:02}") for i in range(50)))
    findings.show(many, every=False)
    short = output(capsys).splitlines()
    assert (len(short), short[-1]) == (5, "    and 47 more (-v shows all)")
    findings.show(many, every=True)
    assert len(output(capsys).splitlines()) == 51


def test_a_long_place_has_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """Two containers' names leave no room for the evidence beside them."""
    where = "node01/container01 -> node02/container02"
    findings.show(with_findings(replace(BAD, where=where)), every=False)
    assert output(capsys).splitlines()[1:] == [
        f"    {where}",
        "      eth0 1400",
        "      wanted: eth0 1500",
        "      fix: vxlab up",
    ]


def test_findings_as_json() -> None:
    """One object, with null for what was not measured; it is JSON that can be read back."""
    document = findings.as_json("talk", with_findings(GOOD, UNKNOWN))
    assert json.loads(json.dumps(document)) == {
        "lab": "talk",
        "ok": None,
        "checks": [
            {
                "code": CHECKS[0].code,
                "question": CHECKS[0].question,
                "ok": None,
                "findings": [
                    {"where": "node01", "ok": True, "seen": "eth0 1500", "wanted": "", "fix": ""},
                    {
                        "where": "node03",
                        "ok": None,
                        "seen": "cannot look",
                        "wanted": "eth0 1500",
                        "fix": "",
                    },
                ],
            }
        ],
    }


# --- JUnit --------------------------------------------------------------------------------------


def junit(path: Path, answers: Sequence[Answered]) -> ElementTree.Element:
    findings.write_junit(path, "talk", answers, 0.1234)
    return ElementTree.parse(path).getroot()  # noqa: S314 - written by ourselves


def test_junit_counts(tmp_path: Path) -> None:
    """A test case per finding; bad ones are failures, what was not measured is an error."""
    suite = junit(tmp_path / "r.xml", with_findings(GOOD, BAD, UNKNOWN))
    assert suite.tag == "testsuite"
    assert suite.attrib == {
        "name": "vxlab talk",
        "tests": "3",
        "failures": "1",
        "errors": "1",
        "time": "0.123",
    }
    cases = [(c.get("classname"), c.get("name"), [x.tag for x in c]) for c in suite]
    assert cases == [
        ("vxlab.daemons", "node01", ["system-out"]),
        ("vxlab.daemons", "node02", ["failure"]),
        ("vxlab.daemons", "node03", ["error"]),
    ]
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert (failure.get("message"), failure.text) == ("eth0 1400", "wanted: eth0 1500")


def test_junit_of_a_whole_lab(tmp_path: Path) -> None:
    """As many cases as findings, and the evidence is in them."""
    answers = answered()
    suite = junit(tmp_path / "r.xml", answers)
    count = sum(len(a.findings) for a in answers)
    assert [len(suite), suite.get("tests"), suite.get("failures")] == [count, str(count), "0"]
    assert all(case.findtext("system-out") for case in suite)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text())
def test_junit_of_whatever_was_seen(tmp_path: Path, seen: str) -> None:
    """Quotes, tags, control characters and half surrogates: the file can be read."""
    bad = replace(BAD, seen=seen, wanted=seen)
    suite = junit(tmp_path / "r.xml", with_findings(replace(GOOD, seen=seen), bad))
    assert len(suite) == 2


def test_junit_keeps_what_xml_can_hold(tmp_path: Path) -> None:
    """Angle brackets, quotes, letters of all kinds; a control character becomes a mark."""
    seen = 'a <b> & "c" -> µs\x1b[31m'
    suite = junit(tmp_path / "r.xml", with_findings(replace(GOOD, seen=seen)))
    assert suite.findtext("testcase/system-out") == 'a <b> & "c" -> µs\N{REPLACEMENT CHARACTER}[31m'


def test_junit_to_where_nothing_can_be_written(tmp_path: Path) -> None:
    """The place, and what the kernel says."""
    with pytest.raises(JournalError, match="No such file or directory"):
        findings.write_junit(tmp_path / "none" / "r.xml", "talk", answered(), 0.1)


# --- progress -----------------------------------------------------------------------------------


def run(progress: Progress, *events: Any) -> None:
    with progress as listening:
        for event in events:
            listening(event)


def all_steps() -> list[Any]:
    """The events of a build of the talk's lab."""
    return [e for s in STEPS for _, node in places(talk.TALK, s.on) for e in step(s.name, node)]


def step(name: str, node: str, changes: int = 1) -> tuple[StepStarted, StepFinished]:
    return StepStarted(name, node), StepFinished(name, node, 0.5, changes)


def test_a_line_for_every_finished_step(capsys: pytest.CaptureFixture[str]) -> None:
    """In a pipe: when the last node is through, with the number of changes."""
    run(
        Progress(talk.TALK),
        *step("underlay", "node01", 3),
        *step("etcd", "node01"),
        *step("underlay", "node02", 4),
        *step("mtu", "node01", 0),
        *step("mtu", "node02", 0),
    )
    words = [line.rsplit(maxsplit=2)[0] for line in output(capsys).splitlines()]
    assert [" ".join(line.split()) for line in words] == [
        "etcd where the flannelds agree 1 node 1 change",
        "underlay addresses of the nodes 2 nodes 7 changes",
        "mtu room for the encapsulation 2 nodes as wanted",
    ]


def test_the_columns_stand_below_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    """No title is wider than its column."""
    run(Progress(talk.TALK), *all_steps())
    lines = output(capsys).splitlines()
    assert len(lines) == len(STEPS)
    assert {(line[40], line[41].isdigit(), line[43:47]) for line in lines} == {(" ", True, "node")}


def test_quiet_progress_only_counts(capsys: pytest.CaptureFixture[str]) -> None:
    """For --json, which prints one document at its end."""
    progress = Progress(talk.TALK, quiet=True)
    run(progress, *step("etcd", "node01", 1))
    assert output(capsys) == ""
    assert progress.rows["etcd"].as_json()["changes"] == 1
    assert list(progress.rows) == [s.name for s in STEPS]


def test_verbose_progress_prints_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """Every operation as a person would type it; no line per step."""
    op = SetMtu(name="vethlocal", mtu=1450)
    run(Progress(talk.TALK, verbose=True), OpDone("mtu", "node01", op, "x"), *step("etcd", "n"))
    captured = capsys.readouterr()
    assert captured.out + captured.err == "node01     ip link set dev vethlocal mtu 1450\n"


def test_what_a_person_should_know_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Beside the output, also when it is quiet."""
    run(Progress(talk.TALK, quiet=True), Told("node07", "flanneld started again"))
    assert capsys.readouterr() == ("", "node07: flanneld started again\n")


def test_progress_on_a_terminal(terminal: Terminal) -> None:
    """A list of all steps that is kept up to date; the last picture shows all that is done."""
    with redirect_stdout(terminal):
        run(Progress(talk.TALK), *all_steps())
    last = terminal.getvalue()
    assert [s.name in last for s in STEPS] == [True] * len(STEPS)
    assert "✔" in last


def test_no_colours_in_the_progress_of_a_terminal(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With NO_COLOR the list has no colour; it still moves the cursor."""
    monkeypatch.setenv("NO_COLOR", "1")
    with redirect_stdout(terminal):
        run(Progress(talk.TALK), *step("etcd", "node01"))
    assert "\x1b[32m" not in terminal.getvalue()
    assert "\x1b[36m" not in terminal.getvalue()


def test_downloads_are_silent_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    """No bars in a log."""
    with Download() as download:
        download("etcd", 1, 10)
    assert capsys.readouterr() == ("", "")


def test_downloads_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """One bar per program, whether or not its size is known; gone at the end."""
    stream = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    with redirect_stderr(stream), Download() as download:
        download("etcd", 1, 10)
        download("flanneld", 5, 0)
        download("etcd", 10, 10)
    assert "etcd" in stream.getvalue()
    assert "flanneld" in stream.getvalue()
