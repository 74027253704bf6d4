"""Whether a host is the one that it says: its key against the files of known hosts (sshd(8)).

Strict: a key that is not known there, that has changed or that was revoked ends the connection.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import translate
from pathlib import Path

from vxlab.errors import RefusedError
from vxlab.ssh.config import Settings

#: Connections are opened at the same time; their new keys are written one after the other.
_writing = threading.Lock()

_RSA = ("rsa-sha2-512", "rsa-sha2-256")


@dataclass(frozen=True, slots=True)
class Key:
    """A public key: its type, such as ``ssh-ed25519``, and its bytes."""

    kind: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """As ``ssh-keygen -l`` prints it."""
        digest = hashlib.sha256(self.blob).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    @property
    def line(self) -> str:
        """As in a file of known hosts, without the host."""
        return f"{self.kind} {base64.b64encode(self.blob).decode()}"


@dataclass(frozen=True, slots=True)
class Known:
    """What a file says about a host."""

    key: Key
    marker: str  # "", "@revoked" or "@cert-authority"
    file: Path
    number: int


# --- reading --------------------------------------------------------------------------------------


def _matches(pattern: str, name: str) -> bool:
    """Whether one pattern of a line, hashed or with wildcards, means the host."""
    if pattern.startswith("|1|"):
        _, _, salt, wanted = (*pattern.split("|"), "")[:4]
        return wanted != "" and _hash(salt, name) == wanted
    # Only * and ? are special here: `[` of `[host]:2222` is not.
    shell = pattern.lower().replace("[", "[[]")
    return re.fullmatch(translate(shell), name) is not None


def _hash(salt: str, name: str) -> str:
    try:
        raw = base64.b64decode(salt, validate=True)
    except ValueError:
        return ""
    return base64.b64encode(hmac.digest(raw, name.encode(), "sha1")).decode()


def means(names: str, name: str) -> bool:
    """Whether a line's names mean the host: one does, and none with a ``!`` does."""
    hit = False
    for pattern in names.split(","):
        if pattern.startswith("!"):
            if _matches(pattern[1:], name):
                return False
        elif _matches(pattern, name):
            hit = True
    return hit


def read(file: Path, text: str, name: str) -> Iterator[Known]:
    """What a file's text says about a host; lines that are no entries say nothing."""
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) < 3 or words[0].startswith("#") or not means(words[0], name.lower()):
            continue
        try:
            blob = base64.b64decode(words[2], validate=True)
        except ValueError:
            continue
        yield Known(Key(words[1], blob), marker, file, number)


def known(files: Iterable[Path], name: str) -> list[Known]:
    """All that files say about a host; one that cannot be read says nothing."""
    found: list[Known] = []
    for file in files:
        try:
            text = file.read_text(errors="surrogateescape")
        except OSError:
            continue
        found += read(file, text, name)
    return found


def name_of(settings: Settings) -> str:
    """The host's name in the files: ``[host]:port`` unless the port is 22."""
    if settings.alias:
        return settings.alias
    address = settings.address.lower()
    return address if settings.port == 22 else f"[{address}]:{settings.port}"


class HostKeys:
    """What is known about one host's key.

    Args:
        node: the node's name, for messages.
    """

    def __init__(self, node: str, settings: Settings) -> None:
        self._node, self._settings = node, settings
        self.name = name_of(settings)
        files = (*settings.known, *settings.everywhere)
        self._known = known(files, self.name)
        # A key that is known without its port is accepted, too, as ssh does.
        bare = not settings.alias and settings.port != 22
        self._elsewhere = known(files, settings.address) if bare else []

    def preferred(self, algorithms: Sequence[str]) -> tuple[str, ...]:
        """Key algorithms, those first whose key is known: only that one can be compared."""
        kinds = {each.key.kind for each in (*self._known, *self._elsewhere) if not each.marker}
        ours = kinds | (set(_RSA) if "ssh-rsa" in kinds else set())
        return tuple(sorted(algorithms, key=lambda each: each not in ours))

    def check(self, key: Key, *, accept_new: bool) -> None:
        """Go on only if the host's key is the known one.

        Args:
            accept_new: remember the key if none is known; a changed one is refused all the same.

        Raises:
            RefusedError: it is not; says both fingerprints, and what accepts the key.
        """
        every = (*self._known, *self._elsewhere)
        revoked = [each for each in every if each.marker == "@revoked" and each.key == key]
        if revoked:
            raise self._changed(key, revoked, "was revoked")
        plain = [each for each in every if not each.marker]
        if any(each.key == key for each in plain):
            return
        other = [each for each in self._known if not each.marker]
        if other:
            raise self._changed(key, other, "has changed")
        if not accept_new:
            raise self._unknown(key)
        self._append(key)

    def _changed(self, key: Key, entries: Sequence[Known], what: str) -> RefusedError:
        lines = [f"now    {key.kind} {key.fingerprint}"]
        lines += [
            f"known  {e.key.kind} {e.key.fingerprint} ({e.file}, line {e.number})" for e in entries
        ]
        files = dict.fromkeys(e.file for e in entries)
        forget = " and ".join(f"`ssh-keygen -R '{self.name}' -f {file}`" for file in files)
        return RefusedError(
            f"the host key of {self._settings.place} {what}: somebody may listen in",
            where=self._node,
            detail="\n".join(lines),
            hint="if you know why (a new machine at the old address): " + forget
            if what == "has changed"
            else "do not trust this host until its owner gave it a new key",
        )

    def _unknown(self, key: Key) -> RefusedError:
        hint = (
            f"compare the fingerprint with `ssh-keygen -lf` on the host; if it is right, add to "
            f"{self._settings.known[0]}\n{self.name} {key.line}\n"
            "or let --accept-new-host-keys do so without comparing"
        )
        return RefusedError(
            f"the host key of {self._settings.place} is not known",
            where=self._node,
            detail=f"{key.kind} {key.fingerprint}",
            hint=hint,
        )

    def _append(self, key: Key) -> None:
        """Remember a new key, unless another connection just did."""
        file = self._settings.known[0]
        with _writing:
            if any(each.key == key for each in known([file], self.name)):
                return
            try:
                _add(file, f"{self._written()} {key.line}\n")
            except OSError as error:
                raise RefusedError(
                    f"the host key of {self._settings.place} is new and cannot be remembered",
                    where=self._node,
                    detail=f"{file}: {error.strerror}",
                    hint="make the file writable, or name another one as UserKnownHostsFile",
                ) from None

    def _written(self) -> str:
        if not self._settings.hashed:
            return self.name
        salt = base64.b64encode(os.urandom(20)).decode()
        return f"|1|{salt}|{_hash(salt, self.name)}"


def _add(file: Path, line: str) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with open(fd, "r+b", buffering=0) as known_hosts:
        size = os.fstat(fd).st_size
        whole = size == 0 or os.pread(fd, 1, size - 1) == b"\n"
        known_hosts.write((b"" if whole else b"\n") + line.encode())
