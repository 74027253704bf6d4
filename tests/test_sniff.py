"""Capturing at interfaces inside namespaces."""

from __future__ import annotations

import select
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from networks import Net, namespaces, needs_root, overlay
from test_packet import as_tshark, ethernet, tshark, vlan, write_pcap
from vxlab.errors import OperationError
from vxlab.namespaces import in_netns
from vxlab.packet import ICMP, VXLAN, IPv4, decode
from vxlab.probe import Endpoint, ping_all
from vxlab.sniff import BATCH, Frame, Instruction, Sniffer

pytestmark = [pytest.mark.kernel, needs_root]

C1, C2, NODE1, NODE2 = "10.5.1.10", "10.5.2.10", "192.168.56.21", "192.168.56.22"

#: Compiled by hand: the frame's ethertype is 0x88b5 (one for local experiments).
ONLY_88B5: list[Instruction] = [
    (0x28, 0, 0, 12),
    (0x15, 0, 1, 0x88B5),
    (0x06, 0, 0, 262144),
    (0x06, 0, 0, 0),
]


@pytest.fixture(scope="module")
def shared() -> Iterator[Net]:
    with overlay() as net:
        yield net


@pytest.fixture(scope="module")
def cable() -> Iterator[Net]:
    """Two namespaces with a veth pair, eth0 and eth0, and no traffic of their own."""
    with namespaces("a", "b") as net:
        net.ip("a", "link add eth0 type veth peer name eth0 netns @b ", "link set eth0 up")
        net.ip("b", "link set eth0 up")
        net.ip("a", "link add spare type veth peer name end", "link set spare up")
        net.ip("a", "link set end up")
        net.settle()
        yield net


def ping(net: Net) -> None:
    """One ping from c1 to c2."""
    ends = [Endpoint("c1", C1, net.path("c1")), Endpoint("c2", C2, net.path("c2"))]
    assert ping_all(ends, [("c1", "c2")], timeout=5)["c1", "c2"].ok


def send(net: Net, name: str, frames: list[bytes]) -> None:
    """Put frames on the cable."""
    path = net.path(name)
    with in_netns(path, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)) as sock:
        sock.bind(("eth0", 0))
        for frame in frames:
            sock.send(frame)


def experiment(number: int, size: int = 60) -> bytes:
    return ethernet(number.to_bytes(2, "big") + bytes(size - 16), 0x88B5)


def echoes(frames: list[Frame]) -> list[Frame]:
    return [frame for frame in frames if decode(frame.data).find(ICMP)]


def at_least(count: int) -> Callable[[list[Frame]], bool]:
    return lambda frames: len(frames) >= count


def test_the_encapsulated_ping_is_captured_on_the_underlay(shared: Net) -> None:
    """Request and reply between the nodes: overhead, VNI, port and both addresses."""
    with Sniffer(shared.path("n1"), "eth0") as capture:
        ping(shared)
        frames = echoes(capture.read(lambda seen: len(echoes(seen)) == 2, 5))
        assert capture.dropped == 0
    assert [frame.direction for frame in frames] == ["out", "in"]
    for frame, (src, dst, inner_src, inner_dst) in zip(
        frames, [(NODE1, NODE2, C1, C2), (NODE2, NODE1, C2, C1)], strict=True
    ):
        decoded = decode(frame.data)
        assert decoded.overhead == 50
        assert decoded.vxlan == VXLAN(42, 8, 0x08, 1)
        outer, inner = decoded.outer_ip, decoded.inner
        assert isinstance(outer, IPv4)
        assert inner is not None
        inner_ip = inner.outer_ip
        assert inner_ip is not None
        assert (str(outer.src), str(outer.dst)) == (src, dst)
        assert (str(inner_ip.src), str(inner_ip.dst)) == (inner_src, inner_dst)
        assert (outer.df, outer.checksum_ok) == (False, True)
        assert frame.length == len(frame.data) == 14 + outer.total_length


def test_inside_the_container_nothing_is_encapsulated(shared: Net) -> None:
    """The same ping, seen at the container's cable."""
    with Sniffer(shared.path("c1"), "eth0") as capture:
        ping(shared)
        frames = echoes(capture.read(lambda seen: len(echoes(seen)) == 2, 5))
    assert [decode(frame.data).vxlan for frame in frames] == [None, None]


@pytest.mark.skipif(
    shutil.which("tshark") is None, reason="NOT COMPARED WITH TSHARK: it is not installed"
)
def test_tshark_reads_the_same_in_a_real_capture(shared: Net, tmp_path: Path) -> None:
    """Field by field, on what the kernel really sent."""
    with Sniffer(shared.path("n2"), "eth0") as capture:
        ping(shared)
        frames = capture.read(lambda seen: len(echoes(seen)) == 2, 5)
    path = tmp_path / "real.pcap"
    write_pcap(path, [frame.data for frame in frames])
    assert [as_tshark(decode(frame.data)) for frame in frames] == tshark(path)


@pytest.mark.skipif(
    shutil.which("tcpdump") is None, reason="NO COMPILED FILTER: tcpdump is not installed"
)
def test_the_talks_filter_runs_in_the_kernel(shared: Net) -> None:
    """tcpdump compiles it, the capture gets the packets from or to one container only."""
    hexadecimal = f"0x{int.from_bytes(socket.inet_aton(C1), 'big'):08x}"
    match = f"port 8472 and (ip[62:4]=={hexadecimal} or ip[66:4]=={hexadecimal})"
    argv = ["tcpdump", "-y", "EN10MB", "-ddd", match]
    lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split("\n")
    program: list[Instruction] = []
    for line in filter(None, lines[1:]):
        code, jt, jf, k = map(int, line.split())
        program.append((code, jt, jf, k))
    nodes = [
        Endpoint("n1", "10.5.1.1", shared.path("n1")),
        Endpoint("n2", "10.5.2.1", shared.path("n2")),
    ]
    with Sniffer(shared.path("n1"), "eth0", bpf=program) as capture:
        assert all(echo.ok for echo in ping_all(nodes, timeout=5).values())
        ping(shared)
        frames = capture.read(at_least(2), 5) + capture.poll()
    seen = [decode(frame.data).inner for frame in frames]
    addresses = [(str(p.outer_ip.src), str(p.outer_ip.dst)) for p in seen if p and p.outer_ip]
    assert addresses == [(C1, C2), (C2, C1)]


def test_a_filter_chooses_frames_and_cuts_them(cable: Net) -> None:
    """Two of three frames match; 20 bytes of each are kept, with the length they had."""
    cutting = [*ONLY_88B5[:2], (6, 0, 0, 20), ONLY_88B5[3]]
    with Sniffer(cable.path("b"), "eth0", bpf=cutting) as capture:
        send(cable, "a", [experiment(1, 100), ethernet(bytes(46), 0x88B6), experiment(2, 80)])
        frames = capture.read(at_least(2), 5)
    assert [(frame.data, frame.length) for frame in frames] == [
        (experiment(1)[:20], 100),
        (experiment(2)[:20], 80),
    ]


def test_a_vlan_tag_is_put_back(cable: Net) -> None:
    """The kernel takes tags off and keeps them beside the frame."""
    tagged = [
        ethernet(bytes(46), 0x88B5, tags=vlan(5)),
        ethernet(bytes(46), 0x88B5, tags=vlan(6, 0x88A8)),
    ]
    with Sniffer(cable.path("b"), "eth0") as capture:
        send(cable, "a", tagged)
        frames = capture.read(at_least(2), 5)
    assert [frame.data for frame in frames] == tagged
    assert [frame.length for frame in frames] == [64, 64]


def test_frames_have_the_kernels_time_and_direction(cable: Net) -> None:
    """In order, between before and after; out at one end and in at the other."""
    bpf = ONLY_88B5
    with (
        Sniffer(cable.path("a"), "eth0", bpf=bpf) as here,
        Sniffer(cable.path("b"), "eth0", bpf=bpf) as there,
    ):
        before = time.time_ns()
        send(cable, "a", [experiment(number) for number in range(5)])
        sent, received = here.read(at_least(5), 5), there.read(at_least(5), 5)
        after = time.time_ns()  # not earlier: the kernel may send after `send` has returned
    assert [frame.data for frame in sent] == [frame.data for frame in received]
    assert {frame.direction for frame in sent} == {"out"}
    assert {frame.direction for frame in received} == {"in"}
    times = [frame.ns for frame in sent]
    assert times == sorted(times)
    assert before <= times[0]
    assert times[-1] <= after


def test_what_does_not_fit_the_buffer_is_counted(cable: Net) -> None:
    """A tiny buffer: every frame is either read or reported as dropped, once."""
    with Sniffer(cable.path("b"), "eth0", bpf=ONLY_88B5, rcvbuf=1) as capture:
        for _ in range(2):
            send(cable, "a", [experiment(number) for number in range(200)])
        frames = capture.poll()
        dropped = capture.dropped
        assert capture.dropped == dropped
        send(cable, "a", [experiment(number) for number in range(200)])
        frames += capture.poll()
        assert capture.dropped > dropped > 0
        assert len(frames) + capture.dropped == 600


def test_the_usual_buffer_loses_nothing(cable: Net) -> None:
    """Thousands of frames before the first look; they come in batches and in order."""
    with Sniffer(cable.path("b"), "eth0", bpf=ONLY_88B5) as capture:
        send(cable, "a", [experiment(number) for number in range(2000)])
        frames = capture.poll()
        assert len(frames) == BATCH
        frames += capture.read(at_least(2000 - BATCH), 5)
        assert capture.dropped == 0
    assert [frame.data for frame in frames] == [experiment(number) for number in range(2000)]


def test_only_its_own_interface_and_time(cable: Net) -> None:
    """Nothing of another interface, nothing from before; an empty capture ends in time."""
    send(cable, "a", [experiment(1)])
    with Sniffer(cable.path("a"), "spare") as spare, Sniffer(cable.path("b"), "eth0") as late:
        send(cable, "a", [experiment(2)])
        frames = late.read(at_least(1), 5)
        assert spare.read(at_least(1), 0.05) == []
    assert [frame.data for frame in frames] == [experiment(2)]


def test_other_interfaces_do_not_leak_in_while_it_starts(cable: Net) -> None:
    """Traffic at eth0 all the time; captures at the other cable stay empty."""
    stop = threading.Event()

    def flood() -> None:
        while not stop.is_set():
            send(cable, "a", [experiment(1)] * 50)

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        for _ in range(100):
            with Sniffer(cable.path("a"), "spare") as spare:
                assert spare.poll() == []
    finally:
        stop.set()
        thread.join()


@pytest.mark.timeout(30)
def test_it_returns_as_soon_as_it_has_the_wanted_frames(cable: Net) -> None:
    """The timeout is only for frames that do not come."""
    with Sniffer(cable.path("b"), "eth0", bpf=ONLY_88B5) as capture:
        send(cable, "a", [experiment(1)])
        assert len(capture.read(at_least(1), 3600)) == 1


def test_time_over_returns_what_was_seen(cable: Net) -> None:
    """The caller wanted two and gets one."""
    with Sniffer(cable.path("b"), "eth0", bpf=ONLY_88B5) as capture:
        send(cable, "a", [experiment(1)])
        assert [frame.data for frame in capture.read(at_least(2), 0.05)] == [experiment(1)]


def test_several_captures_fit_one_selector(cable: Net) -> None:
    """`fileno` tells when there is something, `poll` does not wait."""
    with Sniffer(cable.path("b"), "eth0", bpf=ONLY_88B5) as capture:
        assert select.select([capture], [], [], 0)[0] == []
        assert capture.poll() == []
        send(cable, "a", [experiment(1)])
        assert select.select([capture], [], [], 5)[0] == [capture]
        assert [frame.data for frame in capture.poll()] == [experiment(1)]


@pytest.mark.parametrize(
    ("ifname", "bpf", "detail"),
    [
        ("eth7", None, "No such device"),
        ("eth0", [(0xFFFF, 0, 0, 0)], "Invalid argument"),
        ("eth0", [], "Invalid argument"),
    ],
)
def test_a_capture_that_cannot_start_says_why(
    cable: Net, ifname: str, bpf: list[Instruction] | None, detail: str
) -> None:
    """No such interface, or a filter that the kernel does not take."""
    with pytest.raises(OperationError) as caught:
        Sniffer(cable.path("a"), ifname, bpf=bpf)
    assert caught.value.message == f"cannot capture at {ifname}"
    assert caught.value.where == f"{cable.path('a')} · {ifname}"
    assert caught.value.detail == detail


def test_a_namespace_that_is_gone_is_reported() -> None:
    """With what to do about it."""
    with pytest.raises(OperationError) as caught:
        Sniffer("/proc/0/ns/net", "eth0")
    assert caught.value.detail == "No such file or directory"
    assert caught.value.hint == "the namespace is gone; is the lab up?"


def test_an_interface_that_goes_down_ends_the_capture() -> None:
    """An error, instead of a silence that looks like no traffic."""
    with namespaces("a") as net:
        net.ip("a", "link add eth0 type veth peer name eth1", "link set eth0 up")
        with Sniffer(net.path("a"), "eth0") as capture:
            net.ip("a", "link set eth0 down")
            with pytest.raises(OperationError) as caught:
                capture.read(at_least(1), 5)
    assert caught.value.message == "the capture ended at eth0"
    assert caught.value.detail == "Network is down"
