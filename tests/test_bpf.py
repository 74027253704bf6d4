"""Filters as bytecode: libpcap compiles, vxlab reads and explains, the kernel has the last word."""

from __future__ import annotations

import array
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golden import agrees
from vxlab.errors import MissingError, OperationError, UsageError
from vxlab.trace import bpf
from vxlab.trace.bpfcode import BESIDE, Instruction, decode
from vxlab.trace.bpffields import Inside, Read, locate

needs_tcpdump = pytest.mark.skipif(
    shutil.which("tcpdump") is None, reason="BPF TESTS DID NOT RUN: there is no tcpdump"
)

TALK = "port 8472 and (ip[62:4]==0x0A2A0107 or ip[66:4]==0x0A2A0107)"

#: Filters that together use all that libpcap's code generator has.
FILTERS = [
    "",
    TALK,
    "port 8472 and (udp[42:4]==0x0A2A0107 or udp[46:4]==0x0A2A0107)",
    "vlan 7 and port 8472 and ip[62:4]==0x0A2A0107",
    "vlan and vlan 5 and arp host 10.5.1.10",
    "port 8472 and (ip6[82:4]==0x0A2A0107 or ip6[86:4]==0x0A2A0107)",
    "host 10.5.1.10 or host fd00::1",
    "net 10.5.0.0/16 and not icmp",
    "ether host 02:00:00:00:00:01 and less 100",
    "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
    "icmp[icmptype] == icmp-echo or icmp6[0] == 128",
    "tcp portrange 2379-2380 and greater 1000",
    "ether[10:2] * 3 > len - 4 and ip[0] & 0xf = 5",
    "(ip[2:2] / 7) % 3 = 1 and (ip[8] << 2 | 3) ^ 5 != ip[9] >> 1",
    "-ip[8] + 1 > ip[9] - ip[8] * ip[1] and ip[0] / ip[1] = ip[2] % ip[3]",
    "ip[0] & ip[1] = ip[2] | ip[3] and ip[4] ^ ip[5] = ip[6] << ip[7] and ip[8] >> ip[9] = 0",
    "ip6 protochain 17",
    "ether multicast",
    "geneve and tcp",
    "mpls 1000 and mpls",
    "pppoes 1 and ip",
    "sctp port 1000 or proto 50",
    "stp or decnet src 1.1",
]


def printed(flag: str, expression: str) -> list[str]:
    """What tcpdump itself prints."""
    argv = ["tcpdump", flag, "-y", "EN10MB", "--", expression]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def sentences(program: Sequence[Instruction], inside: Inside | None = None) -> str:
    lines = [f"{e.assembly.expandtabs()}\n    {e.words}" for e in bpf.explain(program, inside)]
    return "\n".join(lines) + "\n"


# --- the kernel as the judge ----------------------------------------------------------------------


@contextmanager
def attached(program: Sequence[Instruction]) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two sockets; the kernel lets through to the second one what the filter matches."""
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, receiver:
        code = array.array("B", b"".join(struct.pack("@HBBI", *line) for line in program))
        fprog = struct.pack("@HP", len(program), code.buffer_info()[0])
        receiver.setsockopt(socket.SOL_SOCKET, 26, fprog)  # SO_ATTACH_FILTER
        receiver.setblocking(False)
        yield sender, receiver


def matches(program: Sequence[Instruction], *frames: bytes) -> list[bool]:
    """Whether the kernel, which runs the program, lets each frame through."""
    found = []
    with attached(program) as (sender, receiver):
        for frame in frames:
            sender.send(frame)
            try:
                found.append(receiver.recv(1 << 18) == frame)
            except BlockingIOError:
                found.append(False)
    return found


# --- compiling ------------------------------------------------------------------------------------


@needs_tcpdump
@pytest.mark.parametrize("expression", FILTERS)
def test_both_notations_are_tcpdumps(expression: str) -> None:
    """Our assembly and our decimal lines are those that tcpdump prints, to the letter."""
    program = bpf.compile(expression)
    assert [line.rstrip() for line in bpf.assembly(program)] == [
        line.rstrip() for line in printed("-d", expression)
    ]
    assert bpf.decimal(program) == printed("-ddd", expression)


@needs_tcpdump
@pytest.mark.parametrize("expression", FILTERS)
def test_every_instruction_is_explained(expression: str) -> None:
    """No instruction that libpcap makes is unknown, and each has a sentence of its own."""
    program = bpf.compile(expression)
    for told in bpf.explain(program), bpf.explain(program, Inside()):
        assert [e.instruction for e in told] == program
        for e in told:
            assert e.words.endswith(".")
            assert "do not have" not in e.words
            assert "unimp" not in e.assembly


@needs_tcpdump
def test_snaplen_and_link_type() -> None:
    """What is kept of a match, and where a packet begins, are the caller's choice."""
    assert bpf.compile("", snaplen=96) == [(6, 0, 0, 96)]
    assert bpf.compile("ip[9]==1", "RAW")[2:4] == [(21, 0, 3, 0x40), (48, 0, 0, 9)]


@needs_tcpdump
@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("foo bar", "can't parse filter expression: syntax error"),
        ("-i lo", "can't parse filter expression: syntax error"),
        ("ip and ip6", "expression rejects all packets"),
        ("vlan 99999", "VLAN tag 99999 greater than maximum 4095"),
        ("ip\0icmp", "it contains a zero byte or is too long"),
        ("ip or " * 20_000, "it contains a zero byte or is too long"),
    ],
)
def test_what_does_not_compile(expression: str, reason: str) -> None:
    """One error, with libpcap's reason."""
    with pytest.raises(UsageError) as caught:
        bpf.compile(expression)
    assert (caught.value.message, caught.value.detail) == ("the filter does not compile", reason)
    assert "pcap-filter" in caught.value.hint


def script(path: Path, text: str) -> None:
    program = path / "tcpdump"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)


def test_without_tcpdump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler is missing: exit code 69, and how to get it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(bpf, "_SYSTEM", ())
    with pytest.raises(MissingError) as caught:
        bpf.compile("ip")
    assert caught.value.message == "tcpdump is not installed; it brings the compiler of filters"
    assert "install" in caught.value.hint


def test_a_system_directory_is_looked_at_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ordinary user's PATH may lack /usr/sbin."""
    script(tmp_path, "exit 0")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(bpf, "_SYSTEM", (str(tmp_path),))
    assert bpf.tcpdump() == tmp_path / "tcpdump"


@pytest.mark.parametrize("output", ["", "2\n6 0 0 0", "1\n6 0 0", "hello", "1\n6 0 0 zero"])
def test_a_tcpdump_that_prints_no_bytecode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    """A fake, since a real one does not: whatever it prints, it is told as one error."""
    script(tmp_path, f"printf '%s' '{output}'")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OperationError, match="tcpdump printed no bytecode"):
        bpf.compile("ip")


def test_a_tcpdump_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of another machine: the kernel's words."""
    script(tmp_path, "")
    (tmp_path / "tcpdump").write_bytes(b"\x7fELF no program")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OperationError, match="cannot start tcpdump") as caught:
        bpf.compile("ip")
    assert "Exec format error" in caught.value.detail


def test_a_name_that_nobody_answers_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """libpcap waits for the DNS; vxlab does not wait for ever. A fake: it only hangs."""
    script(tmp_path, "exec sleep 600")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(bpf, "_PATIENCE", 0.05)
    with pytest.raises(UsageError) as caught:
        bpf.compile("host nosuch")
    assert caught.value.detail == "a name in it could not be looked up in time"


# --- explaining -----------------------------------------------------------------------------------


@needs_tcpdump
@pytest.mark.parametrize(
    ("name", "expression", "inside"),
    [
        ("talk", TALK, Inside()),
        ("talk-plain", TALK, None),
        ("arp-vlan", "vlan 5 and host 10.1.2.3", None),
        ("arithmetic", "ether[10:2] * 3 > len - 4 and ip[0] & 0xf = 5", None),
        ("flags", "tcp[tcpflags] & tcp-syn != 0 and dst net 10.5.0.0/16", None),
        ("chain", "ip6 protochain 17", None),
        ("vxlan-vni", "udp port 8472 and udp[8] = 8 and udp[11:4] & 0xffffff = 1", Inside()),
        ("inner6", "port 8472 and ip[58:4]==0x20010db8 and ip[74:4]==1", Inside(version=6)),
    ],
)
def test_the_sentences(name: str, expression: str, inside: Inside | None) -> None:
    """Golden: which field each load reads, what each jump asks, where it goes."""
    agrees(f"filter/explained-{name}.txt", sentences(bpf.compile(expression), inside))


def test_what_libpcap_asks_the_kernel_on_a_real_interface() -> None:
    """The tag that Linux took out of a frame, the direction: not read from the packet."""
    program = [
        (0x28, 0, 0, BESIDE + 4),
        (0x15, 0, 6, 4),
        (0x30, 0, 0, BESIDE + 48),
        (0x15, 0, 4, 1),
        (0x30, 0, 0, BESIDE + 44),
        (0x54, 0, 0, 0xFFF),
        (0x30, 0, 0, BESIDE + 36),
        (0x06, 0, 0, 1),
        (0x06, 0, 0, 0),
    ]
    told = bpf.explain(program)
    assert [e.assembly for e in told][:3:2] == ["(000) ldh      [type]", "(002) ldb      [vlanp]"]
    assert told[0].words == "Ask the kernel: the packet's direction (4: this host sends it)."
    assert told[2].words.startswith("Ask the kernel: whether the kernel took a VLAN tag out")
    assert told[6].words == "Ask the kernel: the CPU's number."


def test_a_jump_out_of_the_program_and_no_program() -> None:
    """Whatever the numbers are, there is a sentence and no exception."""
    assert bpf.explain([]) == []
    (told,) = bpf.explain([(0x15, 9, 9, 1)])
    assert told.words.endswith(
        "go to 10, outside of the program; otherwise to 10, outside of the program."
    )
    (told,) = bpf.explain([(0xFFFF, 0, 0, 1)])
    assert told.words == "An instruction that this kernel's filters do not have (0xffff)."


@given(
    st.lists(
        st.tuples(
            st.one_of(st.integers(0, 0xFF), st.integers(0, 0xFFFF)),
            st.integers(0, 255),
            st.integers(0, 255),
            st.one_of(st.integers(0, 80), st.integers(0, 0xFFFFFFFF)),
        ),
        max_size=40,
    )
)
def test_any_numbers_are_explained(program: list[Instruction]) -> None:
    """Fuzz: loops, nonsense and dead code included."""
    told = bpf.explain(program, Inside())
    assert len(told) == len(program)
    assert all(e.words.endswith(".") for e in told)


@given(st.integers(0, 0xFF), st.integers(0, 0xFFFFFFFF))
def test_what_the_kernel_accepts_has_a_name(code: int, k: int) -> None:
    """An instruction that the kernel takes is none that we call unknown."""
    program = [(0x00, 0, 0, 1), (0x02, 0, 0, k % 16), (code, 0, 0, k), (0x06, 0, 0, 0)]
    try:
        with attached(program):
            pass
    except OSError:
        return
    assert decode(program[2]).kind != "unknown"


def test_places_in_a_frame() -> None:
    """Fields and parts of fields, and what is not known to be one."""
    ip, etype = {Read(12, 2): 0x0800}, Read(12, 2)
    udp = ip | {Read(23, 1): 17}
    tunnel = udp | {Read(2, 2, 14): 8472}
    names = {
        (Read(0, 6), "destination MAC address"),
        (Read(8, 2), "source MAC address, bytes 3-4"),
    }
    assert {(r, locate(r, {}, None).name.removeprefix("Ethernet ")) for r, _ in names} == names
    assert locate(etype, {}, Inside()).name == "outer EtherType"
    assert locate(Read(30, 4), ip, None).name == "IPv4 destination address"
    assert locate(Read(26, 4), {}, None).rank == 0
    assert locate(Read(34, 2), udp, Inside()).name == "outer UDP source port"
    assert (locate(Read(34, 2), udp, None).sure, locate(Read(0, 2, 14), udp, None).sure) == (
        False,
        True,
    )
    assert locate(Read(46, 3), tunnel, Inside()).name == "VXLAN VNI"
    assert locate(Read(56, 6), tunnel, Inside()).name == "inner Ethernet source MAC address"
    assert locate(Read(76, 4), tunnel, Inside()).name == "inner IPv4 source address"
    assert locate(Read(76, 4), tunnel, Inside(4789)).rank == 0
    behind = locate(Read(20, 4, 14), {**udp, Read(2, 2, 14): 8285}, Inside(8285, "udp"))
    assert behind.name == "inner IPv4 source address"
