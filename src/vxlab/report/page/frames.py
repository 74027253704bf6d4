"""A frame for the page: its bytes, and every header in them with its fields."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from vxlab.packet import (
    ARP,
    ICMP,
    TCP,
    UDP,
    VXLAN,
    Ethernet,
    ICMPv6,
    IPv4,
    IPv6,
    Layer,
    Payload,
    Raw,
    decode,
)
from vxlab.packet.fields import ICMP_TYPES, ICMPV6_TYPES, UNREACHABLE, fields
from vxlab.packet.headers import ICMP_QUOTING, ICMP_UNREACHABLE
from vxlab.trace.journey import Seen

#: Bytes of a frame that the page holds; an Ethernet frame of the usual 1500 bytes is whole.
MOST_BYTES = 1600

#: What a header is there for: to carry a packet over the underlay, to be carried, to be quoted by
#: an ICMP error; or the packet is not encapsulated at all.
Part = Literal["outer", "inner", "quoted", ""]


@dataclass(frozen=True, slots=True)
class Slice:
    """A header, and what it is there for."""

    layer: Layer
    part: Part

    @property
    def name(self) -> str:
        layer = self.layer
        if isinstance(layer, Raw):
            later = layer.reason.startswith("a later fragment")
            return "rest of the packet" if later else "not read"
        if isinstance(layer, Payload):
            return "data"
        kind = type(layer).__name__
        # There is but one VXLAN header, neither of the outer nor of the inner packet alone.
        alone = isinstance(layer, VXLAN) and self.part != "quoted"
        return kind if alone else f"{self.part} {kind}".strip()

    @property
    def colour(self) -> str:
        """The colour's name in the style sheet: warm for what carries, cool for what is carried."""
        layer = self.layer
        if isinstance(layer, Payload | Raw):
            return "data"
        if isinstance(layer, VXLAN) and self.part != "quoted":
            return "vxlan"
        kind = {Ethernet: "eth", ARP: "ip", IPv4: "ip", IPv6: "ip"}.get(type(layer), "l4")
        return f"{self.part}-{kind}" if self.part in ("outer", "quoted") else kind

    @property
    def is_header(self) -> bool:
        return not isinstance(self.layer, Payload | Raw)


def slices(seen: Seen, vxlan_ports: Collection[int]) -> tuple[Slice, ...]:
    """A frame's headers, outermost first; they follow each other and cover all its bytes.

    Args:
        seen: a frame of a journey; what flannel's udp backend carries in it is opened, too.
        vxlan_ports: UDP ports at which a quoted packet may be VXLAN.
    """
    return tuple(_quoted(list(_parts(seen)), vxlan_ports))


def _parts(seen: Seen) -> Iterator[Slice]:
    layers = seen.packet.layers
    vxlan = seen.packet.vxlan
    if not seen.encapsulated:
        yield from (Slice(layer, "") for layer in layers)
    elif vxlan is not None:
        for layer in layers:
            yield Slice(layer, "outer" if layer.offset <= vxlan.offset else "inner")
    else:
        carrier = seen.packet.find(UDP)
        for layer in layers:
            # Only the first fragment of an outer packet shows what it carries.
            if carrier is not None and isinstance(layer, Payload):
                yield from _opened(layer, "inner", ())
            else:
                yield Slice(layer, "outer")


def _opened(data: Payload, part: Part, vxlan_ports: Collection[int]) -> Iterator[Slice]:
    """The packet that begins where some data does, its places counted in the whole frame."""
    for layer in decode(data.data, vxlan_ports=vxlan_ports, l3=True).layers:
        yield Slice(replace(layer, offset=layer.offset + data.offset), part)


def _quoted(parts: Iterable[Slice], vxlan_ports: Collection[int]) -> Iterator[Slice]:
    """With the beginning of the packet that an ICMP error is about opened."""
    before: Layer | None = None
    for each in parts:
        quoting = isinstance(before, ICMP) and before.type in ICMP_QUOTING
        if quoting and isinstance(each.layer, Payload):
            yield from _opened(each.layer, "quoted", vxlan_ports)
        else:
            yield each
        before = each.layer


def as_data(seen: Seen, title: str, vxlan_ports: Collection[int]) -> dict[str, Any]:
    """A frame as the page's script wants it.

    Args:
        seen: the frame.
        title: which of a hop's frames it is; empty for the only one.
        vxlan_ports: UDP ports of the lab's VTEPs.
    """
    parts = slices(seen, vxlan_ports)
    headers = sum(part.layer.length for part in parts if part.is_header)
    outer = sum(part.layer.length for part in parts if part.part == "outer" and part.is_header)
    data = seen.frame.data
    return {
        "title": title,
        "length": seen.frame.length,
        "kept": len(data),
        "bytes": data[:MOST_BYTES].hex(),
        "headers": headers,
        "outer": outer,
        "layers": [_layer(part, data) for part in parts if part.layer.length],
    }


def _layer(part: Slice, data: bytes) -> dict[str, Any]:
    layer = part.layer
    return {
        "name": part.name,
        "colour": part.colour,
        "part": part.part,
        "offset": layer.offset,
        "length": layer.length,
        "said": _said(layer),
        "fields": [[f.name, f.value, f.offset, f.length] for f in fields(layer, data)],
    }


def _said(layer: Layer) -> str:
    """What matters of a header, in a few words."""
    match layer:
        case Ethernet():
            return f"{layer.src} → {layer.dst}"
        case IPv4():
            return f"{layer.src} → {layer.dst}, TTL {layer.ttl}"
        case IPv6():
            return f"{layer.src} → {layer.dst}, hop limit {layer.hop_limit}"
        case UDP() | TCP():
            return f"port {layer.sport} → {layer.dport}"
        case VXLAN():
            return f"VNI {layer.vni}"
        case ICMP() | ICMPv6():
            return _icmp(layer)
        case ARP():
            return f"{layer.sender_ip} → {layer.target_ip}"
        case Raw():
            return layer.reason
        case Payload():
            return ""


def _icmp(layer: ICMP | ICMPv6) -> str:
    names = ICMP_TYPES if isinstance(layer, ICMP) else ICMPV6_TYPES
    unreachable = isinstance(layer, ICMP) and layer.type == ICMP_UNREACHABLE
    words = UNREACHABLE.get(layer.code) if unreachable else None
    words = words or names.get(layer.type) or f"type {layer.type}, code {layer.code}"
    if isinstance(layer, ICMP) and layer.ident is not None:
        return f"{words}, id {layer.ident}, seq {layer.seq}"
    if isinstance(layer, ICMP) and layer.mtu is not None:
        return f"{words}, MTU {layer.mtu}"
    return words
