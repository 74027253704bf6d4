"""What `verify` wants to know from inside the containers and off the wire, wherever they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from vxlab.checks.encapsulation import udp_port
from vxlab.lab import Container, Lab
from vxlab.packet import ICMP, ICMP_ECHO, LINUX_VXLAN_PORT, UDP, Packet, Payload, decode
from vxlab.probe import Echo, EdgeResult
from vxlab.sniff import Frame

#: What `Prober.ping` calls the destination that is a place's own gateway.
GATEWAY = "gateway"

#: Seconds that a packet has to show up on the wire when nobody is expected to answer it.
GLIMPSE = 0.2


@dataclass(frozen=True, slots=True)
class Place:
    """A container that has an address."""

    container: Container
    address: str
    gateway: str
    runs: bool  # when its node was looked at

    @property
    def name(self) -> str:
        return self.container.full_name


@dataclass(frozen=True, slots=True)
class Journey:
    """Packets from one container to another, on another node."""

    src: Place
    dst: Place
    answered: bool  # the ping before was


@dataclass(frozen=True, slots=True)
class Wire:
    """What a capture brought: outgoing frames, and how many more it lost."""

    frames: tuple[Frame, ...] = ()
    dropped: int = 0
    error: str = ""  # why nothing could be captured


Echoes = dict[tuple[str, str], Echo]


class Prober(Protocol):
    """Sends packets from containers and watches them leave the nodes."""

    def ping(self, places: Sequence[Place]) -> Echoes:
        """Every place to every other one and to its gateway, all at once.

        Returns:
            By the names of both; the gateway's is `GATEWAY`.
        """

    def edges(self, journeys: Sequence[Journey]) -> list[EdgeResult]:
        """Whether the overlay's MTU is the edge; one journey per source at most."""

    def capture(self, journeys: Sequence[Journey]) -> list[Wire]:
        """What leaves each source's node while it pings with packets of the overlay's MTU."""


def vxlan_ports(lab: Lab) -> set[int]:
    """The UDP ports to look for VXLAN at: the lab's, and usual ones that it should not be.

    A VTEP that sends to the wrong port is to be seen doing it.
    """
    return {lab.overlay.port, LINUX_VXLAN_PORT, 4789}


def outer_ports(lab: Lab) -> set[int]:
    """The UDP ports that the overlay's packets may have on the underlay."""
    return vxlan_ports(lab) | ({udp_port(lab)} if lab.overlay.backend_type == "udp" else set())


def outer(lab: Lab, frame: Frame) -> Packet:
    """A frame of the underlay as its headers."""
    return decode(frame.data, vxlan_ports=vxlan_ports(lab))


def is_piece(lab: Lab, packet: Packet, journey: Journey) -> bool:
    """Whether a router or a node cut a packet up and this is a part of it, on its way there."""
    peer = lab.node(journey.dst.container.node).address.ip
    ip = packet.outer_ip
    return packet.is_fragment and ip is not None and str(ip.dst) in (str(peer), journey.dst.address)


def carries(lab: Lab, packet: Packet, journey: Journey) -> bool:
    """Whether an echo request from one container to the other is in the packet, however wrapped.

    One that left its container in pieces is none: nothing of the MTU's size was sent.
    """
    inner = packet.inner or packet
    udp, payload = packet.find(UDP), packet.find(Payload)
    if lab.overlay.backend_type == "udp" and udp and payload and udp.dport == udp_port(lab):
        inner = decode(payload.data, l3=True)
    ip, icmp = inner.outer_ip, inner.find(ICMP)
    if ip is None or icmp is None or icmp.type != ICMP_ECHO or inner.is_fragment:
        return False
    return (str(ip.src), str(ip.dst)) == (journey.src.address, journey.dst.address)


def leaves(lab: Lab, packet: Packet, journey: Journey) -> bool:
    """Whether a packet is one of the journey's, whole or in part."""
    return is_piece(lab, packet, journey) or carries(lab, packet, journey)


def not_running(name: str) -> Echo:
    """What becomes of a ping from a container that is not there."""
    return Echo(False, error=f"{name} does not run")
