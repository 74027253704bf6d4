"""``vxlab logs``: what etcd or the flannelds write. Works on a lab that is down, too."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from vxlab.cli import choose
from vxlab.cli.login import login
from vxlab.errors import UsageError
from vxlab.report import text

if TYPE_CHECKING:
    from vxlab.lab import Lab
    from vxlab.nodes.remote import RemoteNode

_FILES = {"etcd": "etcd.log", "flannel": "flannel.log"}


@click.command("logs")
@click.argument("daemon", type=click.Choice(list(_FILES)))
@click.option("--node", help="Only this node's flanneld.")
@click.option("-f", "--follow", is_flag=True, help="Go on as lines are written.")
@click.option("-n", "--lines", type=click.IntRange(0), help="Only the last lines of each log.")
@click.option("--lab", help="Which lab; default: the only one.")
def command(
    daemon: str, node: str | None, follow: bool, lines: int | None, lab: str | None
) -> None:
    """Show the log of etcd, or of the flannelds, each line with its node."""
    from vxlab.engine.running import stored_lab

    directory = choose.directory(lab)
    built = stored_lab(directory) if directory.exists() else None
    if built is None:
        raise UsageError(f"there is no lab called {directory.name!r}", hint="`vxlab up` builds one")
    names = [built.etcd.node] if daemon == "etcd" else [n.name for n in built.nodes]
    if node is not None:
        if node not in names:
            raise UsageError(f"{daemon} does not run on {node!r}", hint=f"try {names[0]}")
        names = [node]
    prefix = max(map(len, names)) if len(names) > 1 else 0
    if built.remote:
        _on_hosts(built, names, _FILES[daemon], lines, prefix, follow=follow)
        return
    logs = {name: directory.node(name) / "log" / _FILES[daemon] for name in names}
    offsets = {}
    for name, path in logs.items():
        data = path.read_bytes() if path.exists() else b""
        offsets[name] = len(data)
        _print(name, data.decode(errors="replace").splitlines(), prefix, lines)
    if follow:
        try:
            _follow(logs, offsets, prefix)
        except KeyboardInterrupt:  # the way to end it: nothing to say
            sys.exit(130)


def _on_hosts(
    lab: Lab, names: list[str], file: str, last: int | None, prefix: int, *, follow: bool
) -> None:
    """Show logs of real hosts; what is added is streamed by each host's own tail."""
    from vxlab.nodes.remote import close, connected, targets

    wanted = {name: target for name, target in targets(lab).items() if name in names}
    nodes = connected(lab.name, wanted, login())
    try:
        seen = {}
        for name, node in nodes.items():
            whole = (node.read(f"/var/log/{file}") or "").splitlines()
            seen[name] = len(whole)
            _print(name, whole, prefix, last)
        if follow:
            _stream(nodes, file, seen, prefix)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        close(nodes)


def _stream(nodes: Mapping[str, RemoteNode], file: str, seen: dict[str, int], prefix: int) -> None:
    lines: queue.SimpleQueue[tuple[str, str | None]] = queue.SimpleQueue()

    def copy(name: str) -> None:
        start = f"+{seen[name] + 1}"
        with nodes[name].stream(["tail", "-n", start, "-F", f"/var/log/{file}"]) as stream:
            rest = b""
            while data := stream.stdout.read(1 << 16):
                *whole, rest = (rest + data).split(b"\n")
                for line in whole:
                    lines.put((name, line.decode(errors="replace")))
        lines.put((name, None))

    for name in nodes:
        threading.Thread(target=copy, args=(name,), daemon=True).start()
    open_ones = set(nodes)
    while open_ones:
        name, line = lines.get()
        if line is None:
            open_ones.discard(name)
            text.tell(f"{name}: the connection ended")
        else:
            _print(name, [line], prefix, None)


def _follow(logs: dict[str, Path], offsets: dict[str, int], prefix: int) -> NoReturn:
    while True:
        for name, line in _new(logs, offsets):
            _print(name, [line], prefix, None)
        time.sleep(0.2)


def _print(name: str, lines: list[str], prefix: int, last: int | None) -> None:
    for line in lines if last is None else lines[len(lines) - min(last, len(lines)) :]:
        text.say(f"{text.style(f'{name:<{prefix}} │', 'dim')} {line}" if prefix else line)


def _new(logs: dict[str, Path], offsets: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Whole lines that were added since the last look; a log that began anew is read from there."""
    for name, path in logs.items():
        if not path.exists():
            continue
        with path.open("rb") as file:
            if path.stat().st_size < offsets[name]:
                offsets[name] = 0
            file.seek(offsets[name])
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        offsets[name] += len(whole)
        for line in whole.decode(errors="replace").splitlines():
            yield name, line
