"""What is on the wire? Captured full-size packets between nodes, header by header."""

from __future__ import annotations

from collections.abc import Iterator

from vxlab.checks.finding import Evidence, Finding, WireSeen
from vxlab.lab import Lab
from vxlab.mtu import OVERHEAD
from vxlab.packet import UDP, Packet
from vxlab.steps import overlay

CODE = "encapsulation"


def answer(evidence: Evidence) -> Iterator[Finding]:
    if not evidence.wire:
        yield Finding(CODE, evidence.lab.name, None, "no pair on two nodes to capture", "a pair")
    for wire in evidence.wire:
        yield _judge(evidence.lab, wire)


def _judge(lab: Lab, wire: WireSeen) -> Finding:
    where = f"{wire.node}:{lab.nic(lab.node(wire.node))}"
    wanted = _wanted(lab)
    lost = f"; {wire.lost}" if wire.lost else ""
    if not wire.packets and not wire.fragments:
        if wire.dropped:
            lost = f"; the capture lost {wire.dropped} packets"
        seen = wire.error or f"no packet {wire.src} -> {wire.dst} was captured{lost}"
        return Finding(CODE, where, None, seen, wanted)
    kinds = sorted({_describe(lab, p) for p in wire.packets})
    if wire.fragments:
        kinds.append(f"{wire.fragments} fragments")
    ok = kinds == [wanted]
    sizes = f" ({_sizes(wire.packets)})" if wire.packets else ""
    shown = "; ".join(kinds) + sizes + lost
    return Finding(CODE, where, ok, shown, "" if ok else wanted)


def _sizes(packets: tuple[Packet, ...]) -> str:
    lengths = sorted({p.outer_ip.total_length for p in packets if p.outer_ip})
    count = "1 packet" if len(packets) == 1 else f"{len(packets)} packets"
    return f"{count} of {', '.join(map(str, lengths))} bytes"


def _wanted(lab: Lab) -> str:
    if not overlay.encapsulated(lab) and lab.overlay.backend_type != "udp":
        return "not encapsulated"
    overhead = OVERHEAD[lab.overlay.backend_type]
    if lab.overlay.backend_type == "udp":
        return f"UDP {udp_port(lab)}, +{overhead} bytes"
    return f"VXLAN, VNI {lab.overlay.vni}, UDP {lab.overlay.port}, +{overhead} bytes"


def udp_port(lab: Lab) -> int:
    """flannel's udp backend uses port 8285 unless it is told another."""
    return int(lab.overlay.backend.get("Port", 8285))


def _describe(lab: Lab, packet: Packet) -> str:
    udp = packet.find(UDP)
    if packet.vxlan is not None and udp is not None:
        return f"VXLAN, VNI {packet.vxlan.vni}, UDP {udp.dport}, +{packet.overhead} bytes"
    if lab.overlay.backend_type == "udp" and udp is not None:
        return f"UDP {udp.dport}, +{OVERHEAD['udp']} bytes"
    return "not encapsulated"
