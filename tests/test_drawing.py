"""A packet drawn: byte ranges, names and values, in pictures that are files."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

import talk
from golden import agrees
from vxlab import labfile
from vxlab.packet import Packet, checksum, decode
from vxlab.report.drawing import drawing, summary

MACS = bytes.fromhex("0200c0a83816 0200c0a83815")
INNER = bytes.fromhex("a6d99b9827b0 8e79b01467e6")
NEAR, FAR = "10.5.65.10", "10.5.25.10"
NODES = ("192.168.56.21", "192.168.56.22")


def address(text: str) -> bytes:
    return bytes(int(part) for part in text.split("."))


def ipv4(proto: int, src: str, dst: str, data: bytes, *, flags: int = 0) -> bytes:
    """An IPv4 packet; `flags` is its fragment word: 0x4000 DF, 0x2000 MF, the offset below."""
    ends = address(src) + address(dst)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), 7, flags, 63, proto, 0) + ends
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + data


def echo(size: int) -> bytes:
    return struct.pack("!BBHHH", 8, 0, 0, 2782, 0) + bytes(size - 28)


def ping(size: int) -> bytes:
    """A don't-fragment echo request from container to container, `size` bytes of IP."""
    return ipv4(1, NEAR, FAR, echo(size), flags=0x4000)


def datagram(inner: bytes) -> bytes:
    """The UDP datagram that carries an inner packet in VXLAN."""
    data = struct.pack("!BBHI", 8, 0, 0, 1 << 8) + INNER + b"\x08\x00" + inner
    return struct.pack("!HHHH", 35259, 8472, 8 + len(data), 0) + data


def framed(packet: bytes, ethertype: int = 0x0800) -> Packet:
    return decode(MACS + struct.pack("!H", ethertype) + packet)


def frag_needed() -> bytes:
    quoted = ping(1500)[:548]
    return ipv4(1, "10.5.65.1", NEAR, struct.pack("!BBHHH", 3, 4, 0, 0, 1450) + quoted)


def arp() -> bytes:
    sender = MACS[6:] + address(NODES[0])
    return struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + sender + bytes(6) + address(NODES[1])


CUT = datagram(ping(1500))
PACKETS = {
    "fits": framed(ipv4(17, *NODES, datagram(ping(1450)))),
    "first-fragment": framed(ipv4(17, *NODES, CUT[:1480], flags=0x2000)),
    "last-fragment": framed(ipv4(17, *NODES, CUT[1480:], flags=1480 // 8)),
    "inner-fragment": framed(
        ipv4(17, *NODES, datagram(ipv4(1, NEAR, FAR, echo(1500)[:1424], flags=0x2000)))
    ),
    "frag-needed": framed(frag_needed()),
    "bare": framed(ping(1450)),
    "arp": framed(arp(), 0x0806),
    "not-read": framed(b"\x60" + bytes(30), 0x88B5),
}


@pytest.mark.parametrize("name", PACKETS)
def test_the_drawing_of(name: str) -> None:
    """The picture, and the packet in a line or two."""
    text = "\n".join([*summary(PACKETS[name]), "", drawing(PACKETS[name]), ""])
    agrees(f"demo/drawing-{name}.txt", text)


def test_the_brackets_tell_the_mtus_numbers() -> None:
    """50 bytes in front of 1450: together the underlay's 1500."""
    rows = drawing(PACKETS["fits"]).splitlines()
    beside = [row.split("│")[3].strip() for row in rows if row.count("│") > 2]
    assert [text for text in beside if text] == ["50", "1450"]


def test_what_is_not_encapsulated_has_no_brackets() -> None:
    """There is nothing to compare."""
    for name in ("bare", "arp", "first-fragment", "last-fragment"):
        assert all(row.rstrip()[-1] in "┐│┤┘" for row in drawing(PACKETS[name]).splitlines())


def test_every_backends_packet_can_be_drawn() -> None:
    """Also those of flannel's other backends."""
    for backend in ("vxlan", "host-gw", "udp"):
        lab = labfile.loads(f"overlay: {{backend: {{Type: {backend}}}}}", "test")
        packet = talk.on_the_wire(lab, NEAR, FAR, NODES)
        assert "outer UDP" in drawing(packet) or backend != "vxlan"


@given(st.binary(max_size=200), st.sampled_from([0, 1, 2, 3]))
def test_any_frame_can_be_drawn_in_80_columns(data: bytes, depth: int) -> None:
    """Whatever is captured: it is drawn, whole, and no line is wider than the terminal."""
    frame = data
    if depth > 0:
        frame = MACS + b"\x08\x00" + ipv4(17, *NODES, datagram(data))
    if depth > 1:
        frame = MACS + b"\x08\x00" + ipv4(17, *NODES, datagram(ipv4(1, NEAR, FAR, data)))
    if depth > 2:
        frame = MACS + b"\x86\xdd" + data
    packet = decode(frame)
    lines = drawing(packet).splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("├" in line for line in lines) == len(packet.layers) - 1
    assert all(len(line) <= 200 for line in summary(packet))
