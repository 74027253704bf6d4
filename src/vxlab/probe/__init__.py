"""Does every container reach every other one, and does the path carry exactly its MTU?

A verdict needs positive evidence: a reply counts only for the very transmission whose random token
it brings back, and what could not be probed is *not measured*, which is neither good nor bad.
"""

from __future__ import annotations

from vxlab.probe.pings import (
    ICMP_OVERHEAD,
    PATIENCE,
    SMALLEST_SIZE,
    TOKEN,
    Echo,
    Endpoint,
    ping_all,
)
from vxlab.probe.verdicts import Edge, EdgeResult, EdgeState, edge, edges, verdict

__all__ = [
    "ICMP_OVERHEAD",
    "PATIENCE",
    "SMALLEST_SIZE",
    "TOKEN",
    "Echo",
    "Edge",
    "EdgeResult",
    "EdgeState",
    "Endpoint",
    "edge",
    "edges",
    "ping_all",
    "verdict",
]
