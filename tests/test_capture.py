"""Captures without a lab: the order of frames, an output that is slow, what a line says."""

from __future__ import annotations

import errno
import os
import select
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from test_packet import FRAMES, encapsulated, ethernet, ipv4, ping, udp, vxlan
from vxlab.errors import OperationError
from vxlab.packet import ICMP, UDP, Ethernet, IPv4, IPv6, decode
from vxlab.report.packets import Lines, moment, summary
from vxlab.sniff import BATCH, Direction, Frame
from vxlab.trace.capture import Captures, Caught
from vxlab.trace.capture_output import Output, Pump
from vxlab.trace.hops import Hop

PORT, BRIDGE = Hop("node01", "", "vethlocal"), Hop("node01", "", "cbr0")
HOPS = [BRIDGE, PORT]


class Fake:
    """A capture whose frames are put in by the test."""

    def __init__(self) -> None:
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_SEMAPHORE)
        self._frames: list[Frame] = []
        self.failure: OperationError | None = None
        self.dropped = 0
        self.ended = False

    def put(self, *frames: Frame) -> None:
        self._frames += frames
        if frames:
            os.eventfd_write(self._event, len(frames))

    def fail(self, *, gone: bool) -> None:
        self.failure, self.ended = OperationError("ended", detail="Network is down"), gone
        os.eventfd_write(self._event, 1)

    def fileno(self) -> int:
        return self._event

    def poll(self) -> list[Frame]:
        if self.failure is not None:
            failure, self.failure = self.failure, None
            os.eventfd_read(self._event)
            raise failure
        found, self._frames = self._frames[:BATCH], self._frames[BATCH:]
        for _ in found:
            os.eventfd_read(self._event)
        return found

    def close(self) -> None:
        os.close(self._event)

    def gone(self) -> bool:
        return self.ended


class Two:
    """Captures at a bridge and at one of its ports."""

    def __init__(self) -> None:
        self.bridge, self.port = Fake(), Fake()
        self.told: list[str] = []
        self.captures = Captures(HOPS, [self.bridge, self.port], self._told)

    def _told(self, hop: Hop, words: str) -> None:
        self.told.append(f"{hop.name} {words}")


@pytest.fixture
def two() -> Iterator[Two]:
    each = Two()
    with each.captures:
        yield each


def frame(ns: int, data: bytes = b"", direction: Direction = "in") -> Frame:
    return Frame(ns, direction, data, len(data))


def everything(captures: Captures, count: int) -> list[Caught]:
    found: list[Caught] = []
    deadline = time.monotonic() + 10
    while len(found) < count:
        assert time.monotonic() < deadline
        found += captures.poll(1)
    return found


# --- order --------------------------------------------------------------------------------------


def test_frames_of_all_hops_come_in_the_order_of_their_time_stamps(two: Two) -> None:
    """However many there are at a hop, and whichever is read first."""
    now = time.time_ns()
    stamps = [now - 10**9 + i for i in range(3000)]
    two.bridge.put(*(frame(ns) for ns in stamps[::3]))
    two.port.put(*(frame(ns) for ns in stamps if ns not in set(stamps[::3])))
    found = everything(two.captures, 3000)
    assert [caught.frame.ns for caught in found] == stamps
    assert two.captures.received == (1000, 2000)


def test_a_late_frame_still_finds_its_place(two: Two) -> None:
    """A frame that passed first may come into its buffer a moment later."""
    now = time.time_ns()
    two.bridge.put(frame(now))
    assert two.captures.poll(0) == []
    two.port.put(frame(now - 1000))
    assert [caught.number for caught in everything(two.captures, 2)] == [1, 0]


def test_a_port_comes_before_its_bridge(two: Two) -> None:
    """The kernel stamps a packet once on its way in."""
    now = time.time_ns() - 10**9
    two.bridge.put(frame(now))
    two.port.put(frame(now))
    assert [caught.number for caught in everything(two.captures, 2)] == [1, 0]


def test_a_clock_that_was_set_back_holds_nothing_up(two: Two) -> None:
    """Frames of the future are told at once."""
    two.bridge.put(frame(time.time_ns() + 10**12))
    assert len(everything(two.captures, 1)) == 1


def test_the_rest_is_what_nobody_has_read_yet(two: Two) -> None:
    """At the end nothing is held back."""
    now = time.time_ns()
    two.bridge.put(*(frame(now + i) for i in range(2000)))
    two.port.put(frame(now + 7))
    assert len(two.captures.rest()) == 2001


def test_waiting_can_be_broken_off(two: Two) -> None:
    """`wake` from a signal's handler, before or during the wait."""
    two.captures.wake()
    assert two.captures.poll(60) == []


def test_an_interface_that_goes_down_is_told_and_goes_on(two: Two) -> None:
    """It may come up again; the other hops are not concerned."""
    two.bridge.fail(gone=False)
    two.captures.poll(1)
    assert two.told == ["node01:cbr0 Network is down; the capture goes on when it is up again"]
    two.bridge.put(frame(time.time_ns() - 10**9))
    assert len(everything(two.captures, 1)) == 1


def test_an_interface_that_is_gone_is_told_once(two: Two) -> None:
    """When none is left, nothing runs any more."""
    two.bridge.fail(gone=True)
    two.captures.poll(1)
    assert (two.told, two.captures.running) == (
        ["node01:cbr0 is gone; the capture there ended"],
        True,
    )
    two.port.fail(gone=True)
    two.captures.poll(1)
    assert two.captures.running is False
    assert two.captures.rest() == []


# --- output -------------------------------------------------------------------------------------


def shown(caught: Caught) -> bytes:
    return caught.frame.data


def pumped(two: Two, output: Output, most: int | None = None) -> Pump:
    return Pump(two.captures, output, shown, most)


def test_as_many_as_wanted_are_written_the_first_ones(two: Two, tmp_path: Path) -> None:
    """Over all hops; what comes after is left out."""
    now = time.time_ns() - 10**9
    two.bridge.put(*(frame(now + 2 * i, b"b") for i in range(300)))
    two.port.put(*(frame(now + 2 * i + 1, b"p") for i in range(300)))
    with (tmp_path / "out").open("wb") as file:
        output = Output(file.fileno(), "out")
        pump = pumped(two, output, 251)
        pump.run()
        output.finish()
    assert (tmp_path / "out").read_bytes() == b"bp" * 125 + b"b"
    assert pump.written == [126, 125]


def test_time_over_writes_what_has_come(two: Two, tmp_path: Path) -> None:
    """A capture of some seconds that saw two packets has two packets."""
    two.bridge.put(frame(time.time_ns(), b"x"), frame(time.time_ns(), b"y"))
    with (tmp_path / "out").open("wb") as file:
        output = Output(file.fileno(), "out")
        pumped(two, output).run(0.01)
        output.finish()
    assert (tmp_path / "out").read_bytes() == b"xy"


def test_a_reader_that_is_slow_does_not_hold_up_the_captures(two: Two) -> None:
    """Nobody reads the pipe, and yet every frame is taken from the capture; all arrive later."""
    reading, writing = os.pipe()
    count, now = 3000, time.time_ns() - 10**9
    two.bridge.put(*(frame(now + i, b"%1000d" % i) for i in range(count)))
    output = Output(writing, "the pipe")
    pump = pumped(two, output)
    thread = threading.Thread(target=pump.run)
    thread.start()
    deadline = time.monotonic() + 10
    while two.captures.received[0] < count:
        assert time.monotonic() < deadline
        os.sched_yield()
    pump.stop()
    thread.join()

    def finish() -> None:
        output.finish()
        os.close(writing)

    finishing = threading.Thread(target=finish)
    finishing.start()
    with os.fdopen(reading, "rb") as file:
        data = file.read()
    finishing.join()
    assert data == b"".join(b"%1000d" % i for i in range(count))


def test_a_reader_that_has_gone_ends_the_capture(two: Two) -> None:
    """Also while no packet comes."""
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        pumped(two, Output(writing, "the pipe")).run(60)
    os.close(writing)


def test_a_full_disk_is_told(two: Two) -> None:
    """The kernel's words, and which file."""
    full = os.open("/dev/full", os.O_WRONLY)
    two.bridge.put(frame(time.time_ns() - 10**9, b"x"))
    with pytest.raises(OperationError, match="cannot write the capture") as raised:
        pumped(two, Output(full, "x.pcapng")).run(60)
    os.close(full)
    assert raised.value.where == "x.pcapng"
    assert raised.value.detail == os.strerror(errno.ENOSPC)


def test_big_pieces_are_cut_as_a_pipe_takes_them() -> None:
    """A pipe that is ready takes PIPE_BUF bytes without waiting; nothing is lost or doubled."""
    reading, writing = os.pipe()
    output = Output(writing, "the pipe")
    data = bytes(i % 251 for i in range(10 * select.PIPE_BUF + 7))
    output.put(data)
    output.put(b"end")
    output.push()
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        assert file.read() == data + b"end"
    assert output.waiting == 0


# --- lines --------------------------------------------------------------------------------------

NS = 1_700_000_000_123_456_789


def lines(data: bytes, *, macs: bool = False) -> list[str]:
    """A frame's lines, without the time of the first."""
    each = Lines(["node01:eth0"], vxlan_ports={8472}, macs=macs)
    first, *rest = each.text(0, Frame(NS, "out", data, len(data))).splitlines()
    return [first.removeprefix(f"{moment(NS)} "), *rest]


def test_what_vxlan_carries_stands_under_it() -> None:
    """Time, hop, direction and length, then the headers; the inner frame with its own length."""
    assert lines(encapsulated()) == [
        "node01:eth0 out   148  192.168.56.21 > 192.168.56.22 ttl 64 UDP 40000 > 8472 VXLAN VNI 1",
        " " * 32 + "   98  └ 10.5.1.10 > 10.5.2.10 ttl 62 DF ICMP echo request id 77 seq 3",
    ]


def test_the_time_has_microseconds() -> None:
    """As tcpdump writes it, in this machine's zone."""
    local = time.strftime("%H:%M:%S", time.localtime(NS // 10**9))
    assert moment(NS) == f"{local}.123456"


def test_each_kind_of_packet_is_told() -> None:
    """One line each, and one more for what is carried."""
    told = {name: lines(data) for name, data in FRAMES.items()}
    first = {name: found[0][16:].lstrip(" 0123456789") for name, found in told.items()}
    last = {name: found[-1].partition("└ ")[2] for name, found in told.items()}
    assert first["arp"] == "ARP who has 10.5.1.1? tell 10.5.1.10"
    assert first["tagged"].startswith("VLAN 100 ")
    assert "TCP 2379 > 40001 [P.] seq " in told["tcp"][0]
    assert told["frag needed"][0].endswith("ICMP fragmentation needed, MTU 1450")
    assert told["net unreachable"][0].endswith("ICMP net unreachable")
    assert "fragment 1480" in first["later fragment"]
    assert "fragment 0+" in first["first fragment"]
    assert "[bad header checksum]" in first["bad checksum"]
    assert "hlim" in first["ipv6"]
    assert last["inner arp"].startswith("ARP 10.5.1.10 is at ")
    assert last["ipv6 in vxlan"].endswith("ICMPv6 router solicitation")
    assert len(told) == len(FRAMES)


def test_every_line_agrees_with_the_decoder() -> None:
    """Addresses, ports and identifiers of every header are in it."""
    for name, data in FRAMES.items():
        text = "\n".join(lines(data))
        for layer in decode(data).layers:
            match layer:
                case IPv4() | IPv6():
                    assert f"{layer.src} > {layer.dst}" in text, name
                case UDP():
                    assert f"UDP {layer.sport} > {layer.dport}" in text, name
                case ICMP() if layer.ident is not None:
                    assert f"id {layer.ident} seq {layer.seq}" in text, name
                case _:
                    pass


def test_mac_addresses_are_shown_on_request() -> None:
    """Outer and inner ones."""
    plain, with_macs = lines(encapsulated()), lines(encapsulated(), macs=True)
    assert not any(":02" in line.split("  ", 1)[1] for line in plain)
    ethernets = [layer for layer in decode(encapsulated()).layers if isinstance(layer, Ethernet)]
    for line, layer in zip(with_macs, ethernets, strict=True):
        assert f"{layer.src} > {layer.dst} " in line


def test_a_frame_that_was_cut_says_so() -> None:
    """Its length is the one on the wire."""
    each = Lines(["x"], vxlan_ports={8472})
    text = each.text(0, Frame(NS, "in", ethernet(ping())[:50], 98))
    assert "   98  " in text
    assert text.endswith("[50 of 98 bytes kept]\n")


def test_flannels_udp_packets_are_opened() -> None:
    """What is inside begins with its IP header; flannel0's own frames do so, too."""
    each = Lines(["eth0", "flannel0"], vxlan_ports={8472}, ip_port=8285, l3=[False, True])
    data = ethernet(ipv4(udp(ping(), dport=8285), 17))
    opened = each.text(0, Frame(NS, "in", data, len(data))).splitlines()
    alone = each.text(1, Frame(NS, "in", ping(), len(ping())))
    assert opened[1].partition("└ ")[2] == alone.rstrip("\n").split("  ")[-1]


def test_packets_in_packets_end_somewhere() -> None:
    """One can be made with more than a thousand packets inside."""
    data = b""
    for _ in range(900):
        data = ethernet(ipv4(udp(vxlan(data)), 17))
    assert len(lines(data)) == 9


@given(st.binary(max_size=200), st.booleans(), st.booleans(), st.integers(0, 2**64 - 1))
def test_any_bytes_make_lines(data: bytes, l3: bool, macs: bool, ns: int) -> None:
    """Whatever comes off a wire: text, a line for each packet, nothing that moves the cursor."""
    each = Lines(["x"], vxlan_ports={8472}, ip_port=8285, l3=[l3], macs=macs)
    text = each.text(0, Frame(ns, "in", data, len(data)))
    assert text.endswith("\n")
    assert all(char == "\n" or char.isprintable() for char in text)


@given(st.sampled_from(sorted(FRAMES)), st.data())
def test_damaged_packets_make_lines(name: str, data: st.DataObject) -> None:
    """Real packets with some bytes changed, or cut."""
    damaged = bytearray(FRAMES[name])
    places = st.dictionaries(st.integers(0, len(damaged) - 1), st.integers(0, 255), max_size=4)
    for place, value in data.draw(places).items():
        damaged[place] = value
    cut = bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    each = Lines(["x"], vxlan_ports={8472}, ip_port=9999, macs=True)
    text = each.text(0, Frame(NS, "in", cut, len(FRAMES[name])))
    assert all(char == "\n" or char.isprintable() for char in text)


def test_the_summary_tells_each_hop_and_what_was_lost() -> None:
    """On stderr, when the capture has ended."""
    assert summary(["node01:eth0", "b"], [1, 12], [0, 3]) == [
        "13 packets at 2 hops, 3 dropped",
        "  node01:eth0   1",
        "  b            12  3 dropped",
    ]
    assert summary(["b"], [1], [0]) == ["1 packet at 1 hop, none dropped", "  b  1"]
