"""A trace's lookout on real hosts: a program on each that captures, and one that sends.

Each host stamps its frames by its own clock, and nobody compares clocks here.
"""

from __future__ import annotations

import math
import secrets
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from vxlab.errors import MissingError
from vxlab.hostprobe import Stream, sending
from vxlab.hostprobe.counting import counting, read_counting
from vxlab.hostprobe.sending import Sent
from vxlab.hostprobe.taps import SMALL, SNAPLEN, Captured, Tap, Taps, command
from vxlab.nodes import down
from vxlab.probe import TOKEN
from vxlab.steps.site import Site
from vxlab.trace.hops import Hop, without_ethernet
from vxlab.trace.journey import Probe, Watched
from vxlab.trace.journey_filter import expression
from vxlab.trace.lookout import PACE, Followed, Order
from vxlab.trace.why import Place
from vxlab.trace.why_lost import Counters, read_links, read_rules, read_stack

_HEADERS = 160  # bytes in front of a probe's data, at the most

_BEGIN = 5.0  # seconds until the captures have to run

_PACKAGES = {"ping": "iputils (its package is iputils-ping or iputils)", "bash": "bash"}


class Host(Protocol):
    """A real host, as far as it is needed here."""

    def lives(self, container: str) -> bool:
        """Whether a container runs there."""

    def script(self, program: str) -> str:
        """Run a shell program as root; all that it prints."""

    def stream(self, argv: Sequence[str], *, stdin: bool = False) -> Stream:
        """Start a command as root on a channel of its own."""


class RemoteLookout:
    """Looks at the hosts of a lab through its connections.

    Args:
        site: the lab, and where the hosts have its programs.
        hosts: by node.
    """

    def __init__(self, site: Site, hosts: Mapping[str, Host]) -> None:
        self._site = site
        self._hosts = hosts

    def require(self, place: Place) -> None:
        if place.container and not self._hosts[place.node].lives(place.container):
            raise down(str(place), place.node)

    def counters(self, places: Sequence[Place]) -> dict[str, Counters]:
        hosts: dict[str, list[str]] = {place.node: [] for place in places}
        for place in places:
            hosts[place.node] += [place.container] if place.container else []

        def ask(name: str) -> dict[str, Counters]:
            output = self._hosts[name].script(counting(self._site.busybox, hosts[name]))
            return {
                str(Place(name, container)): Counters(
                    read_rules(each.rules), read_links(each.links), read_stack(each.stack)
                )
                for container, each in read_counting(output).items()
            }

        with ThreadPoolExecutor(len(hosts)) as pool:
            return {place: c for found in pool.map(ask, hosts) for place, c in found.items()}

    # --- following ------------------------------------------------------------------------------

    def follow(self, order: Order, tell: Callable[[str], None]) -> Followed:
        hosts: dict[str, list[Hop]] = {}
        for hop in order.hops:
            hosts.setdefault(hop.node, []).append(hop)
        begun: dict[str, Taps] = {}

        def begin(name: str) -> None:
            begun[name] = self._begin(name, hosts[name], order)
            begun[name].ready(_BEGIN)  # a capture that does not run says why in the end

        tell(f"watching {len(order.hops)} hops")
        with ThreadPoolExecutor(len(hosts)) as pool:
            try:
                list(pool.map(begin, hosts))
                probes, answered = self._send(order)
            finally:
                ended = dict(zip(begun, pool.map(Taps.stop, begun.values()), strict=True))
        caught: dict[Hop, Captured] = {}
        for name, captures in ended.items():
            caught |= zip(hosts[name], captures, strict=True)
        watched = tuple(self._watched(hop, caught[hop]) for hop in order.hops)
        return Followed(probes, answered, watched)

    def _begin(self, name: str, hops: Sequence[Hop], order: Order) -> Taps:
        """Start capturing at all hops of a host."""
        lab, site = self._site.lab, self._site
        wanted = expression(order.src, order.dst, lab.overlay.backend_type, order.protocol)
        # What needs no more room takes half as many captures.
        snaplen = SMALL if order.size < SMALL - _HEADERS else SNAPLEN
        taps = [
            Tap(hop.interface, hop.container, wanted, without_ethernet(lab, hop), snaplen)
            for hop in hops
        ]
        argv = command(taps, site.busybox, shlex.split(site.tcpdump))
        return Taps(self._hosts[name].stream(argv, stdin=True), taps)

    def _watched(self, hop: Hop, captured: Captured) -> Watched:
        l3 = without_ethernet(self._site.lab, hop)
        return Watched(hop, captured.frames, captured.dropped, captured.error, l3)

    def _send(self, order: Order) -> tuple[tuple[Probe, ...], frozenset[int]]:
        """Send all probes: those that were sent, and the numbers of those that were answered."""
        errand = _Errand(order)
        output = self._hosts[order.source.node].script(errand.program(self._site.busybox))
        if f"@@ gone {order.source.container}\n" in output:
            raise down(str(order.source), order.source.node)
        sent = errand.read(output)
        if sent.lacks:
            raise MissingError(
                f"{order.source.node} has no {sent.lacks} that sends such probes",
                hint=f"install {_PACKAGES[sent.lacks]} on the host",
            )
        return tuple(errand.probes(sent)), sent.answered


class _Errand:
    """One order as a program for the sending host, and what it says then."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.fill = bytes([1 + secrets.randbelow(255)])
        self.token = secrets.token_bytes(TOKEN - sending.NUMBER)

    def program(self, busybox: str) -> str:
        order = self.order
        name, patience = order.source.container, math.ceil(order.timeout)
        if order.protocol == "icmp":
            return sending.pings(
                busybox, name, order.dst, count=order.count, pace=PACE, patience=patience,
                size=order.size, fill=self.fill, df=order.df,
            )  # fmt: skip
        if order.protocol == "tcp":
            return sending.connections(
                busybox, name, order.dst, order.port, count=order.count, pace=PACE,
                patience=patience,
            )  # fmt: skip
        return sending.datagrams(
            busybox, name, order.dst, order.port, count=order.count, pace=PACE, patience=patience,
            size=order.size, token=self.token,
        )  # fmt: skip

    def read(self, output: str) -> Sent:
        order = self.order
        if order.protocol == "icmp":
            return sending.read_pings(output, order.count, df=order.df)
        return sending.read_fates(output, order.count)

    def probes(self, sent: Sent) -> Iterator[Probe]:
        """The probes; only the last one may have been refused."""
        order = self.order
        for number in range(1, sent.count + 1):
            refused = sent.refused if number == sent.count else ""
            dport, token, fill = order.port, b"", b""
            if order.protocol == "icmp":
                dport, fill = (number if order.df else number - 1) & 0xFFFF, self.fill
            elif order.protocol == "udp":
                token = self.token + number.to_bytes(sending.NUMBER, "big")
            yield Probe(
                number, order.protocol, order.src, order.dst, 0, dport, token, order.size,
                refused=refused, fill=fill,
            )  # fmt: skip
