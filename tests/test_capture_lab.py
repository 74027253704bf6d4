"""``vxlab capture`` on a real lab: lines, files, filters, what is lost, and every wrong word."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from lablib import LAB, Home, cleaned, one_error
from test_capture_filter import needs_tcpdump
from test_packet import as_tshark, tshark
from test_pcapng import blocks, layers, needs_tshark, options
from vxlab import labfile
from vxlab.packet import decode
from vxlab.trace.hops import every

pytestmark = LAB

HOPS = [hop.name for hop in every(labfile.default())]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """The talk's lab, up; no test changes it for good."""
    home = Home(tmp_path_factory.mktemp("capture") / "home")
    home.ok("up")
    yield home
    cleaned(home)


@pytest.fixture(scope="module")
def address(home: Home) -> str:
    """The second container's address."""
    rows = home.json("status")["nodes"]
    found: str = rows[1]["containers"][0]["address"].partition("/")[0]
    return found


class Running:
    """A capture that runs: it has said so."""

    def __init__(self, home: Home, *words: str, stdout: int = subprocess.PIPE) -> None:
        self.process = subprocess.Popen(
            [*home.command, "capture", *words],
            env=home.environment,
            stdout=stdout,
            stderr=subprocess.PIPE,
        )
        assert self.process.stderr is not None
        self.begun = self.process.stderr.readline().decode()
        if not self.begun.startswith("capturing at"):
            self.begun += self.ended()[1]
            raise AssertionError(self.begun)

    def ended(self, *, interrupt: bool = False) -> tuple[bytes, str]:
        """Both outputs, once it has ended."""
        if interrupt:
            self.process.send_signal(signal.SIGINT)
        try:
            out, err = self.process.communicate(timeout=60)
        except BaseException:
            self.process.kill()
            self.process.communicate()
            raise
        return out or b"", err.decode()


def ping(home: Home, address: str, count: int = 1) -> None:
    home.ok("exec", "container01", "--", "ping", "-c", str(count), "-i", "0.01", address)


def hop_of(line: str) -> str:
    return line.split()[1]


def sums(said: str) -> dict[str, int]:
    """What the summary tells of each hop."""
    return {m[1]: int(m[2]) for m in re.finditer(r"^  (\S+) +(\d+)", said, re.MULTILINE)}


@needs_tcpdump
def test_a_ping_is_seen_at_every_hop_in_order(home: Home, address: str) -> None:
    """There and back: ten hops each, encapsulated on the underlay alone; then the summary."""
    capture = Running(home, "all", "icmp")
    ping(home, address)
    out, said = capture.ended(interrupt=True)
    lines = out.decode().splitlines()
    heads = [line for line in lines if not line.startswith(" ")]
    requests = [hop_of(line) for line, after in zip(lines, [*lines[1:], ""], strict=True)
                if "echo request" in line + after and not line.startswith(" ")
                and "echo reply" not in line]  # fmt: skip
    assert Counter(map(hop_of, heads)) == dict.fromkeys(HOPS, 2)
    assert requests[:10] == [
        "node01/container01:vethNS",
        "node01:vethlocal",
        "node01:cbr0",
        "node01:flannel.1",
        "node01:eth0",
        "node02:eth0",
        "node02:flannel.1",
        "node02:cbr0",
        "node02:vethlocal",
        "node02/container02:vethNS",
    ]
    opened = [lines[i - 1] for i, line in enumerate(lines) if "└" in line]
    assert {hop_of(line) for line in opened} == {"node01:eth0", "node02:eth0"}
    assert all("VXLAN VNI 1" in line for line in opened)
    assert said.startswith("20 packets at 10 hops, none dropped\n")
    assert sums(said) == dict.fromkeys(HOPS, 2)
    assert capture.process.returncode == 0


@needs_tcpdump
def test_a_filter_names_containers_and_nodes(home: Home, address: str) -> None:
    """Whichever way it is given; the other node's other packets are left out."""
    wanted = "icmp and src host container02"
    for words in (
        ("container01", "node01", *wanted.split()),
        ("container01", "node01", wanted),
        ("-f", wanted, "container01", "node01"),
        ("container01", "node01", "--", *wanted.split()),
    ):
        capture = Running(home, *words)
        ping(home, address)
        out, said = capture.ended(interrupt=True)
        assert out.decode().count("echo reply") == 2
        assert "echo request" not in out.decode()
        assert sums(said) == {"node01/container01:vethNS": 1, "node01:eth0": 1}
    capture = Running(home, "node01", "-f", "udp and dst host node02")
    ping(home, address)
    assert sums(capture.ended(interrupt=True)[1]) == {"node01:eth0": 1}


@needs_tcpdump
def test_with_outer_the_filter_is_not_asked_about_what_is_inside(home: Home, address: str) -> None:
    """On the underlay there is UDP then, and no ICMP."""
    capture = Running(home, "all", "--outer", "icmp")
    ping(home, address)
    found = sums(capture.ended(interrupt=True)[1])
    assert {hop for hop, count in found.items() if not count} == {"node01:eth0", "node02:eth0"}


@needs_tcpdump
def test_it_ends_after_so_many_packets_or_seconds(home: Home, address: str) -> None:
    """The first N of all hops in order; with --seconds, whatever came."""
    capture = Running(home, "all", "-c", "3", "icmp")
    ping(home, address)
    out, said = capture.ended()
    hops = [hop_of(line) for line in out.decode().splitlines() if not line.startswith(" ")]
    assert hops == ["node01/container01:vethNS", "node01:vethlocal", "node01:cbr0"]
    assert said.startswith("3 packets at 10 hops, none dropped\n")
    assert capture.process.returncode == 0
    done = home("capture", "container01", "--seconds", "0.2", "tcp")
    assert (done.returncode, done.stdout) == (0, "")
    assert "0 packets at 1 hop, none dropped" in done.stderr


def test_without_a_filter_no_tcpdump_is_needed(home: Home, address: str, tmp_path: Path) -> None:
    """It only compiles filters."""
    words = [*home.command, "capture", "container01", "-c", "2"]
    process = subprocess.Popen(
        words, env={**home.environment, "PATH": str(tmp_path)}, stdout=-1, stderr=-1
    )
    assert process.stderr is not None
    process.stderr.readline()
    ping(home, address)
    out, _ = process.communicate(timeout=60)
    assert len(out.splitlines()) == 2


@needs_tcpdump
@needs_tshark
def test_the_file_says_to_tshark_what_the_lines_say(
    home: Home, address: str, tmp_path: Path
) -> None:
    """Each packet's interface, length and every header's field; statistics at the end."""
    path = tmp_path / "talk.pcapng"
    capture = Running(home, "all", "-w", str(path), "icmp")
    ping(home, address, 3)
    out, said = capture.ended(interrupt=True)
    assert out == b""
    assert sums(said) == dict.fromkeys(HOPS, 6)
    found = blocks(path.read_bytes())
    names = [dict(options(body[8:]))[2].decode() for kind, body in found if kind == 1]
    packets = [body for kind, body in found if kind == 6]
    frames = [body[20 : 20 + int.from_bytes(body[12:16], "little")] for body in packets]
    assert (names, len(frames)) == (HOPS, 60)
    read = layers(path)
    for body, frame, theirs in zip(packets, frames, read, strict=True):
        about = theirs["frame"]
        number = int.from_bytes(body[:4], "little")
        assert about["frame.interface_id_tree"]["frame.interface_name"] == names[number]
        assert about["frame.len"] == str(len(frame))
    assert tshark(path) == [as_tshark(decode(frame)) for frame in frames]
    argv = ["tshark", "-r", str(path), "-T", "fields", "-e", "frame.time_epoch"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    stamps = done.stdout.split()
    assert stamps == sorted(stamps)
    ends = [dict(options(body[12:])) for kind, body in found if kind == 5]
    assert [int.from_bytes(each[4], "little") for each in ends] == [6] * 10
    assert [int.from_bytes(each[5], "little") for each in ends] == [0] * 10


@needs_tshark
def test_a_pipe_gets_the_file_while_it_is_written(home: Home, address: str) -> None:
    """What stands before ``| wireshark -k -i -``: the header at once, then packet by packet."""
    reading, writing = os.pipe()
    reader = subprocess.Popen(
        ["tshark", "-l", "-n", "-r", "-", "-T", "fields", "-e", "frame.interface_name", "-c", "2"],
        stdin=reading,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    os.close(reading)
    capture = Running(home, "container01", "container02", "-w", "-", stdout=writing)
    os.close(writing)
    ping(home, address)
    out, _ = reader.communicate(timeout=60)
    assert out.decode().split() == ["node01/container01:vethNS", "node02/container02:vethNS"]
    # The reader has gone: that ends the capture, without a word but of what was lost.
    assert capture.ended() == (b"", "")
    assert capture.process.returncode == 141


def test_head_gets_whole_lines(home: Home, address: str) -> None:
    """The reader goes after some; no traceback, no half of a message."""
    reading, writing = os.pipe()
    capture = Running(home, "all", stdout=writing)
    os.close(writing)
    ping(home, address, 5)
    with os.fdopen(reading) as file:
        lines = [file.readline() for _ in range(5)]
    assert all(line.endswith("\n") for line in lines)
    assert capture.ended() == (b"", "")
    assert capture.process.returncode == 141


# --- nothing is lost unnoticed -------------------------------------------------------------------

_FLOOD = """\
import socket, sys, time
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
begun = time.monotonic()
for i in range({count}):
    while (left := begun + i / {rate} - time.monotonic()) > 0:
        time.sleep(left)
    out.sendto(i.to_bytes(64), ({address!r}, 9))
"""


def flood(home: Home, address: str, count: int, rate: int) -> None:
    """UDP packets from the first container, so many per second, from a process of its own there."""
    world = f"/proc/{home.world()}/root/proc"
    node = _pid(Path(f"/proc/{home.world()}/root/run/vxlab/machines/node01"))
    there = f"{world}/{node}/root"
    container = _pid(Path(f"{there}/run/vxlab/machines/container01"))
    net = f"{there}/proc/{container}/ns/net"
    flags = [] if not os.geteuid() else ["-U", "--preserve-credentials"]
    flags = ["nsenter", *flags[1:], *([f"--user=/proc/{home.world()}/ns/user"] if flags else [])]
    program = _FLOOD.format(count=count, rate=rate, address=address)
    subprocess.run([*flags, f"--net={net}", sys.executable, "-c", program], check=True)


def _pid(record: Path) -> str:
    return record.read_text().split()[0]


@needs_tcpdump
@pytest.mark.parametrize("file", [True, False])
def test_nothing_is_lost_at_10000_packets_a_second(
    home: Home, address: str, tmp_path: Path, file: bool
) -> None:
    """All ten hops see each of 10,000 packets; in a file and as lines."""
    path = tmp_path / "x.pcapng"
    words = ["-w", str(path)] if file else []
    with (tmp_path / "out").open("wb") as out:
        capture = Running(home, "all", *words, "udp port 9", stdout=out.fileno())
        flood(home, address, 10_000, 10_000)
        _, said = capture.ended(interrupt=True)
    assert said.startswith("100000 packets at 10 hops, none dropped\n")
    assert sums(said) == dict.fromkeys(HOPS, 10_000)
    if file:
        kinds = Counter(kind for kind, _ in blocks(path.read_bytes()))
        assert kinds == {0x0A0D0D0A: 1, 1: 10, 6: 100_000, 5: 10}
    else:
        lines = (tmp_path / "out").read_text().splitlines()
        assert (len(lines), sum("└" in line for line in lines)) == (120_000, 20_000)


@needs_tcpdump
def test_what_is_lost_is_told(home: Home, address: str, tmp_path: Path) -> None:
    """A capture that is not read for a while: what its buffer did not hold is counted."""
    path = tmp_path / "x.pcapng"
    capture = Running(home, "container01", "-w", str(path), "udp port 9")
    capture.process.send_signal(signal.SIGSTOP)
    flood(home, address, 60_000, 10**9)
    capture.process.send_signal(signal.SIGCONT)
    _, said = capture.ended(interrupt=True)
    seen, lost = map(int, re.findall(r"(\d+) packets at 1 hop, (\d+) dropped", said)[0])
    assert lost > 0
    assert seen + lost == 60_000
    assert f"node01/container01:vethNS  {seen}  {lost} dropped" in said
    assert "packets were lost: they came faster than they were read" in said
    assert capture.process.returncode == 0
    (ends,) = [body for kind, body in blocks(path.read_bytes()) if kind == 5]
    found = dict(options(ends[12:]))
    assert int.from_bytes(found[4], "little") == 60_000
    assert int.from_bytes(found[5], "little") == lost


# --- what goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["nod01"], ["no node or container 'nod01'", "did you mean node01", "behind --"]),
        (["node01:flanel.1"], ["has no interface 'flanel.1'", "did you mean node01:flannel.1?"]),
        (["container01:x"], ["has no interface 'x'", "there are vethNS"]),
        (["icmp"], ["say where to capture", "such as node01"]),
        ([], ["say where to capture"]),
        (["node01", "-f", "icmp", "--", "udp"], ["there are two filters"]),
        (["node01", "-f", "icmp", "udp"], ["no node or container 'udp'"]),
        (["node01", "-w", "/no/such/place"], ["cannot write the file", "/no/such/place"]),
        (["node01", "--lab", "other"], ["no lab called 'other'"]),
    ],
)
def test_a_wrong_word_is_one_clear_error(home: Home, words: list[str], expected: list[str]) -> None:
    """What it was, and what may have been meant."""
    said = one_error(home("capture", *words), 64)
    for each in expected:
        assert each in said


@needs_tcpdump
@pytest.mark.parametrize("filter_", ["host", "(icmp", "icmp and and udp", "port nosuchservice"])
def test_a_filter_that_does_not_compile_is_one_clear_error(
    home: Home, tmp_path: Path, filter_: str
) -> None:
    """With libpcap's words; however many hops there are."""
    said = one_error(home("capture", "all", filter_), 64)
    assert "the filter does not compile" in said
    assert re.search("syntax error|can't parse|unknown", said), said


def test_a_terminal_gets_no_binary_data(home: Home) -> None:
    """-w - is for a pipe; nothing is written."""
    ours, terminal = pty.openpty()
    done = subprocess.run(
        [*home.command, "capture", "all", "-w", "-"],
        env=home.environment,
        stdout=terminal,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(terminal)
    assert done.returncode == 64
    assert "a terminal shows no pcapng" in done.stderr
    assert "wireshark -k -i -" in done.stderr
    assert select.select([ours], [], [], 0)[0] == [] or _read(ours) == b""
    os.close(ours)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 1000)
    except OSError:  # EIO: the other end is closed and nothing was written
        return b""


def test_an_interface_that_goes_down_and_one_that_vanishes(home: Home) -> None:
    """The first is told and goes on; when the last is gone the capture ends with an error."""
    home.sh(
        "node01", "ip link add down0 type veth peer up0; ip link set up0 up; ip link set down0 up"
    )
    capture = Running(home, "node01:down0")
    home.sh("node01", "ip link set down0 down")
    stderr = capture.process.stderr
    assert stderr is not None
    assert stderr.readline() == (
        b"node01:down0 Network is down; the capture goes on when it is up again\n"
    )
    home.sh("node01", "ip link set down0 up; ip link del down0")
    _, said = capture.ended()
    assert "node01:down0 is gone; the capture there ended\n" in said
    assert "error: all interfaces are gone" in said
    assert capture.process.returncode == 70


def test_a_node_that_is_down_is_told(tmp_path: Path) -> None:
    """What to do about it, too; the other hops' captures do not stay."""
    other = Home(tmp_path / "home")
    other.ok("up")
    other.sh("switch", "read -r p _ </run/vxlab/machines/node02; kill -9 $p")
    said = one_error(other("capture", "all"), 70)
    assert "node02 does not run" in said
    assert "run `vxlab up` to repair it" in said
    other.ok("teardown")
    cleaned(other)


def test_sigterm_ends_it_as_ctrl_c_does(home: Home) -> None:
    """For scripts: `timeout 5 vxlab capture ...`; the file is whole."""
    capture = Running(home, "all", "-w", "-")
    capture.process.terminate()
    out, said = capture.ended()
    assert Counter(kind for kind, _ in blocks(out))[5] == 10
    assert "10 hops, none dropped" in said
    assert capture.process.returncode == 0


@needs_tcpdump
def test_a_mistake_does_not_cost_an_older_file(home: Home, tmp_path: Path) -> None:
    """A wrong filter, place or interface: what was captured before is still there."""
    path = tmp_path / "old.pcapng"
    path.write_bytes(b"old")
    for words in (["all", "icmp and"], ["node01:x"], ["nod01"]):
        one_error(home("capture", "-w", str(path), *words), 64)
    assert path.read_bytes() == b"old"
    assert home("capture", "node01", "-w", str(path), "--seconds", "0.1").returncode == 0
    assert len(blocks(path.read_bytes())) >= 3


def test_a_wrong_place_is_told_before_anybody_connects_to_hosts(home: Home) -> None:
    """On real hosts there is no switch of ours; nobody has to log in to learn that."""
    place = home.lab("far")
    place.mkdir(parents=True)
    node = "{ssh: root@127.0.0.%d, interface: eth0}"
    text = f"name: far\nnodes:\n  node01: {node % 1}\n  node02: {node % 2}\n"
    (place / "lab.json").write_text(labfile.dumps(labfile.loads(text, "far.yaml")))
    for word in ("switch", "nod01"):
        said = one_error(home("capture", "--lab", "far", word), 64)
        assert f"the lab 'far' has no node or container '{word}'" in said
    (place / "lab.json").unlink()
    place.rmdir()
