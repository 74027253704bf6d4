"""Evidence from real hosts: a program per node and question.

No Python is there, so busybox pings and the kernel counts; see `vxlab.hostprobe`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from vxlab import hostprobe
from vxlab.engine.prober import GATEWAY, Echoes, Journey, Place, not_running
from vxlab.errors import VxlabError
from vxlab.hostprobe import Question
from vxlab.probe import Echo, Edge, EdgeResult, EdgeState, Endpoint
from vxlab.steps.site import Site

T = TypeVar("T")


class Host(Protocol):
    """A real host, as far as it is needed here."""

    name: str

    def script(self, program: str) -> str:
        """Run a shell program as root; all that it prints."""


class RemoteProber:
    """Probes from containers on real hosts.

    Args:
        site: the lab, and where the hosts have busybox.
        hosts: by node.
    """

    def __init__(self, site: Site, hosts: Mapping[str, Host]) -> None:
        self._lab, self._busybox = site.lab, site.busybox
        self._hosts = hosts

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


def _words(error: VxlabError) -> str:
    return f"{error.message} ({error.detail})" if error.detail else error.message
