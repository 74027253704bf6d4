"""A lab's book-keeping on a real host: the lock, the journal, and what a teardown makes of it.

The shell texts are run by real shells, with the labs' directory in a temporary place.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bare_machine import real_busybox
from kernel import KERNEL, wait_for
from vxlab import ops
from vxlab.errors import JournalError
from vxlab.journal import boot_id, process_start
from vxlab.nodes import ledger, remote
from vxlab.nodes.ledger import Entry, Ledger
from vxlab.ops import Op

BOOT, OTHER_BOOT = "11111111-aaaa", "22222222-bbbb"
OWNER = "b00t 7 99 vxlab up from it's me"

BRIDGE: tuple[Op, ...] = (ops.DelLink(name="cbr0"),)
DAEMON: tuple[Op, ...] = (ops.StopDaemon(name="etcd"), ops.Remove(path="/run/etcd"))
SWITCH: tuple[Op, ...] = (ops.SetSysctl(key="net.ipv4.ip_forward", value="0"),)
ODD: tuple[Op, ...] = (ops.SetAlias(name="eth0", alias="it's $(x) \\n %s \"é\" 'x'"),)


@pytest.fixture(params=["dash", "bash", "busybox"])
def shell(request: pytest.FixtureRequest) -> list[str]:
    """Whatever sh a host has."""
    if request.param == "busybox":
        return [str(real_busybox()), "sh"]
    path = shutil.which(request.param)
    if path is None:
        pytest.skip(f"NOT READ BY {request.param}: it is not installed")
    return [path, "--posix"] if request.param == "bash" else [path]


@pytest.fixture
def labs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the host keeps its labs; nothing is there yet."""
    place = tmp_path / "lib" / "vxlab"
    place.parent.mkdir()
    monkeypatch.setattr(ledger, "LABS", str(place))
    return place


def run(shell: Sequence[str], program: str) -> str:
    """What a program prints, as a connection gives it back."""
    done = subprocess.run(
        [*shell, "-c", f"( {program}\n) </dev/null 2>&1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.stderr == ""
    return done.stdout


def look(shell: Sequence[str], lab: str = "talk") -> Ledger:
    return ledger.parse("host1", lab, run(shell, ledger.read(lab)))


def journal(labs: Path, lab: str = "talk") -> Path:
    return labs / lab / "journal"


# --- the journal ----------------------------------------------------------------------------------


def test_a_host_without_labs(shell: list[str], labs: Path) -> None:
    """Looking tells the host's boot, finds nothing and makes nothing."""
    assert look(shell) == Ledger(boot_id(), (), ())
    assert not labs.exists()


def test_what_is_written_is_read(shell: list[str], labs: Path) -> None:
    """The oldest first, with the boot that it belongs to; nobody else may look."""
    for boot, undo in ((BOOT, BRIDGE), (BOOT, ODD), (OTHER_BOOT, DAEMON)):
        assert run(shell, ledger.append("talk", boot, undo)) == ""
    assert look(shell).entries == (
        Entry(BOOT, BRIDGE),
        Entry(BOOT, ODD),
        Entry(OTHER_BOOT, DAEMON),
    )
    assert journal(labs).read_text().splitlines()[0] == '{"vxlab": 1, "lab": "talk"}'
    assert (labs / "talk").stat().st_mode & 0o777 == 0o700


def test_every_lab_has_its_own(shell: list[str], labs: Path) -> None:
    """All labs of the host are told; only the one that was asked for is read."""
    run(shell, ledger.append("talk", BOOT, BRIDGE))
    run(shell, ledger.append("other", BOOT, DAEMON))
    (labs / "no-lab").mkdir()
    seen = look(shell, "other")
    assert (seen.labs, seen.entries) == (("other", "talk"), (Entry(BOOT, DAEMON),))
    assert look(shell, "third").entries == ()


def test_a_line_that_was_cut_off_is_as_if_it_were_not_there(shell: list[str], labs: Path) -> None:
    """Wherever the power went off: its change was not begun. The next line mends the file."""
    run(shell, ledger.append("talk", BOOT, BRIDGE))
    file = journal(labs)
    one = file.read_bytes()
    head = one.index(b"\n") + 1
    run(shell, ledger.append("talk", BOOT, DAEMON))
    two = file.read_bytes()
    cuts = {0, 1, head - 1, head, head + 1, len(one) - 1, len(one), len(one) + 1, len(two) - 1}
    for cut in sorted(cuts):
        file.write_bytes(two[:cut])
        whole = two[:cut].count(b"\n") - 1
        assert look(shell).entries == (Entry(BOOT, BRIDGE),) * max(whole, 0), cut
        assert run(shell, ledger.append("talk", OTHER_BOOT, SWITCH)) == ""
        assert look(shell).entries[-1] == Entry(OTHER_BOOT, SWITCH)
        assert len(look(shell).entries) == max(whole, 0) + 1


@pytest.mark.parametrize(
    "text",
    [
        "{}\n",
        "garbage\n",
        '{"vxlab": 2, "lab": "talk"}\n',
        '{"vxlab": 1, "lab": "other"}\n',
        'HEAD\n{"boot": "b"}\n',
        'HEAD\n{"boot": "b", "undo": [{"op": "Reboot"}]}\n',
        'HEAD\n{"boot": "b", "undo": 7}\n',
        "HEAD\n[]\n",
        'HEAD\n{"boot": "b", "undo": []\n{"boot": "b", "undo": []}\n',
        "HEAD\n" + "[" * 100_000 + "\n",
    ],
    ids=lambda text: text[:40],
)
def test_a_damaged_journal_is_an_error(labs: Path, text: str) -> None:
    """It says which file on which host; a journal is never taken for an empty one."""
    journal(labs).parent.mkdir(parents=True)
    journal(labs).write_text(text.replace("HEAD", '{"vxlab": 1, "lab": "talk"}'))
    with pytest.raises(JournalError) as caught:
        look(["sh"])
    assert caught.value.where == f"host1:{journal(labs)}"
    assert "'talk' cannot be read" in caught.value.message
    assert caught.value.hint


@given(st.text(), st.lists(st.text()))
def test_garbage(head: str, lines: list[str]) -> None:
    """Whatever a host answers, it is a ledger or a damaged journal."""
    for output in (head, "\n".join([head, "@@ journal", *lines, "", ""])):
        try:
            assert isinstance(ledger.parse("host1", "talk", output), Ledger)
        except JournalError:
            continue


# --- what a teardown makes of it ------------------------------------------------------------------


def test_undo_is_the_newest_first_and_each_steps_own_order() -> None:
    """A step's undo was written in the order in which it must be done."""
    book = Ledger(BOOT, ("talk",), (Entry(BOOT, DAEMON), Entry(BOOT, BRIDGE)))
    assert book.undo() == [*BRIDGE, *DAEMON]


def test_after_a_reboot_only_what_outlived_it_is_undone() -> None:
    """Files on the disk; interfaces, switches, processes and firewall went with the boot.

    What is of the same name now is somebody else's: a new cbr0, another ip_forward.
    """
    file = ops.Remove(path="/var/lib/vxlab/talk/tls/ca.pem")
    wall = ops.RestoreFirewall(policy="DROP", table=True, chain=True)
    machine = ops.StopMachine(name="container01")
    old = Entry(OTHER_BOOT, (*BRIDGE, file, wall, *SWITCH, machine, *DAEMON))
    book = Ledger(BOOT, ("talk",), (old, Entry(BOOT, BRIDGE)))
    assert book.undo() == [*BRIDGE, file, ops.Remove(path="/run/etcd")]
    assert Ledger(OTHER_BOOT, ("talk",), (old,)).undo() == list(old.undo)


def test_what_is_the_labs_own_on_a_host() -> None:
    """Interfaces, daemons and places by their names; an earlier boot's interface is not."""
    link: tuple[Op, ...] = (ops.DelLink(name="flannel.1"),)
    entries = (Entry(OTHER_BOOT, link), Entry(BOOT, BRIDGE), Entry(BOOT, (*DAEMON, *SWITCH)))
    assert Ledger(BOOT, (), entries).owned() == {"cbr0", "etcd", "/run/etcd"}


def test_the_end_of_a_lab(shell: list[str], labs: Path) -> None:
    """Its directory goes, and the labs' own with the last; another lab stays."""
    run(shell, ledger.append("talk", BOOT, BRIDGE))
    run(shell, ledger.append("other", BOOT, BRIDGE))
    (labs / "talk" / "tls").mkdir()
    (labs / "owner").write_text("x")
    assert run(shell, ledger.remove("talk")) == ""
    assert look(shell).labs == ("other",)
    assert run(shell, ledger.remove("other")) == ""
    assert not labs.exists()
    assert run(shell, ledger.remove("other")) == ""


# --- a full disk ----------------------------------------------------------------------------------


@pytest.mark.kernel
@KERNEL[1]
@pytest.mark.parametrize("before", ["nothing", "some lines", "half a line"])
def test_a_full_disk(shell: list[str], labs: Path, before: str) -> None:
    """The program ends before the first change, says why, and the journal is as it was."""
    labs.mkdir()
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    private = ["unshare", *user, "--mount", *shell]
    large = ops.SetAlias(name="eth0", alias="x" * 50_000)
    some = {
        "nothing": ":\n",
        "some lines": f"({ledger.append('talk', BOOT, BRIDGE)})\n",
        "half a line": f"({ledger.append('talk', BOOT, BRIDGE)})\nprintf '{{\"bo' >>$j\n",
    }
    output = run(
        private,
        f"mount -t tmpfs -o size=32k none {labs} && j={journal(labs)}\n"
        f"{some[before]}"
        f"( {ledger.append('talk', BOOT, [large])}echo '@@ ok 0'\n)\n"
        f"{ledger.read('talk')}",
    )
    said, _, rest = output.partition("@@ the journal cannot be written\n")
    assert "No space left on device" in said
    assert "@@ ok 0" not in output
    entries = () if before == "nothing" else (Entry(BOOT, BRIDGE),)
    assert ledger.parse("host1", "talk", rest).entries == entries
    # `read` ends it with a line of its own.
    assert rest.partition("@@ journal\n")[2].count("\n") == (1 if before == "nothing" else 3)
    assert "xxx" not in rest


@pytest.mark.kernel
@KERNEL[1]
def test_a_disk_that_is_full_already(shell: list[str], labs: Path) -> None:
    """Not even the lab's directory can be made."""
    labs.mkdir()
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    output = run(
        ["unshare", *user, "--mount", *shell],
        f"mount -t tmpfs -o nr_inodes=1 none {labs}\n"
        f"( {ledger.append('talk', BOOT, BRIDGE)}echo '@@ ok 0'\n)\n",
    )
    assert "No space left on device" in output
    assert "@@ ok 0" not in output


# --- the lock -------------------------------------------------------------------------------------


class RootShell:
    """A shell that is fed programs, as a connection's root shell is."""

    def __init__(self, shell: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            [*shell, "-s"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, program: str) -> str:
        """Run a program in the shell itself; what it prints."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{{ {program}\n}} </dev/null 2>&1\necho '@@ the end'\n")
        self.process.stdin.flush()
        lines = []
        while (line := self.process.stdout.readline()) not in ("@@ the end\n", ""):
            lines.append(line)
        return "".join(lines)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


Open = Callable[[], RootShell]


@pytest.fixture
def connect(shell: list[str]) -> Iterator[Open]:
    """Opens root shells, which end with the test."""
    opened: list[RootShell] = []

    def one() -> RootShell:
        opened.append(RootShell(shell))
        return opened[-1]

    yield one
    for each in opened:
        each.end()


LOCKED = "@@ locked\n"


def test_a_lock_is_one_commands(connect: Open, labs: Path) -> None:
    """The second is told which shell holds it since when, and for whom."""
    first, second = connect(), connect()
    assert first.run(ledger.lock(OWNER, make=True)) == LOCKED
    pid = first.process.pid
    busy = f"@@ busy {pid} {process_start(pid)} {OWNER}\n"
    assert second.run(ledger.lock("somebody else", make=True)) == busy
    assert second.run(ledger.lock("somebody else", make=False)) == busy
    assert labs.stat().st_mode & 0o777 == 0o700


def test_a_lock_ends_with_its_shell(connect: Open, labs: Path) -> None:
    """However the connection ended: there is nothing stale to be removed."""
    first, second = connect(), connect()
    assert first.run(ledger.lock(OWNER, make=True)) == LOCKED
    first.end()
    assert second.run(ledger.lock("next", make=False)) == LOCKED
    assert (labs / "owner").read_text().split()[2:] == ["next"]


def test_the_same_shell_may_lock_again(connect: Open, labs: Path) -> None:
    """`up` does, once it is clear that there will be something to lock."""
    first, second = connect(), connect()
    assert first.run(ledger.lock(OWNER, make=False)) == LOCKED
    assert not labs.exists()
    for _ in range(2):
        assert first.run(ledger.lock(OWNER, make=True)) == LOCKED
    assert second.run(ledger.lock("next", make=False)).startswith("@@ busy ")


def test_a_daemon_does_not_inherit_the_lock(connect: Open, labs: Path) -> None:
    """What a program leaves behind would hold the host for ever. The lock's end closes it."""
    first, second = connect(), connect()
    assert first.run(ledger.lock(OWNER, make=True)) == LOCKED
    start = "sleep 1000 >/dev/null 2>&1 & echo $!"
    pids = [int(first.run(f"({unlocked}{start})")) for unlocked in (remote._UNLOCKED, "")]
    try:
        held = [os.path.exists(f"/proc/{pid}/fd/9") for pid in pids]
        first.end()
        assert second.run(ledger.lock("next", make=False)).startswith("@@ busy ")
    finally:
        for pid in pids:
            os.kill(pid, 9)
    assert held == [False, True]
    wait_for(lambda: second.run(ledger.lock("next", make=False)) == LOCKED, "the lock's end")


def test_a_directory_that_was_made_anew_is_locked_anew(connect: Open, labs: Path) -> None:
    """A teardown removed it while another waited: the old lock is a lock on nothing."""
    first, second = connect(), connect()
    assert first.run(ledger.lock(OWNER, make=True)) == LOCKED
    assert first.run(ledger.remove("talk")) == ""
    assert not labs.exists()
    assert second.run(ledger.lock("next", make=True)) == LOCKED
    assert first.run(ledger.lock(OWNER, make=True)).startswith("@@ busy ")


def test_a_directory_that_goes_while_it_is_locked_is_no_lock(connect: Open, labs: Path) -> None:
    """Between opening and locking a teardown ends: another may have the new directory."""
    first = connect()
    meanwhile = 'flock() { rm -r $d && mkdir $d && command flock "$@"; }\n'
    assert LOCKED not in first.run(meanwhile + ledger.lock(OWNER, make=True))
    assert labs.exists()
    assert connect().run(ledger.lock("next", make=True)) == LOCKED


def test_a_shell_without_its_vxlab_can_be_ended(connect: Open, labs: Path) -> None:
    """By PID and start time; a process that has only the PID is a stranger."""
    first, second = connect(), connect()
    assert first.run(ledger.lock(OWNER, make=True)) == LOCKED
    pid = first.process.pid
    start = process_start(pid)
    assert start is not None
    second.run(ledger.release(str(pid), str(start + 1)))
    assert second.run(ledger.lock("next", make=False)).startswith("@@ busy ")
    second.run(ledger.release(str(pid), str(start)))
    assert first.process.wait(10) != 0
    wait_for(lambda: second.run(ledger.lock("next", make=False)) == LOCKED, "the lock's end")


@pytest.mark.parametrize(("pid", "start"), [("7; reboot", "1"), ("7", "$(reboot)"), ("", "")])
def test_what_is_no_number_does_not_reach_a_shell(pid: str, start: str) -> None:
    """The host's answer is not trusted to be one."""
    with pytest.raises(ValueError, match="invalid literal"):
        ledger.release(pid, start)
