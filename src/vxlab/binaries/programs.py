"""Programs as this machine has them: where PATH finds them, and whether they stand alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

#: ELF: the program asks for a dynamic loader, which a bare root file system does not have.
_PT_INTERP = 3


def candidates(name: str) -> Iterator[Path]:
    """Every executable file of this name on PATH, in PATH's order."""
    for directory in os.environ.get("PATH", os.defpath).split(os.pathsep):
        # An empty or relative entry means the current directory: nothing to run programs from.
        path = os.path.join(directory, name)
        if os.path.isabs(path) and os.path.isfile(path) and os.access(path, os.X_OK):
            yield Path(path)


def which(name: str) -> Path | None:
    """The first executable of this name on PATH."""
    return next(candidates(name), None)


def is_static(path: Path) -> bool:
    """Whether a program needs nothing but the kernel, as in a container's bare root file system.

    Read from the ELF header (System V ABI, chapter 5): a program header of type PT_INTERP names a
    dynamic loader. What is not ELF, a script for example, needs more than the kernel too.
    """
    import struct

    with path.open("rb") as file:
        head = file.read(64)
        if len(head) < 52 or head[:4] != b"\x7fELF" or head[4] not in (1, 2):
            return False
        order = "<" if head[5] == 1 else ">"
        at, offset, width = (54, 32, "Q") if head[4] == 2 else (42, 28, "I")
        (table,) = struct.unpack_from(order + width, head, offset)
        size, count = struct.unpack_from(order + "HH", head, at)
        file.seek(table)
        headers = file.read(size * count)
    if size < 4 or len(headers) < size * count:
        return False
    types = (struct.unpack_from(order + "I", headers, size * i)[0] for i in range(count))
    return count > 0 and _PT_INTERP not in types
