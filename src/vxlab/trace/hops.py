"""Hops: the interfaces that a packet passes, named as one would type them.

``node01:flannel.1`` is an interface of a node, ``node01/container01:vethNS`` one of a container.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from vxlab.errors import UsageError
from vxlab.lab import Container, Lab, Node
from vxlab.steps import bridge, overlay
from vxlab.steps.site import SWITCH
from vxlab.steps.veth import INSIDE

#: As a place: everywhere. As an interface: every interface of the place.
ALL = "all"

# The kernel's rule for interface names (dev_valid_name: at most 15 bytes), without a colon.
_INTERFACE = re.compile(r"[^\s/:]{1,15}")


@dataclass(frozen=True, slots=True)
class Hop:
    """One interface that packets pass.

    Args:
        node: the node it belongs to, or ``switch``.
        container: the container it is in; empty for one of the node's own.
        interface: its name there.
    """

    node: str
    container: str
    interface: str

    @property
    def place(self) -> str:
        """Where it is: ``node01`` or ``node01/container01``."""
        return f"{self.node}/{self.container}" if self.container else self.node

    @property
    def name(self) -> str:
        """As one types it: ``node01:flannel.1`` or ``node01/container01:vethNS``."""
        return f"{self.place}:{self.interface}"

    def __str__(self) -> str:
        return self.name


def underlay(lab: Lab, node: Node) -> Hop:
    """The node's NIC on the underlay, which the outer packets leave by."""
    return Hop(node.name, "", lab.nic(node))


def inside(container: Container) -> Hop:
    """The container's end of its cable."""
    return Hop(container.node, container.name, INSIDE)


def _cable(container: Container) -> Hop:
    """The node's end of a container's cable."""
    return Hop(container.node, "", container.veth)


def _cbr0(node: str) -> Hop:
    return Hop(node, "", bridge.NAME)


def _vtep(lab: Lab, node: str) -> list[Hop]:
    """The node's overlay interface; none where flannel makes no such thing (host-gw)."""
    name = overlay.device(lab)
    return [Hop(node, "", name)] if name else []


def of_node(lab: Lab, node: Node) -> list[Hop]:
    """All hops on a node, from the underlay to its containers' own ends."""
    hops = [underlay(lab, node), *_vtep(lab, node.name), _cbr0(node.name)]
    for container in node.containers:
        hops += [_cable(container), inside(container)]
    return hops


def every(lab: Lab) -> list[Hop]:
    """All hops of a lab's nodes and containers, node by node."""
    return [hop for node in lab.nodes for hop in of_node(lab, node)]


def path(lab: Lab, src: Container, dst: Container) -> list[Hop]:
    """The hops that a packet passes from one container to another, in this order.

    Between containers of one node it is bridged: cbr0 itself, the node's own port, does not see it.
    Without encapsulation (host-gw, DirectRouting) it does not pass the overlay interface.
    """
    if src.node == dst.node:
        return [inside(src), _cable(src), _cable(dst), inside(dst)]
    wrapped = overlay.encapsulated(lab) or lab.overlay.backend_type == "udp"
    leaving, arriving = (_vtep(lab, c.node) if wrapped else [] for c in (src, dst))
    there = [inside(src), _cable(src), _cbr0(src.node), *leaving]
    there += [underlay(lab, lab.node(src.node)), underlay(lab, lab.node(dst.node))]
    return [*there, *arriving, _cbr0(dst.node), _cable(dst), inside(dst)]


def without_ethernet(lab: Lab, hop: Hop) -> bool:
    """Whether frames at a hop begin with their IP header: flannel0 of flannel's udp backend."""
    tun = lab.overlay.backend_type == "udp" and hop.interface == overlay.device(lab)
    return tun and not hop.container


def described(lab: Lab, hop: Hop) -> str:
    """What a hop is, in words."""
    if hop.node == SWITCH:
        return f"the switch's port to {hop.interface}"
    if hop.container:
        return f"{hop.container}'s end of its cable" if hop.interface == INSIDE else ""
    ends = {c.veth: c.name for c in lab.node(hop.node).containers}
    if hop.interface in ends:
        return f"{hop.node}'s end of the cable to {ends[hop.interface]}"
    kind = lab.overlay.backend_type
    vtep = f"VTEP of VNI {lab.overlay.vni}" if kind == "vxlan" else f"flannel's {kind} device"
    names = {
        lab.nic(lab.node(hop.node)): "interface on the underlay",
        overlay.device(lab): vtep,
        bridge.NAME: "bridge, the containers' gateway",
    }
    return f"{hop.node}'s {names[hop.interface]}" if hop.interface in names else ""


def parse(lab: Lab, words: Iterable[str]) -> list[Hop]:
    """The hops that words mean, each once, in the order in which they are named.

    Args:
        lab: the lab.
        words: each PLACE or PLACE:INTERFACE. PLACE is a node (its underlay interface, unless one
            is named), a container (its vethNS), ``switch`` (its ports to the nodes) or ``all``.
            INTERFACE may be ``all``, too. Whether it exists is seen only where it is.

    Raises:
        UsageError: a word means nothing, or more than one thing; with what is close to it.
    """
    found: dict[Hop, None] = {}
    for word in words:
        found |= dict.fromkeys(_meant(lab, word))
    return list(found)


def is_place(lab: Lab, word: str) -> bool:
    """Whether a word begins with a place of the lab, as `parse` takes it."""
    place = word.partition(":")[0]
    return place in (ALL, *_switch(lab)) or place in _places(lab)


def _meant(lab: Lab, word: str) -> list[Hop]:
    place, colon, interface = word.partition(":")
    if colon and not _INTERFACE.fullmatch(interface):
        raise UsageError(
            f"{interface!r} cannot be an interface", where=word, hint=f"such as {_example(lab)}"
        )
    if place == ALL:
        return _everywhere(lab, interface or ALL)
    if place in _switch(lab):
        ports = [node.name for node in lab.nodes]
        return [Hop(SWITCH, "", p) for p in ([interface] if interface not in ("", ALL) else ports)]
    for node in lab.nodes:
        if place == node.name:
            return _on_node(lab, node, interface)
    matches = [c for c in lab.containers if place in (c.name, c.full_name)]
    if len(matches) > 1:
        full = ", ".join(c.full_name for c in matches)
        raise UsageError(f"{place!r} may be any of {full}", hint="name the node, too")
    if not matches:
        raise unknown(lab, word)
    container = matches[0]
    name = INSIDE if interface in ("", ALL) else interface
    return [Hop(container.node, container.name, name)]


def _on_node(lab: Lab, node: Node, interface: str) -> list[Hop]:
    if not interface:
        return [underlay(lab, node)]
    if interface == ALL:
        return [hop for hop in of_node(lab, node) if not hop.container]
    return [Hop(node.name, "", interface)]


def _everywhere(lab: Lab, interface: str) -> list[Hop]:
    found = [hop for hop in every(lab) if interface in (ALL, hop.interface)]
    if not found:
        names = list(dict.fromkeys(hop.interface for hop in every(lab)))
        near = get_close_matches(interface, names, n=1)
        hint = f"did you mean all:{near[0]}?" if near else f"there are {', '.join(names[:6])}"
        raise UsageError(f"no node or container has an interface {interface!r}", hint=hint)
    return found


def unknown(lab: Lab, word: str) -> UsageError:
    """The answer to a word that is no place of the lab; with what is close to it."""
    place, colon, interface = word.partition(":")
    near = get_close_matches(place, [*_places(lab), ALL, *_switch(lab)], n=2)
    owners = [hop.name for hop in every(lab) if hop.interface == word]  # the place was left out
    if owners:
        hint = f"did you mean {owners[0]}, or all:{word}?"
    elif near:
        hint = "did you mean " + " or ".join(f"{n}{colon}{interface}" for n in near) + "?"
    else:
        hint = f"such as {_example(lab)}; `vxlab status` shows what is there"
    return UsageError(f"the lab {lab.name!r} has no node or container {place!r}", hint=hint)


def _places(lab: Lab) -> list[str]:
    """Every name of a node or container, the full ones last."""
    nodes = [node.name for node in lab.nodes]
    return [*nodes, *(c.name for c in lab.containers), *(c.full_name for c in lab.containers)]


def _switch(lab: Lab) -> list[str]:
    return [] if lab.remote else [SWITCH]


def _example(lab: Lab) -> str:
    node = lab.nodes[0]
    shown = [node.name, of_node(lab, node)[1].name, *(c.name for c in lab.containers[:1]), ALL]
    return ", ".join(shown)
