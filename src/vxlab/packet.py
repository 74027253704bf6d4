"""What a packet on the wire says, header by header, down to the packet inside a VXLAN packet.

Pure: bytes in, headers out. Every byte of a frame belongs to exactly one layer, and every layer
knows its place in the frame, so that a hex dump can be coloured. Nothing here raises because of
what a frame contains: what cannot be read becomes a `Raw` layer that says why.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple, TypeVar

#: Linux's VXLAN port, which flannel keeps; IANA's is 4789.
LINUX_VXLAN_PORT = 8472

ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_ARP = 0x0806
ETHERTYPE_VLAN = 0x8100
ETHERTYPE_IPV6 = 0x86DD
ETHERTYPE_QINQ = 0x88A8

PROTO_ICMP = 1
PROTO_TCP = 6
PROTO_UDP = 17
PROTO_ICMPV6 = 58

ICMP_ECHO_REPLY = 0
ICMP_UNREACHABLE = 3
ICMP_FRAG_NEEDED = 4  # code of ICMP_UNREACHABLE
ICMP_ECHO = 8
ICMP_TIME_EXCEEDED = 11
ICMP_PARAMETER_PROBLEM = 12

#: ICMP types whose body is an identifier and a sequence number: echo and timestamp (RFC 792).
_ICMP_WITH_IDENT = frozenset({0, 8, 13, 14})
#: ICMP types that quote the packet which they complain about: RFC 792 (errors, redirect).
_ICMP_QUOTING = frozenset({3, 4, 5, 11, 12})

_VXLAN_FLAG_VNI = 0x08  # "I": the VNI is valid, RFC 7348 section 5
_VXLAN_FLAG_GBP = 0x80  # "G": a group policy id is present (draft-smith-vxlan-group-policy)


@dataclass(frozen=True, slots=True)
class Header:
    """A stretch of a frame: bytes `offset` to `offset + length`, counted from the frame's first."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class Ethernet(Header):
    """From which network card to which one on this link (IEEE 802.3), with its VLAN tags."""

    src: str
    dst: str
    ethertype: int  # of what follows the tags
    vlans: tuple[int, ...] = ()  # VLAN ids (IEEE 802.1Q), the outermost first

    @property
    def vlan(self) -> int | None:
        """The outermost VLAN id, or None for an untagged frame."""
        return self.vlans[0] if self.vlans else None


@dataclass(frozen=True, slots=True)
class ARP(Header):
    """Who has this IPv4 address on the link, and the answer (RFC 826)."""

    op: int  # 1 request, 2 reply
    sender_mac: str
    sender_ip: IPv4Address
    target_mac: str
    target_ip: IPv4Address


@dataclass(frozen=True, slots=True)
class IPv4(Header):
    """From which host to which, and whether routers may cut the packet up (RFC 791)."""

    src: IPv4Address
    dst: IPv4Address
    proto: int
    ttl: int
    id: int
    df: bool  # don't fragment
    mf: bool  # more fragments follow
    frag_offset: int  # bytes
    total_length: int  # bytes, header included; 0 in captures of segments over 64 KiB (TSO)
    checksum_ok: bool  # of the header
    tos: int = 0


@dataclass(frozen=True, slots=True)
class IPv6(Header):
    """From which host to which (RFC 8200). Extension headers count as part of this one."""

    src: IPv6Address
    dst: IPv6Address
    proto: int  # what follows the extension headers
    hop_limit: int
    payload_length: int  # bytes after the first 40
    mf: bool = False
    frag_offset: int = 0  # bytes

    @property
    def total_length(self) -> int:
        """Bytes of the whole packet, as IPv4 counts them."""
        return 40 + self.payload_length if self.payload_length else 0


@dataclass(frozen=True, slots=True)
class UDP(Header):
    """Which port to which (RFC 768). VXLAN's source port is a hash of the inner packet's flow."""

    sport: int
    dport: int
    udp_length: int  # bytes, header included
    checksum: int  # 0: none, usual for VXLAN over IPv4


@dataclass(frozen=True, slots=True)
class TCP(Header):
    """Which port to which, and where in the stream (RFC 9293)."""

    sport: int
    dport: int
    seq: int
    ack: int
    flags: int  # FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128
    window: int


@dataclass(frozen=True, slots=True)
class ICMP(Header):
    """An echo, its reply, or a router's complaint (RFC 792; the MTU in it is RFC 1191's)."""

    type: int
    code: int
    ident: int | None  # echo and timestamp only
    seq: int | None
    mtu: int | None  # bytes; "fragmentation needed" only


@dataclass(frozen=True, slots=True)
class ICMPv6(Header):
    """IPv6's echoes, complaints, neighbour and router discovery (RFC 4443)."""

    type: int
    code: int


@dataclass(frozen=True, slots=True)
class VXLAN(Header):
    """To which overlay network the Ethernet frame behind it belongs (RFC 7348 section 5)."""

    flags: int  # the first byte; 0x08 means that the VNI is valid
    vni: int
    group: int | None = None  # group policy id, with flag 0x80 (Linux: `gbp`)


@dataclass(frozen=True, slots=True)
class Payload(Header):
    """The data that UDP, TCP or ICMP carry for somebody else."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Raw(Header):
    """Bytes that say nothing here, and the reason for that."""

    data: bytes
    reason: str


IP = IPv4 | IPv6
Layer = Ethernet | ARP | IPv4 | IPv6 | UDP | TCP | ICMP | ICMPv6 | VXLAN | Payload | Raw
L = TypeVar("L", bound=Header)


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet as its headers, outermost first; after a `VXLAN` layer those of the inner frame."""

    layers: tuple[Layer, ...]

    def find(self, kind: type[L]) -> L | None:
        """The outermost layer of a kind, such as ``find(ICMP)``, or None."""
        return next((layer for layer in self.layers if isinstance(layer, kind)), None)

    @property
    def outer_ip(self) -> IP | None:
        """The IP header that the underlay routes by, or None."""
        before = self.layers[: self._vxlan_index()]
        return next((layer for layer in before if isinstance(layer, IPv4 | IPv6)), None)

    @property
    def vxlan(self) -> VXLAN | None:
        """The (outermost) VXLAN header, or None for a packet that is not encapsulated."""
        return self.find(VXLAN)

    @property
    def inner(self) -> Packet | None:
        """The packet that VXLAN carries, its places still counted in the outer frame; or None."""
        index = self._vxlan_index()
        return None if index is None else Packet(self.layers[index + 1 :])

    @property
    def overhead(self) -> int | None:
        """Bytes that the encapsulation costs: outer minus inner IP total length.

        50 for VXLAN over IPv4. None where the two lengths cannot be compared: nothing is
        encapsulated, the inner frame is not IP (ARP), or the outer packet is only a fragment.
        """
        outer = self.outer_ip
        inner = self.inner.outer_ip if self.inner else None
        if outer is None or inner is None or self.is_fragment:
            return None
        if not outer.total_length or not inner.total_length:
            return None
        return outer.total_length - inner.total_length

    @property
    def is_fragment(self) -> bool:
        """Whether the (outer) IP packet was cut up and this is one of its pieces."""
        outer = self.outer_ip
        return outer is not None and (outer.mf or outer.frag_offset > 0)

    @property
    def quoted(self) -> Packet | None:
        """The beginning of the packet that an ICMP error is about, places counted from there."""
        for layer, after in zip(self.layers, self.layers[1:], strict=False):
            if isinstance(layer, ICMP) and layer.type in _ICMP_QUOTING:
                return decode(after.data, l3=True) if isinstance(after, Payload) else None
        return None

    def _vxlan_index(self) -> int | None:
        return next((i for i, layer in enumerate(self.layers) if isinstance(layer, VXLAN)), None)


def decode(
    frame: bytes, *, vxlan_ports: Collection[int] = (LINUX_VXLAN_PORT,), l3: bool = False
) -> Packet:
    """The headers of a captured frame.

    Args:
        frame: the frame from its destination MAC address on, without preamble and checksum.
        vxlan_ports: UDP destination ports behind which VXLAN is expected.
        l3: the frame begins with its IP header.

    Returns:
        The layers. Their byte ranges follow each other and cover the whole frame.
    """
    layers: list[Layer] = []
    tails: list[Layer] = []
    at, end = 0, len(frame)
    read: _Reader | None = _ip if l3 else _ethernet
    # A loop and not a recursion: a crafted frame can nest VXLAN more than a thousand times.
    while read is not None and not (read is _payload and at == end):
        layer, read, stated_end = read(frame, at, end)
        if stated_end < end:
            reason = f"after the end that the {type(layer).__name__} header states, padding"
            tails.append(_raw(frame, stated_end, end, reason))
            end = stated_end
        if isinstance(layer, UDP) and layer.dport in vxlan_ports:
            read = _vxlan
        layers.append(layer)
        at = layer.end
    return Packet((*layers, *reversed(tails)))


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071): 0 over data that includes a right checksum."""
    if len(data) % 2:
        data += b"\0"
    # The one's complement sum of 16-bit words is the number modulo 65535, as 65536 is 1 there; it
    # has two zeros, and 0 appears as a sum only for data that is all zero.
    number = int.from_bytes(data, "big")
    total = number % 0xFFFF
    if total == 0 and number:
        total = 0xFFFF
    return total ^ 0xFFFF


def echo_request(ident: int, seq: int, payload: bytes) -> bytes:
    """An ICMP echo request, without IP header, ready for a raw ICMP socket (RFC 792).

    Args:
        ident: identifier, 16 bits.
        seq: sequence number, 16 bits.
        payload: the data that the reply brings back.
    """
    unsummed = struct.pack("!BBHHH", ICMP_ECHO, 0, 0, ident, seq) + payload
    return unsummed[:2] + checksum(unsummed).to_bytes(2, "big") + unsummed[4:]


# What follows reads one header each: from a frame, between two places, to the layer, what to read
# next, and where the header says that its packet ends.
class _Step(NamedTuple):
    layer: Layer
    then: _Reader | None
    end: int


_Reader = Callable[[bytes, int, int], _Step]

_ETHERNET = struct.Struct("!6s6sH")
_VLAN_TAG = struct.Struct("!HH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_UDP = struct.Struct("!HHHH")
_TCP = struct.Struct("!HHIIBBHHH")
_ICMP = struct.Struct("!BBHHH")
_VXLAN = struct.Struct("!BBHI")


def _raw(frame: bytes, at: int, end: int, reason: str) -> Raw:
    return Raw(at, end - at, frame[at:end], reason)


def _unread(frame: bytes, at: int, end: int, reason: str) -> _Step:
    return _Step(_raw(frame, at, end, reason), None, end)


def _cut(frame: bytes, at: int, end: int, name: str, need: int) -> _Step:
    return _unread(frame, at, end, f"{name} header cut short: {end - at} of {need} bytes")


def _because(reason: str) -> _Reader:
    """A reader for what is known to be unreadable before it is looked at."""
    return lambda frame, at, end: _unread(frame, at, end, reason)


def _payload(frame: bytes, at: int, end: int) -> _Step:
    return _Step(Payload(at, end - at, frame[at:end]), None, end)


def _ethernet(frame: bytes, at: int, end: int) -> _Step:
    if end - at < _ETHERNET.size:
        return _cut(frame, at, end, "Ethernet", _ETHERNET.size)
    dst, src, ethertype = _ETHERNET.unpack_from(frame, at)
    after = at + _ETHERNET.size
    vlans: list[int] = []
    while ethertype in (ETHERTYPE_VLAN, ETHERTYPE_QINQ):
        if end - after < _VLAN_TAG.size:
            return _cut(frame, at, end, "Ethernet", after + _VLAN_TAG.size - at)
        tag, ethertype = _VLAN_TAG.unpack_from(frame, after)
        vlans.append(tag & 0xFFF)
        after += _VLAN_TAG.size
    layer = Ethernet(at, after - at, src.hex(":"), dst.hex(":"), ethertype, tuple(vlans))
    unknown = f"ethertype 0x{ethertype:04x} is not decoded"
    return _Step(layer, _BY_ETHERTYPE.get(ethertype) or _because(unknown), end)


def _arp(frame: bytes, at: int, end: int) -> _Step:
    if end - at < _ARP.size:
        return _cut(frame, at, end, "ARP", _ARP.size)
    hardware, protocol, hlen, plen, op, smac, sip, tmac, tip = _ARP.unpack_from(frame, at)
    if (hardware, protocol, hlen, plen) != (1, ETHERTYPE_IPV4, 6, 4):
        return _unread(frame, at, end, "ARP for something other than IPv4 on Ethernet")
    sender, target = IPv4Address(sip), IPv4Address(tip)
    layer = ARP(at, _ARP.size, op, smac.hex(":"), sender, tmac.hex(":"), target)
    return _Step(layer, _payload, layer.end)


def _ip(frame: bytes, at: int, end: int) -> _Step:
    if at == end:
        return _cut(frame, at, end, "IP", 1)
    version = frame[at] >> 4
    if version == 4:
        return _ipv4(frame, at, end)
    if version == 6:
        return _ipv6(frame, at, end)
    return _unread(frame, at, end, f"IP version {version} does not exist")


def _ipv4(frame: bytes, at: int, end: int) -> _Step:
    if end - at < _IPV4.size:
        return _cut(frame, at, end, "IPv4", _IPV4.size)
    first, tos, total, ident, frag, ttl, proto, _, src, dst = _IPV4.unpack_from(frame, at)
    length = (first & 0xF) * 4
    if first >> 4 != 4 or length < _IPV4.size:
        return _unread(frame, at, end, f"not an IPv4 header: begins with 0x{first:02x}")
    if end - at < length:
        return _cut(frame, at, end, "IPv4", length)
    if 0 < total < length:
        return _unread(frame, at, end, f"IPv4 total length {total} is less than its header")
    df, mf, frag_offset = bool(frag & 0x4000), bool(frag & 0x2000), (frag & 0x1FFF) * 8
    right = checksum(frame[at : at + length]) == 0
    source, target = IPv4Address(src), IPv4Address(dst)
    layer = IPv4(
        at, length, source, target, proto, ttl, ident, df, mf, frag_offset, total, right, tos
    )
    stated_end = min(end, at + total) if total else end
    return _Step(layer, _transport(proto, frag_offset), stated_end)


#: Extension headers that are skipped (RFC 8200 section 4): hop-by-hop, routing, fragment, options.
_IPV6_FRAGMENT = 44
_IPV6_EXTENSIONS = frozenset({0, 43, _IPV6_FRAGMENT, 60})


def _ipv6(frame: bytes, at: int, end: int) -> _Step:
    if end - at < _IPV6.size:
        return _cut(frame, at, end, "IPv6", _IPV6.size)
    first, payload_length, proto, hop_limit, src, dst = _IPV6.unpack_from(frame, at)
    if first >> 28 != 6:
        return _unread(frame, at, end, f"not an IPv6 header: begins with 0x{first >> 24:02x}")
    after = at + _IPV6.size
    stated_end = min(end, after + payload_length) if payload_length else end
    mf, frag_offset, cut = False, 0, ""
    while proto in _IPV6_EXTENSIONS and frag_offset == 0:
        size = 8 if proto == _IPV6_FRAGMENT or stated_end - after < 2 else 8 + frame[after + 1] * 8
        if stated_end - after < size:
            cut = f"IPv6 extension header cut short: {stated_end - after} of {size} bytes"
            break
        if proto == _IPV6_FRAGMENT:
            place = int.from_bytes(frame[after + 2 : after + 4], "big")
            mf, frag_offset = bool(place & 1), place & 0xFFF8
        proto = frame[after]
        after += size
    source, target = IPv6Address(src), IPv6Address(dst)
    layer = IPv6(at, after - at, source, target, proto, hop_limit, payload_length, mf, frag_offset)
    return _Step(layer, _because(cut) if cut else _transport(proto, frag_offset), stated_end)


def _transport(proto: int, frag_offset: int) -> _Reader:
    if frag_offset:
        return _because(f"a later fragment, byte {frag_offset} and following of a longer packet")
    return _BY_PROTO.get(proto) or _because(f"IP protocol {proto} is not decoded")


def _udp(frame: bytes, at: int, end: int) -> _Step:
    if end - at < _UDP.size:
        return _cut(frame, at, end, "UDP", _UDP.size)
    sport, dport, length, check = _UDP.unpack_from(frame, at)
    layer = UDP(at, _UDP.size, sport, dport, length, check)
    # 0 is a datagram over 64 KiB (RFC 2675, and TSO in captures); 1 to 7 cannot be.
    if 0 < length < _UDP.size:
        return _unread(frame, at, end, f"UDP length {length} is less than its header")
    return _Step(layer, _payload, min(end, at + length) if length else end)


def _tcp(frame: bytes, at: int, end: int) -> _Step:
    if end - at < _TCP.size:
        return _cut(frame, at, end, "TCP", _TCP.size)
    sport, dport, seq, ack, words, flags, window, _, _ = _TCP.unpack_from(frame, at)
    length = (words >> 4) * 4
    if length < _TCP.size:
        return _unread(frame, at, end, f"TCP header length {length} is too small")
    if end - at < length:
        return _cut(frame, at, end, "TCP", length)
    return _Step(TCP(at, length, sport, dport, seq, ack, flags, window), _payload, end)


def _icmp(frame: bytes, at: int, end: int) -> _Step:
    if end - at < _ICMP.size:
        return _cut(frame, at, end, "ICMP", _ICMP.size)
    kind, code, _, first, second = _ICMP.unpack_from(frame, at)
    ident, seq = (first, second) if kind in _ICMP_WITH_IDENT else (None, None)
    mtu = second if (kind, code) == (ICMP_UNREACHABLE, ICMP_FRAG_NEEDED) else None
    return _Step(ICMP(at, _ICMP.size, kind, code, ident, seq, mtu), _payload, end)


def _icmpv6(frame: bytes, at: int, end: int) -> _Step:
    if end - at < 4:
        return _cut(frame, at, end, "ICMPv6", 4)
    return _Step(ICMPv6(at, 4, frame[at], frame[at + 1]), _payload, end)


def _vxlan(frame: bytes, at: int, end: int) -> _Step:
    if end - at < _VXLAN.size:
        return _cut(frame, at, end, "VXLAN", _VXLAN.size)
    flags, _, group, last = _VXLAN.unpack_from(frame, at)
    if not flags & _VXLAN_FLAG_VNI:
        return _unread(frame, at, end, "not VXLAN: the flag of a valid VNI is not set")
    layer = VXLAN(at, _VXLAN.size, flags, last >> 8, group if flags & _VXLAN_FLAG_GBP else None)
    return _Step(layer, _ethernet, end)


_BY_ETHERTYPE: dict[int, _Reader] = {
    ETHERTYPE_IPV4: _ipv4,
    ETHERTYPE_ARP: _arp,
    ETHERTYPE_IPV6: _ipv6,
}
_BY_PROTO: dict[int, _Reader] = {
    PROTO_ICMP: _icmp,
    PROTO_TCP: _tcp,
    PROTO_UDP: _udp,
    PROTO_ICMPV6: _icmpv6,
}
