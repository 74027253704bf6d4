"""Why a packet was lost, from the tables, the counters that grew meanwhile, and ICMP errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from vxlab.lab import Lab
from vxlab.packet import ICMP, ICMP_FRAG_NEEDED, ICMP_TIME_EXCEEDED, ICMP_UNREACHABLE, IPv4
from vxlab.state import Link, State
from vxlab.steps.site import SWITCH, States
from vxlab.trace.hops import Hop
from vxlab.trace.journey import Reason, Seen, Stop, Watched
from vxlab.trace.why import Step, Way, owner

#: Counters of the kernel that tell of a packet thrown away: /proc/net/snmp and netstat, with what
#: they mean (RFC 4293, Documentation/networking/snmp_counter.rst).
MEANING = {
    "IpInHdrErrors": "the IP header was bad, or the TTL had run out",
    "IpInAddrErrors": "the packet was not for this machine, which does not pass packets on",
    "IpInDiscards": "the IP layer threw the packet away",
    "IpOutDiscards": "the IP layer threw the packet away on its way out",
    "IpOutNoRoutes": "there was no route",
    "IpReasmFails": "fragments could not be put together again",
    "IpFragFails": "the packet was longer than the MTU and must not be cut",
    "IpExtInNoRoutes": "there was no route to pass it on by",
    "IpExtInCsumErrors": "the IP header's checksum was wrong",
    "TcpExtIPReversePathFilter": "the reverse path filter (rp_filter) dropped it",
    "TcpExtListenDrops": "a listening socket had no room for the connection",
    "IcmpOutRateLimitHost": "an ICMP error was not sent: its sender limits their rate (icmp(7))",
    "IcmpOutRateLimitGlobal": "an ICMP error was not sent: its sender limits their rate (icmp(7))",
    "UdpRcvbufErrors": "a UDP socket's buffer was full",
}

#: ping's words for the codes of "destination unreachable" (RFC 792, RFC 1122, RFC 1812).
_UNREACHABLE = {
    0: "network unreachable",
    1: "host unreachable",
    2: "protocol unreachable",
    3: "port unreachable",
    4: "fragmentation needed",
    9: "network prohibited",
    10: "host prohibited",
    13: "packet filtered",
}

_DROPPING = ("-j DROP", "-j REJECT")


@dataclass(frozen=True, slots=True)
class Counters:
    """What a machine has counted: packets that its rules dropped, its links lost, IP threw away."""

    rules: Mapping[str, int] = field(default_factory=dict)
    links: Mapping[str, int] = field(default_factory=dict)
    stack: Mapping[str, int] = field(default_factory=dict)

    def since(self, before: Counters) -> Counters:
        """What was counted between two looks."""
        return Counters(
            _grown(before.rules, self.rules),
            _grown(before.links, self.links),
            _grown(before.stack, self.stack),
        )


def _grown(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    grown = {key: value - before.get(key, 0) for key, value in after.items()}
    return {key: value for key, value in grown.items() if value > 0}


def read_rules(text: str) -> dict[str, int]:
    """The rules and policies that drop packets, with their counts, from ``iptables-save -c``."""
    found: dict[str, int] = {}
    table = ""
    for line in text.splitlines():
        words = line.split()
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":") and len(words) == 3 and words[1] == "DROP":
            found[f"{table}: -P {words[0][1:]} DROP"] = _packets(words[2])
        elif line.startswith("[") and any(f"{verdict} " in f"{line} " for verdict in _DROPPING):
            found[f"{table}: {line.partition('] ')[2]}"] = _packets(words[0])
    return found


def _packets(counter: str) -> int:
    """Packets out of ``[packets:bytes]``."""
    packets = counter.strip("[]").partition(":")[0]
    return int(packets) if packets.isdecimal() else 0


def read_links(text: str) -> dict[str, int]:
    """What each interface lost, from ``/proc/net/dev``."""
    found = {}
    for line in text.splitlines()[2:]:
        name, _, numbers = line.partition(":")
        columns = numbers.split()
        if len(columns) >= 16:
            for place, what in ((2, "rx errors"), (3, "rx dropped"), (10, "tx errors")):
                found[f"{name.strip()} {what}"] = int(columns[place])
            found[f"{name.strip()} tx dropped"] = int(columns[11])
            found[f"{name.strip()} tx carrier"] = int(columns[14])
    return found


def read_stack(text: str) -> dict[str, int]:
    """The counters of `MEANING`, from ``/proc/net/snmp`` and ``/proc/net/netstat``."""
    found = {}
    lines = text.splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        group = names.partition(":")[0]
        for name, value in zip(names.split()[1:], values.split()[1:], strict=False):
            if f"{group}{name}" in MEANING:
                found[f"{group}{name}"] = int(value)
    return found


@dataclass(frozen=True, slots=True)
class Loss:
    """A packet that was seen up to a hop and no further, and what there is to explain it."""

    lab: Lab
    states: States
    way: Way
    last: Stop | None  # the last hop that saw it
    beyond: Step | None  # the one that should have been next
    errors: Sequence[Seen]  # ICMP errors about it
    watched: Mapping[Hop, Watched]
    grown: Mapping[str, Counters]  # by place, such as node01 or node01/container01
    where: str = ""  # the place that it came to, of a packet that got no answer

    @property
    def places(self) -> list[str]:
        """The machines that may have lost it: the last that saw it, and the next."""
        hops = [self.last.hop] if self.last else []
        hops += [self.beyond.hop] if self.beyond else []
        found = [hop.place for hop in hops]
        if self.way.end is not None and not self.beyond:
            found.append(self.way.end.where)
        return list(dict.fromkeys([*found, *([self.where] if self.where else [])]))


def reasons(loss: Loss) -> tuple[Reason, ...]:
    """Why it was lost, the likeliest first; never empty."""
    found = [*_table(loss), *_rules(loss), *_size(loss), *_complaints(loss)]
    if not found:
        found = [*_down(loss), *_stack(loss), *_links(loss)]
    if not found and loss.way.end is not None:
        # By the tables it should have come further; what stops it there may have done so before.
        end = loss.way.end
        found = [Reason(end.code, end.where, end.text, "state")]
    if not found:
        where = loss.places[0] if loss.places else ""
        text = "neither tables nor counters tell; `nft list ruleset` may show a rule that does"
        found = [Reason("unknown", where, text, "")]
    return tuple(dict.fromkeys(found))


def _table(loss: Loss) -> Iterator[Reason]:
    """The tables themselves say that the packet cannot go on."""
    end = loss.way.end
    if end is not None and loss.beyond is None:
        yield Reason(end.code, end.where, end.text, "state")


def _rules(loss: Loss) -> Iterator[Reason]:
    for place in loss.places:
        for rule, packets in loss.grown.get(place, Counters()).rules.items():
            table, _, line = rule.partition(": ")
            text = f"iptables on {place} dropped {_count(packets)}: {line} (table {table})"
            yield Reason("iptables", place, text, "iptables-save -c")


def _count(packets: int) -> str:
    return "a packet" if packets == 1 else f"{packets} packets"


def _links_ahead(loss: Loss) -> Iterator[tuple[str, Link, bool]]:
    """The interfaces that the packet meets next: (place, link, whether it comes in there)."""
    if loss.beyond is None:
        return
    hop, way_in = loss.beyond.hop, loss.beyond.direction == "in"
    state = loss.states.get(hop.node, State())
    link = state.net_of(hop.container).links.get(hop.interface)
    if way_in and loss.last is not None and hop.node != loss.last.hop.node:
        switch = loss.states.get(SWITCH, State()).net.links
        ports = ((switch.get(loss.last.hop.node), True), (switch.get(hop.node), False))
        yield from ((SWITCH, port, enters) for port, enters in ports if port is not None)
    if link is not None:
        yield hop.place, link, way_in


def _size(loss: Loss) -> Iterator[Reason]:
    """Longer than an interface takes: whoever sends may cut it, whoever receives cannot."""
    if loss.last is None or loss.beyond is None:
        return
    longest = max(loss.last.frames, key=lambda seen: seen.ip_length)
    length, ip = longest.ip_length, longest.packet.find(IPv4)
    if loss.beyond.direction == "out" and loss.last.direction == "out":
        length += 50 if loss.way.encapsulated and not longest.encapsulated else 0
    for place, link, way_in in _links_ahead(loss):
        if length > link.mtu and (way_in or (ip is not None and ip.df)):
            df = "" if way_in else ", and it must not be cut (don't fragment)"
            text = f"{length} bytes are more than the MTU of {link.name} on {place}, {link.mtu}"
            yield Reason("mtu", place, text + df, "state")


def _complaints(loss: Loss) -> Iterator[Reason]:
    said = []
    for seen in loss.errors:
        ip, icmp = seen.ip, seen.inner.find(ICMP)
        if ip is not None and icmp is not None:
            at = owner(loss.lab, loss.states, str(ip.src))
            who = f"{at} ({ip.src})" if at else str(ip.src)
            said.append(Reason("icmp", str(at or ip.src), f"{who} says: {words(icmp)}", "ICMP"))
    yield from dict.fromkeys(said)


def words(icmp: ICMP) -> str:
    """An ICMP error in words."""
    if icmp.type == ICMP_UNREACHABLE:
        text = _UNREACHABLE.get(icmp.code, f"destination unreachable, code {icmp.code}")
        return text + (f", mtu={icmp.mtu}" if icmp.code == ICMP_FRAG_NEEDED else "")
    if icmp.type == ICMP_TIME_EXCEEDED:
        return "time to live exceeded" if icmp.code == 0 else "a fragment never came"
    return f"ICMP type {icmp.type}, code {icmp.code}"


def _down(loss: Loss) -> Iterator[Reason]:
    for place, link, _ in _links_ahead(loss):
        if not link.up:
            yield Reason("link-down", place, f"{link.name} is down on {place}", "state")
    if loss.beyond is not None:
        watched = loss.watched.get(loss.beyond.hop)
        if watched is not None and watched.error:
            hop = loss.beyond.hop
            text = f"{hop.interface} could not be watched: {watched.error}"
            yield Reason("not-watched", hop.place, text, "capture")


def _stack(loss: Loss) -> Iterator[Reason]:
    for place in loss.places:
        for counter, packets in loss.grown.get(place, Counters()).stack.items():
            text = f"{MEANING[counter]} ({counter} +{packets} on {place})"
            yield Reason("counter", place, text, "/proc/net/snmp")


def _links(loss: Loss) -> Iterator[Reason]:
    for place in loss.places:
        for counter, packets in loss.grown.get(place, Counters()).links.items():
            text = f"{counter} +{packets} on {place}"
            yield Reason("counter", place, text, "/proc/net/dev")
