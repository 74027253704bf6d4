"""A lab's directory: the journal that outlives a kill, the lock, the world's record."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vxlab import journal
from vxlab.errors import BusyError, JournalError
from vxlab.journal import LabDirectory, WorldRecord, boot_id, names, process_start, valid_name
from vxlab.ops import AddBridge, DelLink, Op, SetMtu

A: Op = DelLink(name="a")
B: Op = DelLink(name="b")
C: Op = SetMtu(name="c", mtu=1500)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LabDirectory]:
    """A lab's directory, empty."""
    monkeypatch.setenv("VXLAB_HOME", str(tmp_path / "home"))
    directory = LabDirectory("talk")
    with directory.locked("test", create=True):
        yield directory


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- where --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({"VXLAB_HOME": "/lab/home", "XDG_STATE_HOME": "/state"}, "/lab/home"),
        ({"XDG_STATE_HOME": "/state"}, "/state/vxlab"),
        ({"VXLAB_HOME": "", "XDG_STATE_HOME": "", "HOME": "/home/u"}, "/home/u/.local/state/vxlab"),
    ],
)
def test_home(environment: dict[str, str], wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """VXLAB_HOME, else the place that the XDG base directories give; empty counts as unset."""
    for name in ("VXLAB_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert journal.home() == Path(wanted)


def test_a_relative_home_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The world's processes have another working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VXLAB_HOME", "labs-here")
    assert journal.home() == tmp_path / "labs-here"


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("talk", True),
        ("a", True),
        ("4-nodes", True),
        ("a" * 31, True),
        ("a" * 32, False),
        ("", False),
        ("-a", False),
        ("..", False),
        ("a/b", False),
        ("Talk", False),
        ("talk\n", False),
        ("tälk", False),
    ],
)
def test_valid_name(name: str, valid: bool) -> None:
    """A name is a directory and part of an interface's mark; it cannot leave the directory."""
    assert valid_name(name) is valid


def test_names(lab: LabDirectory) -> None:
    """All labs, sorted; a stray file is none."""
    (lab.path.parent / "other").mkdir()
    (lab.path.parent / "notes.txt").write_text("")
    assert names() == ["other", "talk"]


def test_no_names_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is made by looking."""
    monkeypatch.setenv("VXLAB_HOME", str(tmp_path / "none"))
    assert (names(), (tmp_path / "none").exists()) == ([], False)


# --- entries ------------------------------------------------------------------------------------


def test_a_lab_without_a_journal(lab: LabDirectory) -> None:
    """Nothing was changed, so nothing is to be undone."""
    assert (lab.entries(), list(lab.undo()), lab.world()) == ([], [], None)


def test_undo_begins_with_the_newest(lab: LabDirectory) -> None:
    """Last in, first out between steps; within a step as it was written."""
    lab.append_undo("node01", [A, B])
    lab.append_undo("node02", [C])
    assert list(lab.undo()) == [("node02", C), ("node01", A), ("node01", B)]


def test_nothing_to_undo_writes_nothing(lab: LabDirectory) -> None:
    """Writing a key to etcd has no undo; the journal need not tell of it."""
    lab.append_undo("node01", [])
    assert not lab.journal.exists()


def test_a_later_process_reads_it(lab: LabDirectory) -> None:
    """The journal is what a teardown after a crash knows."""
    lab.append({"world": {"pid": 1, "start": 2, "boot": "b"}}, sync=True)
    lab.append_undo("node01", [A])
    again = LabDirectory("talk")
    assert (again.world(), list(again.undo())) == (WorldRecord(1, 2, "b"), [("node01", A)])


def test_entries_keep_their_order(lab: LabDirectory) -> None:
    """The oldest first; the header is not an entry."""
    lab.append({"n": 1}, {"n": 2})
    lab.append({"n": 3})
    assert lab.entries() == [{"n": 1}, {"n": 2}, {"n": 3}]
    head = json.loads(lab.journal.read_text().splitlines()[0])
    assert head == {"vxlab": 1, "lab": "talk"}


def test_a_line_that_was_cut_off(lab: LabDirectory) -> None:
    """Killed at whatever byte: whole lines count. The change of a torn one was not begun."""
    lab.append_undo("node01", [A])
    lab.append_undo("node02", [B])
    whole = lab.journal.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for size in range(len(whole) + 1):
        lab.journal.write_bytes(whole[:size])
        assert len(list(lab.undo())) == max(sum(end <= size for end in ends) - 1, 0)


def test_writing_goes_on_after_a_line_that_was_cut_off(lab: LabDirectory) -> None:
    """The half line is taken away, or it would spoil the next one; at whatever byte it ended."""
    lab.append_undo("node01", [A])
    whole = lab.journal.read_bytes()
    for size in range(len(whole) + 1):
        lab.journal.write_bytes(whole[:size])
        lab.append_undo("node02", [B])
        kept = [("node01", A)] if size == len(whole) else []
        assert list(lab.undo()) == [("node02", B), *kept]


HEAD = '{"vxlab": 1, "lab": "talk"}\n'


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("hello\n", "Expecting value"),
        ("[]\n", "does not begin as a journal of this version does"),
        ("1\n", "does not begin as a journal of this version does"),
        ('{"vxlab": 2, "lab": "talk"}\n', "does not begin as a journal of this version does"),
        ('{"lab": "talk"}\n', "does not begin as a journal of this version does"),
        ('{"vxlab": 1, "lab": "other"}\n', "it is the journal of the lab 'other'"),
        ('{"vxlab": 1}\n', "it is the journal of the lab None"),
        (HEAD + "{half\n" + '{"n": 1}\n', "Expecting property name"),
        (HEAD + "7\n", "does not begin as a journal of this version does"),
        (HEAD + "[" * 100_000 + "\n", "recursion"),
    ],
)
def test_what_is_no_journal(lab: LabDirectory, text: str, why: str) -> None:
    """A corrupt or foreign journal is not guessed at; the hint is the way out."""
    lab.journal.write_text(text)
    with pytest.raises(JournalError, match=why) as caught:
        lab.entries()
    assert caught.value.where == str(lab.journal)
    assert "vxlab teardown talk --force" in caught.value.hint
    assert caught.value.exit_code == 74


def test_a_journal_of_bytes(lab: LabDirectory) -> None:
    """What is not even text."""
    lab.journal.write_bytes(b"\xff\xfe\x00\n")
    with pytest.raises(JournalError, match="cannot be read"):
        lab.entries()


def test_a_journal_that_is_a_directory(lab: LabDirectory) -> None:
    """Neither readable nor writable."""
    lab.journal.mkdir()
    with pytest.raises(JournalError, match="Is a directory"):
        lab.entries()
    with pytest.raises(JournalError, match="Is a directory"):
        lab.append({"n": 1})


@pytest.mark.parametrize(
    "entry",
    [
        {"node": "node01", "undo": [{"op": "Reboot"}]},
        {"node": "node01", "undo": [{"op": "SetMtu"}]},
        {"node": "node01", "undo": [7]},
        {"node": "node01", "undo": 7},
        {"node": "node01", "undo": {"op": "DelLink"}},
        {"undo": [{"op": "DelLink", "name": "a"}]},
    ],
)
def test_undo_that_cannot_be_understood(lab: LabDirectory, entry: dict[str, Any]) -> None:
    """Another version's operation is not skipped silently."""
    lab.append(entry)
    with pytest.raises(JournalError, match="cannot be read"):
        list(lab.undo())


@pytest.mark.parametrize(
    "world",
    [
        None,
        7,
        {},
        {"pid": 1},
        {"pid": 1, "start": 2, "boot": "b", "more": 1},
        {"pid": 1, "start": None, "boot": "b"},
        {"pid": "self", "start": 2, "boot": "b"},
    ],
)
def test_a_world_that_cannot_be_understood(lab: LabDirectory, world: Any) -> None:
    """A malformed record must not pass for a dead world: something may still run."""
    lab.append({"world": world})
    with pytest.raises(JournalError, match="its world entry is malformed"):
        lab.world()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_garbage_behind_the_header(lab: LabDirectory, data: bytes) -> None:
    """Whatever is there, it is entries or a JournalError."""
    lab.journal.write_bytes(HEAD.encode() + data)
    try:
        entries = lab.entries()
        list(lab.undo())
        lab.world()
    except JournalError:
        return
    assert all(isinstance(entry, dict) for entry in entries)


# --- the disk -----------------------------------------------------------------------------------


def test_a_full_disk(lab: LabDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel refuses: the error says what to do, and the change is not begun.

    A fake write: a real full disk needs a file system of its own, which not everybody may mount.
    """
    lab.append_undo("node01", [A])

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(JournalError) as caught:
            lab.append_undo("node01", [B])
    assert "No space left on device" in caught.value.message
    assert "free space" in caught.value.hint
    assert list(lab.undo()) == [("node01", A)]


@pytest.mark.parametrize("before", [0, 1])
def test_a_disk_that_fills_up_while_it_is_written(
    lab: LabDirectory, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    """Half a line got through (a fake write, see above): it is taken back, and writing goes on."""
    for _ in range(before):
        lab.append_undo("node01", [A])
    write = os.write

    def half(fd: int, data: bytes) -> int:
        return write(fd, data[: len(data) // 2])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        with pytest.raises(JournalError, match="No space left"):
            lab.append_undo("node01", [B])
    assert list(lab.undo()) == [("node01", A)] * before
    lab.append_undo("node02", [C])
    assert list(lab.undo()) == [("node02", C), *[("node01", A)] * before]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home that is another's: where it is, and what to do."""
    (tmp_path / "home").mkdir(mode=0o500)
    monkeypatch.setenv("VXLAB_HOME", str(tmp_path / "home"))
    with (
        pytest.raises(JournalError, match="Permission denied") as caught,
        LabDirectory("talk").locked("vxlab up", create=True),
    ):
        pass
    assert "VXLAB_HOME" in caught.value.hint


def test_a_home_that_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not everything that VXLAB_HOME names can hold labs."""
    (tmp_path / "home").write_text("")
    monkeypatch.setenv("VXLAB_HOME", str(tmp_path / "home"))
    with (
        pytest.raises(JournalError, match="Not a directory"),
        LabDirectory("talk").locked("vxlab up", create=True),
    ):
        pass


def test_the_lab_is_its_owners_own(lab: LabDirectory) -> None:
    """Logs, keys and configuration are not for other users of this machine."""
    old = os.umask(0)
    try:
        lab.append({"n": 1})
        with LabDirectory("second").locked("test", create=True):
            pass
    finally:
        os.umask(old)
    seen = [mode(lab.path), mode(LabDirectory("second").path), mode(lab.journal)]
    assert list(map(oct, seen)) == ["0o700", "0o700", "0o600"]


# --- files --------------------------------------------------------------------------------------


def test_files_of_a_lab(lab: LabDirectory) -> None:
    """Written whole; what is not there is None."""
    lab.write("lab.json", "{}")
    lab.write("lab.json", '{"name": "talk"}')
    assert (lab.read("lab.json"), lab.read("site.json")) == ('{"name": "talk"}', None)
    assert sorted(p.name for p in lab.path.iterdir()) == ["lab.json", "owner"]


def test_a_file_that_is_no_text(lab: LabDirectory) -> None:
    """A damaged file is told like a damaged journal."""
    (lab.path / "lab.json").write_bytes(b"\xff")
    with pytest.raises(JournalError, match="cannot be read") as caught:
        lab.read("lab.json")
    assert caught.value.where == str(lab.path / "lab.json")


def test_removal_takes_empty_parents_along(lab: LabDirectory, tmp_path: Path) -> None:
    """After the last lab nothing is left; as long as another lab lives its parents stay."""
    other = LabDirectory("other")
    other.path.mkdir()
    lab.append({"n": 1})
    lab.remove()
    assert [p.name for p in tmp_path.rglob("*")] == ["home", "labs", "other"]
    other.remove()
    assert list(tmp_path.iterdir()) == []


# --- the world's record -------------------------------------------------------------------------


def test_the_newest_world_counts(lab: LabDirectory) -> None:
    """After a restart of the machine a lab is built again in a new world."""
    for pid in (1, 2):
        lab.append({"world": {"pid": pid, "start": 9, "boot": "b"}})
        lab.append_undo("node01", [A])
    assert lab.world() == WorldRecord(2, 9, "b")


def test_a_world_is_alive_only_as_that_very_process() -> None:
    """The same PID after a reboot, or taken by a stranger, is not it."""
    pid = os.getpid()
    start = process_start(pid)
    assert start is not None
    seen = [
        WorldRecord(pid, start, boot_id()).alive(),
        WorldRecord(pid, start + 1, boot_id()).alive(),
        WorldRecord(pid, start, "another boot").alive(),
        WorldRecord(2**22 + 1, start, boot_id()).alive(),
    ]
    assert seen == [True, False, False, False]


def test_a_process_that_ended_has_no_start_time() -> None:
    """A zombie neither: nothing of it lives but its number."""
    with subprocess.Popen([sys.executable, "-c", "pass"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        zombie = process_start(child.pid)
    assert (zombie, process_start(child.pid)) == (None, None)


def test_a_process_with_a_name_that_misleads() -> None:
    """The name in /proc/PID/stat may hold spaces and brackets."""
    code = "open('/proc/self/comm', 'w').write(') Z 1 1'); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert process_start(child.pid) is not None
        child.communicate(b"\n")


# --- the lock -----------------------------------------------------------------------------------


def test_two_commands_cannot_work_on_one_lab(lab: LabDirectory) -> None:
    """The second is told who the first is."""
    with (
        pytest.raises(BusyError) as caught,
        LabDirectory("talk").locked("vxlab teardown"),
    ):
        pass
    assert (
        caught.value.message == f"another command works on the lab 'talk': test (PID {os.getpid()})"
    )
    assert caught.value.exit_code == 75


def test_the_second_of_two_processes_is_refused(lab: LabDirectory) -> None:
    """Also when it is another process."""
    code = (
        "from vxlab.journal import LabDirectory\n"
        "from vxlab.errors import BusyError\n"
        "try:\n"
        "    with LabDirectory('talk').locked('second'): print('locked')\n"
        "except BusyError as error: print(error.message)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20
    )
    assert done.stdout == f"another command works on the lab 'talk': test (PID {os.getpid()})\n"


def test_a_killed_command_leaves_no_lock(lab: LabDirectory) -> None:
    """The kernel lets go of it, and what the owner file says is void."""
    code = (
        "import os\n"
        "from vxlab.journal import LabDirectory\n"
        "with LabDirectory('killed').locked('vxlab up', create=True): os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=20)
    directory = LabDirectory("killed")
    assert (done.returncode, (directory.path / "owner").exists()) == (-9, True)
    with directory.locked("vxlab teardown"):
        assert (directory.path / "owner").read_text() == f"vxlab teardown (PID {os.getpid()})\n"


def test_the_lock_is_given_back(lab: LabDirectory) -> None:
    """After the command, also after one that failed."""
    second = LabDirectory("second")
    with pytest.raises(ZeroDivisionError), second.locked("first", create=True):
        raise ZeroDivisionError
    with second.locked("next"):
        assert "next" in (second.path / "owner").read_text()
    assert not (second.path / "owner").exists()


def test_a_lab_that_is_not_there_needs_no_lock(lab: LabDirectory) -> None:
    """Tearing down nothing makes nothing."""
    with LabDirectory("none").locked("vxlab teardown"):
        pass
    assert not LabDirectory("none").path.exists()


def test_the_lock_survives_the_directorys_removal(
    lab: LabDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teardown removes the directory after it was opened here, before it is locked.

    A lock on the removed directory would protect nothing: the new one is locked.
    """
    real = fcntl.flock
    raced = LabDirectory("raced")

    def removed_meanwhile(fd: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        raced.remove()
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", removed_meanwhile)
    with raced.locked("vxlab up", create=True):
        assert raced.path.is_dir()
        with pytest.raises(BusyError), LabDirectory("raced").locked("second"):
            pass


def test_the_directory_may_go_before_it_is_opened(
    lab: LabDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two teardowns at once: to the second the lab is not there."""
    real = os.open
    raced = LabDirectory("raced")
    raced.path.mkdir()

    def removed_meanwhile(path: Any, flags: int, *rest: int) -> int:
        monkeypatch.setattr(os, "open", real)
        raced.path.rmdir()
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", removed_meanwhile)
    with raced.locked("vxlab teardown"):
        assert not raced.exists()


def test_a_teardown_leaves_the_next_owners_name_alone(lab: LabDirectory) -> None:
    """The lab is removed and at once built again by another command, which then owns it."""
    first, second = LabDirectory("shared"), LabDirectory("shared")
    with first.locked("vxlab teardown", create=True):
        first.remove()
        holder = second.locked("vxlab up", create=True)
        holder.__enter__()
    try:
        with (
            pytest.raises(BusyError, match=r"vxlab up \(PID"),
            LabDirectory("shared").locked("third"),
        ):
            pass
    finally:
        holder.__exit__(None, None, None)


def test_the_undo_of_a_bridge_reads_well(lab: LabDirectory) -> None:
    """The journal is JSON lines, for people in need, too."""
    from vxlab.state import State

    lab.append_undo("node01", AddBridge(name="cbr0").undo(State()))
    assert lab.journal.read_text().splitlines()[1] == (
        '{"node": "node01", "undo": [{"op": "DelLink", "ns": "", "name": "cbr0"}]}'
    )
