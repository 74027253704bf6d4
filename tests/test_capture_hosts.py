"""Captures on several hosts, without hosts: order, what ends them, and what they leave out."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from kernel import wait_for
from test_capture_filter import needs_tcpdump, passed
from test_packet import FRAMES, ethernet, ipv4, tcp
from test_taps import HEADER, LAST, Channel, counts, piece, record
from vxlab.errors import OperationError, UnreachableError
from vxlab.hostprobe.links import Links, linking, read_linking
from vxlab.hostprobe.taps import Tap, Taps
from vxlab.trace import bpf
from vxlab.trace.capture import Caught, ranks
from vxlab.trace.capture_begin import ours, without
from vxlab.trace.capture_hosts import Host, HostCaptures
from vxlab.trace.capture_sieve import Sieve
from vxlab.trace.hops import Hop

HOPS = [Hop(node, "", name) for node in ("node01", "node02") for name in ("cbr0", "vethlocal")]

#: By hop: the number of the tcpdump of its incoming frames, on its own host.
LINE = [1, 3, 1, 3]


@dataclass
class Two:
    """Two hosts with captures at two hops each."""

    channels: list[Channel]
    captures: HostCaptures
    told: list[str]

    def put(self, hop: int, *stamps: int) -> None:
        """Frames at a hop, whose bytes are their time stamps."""
        data = b"".join(record(ns, b"%d" % ns) for ns in stamps)
        self.channels[hop // 2].pieces.put(piece(LINE[hop], "data", data))

    def get(self, count: int) -> list[tuple[int, int]]:
        """The next frames: hop and time stamp."""
        found: list[Caught] = []

        def enough() -> bool:
            found.extend(self.captures.poll(1))
            return len(found) >= count

        wait_for(enough, f"{count} frames")
        return [(caught.number, caught.frame.ns) for caught in found]


@pytest.fixture
def two() -> Iterator[Two]:
    yield from _two({})


def _two(sieves: dict[int, Sieve]) -> Iterator[Two]:
    told: list[str] = []
    taps = [Tap("cbr0", snaplen=256), Tap("vethlocal", snaplen=256)]
    channels = [Channel(piece(1, "data", HEADER), piece(3, "data", HEADER)) for _ in range(2)]
    for channel in channels:
        channel.end = tuple(LAST)
    hosts = [
        Host(node, Taps(channel, taps), numbers, ranks(HOPS), sieves)
        for node, channel, numbers in zip(
            ("node01", "node02"), channels, ((0, 1), (2, 3)), strict=True
        )
    ]
    with HostCaptures(HOPS, hosts, lambda hop, words: told.append(f"{hop} {words}")) as captures:
        yield Two(channels, captures, told)


def test_frames_of_a_host_come_in_the_order_of_its_clock(two: Two) -> None:
    """Whichever arrives first; a port before its bridge where the time is the same."""
    two.put(0, 5, 7)
    two.put(1, 5, 6)
    assert two.get(4) == [(1, 5), (0, 5), (1, 6), (0, 7)]
    assert two.captures.received == (2, 2, 0, 0)


def test_between_hosts_the_arrival_decides(two: Two) -> None:
    """A clock that is hours ahead, or before the epoch, holds nothing up."""
    two.put(2, 10**18, 10**18 + 1)
    assert two.get(2) == [(2, 10**18), (2, 10**18 + 1)]
    two.put(0, 3)
    assert two.get(1) == [(0, 3)]


def test_the_rest_is_also_what_the_hosts_have_not_sent_yet(two: Two) -> None:
    """The end of their input makes them send it, with what they lost."""
    two.put(0, 2)
    two.channels[1].end = (
        piece(3, "data", record(1, b"1")),
        *(piece(line, "said", counts(1, 9, 4).encode()) for line in (1, 2, 3, 4)),
    )
    found = [(caught.number, caught.frame.ns) for caught in two.captures.rest()]
    assert sorted(found) == [(0, 2), (3, 1)]
    assert two.captures.received == (1, 0, 0, 1)
    assert two.captures.dropped == (0, 0, 7, 7)
    assert (two.captures.running, two.captures.failure, two.told) == (True, None, [])


def test_waiting_can_be_broken_off(two: Two) -> None:
    """`wake` from a signal's handler."""
    two.captures.wake()
    assert two.captures.poll(60) == []


def test_a_capture_that_ends_is_told_once(two: Two) -> None:
    """The others go on; when none is left nothing runs any more."""
    words = b"tcpdump: pcap_loop: The interface disappeared\n"
    for channel in two.channels:
        for line in (1, 2):
            channel.pieces.put(piece(line, "said", counts(1).encode() + words))
    wait_for(lambda: not two.captures.poll(0.01) and len(two.told) == 2, "the words")
    assert sorted(two.told) == [
        f"{node}:cbr0 is captured no more: pcap_loop: The interface disappeared"
        for node in ("node01", "node02")
    ]
    assert two.captures.running
    for channel in two.channels:
        for line in (3, 4):
            channel.pieces.put(piece(line, "said", counts(1).encode() + words))
    wait_for(lambda: not two.captures.poll(0.01) and len(two.told) == 4, "the words")
    assert (two.captures.running, two.captures.failure) == (False, None)


def test_a_lost_host_ends_the_captures(two: Two) -> None:
    """All that came is there, also from the others; which host it was is in the error."""
    error = UnreachableError("the connection to node02 was lost", where="node02")
    two.put(2, 7)
    two.channels[1].pieces.put(error)
    found: list[Caught] = []

    def ended() -> bool:
        found.extend(two.captures.poll(1))
        return not two.captures.running

    wait_for(ended, "the end of the captures")
    two.put(0, 3)
    found += two.captures.rest()
    assert sorted(caught.number for caught in found) == [0, 2]
    assert two.captures.failure is error
    assert two.told == []


def test_what_a_host_loses_unnoticed_is_told_in_the_end(two: Two) -> None:
    """A tcpdump that does not say what it lost has not ended as it should."""
    two.channels[0].end = (piece(1, "said", counts().split("\n")[0].encode()), *LAST[1:])
    assert two.captures.rest() == []
    assert two.told == [
        "node01:cbr0 had an error: the capture did not end as it should: what it lost is not known"
    ]


def test_a_sieve_decides_where_the_host_cannot() -> None:
    """At its hop alone, and before anything is counted."""
    takes_7 = [(0x30, 0, 0, 0), (0x15, 0, 1, ord("7")), (0x06, 0, 0, 9), (0x06, 0, 0, 0)]
    for two in _two({0: Sieve(takes_7)}):
        two.put(0, 6, 7)
        two.put(1, 6)
        assert two.get(2) == [(1, 6), (0, 7)]
        assert two.captures.received == (1, 1, 0, 0)


# --- what is left out -----------------------------------------------------------------------------

OURS = frozenset({("192.168.56.1", 40000), ("192.168.56.21", 22)})
V6 = frozenset({("fd00::1", 40000), ("fd00::21", 22)})


def segment(src: str, sport: int, dst: str, dport: int, *, proto: int = 6) -> bytes:
    ports = sport.to_bytes(2, "big") + dport.to_bytes(2, "big")
    return ethernet(ipv4(ports + tcp(b"x")[4:], proto, src=src, dst=dst))


@needs_tcpdump
def test_only_our_own_connections_are_left_out() -> None:
    """In both directions; not another one between the same hosts, nor another protocol."""
    here, there = "192.168.56.1", "192.168.56.21"
    frames = [
        segment(here, 40000, there, 22),
        segment(there, 22, here, 40000),
        segment(here, 22, there, 40000),
        segment(here, 40001, there, 22),
        segment(there, 40000, here, 22),
        segment(here, 40000, "192.168.56.22", 22),
        segment(here, 40000, there, 22, proto=17),
        FRAMES["arp"],
    ]
    for expression in ("", "ip or arp"):
        program = bpf.compile(without([OURS, V6], expression))
        assert passed(program, frames) == [False, False, True, True, True, True, True, True]
    assert passed(bpf.compile(without([OURS], "tcp")), frames)[-2:] == [False, False]
    bpf.compile(without([OURS, V6], "udp or tcp"), "RAW")


def answered(shell: str, environment: dict[str, str], *before: str) -> str:
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("there is no busybox")
    # The shell's parent was told; it itself was not, as behind sudo.
    inner = 'cat | env -i PATH="$PATH" "$0" -s; :'
    done = subprocess.run(
        [*before, shell, "-c", inner, shell],
        input=linking(busybox, ["nobody"]),
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_our_connection_is_the_one_that_a_parent_was_told_of(shell: str) -> None:
    """sshd tells the login user's programs; sudo does not hand it on. Interfaces come along."""
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell}")
    told = {"SSH_CONNECTION": "fe80::1%eth1 40000 192.168.56.21 22"}
    found = read_linking(answered(shell, told))
    assert found.came_by == frozenset({("fe80::1", 40000), ("192.168.56.21", 22)})
    assert found.names.keys() == {""}
    assert "lo" in found.names[""]


@pytest.mark.parametrize("words", ["", "1 2 3", "a b c d", "10.0.0.1 1 10.0.0.2 22 9"])
def test_what_is_no_connection_is_none(words: str) -> None:
    """Then nothing is captured: it might be our own."""
    assert read_linking(f"@@ came {words}\n@@ links .\n").came_by is None


def test_a_connection_that_another_node_hands_on_is_ours_there() -> None:
    """Whatever the way: the process that has the way out has the way in; others' are not ours."""
    here, first, second, third = (
        ("10.0.0.9", 1),
        ("10.0.0.1", 22),
        ("10.0.0.2", 22),
        ("10.0.0.3", 22),
    )
    to_first, jump = frozenset({here, first}), frozenset({("10.0.0.9", 2), first})
    to_second = frozenset({("10.0.0.1", 5), second})
    to_third, others = frozenset({("10.0.0.2", 6), third}), frozenset({("10.0.0.8", 1), first})
    found = ours(
        {
            "node01": Links(to_first, {}, {1: {to_first}, 2: {jump, to_second}, 3: {others}}),
            "node03": Links(to_third, {}, {1: {to_third}}),
            "node02": Links(to_third, {}, {1: {to_second, to_third}}),
        }
    )
    assert set(found) == {to_first, jump, to_second, to_third}
    with pytest.raises(OperationError, match="which SSH connection is ours"):
        ours({"node01": Links(None, {}, {})})


def test_connections_by_process() -> None:
    """As ss prints them: addresses of IPv4 in those of IPv6, interfaces behind addresses."""
    table = (
        "State Recv-Q Send-Q Local Address:Port Peer Address:Port Process\n"
        "ESTAB 0 0 [::ffff:10.0.0.1]:22 [::ffff:10.0.0.9]:2 "
        'users:(("sshd",pid=7,fd=4),("sshd",pid=5,fd=4))\n'
        'ESTAB 0 36 [fe80::1%eth1]:22 [fe80::9]%eth1:3 users:(("sshd-session",pid=8,fd=7))\n'
        "ESTAB 0 0 10.0.0.1:4 10.0.0.9:5\n"
    )
    found = read_linking(f"@@ sockets\n{table}@@ links .\n lo: 0\n")
    assert found.sockets == {
        5: {frozenset({("10.0.0.1", 22), ("10.0.0.9", 2)})},
        7: {frozenset({("10.0.0.1", 22), ("10.0.0.9", 2)})},
        8: {frozenset({("fe80::1", 22), ("fe80::9", 3)})},
    }
    assert found.names == {"": ["lo"]}


def test_interfaces_by_container() -> None:
    """As /proc/net/dev has them; a container that does not run is not there."""
    table = "Inter-|   Receive\n face |bytes\n    lo:  0 0\n  eth0: 9 9\n"
    found = read_linking(f"@@ links .\n{table}@@ links c1\n{table.replace('eth0', 'vethNS')}")
    assert found.names == {"": ["lo", "eth0"], "c1": ["lo", "vethNS"]}
    assert found.came_by is None


def test_a_frame_goes_through_the_sieve_by_itself() -> None:
    """Any size that a capture has; one after the other, also none at all."""
    everything = [(0x06, 0, 0, 262144)]
    sieve = Sieve(everything)
    assert [sieve.takes(data) for data in (b"", b"x", bytes(65549))] == [True, True, True]
    sieve.close()
    nothing = Sieve([(0x06, 0, 0, 0)])
    assert [nothing.takes(FRAMES["arp"]) for _ in range(2000)] == [False] * 2000
    nothing.close()
