"""Puts a trace's journeys together: what was seen at the hops, beside the way by the tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from vxlab.lab import Lab
from vxlab.packet import ICMP, ICMP_UNREACHABLE, TCP, UDP, IPv4
from vxlab.sniff import Direction
from vxlab.steps import bridge
from vxlab.steps.site import States
from vxlab.steps.veth import INSIDE
from vxlab.trace import hops
from vxlab.trace.clocks import Clocks
from vxlab.trace.hops import Hop
from vxlab.trace.journey import Journey, Leg, Probe, Reason, Role, Seen, Stop, Watched
from vxlab.trace.journey_changes import changes
from vxlab.trace.why import Entry, Place, Step, Way, owner
from vxlab.trace.why_lost import Counters, Loss, reasons, words
from vxlab.trace.why_way import way

#: Code of "unreachable" by which a target answers for a closed UDP port (RFC 1122).
_PORT = 3


@dataclass(frozen=True, slots=True)
class Scene:
    """What the journeys are told from, besides the frames."""

    lab: Lab
    states: States
    source: Place
    at: Place | None  # who has the probes' destination; None: nobody in the lab
    watched: Mapping[Hop, Watched] = field(default_factory=dict)
    grown: Mapping[str, Counters] = field(default_factory=dict)
    ways: dict[tuple[Place, str], Way] = field(default_factory=dict, compare=False)

    def way(self, start: Place, target: str) -> Way:
        """The way by the tables, worked out once for all probes."""
        if (start, target) not in self.ways:
            self.ways[start, target] = way(self.lab, self.states, start, target)
        return self.ways[start, target]


def journeys(scene: Scene, probes: Sequence[Probe], seen: Sequence[Seen]) -> tuple[Journey, ...]:
    """One journey per probe, in the probes' order."""
    by_probe: dict[int, list[Seen]] = {probe.number: [] for probe in probes}
    for each in seen:
        by_probe[each.probe].append(each)
    return tuple(_Teller(scene, p, by_probe[p.number]).journey() for p in probes)


class _Teller:
    """Tells one probe's journey."""

    def __init__(self, scene: Scene, probe: Probe, seen: Sequence[Seen]) -> None:
        self.scene = scene
        self.probe = probe
        judged = [self._judged(each) for each in seen]
        self.clocks = Clocks(scene.lab, scene.source, judged)
        self.seen = sorted(judged, key=self.clocks.order)
        self.starts = self.clocks.starts(self.seen)

    def _judged(self, seen: Seen) -> Seen:
        """The target's "port unreachable" is its answer, not an accident on the way."""
        ip, icmp = seen.ip, seen.inner.find(ICMP)
        if seen.role != "error" or seen.about != "request" or ip is None or icmp is None:
            return seen
        closed = icmp.type == ICMP_UNREACHABLE and icmp.code == _PORT
        if closed and self.probe.protocol == "udp" and str(ip.src) == self.probe.dst:
            return replace(seen, role="answer", about="answer")
        return seen

    def journey(self) -> Journey:
        if self.probe.refused:
            return Journey(self.probe, (), False, reasons=self._refusal())
        legs = self.clocks.sorted(self._leg(frames, again) for frames, again in self._trains())
        request = [leg for leg in legs if leg.role == "request"]
        answer = [leg for leg in legs if leg.role == "answer"]
        if answer:
            legs = [_got_there(leg) if leg.role == "request" else leg for leg in legs]
        ok = any(leg.arrived for leg in answer)
        if not answer and any(leg.arrived is not False for leg in request):
            legs.append(self._silence())
        verdict = None if not ok and self._blind() else ok
        found = () if legs else self._nothing()
        trip = self.clocks.round_trip(request, answer)
        between = self.clocks.between(self.scene.at, request, answer)
        return Journey(self.probe, tuple(legs), verdict, trip, found, between)

    def _blind(self) -> bool:
        """Whether the captures may have missed what seems lost."""
        return any(watched.dropped for watched in self.scene.watched.values())

    def _refusal(self) -> tuple[Reason, ...]:
        scene = self.scene
        said = Reason(
            "refused", str(scene.source), f"the kernel says: {self.probe.refused}", "send"
        )
        end = scene.way(scene.source, self.probe.dst).end
        if end is not None and end.where == str(scene.source):
            return Reason(end.code, end.where, end.text, "state"), said
        return (said,)

    def _nothing(self) -> tuple[Reason, ...]:
        """The probe was sent and no hop saw it."""
        scene = self.scene
        found = scene.way(scene.source, self.probe.dst)
        if found.end is not None:
            return (Reason(found.end.code, found.end.where, found.end.text, "state"),)
        where, hop = str(scene.source), found.steps[0].hop if found.steps else None
        watched = self.scene.watched.get(hop) if hop else None
        if watched is not None and watched.error:
            text = f"{hop} could not be watched: {watched.error}"
            return (Reason("not-watched", where, text, "capture"),)
        text = "it never came out of the container: does anybody answer its ARP requests?"
        return (Reason("no-neighbour", where, text, "capture"),)

    # --- legs -----------------------------------------------------------------------------------

    def _trains(self) -> Iterator[tuple[list[Seen], bool]]:
        """The frames of each packet; and whether it is the same one, sent again."""
        packets: dict[tuple[object, ...], list[Seen]] = {}
        for seen in self.seen:
            ip = seen.ip
            ident = ip.id if ip is not None else None
            packets.setdefault((seen.role, seen.about, ident), []).append(seen)
        known: set[tuple[Role, Role]] = set()
        for frames in packets.values():
            for train in self.clocks.trains(frames):
                kind = train[0].role, train[0].about
                yield train, kind in known and train[0].role != "error"
                known.add(kind)

    def _leg(self, frames: list[Seen], again: bool) -> Leg:
        first = frames[0]
        ip = first.ip
        src, dst = (str(ip.src), str(ip.dst)) if ip else (self.probe.src, self.probe.dst)
        path = self._way(first.role, src, dst)
        stops = self._stops(frames, path)
        arrived = self._arrived(first.role, stops, path, dst)
        beyond = _beyond(path, stops)
        missed: tuple[Hop, ...] = ()
        found: tuple[Reason, ...] = ()
        if arrived is False:
            missed = self._missed(first.role, path, stops)
            found = reasons(self._loss(first.role, path, stops[-1], beyond))
        carried = any(seen.encapsulated for seen in frames)
        return Leg(
            first.role,
            what(self.probe, first),
            src,
            dst,
            stops,
            arrived,
            again,
            carried,
            _note(stops),
            missed,
            found,
        )

    def _missed(self, role: Role, path: Way, stops: Sequence[Stop]) -> tuple[Hop, ...]:
        """Where it should have come by and did not; in a healthy lab, if the tables end early."""
        scene = self.scene
        planned = [step.hop for step in path.steps]
        ends = [scene.source, scene.at]
        if role != "error" and scene.at is not None and scene.at.container:
            first, last = (
                container
                for end in (ends if role == "request" else ends[::-1])
                for container in scene.lab.containers
                if end is not None and (end.node, end.container) == (container.node, container.name)
            )
            planned = hops.path(scene.lab, first, last)
        seen = {stop.hop for stop in stops}
        reached = max((i for i, hop in enumerate(planned) if hop in seen), default=-1)
        return tuple(planned[reached + 1 :])

    def _loss(self, role: Role, path: Way, last: Stop | None, beyond: Step | None) -> Loss:
        scene = self.scene
        errors = [s for s in self.seen if s.role == "error" and s.about == role]
        return Loss(scene.lab, scene.states, path, last, beyond, errors, scene.watched, scene.grown)

    def _silence(self) -> Leg:
        """The probe arrived, and nothing came out again."""
        probe, at = self.probe, self.scene.at
        where = str(at) if at else probe.dst
        if at is None:
            text = "it left the lab, and no answer came back"
            found: tuple[Reason, ...] = (Reason("no-answer", where, text, "capture"),)
        else:
            path = self._way("answer", probe.dst, probe.src)
            text = f"{where} sent no answer"
            if probe.protocol == "udp":
                text += "; a UDP service need not send one"
            said = Reason("no-answer", where, text, "capture")
            loss = replace(
                self._loss("answer", path, None, None), way=_only_end(path, where), where=where
            )
            found = (*(r for r in reasons(loss) if r.code != "unknown"), said)
        return Leg("answer", "no answer", probe.dst, probe.src, (), False, reasons=found)

    def _way(self, role: Role, src: str, dst: str) -> Way:
        scene = self.scene
        start: Place | None = scene.source
        if role == "answer":
            start = scene.at
        elif role == "error":
            start = owner(scene.lab, scene.states, src)
        if start is None:
            return Way(leaves=True)
        if role == "request":
            return scene.way(start, self.probe.dst)
        found = scene.way(start, dst)
        if role == "answer" and dst != self.probe.src and found.end is None:
            return self._unmasked(found, dst)
        return found

    def _unmasked(self, outside: Way, dst: str) -> Way:
        """On from the node that masqueraded the probe, whose conntrack entry knows the source."""
        scene, src = self.scene, self.probe.src
        at = owner(scene.lab, scene.states, dst)
        if at is None or at.container:
            return outside
        text = f"conntrack: an answer to what {src} sent as {dst}"
        nat = Entry("nat", at.node, text)
        rest = scene.way(at, src)
        steps = [replace(s, why=(nat, *s.why)) if not i else s for i, s in enumerate(rest.steps)]
        return replace(rest, steps=(*outside.steps, *steps))

    def _stops(self, frames: Sequence[Seen], path: Way) -> tuple[Stop, ...]:
        planned = {(step.hop, step.direction): i for i, step in reversed([*enumerate(path.steps)])}
        groups: dict[tuple[Hop, Direction, int], list[Seen]] = {}
        for seen in frames:
            ttl = seen.ip.ttl if seen.ip else 0
            groups.setdefault((seen.hop, seen.frame.direction, ttl), []).append(seen)

        def order(item: tuple[tuple[Hop, Direction, int], list[Seen]]) -> tuple[int, ...]:
            # The kernel stamps a packet once as it comes in; the next hop may have the same stamp.
            (hop, direction, _), group = item
            place = planned.get((hop, direction), len(planned))
            return *self.clocks.order(group[0]), place

        stops: list[Stop] = []
        for (hop, _, _), group in sorted(groups.items(), key=order):
            stops.append(self._stop(hop, group, stops, path, planned))
        return tuple(stops)

    def _stop(
        self,
        hop: Hop,
        group: list[Seen],
        before: Sequence[Stop],
        path: Way,
        planned: Mapping[tuple[Hop, Direction], int],
    ) -> Stop:
        first, clock = group[0].frame, self.clocks.of(hop)
        index = planned.get((hop, first.direction))
        last = before[-1] if before and self.clocks.of(before[-1].hop) == clock else None
        stop = Stop(
            hop,
            first.direction,
            tuple(group),
            (first.ns - self.starts[clock]) / 1000,
            None if last is None else (first.ns - last.frames[0].frame.ns) / 1000,
            why=path.steps[index].why if index is not None else (),
        )
        was = before[-1].pieces if before else ()
        return replace(stop, changes=changes(was, stop.pieces))

    def _arrived(self, role: Role, stops: Sequence[Stop], path: Way, dst: str) -> bool | None:
        """Whether a packet came to its destination's interface; None if that is out of sight."""
        ins = {stop.hop for stop in stops if stop.direction == "in"}
        if role == "answer" or (role == "error" and dst == self.probe.src):
            source = self.scene.source
            return Hop(source.node, source.container, INSIDE) in ins
        if path.leaves:
            return None
        if path.end is None and path.steps:
            return path.steps[-1].hop in ins
        at = owner(self.scene.lab, self.scene.states, dst)
        if at is None:
            return False
        if at.container:
            return Hop(at.node, at.container, INSIDE) in ins
        return at.node == self.scene.source.node and Hop(at.node, "", bridge.NAME) in ins


def _only_end(path: Way, where: str) -> Way:
    """The way's end, if it is where the packet starts: nothing more is known of the others."""
    end = path.end if path.end is not None and path.end.where == where else None
    return Way(end=end)


def _got_there(leg: Leg) -> Leg:
    """What was answered has arrived, even if its last hop could not be watched."""
    return leg if leg.arrived else replace(leg, arrived=True, reasons=(), missed=())


def _reached(path: Way, stops: Sequence[Stop]) -> int:
    """How far along its way the packet was seen; -1 for not at all."""
    seen = {(stop.hop, stop.direction) for stop in stops}
    places = [i for i, s in enumerate(path.steps) if (s.hop, s.direction) in seen]
    return max(places, default=-1)


def _beyond(path: Way, stops: Sequence[Stop]) -> Step | None:
    index = _reached(path, stops) + 1
    return path.steps[index] if index < len(path.steps) else None


def _note(stops: Sequence[Stop]) -> str:
    doubled = [f"{s.hop.interface} on {s.hop.node}" for s in stops if s.duplicates]
    return f"seen twice at {', '.join(doubled)}" if doubled else ""


def what(probe: Probe, seen: Seen) -> str:
    """A packet in a few words."""
    ip, icmp = seen.ip, seen.inner.find(ICMP)
    tcp, udp = seen.inner.find(TCP), seen.inner.find(UDP)
    if icmp is not None and icmp.type in (0, 8):
        kind = "echo request" if icmp.type == 8 else "echo reply"
        return f"{kind}, id {icmp.ident} seq {icmp.seq}"
    if icmp is not None:
        return f"ICMP {words(icmp)}"
    if tcp is not None:
        names = ((2, "SYN"), (4, "RST"), (16, "ACK"))
        flags = ", ".join(name for bit, name in names if tcp.flags & bit)
        closed = " (the port is closed)" if tcp.flags & 4 else ""
        return f"TCP {flags} {tcp.sport} -> {tcp.dport}{closed}"
    if udp is not None:
        return f"UDP {udp.sport} -> {udp.dport}"
    protocol = f"IP protocol {ip.proto}" if isinstance(ip, IPv4) else "packet"
    return f"{probe.protocol.upper()} fragment ({protocol})"
