"""Removes a lab: its world with everything in it, then its directory."""

from __future__ import annotations

import os
import select
import signal
from dataclasses import dataclass

from vxlab.errors import JournalError, OperationError
from vxlab.journal import LabDirectory, process_start
from vxlab.nodes.local import orphans

_PATIENCE_MS = 30_000


@dataclass(frozen=True, slots=True)
class Result:
    """What `teardown` found. Nothing there is no error."""

    existed: bool
    ran: bool


def down(directory: LabDirectory, *, force: bool = False) -> Result:
    """Take the lab away; the lab's directory must be locked by the caller.

    Args:
        force: where the journal cannot be read, find the lab's worlds by their mark.

    Raises:
        JournalError: the journal cannot be read and `force` was not asked for.
        OperationError: the world does not end.
    """
    if not directory.exists():
        return Result(existed=False, ran=False)
    worlds: dict[int, int] = {}
    try:
        record = directory.world()
        if record is not None and record.alive():
            worlds[record.pid] = record.start
    except JournalError:
        if not force:
            raise
    if force:
        worlds |= orphans(directory.path)
    for pid, start in worlds.items():
        end(pid, start)
    try:
        directory.remove()
    except OSError as error:
        raise JournalError(
            f"cannot remove the lab's directory: {error.strerror}",
            where=str(error.filename or directory.path),
        ) from None
    return Result(existed=True, ran=bool(worlds))


def end(pid: int, start: int) -> None:
    """Kill a world's PID 1, and with it all that lives in the world; wait until it is gone.

    The kernel takes the namespaces' interfaces away shortly after this returns.

    Args:
        pid: on this machine.
        start: its start time in clock ticks; another process of the same PID is left alone.

    Raises:
        OperationError: it may not be killed or does not end.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if process_start(pid) != start:
            return
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        if not poll.poll(_PATIENCE_MS):
            raise OperationError(f"the lab's PID 1 ({pid}) does not end", where="this machine")
    except PermissionError as error:
        raise OperationError(
            f"may not end the lab's PID 1 ({pid})",
            where="this machine",
            detail=str(error),
            hint="run teardown as the user who built the lab",
        ) from None
    finally:
        os.close(descriptor)
