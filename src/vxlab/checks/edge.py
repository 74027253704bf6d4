"""Does a don't-fragment packet of exactly the overlay's MTU pass, and one byte more not?

The byte more must be refused: that counts only between two packets of the right size that pass.
"""

from __future__ import annotations

from collections.abc import Iterator

from vxlab.checks.finding import Evidence, Finding

CODE = "edge"


def answer(evidence: Evidence) -> Iterator[Finding]:
    if not evidence.edges:
        yield Finding(CODE, evidence.lab.name, None, "no pair to try it on", "a pair")
    for edge in evidence.edges:
        where = f"{edge.src} -> {edge.dst}"
        wanted = f"{edge.mtu} bytes pass, {edge.mtu + 1} do not"
        if edge.ok:
            yield Finding(CODE, where, True, f"{wanted} ({edge.reason})")
        else:
            yield Finding(CODE, where, edge.ok, edge.reason, wanted)
