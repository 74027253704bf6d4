"""Captures at many interfaces of a host over one SSH channel: a server allows but ten of them."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from vxlab.errors import VxlabError
from vxlab.hostprobe.pcap import PcapReader
from vxlab.hostprobe.streams import Captured, Stream
from vxlab.hostprobe.tapping import PROGRAM
from vxlab.sniff import Direction, Frame

__all__ = ["Captured", "Tap", "Taps", "command"]

_BLOCK = 1 << 16
_FULL = 128 << 20  # bytes of frames that wait to be read; beyond, the host's buffers fill up
SNAPLEN = 262144  # bytes of each frame: tcpdump's default, which cuts nothing

# tcpdump's buffer has places for frames of 64 KiB where an interface may have such (TSO), so that 2
# MiB are full after 32 packets of any size. Frames that are small have a buffer of their own.
SMALL = 2048  # bytes; larger ones are few
_TAG = 8  # bytes that VLAN tags may add to what the filter saw

_PAUSE = 1000  # microseconds of a capture's pause, for each capture that there is
_PAUSES = (4_000, 40_000)

_COUNTED = re.compile(
    r"^(\d+) packets? (captured|received by filter|dropped by kernel)", re.MULTILINE
)
_LISTENING = "listening on"
# What tcpdump says without need.
_USUAL = re.compile(r"listening on|verbose output|\d+ packets? |.*\bwarning: ", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Tap:
    """One interface of a host, or of a container there."""

    interface: str
    container: str = ""  # "": the host itself
    expression: str = ""  # what to capture, as pcap-filter(7) says it
    l3: bool = False  # frames begin with their IP header, as on a tun device
    snaplen: int = SNAPLEN  # bytes of each frame that are kept


@dataclass(frozen=True, slots=True)
class _Part:
    """What one tcpdump captures: a tap's frames of one direction, and of one class of sizes."""

    tap: int
    direction: Direction
    snaplen: int
    expression: str


def _parts(taps: Sequence[Tap]) -> Iterator[_Part]:
    # Not by the words inbound and outbound: libpcap applies a new filter to the first packets
    # itself, where it does not know the direction, and throws them away. So tcpdump picks the
    # direction out of its buffer, and the kernel counts what did not fit there of either one.
    directions: tuple[Direction, ...] = ("in", "out")
    for number, tap in enumerate(taps):
        sizes = [(tap.snaplen, "")]
        if tap.snaplen > SMALL:
            sizes = [(SMALL + _TAG, f"less {SMALL}"), (tap.snaplen, f"greater {SMALL + 1}")]
        for direction in directions:
            for snaplen, size in sizes:
                asked = [size, f"({tap.expression})" if tap.expression.strip() else ""]
                yield _Part(number, direction, snaplen, " and ".join(filter(None, asked)))


def command(
    taps: Sequence[Tap], busybox: str, bundled: Sequence[str] = (), *, buffer: int = 2048
) -> list[str]:
    """The command line of captures on a host; what it prints is for `Taps`.

    Args:
        taps: where to capture, and what.
        busybox: where the host has it.
        bundled: how the tcpdump that travelled is run there, if one did; the host's own is
            preferred.
        buffer: KiB of each tcpdump's buffer in the kernel; a tap has up to four of them.
    """
    parts = list(_parts(taps))
    pause = min(max(_PAUSES[0], _PAUSE * len(parts)), _PAUSES[1])
    argv = ["sh", "-c", PROGRAM, "sh", busybox, str(pause), " ".join(bundled)]
    for part in parts:
        tap = taps[part.tap]
        argv += [tap.container, tap.interface, part.direction]
        argv += [str(buffer), str(part.snaplen), part.expression]
    return argv


class _Line:
    """One tcpdump on the host."""

    def __init__(self, part: _Part, *, l3: bool) -> None:
        self.tap, self.snaplen = part.tap, part.snaplen
        self.pcap = PcapReader(part.direction, l3=l3)
        self.ready = self.over = False
        self.said = ""
        self.void = ""  # why what it writes cannot be read

    @property
    def counted(self) -> dict[str, int]:
        """What its last words count."""
        return {kind: int(count) for count, kind in _COUNTED.findall(self.said)}

    @property
    def error(self) -> str:
        if self.void or not self.over:
            return self.void
        if not self.ready and _LISTENING not in self.said:
            return _told(self.said) or "the capture did not begin"
        return _told(self.said) or ("" if len(self.counted) == 3 else _UNKNOWN)


_UNKNOWN = "the capture did not end as it should: what it lost is not known"


def _told(said: str) -> str:
    lines = (line.strip().removeprefix("tcpdump: ") for line in said.splitlines())
    return " ".join(line for line in lines if line and not _USUAL.match(line))


def _dropped(pair: Sequence[_Line]) -> int:
    """Frames that got lost of two directions, at most.

    Either buffer got the frames of both: a drop is no loss if the frame went the other way. All
    that passed less what was captured is all that can have been lost.
    """
    counts = [line.counted for line in pair]
    dropped = sum(each.get("dropped by kernel", 0) for each in counts)
    passed = max(each.get("received by filter", 0) for each in counts)
    captured = sum(each.get("captured", 0) for each in counts)
    known = all(len(each) == 3 for each in counts)
    return min(dropped, max(0, passed - captured)) if known else dropped


class Taps:
    """Captures on one host, from their construction to `stop`.

    Args:
        stream: the running command of `command`, with its input open.
        taps: the same as `command` got.
    """

    def __init__(self, stream: Stream, taps: Sequence[Tap]) -> None:
        self._stream = stream
        self._lines = [_Line(part, l3=taps[part.tap].l3) for part in _parts(taps)]
        self._count = len(taps)
        self._frames: list[tuple[int, Frame]] = []
        self._waiting = 0  # bytes of the frames
        self._data = bytearray()
        self._mark = b""
        self._seen = 0  # so much of the data has no mark
        self._ended = self._stopping = False
        self._said = ""  # by the program itself
        self.lost: VxlabError | None = None  # why nothing comes any more
        self._changed = threading.Condition()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    # --- what comes -------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while data := self._stream.stdout.read(_BLOCK):
                with self._changed:
                    self._take(data)
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._stopping or self._waiting < _FULL)
            said = b""
            while data := self._stream.stderr.read(_BLOCK):
                said += data
            self._said = " ".join(said.decode(errors="replace").split())
        except VxlabError as error:
            self.lost = error
        except (OSError, ValueError) as error:  # the stream was closed
            self._said = str(error)
        with self._changed:
            self._ended = True
            self._changed.notify_all()
            self._ring()

    def _take(self, data: bytes) -> None:
        """Cut at the marks what came from the host."""
        self._data += data
        if not self._mark:
            end = self._data.find(b"\n")
            if end < 0:
                return
            self._mark = bytes(self._data[:end]) + b" "
            del self._data[: end + 1]
        begin = 0
        while (at := self._data.find(self._mark, self._seen)) >= 0:
            end = self._data.find(b"\n", at)
            if end < 0:
                self._seen = at
                break
            words = bytes(self._data[at + len(self._mark) : end]).split()
            self._piece(self._lines[int(words[0]) - 1], words[1], bytes(self._data[begin:at]))
            begin = self._seen = end + 1
        else:
            self._seen = max(begin, len(self._data) - len(self._mark))
        del self._data[:begin]
        self._seen -= begin

    def _piece(self, line: _Line, word: bytes, data: bytes) -> None:
        if word == b"ready":
            line.ready = True
        elif word == b"said":
            line.said, line.over = data.decode(errors="replace"), True
            self._ring()
        elif not line.void:
            try:
                frames = line.pcap.feed(data)
            except ValueError as error:
                line.void = str(error)
                frames = []
            self._frames += [(line.tap, frame) for frame in frames]
            self._waiting += len(data)
            self._ring()

    def _ring(self) -> None:
        os.eventfd_write(self._wake, 1)

    # --- what one asks ----------------------------------------------------------------------------

    def _wait(self, until: Callable[[], bool], timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: until() or self._ended, timeout)

    def ready(self, timeout: float) -> bool:
        """Wait until every tap runs or has failed; False if it takes more than so many seconds."""
        return self._wait(lambda: all(line.ready or line.over for line in self._lines), timeout)

    def fileno(self) -> int:
        """Readable when `read` has something, or a capture has ended."""
        return self._wake

    def read(self) -> list[tuple[int, Frame]]:
        """The frames since the last call, each with its tap's number; never waits.

        In the order of their time stamps, as far as they are there: one that passed a tap before
        may come later.
        """
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            return []
        return self._read()

    def _read(self) -> list[tuple[int, Frame]]:
        with self._changed:
            frames, self._frames, self._waiting = self._frames, [], 0
            self._changed.notify_all()
        frames.sort(key=lambda each: each[1].ns)
        return frames

    def error(self, number: int) -> str:
        """Why a tap cannot capture, in its host's words; empty if it can."""
        lines = self._of(number)
        errors = [line.error for line in lines if line.error]
        if errors:
            return errors[0]
        if not self._ended or all(line.over for line in lines):
            return ""
        if self.lost is not None:
            return f"{self.lost.message} ({self.lost.detail})".replace(" ()", "")
        return self._said or _UNKNOWN

    def ended(self, number: int) -> bool:
        """Whether a tap can never bring anything again; what it brought may wait to be read."""
        return self._ended or all(line.over for line in self._of(number))

    def _of(self, number: int) -> list[_Line]:
        return [line for line in self._lines if line.tap == number]

    def stop(self, timeout: float = 5.0) -> list[Captured]:
        """End all captures and wait for what the host still has, and for what got lost there.

        Args:
            timeout: seconds to wait for it.

        Returns:
            By tap: the frames that were not `read`, the oldest first.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        try:
            self._stream.end_input()
        except VxlabError as error:
            self.lost = self.lost or error
        self._wait(lambda: False, timeout)
        self._stream.close()
        self._thread.join(timeout)
        frames: list[list[Frame]] = [[] for _ in range(self._count)]
        for number, frame in self._read():
            frames[number].append(frame)
        with self._changed:
            self._ended = True
        if not self._thread.is_alive():
            os.close(self._wake)
        return [self._captured(number, caught) for number, caught in enumerate(frames)]

    def _captured(self, number: int, frames: Sequence[Frame]) -> Captured:
        pairs: dict[int, list[_Line]] = {}
        for line in self._of(number):
            pairs.setdefault(line.snaplen, []).append(line)
        dropped = sum(map(_dropped, pairs.values()))
        return Captured(tuple(frames), dropped, self.error(number))
