"""tcpdump for a host that has none: this machine's, with the libraries and the loader it needs."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from vxlab.errors import MissingError


def bundle(tcpdump: Path) -> tuple[Path, ...]:
    """The files to put into one directory of a host, so that a program runs there.

    Args:
        tcpdump: this machine's.

    Returns:
        The program, its shared libraries, and the dynamic loader. A static one stands alone.

    Raises:
        MissingError: there is no ldd, or a library is not to be found.
    """
    try:
        completed = subprocess.run(
            ["ldd", str(tcpdump)], capture_output=True, text=True, check=False, env={"LC_ALL": "C"}
        )
    except FileNotFoundError as error:
        raise _refused(tcpdump, str(error)) from None
    if completed.returncode:
        said = completed.stdout + completed.stderr
        if "not a dynamic executable" in said or "statically linked" in said:
            return (tcpdump,)
        raise _refused(tcpdump, said)
    files = [tcpdump]
    for line in completed.stdout.splitlines():
        name, arrow, path = line.strip().partition(" => ")
        if path == "not found":
            raise _refused(tcpdump, line.strip())
        word = (path if arrow else name).split(" (")[0]
        if word.startswith("/"):  # the rest is the kernel's: linux-vdso
            files.append(Path(word))
    return tuple(dict.fromkeys(files))


def bundled(names: Sequence[str], directory: str) -> list[str]:
    """The beginning of the command line that runs a bundle.

    Args:
        names: the names of its files.
        directory: where the host has them.
    """
    loaders = [name for name in names if name.startswith("ld-")]
    program = f"{directory}/tcpdump"
    if not loaders:
        return [program]
    # Without --inhibit-cache the host's own, possibly older libraries could be preferred.
    flags = ["--inhibit-cache", "--library-path", directory]
    return [f"{directory}/{loaders[0]}", *flags, program]


def _refused(tcpdump: Path, said: str) -> MissingError:
    hint = "install tcpdump on the hosts; then none has to travel"
    return MissingError(
        "cannot tell which libraries tcpdump needs",
        where=str(tcpdump),
        detail=said.strip(),
        hint=hint,
    )
