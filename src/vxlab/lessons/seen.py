"""What a lab that is up shows of each lesson, read from its nodes' states."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

from vxlab.lab import FLANNEL_PREFIX, Lab
from vxlab.lessons import entries, exists_in, links
from vxlab.lessons.entries import first, missing
from vxlab.lessons.lesson import Lesson
from vxlab.lessons.told import Line, remark, sentence, tell
from vxlab.lessons.way import address_of, between
from vxlab.mtu import OVERHEAD
from vxlab.steps.site import States

_ENV = "cat /var/run/flannel/subnet.env"

Seen = Callable[[Lab, States], Iterator[Line]]


def seen(lesson: Lesson, lab: Lab, states: States) -> tuple[Line, ...]:
    """The lesson's subject as it is in the lab, with its real addresses and MACs.

    Nothing is made up: what a node does not have is told as missing.
    """
    if not exists_in(lesson, lab):
        return (remark(_absent(lesson, lab)),)
    lines = list(_SEEN.get(lesson.name, _nothing)(lab, states))
    if lesson.name in _ON_THE_WAY:
        lines = [*_in_short(lab, states), *lines]
    return tuple(lines)


def _absent(lesson: Lesson, lab: Lab) -> str:
    """Why a lab has nothing like it."""
    if lesson.kind == "step":
        other = "of this machine" if lab.remote else "on real hosts"
        return f"{lab.name} does without this step: it is for labs {other}"
    if lesson.name == "DirectRouting" and lab.overlay.backend_type == "vxlan":
        return "DirectRouting is off: all packets between nodes take the tunnel"
    why = {
        "vxlan": "plain routes (DirectRouting)" if lab.overlay.direct_routing else "a VXLAN tunnel",
        "host-gw": "plain routes and nothing in front of a packet",
        "udp": "a tunnel that ends in flanneld itself",
    }[lab.overlay.backend_type]
    return f"there is none: the lab's backend is {lab.overlay.backend_type}, with {why}"


def _nothing(lab: Lab, states: States) -> Iterator[Line]:
    yield from ()


# --- the way of a packet ------------------------------------------------------------------------

#: Lessons that are told the way of a packet in one sentence, before what belongs to them alone.
_ON_THE_WAY: tuple[str, ...] = (
    "VXLAN",
    "VTEP",
    "neighbour",
    "FDB",
    "overlay",
    "flannel",
    "host-gw",
    "udp",
)
_ON_THE_WAY += ("DirectRouting", "forwarding")


def _in_short(lab: Lab, states: States) -> Iterator[Line]:
    found = between(lab, states)
    if found is None:
        holders = sum(bool(node.containers) for node in lab.nodes)
        yield remark(_no_pair(lab, states), ok=holders < 2)
        return
    lines = list(tell(lab, found))
    yield replace(remark(sentence(iter(lines))), ok=lines[-1].ok)


def _no_pair(lab: Lab, states: States) -> str:
    if sum(bool(node.containers) for node in lab.nodes) < 2:
        return "there are no containers on two nodes: nothing has to cross the underlay"
    bare = [c.full_name for c in lab.containers if not address_of(c, states)]
    return f"no way between two nodes yet: without an address {_words(bare)}"


def _words(names: list[str]) -> str:
    verb = "is" if len(names) == 1 else "are"
    return f"{verb} {', '.join(names[:4])}" + (" ..." if len(names) > 4 else "")


def _path(lab: Lab, states: States) -> Iterator[Line]:
    yield from _in_short(lab, states)
    found = between(lab, states)
    if found is not None:
        yield from tell(lab, found)


# --- leases -------------------------------------------------------------------------------------


def _subnet_env(lab: Lab, states: States) -> Iterator[Line]:
    for node in lab.nodes:
        env = states[node.name].subnet_env
        if env is None:
            yield missing(node.name, _ENV, f"{node.name} has no subnet.env: no lease yet")
            continue
        shown = f"FLANNEL_SUBNET={env.subnet}"
        words = f"{node.name}'s containers are in {env.subnet.network}; {env.subnet.ip} is their"
        words += f" gateway, and their MTU is {env.mtu}"
        yield Line(node.name, _ENV, shown, words)


def _leases(lab: Lab, states: States) -> Iterator[Line]:
    keys = states[lab.etcd.node].keys
    command = f"etcdctl get --prefix {FLANNEL_PREFIX}/subnets"
    prefix = f"{FLANNEL_PREFIX}/subnets/"
    if not keys:
        yield missing(lab.etcd.node, command, "etcd did not tell")
    for key, value in sorted(keys.items()):
        if not key.startswith(prefix):
            continue
        subnet = key.removeprefix(prefix).replace("-", "/")
        owner = next((n for n in lab.nodes if f'"{n.address.ip}"' in value), None)
        whose = f"leased by {owner.name}" if owner else "leased by no node of this lab"
        yield Line(lab.etcd.node, command, f"{key} {value}", f"{subnet}: {whose}", bool(owner))


def _config(lab: Lab, states: States) -> Iterator[Line]:
    key = f"{FLANNEL_PREFIX}/config"
    value = states[lab.etcd.node].keys.get(key)
    command = f"etcdctl get {key}"
    if value is None:
        yield missing(lab.etcd.node, command, "etcd did not tell")
        return
    words = f"overlay {lab.overlay.network}, backend {lab.overlay.backend_type}"
    try:
        same = json.loads(value) == json.loads(lab.overlay.flannel_config())
    except ValueError:
        same = False
    if not same:
        words = f"not the lab's configuration, which is {lab.overlay.flannel_config()}"
    yield Line(lab.etcd.node, command, value, words, same)


# --- processes ----------------------------------------------------------------------------------


def _daemon(lab: Lab, states: States, node: str, name: str) -> Line:
    process = states[node].daemons.get(name)
    program = "flanneld" if name == "flannel" else name
    if process is None or not process.alive:
        return missing(node, "ps -ef", f"{program} does not run on {node}")
    return Line(node, "ps -ef", f"PID {process.pid} {process.command}", f"{program} on {node}")


def _etcd(lab: Lab, states: States) -> Iterator[Line]:
    yield _daemon(lab, states, lab.etcd.node, "etcd")


def _flannel(lab: Lab, states: States) -> Iterator[Line]:
    yield _daemon(lab, states, first(lab).name, "flannel")
    yield from entries.routes(lab, states)


def _machines(lab: Lab, states: States) -> Iterator[Line]:
    for c in lab.containers:
        process = states[c.node].machines.get(c.name)
        if process is None or not process.alive:
            yield missing(c.node, "ps -ef", f"{c.full_name} does not run")
        else:
            words = f"{c.full_name}: what is PID {process.pid} on the node is PID 1 inside"
            yield Line(c.node, "ps -ef", f"PID {process.pid}", words)


def _encapsulation(lab: Lab, states: States) -> Iterator[Line]:
    added = OVERHEAD[lab.overlay.backend_type]
    here = first(lab)
    link = states[here.name].net.links.get(lab.nic(here))
    if link is None:
        yield remark(f"{here.name} has no {lab.nic(here)}", ok=False)
        return
    yield remark(f"{link.mtu} bytes on {link.name} leave {link.mtu - added} inside")
    yield from links.mtus(lab, states)


_SEEN: dict[str, Seen] = {
    "path": _path,
    "VXLAN": entries.vteps,
    "VTEP": entries.vteps,
    "VNI": entries.vteps,
    "neighbour": entries.neighbours,
    "FDB": entries.fdb,
    "socket": entries.sockets,
    "encapsulation": _encapsulation,
    "overlay": entries.routes,
    "lease": _leases,
    "subnet.env": _subnet_env,
    "host-gw": entries.routes,
    "DirectRouting": entries.routes,
    "udp": entries.flanneld_socket,
    "switch": links.switch,
    "underlay": links.underlay,
    "etcd": _etcd,
    "config": _config,
    "flannel": _flannel,
    "container": _machines,
    "veth": links.veths,
    "mtu": links.mtus,
    "address": links.addresses,
    "bridge": links.bridges,
    "route": links.defaults,
    "forwarding": links.forwarding,
}

#: Lessons that ask etcd for its keys.
ASKS_ETCD = ("lease", "config")
