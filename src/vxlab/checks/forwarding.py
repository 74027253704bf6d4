"""Do the nodes pass packets on that are not their own?"""

from __future__ import annotations

from collections.abc import Iterator

from vxlab.checks.finding import Evidence, Finding, compare
from vxlab.state import State

CODE = "forwarding"
KEY = "net.ipv4.ip_forward"


def answer(evidence: Evidence) -> Iterator[Finding]:
    for node in evidence.lab.nodes:
        seen = evidence.states.get(node.name, State()).net.sysctls.get(KEY, "")
        yield compare(CODE, node.name, f"{KEY} =", seen, "1", "vxlab up")
