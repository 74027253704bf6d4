"""Evidence from real hosts: a program per node and question, a tcpdump per node.

No Python is there, so busybox pings and the kernel counts; see `vxlab.hostprobe`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from vxlab import hostprobe
from vxlab.engine.prober import (
    GATEWAY,
    GLIMPSE,
    Echoes,
    Journey,
    Place,
    Wire,
    leaves,
    not_running,
    outer,
    outer_ports,
)
from vxlab.errors import VxlabError
from vxlab.hostprobe import Capture, Captured, Question
from vxlab.probe import Echo, Edge, EdgeResult, EdgeState, Endpoint
from vxlab.sniff import Frame
from vxlab.steps.site import Site

T = TypeVar("T")

_BEGIN = 5.0  # seconds until a capture has to run
_PATIENCE = 1.5  # seconds for a packet to leave that is going to be answered


class Host(Protocol):
    """A real host, as far as it is needed here."""

    name: str

    def script(self, program: str) -> str:
        """Run a shell program as root; all that it prints."""

    def stream(self, argv: Sequence[str], *, stdin: bool = False) -> hostprobe.Stream:
        """Start a command as root on a channel of its own."""


class RemoteProber:
    """Probes from containers on real hosts, captures on the hosts' underlay interfaces.

    Args:
        site: the lab, and where the hosts have busybox.
        hosts: by node.
        bundled: how the tcpdump that travelled is run there; see `hostprobe.bundled`.
    """

    def __init__(self, site: Site, hosts: Mapping[str, Host], bundled: Sequence[str] = ()) -> None:
        self._lab, self._busybox = site.lab, site.busybox
        self._hosts = hosts
        self._bundled = tuple(bundled)

    def _each(self, names: Sequence[str], work: Callable[[str], T]) -> dict[str, T | VxlabError]:
        """Do something on several nodes at the same time; one that fails does not stop others."""

        def one(name: str) -> T | VxlabError:
            try:
                return work(name)
            except VxlabError as error:
                return error

        if not names:
            return {}
        with ThreadPoolExecutor(len(names)) as pool:
            return dict(zip(names, pool.map(one, names), strict=True))

    def ping(self, places: Sequence[Place]) -> Echoes:
        targets: dict[str, dict[str, list[str]]] = {}
        for p in places:
            others = [q.address for q in places if q is not p]
            targets.setdefault(p.container.node, {})[p.container.name] = [*others, p.gateway]

        def ask(node: str) -> dict[tuple[str, str], Echo]:
            output = self._hosts[node].script(hostprobe.pings(self._busybox, targets[node]))
            return hostprobe.read_pings(output, targets[node])

        answers = self._each(list(targets), ask)
        reached: Echoes = {}
        for p in places:
            answer = answers[p.container.node]
            wanted = [(q.name, q.address) for q in places if q is not p]
            for name, address in [*wanted, (GATEWAY, p.gateway)]:
                reached[p.name, name] = _echo(answer, p, address)
        return reached

    def edges(self, journeys: Sequence[Journey]) -> list[EdgeResult]:
        found: dict[Journey, EdgeResult] = {}
        for some in _one_way(journeys):
            found |= self._edges(some)
        return [found[journey] for journey in journeys]

    def _edges(self, journeys: Sequence[Journey]) -> dict[Journey, EdgeResult]:
        nodes: dict[str, list[tuple[Question, Edge]]] = {}
        for journey in journeys:
            nodes.setdefault(journey.src.container.node, []).append(self._question(journey))

        def ask(node: str) -> list[EdgeResult]:
            program = hostprobe.edges(self._busybox, [question for question, _ in nodes[node]])
            return hostprobe.read_edges(self._hosts[node].script(program), nodes[node])

        found: dict[Edge, EdgeResult] = {}
        for node, results in self._each(list(nodes), ask).items():
            if isinstance(results, VxlabError):
                none, words = EdgeState.NOT_MEASURED, _words(results)
                found |= {edge: EdgeResult(edge, none, words) for _, edge in nodes[node]}
            else:
                found |= {result.edge: result for result in results}
        return {journey: found[self._question(journey)[1]] for journey in journeys}

    def _question(self, journey: Journey) -> tuple[Question, Edge]:
        mtu, src, dst = self._lab.overlay_mtu, journey.src, journey.dst.address
        edge = Edge(Endpoint(src.name, src.address, ""), dst, mtu)
        return Question(src.container.name, dst, mtu), edge

    def capture(self, journeys: Sequence[Journey]) -> list[Wire]:
        by_node = {j.src.container.node: j for j in journeys}
        captures = self._each(list(by_node), self._begin)
        live = {name: c for name, c in captures.items() if isinstance(c, Capture)}

        def watch(name: str) -> None:
            self._send(by_node[name])
            patience = _PATIENCE if by_node[name].answered else GLIMPSE
            live[name].wait(self._leaving(by_node[name]), patience)

        sent = self._each(list(live), watch)
        ended = self._each(list(live), lambda name: live[name].stop())
        return [
            _wire(captures[name], sent.get(name), ended.get(name))
            for name in (j.src.container.node for j in journeys)
        ]

    def _begin(self, name: str) -> Capture:
        """Start a capture; the first packet is sent once it runs."""
        lab = self._lab
        expression = hostprobe.capture_filter(outer_ports(lab), lab.overlay.network)
        argv = hostprobe.command(lab.nic(lab.node(name)), expression, self._bundled)
        capture = Capture(self._hosts[name].stream(argv, stdin=True))
        capture.ready(_BEGIN)  # one that does not run says why in the end
        return capture

    def _send(self, journey: Journey) -> None:
        src = journey.src.container
        wanted = [(src.name, journey.dst.address, self._lab.overlay_mtu)]
        self._hosts[src.node].script(hostprobe.packets(self._busybox, wanted))

    def _leaving(self, journey: Journey) -> Callable[[Sequence[Frame]], bool]:
        """Asks whether the journey's packet, or a piece of one, is among the frames so far."""
        seen = 0

        def left(frames: Sequence[Frame]) -> bool:
            nonlocal seen
            fresh, seen = frames[seen:], len(frames)
            return any(leaves(self._lab, outer(self._lab, frame), journey) for frame in fresh)

        return left


def _echo(answer: dict[tuple[str, str], Echo] | VxlabError, src: Place, address: str) -> Echo:
    if isinstance(answer, VxlabError):
        return Echo(False, error=_words(answer), measured=False)
    echo, short = answer[src.container.name, address], src.container.name
    return not_running(src.name) if echo == not_running(short) else echo


def _one_way(journeys: Sequence[Journey]) -> list[list[Journey]]:
    """Rounds in which nobody is asked who has to answer: a container counts all that it cuts up.

    A ring takes two rounds, three if its length is odd.
    """
    rounds: list[list[Journey]] = []
    for journey in journeys:
        for some in rounds:
            ends = ({j.src for j in some}, {j.dst for j in some})
            if journey.dst not in ends[0] and journey.src not in ends[1]:
                some.append(journey)
                break
        else:
            rounds.append([journey])
    return rounds


def _wire(
    begun: Capture | VxlabError, sent: VxlabError | None, ended: Captured | VxlabError | None
) -> Wire:
    for result in (begun, sent, ended):
        if isinstance(result, VxlabError):
            return Wire(error=_words(result))
    assert isinstance(ended, Captured)  # noqa: S101 - what began has ended
    return Wire(ended.frames, ended.dropped, ended.error)


def _words(error: VxlabError) -> str:
    return f"{error.message} ({error.detail})" if error.detail else error.message
