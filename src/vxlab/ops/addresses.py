"""Addresses, routes, neighbour entries, and the switches of the network stack."""

from __future__ import annotations

import shlex

from vxlab.ops.links import OnLink
from vxlab.ops.op import NodeOp, Op, differs, operation
from vxlab.state import SYSCTL_DOTS, State


@operation
class AddAddress(OnLink):
    """Gives an interface its IPv4 address; the kernel adds the route to its network."""

    name: str
    address: str  # with prefix length

    def argv(self) -> tuple[str, ...]:
        return ("ip", "addr", "add", self.address, "dev", self.name)

    def holds(self, state: State) -> str | None:
        what = f"{self.name}'s address"
        return self.judged(
            state, lambda link: differs(what, " ".join(link.addresses), self.address)
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
class DelAddress(OnLink):
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
    via: str  # empty: what `dst` names is on the link itself
    dev: str

    def argv(self) -> tuple[str, ...]:
        via = ("via", self.via) if self.via else ()
        return ("ip", "route", "add", self.dst, *via, "dev", self.dev)

    def holds(self, state: State) -> str | None:
        route = state.net_of(self.ns).route(self.dst)
        if route is None:
            return f"no route to {self.dst}"
        seen = f"via {route.via} dev {route.dev}"
        return differs(f"the route to {self.dst}", seen, f"via {self.via} dev {self.dev}")

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
        seen = {(r.dst, r.via, r.dev) for r in state.net_of(self.ns).routes}
        exists = (self.dst, self.via, self.dev) in seen
        return f"a route to {self.dst} exists" if exists else None

    def undo(self, before: State) -> tuple[Op, ...]:
        return (AddRoute(dst=self.dst, via=self.via, dev=self.dev, ns=self.ns),)


@operation
class AddNeighbours(OnLink):
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
        return f"printf '%s\\n' {shlex.join(lines)} | {self.entering()}ip -batch -"

    def holds(self, state: State) -> str | None:
        net = state.net_of(self.ns)
        mine = (n for n in net.neighbours if n.dev == self.name and n.state == "PERMANENT")
        seen = {f"{n.address} {n.mac}" for n in mine}
        missing = [entry for entry in self.entries if entry not in seen]
        return f"{len(missing)} neighbour entries are missing" if missing else None

    def undo(self, before: State) -> tuple[Op, ...]:
        return ()  # they go with their interface, which the lab made


@operation
class SetSysctl(NodeOp):
    """A switch of the kernel's network stack, such as ``net.ipv4.ip_forward``."""

    key: str
    value: str

    def argv(self) -> tuple[str, ...]:
        return ("sysctl", "-w", f"{self.key}={self.value}")

    @property
    def path(self) -> str:
        """Where it is below /proc/sys."""
        return self.key.translate(SYSCTL_DOTS)

    def shell(self) -> str:
        path = shlex.quote(f"/proc/sys/{self.path}")
        write = f"echo {shlex.quote(self.value)} >{path}"
        # An interface may have gone since its switch was read.
        return f"[ ! -e {path} ] || {write}" if ".conf." in self.key else write

    def holds(self, state: State) -> str | None:
        return differs(self.key, state.net.sysctls.get(self.key, ""), self.value)

    def undo(self, before: State) -> tuple[Op, ...]:
        old = before.net.sysctls.get(self.key)
        if old is None:
            return ()
        back = [SetSysctl(key=self.key, value=old)]
        if self.key == "net.ipv4.ip_forward":
            # It overwrites every interface's own switches (Documentation/networking/ip-sysctl).
            seen = before.net.sysctls.items()
            back += [SetSysctl(key=k, value=v) for k, v in seen if k.startswith("net.ipv4.conf.")]
        return tuple(back)
