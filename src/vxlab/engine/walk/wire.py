"""Full-size packets, and what becomes of them on the underlay: fragments, refusals, or a fit.

What decides is the smallest MTU on the way. With 1500 in the container's cable and flannel's
interface at 1450 the node, a router, cuts the inner packet up or refuses it with ICMP. Only with
1500 on flannel's interface, too, does the outer packet exceed the underlay's MTU. The kernel
refuses that MTU while the NIC below has 1500, but does not look again when the NIC's gets smaller.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from vxlab import probe
from vxlab.engine.running import Running
from vxlab.engine.walk.looking import Difference
from vxlab.engine.walk.stages import Cast, Look
from vxlab.lab import Lab, Node
from vxlab.nodes.local import LocalNode
from vxlab.ops import Op, SetMtu
from vxlab.packet import ICMP, ICMP_FRAG_NEEDED, ICMP_UNREACHABLE, IPv4, Packet, decode
from vxlab.probe import Echo, Endpoint
from vxlab.sniff import Frame, Sniffer
from vxlab.steps import bridge, overlay
from vxlab.steps.veth import INSIDE


@dataclass(frozen=True, slots=True)
class Sent:
    """A packet that was sent from container to container, and what was seen of it.

    `wire` has what left the sender's node on the underlay, `cable` the ICMP errors that came back
    into the container.
    """

    src: str
    dst: str
    size: int  # bytes of the IP packet
    df: bool  # the don't-fragment bit is set
    echo: Echo
    nic: str
    wire: tuple[Packet, ...]
    cable: tuple[Packet, ...]
    remark: str = ""
    differs: Difference | None = None
    draw: bool = False  # the first packet on the wire is worth a drawing


@dataclass(frozen=True, slots=True)
class Shot:
    """A packet to send, what the talk says of it, and how to tell whether that is so."""

    size: int  # bytes of the IP packet
    df: bool
    expected: str
    judge: Callable[[Sent, Lab], bool]
    remark: str = ""
    draw: bool = False


def raised(lab: Lab, node: Node) -> Iterator[Op]:
    """Both ends of the node's cables as they were before anybody lowered their MTU."""
    for container in node.containers:
        yield SetMtu(name=container.veth, mtu=lab.underlay.mtu)
        yield SetMtu(name=INSIDE, mtu=lab.underlay.mtu, ns=container.name)


def forced(lab: Lab, node: Node) -> Iterator[Op]:
    """flannel's interface with the underlay's MTU: the NIC has to have room while it is set."""
    nic, mtu = lab.nic(node), lab.underlay.mtu
    yield SetMtu(name=nic, mtu=mtu + mtu - lab.overlay_mtu)
    yield SetMtu(name=overlay.device(lab), mtu=mtu)
    yield SetMtu(name=nic, mtu=mtu)
    yield SetMtu(name=bridge.NAME, mtu=mtu)


def lowered(lab: Lab, node: Node) -> Iterator[Op]:
    """flannel's interface and the bridge with the overlay's MTU again."""
    yield SetMtu(name=lab.nic(node), mtu=lab.underlay.mtu)
    yield SetMtu(name=overlay.device(lab), mtu=lab.overlay_mtu)
    yield SetMtu(name=bridge.NAME, mtu=lab.overlay_mtu)


#: The kernel refuses flannel's interface the underlay's MTU.
REFUSED = Look(
    "near node",
    "ip link set dev @device@ mtu @underlay@",
    ("Invalid argument",),
    works=False,
    remark="the kernel refuses: @nic@ could not carry it. It looks only once, so @nic@ gets room:",
)

#: Forget the path MTU that the kernels learnt from refused packets.
FORGET = (
    Look("near", "ip route flush cache"),
    Look("near node", "ip route flush cache"),
    Look(
        "far node",
        "ip route flush cache",
        remark="the kernels forget the path MTU that they learnt from what was refused",
    ),
)


def _cut_inside(sent: Sent, lab: Lab) -> bool:
    """The inner packet was cut: several whole outer packets, each with a piece."""
    inner = [p.inner.outer_ip for p in sent.wire if p.inner is not None]
    pieces = [ip for ip in inner if isinstance(ip, IPv4) and (ip.mf or ip.frag_offset)]
    whole = not any(p.is_fragment for p in sent.wire)
    return sent.echo.ok and whole and len(sent.wire) == len(pieces) > 1


def _refused_by_node(sent: Sent, lab: Lab) -> bool:
    """A router said "fragmentation needed" with the overlay's MTU, and nothing left the node."""
    told = [p.find(ICMP) for p in sent.cable]
    stated = [icmp.mtu for icmp in told if icmp is not None]
    mtu = lab.overlay_mtu
    return not sent.echo.ok and sent.echo.mtu == mtu and mtu in stated and not sent.wire


def _cut_outside(sent: Sent, lab: Lab) -> bool:
    """The outer packet was cut: the first piece has the VXLAN header, the next none."""
    pieces = [p for p in sent.wire if p.is_fragment]
    return sent.echo.ok and len(pieces) == len(sent.wire) > 1


def _refused_inside(sent: Sent, lab: Lab) -> bool:
    """The container's own kernel refused it by its interface's MTU."""
    stated = (sent.echo.errno, sent.echo.mtu)
    return stated == (errno.EMSGSIZE, lab.overlay_mtu) and not sent.wire


def _fits(sent: Sent, lab: Lab) -> bool:
    """One outer packet, whole, exactly as large as the underlay carries."""
    if not sent.echo.ok or len(sent.wire) != 1 or sent.wire[0].is_fragment:
        return False
    outer = sent.wire[0].outer_ip
    return outer is not None and outer.total_length == lab.underlay.mtu


def raised_shots(lab: Lab) -> tuple[Shot, ...]:
    """With the underlay's MTU in the cables alone."""
    node, full = "the node, a router,", lab.underlay.mtu
    return (
        Shot(
            full,
            False,
            "two outer packets, each with a fragment of the inner one",
            _cut_inside,
            f"{node} cut it up before wrapping it: two packets where one was sent",
        ),
        Shot(
            full,
            True,
            f"ICMP 'fragmentation needed' with MTU {lab.overlay_mtu}, nothing on the underlay",
            _refused_by_node,
            f"{node} may not cut it up: it is dropped, and an ICMP error states the MTU",
        ),
    )


def forced_shots(lab: Lab) -> tuple[Shot, ...]:
    """With the underlay's MTU on flannel's interface, too."""
    size = 2 * lab.underlay.mtu - lab.overlay_mtu
    return (
        Shot(
            lab.underlay.mtu,
            True,
            f"an outer packet of {size} bytes, in two fragments",
            _cut_outside,
            f"{size} bytes, cut up on the underlay: the don't-fragment bit is the inner packet's,"
            " the outer one has none",
        ),
    )


def lowered_shots(lab: Lab) -> tuple[Shot, ...]:
    """With the overlay's MTU everywhere inside, as the talk has it."""
    mtu = lab.overlay_mtu
    return (
        Shot(
            lab.underlay.mtu,
            True,
            f"Message too long, mtu={mtu}, and nothing on the underlay",
            _refused_inside,
            "the container's own kernel refuses it, before anything is sent",
        ),
        Shot(
            mtu,
            True,
            f"one outer packet of {lab.underlay.mtu} bytes, no fragment",
            _fits,
            f"{mtu} + {lab.underlay.mtu - mtu} = {lab.underlay.mtu}: it fits exactly",
            draw=True,
        ),
    )


def fire(running: Running, cast: Cast, shot: Shot, words: dict[str, str]) -> Sent:
    """Send a packet from container to container, with captures at both ends of the sender's node.

    Raises:
        OperationError: no capture is possible.
    """
    lab, node = cast.lab, running.nodes[cast.near.node]
    assert isinstance(node, LocalNode)  # noqa: S101 - see `cast_of`
    inside = f"{node.inside(cast.near.name)}/ns/net"
    src = Endpoint(cast.near.full_name, words["near"], inside)
    dst = Endpoint(cast.far.full_name, words["far"], "")
    nic = lab.nic(cast.near_node)
    with Sniffer(f"{node.proc}/ns/net", nic) as wire, Sniffer(inside, INSIDE) as cable:
        pair, size = (src.name, dst.name), shot.size - probe.ICMP_OVERHEAD
        echo = probe.ping_all([src, dst], [pair], size=size, df=shot.df, retries=0)[pair]
        # The answer or the error is back: what was sent before it is in the captures by now.
        left, told = _drained(wire), _drained(cable)
    there = cast.far_node.address.ip
    ports = {lab.overlay.port}
    packets = [decode(f.data, vxlan_ports=ports) for f in left if f.direction == "out"]
    errors = [decode(f.data) for f in told if f.direction == "in"]
    sent = Sent(
        cast.near.name,
        words["far"],
        shot.size,
        shot.df,
        echo,
        nic,
        tuple(p for p in packets if _outer(p, there)),
        tuple(p for p in errors if _too_big(p)),
    )
    right = shot.judge(sent, lab)
    differs = None if right else Difference(shot.expected, _told(sent))
    return replace(sent, remark=shot.remark, differs=differs, draw=shot.draw)


def _told(sent: Sent) -> str:
    """What became of a packet, in a few words."""
    fate = "an answer" if sent.echo.ok else sent.echo.error
    pieces = sum(p.is_fragment for p in sent.wire)
    return (
        f"{fate}; outer packets on the underlay: {len(sent.wire)}, fragments among them: {pieces}"
    )


def _drained(sniffer: Sniffer) -> list[Frame]:
    frames: list[Frame] = []
    while batch := sniffer.poll():
        frames += batch
    return frames


def _outer(packet: Packet, there: IPv4Address) -> bool:
    """Whether it is an outer packet to the other node, or a piece of one."""
    ip = packet.outer_ip
    return ip is not None and ip.dst == there and (packet.vxlan is not None or packet.is_fragment)


def _too_big(packet: Packet) -> bool:
    icmp = packet.find(ICMP)
    return icmp is not None and (icmp.type, icmp.code) == (ICMP_UNREACHABLE, ICMP_FRAG_NEEDED)
