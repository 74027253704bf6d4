"""Words, colours and errors on plain text; rich is not needed for these and not imported."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from vxlab.errors import VxlabError

_CODES = {"red": 31, "green": 32, "yellow": 33, "cyan": 36, "bold": 1, "dim": 2}

#: Verdicts as words and marks: a finding is good, bad, or could not be measured.
MARKS = {
    True: ("ok", "✔", "green"),
    False: ("FAILED", "✘", "red"),
    None: ("unknown", "?", "yellow"),
}


def coloured(stream: TextIO) -> bool:
    """Whether a stream gets colours: a terminal, unless NO_COLOR is set (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def style(text: str, colour: str, stream: TextIO | None = None) -> str:
    """The text in a colour, where the stream shows colours."""
    if not coloured(stream or sys.stdout):
        return text
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m"


def mark(ok: bool | None) -> str:
    """A verdict's mark; plain words where the output is not a terminal."""
    word, sign, colour = MARKS[ok]
    return style(sign, colour) if sys.stdout.isatty() else f"{word:<7}"


def say(text: str = "") -> None:
    """A line of output."""
    print(text, flush=True)


def tell(text: str) -> None:
    """A line beside the output, which must not get into a pipe."""
    print(text, file=sys.stderr, flush=True)


def doing(words: str) -> None:
    """What is being done, on a line that the next one replaces; only on a terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{words}{'...' if words else ''}", end="", file=sys.stderr, flush=True)


def dump(value: Any) -> None:
    """The command's whole output as one JSON document."""
    print(json.dumps(value, indent=2, ensure_ascii=False), flush=True)


def error(problem: VxlabError) -> None:
    """An error on stderr: what happened, where, what was said, what to do."""
    head = style("error:", "red", sys.stderr)
    tell(f"{head} {problem.message}")
    for label, value in (
        ("where", problem.where),
        ("said", problem.detail),
        ("do", problem.hint),
    ):
        for number, line in enumerate(value.splitlines()):
            shown = style(f"{'' if number else label:<6}", "dim", sys.stderr)
            tell(f"  {shown} {line}")


def seconds(value: float) -> str:
    """A duration as a person reads it."""
    return f"{value * 1000:.0f} ms" if value < 0.9995 else f"{value:.1f} s"


def plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def table(rows: list[list[str]], *, indent: str = "  ", header: list[str] | None = None) -> str:
    """Columns aligned by width; the header is dim."""
    every = [header, *rows] if header else rows
    widths = [max(len(row[i]) for row in every) for i in range(len(every[0]))] if every else []
    lines = []
    for row in every:
        cells = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        line = indent + cells.rstrip()
        lines.append(style(line, "dim") if row is header else line)
    return "\n".join(lines)


_LISTED = 24  # rows of a list that a person still reads


def reasons(rows: Iterable[tuple[str, str, str]]) -> None:
    """What differs: (node, step, reason), each once, cut where nobody would read on."""
    once = [list(row) for row in dict.fromkeys(rows)]
    say(table(once[:_LISTED]))
    if len(once) > _LISTED:
        say(style(f"  and {len(once) - _LISTED} more (--json has all)", "dim"))


def wrapped(words: str, indent: int, width: int) -> str:
    """Text that goes on under its own beginning where the terminal's line ends."""
    import textwrap

    room = max(width - indent, 30)
    lines = textwrap.wrap(words, room, break_long_words=False, break_on_hyphens=False)
    return ("\n" + " " * indent).join(lines)
