"""What a host's busybox, kernel and tcpdump print is read right, also when it was cut off."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vxlab import hostprobe
from vxlab.errors import MissingError
from vxlab.hostprobe import Captured, PcapReader, Question, Tap, Taps
from vxlab.hostprobe.taps import command
from vxlab.probe import Echo, Edge, EdgeState, Endpoint
from vxlab.sniff import Frame

DST = "10.5.2.10"
TARGETS = {"c1": [DST]}
REPLY = f"64 bytes from {DST}: seq=0 ttl=62 time=0.123 ms"
SENT = f"PING {DST} ({DST}): 56 data bytes"
TRACE = f"traceroute to {DST} ({DST}), 30 hops max, 84 byte packets"
SILENCE = "no answer within 2 s"

# --- pings ----------------------------------------------------------------------------------------


def ping(said: str) -> Echo:
    """What is made of one answer's line."""
    return hostprobe.read_pings(f"@@ ping c1 {DST} {said}\n", TARGETS)["c1", DST]


def refused(words: str, router: str = "", mtu: int | None = None) -> Echo:
    return Echo(False, error=words, router=router, mtu=mtu)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (f"{SENT} {REPLY} --- ping statistics ---", Echo(True, 123.0, 62)),
        (f"{SENT} 64 bytes from 10.5.2.11: seq=0 ttl=62 time=0.1 ms", refused(SILENCE)),
        (f"{SENT} --- 1 packets transmitted, 0 packets received", refused(SILENCE)),
        (
            f"{SENT} ping: sendto: Network is unreachable",
            Echo(False, error="Network is unreachable", errno=101),
        ),
        (
            f"{SENT} ping: sendto: No buffer space available",
            Echo(False, error="No buffer space available", errno=105, measured=False),
        ),
        (
            f"{TRACE} 30 10.5.1.1 0.007 ms !N {SENT}",
            refused("Destination Net Unreachable, says 10.5.1.1", "10.5.1.1"),
        ),
        (
            f"{TRACE} 30 10.5.1.1 0.007 ms !H {SENT}",
            refused("Destination Host Unreachable, says 10.5.1.1", "10.5.1.1"),
        ),
        (
            f"{TRACE} 30 10.5.1.1 0.007 ms !F-1400 {SENT}",
            refused("Frag needed and DF set, mtu=1400, says 10.5.1.1", "10.5.1.1", 1400),
        ),
        (
            f"{TRACE} 30 10.5.1.1 0.007 ms !<9> {SENT}",
            refused("Destination Unreachable, !<9>, says 10.5.1.1", "10.5.1.1"),
        ),
        (
            f"{TRACE} 30 10.5.1.1 0.007 ms {SENT}",
            refused("Time to live exceeded, says 10.5.1.1", "10.5.1.1"),
        ),
        (f"{TRACE} 30 {DST} 0.007 ms {SENT}", refused(SILENCE)),
        (f"{TRACE} 30 {DST} 0.007 ms {SENT} {REPLY}", Echo(True, 123.0, 62)),
        (f"{TRACE} 30 * {SENT}", refused(SILENCE)),
    ],
)
def test_what_busybox_prints(said: str, wanted: Echo) -> None:
    """A reply counts from the very address that was asked; refusals keep their speaker's words."""
    assert ping(said) == wanted


def test_what_was_not_tried_is_not_measured() -> None:
    """No line of its own: neither good nor bad; what the host said instead is told."""
    echoes = hostprobe.read_pings("sh: nsenter: not found\n", TARGETS)
    error = "not tried: sh: nsenter: not found"
    assert echoes == {("c1", DST): Echo(False, error=error, measured=False)}


def test_a_container_that_is_gone_is_bad() -> None:
    """Its record names no living process: it reaches nobody, and that is known."""
    assert hostprobe.read_pings("@@ gone c1\n", TARGETS) == {
        ("c1", DST): Echo(False, error="c1 does not run")
    }


@given(st.integers(0, 1000))
def test_a_cut_line_says_nothing(length: int) -> None:
    """Wherever the output ends, a pair has its own result or was not measured."""
    output = f"@@ ping c1 {DST} {SENT} {REPLY}\n@@ ping c1 10.5.1.1 {SENT} --- none\n"
    targets = {"c1": [DST, "10.5.1.1"]}
    whole = hostprobe.read_pings(output, targets)
    for pair, echo in hostprobe.read_pings(output[:length], targets).items():
        assert echo == whole[pair] or not echo.measured


def test_names_and_addresses_are_quoted() -> None:
    """A shell's special characters stay one word in the program."""
    program = hostprobe.pings("/a b/busybox", {"c1; true": ["$(true)"]})
    checked = subprocess.run(["sh", "-n"], input=program, text=True, check=False)
    assert checked.returncode == 0
    assert "'c1; true'" in program
    assert "'$(true)'" in program
    assert "B='/a b/busybox'" in program


# --- edges ----------------------------------------------------------------------------------------

QUESTION = Question("c1", DST, 1450)
EDGE = Edge(Endpoint("n1/c1", "10.5.1.10", ""), DST, 1450)
LINKS = (
    f"@@ links c1 {DST} 0 1: lo: <LOOPBACK,UP> mtu 65536 qdisc noqueue "
    "2: vethNS@if3: <BROADCAST,UP> mtu 1450 qdisc noqueue\n"
)
ROUTE = f"{DST} via 10.5.1.1 dev vethNS src 10.5.1.10"
FULL = f"1430 bytes from {DST}: seq=0 ttl=62 time=0.1 ms"


def row(size: int, counted: str, said: str, route: str = ROUTE) -> str:
    return f"@@ edge c1 {DST} {size} {counted} {route} | {said}\n"


DONE = f"@@ done c1 {DST}\n"
PASSES = row(1450, "0 0 0", FULL)
CUT = row(1451, "0 2 2", f"{TRACE} 30 {DST} 0.004 ms")


def verdict(*rows: str, links: str = LINKS) -> tuple[EdgeState, str, int | None, str]:
    (result,) = hostprobe.read_edges(links + "".join(rows) + DONE, [(QUESTION, EDGE)])
    return result.state, result.reason, result.stated_mtu, result.stated_by


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ((PASSES, CUT, PASSES), (EdgeState.PASSED, "", 1450, "")),
        (
            (PASSES, row(1451, "0 0 0", f"{TRACE} 30 10.5.1.1 0.007 ms !F-1450"), PASSES),
            (EdgeState.PASSED, "", 1450, "10.5.1.1"),
        ),
        (
            (PASSES, row(1451, "0 0 0", f"{TRACE} 30 {DST} 0.007 ms"), PASSES),
            (EdgeState.FAILED, "1451 bytes pass too", None, ""),
        ),
        (
            (PASSES, row(1451, "0 0 0", f"{TRACE} 30 * {TRACE} 30 *"), PASSES),
            (
                EdgeState.FAILED,
                "1451 bytes vanish without a word: a path MTU black hole",
                None,
                "",
            ),
        ),
        (
            (row(1450, "0 0 0", f"{TRACE} 30 10.5.1.1 0.007 ms !F-1400"),),
            (
                EdgeState.FAILED,
                "1450 bytes: Frag needed and DF set, mtu=1400, says 10.5.1.1",
                1400,
                "10.5.1.1",
            ),
        ),
        (
            (row(1450, "0 0 4", FULL, f"{ROUTE} cache expires 9sec mtu 1400"), CUT, PASSES),
            (EdgeState.FAILED, "1450 bytes: Frag needed and DF set, mtu=1400", 1400, ""),
        ),
    ],
    ids=["own kernel", "router", "no edge", "black hole", "smaller", "smaller and remembered"],
)
def test_the_kernels_counter_tells_what_did_not_fit(
    rows: Sequence[str], wanted: tuple[EdgeState, str, int | None, str]
) -> None:
    """Answered and not cut: it went whole. Cut: it does not fit. Else a router has to say so."""
    assert verdict(*rows) == wanted


def test_a_small_interface_is_named() -> None:
    """The MTU is the interface's that the packet leaves by."""
    links = LINKS.replace("1450", "1400")
    words = "1450 bytes: the kernel cuts 1450 bytes into 2 pieces: vethNS's MTU is 1400"
    cut = row(1450, "0 2 2", FULL)
    assert verdict(cut, CUT, cut, links=links) == (EdgeState.FAILED, words, 1400, "")


@pytest.mark.parametrize(
    ("rows", "links", "why"),
    [
        ((), "", "did not finish"),
        ((), LINKS, "did not finish"),
        ((PASSES, CUT, PASSES), LINKS.replace(f"{DST} 0", f"{DST} 1"), "ip_no_pmtu_disc is 1"),
        ((PASSES, CUT, row(1450, "- - -", FULL)), LINKS, "cannot be read"),
        ((row(1450, "0 0 0", FULL, f"{ROUTE} mtu lock 1450"), CUT, PASSES), LINKS, "locked"),
        (
            (row(1450, "0 2 2", FULL, f"{ROUTE} cache expires 9sec mtu 1400"), CUT, PASSES),
            LINKS,
            "remembers a path MTU of 1400",
        ),
        ((), "@@ gone c1\n", "c1 does not run"),
        ((row(1450, "0 0 0", "30 *"),), LINKS, "the first packet of 1450 bytes did not come"),
        ((PASSES, CUT, row(1450, "0 0 0", "30 *")), LINKS, "the last packet of 1450 bytes"),
        ((row(1450, "0 0 0", FULL.replace("1430", "64")), CUT, PASSES), LINKS, "no answer"),
    ],
)
def test_what_proves_nothing_is_not_measured(rows: Sequence[str], links: str, why: str) -> None:
    """No verdict without positive evidence for the MTU itself, and always a reason."""
    state, reason, _, _ = verdict(*rows, links=links)
    assert state is EdgeState.NOT_MEASURED
    assert why in reason


@given(st.integers(0, 2000))
def test_a_cut_output_gives_no_wrong_verdict(length: int) -> None:
    """Wherever it ends: the whole output's verdict, or none."""
    output = LINKS + PASSES + CUT + PASSES + DONE
    (result,) = hostprobe.read_edges(output[:length], [(QUESTION, EDGE)])
    whole = EdgeState.PASSED if length >= len(output) else EdgeState.NOT_MEASURED
    assert result.state is whole


@given(st.text())
def test_any_output_is_read(text: str) -> None:
    """Whatever a host prints, and whatever comes with the marks: nothing is raised."""
    for output in (text, f"@@ edge c1 {DST} {text}\n", f"{LINKS}{PASSES}{CUT}{text}\n{DONE}"):
        hostprobe.read_edges(output, [(QUESTION, EDGE)])
        hostprobe.read_pings(output, TARGETS)
    hostprobe.read_pings(f"@@ ping c1 {DST} {text}\n", TARGETS)


# --- captures -------------------------------------------------------------------------------------


def pcap(
    frames: Sequence[bytes], order: str = "<", magic: int = 0xA1B2C3D4, link: int = 1
) -> bytes:
    """A capture file; the frames are a second and 5 units after each other."""
    data = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 262144, link)
    for i, frame in enumerate(frames, 1):
        data += struct.pack(f"{order}IIII", i, 5, len(frame), len(frame) + 7) + frame
    return data


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("magic", "unit"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1)])
def test_both_byte_orders_and_time_units(order: str, magic: int, unit: int) -> None:
    """A capture as any machine writes it."""
    frames = PcapReader().feed(pcap([b"abc", b""], order, magic))
    assert frames == [
        Frame(1_000_000_000 + 5 * unit, "out", b"abc", 10),
        Frame(2_000_000_000 + 5 * unit, "out", b"", 7),
    ]


@given(st.lists(st.binary(max_size=40), max_size=5), st.lists(st.integers(1, 60), max_size=20))
def test_a_capture_comes_in_any_pieces(frames: list[bytes], sizes: list[int]) -> None:
    """Every frame once, as soon as it is complete."""
    data, reader, seen = pcap(frames), PcapReader(), []
    for size in sizes:
        seen += reader.feed(data[:size])
        data = data[size:]
    seen += reader.feed(data)
    assert [frame.data for frame in seen] == frames


@given(st.binary(min_size=24, max_size=200))
def test_what_is_no_capture_is_refused_or_read(data: bytes) -> None:
    """Garbage is an error of one kind, never a frame of nonsense."""
    try:
        frames = PcapReader().feed(data)
    except ValueError:
        return
    assert all(len(frame.data) <= len(data) for frame in frames)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"Permission denied, please log in", "no capture: it begins with 5065726d"),
        (pcap([], link=276), "link type 276 is not Ethernet's"),
        (pcap([]) + struct.pack("<IIII", 0, 0, 1 << 20, 9), "a frame of 1048576 bytes"),
    ],
)
def test_a_stream_that_is_no_capture_says_what_it_is(data: bytes, why: str) -> None:
    """Another link type, a damaged record, or a message in the capture's place."""
    with pytest.raises(ValueError, match=why):
        PcapReader().feed(data)


class Pipes:
    """A process in a channel's place."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        self.stdin, self.stdout, self.stderr = process.stdin, process.stdout, process.stderr

    def end_input(self) -> None:
        self.stdin.close()

    def close(self) -> None:
        """The process's own end closes all."""


def captured(argv: Sequence[str], path: str, tap: Tap) -> list[Captured]:
    """What a capture brings whose programs are found on `path` only."""
    with subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env={"PATH": path},
    ) as process:
        capture = Taps(Pipes(process), [tap])
        assert capture.ready(20)
        return capture.stop(20)


TCPDUMP, BUSYBOX, UNSHARE = map(shutil.which, ("tcpdump", "busybox", "unshare"))


@pytest.mark.kernel
@pytest.mark.skipif(bool(os.geteuid()), reason="tcpdump on a host is started by real root")
@pytest.mark.skipif(not (TCPDUMP and BUSYBOX and UNSHARE), reason="tcpdump, busybox or unshare")
def test_a_tcpdump_that_travelled_runs_where_there_is_none(tmp_path: Path) -> None:
    """With its own loader and libraries, in one directory; found nowhere on the PATH."""
    assert TCPDUMP
    assert BUSYBOX
    assert UNSHARE
    there = tmp_path / "there"
    there.mkdir()
    files = hostprobe.bundle(Path(TCPDUMP))
    for file in files:
        shutil.copy(file, there / file.name)
    start = hostprobe.bundled([file.name for file in files], str(there))
    inside = f'{BUSYBOX} ip link set lo up; exec "$@"'
    argv = [UNSHARE, "--net", "/bin/sh", "-c", inside, "sh"]
    tap = Tap("lo", expression="udp")
    sh, *rest = command([tap], BUSYBOX, start)
    assert captured([*argv, f"/bin/{sh}", *rest], str(tmp_path), tap) == [Captured()]


def test_a_bundle_is_the_program_its_libraries_and_the_loader(tmp_path: Path) -> None:
    """All are there, each name once; the loader is what the command line begins with."""
    files = hostprobe.bundle(Path(shutil.which("sh") or "/bin/sh").resolve())
    assert [file.exists() for file in files] == [True] * len(files)
    names = [file.name for file in files]
    assert len(set(names)) == len(names)
    assert hostprobe.bundled(["tcpdump", "libc.so.6", "ld-linux-x86-64.so.2"], "/d") == [
        "/d/ld-linux-x86-64.so.2",
        "--inhibit-cache",
        "--library-path",
        "/d",
        "/d/tcpdump",
    ]
    assert hostprobe.bundled(["tcpdump"], "/d") == ["/d/tcpdump"]


def test_a_program_that_is_none_is_told(tmp_path: Path) -> None:
    """ldd's own words; a missing file is no bundle."""
    with pytest.raises(MissingError) as caught:
        hostprobe.bundle(tmp_path / "nothing")
    assert "No such file" in caught.value.detail
