"""Start-up is a property that is kept: what a command does not need is not loaded.

No times are measured here; modules that are not loaded cost none.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Vxlab
from lablib import LAB

#: Runs vxlab in this process and prints the names of all modules that were loaded by then.
DRIVER = """
import atexit, json, os, sys
report = os.dup(1)
atexit.register(lambda: os.write(report, b"\\n@@" + json.dumps(sorted(sys.modules)).encode()))
sys.argv = ["vxlab", *sys.argv[1:]]
from vxlab.cli import main
main()
"""

HEAVY = {"rich", "pyroute2", "etcd3", "grpc", "google", "yaml", "paramiko", "msgspec", "asyncio"}
#: What talks to a lab's daemons and to a terminal, but not what reads the stored lab.
TALKING = {"rich", "pyroute2", "etcd3", "grpc", "google", "paramiko", "asyncio"}


def loaded(*words: str) -> tuple[int, set[str]]:
    """Exit code, and the names of all modules, their packages among them."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, set(json.loads(done.stdout.rpartition("@@")[2]))


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["-h"], 0),
        (["--version"], 0),
        ([], 64),
        (["upp"], 64),
        (["--nope"], 64),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_help_loads_nothing_heavy(words: list[str], code: int) -> None:
    """Neither a library that is slow to load nor any command's module."""
    seen_code, modules = loaded(*words)
    assert (seen_code, modules & HEAVY) == (code, set())
    parts = ("vxlab.cli.", "vxlab.engine", "vxlab.steps", "vxlab.ops")
    assert {m for m in modules if m.startswith(parts)} == set()


@pytest.mark.parametrize("command", ["up", "verify", "teardown", "status", "ls", "logs", "check"])
def test_a_commands_help_loads_nothing_heavy(command: str) -> None:
    """``vxlab up --help`` loads the command's module, not the engine."""
    code, modules = loaded(command, "--help")
    assert (code, modules & HEAVY) == (0, set())
    assert {m for m in modules if m.startswith("vxlab.engine")} == set()


@pytest.mark.parametrize("words", [["status"], ["ls"], ["teardown"]], ids=" ".join)
def test_looking_at_nothing_loads_nothing_heavy(words: list[str], home: Path) -> None:
    """Without a lab these commands answer from the lab's directory alone."""
    _, modules = loaded(*words)
    assert modules & TALKING == set()


@pytest.mark.kernel
@LAB[0]
@LAB[1]
def test_status_of_a_lab_reads_it_without_its_daemons_libraries(vxlab: Vxlab) -> None:
    """A lab that is up is judged from snapshots: no etcd client, no netlink library, no rich."""
    assert vxlab("up").returncode == 0
    code, modules = loaded("status")
    assert (code, modules & TALKING) == (0, set())
