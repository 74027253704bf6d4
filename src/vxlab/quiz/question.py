"""A question about a lab: its text, the answers that are right, and why."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface
from random import Random

#: As many choices a question has at most, and at least.
MOST, FEWEST = 4, 3

LETTERS = "abcd"

_MAC = re.compile(r"(?:[0-9a-f]{1,2}[:-]){5}[0-9a-f]{1,2}")


def normal(said: str) -> str:
    """An answer without what does not matter: case, blanks, a full stop, how a MAC is written."""
    words = " ".join(said.lower().split()).rstrip(".?")
    words = re.sub(r"^(\d+) ?(?:bytes?|b)$", r"\1", words)
    if _MAC.fullmatch(words):
        return ":".join(part.zfill(2) for part in re.split("[:-]", words))
    return words


@dataclass(frozen=True, slots=True)
class Question:
    """One question; with `choices`, a letter is an answer as well as the choice's own words."""

    kind: str
    text: str
    answer: str  # the right one, as it is shown
    explanation: str
    look: str  # how to look it up: a prompt and a command; empty where no command shows it
    accepted: frozenset[str]  # right answers, in their normal form
    choices: tuple[str, ...] = ()

    def meant(self, said: str) -> str:
        """What an answer says: a letter stands for its choice."""
        letter = said.strip().rstrip(".)").lower()
        if self.choices and len(letter) == 1 and letter in LETTERS[: len(self.choices)]:
            return self.choices[LETTERS.index(letter)]
        return said

    def understood(self, said: str) -> bool:
        """Whether an answer is one at all: something, and one of the choices if there are any."""
        meant = normal(self.meant(said))
        return bool(meant) and (not self.choices or meant in map(normal, self.choices))

    def accepts(self, said: str) -> bool:
        """Whether an answer is right."""
        return normal(self.meant(said)) in self.accepted


def free(
    kind: str, text: str, answer: object, explanation: str, look: str = "", also: Iterable[str] = ()
) -> Question:
    """A question that is answered in the learner's own words."""
    shown = str(answer)
    accepted = frozenset(normal(word) for word in (shown, *also))
    return Question(kind, text, shown, explanation, look, accepted)


def address(kind: str, text: str, answer: str, explanation: str, look: str = "") -> Question:
    """A question for an IPv4 address; it may be answered with or without its prefix length."""
    return free(kind, text, answer, explanation, look, also=(str(IPv4Interface(answer).ip),))


def choice(
    rng: Random,
    kind: str,
    text: str,
    answer: str,
    wrong: Sequence[str],
    explanation: str,
    look: str = "",
) -> Question | None:
    """A question with choices in random order; None if there are too few wrong ones."""
    different = {normal(word): word for word in wrong if word}
    different.pop(normal(answer), None)
    others = list(different.values())
    if len(others) < FEWEST - 1:
        return None
    choices = [answer, *rng.sample(others, min(len(others), MOST - 1))]
    rng.shuffle(choices)
    right = frozenset({normal(answer)})
    return Question(kind, text, answer, explanation, look, right, tuple(choices))
