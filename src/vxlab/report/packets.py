"""Captured packets, a line each; what VXLAN carries is on a line of its own, indented."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import lru_cache

from vxlab.packet import (
    ARP,
    ICMP,
    ICMP_ECHO,
    ICMP_ECHO_REPLY,
    ICMP_FRAG_NEEDED,
    ICMP_TIME_EXCEEDED,
    ICMP_UNREACHABLE,
    IP,
    TCP,
    UDP,
    VXLAN,
    Ethernet,
    ICMPv6,
    IPv4,
    IPv6,
    Layer,
    Packet,
    Payload,
    Raw,
    decode,
)
from vxlab.report.text import plural, style
from vxlab.sniff import Frame

_PROTOCOLS = {2: "IGMP", 4: "IPIP", 47: "GRE", 50: "ESP", 51: "AH", 89: "OSPF", 132: "SCTP"}
_DEEPEST = 8  # packets inside packets that are shown; one can be made with more than a thousand
_TCP_FLAGS = "FSRP.UEW"  # FIN, SYN, RST, PSH, ACK, URG, ECE, CWR, as tcpdump writes them

_UNREACHABLE = {0: "net", 1: "host", 2: "protocol", 3: "port", 10: "host (prohibited)"}
_UNREACHABLE |= {9: "net (prohibited)", 13: "communication (prohibited)"}

# RFC 4443 and RFC 4861.
_ICMPV6 = {
    1: "unreachable",
    2: "packet too big",
    3: "time exceeded",
    4: "parameter problem",
    128: "echo request",
    129: "echo reply",
    133: "router solicitation",
    134: "router advertisement",
    135: "neighbour solicitation",
    136: "neighbour advertisement",
    143: "multicast listener report",
}


class Lines:
    """Writes frames of several hops as lines under each other.

    Args:
        hops: the hops' names.
        vxlan_ports: UDP ports at which there are VXLAN packets.
        ip_port: UDP port at which there are IP packets (flannel's udp backend), if any.
        l3: which of the hops see frames that begin with their IP header.
        macs: whether MAC addresses are shown.
        colour: whether the text is coloured.
    """

    def __init__(
        self,
        hops: Sequence[str],
        *,
        vxlan_ports: Collection[int],
        ip_port: int | None = None,
        l3: Sequence[bool] = (),
        macs: bool = False,
        colour: bool = False,
    ) -> None:
        width = max(map(len, hops), default=0)
        self._hops = [f"{hop:<{width}}" for hop in hops]
        self._ports, self._ip_port = frozenset(vxlan_ports), ip_port
        self._l3 = list(l3) or [False] * len(hops)
        self._macs = macs
        self._dim: Callable[[str], str] = _dimmed if colour else str
        self._indent = " " * (len("00:00:00.000000") + 1 + width + 1 + len("out "))

    def text(self, hop: int, frame: Frame) -> str:
        """A frame's lines.

        Args:
            hop: its hop's number.
            frame: what was captured there.
        """
        packet = decode(frame.data, vxlan_ports=self._ports, l3=self._l3[hop])
        head = f"{self._dim(moment(frame.ns))} {self._hops[hop]} {frame.direction:<3} "
        outer = self._described(packet, frame)
        text = f"{head}{frame.length:>5}  {outer}\n"
        for depth, (inner, start) in enumerate(self._carried(packet)):
            words = self._described(inner, frame)
            text += f"{self._indent}{frame.length - start:>5}  {'  ' * depth}└ {words}\n"
        return text

    def _carried(self, packet: Packet) -> Iterator[tuple[Packet, int]]:
        """What is inside, and inside that, with the place of its first byte."""
        for _ in range(_DEEPEST):
            if packet.vxlan is None or packet.inner is None:
                break
            start, packet = packet.vxlan.end, packet.inner
            yield packet, start
        udp, data = packet.find(UDP), packet.find(Payload)
        if udp and data and self._ip_port is not None and udp.dport == self._ip_port:
            yield decode(data.data, l3=True), data.offset

    def _described(self, packet: Packet, frame: Frame) -> str:
        """One packet in words, without what VXLAN carries in it."""
        layers = packet.layers
        if (vxlan := packet.vxlan) is not None:
            layers = layers[: layers.index(vxlan) + 1]
        words = [word for layer in layers if (word := self._word(layer, packet))]
        kept = len(frame.data)
        if kept < frame.length and not packet.inner:
            words.append(f"[{kept} of {frame.length} bytes kept]")
        return " ".join(words) or "nothing"

    def _word(self, layer: Layer, packet: Packet) -> str:
        if isinstance(layer, Ethernet):
            return _ethernet(layer, packet, macs=self._macs)
        return _word(layer)


def _dimmed(text: str) -> str:
    return f"\x1b[2m{text}\x1b[0m"


def _ethernet(layer: Ethernet, packet: Packet, *, macs: bool) -> str:
    words = [f"{layer.src} > {layer.dst}"] if macs else []
    words += [f"VLAN {vlan}" for vlan in layer.vlans]
    if not macs and packet.find(IPv4) is None and packet.find(IPv6) is None:
        if packet.find(ARP) is not None:
            return " ".join(words)
        words.append(f"{layer.src} > {layer.dst} ethertype 0x{layer.ethertype:04x}")
    return " ".join(words)


def _word(layer: Layer) -> str:
    """What a header says, as briefly as a line needs."""
    match layer:
        case IPv4() | IPv6():
            return _ip(layer)
        case UDP():
            return f"UDP {layer.sport} > {layer.dport}"
        case TCP():
            return _tcp(layer)
        case VXLAN():
            group = f" group {layer.group}" if layer.group is not None else ""
            return f"VXLAN VNI {layer.vni}{group}"
        case ICMP():
            return f"ICMP {_icmp(layer)}"
        case ICMPv6():
            return f"ICMPv6 {_ICMPV6.get(layer.type, f'type {layer.type} code {layer.code}')}"
        case ARP():
            return _arp(layer)
        case Raw() if not _is_told(layer):
            return f"[{layer.reason}: {plural(layer.length, 'byte')}]"
        case _:
            return ""


def _is_told(raw: Raw) -> bool:
    """Whether it need not be said: padding, or what the IP header tells of fragments."""
    return raw.reason.endswith("padding") or raw.reason.startswith("a later fragment")


def _ip(ip: IP) -> str:
    words = [f"{ip.src} > {ip.dst}"]
    words.append(f"ttl {ip.ttl}" if isinstance(ip, IPv4) else f"hlim {ip.hop_limit}")
    if isinstance(ip, IPv4) and ip.df:
        words.append("DF")
    if isinstance(ip, IPv4) and not ip.checksum_ok:
        words.append("[bad header checksum]")
    if ip.mf or ip.frag_offset:
        words.append(f"fragment {ip.frag_offset}{'+' if ip.mf else ''}")
    if ip.proto in _PROTOCOLS:
        words.append(_PROTOCOLS[ip.proto])
    return " ".join(words)


def _tcp(tcp: TCP) -> str:
    flags = "".join(name for bit, name in enumerate(_TCP_FLAGS) if tcp.flags >> bit & 1)
    ack = f" ack {tcp.ack}" if tcp.flags & 16 else ""
    return f"TCP {tcp.sport} > {tcp.dport} [{flags}] seq {tcp.seq}{ack} win {tcp.window}"


def _icmp(icmp: ICMP) -> str:
    if (icmp.type, icmp.code) == (ICMP_UNREACHABLE, ICMP_FRAG_NEEDED):
        return f"fragmentation needed, MTU {icmp.mtu}"
    if icmp.type == ICMP_UNREACHABLE and icmp.code in _UNREACHABLE:
        return f"{_UNREACHABLE[icmp.code]} unreachable"
    if icmp.type == ICMP_TIME_EXCEEDED:
        return "time exceeded" if icmp.code == 0 else "reassembly time exceeded"
    names = {ICMP_ECHO: "echo request", ICMP_ECHO_REPLY: "echo reply"}
    name = names.get(icmp.type, f"type {icmp.type} code {icmp.code}")
    return name if icmp.ident is None else f"{name} id {icmp.ident} seq {icmp.seq}"


def _arp(arp: ARP) -> str:
    if arp.op == 1:
        return f"ARP who has {arp.target_ip}? tell {arp.sender_ip}"
    if arp.op == 2:
        return f"ARP {arp.sender_ip} is at {arp.sender_mac}"
    return f"ARP operation {arp.op} from {arp.sender_ip}"


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    try:
        return time.strftime("%H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):  # a clock that is far off
        return f"{seconds}s"


def moment(ns: int) -> str:
    """A time of day with microseconds, where this machine is."""
    return f"{_second(ns // 1_000_000_000)}.{ns // 1000 % 1_000_000:06d}"


def summary(hops: Sequence[str], shown: Sequence[int], dropped: Sequence[int]) -> list[str]:
    """What a capture brought, hop by hop, and what it lost; for stderr.

    Args:
        hops: the hops' names.
        shown: frames by hop that were written.
        dropped: frames by hop that were lost.
    """
    import sys

    lost = sum(dropped)
    lines = [f"{plural(sum(shown), 'packet')} at {plural(len(hops), 'hop')}"]
    lines[0] += f", {lost} dropped" if lost else ", none dropped"
    width = max(map(len, hops), default=0)
    digits = len(str(max(shown, default=0)))
    for hop, count, missing in zip(hops, shown, dropped, strict=True):
        tail = style(f"  {missing} dropped", "red", sys.stderr) if missing else ""
        lines.append(f"  {hop:<{width}}  {count:>{digits}}{tail}")
    return lines
