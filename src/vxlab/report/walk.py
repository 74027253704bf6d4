"""The walk as a person reads it: headings, prose, commands, outputs, packets; line by line.

Nothing is ever drawn over: what was printed stays, so that nothing flickers and a recording or a
pipe gets the same text as a terminal.
"""

from __future__ import annotations

import re
import shlex
import shutil
import textwrap
from collections.abc import Iterable, Iterator

from vxlab.engine.events import OpDone
from vxlab.engine.walk import Differs, Done, Opened, Seen, Sent, Step
from vxlab.report.drawing import drawing, summary
from vxlab.report.text import say, style

_PROSE = 88  # columns that are still read with ease
_LISTED = 2  # nodes whose commands are shown; the others get the same ones


def columns() -> int:
    """The terminal's width; 80 where there is none (COLUMNS overrides)."""
    return max(shutil.get_terminal_size().columns, 40)


def show(step: Step) -> None:
    """Print what happened."""
    match step:
        case Opened():
            _opened(step)
        case Done():
            _done(step)
        case Seen():
            _seen(step)
        case Sent():
            _sent(step)
        case Differs():
            say()
            say(style("  This is not what the talk says.", "red"))
            say(paragraph(step.expected, " " * 12, "  expected  "))
            say(paragraph(step.seen, " " * 12, "  seen      "))


def paragraph(words: str, indent: str = "  ", first: str | None = None) -> str:
    """Prose that fits the terminal, and is not wider than one reads with ease."""
    width = min(columns(), _PROSE)
    begin = indent if first is None else first
    return textwrap.fill(
        words,
        width,
        initial_indent=begin,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _opened(step: Opened) -> None:
    head = f"{step.number} of {step.count} · {step.stage.name}: {step.title} "
    say()
    say(style(head + "─" * max(min(columns(), _PROSE) - len(head), 0), "bold"))
    say()
    say(paragraph(step.lesson))


# --- commands -----------------------------------------------------------------------------------


def _done(step: Done) -> None:
    """The commands of a step, node by node; of many nodes only the first ones'."""
    if not step.changes:
        return
    say()
    by_node: dict[str, list[OpDone]] = {}
    for change in step.changes:
        by_node.setdefault(change.node, []).append(change)
    for number, mine in enumerate(by_node.values()):
        if number < _LISTED:
            for change in mine:
                op = change.op
                prefix = f"{op.ns}# " if op.ns else ""
                _typed(op.ns or change.node, str(op).removeprefix(prefix))
    rest = list(by_node)[_LISTED:]
    if rest:
        say(style(f"  and the same on {', '.join(rest)}", "dim"))
    _remark(step.remark)


def _typed(place: str, command: str) -> None:
    """A command at its prompt; a long one goes on in the next line as a person would type it."""
    room = columns()
    lines = list(folded(command, room - 4 - len(place) - 2, room - 8))
    begin = f"  {style(f'{place}#', 'cyan')} "
    for number, line in enumerate(lines):
        end = " \\" if number + 1 < len(lines) else ""
        # A single word can be too long: it goes on below itself, where a comma lets it.
        *parts, last = broken(line, room - 8)
        for part in parts:
            say(f"{begin}{style(part, 'bold')}")
            begin = " " * 8
        say(f"{begin}{style(last, 'bold')}{end}")
        begin = " " * 6


def broken(line: str, room: int) -> list[str]:
    """A line in parts that fit: broken at blanks, else after commas, else anywhere."""
    parts = [""]
    for piece in re.findall(r"\s*(?:[^\s,]+,?|,)", line):
        if len(parts[-1]) + len(piece) > room and parts[-1]:
            parts.append("")
        words = piece if parts[-1] or len(parts) == 1 else piece.lstrip()
        while len(words) > room:
            parts[-1], words = words[:room], words[room:]
            parts.append("")
        parts[-1] += words
    return parts


def folded(command: str, first: int, later: int) -> Iterator[str]:
    """A command in lines that end between words, outside of quotes.

    Args:
        command: as typed.
        first: characters that the first line may have.
        later: characters that the other lines may have.
    """
    line = ""
    for word in words_of(command):
        if line and len(line) + 1 + len(word) > first:
            yield line
            line, first = word, later
        else:
            line = f"{line} {word}" if line else word
    yield line


def words_of(command: str) -> list[str]:
    """A command's words with their quotes; joined by blanks they are the command again."""
    words = re.findall(r"""(?:[^\s'"]|'[^']*'|"[^"]*")+""", command)
    return words if " ".join(words) == command and _same(words, command) else [command]


def _same(words: Iterable[str], command: str) -> bool:
    """Whether a shell would read the words as it reads the command."""
    try:
        return shlex.split(" ".join(words)) == shlex.split(command)
    except ValueError:
        return False


# --- outputs ------------------------------------------------------------------------------------


def _seen(step: Seen) -> None:
    if step.output:
        say()
    _typed(step.place, step.command)
    for line in step.output.rstrip().splitlines():
        for part in _fitting(line.rstrip().expandtabs(), cut=step.look.cut):
            say(f"  {part}".rstrip())
    if step.differs is None:
        _remark(step.remark)


def _fitting(line: str, *, cut: bool) -> list[str]:
    """A line of output that the terminal would break: cut off, or wrapped between words."""
    room = columns() - 2
    if len(line) <= room:
        return [line]
    if cut:
        return [line[: room - 1] + "…"]
    hang = " " * (len(line) - len(line.lstrip()) + 4)
    first, *more = broken(line, room - len(hang))
    return [first, *(hang + part for part in more)]


def _remark(remark: str) -> None:
    """What to see in it."""
    if remark:
        say(style(paragraph(remark, "    ", "  → "), "green"))


# --- packets ------------------------------------------------------------------------------------


def _sent(step: Sent) -> None:
    may = "don't fragment" if step.df else "may be fragmented"
    say()
    say(style(f"  {step.src} sends {step.size} bytes to {step.dst}, {may}", "bold"))
    rows = [("answer", _echo(step))]
    rows += [("cable", line) for packet in step.cable for line in summary(packet)]
    for number, packet in enumerate(step.wire, 1):
        first, *more = summary(packet)
        rows.append((f"{step.nic} {number}", first))
        rows += [("", line) for line in more]
    if not step.wire:
        rows.append((step.nic, "nothing leaves the node"))
    wide = max(len(label) for label, _ in rows)
    for label, words in rows:
        begin = f"  {style(f'{label:<{wide}}', 'dim')}  "
        say(begin + paragraph(words, " " * (wide + 4)).lstrip())
    if step.differs is None:
        _remark(step.remark)
    if step.draw and step.wire and step.differs is None:
        say()
        say(drawing(step.wire[0]))


def _echo(step: Sent) -> str:
    return "it comes back" if step.echo.ok else step.echo.error
