"""Where a trace looks from: what it needs of the machines on the way, wherever they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from vxlab.trace import journey
from vxlab.trace.hops import Hop
from vxlab.trace.journey import Probe, Watched
from vxlab.trace.why import Place
from vxlab.trace.why_lost import Counters

#: Seconds between two probes while the first is not answered yet; as in a flood ping.
PACE = 0.01


@dataclass(frozen=True, slots=True)
class Order:
    """Probes to be sent from a container, and the hops to be watched meanwhile."""

    source: Place
    src: str  # IPv4
    dst: str
    protocol: journey.Protocol
    port: int  # UDP's or TCP's
    size: int  # bytes of data
    count: int
    df: bool
    timeout: float  # seconds to wait for the last answer
    hops: tuple[Hop, ...]


@dataclass(frozen=True, slots=True)
class Followed:
    """What was sent and seen."""

    sent: tuple[Probe, ...]
    answered: frozenset[int]  # numbers of the probes whose answer the sender got
    watched: tuple[Watched, ...]  # in the order's order of hops


class Lookout(Protocol):
    """Sends probes from a container and captures at every hop."""

    def require(self, place: Place) -> None:
        """See that a place is there to send from.

        Raises:
            OperationError: it does not run.
        """

    def counters(self, places: Sequence[Place]) -> Mapping[str, Counters]:
        """What each place has counted by now; one that does not run is left out."""

    def follow(self, order: Order, tell: Callable[[str], None]) -> Followed:
        """Capture at all hops, send once all captures run, and wait for the answers.

        Args:
            order: what to send and where to look. A hop that cannot be watched says why.
            tell: is told what is being done.

        Raises:
            MissingError: a host has no program that sends such probes.
            OperationError: the source has ended meanwhile.
        """
