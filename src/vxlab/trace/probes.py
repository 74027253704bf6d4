"""Sends a trace's probes out of a container, from sockets made in its network namespace.

ICMP echoes go over a raw socket, as `vxlab.probe` does it, UDP datagrams and TCP connections over
ordinary ones. The container itself runs nothing.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections import OrderedDict
from typing import Protocol as Typing

from vxlab import packet
from vxlab.namespaces import in_netns
from vxlab.probe import ICMP_OVERHEAD, TOKEN
from vxlab.probe.sockets import raw_socket, refused_mtu
from vxlab.trace.journey import Probe, Protocol

#: Headers in front of the data, in bytes: IPv4 and ICMP, or UDP.
OVERHEAD = ICMP_OVERHEAD
LARGEST = 65535 - OVERHEAD

# Kernel constants that Python's socket module lacks (include/uapi/linux/in.h).
_IP_MTU_DISCOVER = 10
_IP_RECVERR = 11
_IP_MTU = 14
_PMTUDISC_DONT = 0
_PMTUDISC_DO = 2
_PMTUDISC_PROBE = 3

_LONGEST_ANSWER = 1 << 16
_MOST_OPEN = 256  # sockets of one trace at the same time; the oldest is given up then
_PATTERN = bytes(range(256)) * 256  # fills a probe behind its token
_TRANSIENT = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.EINTR})


class Sender(Typing):
    """Sends probes of one kind and hears what comes back. `fileno` is for a selector."""

    def fileno(self) -> int:
        """Readable when `settled` has something."""

    def send(self, number: int) -> Probe:
        """Send the probe with a number; the kernel's refusal is in the probe."""

    def settled(self) -> dict[int, bool]:
        """Probes whose fate has become known: True for an answer, False for an error."""

    def close(self) -> None:
        """Close the sockets."""


def sender_of(
    protocol: Protocol, netns: str, src: str, dst: str, *, port: int, size: int, df: bool
) -> Sender:
    """What sends probes from a container.

    Args:
        protocol: of the probes.
        netns: the container's network namespace, such as ``/proc/PID/ns/net``.
        src: the container's address.
        dst: where to.
        port: UDP's or TCP's; not looked at for ICMP.
        size: bytes of data in a probe; TCP's have none.
        df: set the don't-fragment bit.
    """
    if protocol == "icmp":
        return _Echoes(netns, src, dst, size=size, df=df)
    kind = _Datagrams if protocol == "udp" else _Connections
    return kind(netns, src, dst, port=port, size=size, df=df)


class _Echoes:
    """ICMP echo requests on one raw socket."""

    def __init__(self, netns: str, src: str, dst: str, *, size: int, df: bool) -> None:
        self.netns, self.src, self.dst, self.size, self.df = netns, src, dst, size, df
        self.ident = int.from_bytes(os.urandom(2), "big")
        self.tokens: dict[bytes, int] = {}
        self.unbound = ""
        self.sock = in_netns(netns, lambda: raw_socket(df))
        try:
            self.sock.bind((src, 0))
        except OSError as error:
            self.unbound = f"{os.strerror(error.errno or 0)}: {src}"

    def fileno(self) -> int:
        return self.sock.fileno()

    def send(self, number: int) -> Probe:
        token, seq = os.urandom(TOKEN), number & 0xFFFF
        self.tokens[token] = number
        message = packet.echo_request(self.ident, seq, token + _PATTERN[: self.size - TOKEN])
        sent, refused = time.time_ns(), self.unbound
        if not refused:
            try:
                _patiently(self.sock, message, (self.dst, 0))
            except OSError as error:
                refused = self._words(error, message)
        return Probe(
            number, "icmp", self.src, self.dst, self.ident, seq, token, self.size, sent, refused
        )

    def _words(self, error: OSError, message: bytes) -> str:
        text = os.strerror(error.errno or 0)
        if error.errno != errno.EMSGSIZE:
            return text
        with in_netns(self.netns, lambda: raw_socket(self.df)) as sock:
            mtu = refused_mtu(sock, message, (self.dst, 0))
        return f"{text}, mtu={mtu}" if mtu is not None else text

    def settled(self) -> dict[int, bool]:
        fates: dict[int, bool] = {}
        while True:
            try:
                data = self.sock.recv(_LONGEST_ANSWER)
            except BlockingIOError:
                return fates
            at = (data[0] & 0xF) * 4
            token = data[at + 8 : at + 8 + TOKEN]
            answered = data[at] == packet.ICMP_ECHO_REPLY
            if not answered:
                quoted = packet.decode(data, l3=True).quoted
                carried = quoted.find(packet.Payload) if quoted else None
                token = carried.data[:TOKEN] if carried else b""
            number = self.tokens.get(token)
            if number is not None:
                fates.setdefault(number, answered)

    def close(self) -> None:
        self.sock.close()


class _OnePerProbe:
    """A socket of its own for every probe, so that what comes back is known by its port."""

    protocol: Protocol

    def __init__(self, netns: str, src: str, dst: str, *, port: int, size: int, df: bool) -> None:
        self.netns, self.src, self.dst, self.port = netns, src, dst, port
        self.size, self.df = size, df
        self.open: OrderedDict[int, tuple[int, socket.socket]] = OrderedDict()
        self.poll = select.epoll()

    def fileno(self) -> int:
        return self.poll.fileno()

    def send(self, number: int) -> Probe:
        token, refused, sport = self._token(), "", 0
        sock = in_netns(self.netns, self._socket)
        sent = time.time_ns()
        try:
            sock.bind((self.src, 0))
            sport = sock.getsockname()[1]
            self._start(sock, token)
        except OSError as error:
            refused = self._words(sock, error)
            sock.close()
        else:
            self._keep(number, sock)
        return Probe(
            number, self.protocol, self.src, self.dst, sport, self.port, token, self.size, sent,
            refused,
        )  # fmt: skip

    def _keep(self, number: int, sock: socket.socket) -> None:
        if len(self.open) >= _MOST_OPEN:
            _, (_, oldest) = self.open.popitem(last=False)
            self._finish(oldest)
        self.open[sock.fileno()] = number, sock
        self.poll.register(sock.fileno(), self.events)

    events = select.EPOLLIN

    def _words(self, sock: socket.socket, error: OSError) -> str:
        text = os.strerror(error.errno or 0)
        if error.errno != errno.EMSGSIZE:
            return text
        return f"{text}, mtu={sock.getsockopt(socket.IPPROTO_IP, _IP_MTU)}"

    def settled(self) -> dict[int, bool]:
        fates = {}
        for fd, _ in self.poll.poll(0):
            number, sock = self.open.pop(fd)
            fates[number] = self._answered(sock)
            self.poll.unregister(fd)
            self._finish(sock)
        return fates

    def close(self) -> None:
        for _, sock in self.open.values():
            self._finish(sock)
        self.poll.close()

    def _finish(self, sock: socket.socket) -> None:
        sock.close()

    # What differs between the protocols.

    def _token(self) -> bytes:
        raise NotImplementedError

    def _socket(self) -> socket.socket:
        raise NotImplementedError

    def _start(self, sock: socket.socket, token: bytes) -> None:
        raise NotImplementedError

    def _answered(self, sock: socket.socket) -> bool:
        raise NotImplementedError


class _Datagrams(_OnePerProbe):
    """UDP datagrams. A closed port answers with ICMP "port unreachable"."""

    protocol: Protocol = "udp"

    def _token(self) -> bytes:
        return os.urandom(TOKEN)

    def _socket(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        discover = _PMTUDISC_PROBE if self.df else _PMTUDISC_DONT
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, discover)
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        return sock

    def _start(self, sock: socket.socket, token: bytes) -> None:
        sock.connect((self.dst, self.port))
        sock.send(token + _PATTERN[: self.size - TOKEN])

    def _answered(self, sock: socket.socket) -> bool:
        try:
            sock.recv(_LONGEST_ANSWER)
        except ConnectionRefusedError:
            return True
        except OSError:  # a router's words; the captures have them
            return False
        return True


class _Connections(_OnePerProbe):
    """TCP connections, reset as soon as their first answer is there."""

    protocol: Protocol = "tcp"
    events = select.EPOLLOUT

    def _token(self) -> bytes:
        return b""

    def _socket(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        if self.df:
            sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DO)
        return sock

    def _start(self, sock: socket.socket, token: bytes) -> None:
        code = sock.connect_ex((self.dst, self.port))
        if code not in (0, errno.EINPROGRESS, errno.ECONNREFUSED):
            raise OSError(code, os.strerror(code))

    def _answered(self, sock: socket.socket) -> bool:
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return code in (0, errno.ECONNREFUSED)

    def _finish(self, sock: socket.socket) -> None:
        # No lingering connection is left behind, in the container or on the other side.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("@ii", 1, 0))
        sock.close()


def _patiently(sock: socket.socket, message: bytes, target: tuple[str, int]) -> None:
    """Send; when there is no room in the buffer at the moment, as soon as there is."""
    deadline = time.monotonic() + 1.0
    while True:
        try:
            sock.sendto(message, target)
        except OSError as error:
            if error.errno not in _TRANSIENT or time.monotonic() > deadline:
                raise
            select.select([], [sock], [], 0.01)
        else:
            return
