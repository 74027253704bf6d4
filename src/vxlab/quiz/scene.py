"""What the questions are asked about: a lab that is up, as its nodes look now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from vxlab.lab import Container, Lab, Node
from vxlab.lessons.way import Way, address_of, ways
from vxlab.quiz.question import Question
from vxlab.state import Link, Net, State
from vxlab.steps import overlay
from vxlab.steps.site import States

T = TypeVar("T")

#: Ways that are looked at: a large lab has thousands, and ten questions need ten.
_MOST_WAYS = 200


@dataclass(frozen=True, slots=True)
class Scene:
    """A lab, its states, and what of it can be asked about.

    `ways` are those whose tables are whole: a question about a way never leads into a gap.
    """

    lab: Lab
    states: States
    ways: tuple[Way, ...]

    @classmethod
    def of(cls, lab: Lab, states: States) -> Scene:
        """Look at a lab."""
        found = (way for way in ways(lab, states) if way.whole)
        return cls(
            lab, states, tuple(way for way, _ in zip(found, range(_MOST_WAYS), strict=False))
        )

    @property
    def device(self) -> str:
        return overlay.device(self.lab)

    def state(self, name: str) -> State:
        return self.states.get(name, State())

    def tunnels(self) -> list[Way]:
        return [way for way in self.ways if way.tunnel]

    def placed(self) -> list[tuple[Container, str]]:
        """Containers that have an address."""
        every = ((c, address_of(c, self.states)) for c in self.lab.containers)
        return [(c, address) for c, address in every if address]

    def leased(self) -> list[Node]:
        """Nodes that have a subnet."""
        return [n for n in self.lab.nodes if self.state(n.name).subnet_env is not None]

    def vteps(self) -> list[tuple[Node, Link]]:
        """Nodes with their VXLAN interface."""
        every = ((n, self.state(n.name).net.links.get(self.device)) for n in self.lab.nodes)
        return [(n, link) for n, link in every if link is not None and link.vxlan is not None]

    def macs(self) -> list[str]:
        """All MACs of the lab, VTEPs' first: wrong answers that look right."""
        found = [link.mac for _, link in self.vteps()]
        for node in self.lab.nodes:
            state = self.state(node.name)
            for net in (state.net, *state.inside.values()):
                found += list(_macs(net))
        return list(dict.fromkeys(found))


def _macs(net: Net) -> Iterator[str]:
    for link in net.links.values():
        if link.mac and link.mac != "00:00:00:00:00:00":
            yield link.mac


#: Makes one question of its kind; None where the lab has nothing to ask about.
Ask = Callable[[Scene, Random], Question | None]


def some(rng: Random, found: list[T]) -> T | None:
    """One of several, or None if there is none."""
    return rng.choice(found) if found else None
