"""Typing a command in a node or container, and whether it shows what the talk says."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vxlab.engine.running import Running
from vxlab.engine.walk.stages import Cast, Look, filled
from vxlab.errors import MissingError
from vxlab.nodes.local import ENVIRONMENT, LocalNode, entering
from vxlab.steps.site import Site

#: Seconds after which a command that only looks counts as stuck.
_PATIENCE = 30.0

#: The machine's own programs that the looks need, besides what a lab needs anyway.
PROGRAMS = ("awk", "bridge", "ip", "ps", "ss")


@dataclass(frozen=True, slots=True)
class Difference:
    """Where reality is not what the talk says."""

    expected: str
    seen: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What a command showed, and in which way that is not what the talk says."""

    look: Look
    place: str
    command: str
    output: str
    remark: str = ""
    differs: Difference | None = None


def look(running: Running, cast: Cast, what: Look, words: dict[str, str]) -> Seen:
    """Type the command; words that its output tells are added to `words`."""
    node, container = cast.place(what.where)
    command = filled(what.command, words)
    code, output = typed(running, node, container, command)
    differs = next(_differences(what, code, output, words), None)
    remark = filled(what.remark, words)
    return Seen(what, container or node, command, output, remark, differs)


def _differences(what: Look, code: int, output: str, words: dict[str, str]) -> Iterator[Difference]:
    """In which ways the output is not what the talk says."""
    if what.works is not (code == 0):
        wanted = "succeeds" if what.works else "fails"
        yield Difference(f"the command {wanted}", f"it ended with exit code {code}")
    for pattern in what.shows:
        wanted = filled(pattern, words, pattern=True)
        found = re.search(wanted, output)
        if found is None:
            yield Difference(f"in the output: {_plain(pattern, words)}", "it is not there")
        else:
            words |= found.groupdict()
    for pattern in what.lacks:
        if re.search(filled(pattern, words, pattern=True), output):
            yield Difference(f"not in the output: {_plain(pattern, words)}", "it is there")


def _plain(pattern: str, words: Mapping[str, str]) -> str:
    """A pattern as a person reads it."""
    text = re.sub(r"\(\?P<(\w+)>(\[[^]]*\]|[^)])*\)|\(\?m\)\^ \+", r"\1", pattern)
    return filled(re.sub(r"\\[bs]\*?", " ", text), words).strip()


def typed(running: Running, node: str, container: str, command: str) -> tuple[int, str]:
    """A command's exit code and its output, errors in between as a terminal shows them."""
    target = running.nodes[node]
    assert isinstance(target, LocalNode)  # noqa: S101 - see `cast_of`
    if container:
        flags = entering(target.inside(container), user=True, root=True)
        words = {**ENVIRONMENT, "PATH": "/bin"}
    else:
        flags = entering(target.proc)
        words = _environment(running.site)
    done = subprocess.run(
        [*flags, "sh", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=words,
        text=True,
        errors="replace",
        timeout=_PATIENCE,
        check=False,
    )
    return done.returncode, done.stdout


def _environment(site: Site) -> dict[str, str]:
    """A node's shell, as `vxlab shell` gives it: etcdctl is found beside etcd."""
    places = sorted({str(Path(program).parent) for program in (site.etcd, site.flanneld)})
    path = ":".join([ENVIRONMENT["PATH"], *places])
    return {**ENVIRONMENT, "PATH": path, "HOME": "/run", "ETCDCTL_API": "3"}


def need_programs(site: Site) -> None:
    """Whether the talk's commands are on this machine.

    Raises:
        MissingError: some are not.
    """
    from shutil import which

    path = _environment(site)["PATH"]
    missing = [name for name in (*PROGRAMS, "etcdctl") if which(name, path=path) is None]
    if missing:
        raise MissingError(
            f"the demo's commands are not on this machine: {', '.join(missing)}",
            where=path,
            hint="install iproute2, procps and awk; etcdctl belongs beside etcd",
        )
