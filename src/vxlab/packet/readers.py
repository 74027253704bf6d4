"""From bytes to headers, one header each.

A reader is given a frame and two places in it. It says which layer begins at the first, what to
read next, and where the header says that its packet ends.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from vxlab.packet.headers import (
    ARP,
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ETHERTYPE_QINQ,
    ETHERTYPE_VLAN,
    ICMP,
    ICMP_FRAG_NEEDED,
    ICMP_UNREACHABLE,
    ICMP_WITH_IDENT,
    PROTO_ICMP,
    PROTO_ICMPV6,
    PROTO_TCP,
    PROTO_UDP,
    TCP,
    UDP,
    VXLAN,
    Ethernet,
    ICMPv6,
    IPv4,
    IPv6,
    Layer,
    Payload,
    Raw,
)

_VXLAN_FLAG_VNI = 0x08  # "I": the VNI is valid, RFC 7348 section 5
_VXLAN_FLAG_GBP = 0x80  # "G": a group policy id is present (draft-smith-vxlan-group-policy)


class Step(NamedTuple):
    """What one reader found, and where to go on."""

    layer: Layer
    then: Reader | None  # None: nothing more is to be read
    end: int  # where the header says that its packet ends


Reader = Callable[[bytes, int, int], Step]

_ETHERNET = struct.Struct("!6s6sH")
_VLAN_TAG = struct.Struct("!HH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_UDP = struct.Struct("!HHHH")
_TCP = struct.Struct("!HHIIBBHHH")
_ICMP = struct.Struct("!BBHHH")
_VXLAN = struct.Struct("!BBHI")


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


def raw(frame: bytes, at: int, end: int, reason: str) -> Raw:
    return Raw(at, end - at, frame[at:end], reason)


def _unread(frame: bytes, at: int, end: int, reason: str) -> Step:
    return Step(raw(frame, at, end, reason), None, end)


def _cut(frame: bytes, at: int, end: int, name: str, need: int) -> Step:
    return _unread(frame, at, end, f"{name} header cut short: {end - at} of {need} bytes")


def _because(reason: str) -> Reader:
    """A reader for what is known to be unreadable before it is looked at."""
    return lambda frame, at, end: _unread(frame, at, end, reason)


def payload(frame: bytes, at: int, end: int) -> Step:
    return Step(Payload(at, end - at, frame[at:end]), None, end)


def ethernet(frame: bytes, at: int, end: int) -> Step:
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
    return Step(layer, _BY_ETHERTYPE.get(ethertype) or _because(unknown), end)


def _arp(frame: bytes, at: int, end: int) -> Step:
    if end - at < _ARP.size:
        return _cut(frame, at, end, "ARP", _ARP.size)
    hardware, protocol, hlen, plen, op, smac, sip, tmac, tip = _ARP.unpack_from(frame, at)
    if (hardware, protocol, hlen, plen) != (1, ETHERTYPE_IPV4, 6, 4):
        return _unread(frame, at, end, "ARP for something other than IPv4 on Ethernet")
    sender, target = IPv4Address(sip), IPv4Address(tip)
    layer = ARP(at, _ARP.size, op, smac.hex(":"), sender, tmac.hex(":"), target)
    return Step(layer, payload, layer.end)


def ip(frame: bytes, at: int, end: int) -> Step:
    if at == end:
        return _cut(frame, at, end, "IP", 1)
    version = frame[at] >> 4
    if version == 4:
        return _ipv4(frame, at, end)
    if version == 6:
        return _ipv6(frame, at, end)
    return _unread(frame, at, end, f"IP version {version} does not exist")


def _ipv4(frame: bytes, at: int, end: int) -> Step:
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
    return Step(layer, _transport(proto, frag_offset), stated_end)


#: Extension headers that are skipped (RFC 8200 section 4): hop-by-hop, routing, fragment, options.
_IPV6_FRAGMENT = 44
_IPV6_EXTENSIONS = frozenset({0, 43, _IPV6_FRAGMENT, 60})


def _ipv6(frame: bytes, at: int, end: int) -> Step:
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
    return Step(layer, _because(cut) if cut else _transport(proto, frag_offset), stated_end)


def _transport(proto: int, frag_offset: int) -> Reader:
    if frag_offset:
        return _because(f"a later fragment, byte {frag_offset} and following of a longer packet")
    return _BY_PROTO.get(proto) or _because(f"IP protocol {proto} is not decoded")


def _udp(frame: bytes, at: int, end: int) -> Step:
    if end - at < _UDP.size:
        return _cut(frame, at, end, "UDP", _UDP.size)
    sport, dport, length, check = _UDP.unpack_from(frame, at)
    layer = UDP(at, _UDP.size, sport, dport, length, check)
    # 0 is a datagram over 64 KiB (RFC 2675, and TSO in captures); 1 to 7 cannot be.
    if 0 < length < _UDP.size:
        return _unread(frame, at, end, f"UDP length {length} is less than its header")
    return Step(layer, payload, min(end, at + length) if length else end)


def _tcp(frame: bytes, at: int, end: int) -> Step:
    if end - at < _TCP.size:
        return _cut(frame, at, end, "TCP", _TCP.size)
    sport, dport, seq, ack, words, flags, window, _, _ = _TCP.unpack_from(frame, at)
    length = (words >> 4) * 4
    if length < _TCP.size:
        return _unread(frame, at, end, f"TCP header length {length} is too small")
    if end - at < length:
        return _cut(frame, at, end, "TCP", length)
    return Step(TCP(at, length, sport, dport, seq, ack, flags, window), payload, end)


def _icmp(frame: bytes, at: int, end: int) -> Step:
    if end - at < _ICMP.size:
        return _cut(frame, at, end, "ICMP", _ICMP.size)
    kind, code, _, first, second = _ICMP.unpack_from(frame, at)
    ident, seq = (first, second) if kind in ICMP_WITH_IDENT else (None, None)
    mtu = second if (kind, code) == (ICMP_UNREACHABLE, ICMP_FRAG_NEEDED) else None
    return Step(ICMP(at, _ICMP.size, kind, code, ident, seq, mtu), payload, end)


def _icmpv6(frame: bytes, at: int, end: int) -> Step:
    if end - at < 4:
        return _cut(frame, at, end, "ICMPv6", 4)
    return Step(ICMPv6(at, 4, frame[at], frame[at + 1]), payload, end)


def vxlan(frame: bytes, at: int, end: int) -> Step:
    if end - at < _VXLAN.size:
        return _cut(frame, at, end, "VXLAN", _VXLAN.size)
    flags, _, group, last = _VXLAN.unpack_from(frame, at)
    if not flags & _VXLAN_FLAG_VNI:
        return _unread(frame, at, end, "not VXLAN: the flag of a valid VNI is not set")
    layer = VXLAN(at, _VXLAN.size, flags, last >> 8, group if flags & _VXLAN_FLAG_GBP else None)
    return Step(layer, ethernet, end)


_BY_ETHERTYPE: dict[int, Reader] = {
    ETHERTYPE_IPV4: _ipv4,
    ETHERTYPE_ARP: _arp,
    ETHERTYPE_IPV6: _ipv6,
}
_BY_PROTO: dict[int, Reader] = {
    PROTO_ICMP: _icmp,
    PROTO_TCP: _tcp,
    PROTO_UDP: _udp,
    PROTO_ICMPV6: _icmpv6,
}
