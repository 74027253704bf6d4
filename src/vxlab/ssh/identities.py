"""Private keys that may open a host: the agent's, and those in files."""

from __future__ import annotations

import base64
import os
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vxlab.ssh.border import library, said
from vxlab.ssh.config import Settings

_MAGIC = b"openssh-key-v1\0"

#: Keys whose passphrase was told once; all connections of this process use them.
_unlocked: dict[Path, Any] = {}
_unlocking = threading.Lock()


@dataclass(frozen=True, slots=True)
class Identity:
    """A key file.

    Args:
        public: the key's public half, in SSH's wire format; empty if the file does not tell.
        private: whether the file holds the private half.
        locked: whether that needs a passphrase.
    """

    path: Path
    public: bytes
    private: bool
    locked: bool


def _strings(data: bytes, count: int) -> list[bytes]:
    """The first strings of a wire-format message (RFC 4251, 5)."""
    found, at = [], 0
    for _ in range(count):
        (size,) = struct.unpack_from(">I", data, at)
        found.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def _public_line(text: bytes) -> bytes:
    """The key of a line such as ``ssh-ed25519 AAAA... comment``; empty if it is none."""
    words = text.split()
    if len(words) < 2 or b"PRIVATE" in text[:80]:
        return b""
    try:
        return base64.b64decode(words[1], validate=True)
    except ValueError:
        return b""


def parse(path: Path, text: bytes, beside: bytes = b"") -> Identity:
    """Read a key file's header; the secret part is left alone.

    Args:
        beside: what the file next to it with ``.pub`` holds.
    """
    public = _public_line(text)
    if public:
        return Identity(path, public, private=False, locked=False)
    if b"BEGIN OPENSSH PRIVATE KEY" not in text:
        locked = b"ENCRYPTED" in text
        return Identity(path, _public_line(beside), private=True, locked=locked)
    body = b"".join(line for line in text.splitlines() if b"-----" not in line)
    try:
        data = base64.b64decode(body).removeprefix(_MAGIC)
        cipher, _, options = _strings(data, 3)
        rest = data[sum(4 + len(each) for each in (cipher, _, options)) + 4 :]
        (public,) = _strings(rest, 1)
    except (ValueError, struct.error):
        return Identity(path, _public_line(beside), private=True, locked=False)
    return Identity(path, public, private=True, locked=cipher != b"none")


def read(path: Path) -> Identity | None:
    """A key file's header; None if there is no such file, or it may not be read."""
    try:
        text = path.read_bytes()
    except OSError:
        return None
    try:
        beside = path.with_name(path.name + ".pub").read_bytes()
    except OSError:
        beside = b""
    return parse(path, text, beside)


def load(identity: Identity, passphrase: str | None = None) -> Any:
    """The private key.

    Raises:
        ValueError: the passphrase is wrong, or this is no key that can be used; says which.
    """
    paramiko = library()
    kinds = {"ssh-ed25519": paramiko.Ed25519Key, "ssh-rsa": paramiko.RSAKey}
    kind = _strings(identity.public, 1)[0].decode() if identity.public else ""
    made = kinds.get(kind) or (paramiko.ECDSAKey if kind.startswith("ecdsa-sha2-") else None)
    secret = passphrase.encode() if passphrase is not None else None
    try:
        if made is not None:
            key = made.from_private_key_file(str(identity.path), secret)
            certificate = identity.path.with_name(identity.path.name + "-cert.pub")
            if certificate.exists():
                key.load_certificate(str(certificate))
            return key
        return paramiko.PKey.from_path(identity.path, secret)
    except (paramiko.SSHException, paramiko.UnknownKeyType, OSError, TypeError) as error:
        raise ValueError(said(error)) from None


class Agent:
    """The user's agent, as far as there is one."""

    def __init__(self, settings: Settings) -> None:
        self._agent: Any = None
        if not settings.agent or not os.path.exists(settings.agent):
            return
        paramiko = library()
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.connect(settings.agent)
            self._agent = paramiko.agent.AgentSSH()
            self._agent._connect(link)
        except (OSError, paramiko.SSHException):
            self._agent = None
            link.close()

    def held(self) -> dict[bytes, Any]:
        """Its keys by their public halves."""
        return {key.blob: key for key in self._agent.get_keys()} if self._agent else {}

    def close(self) -> None:
        if self._agent is not None:
            self._agent._close()


def candidates(settings: Settings, agent: Agent) -> Iterator[tuple[str, Any, Identity | None]]:
    """Keys in the order in which OpenSSH tries them: what it is, the key, or the file to load.

    The agent's keys that the configuration names come first, then its others, then files; those
    that need a passphrase last, since they cost a question.
    """
    files = [found for path in settings.identities if (found := read(path)) is not None]
    held = agent.held()
    for identity in files:
        if identity.public in held:
            yield f"{identity.path} (agent)", held.pop(identity.public), None
    if not settings.only:
        for key in held.values():
            yield f"{key.comment or key.get_name()} (agent)", key, None
    rest = [each for each in files if each.private and each.public not in agent.held()]
    for identity in sorted(rest, key=lambda each: each.locked):
        yield str(identity.path), None, identity


def unlocked(path: Path) -> Any:
    """A key whose passphrase this process was told before."""
    with _unlocking:
        return _unlocked.get(path)


def remember(path: Path, key: Any) -> None:
    """Keep a key for the other connections, so that its passphrase is asked for once."""
    with _unlocking:
        _unlocked[path] = key
