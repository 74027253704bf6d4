"""What may be said about time: hops of one kernel share its clock, and no two hosts do.

On real hosts the order of a packet's hops is told from what routers do to it: each counts the TTL
down (RFC 791), and between two of them the sender's hop comes first. Times are compared within a
host only. One thing is known without comparing clocks all the same: how long a packet and its
answer were on their way between two hosts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest

from vxlab.lab import Lab
from vxlab.trace.hops import Hop, underlay
from vxlab.trace.journey import Leg, Role, Seen
from vxlab.trace.why import Place

#: Nanoseconds after which the same packet at the same hop was sent again, and not doubled on the
#: way; Linux waits 200 ms at least before it repeats a segment (TCP_RTO_MIN).
_AGAIN = 200_000_000

_ROLES: tuple[Role, ...] = ("request", "error", "answer")


class Clocks:
    """The clocks by which a trace's frames are stamped.

    Args:
        lab: the lab.
        source: where the probes come from.
        seen: the frames that they are the clocks of.
    """

    def __init__(self, lab: Lab, source: Place, seen: Iterable[Seen]) -> None:
        self._lab = lab
        self._source = source
        # One kernel's clock tells the order alone.
        out = {(underlay(lab, node), "out") for node in lab.nodes if lab.remote}
        self._senders = {_link(s) for s in seen if (s.hop, s.frame.direction) in out}

    def of(self, hop: Hop) -> str:
        """The name of a hop's clock."""
        return hop.node if self._lab.remote else ""

    def order(self, seen: Seen) -> tuple[int, ...]:
        """The frames of a probe sort by this into the order in which they passed their hops."""
        if not self._lab.remote:
            return (seen.frame.ns,)
        role, _, ttl, node = link = _link(seen)
        # Where nobody was seen to send: from the source's host to another, or back to it.
        back = (seen.role == "request") != (node == self._source.node)
        return _ROLES.index(role), -ttl, link not in self._senders, back, seen.frame.ns

    def starts(self, seen: Iterable[Seen]) -> dict[str, int]:
        """When each clock's first frame was seen, in its nanoseconds."""
        found: dict[str, int] = {}
        for each in seen:
            clock = self.of(each.hop)
            found[clock] = min(each.frame.ns, found.get(clock, each.frame.ns))
        return found

    def sorted(self, legs: Iterable[Leg]) -> list[Leg]:
        """The legs in the order in which they began."""
        if self._lab.remote:
            return sorted(legs, key=lambda leg: _ROLES.index(leg.role))
        return sorted(legs, key=lambda leg: leg.stops[0].since_start)

    def trains(self, frames: Iterable[Seen]) -> Iterator[list[Seen]]:
        """Frames of packets that look alike, one list for each time that it was sent."""
        by_clock: dict[str, list[Seen]] = {}
        for seen in frames:
            by_clock.setdefault(self.of(seen.hop), []).append(seen)
        # The first that one host saw is taken for the first that the other did.
        for parts in zip_longest(*map(_split, by_clock.values()), fillvalue=[]):
            yield sorted((seen for part in parts for seen in part), key=self.order)

    def round_trip(self, request: Sequence[Leg], answer: Sequence[Leg]) -> float | None:
        """Microseconds from the probe's leaving its source to its answer's coming in there."""
        came = [leg for leg in answer if leg.arrived]
        if not request or not came:
            return None
        out, back = request[0].stops[0], came[0].stops[-1]
        if self.of(out.hop) != self.of(back.hop):
            return None
        return back.since_start - out.since_start

    def between(
        self, at: Place | None, request: Sequence[Leg], answer: Sequence[Leg]
    ) -> float | None:
        """Microseconds that a packet and its answer together were between two real hosts.

        From the packet's leaving one to the answer's coming in there, less what the other host
        took from the one to the other: each is a difference by one clock.

        Args:
            at: who has the probes' destination.
            request: the ways of the probe.
            answer: the ways of its answer.
        """
        if not self._lab.remote or at is None or at.node == self._source.node:
            return None
        here, there = (underlay(self._lab, self._lab.node(p.node)) for p in (self._source, at))
        left, came = _when(request, here, "out"), _when(answer, here, "in")
        taken, given = _when(request, there, "in"), _when(answer, there, "out")
        if left is None or came is None or taken is None or given is None:
            return None
        return (came - left) - (given - taken)


def _link(seen: Seen) -> tuple[Role, Role, int, str]:
    """Which packet it is, how far it has come, and whose host has it."""
    return seen.role, seen.about, seen.ip.ttl if seen.ip else 0, seen.hop.node


def _split(frames: list[Seen]) -> Iterator[list[Seen]]:
    """Frames of one clock, in order, where the packet was sent again."""
    train: list[Seen] = []
    last: dict[tuple[object, ...], int] = {}
    for seen in sorted(frames, key=lambda each: each.frame.ns):
        key = seen.hop, seen.frame.direction, seen.piece
        if key in last and seen.frame.ns - last[key] >= _AGAIN:
            yield train
            train, last = [], {}
        train.append(seen)
        last[key] = seen.frame.ns
    yield train


def _when(legs: Sequence[Leg], hop: Hop, direction: str) -> float | None:
    """When the one packet there was passed a hop, in microseconds of its host."""
    times = [
        s.since_start for leg in legs for s in leg.stops if (s.hop, s.direction) == (hop, direction)
    ]
    return times[0] if len(times) == 1 else None
