"""What passes an interface of a node or a container: a capture that loses nothing unnoticed.

An AF_PACKET socket made inside the namespace, with a filter that runs in the kernel, the kernel's
own time stamps, and the kernel's count of what did not fit the buffer.

A caveat about checksums: between veth ends the kernel leaves TCP and UDP checksums to hardware that
does not exist (checksum offload). In a capture they look wrong and are not; segments may also be
longer than the MTU, for the same reason (TSO). The IPv4 header's checksum is always real.
"""

from __future__ import annotations

import array
import errno
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Protocol

from vxlab.errors import OperationError
from vxlab.namespaces import in_netns

Direction = Literal["in", "out"]

#: One BPF instruction: code, jump if true, jump if false, operand (struct sock_filter).
Instruction = tuple[int, int, int, int]

# Kernel constants that Python's socket module lacks (include/uapi: asm-generic/socket.h,
# linux/if_packet.h, linux/if_ether.h).
_SO_ATTACH_FILTER = 26
_SO_RCVBUFFORCE = 33
_SO_TIMESTAMPNS = 35
_SOL_PACKET = 263
_PACKET_STATISTICS = 6
_PACKET_AUXDATA = 8
_ETH_P_ALL = 0x0003
_TP_STATUS_VLAN_VALID = 0x10

_TIMESPEC = struct.Struct("@ll")
_AUXDATA = struct.Struct("@IIIHHHH")  # struct tpacket_auxdata
_STATISTICS = struct.Struct("@II")  # struct tpacket_stats
_INSTRUCTION = struct.Struct("@HBBI")
_PROGRAM = struct.Struct("@HP")  # struct sock_fprog

_LARGEST_FRAME = 1 << 18  # bytes; a segment that is still to be cut up can exceed 64 KiB
BATCH = 64  # frames between two looks at the caller's condition
_VLAN_PLACE = 12  # bytes of MAC addresses in front of a VLAN tag


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as it passed an interface, from its destination MAC address on."""

    ns: int  # when the kernel saw it: nanoseconds since 1970
    direction: Direction  # "out": this host sends it through the interface
    data: bytes
    length: int  # bytes on the wire; more than len(data) when the filter cut it


class Sniffer:
    """A capture at one interface, which runs from its construction to `close`.

    Args:
        netns: the interface's network namespace, such as ``/proc/PID/ns/net``.
        ifname: the interface, such as ``flannel.1``.
        bpf: a compiled filter for Ethernet frames, as ``tcpdump -ddd`` prints it; it runs in the
            kernel, and only matching frames are copied. None for everything.
        rcvbuf: bytes of the kernel's buffer for frames that were not read yet.

    Raises:
        OperationError: no such namespace or interface, no right to capture, or a filter that the
            kernel does not accept (packet(7), socket(7)).
    """

    def __init__(
        self,
        netns: str,
        ifname: str,
        *,
        bpf: Sequence[Instruction] | None = None,
        rcvbuf: int = 16 << 20,
    ) -> None:
        self.netns = netns
        self.ifname = ifname
        self._dropped = 0
        self._buffer = bytearray(_LARGEST_FRAME)
        try:
            self._sock = in_netns(netns, lambda: _packet_socket(ifname, bpf, rcvbuf))
        except OSError as error:
            raise self._error("cannot capture", error) from error

    def __enter__(self) -> Sniffer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the capture; frames that were not read are lost."""
        self._sock.close()

    def fileno(self) -> int:
        """For a selector over several captures: readable when `poll` has something."""
        return self._sock.fileno()

    def poll(self) -> list[Frame]:
        """The frames that wait to be read, the oldest first; at most a batch, without waiting.

        Raises:
            OperationError: the interface went down, and nothing can be seen there any more.
        """
        frames: list[Frame] = []
        while len(frames) < BATCH:
            try:
                frames.append(self._next())
            except BlockingIOError:
                break
            except OSError as error:
                raise self._error("the capture ended", error) from error
        return frames

    def read(self, until: Callable[[list[Frame]], bool], timeout: float) -> list[Frame]:
        """Capture until the frames so far are the wanted ones, or time is over.

        Args:
            until: gets all frames of this call, each time that there are new ones.
            timeout: seconds.

        Returns:
            All frames of this call; the caller sees from them which of the two it was.

        Raises:
            OperationError: the interface went down.
        """
        frames: list[Frame] = []
        deadline = time.monotonic() + timeout
        poller = select.poll()
        poller.register(self._sock, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            if poller.poll(left * 1000):
                frames += self.poll()
                if frames and until(frames):
                    break
        return frames

    @property
    def dropped(self) -> int:
        """How many matching frames the capture lost so far, since its buffer was full."""
        # The kernel's counters start again at every look.
        counters = self._sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size)
        self._dropped += _STATISTICS.unpack(counters)[1]
        return self._dropped

    def _next(self) -> Frame:
        count, ancillary, _, address = self._sock.recvmsg_into([self._buffer], 128)
        direction: Direction = "out" if address[2] == socket.PACKET_OUTGOING else "in"
        data, length, ns = bytes(memoryview(self._buffer)[:count]), count, time.time_ns()
        for level, kind, value in ancillary:
            if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
                data, length = _restore(data, value)
            elif (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
                seconds, fraction = _TIMESPEC.unpack(value)
                ns = seconds * 1_000_000_000 + fraction
        return Frame(ns, direction, data, length)

    def _error(self, what: str, error: OSError) -> OperationError:
        return OperationError(
            f"{what} at {self.ifname}",
            where=f"{self.netns} · {self.ifname}",
            detail=os.strerror(error.errno) if error.errno else str(error),
            hint=_HINTS.get(error.errno or 0, ""),
        )


class Closing(Protocol):
    """What ends a capture."""

    def close(self) -> None:
        """End it."""


def close_all(captures: Sequence[Closing]) -> None:
    """End captures at the same time: the kernel waits for every CPU at each (10 ms)."""
    with ThreadPoolExecutor(max(1, len(captures))) as pool:
        list(pool.map(lambda capture: capture.close(), captures))


_HINTS = {
    errno.ENOENT: "the namespace is gone; is the lab up?",
    errno.ENODEV: "see `ip link` for the interfaces that are there",
    errno.ENETDOWN: "bring the interface up: ip link set DEV up",
    errno.EPERM: "capturing needs root, or a user namespace that owns this network namespace",
}


def _packet_socket(ifname: str, bpf: Sequence[Instruction] | None, rcvbuf: int) -> socket.socket:
    # With protocol 0 it hears nothing; it starts at the bind, when interface and filter are set.
    # Otherwise it would begin with frames of other interfaces and such as do not match.
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        sock.setblocking(False)
        sock.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        _set_rcvbuf(sock, rcvbuf)
        if bpf is not None:
            attach(sock, bpf)
        sock.bind((ifname, _ETH_P_ALL))
    except BaseException:
        sock.close()
        raise
    return sock


def _set_rcvbuf(sock: socket.socket, rcvbuf: int) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, rcvbuf)
    except PermissionError:  # root in a user namespace only: up to net.core.rmem_max
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)


def attach(sock: socket.socket, bpf: Sequence[Instruction]) -> None:
    """Have the kernel ask a program about each packet that comes to a socket (socket(7))."""
    code = array.array("B", b"".join(_INSTRUCTION.pack(*line) for line in bpf))
    # The kernel copies the program during the call; `code` lives as long.
    sock.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, _PROGRAM.pack(len(bpf), code.buffer_info()[0])
    )


def _restore(data: bytes, auxdata: bytes) -> tuple[bytes, int]:
    """A frame with the VLAN tag that the kernel keeps beside it, and its length on the wire."""
    status, length, _, _, _, tci, tpid = _AUXDATA.unpack(auxdata)
    if not status & _TP_STATUS_VLAN_VALID or len(data) < _VLAN_PLACE:
        return data, length
    tag = struct.pack("!HH", tpid, tci)
    return data[:_VLAN_PLACE] + tag + data[_VLAN_PLACE:], length + len(tag)
