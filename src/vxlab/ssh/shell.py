"""The root shell: programs go in through its stdin, their output is read until an end mark."""

from __future__ import annotations

import secrets
import shlex
import threading
from collections.abc import Callable
from typing import Any

from vxlab.ssh import root
from vxlab.ssh.border import lost, translated
from vxlab.ssh.route import Link

# `eval` in a subshell: neither `exit` nor a syntax error in the program ends the root shell.
_INSIDE = "(eval {program}) </dev/null 2>&1\n"
_OUTER = "{{ eval {program}; }} </dev/null 2>&1\n"
_END = "printf '%s%s\\n' {left} {right}\n"


class Shell:
    """A root shell on a host.

    Args:
        channel: with a POSIX shell that reads its stdin.
    """

    def __init__(self, link: Link, channel: Any) -> None:
        self._link, self._channel = link, channel
        self._lock = threading.Lock()
        self._unread = b""  # the end mark of a program whose output nobody waits for any more
        self._buffer = bytearray()
        self.programs = 0

    def run(self, program: str, line: Callable[[str], None] | None, *, outer: bool) -> str:
        """Run a program; see `Connection.run`."""
        left, right = secrets.token_hex(8), secrets.token_hex(8)
        mark = (left + right).encode() + b"\n"
        text = (_OUTER if outer else _INSIDE).format(program=shlex.quote(program))
        text += _END.format(left=left, right=right)
        with self._lock:
            if self._unread:
                self._read(self._unread, None)
            self.programs += 1
            self._unread = mark
            with translated(self._link.name):
                self._channel.sendall(text.encode())
            return self._read(mark, line)

    def _read(self, mark: bytes, line: Callable[[str], None] | None) -> str:
        """All output up to the mark; each line is told as soon as it is whole."""
        done: list[bytes] = []
        seen = 0  # so much of the buffer has no newline
        while True:
            end = self._buffer.find(b"\n", seen)
            if end < 0:
                seen = len(self._buffer)
                self._buffer += self._receive()
                continue
            seen, whole = 0, bytes(self._buffer[: end + 1])
            del self._buffer[: end + 1]
            marked = whole.endswith(mark)
            text = whole.removesuffix(mark)
            done.append(text)
            if marked:
                self._unread = b""
            if line is not None and text:
                line(_text(text.removesuffix(b"\n")))
            if marked:
                return _text(b"".join(done))

    def _receive(self) -> bytes:
        with translated(self._link.name):
            data: bytes = self._channel.recv(1 << 16)
        if not data:
            transport = self._link.transport
            transport.join(0.5)  # a connection that breaks ends its channels first
            ended = "" if not transport.is_active() else "its root shell ended"
            raise lost(self._link.name, transport, ended)
        return data

    def close(self) -> None:
        """End it, unless a program is still running there."""
        if self._link.transport.is_active() and self._lock.acquire(blocking=False):
            try:
                if not self._unread:
                    root.end(self._channel)
            finally:
                self._lock.release()


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
