"""Follows probes through a local lab: captures at every hop, running before the first is sent."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from vxlab.checks.encapsulation import udp_port
from vxlab.engine.running import Running
from vxlab.errors import OperationError, UsageError
from vxlab.lab import Container, Lab
from vxlab.nodes.local import LocalNode
from vxlab.packet import LINUX_VXLAN_PORT
from vxlab.sniff import Frame, Instruction, Sniffer
from vxlab.state import SUBNET_ENV, State, SubnetEnv, parse_subnet_env
from vxlab.steps import overlay
from vxlab.steps.address import container_address
from vxlab.steps.site import States
from vxlab.trace import hops
from vxlab.trace.hops import Hop
from vxlab.trace.journey import Probe, Protocol, Trace, Watched
from vxlab.trace.journey_filter import wanted
from vxlab.trace.journey_match import Matcher
from vxlab.trace.journey_told import Scene, journeys
from vxlab.trace.probes import Sender, sender_of
from vxlab.trace.why import Place, Way
from vxlab.trace.why_lost import Counters, read_links, read_rules, read_stack
from vxlab.trace.why_way import way

#: Seconds between two probes while the first is not answered yet; as in a flood ping.
_PACE = 0.01

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


def trace(running: Running, question: Question, tell: Callable[[str], None]) -> Trace:
    """Send the probes and follow them and their answers through every hop.

    Args:
        running: a local lab, whose world this process has entered.
        question: what to send.
        tell: is told what is being done, for those who wait.

    Raises:
        UsageError: source or target has no address yet.
        OperationError: the source does not run.
    """
    return _Tracing(running, question, tell).run()


@dataclass(slots=True)
class _Capture:
    """A hop while it is watched."""

    hop: Hop
    l3: bool
    sniffer: Sniffer | None = None
    error: str = ""
    frames: list[Frame] = field(default_factory=list)

    def read(self) -> bool:
        """Take what waits there; False if that was nothing."""
        if self.sniffer is None:
            return False
        try:
            frames = self.sniffer.poll()
        except OperationError as error:
            self.error = error.detail
            return True  # the kernel tells it once; frames may follow when the link is up again
        self.frames += frames
        return bool(frames)

    def watched(self) -> Watched:
        dropped = self.sniffer.dropped if self.sniffer else 0
        return Watched(self.hop, tuple(self.frames), dropped, self.error, self.l3)


class _Sending:
    """Probes on their way, while the captures are read so that no buffer fills up.

    As in a flood ping, a probe follows as soon as the one before was answered, or after a moment.
    """

    def __init__(
        self, sender: Sender, captures: Sequence[_Capture], count: int, timeout: float
    ) -> None:
        self.sender = sender
        self.captures = captures
        self.count = count
        self.timeout = timeout
        self.sent: list[Probe] = []
        self.fates: dict[int, bool] = {}  # by the probe's number: answered, or an error

    @property
    def waiting(self) -> bool:
        return len(self.sent) > len(self.fates)

    def run(self) -> None:
        """Send all, and wait until the fate of each is known or time is over."""
        by_fd = {c.sniffer.fileno(): c for c in self.captures if c.sniffer is not None}
        with select.epoll() as poll:
            for fd in (*by_fd, self.sender.fileno()):
                poll.register(fd, select.EPOLLIN)
            while len(self.sent) < self.count or self.waiting:
                if len(self.sent) < self.count:
                    self.send()
                    until = time.monotonic() + _PACE
                if len(self.sent) == self.count:
                    until = time.monotonic() + self.timeout
                self.listen(poll, by_fd, until)
                if len(self.sent) == self.count:
                    break
        # The kernel queues a frame for a capture before it hands it on: with the answer, all of its
        # way is there.
        for capture in self.captures:
            while capture.read():
                pass

    def send(self) -> None:
        probe = self.sender.send(len(self.sent) + 1)
        self.sent.append(probe)
        if probe.refused:
            self.fates[probe.number] = False

    def listen(self, poll: select.epoll, by_fd: Mapping[int, _Capture], until: float) -> None:
        """Read what comes until nothing is waited for any more, or time is over."""
        while self.waiting and (left := until - time.monotonic()) > 0:
            for fd, _ in poll.poll(left):
                if fd in by_fd:
                    by_fd[fd].read()
                else:
                    self.fates |= self.sender.settled()


class _Tracing:
    """One trace of a lab."""

    def __init__(self, running: Running, question: Question, tell: Callable[[str], None]) -> None:
        self.running = running
        self.lab: Lab = running.site.lab
        self.question = question
        self.tell = tell
        self.node(question.source.node).inside(question.source.name)  # or it does not run
        leases = {name: self.lease(name) for name in running.nodes}
        self.src = self.address_of(Place(question.source.node, question.source.name), leases)
        self.dst, self.at = self.target(leases)
        names = [question.source.node, *([self.at.node] if self.at else [])]
        self.names = list(dict.fromkeys(names))

    # --- who is meant ---------------------------------------------------------------------------

    def node(self, name: str) -> LocalNode:
        node = self.running.nodes[name]
        assert isinstance(node, LocalNode)  # noqa: S101 - the lab is not remote
        return node

    def lease(self, name: str) -> SubnetEnv | None:
        node = self.node(name)
        return parse_subnet_env(node.read(SUBNET_ENV) or "") if node.running() else None

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
            lease = leases[asked.source.node]
            assert lease is not None  # noqa: S101 - the source has an address of it
            return str(lease.subnet.ip), Place(asked.source.node)
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

    def places(self) -> Iterator[tuple[str, str]]:
        """The machines whose counters and interfaces matter: (place, /proc directory)."""
        for name in self.names:
            if self.node(name).running():
                yield name, self.node(name).proc
        for place in dict.fromkeys([Place(self.source.node, self.source.name), self.at]):
            if place is None or not place.container or not self.node(place.node).running():
                continue
            with suppress(OperationError):  # a target that does not run is not watched
                yield str(place), self.node(place.node).inside(place.container)

    @property
    def source(self) -> Container:
        return self.question.source

    def where(self) -> Iterator[Hop]:
        """Every interface that the packets may pass, whatever the tables say."""
        ends = {str(Place(self.source.node, self.source.name)), str(self.at)}
        for node in map(self.lab.node, self.names):
            cables = {c.veth for c in node.containers if c.full_name not in ends}
            for hop in hops.of_node(self.lab, node):
                if hop.interface not in cables and (not hop.container or hop.place in ends):
                    yield hop

    # --- the work -------------------------------------------------------------------------------

    def run(self) -> Trace:
        procs = dict(self.places())
        with ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(len(procs)))
            rules = self.ask_rules(pool, procs)
            captures = [self.watch(hop, procs, stack) for hop in self.where()]
            before = _counters(procs, rules)
            sent, answered = self.send(procs, captures, stack)
            watched = [capture.watched() for capture in captures]
            grown: dict[str, Counters] = {}
            if len(answered) < len(sent):
                after = _counters(procs, self.ask_rules(pool, procs))
                grown = {place: after[place].since(before[place]) for place in procs}
            states = self.states(pool, everywhere=len(answered) < len(sent))
        return self.told(sent, watched, states, grown)

    def ask_rules(
        self, pool: ThreadPoolExecutor, procs: Mapping[str, str]
    ) -> dict[str, Future[str]]:
        """Start reading the nodes' rules; a node without iptables has none."""
        return {name: pool.submit(self.rules, name) for name in self.names if name in procs}

    def rules(self, name: str) -> str:
        return self.node(name).run(["iptables-save", "-c"]).out

    def watch(self, hop: Hop, procs: Mapping[str, str], stack: ExitStack) -> _Capture:
        tunnel = hops.without_ethernet(self.lab, hop)
        capture = _Capture(hop, tunnel)
        proc = procs.get(hop.place)
        if proc is None:
            capture.error = f"{hop.place} does not run"
            return capture
        bpf: Sequence[Instruction] | None = None
        if not tunnel:
            bpf = wanted(self.src, self.dst, self.lab.overlay.backend_type)
        try:
            sniffer = Sniffer(f"{proc}/ns/net", hop.interface, bpf=bpf)
        except OperationError as error:  # a damaged lab may lack an interface
            capture.error = error.detail
            return capture
        capture.sniffer = stack.enter_context(sniffer)
        return capture

    def send(
        self, procs: Mapping[str, str], captures: Sequence[_Capture], stack: ExitStack
    ) -> tuple[list[Probe], set[int]]:
        """Send all probes while the captures are read; also those whose answer came."""
        asked = self.question
        netns = f"{procs[self.source.full_name]}/ns/net"
        sender = sender_of(
            asked.protocol, netns, self.src, self.dst, port=asked.port, size=asked.size, df=asked.df
        )
        stack.callback(sender.close)
        self.tell(f"watching {len(captures)} hops")
        sending = _Sending(sender, captures, asked.count, asked.timeout)
        sending.run()
        return sending.sent, {n for n, answered in sending.fates.items() if answered}

    def states(self, pool: ThreadPoolExecutor, *, everywhere: bool) -> States:
        """What the nodes on the way look like; all of them when something was lost."""
        if everywhere:
            return self.running.states()
        nodes = [self.node(name) for name in self.names]
        return dict(zip(self.names, pool.map(LocalNode.snapshot, nodes), strict=True))

    def told(
        self,
        sent: Sequence[Probe],
        watched: Sequence[Watched],
        states: States,
        grown: Mapping[str, Counters],
    ) -> Trace:
        lab, asked = self.lab, self.question
        source = Place(self.source.node, self.source.name)
        ports = {lab.overlay.port, LINUX_VXLAN_PORT, 4789}
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
            tuple(watched),
        )


def _counters(procs: Mapping[str, str], rules: Mapping[str, Future[str]]) -> dict[str, Counters]:
    """What every machine has counted by now; the files are read without a program there."""
    found = {}
    for place, proc in procs.items():
        net = Path(f"{proc}/net")
        stack = (net / "snmp").read_text() + (net / "netstat").read_text()
        links = read_links((net / "dev").read_text())
        dropping = read_rules(rules[place].result()) if place in rules else {}
        found[place] = Counters(dropping, links, read_stack(stack))
    return found


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
