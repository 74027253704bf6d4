"""Reads a capture while it is being written: tcpdump's file format, off a stream.

The format is draft-ietf-opsawg-pcap's (pcap-savefile(5)): a header of 24 bytes whose first four
tell byte order and time unit, then a record per frame.
"""

from __future__ import annotations

import struct

from vxlab.sniff import Direction, Frame

_EN10MB, _RAW = 1, (12, 101)  # link types: Ethernet, and packets that begin with their IP header
_LARGEST = 1 << 18  # bytes; tcpdump's own limit
_MAGIC = {0xA1B2C3D4: 1000, 0xA1B23C4D: 1}  # nanoseconds per unit of a time stamp's fraction
_HEADER, _RECORD = 24, 16


class PcapReader:
    """Frames out of the bytes of a pcap file, in whatever pieces they come.

    Args:
        direction: which way the frames went; the format does not tell, so the capture has to.
        l3: they begin with their IP header.
    """

    def __init__(self, direction: Direction = "out", *, l3: bool = False) -> None:
        self._direction = direction
        self._l3 = l3
        self._data = bytearray()
        self._order = ""
        self._unit = 0

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete with these bytes.

        Raises:
            ValueError: it is no capture, or not of such frames; the rest of the stream is void.
        """
        self._data += data
        if not self._order and not self._begin():
            return []
        frames, at = [], 0
        while len(self._data) - at >= _RECORD:
            fields = struct.unpack_from(f"{self._order}IIII", self._data, at)
            seconds, fraction, kept, length = fields
            if kept > _LARGEST:
                raise ValueError(f"a frame of {kept} bytes in the capture")
            if len(self._data) - at < _RECORD + kept:
                break
            start = at + _RECORD
            at = start + kept
            ns = seconds * 1_000_000_000 + fraction * self._unit
            frames.append(Frame(ns, self._direction, bytes(self._data[start:at]), length))
        del self._data[:at]
        return frames

    def _begin(self) -> bool:
        """Read the file's header, once it is there."""
        if len(self._data) < _HEADER:
            return False
        for order in "<>":
            (magic,) = struct.unpack_from(f"{order}I", self._data)
            if magic in _MAGIC:
                (link,) = struct.unpack_from(f"{order}I", self._data, 20)
                self._check(link & 0xFFFF)
                self._order, self._unit = order, _MAGIC[magic]
                del self._data[:_HEADER]
                return True
        raise ValueError(f"no capture: it begins with {bytes(self._data[:4]).hex()}")

    def _check(self, link: int) -> None:
        if self._l3 and link not in _RAW:
            raise ValueError(f"link type {link} is not that of packets without Ethernet header")
        if not self._l3 and link != _EN10MB:
            raise ValueError(f"link type {link} is not Ethernet's")
