"""The one table that turns what paramiko and the kernel raise into vxlab's errors."""

from __future__ import annotations

import logging
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vxlab.errors import OperationError, RefusedError, UnreachableError, VxlabError

_AGAIN = "the journal knows what was done: when the host is back, run the same command again"


def library() -> Any:
    """paramiko; its log would end on stderr, where it has nothing to say that no error says.

    It loads `invoke`, a third of its time, for ``Match exec`` alone; where there is an ``ssh``,
    that reads the configuration.
    """
    spared = "paramiko" not in sys.modules and shutil.which("ssh") is not None
    if spared:
        sys.modules.setdefault("invoke", None)  # type: ignore[arg-type]
    import paramiko

    if spared and sys.modules.get("invoke", spared) is None:
        del sys.modules["invoke"]
    logger = logging.getLogger("paramiko")
    if logger.level == logging.NOTSET:
        logger.addHandler(logging.NullHandler())
        logger.setLevel(logging.CRITICAL + 1)
    return paramiko


def said(error: BaseException) -> str:
    """A foreign error's own words: the kernel's, where it is the kernel's."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error.args[-1]) if error.args else ""
    return text or type(error).__name__


def lost(name: str, transport: Any = None, detail: str = "") -> UnreachableError:
    """The error of a connection that ended in the middle of something."""
    cause = transport.get_exception() if transport is not None and not detail else None
    words = said(cause) if cause is not None and not isinstance(cause, EOFError) else detail
    return UnreachableError(
        f"the connection to {name} was lost", where=name, detail=words, hint=_AGAIN
    )


def _translate(error: Exception, name: str, doing: str) -> VxlabError:
    paramiko = library()
    table = (
        (paramiko.AuthenticationException, RefusedError, "the login was refused", ""),
        (
            *(paramiko.ChannelException, OperationError),
            *("the host refuses another channel", "raise MaxSessions in its sshd_config"),
        ),
        (paramiko.IncompatiblePeer, UnreachableError, "no algorithm that both sides know", ""),
        (socket.gaierror, UnreachableError, "its address cannot be found", ""),
        (Exception, UnreachableError, "", ""),
    )
    _, kind, message, hint = next(row for row in table if isinstance(error, row[0]))
    if message:
        made: VxlabError = kind(
            f"{doing}: {message}" if doing else message, where=name, detail=said(error), hint=hint
        )
        return made
    if doing:
        return UnreachableError(doing, where=name, detail=said(error))
    return lost(name, detail="" if isinstance(error, EOFError) else said(error))


@contextmanager
def translated(name: str, doing: str = "") -> Iterator[None]:
    """Raise vxlab's errors instead of foreign ones.

    Args:
        name: the node's.
        doing: what cannot be done, in a message's words; else the connection was lost.
    """
    paramiko = library()
    try:
        yield
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise _translate(error, name, doing) from None
