"""A filter at work on a node's underlay: its packets as tcpdump prints them, as they come."""

from __future__ import annotations

import os
import select
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from vxlab.errors import MissingError
from vxlab.hostprobe import Reader
from vxlab.namespaces import CLONE_NEWNET, setns
from vxlab.nodes.local import ENVIRONMENT, LocalNode
from vxlab.nodes.remote import RemoteNode
from vxlab.sniff import Frame, Sniffer
from vxlab.trace import bpf

# The host's own tcpdump, else the one that travelled, or none.
_ON_HOST = """\
export LC_ALL=C; PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
t=$(command -v tcpdump) || t=$1; shift
[ -x "${t%% *}" ] || { echo 'there is no tcpdump on this host' >&2; exit 69; }
exec $t "$@"
"""

# The filter comes as the first line of the input, since it may be known only later.
_PRINTER = 'IFS= read -r filter || exit 0; exec "$0" "$@" -- "$filter"'

_NANOSECONDS = 0xA1B23C4D  # the format's mark (pcap-savefile(5))
_ETHERNET = 1


def flags(interface: str, count: int | None) -> list[str]:
    """tcpdump's options for a live capture; the filter follows.

    -l: each line at once, in a pipe too. -Z root: there may be no user to become instead.
    """
    words = ["-n", "-l", "-i", interface, "-Z", "root"]
    return [*words, *(["-c", str(count)] if count else [])]


def become(node: LocalNode, interface: str, expression: str, count: int | None) -> NoReturn:
    """Become tcpdump in a node's network, as root.

    Args:
        node: of a lab of this machine, whose world this process has entered.
        interface: where to capture.
        expression: the filter.
        count: packets after which it ends; None: with Ctrl-C.
    """
    program = str(bpf.tcpdump())
    # Its network is all that counts. Entering its PIDs, too, would take another process, to which
    # no signal is handed on.
    with open(f"{node.proc}/ns/net") as place:
        setns(place.fileno(), CLONE_NEWNET)
    sys.stdout.flush()
    argv = [program, *flags(interface, count), "--", expression]
    os.execve(program, argv, ENVIRONMENT)  # noqa: S606


class Printer:
    """A tcpdump that prints what it is fed, for an ordinary user.

    In the lab's world an ordinary user is root in a user namespace that has no other users.
    tcpdump, which some distributions build to become another user, does not run there. So it is
    started here, before the world is entered, and only the capture's socket is made in there.

    Args:
        count: packets after which it ends; None for no end.

    Raises:
        MissingError: there is no tcpdump.
    """

    def __init__(self, count: int | None) -> None:
        options = ["-n", "-l", "-r", "-", *(["-c", str(count)] if count else [])]
        # A session of its own: Ctrl-C is for us, and the end of its input ends it.
        self._process = subprocess.Popen(
            ["sh", "-c", _PRINTER, str(bpf.tcpdump()), *options],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=ENVIRONMENT,
            start_new_session=True,
        )
        self._left = count

    def run(self, netns: str, interface: str, expression: str, *, vlan: bool) -> tuple[int, int]:
        """Feed it what the filter matches at an interface, until Ctrl-C or its end.

        Args:
            netns: the node's network namespace.
            interface: where to capture.
            expression: the filter.
            vlan: it is about VLAN tags. The kernel keeps those beside the frame, where this
                bytecode does not look; then only tcpdump filters, which is given the whole frame.

        Returns:
            How many packets tcpdump was fed, and how many the kernel lost.

        Raises:
            UsageError: the filter does not compile.
            OperationError: one cannot capture there.
        """
        program: list[bpf.Instruction] | None = bpf.compile(expression)
        if vlan:
            program = self._left = None
        with Sniffer(netns, interface, bpf=program) as sniffer:
            captured = 0
            with suppress(KeyboardInterrupt, BrokenPipeError):
                self._write(expression.encode() + b"\n" + _file_header())
                print(f"listening on {interface}", file=sys.stderr, flush=True)
                captured = self._feed(sniffer)
            lost = sniffer.dropped
        return captured, lost

    def _feed(self, sniffer: Sniffer) -> int:
        """Hand on what comes; returns at Ctrl-C, or when tcpdump has printed enough."""
        assert self._process.stdin is not None  # noqa: S101
        poll = select.poll()
        poll.register(sniffer, select.POLLIN)
        poll.register(self._process.stdin, 0)  # tells that the other end was closed
        captured = 0
        try:
            while True:
                ready = {fd for fd, _ in poll.poll()}
                if self._process.stdin.fileno() in ready:
                    return captured
                for frame in sniffer.poll()[: self._left]:
                    self._write(_record(frame))
                    captured += 1
                    self._left = None if self._left is None else self._left - 1
        except (KeyboardInterrupt, BrokenPipeError):
            return captured

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None  # noqa: S101
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def close(self) -> None:
        """End it, after all that it was fed is printed."""
        assert self._process.stdin is not None  # noqa: S101
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


def _file_header() -> bytes:
    return struct.pack("=IHHiIII", _NANOSECONDS, 2, 4, 0, 0, bpf.SNAPLEN, _ETHERNET)


def _record(frame: Frame) -> bytes:
    seconds, rest = divmod(frame.ns, 1_000_000_000)
    return struct.pack("=IIII", seconds, rest, len(frame.data), frame.length) + frame.data


def on_host(
    node: RemoteNode,
    bundled: str,
    interface: str,
    expression: str,
    count: int | None,
) -> int:
    """Run tcpdump on a real host until Ctrl-C; its exit code.

    Args:
        node: the host.
        bundled: how the tcpdump that travelled is run there; empty if none did.
        interface: where to capture.
        expression: the filter.
        count: packets after which it ends; None: with Ctrl-C.

    Raises:
        MissingError: there is no tcpdump.
    """
    words = [*flags(interface, count), "--", expression]
    argv = ["sh", "-c", _ON_HOST, "sh", bundled, *words]
    if sys.stdin.isatty() and sys.stdout.isatty():
        code = node.connection.terminal(argv)
    else:
        code = _poured(node, argv)
    if code == MissingError.exit_code:
        raise MissingError(
            "there is no tcpdump on this host", where=node.name, hint="install tcpdump there"
        )
    return code


def _poured(node: RemoteNode, argv: Sequence[str]) -> int:
    """Both outputs as they come. The far tcpdump ends with us; our input has nothing to tell it."""
    with node.stream(argv) as stream:
        beside = threading.Thread(target=_pour, args=(stream.stderr, 2), daemon=True)
        beside.start()
        _pour(stream.stdout, 1)
        code = stream.wait()
        beside.join()
    return code


def _pour(reader: Reader, fd: int) -> None:
    while data := reader.read(1 << 16):
        while data:
            data = data[os.write(fd, data) :]
