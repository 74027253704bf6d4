"""Runs ``vxlab up`` and stops it at a chosen instant, as a crash or Ctrl-C would.

    crash_driver.py HOW POINT

HOW is ``kill`` (SIGKILL to itself) or ``interrupt`` (SIGINT to its process group). POINT is one of

    before:K    the journal holds what undoes operation K, which is not yet done
    after:K     operation K is done
    blank:K     the journal's entry K is not written yet (0: the world waits for it)
    write:K     in the middle of writing the journal's entry K, which is cut off (0: the world's)
    entry:K     entry K is in the journal, and nothing after it was begun
    draft       a file of the lab is drafted, but not in its place
    put, kept   before and after flannel's configuration goes to etcd
    never       not at all; prints the number of operations and of journal entries

Operations are counted over the whole run and carried out one at a time, whatever the step's batch.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vxlab import cli
from vxlab.etcd import Etcd
from vxlab.journal import LabDirectory
from vxlab.nodes.local import LocalNode
from vxlab.ops import Op

HOW, POINT = sys.argv[1:3]
counts = {"operations": 0, "entries": 0}
lock = threading.Lock()


def stop() -> None:
    """End here; nothing after this happens in the thread that called it."""
    if HOW == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    os.killpg(0, signal.SIGINT)


def number(what: str) -> int:
    with lock:
        counts[what] += 1
        return counts[what] - 1


def reached(point: str) -> None:
    if point == POINT:
        stop()


apply = LocalNode.apply


def one_by_one(
    node: LocalNode, todo: Sequence[Op], done: Callable[[Op], None], undo: Sequence[Op] = ()
) -> None:
    apply(node, [], done, undo)  # all of it is journaled before the first operation
    for op in todo:
        k = number("operations")
        reached(f"before:{k}")
        apply(node, [op], done)
        reached(f"after:{k}")


append = LabDirectory.append


def journalled(directory: LabDirectory, *entries: dict[str, Any], sync: bool = False) -> None:
    k = number("entries")
    reached(f"blank:{k}")
    before = directory.journal.stat().st_size if directory.journal.exists() else 0
    append(directory, *entries, sync=sync)
    if f"write:{k}" == POINT:
        whole = directory.journal.stat().st_size
        os.truncate(directory.journal, before + (whole - before) * 2 // 3)
        stop()
    reached(f"entry:{k}")


put = Etcd.put


def kept(etcd: Etcd, key: str, value: str) -> None:
    reached("put")
    put(etcd, key, value)
    reached("kept")


replace = Path.replace


def moved(draft: Path, target: Any) -> Any:
    reached("draft")
    return replace(draft, target)


def main() -> None:
    for owner, name, new in (
        (LocalNode, "apply", one_by_one),
        (LabDirectory, "append", journalled),
        (Etcd, "put", kept),
        (Path, "replace", moved),
    ):
        setattr(owner, name, new)
    sys.argv[1:] = ["up"]
    try:
        cli.main()
    finally:
        if POINT == "never":
            print(*counts.values(), file=sys.stderr)


if __name__ == "__main__":
    main()
