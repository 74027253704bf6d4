"""Traces for the page's tests, and what the page holds of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import talk
from journeys import (
    NODE1,
    NODE2,
    SOURCE,
    TARGET,
    WAY,
    A,
    B,
    Wire,
    echo,
    ether,
    ipv4,
    probe,
    scene,
    trace,
    udp,
)
from vxlab.labfile import default
from vxlab.report import page
from vxlab.sniff import Frame
from vxlab.trace.journey import Leg, Stop, Trace, Watched
from vxlab.trace.journey_match import Matcher
from vxlab.trace.journey_told import journeys
from vxlab.trace.why import Place

HOSTILE = '</script></script x><!--<script><img src=x onerror="window.hurt=1">&amp;<!--\'$verdict'


#: What the page says that it was made by.
COMMAND = "vxlab trace container01 container02 --lab talk"


def ping() -> Trace:
    return trace(Wire().ping())


def gateway() -> Trace:
    """Three hops there, three back."""
    wire = Wire()
    wire.pass_by(WAY[:3], A, "10.5.1.1", echo())
    for name, direction in zip(
        ("node01:cbr0", "node01:vethlocal", "node01/container01:vethNS"),
        ("out", "out", "in"),
        strict=True,
    ):
        wire.see(name, direction, ether(ipv4("10.5.1.1", A, echo(0), ident=3)))  # type: ignore[arg-type]
    found = trace(wire, [probe(dst="10.5.1.1")], at=Place("node01"))
    words = "no VXLAN: both are on node01, nothing leaves the node"
    return replace(found, target="gateway", dst="10.5.1.1", at=Place("node01"), expected=words)


def udp_backend() -> Trace:
    """flannel0 has no Ethernet header; on the wire the IP packet lies in UDP as it is."""
    lab = talk.TALK
    wire = Wire()
    inner = ipv4(A, B, echo(), ttl=63)
    carried = ether(ipv4(NODE1, NODE2, udp(8285, 8285, inner), proto=17))
    frames: dict[str, bytes] = {"node01:flannel0": inner, "node01:eth0": carried}
    for name, data in frames.items():
        wire.see(name, "out", data)
    watched = [replace(w, l3=w.hop.interface == "flannel0") for w in wire.watched]
    asked = [probe()]
    seen = list(Matcher(asked, vxlan_ports={8472}, flanneld_port=8285).match(watched))
    told = journeys(scene(wire, lab=lab), asked, seen)
    return Trace("talk", "icmp", SOURCE, A, "container02", B, TARGET, "", told, tuple(watched))


def of_many_ways(count: int) -> Trace:
    """Probes that all came one hop further than the one before."""
    tokens = [b"token-%d-" % number for number in range(1, count + 1)]
    wire = Wire()
    for number, token in enumerate(tokens, 1):
        wire.ping(seq=number, token=token, there=number)
    return trace(wire, [probe(n, token=token) for n, token in enumerate(tokens, 1)])


def hostile() -> Trace:
    """Every text that comes from a lab or a kernel would end the script, if it could."""
    found = trace(Wire().ping(there=4))
    (journey,) = found.journeys
    (leg,) = journey.legs
    reasons = tuple(replace(each, text=HOSTILE, source=HOSTILE) for each in leg.reasons)
    stops = tuple(
        replace(
            stop,
            hop=replace(stop.hop, interface=HOSTILE, container=HOSTILE),
            changes=tuple(replace(change, text=HOSTILE) for change in stop.changes),
            why=tuple(replace(entry, text=HOSTILE, where=HOSTILE) for entry in stop.why),
        )
        for stop in leg.stops
    )
    bad = replace(
        leg, what=HOSTILE, src=HOSTILE, note=HOSTILE, stops=stops, reasons=reasons, missed=()
    )
    watched = Watched(replace(stops[0].hop, node=HOSTILE), (), 0, HOSTILE)
    return replace(
        found,
        lab=HOSTILE,
        source=Place("node01", HOSTILE),
        target=HOSTILE,
        expected=HOSTILE,
        journeys=(replace(journey, legs=(bad,)),),
        watched=(watched,),
    )


def as_bytes(size: int) -> Trace:
    """A frame longer than the page holds."""
    wire = Wire()
    data = ether(ipv4(A, B, echo(size=size)))
    wire.frames["node01:cbr0"] = [Frame(wire.now, "in", data, len(data))]
    return trace(wire)


def text(found: Trace) -> str:
    return page.page(found, default(), command=COMMAND)


def data(html: str) -> Any:
    """What is embedded for the script."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def shown(found: Trace) -> Iterator[tuple[Leg, Stop]]:
    """The stops in the order in which the page shows them."""
    for leg in found.journeys[0].legs:
        for stop in leg.stops:
            yield leg, stop
