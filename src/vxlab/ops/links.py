"""Interfaces: bridges, cables, and what is set on them."""

from __future__ import annotations

import shlex
from collections.abc import Callable

from vxlab.ops.op import Op, differs, operation
from vxlab.state import Link, State


class OnLink(Op):
    """What all operations on an interface share."""

    name: str

    def link(self, state: State) -> Link | None:
        return state.net_of(self.ns).links.get(self.name)

    def judged(self, state: State, judge: Callable[[Link], str | None]) -> str | None:
        link = self.link(state)
        return f"{self.name} does not exist" if link is None else judge(link)


class NewLink(OnLink):
    """What makes an interface: whatever has its name goes first, and undo removes it."""

    def clears(self, state: State) -> tuple[Op, ...]:
        return (DelLink(name=self.name, ns=self.ns),) if self.link(state) else ()

    def undo(self, before: State) -> tuple[Op, ...]:
        return (DelLink(name=self.name, ns=self.ns),)

    def wrong_kind(self, link: Link, wanted: str) -> str | None:
        seen = link.kind or "device"
        return None if seen == wanted else f"{self.name} is a {seen}, wanted a {wanted}"


@operation
class AddBridge(NewLink):
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
class AddVeth(NewLink):
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
        return f'{self.entering()}{shlex.join(self.argv()[:-1])} "$(pid {self.peer_ns})"'

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
class DelLink(OnLink):
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
class SetMaster(OnLink):
    """Plugs an interface into a bridge, or pulls it out when `master` is empty."""

    name: str
    master: str

    def argv(self) -> tuple[str, ...]:
        tail = ("master", self.master) if self.master else ("nomaster",)
        return ("ip", "link", "set", self.name, *tail)

    def holds(self, state: State) -> str | None:
        what = f"{self.name}'s bridge"
        return self.judged(state, lambda link: differs(what, link.master, self.master))

    def undo(self, before: State) -> tuple[Op, ...]:
        link = self.link(before)
        return (SetMaster(name=self.name, master=link.master, ns=self.ns),) if link else ()


@operation
class SetMtu(OnLink):
    """The largest IP packet, in bytes, that the interface sends without fragmenting it."""

    name: str
    mtu: int

    def argv(self) -> tuple[str, ...]:
        return ("ip", "link", "set", "dev", self.name, "mtu", str(self.mtu))

    def holds(self, state: State) -> str | None:
        what = f"{self.name}'s MTU"
        return self.judged(state, lambda link: differs(what, link.mtu, self.mtu))

    def undo(self, before: State) -> tuple[Op, ...]:
        link = self.link(before)
        return (SetMtu(name=self.name, mtu=link.mtu, ns=self.ns),) if link else ()


@operation
class SetUp(OnLink):
    """Switches an interface on (or off)."""

    name: str
    up: bool = True

    def argv(self) -> tuple[str, ...]:
        return ("ip", "link", "set", self.name, "up" if self.up else "down")

    def holds(self, state: State) -> str | None:
        words = {True: "up", False: "down"}
        return self.judged(state, lambda ln: differs(self.name, words[ln.up], words[self.up]))

    def undo(self, before: State) -> tuple[Op, ...]:
        link = self.link(before)
        return (SetUp(name=self.name, up=link.up, ns=self.ns),) if link else ()


@operation
class SetMac(OnLink):
    """Gives an interface a MAC address that a person recognises."""

    name: str
    mac: str

    def argv(self) -> tuple[str, ...]:
        return ("ip", "link", "set", "dev", self.name, "address", self.mac)

    def holds(self, state: State) -> str | None:
        what = f"{self.name}'s MAC"
        return self.judged(state, lambda link: differs(what, link.mac, self.mac))

    def undo(self, before: State) -> tuple[Op, ...]:
        link = self.link(before)
        return (SetMac(name=self.name, mac=link.mac, ns=self.ns),) if link else ()


@operation
class SetAlias(OnLink):
    """Marks an interface as this lab's own, where ``ip link`` shows it."""

    name: str
    alias: str

    def argv(self) -> tuple[str, ...]:
        return ("ip", "link", "set", self.name, "alias", self.alias)

    def holds(self, state: State) -> str | None:
        what = f"{self.name}'s alias"
        return self.judged(state, lambda link: differs(what, link.alias, self.alias))

    def undo(self, before: State) -> tuple[Op, ...]:
        link = self.link(before)
        return (SetAlias(name=self.name, alias=link.alias, ns=self.ns),) if link else ()
