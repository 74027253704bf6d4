"""Frames of a ping as the hops of the talk's lab see them, made by hand, byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

import talk
from vxlab.lab import Lab
from vxlab.packet import checksum
from vxlab.sniff import Direction, Frame
from vxlab.state import FdbEntry, Net, Route, State
from vxlab.trace.hops import Hop
from vxlab.trace.journey import Journey, Probe, Trace, Watched
from vxlab.trace.journey_match import Matcher
from vxlab.trace.journey_told import Scene, journeys
from vxlab.trace.why import Place
from vxlab.trace.why_lost import Counters

A, B = "10.5.1.10", "10.5.2.10"
NODE1, NODE2 = "192.168.56.21", "192.168.56.22"
TOKEN = b"\x01\x02\x03\x04\x05\x06\x07\x08"
START = 1_700_000_000_000_000_000  # nanoseconds

SOURCE = Place("node01", "container01")
TARGET = Place("node02", "container02")

#: The way from container to container: hop, direction, TTL, whether it is encapsulated there.
WAY: tuple[tuple[str, Direction, int, bool], ...] = (
    ("node01/container01:vethNS", "out", 64, False),
    ("node01:vethlocal", "in", 64, False),
    ("node01:cbr0", "in", 64, False),
    ("node01:flannel.1", "out", 63, False),
    ("node01:eth0", "out", 63, True),
    ("node02:eth0", "in", 63, True),
    ("node02:flannel.1", "in", 63, False),
    ("node02:cbr0", "out", 62, False),
    ("node02:vethlocal", "out", 62, False),
    ("node02/container02:vethNS", "in", 62, False),
)


def hop(name: str) -> Hop:
    place, _, interface = name.partition(":")
    node, _, container = place.partition("/")
    return Hop(node, container, interface)


def mirrored(
    way: Sequence[tuple[str, Direction, int, bool]] = WAY,
) -> list[tuple[str, Direction, int, bool]]:
    """The way of the answer: the same hops, with the nodes' roles exchanged."""
    other = {"node01": "node02", "node02": "node01"}
    swap = {"container01": "container02", "container02": "container01"}

    def named(name: str) -> str:
        there = hop(name)
        return str(Hop(other[there.node], swap.get(there.container, ""), there.interface))

    return [(named(name), direction, ttl, wrapped) for name, direction, ttl, wrapped in way]


# --- bytes --------------------------------------------------------------------------------------


def ipv4(
    src: str,
    dst: str,
    payload: bytes,
    *,
    proto: int = 1,
    ttl: int = 64,
    ident: int = 77,
    df: bool = False,
    mf: bool = False,
    offset: int = 0,
) -> bytes:
    flags = (df << 14) | (mf << 13) | (offset // 8)
    ends = IPv4Address(src).packed + IPv4Address(dst).packed
    length = 20 + len(payload)
    head = struct.pack("!BBHHHBBH", 0x45, 0, length, ident, flags, ttl, proto, 0) + ends
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + payload


def ether(payload: bytes, src: str = "02:00:00:00:00:01", dst: str = "02:00:00:00:00:02") -> bytes:
    macs = bytes.fromhex(dst.replace(":", "") + src.replace(":", ""))
    return macs + b"\x08\x00" + payload


def udp(sport: int, dport: int, payload: bytes) -> bytes:
    return struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload


def tcp(sport: int, dport: int, seq: int, ack: int, flags: int) -> bytes:
    return struct.pack("!HHIIBBHHH", sport, dport, seq, ack, 0x50, flags, 64240, 0, 0)


def echo(kind: int = 8, seq: int = 1, token: bytes = TOKEN, size: int = 56) -> bytes:
    body = token + bytes(size - len(token))
    unsummed = struct.pack("!BBHHH", kind, 0, 0, 7, seq) + body
    return unsummed[:2] + checksum(unsummed).to_bytes(2, "big") + unsummed[4:]


def complaint(code: int, quoted: bytes, *, mtu: int = 0) -> bytes:
    """ICMP destination unreachable about a packet."""
    return struct.pack("!BBHHH", 3, code, 0, 0, mtu) + quoted[:548]


def vxlan(
    frame: bytes,
    src: str = NODE1,
    dst: str = NODE2,
    *,
    vni: int = 1,
    port: int = 8472,
    sport: int = 41000,
    ident: int = 500,
) -> bytes:
    """The outer IP packet around an inner frame."""
    header = struct.pack("!BBHI", 8, 0, 0, vni << 8)
    return ipv4(src, dst, udp(sport, port, header + frame), proto=17, ident=ident)


def pieces(packet: bytes, most: int) -> list[bytes]:
    """An IPv4 packet cut into fragments of at most so many bytes (RFC 791)."""
    head, data = packet[:20], packet[20:]
    room = (most - 20) // 8 * 8
    fragments = []
    for at in range(0, len(data), room):
        more = at + room < len(data)
        part = data[at : at + room]
        flags = (more << 13) | (at // 8)
        new = head[:2] + struct.pack("!H", 20 + len(part)) + head[4:6] + struct.pack("!H", flags)
        new += head[8:10] + b"\0\0" + head[12:20]
        fragments.append(new[:10] + checksum(new).to_bytes(2, "big") + new[12:] + part)
    return fragments


# --- states -------------------------------------------------------------------------------------


def _connected(net: Net, macs: Mapping[str, str]) -> Net:
    """With the routes that the kernel makes out of addresses, and with MACs."""
    links = {n: replace(link, mac=macs.get(n, link.mac)) for n, link in net.links.items()}
    routes = [
        Route(str(IPv4Interface(a).network), "", link.name, "kernel", "link")
        for link in links.values()
        for a in link.addresses
    ]
    return replace(net, links=links, routes=(*net.routes, *routes))


def states(lab: Lab = talk.TALK) -> dict[str, State]:
    """The talk's nodes as a snapshot shows them, kernel's own routes and cbr0's table included."""
    found = {}
    for number, (name, state) in enumerate(talk.states(lab).items(), 1):
        inside = {
            container: _connected(net, {"vethNS": f"0a:00:00:00:0{number}:0{i}"})
            for i, (container, net) in enumerate(state.inside.items())
        }
        ports = [link.name for link in state.net.links.values() if link.master == "cbr0"]
        fdb = [
            FdbEntry(net.links["vethNS"].mac, port)
            for port, net in zip(ports, inside.values(), strict=False)
        ]
        net = _connected(state.net, {"cbr0": f"0c:00:00:00:00:0{number}"})
        net = replace(net, fdb=(*net.fdb, *fdb))
        found[name] = replace(state, net=net, inside=inside)
    return found


# --- captures -----------------------------------------------------------------------------------


@dataclass
class Wire:
    """What passes the hops; the clock goes on by a microsecond with each frame."""

    now: int = START
    frames: dict[str, list[Frame]] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def see(self, where: str, direction: Direction, data: bytes) -> None:
        self.frames.setdefault(where, []).append(Frame(self.now, direction, data, len(data)))
        self.now += 1000

    def pass_by(
        self,
        way: Iterable[tuple[str, Direction, int, bool]],
        src: str,
        dst: str,
        payload: bytes,
        **ip: Any,
    ) -> None:
        """A packet goes along a way; the nodes rewrite TTL and MACs, VTEPs wrap it."""
        for where, direction, ttl, wrapped in way:
            mac = f"02:00:00:00:{ttl:02x}:01"
            frame = ether(ipv4(src, dst, payload, ttl=ttl, **ip), src=mac)
            if wrapped:
                ends = (NODE1, NODE2) if dst == B else (NODE2, NODE1)
                frame = ether(vxlan(frame, *ends))
            self.see(where, direction, frame)

    def ping(self, *, there: int = 10, back: int = 10, seq: int = 1, token: bytes = TOKEN) -> Wire:
        """An echo request seen at so many hops, and its reply at so many."""
        self.pass_by(WAY[:there], A, B, echo(8, seq, token), ident=100 + seq)
        if there == len(WAY):
            self.pass_by(mirrored()[:back], B, A, echo(0, seq, token), ident=200 + seq)
        return self

    @property
    def watched(self) -> list[Watched]:
        names = dict.fromkeys([*(name for name, *_ in WAY), *self.frames, *self.errors])
        return [
            Watched(
                hop(name),
                tuple(self.frames.get(name, ())),
                self.dropped.get(name, 0),
                self.errors.get(name, ""),
            )
            for name in names
        ]


def probe(number: int = 1, **fields: object) -> Probe:
    """The ping of `Wire.ping`."""
    made = Probe(number, "icmp", A, B, 7, number, TOKEN, 56, START)
    return replace(made, **fields)  # type: ignore[arg-type]


def scene(
    wire: Wire,
    *,
    lab: Lab = talk.TALK,
    at: Place | None = TARGET,
    grown: dict[str, Counters] | None = None,
    **damaged: object,
) -> Scene:
    """The talk's healthy lab, with what the hops saw; `damaged` replaces nodes' states."""
    every = {**states(lab), **damaged}
    watched = {w.hop: w for w in wire.watched}
    return Scene(lab, every, SOURCE, at, watched, grown or {})  # type: ignore[arg-type]


def told(
    wire: Wire, probes: Sequence[Probe] | None = None, **kwargs: object
) -> tuple[Journey, ...]:
    """The journeys that are made out of what the hops saw."""
    asked = probes or [probe()]
    seen = list(Matcher(asked, vxlan_ports={8472}).match(wire.watched))
    return journeys(scene(wire, **kwargs), asked, seen)  # type: ignore[arg-type]


def trace(wire: Wire, probes: Sequence[Probe] | None = None, **kwargs: object) -> Trace:
    return Trace(
        "talk",
        "icmp",
        SOURCE,
        A,
        "container02",
        B,
        TARGET,
        "VXLAN: VNI 1, UDP 8472",
        told(wire, probes, **kwargs),
        tuple(wire.watched),
    )
