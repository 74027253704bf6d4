"""What is wrong with a lab file: all of it, collected before anything is said."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

#: The keys and list positions that lead to a value: ``("nodes", "node01", "address")``.
Path = tuple[str | int, ...]

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,40}")

#: Problems that are kept; nobody reads more of them at once.
MOST_PROBLEMS = 100

_LONGEST_QUOTE = 40  # characters of the user's text that a message repeats


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing in a lab file that no network can be built from.

    Args:
        file: the lab file, as the user named it.
        line: its line, counted from 1; 0 when there is no text, such as for a missing file.
        path: which value, such as ``nodes.node01.address``; empty for the file as a whole.
        found: what is there.
        wanted: what can be there.
        hint: what to do, or why; may be empty.
    """

    file: str
    line: int
    path: str
    found: str
    wanted: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        path = f"{self.path}: " if self.path else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}: {path}found {self.found}, wanted {self.wanted}{hint}"


class Findings:
    """The problems of one lab file, and which of its values cannot be relied on.

    A later check asks `sound` for the values that it builds on, so that one mistake is reported
    once and not again by everything that depends on it.

    Args:
        source: the file's name for messages.
        lines: the line of every value that the file spells out, in the file's order.
    """

    def __init__(self, source: str, lines: Mapping[Path, int] | None = None) -> None:
        self.source = source
        self.lines: dict[Path, int] = dict(lines or {})
        self._problems: list[Problem] = []
        self._doubtful: set[Path] = set()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Every problem, in the order of the file's lines."""
        return tuple(sorted(self._problems, key=lambda problem: problem.line))

    @property
    def full(self) -> bool:
        """Whether further problems are not kept any more."""
        return len(self._problems) >= MOST_PROBLEMS

    def add(
        self,
        path: Path,
        found: str,
        wanted: str,
        hint: str = "",
        *,
        line: int | None = None,
        doubt: bool = True,
    ) -> None:
        """Note a problem and, unless told otherwise, distrust the value it is about."""
        if doubt:
            self.doubt(path)
        if self.full:
            return
        where = self._line(path) if line is None else line
        file = self.source if self.source.isprintable() else quote(self.source)
        self._problems.append(Problem(file, where, dotted(path), found, wanted, hint))

    def doubt(self, path: Path) -> None:
        """Keep later checks from building on a value."""
        self._doubtful.add(path)

    def sound(self, *paths: Path) -> bool:
        """Whether neither the values nor anything around them had a problem."""
        return not any(path[:n] in self._doubtful for path in paths for n in range(len(path) + 1))

    def written(self, path: Path) -> tuple[str, ...]:
        """The keys that the file has under a path, in the order the user wrote them."""
        return tuple(str(p[-1]) for p in self.lines if p and p[:-1] == path)

    def _line(self, path: Path) -> int:
        """The value's line, or that of the nearest thing around it that the file spells out."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return 0


def dotted(path: Path) -> str:
    """A path as people write it: ``nodes.node01.containers[1]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        text += "." if text else ""
        text += part if _PLAIN_KEY.fullmatch(part) else quote(part)
    return text


def quote(text: str) -> str:
    """The user's text, safe on a terminal: one line, no control characters, not too long."""
    return repr(text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 3] + "...")


def closest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, or an empty string."""
    # difflib is for the unlucky only; it costs more to import than the rest of this module.
    from difflib import get_close_matches

    by_plain = {_plain(name): name for name in known}
    match = get_close_matches(_plain(word[:_LONGEST_QUOTE]), by_plain, n=1, cutoff=0.6)
    return by_plain[match[0]] if match else ""


def _plain(word: str) -> str:
    return word.casefold().replace("-", "_")
