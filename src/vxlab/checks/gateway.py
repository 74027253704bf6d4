"""Does the gateway, the bridge's address, answer every container?"""

from __future__ import annotations

from collections.abc import Iterator

from vxlab.checks.finding import Evidence, Finding

CODE = "gateway"


def answer(evidence: Evidence) -> Iterator[Finding]:
    for container in evidence.lab.containers:
        reached = evidence.gateways.get(container.full_name)
        if reached is None or reached.ok is None:
            seen = reached.error if reached else "could not be tried"
            yield Finding(CODE, container.full_name, None, seen, "an answer")
        elif reached.ok:
            yield Finding(CODE, container.full_name, True, f"answers in {reached.rtt_us:.0f} µs")
        else:
            yield Finding(CODE, container.full_name, False, reached.error, "an answer", "vxlab up")
