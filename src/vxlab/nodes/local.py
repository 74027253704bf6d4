"""Nodes on this machine: namespaces in the lab's world. No root is needed.

The world is one holder process in namespaces of its own: mounts, host name, IPC, PIDs and network,
and a user namespace where the caller is not root. Everything of the lab lives in it, and with its
PID 1 everything ends. A machine is found through /proc: ``/proc/WORLD/root/proc/PID`` is node PID
as the world numbers it, and has the node's namespaces, root directory and files below it.
"""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from vxlab import netlink, script, state
from vxlab.errors import MissingError, OperationError
from vxlab.journal import LabDirectory, WorldRecord, boot_id, process_start, start_in
from vxlab.namespaces import CLONE_NEWNET, CLONE_NEWUSER, setns
from vxlab.nodes import Completed, down, parsed
from vxlab.ops import AddVeth, Op, StartContainer, StartNode, StopMachine, record_path
from vxlab.state import State
from vxlab.steps.site import SWITCH

#: What nodes inherit: nothing of the caller's environment, which may hold secrets.
ENVIRONMENT = {
    "PATH": script.PATH,
    "HOME": "/root",
    "LC_ALL": "C",
}

#: Parts of a path that are looked at until its links are taken for a loop.
_MOST_PARTS = 256

#: Set in the holder's environment, so that it can be told from any other process (`orphans`).
MARK = "VXLAB_WORLD"

# The holder says its PID, then waits for the word that the journal holds it; if the caller is
# killed before, the pipe ends and so does the holder. It keeps stdout until it is ready.
_HOLDER = f"""
exec 3<&0 2>&1
{{ read -r go <&3 && hostname {SWITCH} && mount --bind "$2/run" /run &&
  mount -t proc proc /proc &&
  exec /usr/bin/env --ignore-signal=CHLD "$1" sleep 2147483647 </dev/null >/dev/null 2>&1 3<&-; }} &
echo $!
"""


class World:
    """The holder of a local lab.

    Args:
        record: its PID 1, from the lab's journal.
    """

    def __init__(self, record: WorldRecord) -> None:
        self.record = record
        self.proc = f"/proc/{record.pid}"

    @classmethod
    def start(cls, directory: LabDirectory, busybox: str) -> World:
        """Start the world; its entry is in the journal before it goes on.

        Raises:
            MissingError: this machine does not let the caller make the namespaces.
            JournalError: the lab's directory cannot be written.
        """
        files = directory.node(SWITCH)
        directory.make_run(SWITCH)
        user = ["--user", "--map-root-user"] if os.geteuid() else []
        flags = ["--mount", "--uts", "--ipc", "--net", "--pid", "--propagation", "slave"]
        command = ["unshare", *user, *flags, busybox, "sh", "-c", _HOLDER, "sh"]
        try:
            process = subprocess.Popen(
                [*command, busybox, str(files)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**ENVIRONMENT, MARK: str(directory.path)},
                text=True,
            )
        except FileNotFoundError as error:  # no unshare
            raise cls._refused(str(error)) from None
        with process:
            assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018
            first = process.stdout.readline().strip()
            start = process_start(int(first)) if first.isdecimal() else None
            if start is None:
                said = first + "\n" + process.stdout.read()
                raise cls._refused(said)
            record = WorldRecord(int(first), start, boot_id())
            directory.append({"world": {"pid": record.pid, "start": start, "boot": record.boot}})
            process.stdin.write("go\n")
            process.stdin.close()
            said = process.stdout.read()
        # One that failed may look alive for a moment after its stdout is closed.
        if said.strip() or not record.alive():
            raise cls._refused(said)
        return cls(record)

    @staticmethod
    def _refused(said: str) -> MissingError:
        return MissingError(
            "cannot make the lab's namespaces",
            where="this machine",
            detail=said.strip(),
            hint="run `vxlab check`: it tells what is missing and the line that allows it",
        )

    def enter(self) -> None:
        """Become root in the world: its user namespace (without root) and its network.

        Must come before any thread is started. From here on nothing that this process does with
        netlink can reach the host's network.
        """
        if os.geteuid():
            self._setns("user", CLONE_NEWUSER)
        self._setns("net", CLONE_NEWNET)

    def _setns(self, kind: str, flag: int) -> None:
        fd = os.open(f"{self.proc}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(fd, flag)
        finally:
            os.close(fd)


def machine(holder: str, name: str) -> str | None:
    """Where in /proc a machine is that is held on another one; None if it does not run.

    Args:
        holder: the /proc directory of the machine that holds it.
        name: a node (held on the switch) or a container (held on a node).
    """
    try:
        record = Path(f"{holder}/root{record_path('machines', name)}").read_text()
        pid, start = record.split()[:2]
        seen = start_in(Path(f"{holder}/root/proc/{pid}/stat").read_text())
    except (OSError, ValueError):
        return None
    return f"{holder}/root/proc/{pid}" if str(seen) == start else None


def entering(proc: str, *, user: bool = False, root: bool = False) -> list[str]:
    """The nsenter command line that runs a program in a machine (`user`, `root`: a container)."""
    kinds = {"mount": "mnt", "uts": "uts", "ipc": "ipc", "net": "net", "pid": "pid"}
    if user:
        kinds = {"user": "user", **kinds}
    flags = [f"--{flag}={proc}/ns/{file}" for flag, file in kinds.items()]
    if user:
        # Root stays root. nsenter would set the groups, too, which only the host's root may.
        flags.append("--preserve-credentials")
    if root:
        flags += [f"--root={proc}/root", f"--wd={proc}/root"]
    return ["nsenter", *flags]


class LocalNode:
    """A machine in the world: a node, or the switch that joins them.

    Args:
        name: the node's name, or ``switch``.
        holder: the /proc directory of the machine that holds it.
        proc: its own, where it is known already (the switch: the world itself).
        journal: where the undo of the node's changes is written.
    """

    #: Seconds between two looks at something that is waited for; a look is a file or two.
    pace = 0.005

    def __init__(
        self,
        name: str,
        holder: str,
        proc: str | None = None,
        journal: Callable[[str, Sequence[Op]], None] | None = None,
    ) -> None:
        self.name = name
        self._journal = journal
        self._holder = holder
        self._proc = proc
        self._sockets: dict[str, netlink.Netlink] = {}
        self._lock = threading.Lock()

    @property
    def proc(self) -> str:
        """Its /proc directory.

        Raises:
            OperationError: it does not run.
        """
        if not self.running() or self._proc is None:
            raise down(self.name, self.name)
        return self._proc

    def running(self) -> bool:
        if self._proc is None:
            self._proc = machine(self._holder, self.name)
        return self._proc is not None

    def forget(self) -> None:
        """The machine is about to be started anew: what was known of it is void."""
        self.close()
        self._proc = None

    def close(self) -> None:
        for socket in self._sockets.values():
            socket.close()
        self._sockets.clear()

    def inside(self, container: str) -> str:
        """The /proc directory of a container (or, on the switch, of a node)."""
        found = machine(self.proc, container)
        if found is None:
            raise down(container, self.name)
        return found

    # --- changing -------------------------------------------------------------------------------

    def apply(
        self, todo: Sequence[Op], done: Callable[[Op], None], undo: Sequence[Op] = ()
    ) -> None:
        """Network operations go over netlink, in one buffer; the rest as one shell program."""
        if self._journal is not None:
            self._journal(self.name, undo)
        for native, batch in _runs(todo):
            if native:
                with self._lock:
                    self._netlink(batch, done)
            else:
                self._part_with(batch)
                output = self._shell(script.program(batch))
                script.judge(self.name, batch, output, done)

    def _part_with(self, batch: Sequence[Op]) -> None:
        """Close the sockets in machines that end or are made anew: they would stay in the old."""
        for op in batch:
            if isinstance(op, StartContainer | StartNode | StopMachine):
                socket = self._sockets.pop(op.name, None)
                if socket is not None:
                    socket.close()

    def _netlink(self, batch: Sequence[Op], done: Callable[[Op], None]) -> None:
        for ns, group in _by_namespace(batch):
            socket = self._sockets.get(ns)
            if socket is None:
                proc = self.inside(ns) if ns else self.proc
                where = f"{self.name}/{ns}" if ns else self.name
                socket = self._sockets[ns] = netlink.Netlink(proc, where)
            peers = {
                op.peer_ns: f"{self.inside(op.peer_ns)}/ns/net"
                for op in group
                if isinstance(op, AddVeth)
            }
            try:
                socket.apply(group, peers, done)
            except OperationError:
                del self._sockets[ns]
                raise

    # --- reading --------------------------------------------------------------------------------

    def snapshot(self) -> State:
        return parsed(self.name, self._shell(state.program(inside=self.name != SWITCH)))

    def read(self, path: str) -> str | None:
        try:
            return self._outside(path).read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):  # the latter: a /proc file, a moment ago
            return None

    def _outside(self, path: str) -> Path:
        """Where a file of the node is for us. An absolute link would lead to our own files."""
        root, at, rest = f"{self.proc}/root", "/", path.split("/")
        for _ in range(_MOST_PARTS):
            if not rest:
                return Path(root + at)
            part = rest.pop(0)
            at = os.path.normpath(f"{at}/{part}")
            try:
                target = os.readlink(root + at)
            except OSError:
                continue  # no link
            at = "/" if target.startswith("/") else os.path.dirname(at)
            rest = [*target.split("/"), *rest]
        raise FileNotFoundError(errno.ELOOP, os.strerror(errno.ELOOP), path)

    def routes(self) -> str:
        """The node's ``/proc/net/route``, read without starting a program there."""
        return Path(f"{self.proc}/net/route").read_text()

    def alive(self, daemon: str) -> bool:
        record = (self.read(record_path("daemons", daemon)) or "").split()
        if len(record) < 2:
            return False
        pid, start = record[:2]
        stat = self.read(f"/proc/{pid}/stat")
        return stat is not None and str(start_in(stat)) == start

    def run(self, argv: Sequence[str], *, stdin: str = "") -> Completed:
        process = subprocess.run(
            [*entering(self.proc), *argv],
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            env=ENVIRONMENT,
            check=False,
        )
        return Completed(process.returncode, process.stdout, process.stderr)

    def _shell(self, program: str) -> str:
        completed = self.run(["sh", "-s"], stdin=program)
        return completed.out + completed.err


def _runs(todo: Sequence[Op]) -> list[tuple[bool, list[Op]]]:
    """Consecutive operations of one kind: network operations or others."""
    runs: list[tuple[bool, list[Op]]] = []
    for op in todo:
        native = isinstance(op, netlink.KINDS)
        if not runs or runs[-1][0] is not native:
            runs.append((native, []))
        runs[-1][1].append(op)
    return runs


def _by_namespace(batch: Sequence[Op]) -> list[tuple[str, list[Op]]]:
    groups: list[tuple[str, list[Op]]] = []
    for op in batch:
        if not groups or groups[-1][0] != op.ns:
            groups.append((op.ns, []))
        groups[-1][1].append(op)
    return groups


def orphans(directory: Path) -> Mapping[int, int]:
    """Worlds of a lab that its journal does not tell of, by the mark in their environment.

    Returns:
        PIDs and their start times in clock ticks.
    """
    wanted = f"{MARK}={directory}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # another user's process, or one that just ended
        start = process_start(int(entry.name)) if wanted in environment else None
        if start is not None:
            found[int(entry.name)] = start
    return found
