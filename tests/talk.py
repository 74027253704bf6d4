"""The talk's lab (or another one) as it looks when it is up: states and evidence, made here."""

from __future__ import annotations

import json
import struct
from ipaddress import IPv4Address, IPv4Interface

from vxlab import labfile
from vxlab.checks.finding import EdgeSeen, Evidence, Reached, WireSeen, leases
from vxlab.lab import FLANNEL_PREFIX, Container, Lab, Node
from vxlab.ops import StartDaemon
from vxlab.packet import Packet, checksum, decode
from vxlab.state import (
    FdbEntry,
    Link,
    Neighbour,
    Net,
    Process,
    Route,
    State,
    SubnetEnv,
    UdpSocket,
    Vxlan,
)
from vxlab.steps import BY_NAME, overlay, underlay
from vxlab.steps.address import container_address
from vxlab.steps.site import SWITCH, Site

TALK = labfile.default()

#: One process for all: its number does not matter here.
RUNS = Process(27, 5000, True)


def site(lab: Lab = TALK) -> Site:
    """The lab with its programs, at places that need not exist."""
    return Site(lab, "/lab", "/opt/etcd", "/opt/flanneld", "/opt/busybox", "/opt/container/bin")


def subnet_env(lab: Lab, number: int) -> SubnetEnv:
    """A node's lease: node01 gets 10.5.1.0/24, node02 10.5.2.0/24 and so on, or what is pinned."""
    pinned = lab.nodes[number - 1].subnet
    subnets = lab.overlay.network.subnets(new_prefix=lab.overlay.subnet_length)
    subnet = pinned or [next(subnets) for _ in range(number + 1)][number]
    gateway = IPv4Interface((subnet.network_address + 1, subnet.prefixlen))
    return SubnetEnv(lab.overlay.network, gateway, lab.overlay_mtu)


def vtep_mac(number: int) -> str:
    return f"5a:00:00:00:00:{number:02x}"


def states(lab: Lab = TALK) -> dict[str, State]:
    """What a snapshot of every node shows when `up` is done and flannel has done its work."""
    return {node.name: _state(lab, i, node) for i, node in enumerate(lab.nodes, 1)} | {
        SWITCH: _switch(lab)
    }


def _switch(lab: Lab) -> State:
    mtu, mark = lab.underlay.mtu, lab.mark
    ports = {n.name: Link(n.name, "veth", mtu, True, "", SWITCH, mark) for n in lab.nodes}
    links = {SWITCH: Link(SWITCH, "bridge", mtu, True, "", "", mark), **ports}
    sysctls = {"net.ipv6.conf.all.disable_ipv6": "1"}
    return State(Net(links, sysctls=sysctls), machines={n.name: RUNS for n in lab.nodes})


def _state(lab: Lab, number: int, node: Node) -> State:
    env, mtu, nic = subnet_env(lab, number), lab.overlay_mtu, lab.underlay.interface
    links = [
        Link("lo", "", 65536, True, ""),
        Link(
            nic,
            "veth",
            lab.underlay.mtu,
            True,
            underlay.mac(node),
            alias=lab.mark,
            addresses=(str(node.address),),
        ),
        Link("cbr0", "bridge", mtu, True, "", alias=lab.mark, addresses=(str(env.subnet),)),
        *(Link(c.veth, "veth", mtu, True, "", "cbr0", lab.mark) for c in node.containers),
    ]
    device = overlay.device(lab)
    if lab.overlay.backend_type == "vxlan":
        vxlan = Vxlan(lab.overlay.vni, lab.overlay.port, str(node.address.ip), False)
        links.append(Link(device, "vxlan", mtu, True, vtep_mac(number), vxlan=vxlan))
    elif device:
        links.append(Link(device, "tun", mtu, True, ""))
    routes, neighbours, fdb = _entries(lab, number, device)
    daemons = {"flannel": _daemon("flannel", lab, node)}
    if node is lab.etcd_node:
        daemons["etcd"] = _daemon("etcd", lab, node)
    bare = State(subnet_env=env)
    return State(
        net=Net(
            links={link.name: link for link in links},
            routes=routes,
            neighbours=neighbours,
            fdb=fdb,
            sysctls={"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.disable_ipv6": "1"},
        ),
        inside={
            c.name: Net(
                links={
                    "lo": Link("lo", "", 65536, True, ""),
                    "vethNS": Link(
                        "vethNS",
                        "veth",
                        mtu,
                        True,
                        "",
                        alias=lab.mark,
                        addresses=(str(container_address(c, bare)),),
                    ),
                },
                routes=(Route("default", str(env.subnet.ip), "vethNS"),),
            )
            for c in node.containers
        },
        machines={c.name: RUNS for c in node.containers},
        daemons=daemons,
        udp=(UdpSocket(lab.overlay.port),) if lab.overlay.backend_type == "vxlan" else (),
        subnet_env=env,
        keys=keys(lab) if node is lab.etcd_node else {},
    )


def _daemon(name: str, lab: Lab, node: Node) -> Process:
    """A daemon with the command line that its step gives it."""
    nothing = {n.name: State() for n in lab.nodes}
    (start,) = BY_NAME[name].plan(site(lab), node, nothing)
    assert isinstance(start, StartDaemon)
    return Process(40, 5000, True, command=" ".join(start.command))


def _entries(
    lab: Lab, number: int, device: str
) -> tuple[tuple[Route, ...], tuple[Neighbour, ...], tuple[FdbEntry, ...]]:
    """What flannel gives a node for all the others."""
    if lab.overlay.backend_type == "udp":
        return (Route(str(lab.overlay.network), "", device),), (), ()
    routes, neighbours, fdb = [], [], []
    for other, peer in enumerate(lab.nodes, 1):
        if other == number:
            continue
        subnet, address = subnet_env(lab, other).subnet.network, str(peer.address.ip)
        vtep = str(subnet.network_address)
        if overlay.encapsulated(lab):
            routes.append(Route(str(subnet), vtep, device, onlink=True))
            neighbours.append(Neighbour(vtep, device, vtep_mac(other), "PERMANENT"))
            fdb.append(FdbEntry(vtep_mac(other), device, address, "permanent"))
        else:
            routes.append(Route(str(subnet), address, lab.underlay.interface))
    if len(lab.nodes) > underlay.ARP_LIMIT:
        neighbours += [
            Neighbour(str(p.address.ip), lab.underlay.interface, underlay.mac(p), "PERMANENT")
            for p in lab.nodes
        ]
    return tuple(routes), tuple(neighbours), tuple(fdb)


def keys(lab: Lab = TALK) -> dict[str, str]:
    """etcd's keys: the configuration, and a lease of every node."""
    found = {f"{FLANNEL_PREFIX}/config": lab.overlay.flannel_config()}
    for number, node in enumerate(lab.nodes, 1):
        subnet = str(subnet_env(lab, number).subnet.network).replace("/", "-")
        lease: dict[str, object] = {
            "PublicIP": str(node.address.ip),
            "PublicIPv6": None,
            "BackendType": lab.overlay.backend_type,
        }
        if lab.overlay.backend_type == "vxlan":
            lease["BackendData"] = {"VNI": lab.overlay.vni, "VtepMAC": vtep_mac(number)}
        found[f"{FLANNEL_PREFIX}/subnets/{subnet}"] = json.dumps(lease)
    return found


# --- evidence -----------------------------------------------------------------------------------


def evidence(lab: Lab = TALK) -> Evidence:
    """What `verify` gathers from a lab that works."""
    seen = states(lab)
    full = [c.full_name for c in lab.containers]
    mtu = lab.overlay_mtu
    says = f"the kernel says: message too long, mtu={mtu}"
    ring = list(zip(lab.containers, (*lab.containers[1:], lab.containers[0]), strict=True))
    addresses = {c.full_name: str(_address(seen, c)) for c in lab.containers}
    wire = []
    for a, b in ring:
        src, dst = addresses[a.full_name], addresses[b.full_name]
        outer = str(lab.node(a.node).address.ip), str(lab.node(b.node).address.ip)
        packet = on_the_wire(lab, src, dst, outer)
        wire.append(WireSeen(a.node, src, dst, (packet,), 0, 0))
    return Evidence(
        lab=lab,
        states=seen,
        etcd_version="3.5.1",
        keys=keys(lab),
        leases=leases(keys(lab)),
        gateways={name: Reached(True, 9.0) for name in full},
        pairs={(a, b): Reached(True, 90.0) for a in full for b in full if a != b},
        edges=tuple(EdgeSeen(a.full_name, b.full_name, mtu, True, says) for a, b in ring),
        wire=tuple(wire),
    )


def _address(seen: dict[str, State], container: Container) -> IPv4Address:
    address = container_address(container, seen[container.node])
    assert address is not None
    return address.ip


_MACS = bytes.fromhex("020000000002 020000000001")


def _ipv4(proto: int, src: str, dst: str, payload: bytes, fragment: int = 0) -> bytes:
    ends = IPv4Address(src).packed + IPv4Address(dst).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 7, fragment, 64, proto, 0) + ends
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + payload


def _udp(port: int, payload: bytes) -> bytes:
    return struct.pack("!HHHH", 40000, port, 8 + len(payload), 0) + payload


def on_the_wire(
    lab: Lab,
    src: str,
    dst: str,
    outer: tuple[str, str],
    *,
    vni: int | None = None,
    port: int | None = None,
    bare: bool = False,
    filler: int = 0,
) -> Packet:
    """A full-size echo request from one container to another, as it leaves the node.

    Args:
        outer: the nodes' addresses.
        vni: another VNI than the lab's.
        port: another port than the lab's.
        bare: without any encapsulation.
        filler: bytes that the outer packet has on top of the headers.
    """
    echo = struct.pack("!BBHHH", 8, 0, 0, 1, 1) + bytes(lab.overlay_mtu - 28)
    inner = _ipv4(1, src, dst, echo)
    ethernet = _MACS + b"\x08\x00"
    kind = lab.overlay.backend_type
    port = lab.overlay.port if port is None else port
    if bare or (kind != "udp" and not overlay.encapsulated(lab)):
        return decode(ethernet + inner)
    if kind == "udp":
        return decode(ethernet + _ipv4(17, *outer, _udp(8285, inner)))
    vxlan = struct.pack("!BBHI", 8, 0, 0, (lab.overlay.vni if vni is None else vni) << 8)
    datagram = _ipv4(17, *outer, _udp(port, vxlan + ethernet + inner + bytes(filler)))
    return decode(ethernet + datagram, vxlan_ports=(port,))
