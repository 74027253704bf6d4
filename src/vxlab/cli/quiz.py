"""``vxlab quiz``: ten questions about the lab that is up, answered on the terminal or by lines."""

from __future__ import annotations

import io
import shutil
import sys
from typing import TYPE_CHECKING

import click

from vxlab.cli import choose
from vxlab.cli.login import login
from vxlab.errors import UsageError
from vxlab.report import text

if TYPE_CHECKING:
    from random import Random

    from vxlab.quiz import Question

_WIDEST = 100  # columns of text; longer lines are hard to read
_SEEDS = 10_000


@click.command("quiz")
@click.option("--seed", type=int, help="Ask what this number chooses; default: something new.")
@click.option("--lab", help="Which lab; default: the only one.")
def command(seed: int | None, lab: str | None) -> None:
    """Ten questions about the lab that is up: its MACs, MTUs, entries and addresses.

    Look the answers up in another terminal with `vxlab shell`. Without a terminal the answers are
    read from lines. Exit code 0: all right. 1: not all.
    """
    from random import Random, SystemRandom

    chosen = SystemRandom().randrange(_SEEDS) if seed is None else seed
    name, asked = _questions(lab, Random(chosen))  # noqa: S311 - a quiz is no secret
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    text.say(f"Ten questions about the lab {text.style(name, 'bold')}, as it is now.")
    text.say("Answer with a letter or in words; `vxlab shell` is for looking it up.")
    right = answered = 0
    try:
        for question in asked:
            said = _ask(question, answered + 1)
            if said is None:
                text.say()
                left = text.plural(len(asked) - answered, "question")
                text.say(f"the answers ended with {left} left; {right} of {answered} right")
                sys.exit(1)
            answered += 1
            right += _judge(question, said)
    except KeyboardInterrupt:
        text.say()
        sys.exit(130)
    every = right == len(asked)
    score = f"{right} of {len(asked)} right"
    text.say()
    text.say(f"{text.style(score, 'green') if every else score} (seed {chosen})")
    if not every:
        text.say(
            f"`vxlab quiz --seed {chosen}` asks the same again; `vxlab explain` has the lessons"
        )
    sys.exit(0 if every else 1)


def _questions(lab: str | None, rng: Random) -> tuple[str, list[Question]]:
    """The lab's name and what is asked about it.

    Raises:
        UsageError: the lab is not up, or not built far enough.
    """
    from vxlab.engine.running import Running
    from vxlab.quiz import QUESTIONS, questions

    running = Running.attach(choose.directory(lab), login())
    try:
        states = running.states()
    finally:
        running.close()
    name = running.site.lab.name
    asked = questions(running.site.lab, states, rng)
    if len(asked) < QUESTIONS:
        raise UsageError(
            f"there is not enough of the lab {name!r} yet to ask {QUESTIONS} questions about",
            hint=f"`vxlab up {name}` builds the rest",
        )
    return name, asked


def _columns() -> int:
    return min(shutil.get_terminal_size().columns, _WIDEST) if sys.stdout.isatty() else 10_000


def _ask(question: Question, number: int) -> str | None:
    """The answer to a question; None at the end of the answers."""
    from vxlab.quiz.question import LETTERS

    text.say()
    lead = f"{number:>2}. "
    words = text.wrapped(question.text, len(lead), _columns())
    text.say(text.style(lead, "bold") + words)
    for letter, choice in zip(LETTERS, question.choices, strict=False):
        text.say(f"    {letter}) {text.wrapped(choice, 7, _columns())}")
    while True:
        said = _line("    > ")
        if said is None or not sys.stdin.isatty() or question.understood(said):
            return said
        if question.choices:
            text.say(f"    one of {', '.join(LETTERS[: len(question.choices)])}")


def _line(prompt: str) -> str | None:
    """A line that was typed, or the next one of a pipe, which is shown like a typed one."""
    if sys.stdin.isatty():
        try:
            return input(prompt)
        except EOFError:
            return None
    line = sys.stdin.readline()
    if line:
        text.say(f"{prompt}{line.strip()}".rstrip())
    return line.rstrip("\n") if line else None


def _judge(question: Question, said: str) -> bool:
    """Say whether the answer is right, what is, and why."""
    right = question.accepts(said)
    lead = f"    {text.mark(right)} "
    indent = 4 + (2 if sys.stdout.isatty() else 8)
    verdict = "right" if right else f"no: {question.answer}"
    text.say(lead + text.wrapped(f"{verdict}. {question.explanation}", indent, _columns()))
    if question.look:
        text.say(text.style(" " * indent + question.look, "dim"))
    return right
