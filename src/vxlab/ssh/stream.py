"""A program with a channel of its own: for what goes on while other programs run.

Without `stdin` the program has a process group of its own, and a watcher that ends it (SIGTERM)
as soon as the channel or the connection does. With `stdin` it reads our bytes itself, and learns of
the end as from any pipe: end of file when it reads, SIGPIPE when it writes; one that does neither
goes on. What made a session of its own (a daemon) goes on in either case.
"""

from __future__ import annotations

import os
import secrets
import select
import sys
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from vxlab.errors import OperationError
from vxlab.ssh import words
from vxlab.ssh.border import lost, translated
from vxlab.ssh.login import printable
from vxlab.ssh.root import SETTLE, Root, channel
from vxlab.ssh.route import Link

# The marks come after whatever the login shell's profile prints.
_BEGIN = 'm={left}; m=${{m}}{right}; echo "$m"; echo "$m" >&2\n' + SETTLE

_FED = "{argv}\nexit $?\n"

_WATCHED = """\
exec 3<&0
setsid {argv} </dev/null 3<&- &
p=$!
{{ read -r x <&3; kill -TERM "-$p" || kill -TERM "$p"; }} >/dev/null 2>&1 &
w=$!
wait "$p"; c=$?
exec 2>/dev/null
kill "$w"
exit "$c"
"""


class Reader:
    """One of a program's outputs."""

    def __init__(self, stream: Stream, which: int) -> None:
        self._stream, self._which = stream, which

    def read(self, size: int) -> bytes:
        """Wait for bytes, at most `size` of them; none when the program's output has ended.

        Raises:
            UnreachableError: the connection was lost.
            OperationError: the program could not be started as root; says why.
        """
        return self._stream._take(self._which, size)


class Stream:
    """A program on a host, run as root.

    `stdout` and `stderr` may be read in any order, by two threads or by one: what comes for the
    one that nobody reads is kept.

    Args:
        argv: the program; found on root's PATH.
        stdin: whether `write` is used; else the program's stdin is empty.

    Raises:
        OperationError, RefusedError, UnreachableError: it cannot be started.
    """

    def __init__(self, link: Link, root: Root, argv: Sequence[str], *, stdin: bool) -> None:
        self._link, self._root, self._argv = link, root, argv
        left, right = secrets.token_hex(8), secrets.token_hex(8)
        self._mark = f"{left}{right}\n".encode()
        self._buffers = [bytearray(), bytearray()]
        self._begun = [False, False]
        self._ended = self._closed = self._pumping = self._paid = False
        self._turn = threading.Condition()
        self.stdout, self.stderr = Reader(self, 0), Reader(self, 1)
        text = _BEGIN.format(left=left, right=right)
        text += (_FED if stdin else _WATCHED).format(argv=words.line(argv))
        self._channel = channel(link)
        with translated(link.name):
            self._channel.exec_command(root.command(text))
        if root.how == "paid":  # nothing of ours may be taken for the password
            while not (self._ended or self._begun[1]):
                self._pump()

    # --- output -----------------------------------------------------------------------------------

    def _take(self, which: int, size: int) -> bytes:
        with self._turn:
            self._wait(lambda: bool(self._begun[which] and self._buffers[which]))
            data = bytes(self._buffers[which][:size]) if self._begun[which] else b""
            del self._buffers[which][: len(data)]
        if not data:
            self._judge()
        return data

    def _wait(self, enough: Callable[[], bool]) -> None:
        """Have one of the threads receive for all until there is enough, or an end."""
        while not (enough() or self._ended):
            if self._pumping:
                self._turn.wait()
                continue
            self._pumping = True
            self._turn.release()
            try:
                self._pump()
            finally:
                self._turn.acquire()
                self._pumping = False
                self._turn.notify_all()

    def _pump(self) -> None:
        """Receive once, for either output."""
        if self._closed:
            self._ended = True
            return
        with translated(self._link.name):
            poll = select.poll()
            poll.register(self._channel.fileno(), select.POLLIN)
            if not poll.poll(50):  # `close` in another thread does not wake this
                return
            out = self._channel.recv(1 << 16) if self._channel.recv_ready() else b""
            err = self._channel.recv_stderr(1 << 16) if self._channel.recv_stderr_ready() else b""
        with self._turn:
            for which, data in enumerate((out, err)):
                self._keep(which, data)
            self._ended = self._closed or not (out or err)

    def _keep(self, which: int, data: bytes) -> None:
        self._buffers[which] += data
        if self._begun[which]:
            return
        _, mark, rest = self._buffers[which].partition(self._mark)
        if mark:
            self._buffers[which], self._begun[which] = rest, True
        elif which == 1:
            self._pay(self._buffers[1].count(self._root.prompt.encode()))

    def _pay(self, asked: int) -> None:
        """Tell sudo the password; asked again, it is right no more."""
        if asked and not self._paid:
            self._paid = True
            self._channel.sendall((self._root.password or "").encode() + b"\n")
        elif asked > 1:
            self._channel.shutdown_write()

    def _judge(self) -> None:
        """Nothing more comes: raise if that is no regular end."""
        if self._closed:
            return
        self._channel.status_event.wait(0.5)  # the exit code comes behind the outputs' end
        if self._channel.exit_status_ready() and self._channel.exit_status != -1:
            if not self._begun[1]:
                raise self._unstarted()
            return
        self._link.transport.join(0.5)  # a connection that breaks ends its channels first
        if not self._link.transport.is_active():
            raise lost(self._link.name, self._link.transport)

    def _unstarted(self) -> OperationError:
        said = self._buffers[1].decode(errors="replace").replace(self._root.prompt, "\n")
        return OperationError(
            f"cannot run {self._argv[0]} as root",
            where=self._link.name,
            detail="\n".join(filter(None, map(printable, said.splitlines()))),
        )

    # --- input and end ----------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send bytes to the program's stdin; waits as long as it does not read.

        Raises:
            BrokenPipeError: it reads no more.
        """
        try:
            self._channel.sendall(data)
        except OSError:
            raise BrokenPipeError(f"{self._argv[0]} has ended") from None

    def end_input(self) -> None:
        """The program's stdin has ended."""
        with translated(self._link.name):
            self._channel.shutdown_write()

    def wait(self) -> int:
        """Wait for the program's end; output that nobody has read yet is kept.

        Returns:
            Its exit code; 128 and the signal's number if one ended it.

        Raises:
            UnreachableError: the connection was lost.
            OperationError: the program could not be started as root; says why.
        """
        with self._turn:
            self._wait(lambda: False)
        code: int = self._channel.recv_exit_status()
        self._judge()
        return code if code >= 0 else 255

    def close(self) -> None:
        """End the program, as far as that can be (see the module), and the channel."""
        self._closed = True
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def relay(stream: Stream) -> int:
    """Connect a program to our own stdin, stdout and stderr until it ends; its exit code."""
    sys.stdout.flush()
    sys.stderr.flush()
    awake, wake = os.pipe()
    threads = [
        threading.Thread(target=_feed, args=(stream, awake), daemon=True),
        threading.Thread(target=_pour, args=(stream.stderr, 2), daemon=True),
    ]
    with stream:
        try:
            for thread in threads:
                thread.start()
            _pour(stream.stdout, 1)
            code = stream.wait()
            threads[1].join()
            return code
        finally:
            os.close(wake)
            threads[0].join(1)
            os.close(awake)


def _feed(stream: Stream, awake: int) -> None:
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(awake, select.POLLIN)
    while awake not in dict(poll.poll()):
        data = os.read(0, 1 << 16)
        if not data:
            stream.end_input()
            return
        try:
            stream.write(data)
        except BrokenPipeError:
            return


def _pour(reader: Reader, fd: int) -> None:
    while data := reader.read(1 << 16):
        while data:
            data = data[os.write(fd, data) :]
