"""Capture files: block by block as the format's draft says, and as tshark reads them."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from test_packet import FRAMES, as_tshark, tshark
from vxlab.packet import decode
from vxlab.sniff import Frame
from vxlab.trace import pcapng
from vxlab.trace.pcapng import Interface

needs_tshark = pytest.mark.skipif(
    shutil.which("tshark") is None, reason="NOT COMPARED WITH TSHARK: it is not installed"
)

NS = 1_700_000_000_123_456_789
HOPS = [Interface("node01:eth0", "the underlay", snaplen=262144, filter="icmp"), Interface("b")]


def frame(data: bytes = b"\1\2\3\4\5", length: int = 0, ns: int = NS) -> Frame:
    return Frame(ns, "out", data, length or len(data))


def blocks(data: bytes) -> list[tuple[int, bytes]]:
    """Type and body of each block; every length must be there twice, and fit."""
    found, at = [], 0
    while at < len(data):
        kind, length = struct.unpack_from("<II", data, at)
        assert length % 4 == 0
        assert 12 <= length <= len(data) - at
        assert struct.unpack_from("<I", data, at + length - 4)[0] == length
        found.append((kind, data[at + 8 : at + length - 4]))
        at += length
    return found


def options(data: bytes) -> list[tuple[int, bytes]]:
    """The options at the end of a block; none, or such as end with the end's mark."""
    found: list[tuple[int, bytes]] = []
    while data:
        code, length = struct.unpack_from("<HH", data)
        value = data[4 : 4 + length]
        assert len(value) == length
        data = data[4 + length + -length % 4 :]
        if code == 0:
            assert (length, data) == (0, b"")
            return found
        found.append((code, value))
    assert found == []
    return found


def test_a_file_begins_with_a_section_and_its_interfaces() -> None:
    """Byte order, version, unknown length; then per hop its name, description and filter."""
    data = pcapng.header(HOPS, application="vxlab 1", os="Linux 6", comment="a lab")
    (section, one), (two_kind, two), (three_kind, three) = blocks(data)
    assert (section, two_kind, three_kind) == (0x0A0D0D0A, 1, 1)
    assert struct.unpack_from("<IHHq", one) == (0x1A2B3C4D, 1, 0, -1)
    assert options(one[16:]) == [(1, b"a lab"), (3, b"Linux 6"), (4, b"vxlab 1")]
    assert struct.unpack_from("<HHI", two) == (1, 0, 262144)
    assert options(two[8:]) == [
        (2, b"node01:eth0"),
        (3, b"the underlay"),
        (9, b"\x09"),
        (11, b"\0icmp"),
    ]
    assert struct.unpack_from("<HHI", three) == (1, 0, 0)
    assert options(three[8:]) == [(2, b"b"), (9, b"\x09")]


def test_a_packet_says_where_when_and_which_way() -> None:
    """Nanoseconds in two halves, kept and original length, comments before the direction."""
    data = pcapng.packet(1, frame(length=99), ["matched", "request 1"])
    ((kind, body),) = blocks(data)
    assert kind == 6
    number, high, low, kept, length = struct.unpack_from("<IIIII", body)
    assert (number, high << 32 | low, kept, length) == (1, NS, 5, 99)
    assert body[20:28] == b"\1\2\3\4\5\0\0\0"
    assert options(body[28:]) == [(1, b"matched"), (1, b"request 1"), (2, b"\2\0\0\0")]
    ((_, body),) = blocks(pcapng.packet(0, Frame(NS, "in", b"", 0)))
    assert options(body[20:]) == [(2, b"\1\0\0\0")]


def test_statistics_tell_what_was_lost() -> None:
    """Start, end, frames that matched and frames that were dropped, as 64-bit numbers."""
    ((kind, body),) = blocks(pcapng.statistics(1, NS, NS + 5, 70_000, 3))
    assert kind == 5
    number, high, low = struct.unpack_from("<III", body)
    assert (number, high << 32 | low) == (1, NS + 5)
    times = [(code, struct.unpack("<II", value)) for code, value in options(body[12:])[:2]]
    assert [(code, high << 32 | low) for code, (high, low) in times] == [(2, NS), (3, NS + 5)]
    assert options(body[12:])[2:] == [(4, struct.pack("<Q", 70_000)), (5, struct.pack("<Q", 3))]


def test_a_comment_that_is_too_long_is_cut_between_characters() -> None:
    """An option's value has at most 65535 bytes."""
    ((_, body),) = blocks(pcapng.packet(0, frame(), ["ä" * 40_000]))
    (_, comment), _ = options(body[28:])
    assert comment.decode() == "ä" * 32_767


@given(
    st.binary(max_size=70),
    st.integers(0, 2**64 - 1),
    st.lists(st.text(st.characters(), min_size=1, max_size=9), max_size=3),
)
def test_any_packet_reads_back(data: bytes, ns: int, comments: list[str]) -> None:
    """Whatever a frame contains, the block's parts are found again, also halves of characters."""
    ((_, body),) = blocks(pcapng.packet(0, frame(data, ns=ns), comments))
    _, high, low, kept, _ = struct.unpack_from("<IIIII", body)
    assert (high << 32 | low, body[20 : 20 + kept]) == (ns, data)
    found = options(body[20 + kept + -kept % 4 :])
    assert [value.decode() for code, value in found if code == 1] == [
        comment.encode(errors="replace").decode() for comment in comments
    ]


def written(path: Path) -> list[tuple[int, Frame]]:
    """A file with every frame of the decoder's tests, alternately at two hops."""
    seen = [
        (i % 2, Frame(NS + i, "in" if i % 3 else "out", data, len(data)))
        for i, data in enumerate(FRAMES.values())
    ]
    data = pcapng.header(HOPS, application="vxlab", comment="a lab")
    data += b"".join(pcapng.packet(hop, each, [f"frame {each.ns - NS}"]) for hop, each in seen)
    data += b"".join(pcapng.statistics(i, NS, NS + 1, 9, i) for i in range(2))
    path.write_bytes(data)
    return seen


def layers(path: Path) -> list[dict[str, Any]]:
    """What tshark reads around each packet."""
    argv = ["tshark", "-r", str(path), "-n", "-T", "json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return [each["_source"]["layers"] for each in json.loads(done.stdout)]


@needs_tshark
def test_tshark_reads_the_same(tmp_path: Path) -> None:
    """Interface, time, length, direction and comment of each packet; then every header's field."""
    path = tmp_path / "x.pcapng"
    seen = written(path)
    read = layers(path)
    assert len(read) == len(seen)
    for (hop, each), found in zip(seen, read, strict=True):
        about = found["frame"]
        assert about["frame.interface_id_tree"]["frame.interface_name"] == HOPS[hop].name
        assert about["frame.len"] == str(each.length)
        assert about["frame.packet_flags_tree"]["frame.packet_flags_direction"] == (
            "0x00000001" if each.direction == "in" else "0x00000002"
        )
        assert found["pkt_comment"]["frame.comment"] == f"frame {each.ns - NS}"
    assert tshark(path) == [as_tshark(decode(each.data)) for _, each in seen]


@needs_tshark
def test_tshark_reads_time_to_the_nanosecond(tmp_path: Path) -> None:
    """Time stamps are the kernel's, and none of their digits is lost."""
    path = tmp_path / "x.pcapng"
    seen = written(path)
    argv = ["tshark", "-r", str(path), "-n", "-T", "fields", "-e", "frame.time_epoch"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    stamps = [each.ns for _, each in seen]
    assert [f"{ns // 10**9}.{ns % 10**9:09d}" for ns in stamps] == done.stdout.split()


@pytest.mark.skipif(
    shutil.which("capinfos") is None, reason="NOT COMPARED WITH CAPINFOS: it is not installed"
)
def test_capinfos_reads_the_interfaces_and_their_statistics(tmp_path: Path) -> None:
    """Name, description, filter, precision; one statistics entry each."""
    path = tmp_path / "x.pcapng"
    seen = written(path)
    done = subprocess.run(["capinfos", str(path)], capture_output=True, text=True, check=True)
    told = [line.strip() for line in done.stdout.splitlines()]
    for line in (
        f"Number of packets:   {len(seen)}",
        "Capture comment:     a lab",
        "Capture application: vxlab",
        "Name = node01:eth0",
        "Description = the underlay",
        "Filter string = icmp",
        "Name = b",
    ):
        assert line in told
    assert told.count("Time precision = nanoseconds (9)") == 2
    assert told.count("Number of stat entries = 1") == 2
