"""Raw ICMP sockets, and what Linux tells about a packet beside the packet itself.

A socket belongs to the network namespace of the thread that makes it: see `vxlab.namespaces`.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Iterable

from vxlab import packet

_RCVBUF = 4 << 20  # bytes

# Kernel constants that Python's socket module lacks (include/uapi: asm-generic/socket.h, in.h,
# icmp.h).
_SO_RCVBUFFORCE = 33
_SO_TIMESTAMPNS = 35
_SOL_RAW = 255
_ICMP_FILTER = 1
_IP_MTU_DISCOVER = 10
_IP_RECVERR = 11
_PMTUDISC_DONT = 0
_PMTUDISC_PROBE = 3

_TIMESPEC = struct.Struct("@ll")
_EXTENDED_ERR = struct.Struct("@IBBBBII")  # struct sock_extended_err, linux/errqueue.h


def raw_socket(df: bool) -> socket.socket:
    """A raw ICMP socket that hears replies and errors only, with room for many of them."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    sock.setblocking(False)
    heard = (
        packet.ICMP_ECHO_REPLY,
        packet.ICMP_UNREACHABLE,
        packet.ICMP_TIME_EXCEEDED,
        packet.ICMP_PARAMETER_PROBLEM,
    )
    dropped = 0xFFFFFFFF ^ sum(1 << kind for kind in heard)
    sock.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("@I", dropped))
    # PROBE, not DO: both set the don't-fragment bit, but DO also refuses by what this host learnt
    # about the path in the last ten minutes. PROBE goes by the interface's MTU alone and leaves
    # the rest to the wire, so that a cached, outdated path MTU cannot decide the verdict.
    discover = _PMTUDISC_PROBE if df else _PMTUDISC_DONT
    sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, discover)
    sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RCVBUF)
    except PermissionError:  # root in a user namespace only: up to net.core.rmem_max
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RCVBUF)
    return sock


def received_ns(ancillary: Iterable[tuple[int, int, bytes]]) -> int:
    """When the kernel received the packet, wall clock in nanoseconds."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, ns = _TIMESPEC.unpack(data)
            return int(seconds * 1_000_000_000 + ns)
    return time.time_ns()


def refused_mtu(sock: socket.socket, message: bytes, target: tuple[str, int]) -> int | None:
    """The MTU that this host's kernel states along with "Message too long".

    It is in the socket's error queue (ip(7), IP_RECVERR).

    Args:
        sock: a socket for this question alone. IP_RECVERR stays switched on, and with it an ICMP
            error about one destination can fail the next send to another.
        message: the ICMP message that was refused before; it is sent again.
        target: its destination, as `socket.sendto` takes it.

    Returns:
        Bytes; None when this time the packet is not refused.
    """
    sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
    try:
        sock.sendto(message, target)
    except OSError as error:
        if error.errno == errno.EMSGSIZE:
            return _queued_mtu(sock)
    return None


def _queued_mtu(sock: socket.socket) -> int | None:
    _, ancillary, _, _ = sock.recvmsg(0, 256, socket.MSG_ERRQUEUE)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, _IP_RECVERR):
            return int(_EXTENDED_ERR.unpack_from(data)[5])
    return None
