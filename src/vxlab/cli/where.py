"""``shell`` and ``exec``: which node or container is meant, and how to get into it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from vxlab.cli import choose
from vxlab.cli.login import login
from vxlab.errors import MissingError, UsageError

if TYPE_CHECKING:
    from vxlab.lab import Lab
    from vxlab.nodes.local import LocalNode
    from vxlab.nodes.remote import RemoteNode
    from vxlab.steps.site import Site


def find(lab: Lab, where: str) -> tuple[str, str]:
    """The node and the container that a word means; no container for a node itself.

    Args:
        where: ``node01``, ``container01`` or ``node01/container01``.

    Raises:
        UsageError: there is none, or there are several.
    """
    names = [node.name for node in lab.nodes]
    if where in names or (where == "switch" and not lab.remote):
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
    from vxlab.engine.running import Running, no_lab, stored_site
    from vxlab.nodes.local import LocalNode
    from vxlab.nodes.remote import connected

    directory = choose.directory(lab)
    site = stored_site(directory)
    if site is None:
        raise no_lab(directory)
    first = site.lab.containers or site.lab.nodes
    node, container = find(site.lab, where or first[0].name)
    words = _environment(site, node, container)
    if not site.lab.remote:
        target = Running.attach(directory, login()).node(node)
        assert isinstance(target, LocalNode)  # noqa: S101
        _become(target, container, command, words)
    host = connected(site.lab.name, {node: site.lab.node(node).ssh}, login())[node]
    try:
        sys.exit(_on_host(host, container, command, words))
    finally:
        host.close()


def _environment(site: Site, node: str, container: str) -> dict[str, str]:
    """What a program in a node or container gets; nothing of the caller's own but TERM."""
    from vxlab.nodes.etcdctl import environment
    from vxlab.nodes.local import ENVIRONMENT

    words = {**ENVIRONMENT, "TERM": os.environ.get("TERM", "dumb")}
    if container:
        return words | {"PATH": "/bin", "PS1": f"{container}:\\w# "}
    programs = {str(Path(p).parent) for p in (site.etcd, site.flanneld)}
    words["PATH"] = ":".join([words["PATH"], *sorted(programs)])
    words |= {"HOME": "/run", "PS1": f"{node}:\\w# ", "ETCDCTL_API": "3"}
    return words | (environment(site) if site.lab.remote and node == site.lab.etcd.node else {})


def _become(
    node: LocalNode, container: str, command: Sequence[str], environment: Mapping[str, str]
) -> NoReturn:
    from vxlab.nodes.local import entering

    if container:
        flags = entering(node.inside(container), user=True, root=True)
        command = command or ("/bin/sh",)
    else:
        flags = entering(node.proc)
        command = command or (("bash", "--norc") if Path("/bin/bash").exists() else ("sh",))
    try:
        os.execvpe(flags[0], [*flags, *command], environment)  # noqa: S606
    except FileNotFoundError:
        raise MissingError("nsenter is not installed", hint="install util-linux") from None


def _on_host(
    node: RemoteNode, container: str, command: Sequence[str], environment: Mapping[str, str]
) -> int:
    """Run a command on a real host or in a container there; its exit code."""
    argv = [*node.into(container), "env", "-i", *(f"{k}={v}" for k, v in environment.items())]
    if not command:
        bash = "command -v bash >/dev/null && exec bash --norc; exec sh"
        command = ("/bin/sh",) if container else ("sh", "-c", bash)
    argv += command
    if sys.stdin.isatty() and sys.stdout.isatty():
        return node.connection.terminal(argv)
    from vxlab.ssh import relay

    return relay(node.stream(argv, stdin=True))
