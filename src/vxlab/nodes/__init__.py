"""A node is a machine, wherever it is: steps and checks meet this protocol only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from vxlab import state
from vxlab.errors import OperationError
from vxlab.ops import Op
from vxlab.state import State


@dataclass(frozen=True, slots=True)
class Completed:
    """How a command on a node ended."""

    code: int
    out: str
    err: str


def parsed(node: str, output: str) -> State:
    """What a node looks like, out of what the program of `state.program` printed there.

    Raises:
        OperationError: it is incomplete or malformed; shows its end.
    """
    try:
        return state.parse(output)
    except state.SnapshotError as error:
        raise OperationError(
            "cannot read the node", where=node, detail=f"{error}\n{output[-500:]}"
        ) from None


def down(machine: str, where: str) -> OperationError:
    """The answer to who asks for a node or a container that does not run."""
    hint = "run `vxlab up` to repair it"
    return OperationError(f"{machine} does not run", where=where, hint=hint)


class Node(Protocol):
    """A machine of the lab: what can be done on it and read from it."""

    name: str
    pace: float  # seconds between two looks at something that is waited for

    def apply(
        self, todo: Sequence[Op], done: Callable[[Op], None], undo: Sequence[Op] = ()
    ) -> None:
        """Carry operations out in order; `done` is told of each that succeeded.

        `undo`, what takes them back, is in the node's journal before the first is begun.

        Raises:
            OperationError: one failed; names node, operation and what the kernel said.
        """

    def running(self) -> bool:
        """Whether the machine is there at all."""

    def snapshot(self) -> State:
        """What the node looks like now."""

    def read(self, path: str) -> str | None:
        """A file of the node, None if there is none."""

    def routes(self) -> str:
        """The node's ``/proc/net/route``."""

    def alive(self, daemon: str) -> bool:
        """Whether a daemon that was started there still runs."""

    def close(self) -> None:
        """Let go of sockets and connections; the node itself goes on."""


class Etcd(Protocol):
    """The lab's etcd, wherever it runs."""

    def wait_healthy(self, timeout: float = 15.0) -> str:
        """Wait until etcd serves; the version it tells.

        Raises:
            DaemonError: it ended, or it is not healthy after `timeout` seconds.
        """

    def keys(self) -> dict[str, str]:
        """flannel's keys with their values."""

    def put(self, key: str, value: str) -> None:
        """Write a key and read it back."""

    def close(self) -> None:
        """Let go of the connection."""
