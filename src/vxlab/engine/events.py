"""What the engine tells while it works. Progress, logs and tests hang on this one stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vxlab.ops import Op


@dataclass(frozen=True, slots=True)
class StepStarted:
    """Work on a step began on a node (for etcd's keys and the switch: on the one that has it)."""

    step: str
    node: str


@dataclass(frozen=True, slots=True)
class OpDone:
    """An operation was carried out, and why it was needed (no reason: it makes room)."""

    step: str
    node: str
    op: Op
    reason: str


@dataclass(frozen=True, slots=True)
class StepFinished:
    """A step is done on a node. `seconds` holds the waiting, too."""

    step: str
    node: str
    seconds: float
    changes: int


@dataclass(frozen=True, slots=True)
class Told:
    """Something a person should know, such as a flanneld that was started again."""

    node: str
    text: str


@dataclass(frozen=True, slots=True)
class Preparing:
    """What is being done before the first step; each replaces the one before."""

    text: str


Event = Preparing | StepStarted | OpDone | StepFinished | Told
Emit = Callable[[Event], None]
