"""A packet's journey as values: each hop that saw it, when, what changed there, and why it came.

`vxlab.trace.journey_match` finds the packet again in the captures, `vxlab.trace.journey_told` puts
the journey together. The clock is the kernel's, in nanoseconds; see `vxlab.trace.clocks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vxlab.packet import IPv4, Packet
from vxlab.sniff import Direction, Frame
from vxlab.trace.hops import Hop
from vxlab.trace.why import Entry, Place

Protocol = Literal["icmp", "udp", "tcp"]

#: The probe itself, what its target answers, or an ICMP error that somebody on the way sends.
Role = Literal["request", "answer", "error"]


@dataclass(frozen=True, slots=True)
class Probe:
    """One packet that was sent, and how it is known again at every hop."""

    number: int  # from 1
    protocol: Protocol
    src: str
    dst: str
    sport: int  # ICMP: the identifier
    dport: int  # ICMP: the sequence number
    token: bytes = b""  # random, at the start of the data; none for TCP
    size: int = 0  # bytes of data
    sent_ns: int = 0  # 0: not known, another program sent it
    refused: str = ""  # the sending kernel's words, if it did not send it
    fill: bytes = b""  # the byte that its data ends with, if what it begins with is not known


@dataclass(frozen=True, slots=True)
class Seen:
    """A frame at one hop that is (a piece of) a probe or of what came back."""

    hop: Hop
    frame: Frame
    packet: Packet
    inner: Packet  # the same where nothing is encapsulated; a later fragment has its first's
    probe: int
    role: Role
    about: Role  # of an error: what it is about; else as `role`

    @property
    def ip(self) -> IPv4 | None:
        """The IP header of the packet from container to container."""
        return self.inner.find(IPv4)

    @property
    def piece(self) -> tuple[int, int]:
        """Which fragment it is: byte offsets of the outer and of the inner packet's piece."""
        outer, inner = self.packet.find(IPv4), self.ip
        offset = inner.frag_offset if inner else 0
        return outer.frag_offset if outer and self.encapsulated else 0, offset

    @property
    def encapsulated(self) -> bool:
        return self.inner is not self.packet

    @property
    def ip_length(self) -> int:
        """Bytes of the (outer) IP packet: what has to fit the MTU."""
        outer = self.packet.find(IPv4)
        return outer.total_length if outer else 0


@dataclass(frozen=True, slots=True)
class Change:
    """What a packet's headers say at one hop and did not at the one before."""

    kind: str  # stable: ttl, macs, encapsulated, decapsulated, address, ports, fragmented ...
    text: str
    values: Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class Stop:
    """A hop that saw the packet; several frames if it came in fragments, or twice."""

    hop: Hop
    direction: Direction
    frames: tuple[Seen, ...]
    since_start: float  # microseconds; from the first sight of the probe by the same clock
    since_last: (
        float | None
    )  # microseconds, from the stop before; None: there is none by this clock
    changes: tuple[Change, ...] = ()
    why: tuple[Entry, ...] = ()

    @property
    def pieces(self) -> tuple[Seen, ...]:
        """One frame of each fragment; one alone for a whole packet."""
        first = {seen.piece: seen for seen in reversed(self.frames)}
        return tuple(first[piece] for piece in sorted(first))

    @property
    def duplicates(self) -> int:
        """How many frames too many there were."""
        return len(self.frames) - len(self.pieces)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a packet disappeared, and what says so."""

    code: str  # stable, such as no-fdb
    where: str
    text: str
    source: str  # the state, a counter, an ICMP error ...


@dataclass(frozen=True, slots=True)
class Leg:
    """One packet's way through the hops: the probe's, its answer's, or an error's."""

    role: Role
    what: str  # such as "echo request, id 7 seq 1"
    src: str
    dst: str
    stops: tuple[Stop, ...]
    arrived: bool | None  # None: it left the lab, where nobody looks
    again: bool = False  # a retransmission
    encapsulated: bool = False
    note: str = ""
    missed: tuple[Hop, ...] = ()  # hops that it should have come to and did not
    reasons: tuple[Reason, ...] = ()  # why it was lost; the likeliest first


@dataclass(frozen=True, slots=True)
class Journey:
    """A probe and all that became of it."""

    probe: Probe
    legs: tuple[Leg, ...]
    ok: bool | None  # probe and answer arrived; None: not measured
    round_trip: float | None = None  # microseconds, at the source's interface
    reasons: tuple[Reason, ...] = ()  # why there is nothing to see at all
    between: float | None = None  # microseconds between two real hosts, there and back together


@dataclass(frozen=True, slots=True)
class Watched:
    """What a capture at one hop brought."""

    hop: Hop
    frames: tuple[Frame, ...] = ()
    dropped: int = 0
    error: str = ""  # why nothing could be captured
    l3: bool = False  # frames begin with their IP header (flannel's tun device)


@dataclass(frozen=True, slots=True)
class Trace:
    """All journeys of one `vxlab trace`."""

    lab: str
    protocol: Protocol
    source: Place
    src: str
    target: str  # as it was asked for: a container, gateway, a node, an address
    dst: str
    at: Place | None  # who has the address; None: nobody in the lab
    expected: str  # how packets travel in this lab between the two
    journeys: tuple[Journey, ...]
    watched: tuple[Watched, ...]
    one_clock: bool = True  # False: each host has its own, and only times of one host are compared

    @property
    def dropped(self) -> int:
        """Frames that the captures lost."""
        return sum(each.dropped for each in self.watched)

    @property
    def ok(self) -> bool | None:
        """False: a packet or its answer was lost. None: it may have been the captures."""
        verdicts = {journey.ok for journey in self.journeys}
        return False if False in verdicts else None if None in verdicts else True
