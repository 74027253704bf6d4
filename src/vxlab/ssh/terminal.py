"""A real terminal on a host: its size, Ctrl-C and colours are those of ours."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

from vxlab.ssh import words
from vxlab.ssh.border import lost, translated
from vxlab.ssh.root import SETTLE, Root, channel
from vxlab.ssh.route import Link

# The shell survives Ctrl-C, as long as the program does, to tell how that ended.
_PROGRAM = SETTLE + "trap : INT QUIT\n{argv}\nexit $?\n"


def run(link: Link, root: Root, argv: Sequence[str]) -> int:
    """Run a program in a terminal of the host, connected to ours; see `Connection.terminal`."""
    program = _PROGRAM.format(argv=words.line(argv))
    sys.stdout.flush()
    far = channel(link)
    with ExitStack() as stack, translated(link.name):
        stack.callback(far.close)
        columns, rows = _size()
        far.get_pty(os.environ.get("TERM", "dumb"), columns, rows)
        far.exec_command(root.command(program, terminal=True))
        awake = stack.enter_context(_signals())
        stack.enter_context(_raw())
        _exchange(far, awake, root)
        code: int = far.recv_exit_status()
    if code >= 0:
        return code
    link.transport.join(0.5)  # a connection that breaks ends its channels first
    if not link.transport.is_active():
        raise lost(link.name, link.transport)
    return 255


def _exchange(far: Any, awake: int, root: Root) -> None:
    """Carry bytes both ways until the host's end closes.

    sudo asks on a new terminal again; it gets the password that it has taken before.
    """
    prompt = root.prompt.encode() if root.how == "paid" else b""
    poll = select.poll()
    for fd in (0, awake, far.fileno()):
        poll.register(fd, select.POLLIN)
    while True:
        ready = dict(poll.poll())
        if far.fileno() in ready:
            data = far.recv(1 << 16)
            if not data:
                return
            if prompt and prompt in data:
                data, prompt = data.replace(prompt, b""), b""
                far.sendall((root.password or "").encode() + b"\n")
            while data:
                data = data[os.write(1, data) :]
        if awake in ready:
            os.read(awake, 1 << 10)
            far.resize_pty(*_size())
        if 0 in ready:
            typed = os.read(0, 1 << 12)
            if not typed:
                far.shutdown_write()
                poll.unregister(0)
            elif not far.closed:
                far.sendall(typed)


def _size() -> tuple[int, int]:
    """Our terminal's columns and rows."""
    for fd in (0, 1):
        try:
            size = os.get_terminal_size(fd)
        except OSError:
            continue
        return size.columns, size.lines
    return 80, 24


@contextmanager
def _raw() -> Iterator[None]:
    """Every key goes to the host; our terminal is itself again afterwards, whatever happens."""
    if not os.isatty(0):
        yield
        return
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


@contextmanager
def _signals() -> Iterator[int]:
    """A descriptor that is readable when our terminal's size changed.

    The signals that would end us end us regularly, so that the terminal is set right again.
    """
    awake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def resized(number: int, frame: FrameType | None) -> None:
        os.write(wake, b"w")

    handlers = {signal.SIGWINCH: resized, signal.SIGTERM: _end, signal.SIGHUP: _end}
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, do) for number, do in handlers.items() if main}
    try:
        yield awake
    finally:
        for number, old in before.items():
            signal.signal(number, old)
        os.close(awake)
        os.close(wake)
