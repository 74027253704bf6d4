"""Is flannel.1 the VXLAN device that the lab asks for, on every node?"""

from __future__ import annotations

from collections.abc import Iterator

from vxlab.checks.finding import Evidence, Finding
from vxlab.state import Link, State
from vxlab.steps import overlay

CODE = "vtep"


def answer(evidence: Evidence) -> Iterator[Finding]:
    lab = evidence.lab
    if lab.overlay.backend_type != "vxlan":
        return
    name = overlay.device(lab)
    wanted_learning = bool(lab.overlay.backend.get("Learning", False))
    for node in lab.nodes:
        link = evidence.states.get(node.name, State()).net.links.get(name)
        wanted = _words(
            lab.overlay.vni,
            lab.overlay.port,
            str(node.address.ip),
            wanted_learning,
            lab.overlay_mtu,
            True,
        )
        seen = _seen(link) if link else "does not exist"
        ok = seen == wanted
        fix = "" if ok else "vxlab up"
        yield Finding(CODE, node.name, ok, f"{name}: {seen}", "" if ok else wanted, fix)


def _seen(link: Link) -> str:
    if link.vxlan is None:
        return f"a {link.kind or 'device'}, no VXLAN"
    vxlan = link.vxlan
    return _words(vxlan.vni, vxlan.port, vxlan.local, vxlan.learning, link.mtu, link.up)


def _words(vni: int, port: int, local: str, learning: bool, mtu: int, up: bool) -> str:
    words = "learning" if learning else "nolearning"
    return f"VNI {vni}, port {port}, local {local}, {words}, MTU {mtu}, {'up' if up else 'down'}"
