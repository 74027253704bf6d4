"""A finding about a real host, and how it is put into words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_NAMED = 4  # things that a line names before it only counts the others


@dataclass(frozen=True, slots=True)
class HostFinding:
    """One thing that the lab needs from a host, and whether it is there."""

    host: str
    code: str  # stable, such as port-etcd
    ok: bool | None  # None: the lab works all the same, but somebody should know
    title: str
    seen: str
    wanted: str
    todo: str = ""  # what to do about it, a line each; empty if nothing


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about a host; its answers are findings."""

    host: str
    code: str
    title: str
    wanted: str

    def good(self, seen: str) -> HostFinding:
        return HostFinding(self.host, self.code, True, self.title, seen, self.wanted)

    def bad(self, seen: str, todo: str = "") -> HostFinding:
        return HostFinding(self.host, self.code, False, self.title, seen, self.wanted, todo)

    def odd(self, seen: str, todo: str = "") -> HostFinding:
        """The lab works all the same, but somebody should know."""
        return HostFinding(self.host, self.code, None, self.title, seen, self.wanted, todo)


def some(names: Iterable[str]) -> str:
    """A few names with commas, and how many more there are."""
    every = list(names)
    shown = every[:_NAMED]
    if len(every) > _NAMED + 1:
        return f"{', '.join(shown)} and {len(every) - _NAMED} more"
    return ", ".join(every)
