"""A trace's lookout in a local lab: sockets in the namespaces, files below /proc."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from vxlab.engine.running import Running
from vxlab.errors import OperationError
from vxlab.nodes.local import LocalNode
from vxlab.sniff import Frame, Instruction, Sniffer, close_all
from vxlab.trace import hops
from vxlab.trace.hops import Hop
from vxlab.trace.journey import Probe, Watched
from vxlab.trace.journey_filter import wanted
from vxlab.trace.lookout import PACE, Followed, Order
from vxlab.trace.probes import Sender, sender_of
from vxlab.trace.why import Place
from vxlab.trace.why_lost import Counters, read_links, read_rules, read_stack


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
                    until = time.monotonic() + PACE
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


class LocalLookout:
    """Looks into the namespaces of a local lab.

    Args:
        running: the lab, whose world this process has entered.
    """

    def __init__(self, running: Running) -> None:
        self._running = running
        self._lab = running.site.lab

    def _node(self, name: str) -> LocalNode:
        node = self._running.nodes[name]
        assert isinstance(node, LocalNode)  # noqa: S101 - a lab's nodes are all local, or none
        return node

    def _proc(self, place: Place) -> str:
        """Where /proc shows a place.

        Raises:
            OperationError: it does not run.
        """
        node = self._node(place.node)
        return node.inside(place.container) if place.container else node.proc

    def _alive(self, places: Sequence[Place]) -> Iterator[tuple[Place, str]]:
        for place in places:
            with suppress(OperationError):  # what does not run counts nothing
                if self._node(place.node).running():
                    yield place, self._proc(place)

    def require(self, place: Place) -> None:
        self._proc(place)

    def counters(self, places: Sequence[Place]) -> dict[str, Counters]:
        procs = dict(self._alive(places))
        nodes = [place for place in procs if not place.container]
        with ThreadPoolExecutor(max(1, len(nodes))) as pool:
            rules = dict(zip(nodes, pool.map(self._rules, nodes), strict=True))
        return {str(place): _counted(proc, rules.get(place, "")) for place, proc in procs.items()}

    def _rules(self, place: Place) -> str:
        """The node's firewall rules; none without iptables."""
        return self._node(place.node).run(["iptables-save", "-c"]).out

    def follow(self, order: Order, tell: Callable[[str], None]) -> Followed:
        with ExitStack() as stack:
            captures = [self._watch(hop, order) for hop in order.hops]
            stack.callback(close_all, [c.sniffer for c in captures if c.sniffer is not None])
            netns = f"{self._proc(order.source)}/ns/net"
            sender = sender_of(
                order.protocol, netns, order.src, order.dst,
                port=order.port, size=order.size, df=order.df,
            )  # fmt: skip
            stack.callback(sender.close)
            tell(f"watching {len(captures)} hops")
            sending = _Sending(sender, captures, order.count, order.timeout)
            sending.run()
            watched = tuple(capture.watched() for capture in captures)
        answered = frozenset(n for n, answered in sending.fates.items() if answered)
        return Followed(tuple(sending.sent), answered, watched)

    def _watch(self, hop: Hop, order: Order) -> _Capture:
        tunnel = hops.without_ethernet(self._lab, hop)
        capture = _Capture(hop, tunnel)
        bpf: Sequence[Instruction] | None = None
        if not tunnel:
            bpf = wanted(order.src, order.dst, self._lab.overlay.backend_type, order.protocol)
        try:
            proc = self._proc(Place(hop.node, hop.container))
        except OperationError:
            capture.error = f"{hop.place} does not run"
            return capture
        try:
            capture.sniffer = Sniffer(f"{proc}/ns/net", hop.interface, bpf=bpf)
        except OperationError as error:  # a damaged lab may lack an interface
            capture.error = error.detail
        return capture


def _counted(proc: str, rules: str) -> Counters:
    """The files are read without a program there."""
    net = Path(f"{proc}/net")
    stack = (net / "snmp").read_text() + (net / "netstat").read_text()
    return Counters(read_rules(rules), read_links((net / "dev").read_text()), read_stack(stack))
