"""What the user's OpenSSH configuration says about a host: where it is and how to get in.

The ``ssh`` program reads it, since only that understands all of it (``Include``, ``Match exec``);
without one, paramiko does, which understands most. ``VXLAB_SSH_CONFIG`` names another file, as
``ssh -F`` does. Like ``ssh``, ``~`` is the home of the password database, not of ``$HOME``.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import pwd
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vxlab.errors import UnreachableError, UsageError

#: An environment variable with another OpenSSH configuration file.
CONFIG = "VXLAB_SSH_CONFIG"

Words = Mapping[str, Sequence[str]]

_TIMEOUT = 10.0  # seconds to wait for a host, unless ConnectTimeout says otherwise
_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
_DEFAULT_KEYS = ("id_rsa", "id_ecdsa", "id_ed25519")


@dataclass(frozen=True, slots=True)
class Settings:
    """How to reach a host and log in there.

    Args:
        host: the alias or address that the user wrote.
        address: where it is.
        jumps: hosts to go through, the nearest first.
        proxy: a command whose stdin and stdout are the connection, instead of TCP.
        alias: the name that its key is known by, instead of its address.
        agent: the agent's socket; empty: there is none.
        identities: private keys (or their public halves, if the agent has the key).
        only: the agent's other keys are left alone.
        known: files of known hosts, the user's; new keys go to the first one.
        everywhere: files of known hosts, the machine's.
        hashed: whether names are written to them as hashes.
        timeout: seconds to wait for an answer.
    """

    host: str
    address: str
    port: int
    user: str
    jumps: tuple[str, ...] = ()
    proxy: str = ""
    alias: str = ""
    agent: str = ""
    identities: tuple[Path, ...] = ()
    only: bool = False
    known: tuple[Path, ...] = ()
    everywhere: tuple[Path, ...] = ()
    hashed: bool = False
    timeout: float = _TIMEOUT
    family: int = field(default=socket.AF_UNSPEC)

    @property
    def place(self) -> str:
        """``192.168.56.11:22``"""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"

    @property
    def login(self) -> str:
        """``root@node01``, as questions and messages name it."""
        return f"{self.user}@{self.host}"


def split(target: str) -> tuple[str, str, int]:
    """User, host and port of ``user@host:port``; an IPv6 address with a port is in brackets.

    Returns:
        An empty user and port 0 where the target does not say.

    Raises:
        UsageError: it is none of that.
    """
    user, at, place = target.rpartition("@")
    found = re.fullmatch(r"\[([^\[\]]+)\](?::(\d+))?|([^:\[\]]+)(?::(\d+))?", place)
    host, port = place, "0"
    if found:
        host, port = found[1] or found[3], found[2] or found[4] or "0"
    elif place.count(":") < 2 or set("[]") & set(place):
        host = ""
    bad = not host or host.startswith("-") or re.search(r"[\s\0/]", host) or (at and not user)
    if bad or not int(port) < 1 << 16:
        raise UsageError(
            f"{target!r} is no host to log in to",
            hint="write user@host, user@host:port or an alias of your OpenSSH configuration",
        )
    return user, host, int(port)


def resolve(name: str, target: str, *, jumps: Sequence[str] | None = None) -> Settings:
    """What the configuration says about a target.

    Args:
        name: the node's, for messages.
        target: ``user@host:port`` or an alias.
        jumps: the way to it, instead of the configuration's.

    Raises:
        UsageError: the target is none.
        UnreachableError: the configuration cannot be read.
    """
    user, host, port = split(target)
    file = os.environ.get(CONFIG, "")
    if shutil.which("ssh"):
        words = parse(_ask_ssh(name, host, user, port, file))
    else:
        words = _ask_paramiko(name, host, user, port, file)
    return settings(host, words, jumps=jumps)


def _ask_ssh(name: str, host: str, user: str, port: int, file: str) -> str:
    command = ["ssh", "-G"]
    command += ["-F", os.path.expanduser(file)] if file else []
    command += ["-l", user] if user else []
    command += ["-p", str(port)] if port else []
    done = subprocess.run(
        [*command, "--", host],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
    )
    if done.returncode:
        raise _unreadable(name, host, done.stderr.strip())
    return done.stdout


def _unreadable(name: str, host: str, said: str) -> UnreachableError:
    return UnreachableError(
        f"your OpenSSH configuration does not say how to reach {host}",
        where=name,
        detail=said,
        hint=f"`ssh -G {host}` shows what it says",
    )


def _ask_paramiko(name: str, host: str, user: str, port: int, file: str) -> Words:
    import paramiko

    path = Path(os.path.expanduser(file)) if file else home() / ".ssh" / "config"
    try:
        found = paramiko.SSHConfig.from_path(path).lookup(host) if file or path.exists() else {}
    except (OSError, paramiko.SSHException) as error:
        raise _unreadable(name, host, str(error)) from None
    words = {k: [v] if isinstance(v, str) else list(v or ["none"]) for k, v in found.items()}
    words.setdefault("identityfile", [f"~/.ssh/{key}" for key in _DEFAULT_KEYS])
    words |= {"user": [user]} if user else {}
    words |= {"port": [str(port)]} if port else {}
    return words


def parse(text: str) -> Words:
    """What ``ssh -G`` printed: each keyword with the values of its lines."""
    words: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        words.setdefault(key.lower(), []).append(value)
    return words


def settings(host: str, words: Words, *, jumps: Sequence[str] | None = None) -> Settings:
    """The settings that OpenSSH's keywords mean.

    `StrictHostKeyChecking` is not among them: vxlab is always strict. `UserKnownHostsFile
    /dev/null`, its companion in what Vagrant prints, would make every key new for ever: the usual
    file is used.
    """

    def one(key: str, default: str = "") -> str:
        value = (words.get(key) or [default])[0].strip()
        return default if value.lower() == "none" else value

    user = one("user") or getpass.getuser()
    port = one("port", "22")
    address = one("hostname", host)
    tokens = _tokens(host, address, port, user, one("hostkeyalias"), one("proxyjump"))

    def paths(key: str, default: str) -> tuple[Path, ...]:
        value = " ".join(words.get(key) or [default])
        listed = [expand(each.strip('"'), tokens) for each in value.split()]
        return tuple(Path(each) for each in listed if each not in ("none", "/dev/null"))

    hops = one("proxyjump") if jumps is None else ",".join(jumps)
    usual = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
    timeout = one("connecttimeout")
    return Settings(
        host=host,
        address=address,
        port=int(port),
        user=user,
        jumps=tuple(hop.strip() for hop in hops.split(",") if hop.strip()),
        proxy="" if hops else percent(one("proxycommand"), tokens),
        alias=one("hostkeyalias"),
        agent=_agent(words, tokens),
        identities=tuple(
            Path(expand(each.strip('"'), tokens))
            for each in dict.fromkeys(words.get("identityfile", ()))
            if each.lower() != "none"
        ),
        only=one("identitiesonly") in ("yes", "true"),
        known=paths("userknownhostsfile", usual) or (Path(expand("~/.ssh/known_hosts", tokens)),),
        everywhere=paths("globalknownhostsfile", "/etc/ssh/ssh_known_hosts"),
        hashed=one("hashknownhosts") in ("yes", "true"),
        timeout=float(timeout) if timeout.isdecimal() and int(timeout) else _TIMEOUT,
        family=_FAMILIES.get(one("addressfamily"), socket.AF_UNSPEC),
    )


def _agent(words: Words, tokens: Mapping[str, str]) -> str:
    """The agent's socket: ssh_config(5), IdentityAgent."""
    said = (words.get("identityagent") or ["SSH_AUTH_SOCK"])[0].strip().strip('"')
    if said.lower() == "none":
        return ""
    if said == "SSH_AUTH_SOCK" or re.fullmatch(r"\$\w+", said):
        return os.environ.get(said.removeprefix("$"), "")
    return expand(said, tokens)


def home() -> Path:
    """The home of the password database, or ``$HOME`` for a user who is not in there."""
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return Path.home()


def _tokens(host: str, address: str, port: str, user: str, alias: str, jump: str) -> dict[str, str]:
    """ssh_config(5), TOKENS."""
    here = socket.gethostname()
    whole = here + address + port + user + jump
    return {
        "%": "%",
        "C": hashlib.sha1(whole.encode(), usedforsecurity=False).hexdigest(),
        "d": str(home()),
        "h": address,
        "i": str(os.getuid()),
        "j": jump,
        "k": alias or host,
        "L": here.partition(".")[0],
        "l": here,
        "n": host,
        "p": port,
        "r": user,
        "u": getpass.getuser(),
    }


def percent(text: str, tokens: Mapping[str, str]) -> str:
    """Replace OpenSSH's tokens; one that is not known stays as it is."""
    return re.sub(r"%(.)", lambda m: tokens.get(m[1], m[0]), text)


def expand(text: str, tokens: Mapping[str, str]) -> str:
    """Replace tokens, ``${VARIABLES}`` and a leading ``~`` in a path."""
    text = re.sub(r"\$\{(\w+)\}", lambda m: os.environ.get(m[1], m[0]), percent(text, tokens))
    if text == "~" or text.startswith("~/"):
        return str(home()) + text[1:]
    return os.path.expanduser(text) if text.startswith("~") else text
