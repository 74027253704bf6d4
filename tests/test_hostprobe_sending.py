"""A host's own programs send a trace's probes, and tell what became of them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from vxlab.hostprobe import sending
from vxlab.hostprobe.counting import counting, read_counting
from vxlab.hostprobe.sending import Sent
from vxlab.namespaces import in_netns
from vxlab.packet import ICMP, UDP, IPv4, Packet, Payload, decode
from vxlab.sniff import Sniffer

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(os.geteuid()), reason="programs on a host are run by real root"),
]

BUSYBOX, NSENTER = (shutil.which(name) or "" for name in ("busybox", "nsenter"))
#: An address that answers, one that nobody has, one that no route leads to.
HERE, SILENT, NOWHERE = "10.9.9.1", "10.9.9.9", "203.0.113.1"

_SETUP = """\
ip link set lo up; ip link add c0 type veth peer name c1; ip link set c0 up; ip link set c1 up
ip addr add 10.9.9.1/24 dev c0; ip neigh add 10.9.9.9 lladdr 02:00:00:00:00:09 dev c0
echo ready; exec cat
"""


class Box:
    """A network namespace in the place of a container, and the process that holds it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", _SETUP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    @property
    def netns(self) -> str:
        return f"/proc/{self.process.pid}/ns/net"

    def end(self) -> None:
        self.process.communicate()
        assert self.process.returncode == 0

    def run(self, program: str, path: str | None = None) -> str:
        """Run a program for a host here; no record says where its container is."""
        enter = f'into() {{ shift; q=$1; shift; {BUSYBOX} sh -c "$q" sh {BUSYBOX} "$@"; }}\n'
        text = enter + program[program.rindex("into c ") :]
        completed = subprocess.run(
            [NSENTER, "-t", str(self.process.pid), "--net", "/bin/sh", "-c", text],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={"PATH": os.environ["PATH"] if path is None else path},
        )
        return completed.stdout + completed.stderr


@pytest.fixture
def box() -> Iterator[Box]:
    made = Box()
    yield made
    made.end()


def pings(dst: str, count: int = 2, *, size: int = 56, df: bool = False) -> str:
    return sending.pings(
        BUSYBOX, "c", dst, count=count, pace=0.01, patience=1, size=size, fill=b"\xa7", df=df
    )


def datagrams(dst: str, port: int = 9, count: int = 2, size: int = 56) -> str:
    return sending.datagrams(
        BUSYBOX, "c", dst, port, count=count, pace=0.01, patience=1, size=size, token=b"\0%\\tok"
    )


def connections(dst: str, port: int = 9, count: int = 2) -> str:
    return sending.connections(BUSYBOX, "c", dst, port, count=count, pace=0.01, patience=1)


def passed(box: Box, program: str, interface: str) -> list[Packet]:
    """The packets that left an interface while a program ran."""
    with Sniffer(box.netns, interface) as sniffer:
        box.run(program)
        frames = []
        while batch := sniffer.poll():
            frames += batch
    return [decode(frame.data) for frame in frames if frame.direction == "out"]


def test_pings_are_answered(box: Box) -> None:
    """By number from 1, whatever the program counts from."""
    for df in (False, True):
        output = box.run(pings(HERE, df=df))
        assert sending.read_pings(output, 2, df=df) == Sent(frozenset({1, 2}), count=2), output


@pytest.mark.parametrize("df", [False, True])
def test_a_ping_is_as_it_is_said(box: Box, df: bool) -> None:
    """Sequence numbers, size, the filling at the end, and the don't-fragment bit."""
    seen = [p for p in passed(box, pings(SILENT, size=100, df=df), "c0") if p.find(ICMP)]
    first = 1 if df else 0
    assert [p.find(ICMP).seq for p in seen] == [first, first + 1]  # type: ignore[union-attr]
    for packet in seen:
        payload, ip = packet.find(Payload), packet.find(IPv4)
        assert payload is not None
        assert ip is not None
        assert (len(payload.data), payload.data[16:]) == (100, b"\xa7" * 84)
        assert ip.df


def test_silence_is_no_answer(box: Box) -> None:
    """All are sent, none is answered."""
    assert sending.read_pings(box.run(pings(SILENT)), 2, df=False) == Sent(count=2)
    assert sending.read_fates(box.run(connections(SILENT)), 2) == Sent(count=2)
    assert sending.read_fates(box.run(datagrams(SILENT)), 2) == Sent(count=2)


def test_the_kernels_refusal_is_told(box: Box) -> None:
    """In its own words; after the first one no other matters."""
    refused = Sent(refused="Network is unreachable", count=1)
    assert sending.read_pings(box.run(pings(NOWHERE)), 2, df=False) == refused
    assert sending.read_fates(box.run(connections(NOWHERE)), 2) == refused
    assert sending.read_fates(box.run(datagrams(NOWHERE)), 2) == refused


def test_what_must_not_be_cut_and_does_not_fit_is_refused(box: Box) -> None:
    """With the MTU that it would have to fit."""
    output = box.run(pings(SILENT, size=1473, df=True))
    wanted = Sent(refused="Message too long, mtu=1500", count=1)
    assert sending.read_pings(output, 2, df=True) == wanted


def test_a_closed_port_answers(box: Box) -> None:
    """With a reset, or with ICMP port unreachable."""
    both = Sent(frozenset({1, 2}), count=2)
    assert sending.read_fates(box.run(connections(HERE)), 2) == both
    assert sending.read_fates(box.run(datagrams(HERE)), 2) == both


def test_a_service_answers(box: Box) -> None:
    """What it sends is read; nothing of the connection stays."""
    both = Sent(frozenset({1, 2}), count=2)
    with in_netns(box.netns, lambda: socket.create_server((HERE, 9))) as server:
        server.settimeout(5)
        assert sending.read_fates(box.run(connections(HERE)), 2).refused == ""
        for _ in range(2):
            server.accept()[0].close()
    udp = in_netns(box.netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with udp:
        udp.bind((HERE, 9))
        udp.settimeout(5)

        def serve() -> None:
            for _ in range(2):
                data, peer = udp.recvfrom(100)
                udp.sendto(data[:8], peer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert sending.read_fates(box.run(datagrams(HERE)), 2) == both
        thread.join()


def test_a_datagram_is_one_and_begins_with_token_and_number(box: Box) -> None:
    """Also one of 1400 bytes, and with bytes that a shell would treat as something else."""
    seen = [p for p in passed(box, datagrams(SILENT, size=1400, count=300), "c0") if p.find(UDP)]
    data = [payload.data for p in seen if (payload := p.find(Payload))]
    assert {len(each) for each in data} == {1400}
    wanted = [b"\0%\\tok" + n.to_bytes(2, "big") for n in range(1, 301)]
    assert sorted(each[:8] for each in data) == wanted


def test_what_is_not_there_is_told(box: Box, tmp_path: Path) -> None:
    """A host without bash, and one whose ping is another."""
    (tmp_path / "ping").symlink_to(BUSYBOX)
    bare = str(tmp_path)
    assert sending.read_fates(box.run(datagrams(HERE), bare), 2) == Sent(lacks="bash")
    assert sending.read_pings(box.run(pings(HERE, df=True), bare), 2, df=True) == Sent(lacks="ping")


def test_counters_of_a_host(box: Box) -> None:
    """Its own, and nothing of a container whose record is not there."""
    completed = subprocess.run(
        ["nsenter", "-t", str(box.process.pid), "--net", "sh", "-c", counting(BUSYBOX, ["gone"])],
        capture_output=True,
        text=True,
        check=True,
    )
    found = read_counting(completed.stdout)
    assert list(found) == [""]
    assert found[""].links.count("c0:") == 1
    assert "\nTcpExt: " in found[""].stack
    assert found[""].rules == "" or "*" in found[""].rules
