"""Which field of which header a place in a frame is: outer, VXLAN's, or of the packet inside.

A filter's bytecode knows only offsets. What lies at one depends on what was read before: behind an
EtherType 0x86dd is an IPv6 header, behind UDP port 8472 a VXLAN header. `locate` is given that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vxlab import mtu
from vxlab.packet import (
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ETHERTYPE_QINQ,
    ETHERTYPE_VLAN,
)

#: What a field's value means, for those who print it.
Meaning = Literal["ethertype", "protocol", "port", "ipv4", "ipv6", "fragment", "tag", "number"]

TAGS = {ETHERTYPE_VLAN, ETHERTYPE_QINQ, 0x9100}
ETHERTYPES = {
    ETHERTYPE_IPV4: "IPv4",
    ETHERTYPE_ARP: "ARP",
    0x8035: "reverse ARP",
    ETHERTYPE_VLAN: "a VLAN tag",
    ETHERTYPE_QINQ: "a provider's VLAN tag",
    0x9100: "an older double VLAN tag",
    ETHERTYPE_IPV6: "IPv6",
}
PROTOCOLS = {1: "ICMP", 6: "TCP", 17: "UDP", 44: "an IPv6 fragment", 58: "ICMPv6", 132: "SCTP"}

IPV4 = mtu.OUTER_IPV4  # bytes of the header without options
IPV6 = 40  # bytes of the header without extension headers (RFC 8200)
ETHERNET = mtu.INNER_ETHERNET
TAG = 4  # bytes of a VLAN tag (IEEE 802.1Q)


@dataclass(frozen=True, slots=True)
class Read:
    """A place in a frame: `size` bytes at `offset`.

    With `past`, offset counts from the end of the IPv4 header that begins at byte `past`.
    """

    offset: int
    size: int
    past: int | None = None


@dataclass(frozen=True, slots=True)
class Inside:
    """What outer UDP packets to or from a port carry."""

    port: int = 8472
    backend: Literal["vxlan", "udp"] = "vxlan"  # udp: the inner IP packet follows UDP at once
    version: Literal[4, 6] = 4  # of the inner IP packet


@dataclass(frozen=True, slots=True)
class Place:
    """What is at a place in a frame.

    `rank` tells how much is known: 2 a field inside the tunnel, 1 a field, 0 only bytes.
    """

    field: str  # "source address"
    header: str  # "inner IPv4"; empty where the field says it all
    meaning: Meaning = "number"
    rank: int = 1
    part: int = 0  # for a part of an address: bytes of it before this place
    sure: bool = True  # False: only if the outer IPv4 header has no options

    @property
    def name(self) -> str:
        return f"{self.header} {self.field}".strip()


_Fields = tuple[tuple[int, int, str, Meaning], ...]  # (offset, size, name, meaning)

_PORTS: _Fields = ((0, 2, "source port", "port"), (2, 2, "destination port", "port"))
_TABLES: Mapping[str, _Fields] = {
    "Ethernet": (
        (0, 6, "destination MAC address", "number"),
        (6, 6, "source MAC address", "number"),
        (12, 2, "EtherType", "ethertype"),
    ),
    "VLAN tag": ((0, 2, "priority and VLAN id", "tag"), (2, 2, "EtherType", "ethertype")),
    "ARP": (
        (0, 2, "hardware type", "number"),
        (2, 2, "protocol type", "ethertype"),
        (4, 1, "MAC address length", "number"),
        (5, 1, "IP address length", "number"),
        (6, 2, "operation", "number"),
        (8, 6, "sender's MAC address", "number"),
        (14, 4, "sender's IP address", "ipv4"),
        (18, 6, "target's MAC address", "number"),
        (24, 4, "target's IP address", "ipv4"),
    ),
    "IPv4": (
        (0, 1, "version and header length", "number"),
        (1, 1, "type of service", "number"),
        (2, 2, "total length", "number"),
        (4, 2, "identification", "number"),
        (6, 2, "flags and fragment offset", "fragment"),
        (8, 1, "TTL", "number"),
        (9, 1, "protocol", "protocol"),
        (10, 2, "header checksum", "number"),
        (12, 4, "source address", "ipv4"),
        (16, 4, "destination address", "ipv4"),
    ),
    "IPv6": (
        (0, 4, "version, traffic class and flow label", "number"),
        (4, 2, "payload length", "number"),
        (6, 1, "next header", "protocol"),
        (7, 1, "hop limit", "number"),
        (8, 16, "source address", "ipv6"),
        (24, 16, "destination address", "ipv6"),
    ),
    "UDP": (*_PORTS, (4, 2, "length", "number"), (6, 2, "checksum", "number")),
    "TCP": (
        *_PORTS,
        (4, 4, "sequence number", "number"),
        (8, 4, "acknowledgement number", "number"),
        (12, 1, "header length", "number"),
        (13, 1, "flags", "number"),
        (14, 2, "window", "number"),
        (16, 2, "checksum", "number"),
        (18, 2, "urgent pointer", "number"),
    ),
    "SCTP": (*_PORTS, (4, 4, "verification tag", "number"), (8, 4, "checksum", "number")),
    "ICMP": (
        (0, 1, "type", "number"),
        (1, 1, "code", "number"),
        (2, 2, "checksum", "number"),
        (4, 2, "identifier", "number"),
        (6, 2, "sequence number", "number"),
    ),
    "ICMPv6": ((0, 1, "type", "number"), (1, 1, "code", "number"), (2, 2, "checksum", "number")),
    "VXLAN": (
        (0, 1, "flags", "number"),
        (1, 3, "reserved bytes", "number"),
        (4, 3, "VNI", "number"),
        (7, 1, "reserved byte", "number"),
    ),
}
_SPANS = {"Ethernet": ETHERNET, "IPv4": IPV4, "IPv6": IPV6, "VXLAN": mtu.VXLAN_HEADER}


@dataclass(frozen=True, slots=True)
class _Header:
    """A header that begins at byte `start`, counted as a `Read` with the same `past` counts."""

    start: int
    kind: str
    prefix: str = ""  # "outer" or "inner"

    @property
    def name(self) -> str:
        return f"{self.prefix} {self.kind}".strip()


def locate(read: Read, known: Mapping[Read, int], inside: Inside | None) -> Place:
    """What is at a place, as far as one can tell.

    Args:
        read: the place.
        known: what was found at other places before.
        inside: what the outer packets carry, if any are expected.
    """
    found: _Header | None = None
    for header in _headers(read.past, known, inside):
        if header.start <= read.offset:
            found = header
    if found is None:
        return Place(_bytes(read.offset, read.size), "the frame's", rank=0)
    # A place given from the frame's start is behind the IPv4 header only if that has no options.
    first, version = _network(known)
    beyond = read.past is None and version == ETHERTYPE_IPV4 and read.offset >= first + IPV4
    return _field(found, read, sure=not beyond)


def _field(header: _Header, read: Read, *, sure: bool) -> Place:
    at, end = read.offset - header.start, read.offset - header.start + read.size
    told = "" if header.kind == "VLAN tag" else header.name
    rank = 2 if header.prefix == "inner" or header.kind == "VXLAN" else 1
    for offset, size, name, meaning in _TABLES.get(header.kind, ()):
        if name == "EtherType":
            told = header.prefix
        if (offset, offset + size) == (at, end):
            return Place(name, told, meaning, rank, sure=sure)
        if offset <= at and end <= offset + size:
            part = at - offset
            words = f"{name}, {_bytes(part + 1, read.size)}"
            kept: Meaning = meaning if meaning == "ipv6" else "number"
            return Place(words, told, kept, rank, part, sure)
    return Place(f"header, {_bytes(at + 1, read.size)}", header.name, rank=0, sure=sure)


def _bytes(first: int, size: int) -> str:
    return f"byte {first}" if size == 1 else f"bytes {first}-{first + size - 1}"


def _network(known: Mapping[Read, int]) -> tuple[int, int | None]:
    """Where the (outer) network header begins, and its EtherType if that is known."""
    at = ETHERNET - 2
    while known.get(Read(at, 2)) in TAGS:
        at += TAG
    return at + 2, known.get(Read(at, 2))


def _headers(past: int | None, known: Mapping[Read, int], inside: Inside | None) -> list[_Header]:
    prefix = "outer" if inside else ""
    start, ethertype = _network(known)
    if past is not None:
        return _transport(0, past, ETHERTYPE_IPV4, known, inside)
    found = [_Header(0, "Ethernet", prefix)]
    found += [_Header(at, "VLAN tag", prefix) for at in range(ETHERNET, start, TAG)]
    if ethertype == ETHERTYPE_IPV4:
        found.append(_Header(start, "IPv4", prefix))
        found += _transport(start + IPV4, start, ethertype, known, inside)
    elif ethertype == ETHERTYPE_IPV6:
        found.append(_Header(start, "IPv6", prefix))
        found += _transport(start + IPV6, start, ethertype, known, inside)
    elif ethertype in (ETHERTYPE_ARP, 0x8035):
        found.append(_Header(start, "ARP"))
    else:
        found.append(_Header(start, "network"))
    return found


def _transport(
    start: int, network: int, ethertype: int, known: Mapping[Read, int], inside: Inside | None
) -> list[_Header]:
    """What follows the (outer) IP header, which begins at byte `network` of the frame."""
    if ethertype == ETHERTYPE_IPV4:
        proto, length = known.get(Read(network + 9, 1)), IPV4
    else:
        proto, length = known.get(Read(network + 6, 1)), IPV6
    kind = PROTOCOLS.get(proto or 0, "transport")
    prefix = "outer" if inside else ""
    found = [_Header(start, kind if kind in _TABLES else "transport", prefix)]
    # A program may have read the ports at either count of bytes.
    ports = [known.get(Read(network + length + at, 2)) for at in (0, 2)]
    ports += [known.get(Read(at, 2, network)) for at in (0, 2)]
    if inside is None or kind != "UDP" or inside.port not in ports:
        return found
    at = start + mtu.OUTER_UDP
    for header in ("VXLAN", "Ethernet") if inside.backend == "vxlan" else ():
        found.append(_Header(at, header, "inner" if header == "Ethernet" else ""))
        at += _SPANS[header]
    version = f"IPv{inside.version}"
    found.append(_Header(at, version, "inner"))
    found.append(_Header(at + _SPANS[version], "transport", "inner"))
    return found
