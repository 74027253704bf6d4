"""What a real host lends to a lab and gets back: places, files, routes, the firewall."""

from __future__ import annotations

import hashlib
import shlex

from vxlab.ops.links import DelLink
from vxlab.ops.op import NodeOp, Op, operation
from vxlab.ops.processes import StartDaemon
from vxlab.state import Firewall, State


@operation
class MakePlace(NodeOp):
    """A directory or an empty log that the lab makes on a host; nothing is there before."""

    path: str
    directory: bool = True

    def argv(self) -> tuple[str, ...]:
        return ("mkdir", "-p", self.path) if self.directory else ("touch", self.path)

    def holds(self, state: State) -> str | None:
        return None if self.path in state.files else f"{self.path} does not exist"

    def undo(self, before: State) -> tuple[Op, ...]:
        return (Remove(path=self.path),)


@operation
class PutFile(NodeOp):
    """A file with its text. Without the text, which may be a secret, it only has to be there."""

    path: str
    text: str = ""
    mode: str = "600"

    def argv(self) -> tuple[str, ...]:
        return ("install", "-D", "-m", self.mode, "/dev/stdin", self.path)

    def shell(self) -> str:
        draft = shlex.quote(f"{self.path}.new")
        # printf is the shell's own: the text is on no command line that others can see. But dash's
        # does not say what the kernel said; cat does.
        return (
            f"umask 077; mkdir -p {shlex.quote(self.path.rpartition('/')[0])} &&"
            f" printf %s {shlex.quote(self.text)} | cat >{draft} &&"
            f" chmod {self.mode} {draft} && mv {draft} {shlex.quote(self.path)}"
        )

    def holds(self, state: State) -> str | None:
        seen = state.files.get(self.path)
        if seen is None:
            return f"{self.path} does not exist"
        other = self.text and seen != hashlib.sha256(self.text.encode()).hexdigest()
        return f"{self.path} has other contents" if other else None

    def undo(self, before: State) -> tuple[Op, ...]:
        return (Remove(path=self.path),)


@operation
class Remove(NodeOp):
    """Removes a file, or a directory with all that is in it, but nothing that is mounted there."""

    path: str

    def argv(self) -> tuple[str, ...]:
        return ("rm", "-rf", self.path)

    def shell(self) -> str:
        return f"remove {shlex.quote(self.path)}"

    def holds(self, state: State) -> str | None:
        return f"{self.path} exists" if self.path in state.files else None

    def undo(self, before: State) -> tuple[Op, ...]:
        return ()  # it only ever takes back what vxlab made


@operation
class FlushRoutes(NodeOp):
    """Removes the routes into the overlay network; host-gw's outlive the flanneld that set them."""

    network: str

    def argv(self) -> tuple[str, ...]:
        return ("ip", "route", "flush", "root", self.network)

    def shell(self) -> str:
        # Without any route there may be no table, which iproute2 calls an error.
        seen = shlex.join(("ip", "route", "show", "root", self.network))
        return f'[ -z "$({seen} 2>/dev/null)" ] || {super().shell()}'

    def holds(self, state: State) -> str | None:
        inside = state.net.routes_into(self.network)
        return f"routes into {self.network} exist" if inside else None

    def undo(self, before: State) -> tuple[Op, ...]:
        return ()  # the overlay network was free before


@operation
class RestoreFirewall(NodeOp):
    """Takes flannel's rules away and gives the FORWARD chain the policy that it had.

    flanneld sets the policy to ACCEPT once, at its start, and keeps a chain FLANNEL-FWD (flannel,
    pkg/trafficmngr/iptables). `table` and `chain` tell what iptables-nft had made before flannel
    came: it makes a table and its chains when they are first used.
    """

    policy: str
    table: bool
    chain: bool

    def argv(self) -> tuple[str, ...]:
        return ("iptables", "-P", "FORWARD", self.policy or "ACCEPT")

    def shell(self) -> str:
        words = (self.policy or "ACCEPT", str(int(self.table)), str(int(self.chain)))
        return f"restore_firewall {shlex.join(words)}"

    def holds(self, state: State) -> str | None:
        seen = state.firewall
        if seen == self.wanted():
            return None
        if seen is not None and seen.flannel:
            return "flannel's rules are in the firewall"
        return "the FORWARD chain is not as it was"

    def wanted(self) -> Firewall:
        return Firewall(self.policy, self.table, self.chain, flannel=False)

    def undo(self, before: State) -> tuple[Op, ...]:
        return ()


@operation
class StartFlanneld(StartDaemon):
    """Starts flanneld; what it puts into the kernel outlives it and goes with the undo.

    `device` is flannel's interface (none for host-gw), `network` the overlay's. `remake` says that
    an interface of that name is in the way: flanneld would take it over as it is.
    """

    device: str = ""
    network: str = ""
    remake: bool = False

    def holds(self, state: State) -> str | None:
        gone = super().holds(state)
        return f"{gone}; {self.again}" if gone and self.again and gone != self.again else gone

    def clears(self, state: State) -> tuple[Op, ...]:
        device = (DelLink(name=self.device),) if self.remake else ()
        return (*super().clears(state), *device)

    def undo(self, before: State) -> tuple[Op, ...]:
        back: list[Op] = [*super().undo(before)]
        if self.device:
            back.append(DelLink(name=self.device))
        back.append(FlushRoutes(network=self.network))
        seen = before.firewall
        # Where flannel's rules are already, an earlier start's undo knows what was before them.
        if seen is not None and not seen.flannel:
            back.append(RestoreFirewall(policy=seen.policy, table=seen.table, chain=seen.chain))
        return tuple(back)


#: What a reboot does not end. All else that an earlier boot's journal tells of is gone with it.
SURVIVES_REBOOT = (Remove, MakePlace, PutFile)
