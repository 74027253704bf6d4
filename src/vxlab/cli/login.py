"""How a command gets into real hosts: questions on the terminal, new host keys on request."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from vxlab.nodes.remote import Login


def accept_new_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option of commands that may meet a host for the first time."""
    return click.option(
        "--accept-new-host-keys",
        "accept_new",
        is_flag=True,
        help="Take a real host's key on trust if none is known; a changed one never.",
    )(command)


def login(*, accept_new: bool = False) -> Login:
    """Who answers a host's questions: the person at the terminal, if there is one."""
    from vxlab.nodes.remote import Login

    signal.signal(signal.SIGINT, _interrupted)
    return Login(_ask, accept_new)


#: Set by Ctrl-C: questions are asked in threads, which the signal does not reach.
_stopped = threading.Event()


def _interrupted(signum: int, frame: FrameType | None) -> None:
    _stopped.set()
    raise KeyboardInterrupt


def _ask(question: str) -> str | None:
    """Ask for a secret on the terminal, which does not show it; None without a terminal."""
    from vxlab.report import text

    if not sys.stdin.isatty() or _stopped.is_set():
        return None
    text.doing("")
    terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    before = termios.tcgetattr(terminal)
    silent = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    try:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, silent)
        os.write(terminal, f"{question.rstrip(': ')}: ".encode())
        while not select.select([terminal], [], [], 0.1)[0]:
            if _stopped.is_set():
                return None
        line = os.read(terminal, 4096)  # a whole line, or nothing for Ctrl-D
        return line.decode(errors="replace").rstrip("\n") if line else None
    finally:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, before)
        os.write(terminal, b"\n")
        os.close(terminal)
