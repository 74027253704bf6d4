"""The quiz: questions drawn from a lab's own state, whose right answers are what is there now.

Every question is made from the nodes' snapshots by a function that does nothing else; a lab that
lacks what a question is about is not asked it.
"""

from __future__ import annotations

from random import Random

from vxlab.lab import Lab
from vxlab.quiz import entries, places, sizes
from vxlab.quiz.question import Question, normal
from vxlab.quiz.scene import Ask, Scene
from vxlab.steps.site import States

__all__ = ["ASKS", "QUESTIONS", "Question", "normal", "questions"]

#: How many questions a quiz has.
QUESTIONS = 10

ASKS: tuple[Ask, ...] = (*entries.ASKS, *sizes.ASKS, *places.ASKS)

#: The same kind of question may come again, about something else, in a lab with few kinds.
_ROUNDS = 10


def questions(lab: Lab, states: States, rng: Random, count: int = QUESTIONS) -> list[Question]:
    """Different questions about a lab, of different kinds as far as it has them.

    Args:
        lab: the lab.
        states: what its nodes look like.
        rng: decides what is asked; the same seed asks the same of the same states.
        count: how many at most; fewer come from a lab that is not built far enough.
    """
    scene = Scene.of(lab, states)
    asks = list(ASKS)
    rng.shuffle(asks)
    found: dict[str, Question] = {}
    for ask in asks * _ROUNDS:
        if len(found) == count:
            break
        made = ask(scene, rng)
        if made is not None:
            found.setdefault(made.text, made)
    return list(found.values())
