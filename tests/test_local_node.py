"""Nodes on this machine: private, found again, and gone with their world."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import kernel
from bare_machine import real_busybox
from kernel import KERNEL, Place, by_script, in_child, wait_for
from vxlab import ops, script
from vxlab.engine.down import end
from vxlab.errors import MissingError, OperationError
from vxlab.journal import LabDirectory, WorldRecord, process_start
from vxlab.nodes import local
from vxlab.nodes.local import LocalNode, World, entering, machine, orphans
from vxlab.ops import record_path
from vxlab.steps.site import SWITCH

pytestmark = KERNEL

programs, directory, place = kernel.programs, kernel.directory, kernel.place

KINDS = ("mnt", "uts", "ipc", "net", "pid", "user")


def namespaces(proc: str, kinds: tuple[str, ...] = KINDS) -> list[str]:
    return [os.readlink(f"{proc}/ns/{kind}") for kind in kinds]


def sh(node: LocalNode, text: str) -> str:
    """The output of a shell line on a node; it must succeed."""
    completed = node.run(["sh", "-c", text])
    assert (completed.code, completed.err) == (0, "")
    return completed.out


def in_container(node: LocalNode, text: str) -> str:
    """The output of a shell line in the container ``demo`` of a node."""
    proc = node.inside("demo")
    # Else the line would run in this machine's own files, and some lines write.
    assert os.path.samefile(f"{proc}/root", f"{node.proc}/root/run/container-demo/demo")
    completed = subprocess.run(
        [*entering(proc, user=True, root=True), "/bin/sh", "-c", text],
        env=local.ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (completed.returncode, completed.stderr) == (0, "")
    return completed.stdout


def everyone(pid: int) -> set[int]:
    """All processes below a world's PID 1, by their PIDs on this machine."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (stat := _stat(int(entry.name))):
            parents[int(entry.name)] = int(stat[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _stat(pid: int) -> list[str]:
    """A process's state, parent and so on (proc(5)); nothing if it just ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


# --- what is private ------------------------------------------------------------------------------


@in_child
def test_a_node_has_namespaces_of_its_own(place: Place) -> None:
    """Mounts, host name, IPC, network and PIDs; the user namespace is the world's."""
    ours, host = namespaces("/proc/self"), socket.gethostname()
    place.enter()
    one, other = place.node("node01"), place.node("node02")
    world, first, second = (namespaces(proc) for proc in (place.world.proc, one.proc, other.proc))
    for a, b in ((ours, world), (ours, first), (world, first), (world, second), (first, second)):
        assert [kind for kind, x, y in zip(KINDS, a, b, strict=True) if x == y] in ([], ["user"])
    assert first[-1] == second[-1] == world[-1]
    switch = LocalNode(SWITCH, "", place.world.proc)
    assert [sh(node, "hostname") for node in (switch, one, other)] == [
        *("switch\n", "node01\n", "node02\n")
    ]
    assert socket.gethostname() == host


@in_child
def test_a_node_sees_its_own_processes_only(place: Place) -> None:
    """Its PID 1 is busybox, which sleeps."""
    place.enter()
    node = place.node("node01")
    place.node("node02")
    told = f"{place.busybox} sleep 2147483647 "
    wait_for(lambda: sh(node, "tr '\\0' ' ' </proc/1/cmdline") == told, "its PID 1's program")
    pids = [name for name in sh(node, "exec ls /proc").split() if name.isdecimal()]
    assert len(pids) == 2  # and ls


@in_child
def test_run_and_logs_are_private_and_can_be_read_from_outside(place: Place) -> None:
    """Kept under the lab's directory; the machine's own /run and /var/log get nothing."""
    place.enter()
    one, other = place.node("node01"), place.node("node02")
    mounts = [line.split()[4] for line in sh(one, "cat /proc/self/mountinfo").splitlines()]
    assert {"/run", "/var/log"} - set(mounts) == set()  # before anything is written there
    name = f"vxlab-test-{os.getpid()}"
    sh(one, f"echo here >/run/{name}; echo there >/var/log/{name}; echo too >/var/run/{name}.2")
    files = place.directory.node("node01")
    assert (files / "run" / name).read_text() == "here\n"
    assert (files / "log" / name).read_text() == "there\n"
    assert (files / "run" / f"{name}.2").read_text() == "too\n"
    places = (f"/run/{name}", f"/var/log/{name}", f"/var/run/{name}.2")
    assert [other.read(path) for path in places] == [None, None, None]
    assert [os.path.exists(path) for path in places] == [False, False, False]


@in_child
def test_a_node_has_the_labs_hosts_file(place: Place) -> None:
    """Nodes know each other by name; this machine's /etc/hosts is as it was."""
    before = Path("/etc/hosts").read_text()
    place.enter()
    node = place.node("node01")
    wanted = (place.directory.path / "hosts").read_text()
    assert sh(node, "cat /etc/hosts") == wanted != before
    assert Path("/etc/hosts").read_text() == before


@in_child
def test_this_machines_mounts_are_left_alone(place: Place) -> None:
    """What is mounted in a world, a node or a container is not seen outside."""
    before = Path("/proc/self/mountinfo").read_text()
    place.enter()
    place.node("node01", "demo")
    assert Path("/proc/self/mountinfo").read_text() == before


@in_child
def test_nothing_of_the_callers_environment_gets_in(
    directory: LabDirectory, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Daemons, holders, containers and commands: none of them is told a secret."""
    monkeypatch.setenv("VXLAB_TEST_SECRET", "mellon")
    busybox = str(real_busybox())
    place = Place(World.start(directory, busybox), directory, busybox, str(programs))
    place.enter()
    node = place.node("node01", "demo")
    node.apply([idle("sleep"), idle("other")], kernel.ignore)
    assert sh(node, "env | grep -c mellon || true") == "0\n"
    environments = {
        pid: Path(f"/proc/{pid}/environ").read_bytes() for pid in everyone(place.world.record.pid)
    }
    assert len(environments) == 5  # the world, the node, the container, two daemons
    assert [pid for pid, text in environments.items() if b"mellon" in text] == []
    assert [pid for pid, text in environments.items() if b"PATH=" not in text] == []


# --- zombies, PIDs and records --------------------------------------------------------------------


def states(proc: str) -> Iterator[str]:
    """The states of all processes that a machine's /proc shows."""
    for entry in Path(f"{proc}/root/proc").iterdir():
        if entry.name.isdecimal():
            try:
                text = (entry / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it just ended
            yield text.rpartition(")")[2].split()[0]


@in_child
def test_orphans_are_reaped(place: Place) -> None:
    """A process whose parent ended leaves no zombie behind, in the world, node or container."""
    place.enter()
    node = place.node("node01", "demo")
    switch = LocalNode(SWITCH, "", place.world.proc)
    orphans = "for i in 1 2 3 4 5; do (sleep 0.01 & sleep 0.01 &) </dev/null >/dev/null 2>&1; done"
    sh(switch, orphans)
    sh(node, orphans)
    in_container(node, orphans)
    for proc in (switch.proc, node.proc, node.inside("demo")):
        wait_for(lambda proc=proc: len(list(states(proc))) <= 3, "the orphans' end")  # type: ignore[misc]
        wait_for(lambda proc=proc: "Z" not in states(proc), "the last zombie")  # type: ignore[misc]


@in_child
def test_a_machine_is_known_by_pid_and_start_time(place: Place) -> None:
    """A record with another start time tells of an earlier process that had the PID."""
    place.enter()
    node = place.node("node01", "demo")
    assert machine(place.world.proc, "node01") == node.proc
    assert machine(place.world.proc, "node09") is None
    record = Path(f"{place.world.proc}/root{record_path('machines', 'node01')}")
    pid, start = record.read_text().split()
    for text in (f"{pid} {int(start) + 1}\n", f"{pid}\n", "", "999999 1\n"):
        record.write_text(text)
        assert machine(place.world.proc, "node01") is None
        assert not LocalNode("node01", place.world.proc).running()
    with pytest.raises(OperationError, match="node01 does not run"):
        LocalNode("node01", place.world.proc).run(["true"])
    record.write_text(f"{pid} {start}\n")
    assert LocalNode("node01", place.world.proc).running()


@in_child
def test_a_dead_machine_is_found_dead(place: Place) -> None:
    """By the node's name in the error, whether the node or its container ended."""
    place.enter()
    node = place.node("node01", "demo")
    by_script(node, [ops.StopMachine(name="demo")])
    with pytest.raises(OperationError, match="demo does not run") as caught:
        node.apply([ops.SetUp(name="lo", ns="demo")], kernel.ignore)
    assert caught.value.where == "node01"
    by_script(LocalNode(SWITCH, "", place.world.proc), [ops.StopMachine(name="node01")])
    assert not LocalNode("node01", place.world.proc).running()


@in_child
def test_a_container_that_is_made_anew_is_the_one_that_is_changed(place: Place) -> None:
    """The socket into the old one's network is not used for the new one."""
    place.enter()
    node = place.node("node01", "demo")
    loopback = ops.SetUp(name="lo", ns="demo")
    node.apply([loopback], kernel.ignore)
    assert loopback.holds(node.snapshot()) is None
    renew = [ops.StopMachine(name="demo"), place.start_container("demo")]
    node.apply(renew, kernel.ignore)
    assert loopback.holds(node.snapshot()) == "lo is down, wanted up"
    node.apply([loopback], kernel.ignore)
    assert loopback.holds(node.snapshot()) is None


# --- reading and running --------------------------------------------------------------------------


@in_child
def test_files_are_read_as_the_node_sees_them(place: Place) -> None:
    """Its links, too: one that says /etc or /var/run means the node's, not this machine's."""
    place.enter()
    node = place.node("node01")
    sh(node, "mkdir /run/d; echo 1 >/run/d/file; cd /run; ln -s /run/d abs; ln -s d/../d rel")
    sh(node, "cd /run; ln -s /etc/hosts hosts; ln -s loop loop; printf '\\377\\n' >binary")
    assert [node.read(f"/run/{path}/file") for path in ("d", "abs", "rel", "../run/d")] == [
        "1\n"
    ] * 4
    assert node.read("/var/run/d/file") == "1\n"
    assert node.read("/run/hosts") == (place.directory.path / "hosts").read_text()
    assert node.read("/etc/hosts") == (place.directory.path / "hosts").read_text()
    for path in ("/run/missing", "/run/loop", "/run/loop/file", "/proc/99999/stat"):
        assert node.read(path) is None
    assert node.read("/run/binary") == "\N{REPLACEMENT CHARACTER}\n"


@in_child
def test_commands_run_as_root_and_tell_how_they_ended(place: Place) -> None:
    """Exit code, output, errors; stdin is what was given, and empty without."""
    place.enter()
    node = place.node("node01")
    done = node.run(["sh", "-c", "cat; echo oops >&2; exit 7"], stdin="words\n")
    assert (done.code, done.out, done.err) == (7, "words\n", "oops\n")
    assert node.run(["cat"]).out == ""
    assert node.run(["id", "-u"]).out == "0\n"
    assert node.run(["sh", "-c", "kill -9 $$"]).code in (-9, 137)
    missing = node.run(["no-such-program"])
    assert (missing.code, "no-such-program" in missing.err) == (127, True)
    assert node.run(["printf", "\\377"]).out == "\N{REPLACEMENT CHARACTER}"


@in_child
def test_a_node_that_cannot_be_read_says_what_it_printed(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An ``ip`` that does not work: OperationError with the node and the program's words."""
    place.enter()
    node = place.node("node01")
    broken(tmp_path, "ip", "echo out of order >&2")
    monkeypatch.setitem(local.ENVIRONMENT, "PATH", f"{tmp_path}:{local.ENVIRONMENT['PATH']}")
    with pytest.raises(OperationError, match="cannot read the node") as caught:
        node.snapshot()
    assert caught.value.where == "node01"
    assert "out of order" in caught.value.detail


# --- the world ------------------------------------------------------------------------------------


def broken(where: Path, name: str, body: str) -> None:
    """A program that does not do what it should."""
    (where / name).write_text(f"#!/bin/sh\n{body}\n")
    (where / name).chmod(0o755)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            "echo 'unshare: unshare failed: Operation not permitted' >&2; exit 1",
            "unshare: unshare failed: Operation not permitted",
        ),
        ("exit 1", ""),
        (None, "No such file or directory: 'unshare'"),
    ],
    ids=["forbidden", "silent", "missing"],
)
def test_a_refused_world_is_told_in_the_kernels_words(
    directory: LabDirectory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    body: str | None,
    said: str,
) -> None:
    """MissingError with a hint; the journal tells of no world."""
    if body is not None:
        broken(tmp_path, "unshare", body)
    monkeypatch.setitem(local.ENVIRONMENT, "PATH", str(tmp_path))
    with pytest.raises(MissingError, match="cannot make the lab's namespaces") as caught:
        World.start(directory, str(real_busybox()))
    assert said in caught.value.detail
    assert "vxlab check" in caught.value.hint
    assert directory.world() is None


def test_a_world_that_fails_half_way_is_told(
    directory: LabDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The namespaces are allowed, but the lab's /run cannot be mounted: in its own words."""
    path = local.ENVIRONMENT["PATH"]
    late = f'rmdir {directory.node(SWITCH)}/run; PATH={path}; exec unshare "$@"'
    broken(tmp_path, "unshare", late)
    monkeypatch.setitem(local.ENVIRONMENT, "PATH", f"{tmp_path}:{path}")
    for _ in range(5):  # while it ends it may look alive
        with pytest.raises(MissingError) as caught:
            World.start(directory, str(real_busybox()))
        assert "No such file or directory" in caught.value.detail
    record = directory.world()
    assert record is not None
    wait_for(lambda: not record.alive(), "its end")


def test_killing_its_pid_1_ends_everything(place: Place) -> None:
    """Nodes, containers and daemons are gone; each was in namespaces that ended with it."""

    @in_child
    def build() -> None:
        place.enter()
        node = place.node("node01", "demo")
        place.node("node02")
        node.apply([idle("sleep")], kernel.ignore)

    build()
    record = place.world.record
    before = {pid: process_start(pid) for pid in everyone(record.pid)}
    assert len(before) == 5
    assert record.alive()
    end(record.pid, record.start)
    assert not record.alive()
    assert [pid for pid, start in before.items() if process_start(pid) == start] == []


def test_a_stranger_with_the_worlds_pid_is_left_alone(place: Place) -> None:
    """A start time or boot id that differs: not our world, and never killed."""
    record = place.world.record
    assert not replace(record, start=record.start + 1).alive()
    assert not replace(record, boot="another").alive()
    end(record.pid, record.start + 1)
    assert record.alive()


@pytest.mark.parametrize("journaled", [False, True], ids=["before", "after"])
def test_a_world_whose_starter_is_killed_does_not_stay(
    directory: LabDirectory, monkeypatch: pytest.MonkeyPatch, journaled: bool
) -> None:
    """kill -9 between its fork and its go, before and after the journal has it: it ends by itself.

    Only what the journal tells of may live on.
    """
    pids = directory.path / "pids"
    append = LabDirectory.append

    def killed(self: LabDirectory, entry: dict[str, dict[str, object]]) -> None:
        if journaled:
            append(self, entry)
        pids.write_text("{pid} {start} {boot}".format(**entry["world"]))
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(LabDirectory, "append", killed)
    pid = os.fork()
    if pid == 0:
        World.start(directory, str(real_busybox()))
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    monkeypatch.undo()
    holder, start, boot = pids.read_text().split()
    record = WorldRecord(int(holder), int(start), boot)
    wait_for(lambda: not record.alive(), "the holder's end")
    # The shell that it was forked from hears of the starter's end by itself, maybe later.
    wait_for(lambda: not orphans(directory.path), "the end of all others")
    assert orphans(directory.path) == {}


def test_a_world_is_found_by_its_mark(place: Place) -> None:
    """Even if the journal is lost: by the lab's directory in its environment."""
    record = place.world.record
    # The mark is the last thing that it gets.
    wait_for(lambda: orphans(place.directory.path) != {}, "the mark")
    assert orphans(place.directory.path) == {record.pid: record.start}
    assert orphans(place.directory.path / "other") == {}


# --- daemons --------------------------------------------------------------------------------------


def idle(name: str, *command: str) -> ops.StartDaemon:
    words = command or ("sleep", "1000")
    return ops.StartDaemon(name=name, command=words, log=f"/var/log/{name}.log")


@in_child
def test_a_daemon_is_recorded_and_ended(place: Place) -> None:
    """Its record has PID, start time and command; it leads a session of its own."""
    place.enter()
    node = place.node("node01")
    words = ("sh", "-c", 'echo "it\'s $0" up; exec sleep 1000', "a 'name'")
    node.apply([idle("sleep", *words)], kernel.ignore)
    record = node.read(record_path("daemons", "sleep"))
    assert record is not None
    process = node.snapshot().daemons["sleep"]
    assert record.split()[:2] == [str(process.pid), str(process.start)]
    assert process.alive
    assert process.rss > 0
    assert node.alive("sleep")
    assert idle("sleep", *words).holds(node.snapshot()) is None
    wait_for(lambda: node.read("/var/log/sleep.log") == "it's a 'name' up\n", "the daemon's log")
    stat = (node.read(f"/proc/{process.pid}/stat") or "").rpartition(")")[2].split()
    assert stat[3] == str(process.pid)  # its session

    node.apply([ops.StopDaemon(name="sleep")], kernel.ignore)
    assert not node.alive("sleep")
    assert node.read(record_path("daemons", "sleep")) is None
    assert node.snapshot().daemons == {}


@in_child
def test_a_daemon_that_died_is_known_dead(place: Place) -> None:
    """A killed one, one that never was, one that cannot start: its log says why."""
    place.enter()
    node = place.node("node01")
    node.apply([idle("sleep")], kernel.ignore)
    sh(node, f"kill -9 {node.snapshot().daemons['sleep'].pid}")
    wait_for(lambda: not node.alive("sleep"), "its end")
    process = node.snapshot().daemons["sleep"]
    assert idle("sleep").holds(node.snapshot()) == f"sleep (PID {process.pid}) is gone"
    assert not node.alive("never")
    done = node.run(["sh", "-s"], stdin=script.program([idle("gone", "/nowhere/daemon")]))
    # It may have ended before it could be recorded.
    assert done.out in ("@@ ok 0\n", "@@ failed 0\ngone ended at once\n")
    wait_for(lambda: not node.alive("gone"), "its end")
    assert "No such file or directory" in (node.read("/var/log/gone.log") or "")


@in_child
def test_a_stubborn_daemon_is_killed(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """First it is asked to end, many times; one that does not listen is killed."""
    place.enter()
    node = place.node("node01")
    polite = "trap 'echo asked' TERM; echo ready; while :; do sleep 0.01; done"
    node.apply([idle("stubborn", "sh", "-c", polite)], kernel.ignore)
    wait_for(lambda: node.read("/var/log/stubborn.log") == "ready\n", "the daemon's trap")
    broken(tmp_path, "sleep", "")  # does not wait: five seconds of patience are over at once
    monkeypatch.setitem(local.ENVIRONMENT, "PATH", f"{tmp_path}:{local.ENVIRONMENT['PATH']}")
    node.apply([ops.StopDaemon(name="stubborn")], kernel.ignore)
    assert not node.alive("stubborn")
    assert "asked\n" in (node.read("/var/log/stubborn.log") or "")


@in_child
def test_a_stranger_with_the_daemons_pid_is_left_alone(place: Place) -> None:
    """The record tells of an earlier process: the present one of that PID is not the daemon."""
    place.enter()
    node = place.node("node01")
    node.apply([idle("sleep")], kernel.ignore)
    process = node.snapshot().daemons["sleep"]
    record = record_path("daemons", "sleep")
    sh(node, f"echo '{process.pid} {process.start - 1}' >{record}; echo sleep >>{record}")
    assert not node.alive("sleep")
    assert not node.snapshot().daemons["sleep"].alive
    node.apply([ops.StopDaemon(name="sleep")], kernel.ignore)
    assert node.read(record) is None
    assert sh(node, f"kill -0 {process.pid} && echo alive") == "alive\n"


@pytest.mark.parametrize("text", ["", "\\n", "17"], ids=["empty", "blank", "cut off"])
@in_child
def test_a_record_that_was_cut_off_harms_nobody(place: Place, text: str) -> None:
    """A kill while it was written: nothing is ended, and the record goes."""
    place.enter()
    node = place.node("node01")
    record = record_path("daemons", "sleep")
    sh(node, f"mkdir -p /run/vxlab/daemons; printf '{text}' >{record}")
    assert not node.alive("sleep")
    assert not node.snapshot().daemons["sleep"].alive
    node.apply([ops.StopDaemon(name="sleep")], kernel.ignore)
    assert node.read(record) is None


@in_child
def test_a_daemon_may_have_any_name(place: Place, tmp_path: Path) -> None:
    """A program whose name looks like the end of a /proc line is found and ended as any other."""
    place.enter()
    node = place.node("node01")
    odd = "x) Z 1 (y"
    broken(tmp_path, "sleeps", f"printf '%s' '{odd}' >/proc/$$/comm; read -r _ <>/run/fifo")
    sh(node, "mkfifo /run/fifo")
    node.apply([idle("odd", str(tmp_path / "sleeps"))], kernel.ignore)
    process = node.snapshot().daemons["odd"]
    wait_for(lambda: odd in (node.read(f"/proc/{process.pid}/comm") or ""), "its name")
    assert node.alive("odd")
    assert node.snapshot().daemons["odd"].alive
    node.apply([ops.StopDaemon(name="odd")], kernel.ignore)
    assert not node.alive("odd")
    assert node.read(f"/proc/{process.pid}/stat") is None


# --- containers -----------------------------------------------------------------------------------


@in_child
def test_a_container_has_all_namespaces_of_its_own(place: Place) -> None:
    """The user namespace, too: root in it is root alone, and nobody else is mapped."""
    place.enter()
    node = place.node("node01", "demo", "second")
    mine, second = namespaces(node.inside("demo")), namespaces(node.inside("second"))
    assert [k for k, x, y in zip(KINDS, mine, namespaces(node.proc), strict=True) if x == y] == []
    assert [k for k, x, y in zip(KINDS, mine, second, strict=True) if x == y] == []
    assert in_container(node, "cat /proc/self/uid_map").split() == ["0", "0", "1"]
    assert in_container(node, "cat /proc/self/gid_map").split() == ["0", "0", "1"]
    assert in_container(node, "cat /proc/self/setgroups") == "deny\n"
    assert in_container(node, "id -u; hostname") == "0\ndemo\n"


@in_child
def test_a_container_sees_its_own_root_only(place: Place) -> None:
    """chroot: its files are those under its root on the node, and what it writes is there."""
    place.enter()
    node = place.node("node01", "demo")
    assert in_container(node, "ls /").split() == ["bin", "dev", "etc", "proc", "root", "tmp", "var"]
    in_container(node, "echo mine >/tmp/file; cd /; cd ../../..; [ -x bin/busybox ]")
    assert node.read("/run/container-demo/demo/tmp/file") == "mine\n"
    assert in_container(node, "cat /etc/hostname") == "demo\n"


@in_child
def test_a_container_that_was_started_is_in_its_root(place: Place, tmp_path: Path) -> None:
    """However long its chroot takes: who enters it must not be root in the node's files."""
    place.enter()
    node = place.node("node01")
    real = tmp_path / "busybox.real"
    shutil.copy(place.busybox, real)
    slow = f"sleep 0.2; exec {real} chroot . /bin/{real.name} sleep 1000"
    broken(tmp_path, "busybox", f'[ "$1" != chroot ] || {{ {slow}; }}; exec {real} "$@"')
    by_script(node, [replace(place.start_container("demo"), programs=str(tmp_path))])
    root = f"{node.proc}/root/run/container-demo/demo"
    assert os.path.samefile(f"{node.inside('demo')}/root", root)


@in_child
def test_a_containers_programs_are_read_only(place: Place) -> None:
    """/bin is shared by all containers: nothing is written there by mistake."""
    place.enter()
    node = place.node("node01", "demo")
    assert "Read-only file system" in in_container(node, "touch /bin/new 2>&1 || true")
    assert not (Path(place.programs) / "new").exists()


@in_child
def test_a_container_does_not_see_the_nodes_processes(place: Place) -> None:
    """Its PID 1 is its own holder; the node's daemons are not in its /proc."""
    place.enter()
    node = place.node("node01", "demo", "second")
    node.apply([idle("sleep")], kernel.ignore)
    told = "/bin/busybox sleep 2147483647 "
    look = "tr '\\0' ' ' </proc/1/cmdline"
    wait_for(lambda: in_container(node, look) == told, "its PID 1's program")
    pids = [name for name in in_container(node, "ls /proc").split() if name.isdecimal()]
    assert "1" in pids
    assert len(pids) <= 3  # its PID 1, sh and ls


@in_child
def test_a_container_has_no_interface_but_lo(place: Place) -> None:
    """Until a cable is plugged in; IPv6 is off as the lab wants it."""
    place.enter()
    node = place.node("node01", "demo")
    assert in_container(node, "ls /proc/sys/net/ipv4/conf").split() == ["all", "default", "lo"]
    assert in_container(node, "cat /proc/sys/net/ipv6/conf/all/disable_ipv6") == "1\n"
