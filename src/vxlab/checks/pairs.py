"""Does every container reach every other one, both ways?"""

from __future__ import annotations

from collections.abc import Iterator

from vxlab.checks.finding import Evidence, Finding, Reached

CODE = "pairs"


def answer(evidence: Evidence) -> Iterator[Finding]:
    if len(evidence.lab.containers) < 2:
        yield Finding(CODE, evidence.lab.name, None, "one container has nobody to reach", "a pair")
        return
    for container in evidence.lab.containers:
        name = container.full_name
        mine = {dst: r for (src, dst), r in evidence.pairs.items() if src == name}
        others = len(evidence.lab.containers) - 1
        answered = [r.rtt_us for r in mine.values() if r.ok]
        if len(answered) == others:
            slowest = f"slowest {max(answered):.0f} µs"
            yield Finding(CODE, name, True, f"reaches {others} of {others} others, {slowest}")
        for dst, reached in mine.items():
            if not reached.ok:
                yield _failed(name, dst, reached)
        if len(mine) < others:
            seen = f"{others - len(mine)} of {others} others could not be tried"
            yield Finding(CODE, name, None, seen, "all tried")


def _failed(src: str, dst: str, reached: Reached) -> Finding:
    return Finding(CODE, src, reached.ok, f"-> {dst}: {reached.error}", "an answer", "vxlab up")
