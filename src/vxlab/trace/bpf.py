"""Filters that the kernel runs: libpcap's own compiler, through tcpdump.

A filter is written as pcap-filter(7) says, compiled to BPF bytecode, and attached to a capture, so
that only the packets that match are copied out of the kernel. Nobody but libpcap knows its language
exactly; `tcpdump -ddd` prints what it makes of it without opening any interface, and needs no root.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from vxlab.errors import MissingError, OperationError, UsageError
from vxlab.sniff import Instruction
from vxlab.trace.bpfcode import assembly, decimal
from vxlab.trace.bpfexplain import explain

__all__ = ["SNAPLEN", "Instruction", "assembly", "compile", "decimal", "explain", "tcpdump"]

#: Bytes of a matching frame that are kept: tcpdump's default, which cuts nothing.
SNAPLEN = 262144

_SYSTEM = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # not in an ordinary user's PATH everywhere
_LONGEST = 100_000  # bytes; one argument of a program may have 128 KiB (execve(2))
_PATIENCE = 20.0  # seconds; a name in a filter is looked up in the DNS


def tcpdump() -> Path:
    """This machine's tcpdump, which brings libpcap's compiler.

    Raises:
        MissingError: there is none.
    """
    from vxlab.binaries.programs import which
    from vxlab.preflight import install_line

    found = which("tcpdump")
    for directory in _SYSTEM:
        path = Path(directory, "tcpdump")
        if found is None and os.access(path, os.X_OK):
            found = path
    if found is None:
        raise MissingError(
            "tcpdump is not installed; it brings the compiler of filters",
            hint=install_line("tcpdump", "tcpdump"),
        )
    return found


def compile(expression: str, linktype: str = "EN10MB", snaplen: int = SNAPLEN) -> list[Instruction]:
    """The bytecode that decides in the kernel which packets a capture gets.

    It is made for packets as they are on the wire. Linux takes the VLAN tag out of a packet before
    a capture sees it: on an interface that receives tags, a filter with ``vlan`` matches nothing
    when it was compiled here (tcpdump itself asks the kernel for the tag instead).

    Args:
        expression: the filter, such as ``udp port 8472``; an empty one matches everything.
        linktype: what packets begin with, by libpcap's name: EN10MB for Ethernet, RAW for IP.
        snaplen: bytes of a matching packet that are kept.

    Returns:
        Instructions for `vxlab.sniff.Sniffer`, each (code, jump if true, jump if false, operand).

    Raises:
        UsageError: the filter does not compile; carries libpcap's reason.
        MissingError: there is no tcpdump.
    """
    if "\0" in expression or len(os.fsencode(expression)) > _LONGEST:
        raise _wrong("it contains a zero byte or is too long")
    program = tcpdump()
    # The option's end keeps a filter that begins with a hyphen from being an option.
    argv = [str(program), "-ddd", "-y", linktype, "-s", str(snaplen), "--", expression]
    environment = {"PATH": os.defpath, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _wrong("a name in it could not be looked up in time") from None
    except OSError as error:
        raise OperationError(
            "cannot start tcpdump", where=str(program), detail=str(error)
        ) from None
    if done.returncode != 0:
        raise _wrong(done.stderr.strip().removeprefix("tcpdump: "))
    try:
        return _read(done.stdout)
    except ValueError:
        said = (done.stdout + done.stderr)[-500:].strip()
        raise OperationError(
            "tcpdump printed no bytecode", where=" ".join(argv), detail=said
        ) from None


def _read(output: str) -> list[Instruction]:
    """What ``-ddd`` prints: the number of instructions, then one a line, in decimal."""
    count, *lines = output.split("\n")
    found: list[Instruction] = []
    for line in filter(None, lines):
        code, jt, jf, k = map(int, line.split())
        found.append((code, jt, jf, k))
    if len(found) != int(count):
        raise ValueError(count)
    return found


def _wrong(reason: str) -> UsageError:
    return UsageError(
        "the filter does not compile",
        where="filter",
        detail=reason,
        hint="filters are written as `man pcap-filter` says, such as 'udp port 8472'",
    )
