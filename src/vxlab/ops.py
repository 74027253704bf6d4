"""The vocabulary: every change to a node is a value that does nothing by itself.

An operation says three things: the command a person would type (`argv`), whether a node already
looks as if it had been done (`holds`), and what takes it back (`undo`). `vxlab.netlink` and
`vxlab.script` carry operations out; nothing else changes a node.

Every operation has a `ns`: empty for the node itself, else the name of a machine held there (a
container on a node, a node on the switch).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar, dataclass_transform

from vxlab.state import RECORDS, Link, State


@dataclass(frozen=True, kw_only=True)
class Op:
    """One change to a node's network, files or processes."""

    ns: str = ""

    def argv(self) -> tuple[str, ...]:
        """The command, as a person would type it in the namespace `ns`."""
        raise NotImplementedError

    def holds(self, state: State) -> str | None:
        """None if the node looks as if this had been done; else the reason why it does not."""
        raise NotImplementedError

    def clears(self, state: State) -> tuple[Op, ...]:
        """What is in the way of this change and has to go first."""
        return ()

    def undo(self, before: State) -> tuple[Op, ...]:
        """The operations that take this back, given the node as it was."""
        raise NotImplementedError

    def shell(self) -> str:
        """The shell text that carries the operation out on the node (see `vxlab.script`)."""
        command = shlex.join(self.argv())
        return f'nsenter -n -t "$(pid {self.ns})" {command}' if self.ns else command

    def __str__(self) -> str:
        return (f"{self.ns}# " if self.ns else "") + shlex.join(self.argv())


#: Registered by the decorator: dataclass(slots=True) makes a second class, so that
#: __subclasses__ would hold each operation twice.
REGISTRY: dict[str, type[Op]] = {}

T = TypeVar("T", bound=Op)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def operation(cls: type[T]) -> type[T]:
    """Make an operation of a class: a frozen dataclass, known to the journal by its name."""
    made = dataclass(frozen=True, kw_only=True)(cls)
    REGISTRY[made.__name__] = made
    return made


def to_json(op: Op) -> dict[str, Any]:
    """The operation as plain JSON values, for the journal and ``--json``."""
    return {"op": type(op).__name__, **asdict(op)}


def from_json(data: dict[str, Any]) -> Op:
    """The inverse of `to_json`.

    Raises:
        ValueError: no such operation, or fields that it does not have.
    """
    rest = dict(data)
    cls = REGISTRY.get(rest.pop("op", ""))
    if cls is None:
        raise ValueError(f"no operation called {data.get('op')!r}")
    try:
        made: Any = cls
        op = made(**{k: tuple(v) if isinstance(v, list) else v for k, v in rest.items()})
        assert isinstance(op, Op)  # noqa: S101
        return op
    except TypeError:
        wanted = ", ".join(f.name for f in fields(cls))
        raise ValueError(f"{cls.__name__} has the fields {wanted}, not {sorted(rest)}") from None


def _differs(what: str, seen: object, wanted: object) -> str | None:
    return None if seen == wanted else f"{what} is {seen or 'unset'}, wanted {wanted}"


# --- links --------------------------------------------------------------------------------------


class _OnLink(Op):
    """What all operations on an interface share."""

    name: str

    def link(self, state: State) -> Link | None:
        return state.net_of(self.ns).links.get(self.name)

    def judged(self, state: State, judge: Callable[[Link], str | None]) -> str | None:
        link = self.link(state)
        return f"{self.name} does not exist" if link is None else judge(link)


class _NewLink(_OnLink):
    """What makes an interface: whatever has its name goes first, and undo removes it."""

    def clears(self, state: State) -> tuple[Op, ...]:
        return (DelLink(name=self.name, ns=self.ns),) if self.link(state) else ()

    def undo(self, before: State) -> tuple[Op, ...]:
        return (DelLink(name=self.name, ns=self.ns),)

    def wrong_kind(self, link: Link, wanted: str) -> str | None:
        seen = link.kind or "device"
        return None if seen == wanted else f"{self.name} is a {seen}, wanted a {wanted}"


@operation
class AddBridge(_NewLink):
    """A switch inside the node: frames go between its ports, the node's own address is on it.

    STP is off: a lab's bridge has no loops, and STP would hold each port back for 30 seconds.
    """

    name: str

    def argv(self) -> tuple[str, ...]:
        return ("ip", "link", "add", self.name, "type", "bridge", "stp_state", "0")

    def holds(self, state: State) -> str | None:
        def judge(link: Link) -> str | None:
            stp = f"{self.name} has STP on, wanted off" if link.stp else None
            return self.wrong_kind(link, "bridge") or stp

        return self.judged(state, judge)


@operation
class AddVeth(_NewLink):
    """A cable with two plugs: what enters one end leaves the other, in another namespace.

    `peer_ns` names the machine that gets the peer end, such as a container.
    """

    name: str
    peer: str
    peer_ns: str

    def argv(self) -> tuple[str, ...]:
        peer = ("peer", "name", self.peer, "netns", self.peer_ns)
        return ("ip", "link", "add", self.name, "type", "veth", *peer)

    def shell(self) -> str:
        return f'{shlex.join(self.argv()[:-1])} "$(pid {self.peer_ns})"'

    def holds(self, state: State) -> str | None:
        def judge(link: Link) -> str | None:
            holder = state.machines.get(self.peer_ns)
            there = state.inside.get(self.peer_ns)
            if holder is None or not holder.alive:
                # The kernel takes a dead namespace's interfaces away some time after its end.
                return f"{self.peer} went with {self.peer_ns}"
            if there is not None and self.peer not in there.links:
                return f"{self.peer} is not in {self.peer_ns}"
            return self.wrong_kind(link, "veth")

        return self.judged(state, judge)


@operation
class DelLink(_OnLink):
    """Removes an interface; of a veth pair both ends go. One that is gone already is no error."""

    name: str

    def argv(self) -> tuple[str, ...]:
        return ("ip", "link", "del", self.name)

    def shell(self) -> str:
        shown = super().shell().replace("link del", "link show")
        return f"{super().shell()} || ! {shown} >/dev/null 2>&1"

    def holds(self, state: State) -> str | None:
        return f"{self.name} exists" if self.link(state) else None

    def undo(self, before: State) -> tuple[Op, ...]:
        return ()  # it only ever takes back what vxlab made


@operation
class SetMaster(_OnLink):
    """Plugs an interface into a bridge, or pulls it out when `master` is empty."""

    name: str
    master: str

    def argv(self) -> tuple[str, ...]:
        tail = ("master", self.master) if self.master else ("nomaster",)
        return ("ip", "link", "set", self.name, *tail)

    def holds(self, state: State) -> str | None:
        what = f"{self.name}'s bridge"
        return self.judged(state, lambda link: _differs(what, link.master, self.master))

    def undo(self, before: State) -> tuple[Op, ...]:
        link = self.link(before)
        return (SetMaster(name=self.name, master=link.master, ns=self.ns),) if link else ()


@operation
class SetMtu(_OnLink):
    """The largest IP packet, in bytes, that the interface sends without fragmenting it."""

    name: str
    mtu: int

    def argv(self) -> tuple[str, ...]:
        return ("ip", "link", "set", "dev", self.name, "mtu", str(self.mtu))

    def holds(self, state: State) -> str | None:
        what = f"{self.name}'s MTU"
        return self.judged(state, lambda link: _differs(what, link.mtu, self.mtu))

    def undo(self, before: State) -> tuple[Op, ...]:
        link = self.link(before)
        return (SetMtu(name=self.name, mtu=link.mtu, ns=self.ns),) if link else ()


@operation
class SetUp(_OnLink):
    """Switches an interface on (or off)."""

    name: str
    up: bool = True

    def argv(self) -> tuple[str, ...]:
        return ("ip", "link", "set", self.name, "up" if self.up else "down")

    def holds(self, state: State) -> str | None:
        words = {True: "up", False: "down"}
        return self.judged(state, lambda ln: _differs(self.name, words[ln.up], words[self.up]))

    def undo(self, before: State) -> tuple[Op, ...]:
        link = self.link(before)
        return (SetUp(name=self.name, up=link.up, ns=self.ns),) if link else ()


@operation
class SetMac(_OnLink):
    """Gives an interface a MAC address that a person recognises."""

    name: str
    mac: str

    def argv(self) -> tuple[str, ...]:
        return ("ip", "link", "set", "dev", self.name, "address", self.mac)

    def holds(self, state: State) -> str | None:
        what = f"{self.name}'s MAC"
        return self.judged(state, lambda link: _differs(what, link.mac, self.mac))

    def undo(self, before: State) -> tuple[Op, ...]:
        link = self.link(before)
        return (SetMac(name=self.name, mac=link.mac, ns=self.ns),) if link else ()


@operation
class SetAlias(_OnLink):
    """Marks an interface as this lab's own, where ``ip link`` shows it."""

    name: str
    alias: str

    def argv(self) -> tuple[str, ...]:
        return ("ip", "link", "set", self.name, "alias", self.alias)

    def holds(self, state: State) -> str | None:
        what = f"{self.name}'s alias"
        return self.judged(state, lambda link: _differs(what, link.alias, self.alias))

    def undo(self, before: State) -> tuple[Op, ...]:
        link = self.link(before)
        return (SetAlias(name=self.name, alias=link.alias, ns=self.ns),) if link else ()


# --- addresses and routes -----------------------------------------------------------------------


@operation
class AddAddress(_OnLink):
    """Gives an interface its IPv4 address; the kernel adds the route to its network."""

    name: str
    address: str  # with prefix length

    def argv(self) -> tuple[str, ...]:
        return ("ip", "addr", "add", self.address, "dev", self.name)

    def holds(self, state: State) -> str | None:
        what = f"{self.name}'s address"
        return self.judged(
            state, lambda link: _differs(what, " ".join(link.addresses), self.address)
        )

    def clears(self, state: State) -> tuple[Op, ...]:
        link = self.link(state)
        return tuple(
            DelAddress(name=self.name, address=old, ns=self.ns)
            for old in (link.addresses if link else ())
        )

    def undo(self, before: State) -> tuple[Op, ...]:
        return (DelAddress(name=self.name, address=self.address, ns=self.ns),)


@operation
class DelAddress(_OnLink):
    """Takes an IPv4 address off an interface."""

    name: str
    address: str

    def argv(self) -> tuple[str, ...]:
        return ("ip", "addr", "del", self.address, "dev", self.name)

    def holds(self, state: State) -> str | None:
        link = self.link(state)
        return (
            f"{self.name} has {self.address}" if link and self.address in link.addresses else None
        )

    def undo(self, before: State) -> tuple[Op, ...]:
        return (AddAddress(name=self.name, address=self.address, ns=self.ns),)


@operation
class AddRoute(Op):
    """Where packets for `dst` go next: to the gateway `via`, out of `dev`."""

    dst: str  # network/length or "default"
    via: str
    dev: str

    def argv(self) -> tuple[str, ...]:
        return ("ip", "route", "add", self.dst, "via", self.via, "dev", self.dev)

    def holds(self, state: State) -> str | None:
        route = state.net_of(self.ns).route(self.dst)
        if route is None:
            return f"no route to {self.dst}"
        seen = f"via {route.via} dev {route.dev}"
        return _differs(f"the route to {self.dst}", seen, f"via {self.via} dev {self.dev}")

    def clears(self, state: State) -> tuple[Op, ...]:
        old = state.net_of(self.ns).route(self.dst)
        return (DelRoute(dst=old.dst, via=old.via, dev=old.dev, ns=self.ns),) if old else ()

    def undo(self, before: State) -> tuple[Op, ...]:
        return (DelRoute(dst=self.dst, via=self.via, dev=self.dev, ns=self.ns),)


@operation
class DelRoute(Op):
    """Removes a route."""

    dst: str
    via: str
    dev: str

    def argv(self) -> tuple[str, ...]:
        via = ("via", self.via) if self.via else ()
        return ("ip", "route", "del", self.dst, *via, "dev", self.dev)

    def holds(self, state: State) -> str | None:
        return f"a route to {self.dst} exists" if state.net_of(self.ns).route(self.dst) else None

    def undo(self, before: State) -> tuple[Op, ...]:
        return (AddRoute(dst=self.dst, via=self.via, dev=self.dev, ns=self.ns),)


@operation
class AddNeighbours(_OnLink):
    """Permanent neighbour entries on an interface, so that nobody has to ask with ARP.

    `entries` holds "ADDRESS MAC" strings; one operation for all, since a node of a large lab has
    one entry for every other node.
    """

    name: str
    entries: tuple[str, ...]

    def argv(self) -> tuple[str, ...]:
        address, mac = self.entries[0].split()
        one = ("ip", "neigh", "replace", address, "lladdr", mac, "dev", self.name)
        return (*one, "nud", "permanent")

    def __str__(self) -> str:
        more = len(self.entries) - 1
        return super().__str__() + (f" (and {more} more)" if more else "")

    def shell(self) -> str:
        lines = (
            f"neigh replace {address} lladdr {mac} dev {self.name} nud permanent"
            for address, mac in (entry.split() for entry in self.entries)
        )
        return f"printf '%s\\n' {shlex.join(lines)} | ip -batch -"

    def holds(self, state: State) -> str | None:
        net = state.net_of(self.ns)
        seen = {f"{n.address} {n.mac}" for n in net.neighbours if n.state == "PERMANENT"}
        missing = [entry for entry in self.entries if entry not in seen]
        return f"{len(missing)} neighbour entries are missing" if missing else None

    def undo(self, before: State) -> tuple[Op, ...]:
        return ()  # they go with their interface, which the lab made


@operation
class SetSysctl(Op):
    """A switch of the kernel's network stack, such as ``net.ipv4.ip_forward``."""

    key: str
    value: str

    def argv(self) -> tuple[str, ...]:
        return ("sysctl", "-w", f"{self.key}={self.value}")

    def shell(self) -> str:
        path = "/proc/sys/" + self.key.replace(".", "/")
        return f"echo {shlex.quote(self.value)} >{path}"

    def holds(self, state: State) -> str | None:
        return _differs(self.key, state.net.sysctls.get(self.key, ""), self.value)

    def undo(self, before: State) -> tuple[Op, ...]:
        old = before.net.sysctls.get(self.key)
        return (SetSysctl(key=self.key, value=old),) if old is not None else ()


@operation
class PutKey(Op):
    """Writes a key to etcd; carried out by `vxlab.etcd`, wherever etcd runs."""

    key: str
    value: str

    def argv(self) -> tuple[str, ...]:
        return ("etcdctl", "put", self.key, self.value)

    def holds(self, state: State) -> str | None:
        return _differs(f"etcd's {self.key}", state.keys.get(self.key, ""), self.value)

    def undo(self, before: State) -> tuple[Op, ...]:
        return ()  # it ends with etcd, which belongs to the lab


# --- processes ----------------------------------------------------------------------------------


def record_path(kind: str, name: str) -> str:
    """Where a node keeps "PID START" of a daemon or of a machine that it holds."""
    return f"{RECORDS}/{kind}/{name}"


@operation
class StartDaemon(Op):
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
        return self.again or _differs(
            f"{self.name}'s command", process.command, shlex.join(self.command)
        )

    def clears(self, state: State) -> tuple[Op, ...]:
        process = state.daemons.get(self.name)
        return (StopDaemon(name=self.name),) if process and process.alive else ()

    def undo(self, before: State) -> tuple[Op, ...]:
        return (StopDaemon(name=self.name),)


@operation
class StopDaemon(Op):
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


class _Machine(Op):
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
class StartNode(_Machine):
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
class StartContainer(_Machine):
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
class StopMachine(Op):
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


# --- what is to be done -------------------------------------------------------------------------


def pending(todo: Iterable[Op], state: State) -> list[tuple[Op, str]]:
    """The operations that the node does not look like yet, each with the reason, in order.

    What depends on something that is made anew is to be done again, whatever the snapshot shows:
    a new interface has nothing of the old one's, and a new machine nothing at all.
    """
    found: list[tuple[Op, str]] = []
    anew: set[tuple[str, str]] = set()  # (namespace, interface); no interface: all of it
    for op in todo:
        reason = op.holds(state)
        name = getattr(op, "name", "")
        if reason is None and not anew.isdisjoint({(op.ns, name), (op.ns, "")}):
            reason = f"{name or op.ns} is made anew"
        if reason is None:
            continue
        if isinstance(op, _Machine):
            anew.add((op.name, ""))
        elif isinstance(op, _NewLink):
            anew.add((op.ns, op.name))
            if isinstance(op, AddVeth):
                anew.add((op.peer_ns, op.peer))
        found.append((op, reason))
    return found
