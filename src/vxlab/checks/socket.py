"""Does the kernel itself listen on the VXLAN port, with no process behind it?"""

from __future__ import annotations

from collections.abc import Iterator

from vxlab.checks.finding import Evidence, Finding
from vxlab.state import State

CODE = "socket"


def answer(evidence: Evidence) -> Iterator[Finding]:
    lab = evidence.lab
    if lab.overlay.backend_type != "vxlan":
        return
    port = lab.overlay.port
    for node in lab.nodes:
        bound = [s for s in evidence.states.get(node.name, State()).udp if s.port == port]
        wanted = f"UDP {port} open, by no process"
        if not bound:
            yield Finding(CODE, node.name, False, f"UDP {port} is not open", wanted, "vxlab up")
        elif owner := " ".join(s.process for s in bound if s.process):
            yield Finding(CODE, node.name, False, f"UDP {port} belongs to {owner}", wanted)
        else:
            yield Finding(CODE, node.name, True, f"UDP {port} is the kernel's own: no process")
