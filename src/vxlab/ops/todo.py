"""What is to be done on a node, and why."""

from __future__ import annotations

from collections.abc import Iterable

from vxlab.ops.links import AddVeth, DelLink, NewLink
from vxlab.ops.op import Op
from vxlab.ops.processes import Machine, StopMachine
from vxlab.state import State

#: (namespace, interface); without an interface: the machine and all that is in it.
_Place = tuple[str, str]


def pending(todo: Iterable[Op], state: State) -> list[tuple[Op, str]]:
    """The operations that the node does not look like yet, each with the reason, in order.

    What depends on something that is made anew is to be done again, whatever the snapshot shows:
    a new interface has nothing of the old one's, neither addresses nor ports, and a new machine
    nothing at all.
    """
    found: list[tuple[Op, str]] = []
    anew: set[_Place] = set()
    for op in todo:
        reason = op.holds(state)
        if reason is None and (lost := _needs(op) & anew):
            ns, name = min(lost)  # the machine before what is in it
            reason = f"{name or ns} is made anew"
        if reason is not None:
            anew |= _makes(op)
            found.append((op, reason))
    return found


def cleared(todo: Iterable[Op], state: State) -> list[Op]:
    """The operations, each after those that take out of its way what the node has there.

    Nothing is in the way on what is made anew before it.
    """
    every: list[Op] = []
    anew: set[_Place] = set()
    for op in todo:
        if not _needs(op) & anew:
            every += op.clears(state)
        anew |= _makes(op)
        every.append(op)
    return every


def outlasting(undo: Iterable[Op]) -> list[Op]:
    """An undo without what goes with an interface or a machine that it removes anyway.

    So a host is not told to set the MTU of a cable that is pulled out a moment later.
    """
    undo = list(undo)
    gone: set[_Place] = {(op.ns, op.name) for op in undo if isinstance(op, DelLink)}
    gone |= {(op.name, "") for op in undo if isinstance(op, StopMachine)}
    return [op for op in undo if isinstance(op, DelLink | StopMachine) or not _needs(op) & gone]


def _makes(op: Op) -> set[_Place]:
    if isinstance(op, Machine):
        return {(op.name, "")}
    if isinstance(op, AddVeth):
        return {(op.ns, op.name), (op.peer_ns, op.peer)}
    return {(op.ns, op.name)} if isinstance(op, NewLink) else set()


def _needs(op: Op) -> set[_Place]:
    """What must be there for the operation: its interface, its bridge, the machine it is in."""
    names = {getattr(op, word, "") for word in ("name", "master", "dev")}
    return {(op.ns, name) for name in (*names, "")}
