"""Finds a probe again in the captures of all hops, whatever was done to it on the way.

A probe is known by the random token in its data, which neither routers nor NAT change; a TCP SYN
by its random sequence number. What another program chose (busybox's ping, a kernel's connect) is
learnt from the frames whose addresses and numbers are the probe's. Later fragments have neither:
they belong to the packet whose first fragment has their addresses and IP id (RFC 791).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from vxlab.packet import (
    ICMP,
    ICMP_ECHO,
    ICMP_ECHO_REPLY,
    TCP,
    UDP,
    IPv4,
    Layer,
    Packet,
    Payload,
    decode,
)
from vxlab.sniff import Frame
from vxlab.trace.hops import Hop
from vxlab.trace.journey import Probe, Role, Seen, Watched

_TOKEN = 8
_FILL = 4  # bytes at the data's end that have to be the probe's filling
_SYN, _RST, _ACK = 2, 4, 16
_QUOTING = frozenset({3, 4, 5, 11, 12})  # ICMP types that quote a packet (RFC 792)
_WORD = 1 << 32

Found = tuple[int, Role, Role]  # the probe's number, role, what it is about
Pieces = dict[tuple[object, ...], Found]


class Matcher:
    """Knows the probes of one trace.

    Args:
        probes: what was sent.
        vxlan_ports: UDP ports behind which VXLAN is expected.
        flanneld_port: UDP port of flannel's udp backend, which carries IP packets; or None.
    """

    def __init__(
        self,
        probes: Sequence[Probe],
        *,
        vxlan_ports: Collection[int],
        flanneld_port: int | None = None,
    ) -> None:
        self._ports = vxlan_ports
        self._flanneld = flanneld_port
        # By token, and an echo's sequence number: some pings' tokens are all the same.
        self._tokens = {(p.token, _seq(p)): p for p in probes if p.token}
        self._unknown = {p.dport & 0xFFFF: p for p in probes if p.fill}  # by sequence number
        self._sports = {p.sport: p for p in probes if p.protocol == "tcp" and p.sport}
        self._unported = [p for p in probes if p.protocol == "tcp" and not p.sport]
        # By destination, its port, and ours.
        self._udp = {(p.dst, p.dport, p.sport): p for p in probes if p.protocol == "udp"}
        self._syns: dict[int, Probe] = {}  # by initial sequence number
        self._pieces: Pieces = {}
        self._carried: dict[tuple[object, ...], Packet] = {}  # what outer fragments carry

    def match(self, watched: Iterable[Watched]) -> Iterator[Seen]:
        """All frames that belong to a probe, hop by hop."""
        looked = [
            (each.hop, frame, *self._opened(frame, l3=each.l3))
            for each in watched
            for frame in each.frames
        ]
        # Inside the source every packet is seen, in order, and with its own addresses.
        for _, _, _, inner in sorted(looked, key=lambda each: not each[0].container):
            self._learn(inner)
        waiting = looked
        while waiting:
            left = []
            for hop, frame, packet, inner in waiting:
                found = self._identify(inner) or self._piece(packet) or self._piece(inner)
                if found is None:
                    left.append((hop, frame, packet, inner))
                    continue
                self._remember(packet, inner, found)
                if inner is packet:
                    inner = self._carried.get(_train(packet), packet)
                yield Seen(hop, frame, packet, inner, *found)
            # A piece may come before the frame that tells whose it is, such as at another hop.
            waiting = left if len(left) < len(waiting) and any(map(_cut, left)) else []

    def _opened(self, frame: Frame, *, l3: bool) -> tuple[Packet, Packet]:
        """A frame's headers, and those of the packet that it carries for the containers."""
        packet = decode(frame.data, vxlan_ports=self._ports, l3=l3)
        return packet, self._inside(packet)

    def _inside(self, packet: Packet) -> Packet:
        if packet.inner is not None:
            return packet.inner
        udp, payload = packet.find(UDP), packet.find(Payload)
        if udp and payload and udp.dport == self._flanneld:
            return decode(payload.data, vxlan_ports=self._ports, l3=True)
        return packet

    def _learn(self, inner: Packet) -> None:
        """What a probe is known by everywhere, from where it still has its own addresses."""
        ip, after_ip = inner.find(IPv4), _after_ip(inner)
        if ip is None:
            return
        ends = str(ip.src), str(ip.dst)
        if isinstance(after_ip, ICMP):
            self._learn_echo(inner, after_ip, ends)
        elif isinstance(after_ip, UDP):
            self._learn_port(inner, after_ip, ends)
        elif isinstance(after_ip, TCP):
            self._learn_syn(after_ip, ends)

    def _learn_echo(self, inner: Packet, icmp: ICMP, ends: tuple[str, str]) -> None:
        """The token of an echo request whose data ends as the probe's does."""
        probe = self._unknown.get(icmp.seq or 0)
        if probe is None or icmp.type != ICMP_ECHO or ends != (probe.src, probe.dst):
            return
        data = _data(inner)
        if data.endswith(probe.fill * min(_FILL, len(data))) and len(data) >= _TOKEN:
            self._tokens[data[:_TOKEN], icmp.seq or 0] = probe

    def _learn_port(self, inner: Packet, udp: UDP, ends: tuple[str, str]) -> None:
        """The port that a datagram comes from."""
        probe = self._tokens.get((_data(inner)[:_TOKEN], 0))
        if probe is not None and (*ends, udp.dport) == (probe.src, probe.dst, probe.dport):
            self._udp.setdefault((probe.dst, probe.dport, udp.sport), probe)

    def _learn_syn(self, tcp: TCP, ends: tuple[str, str]) -> None:
        """The sequence number that a probe's SYN begins with, and its port if nobody told it."""
        if tcp.flags & (_SYN | _ACK) != _SYN or tcp.seq in self._syns:
            return
        probe = self._sports.get(tcp.sport)
        if probe is None and self._unported:
            probe = self._unported[0]
        if probe is None or (*ends, tcp.dport) != (probe.src, probe.dst, probe.dport):
            return
        if probe in self._unported:
            self._unported.remove(probe)
            self._sports[tcp.sport] = probe
        self._syns[tcp.seq] = probe

    def _identify(self, inner: Packet) -> Found | None:
        """Whose packet it is by what it carries."""
        after_ip = _after_ip(inner)
        if isinstance(after_ip, ICMP):
            return self._echo(inner, after_ip) or self._complaint(inner, after_ip)
        if isinstance(after_ip, UDP):
            return self._datagram(inner, after_ip)
        if isinstance(after_ip, TCP):
            return self._segment(after_ip)
        return None

    def _echo(self, inner: Packet, icmp: ICMP) -> Found | None:
        if icmp.type not in (ICMP_ECHO, ICMP_ECHO_REPLY):
            return None
        probe = self._tokens.get((_data(inner)[:_TOKEN], icmp.seq or 0))
        if probe is None:
            return None
        role: Role = "request" if icmp.type == ICMP_ECHO else "answer"
        return probe.number, role, role

    def _datagram(self, inner: Packet, udp: UDP) -> Found | None:
        probe = self._tokens.get((_data(inner)[:_TOKEN], 0))
        if probe is None:
            return self._reply(inner, udp)
        role: Role = "request" if udp.dport == probe.dport else "answer"
        return probe.number, role, role

    def _reply(self, inner: Packet, udp: UDP) -> Found | None:
        """What a service answers need not hold the token."""
        ip = inner.find(IPv4)
        probe = self._udp.get((str(ip.src), udp.sport, udp.dport)) if ip else None
        return (probe.number, "answer", "answer") if probe else None

    def _segment(self, tcp: TCP) -> Found | None:
        """A SYN, or what answers it: SYN and ACK, or RST. The connection's rest is no probe."""
        if tcp.flags & (_SYN | _ACK) == _SYN:
            probe = self._syns.get(tcp.seq)
            return (probe.number, "request", "request") if probe else None
        probe = self._syns.get((tcp.ack - 1) % _WORD)
        if probe is None or tcp.sport != probe.dport or not tcp.flags & (_SYN | _RST):
            return None
        return probe.number, "answer", "answer"

    def _complaint(self, inner: Packet, icmp: ICMP) -> Found | None:
        """An ICMP error about a probe, or about the outer packet that carried one."""
        if icmp.type not in _QUOTING:
            return None
        quoted = decode(_data(inner), vxlan_ports=self._ports, l3=True)
        carried = self._inside(quoted)
        found = self._identify(carried) or self._piece(carried) or self._quoted_syn(carried)
        return (found[0], "error", found[1]) if found else None

    def _quoted_syn(self, quoted: Packet) -> Found | None:
        """Of a TCP header a router need quote 8 bytes only, too few to be read as one."""
        ip, rest = quoted.find(IPv4), quoted.layers[-1]
        data = getattr(rest, "data", b"")
        if ip is None or ip.proto != 6 or len(data) < 8:
            return None
        probe = self._syns.get(int.from_bytes(data[4:8], "big"))
        return (probe.number, "request", "request") if probe else None

    def _remember(self, packet: Packet, inner: Packet, found: Found) -> None:
        """A fragment's later pieces are whose its first one is, and carry the same packet."""
        for each in (packet, inner):
            if train := _train(each):
                self._pieces[train] = found
        if inner is not packet and (train := _train(packet)):
            self._carried[train] = inner

    def _piece(self, packet: Packet) -> Found | None:
        train = _train(packet)
        return self._pieces.get(train) if train else None


def _seq(probe: Probe) -> int:
    return probe.dport & 0xFFFF if probe.protocol == "icmp" else 0


def _train(packet: Packet) -> tuple[object, ...]:
    """What all fragments of one packet have in common (RFC 791); nothing of a whole packet."""
    ip = packet.find(IPv4)
    if ip is None or not (ip.mf or ip.frag_offset):
        return ()
    return ip.src, ip.dst, ip.proto, ip.id


def _cut(looked: tuple[Hop, Frame, Packet, Packet]) -> bool:
    _, _, packet, inner = looked
    return bool(_train(packet) or _train(inner))


def _after_ip(packet: Packet) -> Layer | None:
    """The layer behind the first IP header; a piece of a packet has none to be read."""
    for layer, after in zip(packet.layers, packet.layers[1:], strict=False):
        if isinstance(layer, IPv4):
            return after
    return None


def _data(packet: Packet) -> bytes:
    payload = packet.find(Payload)
    return payload.data if payload else b""
