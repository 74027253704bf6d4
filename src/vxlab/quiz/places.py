"""Questions about who is where: subnets, gateways, ports of the bridge, sockets, pings."""

from __future__ import annotations

from random import Random

from vxlab.lessons.way import Way
from vxlab.quiz.question import Question, address, choice, free
from vxlab.quiz.scene import Ask, Scene, some
from vxlab.steps import bridge
from vxlab.steps.veth import INSIDE

_ENV = "cat /var/run/flannel/subnet.env"


def subnet(scene: Scene, rng: Random) -> Question | None:
    node = some(rng, scene.leased())
    env = scene.state(node.name).subnet_env if node else None
    if node is None or env is None:
        return None
    return address(
        "subnet",
        f"Which subnet did flannel give to {node.name}?",
        str(env.subnet.network),
        f"Its lease is in etcd, and in subnet.env as FLANNEL_SUBNET={env.subnet}.",
        f"{node.name}# {_ENV}",
    )


def gateway(scene: Scene, rng: Random) -> Question | None:
    found = []
    for container, _ in scene.placed():
        route = scene.state(container.node).net_of(container.name).route("default")
        if route is not None and route.via:
            found.append((container, route.via))
    one = some(rng, found)
    if one is None:
        return None
    container, via = one
    return address(
        "gateway",
        f"Which gateway does {container.full_name} send packets for other subnets to?",
        via,
        f"It is the address of {bridge.NAME} on {container.node}.",
        f"{container.name}# ip route",
    )


def etcd_node(scene: Scene, rng: Random) -> Question | None:
    node = scene.lab.etcd_node
    process = scene.state(node.name).daemons.get("etcd")
    if process is None or not process.alive:
        return None
    return free(
        "etcd_node",
        "On which node does etcd run, which all flannelds ask?",
        node.name,
        f"All flannelds were started with --etcd-endpoints={scene.lab.etcd_url}.",
        f"{node.name}# ps -ef",
        also=(str(node.address.ip), str(node.address)),
    )


def bridge_port(scene: Scene, rng: Random) -> Question | None:
    found = []
    for container, _ in scene.placed():
        links = scene.state(container.node).net.links
        link = links.get(container.veth)
        if link is not None and link.master == bridge.NAME:
            others = [n for n, ln in links.items() if ln.master != bridge.NAME and n != bridge.NAME]
            found.append((container, others))
    one = some(rng, found)
    if one is None:
        return None
    container, others = one
    return choice(
        rng,
        "bridge_port",
        f"Which port of {bridge.NAME} on {container.node} is {container.full_name} plugged into?",
        container.veth,
        [*others, INSIDE],
        "It is the node's end of the container's cable. Nothing but cables is in the bridge; the"
        " node routes between it and the rest.",
        f"{container.node}# ip link show master {bridge.NAME}",
    )


def port(scene: Scene, rng: Random) -> Question | None:
    found = [(n.name, ln.vxlan.port, "kernel") for n, ln in scene.vteps() if ln.vxlan]
    if scene.lab.overlay.backend_type == "udp":
        states = ((n.name, scene.state(n.name)) for n in scene.lab.nodes)
        found = [(n, u.port, "flanneld") for n, s in states for u in s.udp if "flann" in u.process]
    one = some(rng, found)
    if one is None:
        return None
    node, number, _ = one
    note = "Linux and flannel kept 8472 from the time before IANA gave VXLAN 4789."
    return free(
        "port",
        f"On which UDP port does {node} wait for the outer packets of the tunnel?",
        number,
        note if number == 8472 else "It is in flannel's configuration, or flannel's default.",
        f"{node}# ss -lunp",
    )


def vni(scene: Scene, rng: Random) -> Question | None:
    one = some(rng, [(n, ln.vxlan) for n, ln in scene.vteps() if ln.vxlan])
    if one is None:
        return None
    node, vxlan = one
    return free(
        "vni",
        f"Which VNI does {node.name}'s VTEP have?",
        vxlan.vni,
        f"The interface is called after it: {scene.device}.",
        f"{node.name}# ip -d link show {scene.device}",
    )


def socket_owner(scene: Scene, rng: Random) -> Question | None:
    """Whose the tunnel's UDP socket is; a lab where a stranger has the port is not asked about."""
    kernel = "no process: the kernel itself"
    names = (kernel, "flanneld", "etcd", "busybox, in the container")
    found = []
    for node in scene.lab.nodes:
        links = scene.state(node.name).net.links
        link = links.get(scene.device) if scene.device else None
        for sock in scene.state(node.name).udp:
            if link is not None and link.vxlan and link.vxlan.port == sock.port:
                found.append((node.name, sock.port, kernel if not sock.process else ""))
            elif scene.lab.overlay.backend_type == "udp" and "flann" in sock.process:
                found.append((node.name, sock.port, "flanneld"))
    one = some(rng, [f for f in found if f[2]])
    if one is None:
        return None
    node_name, number, owner = one
    why = "VXLAN is unwrapped in the kernel, which made the socket together with the interface."
    if owner == "flanneld":
        why = "The udp backend's tunnel ends in flanneld itself."
    return choice(
        rng,
        "socket_owner",
        f"The tunnel's UDP port is open on {node_name}. Which process has the socket?",
        owner,
        names,
        why,
        f"{node_name}# ss -lunp 'sport = :{number}'",
    )


def _way(scene: Scene, rng: Random) -> Way | None:
    return some(rng, list(scene.ways))


def ping_before(scene: Scene, rng: Random) -> Question | None:
    way = _way(scene, rng)
    if way is None:
        return None
    return choice(
        rng,
        "ping_before",
        f"Before the bridge and the default route were there, {way.src.full_name} had nothing but"
        f" its address. What did `ping {way.target}` say?",
        "Network is unreachable",
        (
            "Destination Host Unreachable",
            "nothing: all packets were lost",
            f"message too long, mtu={scene.lab.overlay_mtu}",
        ),
        f"The container had no route to {way.target}: its kernel refused to send at all.",
    )


def ping_bridge(scene: Scene, rng: Random) -> Question | None:
    way = _way(scene, rng)
    if way is None or way.default is None:
        return None
    via = way.default.via
    return choice(
        rng,
        "ping_bridge",
        "The bridge was there, the default route not yet. Which of the two could"
        f" {way.src.full_name} ping: its gateway {via}, or {way.target}?",
        "its gateway only",
        (f"{way.target} only", "both", "neither"),
        f"{via} is in the container's own subnet; for {way.target} it needs a route.",
    )


def ttl(scene: Scene, rng: Random) -> Question | None:
    """Both nodes route; flannel's udp backend lowers the TTL further, and is not asked about."""
    pairs = {(w.src, w.dst): w for w in scene.ways}
    there_and_back = [
        w for w in scene.ways if (w.dst, w.src) in pairs and w.device and w.device.kind != "tun"
    ]
    way = some(rng, there_and_back)
    if way is None:
        return None
    return free(
        "ttl",
        f"{way.dst.full_name} answers a ping from {way.src.full_name}; the answer starts with a"
        " TTL of 64. With which TTL does it arrive?",
        62,
        f"Two routers lower it by one each: {way.dst.node} and {way.src.node}. The tunnel between"
        " them does not count."
        if way.tunnel
        else f"Two routers lower it by one each: {way.dst.node} and {way.src.node}.",
        f"{way.src.name}# ping -c 1 {way.target}",
    )


ASKS: tuple[Ask, ...] = (
    subnet,
    gateway,
    etcd_node,
    bridge_port,
    port,
    vni,
    socket_owner,
    ping_before,
    ping_bridge,
    ttl,
)
