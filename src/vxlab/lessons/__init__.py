"""The lessons: each step of the talk and each thing in its network, in plain English.

A step's lesson is the docstring of its `plan`; what is no step is in `things`. What a lab that is
up shows of it is in `seen`, the way of a packet through its tables in `way`, and the commands of a
step in `typed`.
"""

from __future__ import annotations

import inspect

from vxlab.errors import UsageError
from vxlab.lab import Lab
from vxlab.lessons.beside import STEPS as BESIDE
from vxlab.lessons.lesson import Beside, Lesson, Look
from vxlab.lessons.things import THINGS
from vxlab.steps import BY_NAME, STEPS, overlay, steps_of
from vxlab.steps.site import Step

__all__ = ["LESSONS", "Beside", "Lesson", "Look", "exists_in", "find"]


def _of_step(step: Step) -> Lesson:
    beside = BESIDE[step.name]
    told = inspect.cleandoc(step.plan.__doc__ or "").replace("``", "`")
    paragraphs = [" ".join(part.split()) for part in (*told.split("\n\n"), beside.more) if part]
    return Lesson(
        name=step.name,
        title=step.title,
        text=tuple(paragraphs),
        sources=beside.sources,
        looks=beside.looks,
        ping=beside.ping,
        aliases=beside.aliases,
        step=step.name,
        kind="step",
    )


#: All lessons: the steps in the talk's order, then the things.
LESSONS: tuple[Lesson, ...] = (*(_of_step(step) for step in STEPS), *THINGS)

_BY_WORD = {word.lower(): lesson for lesson in LESSONS for word in (lesson.name, *lesson.aliases)}


def find(word: str) -> Lesson:
    """The lesson that a word means: a step, a thing or another word for it, in any case.

    Raises:
        UsageError: there is no such lesson.
    """
    said = " ".join(word.lower().replace("_", " ").split())
    found = _BY_WORD.get(word.lower()) or _BY_WORD.get(said)
    if found is not None:
        return found
    from difflib import get_close_matches

    near = get_close_matches(said, _BY_WORD, n=1)
    hint = f"did you mean `vxlab explain {_BY_WORD[near[0]].name}`?" if near else ""
    raise UsageError(
        f"there is no lesson about {word!r}", hint=hint or "`vxlab explain` lists all lessons"
    )


def exists_in(lesson: Lesson, lab: Lab) -> bool:
    """Whether a lab has what the lesson is about: its backend and its kind decide."""
    if lesson.kind == "step":
        return BY_NAME[lesson.step] in steps_of(lab)
    if lesson.name == "DirectRouting":
        return lab.overlay.direct_routing
    if lesson.name == "encapsulation":
        return overlay.encapsulated(lab) or lab.overlay.backend_type == "udp"
    return not lesson.backends or lab.overlay.backend_type in lesson.backends
