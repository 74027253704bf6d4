"""``vxlab up`` is killed or interrupted at every instant that matters; nothing may be left."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from kernel import wait_for
from lablib import LAB, Home, host_links, leftovers, told

pytestmark = LAB

DRIVER = Path(__file__).with_name("crash_driver.py")

#: Cycles at a time; a cycle is mostly waiting.
_WORKERS = 2

#: A journal's entry 0 tells of the world; it is written before the world goes on.
_SPECIAL = ("draft", "blank:0", "write:0", "entry:0", "put", "kept")


def crash(home: Home, how: str, point: str) -> subprocess.CompletedProcess[str]:
    """`vxlab up`, stopped at a point (see crash_driver.py)."""
    return subprocess.run(
        [sys.executable, str(DRIVER), how, point],
        env=home.environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, int]:
    """How many operations and journal entries one whole run has."""
    home = Home(tmp_path_factory.mktemp("whole") / "home")
    whole = crash(home, "kill", "never")
    assert whole.returncode == 0, told(whole)
    home.ok("teardown")
    operations, entries = map(int, whole.stderr.split()[-2:])
    assert operations > 60
    assert entries > 10
    return operations, entries


def removed(home: Home) -> None:
    """`vxlab teardown` takes away all that a crash left, and says so."""
    down = home("teardown")
    assert down.returncode == 0, told(down)
    # What a killed process had started itself ends by the closed pipe, a moment later.
    wait_for(lambda: leftovers(home.path) == [], f"an empty machine, not {leftovers(home.path)}", 5)


def crashed_and_removed(base: Path, point: str, *, again: bool = True) -> None:
    """kill -9, teardown, nothing left; then a whole lab can be built at the same place."""
    home = Home(base / point.replace(":", "-"))
    killed = crash(home, "kill", point)
    assert killed.returncode == -9, told(killed)
    removed(home)
    if again:
        home.ok("up")
        assert home.json("status")["drift"] == []
        removed(home)


def crashed_and_continued(base: Path, point: str) -> None:
    """kill -9, then `up` at once: it finishes the lab, which works as any other."""
    home = Home(base / point.replace(":", "-"))
    killed = crash(home, "kill", point)
    assert killed.returncode == -9, told(killed)
    home.ok("up")
    assert home.failed() == set()
    assert home.json("up")["changes"] == []
    removed(home)


def every(cycle: partial[None], points: Iterable[str]) -> dict[str, str]:
    """Run the cycle for each point, some at a time; the points where it failed, and how."""

    def attempt(point: str) -> str:
        try:
            cycle(point=point)
        except AssertionError as error:
            return str(error)
        return ""

    names = list(points)
    with ThreadPoolExecutor(_WORKERS) as pool:
        return {p: why for p, why in zip(names, pool.map(attempt, names), strict=True) if why}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("side", ["before", "after"])
def test_a_kill_beside_any_operation_leaves_nothing(
    tmp_path: Path, counts: tuple[int, int], side: str
) -> None:
    """Between the journal and the change, and after it: teardown removes all, up builds anew."""
    links = host_links()
    points = [f"{side}:{k}" for k in range(counts[0])]
    assert every(partial(crashed_and_removed, tmp_path), points) == {}
    assert host_links() == links


@pytest.mark.timeout(300)
def test_a_kill_beside_any_journal_entry_leaves_nothing(
    tmp_path: Path, counts: tuple[int, int]
) -> None:
    """An entry that was cut off, or that nothing followed, does not keep a teardown from all."""
    points = [f"{what}:{k}" for what in ("write", "entry") for k in range(0, counts[1], 3)]
    cycle = partial(crashed_and_removed, tmp_path, again=False)
    assert every(cycle, [*points, *_SPECIAL]) == {}


@pytest.mark.timeout(300)
def test_up_continues_a_killed_up(tmp_path: Path, counts: tuple[int, int]) -> None:
    """`up` on a lab that a kill left half built finishes it; the journal may end in mid-entry."""
    operations, entries = counts
    points = [f"{('before', 'after')[k % 2]}:{k}" for k in range(0, operations, 5)]
    points += [f"write:{k}" for k in range(0, entries, 5)]
    assert every(partial(crashed_and_continued, tmp_path), [*points, *_SPECIAL]) == {}


def interrupted(base: Path, point: str) -> None:
    """Ctrl-C: exit code 130 and a word on what to do; then up continues, or teardown removes."""
    home = Home(base / point.replace(":", "-"))
    stopped = crash(home, "interrupt", point)
    assert stopped.returncode == 130, told(stopped)
    assert "stopped; `vxlab up` goes on, `vxlab teardown` takes it away" in stopped.stderr
    assert "Traceback" not in stopped.stderr, told(stopped)
    if point.startswith("before"):
        home.ok("up")
        assert home.failed() == set()
    removed(home)


def test_ctrl_c_is_told_and_leaves_a_lab_to_continue_or_remove(
    tmp_path: Path, counts: tuple[int, int]
) -> None:
    """SIGINT to the whole process group, as a terminal sends it, at points all over the run."""
    points = [f"{('before', 'after')[k % 2]}:{k}" for k in range(0, counts[0], 7)]
    assert every(partial(interrupted, tmp_path), [*points, "entry:0", "put", "kept"]) == {}
