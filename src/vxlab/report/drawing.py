"""A packet drawn as what it is on the wire: header after header, with byte ranges and values."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from vxlab.packet import (
    ARP,
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ICMP,
    ICMP_ECHO,
    ICMP_ECHO_REPLY,
    ICMP_FRAG_NEEDED,
    ICMP_UNREACHABLE,
    PROTO_ICMP,
    PROTO_TCP,
    PROTO_UDP,
    TCP,
    UDP,
    VXLAN,
    Ethernet,
    ICMPv6,
    IPv4,
    IPv6,
    Packet,
    Payload,
    Raw,
)
from vxlab.packet.headers import Layer

_NAME = 14  # characters of the widest header's name: outer Ethernet
_VALUES = 37  # of the widest values: two MAC addresses with an arrow between
_PLACE = 9  # of byte ranges

_ETHERTYPES = {ETHERTYPE_IPV4: "IPv4", ETHERTYPE_ARP: "ARP", ETHERTYPE_IPV6: "IPv6"}
_PROTOCOLS = {PROTO_ICMP: "ICMP", PROTO_TCP: "TCP", PROTO_UDP: "UDP"}


def drawing(packet: Packet) -> str:
    """A packet as a picture of at most 80 columns.

    Each header is a row of the frame's bytes: the range, the name, the length and what it says.
    Beside them stands what the encapsulation puts in front, and the packet that is carried.

    Args:
        packet: as `vxlab.packet.decode` reads a captured frame.
    """
    brackets = _brackets(packet)
    width = _NAME + _VALUES + 9
    lines = [f"{'':{_PLACE}} ┌{'─' * width}┐"]
    for index, layer in enumerate(packet.layers):
        if index:
            beside = "".join(bracket.between(index) for bracket in brackets)
            lines.append(f"{'':{_PLACE}} ├{'─' * width}┤{beside}")
        beside = "".join(bracket.beside(index) for bracket in brackets)
        cells = (_range(layer), _name(packet, index), str(layer.length), beside)
        for values in _rows(_values(layer)):
            place, name, size, mark = cells
            row = f"{place:>{_PLACE}} │ {name:<{_NAME}} {size:>4}  {values:<{_VALUES}} │{mark}"
            lines.append(row)
            cells = ("", "", "", beside[:2])
    return "\n".join([*lines, f"{'':{_PLACE}} └{'─' * width}┘"])


def summary(packet: Packet) -> list[str]:
    """A packet of the underlay in a line or two: the outer one, and what is in it."""
    outer = packet.outer_ip
    if outer is None:
        return [f"{sum(layer.length for layer in packet.layers)} bytes"]
    words = [f"{outer.total_length} bytes", f"{outer.src} → {outer.dst}"]
    if packet.is_fragment:
        words.append(_piece(outer))
    icmp = packet.find(ICMP)
    if packet.vxlan is None:
        return ["  ".join([*words, *([f"ICMP: {_icmp(icmp)}"] if icmp is not None else [])])]
    lines = ["  ".join([*words, f"VNI {packet.vxlan.vni}"])]
    inner = packet.inner.outer_ip if packet.inner else None
    if inner is not None:
        said = [f"in it: {inner.total_length} bytes", f"{inner.src} → {inner.dst}"]
        if inner.mf or inner.frag_offset:
            said.append(_piece(inner))
        elif isinstance(inner, IPv4) and inner.df:
            said.append("don't fragment")
        lines.append("  ".join(said))
    return lines


def _piece(ip: IPv4 | IPv6) -> str:
    """Which part of a longer packet this fragment is."""
    data = ip.total_length - (ip.length if isinstance(ip, IPv4) else 40)
    return f"fragment {ip.frag_offset}-{ip.frag_offset + data - 1}"


@dataclass(frozen=True, slots=True)
class _Bracket:
    """What stands right of the box: layers that belong together, and their bytes as IP counts."""

    first: int
    last: int
    size: int

    def beside(self, layer: int) -> str:
        """Beside a layer; the size stands in the middle."""
        if not self.first <= layer <= self.last:
            return ""
        return f" │ {self.size}" if layer == (self.first + self.last) // 2 else " │"

    def between(self, layer: int) -> str:
        """Beside the line above a layer."""
        return " │" if self.first < layer <= self.last else ""


def _brackets(packet: Packet) -> list[_Bracket]:
    """What the encapsulation puts in front, and the packet that is carried; nothing without."""
    overhead = packet.overhead
    inner = packet.inner.outer_ip if packet.inner else None
    if overhead is None or inner is None:
        return []
    where = [i for i, layer in enumerate(packet.layers) if isinstance(layer, IPv4 | IPv6)]
    carried = packet.layers.index(inner)
    ends = [i for i, layer in enumerate(packet.layers) if layer.offset < _ip_end(inner)]
    return [
        _Bracket(where[0], carried - 1, overhead),
        _Bracket(carried, ends[-1], inner.total_length),
    ]


def _ip_end(ip: IPv4 | IPv6) -> int:
    return ip.offset + ip.total_length


def _rows(words: str) -> list[str]:
    """Values in rows that fit the box."""
    return [row for line in words.splitlines() for row in textwrap.wrap(line, _VALUES)] or [""]


def _range(layer: Layer) -> str:
    return f"{layer.offset}-{layer.end - 1}" if layer.length else str(layer.offset)


def _name(packet: Packet, index: int) -> str:
    layer = packet.layers[index]
    names = {Payload: "data", Raw: "not read"}
    name = names.get(type(layer), type(layer).__name__)
    tunnel = packet.vxlan
    if tunnel is None or not isinstance(layer, Ethernet | IPv4 | IPv6 | UDP):
        return name
    return f"{'outer' if layer.offset < tunnel.offset else 'inner'} {name}"


def _values(layer: Layer) -> str:
    """What a header says, in a few words; lines of their own where they read better."""
    match layer:
        case Ethernet():
            tags = "".join(f", VLAN {vlan}" for vlan in layer.vlans)
            return f"{layer.src} → {layer.dst}{tags}"
        case IPv4():
            words = f"{_carries(layer.proto)}, TTL {layer.ttl}, {layer.total_length} bytes"
            return f"{layer.src} → {layer.dst}\n{words}{_flags(layer)}"
        case IPv6():
            words = f"hop limit {layer.hop_limit}, {layer.total_length} bytes"
            return f"{layer.src} →\n{layer.dst}\n{_carries(layer.proto)}, {words}"
        case UDP():
            return f"port {layer.sport} → {layer.dport}, {layer.udp_length} bytes"
        case TCP():
            return f"port {layer.sport} → {layer.dport}, seq {layer.seq}"
        case VXLAN():
            return f"VNI {layer.vni}, flags 0x{layer.flags:02x}"
        case ICMP():
            return _icmp(layer)
        case ICMPv6():
            return f"type {layer.type}, code {layer.code}"
        case ARP():
            asks = f"who has {layer.target_ip}? tell {layer.sender_ip}"
            return asks if layer.op == 1 else f"{layer.sender_ip} is at {layer.sender_mac}"
        case Raw():
            return layer.reason
        case Payload():
            return "what the headers are for"


def _carries(proto: int) -> str:
    return _PROTOCOLS.get(proto, f"protocol {proto}")


def _flags(ip: IPv4) -> str:
    words = [", DF set"] if ip.df else []
    if ip.mf or ip.frag_offset:
        words.append(f"\n{_piece(ip)}")
    return "".join(words)


def _icmp(icmp: ICMP) -> str:
    if (icmp.type, icmp.code) == (ICMP_UNREACHABLE, ICMP_FRAG_NEEDED):
        return f"fragmentation needed, MTU {icmp.mtu}"
    names = {ICMP_ECHO: "echo request", ICMP_ECHO_REPLY: "echo reply"}
    if icmp.type in names:
        return f"{names[icmp.type]}, id {icmp.ident}, seq {icmp.seq}"
    return f"type {icmp.type}, code {icmp.code}"
