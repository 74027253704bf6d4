"""Questions about tables: which line leads a packet where, and what is missing without one."""

from __future__ import annotations

from random import Random

from vxlab.lessons.told import fdb_text, neighbour_text, route_text
from vxlab.lessons.way import Way
from vxlab.quiz.question import Question, choice, free
from vxlab.quiz.question import address as asked_address
from vxlab.quiz.scene import Ask, Scene, some


def neighbour_mac(scene: Scene, rng: Random) -> Question | None:
    way = some(rng, scene.tunnels())
    if way is None or way.neighbour is None:
        return None
    entry, node = way.neighbour, way.src.node
    return choice(
        rng,
        "neighbour_mac",
        f"Which MAC does the neighbour entry of {entry.address} on {node}'s {entry.dev} give?",
        entry.mac,
        scene.macs(),
        f"{entry.address} is the next hop to {way.peer.name}'s subnet; the entry gives the MAC of"
        f" {way.peer.name}'s VTEP.",
        f"{node}# ip neigh show dev {entry.dev}",
    )


def fdb_address(scene: Scene, rng: Random) -> Question | None:
    way = some(rng, scene.tunnels())
    if way is None or way.entry is None:
        return None
    entry, node = way.entry, way.src.node
    return free(
        "fdb_address",
        f"To which address does the FDB of {node}'s {entry.dev} send frames for {entry.mac}?",
        entry.dst,
        f"{entry.mac} is the MAC of {way.peer.name}'s VTEP; dst in the entry is that node's"
        " address on the underlay.",
        f"{node}# bridge fdb show dev {entry.dev}",
        also=(way.peer.name, str(way.peer.address)),
    )


def fdb_count(scene: Scene, rng: Random) -> Question | None:
    found = some(rng, scene.vteps())
    if found is None or scene.lab.overlay.direct_routing:
        return None
    node, link = found
    fdb = scene.state(node.name).net.fdb
    count = sum(f.dev == link.name and bool(f.dst) for f in fdb)
    return free(
        "fdb_count",
        f"How many entries with a remote address (dst) does the FDB of {node.name}'s {link.name}"
        " have?",
        count,
        f"flanneld writes one for every other node: {len(scene.lab.nodes) - 1} in this lab.",
        f"{node.name}# bridge fdb show dev {link.name}",
    )


def frame_mac(scene: Scene, rng: Random) -> Question | None:
    way = some(rng, scene.tunnels())
    if way is None or way.neighbour is None:
        return None
    return choice(
        rng,
        "frame_mac",
        f"{way.src.full_name} pings {way.target}. Which destination MAC has the Ethernet frame"
        " inside the VXLAN packet?",
        way.neighbour.mac,
        scene.macs(),
        f"The inner frame goes from VTEP to VTEP: its destination is {way.peer.name}'s VTEP, not"
        " the container.",
        f"{way.src.node}# ip neigh show dev {way.neighbour.dev}",
    )


def vtep_mac(scene: Scene, rng: Random) -> Question | None:
    found = some(rng, scene.vteps())
    if found is None:
        return None
    node, link = found
    return choice(
        rng,
        "vtep_mac",
        f"Which MAC does {node.name}'s VTEP have?",
        link.mac,
        scene.macs(),
        f"The VTEP is {link.name}; flanneld registers its MAC in etcd with {node.name}'s lease.",
        f"{node.name}# ip -d link show {link.name}",
    )


def which_node(scene: Scene, rng: Random) -> Question | None:
    way = some(rng, list(scene.ways))
    if way is None:
        return None
    subnet = scene.state(way.peer.name).subnet_env
    owner = f"{way.target} is in {subnet.subnet.network}, " if subnet else f"{way.target} is in "
    return free(
        "which_node",
        f"{way.src.full_name} sends a packet to {way.target}. To which node does {way.src.node}"
        " send it?",
        way.peer.name,
        f"{owner}{way.peer.name}'s subnet.",
        f"{way.peer.name}# cat /var/run/flannel/subnet.env",
        also=(str(way.peer.address.ip), str(way.peer.address)),
    )


def next_hop(scene: Scene, rng: Random) -> Question | None:
    way = some(rng, [w for w in scene.ways if w.route and w.route.via])
    if way is None or way.route is None:
        return None
    why = "It is the other subnet's first address, which stands for that node's VTEP."
    if not way.tunnel:
        why = f"It is {way.peer.name}'s own address: nothing is put in front of the packet."
    return asked_address(
        "next_hop",
        f"Which next hop (via) does {way.src.node}'s route to {way.route.dst} have?",
        way.route.via,
        why,
        f"{way.src.node}# ip route",
    )


def out_interface(scene: Scene, rng: Random) -> Question | None:
    way = some(rng, list(scene.ways))
    if way is None or way.route is None:
        return None
    links = list(scene.state(way.src.node).net.links)
    return choice(
        rng,
        "out_interface",
        f"Out of which interface does {way.src.node} route a packet for {way.target}?",
        way.route.dev,
        links,
        f"Its route says: {route_text(way.route)}.",
        f"{way.src.node}# ip route",
    )


def outer_destination(scene: Scene, rng: Random) -> Question | None:
    way = some(rng, scene.tunnels())
    if way is None:
        return None
    hop = way.route.via if way.route else ""
    gateway = way.default.via if way.default else ""
    return choice(
        rng,
        "outer_destination",
        f"{way.src.full_name} pings {way.target}. Which destination address has the outer IP"
        f" packet that leaves {way.src.node}?",
        way.to,
        (way.target, hop, gateway, way.source, str(scene.lab.node(way.src.node).address.ip)),
        f"The FDB names the other node's underlay address, {way.peer.name}'s. {way.target} is the"
        " inner packet's destination.",
        f"{way.src.node}# bridge fdb show dev {scene.device}",
    )


def who_wrote(scene: Scene, rng: Random) -> Question | None:
    way = some(rng, [w for w in scene.tunnels() if w.neighbour])
    if way is None or way.neighbour is None or way.neighbour.state != "PERMANENT":
        return None
    entry = way.neighbour
    return choice(
        rng,
        "who_wrote",
        f"{way.src.node} knows the MAC of {entry.address} on {entry.dev}. Who told it?",
        f"flanneld, which read {way.peer.name}'s lease in etcd",
        (
            f"{way.peer.name}, which answered an ARP request",
            "the bridge cbr0, which learned it from a frame",
            f"{entry.dev}, which learned it from a VXLAN packet",
        ),
        "The entry is PERMANENT: a process wrote it. What ARP finds is REACHABLE or STALE.",
        f"{way.src.node}# ip neigh show dev {entry.dev}",
    )


def _lines(scene: Scene, way: Way) -> dict[str, str]:
    """What a packet needs on its way, as the tables show it."""
    node, found = way.src.node, {}
    if way.default:
        via = f"default via {way.default.via} dev {way.default.dev}"
        found["default"] = f"{way.src.full_name}, ip route: {via}"
    if way.route:
        found["route"] = f"{node}, ip route: {route_text(way.route)}"
    if way.neighbour:
        found["neighbour"] = f"{node}, ip neigh: {neighbour_text(way.neighbour)}"
    if way.entry:
        found["fdb"] = f"{node}, bridge fdb: {fdb_text(way.entry)}"
    if way.arrival:
        found["arrival"] = f"{way.peer.name}, ip route: {route_text(way.arrival)}"
    found["forwarding"] = f"{node}, sysctl: net.ipv4.ip_forward = 1"
    return found


def missing_line(scene: Scene, rng: Random) -> Question | None:
    way = some(rng, list(scene.ways))
    if way is None or way.route is None:
        return None
    node, dev, lines = way.src.node, way.route.dev, _lines(scene, way)
    symptoms = {
        "default": f"In {way.src.full_name}, `ping {way.target}` says Network is unreachable.",
        "route": f"{node} gets a packet for {way.target} and knows no interface to send it out of.",
    }
    if way.neighbour and way.entry:
        symptoms["neighbour"] = (
            f"{node} routes a packet for {way.target} to {dev}, but knows no MAC for the next hop."
        )
        symptoms["fdb"] = (
            f"{node} has a frame for {way.neighbour.mac} on {dev}, but knows no node to send it to."
        )
    gone = rng.choice([name for name in symptoms if name in lines])
    why = {
        "default": "Without a default route a container reaches only its own subnet.",
        "route": "The route says which interface and which next hop.",
        "neighbour": "The neighbour entry gives the next hop's MAC; nobody answers ARP there.",
        "fdb": "The FDB gives the node that the MAC is behind; without it the frame is dropped.",
    }
    wrong = [line for name, line in lines.items() if name != gone]
    return choice(
        rng,
        "missing_line",
        f"Suppose one line were missing: {symptoms[gone]} Which one?",
        lines[gone],
        wrong,
        why[gone],
    )


ASKS: tuple[Ask, ...] = (
    neighbour_mac,
    fdb_address,
    fdb_count,
    frame_mac,
    vtep_mac,
    which_node,
    next_hop,
    out_interface,
    outer_destination,
    who_wrote,
    missing_line,
)
