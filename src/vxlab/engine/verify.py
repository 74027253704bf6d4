"""Gathers the evidence that the checks are asked about: snapshots, etcd, pings, captures."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from vxlab import etcd as client
from vxlab.checks import CHECKS
from vxlab.checks.finding import Check, EdgeSeen, Evidence, Finding, Reached, WireSeen, leases
from vxlab.engine.local_evidence import LocalProber
from vxlab.engine.prober import (
    GATEWAY,
    Echoes,
    Journey,
    Place,
    Prober,
    Wire,
    carries,
    is_piece,
    outer,
)
from vxlab.engine.remote_evidence import RemoteProber
from vxlab.engine.running import Running
from vxlab.errors import DaemonError, OperationError
from vxlab.lab import Lab
from vxlab.nodes.remote import RemoteNode
from vxlab.probe import Echo, EdgeResult, EdgeState
from vxlab.state import State
from vxlab.steps.address import container_address
from vxlab.steps.site import States


@dataclass(frozen=True, slots=True)
class Answered:
    """A check and what it found."""

    check: Check
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool | None:
        """False if anything failed, else None if anything could not be measured, else True."""
        return verdict(f.ok for f in self.findings)


def verdict(oks: Iterator[bool | None]) -> bool | None:
    """One answer out of many: bad outweighs unknown, unknown outweighs good."""
    seen = set(oks)
    return False if False in seen else None if None in seen else True


def verify(running: Running, tell: Callable[[str], None]) -> list[Answered]:
    """Ask every check about a lab that is up; checks that do not concern it say nothing.

    Args:
        running: the lab.
        tell: is told what is being done, for those who wait.
    """
    evidence = gather(running, tell)
    answered = [Answered(check, tuple(check.answer(evidence))) for check in CHECKS]
    return [a for a in answered if a.findings]


def gather(running: Running, tell: Callable[[str], None]) -> Evidence:
    """Look at the nodes and at etcd, ping between all containers, capture on the underlay."""
    lab = running.site.lab
    tell(f"reading {len(lab.nodes)} nodes")
    with ThreadPoolExecutor(1) as pool:
        # Takes a while; the nodes are read meanwhile. Real hosts' etcd is asked by its etcdctl.
        loading = None if lab.remote else pool.submit(client.load)
        states = running.states()
        if loading is not None:
            loading.result()
    version, error, keys = _ask_etcd(running, states)
    prober = _prober(running)
    places = list(_places(lab, states))
    tell(f"pinging between {len(places)} containers")
    echoes = prober.ping(places) if places else {}
    journeys = list(_ring(places, echoes))
    tell("trying the MTU's edge")
    edges = tuple(_edges(lab, prober, journeys, echoes))
    tell("capturing on the underlay")
    wires = prober.capture(journeys) if journeys else []
    reached = {pair: _reached(echo) for pair, echo in echoes.items()}
    return Evidence(
        lab=lab,
        states=states,
        etcd_version=version,
        etcd_error=error,
        keys=keys,
        leases=leases(keys),
        gateways={a: r for (a, b), r in reached.items() if b == GATEWAY},
        pairs={(a, b): r for (a, b), r in reached.items() if b != GATEWAY},
        edges=edges,
        wire=tuple(_seen(lab, j, wire) for j, wire in zip(journeys, wires, strict=True)),
    )


def _prober(running: Running) -> Prober:
    hosts = {name: n for name, n in running.nodes.items() if isinstance(n, RemoteNode)}
    if not running.site.lab.remote:
        return LocalProber(running)
    return RemoteProber(running.site, hosts, shlex.split(running.site.tcpdump))


def _ask_etcd(running: Running, states: States) -> tuple[str, str, dict[str, str]]:
    process = states[running.site.lab.etcd.node].daemons.get("etcd")
    if process is None or not process.alive:
        return "", "etcd does not run", {}
    try:
        etcd = running.etcd()
        return etcd.wait_healthy(timeout=2.0), "", etcd.keys()
    except (DaemonError, OperationError) as error:
        return "", f"{error.message} {error.detail}".strip(), {}


def _places(lab: Lab, states: States) -> Iterator[Place]:
    for node in lab.nodes:
        state = states.get(node.name, State())
        for container in node.containers:
            address = container_address(container, state)
            if address is None or state.subnet_env is None:
                continue
            holder = state.machines.get(container.name)
            runs = holder is not None and holder.alive
            yield Place(container, str(address.ip), str(state.subnet_env.subnet.ip), runs)


def _reached(echo: Echo) -> Reached:
    return Reached(echo.ok if echo.measured else None, echo.rtt_us or 0.0, echo.error)


def _ring(places: list[Place], echoes: Echoes) -> Iterator[Journey]:
    """One pair from every node to the next one: enough to try each node's way in and out."""
    first: dict[str, Place] = {}
    for place in places:
        if place.runs:
            first.setdefault(place.container.node, place)
    around = list(first.values())
    if len(around) > 1:
        for a, b in zip(around, [*around[1:], around[0]], strict=True):
            yield Journey(a, b, echoes[a.name, b.name].ok)


def _edges(lab: Lab, prober: Prober, journeys: list[Journey], echoes: Echoes) -> Iterator[EdgeSeen]:
    """What is not even reached has no edge: nobody waits for it to stay silent three times."""
    mtu = lab.overlay_mtu
    tried = [j for j in journeys if j.answered]
    results = dict(zip(tried, prober.edges(tried) if tried else [], strict=True))
    for j in journeys:
        if j.answered:
            yield _edge_seen(j, mtu, results[j])
        else:
            reason = f"not tried, since a ping fails: {echoes[j.src.name, j.dst.name].error}"
            yield EdgeSeen(j.src.name, j.dst.name, mtu, None, reason)


def _edge_seen(journey: Journey, mtu: int, result: EdgeResult) -> EdgeSeen:
    verdicts = {EdgeState.PASSED: True, EdgeState.FAILED: False, EdgeState.NOT_MEASURED: None}
    reason = result.reason or result.probes[1].error
    if result.state is EdgeState.PASSED and (result.probes[1].errno or result.stated_by):
        by = result.stated_by or "the kernel"
        reason = f"{by} says: message too long, mtu={result.stated_mtu}"
    return EdgeSeen(journey.src.name, journey.dst.name, mtu, verdicts[result.state], reason)


def _seen(lab: Lab, journey: Journey, wire: Wire) -> WireSeen:
    """The journey's own packets among all that left the node."""
    packets = [outer(lab, frame) for frame in wire.frames]
    whole = [p for p in packets if not p.is_fragment and carries(lab, p, journey)]
    pieces = sum(is_piece(lab, p, journey) for p in packets)
    node, src, dst = journey.src.container.node, journey.src.address, journey.dst.address
    return WireSeen(node, src, dst, tuple(whole), pieces, wire.dropped, wire.error)
