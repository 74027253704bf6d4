"""Real hosts over SSH: one connection per node, with one root shell that programs are fed to.

A program costs one round trip and no login; anything longer has a channel of its own. This package
is the only one that knows paramiko, and loads it when the first connection is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from vxlab.ssh import config, files, terminal
from vxlab.ssh.login import Ask
from vxlab.ssh.root import Root, become
from vxlab.ssh.route import Link, Traveller, reach
from vxlab.ssh.shell import Shell
from vxlab.ssh.stream import Stream, relay

__all__ = ["Ask", "Connection", "Stream", "relay"]


class Connection:
    """The controller's connection to a node that is a real host; made by `open`.

    Args:
        link: logged in.
        root: how the login becomes root.
        shell: the root shell.
    """

    def __init__(self, link: Link, root: Root, shell: Shell) -> None:
        self.name = link.name
        self._link, self._root, self._shell = link, root, shell

    @classmethod
    def open(cls, name: str, target: str, *, ask: Ask, accept_new: bool = False) -> Connection:
        """Connect to a host, log in and become root.

        Args:
            name: the node's, for messages.
            target: ``user@host:port`` or an alias of the user's OpenSSH configuration.
            ask: asks a person for a secret.
            accept_new: take a host key on trust if none is known.

        Raises:
            UsageError: the target is none.
            UnreachableError: the host does not answer.
            RefusedError: its key is not the known one, or it refuses the login or sudo.
        """
        settings = config.resolve(name, target)
        link = reach(Traveller(name, ask, accept_new), settings)
        try:
            root, channel = become(link, ask)
        except BaseException:
            link.close()
            raise
        return cls(link, root, Shell(link, channel))

    @property
    def programs(self) -> int:
        """How many programs were sent: each costs one round trip."""
        return self._shell.programs

    def run(
        self, program: str, line: Callable[[str], None] | None = None, *, outer: bool = False
    ) -> str:
        """Run a shell program as root; one at a time, others wait.

        Args:
            line: is told each line as it comes.
            outer: run it in the root shell itself, whose open files then stay; such a program
                must not exit.

        Returns:
            All output, stdout and stderr together.

        Raises:
            UnreachableError: the connection was lost.
        """
        return self._shell.run(program, line, outer=outer)

    def stream(self, argv: Sequence[str], *, stdin: bool = False) -> Stream:
        """Start a program as root on a channel of its own; see `Stream`.

        Args:
            stdin: whether the program is to read what is written to the stream.
        """
        return Stream(self._link, self._root, argv, stdin=stdin)

    def terminal(self, argv: Sequence[str]) -> int:
        """Run a program as root in a real terminal on the host, connected to ours.

        sudo asks there by itself. Our terminal is as before afterwards, whatever happens.

        Returns:
            The program's exit code; 128 and the signal's number if one ended it.

        Raises:
            UnreachableError: the connection was lost.
        """
        return terminal.run(self._link, self._root, argv)

    def put(self, source: Path, target: str, progress: Callable[[int, int], None]) -> None:
        """Send a file over SFTP, as the login user.

        Args:
            target: its path on the host.
            progress: is told the bytes sent and those to send.

        Raises:
            OperationError: the host has no SFTP or cannot write it; in its words.
            UnreachableError: the connection was lost.
        """
        files.put(self._link, source, target, progress)

    def close(self) -> None:
        """End the root shell and the connection; daemons on the host go on."""
        self._shell.close()
        self._link.close()
