"""Captures as one pcapng file: an interface block per hop, an enhanced packet block per frame.

Pure: values in, bytes out; blocks are put one after the other. The format is
draft-ietf-opsawg-pcapng's. Wireshark shows an interface's name in a column and a comment in the
packet list.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vxlab.sniff import Frame

#: What frames begin with, by the number that files have for it (LINKTYPE_*).
ETHERNET = 1
RAW_IP = 101

_SECTION, _INTERFACE, _STATISTICS, _PACKET = 0x0A0D0D0A, 1, 5, 6
_BYTE_ORDER = 0x1A2B3C4D  # as a reader of the same byte order sees it; all here is little endian
_UNKNOWN_LENGTH = -1  # of a section: it is written as it comes

# Option codes. The first two are everybody's, the others each their block's own.
_END, _COMMENT = 0, 1
_OS, _APPLICATION = 3, 4
_NAME, _DESCRIPTION, _RESOLUTION, _FILTER = 2, 3, 9, 11
_FLAGS = 2
_START, _STOP, _RECEIVED, _DROPPED = 2, 3, 4, 5

_NANOSECONDS = b"\x09"  # time stamps count 10^-9 seconds
_LIBPCAP = b"\x00"  # what follows is a filter as pcap-filter(7) writes it
_DIRECTIONS = {"in": 1, "out": 2}

_LONGEST = 0xFFFF  # bytes of an option's value


@dataclass(frozen=True, slots=True)
class Interface:
    """What a file says of one hop.

    Args:
        name: what Wireshark shows in its column, such as ``node01:flannel.1``.
        description: what it is, in words.
        link: what frames begin with: `ETHERNET` or `RAW_IP`.
        snaplen: bytes of a frame that are kept at most; 0 for no limit.
        filter: the filter that chose the frames, as pcap-filter(7) writes it.
    """

    name: str
    description: str = ""
    link: int = ETHERNET
    snaplen: int = 0
    filter: str = ""


def header(
    interfaces: Sequence[Interface], *, application: str, os: str = "", comment: str = ""
) -> bytes:
    """The beginning of a file: the section and its interfaces, which packets name by number.

    Args:
        interfaces: the hops; the first has number 0.
        application: the program that wrote it, with its version.
        os: the system that it ran on.
        comment: what the capture is of.
    """
    options = [(_COMMENT, _text(comment)), (_OS, _text(os)), (_APPLICATION, _text(application))]
    body = struct.pack("<IHHq", _BYTE_ORDER, 1, 0, _UNKNOWN_LENGTH)
    section = _block(_SECTION, body + _options(options))
    return section + b"".join(map(_interface, interfaces))


def _interface(interface: Interface) -> bytes:
    chosen = _text(interface.filter, _LONGEST - 1)
    options = [
        (_NAME, _text(interface.name)),
        (_DESCRIPTION, _text(interface.description)),
        (_RESOLUTION, _NANOSECONDS),
        (_FILTER, _LIBPCAP + chosen if chosen else b""),
    ]
    body = struct.pack("<HHI", interface.link, 0, interface.snaplen)
    return _block(_INTERFACE, body + _options(options))


def packet(interface: int, frame: Frame, comments: Iterable[str] = ()) -> bytes:
    """One frame as it passed a hop.

    Args:
        interface: the hop's number in the header.
        frame: what was captured there.
        comments: what Wireshark shows above the packet's headers, each in a line of its own.
    """
    options = [(_COMMENT, _text(comment)) for comment in comments]
    options.append((_FLAGS, struct.pack("<I", _DIRECTIONS[frame.direction])))
    head = struct.pack(
        "<IIIII",
        interface,
        frame.ns >> 32 & 0xFFFFFFFF,
        frame.ns & 0xFFFFFFFF,
        len(frame.data),
        frame.length,
    )
    return _block(_PACKET, head + _padded(frame.data) + _options(options))


def statistics(interface: int, begun: int, ended: int, received: int, dropped: int) -> bytes:
    """What a capture got at a hop and what it lost; stands at the end of a file.

    Args:
        interface: the hop's number in the header.
        begun: when it began, and
        ended: when it ended: nanoseconds since 1970.
        received: frames that matched and were captured, lost ones included.
        dropped: those of them that were lost, since the capture's buffer was full.
    """
    options = [
        (_START, _stamp(begun)),
        (_STOP, _stamp(ended)),
        (_RECEIVED, struct.pack("<Q", received)),
        (_DROPPED, struct.pack("<Q", dropped)),
    ]
    return _block(_STATISTICS, struct.pack("<I", interface) + _stamp(ended) + _options(options))


def _stamp(ns: int) -> bytes:
    """A time as two halves, the upper one first."""
    return struct.pack("<II", ns >> 32 & 0xFFFFFFFF, ns & 0xFFFFFFFF)


def _text(words: str, longest: int = _LONGEST) -> bytes:
    """Text as an option's value: UTF-8, cut between characters where it is too long."""
    data = words.encode(errors="replace")
    if len(data) <= longest:
        return data
    return data[:longest].decode(errors="ignore").encode()


def _options(options: Iterable[tuple[int, bytes]]) -> bytes:
    """Options that have a value, and the mark of their end."""
    parts = [
        struct.pack("<HH", code, len(value)) + _padded(value) for code, value in options if value
    ]
    return b"".join(parts) + struct.pack("<HH", _END, 0) if parts else b""


def _padded(data: bytes) -> bytes:
    """Everything in the format stands on a multiple of four bytes."""
    return data + bytes(-len(data) % 4)


def _block(kind: int, body: bytes) -> bytes:
    """Type and length, the content, and the length once more, to read backwards."""
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length
