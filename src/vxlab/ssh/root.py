"""Becoming root on a host: at once, by sudo without a password, or by sudo with one."""

from __future__ import annotations

import secrets
import select
import time
from dataclasses import dataclass, field
from typing import Any

from vxlab.errors import OperationError, RefusedError
from vxlab.ssh.border import lost, translated
from vxlab.ssh.login import TRIES, Ask, asking, printable
from vxlab.ssh.route import Link
from vxlab.ssh.words import command

_PATIENCE = 60.0  # seconds of silence until the host's shell or sudo counts as stuck

# One request decides and becomes root: a further one would cost two round trips. The mark is put
# together there, so that a shell that prints its command line in an error does not print the mark.
# Only after "ready" something else than a password is sent, so no program is taken for one.
_BECOME = """\
m={left}; m=${{m}}{right}
if [ "$(id -u)" = 0 ]; then echo "$m root"; exec sh -s; fi
command -v sudo >/dev/null || {{ echo "$m missing"; exit; }}
if sudo -n true; then exec sudo -n sh -c "echo $m free; exec sh -s"; fi
echo "$m" >&2
sudo -S -p "$m ask " sh -c "echo $m paid; exec sh -s"
echo "$m denied"
"""

#: What root's programs find, and where they are; not what the login user has set.
SETTLE = (
    'umask 022; cd /; PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"; export PATH\n'
)


def channel(link: Link) -> Any:
    """A new channel of the connection.

    Raises:
        OperationError: the host allows no more of them.
        UnreachableError: the connection was lost.
    """
    with translated(link.name):
        return link.transport.open_session(timeout=_PATIENCE)


@dataclass(slots=True)
class Heard:
    """What a channel sent so far."""

    channel: Any
    out: bytes = b""
    err: bytes = b""

    def more(self, seconds: float) -> bool:
        """Wait for more of either; False when the channel has ended or time is up."""
        poll = select.poll()
        poll.register(self.channel.fileno(), select.POLLIN)
        if not poll.poll(max(0, seconds) * 1000):
            return False
        out = self.channel.recv(1 << 16) if self.channel.recv_ready() else b""
        err = self.channel.recv_stderr(1 << 16) if self.channel.recv_stderr_ready() else b""
        self.out += out
        self.err += err
        return bool(out or err)


@dataclass(slots=True)
class Root:
    """How a login becomes root.

    Args:
        how: ``root``, ``free`` (sudo asks for nothing) or ``paid`` (sudo wants a password).
    """

    how: str
    password: str | None = field(default=None, repr=False)
    prompt: str = ""

    def command(self, program: str, *, terminal: bool = False) -> str:
        """The command line that runs a shell program as root."""
        shell = command(program)
        if self.how == "root":
            return f"exec {shell}"
        if terminal:
            asking = f"-p {self.prompt} " if self.how == "paid" else ""
            return f"exec sudo {asking}{shell}"
        return (
            f"exec sudo -n {shell}"
            if self.how == "free"
            else f"exec sudo -S -p {self.prompt} {shell}"
        )


def become(link: Link, ask: Ask) -> tuple[Root, Any]:
    """Start the root shell.

    Returns:
        How it was done, and the channel with the shell.

    Raises:
        RefusedError: there is no way to become root; says what sudo said.
    """
    return _Becoming(link, ask).run()


class _Becoming:
    def __init__(self, link: Link, ask: Ask) -> None:
        self._link, self._ask = link, ask
        left, right = secrets.token_hex(8), secrets.token_hex(8)
        self._mark = left + right
        self._program = _BECOME.format(left=left, right=right)
        self._prompt = f"{self._mark} ask ".encode()
        self._passwords: list[str] = []
        self._heard = Heard(channel(link))

    def run(self) -> tuple[Root, Any]:
        with translated(self._link.name):
            self._heard.channel.exec_command(f"exec {command(self._program)}")
            how = self._wait()
        if how in ("missing", "denied"):
            self._heard.channel.close()
            raise self._refused(how)
        with translated(self._link.name):
            self._heard.channel.sendall(SETTLE.encode())
        password = self._passwords[-1] if self._passwords else None
        return Root(how, password, self._mark), self._heard.channel

    def _wait(self) -> str:
        """How it ended: the word after the mark."""
        mark = f"{self._mark} ".encode()
        deadline = time.monotonic() + _PATIENCE
        while True:
            _, found, rest = self._heard.out.partition(mark)
            if found and b"\n" in rest:
                return rest.partition(b"\n")[0].decode()
            if self._heard.err.count(self._prompt) > len(self._passwords):
                self._answer()
                deadline = time.monotonic() + _PATIENCE
            if not self._heard.more(deadline - time.monotonic()):
                raise self._stuck(time.monotonic() >= deadline)

    def _answer(self) -> None:
        """sudo asks: first the password that was typed for the login, then a person."""
        link, tried = self._link, len(self._passwords)
        answer = link.password if tried == 0 else None
        if answer is None and tried < TRIES:
            with asking:
                answer = self._ask(f"sudo password of {link.settings.login}")
        if answer is None:
            self._heard.channel.close()
            raise self._refused("denied" if tried else "unasked")
        self._passwords.append(answer)
        self._heard.channel.sendall(answer.encode() + b"\n")

    def _stuck(self, late: bool) -> Exception:
        self._heard.channel.close()
        self._link.transport.join(0 if late else 0.5)
        if not late and not self._link.transport.is_active():
            return lost(self._link.name, self._link.transport)
        return OperationError(
            "no root shell starts" + (f" within {_PATIENCE:g} s" if late else ""),
            where=self._link.name,
            detail=self._words(),
            hint=f"try `ssh {self._link.settings.login} sudo sh`",
        )

    def _words(self) -> str:
        """What sudo said, without our own marks; of its last try, if there were two."""
        text = (self._heard.err or self._heard.out).decode(errors="replace")
        text = text.rpartition(f"{self._mark}\n")[2].replace(self._prompt.decode(), "\n")
        return "\n".join(filter(None, map(printable, text.splitlines())))

    def _refused(self, how: str) -> RefusedError:
        user = self._link.settings.user
        nopasswd = f"allow it there: `{user} ALL=(ALL) NOPASSWD: ALL` in /etc/sudoers.d"
        message, hint = {
            "missing": ("there is no sudo, and {} is not root", "log in as root, or install sudo"),
            "unasked": (
                "sudo wants a password of {}, and there is nobody to ask",
                f"run it in a terminal, or {nopasswd}",
            ),
            "denied": ("sudo refused to make {} root", nopasswd),
        }[how]
        return RefusedError(
            message.format(user), where=self._link.name, detail=self._words(), hint=hint
        )


def end(shell: Any, seconds: float = 1.0) -> None:
    """Have the root shell end, and wait for it: what it holds (a lock) is then free."""
    shell.shutdown_write()
    heard, deadline = Heard(shell), time.monotonic() + seconds
    while heard.more(deadline - time.monotonic()):
        pass
