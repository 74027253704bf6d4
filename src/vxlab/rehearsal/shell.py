"""The shell on one machine, into which the operations of a step are typed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from vxlab.lab import Lab
from vxlab.ops import (
    AddNeighbours,
    AddVeth,
    Op,
    PutFile,
    PutKey,
    StartContainer,
    StartDaemon,
    StartFlanneld,
    StartNode,
)
from vxlab.rehearsal.command import Command, quoted, typed, word
from vxlab.rehearsal.found import Found, numbered, variable
from vxlab.state import SUBNET_ENV
from vxlab.steps import tls
from vxlab.steps.node import hosts as hosts_file
from vxlab.steps.site import SWITCH, Site

#: Seconds after which a daemon that is not ready counts as stuck.
PATIENCE = 60

_NAMESPACES = "unshare --mount --uts --ipc --net --pid --fork"
_AUTHORITY = "made for this run by the lab's own certificate authority, whose key is thrown away"


@dataclass
class Shell:
    """What is typed on one machine, in order; what was found there once is known from then on.

    Args:
        lab: the supposed lab.
        machine: a node's name, or the switch's.
        found: what may stand for a value in the operations.
        etcdctl: how etcd's client is called there.
        recorded: write down every PID, as scripts do for their teardown.
    """

    lab: Lab
    machine: str
    found: Iterable[Found] = ()
    etcdctl: str = "etcdctl"
    recorded: bool = False
    _told: set[str] = field(default_factory=set)
    _serves: bool = False
    _named: bool = False

    def type(self, ops: Iterable[Op]) -> list[Command]:
        """The commands that carry operations out, each after those that find its values."""
        every: list[Command] = []
        for op in ops:
            if isinstance(op, PutKey) and not self._serves:
                self._serves = True
                every += self._looked_up(self._serving())
            for command in self._lines(op):
                every += self._looked_up(command)
        return every

    def _looked_up(self, command: Command) -> Iterator[Command]:
        """The command after those that find its values, which nobody has to type twice."""
        text = str(command)
        for each in self.found:
            used = re.search(rf"{re.escape(each.shell)}(?!\w)", text)
            if used and each.how is not None and str(each.how) not in self._told:
                self._told.add(str(each.how))
                yield from self._looked_up(each.how)
        yield command

    def _word(self, text: str) -> str:
        return word(text, {each.stands: each.shell for each in self.found})

    def _words(self, *argv: str) -> tuple[str, ...]:
        return quoted(argv, {each.stands: each.shell for each in self.found})

    def pid(self, name: str) -> str:
        """The variable that has the PID 1 of a machine held here."""
        if self.machine == SWITCH:
            return f"PID_{variable(name)}"
        return numbered("PID", self.lab.node(self.machine), name)

    def _in(self, ns: str) -> tuple[str, ...]:
        return ("nsenter", "-n", "-t", f'"${self.pid(ns)}"') if ns else ()

    # --- operations -----------------------------------------------------------------------------

    def _lines(self, op: Op) -> Iterator[Command]:
        match op:
            case AddVeth():
                plugged = (*self._in(op.ns), *self._words(*op.argv()[:-1]))
                yield Command((*plugged, f'"${self.pid(op.peer_ns)}"'))
            case AddNeighbours():
                for entry in op.entries:
                    one = AddNeighbours(name=op.name, entries=(entry,), ns=op.ns)
                    yield Command((*self._in(op.ns), *self._words(*one.argv())))
            case StartNode():
                yield from self._node(op)
            case StartContainer():
                yield from self._container(op)
            case StartDaemon():
                yield from self._daemon(op)
            case PutKey():
                yield self._etcd("put", op.key, op.value)
            case PutFile():
                name = op.path.rpartition("/")[2]
                put = ("install", "-D", "-m", op.mode, name, op.path)
                yield Command(self._words(*put), _AUTHORITY)
            case _:
                yield Command((*self._in(op.ns), *self._words(*op.argv())))

    def _node(self, op: StartNode) -> Iterator[Command]:
        if not self._named:
            self._named = True
            lines = hosts_file(Site(self.lab, "", "", "", "", "")).splitlines()
            written = ("printf", r"'%s\n'", *self._words(*lines), f">{self._word(op.hosts)}")
            yield typed(f"mkdir -p {self._word(op.directory.rpartition('/')[0])}")
            yield Command(written, "the nodes' /etc/hosts")
        place = self._word(op.directory)
        yield typed(f"mkdir -p {place}/run {place}/log")
        yield typed(f"{_NAMESPACES} --mount-proc sleep 2147483647 &", f"the machine {op.name}")
        yield self._first_process(op.name)
        pid = f'"${self.pid(op.name)}"'
        yield typed(f"nsenter -u -t {pid} hostname {op.name}")
        for source, target in (
            (f"{place}/run", "/run"),
            (f"{place}/log", "/var/log"),
            (self._word(op.hosts), "/etc/hosts"),
        ):
            yield typed(f"nsenter -m -t {pid} mount --bind {source} {target}")
        enter = f"nsenter -m -u -i -n -p -t {pid} sh"
        yield typed(enter, f"a shell on {op.name}, in a terminal of its own")

    def _container(self, op: StartContainer) -> Iterator[Command]:
        root = self._word(op.root)
        busybox = self._word(op.programs)
        yield typed(f"mkdir -p {root}/bin {root}/proc")
        yield typed(f'cp "$(command -v {busybox})" {root}/bin/busybox')
        yield typed(
            f"chroot {root} /bin/busybox --install -s /bin",
            broken="busybox does not run alone in a directory: it must be a static one",
        )
        inner = word(f"hostname {op.name}; exec sleep 2147483647", {})
        yield typed(
            f"nohup {_NAMESPACES} --user --map-root-user --mount-proc={root}/proc"
            f" chroot {root} /bin/sh -c {inner} </dev/null >/dev/null 2>&1 &",
            f"the container {op.name}",
        )
        yield self._first_process(op.name)
        if self.recorded:
            yield typed(f'record container {op.name} "${self.pid(op.name)}"')
        if not op.ipv6:
            off = typed("sysctl -w net.ipv6.conf.all.disable_ipv6=1").words
            yield Command((*self._in(op.name), *off))

    def _first_process(self, name: str) -> Command:
        wait = """timeout 10 sh -c 'until pgrep -P "$1"; do sleep 0.1; done' sh $!"""
        return typed(
            f"{self.pid(name)}=$({wait})",
            f"its PID 1, the child of unshare: whose namespaces are {name}'s",
            f"{name} did not start",
        )

    def _daemon(self, op: StartDaemon) -> Iterator[Command]:
        if any("unix://" in each for each in op.command):
            # The socket is a file in the directory that etcd is started in.
            yield typed(f"mkdir -p {op.cwd} && cd {op.cwd}")
        words = ("nohup", *self._words(*op.command))
        yield Command((*words, f">{op.log}", "2>&1", "</dev/null", "&"))
        if self.recorded:
            yield typed(f"record daemon {op.name} $!")
        if isinstance(op, StartFlanneld):
            loop = f'until [ -s {SUBNET_ENV} ]; do kill -0 "$1" || exit; sleep 0.1; done'
            yield typed(
                f"timeout {PATIENCE} sh -c '{loop}' sh $!",
                "flanneld has its lease when it has written this file",
                f"flanneld got no subnet; the end of {op.log} says why",
            )

    # --- etcd -----------------------------------------------------------------------------------

    def _etcd(self, *words: str) -> Command:
        client = (self._word(self.etcdctl), f"--endpoints={self._word(self.lab.etcd_url)}")
        return Command((*client, *self._certificates(), *self._words(*words)))

    def _certificates(self) -> tuple[str, ...]:
        if not self.lab.tls:
            return ()
        files = zip(("cacert", "cert", "key"), (tls.CA, *tls.CLIENT), strict=True)
        return tuple(f"--{name}={tls.path(self.lab, file)}" for name, file in files)

    def _serving(self) -> Command:
        loop = typed(f"""timeout {PATIENCE} sh -c 'until "$@"; do sleep 0.1; done' sh""").words
        ask = self._etcd("endpoint", "health").words
        late = "etcd does not answer; the end of /var/log/etcd.log says why"
        return Command((*loop, *ask), "etcd needs a moment before it serves", late)
