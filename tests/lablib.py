"""A private place for whole labs, and what of a lab can be seen from outside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from vxlab import binaries
from vxlab.errors import MissingError, VxlabError
from vxlab.nodes.local import MARK

Completed = subprocess.CompletedProcess[str]


def _missing() -> str:
    try:
        binaries.find(lambda line: None)
    except MissingError as error:
        return f"LAB TESTS DID NOT RUN: {error.message} (`vxlab install` gets it)"
    return ""


#: For every module of this tier.
LAB = [pytest.mark.lab, pytest.mark.skipif(bool(_missing()), reason=_missing() or "all there")]


#: The checks of a VXLAN lab, in the order in which they are told.
CHECKS = [
    "daemons",
    "etcd",
    "lease",
    "vtep",
    "entries",
    "socket",
    "forwarding",
    "mtu",
    "gateway",
    "pairs",
    "edge",
    "encapsulation",
]


@dataclass(frozen=True)
class Home:
    """A private VXLAB_HOME.

    Args:
        path: the directory.
        command: how vxlab is called there.
        env: variables besides this process's own.
    """

    path: Path
    command: Sequence[str] = (sys.executable, "-m", "vxlab")
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, **self.env, "VXLAB_HOME": str(self.path)}

    def lab(self, name: str = "talk") -> Path:
        return self.path / "labs" / name

    def __call__(self, *words: str, cwd: Path | None = None, **env: str) -> Completed:
        """Run vxlab, whatever its exit code."""
        return subprocess.run(
            [*self.command, *words],
            env={**self.environment, **env},
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def ok(self, *words: str) -> str:
        """Run vxlab, which must succeed; its output."""
        completed = self(*words)
        assert completed.returncode == 0, told(completed)
        return completed.stdout

    def json(self, *words: str) -> Any:
        """Run vxlab with --json, whatever its exit code; what it printed."""
        completed = self(*words, "--json")
        assert completed.stdout, told(completed)
        return json.loads(completed.stdout)

    def sh(self, place: str, script: str, lab: str = "talk") -> str:
        """Run a shell line in a node or container of a lab; its output."""
        return self.ok("exec", "--lab", lab, place, "--", "sh", "-c", script)

    def failed(self, lab: str = "talk") -> set[str]:
        """The codes of the checks that are not good now; verify's exit code must say the same."""
        completed = self("verify", lab, "--json")
        assert completed.stdout, told(completed)
        report = json.loads(completed.stdout)
        assert completed.returncode == {True: 0, False: 1, None: 2}[report["ok"]]
        return {c["code"] for c in report["checks"] if c["ok"] is not True}

    def world(self, lab: str = "talk") -> int:
        """The PID of the world's PID 1, from the journal."""
        lines = (self.lab(lab) / "journal").read_text().splitlines()
        worlds = [e["world"]["pid"] for e in map(json.loads, lines) if "world" in e]
        return int(worlds[-1])


def told(completed: Completed) -> str:
    """All that a command said, for messages of failed tests."""
    return f"exit {completed.returncode}\n{completed.stdout}\n{completed.stderr}"


def one_error(completed: Completed, code: int) -> str:
    """The text of the one error message that a command must have ended with."""
    assert completed.returncode == code, told(completed)
    # A message begins its line; the words within are the kernel's or a program's ("write error:").
    heads = [line for line in completed.stderr.splitlines() if line.startswith("error:")]
    assert len(heads) == 1, told(completed)
    assert "Traceback" not in completed.stderr, told(completed)
    return completed.stderr


def findings(home: Home, check: str, lab: str = "talk") -> list[dict[str, Any]]:
    """What one check found."""
    checks = {c["code"]: c["findings"] for c in home.json("verify", lab)["checks"]}
    found: list[dict[str, Any]] = checks[check]
    return found


def rows(home: Home, place: str, command: str, lab: str = "talk") -> list[dict[str, Any]]:
    """What an `ip -j` or `bridge -j` command prints in a node."""
    printed = json.loads(home.sh(place, command, lab) or "[]")
    return [row for row in printed if row]


# --- processes ----------------------------------------------------------------------------------


def _each(file: str) -> Iterator[tuple[int, bytes]]:
    """A file of every process's /proc directory, where it can be read."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            yield int(entry.name), (entry / file).read_bytes()
        except OSError:
            continue  # it ended, or it is another user's


def in_namespaces_of(pid: int) -> set[int]:
    """Every process below a world's PID 1: descendants, since a namespace's init adopts orphans.

    What entered from outside, such as a `vxlab exec`, is not among them.
    """
    parents = {}
    for each, stat in _each("stat"):
        parents[each] = int(stat.rpartition(b")")[2].split()[1])
    found = {pid}
    while more := {p for p, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def rss(pid: int) -> int:
    """Resident memory that is the process's own, in KiB (proc(5): RssAnon)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    raise AssertionError(f"PID {pid} has no RssAnon")


def program(pid: int) -> str:
    """The name of the program that a process runs."""
    return Path(os.readlink(f"/proc/{pid}/exe")).name.removesuffix(" (deleted)")


def leftovers(home: Path) -> list[str]:
    """Whatever of a home's labs still exists on this machine; empty after a good teardown.

    A process of a lab gives itself away by the mark in its environment, by the lab's files mounted
    in its mount namespace, or by its command line.
    """
    path = os.fsencode(home)
    marks = {MARK: f"{MARK}=".encode() + path, "mounts": path, "command": path}
    files = {MARK: "environ", "mounts": "mountinfo", "command": "cmdline"}
    found = []
    for kind, file in files.items():
        for pid, text in _each(file):
            if marks[kind] in text:
                found.append(f"PID {pid} ({kind}): {text[:80]!r}")
    if str(home) in Path("/proc/self/mountinfo").read_text():
        found.append("a mount on this machine")
    if home.exists():
        found += [f"file {p}" for p in sorted(home.rglob("*"))] or [f"directory {home}"]
    return found


def host_links() -> list[str]:
    """The names of the host's interfaces."""
    return sorted(os.listdir("/sys/class/net"))


def cleaned(home: Home) -> None:
    """Take away whatever a test left, even if it failed half way.

    Raises:
        VxlabError: it cannot be taken away.
    """
    if home.path.exists():
        completed = home("teardown", "--all", "--force")
        if completed.returncode:
            raise VxlabError("a test's lab cannot be removed", detail=told(completed))
