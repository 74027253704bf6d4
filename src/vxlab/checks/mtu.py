"""Does every interface have the MTU that leaves exactly the room for the encapsulation?"""

from __future__ import annotations

from collections.abc import Iterator

from vxlab.checks.finding import Evidence, Finding
from vxlab.lab import Lab, Node
from vxlab.state import Net, State
from vxlab.steps import bridge, overlay
from vxlab.steps.veth import INSIDE

CODE = "mtu"


def answer(evidence: Evidence) -> Iterator[Finding]:
    lab = evidence.lab
    for node in lab.nodes:
        state = evidence.states.get(node.name, State())
        wrong, good = [], []
        for where, name, seen, wanted in _all(lab, node, state):
            label = f"{where}:{name}" if where else name
            if seen != wanted:
                wrong.append(f"{label} {'is missing' if seen is None else seen}, wanted {wanted}")
            else:
                good.append(f"{label} {seen}")
        if wrong:
            yield Finding(CODE, node.name, False, "; ".join(wrong), "", "vxlab up")
        else:
            yield Finding(CODE, node.name, True, ", ".join(good))


def _all(lab: Lab, node: Node, state: State) -> Iterator[tuple[str, str, int | None, int]]:
    """(container, interface, MTU seen, MTU wanted), in bytes, from the wire to the container."""
    inner = lab.overlay_mtu
    yield "", lab.nic(node), _mtu(state.net, lab.nic(node)), lab.underlay.mtu
    if device := overlay.device(lab):
        yield "", device, _mtu(state.net, device), inner
    yield "", "subnet.env", state.subnet_env.mtu if state.subnet_env else None, inner
    yield "", bridge.NAME, _mtu(state.net, bridge.NAME), inner
    for container in node.containers:
        yield "", container.veth, _mtu(state.net, container.veth), inner
        yield container.name, INSIDE, _mtu(state.net_of(container.name), INSIDE), inner


def _mtu(net: Net, name: str) -> int | None:
    link = net.links.get(name)
    return link.mtu if link else None
