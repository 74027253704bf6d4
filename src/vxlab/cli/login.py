"""How a command gets into real hosts: questions on the terminal, new host keys on request."""

from __future__ import annotations

import sys
from collections.abc import Callable
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

    return Login(_ask, accept_new)


def _ask(question: str) -> str | None:
    """Ask for a secret on the terminal, which does not show it; None without a terminal."""
    from getpass import getpass

    from vxlab.report import text

    if not sys.stdin.isatty():
        return None
    text.doing("")
    try:
        return getpass(f"{question.rstrip(': ')}: ")
    except EOFError:
        return None
