"""A lab's directory: its journal, its lock, the lab as it was built, its nodes' files.

The journal is written before the change: what undoes a step's operations is on disk before the
first of them is applied, so that a kill at any instant leaves nothing that `teardown` does not
find. The world of a local lab is one entry: everything in it ends with its PID 1.

    $VXLAB_HOME/labs/NAME/
        journal      one JSON object per line, the oldest first
        lab.json     the lab as it was built; the lab file may be gone by now
        owner        who works on the lab at the moment (the lock is on the directory itself)
        hosts        the nodes' /etc/hosts
        nodes/       each node's /run and /var/log
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vxlab.errors import BusyError, JournalError
from vxlab.ops import Op, from_json, to_json

_FORMAT = 1


def home() -> Path:
    """Where vxlab keeps its labs: ``$VXLAB_HOME``, else vxlab's place in ``$XDG_STATE_HOME``."""
    chosen = os.environ.get("VXLAB_HOME")
    if chosen:
        return Path(chosen).absolute()
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(state) / "vxlab"


@dataclass(frozen=True, slots=True)
class WorldRecord:
    """The PID 1 of a local lab's world. A PID alone may be a stranger's by now."""

    pid: int
    start: int  # clock ticks since boot
    boot: str  # the kernel's boot id

    def alive(self) -> bool:
        return self.boot == boot_id() and process_start(self.pid) == self.start


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def process_start(pid: int) -> int | None:
    """When a process started, in clock ticks since boot (proc(5)); None if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return start_in(stat)


def start_in(stat: str) -> int | None:
    """The start time in a process's ``stat`` file (proc(5)), in clock ticks; None if it is dead."""
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _explained(path: Path, error: OSError) -> JournalError:
    return JournalError(
        f"cannot use the lab's directory: {error.strerror}",
        where=str(path),
        hint="free space or fix the permissions there, or set VXLAB_HOME to another directory",
    )


class LabDirectory:
    """One lab's directory on this machine."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = home() / "labs" / name
        self._lock: int | None = None
        self._writing = threading.Lock()  # `up` journals from several threads

    @property
    def journal(self) -> Path:
        return self.path / "journal"

    def exists(self) -> bool:
        """Whether anything of the lab is there.

        Raises:
            JournalError: this user may not look.
        """
        try:
            return self.path.is_dir()
        except PermissionError as error:
            raise _explained(self.path, error) from None

    def node(self, name: str) -> Path:
        return self.path / "nodes" / name

    def make_run(self, name: str) -> None:
        """Make the directory that a node sees as /run.

        Raises:
            JournalError: it cannot be made.
        """
        try:
            (self.node(name) / "run").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _explained(self.node(name), error) from None

    # --- the lock -------------------------------------------------------------------------------

    @contextmanager
    def locked(self, command: str, *, create: bool = False) -> Iterator[None]:
        """Hold the lab for one command.

        Raises:
            BusyError: another command holds it; says which.
            JournalError: the directory cannot be made.
        """
        try:
            self._acquire(command, create=create)
        except OSError as error:
            raise _explained(self.path, error) from None
        try:
            yield
        finally:
            if self._lock is not None:
                if self._is_ours(self._lock):
                    (self.path / "owner").unlink(missing_ok=True)
                os.close(self._lock)
                self._lock = None

    def _acquire(self, command: str, *, create: bool) -> None:
        for _ in range(100):  # a teardown may remove the directory between open and lock
            if create:
                self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            elif not self.exists():
                return
            try:
                lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                raise self._busy() from None
            if self._is_ours(lock):
                self._lock = lock
                (self.path / "owner").write_text(f"{command} (PID {os.getpid()})\n")
                return
            os.close(lock)
        raise self._busy()

    def _header(self) -> str:
        return json.dumps({"vxlab": _FORMAT, "lab": self.name}) + "\n"

    def _is_ours(self, lock: int) -> bool:
        """Whether the directory that was opened still is the lab's, not removed and made anew."""
        try:
            return os.path.samestat(os.fstat(lock), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _busy(self) -> BusyError:
        try:
            owner = (self.path / "owner").read_text().strip()
        except OSError:
            owner = ""
        return BusyError(
            f"another command works on the lab {self.name!r}: {owner or 'it just started'}",
            hint="wait for it to end, or stop it, then try again",
        )

    # --- the journal ----------------------------------------------------------------------------

    def append(self, *entries: dict[str, Any], sync: bool = False) -> None:
        """Add entries before the change that they undo.

        Args:
            entries: JSON objects.
            sync: wait for the disk. What ends with a reboot anyway need not.
        """
        lines = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
        try:
            fd = os.open(self.journal, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                with self._writing:
                    self._write(fd, lines)
                if sync:
                    os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise _explained(self.journal, error) from None

    def _write(self, fd: int, lines: bytes) -> None:
        """Write whole lines or nothing; half a line of an earlier try is taken away first."""
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            size = os.pread(fd, size, 0).rfind(b"\n") + 1
            os.ftruncate(fd, size)
        if size == 0:
            lines = self._header().encode() + lines
        if os.write(fd, lines) != len(lines):
            os.ftruncate(fd, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def append_undo(self, node: str, undo: Iterable[Op]) -> None:
        """Write what takes a step back on a node, in the order in which it must be done."""
        operations = [to_json(op) for op in undo]
        if operations:
            self.append({"node": node, "undo": operations})

    def entries(self) -> list[dict[str, Any]]:
        """All entries, the oldest first.

        Raises:
            JournalError: the journal is not one, or it is another lab's.
        """
        try:
            text = self.journal.read_text()
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise self._corrupt(str(error)) from None
        lines = text.splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):
            cut = lines.pop()  # while it was written: its change was not begun
            if not lines and not self._header().startswith(cut):
                raise self._corrupt("it does not begin as a journal of this version does")
        try:
            entries = [json.loads(line) for line in lines]
        except (ValueError, RecursionError) as error:
            raise self._corrupt(str(error)) from None
        if not entries:
            return []
        head = entries[0]
        if not all(isinstance(e, dict) for e in entries) or head.get("vxlab") != _FORMAT:
            raise self._corrupt("it does not begin as a journal of this version does")
        if head.get("lab") != self.name:
            raise self._corrupt(f"it is the journal of the lab {head.get('lab')!r}")
        return entries[1:]

    def _corrupt(self, why: str) -> JournalError:
        return JournalError(
            f"the journal of the lab {self.name!r} cannot be read: {why}",
            where=str(self.journal),
            hint=f"`vxlab teardown {self.name} --force` finds what runs by its mark and removes it",
        )

    def undo(self) -> Iterator[tuple[str, Op]]:
        """What takes the lab back, the newest change first."""
        for entry in reversed(self.entries()):
            try:
                undo = [(entry["node"], from_json(data)) for data in entry.get("undo", [])]
            except KeyError:
                raise self._corrupt("an undo entry names no node") from None
            except (TypeError, ValueError) as error:
                raise self._corrupt(str(error)) from None
            yield from undo

    def world(self) -> WorldRecord | None:
        """The newest world that the journal tells of, alive or not."""
        for entry in reversed(self.entries()):
            if "world" in entry:
                try:
                    record = WorldRecord(**entry["world"])
                except TypeError:
                    raise self._corrupt("its world entry is malformed") from None
                if [type(v) for v in (record.pid, record.start, record.boot)] != [int, int, str]:
                    raise self._corrupt("its world entry is malformed")
                return record
        return None

    def hosts(self) -> dict[str, str] | None:
        """Where the hosts of a lab on real hosts are, by node; None for a lab on this machine.

        What was changed on them is in their own journals.
        """
        for entry in reversed(self.entries()):
            if "hosts" in entry:
                return dict(entry["hosts"])
        return None

    # --- the rest -------------------------------------------------------------------------------

    def write(self, name: str, text: str) -> None:
        """Write a file of the lab, all of it or nothing."""
        path = self.path / name
        draft = path.with_name(f".{path.name}.new")
        try:
            draft.write_text(text)
            draft.replace(path)
        except OSError as error:
            raise _explained(path, error) from None

    def read(self, name: str) -> str | None:
        """A file of the lab, None if there is none.

        Raises:
            JournalError: it cannot be read or is no text.
        """
        path = self.path / name
        try:
            return path.read_text()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise JournalError(
                f"what is stored of the lab {self.name!r} cannot be read",
                where=str(path),
                detail=str(error),
                hint=f"`vxlab teardown {self.name} --force` removes the lab",
            ) from None

    def remove(self) -> None:
        """Remove the lab's directory and, when they are empty, those above it."""
        shutil.rmtree(self.path)
        for parent in (self.path.parent, self.path.parent.parent):
            try:
                parent.rmdir()
            except OSError:
                return  # another lab lives there


def names() -> list[str]:
    """All labs of this user, by name.

    Raises:
        JournalError: this user may not look.
    """
    folder = home() / "labs"
    try:
        return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    except PermissionError as error:
        raise _explained(folder, error) from None


def valid_name(name: str) -> bool:
    """Whether a lab may be called so; the name is a directory and an interface's mark."""
    return re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", name) is not None
