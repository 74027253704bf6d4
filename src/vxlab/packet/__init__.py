"""What a packet on the wire says, header by header, down to the packet inside a VXLAN packet.

Pure: bytes in, headers out. Every byte of a frame belongs to exactly one layer, and every layer
knows its place in the frame, so that a hex dump can be coloured. Nothing here raises because of
what a frame contains: what cannot be read becomes a `Raw` layer that says why.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeVar

from vxlab.packet import readers
from vxlab.packet.headers import (
    ARP,
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ETHERTYPE_QINQ,
    ETHERTYPE_VLAN,
    ICMP,
    ICMP_ECHO,
    ICMP_ECHO_REPLY,
    ICMP_FRAG_NEEDED,
    ICMP_PARAMETER_PROBLEM,
    ICMP_QUOTING,
    ICMP_TIME_EXCEEDED,
    ICMP_UNREACHABLE,
    IP,
    PROTO_ICMP,
    PROTO_ICMPV6,
    PROTO_TCP,
    PROTO_UDP,
    TCP,
    UDP,
    VXLAN,
    Ethernet,
    Header,
    ICMPv6,
    IPv4,
    IPv6,
    Layer,
    Payload,
    Raw,
)
from vxlab.packet.readers import checksum

__all__ = [
    "ARP",
    "ETHERTYPE_ARP",
    "ETHERTYPE_IPV4",
    "ETHERTYPE_IPV6",
    "ETHERTYPE_QINQ",
    "ETHERTYPE_VLAN",
    "ICMP",
    "ICMP_ECHO",
    "ICMP_ECHO_REPLY",
    "ICMP_FRAG_NEEDED",
    "ICMP_PARAMETER_PROBLEM",
    "ICMP_TIME_EXCEEDED",
    "ICMP_UNREACHABLE",
    "IP",
    "LINUX_VXLAN_PORT",
    "PROTO_ICMP",
    "PROTO_ICMPV6",
    "PROTO_TCP",
    "PROTO_UDP",
    "TCP",
    "UDP",
    "VXLAN",
    "Ethernet",
    "Header",
    "ICMPv6",
    "IPv4",
    "IPv6",
    "Layer",
    "Packet",
    "Payload",
    "Raw",
    "checksum",
    "decode",
    "echo_request",
]

#: Linux's VXLAN port, which flannel keeps; IANA's is 4789.
LINUX_VXLAN_PORT = 8472

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
            if isinstance(layer, ICMP) and layer.type in ICMP_QUOTING:
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
    read: readers.Reader | None = readers.ip if l3 else readers.ethernet
    # A loop and not a recursion: a crafted frame can nest VXLAN more than a thousand times.
    while read is not None and not (read is readers.payload and at == end):
        layer, read, stated_end = read(frame, at, end)
        if stated_end < end:
            reason = f"after the end that the {type(layer).__name__} header states, padding"
            tails.append(readers.raw(frame, stated_end, end, reason))
            end = stated_end
        if isinstance(layer, UDP) and layer.dport in vxlan_ports:
            read = readers.vxlan
        layers.append(layer)
        at = layer.end
    return Packet((*layers, *reversed(tails)))


def echo_request(ident: int, seq: int, payload: bytes) -> bytes:
    """An ICMP echo request, without IP header, ready for a raw ICMP socket (RFC 792).

    Args:
        ident: identifier, 16 bits.
        seq: sequence number, 16 bits.
        payload: the data that the reply brings back.
    """
    unsummed = struct.pack("!BBHHH", ICMP_ECHO, 0, 0, ident, seq) + payload
    return unsummed[:2] + checksum(unsummed).to_bytes(2, "big") + unsummed[4:]
