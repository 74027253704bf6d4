"""SHA-256 of the programs that travel to real hosts: a hundred megabytes, reckoned once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vxlab.binaries.cache import Cache

_FILE = "digests.json"


def digests(files: Mapping[str, Path]) -> dict[str, str]:
    """The SHA-256 of each program, in hexadecimal, by name.

    A digest is kept in the private cache together with all that changes when a file does.

    Raises:
        MissingError: the cache cannot be made or is not trusted.
        OSError: a program cannot be read.
    """
    cache = Cache()
    cache.create()
    known = _read(cache.path / _FILE)
    marks = {name: _mark(path) for name, path in files.items()}
    new = [name for name in files if marks[name] not in known]
    if new:
        with ThreadPoolExecutor(2) as pool:
            found = pool.map(_digest, [files[name] for name in new])
        known |= dict(zip((marks[name] for name in new), found, strict=True))
        _write(cache, {mark: known[mark] for mark in known if _still(mark)})
    return {name: known[marks[name]] for name in files}


def _mark(path: Path) -> str:
    seen = path.stat()
    return f"{seen.st_ino} {seen.st_size} {seen.st_mtime_ns} {seen.st_ctime_ns} {path}"


def _still(mark: str) -> bool:
    """Whether a program is as it was; the others need not be remembered."""
    path = Path(mark.split(" ", 4)[4])
    try:
        return _mark(path) == mark
    except OSError:
        return False


def _read(path: Path) -> dict[str, str]:
    try:
        data = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _write(cache: Cache, known: Mapping[str, str]) -> None:
    with cache.work() as work:
        draft = work / _FILE
        draft.write_text(json.dumps(known, indent=1))
        os.replace(draft, cache.path / _FILE)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
