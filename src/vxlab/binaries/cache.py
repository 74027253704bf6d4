"""The programs that vxlab got for itself, kept between runs so that a lab needs no network.

One directory of mode 0700 holds the programs, ``manifest.json`` says what each one is, ``lock``
lets one process at a time change it. A program counts only if the manifest knows it: the manifest
is replaced last, so an interrupted install leaves files that nobody trusts.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vxlab.errors import MissingError

Tell = Callable[[str], None]

_FORMAT = 1
_PART = ".part-"  # prefix of the private directories in which something is being made


@dataclass(frozen=True, slots=True)
class Stamp:
    """One cached file as it was when it was put there."""

    name: str
    sha256: str
    size: int  # bytes
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One cached program: where it came from, and its files (etcd brings etcdctl)."""

    version: str
    source: str
    files: tuple[Stamp, ...]


class NotTrusted(Exception):  # noqa: N818 - an answer, not a failure of the program
    """Why the cache does not give out a program; never leaves `vxlab.binaries`."""


def directory() -> Path:
    """Where the lab's programs are kept: $VXLAB_CACHE, $XDG_CACHE_HOME/vxlab or ~/.cache/vxlab.

    Raises:
        MissingError: there is no home directory to put it in.
    """
    if own := os.environ.get("VXLAB_CACHE"):
        return Path(os.path.abspath(os.path.expanduser(own)))
    # A relative XDG_CACHE_HOME is invalid and to be ignored (XDG Base Directory Specification).
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.expanduser("~/.cache")
    if not os.path.isabs(base):
        raise MissingError(
            "there is no home directory for the programs' cache",
            hint="set VXLAB_CACHE to a directory of your own",
        )
    return Path(base) / "vxlab"


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal; 35 ms for flanneld's 70 MB."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Cache:
    """The directory with the lab's programs (etcd, flanneld, a static busybox)."""

    __slots__ = ("path",)

    def __init__(self, path: Path | None = None) -> None:
        self.path = directory() if path is None else path

    def create(self) -> None:
        """Make the directory, readable by its owner alone.

        Raises:
            MissingError: it cannot be made, or others may write to it.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.mkdir(mode=0o700, exist_ok=True)
            self.check()
        except (OSError, NotTrusted) as error:
            raise MissingError(
                "the programs' cache cannot be used",
                where=str(self.path),
                detail=str(error),
                hint="set VXLAB_CACHE to a directory of your own",
            ) from error

    def check(self) -> None:
        """Whether only the owner can have put something here; one stat.

        Raises:
            NotTrusted: others may write to it, or it belongs to another user.
            FileNotFoundError: it is not there.
        """
        seen = self.path.stat()
        if not stat.S_ISDIR(seen.st_mode):
            raise NotTrusted(f"{self.path} is not a directory")
        owners = {0, os.geteuid()}
        if os.geteuid() == 0 and (caller := os.environ.get("SUDO_UID", "")).isdigit():
            owners.add(int(caller))
        if seen.st_uid not in owners:
            raise NotTrusted(f"{self.path} belongs to another user (uid {seen.st_uid})")
        if seen.st_mode & 0o022:
            raise NotTrusted(f"others may write to {self.path} (mode {seen.st_mode & 0o777:o})")

    def entry(self, program: str, *, full: bool = False) -> Entry:
        """The cached program, if it is still what was put there.

        Args:
            program: its name, such as ``flanneld``.
            full: read every byte and compare the SHA-256. Otherwise size and modification time
                decide, and only a file whose time alone differs is read.

        Raises:
            NotTrusted: it is not there or not what it was; says why.
        """
        try:
            self.check()
        except FileNotFoundError:
            raise NotTrusted("not there") from None
        entry = self.manifest().get(program)
        if entry is None:
            raise NotTrusted("not there")
        for stamp in entry.files:
            self._check_file(stamp, full)
        return entry

    def manifest(self) -> dict[str, Entry]:
        """What the cache holds, by program; raises NotTrusted when the manifest is damaged."""
        try:
            data = json.loads((self.path / "manifest.json").read_bytes())
            if data["format"] != _FORMAT:
                raise NotTrusted("manifest.json is of another version of vxlab")
            return {name: _entry(value) for name, value in data["programs"].items()}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise NotTrusted("manifest.json is damaged") from error

    def place(self, program: str, files: Mapping[str, Path], version: str, source: str) -> None:
        """Take checked files over into the cache; the caller holds the lock.

        Args:
            program: the name under which `entry` gives them out.
            files: file name in the cache -> file in a work directory, which moves.
            version: such as ``v0.27.4``, or empty.
            source: where it came from, in words.
        """
        stamps = []
        for name, made in files.items():
            made.chmod(0o755)
            _sync(made)
            digest, seen = sha256(made), made.stat()
            stamps.append(Stamp(name, digest, seen.st_size, seen.st_mtime_ns))
            made.replace(self.path / name)
        try:
            known = self.manifest()
        except NotTrusted:
            known = {}  # nothing of a damaged manifest is believed; the programs are got again
        known[program] = Entry(version, source, tuple(stamps))
        self._write_manifest(known)

    @contextmanager
    def lock(self, tell: Tell) -> Iterator[None]:
        """Keep other processes from changing the cache; tells when it has to wait for one."""
        # The kernel drops the lock with its process, however that ends, and children do not inherit
        # the descriptor: an abandoned lock cannot exist.
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                tell(f"another vxlab works on {self.path}; waiting for it")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def work(self) -> Iterator[Path]:
        """A private directory on the cache's file system, gone afterwards."""
        import tempfile

        while True:
            path = Path(tempfile.mkdtemp(prefix=_PART, dir=self.path))
            descriptor = _hold(path)
            if descriptor is not None:
                break
        try:
            yield path
        finally:
            _remove(path)
            os.close(descriptor)

    def sweep(self) -> None:
        """Remove what killed installs left behind, and nothing that is still being worked on."""
        for path in self.path.glob(f"{_PART}*"):
            descriptor = _hold(path)
            if descriptor is not None:
                _remove(path)
                os.close(descriptor)

    def _check_file(self, stamp: Stamp, full: bool) -> None:
        path = self.path / stamp.name
        try:
            seen = path.lstat()
        except FileNotFoundError:
            raise NotTrusted(f"{stamp.name} is gone") from None
        if not stat.S_ISREG(seen.st_mode) or seen.st_size != stamp.size:
            raise NotTrusted(f"{stamp.name} is not the file that was put there")
        if not seen.st_mode & 0o100:
            raise NotTrusted(f"{stamp.name} is not executable")
        # A restored or copied cache has new times and the same bytes: then it is worth reading.
        if (full or seen.st_mtime_ns != stamp.mtime_ns) and sha256(path) != stamp.sha256:
            raise NotTrusted(f"{stamp.name} is not the file that was put there (SHA-256 differs)")

    def _write_manifest(self, programs: Mapping[str, Entry]) -> None:
        import tempfile
        from dataclasses import asdict

        data = {"format": _FORMAT, "programs": {n: asdict(e) for n, e in programs.items()}}
        descriptor, name = tempfile.mkstemp(prefix=_PART, dir=self.path)
        with os.fdopen(descriptor, "w") as file:
            json.dump(data, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, self.path / "manifest.json")


def _entry(value: Any) -> Entry:
    files = tuple(
        Stamp(str(f["name"]), str(f["sha256"]), int(f["size"]), int(f["mtime_ns"]))
        for f in value["files"]
    )
    if not files or any("/" in stamp.name for stamp in files):
        raise ValueError("a cached program has files, and they lie in the cache")
    return Entry(str(value["version"]), str(value["source"]), files)


def _hold(path: Path) -> int | None:
    """Lock a work directory for as long as this process works in it; None if another one does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.exists(path):  # not swept between its making and its locking
            return descriptor
    except BlockingIOError:
        pass  # its maker lives
    os.close(descriptor)
    return None


def _remove(path: Path) -> None:
    """Remove a directory or file as far as possible."""
    import shutil

    if path.is_dir():
        # An orphan of a killed install may still write here; the next sweep gets the rest.
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
