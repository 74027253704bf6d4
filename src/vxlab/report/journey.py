"""A packet's journey: as a tree for people, as JSON, as a pcapng file with every hop's packets."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from vxlab import __version__
from vxlab.errors import JournalError
from vxlab.packet import TCP, UDP, VXLAN, Ethernet, IPv4, Packet
from vxlab.report import text
from vxlab.trace import pcapng
from vxlab.trace.journey import Journey, Leg, Reason, Seen, Stop, Trace

_NARROWEST = 60  # columns
_WIDEST = 120  # columns; longer lines are hard to read
CLOCKS = "each host has a clock of its own: on each, times begin with its first sight"
SHOWN = 5  # journeys that went different ways, and a person still reads

#: Changes that nobody expects of a healthy path.
STRANGE = frozenset({"fragmented", "reassembled", "checksum", "df", "tos"})


def show(trace: Trace, columns: int | None = None) -> None:
    """The journeys as a tree; those that went the same way are told once.

    Args:
        trace: what was found.
        columns: width of a line; None for the terminal's.
    """
    width = shutil.get_terminal_size((100, 24)).columns if columns is None else columns
    width = min(max(width, _NARROWEST), _WIDEST)
    at = f"{trace.at} " if trace.at else ""
    text.say(text.style(f"{trace.source} {trace.src} -> {at}{trace.dst}", "bold"))
    text.say(text.wrapped(trace.expected, 0, width))
    if not trace.one_clock:
        text.say(text.style(text.wrapped(CLOCKS, 0, width), "dim"))
    ways = alike(trace)
    for journeys in ways[:SHOWN]:
        text.say()
        _Tree(width, blind=trace.dropped > 0).journey(journeys[0], journeys)
    if len(ways) > SHOWN:
        text.say(f"{len(ways) - SHOWN} more ways that packets went; --json has all")
    text.say()
    _summary(trace, width)


def alike(trace: Trace) -> list[list[Journey]]:
    """The journeys, those that went the same way together, in the order of the first of each."""
    ways: dict[object, list[Journey]] = {}
    for journey in trace.journeys:
        ways.setdefault(_shape(journey), []).append(journey)
    return list(ways.values())


def _shape(journey: Journey) -> object:
    """What journeys that went the same way have in common."""
    legs = tuple(
        (
            leg.role,
            leg.again,
            leg.arrived,
            tuple((s.hop, s.direction, len(s.pieces), s.duplicates) for s in leg.stops),
            tuple(r.code for r in leg.reasons),
        )
        for leg in journey.legs
    )
    return journey.ok, legs, tuple(reason.code for reason in journey.reasons)


class _Tree:
    """Draws one journey: a branch for each packet, machine and hop."""

    def __init__(self, width: int, *, blind: bool) -> None:
        self.width = width
        self.blind = blind  # the captures lost frames: what was not seen may have been there

    def journey(self, journey: Journey, alike: Sequence[Journey]) -> None:
        probe = journey.probe
        if len(alike) > 1:
            others = text.plural(len(alike) - 1, "other")
            text.say(f"probe {probe.number}; {others} went the same way")
        if not journey.legs:
            self.line("", text.style("no hop saw the packet", "red"))
        for number, leg in enumerate(journey.legs):
            if number:
                text.say()
            self.leg(leg)
        self.reasons("", journey.reasons)

    def line(self, lead: str, words: str, colour: str = "") -> None:
        """A line behind a lead, which goes on below itself where it is too long."""
        wrapped = text.wrapped(words, 0, self.width - len(lead)).splitlines() or [""]
        rest = "".join(_PASSED.get(sign, " ") for sign in lead)
        for number, part in enumerate(wrapped):
            shown = text.style(part, colour) if colour else part
            text.say((rest if number else lead) + shown)

    def leg(self, leg: Leg) -> None:
        verdict = {True: "arrived", False: "LOST", None: "left the lab"}[leg.arrived]
        colour = {True: "green", False: "red", None: "yellow"}[leg.arrived]
        if self.blind and leg.arrived is False:
            verdict, colour = "not seen to arrive", "yellow"
        again = ", sent again" if leg.again else ""
        shown = verdict if leg.role == "error" else text.style(verdict, colour)
        if leg.stops:
            head = f"{leg.what}{again}, {leg.src} -> {leg.dst}: "
            text.say(text.style(head, "bold") + shown)
        else:
            text.say(text.style(leg.what, "red"))
        machines = [(p, list(s)) for p, s in groupby(leg.stops, lambda stop: stop.hop.place)]
        lost = leg.arrived is False and bool(leg.stops)
        for number, (place, stops) in enumerate(machines):
            last = number == len(machines) - 1 and not lost
            text.say(f"{'└' if last else '├'}─ {place}")
            self.machine("   " if last else "│  ", stops, mark=lost and number == len(machines) - 1)
        if lost and self.blind:
            words = (
                f"last seen at {leg.stops[-1].hop}; the captures lost frames, it may have gone on"
            )
            self.line("└─ ", words, "yellow")
        elif lost:
            self.line("└─ ", f"lost: {leg.stops[-1].hop} is the last hop that saw it", "red")
            if leg.missed:
                self.line("   ", "never came to " + ", ".join(map(str, leg.missed)))
        if not self.blind:
            self.reasons("   " if leg.stops else "", leg.reasons)
        if leg.note:
            self.line("   ", leg.note, "yellow")

    def reasons(self, lead: str, reasons: Sequence[Reason]) -> None:
        for number, reason in enumerate(reasons):
            source = f" [{reason.source}]" if reason.source else ""
            self.line(f"{lead}{'because' if not number else 'and'} ", reason.text + source, "red")

    def machine(self, lead: str, stops: Sequence[Stop], *, mark: bool) -> None:
        for number, stop in enumerate(stops):
            last = number == len(stops) - 1
            rail = lead + ("   " if last else "│  ")
            head = f"{lead}{'└' if last else '├'}─ {_columns(stop)}"
            told = "; ".join(change.text for change in stop.changes)
            strange = any(change.kind in STRANGE for change in stop.changes)
            here = len(head) + 2 + len(told) <= self.width
            seen = f"{head}  {told}" if told and here else head
            if mark and last:
                seen = text.style(seen, "red")
            elif strange and here:
                seen = text.style(seen, "yellow")
            text.say(seen)
            if told and not here:
                self.line(f"{rail}  ", told, "yellow" if strange else "")
            why = "; ".join(_entry(entry.kind, entry.text) for entry in stop.why)
            if why:
                self.line(f"{rail}  ", f"why: {why}", "dim")


#: What a tree's lead becomes on the lines below.
_PASSED = {"├": "│", "│": "│"}


def _entry(kind: str, words: str) -> str:
    tables = ("route", "neighbour", "fdb")
    return f"{'FDB' if kind == 'fdb' else kind} {words}" if kind in tables else words


def _columns(stop: Stop) -> str:
    """Interface, direction, time since the start and the last hop, bytes of the IP packet."""
    last = "" if stop.since_last is None else f"{stop.since_last:+.1f}"
    lengths = [seen.ip_length for seen in stop.pieces]
    size = f"{lengths[0]} B" if len(lengths) == 1 else f"{'+'.join(map(str, lengths))} B"
    name, way = stop.hop.interface, stop.direction
    return f"{name:<9} {way:<3} {stop.since_start:>9.1f} µs {last:>8}  {size:>6}"


def verdict(trace: Trace) -> str:
    """What became of the packets, in a sentence."""
    good = [journey for journey in trace.journeys if journey.ok]
    total = len(trace.journeys)
    trips = [j.round_trip for j in good if j.round_trip is not None]
    words = {
        True: "packet and answer arrived" if total == 1 else f"all {total} answered",
        False: _where_lost(trace.journeys[0]) if total == 1 else f"{len(good)} of {total} answered",
        None: f"not measured: {len(good)} of {total} seen to be answered",
    }[trace.ok]
    if len(trips) == 1:
        words += f": {trips[0]:.1f} µs round trip"
    elif trips:
        words += f": round trip {_spread(trips)} µs (min/mean/max)"
    between = [j.between for j in good if j.between is not None]
    if between:
        many = _spread(between) if len(between) > 1 else f"{between[0]:.1f}"
        words += f", {many} µs of it between the hosts"
    return words


def _summary(trace: Trace, width: int) -> None:
    colour = text.MARKS[trace.ok][2]
    text.say(text.style(text.wrapped(verdict(trace), 0, width), colour))
    seen = sum(len(watched.frames) for watched in trace.watched)
    lost = [f"{w.hop} lost {text.plural(w.dropped, 'frame')}" for w in trace.watched if w.dropped]
    hops = text.plural(len(trace.watched), "hop")
    line = f"captured {text.plural(seen, 'frame')} at {hops}, {trace.dropped} dropped"
    line += f": {', '.join(lost)}" if lost else ""
    line = text.wrapped(line, 0, width)
    text.say(text.style(line, "yellow") if lost else line)
    for watched in trace.watched:
        if watched.error:
            told = f"{watched.hop} could not be watched: {watched.error}"
            text.say(text.style(text.wrapped(told, 0, width), "yellow"))


def _spread(times: Sequence[float]) -> str:
    return f"{min(times):.1f}/{sum(times) / len(times):.1f}/{max(times):.1f}"


def _where_lost(journey: Journey) -> str:
    legs = [leg for leg in journey.legs if leg.role != "error" and leg.arrived is False]
    if not legs:
        return "lost: it never left the container"
    if not legs[-1].stops:
        return "the packet arrived, and no answer came"
    which = "the packet" if legs[-1].role == "request" else "the answer"
    return f"lost: {which} was last seen at {legs[-1].stops[-1].hop}"


# --- JSON ---------------------------------------------------------------------------------------


def as_json(trace: Trace) -> dict[str, Any]:
    """The stable form; times are microseconds, `ns` is nanoseconds since 1970, lengths bytes.

    Without ``one_clock`` the times and `ns` of different nodes are by different clocks.
    """
    return {
        "lab": trace.lab,
        "ok": trace.ok,
        "protocol": trace.protocol,
        "source": {"place": str(trace.source), "address": trace.src},
        "target": {
            "asked": trace.target,
            "place": str(trace.at) if trace.at else None,
            "address": trace.dst,
        },
        "expected": trace.expected,
        "one_clock": trace.one_clock,
        "dropped": trace.dropped,
        "hops": [
            {
                "hop": str(watched.hop),
                "frames": len(watched.frames),
                "dropped": watched.dropped,
                "error": watched.error or None,
            }
            for watched in trace.watched
        ],
        "journeys": [_journey(journey) for journey in trace.journeys],
    }


def _journey(journey: Journey) -> dict[str, Any]:
    probe = journey.probe
    return {
        "probe": probe.number,
        "sent_ns": probe.sent_ns or None,
        "refused": probe.refused or None,
        "ok": journey.ok,
        "round_trip_us": journey.round_trip,
        "between_hosts_us": journey.between,
        "reasons": _reasons(journey.reasons),
        "legs": [_leg(leg) for leg in journey.legs],
    }


def _reasons(reasons: Sequence[Reason]) -> list[dict[str, str]]:
    return [{"code": r.code, "where": r.where, "text": r.text, "source": r.source} for r in reasons]


def _leg(leg: Leg) -> dict[str, Any]:
    return {
        "role": leg.role,
        "what": leg.what,
        "src": leg.src,
        "dst": leg.dst,
        "arrived": leg.arrived,
        "again": leg.again,
        "encapsulated": leg.encapsulated,
        "note": leg.note or None,
        "last_seen": str(leg.stops[-1].hop) if leg.stops else None,
        "missed": [str(hop) for hop in leg.missed],
        "reasons": _reasons(leg.reasons),
        "stops": [_stop(stop) for stop in leg.stops],
    }


def _stop(stop: Stop) -> dict[str, Any]:
    return {
        "hop": str(stop.hop),
        "node": stop.hop.node,
        "container": stop.hop.container or None,
        "interface": stop.hop.interface,
        "direction": stop.direction,
        "since_start_us": stop.since_start,
        "since_last_us": stop.since_last,
        "duplicates": stop.duplicates,
        "frames": [_frame(seen) for seen in stop.frames],
        "changes": [{"kind": c.kind, "text": c.text, **c.values} for c in stop.changes],
        "why": [{"kind": e.kind, "where": e.where, "text": e.text} for e in stop.why],
    }


def _frame(seen: Seen) -> dict[str, Any]:
    packet = seen.packet
    carrier = packet if seen.encapsulated else None
    outer = packet.find(IPv4)
    # A later fragment of the outer packet does not show the inner packet's headers.
    shown = not (carrier and outer and outer.frag_offset)
    udp, vxlan = packet.find(UDP), packet.find(VXLAN)
    return {
        "ns": seen.frame.ns,
        "length": seen.frame.length,
        **_headers(seen.inner if shown else Packet(())),
        "outer": None
        if carrier is None
        else {
            **_headers(carrier),
            "udp_sport": udp.sport if udp else None,
            "udp_dport": udp.dport if udp else None,
            "vni": vxlan.vni if vxlan else None,
        },
    }


def _headers(packet: Packet) -> dict[str, Any]:
    ethernet, ip = packet.find(Ethernet), packet.find(IPv4)
    layer = packet.find(TCP) or packet.find(UDP)
    return {
        "mac_src": ethernet.src if ethernet else None,
        "mac_dst": ethernet.dst if ethernet else None,
        "src": str(ip.src) if ip else None,
        "dst": str(ip.dst) if ip else None,
        "ttl": ip.ttl if ip else None,
        "id": ip.id if ip else None,
        "ip_length": ip.total_length if ip else None,
        "df": ip.df if ip else None,
        "mf": ip.mf if ip else None,
        "fragment_offset": ip.frag_offset if ip else None,
        "sport": layer.sport if layer else None,
        "dport": layer.dport if layer else None,
    }


# --- pcapng -------------------------------------------------------------------------------------


def write_pcap(path: Path, trace: Trace) -> None:
    """Every hop's frames in one file, in the order of time; the journeys' own have a comment.

    Raises:
        JournalError: the file cannot be written.
    """
    try:
        with path.open("wb") as file:
            file.writelines(_blocks(trace))
    except OSError as error:
        raise JournalError(f"cannot write {path}: {error.strerror}") from None


def _blocks(trace: Trace) -> Iterator[bytes]:
    interfaces = [
        pcapng.Interface(str(w.hop), link=pcapng.RAW_IP if w.l3 else pcapng.ETHERNET)
        for w in trace.watched
    ]
    subject = f"vxlab trace {trace.source} {trace.target} in {trace.lab}"
    if not trace.one_clock:
        subject += "; the time stamps are each host's own, no two clocks were compared"
    yield pcapng.header(interfaces, application=f"vxlab {__version__}", comment=subject)
    comments = dict(_comments(trace))
    frames = [(f.ns, i, f) for i, w in enumerate(trace.watched) for f in w.frames]
    for _, number, frame in sorted(frames, key=lambda each: each[:2]):
        told = comments.get(id(frame))
        yield pcapng.packet(number, frame, [told] if told else [])
    for number, watched in enumerate(trace.watched):
        if watched.frames:
            begun, ended = watched.frames[0].ns, watched.frames[-1].ns
            received = len(watched.frames) + watched.dropped
            yield pcapng.statistics(number, begun, ended, received, watched.dropped)


def _comments(trace: Trace) -> Iterator[tuple[int, str]]:
    """What is said of each matched frame, by the frame's identity."""
    for journey in trace.journeys:
        for leg in journey.legs:
            for number, stop in enumerate(leg.stops, 1):
                changed = "; ".join(change.text for change in stop.changes)
                words = f"probe {journey.probe.number}, {leg.role}, hop {number} ({stop.hop})"
                for seen in stop.frames:
                    yield id(seen.frame), f"{words}: {changed}" if changed else words
