"""``vxlab status``: what is up, and what differs from the lab."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from vxlab.cli import choose
from vxlab.cli.login import login
from vxlab.report import text

if TYPE_CHECKING:
    from vxlab.engine.running import Drift
    from vxlab.lab import Lab, Node
    from vxlab.state import Process, State


@click.command("status")
@click.argument("lab", required=False, shell_complete=choose.complete_lab)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def command(lab: str | None, as_json: bool) -> None:
    """Show LAB's nodes, containers, addresses, VTEPs and daemons, and what drifted.

    Exit code 0: as wanted. 1: something drifted or the lab is down; `vxlab up` repairs it.
    """
    from vxlab.engine.running import Running, drift, stored_lab

    directory = choose.directory(lab)
    record = directory.world() if directory.exists() else None
    if record is not None and not record.alive() and (built := stored_lab(directory)):
        _down(built, as_json)
        sys.exit(1)
    running = Running.attach(directory, login())
    states = running.states()
    found = drift(running.site, states)
    running.close()
    built = running.site.lab
    if as_json:
        text.dump(_as_json(built, states, found))
    else:
        _show(built, states, found)
    sys.exit(1 if found else 0)


def _down(lab: Lab, as_json: bool) -> None:
    if as_json:
        text.dump({"lab": lab.name, "up": False, "nodes": [], "drift": []})
        return
    text.say(f"{lab.name} is down: its processes are gone (was this machine restarted?)")
    text.say(f"`vxlab up {lab.name}` builds it again, `vxlab teardown {lab.name}` removes it")


def _show(lab: Lab, states: dict[str, State], found: list[Drift]) -> None:
    from vxlab.steps import overlay

    what = f"overlay {lab.overlay.network} MTU {lab.overlay_mtu}, {lab.overlay.backend_type}"
    if lab.overlay.backend_type == "vxlan":
        what += f" VNI {lab.overlay.vni} port {lab.overlay.port}"
    size = f"{text.plural(len(lab.nodes), 'node')}, "
    size += text.plural(len(lab.containers), "container")
    text.say(f"{text.style(lab.name, 'bold')}: {size}; {what}")
    text.say()
    rows = []
    for node in lab.nodes:
        state = states[node.name]
        link = state.net.links.get(overlay.device(lab))
        subnet = str(overlay.subnet_of(state) or "-")
        flanneld = _daemon(state.daemons.get("flannel"))
        mac = link.mac if link else "-"
        rows.append([node.name, str(node.address.ip), subnet, mac, flanneld])
    text.say(text.table(rows, header=["node", "underlay", "subnet", "VTEP MAC", "flanneld"]))
    text.say()
    etcd = _daemon(states[lab.etcd.node].daemons.get("etcd"))
    text.say(f"  etcd on {lab.etcd.node} at {lab.etcd_url}: {etcd}")
    text.say()
    rows = [_container(node, states[node.name], i) for node in lab.nodes for i in _count(node)]
    if rows:
        text.say(text.table(rows, header=["container", "address", "MTU", "veth", "PID 1"]))
        text.say()
    if not found:
        text.say(text.style("as wanted: nothing drifted", "green"))
        return
    text.say(text.style(f"drifted ({len(found)}); `vxlab up` repairs:", "red"))
    text.reasons((d.node, d.step, d.reason) for d in found)


def _count(node: Node) -> range:
    return range(len(node.containers))


def _daemon(process: Process | None) -> str:
    if process is None or not process.alive:
        return "gone"
    return f"PID {process.pid}, {process.rss // 1024} MiB"


def _container(node: Node, state: State, index: int) -> list[str]:
    from vxlab.steps.veth import INSIDE

    container = node.containers[index]
    link = state.net_of(container.name).links.get(INSIDE)
    process = state.machines.get(container.name)
    pid = str(process.pid) if process and process.alive else "gone"
    address = link.addresses[0] if link and link.addresses else "-"
    mtu = str(link.mtu) if link else "-"
    return [container.full_name, address, mtu, container.veth, pid]


def _as_json(lab: Lab, states: dict[str, State], found: list[Drift]) -> dict[str, Any]:
    from vxlab.steps import overlay

    def process(p: Process) -> dict[str, Any]:
        return {"pid": p.pid, "alive": p.alive, "rss_kib": p.rss}

    nodes = []
    for node in lab.nodes:
        state = states[node.name]
        link = state.net.links.get(overlay.device(lab))
        subnet = overlay.subnet_of(state)
        containers = []
        for index in _count(node):
            name, address, mtu, veth, pid = _container(node, state, index)
            containers.append(
                {
                    "name": name.partition("/")[2],
                    "address": None if address == "-" else address,
                    "mtu": int(mtu) if mtu.isdecimal() else None,
                    "veth": veth,
                    "pid": int(pid) if pid.isdecimal() else None,
                }
            )
        nodes.append(
            {
                "name": node.name,
                "underlay": str(node.address),
                "subnet": str(subnet) if subnet else None,
                "vtep_mac": link.mac if link else None,
                "daemons": {n: process(p) for n, p in sorted(state.daemons.items())},
                "containers": containers,
            }
        )
    drifted = [
        {"node": d.node, "step": d.step, "reason": d.reason, "command": d.command} for d in found
    ]
    return {"lab": lab.name, "up": True, "nodes": nodes, "drift": drifted}
