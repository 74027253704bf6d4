"""The way to a host: TCP, a proxy command or other hosts in between, then SSH's handshake."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from vxlab.errors import UnreachableError, VxlabError
from vxlab.ssh import config
from vxlab.ssh.border import library, said, translated
from vxlab.ssh.config import Settings
from vxlab.ssh.hostkeys import HostKeys, Key
from vxlab.ssh.login import Ask, Login

#: A dead peer is noticed after this many seconds: as long may sent bytes stay unanswered, and an
#: idle connection is probed.
_DEAD, _IDLE, _PROBE = 25, 10, 5


@dataclass(slots=True)
class Link:
    """A host that let us in.

    Args:
        transport: paramiko's.
        password: the one that was typed for it, if any; sudo may want the same.
        way: the transport and what it goes through, to be closed.
    """

    name: str
    settings: Settings
    transport: Any
    password: str | None = field(repr=False)
    way: ExitStack

    def close(self) -> None:
        self.way.close()


@dataclass(frozen=True, slots=True)
class Traveller:
    """Who wants to get to a host, and how strange a host may be."""

    name: str
    ask: Ask
    accept_new: bool


def reach(who: Traveller, settings: Settings, behind: tuple[str, ...] = ()) -> Link:
    """Connect to a host and log in.

    Args:
        behind: the hosts that are reached through this one, to notice a circle.

    Raises:
        UnreachableError: it does not answer.
        RefusedError: its key is not known, or it refuses the login.
    """
    with ExitStack() as way:
        sock = _socket(who, settings, way, behind)
        transport = _handshake(who, settings, sock, way)
        with translated(who.name, f"{settings.place} ended the login"):
            login = Login(who.name, settings, transport, who.ask)
            login.run()
        if not isinstance(sock, _Socket):
            _pulse(transport, way)
        return Link(who.name, settings, transport, login.password, way.pop_all())


def _handshake(who: Traveller, settings: Settings, sock: Any, way: ExitStack) -> Any:
    paramiko = library()
    known = HostKeys(who.name, settings)
    with translated(who.name, f"{settings.place} does not answer as an SSH server"):
        transport = paramiko.Transport(sock)
        way.callback(transport.close)
        options = transport.get_security_options()
        options.key_types = known.preferred(options.key_types)
        # GCM costs half of what the others do, which need an HMAC for every packet besides.
        options.ciphers = sorted(options.ciphers, key=lambda each: "gcm" not in each)
        transport.banner_timeout = settings.timeout
        transport.start_client()
        shown = transport.get_remote_server_key()
        key = Key(shown.get_name(), base64.b64decode(shown.get_base64()))
    known.check(key, accept_new=who.accept_new)
    return transport


# --- sockets --------------------------------------------------------------------------------------


def _socket(who: Traveller, settings: Settings, way: ExitStack, behind: tuple[str, ...]) -> Any:
    if settings.jumps:
        return _through(who, settings, way, behind)
    if settings.proxy:
        return _piped(who.name, settings.proxy, way)
    return way.enter_context(_tcp(who.name, settings))


class _Socket(socket.socket):
    """TCP that acknowledges at once (tcp(7), TCP_QUICKACK, which does not last).

    sshd leaves Nagle's algorithm on for programs without a terminal: its second small packet waits
    for the acknowledgement of the first, which Linux otherwise puts off by 40 ms.
    """

    def recv(self, size: int, flags: int = 0) -> bytes:
        data = super().recv(size, flags)
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return data


def _tcp(name: str, settings: Settings) -> socket.socket:
    """Connect to the first of the host's addresses that answers."""
    try:
        found = socket.getaddrinfo(
            settings.address, settings.port, settings.family, socket.SOCK_STREAM
        )
    except socket.gaierror as error:
        raise UnreachableError(
            f"no address is known of {settings.address}",
            where=name,
            detail=said(error),
            hint=f"correct the node's ssh, or HostName of {settings.host} in ~/.ssh/config",
        ) from None
    failed: dict[str, str] = {}
    for family, kind, protocol, _, address in found:
        sock = _Socket(family, kind, protocol)
        try:
            sock.settimeout(settings.timeout)
            sock.connect(address)
        except OSError as error:
            sock.close()
            silent = f"no answer within {settings.timeout:g} s"
            failed[str(address[0])] = silent if isinstance(error, TimeoutError) else said(error)
            continue
        _watch(sock)
        return sock
    several = [f"{address}: {why}" for address, why in failed.items()]
    raise UnreachableError(
        f"cannot connect to {settings.place}",
        where=name,
        detail="\n".join(several if len(several) > 1 else failed.values()),
        hint="is the host up, is its sshd, and does a firewall let this port through?",
    )


def _watch(sock: socket.socket) -> None:
    """Send small packets at once, and notice a peer that is gone (tcp(7))."""
    for option, value in (
        (socket.TCP_NODELAY, 1),
        (socket.TCP_KEEPIDLE, _IDLE),
        (socket.TCP_KEEPINTVL, _PROBE),
        (socket.TCP_KEEPCNT, max(1, (_DEAD - _IDLE) // _PROBE)),
        (socket.TCP_USER_TIMEOUT, _DEAD * 1000),
    ):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _piped(name: str, command: str, way: ExitStack) -> socket.socket:
    """A proxy command's stdin and stdout as a socket; what it complains about goes to ours."""
    ours, theirs = socket.socketpair()
    way.enter_context(ours)
    shell = os.environ.get("SHELL") or "/bin/sh"
    with theirs, translated(name, f"cannot start the proxy command {command}"):
        end = theirs.fileno()
        process = subprocess.Popen([shell, "-c", f"exec {command}"], stdin=end, stdout=end)
    way.callback(process.wait)
    way.callback(process.terminate)
    return ours


def _pulse(transport: Any, way: ExitStack) -> None:
    """Ask a host for a sign of life now and then: the kernel watches over the first hop only."""
    stop = threading.Event()
    way.callback(stop.set)

    def beat() -> None:
        while not stop.wait(_IDLE) and transport.is_active():
            asked = threading.Thread(
                target=transport.global_request, args=("keepalive@openssh.com",), daemon=True
            )
            asked.start()
            asked.join(_DEAD - _IDLE)
            if asked.is_alive():
                transport.close()

    threading.Thread(target=beat, daemon=True).start()


# --- hosts in between -----------------------------------------------------------------------------


class _Hop:
    """A host in between; all nodes behind it share one connection."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.link: Link | None = None
        self.error: VxlabError | None = None


_hops: dict[tuple[str, ...], _Hop] = {}
_counting = threading.Lock()


def _through(who: Traveller, settings: Settings, way: ExitStack, behind: tuple[str, ...]) -> Any:
    """A channel from the last of the hosts in between to the host."""
    *before, last = settings.jumps
    if last in behind or len(behind) > 15:
        raise UnreachableError(
            f"the way to {settings.host} goes in a circle",
            where=who.name,
            detail=" <- ".join((*behind, last)),
            hint="give the jump host itself `ProxyJump none` in your OpenSSH configuration",
        )

    def connect() -> Link:
        jump = config.resolve(who.name, last, jumps=before or None)
        return reach(who, jump, (*behind, last))

    hop = _borrow(who.name, settings.jumps, connect, way)
    with translated(who.name, f"cannot connect to {settings.place} through {last}"):
        channel = hop.transport.open_channel(
            "direct-tcpip", (settings.address, settings.port), ("127.0.0.1", 0), timeout=60
        )
    way.callback(channel.close)
    return channel


def _borrow(name: str, jumps: Sequence[str], connect: Callable[[], Link], way: ExitStack) -> Link:
    key = (os.environ.get(config.CONFIG, ""), *jumps)
    with _counting:
        hop = _hops.setdefault(key, _Hop())
        hop.users += 1
    way.callback(_give_back, key, hop)
    with hop.lock:
        if hop.error is not None:
            error = hop.error
            raise type(error)(error.message, where=name, detail=error.detail, hint=error.hint)
        if hop.link is None or not hop.link.transport.is_active():
            try:
                if hop.link is not None:
                    hop.link.close()
                hop.link = connect()
            except VxlabError as failure:
                hop.error = failure
                raise
        return hop.link


def _give_back(key: tuple[str, ...], hop: _Hop) -> None:
    with _counting:
        hop.users -= 1
        if hop.users:
            return
        if _hops.get(key) is hop:
            del _hops[key]
    if hop.link is not None:
        hop.link.close()
