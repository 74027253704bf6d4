"""Files that travel to a host over SFTP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vxlab.errors import OperationError
from vxlab.ssh.border import library, lost, said
from vxlab.ssh.route import Link


def put(link: Link, source: Path, target: str, progress: Callable[[int, int], None]) -> None:
    """Send a file; see `Connection.put`."""
    paramiko = library()
    doing = "open the host's SFTP subsystem"
    try:
        with source.open("rb") as file:
            size = source.stat().st_size
            with paramiko.SFTPClient.from_transport(link.transport) as sftp:
                doing = f"write {target}"
                sftp.putfo(file, target, file_size=size, callback=progress, confirm=False)
                _confirm(sftp, target, size)
    except (paramiko.SSHException, EOFError, OSError) as error:
        link.transport.join(0.5 if isinstance(error, EOFError | paramiko.SSHException) else 0)
        if not link.transport.is_active():
            raise lost(link.name, link.transport) from None
        raise OperationError(
            f"cannot {doing}",
            where=link.name,
            detail=said(error),
            hint="does its sshd_config have a line `Subsystem sftp internal-sftp`?"
            if doing.startswith("open")
            else f"is there room for {size >> 20} MiB, and may {link.settings.user} write there?",
        ) from None


def _confirm(sftp: Any, target: str, size: int) -> None:
    """Whether all of a file arrived; if not, have the host say why.

    paramiko sends without waiting for answers, and drops those that come last.

    Raises:
        OSError: with the host's words.
    """
    there = sftp.stat(target).st_size
    if there == size:
        return
    with sftp.file(target, "r+b") as file:
        file.seek(there)
        file.write(bytes(1 << 15))
    raise OSError(f"only {there} of {size} bytes arrived")
