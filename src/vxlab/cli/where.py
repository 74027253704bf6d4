"""``shell`` and ``exec``: which node or container is meant, and how to get into it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from vxlab.cli import choose
from vxlab.errors import MissingError, UsageError

if TYPE_CHECKING:
    from vxlab.engine.running import Running


def find(running: Running, where: str) -> tuple[str, str]:
    """The node and the container that a word means; no container for a node itself.

    Args:
        where: ``node01``, ``container01`` or ``node01/container01``.

    Raises:
        UsageError: there is none, or there are several.
    """
    lab = running.site.lab
    names = [node.name for node in lab.nodes]
    if where in names or where == "switch":
        return where, ""
    matches = [c for c in lab.containers if where in (c.name, c.full_name)]
    if len(matches) == 1:
        return matches[0].node, matches[0].name
    if matches:
        full = ", ".join(c.full_name for c in matches)
        raise UsageError(f"{where!r} may be any of {full}", hint="name the node, too")
    known = ", ".join([*names[:4], *(c.name for c in lab.containers[:4])])
    raise UsageError(
        f"the lab {lab.name!r} has no node or container {where!r}", hint=f"there are {known} ..."
    )


def enter(where: str | None, lab: str | None, command: Sequence[str]) -> NoReturn:
    """Become a program inside a node or container.

    Args:
        where: see `find`; None for the first container.
        lab: which lab; None for the only one.
        command: program and arguments; none for a shell.
    """
    from vxlab.engine.running import Running
    from vxlab.nodes.local import ENVIRONMENT, entering

    running = Running.attach(choose.directory(lab))
    first = running.site.lab.containers or running.site.lab.nodes
    node, container = find(running, where or first[0].name)
    target = running.node(node)
    environment = {**ENVIRONMENT, "TERM": os.environ.get("TERM", "dumb")}
    if container:
        flags = entering(target.inside(container), user=True, root=True)
        environment |= {"PATH": "/bin", "PS1": f"{container}:\\w# "}
        command = command or ("/bin/sh",)
    else:
        flags = entering(target.proc)
        programs = {str(Path(p).parent) for p in (running.site.etcd, running.site.flanneld)}
        environment["PATH"] = ":".join([environment["PATH"], *sorted(programs)])
        environment |= {"HOME": "/run", "PS1": f"{node}:\\w# ", "ETCDCTL_API": "3"}
        command = command or (("bash", "--norc") if Path("/bin/bash").exists() else ("sh",))
    try:
        os.execvpe(flags[0], [*flags, *command], environment)  # noqa: S606
    except FileNotFoundError:
        raise MissingError("nsenter is not installed", hint="install util-linux") from None
