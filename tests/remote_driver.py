"""Builds a lab on real hosts in this process and prints how many programs each host was sent.

    remote_driver.py LAB

Run on the controller by `test_remote_cost`. Programs that only look whether something that is
waited for has happened are not counted: how many they are is a matter of time.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from vxlab import labfile
from vxlab.cli.building import cargo, programs
from vxlab.engine import hosts
from vxlab.journal import LabDirectory
from vxlab.nodes.remote import Login, RemoteNode

sent: Counter[str] = Counter()
_LOOKS = ("cat /proc/net/route", "if [ -f /run/flannel/subnet.env ]", "/run/vxlab/daemons/flannel")


def main() -> None:
    script = RemoteNode.script

    def counted(node: RemoteNode, program: str, line: Callable[[str], None] | None = None) -> str:
        if not (len(program) < 500 and any(word in program for word in _LOOKS)):
            sent[node.name] += 1
        return script(node, program, line)

    RemoteNode.script = counted  # type: ignore[assignment, method-assign]
    lab = labfile.load(Path(sys.argv[1]))
    directory = LabDirectory(lab.name)
    with directory.locked("remote_driver", create=True):
        result = hosts.up(
            lab,
            directory,
            lambda: cargo(programs(verbose=False)),
            Login(lambda question: None),
            lambda event: None,
        )
    json.dump({"programs": sent, "changes": len(result.changes)}, sys.stdout)


if __name__ == "__main__":
    main()
