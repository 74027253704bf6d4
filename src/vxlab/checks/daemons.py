"""Do etcd, the flannelds and the containers run?"""

from __future__ import annotations

from collections.abc import Iterator

from vxlab.checks.finding import Evidence, Finding
from vxlab.state import Process, State

CODE = "daemons"


def answer(evidence: Evidence) -> Iterator[Finding]:
    for node in evidence.lab.nodes:
        state = evidence.states.get(node.name, State())
        wanted = {"flannel": state.daemons.get("flannel")}
        if node.name == evidence.lab.etcd.node:
            wanted = {"etcd": state.daemons.get("etcd"), **wanted}
        wanted |= {c.name: state.machines.get(c.name) for c in node.containers}
        dead = [name for name, process in wanted.items() if process is None or not process.alive]
        if dead:
            seen = f"not running: {', '.join(dead)}"
            log = next((name for name in dead if name in ("etcd", "flannel")), None)
            fix = f"vxlab logs {log} --node {node.name} says why; vxlab up" if log else "vxlab up"
            yield Finding(CODE, node.name, False, seen, "all running", fix)
        else:
            shown = ", ".join(f"{name} {_pid(process)}" for name, process in wanted.items())
            yield Finding(CODE, node.name, True, shown)


def _pid(process: Process | None) -> str:
    return f"PID {process.pid}" if process else ""
