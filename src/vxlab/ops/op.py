"""What an operation is, and how the journal writes it down and finds it again."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar, dataclass_transform

from vxlab.state import State


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
        return self.entering() + shlex.join(self.argv())

    def entering(self) -> str:
        """What `shell` begins with, to run its command in the network namespace `ns`."""
        return f'nsenter -n -t "$(pid {self.ns})" ' if self.ns else ""

    def __str__(self) -> str:
        return (f"{self.ns}# " if self.ns else "") + shlex.join(self.argv())


@dataclass(frozen=True, kw_only=True)
class NodeOp(Op):
    """A change to the node as a whole, never to a machine held there.

    Raises:
        ValueError: a `ns` was given.
    """

    def __post_init__(self) -> None:
        if self.ns:
            raise ValueError(f"{type(self).__name__} is for a node itself, not for {self.ns!r}")


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
    if not isinstance(data, dict):
        raise ValueError(f"an operation is a JSON object, not {data!r}")
    rest = dict(data)
    name = rest.pop("op", None)
    cls = REGISTRY.get(name) if isinstance(name, str) else None
    if cls is None:
        raise ValueError(f"no operation called {name!r}")
    try:
        made: Any = cls
        op = made(**{k: tuple(v) if isinstance(v, list) else v for k, v in rest.items()})
        assert isinstance(op, Op)  # noqa: S101
        return op
    except TypeError:
        wanted = ", ".join(f.name for f in fields(cls))
        raise ValueError(f"{cls.__name__} has the fields {wanted}, not {sorted(rest)}") from None


def differs(what: str, seen: object, wanted: object) -> str | None:
    return None if seen == wanted else f"{what} is {seen or 'unset'}, wanted {wanted}"
