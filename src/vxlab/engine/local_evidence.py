"""Evidence from containers on this machine: sockets opened in their namespaces."""

from __future__ import annotations

from collections.abc import Sequence

from vxlab import probe
from vxlab.engine.prober import GATEWAY, Echoes, Journey, Place, not_running
from vxlab.engine.running import Running
from vxlab.nodes.local import LocalNode, machine
from vxlab.probe import EdgeResult, Endpoint


class LocalProber:
    """Probes from sockets inside the containers.

    Args:
        running: the lab, whose world this process has entered.
    """

    def __init__(self, running: Running) -> None:
        self._running = running
        self._lab = running.site.lab
        self._endpoints: dict[str, Endpoint] = {}

    def _node(self, name: str) -> LocalNode:
        node = self._running.nodes[name]
        assert isinstance(node, LocalNode)  # noqa: S101 - a lab's nodes are all local, or none
        return node

    def _endpoint(self, place: Place) -> Endpoint:
        """Where the place is; without a namespace if it does not run."""
        if place.name not in self._endpoints:
            node = self._node(place.container.node)
            proc = machine(node.proc, place.container.name) if node.running() else None
            netns = f"{proc}/ns/net" if proc else ""
            self._endpoints[place.name] = Endpoint(place.name, place.address, netns)
        return self._endpoints[place.name]

    def ping(self, places: Sequence[Place]) -> Echoes:
        live = [p for p in places if self._endpoint(p).netns]
        gateways = [Endpoint(f"{p.name} gateway", p.gateway, "") for p in live]
        pairs = [(a.name, b.name) for a in live for b in places if a is not b]
        pairs += [(p.name, f"{p.name} gateway") for p in live]
        ends = [*map(self._endpoint, places), *gateways]
        echoes = probe.ping_all(ends, pairs) if pairs else {}
        reached = {
            (src, GATEWAY if dst == f"{src} gateway" else dst): echo
            for (src, dst), echo in echoes.items()
        }
        for dead in (p for p in places if not self._endpoint(p).netns):
            others = [p.name for p in places if p is not dead]
            gone = not_running(dead.name)
            reached |= {(dead.name, other): gone for other in [*others, GATEWAY]}
        return reached

    def edges(self, journeys: Sequence[Journey]) -> list[EdgeResult]:
        mtu = self._lab.overlay_mtu
        questions = [probe.Edge(self._endpoint(j.src), j.dst.address, mtu) for j in journeys]
        return probe.edges(questions) if questions else []
