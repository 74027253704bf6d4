"""Does the path carry packets of exactly its MTU, and not one byte more?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from vxlab.probe.pings import ICMP_OVERHEAD, PATIENCE, SILENCE, Echo, Endpoint, ping_round


class EdgeState(StrEnum):
    """The verdict about an MTU edge."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Edge:
    """A question: is `mtu` the largest IP packet, in bytes, that goes from `src` to `dst` whole?"""

    src: Endpoint
    dst: str  # IPv4
    mtu: int


@dataclass(frozen=True, slots=True)
class EdgeResult:
    """Whether packets of exactly the MTU pass and those of one byte more do not.

    `probes` holds what became of `mtu`, `mtu + 1` and again `mtu` bytes, as far as it was tried.
    """

    edge: Edge
    state: EdgeState
    reason: str  # empty when passed
    stated_mtu: int | None = None  # bytes; what the refusal of mtu + 1 said
    stated_by: str = ""  # the router's address; empty when it was the source's own kernel
    probes: tuple[Echo, ...] = ()


def edge(
    endpoint: Endpoint, dst: str, mtu: int, *, timeout: float = PATIENCE, retries: int = 2
) -> EdgeResult:
    """Whether `mtu` is the edge from an endpoint to an address; see `edges`."""
    return edges([Edge(endpoint, dst, mtu)], timeout=timeout, retries=retries)[0]


def edges(
    questions: Sequence[Edge], *, timeout: float = PATIENCE, retries: int = 2
) -> list[EdgeResult]:
    """Where the path's largest packet ends, as ``ping -M do`` with both sizes would say.

    Three rounds, each on fresh sockets: `mtu` bytes pass, `mtu + 1` do not, `mtu` pass again. A
    lost or refused packet in the middle says something about its size only when the packets
    around it came back; otherwise the edge is not measured. The one exception: whoever refuses
    the *first* packet and states a smaller MTU has disproved the edge.

    Args:
        questions: sources, destinations and MTUs in bytes.
        timeout: seconds to wait in each round.
        retries: how often an unanswered probe is sent again within the timeout.

    Returns:
        One result per question, in order.
    """
    fates: list[list[Echo]] = [[] for _ in questions]
    open_ones = list(range(len(questions)))
    for more in (0, 1, 0):
        sizes = [questions[i].mtu + more - ICMP_OVERHEAD for i in open_ones]
        probes = [
            (questions[i].src, questions[i].dst, size)
            for i, size in zip(open_ones, sizes, strict=True)
        ]
        for i, echo in zip(open_ones, ping_round(probes, True, timeout, retries), strict=True):
            fates[i].append(echo)
        open_ones = [i for i in open_ones if more or fates[i][-1].ok]
    return [verdict(q, tuple(fate)) for q, fate in zip(questions, fates, strict=True)]


def verdict(question: Edge, fate: tuple[Echo, ...]) -> EdgeResult:
    """What the probes of `mtu`, `mtu + 1` and `mtu` bytes prove together.

    Args:
        question: what was asked.
        fate: of the three probes in their order; of the first alone if that did not come back.
    """
    mtu, first = question.mtu, fate[0]
    if first.mtu is not None and first.mtu < mtu:
        return EdgeResult(
            question, EdgeState.FAILED, f"{mtu} bytes: {first.error}", first.mtu, first.router, fate
        )
    for probe, which in ((first, "first"), (fate[-1], "last")):
        if not probe.ok:
            reason = f"the {which} packet of {mtu} bytes did not come back: {probe.error}"
            return EdgeResult(question, EdgeState.NOT_MEASURED, reason, probes=fate)
    over = fate[1]
    state, reason = EdgeState.FAILED, ""
    if over.ok:
        reason = f"{mtu + 1} bytes pass too"
    elif over.mtu is not None:
        if over.mtu == mtu:
            state = EdgeState.PASSED
        else:
            reason = f"{mtu} bytes pass, yet {mtu + 1} get: {over.error}"
    elif over.error.startswith(SILENCE):
        reason = f"{mtu + 1} bytes vanish without a word: a path MTU black hole"
    else:
        state, reason = EdgeState.NOT_MEASURED, f"{mtu + 1} bytes: {over.error}"
    return EdgeResult(question, state, reason, over.mtu, over.router, fate)
