"""The program that captures on a host, run as a host runs it, in namespaces with real tcpdump."""

from __future__ import annotations

import array
import fcntl
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from kernel import KERNEL, wait_for
from networks import Net, namespaces, needs_root
from test_sniff import ONLY_88B5, experiment, send
from test_taps import seen
from vxlab.hostprobe.streams import Stream
from vxlab.hostprobe.taps import Captured, Tap, Taps, command
from vxlab.journal import process_start
from vxlab.namespaces import in_netns
from vxlab.nodes.local import ENVIRONMENT
from vxlab.sniff import Frame, Sniffer

BUSYBOX, TCPDUMP = shutil.which("busybox"), shutil.which("tcpdump")

pytestmark = [
    *KERNEL,
    needs_root,
    pytest.mark.skipif(not (BUSYBOX and TCPDUMP), reason="KERNEL TESTS DID NOT RUN: no tcpdump"),
]

EXPRESSION = "ether proto 0x88b5"


class Pipes:
    """A running command in a channel's place; what it prints may be held back for a while."""

    def __init__(self, argv: Sequence[str], mark: str) -> None:
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env={**ENVIRONMENT, "VXLAB_TEST": mark},
        )
        assert self.process.stdin
        assert self.process.stdout
        assert self.process.stderr
        self.stdin, self.out, self.stderr = (
            self.process.stdin,
            self.process.stdout,
            self.process.stderr,
        )
        self.stdout = self
        self.flows = threading.Event()
        self.flows.set()

    def read(self, size: int, /) -> bytes:
        self.flows.wait()
        return self.out.read(size)

    def end_input(self) -> None:
        self.stdin.close()

    def close(self) -> None:
        self.process.wait()
        self.out.close()
        self.stderr.close()


class Host:
    """A machine with a network (that of `a`) and a /run of its own."""

    def __init__(self, net: Net, run: subprocess.Popen[bytes], shell: Sequence[str]) -> None:
        self.net, self.run, self.shell = net, run, shell
        self.mark = uuid.uuid4().hex
        self.place = Path(f"/proc/{run.pid}/root/run")

    def start(self, taps: Sequence[Tap], buffer: int = 2048) -> Pipes:
        assert BUSYBOX
        _, *rest = command(taps, BUSYBOX, buffer=buffer)
        enter = [f"--net={self.net.path('a')}", f"--mount=/proc/{self.run.pid}/ns/mnt"]
        return Pipes(["nsenter", *enter, *self.shell, *rest], self.mark)

    @contextmanager
    def capturing(self, *taps: Tap, buffer: int = 2048) -> Iterator[tuple[Taps, Pipes]]:
        pipes = self.start(taps, buffer)
        try:
            capture = Taps(pipes, taps)
            assert capture.ready(20)
            yield capture, pipes
        finally:
            if not pipes.stdin.closed:
                pipes.end_input()
            pipes.flows.set()
            pipes.process.wait(20)

    def processes(self) -> dict[int, str]:
        """What was started there and still runs, by PID."""
        found = {}
        for each in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (each / "environ").read_bytes():
                    found[int(each.name)] = (each / "comm").read_text().strip()
            except OSError:  # it has just ended
                continue
        return found

    def tcpdumps(self) -> list[int]:
        return sorted(pid for pid, name in self.processes().items() if name == "tcpdump")

    def left(self) -> list[str]:
        """What is left of a capture that has ended: processes and files."""
        files = [f.name for f in self.place.iterdir() if f.name != "vxlab"]
        return [*map(str, self.processes()), *files]


@pytest.fixture(scope="module")
def cable() -> Iterator[Net]:
    """Two namespaces with a veth pair, eth0 and eth0, and no traffic of their own."""
    with namespaces("a", "b") as net:
        net.ip("a", "link add eth0 type veth peer name eth0 netns @b ", "link set eth0 up")
        net.ip("b", "link set eth0 up")
        net.settle()
        yield net


@contextmanager
def a_host(net: Net, *shell: str) -> Iterator[Host]:
    hold = "mount -t tmpfs run /run && mkdir -p /run/vxlab/machines && echo && exec sleep 600"
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", hold], stdout=subprocess.PIPE, env=ENVIRONMENT
    ) as run:
        assert run.stdout
        run.stdout.readline()
        try:
            host = Host(net, run, shell)
            yield host
            wait_for(lambda: host.left() == [], f"nothing is left: {host.left()}")
        finally:
            run.kill()


@pytest.fixture
def host(cable: Net) -> Iterator[Host]:
    with a_host(cable, "sh") as made:
        yield made


_AS_SH = {"dash": ["dash"], "bash": ["bash", "--posix"], "busybox": ["busybox", "sh"]}


@pytest.fixture(params=[name for name in _AS_SH if shutil.which(name)])
def any_host(cable: Net, request: pytest.FixtureRequest) -> Iterator[Host]:
    """With each of the shells that hosts have as their sh."""
    with a_host(cable, *_AS_SH[request.param]) as made:
        yield made


def flood(net: Net, count: int, size: int = 100, *, pause: float = 0.005) -> None:
    """Frames in both directions by turns, a hundred at a time."""
    both = []
    for name in ("a", "b"):
        path = net.path(name)
        both.append(in_netns(path, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)))
        both[-1].bind(("eth0", 0))
    for i in range(count):
        both[i % 2].send(experiment(i, size))
        if i % 100 == 99:
            time.sleep(pause)
    for sock in both:
        sock.close()


def numbers(frames: Sequence[Frame]) -> list[int]:
    return sorted(int.from_bytes(frame.data[14:16], "big") for frame in frames)


def test_frames_are_the_kernels_to_the_byte(any_host: Host) -> None:
    """Time stamps, directions, bytes and lengths as a socket of our own sees them, of any size."""
    net, chance = any_host.net, random.Random(7)  # noqa: S311
    sizes = [60, 1514, 1499, *(chance.randrange(16, 1515) for _ in range(60))]
    frames = [experiment(i, 16)[:16] + chance.randbytes(size - 16) for i, size in enumerate(sizes)]
    with (
        any_host.capturing(Tap("eth0", expression=EXPRESSION)) as (taps, _),
        Sniffer(net.path("a"), "eth0", bpf=ONLY_88B5) as sniffer,
    ):
        send(net, "a", frames[::2])
        send(net, "b", frames[1::2])
        wanted = sniffer.read(lambda so_far: len(so_far) == len(frames), 20)
        found = [frame for _, frame in seen(taps, len(frames))]
        assert taps.stop() == [Captured()]
    assert sorted(found, key=lambda frame: frame.ns) == sorted(wanted, key=lambda frame: frame.ns)
    assert {frame.direction for frame in found} == {"in", "out"}


def test_tcpdump_writes_to_nothing_but_pcap_files(host: Host) -> None:
    """So that Debian's and Ubuntu's AppArmor profile of it lets it write at all."""
    with host.capturing(Tap("eth0")) as (taps, _):
        found = [os.readlink(f"/proc/{pid}/fd/{fd}") for pid in host.tcpdumps() for fd in (1, 2)]
        assert taps.stop() == [Captured()]
    assert len(found) == 8
    assert [name for name in found if not name.endswith(".pcap")] == []


def test_a_long_frame_comes_whole(host: Host, cable: Net) -> None:
    """What a TCP of today hands to its interface at once; it is longer than any pipe's page."""
    cable.ip("a", "link set eth0 mtu 65000")
    cable.ip("b", "link set eth0 mtu 65000")
    frames = [experiment(0, 65000), experiment(1, 2048), experiment(2, 2049)]
    with host.capturing(Tap("eth0", expression=EXPRESSION)) as (taps, _):
        send(cable, "a", frames)
        (captured,) = taps.stop()
    cable.ip("a", "link set eth0 mtu 1500")
    cable.ip("b", "link set eth0 mtu 1500")
    assert [frame.data for frame in captured.frames] == frames


def test_a_flood_of_small_packets_is_seen_whole(any_host: Host) -> None:
    """At two taps, stopped as soon as all were sent; on a busy machine all but what is counted."""
    taps = [Tap("eth0", expression=EXPRESSION), Tap("eth0", expression=EXPRESSION, snaplen=64)]
    with any_host.capturing(*taps) as (capture, _):
        flood(any_host.net, 10_000)
        whole, short = capture.stop(60)
    for captured in (whole, short):
        assert (len(captured.frames) + captured.dropped, captured.error) == (10_000, "")
        assert captured.dropped < 1_000
        found = numbers(captured.frames)
        assert len(set(found)) == len(found)
    assert {f.direction == "out" for f in whole.frames if f.data[15] % 2 == 0} == {True}
    assert {f.direction == "out" for f in whole.frames if f.data[15] % 2} == {False}
    assert {(len(f.data), f.length) for f in short.frames} == {(64, 100)}


def test_what_does_not_fit_is_counted(host: Host) -> None:
    """Nobody takes what the host sends: its buffers fill up, and the count of the rest is exact."""
    tap = Tap("eth0", expression=EXPRESSION)
    with host.capturing(tap, buffer=64) as (taps, pipes):
        pipes.flows.clear()
        flood(host.net, 20_000, pause=0)
        pipes.flows.set()
        (captured,) = taps.stop(60)
    assert captured.error == ""
    assert captured.dropped > 0
    assert len(captured.frames) + captured.dropped == 20_000


def test_taps_that_cannot_capture_say_why_and_the_others_go_on(any_host: Host) -> None:
    """In tcpdump's words, and of a container by its name."""
    dead = any_host.place / "vxlab" / "machines" / "c2"
    dead.write_text(f"{any_host.net.pid('b')} 1\n")  # a stranger has its PID by now
    good = Tap("eth0", expression=EXPRESSION)
    bad = [Tap("eth7"), Tap("eth0", expression="nonsense"), Tap("eth0", "c1"), Tap("eth0", "c2")]
    with any_host.capturing(good, *bad) as (taps, _):
        assert [taps.ended(i) for i in range(5)] == [False, True, True, True, True]
        send(any_host.net, "a", [experiment(1)])
        assert [number for number, _ in seen(taps, 1)] == [0]
        errors = [captured.error for captured in taps.stop()]
    assert errors[0] == ""
    assert errors[1].startswith("eth7: No such device exists")
    assert "syntax error" in errors[2] or "unknown host" in errors[2]
    assert errors[3:] == ["c1 does not run", "c2 does not run"]


def test_a_container_is_entered_by_its_record(host: Host, cable: Net) -> None:
    """The same packet leaves at one end of the cable and comes in at the other."""
    record = host.place / "vxlab" / "machines" / "c1"
    record.write_text(f"{cable.pid('b')} {process_start(cable.pid('b'))}\n")
    taps = [Tap("eth0", expression=EXPRESSION), Tap("eth0", "c1", EXPRESSION)]
    with host.capturing(*taps) as (capture, _):
        send(cable, "a", [experiment(1)])
        left, came = capture.stop()
    assert [frame.direction for frame in (*left.frames, *came.frames)] == ["out", "in"]
    assert left.frames[0].data == came.frames[0].data


@pytest.mark.parametrize("how", ["input", "both ends", "SIGHUP", "SIGTERM", "while it starts"])
def test_nothing_is_left(any_host: Host, how: str) -> None:
    """However the connection ends, whatever passes meanwhile: no process and no file."""
    pipes = any_host.start([Tap("eth0", expression=EXPRESSION), Tap("eth7"), Tap("lo")])
    if how != "while it starts":
        wait_for(lambda: len(any_host.tcpdumps()) == 8, "the tcpdumps")
        flood(any_host.net, 1000)
        assert any_host.left()
    if how.startswith("SIG"):
        os.kill(pipes.process.pid, getattr(signal, how))
    elif how == "both ends":
        pipes.out.close()
        pipes.stderr.close()
        pipes.end_input()
    else:
        pipes.end_input()
    if not pipes.out.closed:
        while pipes.out.read(1 << 16):
            pass
    pipes.process.wait(20)
    pipes.stdin.close()
    pipes.out.close()
    pipes.stderr.close()
    assert any_host.left() == []


def test_one_tcpdump_that_was_killed_is_told(host: Host) -> None:
    """What it lost nobody knows; the other tap is whole."""
    with host.capturing(Tap("eth0", snaplen=64), Tap("lo", snaplen=64)) as (taps, _):
        first = min(host.tcpdumps(), key=lambda pid: int(process_start(pid) or 0))
        tap = Path(f"/proc/{first}/cmdline").read_text().split("\0")
        os.kill(first, signal.SIGKILL)
        number = 0 if "eth0" in tap else 1
        wait_for(lambda: bool(taps.error(number)), "the word that it has ended")
        captured = taps.stop()
    assert captured[number].error == (
        "the capture did not end as it should: what it lost is not known"
    )
    assert captured[1 - number].error == ""


def test_an_interface_that_goes_away_ends_its_tap(host: Host, cable: Net) -> None:
    """It is told when it happens, in tcpdump's words; the other goes on."""
    cable.ip("a", "link add spare type veth peer name end", "link set spare up", "link set end up")
    with host.capturing(Tap("spare"), Tap("eth0", expression=EXPRESSION)) as (taps, _):
        cable.ip("a", "link del spare")
        wait_for(lambda: taps.ended(0), "the end of its tap")
        assert "interface" in taps.error(0)
        send(cable, "a", [experiment(1)])
        assert [number for number, _ in seen(taps, 1)] == [1]
        taps.stop()


def test_packets_without_ethernet_header(host: Host, cable: Net) -> None:
    """A tun device, as flannel0 of flannel's udp backend: frames begin with their IP header."""
    packet = bytes.fromhex("4500001c000140004011000000000000") + bytes(12)

    def made() -> int:
        tun = os.open("/dev/net/tun", os.O_RDWR)
        request = array.array("B", struct.pack("16sH14x", b"tun7", 0x0001 | 0x1000))
        fcntl.ioctl(tun, 0x400454CA, request)  # TUNSETIFF with IFF_TUN and IFF_NO_PI
        return tun

    tun = in_netns(cable.path("a"), made)
    try:
        cable.ip("a", "link set tun7 up")
        with host.capturing(Tap("tun7", expression="udp", l3=True)) as (taps, _):
            os.write(tun, packet)
            (captured,) = taps.stop()
    finally:
        os.close(tun)
    assert [(f.direction, f.data) for f in captured.frames] == [("in", packet)]
    assert captured.error == ""


def test_a_host_without_tcpdump_says_so(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tap's error is that there is none."""
    taps = [Tap("eth0"), Tap("lo")]
    assert BUSYBOX
    sh = shutil.which("sh")
    assert sh
    _, *rest = command(taps, BUSYBOX)
    rest[1] = rest[1].replace("PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin", "PATH=/nowhere")
    stream: Stream = Pipes([sh, *rest], host.mark)
    assert Taps(stream, taps).stop() == [Captured(error="there is no tcpdump on this host")] * 2
