"""``vxlab explain``: the lesson of a step or thing, its commands, and what a lab shows of it."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from vxlab.cli import choose
from vxlab.report import text

if TYPE_CHECKING:
    from vxlab.lab import Lab
    from vxlab.lessons import Lesson
    from vxlab.lessons.told import Line
    from vxlab.lessons.typed import Command
    from vxlab.state import State
    from vxlab.steps.site import Site

_MOST = 12  # things of a lab that a person still reads
_WIDEST = 100  # columns of text; longer lines are hard to read


def _complete(ctx: click.Context, param: click.Parameter, typed: str) -> list[CompletionItem]:
    from vxlab.lessons import LESSONS

    begun = typed.lower()
    return [CompletionItem(n.name) for n in LESSONS if n.name.lower().startswith(begun)]


@click.command("explain")
@click.argument("words", metavar="[STEP|THING]", nargs=-1, shell_complete=_complete)
@click.option("--lab", help="Which lab is the example; default: the only one, if it is up.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def command(words: tuple[str, ...], lab: str | None, as_json: bool) -> None:
    """Explain a step of the talk or a thing in its network; without one, list them all.

    With a lab up, it shows the lab's own addresses, MACs and table entries.
    """
    from vxlab.lessons import LESSONS, find

    if not words:
        if as_json:
            text.dump([{"name": n.name, "title": n.title, "kind": n.kind} for n in LESSONS])
        else:
            _list(LESSONS)
        return
    told = _Told(find(" ".join(words)), lab)
    if as_json:
        text.dump(told.as_json())
    else:
        told.show()


def _list(lessons: Sequence[Lesson]) -> None:
    width = max(len(lesson.name) for lesson in lessons)
    for kind, heading in (("step", "Steps, in the talk's order"), ("thing", "Things")):
        text.say(text.style(heading, "bold"))
        for lesson in lessons:
            if lesson.kind == kind:
                text.say(f"  {lesson.name:<{width}}  {lesson.title}")
        text.say()
    text.say("`vxlab explain FDB` explains one of them")


def _look(named: str | None, ask_etcd: bool) -> tuple[Site, Mapping[str, State]] | None:
    """The lab that is up, and what it looks like; None if the example has to be made up.

    Real hosts are only asked when their lab was named.

    Raises:
        UsageError: a lab was named that is not up.
    """
    from dataclasses import replace

    from vxlab import journal
    from vxlab.cli.login import login
    from vxlab.engine.running import Running, stored_lab
    from vxlab.errors import DaemonError, OperationError

    names = journal.names()
    if named is None and len(names) != 1 and choose.DEFAULT not in names:
        return None
    directory = choose.directory(named)
    if named is None:
        record, stored = directory.world(), stored_lab(directory)
        if stored is None or stored.remote or record is None or not record.alive():
            return None
    running = Running.attach(directory, login())
    try:
        states = running.states()
        node = running.site.lab.etcd.node
        daemon = states[node].daemons.get("etcd")
        if ask_etcd and daemon is not None and daemon.alive:
            try:
                states[node] = replace(states[node], keys=running.etcd().keys())
            except (DaemonError, OperationError) as error:
                text.tell(f"etcd did not tell its keys: {error.message}")
    finally:
        running.close()
    return running.site, states


class _Told:
    """A lesson, with all that belongs to it."""

    def __init__(self, lesson: Lesson, named: str | None) -> None:
        from vxlab import labfile
        from vxlab.lessons import exists_in
        from vxlab.lessons.seen import ASKS_ETCD, seen
        from vxlab.lessons.typed import commands, example_site, example_states, looked

        found = _look(named, lesson.name in ASKS_ETCD)
        self.lesson = lesson
        self.up = found is not None
        if found is None:
            site = example_site(labfile.default(), lesson)
            found = site, example_states(site.lab)
        site, states = found
        lab = self.lab = site.lab
        self.lines = seen(lesson, lab, states) if self.up else ()
        here = exists_in(lesson, lab) or not self.up
        self.commands: list[Command] = []
        self.remark = ""
        if lesson.step and here:
            self.commands = list(commands(lesson.step, site, states))
            self.remark = _remark(lesson, lab, states, up=self.up)
        every = (looked(look, lab, states) for look in lesson.looks if here)
        self.looks = [look for look in every if look is not None]

    def as_json(self) -> dict[str, Any]:
        lesson = self.lesson
        return {
            "name": lesson.name,
            "title": lesson.title,
            "kind": lesson.kind,
            "text": list(lesson.text),
            "sources": list(lesson.sources),
            "step": lesson.step or None,
            "commands": [{"place": c.place, "command": c.text} for c in self.commands],
            "look": [{"place": c.place, "command": c.text, "shows": s} for c, s in self.looks],
            "ping": lesson.ping or None,
            "lab": self.lab.name if self.up else None,
            "seen": [
                {
                    "place": line.place or None,
                    "command": line.command or None,
                    "line": line.shown or None,
                    "words": line.words,
                    "ok": line.ok,
                }
                for line in self.lines
            ],
        }

    def show(self) -> None:
        lesson = self.lesson
        text.say(f"{text.style(lesson.name, 'bold')}: {lesson.title}")
        for paragraph in lesson.text:
            text.say()
            _paragraph(paragraph, 2)
        if self.lines:
            _heading(f"In the lab {self.lab.name}")
            _lines(self.lines)
        if self.commands or self.remark:
            _heading("Commands" if lesson.kind == "step" else f"Commands of the step {lesson.step}")
            for typed in self.commands:
                _typed(typed)
            if self.remark:
                _paragraph(self.remark, 2)
        if self.looks:
            _heading("Look")
            for typed, shows in self.looks:
                _typed(typed)
                _paragraph(shows, 6)
        if lesson.ping:
            _heading("The ping")
            _paragraph(lesson.ping, 2)
        if lesson.sources:
            text.say()
            _paragraph(f"Sources: {'; '.join(lesson.sources)}", 2)


def _remark(lesson: Lesson, lab: Lab, states: Mapping[str, State], *, up: bool) -> str:
    """What has to be said of the commands: for whom they are, and what in them is made up."""
    from vxlab.lessons.entries import first
    from vxlab.steps import BY_NAME

    node = first(lab)
    if lesson.step in ("address", "bridge", "route"):
        lease = states[node.name].subnet_env
        if lease is None:
            return f"{node.name} has no subnet yet: the address comes with flannel's lease"
        if not up:
            return (
                f"{lease.subnet.network} is an example: flannel chooses the node's subnet"
                " and writes it to subnet.env"
            )
    if BY_NAME[lesson.step].on in ("nodes", "cables") and len(lab.nodes) > 1:
        return f"That is {node.name}; each other node gets the same with its own values."
    return ""


def _columns() -> int:
    """How wide a line may be; whoever reads a pipe gets whole lines."""
    return min(shutil.get_terminal_size().columns, _WIDEST) if sys.stdout.isatty() else 10_000


def _heading(words: str) -> None:
    text.say()
    text.say(text.style(words, "bold"))


def _paragraph(words: str, indent: int) -> None:
    text.say(" " * indent + text.wrapped(words, indent, _columns()))


def _lines(lines: Sequence[Line]) -> None:
    """What the lab shows, under the command that shows it."""
    above = ("", "")
    for line in lines[:_MOST]:
        typed = (line.place, line.command)
        if line.command and typed != above:
            _prompt(*typed)
        above = typed
        indent = 4 if line.command else 2
        if line.shown:
            _paragraph(line.shown, indent)
            indent = 6
        words = line.words if line.command else _sentence(line.words)
        shown = text.wrapped(words, indent, _columns())
        text.say(" " * indent + (shown if line.ok else text.style(shown, "red")))
    if len(lines) > _MOST:
        text.say(text.style(f"  and {len(lines) - _MOST} more (--json has all)", "dim"))


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:].rstrip('.')}."


def _typed(typed: Command) -> None:
    _prompt(typed.place, typed.text)


def _prompt(place: str, words: str) -> None:
    """A command after its machine's prompt; a long one goes on after a backslash, as in a shell."""
    lead = f"  {place}# "
    tokens = re.findall(r"""(?:[^\s'"]|'[^']*'|"[^"]*")+""", words)
    room = max(_columns() - len(lead), 30)
    rows = [""]
    for number, token in enumerate(tokens, 1):
        longer = f"{rows[-1]} {token}" if rows[-1] else token
        backslash = 2 if number < len(tokens) else 0
        if rows[-1] and len(longer) + backslash > room:
            rows.append(f"  {token}")
        else:
            rows[-1] = longer
    text.say(lead + f" \\\n{' ' * len(lead)}".join(rows))
