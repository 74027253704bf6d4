"""The interfaces of a lab and what is set on them, each line explained."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from vxlab.lab import Lab
from vxlab.lessons.entries import first, missing
from vxlab.lessons.told import Line
from vxlab.lessons.way import address_of
from vxlab.mtu import OVERHEAD
from vxlab.state import Link, State
from vxlab.steps import bridge, overlay
from vxlab.steps.site import SWITCH, States
from vxlab.steps.veth import INSIDE


def _link_line(
    place: str, name: str, link: Link | None, words: Callable[[Link], str], ok: bool = True
) -> Line:
    command = f"ip addr show {name}"
    if link is None:
        return missing(place, command, f"{name} does not exist")
    shown = [f"mtu {link.mtu}", *(["master", link.master] if link.master else [])]
    shown += [f"inet {address}" for address in link.addresses]
    shown += [] if link.up else ["state DOWN"]
    return Line(place, command, f"{name}: {' '.join(shown)}", words(link), ok)


def mtus(lab: Lab, states: States) -> Iterator[Line]:
    here = first(lab)
    state = states[here.name]
    nic, device, wanted = lab.nic(here), overlay.device(lab), lab.overlay_mtu
    added = OVERHEAD[lab.overlay.backend_type]
    yield _link_line(here.name, nic, state.net.links.get(nic), lambda _: "the underlay")
    inner = [("", name) for name in (device, bridge.NAME) if name]
    for c in here.containers[:1]:
        inner += [("", c.veth), (c.name, INSIDE)]
    for where, name in inner:
        link = state.net_of(where).links.get(name)
        right = link is not None and link.mtu == wanted

        def words(link: Link, right: bool = right) -> str:
            reckoned = f"the overlay: {wanted + added} less the {added} bytes put in front"
            if not added:
                reckoned = "the overlay: as much as the underlay, nothing is put in front"
            return reckoned if right else f"the overlay, wanted {wanted}"

        yield _link_line(where or here.name, name, link, words, right)


def veths(lab: Lab, states: States) -> Iterator[Line]:
    here = first(lab)
    state = states[here.name]
    for c in here.containers:
        yield _link_line(here.name, c.veth, state.net.links.get(c.veth), lambda _: "the node's end")
        inside = state.net_of(c.name).links.get(INSIDE)
        yield _link_line(c.name, INSIDE, inside, lambda _: "the container's end")


def bridges(lab: Lab, states: States) -> Iterator[Line]:
    here = first(lab)
    links = states[here.name].net.links
    found = links.get(bridge.NAME)
    yield _link_line(here.name, bridge.NAME, found, lambda _: "the gateway of its containers")
    for name, link in links.items():
        if found and link.master == bridge.NAME:
            yield _link_line(here.name, name, link, lambda _: f"a port of {bridge.NAME}")


def underlay(lab: Lab, states: States) -> Iterator[Line]:
    for node in lab.nodes:
        link = states[node.name].net.links.get(lab.nic(node))
        words = f"{node.name} on the underlay; outer packets come from and go to this address"
        yield _link_line(node.name, lab.nic(node), link, lambda _, words=words: words)  # type: ignore[misc]


def switch(lab: Lab, states: States) -> Iterator[Line]:
    links = states.get(SWITCH, State()).net.links
    for node in lab.nodes:
        link = links.get(node.name)
        yield _link_line(SWITCH, node.name, link, lambda ln: f"the cable to {ln.name}")


def addresses(lab: Lab, states: States) -> Iterator[Line]:
    for c in lab.containers:
        command = f"ip addr show {INSIDE}"
        address, subnet = address_of(c, states), overlay.subnet_of(states[c.node])
        if not address:
            yield missing(c.name, command, f"{c.full_name} has no address")
            continue
        words = f"number .{c.host_number} of {c.node}'s subnet {subnet}"
        yield Line(c.name, command, f"inet {address}", words)


def defaults(lab: Lab, states: States) -> Iterator[Line]:
    for c in lab.containers:
        route = states[c.node].net_of(c.name).route("default")
        if route is None:
            words = f"{c.full_name} has no default route: Network is unreachable"
            yield missing(c.name, "ip route", words)
            continue
        words = f"{route.via} is {c.node}'s {bridge.NAME}"
        right = any(
            a.partition("/")[0] == route.via
            for ln in states[c.node].net.links.values()
            for a in ln.addresses
            if ln.name == bridge.NAME
        )
        shown = f"default via {route.via} dev {route.dev}"
        yield Line(c.name, "ip route", shown, words if right else f"not {words}", right)


def forwarding(lab: Lab, states: States) -> Iterator[Line]:
    key = "net.ipv4.ip_forward"
    for node in lab.nodes:
        value = states[node.name].net.sysctls.get(key, "?")
        words = "a router" if value == "1" else "drops what is not its own"
        yield Line(
            node.name, f"sysctl {key}", f"{key} = {value}", f"{node.name}: {words}", value == "1"
        )
