"""What each header of a packet says: one value per layer, with its place in the frame.

Only the values are here. `vxlab.packet.readers` finds them in a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

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
ICMP_WITH_IDENT = frozenset({0, 8, 13, 14})
#: ICMP types that quote the packet which they complain about: RFC 792 (errors, redirect).
ICMP_QUOTING = frozenset({3, 4, 5, 11, 12})


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
