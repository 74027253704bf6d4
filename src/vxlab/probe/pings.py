"""Which places reach which: many pings at once, each answered by its own reply or by nothing.

All probes of a round are in flight at once: one raw ICMP socket per source, made inside the
source's network namespace, and one loop over all of them.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from itertools import zip_longest

from vxlab import packet
from vxlab.namespaces import in_netns
from vxlab.probe.sockets import raw_socket, received_ns, refused_mtu

ICMP_OVERHEAD = 28  # IPv4 header and ICMP header: what `ping -s` does not count
TOKEN = 8  # bytes; random, one per transmission
SMALLEST_SIZE = TOKEN
#: Seconds. More than one: an ARP request that got lost is repeated after a second, and the first
#: ones do get lost on links that came up just before.
PATIENCE = 1.5

#: How the error of an unanswered probe begins.
SILENCE = "no answer"

_LARGEST_SIZE = 65535 - ICMP_OVERHEAD
_BURST = 32  # probes sent between two looks at the answers
_LARGEST_HEADERS = 68  # bytes: IPv4 with all options, ICMP
_LONGEST_ERROR = 600  # bytes; routers quote so that an ICMP error is 576 at most (RFC 1812)
_BATCH = 256  # answers read from one socket before the others get their turn

#: Errors of sendto that say "not now" instead of "not there".
_TRANSIENT = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.EINTR})

#: ping's words for the codes of "destination unreachable" (RFC 792, RFC 1122, RFC 1812).
_UNREACHABLE = {
    0: "Destination Net Unreachable",
    1: "Destination Host Unreachable",
    2: "Destination Protocol Unreachable",
    3: "Destination Port Unreachable",
    4: "Frag needed and DF set",
    5: "Source Route Failed",
    9: "Destination Net Prohibited",
    10: "Destination Host Prohibited",
    13: "Packet filtered",
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A place in the network that can be pinged, and from which one can ping."""

    name: str
    address: str  # IPv4
    netns: str  # such as /proc/PID/ns/net; not looked at for a mere destination


@dataclass(frozen=True, slots=True)
class Echo:
    """Whether the answer to a ping came back, or who said what instead."""

    ok: bool
    rtt_us: float | None = None  # microseconds, to the kernel's reception of the reply
    ttl: int | None = None  # of the reply: 64 minus the routers on the way
    error: str = ""  # the kernel's or the router's words; empty when ok
    errno: int | None = None  # the kernel's error number when it refused to send
    router: str = ""  # address of the router that sent an ICMP error
    mtu: int | None = None  # bytes; what the kernel or the router stated with "too long"
    measured: bool = True  # False: no probe could be sent, `error` says why


def ping_all(
    endpoints: Sequence[Endpoint],
    pairs: Iterable[tuple[str, str]] | None = None,
    *,
    size: int = 56,
    df: bool = False,
    timeout: float = PATIENCE,
    retries: int = 2,
) -> dict[tuple[str, str], Echo]:
    """Which endpoint reaches which, as ``ping -c 1`` from each to each would say.

    Args:
        endpoints: everything that the pairs name.
        pairs: (source name, destination name); None for all ordered pairs of two endpoints.
        size: ICMP data in bytes, as ``ping -s``; the IP packet is 28 bytes longer.
        df: set the don't-fragment bit.
        timeout: seconds to wait for answers once all is sent, resends included. It returns as
            soon as the fate of all pairs is known.
        retries: how often an unanswered probe is sent again within the timeout.

    Returns:
        One `Echo` per pair, in the order of the pairs.

    Raises:
        ValueError: the size does not fit an IP packet or cannot hold the token.
        KeyError: a pair names no endpoint.
    """
    if not SMALLEST_SIZE <= size <= _LARGEST_SIZE:
        raise ValueError(f"size {size} is not between {SMALLEST_SIZE} and {_LARGEST_SIZE}")
    by_name = {endpoint.name: endpoint for endpoint in endpoints}
    if pairs is None:
        pairs = [(a.name, b.name) for a in endpoints for b in endpoints if a is not b]
    wanted = list(dict.fromkeys(pairs))
    probes = [(by_name[src], by_name[dst].address, size) for src, dst in wanted]
    return dict(zip(wanted, ping_round(probes, df, timeout, retries), strict=True))


Probe = tuple[Endpoint, str, int]  # source, destination address, ICMP data in bytes
_PATTERN = bytes(range(256)) * 256  # fills a probe behind its token


@dataclass(slots=True, eq=False)
class _Source:
    """A raw socket in one endpoint's namespace, and the probes sent from it."""

    endpoint: Endpoint
    ident: int
    sock: socket.socket | None = None
    space: int = _LONGEST_ERROR  # bytes of the longest answer
    flights: list[_Flight] = field(default_factory=list)  # the index is the sequence number


@dataclass(slots=True, eq=False)
class _Flight:
    """One probe under way."""

    source: _Source
    address: IPv4Address
    size: int
    seq: int
    result: Echo | None = None

    def message(self, token: bytes) -> bytes:
        data = token + _PATTERN[: self.size - TOKEN]
        return packet.echo_request(self.source.ident, self.seq, data)

    @property
    def target(self) -> tuple[str, int]:
        return str(self.address), 0


def ping_round(probes: Sequence[Probe], df: bool, timeout: float, retries: int) -> list[Echo]:
    """What becomes of pings that are all under way at the same time.

    Args:
        probes: source, destination address and ICMP data in bytes of each.
        df: set the don't-fragment bit.
        timeout: seconds to wait for answers once all is sent, resends included.
        retries: how often an unanswered probe is sent again within the timeout.

    Returns:
        One result per probe, in order.
    """
    silence = Echo(False, error=f"{SILENCE} within {timeout:g} s")
    with _Round(probes, df) as this_round:
        this_round.run(timeout, retries)
        return [flight.result or silence for flight in this_round.flights]


class _Round:
    """All probes of one round with their sockets; a context manager that closes them."""

    def __init__(self, probes: Sequence[Probe], df: bool) -> None:
        self.df = df
        self.flights: list[_Flight] = []
        self.sources: dict[Endpoint, _Source] = {}
        self.by_fd: dict[int, _Source] = {}
        self.sent: dict[bytes, tuple[_Flight, int]] = {}  # by token; with wall clock in ns
        self.unsettled = 0
        for endpoint, address, size in probes:
            source = self.sources.get(endpoint)
            if source is None:
                ident = int.from_bytes(os.urandom(2), "big")
                source = self.sources[endpoint] = _Source(endpoint, ident)
            source.space = max(source.space, _LARGEST_HEADERS + size)
            seq = len(source.flights) & 0xFFFF
            source.flights.append(_Flight(source, IPv4Address(address), size, seq))
            self.flights.append(source.flights[-1])

    def __enter__(self) -> _Round:
        self.poll = select.epoll()
        for source in self.sources.values():
            self._open(source)
        self.unsettled = sum(flight.result is None for flight in self.flights)
        return self

    def __exit__(self, *_: object) -> None:
        self.poll.close()
        for source in self.by_fd.values():
            if source.sock is not None:
                source.sock.close()

    def _open(self, source: _Source) -> None:
        endpoint = source.endpoint
        try:
            sock = in_netns(endpoint.netns, lambda: raw_socket(self.df))
        except OSError as error:
            text = f"cannot probe from {endpoint.netns}: {error.strerror}"
            self._fail_all(source, Echo(False, error=text, errno=error.errno, measured=False))
            return
        try:
            # Bound, it sends from this address and hears only what is sent to it: two endpoints
            # may share a namespace.
            sock.bind((endpoint.address, 0))
        except OSError as error:
            sock.close()
            text = f"{error.strerror}: {endpoint.address}"
            self._fail_all(source, Echo(False, error=text, errno=error.errno))
            return
        source.sock = sock
        self.by_fd[sock.fileno()] = source
        self.poll.register(sock.fileno(), select.EPOLLIN)

    def _fail_all(self, source: _Source, echo: Echo) -> None:
        for flight in source.flights:
            flight.result = echo

    def run(self, timeout: float, retries: int) -> None:
        """Send everything, then again what is unanswered, until all is known or time is over."""
        share = timeout / (retries + 1)
        for _ in range(retries + 1):
            self._send(share)
            deadline = time.monotonic() + share
            while self.unsettled and (left := deadline - time.monotonic()) > 0:
                self._listen(left)

    def _send(self, patience: float) -> None:
        """Send all unsettled probes, reading answers meanwhile so that no buffer fills up."""
        waiting = deque(flight for flight in self._round_robin() if flight.result is None)
        deadline = time.monotonic() + patience
        while waiting:
            stuck = False
            for _ in range(min(_BURST, len(waiting))):
                if not self._send_one(waiting[0]):
                    stuck = True
                    break
                waiting.popleft()
            if stuck and time.monotonic() > deadline:
                return  # the next attempt sends them
            self._listen(0.001 if stuck else 0)

    def _round_robin(self) -> Iterable[_Flight]:
        """One probe of each source in turn, so that nobody gets a burst."""
        rows = zip_longest(*(source.flights for source in self.sources.values()))
        return (flight for row in rows for flight in row if flight is not None)

    def _send_one(self, flight: _Flight) -> bool:
        """Send one probe; False when the kernel has no room at the moment."""
        sock = flight.source.sock
        if flight.result is not None or sock is None:
            return True
        token = os.urandom(TOKEN)
        message = flight.message(token)
        self.sent[token] = flight, time.time_ns()
        try:
            sock.sendto(message, flight.target)
        except OSError as error:
            del self.sent[token]
            if error.errno in _TRANSIENT:
                return False
            self._settle(flight, self._refusal(flight, error))
        return True

    def _refusal(self, flight: _Flight, error: OSError) -> Echo:
        text, mtu = os.strerror(error.errno or 0), None
        if error.errno == errno.EMSGSIZE:
            mtu = _stated_mtu(flight, self.df)
            text += f", mtu={mtu}" if mtu is not None else ""
        return Echo(False, error=text, errno=error.errno, mtu=mtu)

    def _settle(self, flight: _Flight, echo: Echo) -> None:
        if flight.result is None:
            flight.result = echo
            self.unsettled -= 1

    def _listen(self, wait: float) -> None:
        """Read what has come; wait up to so many seconds if nothing has."""
        for fd, _ in self.poll.poll(wait):
            source = self.by_fd[fd]
            if source.sock is not None:
                self._read(source, source.sock)

    def _read(self, source: _Source, sock: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                data, ancillary, _, _ = sock.recvmsg(source.space, 64)
            except BlockingIOError:
                return
            at = (data[0] & 0xF) * 4
            if data[at] == packet.ICMP_ECHO_REPLY:
                self._reply(data, at, received_ns(ancillary))
            else:
                self._complaint(source, data)

    def _reply(self, data: bytes, at: int, received_ns: int) -> None:
        """Count an echo reply if it is the answer to one of our transmissions, else ignore it."""
        flight, sent_ns = self.sent.get(data[at + 8 : at + 8 + TOKEN], (None, 0))
        if (
            flight is not None
            and data[12:16] == flight.address.packed
            and data[at + 4 : at + 8] == struct.pack("!HH", flight.source.ident, flight.seq)
            and len(data) == at + 8 + flight.size
            # The kernel hands raw sockets their copy before it looks at the checksum.
            and packet.checksum(data[at:]) == 0
        ):
            # The wall clock may be set in between; a negative time helps nobody.
            rtt_us = max(0, received_ns - sent_ns) / 1000
            self._settle(flight, Echo(True, rtt_us, ttl=data[8]))

    def _complaint(self, source: _Source, data: bytes) -> None:
        """Count a router's ICMP error if it quotes one of our transmissions, else ignore it."""
        error = packet.decode(data, l3=True)
        ip, icmp, quoted = error.outer_ip, error.find(packet.ICMP), error.quoted
        flight = self._quoted_flight(source, quoted) if quoted else None
        if ip is not None and icmp is not None and flight is not None:
            mtu = icmp.mtu or None  # 0: a router from before RFC 1191
            text = f"{_words(icmp)}{f', mtu={mtu}' if mtu else ''}, says {ip.src}"
            self._settle(flight, Echo(False, error=text, router=str(ip.src), mtu=mtu))

    def _quoted_flight(self, source: _Source, quoted: packet.Packet) -> _Flight | None:
        ip, icmp, data = quoted.outer_ip, quoted.find(packet.ICMP), quoted.find(packet.Payload)
        if ip is None or icmp is None or icmp.type != packet.ICMP_ECHO or icmp.seq is None:
            return None
        flight: _Flight | None = None
        # Routers must quote 8 bytes of the ICMP message only; Linux quotes the token too.
        if data is not None and data.length >= TOKEN:
            flight, _ = self.sent.get(data.data[:TOKEN], (None, 0))
        elif icmp.seq < len(source.flights):
            flight = source.flights[icmp.seq]
        if flight is None or (icmp.ident, icmp.seq) != (flight.source.ident, flight.seq):
            return None
        return flight if ip.dst == flight.address else None


def _stated_mtu(flight: _Flight, df: bool) -> int | None:
    """The MTU that the source's kernel states for a probe that it found too long."""
    endpoint = flight.source.endpoint
    with in_netns(endpoint.netns, lambda: raw_socket(df)) as sock:
        sock.bind((endpoint.address, 0))
        return refused_mtu(sock, flight.message(os.urandom(TOKEN)), flight.target)


def _words(icmp: packet.ICMP) -> str:
    """An ICMP error in ping's words."""
    if icmp.type == packet.ICMP_UNREACHABLE:
        return _UNREACHABLE.get(icmp.code, f"Destination Unreachable, code {icmp.code}")
    if icmp.type == packet.ICMP_TIME_EXCEEDED:
        return "Time to live exceeded" if icmp.code == 0 else "Frag reassembly time exceeded"
    return f"ICMP type {icmp.type}, code {icmp.code}"
