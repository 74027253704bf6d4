"""A node is a machine, wherever it is: steps and checks meet this protocol only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from vxlab.ops import Op
from vxlab.state import State


@dataclass(frozen=True, slots=True)
class Completed:
    """How a command on a node ended."""

    code: int
    out: str
    err: str


class Node(Protocol):
    """A machine of the lab: what can be done on it and read from it."""

    name: str

    def apply(self, todo: Sequence[Op], done: Callable[[Op], None]) -> None:
        """Carry operations out in order; `done` is told of each that succeeded.

        Raises:
            OperationError: one failed; names node, operation and what the kernel said.
        """

    def snapshot(self) -> State:
        """What the node looks like now."""

    def read(self, path: str) -> str | None:
        """A file of the node, None if there is none."""

    def run(self, argv: Sequence[str], *, stdin: str = "") -> Completed:
        """Run a command on the node as root and wait for it."""

    def alive(self, daemon: str) -> bool:
        """Whether a daemon that was started there still runs."""

    def close(self) -> None:
        """Let go of sockets and connections; the node itself goes on."""
