"""What goes wrong around a lab is one clear message with the right exit code, never a traceback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lablib import LAB, Completed, Home, cleaned, in_namespaces_of, leftovers, one_error, told
from vxlab import binaries
from vxlab.journal import LabDirectory, boot_id, process_start

pytestmark = LAB


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home")
    yield home
    cleaned(home)
    assert leftovers(home.path) == []


def fake(path: Path, script: str) -> str:
    """A program made of shell lines."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


# --- programs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["VXLAB_ETCD", "VXLAB_FLANNELD", "VXLAB_BUSYBOX"])
def test_a_program_that_is_not_there_is_named(place: Home, variable: str) -> None:
    """An override that points nowhere is told with its name and path; nothing was built."""
    broken = Home(place.path, place.command, {variable: "/nowhere/program"})
    said = one_error(broken("up"), 69)
    assert variable in said
    assert "/nowhere/program" in said


def test_a_flanneld_that_ends_at_once_is_told_with_its_last_words(
    place: Home, tmp_path: Path
) -> None:
    """The error names the node and its log and shows the log's last lines; then up repairs."""
    path = fake(tmp_path / "flanneld", "echo 'E0101 main.go:1] no such luck' >&2; exit 1")
    said = one_error(place("up", VXLAB_FLANNELD=path), 70)
    assert "flanneld ended before it had a subnet" in said
    assert "no such luck" in said
    assert "/var/log/flannel.log" in said
    assert "node0" in said

    assert place("status").returncode == 1
    place.ok("up")
    assert place.failed() == set()


def test_a_flanneld_that_is_no_program_is_told(place: Home, tmp_path: Path) -> None:
    """What the kernel cannot execute ends at once, and the log says why."""
    path = tmp_path / "flanneld"
    path.write_bytes(b"\x7fELF, but not really")
    path.chmod(0o755)
    assert "flannel" in one_error(place("up", VXLAB_FLANNELD=str(path)), 70)


def test_an_etcd_that_ends_at_once_is_told_with_its_last_words(place: Home, tmp_path: Path) -> None:
    """As for flanneld: node, log and last lines."""
    path = fake(tmp_path / "etcd", "echo 'panic: disk on fire' >&2; exit 2")
    said = one_error(place("up", VXLAB_ETCD=path), 70)
    assert "etcd ended" in said
    assert "disk on fire" in said
    assert "node01 · /var/log/etcd.log" in said


def test_a_port_in_use_is_told_by_etcds_log(place: Home, tmp_path: Path) -> None:
    """Something on node01 listens where etcd wants to: etcd's own words are shown."""
    real = binaries.find(lambda line: None)
    busybox = real.busybox.path
    squatter = f"{busybox} nc -l -p 2379 </dev/null >/dev/null 2>&1 &"
    waiting = "until ss -Hltn | grep -q :2379; do sleep 0.01; done"
    path = fake(tmp_path / "etcd", f'{squatter}\n{waiting}\nexec {real.etcd.path} "$@"')
    said = one_error(place("up", VXLAB_ETCD=path), 70)
    assert "address already in use" in said
    assert "node01 · /var/log/etcd.log" in said


# --- the lab's directory ------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["file", "proc"])
def test_a_home_that_cannot_be_made_is_told(tmp_path: Path, below: str) -> None:
    """VXLAB_HOME below a file, or where the kernel allows no directory."""
    (tmp_path / "file").write_text("")
    home = Home({"file": tmp_path / "file", "proc": Path("/proc")}[below] / "vxlab")
    said = one_error(home("up"), 74)
    assert str(home.path) in said
    assert "VXLAB_HOME" in said


def test_a_damaged_journal_stops_all_but_teardown_with_force(place: Home) -> None:
    """A line that is none of vxlab's: nothing is guessed. `--force` goes by the mark instead."""
    place.ok("up")
    world = place.world()
    journal = place.lab() / "journal"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join([*lines[:2], "all work and no play\n", *lines[2:]]))

    for command in ("up", "status", "verify", "teardown"):
        said = one_error(place(command), 74)
        assert str(journal) in said
        assert "teardown talk --force" in said
    assert "damaged" in place.ok("ls")
    assert process_start(world) is not None

    place.ok("teardown", "--force")
    assert leftovers(place.path) == []
    assert process_start(world) is None


@pytest.mark.parametrize("text", ["garbage", '{"vxlab": 99}\n', "[]\n", "\xff\xfe"])
def test_what_is_no_journal_is_not_taken_for_one(place: Home, text: str) -> None:
    """Other formats, no line end, no text: the lab stays until it is taken away by force."""
    place.ok("up")
    (place.lab() / "journal").write_text(text, encoding="latin-1")
    one_error(place("teardown"), 74)
    one_error(place("up"), 74)
    assert (place.lab() / "journal").read_text(encoding="latin-1") == text
    place.ok("teardown", "--force")
    assert leftovers(place.path) == []


def test_another_labs_journal_is_refused(place: Home, tmp_path: Path) -> None:
    """A copied directory does not make a teardown kill the other lab."""
    file = tmp_path / "other.yaml"
    file.write_text("name: other\n")
    place.ok("up", str(file))
    shutil.copytree(place.lab("other"), place.lab("talk"), ignore=_no_sockets)
    said = one_error(place("teardown", "talk"), 74)
    assert "it is the journal of the lab 'other'" in said
    place.ok("teardown", "talk", "--force")
    assert not place.lab("talk").exists()
    assert place.json("status", "other")["drift"] == []


def _no_sockets(folder: str, names: list[str]) -> list[str]:
    return names if Path(folder).name == "nodes" else []


def test_damaged_copies_of_the_lab_and_its_programs_are_told(place: Home) -> None:
    """lab.json and site.json are vxlab's own; damaged, they are told, and teardown works."""
    place.ok("up")
    for name in ("site.json", "lab.json"):
        good = (place.lab() / name).read_text()
        (place.lab() / name).write_text(good[: len(good) // 2])
        assert "damaged" in one_error(place("status"), 74)
        one_error(place("verify"), 74)
        (place.lab() / name).write_text(good)
    (place.lab() / "lab.json").write_text("{")
    place.ok("teardown")
    assert leftovers(place.path) == []


def test_a_busy_lab_says_who_works_on_it(place: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """up and teardown refuse while another command holds the lab, and name that command."""
    place.ok("up")
    monkeypatch.setenv("VXLAB_HOME", str(place.path))
    with LabDirectory("talk").locked("vxlab repair"):
        for command in ("up", "teardown"):
            assert f"vxlab repair (PID {os.getpid()})" in one_error(place(command), 75)
        assert place("status").returncode == 0
    assert place.json("up")["changes"] == []


def test_a_lab_that_does_not_exist_is_told(place: Home) -> None:
    """Reading commands name the lab; teardown has nothing to do and says so."""
    for command in ("status", "verify", "up"):
        assert "'nolab'" in one_error(place(command, "nolab"), 64)
    assert "'nolab'" in one_error(place("exec", "--lab", "nolab", "node01", "--", "true"), 64)
    assert "'talk'" in one_error(place("logs", "etcd"), 64)
    assert "is not there" in place.ok("teardown", "nolab")
    assert place.json("ls") == []


def test_unknown_places_and_nodes_are_told(place: Home) -> None:
    """A node that the lab does not have, with those it has."""
    place.ok("up")
    assert "node01" in one_error(place("exec", "node09", "--", "true"), 64)
    assert "'node09'" in one_error(place("logs", "flannel", "--node", "node09"), 64)


# --- a world that is gone -----------------------------------------------------------------------


def _after_a_reboot(place: Home, pid: int, boot: str) -> None:
    """The journal as another boot left it, with a PID that is someone else's by now."""
    os.kill(place.world(), 9)
    journal = place.lab() / "journal"
    entries = [json.loads(line) for line in journal.read_text().splitlines()]
    for entry in entries:
        if "world" in entry:
            entry["world"] |= {"pid": pid, "boot": boot}
            if boot != boot_id():
                entry["world"]["start"] = process_start(pid)
    journal.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


@pytest.mark.parametrize("boot", ["00000000-0000-0000-0000-000000000000", boot_id()])
@pytest.mark.parametrize("then", ["up", "teardown"])
def test_a_lab_of_an_earlier_boot_is_down_and_its_pid_is_a_strangers(
    place: Home, boot: str, then: str
) -> None:
    """`status` says down, `up` builds it again, `teardown` removes it; the stranger lives on."""
    place.ok("up")
    with subprocess.Popen(["sleep", "600"]) as stranger:
        try:
            _after_a_reboot(place, stranger.pid, boot)
            status = place("status")
            assert status.returncode == 1, told(status)
            assert "down" in status.stdout
            assert place.json("status")["up"] is False
            assert [row["state"] for row in place.json("ls")] == ["down"]
            said = one_error(place("verify"), 64)
            assert "not running" in said
            assert "vxlab logs" not in said
            assert place.ok("logs", "etcd")

            done = place.ok(then)
            if then == "up":
                assert "talk is up: 2 nodes" in done
                assert place.failed() == set()
            assert stranger.poll() is None
        finally:
            stranger.kill()
    place.ok("teardown")
    assert leftovers(place.path) == []


def test_a_lab_whose_world_was_killed_is_built_again(place: Home) -> None:
    """With the world's PID 1 all of the lab ends; up makes a new one."""
    place.ok("up")
    members = in_namespaces_of(place.world())
    assert len(members) > 7  # the world, two nodes, two containers, etcd, two flannelds
    os.kill(place.world(), 9)
    assert place("status").returncode == 1
    assert {pid for pid in members if process_start(pid) is not None} == set()
    place.ok("up")
    assert place.failed() == set()


# --- a full disk --------------------------------------------------------------------------------

_ON_A_SMALL_DISK = """
mount -t tmpfs -o size=$1,nr_inodes=$2 tmpfs "$VXLAB_HOME" || exit 99
shift 2
"$@" up; up=$?
"$@" teardown || exit 98
[ -z "$(ls -A "$VXLAB_HOME")" ] || exit 97
exit $up
"""


def _on_a_small_disk(home: Path, size: str, inodes: int) -> Completed:
    home.mkdir()
    place = Home(home)
    user = ["--user", "--map-root-user"] if os.geteuid() else []
    script = ["sh", "-c", _ON_A_SMALL_DISK, "sh", size, str(inodes), *place.command]
    return subprocess.run(
        ["unshare", *user, "--mount", *script],
        env=place.environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize(
    ("size", "inodes"),
    [("4k", 100), ("8k", 100), ("16k", 100), ("64k", 100), ("1m", 200)]
    + [("300m", n) for n in (4, 6, 8, 10, 12, 16, 20, 30, 40)],
)
def test_a_full_disk_is_one_clear_message_and_teardown_works(
    tmp_path: Path, size: str, inodes: int
) -> None:
    """Wherever in the run it gets full: what could not be written, and why."""
    up = _on_a_small_disk(tmp_path / "home", size, inodes)
    assert up.returncode in (70, 74), told(up)
    said = one_error(up, up.returncode)
    # dash's printf calls a full disk so.
    assert "o space left on device" in said or "printf: I/O error" in said
    assert "goroutine" not in said
    assert leftovers(tmp_path / "home") == [f"directory {tmp_path / 'home'}"]


def test_a_disk_that_is_large_enough_is(tmp_path: Path) -> None:
    """The counterpart: with room, the same lab comes up in the same place."""
    up = _on_a_small_disk(tmp_path / "home", "300m", 1000)
    assert up.returncode == 0, told(up)
