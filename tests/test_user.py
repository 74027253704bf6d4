"""An ordinary user, who has no rights on this machine, builds, repairs and removes a lab."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lablib import LAB, Home, cleaned, host_links, leftovers, one_error, told
from vxlab import binaries

pytestmark = LAB

#: A Python that every user can read: root's own may lie in root's home.
PYTHON = "/usr/bin/python3"
PROJECT = Path(__file__).parents[1]
NOBODY = 65534
_AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")


def _as_user() -> tuple[str, ...]:
    """What turns a command into an ordinary user's; nothing if the tests are one's already."""
    return () if os.geteuid() else _AS_NOBODY


def _why_not() -> str:
    """Why these tests cannot run on this machine; empty if they can."""
    if not Path(PYTHON).exists():
        return f"there is no {PYTHON}"
    version = [PYTHON, "-c", "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))"]
    if subprocess.run(version, capture_output=True, check=False).returncode:
        return f"{PYTHON} is older than 3.11, or lacks venv"
    if not os.geteuid() and shutil.which("setpriv") is None:
        return "there is no setpriv"
    namespaces = [*_as_user(), "unshare", "--user", "--map-root-user", "--net", "true"]
    if subprocess.run(namespaces, capture_output=True, check=False).returncode:
        return "this machine forbids user namespaces (`vxlab check` says how to allow them)"
    return ""


@pytest.fixture(scope="module")
def machine() -> Iterator[Path]:
    """A directory that everyone can read, with vxlab installed in it as users install it."""
    if why := _why_not():
        pytest.skip(f"TESTS AS AN ORDINARY USER DID NOT RUN: {why}")
    with tempfile.TemporaryDirectory(prefix="vxlab-user-", ignore_cleanup_errors=True) as name:
        base = Path(name)
        base.chmod(0o755)
        (base / "user").mkdir()
        if not os.geteuid():
            os.chown(base / "user", NOBODY, NOBODY)
        for command in (
            [PYTHON, "-m", "venv", str(base / "venv")],
            [str(base / "venv/bin/pip"), "install", "--quiet", str(PROJECT)],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, told(done)
        (base / "bin").mkdir()
        found = binaries.find(lambda line: None)
        for binary in (found.etcd, found.flanneld, found.busybox):
            shutil.copy(binary.path, base / "bin" / binary.name)
            (base / "bin" / binary.name).chmod(0o755)
        yield base


@pytest.fixture
def place(machine: Path) -> Iterator[Home]:
    """The user's own VXLAB_HOME; vxlab is called as the user."""
    user = machine / "user"
    home = Home(
        user / "home",
        command=(*_as_user(), str(machine / "venv/bin/vxlab")),
        env={
            "HOME": str(user),
            "VXLAB_CACHE": str(user / "cache"),
            "PATH": f"{machine / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin",
            **dict.fromkeys(binaries.OVERRIDES.values(), ""),
        },
    )
    yield home
    cleaned(home)
    assert leftovers(home.path) == []


def _owner(pid: int) -> int:
    """The user on this machine whose process it is."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("Uid:"):
            return int(line.split()[1])
    raise AssertionError(f"PID {pid} has no Uid")


def test_an_ordinary_user_builds_verifies_and_removes_a_lab(place: Home) -> None:
    """Without any right on this machine: up, verify, status, a shell command, teardown."""
    links = host_links()
    assert "talk is up: 2 nodes" in place.ok("up")
    assert place.failed() == set()
    assert place.json("up")["changes"] == []
    assert place.json("status")["drift"] == []

    user = NOBODY if not os.geteuid() else os.geteuid()
    assert _owner(place.world()) == user
    assert place.lab().stat().st_uid == user
    assert "uid=0" in place.sh("node01", "id")
    assert "uid=0" in place.ok("exec", "container01", "--", "id")
    assert "192.168.56.22" in place.sh("node01", "bridge fdb show dev flannel.1")

    place.ok("teardown")
    assert leftovers(place.path) == []
    assert host_links() == links


def test_an_ordinary_user_repairs_a_lab(place: Home) -> None:
    """Damage to processes, links and sysctls is repaired as it is for root."""
    place.ok("up", "--nodes", "3")
    place.sh("switch", "read -r p _ </run/vxlab/machines/node03; kill -9 $p")
    place.sh("node01", "ip link del cbr0; echo 0 >/proc/sys/net/ipv4/ip_forward")
    place.sh("node02", "read -r p _ </run/vxlab/daemons/flannel; kill -9 $p")
    assert place("status").returncode == 1
    assert "repaired" in place.ok("up")
    assert place.failed() == set()
    assert place.json("up")["changes"] == []


def test_a_crashed_lab_of_an_ordinary_user_leaves_nothing(place: Home) -> None:
    """kill -9 of the world itself, then teardown."""
    place.ok("up")
    os.kill(place.world(), 9)
    assert place("status").returncode == 1
    place.ok("teardown")
    assert leftovers(place.path) == []


def test_a_home_of_another_user_is_told(place: Home, tmp_path: Path) -> None:
    """Where the user may not write, one message says so."""
    if os.geteuid():
        pytest.skip("needs root, to make a directory that is not the user's")
    closed = Path(tempfile.mkdtemp(prefix="vxlab-closed-", dir=place.path.parents[1]))
    other = Home(closed / "home", place.command, place.env)
    said = one_error(other("up"), 74)
    assert "Permission denied" in said
    assert str(closed) in said


def test_root_removes_a_users_lab(place: Home) -> None:
    """The administrator can take away what a user left running."""
    if os.geteuid():
        pytest.skip("needs root")
    place.ok("up")
    root = Home(place.path, (sys.executable, "-m", "vxlab"))
    root.ok("teardown")
    assert leftovers(place.path) == []
