"""The commands of a step, as a person types them, from the very operations that `up` does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface

from vxlab.lab import Lab
from vxlab.lessons.lesson import Lesson, Look
from vxlab.state import State, SubnetEnv
from vxlab.steps import BY_NAME, overlay, steps_of
from vxlab.steps.address import container_address
from vxlab.steps.site import SWITCH, Site, States, changed


@dataclass(frozen=True, slots=True)
class Command:
    """A command, and the machine on which it is typed."""

    place: str  # node01, container01, switch
    text: str


#: Things that the talk's lab does not have, and flannel's configuration that gives them.
_BACKENDS: dict[str, dict[str, str | int | bool]] = {
    "host-gw": {"Type": "host-gw"},
    "udp": {"Type": "udp"},
    "DirectRouting": {"Type": "vxlan", "DirectRouting": True},
}


def example_site(lab: Lab, lesson: Lesson | None = None) -> Site:
    """A lab that is not there, with its programs under their plain names.

    Where the lab would not have what a lesson is about, it is changed into one that has: to
    another backend, or to real hosts, named like the nodes.
    """
    if lesson is not None and lesson.name in _BACKENDS:
        lab = replace(lab, overlay=replace(lab.overlay, backend=_BACKENDS[lesson.name]))
    if lesson is not None and lesson.step and BY_NAME[lesson.step].remote:
        lab = replace(lab, nodes=tuple(replace(n, ssh=f"root@{n.name}:22") for n in lab.nodes))
    return Site(lab, f"/run/{lab.name}", "etcd", "flanneld", "busybox", "/bin")


def example_states(lab: Lab) -> Mapping[str, State]:
    """Nodes that have nothing yet but a subnet: the first ones of the overlay, as an example."""
    net = lab.overlay
    subnets = net.network.subnets(new_prefix=net.subnet_length)
    next(subnets)
    states = {SWITCH: State()}
    for node in lab.nodes:
        subnet = node.subnet or next(subnets)
        gateway = IPv4Interface((subnet[1], subnet.prefixlen))
        states[node.name] = State(subnet_env=SubnetEnv(net.network, gateway, lab.overlay_mtu))
    return states


def commands(step: str, site: Site, states: States) -> Iterator[Command]:
    """What the step does for the node that an example is shown on.

    etcd's node for what is done to etcd, else the first node. A lab that does without the step has
    none.
    """
    lab, on = site.lab, BY_NAME[step].on
    if BY_NAME[step] not in steps_of(lab):
        return
    node = lab.etcd_node if on in ("etcd", "keys") else lab.nodes[0]
    for op in BY_NAME[step].plan(site, node, states):
        place = op.ns or changed(on, node.name)
        yield Command(place, str(op).removeprefix(f"{op.ns}# ") if op.ns else str(op))


def _target(lab: Lab, states: States, node: str) -> str:
    """The address that the first container on another node has, or is to have."""
    others = (c for c in lab.containers if c.node != node)
    planned = (container_address(c, states[c.node]) for c in others)
    return next((str(address.ip) for address in planned if address is not None), "")


def looked(look: Look, lab: Lab, states: States) -> tuple[Command, str] | None:
    """What to look at, and what it shows, with the lab's own names.

    None where this lab has nothing like it.
    """
    if look.backends and lab.overlay.backend_type not in look.backends:
        return None
    device = overlay.device(lab)
    node = lab.etcd_node if look.where == "etcd" else lab.nodes[0]
    holders = [n for n in lab.nodes if n.containers]
    if look.where == "container" or "{veth}" in look.command:
        if not holders:
            return None
        node = holders[0]
    values = {
        "device": device,
        "nic": lab.nic(node) or lab.underlay.interface,
        "veth": node.containers[0].veth if node.containers else "",
        "port": str(8285 if lab.overlay.backend_type == "udp" else lab.overlay.port),
        "target": _target(lab, states, node.name),
    }
    if any(f"{{{name}}}" in look.command and not value for name, value in values.items()):
        return None
    if look.where == SWITCH and lab.remote:
        return None
    text, shows = look.command, look.shows
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
        shows = shows.replace(f"{{{name}}}", value)
    places = {"container": node.containers[0].name if node.containers else "", SWITCH: SWITCH}
    return Command(places.get(look.where, node.name), text), shows
