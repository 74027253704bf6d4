"""Gathers the evidence that the checks are asked about: snapshots, etcd, pings, captures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from vxlab import etcd as client
from vxlab import probe
from vxlab.checks import CHECKS
from vxlab.checks.encapsulation import udp_port
from vxlab.checks.finding import Check, EdgeSeen, Evidence, Finding, Reached, WireSeen, leases
from vxlab.engine.running import Running
from vxlab.errors import DaemonError, OperationError
from vxlab.lab import Container, Lab
from vxlab.nodes.local import machine
from vxlab.packet import ICMP, LINUX_VXLAN_PORT, UDP, Packet, Payload, decode
from vxlab.probe import EdgeState, Endpoint
from vxlab.sniff import Sniffer
from vxlab.state import State
from vxlab.steps.address import container_address
from vxlab.steps.site import States

_ECHO_REQUEST = 8  # ICMP type, RFC 792
#: Where VXLAN is recognised besides the lab's own port, to say that it is the wrong one.
_USUAL_PORTS = (LINUX_VXLAN_PORT, 4789)


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
        loading = pool.submit(client.load)  # takes a while; the nodes are read meanwhile
        states = running.states()
        loading.result()
    version, error, keys = _ask_etcd(running, states)
    places = list(_places(running, states))
    tell(f"pinging between {len(places)} containers")
    reached = _ping(places)
    tell("trying the MTU's edge")
    edges = tuple(_edges(lab, places))
    tell("capturing on the underlay")
    return Evidence(
        lab=lab,
        states=states,
        etcd_version=version,
        etcd_error=error,
        keys=keys,
        leases=leases(keys),
        gateways={a: r for (a, b), r in reached.items() if b == _GATEWAY},
        pairs={(a, b): r for (a, b), r in reached.items() if b != _GATEWAY},
        edges=edges,
        wire=tuple(_capture(running, places)),
    )


def _ask_etcd(running: Running, states: States) -> tuple[str, str, dict[str, str]]:
    process = states[running.site.lab.etcd.node].daemons.get("etcd")
    if process is None or not process.alive:
        return "", "etcd does not run", {}
    try:
        etcd = running.etcd()
        return etcd.wait_healthy(timeout=2.0), "", etcd.keys()
    except (DaemonError, OperationError) as error:
        return "", f"{error.message} {error.detail}".strip(), {}


# --- pings --------------------------------------------------------------------------------------

_GATEWAY = "gateway"


@dataclass(frozen=True, slots=True)
class _Place:
    """A container that has an address and can be probed from; without a netns it cannot."""

    container: Container
    endpoint: Endpoint
    gateway: str


def _places(running: Running, states: States) -> Iterator[_Place]:
    for node in running.site.lab.nodes:
        state = states.get(node.name, State())
        for container in node.containers:
            address = container_address(container, state)
            if address is None or state.subnet_env is None:
                continue
            target = running.nodes[node.name]
            proc = machine(target.proc, container.name) if target.running() else None
            netns = f"{proc}/ns/net" if proc else ""
            endpoint = Endpoint(container.full_name, str(address.ip), netns)
            yield _Place(container, endpoint, str(state.subnet_env.subnet.ip))


def _ping(places: list[_Place]) -> dict[tuple[str, str], Reached]:
    """Every container to every other one and to its gateway, all in flight at once."""
    live = [p for p in places if p.endpoint.netns]
    gateways = [Endpoint(f"{p.endpoint.name} gateway", p.gateway, "") for p in live]
    pairs = [(a.endpoint.name, b.endpoint.name) for a in live for b in places if a is not b]
    pairs += [(p.endpoint.name, f"{p.endpoint.name} gateway") for p in live]
    echoes = probe.ping_all([*(p.endpoint for p in places), *gateways], pairs) if pairs else {}
    reached = {}
    for (src, dst), echo in echoes.items():
        ok = echo.ok if echo.measured else None
        name = _GATEWAY if dst == f"{src} gateway" else dst
        reached[src, name] = Reached(ok, echo.rtt_us or 0.0, echo.error)
    for dead in (p for p in places if not p.endpoint.netns):
        gone = Reached(False, error=f"{dead.endpoint.name} does not run")
        reached |= {(dead.endpoint.name, p.endpoint.name): gone for p in places if p is not dead}
        reached[dead.endpoint.name, _GATEWAY] = gone
    return reached


def _ring(places: list[_Place]) -> list[tuple[_Place, _Place]]:
    """One pair from every node to the next one: enough to try each node's way in and out."""
    first: dict[str, _Place] = {}
    for place in places:
        if place.endpoint.netns:
            first.setdefault(place.container.node, place)
    around = list(first.values())
    return list(zip(around, [*around[1:], around[0]], strict=True)) if len(around) > 1 else []


def _edges(lab: Lab, places: list[_Place]) -> Iterator[EdgeSeen]:
    mtu = lab.overlay_mtu
    pairs = _ring(places)
    questions = [probe.Edge(a.endpoint, b.endpoint.address, mtu) for a, b in pairs]
    verdicts = {EdgeState.PASSED: True, EdgeState.FAILED: False, EdgeState.NOT_MEASURED: None}
    for (a, b), result in zip(pairs, probe.edges(questions), strict=True):
        by = result.stated_by or "the kernel"
        good = f"{by} says: message too long, mtu={result.stated_mtu}"
        yield EdgeSeen(
            a.endpoint.name, b.endpoint.name, mtu, verdicts[result.state], result.reason or good
        )


# --- captures -----------------------------------------------------------------------------------


def _capture(running: Running, places: list[_Place]) -> Iterator[WireSeen]:
    """Full-size packets around the ring, each seen on its sender's underlay interface."""
    lab = running.site.lab
    pairs = _ring(places)
    if not pairs:
        return
    with ExitStack() as stack:
        sniffers: list[Sniffer | OperationError] = []
        for a, _ in pairs:
            netns = f"{running.nodes[a.container.node].proc}/ns/net"
            try:
                sniffers.append(stack.enter_context(Sniffer(netns, lab.underlay.interface)))
            except OperationError as error:  # a damaged node may have no such interface
                sniffers.append(error)
        names = [(a.endpoint.name, b.endpoint.name) for a, b in pairs]
        size = lab.overlay_mtu - probe.ICMP_OVERHEAD
        probe.ping_all([p.endpoint for p in places], names, size=size, df=True)
        for (a, b), sniffer in zip(pairs, sniffers, strict=True):
            yield _seen(lab, a, b, sniffer)


def _seen(lab: Lab, a: _Place, b: _Place, sniffer: Sniffer | OperationError) -> WireSeen:
    """What a capture holds once the answers are back: the kernel queues before it sends."""
    node, src, dst = a.container.node, a.endpoint.address, b.endpoint.address
    frames = []
    try:
        if isinstance(sniffer, OperationError):
            raise sniffer
        while batch := sniffer.poll():
            frames += batch
    except OperationError as error:
        return WireSeen(node, src, dst, (), 0, 0, f"{error.message}: {error.detail}")
    peer = str(lab.node(b.container.node).address.ip)
    packets, fragments = [], 0
    for frame in frames:
        if frame.direction != "out":
            continue
        packet = decode(frame.data, vxlan_ports=(lab.overlay.port, *_USUAL_PORTS))
        outer = packet.outer_ip
        if packet.is_fragment and outer is not None and str(outer.dst) in (peer, dst):
            fragments += 1
        elif _carries(lab, packet, src, dst):
            packets.append(packet)
    return WireSeen(node, src, dst, tuple(packets), fragments, sniffer.dropped)


def _carries(lab: Lab, packet: Packet, src: str, dst: str) -> bool:
    """Whether an echo request from one container to the other is in the packet, however wrapped."""
    inner = packet.inner or packet
    udp, payload = packet.find(UDP), packet.find(Payload)
    if lab.overlay.backend_type == "udp" and udp and payload and udp.dport == udp_port(lab):
        inner = decode(payload.data, l3=True)
    ip, icmp = inner.outer_ip, inner.find(ICMP)
    if ip is None or icmp is None or icmp.type != _ECHO_REQUEST:
        return False
    return (str(ip.src), str(ip.dst)) == (src, dst)
