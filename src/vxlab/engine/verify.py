"""Gathers the evidence that the checks are asked about: snapshots, etcd, pings, traces."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from vxlab import etcd as client
from vxlab.checks import CHECKS
from vxlab.checks.finding import Check, EdgeSeen, Evidence, Finding, Reached, WireSeen, leases
from vxlab.engine.local_evidence import LocalProber
from vxlab.engine.prober import GATEWAY, Echoes, Journey, Place, Prober
from vxlab.engine.remote_evidence import RemoteProber
from vxlab.engine.running import Running, workers
from vxlab.errors import DaemonError, OperationError, VxlabError
from vxlab.lab import Lab
from vxlab.probe import ICMP_OVERHEAD, PATIENCE, Echo, EdgeResult, EdgeState
from vxlab.state import State
from vxlab.steps.address import container_address
from vxlab.steps.site import States
from vxlab.trace import hops
from vxlab.trace.journey import Trace
from vxlab.trace.tracing import Question, trace
from vxlab.trace.why import Place as At

#: Seconds that a trace waits for an answer that nobody expects.
_GLIMPSE = 0.2


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
    """Look at the nodes and at etcd, ping between all containers, trace from node to node."""
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
    tell(f"tracing {len(journeys)} packets")
    wire = _traced(running, states, journeys)
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
        wire=wire,
    )


def _prober(running: Running) -> Prober:
    if not running.site.lab.remote:
        return LocalProber(running)
    return RemoteProber(running.site, running.hosts)


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


def _traced(running: Running, states: States, journeys: Sequence[Journey]) -> tuple[WireSeen, ...]:
    """A packet of exactly the overlay's MTU, followed from each node to the next one."""
    lab = running.site.lab

    def follow(journey: Journey) -> WireSeen:
        src, dst = journey.src, journey.dst
        question = Question(
            src.container,
            dst.name,
            At(dst.container.node, dst.container.name),
            size=lab.overlay_mtu - ICMP_OVERHEAD,
            # Linux sets the bit of what fits; real hosts may have no ping that is told to.
            df=not lab.remote,
            timeout=PATIENCE if journey.answered else _GLIMPSE,
        )
        seen = WireSeen(src.container.node, src.address, dst.address)
        try:
            return _left(lab, seen, trace(running, question, states=states))
        except VxlabError as error:  # the source has ended, or the connection to a host
            words = f"{error.message} ({error.detail})" if error.detail else error.message
            return replace(seen, error=words)

    if not journeys:
        return ()
    with ThreadPoolExecutor(workers(lab)) as pool:
        return tuple(pool.map(follow, journeys))


def _left(lab: Lab, seen: WireSeen, found: Trace) -> WireSeen:
    """What the trace saw leave the node on the underlay, and why it got no farther."""
    hop = hops.underlay(lab, lab.node(seen.node))
    watched = next(watched for watched in found.watched if watched.hop == hop)
    frames = [
        frame
        for journey in found.journeys
        for leg in journey.legs
        for stop in leg.stops
        if leg.role == "request" and (stop.hop, stop.direction) == (hop, "out")
        for frame in stop.frames
    ]
    return replace(
        seen,
        # One that left its container in pieces is none: nothing of the MTU's size was sent.
        packets=tuple(
            f.packet for f in frames if not (f.packet.is_fragment or f.inner.is_fragment)
        ),
        fragments=sum(f.packet.is_fragment for f in frames),
        dropped=watched.dropped,
        error=watched.error,
        lost=_lost(found),
    )


def _lost(found: Trace) -> str:
    """Where the packet was seen last and why it came no farther; empty if it arrived."""
    for journey in found.journeys:
        for leg in journey.legs:
            if leg.role == "request" and leg.arrived is False:
                reason = f": {leg.reasons[0].text}" if leg.reasons else ""
                return f"last seen at {leg.stops[-1].hop}{reason}"
        if not journey.legs and journey.reasons:
            return journey.reasons[0].text
    return ""
