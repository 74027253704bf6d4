"""What happened to a packet between two hops, told from its headers at both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vxlab.packet import ICMP, TCP, UDP, VXLAN, Ethernet, IPv4, Packet
from vxlab.trace.journey import Change, Seen


def changes(before: Sequence[Seen], after: Sequence[Seen]) -> tuple[Change, ...]:
    """What the headers say after a hop and did not before.

    Args:
        before: the packet at the hop before, one frame of each fragment; none at its first hop.
        after: the same packet now.
    """
    return tuple(_changes(before, after))


def _changes(before: Sequence[Seen], after: Sequence[Seen]) -> Iterator[Change]:
    now = after[0]
    if not before:
        if len(after) > 1:
            yield _cut(1, after)
        return
    then = before[0]
    yield from _tunnel(then, now)
    yield from _inner(then.inner, now.inner)
    # A packet without an Ethernet header, on flannel's tun device, has no MACs to compare.
    if _macs(then.inner) and _macs(now.inner) and _macs(then.inner) != _macs(now.inner):
        yield _rewritten(_macs(then.inner), _macs(now.inner))
    if len(after) > len(before):
        yield _cut(len(before), after)
    elif len(after) < len(before):
        text = f"{len(before)} fragments " + (
            "put together again" if len(after) == 1 else f"became {len(after)}"
        )
        yield Change("reassembled", text, {"before": len(before), "after": len(after)})


def _cut(before: int, after: Sequence[Seen]) -> Change:
    lengths = " + ".join(str(seen.ip_length) for seen in after)
    text = f"cut into {len(after)} fragments of {lengths} bytes"
    return Change("fragmented", text, {"before": before, "after": len(after)})


def _carrier(seen: Seen) -> IPv4 | None:
    """The outer IP header of an encapsulated packet."""
    return seen.packet.find(IPv4) if seen.encapsulated else None


def _tunnel(then: Seen, now: Seen) -> Iterator[Change]:
    was, outer = _carrier(then), _carrier(now)
    if was is None and outer is not None:
        yield _wrapped(now, outer)
    elif was is not None and outer is None:
        overhead = _overhead(then, was)
        words = f"decapsulated: -{overhead} bytes"
        yield Change("decapsulated", words, {"overhead": overhead})
    elif was is not None and outer is not None:
        yield from _number("outer-ttl", "outer TTL", was.ttl, outer.ttl)
        ends = _ends(was), _ends(outer)
        if ends[0] != ends[1]:
            text = f"outer addresses {ends[0]} became {ends[1]}"
            yield Change("outer-address", text, {"before": ends[0], "after": ends[1]})


def _overhead(seen: Seen, outer: IPv4) -> int:
    """Bytes in front of the inner IP header that the outer packet has besides (50 for VXLAN).

    Counted by the headers' places, since a fragment's lengths do not tell.
    """
    inner = seen.inner.find(IPv4)
    if inner is None:
        return 0
    if seen.packet.find(VXLAN) is not None:
        return inner.offset - outer.offset
    udp = seen.packet.find(UDP)
    return (udp.end if udp else outer.end) - outer.offset + inner.offset


def _wrapped(now: Seen, outer: IPv4) -> Change:
    udp, vxlan = now.packet.find(UDP), now.packet.find(VXLAN)
    overhead = _overhead(now, outer)
    values: dict[str, str | int] = {
        "overhead": overhead,
        "outer_src": str(outer.src),
        "outer_dst": str(outer.dst),
        "outer_ttl": outer.ttl,
    }
    text = f"encapsulated: +{overhead} bytes; outer {_ends(outer)}"
    if udp is not None:
        values |= {"udp_sport": udp.sport, "udp_dport": udp.dport}
        text += f", UDP {udp.sport} -> {udp.dport}"
    if vxlan is not None:
        values["vni"] = vxlan.vni
        text += f", VNI {vxlan.vni}"
    return Change("encapsulated", text, values)


def _inner(then: Packet, now: Packet) -> Iterator[Change]:
    was, ip = then.find(IPv4), now.find(IPv4)
    if was is None or ip is None:
        return
    yield from _number("ttl", "TTL", was.ttl, ip.ttl)
    for kind, what, old, new in (
        ("source", "source address", was.src, ip.src),
        ("destination", "destination address", was.dst, ip.dst),
    ):
        if old != new:
            text = f"{what} {old} -> {new} (NAT)"
            yield Change(kind, text, {"before": str(old), "after": str(new)})
    ports = _ports(then), _ports(now)
    if all(ports) and ports[0] != ports[1]:
        text = f"ports {ports[0]} became {ports[1]} (NAT)"
        yield Change("ports", text, {"before": ports[0], "after": ports[1]})
    if was.df != ip.df:
        words = "set" if ip.df else "cleared"
        text = f"don't fragment {words}"
        yield Change("df", text, {"before": int(was.df), "after": int(ip.df)})
    yield from _number("tos", "TOS", was.tos, ip.tos)
    if was.checksum_ok and not ip.checksum_ok:
        yield Change("checksum", "the IP header's checksum is wrong now", {})


def _number(kind: str, what: str, before: int, after: int) -> Iterator[Change]:
    if before != after:
        yield Change(kind, f"{what} {before} -> {after}", {"before": before, "after": after})


def _ends(ip: IPv4) -> str:
    return f"{ip.src} -> {ip.dst}"


def _macs(packet: Packet) -> tuple[str, str] | None:
    ethernet = packet.find(Ethernet)
    return (ethernet.src, ethernet.dst) if ethernet else None


def _rewritten(was: tuple[str, str] | None, now: tuple[str, str] | None) -> Change:
    values: dict[str, str | int] = {}
    for name, macs in (("before", was), ("after", now)):
        if macs is not None:
            values |= {f"src_{name}": macs[0], f"dst_{name}": macs[1]}
    text = f"MACs rewritten: {now[0]} -> {now[1]}" if now else "MACs rewritten"
    return Change("macs", text, values)


def _ports(packet: Packet) -> str:
    """What identifies the flow behind the addresses; NAT may change it."""
    if packet.find(ICMP) is not None:
        return ""
    layer = packet.find(TCP) or packet.find(UDP)
    return f"{layer.sport} -> {layer.dport}" if layer else ""
