"""``vxlab explain`` as a user meets it: without a lab, with one, and with one that has a gap."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import talk
from conftest import Vxlab, run
from golden import agrees
from lablib import LAB
from vxlab.cli.explain import command
from vxlab.engine.running import save
from vxlab.journal import LabDirectory
from vxlab.lessons import LESSONS

KEYS = [
    "name",
    "title",
    "kind",
    "text",
    "sources",
    "step",
    "commands",
    "look",
    "ping",
    "lab",
    "seen",
]


def explain(*words: str) -> str:
    done = CliRunner().invoke(command, words)
    assert (done.exit_code, done.exception) == (0, None)
    return done.output


# --- without a lab ------------------------------------------------------------------------------


def test_the_list(home: Path) -> None:
    """All steps and things, each on one line that fits 80 columns."""
    text = explain()
    agrees("explain/list.txt", text)
    assert max(map(len, text.splitlines())) < 80
    rows = [line.split()[0] for line in text.splitlines() if line.startswith("  ")]
    assert rows == [lesson.name for lesson in LESSONS]


def test_every_lesson(home: Path) -> None:
    """The texts, the commands of the talk's lab, what to look at: against the case file."""
    agrees("explain/lessons.txt", "\n\n".join(explain(lesson.name) for lesson in LESSONS))


@pytest.mark.parametrize("width", [80, 100])
def test_lines_fit_the_terminal(home: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """Text and commands go on under their own beginning; only a word alone may stick out."""
    monkeypatch.setattr("vxlab.cli.explain._columns", lambda: width)
    for lesson in LESSONS:
        long = [line for line in explain(lesson.name).splitlines() if len(line) > width]
        alone = re.compile(r"\s+(\S+|'[^']+')( \\)?")
        assert [line for line in long if not alone.fullmatch(line)] == []


def test_the_list_for_programs(home: Path) -> None:
    """Stable keys."""
    rows = json.loads(explain("--json"))
    assert [row["name"] for row in rows] == [lesson.name for lesson in LESSONS]
    assert {tuple(row) for row in rows} == {("name", "title", "kind")}


@pytest.mark.parametrize("name", [lesson.name for lesson in LESSONS])
def test_a_lesson_for_programs(home: Path, name: str) -> None:
    """Stable keys; without a lab nothing is seen of one."""
    told = json.loads(explain(name.upper(), "--json"))
    assert list(told) == KEYS
    assert (told["name"], told["lab"], told["seen"]) == (name, None, [])


def test_an_unknown_word(vxlab: Vxlab) -> None:
    """Exit code 64, and what may have been meant."""
    done = vxlab("explain", "fbd")
    assert (done.returncode, done.stdout) == (64, "")
    assert "did you mean `vxlab explain FDB`?" in done.stderr


def test_a_lab_that_is_named_must_be_there(vxlab: Vxlab) -> None:
    """`--lab` means that lab and no example."""
    done = vxlab("explain", "fdb", "--lab", "nowhere")
    assert (done.returncode, done.stdout) == (64, "")
    assert "there is no lab called 'nowhere'" in done.stderr


def test_a_lab_that_is_down_is_no_example(home: Path) -> None:
    """After a restart of the machine the lesson is there, with the talk's values."""
    directory = LabDirectory("talk")
    with directory.locked("test", create=True):
        save(directory, talk.site())
        directory.append({"world": {"pid": 1, "start": 1, "boot": "another boot"}})
    assert json.loads(explain("fdb", "--json"))["lab"] is None


# --- with a lab ---------------------------------------------------------------------------------

needs_lab = [pytest.mark.kernel, *LAB]


def marked(test: Any) -> Any:
    for mark in needs_lab:
        test = mark(test)
    return test


@pytest.fixture
def lab(vxlab: Vxlab) -> Iterator[Vxlab]:
    """The talk's lab, up."""
    assert vxlab("up").returncode == 0
    yield vxlab
    vxlab("teardown")


def told(vxlab: Vxlab, *words: str) -> dict[str, Any]:
    done = vxlab("explain", *words, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


def node01(vxlab: Vxlab, *words: str) -> str:
    done = vxlab("exec", "node01", "--", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@marked
def test_a_lab_is_told_with_its_own_entries(lab: Vxlab) -> None:
    """What is said of every table is there, word for word, when a person looks."""
    fdb, neighbour = told(lab, "fdb"), told(lab, "neighbour")
    (entry,) = (line for line in fdb["seen"] if line["command"])
    assert entry["line"] == node01(lab, "bridge", "fdb", "show", "dev", "flannel.1").strip()
    (known,) = (line for line in neighbour["seen"] if line["command"])
    assert known["line"] == node01(lab, "ip", "neigh", "show", "dev", "flannel.1").strip()
    hop, mac = known["line"].split()[0], known["line"].split()[2]
    sentence = fdb["seen"][0]["words"]
    assert f"the neighbour entry for {hop} gives {mac}" in sentence
    assert sentence.endswith("the FDB sends that MAC to 192.168.56.22 (node02).")
    keys = {line["line"].split()[0] for line in told(lab, "lease")["seen"]}
    listed = ("etcdctl", "get", "--prefix", "--keys-only", "/coreos.com/network/subnets")
    assert keys == set(node01(lab, *listed).split())


@marked
def test_everything_to_look_at_can_be_looked_at(lab: Vxlab) -> None:
    """Every command of every lesson does something in a lab that works, and nothing is missing."""
    for lesson in LESSONS:
        answer = told(lab, lesson.name)
        assert [line for line in answer["seen"] if not line["ok"]] == []
        for look in answer["look"]:
            if "tcpdump" in look["command"]:  # waits for a packet
                continue
            shell = ("sh", "-c", look["command"])
            done = run("exec", look["place"], "--", *shell)
            assert (done.returncode, done.stdout != "") == (0, True), (look, done.stderr)


@marked
def test_what_is_missing_is_said_to_be_missing(lab: Vxlab) -> None:
    """Entries taken away by hand: the lesson says so, and the sentence ends there."""
    entry = node01(lab, "bridge", "fdb", "show", "dev", "flannel.1").split()
    node01(lab, "bridge", "fdb", "del", entry[0], "dev", "flannel.1", "dst", entry[2])
    seen = told(lab, "fdb")["seen"]
    assert [line["ok"] for line in seen] == [False, False]
    assert seen[1]["words"] == f"no entry for {entry[0]}, node02's VTEP"
    assert seen[0]["words"].endswith(f"the FDB has no entry for {entry[0]}: the frame is dropped.")
    text = lab("explain", "fdb").stdout
    assert f"no entry for {entry[0]}, node02's VTEP" in text


@marked
def test_a_lab_that_is_half_built(vxlab: Vxlab) -> None:
    """Up to the bridge: no way out of the container yet, which is what the lesson says."""
    assert vxlab("up", "--to", "bridge").returncode == 0
    last = told(vxlab, "path")["seen"][-1]
    assert (last["ok"], last["command"]) == (False, "ip route")
    assert "Network is unreachable" in last["words"]
    before = told(vxlab, "route")["seen"]
    assert [line["line"] for line in before] == [None, None]
