"""The journeys for the page: as data for its script, and as tables for whoever has no script."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from vxlab.lab import Lab
from vxlab.report.journey import SHOWN, STRANGE, alike
from vxlab.report.page.frames import as_data
from vxlab.report.page.picture import Picture
from vxlab.report.text import plural
from vxlab.steps.overlay import vxlan_ports
from vxlab.trace import hops
from vxlab.trace.hops import Hop
from vxlab.trace.journey import Journey, Leg, Reason, Seen, Stop, Trace
from vxlab.trace.why import Entry

#: Frames of one stop that the page holds: a datagram of 64 KiB comes in more than forty fragments.
MOST_FRAMES = 12

#: The tables' names, and the command that lists each.
_TABLES = {
    "route": ("route", "ip route"),
    "neighbour": ("neighbour", "ip neigh"),
    "fdb": ("FDB", "bridge fdb"),
    "bridge": ("bridge", "bridge fdb"),
    "vtep": ("VTEP", "ip -d link"),
    "nat": ("NAT", "conntrack"),
}

_ROLES = {"request": "Request", "answer": "Answer", "error": "Error"}


class Told:
    """A trace's journeys in the page's words.

    Args:
        trace: what was found.
        lab: the lab.
        picture: where the hops are drawn.
    """

    def __init__(self, trace: Trace, lab: Lab, picture: Picture) -> None:
        self.trace = trace
        self.lab = lab
        self.picture = picture
        self.blind = trace.dropped > 0
        self.ports = vxlan_ports(lab)
        self.ways = alike(trace)

    @property
    def left_out(self) -> int:
        """Ways that packets went and that the page does not show."""
        return max(len(self.ways) - SHOWN, 0)

    def why_lost(self) -> list[str]:
        """Why the first packet that was lost was lost, as far as that is known."""
        lost = [journey for journey in self.trace.journeys if journey.ok is False]
        if self.blind or not lost:
            return []
        reasons = [*lost[0].reasons]
        for leg in lost[0].legs:
            reasons += leg.reasons
        return [reason.text for reason in reasons]

    # --- data -----------------------------------------------------------------------------------

    def data(self) -> dict[str, Any]:
        journeys = [self._journey(journeys) for journeys in self.ways[:SHOWN]]
        frames = [
            frame["length"]
            for journey in journeys
            for leg in journey["legs"]
            for stop in leg["stops"]
            for frame in stop["frames"]
        ]
        return {"longest": max(frames, default=0), "journeys": journeys}

    def _journey(self, journeys: Sequence[Journey]) -> dict[str, Any]:
        journey = journeys[0]
        reasons = [_reason(each) for each in journey.reasons]
        return {
            "label": label(journeys),
            "legs": [self._leg(leg) for leg in journey.legs],
            "reasons": reasons,
        }

    def _leg(self, leg: Leg) -> dict[str, Any]:
        verdict, tone = self.verdict(leg)
        stops = []
        before: Hop | None = None
        for stop in leg.stops:
            stops.append(self._stop(stop, before))
            before = stop.hop
        lost = leg.arrived is False
        return {
            "role": _ROLES[leg.role] + (" again" if leg.again else ""),
            "what": arrows(leg.what),
            "ends": f"{leg.src} → {leg.dst}",
            "verdict": verdict,
            "tone": tone,
            "lost": lost and bool(leg.stops) and not self.blind,
            "note": leg.note,
            "last": self.last_words(leg),
            # Where the captures lost frames, what was not seen may have been there.
            "missed": [] if self.blind else [str(hop) for hop in leg.missed],
            "reasons": [] if self.blind else [_reason(reason) for reason in leg.reasons],
            "beyond": self.picture.out(before) if before and leg.arrived is None else [],
            "stops": stops,
        }

    def verdict(self, leg: Leg) -> tuple[str, str]:
        """What became of a packet, and in which tone the page says it."""
        if leg.arrived:
            return "arrived", "good"
        if leg.arrived is None:
            return "left the lab", "warn"
        if self.blind:
            return "not seen to arrive", "warn"
        return ("lost", "bad") if leg.stops else ("none", "bad")

    def last_words(self, leg: Leg) -> str:
        """What is to be said where a packet was seen last, and did not arrive."""
        if leg.arrived is not False:
            return ""
        if not leg.stops:
            return leg.what
        if self.blind:
            return "Last seen here; the captures lost frames, so that it may have gone on."
        return "Lost: this is the last hop that saw it."

    def _stop(self, stop: Stop, before: Hop | None) -> dict[str, Any]:
        shown = list(pieces(stop))[:MOST_FRAMES]
        return {
            "hop": str(stop.hop),
            "place": stop.hop.place,
            "machine": stop.hop.container or stop.hop.node,
            "interface": stop.hop.interface,
            "direction": stop.direction,
            "described": hops.described(self.lab, stop.hop),
            "station": self.picture.station(stop.hop),
            "via": self.picture.between(before, stop.hop),
            "facts": list(_facts(stop)),
            "changes": [[arrows(change.text), change.kind in STRANGE] for change in stop.changes],
            "why": [[*_table(entry), entry.where, entry.text] for entry in stop.why],
            "frames": [as_data(seen, title, self.ports) for seen, title in shown],
            "left_out": len(stop.frames) - len(shown),
        }

    # --- without a script -----------------------------------------------------------------------

    def tables(self) -> str:
        """All that the page shows, but for the frames' bytes, as plain tables."""
        return "\n".join(
            line for journeys in self.ways[:SHOWN] for line in self._tables_of(journeys)
        )

    def _tables_of(self, journeys: Sequence[Journey]) -> Iterator[str]:
        journey = journeys[0]
        yield f"<h3>{escape(label(journeys))}</h3>"
        yield from _reasons(journey.reasons)
        for leg in journey.legs:
            yield from self._table(leg)

    def _table(self, leg: Leg) -> Iterator[str]:
        verdict, tone = self.verdict(leg)
        again = ", sent again" if leg.again else ""
        words = f"{_ROLES[leg.role]}: {arrows(leg.what)}{again}, {leg.src} → {leg.dst}"
        caption = f'{escape(words)}: <strong class="{tone}">{escape(verdict)}</strong>'
        if not leg.stops:
            yield f"<p>{caption}</p>"
        else:
            yield f'<div class="wide"><table><caption>{caption}</caption>'
            heads = ("hop", "way", "since start", "since last", "IP length", "what changed", "why")
            yield f"<thead><tr>{''.join(f'<th scope=col>{h}</th>' for h in heads)}</tr></thead>"
            yield "<tbody>"
            yield from map(_row, leg.stops)
            yield "</tbody></table></div>"
            if leg.arrived is False:
                yield f'<p class="{tone}">{escape(self.last_words(leg))}</p>'
        if not self.blind:
            yield from _reasons(leg.reasons)
        if leg.missed and not self.blind:
            missed = ", ".join(map(str, leg.missed))
            yield f"<p>Never came to {escape(missed)}.</p>"
        if leg.note:
            yield f"<p>{escape(leg.note)}</p>"


def arrows(words: str) -> str:
    """Words with arrows as a page can have them."""
    return words.replace(" -> ", " → ")


def label(journeys: Sequence[Journey]) -> str:
    """Which probes went one way, and what became of them."""
    journey = journeys[0]
    others = f", {plural(len(journeys) - 1, 'other')} the same way" if len(journeys) > 1 else ""
    verdict = {True: "answered", False: "not answered", None: "not measured"}[journey.ok]
    trip = f" in {journey.round_trip:.1f} µs" if journey.round_trip is not None else ""
    return f"Probe {journey.probe.number}{others}: {verdict}{trip}"


def pieces(stop: Stop) -> Iterator[tuple[Seen, str]]:
    """A stop's frames, each fragment first, and which of them each is."""
    parts = stop.pieces
    for number, seen in enumerate(parts, 1):
        yield seen, f"fragment {number} of {len(parts)}" if len(parts) > 1 else ""
    # By identity: a duplicate is equal to what it is a duplicate of in all but its time.
    known = {id(seen) for seen in parts}
    for seen in stop.frames:
        if id(seen) not in known:
            yield seen, "seen again"


def length(stop: Stop) -> str:
    """Bytes of the IP packet that have to fit the MTU, fragment by fragment."""
    return " + ".join(str(seen.ip_length) for seen in stop.pieces)


def _facts(stop: Stop) -> Iterator[tuple[str, str]]:
    yield "since the start", f"{stop.since_start:.1f} µs"
    if stop.since_last is not None:
        yield "since the last hop", f"{stop.since_last:+.1f} µs"
    yield "IP packet", f"{length(stop)} bytes"


def _table(entry: Entry) -> tuple[str, str]:
    return _TABLES.get(entry.kind, (entry.kind, ""))


def _reason(reason: Reason) -> list[str]:
    return [reason.text, reason.source]


def _reasons(reasons: Sequence[Reason]) -> Iterator[str]:
    if reasons:
        lines = (f"{r.text} [{r.source}]" if r.source else r.text for r in reasons)
        items = "".join(f"<li>{escape(line)}</li>" for line in lines)
        yield f'<ul class="reasons">{items}</ul>'


def _row(stop: Stop) -> str:
    last = "" if stop.since_last is None else f"{stop.since_last:+.1f} µs"
    changed = "; ".join(arrows(change.text) for change in stop.changes)
    why = "; ".join(f"{_table(entry)[0]} {entry.text}" for entry in stop.why)
    cells = (
        stop.direction,
        f"{stop.since_start:.1f} µs",
        last,
        f"{length(stop)} B",
        changed,
        why,
    )
    rest = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f"<tr><th scope=row>{escape(str(stop.hop))}</th>{rest}</tr>"
