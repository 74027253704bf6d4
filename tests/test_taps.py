"""Captures at many interfaces over one channel: what comes is told apart, and nothing is lost."""

from __future__ import annotations

import queue
import select
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vxlab.errors import UnreachableError
from vxlab.hostprobe import taps as module
from vxlab.hostprobe.taps import Captured, Tap, Taps, command
from vxlab.sniff import Frame

MARK = "6c0d0d67-0b2a-4e0e-9b39-111111111111"
WORDS = "tcpdump: listening on eth0, link-type EN10MB (Ethernet), snapshot length 262144 bytes\n"
HEADER = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)


def counts(captured: int = 0, passed: int = 0, dropped: int = 0) -> str:
    """tcpdump's last words."""
    return (
        f"{WORDS}{captured} packet{'s'[captured == 1 :]} captured\n"
        f"{passed} packets received by filter\n{dropped} packets dropped by kernel\n"
    )


def record(ns: int, data: bytes) -> bytes:
    return struct.pack("<IIII", *divmod(ns, 10**9), len(data), len(data)) + data


def piece(line: int, word: str, data: bytes = b"") -> bytes:
    return data + f"{MARK} {line} {word}\n".encode()


class Channel:
    """A host's answers, put in by the test."""

    def __init__(self, *pieces: bytes, ends: bool = False) -> None:
        self.pieces: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()
        self.words: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()
        self.stdout, self.stderr = _Output(self.pieces), _Output(self.words)
        self.end: tuple[bytes, ...] = ()  # what the host still has to say at the end
        self.calls: list[str] = []
        for each in (MARK.encode() + b"\n", *pieces):
            self.pieces.put(each)
        if ends:
            self.finish()

    def finish(self) -> None:
        self.pieces.put(b"")
        self.words.put(b"")

    def end_input(self) -> None:
        self.calls.append("end_input")
        for each in self.end:
            self.pieces.put(each)
        self.finish()

    def close(self) -> None:
        self.calls.append("close")


class _Output:
    def __init__(self, pieces: queue.SimpleQueue[bytes | Exception]) -> None:
        self.pieces = pieces

    def read(self, size: int, /) -> bytes:
        data = self.pieces.get()
        if isinstance(data, Exception):
            raise data
        return data


#: Short frames only: one tcpdump for each direction.
TAPS = [Tap("eth0", snaplen=256), Tap("eth1", snaplen=256)]
FRAMES = [
    (0, Frame(1, "in", b"one", 3)),
    (1, Frame(2, "out", MARK.encode(), len(MARK))),
    (0, Frame(3, "out", b"", 0)),
    (1, Frame(4, "in", b"\n", 1)),
]
PIECES = [
    piece(1, "data", HEADER + record(1, b"one")),
    piece(2, "data", HEADER + record(3, b"")),
    piece(3, "data", HEADER),
    piece(4, "data", HEADER + record(2, MARK.encode())[:-20]),
    piece(3, "data", record(4, b"\n")),
    piece(4, "data", record(2, MARK.encode())[-20:]),
]
LAST = [piece(line, "said", counts(1, 2).encode()) for line in (1, 2, 3, 4)]


def seen(taps: Taps, count: int) -> list[tuple[int, Frame]]:
    """The next frames, as a loop over several captures gets them."""
    poll, found = select.poll(), list[tuple[int, Frame]]()
    poll.register(taps, select.POLLIN)
    while len(found) < count:
        assert poll.poll(20_000), f"only {found}"
        found += taps.read()
    return found


# --- the command line -----------------------------------------------------------------------------


def test_a_tcpdump_for_each_direction_and_size() -> None:
    """Long frames have a buffer of their own; where frames are cut anyway there are none."""
    argv = command(
        [Tap("eth0", expression="udp"), Tap("eth1", "c1", snaplen=256)], "/b", ["/l", "t"]
    )
    assert argv[:2] == ["sh", "-c"]
    assert argv[4:7] == ["/b", "6000", "/l t"]
    assert [argv[i : i + 6] for i in range(7, len(argv), 6)] == [
        ["", "eth0", "in", "2048", "2056", "less 2048 and (udp)"],
        ["", "eth0", "in", "2048", "262144", "greater 2049 and (udp)"],
        ["", "eth0", "out", "2048", "2056", "less 2048 and (udp)"],
        ["", "eth0", "out", "2048", "262144", "greater 2049 and (udp)"],
        ["c1", "eth1", "in", "2048", "256", ""],
        ["c1", "eth1", "out", "2048", "256", ""],
    ]


# --- what comes -----------------------------------------------------------------------------------


def test_frames_come_with_their_tap_and_direction() -> None:
    """From pieces that end anywhere in a frame, also where a frame contains what looks like one."""
    channel = Channel(*PIECES)
    channel.end = tuple(LAST)
    taps = Taps(channel, TAPS)
    assert sorted(seen(taps, 4), key=lambda each: each[1].ns) == FRAMES
    assert taps.stop() == [Captured(), Captured()]
    assert channel.calls == ["end_input", "close"]


@given(st.lists(st.integers(1, 60), max_size=40))
def test_the_channel_cuts_as_it_likes(sizes: Sequence[int]) -> None:
    """Nothing depends on how much arrives at a time."""
    whole, cut = b"".join([*PIECES, *LAST]), []
    for size in sizes:
        cut.append(whole[:size])
        whole = whole[size:]
    channel = Channel(*filter(None, [*cut, whole]), ends=True)
    taps = Taps(channel, TAPS)
    captured = taps.stop()
    assert [(number, f) for number, c in enumerate(captured) for f in c.frames] == [
        *(each for each in FRAMES if each[0] == 0),
        *(each for each in FRAMES if each[0] == 1),
    ]


def test_stop_brings_what_was_not_read() -> None:
    """Also what the host had captured and not sent yet; each frame once, the oldest first."""
    channel = Channel(*PIECES[:2])
    channel.end = (*PIECES[2:], *LAST)
    taps = Taps(channel, TAPS)
    assert {frame.ns for _, frame in seen(taps, 2)} == {1, 3}
    assert [c.frames for c in taps.stop()] == [(), (FRAMES[1][1], FRAMES[3][1])]


def test_nothing_new_is_no_wait() -> None:
    """A read without frames returns at once."""
    taps = Taps(Channel(), TAPS)
    assert taps.read() == []
    taps.stop()


def test_a_reader_who_is_late_slows_the_host_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits here has a limit; then nothing is taken from the channel, and nothing is lost."""
    monkeypatch.setattr(module, "_FULL", 100)
    many = [piece(1, "data", record(n, bytes(60))) for n in range(1, 20)]
    channel = Channel(piece(1, "data", HEADER), *many)
    channel.end = tuple(LAST)
    taps = Taps(channel, TAPS)
    first = seen(taps, 1)
    assert len(first) < 10
    found = first + seen(taps, 19 - len(first))
    assert [frame.ns for _, frame in found] == list(range(1, 20))
    taps.stop()


# --- what goes wrong ------------------------------------------------------------------------------


def test_ready_is_when_every_tap_runs_or_has_failed() -> None:
    """The failed one says why, in tcpdump's words; the other goes on."""
    channel = Channel(piece(1, "ready"), piece(2, "ready"))
    taps = Taps(channel, TAPS)
    assert not taps.ready(0.05)
    wrong = b"tcpdump: eth1: No such device exists\n"
    channel.pieces.put(piece(3, "said", wrong))
    channel.pieces.put(piece(4, "said", wrong))
    assert taps.ready(20)
    assert [taps.error(0), taps.error(1)] == ["", "eth1: No such device exists"]
    assert [taps.ended(0), taps.ended(1)] == [False, True]
    channel.end = (*LAST[:2],)
    assert taps.stop() == [Captured(), Captured(error="eth1: No such device exists")]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("", "the capture did not begin"),
        (WORDS, "the capture did not end as it should: what it lost is not known"),
        ("c1 does not run\n", "c1 does not run"),
        (counts(), ""),
        (f"tcpdump: WARNING: eth0: no IPv4 address assigned\n{counts(3)}", ""),
        (
            f"{WORDS}tcpdump: pcap_loop: The interface disappeared\n"
            + counts(1).removeprefix(WORDS),
            "pcap_loop: The interface disappeared",
        ),
    ],
)
def test_what_tcpdump_says_in_the_end(words: str, error: str) -> None:
    """An error is what it says besides its usual words, or that it does not say what it lost."""
    channel = Channel(*(piece(line, "said", words.encode()) for line in (1, 2)), ends=True)
    (captured,) = Taps(channel, TAPS[:1]).stop()
    assert captured.error == error


@pytest.mark.parametrize(
    ("directions", "lost"),
    [
        ([(5, 10, 0), (5, 10, 0)], 0),
        ([(3, 10, 3), (5, 10, 0)], 2),  # three packets did not fit, one of the other direction
        ([(3, 10, 4), (3, 10, 4)], 4),
        ([(5, 10, 7), (5, 10, 7)], 0),
        ([(5, 30, 2), (5, 10, 0)], 2),  # the other one began later
    ],
)
def test_what_was_lost_is_counted_once(
    directions: Sequence[tuple[int, int, int]], lost: int
) -> None:
    """Each direction's buffer gets both directions: a drop of the wrong one is no loss."""
    said = [piece(i, "said", counts(*each).encode()) for i, each in enumerate(directions, 1)]
    (captured,) = Taps(Channel(*said, ends=True), TAPS[:1]).stop()
    assert captured == Captured(dropped=lost)


def test_a_lost_connection_is_told_by_every_tap_that_ran() -> None:
    """What came before is there; the error itself says which host."""
    channel = Channel(*PIECES, LAST[0], LAST[1])
    error = UnreachableError("the connection was lost", where="node02", detail="timed out")
    channel.pieces.put(error)
    taps = Taps(channel, TAPS)
    assert len(seen(taps, 4)) == 4
    assert taps.ready(20)
    assert taps.lost is error
    assert [taps.ended(0), taps.ended(1)] == [True, True]
    assert [c.error for c in taps.stop()] == ["", "the connection was lost (timed out)"]


def test_a_program_that_does_not_start_says_why_for_all() -> None:
    """As a host without tcpdump does."""
    channel = Channel()
    channel.pieces = channel.stdout.pieces = queue.SimpleQueue()
    channel.words.put(b"there is no tcpdump on this host\n")
    channel.finish()
    taps = Taps(channel, TAPS)
    assert taps.ready(20)
    assert taps.stop() == [Captured(error="there is no tcpdump on this host")] * 2


def test_no_capture_is_an_error_of_its_tap_only() -> None:
    """Something else than frames of that kind came: the others are read all the same."""
    l3 = [Tap("flannel0", l3=True, snaplen=256), Tap("eth1", snaplen=256)]
    raw = HEADER[:-4] + struct.pack("<I", 101)
    pieces = [piece(1, "data", raw + record(1, b"E")), piece(2, "data", HEADER + record(2, b"x"))]
    taps = Taps(Channel(*pieces, *PIECES[2:], *LAST, ends=True), l3)
    first, second = taps.stop()
    assert first.frames == (Frame(1, "in", b"E", 1),)
    assert first.error == "link type 1 is not that of packets without Ethernet header"
    assert (len(second.frames), second.error) == (2, "")
