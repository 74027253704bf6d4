"""Daemons, machines, and what is written to etcd."""

from __future__ import annotations

import shlex

from vxlab.ops.op import NodeOp, Op, differs, operation
from vxlab.state import RECORDS, State


@operation
class PutKey(NodeOp):
    """Writes a key to etcd; carried out by `vxlab.etcd`, wherever etcd runs."""

    key: str
    value: str

    def argv(self) -> tuple[str, ...]:
        return ("etcdctl", "put", self.key, self.value)

    def holds(self, state: State) -> str | None:
        return differs(f"etcd's {self.key}", state.keys.get(self.key, ""), self.value)

    def undo(self, before: State) -> tuple[Op, ...]:
        return ()  # it ends with etcd, which belongs to the lab


def record_path(kind: str, name: str) -> str:
    """Where a node keeps "PID START" of a daemon or of a machine that it holds."""
    return f"{RECORDS}/{kind}/{name}"


@operation
class StartDaemon(NodeOp):
    """Runs a program in the background on the node, as the talk does with nohup.

    The record of its PID and start time is written before this returns. The process is in a
    session of its own, so that it outlives the terminal. `again` is a reason to start it anew
    although it runs.
    """

    name: str
    command: tuple[str, ...]
    log: str
    cwd: str = "/run"
    again: str = ""

    def argv(self) -> tuple[str, ...]:
        return ("nohup", *self.command)

    def __str__(self) -> str:
        return f"{shlex.join(self.argv())} >{self.log} 2>&1 &"

    def shell(self) -> str:
        words = (self.name, self.log, self.cwd, shlex.join(self.command), *self.command)
        return f"daemon {shlex.join(words)}"

    def holds(self, state: State) -> str | None:
        process = state.daemons.get(self.name)
        if process is None:
            return f"{self.name} was never started"
        if not process.alive:
            return f"{self.name} (PID {process.pid}) is gone"
        return self.again or differs(
            f"{self.name}'s command", process.command, shlex.join(self.command)
        )

    def clears(self, state: State) -> tuple[Op, ...]:
        process = state.daemons.get(self.name)
        return (StopDaemon(name=self.name),) if process and process.alive else ()

    def undo(self, before: State) -> tuple[Op, ...]:
        return (StopDaemon(name=self.name),)


@operation
class StopDaemon(NodeOp):
    """Ends a daemon, if PID and start time still are those that were recorded."""

    name: str

    def argv(self) -> tuple[str, ...]:
        return ("pkill", "--pidfile", record_path("daemons", self.name))

    def shell(self) -> str:
        return f"stop daemons {self.name} TERM"

    def holds(self, state: State) -> str | None:
        process = state.daemons.get(self.name)
        return f"{self.name} runs" if process and process.alive else None

    def undo(self, before: State) -> tuple[Op, ...]:
        return ()


_UNSHARE = ("--mount", "--uts", "--ipc", "--net", "--pid", "--fork")


class Machine(NodeOp):
    """Shared by both kinds of machine: held by a tiny PID 1, recorded on whoever holds it."""

    name: str

    def holds(self, state: State) -> str | None:
        process = state.machines.get(self.name)
        if process is None:
            return f"{self.name} was never started"
        return None if process.alive else f"{self.name}'s PID 1 ({process.pid}) is gone"

    def undo(self, before: State) -> tuple[Op, ...]:
        return (StopMachine(name=self.name),)


@operation
class StartNode(Machine):
    """A node on this machine: namespaces of its own under a PID 1, as a host has them.

    `directory` keeps its /run and /var/log, so that logs can be read from outside; `hosts`
    is the file that it sees as /etc/hosts.
    """

    name: str
    directory: str
    hosts: str
    busybox: str

    def argv(self) -> tuple[str, ...]:
        return ("unshare", *_UNSHARE, "--mount-proc", "sh")

    def shell(self) -> str:
        words = (self.busybox, self.name, self.directory, self.hosts)
        return f"start_node {shlex.join(words)}"


@operation
class StartContainer(Machine):
    """A busybox container: all namespaces of its own, the user namespace too, and a chroot.

    `root` is its root directory on the node, `programs` the directory with busybox and its
    applets, which the container sees read-only as /bin.
    """

    name: str
    root: str
    programs: str
    ipv6: bool

    def argv(self) -> tuple[str, ...]:
        user = ("--user", "--map-root-user", "--mount-proc")
        return ("unshare", *_UNSHARE, *user, "chroot", self.root, "/bin/sh")

    def shell(self) -> str:
        words = (self.programs, self.name, self.root, "0" if self.ipv6 else "1")
        return f"start_container {shlex.join(words)}"


@operation
class StopMachine(NodeOp):
    """Ends a machine by its PID 1; its processes, interfaces and mounts go with it."""

    name: str

    def argv(self) -> tuple[str, ...]:
        return ("pkill", "-KILL", "--pidfile", record_path("machines", self.name))

    def shell(self) -> str:
        return f"stop machines {self.name} KILL"

    def holds(self, state: State) -> str | None:
        process = state.machines.get(self.name)
        return f"{self.name} runs" if process and process.alive else None

    def undo(self, before: State) -> tuple[Op, ...]:
        return ()
