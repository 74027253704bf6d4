"""``vxlab filter``'s answer, for people and for programs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vxlab.report import text
from vxlab.trace.talkfilter import WORDS

if TYPE_CHECKING:
    from vxlab.trace.bpfexplain import Explained
    from vxlab.trace.talkfilter import TalkFilter

_WIDEST = 120  # columns; longer lines are hard to read


@dataclass(frozen=True, slots=True)
class Answer:
    """The filter, and what its bytecode does.

    `missing` says why there is no bytecode.
    """

    made: TalkFilter
    notes: Sequence[str]
    interface: str
    program: Sequence[Explained]
    missing: str

    @property
    def command(self) -> str:
        """The line to type."""
        return f'tcpdump -n -i {self.interface} "{self.made.expression}"'


def as_json(answer: Answer, asked: str, lab: str | None) -> dict[str, Any]:
    """The answer as the stable object that ``--json`` prints.

    Args:
        answer: what was found.
        asked: the address or name of the command line.
        lab: the lab's name, if there is one.
    """
    made = answer.made
    wire = made.wire
    return {
        "asked": asked,
        "lab": lab,
        "address": str(made.address),
        "hexadecimal": made.hexadecimal,
        "backend": wire.backend,
        "port": wire.port if wire.encapsulated else None,
        "outer": f"IPv{wire.outer}" if wire.encapsulated else None,
        "inner": f"IPv{made.version}",
        "vlan": wire.vlan,
        "interface": answer.interface,
        "filter": made.expression,
        "command": answer.command,
        "surer": made.surer or None,
        "offsets": {end: made.offset(end) for end in made.ends},
        "headers": [{"name": r.name, "start": r.start, "bytes": r.size} for r in made.rows],
        "overhead": made.overhead,
        "limits": [{"what": e.words, "instead": e.remedy or None} for e in made.limits],
        "bytecode": [
            {
                "number": e.number,
                "assembly": e.assembly,
                "decimal": " ".join(map(str, e.instruction)),
                "words": e.words,
            }
            for e in answer.program
        ],
        "bytecode_missing": answer.missing or None,
        "notes": list(answer.notes),
    }


def show(answer: Answer) -> None:
    """Print the answer for a person, as wide as the terminal is."""
    made = answer.made
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    for note in answer.notes:
        text.say(text.style(text.wrapped(note, 0, width), "dim"))
    text.say(f"{made.address} in hexadecimal is {text.style(made.hexadecimal, 'bold')}")
    text.say()
    text.say("  " + text.style(answer.command, "cyan"))
    text.say()
    _show_sum(made, width)
    _show_limits(made, width)
    _show_program(answer, width)


def _heading(words: str, width: int) -> None:
    head, mark, rest = words.partition(":")
    body = text.wrapped(rest.strip(), len(head) + 2, width)
    text.say(text.style(head + mark, "bold") + (f" {body}" if body else ""))


def _show_sum(made: TalkFilter, width: int) -> None:
    """Where the numbers in the brackets come from."""
    numbers = " and ".join(str(made.offset(end)) for end in made.ends)
    header = "ip6" if made.outer == 6 else "ip"
    outer = "outer IP header" if made.wire.encapsulated else "IP header"
    why = f"{header}[N:4] are the 4 bytes that begin N bytes after the start of the {outer}"
    if len(made.words) > 1:
        why += "; an IPv6 address has 16, so that it takes four comparisons"
    if not made.wire.encapsulated:
        why += "; nothing is put in front of these packets"
    _heading(f"Why {numbers}: {why}", width)
    rows = [[f"{r.start:>5}", f"{r.size:>5}", r.name, ""] for r in made.rows]
    inner = "inner " if made.wire.encapsulated else ""
    for end in made.ends:
        words = f"{inner}IPv{made.version} header as far as its {WORDS[end]} address"
        total = f"= {made.offset(end)}"
        rows.append([f"{made.overhead:>5}", f"{made.place(end):>5}", words, total])
    text.say(text.table(rows, header=[" from", "bytes", "header", "sum"]))
    text.say()


def _show_limits(made: TalkFilter, width: int) -> None:
    _heading("What it does not find:", width)
    for limit in made.limits:
        text.say("  - " + text.wrapped(limit.words, 4, width))
        if limit.remedy:
            text.say("    " + text.style("then: ", "dim") + limit.remedy)
    text.say()


def _show_program(answer: Answer, width: int) -> None:
    made, program = answer.made, answer.program
    if answer.missing:
        _heading(f"BPF bytecode: not shown, since {answer.missing}", width)
        return
    what = f"{len(program)} instructions, as `tcpdump -d` and as `tcpdump -ddd` print them"
    _heading(f"BPF bytecode: {what}; the kernel runs them on every packet", width)
    first = made.offset(made.ends[0])
    note = f"places count from the frame's start, {made.link} bytes before IP: "
    note += f"{first} + {made.link} = {first + made.link}"
    text.say("  " + text.wrapped(note, 2, width))
    if made.wire.vlan is not None:
        note = "Linux takes a tag out of a frame before a capture sees it; on a real interface "
        note += "(tcpdump -i) libpcap asks the kernel for it, and the bytecode differs from this"
        text.say("  " + text.wrapped(note, 2, width))
    for e in program:
        numbers = " ".join(map(str, e.instruction))
        line = f"{e.assembly.expandtabs(1):<46} {numbers}"
        text.say("  " + text.style(line, "cyan"))
        text.say("        " + text.wrapped(e.words, 8, width))
