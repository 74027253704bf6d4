"""Follows probes through a lab: captures at every hop, running before the first is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from vxlab.checks.encapsulation import udp_port
from vxlab.engine.running import Running, workers
from vxlab.errors import UsageError
from vxlab.lab import Container, Lab
from vxlab.nodes import Node
from vxlab.state import SUBNET_ENV, State, SubnetEnv, parse_subnet_env
from vxlab.steps import overlay
from vxlab.steps.address import container_address
from vxlab.steps.site import States
from vxlab.trace import hops
from vxlab.trace.hops import Hop
from vxlab.trace.journey import Protocol, Trace
from vxlab.trace.journey_match import Matcher
from vxlab.trace.journey_told import Scene, journeys
from vxlab.trace.local_lookout import LocalLookout
from vxlab.trace.lookout import Followed, Lookout, Order
from vxlab.trace.remote_lookout import RemoteLookout
from vxlab.trace.why import Place, Way
from vxlab.trace.why_lost import Counters
from vxlab.trace.why_way import way

#: Seconds in which the answer to the last probe has to come.
PATIENCE = 1.0


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be sent, from where and to whom."""

    source: Container
    target: str  # as it was asked for
    place: Place | None = None  # the container or node that the target is
    address: str = ""  # IPv4, if the target is an address; neither of both: the gateway
    protocol: Protocol = "icmp"
    port: int = 0
    size: int = 56  # bytes of data; TCP has none
    count: int = 1
    df: bool = False
    timeout: float = PATIENCE


def trace(
    running: Running,
    question: Question,
    tell: Callable[[str], None] = lambda words: None,
    states: States | None = None,
) -> Trace:
    """Send the probes and follow them and their answers through every hop.

    Args:
        running: the lab; this process has entered its world, or is connected to its hosts.
        question: what to send.
        tell: is told what is being done, for those who wait.
        states: what the nodes look like; None to read those on the way, and to look at the counters
            of whoever may throw packets away.

    Raises:
        UsageError: source or target has no address yet.
        OperationError: the source does not run.
        UnreachableError: the connection to a host broke.
    """
    return _Tracing(running, question, tell, states).run()


class _Tracing:
    """One trace of a lab."""

    def __init__(
        self,
        running: Running,
        question: Question,
        tell: Callable[[str], None],
        states: States | None,
    ) -> None:
        self.running = running
        self.lab: Lab = running.site.lab
        self.question = question
        self.tell = tell
        self.known = states
        self.lookout = _lookout(running)
        self.source = Place(question.source.node, question.source.name)
        self.lookout.require(self.source)
        leases = self.leases()
        self.src = self.address_of(self.source, leases)
        self.dst, self.at = self.target(leases)
        names = [self.source.node, *([self.at.node] if self.at else [])]
        self.names = list(dict.fromkeys(names))

    # --- who is meant ---------------------------------------------------------------------------

    def leases(self) -> dict[str, SubnetEnv | None]:
        """The subnet that flannel gave each node."""
        if self.known is not None:
            return {name: self.known[name].subnet_env for name in self.running.nodes}
        nodes = self.running.nodes
        with ThreadPoolExecutor(workers(self.lab)) as pool:
            return dict(zip(nodes, pool.map(_lease, nodes.values()), strict=True))

    def address_of(self, place: Place, leases: Mapping[str, SubnetEnv | None]) -> str:
        node = self.lab.node(place.node)
        if not place.container:
            return str(node.address.ip)
        container = next(c for c in node.containers if c.name == place.container)
        found = container_address(container, State(subnet_env=leases[place.node]))
        if found is None:
            raise UsageError(
                f"{place} has no address: flannel gave {place.node} no subnet",
                hint="`vxlab status` tells what is missing, `vxlab up` repairs it",
            )
        return str(found.ip)

    def target(self, leases: Mapping[str, SubnetEnv | None]) -> tuple[str, Place | None]:
        """The target's address, and who has it."""
        asked = self.question
        if asked.place is not None:
            return self.address_of(asked.place, leases), asked.place
        if not asked.address:
            lease = leases[self.source.node]
            assert lease is not None  # noqa: S101 - the source has an address of it
            return str(lease.subnet.ip), Place(self.source.node)
        for node in self.lab.nodes:
            lease = leases[node.name]
            if asked.address in (str(node.address.ip), str(lease.subnet.ip) if lease else ""):
                return asked.address, Place(node.name)
            for container in node.containers:
                found = container_address(container, State(subnet_env=lease))
                if found is not None and str(found.ip) == asked.address:
                    return asked.address, Place(node.name, container.name)
        return asked.address, None

    # --- where to look --------------------------------------------------------------------------

    def places(self) -> tuple[Place, ...]:
        """The machines whose counters matter: the nodes on the way, and the two ends."""
        ends = [place for place in (self.source, self.at) if place is not None and place.container]
        return (*map(Place, self.names), *dict.fromkeys(ends))

    def where(self) -> Iterator[Hop]:
        """Every interface that the packets may pass, whatever the tables say."""
        ends = {str(self.source), str(self.at)}
        for node in map(self.lab.node, self.names):
            cables = {c.veth for c in node.containers if c.full_name not in ends}
            for hop in hops.of_node(self.lab, node):
                if hop.interface not in cables and (not hop.container or hop.place in ends):
                    yield hop

    # --- the work -------------------------------------------------------------------------------

    def run(self) -> Trace:
        asked = self.question
        order = Order(
            source=self.source,
            src=self.src,
            dst=self.dst,
            protocol=asked.protocol,
            port=asked.port,
            size=asked.size,
            count=asked.count,
            df=asked.df,
            timeout=asked.timeout,
            hops=tuple(self.where()),
        )
        if self.known is not None:
            return self.told(self.lookout.follow(order, self.tell), self.known, {})
        before = self.lookout.counters(self.places())
        followed = self.lookout.follow(order, self.tell)
        lost = len(followed.answered) < len(followed.sent)
        grown: dict[str, Counters] = {}
        if lost:
            after = self.lookout.counters(self.places())
            grown = {place: after[place].since(before[place]) for place in after if place in before}
        return self.told(followed, self.states(everywhere=lost), grown)

    def states(self, *, everywhere: bool) -> States:
        """What the nodes on the way look like; all of them when something was lost."""
        if everywhere:
            return self.running.states()
        with ThreadPoolExecutor(len(self.names)) as pool:
            looks = pool.map(lambda name: self.running.nodes[name].snapshot(), self.names)
            return dict(zip(self.names, looks, strict=True))

    def told(self, followed: Followed, states: States, grown: Mapping[str, Counters]) -> Trace:
        lab, asked = self.lab, self.question
        source, sent, watched = self.source, followed.sent, followed.watched
        ports = overlay.vxlan_ports(lab)
        links = (link for state in states.values() for link in state.net.links.values())
        ports |= {link.vxlan.port for link in links if link.vxlan is not None}
        flanneld = udp_port(lab) if lab.overlay.backend_type == "udp" else None
        matcher = Matcher(sent, vxlan_ports=ports, flanneld_port=flanneld)
        scene = Scene(lab, states, source, self.at, {w.hop: w for w in watched}, grown)
        path = way(lab, states, source, self.dst)
        return Trace(
            lab.name,
            asked.protocol,
            source,
            self.src,
            asked.target,
            self.dst,
            self.at,
            expected(lab, source, self.at, path),
            journeys(scene, sent, list(matcher.match(watched))),
            watched,
            one_clock=not lab.remote,
        )


def _lookout(running: Running) -> Lookout:
    if not running.site.lab.remote:
        return LocalLookout(running)
    return RemoteLookout(running.site, running.hosts)


def _lease(node: Node) -> SubnetEnv | None:
    """The subnet that flannel gave a node."""
    return parse_subnet_env(node.read(SUBNET_ENV) or "") if node.running() else None


def expected(lab: Lab, source: Place, at: Place | None, path: Way) -> str:
    """How packets travel between the two in this lab, and why."""
    if at is None:
        return "no encapsulation: the address is outside the lab"
    if at.node == source.node:
        return f"no VXLAN: both are on {at.node}, nothing leaves the node"
    if not at.container and not path.encapsulated:
        return "no encapsulation on the way there: the address is the underlay's own"
    if overlay.encapsulated(lab):
        return f"VXLAN: VNI {lab.overlay.vni}, UDP {lab.overlay.port}"
    if lab.overlay.backend_type == "udp":
        return f"flannel's udp backend: UDP {udp_port(lab)}, +28 bytes"
    if lab.overlay.backend_type == "vxlan":
        return "no encapsulation: DirectRouting, since the nodes share a network"
    return "no encapsulation: host-gw sets plain routes from node to node"
