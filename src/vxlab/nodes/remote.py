"""Nodes that are real hosts behind SSH. They are not ours: what is changed is journaled there.

Operations go as one shell program per step through the connection's root shell; each one's success
is read back as its mark comes.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vxlab import script, state
from vxlab.errors import BusyError, OperationError, UnreachableError, VxlabError
from vxlab.journal import boot_id, process_start
from vxlab.lab import Lab
from vxlab.nodes import ledger, parsed
from vxlab.nodes.ledger import Ledger
from vxlab.nodes.local import entering
from vxlab.ops import Op, record_path
from vxlab.ssh import Ask, Connection
from vxlab.state import State
from vxlab.steps import host, tls
from vxlab.steps.site import Site

if TYPE_CHECKING:
    from vxlab.ssh import Stream

#: Hosts that are talked to at the same time.
WORKERS = 32

_PATIENCE = 10.0  # seconds until a shell without its vxlab has to be gone
_MOMENT = 1.0  # seconds until somebody who holds the lock has said who they are

_INTO = """\
 || {{ echo "{name} does not run" >&2; exit 70; }}
exec {enter} "$@"
"""

#: Closes the program's copy of the lock, so that no daemon inherits it.
_UNLOCKED = "exec 9<&-\n"


def _lives(kind: str, name: str) -> str:
    """The shell text that is true while what a record names runs; its PID is $p then."""
    record = shlex.quote(record_path(kind, name))
    return f'{state.BORN}read -r p t <{record} && [ -n "$t" ] && [ "$(born "$p")" = "$t" ]'


def _ended(who: Sequence[str]) -> bool:
    """Whether the vxlab that took a lock was one of this machine and is gone."""
    if len(who) < 3 or who[0] != boot_id() or not who[1].isdecimal():
        return False
    return str(process_start(int(who[1]))) != who[2]


class RemoteNode:
    """A real host of the lab.

    Args:
        name: the node's.
        lab: the lab's.
        connection: to the host, with a root shell.
    """

    #: Seconds between two looks at something that is waited for.
    pace = 0.02

    def __init__(self, name: str, lab: str, connection: Connection) -> None:
        self.name = name
        self.lab = lab
        self.connection = connection
        self.ledger = Ledger("", (), ())
        self._files: tuple[str, ...] = ()
        self._holds = False
        self._journaled = False  # whether this connection has written to the journal

    def watch(self, site: Site) -> None:
        """Have snapshots tell of the files that the lab has on this host."""
        member = site.lab.node(self.name)
        made = [op.path for op in host.places(site, member)]
        if site.lab.tls:
            made += [tls.path(site.lab, name) for name in tls.files(site.lab, member)]
        self._files = tuple(made)

    def running(self) -> bool:
        return True  # or nobody could have connected

    def close(self) -> None:
        if self._holds:
            self._holds = False
            with suppress(UnreachableError):  # then the lock has ended, and another may write there
                self.connection.run(ledger.unlock(), outer=True)
        self.connection.close()

    # --- the host's own book-keeping ------------------------------------------------------------

    def take(self, command: str, *, make: bool) -> None:
        """Hold the host for one command, until the connection ends.

        Raises:
            BusyError: another vxlab holds it; says which.
            OperationError: there is no room to say who holds it.
        """
        me = f"{boot_id()} {os.getpid()} {process_start(os.getpid())} {command}"
        text = ledger.lock(f"{me} from {os.uname().nodename}", make=make)
        begun = time.monotonic()
        while "@@ locked" not in (output := self.connection.run(text, outer=True)):
            if "@@ busy" not in output:
                what = "cannot make a place for the journal"
                raise OperationError(what, where=self.name, detail=output.strip())
            shell, start, *who = output.rpartition("@@ busy ")[2].split() or ["", ""]
            # One that says nothing of itself is about to, or has just taken its place away.
            patience = _PATIENCE if _ended(who) else 0.0 if who else _MOMENT
            if time.monotonic() - begun > patience:
                raise BusyError(
                    f"another vxlab works on this host: {' '.join(who[3:]) or 'it just started'}",
                    where=self.name,
                    hint="wait for it to end, or stop it, then try again",
                )
            if who:  # that vxlab is gone; its shell waits for a connection that will not come back
                self.script(ledger.release(shell, start))
            time.sleep(self.pace)
        self._holds = True

    def look_up(self) -> Ledger:
        """Read the host's journals.

        Raises:
            JournalError: the lab's journal there is damaged.
        """
        output = self.script(ledger.read(self.lab))
        self.ledger = ledger.parse(self.name, self.lab, output)
        return self.ledger

    # --- changing -------------------------------------------------------------------------------

    def apply(
        self, todo: Sequence[Op], done: Callable[[Op], None], undo: Sequence[Op] = ()
    ) -> None:
        """One program: the undo is journaled on the host, then the operations are carried out."""
        first = ""
        if undo:
            first = ledger.append(self.lab, self.ledger.boot, undo, whole=self._journaled)
        reading = script.Reading(self.name, todo, done)
        self.script(script.program(todo, first=first), reading.line)
        self._journaled = self._journaled or bool(undo)
        for error in reading.failures():
            raise error

    def take_back(self, undo: Sequence[Op], done: Callable[[Op], None]) -> list[OperationError]:
        """Carry an undo out, all of it; what could not be done is returned."""
        reading = script.Reading(self.name, undo, done)
        self.script(script.program(undo, every=True), reading.line)
        return reading.failures()

    # --- reading --------------------------------------------------------------------------------

    def snapshot(self) -> State:
        return parsed(self.name, self.script(state.program(files=self._files)))

    def read(self, path: str) -> str | None:
        word = shlex.quote(path)
        output = self.script(f"if [ -f {word} ]; then echo '@@ file'; cat {word}; fi\n")
        return output.removeprefix("@@ file\n") if output.startswith("@@ file\n") else None

    def routes(self) -> str:
        """The host's ``/proc/net/route``."""
        return self.script("cat /proc/net/route\n")

    def alive(self, daemon: str) -> bool:
        return self._is(_lives("daemons", daemon))

    def _is(self, condition: str) -> bool:
        return "@@ yes" in self.script(f"{{ {condition} && echo '@@ yes'; }} 2>/dev/null\n")

    def lives(self, container: str) -> bool:
        """Whether a container of this host runs."""
        return self._is(_lives("machines", container))

    def script(self, program: str, line: Callable[[str], None] | None = None) -> str:
        """Run a shell program as root; returns all that it prints."""
        return self.connection.run(_UNLOCKED + program, line)

    def into(self, container: str) -> list[str]:
        """The command line that runs a program in a container (empty: on the host itself)."""
        if not container:
            return []
        enter = " ".join(entering("/proc/$p", user=True, root=True))
        program = _lives("machines", container) + _INTO.format(name=container, enter=enter)
        return ["sh", "-c", program, "sh"]

    def stream(self, argv: Sequence[str], *, stdin: bool = False) -> Stream:
        """Start a command as root on a channel of its own."""
        return self.connection.stream(argv, stdin=stdin)


@dataclass(frozen=True, slots=True)
class Login:
    """How to get into hosts: whom to ask for secrets, and whether new host keys are accepted."""

    ask: Ask
    accept_new: bool = False


def targets(lab: Lab) -> dict[str, str]:
    """Where a lab's hosts are: ``user@host:port`` by node."""
    return {node.name: node.ssh for node in lab.nodes}


def connect(lab: str, hosts: Mapping[str, str], login: Login) -> dict[str, RemoteNode | VxlabError]:
    """Connect to several hosts at once; for each its node, or why there is none.

    Args:
        lab: the lab's name.
        hosts: see `targets`.
        login: how to get into them.
    """

    def open_one(name: str) -> RemoteNode | VxlabError:
        try:
            connection = Connection.open(
                name, hosts[name], ask=login.ask, accept_new=login.accept_new
            )
        except VxlabError as error:
            return error
        return RemoteNode(name, lab, connection)

    with ThreadPoolExecutor(WORKERS) as pool:
        return dict(zip(hosts, pool.map(open_one, hosts), strict=True))


def connected(lab: str, hosts: Mapping[str, str], login: Login) -> dict[str, RemoteNode]:
    """Connect to several hosts, all of them.

    Raises:
        VxlabError: one of them cannot be reached or refuses; of several, all are told.
    """
    found = connect(lab, hosts, login)
    failed = [error for error in found.values() if isinstance(error, VxlabError)]
    nodes = {name: node for name, node in found.items() if isinstance(node, RemoteNode)}
    if not failed:
        return nodes
    close(nodes)
    raise together(failed)


def close(nodes: Mapping[str, RemoteNode]) -> None:
    """Let go of several hosts at once; each waits until its root shell has ended."""
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(RemoteNode.close, nodes.values()))


def together(errors: Sequence[VxlabError]) -> VxlabError:
    """One error that tells of several; the first decides its kind."""
    first = errors[0]
    if len(errors) == 1:
        return first
    lines = [f"{e.where}: {e.message}" + (f" ({e.detail})" if e.detail else "") for e in errors]
    hints = dict.fromkeys(e.hint for e in errors if e.hint)
    return type(first)(
        f"{len(errors)} hosts failed", detail="\n".join(lines), hint="\n".join(hints)
    )
