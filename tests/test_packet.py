"""Decoding packets: by hand, and field by field against tshark."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from vxlab import packet
from vxlab.packet import (
    ARP,
    ICMP,
    TCP,
    UDP,
    VXLAN,
    Ethernet,
    ICMPv6,
    IPv4,
    IPv6,
    Payload,
    Raw,
    decode,
)

MAC1, MAC2 = "02:00:00:00:00:01", "02:00:00:00:00:02"
NODE1, NODE2 = "192.168.56.21", "192.168.56.22"
C1, C2 = "10.5.1.10", "10.5.2.10"


def ethernet(
    body: bytes, kind: int = 0x0800, src: str = MAC1, dst: str = MAC2, tags: bytes = b""
) -> bytes:
    macs = bytes.fromhex((dst + src).replace(":", ""))
    return macs + tags + kind.to_bytes(2, "big") + body


def ipv4(
    body: bytes,
    proto: int,
    src: str = NODE1,
    dst: str = NODE2,
    *,
    ttl: int = 64,
    ident: int = 7,
    frag: int = 0,
    options: bytes = b"",
    total: int | None = None,
    tos: int = 0,
) -> bytes:
    length = 20 + len(options)
    header = struct.pack(
        "!BBHHHBBH4s4s",
        0x40 | length // 4,
        tos,
        length + len(body) if total is None else total,
        ident,
        frag,
        ttl,
        proto,
        0,
        IPv4Address(src).packed,
        IPv4Address(dst).packed,
    )
    header += options
    return header[:10] + packet.checksum(header).to_bytes(2, "big") + header[12:] + body


def ipv6(body: bytes, proto: int, src: str = "fd00::1", dst: str = "fd00::2") -> bytes:
    fixed = struct.pack("!IHBB", 6 << 28, len(body), proto, 63)
    return fixed + IPv6Address(src).packed + IPv6Address(dst).packed + body


def udp(body: bytes, sport: int = 40000, dport: int = 8472, length: int | None = None) -> bytes:
    return struct.pack("!HHHH", sport, dport, 8 + len(body) if length is None else length, 0) + body


def tcp(body: bytes, flags: int = 0x12, options: bytes = b"") -> bytes:
    words = (5 + len(options) // 4) << 4
    head = struct.pack("!HHIIBBHHH", 2379, 40001, 1000, 2000, words, flags, 64240, 0, 0)
    return head + options + body


def vxlan(frame: bytes, vni: int = 1, flags: int = 0x08, group: int = 0) -> bytes:
    return struct.pack("!BBHI", flags, 0, group, vni << 8) + frame


def arp(op: int = 1) -> bytes:
    return struct.pack(
        "!HHBBH6s4s6s4s",
        *(1, 0x0800, 6, 4, op),
        bytes.fromhex(MAC1.replace(":", "")),
        IPv4Address(C1).packed,
        bytes(6),
        IPv4Address("10.5.1.1").packed,
    )


def ping(size: int = 56, seq: int = 3) -> bytes:
    return ipv4(packet.echo_request(77, seq, bytes(size)), 1, C1, C2, ttl=62, frag=0x4000)


def encapsulated(inner: bytes | None = None, **kwargs: int) -> bytes:
    frame = ethernet(ping() if inner is None else inner)
    return ethernet(ipv4(udp(vxlan(frame, **kwargs)), 17))


def vlan(vid: int, kind: int = 0x8100) -> bytes:
    return struct.pack("!HH", kind, vid | 0x6000)


def names(frame: bytes, *, l3: bool = False) -> list[str]:
    return [type(layer).__name__ for layer in decode(frame, l3=l3).layers]


def test_the_talks_packet_is_read_down_to_the_inner_echo() -> None:
    """Container's ping in VXLAN: both halves, with every header at its place."""
    decoded = decode(encapsulated())
    assert decoded.layers[:-1] == (
        Ethernet(0, 14, MAC1, MAC2, 0x0800),
        IPv4(
            *(14, 20, IPv4Address(NODE1), IPv4Address(NODE2), 17, 64, 7),
            df=False,
            mf=False,
            frag_offset=0,
            total_length=134,
            checksum_ok=True,
        ),
        UDP(34, 8, 40000, 8472, 114, 0),
        VXLAN(42, 8, 0x08, 1),
        Ethernet(50, 14, MAC1, MAC2, 0x0800),
        IPv4(
            *(64, 20, IPv4Address(C1), IPv4Address(C2), 1, 62, 7),
            df=True,
            mf=False,
            frag_offset=0,
            total_length=84,
            checksum_ok=True,
        ),
        ICMP(84, 8, 8, 0, 77, 3, None),
    )
    assert decoded.layers[-1] == Payload(92, 56, bytes(56))


def test_the_talks_filter_offset_is_where_the_inner_source_address_is() -> None:
    """``ip[62:4]`` counts from the outer IP header and is the container's address."""
    frame = encapsulated()
    outer, inner = decode(frame).outer_ip, decode(frame).inner
    assert outer is not None
    assert inner is not None
    inner_ip = inner.outer_ip
    assert inner_ip is not None
    assert inner_ip.offset + 12 - outer.offset == 62
    place = outer.offset + 62
    assert frame[place : place + 4] == IPv4Address(C1).packed


def test_overhead_is_50_bytes_over_ipv4_and_70_over_ipv6() -> None:
    """Outer minus inner IP total length; the outer Ethernet header does not count."""
    assert decode(encapsulated()).overhead == 50
    over_ipv6 = ethernet(ipv6(udp(vxlan(ethernet(ping()))), 17), 0x86DD)
    assert decode(over_ipv6).overhead == 70


def test_overhead_is_unknown_where_nothing_can_be_compared() -> None:
    """Not encapsulated, an inner ARP, or a fragment whose length is not the packet's."""
    assert decode(ethernet(ping())).overhead is None
    inner_arp = ethernet(ipv4(udp(vxlan(ethernet(arp(), 0x0806))), 17))
    assert decode(inner_arp).overhead is None
    first_piece = ethernet(ipv4(udp(vxlan(ethernet(ping())), length=1508), 17, frag=0x2000))
    assert decode(first_piece).inner is not None
    assert decode(first_piece).overhead is None


def test_outer_and_inner_of_a_plain_packet() -> None:
    """A packet without VXLAN has an (outer) IP header and nothing inside."""
    decoded = decode(ethernet(ping()))
    assert decoded.outer_ip == decoded.find(IPv4)
    assert decoded.vxlan is None
    assert decoded.inner is None
    assert decode(ethernet(arp(), 0x0806)).outer_ip is None


def test_vxlan_is_expected_at_the_given_ports_only() -> None:
    """flannel uses Linux's 8472; IANA's 4789 has to be asked for."""
    iana = ethernet(ipv4(udp(vxlan(ethernet(ping())), dport=4789), 17))
    assert decode(iana).vxlan is None
    assert decode(iana, vxlan_ports={4789}).vxlan == VXLAN(42, 8, 0x08, 1)
    assert decode(encapsulated(), vxlan_ports=()).vxlan is None


def test_without_the_vni_flag_it_is_not_vxlan() -> None:
    """RFC 7348: the I flag must be set; Linux drops such packets too."""
    decoded = decode(encapsulated(flags=0))
    assert decoded.vxlan is None
    last = decoded.layers[-1]
    assert isinstance(last, Raw)
    assert last.reason == "not VXLAN: the flag of a valid VNI is not set"


def test_a_group_policy_id_is_read_when_its_flag_is_set() -> None:
    """flannel's GBP option uses bits that RFC 7348 reserves."""
    assert decode(encapsulated(flags=0x88, group=42)).vxlan == VXLAN(42, 8, 0x88, 1, 42)
    assert decode(encapsulated(flags=0x08, group=42)).vxlan == VXLAN(42, 8, 0x08, 1, None)


def test_the_largest_vni() -> None:
    """24 bits."""
    decoded = decode(encapsulated(vni=0xFFFFFF)).vxlan
    assert decoded is not None
    assert decoded.vni == 16777215


def test_vlan_tags_belong_to_the_ethernet_header() -> None:
    """One tag, or two (QinQ); the ethertype is the one behind them."""
    one = decode(ethernet(ping(), tags=vlan(5))).layers[0]
    assert one == Ethernet(0, 18, MAC1, MAC2, 0x0800, (5,))
    two = decode(ethernet(ping(), tags=vlan(7, 0x88A8) + vlan(5))).layers[0]
    assert two == Ethernet(0, 22, MAC1, MAC2, 0x0800, (7, 5))
    assert isinstance(two, Ethernet)
    assert two.vlan == 7
    assert Ethernet(0, 14, MAC1, MAC2, 0x0800).vlan is None


def test_arp() -> None:
    """Who has 10.5.1.1, and the padding to Ethernet's least length."""
    layers = decode(ethernet(arp() + bytes(18), 0x0806)).layers
    assert layers[1] == ARP(
        14, 28, 1, MAC1, IPv4Address(C1), "00:00:00:00:00:00", IPv4Address("10.5.1.1")
    )
    assert layers[2] == Raw(42, 18, bytes(18), "after the end that the ARP header states, padding")


def test_padding_of_inner_and_outer_frame_are_told_apart() -> None:
    """Both come last in the frame, the inner one first."""
    inner = ethernet(ping(8)) + b"in"
    layers = decode(ethernet(ipv4(udp(vxlan(inner)), 17)) + b"out").layers
    assert [layer.data for layer in layers if isinstance(layer, Raw)] == [b"in", b"out"]


def test_tcp_with_options() -> None:
    """etcd's SYN-ACK: ports, numbers, flags; options count as header."""
    layers = decode(ethernet(ipv4(tcp(b"x", options=b"\x02\x04\x05\xb4"), 6))).layers
    assert layers[2:] == (TCP(34, 24, 2379, 40001, 1000, 2000, 0x12, 64240), Payload(58, 1, b"x"))


def test_ipv4_options_count_as_header() -> None:
    """A header of 24 bytes; its checksum covers the options."""
    ip = decode(ethernet(ipv4(udp(b"", dport=53), 17, options=b"\x01\x01\x01\x00"))).outer_ip
    assert isinstance(ip, IPv4)
    assert (ip.length, ip.checksum_ok) == (24, True)


def test_a_broken_header_checksum_is_seen() -> None:
    """One flipped bit in the header."""
    frame = bytearray(encapsulated())
    frame[14 + 8] ^= 1  # the outer TTL
    decoded = decode(bytes(frame))
    ips = [layer.checksum_ok for layer in decoded.layers if isinstance(layer, IPv4)]
    assert ips == [False, True]


def test_fragments() -> None:
    """The first piece shows the VXLAN header; a later one is only bytes of something longer."""
    whole = udp(vxlan(ethernet(ping(1472))))
    first = decode(ethernet(ipv4(whole[:1480], 17, frag=0x2000)))
    later = decode(ethernet(ipv4(whole[1480:], 17, frag=1480 // 8)))
    assert (first.is_fragment, later.is_fragment) == (True, True)
    assert first.vxlan == VXLAN(42, 8, 8, 1)
    assert later.vxlan is None
    ip = later.outer_ip
    assert isinstance(ip, IPv4)
    assert (ip.mf, ip.frag_offset) == (False, 1480)
    last = later.layers[-1]
    assert isinstance(last, Raw)
    assert last.reason == "a later fragment, byte 1480 and following of a longer packet"
    assert decode(encapsulated()).is_fragment is False


def test_ipv6_with_extension_headers() -> None:
    """Router solicitations and MLD, the usual noise of a fresh interface."""
    mld = bytes([58, 0, 5, 2, 0, 0, 1, 0]) + bytes([143, 0, 0, 0, 0, 0, 0, 0])
    layers = decode(ethernet(ipv6(mld, 0), 0x86DD)).layers
    expected = IPv6(14, 48, IPv6Address("fd00::1"), IPv6Address("fd00::2"), 58, 63, 16)
    assert layers[1:3] == (expected, ICMPv6(62, 4, 143, 0))
    fragment = bytes([17, 0]) + (1480 | 1).to_bytes(2, "big") + bytes(4)
    ip = decode(ethernet(ipv6(fragment + b"rest", 44), 0x86DD)).outer_ip
    assert isinstance(ip, IPv6)
    assert (ip.proto, ip.frag_offset, ip.mf, ip.total_length) == (17, 1480, True, 52)


def test_fragmentation_needed_carries_the_mtu_and_quotes_the_packet() -> None:
    """What a router says to a 1451-byte packet with the don't-fragment bit."""
    complaint = struct.pack("!BBHHH", 3, 4, 0, 0, 1450) + ping(1423)[:28]
    decoded = decode(ipv4(complaint, 1, "10.5.1.1", C1), l3=True)
    assert decoded.find(ICMP) == ICMP(20, 8, 3, 4, None, None, 1450)
    quoted = decoded.quoted
    assert quoted is not None
    ip, icmp = quoted.outer_ip, quoted.find(ICMP)
    assert ip is not None
    assert icmp is not None
    assert (str(ip.src), str(ip.dst), ip.total_length) == (C1, C2, 1451)
    assert (icmp.type, icmp.ident, icmp.seq) == (8, 77, 3)


def test_only_icmp_errors_quote() -> None:
    """An echo's data is data, whatever it looks like; an error may quote nothing."""
    assert decode(ethernet(ping())).quoted is None
    assert decode(ethernet(ipv4(bytes([3, 0, 0, 0, 0, 0, 0, 0]), 1))).quoted is None
    assert decode(ethernet(arp(), 0x0806)).quoted is None


def test_a_frame_may_begin_with_its_ip_header() -> None:
    """``l3``: what raw sockets and tunnels deliver."""
    assert names(ping(), l3=True) == ["IPv4", "ICMP", "Payload"]
    assert names(ipv6(udp(b"", dport=53), 17), l3=True) == ["IPv6", "UDP"]


@pytest.mark.parametrize(
    ("frame", "l3", "reason"),
    [
        (b"", False, "Ethernet header cut short: 0 of 14 bytes"),
        (ethernet(b"")[:13], False, "Ethernet header cut short: 13 of 14 bytes"),
        (ethernet(b"", tags=vlan(5))[:16], False, "Ethernet header cut short: 16 of 18 bytes"),
        (ethernet(b"x", 0x88CC), False, "ethertype 0x88cc is not decoded"),
        (ethernet(arp()[:-1], 0x0806), False, "ARP header cut short: 27 of 28 bytes"),
        (
            ethernet(b"\0\6" + arp()[2:], 0x0806),
            False,
            "ARP for something other than IPv4 on Ethernet",
        ),
        (b"", True, "IP header cut short: 0 of 1 bytes"),
        (b"\x70", True, "IP version 7 does not exist"),
        (ping()[:19], True, "IPv4 header cut short: 19 of 20 bytes"),
        (b"\x44" + ping()[1:], True, "not an IPv4 header: begins with 0x44"),
        (ethernet(b"\x65" + ping()[1:]), False, "not an IPv4 header: begins with 0x65"),
        (b"\x4f" + ping(0)[1:], True, "IPv4 header cut short: 28 of 60 bytes"),
        (ipv4(b"", 17, total=19), True, "IPv4 total length 19 is less than its header"),
        (ipv4(b"", 17), True, "UDP header cut short: 0 of 8 bytes"),
        (ipv4(b"", 89), True, "IP protocol 89 is not decoded"),
        (ipv4(udp(b"", length=7), 17), True, "UDP length 7 is less than its header"),
        (ipv4(udp(b"1234567"), 17), True, "VXLAN header cut short: 7 of 8 bytes"),
        (ipv4(udp(vxlan(b"")), 17), True, "Ethernet header cut short: 0 of 14 bytes"),
        (ipv4(tcp(b"")[:19], 6), True, "TCP header cut short: 19 of 20 bytes"),
        (ipv4(tcp(b"", options=bytes(4))[:20], 6), True, "TCP header cut short: 20 of 24 bytes"),
        (ipv4(tcp(b"")[:12] + b"\x40" + bytes(7), 6), True, "TCP header length 16 is too small"),
        (ipv4(b"1234567", 1), True, "ICMP header cut short: 7 of 8 bytes"),
        (ipv6(b"", 59)[:39], True, "IPv6 header cut short: 39 of 40 bytes"),
        (ethernet(ping(20), 0x86DD), False, "not an IPv6 header: begins with 0x45"),
        (ipv6(bytes(7), 0), True, "IPv6 extension header cut short: 7 of 8 bytes"),
        (ipv6(bytes(3), 58), True, "ICMPv6 header cut short: 3 of 4 bytes"),
    ],
)
def test_what_cannot_be_read_says_why(frame: bytes, l3: bool, reason: str) -> None:
    """Cut or broken at every kind of header: the rest is kept as it is, with the reason."""
    last = decode(frame, l3=l3).layers[-1]
    assert isinstance(last, Raw)
    assert last.reason == reason
    assert last.data == frame[last.offset :]


def test_a_capture_of_a_segment_over_64_kib_has_no_total_length() -> None:
    """TSO: 0 in the header, and the packet is as long as the frame."""
    frame = ethernet(ipv4(tcp(bytes(70000)), 6, total=0))
    assert decode(frame).layers[-1] == Payload(54, 70000, bytes(70000))


def test_a_frame_of_nested_vxlan_does_not_exhaust_the_stack() -> None:
    """1200 encapsulations in one frame."""
    frame = ethernet(b"", 0x88CC)
    for _ in range(1200):
        frame = ethernet(ipv4(udp(vxlan(frame)), 17))
    assert len(decode(frame).layers) == 1200 * 4 + 2


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (bytes.fromhex("0001f203f4f5f6f7"), 0x220D),  # RFC 1071 section 3
        (b"", 0xFFFF),
        (bytes(8), 0xFFFF),
        (b"\xff\xff", 0),
        (b"\xff\xff\xff\xff", 0),
        (b"\x01", 0xFEFF),
    ],
)
def test_checksum(data: bytes, expected: int) -> None:
    """RFC 1071, its example and the corner cases of one's complement."""
    assert packet.checksum(data) == expected


def test_echo_request_has_a_right_checksum() -> None:
    """Type 8, identifier, sequence number, data; the sum over all of it is 0."""
    message = packet.echo_request(0x1234, 0xFFFF, b"odd")
    assert message[:2] + message[4:] == bytes.fromhex("08001234ffff") + b"odd"
    assert packet.checksum(message) == 0


FRAMES = {
    "ping in vxlan": encapsulated(),
    "vni": encapsulated(vni=0xABCDEF),
    "inner arp": ethernet(ipv4(udp(vxlan(ethernet(arp(2), 0x0806))), 17)),
    "plain ping": ethernet(ping(8, seq=9)),
    "echo reply": ethernet(ipv4(b"\0" + packet.echo_request(5, 6, b"")[1:], 1)),
    "arp": ethernet(arp() + bytes(18), 0x0806),
    "tagged": ethernet(ping(), tags=vlan(100)),
    "tcp": ethernet(ipv4(tcp(b"hello", flags=0x18, options=bytes([1, 1, 1, 0])), 6, tos=0x10)),
    "tcp in vxlan": encapsulated(ipv4(tcp(b"", flags=2), 6, C1, C2, ttl=63, frag=0x4000)),
    "frag needed": ethernet(ipv4(struct.pack("!BBHHH", 3, 4, 0, 0, 1450) + ping()[:28], 1)),
    "net unreachable": ethernet(ipv4(struct.pack("!BBHHH", 3, 0, 0, 0, 0) + ping()[:28], 1)),
    "later fragment": ethernet(ipv4(bytes(40), 17, frag=185, ident=4660)),
    "first fragment": ethernet(ipv4(udp(bytes(1472), dport=53), 17, frag=0x2000, ident=9)),
    "options": ethernet(ipv4(udp(b"x", dport=9999), 17, options=bytes([1, 1, 1, 0]))),
    "bad checksum": ethernet(b"\x45\x00" + ipv4(udp(b"", dport=9999), 17, ttl=9)[2:8] + b"\x08")
    + ipv4(udp(b"", dport=9999), 17, ttl=9)[9:],
    "ipv6": ethernet(ipv6(udp(b"xyz", dport=9999), 17), 0x86DD),
    "mld": ethernet(ipv6(bytes([58, 0, 5, 2, 0, 0, 1, 0, 143, 0, 0, 0, 0, 0, 0, 0]), 0), 0x86DD),
    "ipv6 in vxlan": ethernet(
        ipv4(udp(vxlan(ethernet(ipv6(bytes([133] + [0] * 7), 58), 0x86DD))), 17)
    ),
}

TSHARK_FIELDS = (
    *("eth.src", "eth.dst", "vlan.id"),
    *("arp.opcode", "arp.src.proto_ipv4", "arp.dst.proto_ipv4", "arp.src.hw_mac"),
    *("ip.src", "ip.dst", "ip.proto", "ip.ttl", "ip.id", "ip.flags.df", "ip.flags.mf"),
    *("ip.frag_offset", "ip.len", "ip.hdr_len", "ip.checksum.status", "ip.dsfield"),
    *("ipv6.src", "ipv6.dst", "ipv6.hlim", "ipv6.plen"),
    *("udp.srcport", "udp.dstport", "udp.length", "udp.checksum"),
    *("tcp.srcport", "tcp.dstport", "tcp.seq_raw", "tcp.ack_raw", "tcp.flags", "tcp.hdr_len"),
    *("tcp.window_size_value", "icmp.type", "icmp.code", "icmp.ident", "icmp.seq", "icmp.mtu"),
    *("icmpv6.type", "icmpv6.code", "vxlan.flags", "vxlan.vni"),
)


def write_pcap(path: Path, frames: Iterable[bytes]) -> None:
    """The classic capture file, link type Ethernet."""
    with path.open("wb") as out:
        out.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
        for second, frame in enumerate(frames):
            out.write(struct.pack("=IIII", second, 0, len(frame), len(frame)) + frame)


def tshark(path: Path) -> list[dict[str, list[str]]]:
    """What tshark reads in a capture file: per frame, all values of each field in order."""
    preferences = (
        "ip.check_checksum:TRUE",
        "ip.defragment:FALSE",
        "tcp.relative_sequence_numbers:FALSE",
    )
    argv = ["tshark", "-r", str(path), "-n", "-T", "fields", "-E", "separator=|"]
    argv += ["-E", "occurrence=a", "-d", "udp.port==8472,vxlan"]
    argv += [word for preference in preferences for word in ("-o", preference)]
    argv += [word for name in TSHARK_FIELDS for word in ("-e", name)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    rows = [line.split("|") for line in done.stdout.splitlines()]
    return [
        {name: cell.split(",") for name, cell in zip(TSHARK_FIELDS, row, strict=True) if cell}
        for row in rows
    ]  # fmt: skip


def as_tshark(decoded: packet.Packet) -> dict[str, list[str]]:
    """Our headers under tshark's field names."""
    fields: dict[str, list[str]] = {}

    def add(prefix: str, **values: object) -> None:
        for name, value in values.items():
            if value is not None:
                fields.setdefault(f"{prefix}.{name.replace('__', '.')}", []).append(str(value))

    layers = decoded.layers + (decoded.quoted.layers if decoded.quoted else ())
    for layer in layers:
        match layer:
            case Ethernet():
                add("eth", src=layer.src, dst=layer.dst)
                add("vlan", id=layer.vlan)
            case ARP():
                add("arp", opcode=layer.op, src__hw_mac=layer.sender_mac)
                add("arp", src__proto_ipv4=layer.sender_ip, dst__proto_ipv4=layer.target_ip)
            case IPv4():
                add("ip", src=layer.src, dst=layer.dst, proto=layer.proto, ttl=layer.ttl)
                add("ip", id=f"0x{layer.id:04x}", flags__df=int(layer.df), flags__mf=int(layer.mf))
                add("ip", frag_offset=layer.frag_offset // 8, len=layer.total_length)
                add("ip", hdr_len=layer.length, checksum__status=int(layer.checksum_ok))
                add("ip", dsfield=f"0x{layer.tos:02x}")
            case IPv6():
                add("ipv6", src=layer.src, dst=layer.dst, hlim=layer.hop_limit)
                add("ipv6", plen=layer.payload_length)
            case UDP():
                add("udp", srcport=layer.sport, dstport=layer.dport, length=layer.udp_length)
                add("udp", checksum=f"0x{layer.checksum:04x}")
            case TCP():
                add("tcp", srcport=layer.sport, dstport=layer.dport, seq_raw=layer.seq)
                add("tcp", ack_raw=layer.ack, flags=f"0x{layer.flags:04x}", hdr_len=layer.length)
                add("tcp", window_size_value=layer.window)
            case ICMP():
                add("icmp", type=layer.type, code=layer.code, ident=layer.ident, seq=layer.seq)
                add("icmp", mtu=layer.mtu)
            case ICMPv6():
                add("icmpv6", type=layer.type, code=layer.code)
            case VXLAN():
                add("vxlan", flags=f"0x{layer.flags << 8:04x}", vni=layer.vni)
    return fields


@pytest.mark.skipif(
    shutil.which("tshark") is None, reason="NOT COMPARED WITH TSHARK: it is not installed"
)
def test_tshark_reads_the_same(tmp_path: Path) -> None:
    """Every field of every header of a capture file, outer, inner and quoted."""
    path = tmp_path / "frames.pcap"
    write_pcap(path, FRAMES.values())
    theirs = dict(zip(FRAMES, tshark(path), strict=True))
    ours = {name: as_tshark(decode(frame)) for name, frame in FRAMES.items()}
    assert ours == theirs
