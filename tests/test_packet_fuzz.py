"""Decoding packets that nobody would send."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from test_packet import (
    FRAMES,
    arp,
    as_tshark,
    ethernet,
    ipv4,
    ipv6,
    tcp,
    tshark,
    udp,
    vlan,
    vxlan,
    write_pcap,
)
from vxlab import packet
from vxlab.packet import VXLAN, Packet, Raw, decode


def check(decoded: Packet, frame: bytes) -> None:
    """What holds for every frame: all bytes are in one layer each, and all questions answered."""
    at = 0
    for layer in decoded.layers:
        assert layer.offset == at
        at = layer.end
        if isinstance(layer, Raw):
            assert layer.reason
            assert layer.data == frame[layer.offset : layer.end]
    assert at == len(frame)
    if decoded.inner is not None:
        assert decoded.vxlan == decoded.find(VXLAN)
    assert isinstance(decoded.is_fragment, bool)
    assert isinstance(decoded.overhead, int | None)
    assert isinstance(decoded.quoted, Packet | None)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes(frame: bytes, l3: bool) -> None:
    """Garbage never raises."""
    check(decode(frame, l3=l3), frame)


@given(st.sampled_from(sorted(FRAMES)), st.data())
def test_damaged_packets(name: str, data: st.DataObject) -> None:
    """Real packets with a few bytes changed, cut anywhere, with something behind."""
    frame = bytearray(FRAMES[name])
    places = st.integers(0, len(frame) - 1)
    for place, value in data.draw(st.dictionaries(places, st.integers(0, 255), max_size=4)).items():
        frame[place] = value
    cut = data.draw(st.integers(0, len(frame)))
    damaged = bytes(frame[:cut]) + data.draw(st.binary(max_size=8))
    check(decode(damaged), damaged)


# Not "mld": an IPv6 header counts its extension headers, and is shorter when one is cut off.
@given(st.sampled_from(sorted(FRAMES.keys() - {"mld"})))
def test_every_cut(name: str) -> None:
    """Each packet, cut after each of its bytes: what was readable before stays as it is."""
    frame = FRAMES[name]
    headers = [layer for layer in decode(frame).layers if not hasattr(layer, "data")]
    for cut in range(len(frame)):
        decoded = decode(frame[:cut])
        check(decoded, frame[:cut])
        seen = [layer for layer in decoded.layers if not hasattr(layer, "data")]
        assert seen == headers[: len(seen)]


@given(st.binary(max_size=100))
def test_checksum_is_the_sum_of_words(data: bytes) -> None:
    """RFC 1071 as it is written down there: add 16-bit words, fold the carries, complement."""
    padded = data + bytes(len(data) % 2)
    total = sum(int.from_bytes(padded[i : i + 2], "big") for i in range(0, len(padded), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    assert packet.checksum(data) == total ^ 0xFFFF


addresses = st.ip_addresses(v=4).map(str)
ports = st.integers(1024, 60000).filter(lambda port: port != packet.LINUX_VXLAN_PORT)
# Contents that no dissector of tshark's takes for a protocol of its own.
contents = st.integers(0, 64).map(lambda size: bytes([0xEE]) * size)
packets = st.one_of(
    st.builds(
        lambda request, src, dst, ttl, ident, df: ipv4(
            request, 1, src, dst, ttl=ttl, ident=ident, frag=0x4000 * df
        ),
        st.builds(packet.echo_request, st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), contents),
        *(addresses, addresses, st.integers(1, 255), st.integers(0, 0xFFFF), st.booleans()),
    ),
    st.builds(
        lambda data, flags, src, dst: ipv4(tcp(data, flags), 6, src, dst),
        *(contents, st.integers(0, 0x3F), addresses, addresses),
    ),
    st.builds(
        lambda more, place, ident: ipv4(bytes(16), 17, frag=more << 13 | place, ident=ident),
        *(st.booleans(), st.integers(1, 0x1FFF), st.integers(0, 0xFFFF)),
    ),
)
inner_frames = st.one_of(
    packets.map(ethernet),
    st.sampled_from([arp(1), arp(2)]).map(lambda body: ethernet(body, 0x0806)),
)
outer_frames = st.one_of(
    inner_frames,
    st.builds(lambda body, vid: ethernet(body, tags=vlan(vid)), packets, st.integers(1, 4094)),
    st.builds(
        lambda frame, vni, sport, src, dst: ethernet(
            ipv4(udp(vxlan(frame, vni), sport), 17, src, dst)
        ),
        *(inner_frames, st.integers(0, 0xFFFFFF), ports, addresses, addresses),
    ),
    st.builds(
        lambda frame, vni: ethernet(ipv6(udp(vxlan(frame, vni)), 17), 0x86DD),
        *(inner_frames, st.integers(0, 0xFFFFFF)),
    ),
)


@pytest.mark.skipif(
    shutil.which("tshark") is None, reason="NOT COMPARED WITH TSHARK: it is not installed"
)
@settings(max_examples=6, deadline=None)
@given(st.lists(outer_frames, min_size=40, max_size=80))
def test_tshark_reads_the_same_in_any_packet(frames: list[bytes]) -> None:
    """Generated packets, many to a capture file, field by field."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "frames.pcap")
        write_pcap(path, frames)
        theirs = tshark(path)
    assert [as_tshark(decode(frame)) for frame in frames] == theirs
