"""The fields of a header: name, value, and the bytes they are in.

Pure, as the rest of the package. What `vxlab.packet.decode` leaves out, since nothing in vxlab
decides by it (a checksum, a window), is read here from the frame itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vxlab.packet.headers import (
    ARP,
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ETHERTYPE_QINQ,
    ETHERTYPE_VLAN,
    ICMP,
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

ETHERTYPES = {
    ETHERTYPE_IPV4: "IPv4",
    ETHERTYPE_ARP: "ARP",
    ETHERTYPE_IPV6: "IPv6",
    ETHERTYPE_VLAN: "VLAN",
    ETHERTYPE_QINQ: "VLAN",
}
PROTOCOLS = {PROTO_ICMP: "ICMP", PROTO_TCP: "TCP", PROTO_UDP: "UDP", PROTO_ICMPV6: "ICMPv6"}
#: RFC 792.
ICMP_TYPES = {
    0: "echo reply",
    3: "destination unreachable",
    4: "source quench",
    5: "redirect",
    8: "echo request",
    11: "time exceeded",
    12: "parameter problem",
    13: "timestamp",
    14: "timestamp reply",
}
#: RFC 792, RFC 1812.
UNREACHABLE = {
    0: "net unreachable",
    1: "host unreachable",
    2: "protocol unreachable",
    3: "port unreachable",
    4: "fragmentation needed",
    9: "net prohibited",
    10: "host prohibited",
    13: "communication prohibited",
}
ICMPV6_TYPES = {128: "echo request", 129: "echo reply"}  # RFC 4443
_TCP_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")
_UDP_PORTS = {8472: "Linux's VXLAN", 4789: "IANA's VXLAN"}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a header; several may share a byte, such as IP's version and header length."""

    name: str
    value: str
    offset: int  # of its first byte, in the frame
    length: int  # bytes


def fields(layer: Layer, frame: bytes) -> tuple[Field, ...]:
    """What a header's bytes say, field by field, in the order of the frame.

    Args:
        layer: one of the layers that `vxlab.packet.decode` read from the frame.
        frame: the whole frame; the layer's place is counted in it.

    Returns:
        The fields. Together they cover every byte of the layer.
    """
    cut = _Cut(layer, frame)
    _READERS[type(layer)](cut, layer)
    return tuple(cut.fields)


class _Cut:
    """Cuts a layer into fields, each by its place behind the layer's first byte."""

    def __init__(self, layer: Layer, frame: bytes) -> None:
        self.layer = layer
        self.data = frame[layer.offset : layer.end]
        self.fields: list[Field] = []

    def number(self, at: int, length: int = 2) -> int:
        return int.from_bytes(self.data[at : at + length], "big")

    def add(self, name: str, at: int, length: int, value: object = None) -> None:
        """A field; the number that its bytes are, if no value is given."""
        shown = str(self.number(at, length) if value is None else value)
        self.fields.append(Field(name, shown, self.layer.offset + at, length))

    def rest(self, name: str, at: int) -> None:
        """What follows the fields that every such header has, if anything."""
        if at < len(self.data):
            self.add(name, at, len(self.data) - at, _bytes(len(self.data) - at))


def _bytes(count: int) -> str:
    return f"{count} byte" if count == 1 else f"{count} bytes"


def _named(number: int, names: dict[int, str], digits: int = 0) -> str:
    """A number and what it stands for."""
    shown = f"0x{number:0{digits}x}" if digits else str(number)
    return f"{shown} ({names[number]})" if number in names else shown


def _ethernet(cut: _Cut, layer: Ethernet) -> None:
    cut.add("destination MAC", 0, 6, layer.dst)
    cut.add("source MAC", 6, 6, layer.src)
    for number, vlan in enumerate(layer.vlans):
        cut.add("VLAN tag", 12 + 4 * number, 4, f"VLAN {vlan}")
    cut.add("EtherType", layer.length - 2, 2, _named(layer.ethertype, ETHERTYPES, 4))


def _arp(cut: _Cut, layer: ARP) -> None:
    cut.add("hardware type", 0, 2, "1 (Ethernet)")
    cut.add("protocol type", 2, 2, "0x0800 (IPv4)")
    cut.add("address lengths", 4, 2, "6 and 4 bytes")
    cut.add("operation", 6, 2, _named(layer.op, {1: "request", 2: "reply"}))
    cut.add("sender MAC", 8, 6, layer.sender_mac)
    cut.add("sender address", 14, 4, layer.sender_ip)
    cut.add("target MAC", 18, 6, layer.target_mac)
    cut.add("target address", 24, 4, layer.target_ip)


def _ipv4(cut: _Cut, layer: IPv4) -> None:
    cut.add("version", 0, 1, 4)
    cut.add("header length", 0, 1, _bytes(layer.length))
    cut.add("type of service", 1, 1, f"0x{layer.tos:02x}")
    cut.add("total length", 2, 2, _bytes(layer.total_length))
    cut.add("identification", 4, 2, f"0x{layer.id:04x} ({layer.id})")
    cut.add("flags", 6, 1, _ip_flags(layer))
    cut.add("fragment offset", 6, 2, _bytes(layer.frag_offset))
    cut.add("time to live", 8, 1, layer.ttl)
    cut.add("protocol", 9, 1, _named(layer.proto, PROTOCOLS))
    right = "right" if layer.checksum_ok else "WRONG"
    cut.add("header checksum", 10, 2, f"0x{cut.number(10):04x} ({right})")
    cut.add("source address", 12, 4, layer.src)
    cut.add("destination address", 16, 4, layer.dst)
    cut.rest("options", 20)


def _ip_flags(layer: IPv4) -> str:
    words = ["don't fragment"] if layer.df else []
    words += ["more fragments"] if layer.mf else []
    return ", ".join(words) or "none"


def _ipv6(cut: _Cut, layer: IPv6) -> None:
    first = cut.number(0, 4)
    cut.add("version", 0, 1, 6)
    cut.add("traffic class", 0, 2, f"0x{first >> 20 & 0xFF:02x}")
    cut.add("flow label", 1, 3, f"0x{first & 0xFFFFF:05x}")
    cut.add("payload length", 4, 2, _bytes(layer.payload_length))
    cut.add("next header", 6, 1, _named(cut.number(6, 1), PROTOCOLS))
    cut.add("hop limit", 7, 1, layer.hop_limit)
    cut.add("source address", 8, 16, layer.src)
    cut.add("destination address", 24, 16, layer.dst)
    cut.rest("extension headers", 40)


def _udp(cut: _Cut, layer: UDP) -> None:
    cut.add("source port", 0, 2, layer.sport)
    cut.add("destination port", 2, 2, _named(layer.dport, _UDP_PORTS))
    cut.add("length", 4, 2, _bytes(layer.udp_length))
    check = layer.checksum
    cut.add("checksum", 6, 2, f"0x{check:04x}" if check else "0x0000 (none)")


def _tcp(cut: _Cut, layer: TCP) -> None:
    flags = [name for bit, name in enumerate(_TCP_FLAGS) if layer.flags >> bit & 1]
    cut.add("source port", 0, 2, layer.sport)
    cut.add("destination port", 2, 2, layer.dport)
    cut.add("sequence number", 4, 4, layer.seq)
    cut.add("acknowledgement number", 8, 4, layer.ack)
    cut.add("header length", 12, 1, _bytes(layer.length))
    cut.add("flags", 13, 1, f"0x{layer.flags:02x} ({', '.join(flags) or 'none'})")
    cut.add("window", 14, 2, layer.window)
    cut.add("checksum", 16, 2, f"0x{cut.number(16):04x}")
    cut.add("urgent pointer", 18, 2)
    cut.rest("options", 20)


def _icmp(cut: _Cut, layer: ICMP) -> None:
    cut.add("type", 0, 1, _named(layer.type, ICMP_TYPES))
    cut.add("code", 1, 1, _named(layer.code, UNREACHABLE if layer.type == 3 else {}))
    cut.add("checksum", 2, 2, f"0x{cut.number(2):04x}")
    if layer.ident is not None:
        cut.add("identifier", 4, 2, layer.ident)
        cut.add("sequence number", 6, 2, layer.seq)
    elif layer.mtu is not None:
        cut.add("unused", 4, 2, f"0x{cut.number(4):04x}")
        cut.add("MTU of the next hop", 6, 2, _bytes(layer.mtu))
    else:
        cut.add("rest of the header", 4, 4, f"0x{cut.number(4, 4):08x}")


def _icmpv6(cut: _Cut, layer: ICMPv6) -> None:
    cut.add("type", 0, 1, _named(layer.type, ICMPV6_TYPES))
    cut.add("code", 1, 1, layer.code)
    cut.add("checksum", 2, 2, f"0x{cut.number(2):04x}")


def _vxlan(cut: _Cut, layer: VXLAN) -> None:
    meaning = "the VNI is valid" + (", with a group policy" if layer.group is not None else "")
    cut.add("flags", 0, 1, f"0x{layer.flags:02x} ({meaning})")
    if layer.group is None:
        cut.add("reserved", 1, 3, f"0x{cut.number(1, 3):06x}")
    else:
        cut.add("policy flags", 1, 1, f"0x{cut.number(1, 1):02x}")
        cut.add("group policy id", 2, 2, layer.group)
    cut.add("VNI", 4, 3, layer.vni)
    cut.add("reserved", 7, 1, f"0x{cut.number(7, 1):02x}")


def _payload(cut: _Cut, layer: Payload) -> None:
    cut.rest("data", 0)


def _raw(cut: _Cut, layer: Raw) -> None:
    if layer.length:
        cut.add("not read", 0, layer.length, layer.reason)


_READERS: dict[type[Layer], Callable[[_Cut, Any], None]] = {
    Ethernet: _ethernet,
    ARP: _arp,
    IPv4: _ipv4,
    IPv6: _ipv6,
    UDP: _udp,
    TCP: _tcp,
    ICMP: _icmp,
    ICMPv6: _icmpv6,
    VXLAN: _vxlan,
    Payload: _payload,
    Raw: _raw,
}
