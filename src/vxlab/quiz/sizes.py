"""Questions about bytes: MTUs, and what a packet measures on the wire."""

from __future__ import annotations

from random import Random

from vxlab.lessons.way import Way
from vxlab.mtu import OVERHEAD
from vxlab.quiz.question import Question, choice, free
from vxlab.quiz.scene import Ask, Scene, some
from vxlab.state import Link
from vxlab.steps.veth import INSIDE

_HEADERS = 28  # IPv4 and ICMP, in front of a ping's data
_PARTS = {
    "vxlan": "20 (IPv4), 8 (UDP), 8 (VXLAN), 14 (inner Ethernet)",
    "udp": "20 (IPv4), 8 (UDP)",
}


def _added(way: Way) -> tuple[int, str]:
    """Bytes that are put in front of a packet on this way, and which they are."""
    if way.tunnel:
        return OVERHEAD["vxlan"], _PARTS["vxlan"]
    if way.device is not None and way.device.kind == "tun":
        return OVERHEAD["udp"], _PARTS["udp"]
    return 0, "nothing"


def _inside(scene: Scene, way: Way) -> Link | None:
    return scene.state(way.src.node).net_of(way.src.name).links.get(INSIDE)


def _fitting(scene: Scene) -> list[tuple[Way, int]]:
    """Ways with the MTU that both containers and the interface between them have."""
    found = []
    for way in scene.ways:
        ends = (way.src, way.dst)
        links = [scene.state(c.node).net_of(c.name).links.get(INSIDE) for c in ends]
        mtus = {link.mtu if link else 0 for link in links}
        if len(mtus) == 1 and way.device is not None and way.device.mtu >= max(mtus):
            found.append((way, max(mtus)))
    return found


def mtu(scene: Scene, rng: Random) -> Question | None:
    placed = some(rng, scene.placed())
    if placed is None:
        return None
    container, _ = placed
    link = scene.state(container.node).net_of(container.name).links[INSIDE]
    return free(
        "mtu",
        f"What MTU does {INSIDE} in {container.full_name} have, in bytes?",
        link.mtu,
        "It is the largest IP packet that the container sends in one piece.",
        f"{container.name}# ip link show {INSIDE}",
    )


def mtu_why(scene: Scene, rng: Random) -> Question | None:
    placed = some(rng, scene.placed())
    if placed is None:
        return None
    container, _ = placed
    state = scene.state(container.node)
    node = scene.lab.node(container.node)
    link = state.net_of(container.name).links[INSIDE]
    nic = state.net.links.get(scene.lab.nic(node))
    kind = scene.lab.overlay.backend_type
    added = OVERHEAD[kind]
    if nic is None or nic.mtu - link.mtu != added:
        return None
    room = {name: f"room for the headers put in front: {parts}" for name, parts in _PARTS.items()}
    nothing = "nothing is put in front of a packet"
    answer = room.get(kind, nothing)
    wrong = [
        *room.values(),
        *([nothing] if added else []),
        "the veth pair keeps some bytes of each packet for itself",
        "a bridge adds a VLAN tag of 4 bytes to each frame",
        "flannel encrypts the packets, which makes them longer",
    ]
    rest = f"{nic.mtu} - {added} = {link.mtu}" if added else f"all of {nic.mtu} is left"
    return choice(
        rng,
        "mtu_why",
        f"{nic.name} of {node.name} has an MTU of {nic.mtu}, {INSIDE} in {container.full_name} one"
        f" of {link.mtu}. Why?",
        answer,
        wrong,
        f"The backend is {kind}: {rest}.",
    )


def wire_bytes(scene: Scene, rng: Random) -> Question | None:
    found = some(rng, _fitting(scene))
    if found is None:
        return None
    way, most = found
    data = rng.choice([n for n in (56, 100, 200, 500, 1000, 1200, 1400) if n + _HEADERS <= most])
    added, parts = _added(way)
    total = data + _HEADERS + added
    reckoned = f"{data} + 8 (ICMP) + 20 (IPv4) = {data + _HEADERS} inside"
    reckoned += f", and in front: {parts}; {total} in all." if added else "; nothing is added."
    return free(
        "wire_bytes",
        f"{way.src.full_name} pings {way.target} with `-s {data}`. How many bytes does the IP"
        f" packet have that leaves {way.src.node} by {way.nic}?",
        total,
        reckoned,
        f"{way.src.node}# tcpdump -n -v -i {way.nic}",
    )


def largest_ping(scene: Scene, rng: Random) -> Question | None:
    found = some(rng, _fitting(scene))
    if found is None:
        return None
    way, most = found
    return free(
        "largest_ping",
        f"With don't-fragment set, what is the largest `ping -s` from {way.src.full_name} to"
        f" {way.target} that passes?",
        most - _HEADERS,
        f"The MTU is {most}; 20 bytes IPv4 and 8 bytes ICMP are in front of the data.",
        f"{way.src.name}# ip link show {INSIDE}",
    )


def too_large(scene: Scene, rng: Random) -> Question | None:
    way = some(rng, [w for w in scene.ways if _added(w)[0]])
    if way is None:
        return None
    nic = scene.state(way.src.node).net.links.get(way.nic)
    if nic is None:
        return None
    added, parts = _added(way)
    return free(
        "too_large",
        f"Were a packet of {nic.mtu} bytes from {way.src.full_name} encapsulated in one piece, how"
        " many bytes would the outer IP packet have?",
        nic.mtu + added,
        f"{nic.mtu} + {added}, for {parts}. {nic.name} carries {nic.mtu}: it would not fit.",
    )


def in_front(scene: Scene, rng: Random) -> Question | None:
    way = some(rng, list(scene.ways))
    if way is None:
        return None
    names = {
        OVERHEAD["vxlan"]: "IPv4, UDP, VXLAN and Ethernet headers: 50 bytes",
        OVERHEAD["udp"]: "IPv4 and UDP headers: 28 bytes",
        0: "nothing: the packet is routed as it is",
    }
    added, _ = _added(way)
    wrong = [words for count, words in names.items() if count != added]
    return choice(
        rng,
        "in_front",
        f"{way.src.full_name} sends an IP packet to {way.target}. What comes in front of it when"
        f" it leaves {way.src.node}, besides the underlay's own Ethernet header?",
        names[added],
        [*wrong, "an IPv4 header: 20 bytes"],
        f"The route leads out of {way.route.dev if way.route else '?'}; the backend is"
        f" {scene.lab.overlay.backend_type}.",
        f"{way.src.node}# ip route",
    )


ASKS: tuple[Ask, ...] = (mtu, mtu_why, wire_bytes, largest_ping, too_large, in_front)
