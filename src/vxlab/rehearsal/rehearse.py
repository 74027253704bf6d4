"""A whole lab, rehearsed: per step and machine, what would be typed there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from vxlab.lab import UNKNOWN, Lab, Node
from vxlab.ops import cleared, pending
from vxlab.rehearsal.command import Command, typed
from vxlab.rehearsal.found import found, supposed, supposed_states
from vxlab.rehearsal.shell import Shell
from vxlab.state import State
from vxlab.steps import steps_of
from vxlab.steps.site import SWITCH, Site, States, Step, changed

#: The namespaces in which all of a local lab lives, and which are made before its first step.
WORLD = typed(
    "unshare --user --map-root-user --mount --uts --ipc --net --pid --fork --mount-proc sh",
    "a shell in namespaces of its own: the switch and the nodes live there, not on the host",
)


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What one step would type on one machine, the node or the switch."""

    step: str
    node: str
    commands: tuple[Command, ...]

    def as_json(self) -> dict[str, object]:
        """The object that ``--json`` prints."""
        return {"step": self.step, "node": self.node, "commands": [str(c) for c in self.commands]}


def rehearse(site: Site, states: States | None = None, to: str | None = None) -> list[Rehearsed]:
    """What building a lab would type, step by step.

    Args:
        site: the lab and how its programs are called.
        states: what its machines look like; None if there is nothing of the lab yet.
        to: the last step; None for all.

    Returns:
        the steps' commands in the talk's order, each node's by itself; none of a step that has
        nothing to do.
    """
    site = supposed(site)
    empty = dict.fromkeys((SWITCH, *(node.name for node in site.lab.nodes)), State())
    seen = empty if states is None else {**empty, **states}
    planned = supposed_states(site.lab, seen)
    typing = {name: _shell(site, name, seen, planned) for name in planned}
    rehearsed = []
    for step in steps_of(site.lab):
        for node in concerned(site.lab, step):
            machine = changed(step.on, node.name)
            plan = step.plan(site, node, planned)
            todo = cleared((op for op, _ in pending(plan, seen[machine])), seen[machine])
            commands = list(typing[machine].type(todo))
            if step.name == "switch" and states is None:
                commands.insert(0, WORLD)
            if commands:
                rehearsed.append(Rehearsed(step.name, machine, tuple(commands)))
        if step.name == to:
            break
    return rehearsed


def _shell(site: Site, name: str, seen: States, planned: States) -> Shell:
    known = seen[name].subnet_env is not None
    return Shell(site.lab, name, found(site.lab, name, planned, known))


def concerned(lab: Lab, step: Step) -> Iterator[Node]:
    """The nodes that a step works for: all, etcd's, or the first in the name of the switch."""
    if step.on in ("nodes", "cables"):
        yield from lab.nodes
    else:
        yield lab.nodes[0] if step.on == "switch" else lab.etcd_node


def known(lab: Lab, built: Lab | None) -> Lab:
    """A lab of real hosts with what an earlier `up` has learnt of them: NICs, addresses, the MTU.

    Args:
        lab: as its file says.
        built: as it was built, if it ever was.
    """
    if built is None or not lab.remote:
        return lab
    there = {(node.name, node.ssh): node for node in built.nodes}

    def located(node: Node) -> Node:
        old = there.get((node.name, node.ssh))
        if old is None or node.address.ip not in (UNKNOWN.ip, old.address.ip):
            return node
        if node.interface not in ("", old.interface):
            return node
        return replace(node, address=old.address, interface=old.interface)

    mtu = lab.underlay.mtu or built.underlay.mtu
    nodes = tuple(map(located, lab.nodes))
    return replace(lab, nodes=nodes, underlay=replace(lab.underlay, mtu=mtu))
