"""One command as it is typed: words that are quoted already, and where a long one may be folded."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

#: Where a line is not broken: between an option and its value, before what ends a command.
_WITH_NEXT = (
    *("|", "&&", "-c", "-t", "dev", "mtu", "via", "peer", "name", "netns", "put", "sh"),
    *("awk", "-F'[./]'", "-F'[ /]+'"),
)
_WITH_LAST = ("&", "$!")


@dataclass(frozen=True, slots=True)
class Command:
    """A command line of a POSIX shell.

    `words` are quoted for the shell. `note` says why, or what a value is; `broken` says what it
    means when the command fails, for scripts.
    """

    words: tuple[str, ...]
    note: str = ""
    broken: str = ""

    def __str__(self) -> str:
        return " ".join(self.words)

    def folded(self, width: int) -> list[str]:
        """The command in lines of at most `width` characters, each but the last with a backslash.

        A word is never cut: one that is longer has a line of its own.
        """
        lines = [self.words[0]]
        for word in self._pieces():
            if len(lines[-1]) + len(word) + 3 > width:
                lines[-1] += " \\"
                lines.append(f"  {word}")
            else:
                lines[-1] += f" {word}"
        return lines

    def _pieces(self) -> Iterator[str]:
        """The words after the first; what is short and belongs together is one piece."""
        before = ""
        for word, after in zip(self.words[1:], (*self.words[2:], ""), strict=True):
            piece = f"{before} {word}".lstrip()
            last = after in _WITH_LAST or after.startswith(("2>", "</"))
            if last or (after and word in _WITH_NEXT):
                before = piece
            else:
                before = ""
                yield piece


def typed(text: str, note: str = "", broken: str = "") -> Command:
    """A command of which every blank outside of quotes divides two words."""
    return Command(tuple(re.findall(r"""(?:[^\s'"]|'[^']*'|"[^"]*")+""", text)), note, broken)


def word(text: str, found: Mapping[str, str]) -> str:
    """A word, quoted; what stands for a value that is found later becomes that value's variable.

    Args:
        text: the word, such as ``10.5.0.1/24``.
        found: the texts that stand for values, with the shell text that has the value.
    """
    if not found:
        return shlex.quote(text)
    longest = sorted(found, key=len, reverse=True)
    pattern = "|".join(re.escape(each) for each in longest)
    parts = re.split(rf"(?<![\w.])({pattern})(?![\w.])", text)
    if len(parts) == 1:
        return shlex.quote(text)
    shown = (f'"{found[p]}"' if odd % 2 else shlex.quote(p) for odd, p in enumerate(parts) if p)
    return "".join(shown)


def quoted(argv: Iterable[str], found: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(word(each, found) for each in argv)
