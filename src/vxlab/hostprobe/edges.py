"""The exact MTU edge, measured on a host with nothing but busybox and the kernel's counters.

busybox has no ping that insists on "don't fragment", and the -F of its traceroute does nothing on
Linux: a UDP packet larger than the MTU leaves in pieces. But Linux sets the don't-fragment bit
of everything that fits (ip(7), IP_PMTUDISC_WANT, the default), cuts up only what does not, and
counts the pieces: FragCreates in ``/proc/net/snmp`` of the container's own network (RFC 4293,
ipSystemStatsOutFragCreates). So a packet that was answered while nothing was cut went through
whole, with the bit set; and one that the sender's kernel had to cut does not fit.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from vxlab.hostprobe.pings import PATIENCE, replied
from vxlab.hostprobe.shell import TRACE, answers, beginning, number, reached, refusal
from vxlab.probe import ICMP_OVERHEAD, Echo, Edge, EdgeResult, EdgeState, verdict
from vxlab.probe.pings import SILENCE

# What the container's kernel learnt about paths in the last ten minutes is forgotten first: local
# probes do not go by it either. The byte more goes by UDP, whose answer is small: a large echo's
# answer is cut up where it comes from, and would count there. A ping without an answer is asked
# about by traceroute, too, which hears what routers say.
_EDGE = """\
b=$1 c=$2 d=$3 m=$4; set -f
cuts() { "$b" awk '/^Ip:/ { if (!n) { for (i = 1; i <= NF; i++) if ($i == "FragCreates") n = i }
  else print $n }' /proc/net/snmp; }
forget() { ip route flush cache 2>/dev/null; }
ask() { "$b" ping -c 1 -W 1 -s $((m - %(overhead)s)) "$d" 2>&1; }
trace() { %(trace)s "$d" "$1" 2>&1; }
say() { echo "@@ edge $c $d $1 ${f:--} ${g:--} ${h:--}" $(ip -o route get "$d" 2>&1) '|' $o; }
fits() { f=$(cuts); o=$(ask); g=$(cuts); h=$g
  case $o in *" bytes from "*|*ping:*) ;; *) forget; o=$(trace "$m")
    case $o in *'!'*) ;; *) o="$o $(ask)";; esac; h=$(cuts);; esac; say "$m"
  case $o in *" bytes from "*) ;; *) return 1;; esac; }
over() { f=$(cuts); o=$(trace "$1"); g=$(cuts); h=$g
  case $o in *'30 *'*) o="$o $(trace "$1")";; esac; say "$1"; }
forget; n=; { read -r n </proc/sys/net/ipv4/ip_no_pmtu_disc; } 2>/dev/null
echo "@@ links $c $d ${n:-0}" $(ip -o link 2>&1)
fits && { over $((m + 1)); fits; }
echo "@@ done $c $d"
"""

_ERROR = re.compile(r"(?:ping|traceroute): .*?: (.+)$")
_MTU = re.compile(r" mtu (?:lock )?(\d+)")


@dataclass(frozen=True, slots=True)
class Question:
    """Is `mtu` the largest IP packet, in bytes, that a container can send to `dst` whole?"""

    container: str
    dst: str  # IPv4
    mtu: int


def edges(busybox: str, questions: Sequence[Question]) -> str:
    """The program for one node that sends packets of the MTU, one byte more, and the MTU again.

    Args:
        busybox: where the host has it.
        questions: one per container at most, since a counter counts for a container.
    """
    text = shlex.quote(_EDGE % {"trace": TRACE, "overhead": ICMP_OVERHEAD})
    lines = [beginning(busybox), f"edge={text}"]
    for q in questions:
        name = shlex.quote(q.container)
        lines.append(f'into {name} "$edge" {name} {shlex.quote(q.dst)} {q.mtu} 2>&1 &')
    return "\n".join([*lines, "wait", ""])


def read_edges(output: str, questions: Sequence[tuple[Question, Edge]]) -> list[EdgeResult]:
    """What the probes of `edges` prove; the verdict is the same as for local probes.

    Args:
        output: what the program printed.
        questions: with the edge that each stands for.
    """
    return [_result(output, question, edge) for question, edge in questions]


def _result(output: str, question: Question, edge: Edge) -> EdgeResult:
    key = [question.container, question.dst]
    links = next((w[2:] for w in answers(output, "links") if w[:2] == key), None)
    rows = [w[2:] for w in answers(output, "edge") if w[:2] == key]
    reason = ""
    if [question.container] in answers(output, "gone"):
        reason = f"{question.container} does not run"
    elif links is None or not rows or key not in answers(output, "done"):
        reason = f"the host did not finish the probes: {output.strip()[-200:]}"
    elif links[0] != "0":
        reason = f"net.ipv4.ip_no_pmtu_disc is {links[0]}: packets go without don't-fragment bit"
    elif any("lock" in row for row in rows):
        reason = "the route's MTU is locked: packets go without don't-fragment bit"
    if reason or links is None:
        return EdgeResult(edge, EdgeState.NOT_MEASURED, reason)
    return verdict(edge, tuple(_fate(question, row, " ".join(links)) for row in rows))


def _fate(question: Question, row: list[str], links: str) -> Echo:
    """What became of one packet: bytes, the counter before, after and at the end, route | said."""
    route, _, said = " ".join(row[4:]).partition("|")
    if not all(word.isdecimal() for word in row[:4]):
        error = "the kernel's counter of fragments cannot be read (/proc/net/snmp)"
        return Echo(False, error=error, measured=False)
    size, before, after, end = map(int, row[:4])
    dst, over = question.dst, size > question.mtu
    if after > before:
        return _cut(size, after - before, route, links)
    if end > after:
        return _learnt(route)
    reply = reached(dst, said) if over else replied(dst, said, size - ICMP_OVERHEAD)
    if reply:
        return reply
    if refused := refusal(said, dst):
        return Echo(False, error=refused[0], router=refused[1], mtu=refused[2])
    if words := _ERROR.search(said):
        return Echo(False, error=words[1].strip(), errno=number(words[1].strip()))
    return Echo(False, error=f"{SILENCE} within {PATIENCE} s")


def _cut(size: int, pieces: int, route: str, links: str) -> Echo:
    """The sender's own kernel had to cut it: by its interface's MTU, or by what it had learnt."""
    learnt = _MTU.search(route)
    if learnt and "cache" in route:
        words = f"the kernel remembers a path MTU of {learnt[1]} bytes from before"
        return Echo(False, error=words, measured=False)
    device = re.search(r" dev (\S+)", route)
    name = device[1] if device else ""
    link = rf"\d+: {re.escape(name)}(?:@\S+)?: <[^>]*> mtu (\d+)"
    stated = learnt or re.search(link, links)
    mtu = int(stated[1]) if stated else None
    shown = f": {name}'s MTU is {mtu}" if mtu else ""
    words = f"the kernel cuts {size} bytes into {pieces} pieces{shown}"
    return Echo(False, error=words, mtu=mtu)


def _learnt(route: str) -> Echo:
    """A router refused it, and the kernel could not be made to forget which MTU it stated."""
    learnt = _MTU.search(route)
    mtu = int(learnt[1]) if learnt else None
    more = f", mtu={mtu}" if mtu else ""
    return Echo(False, error=f"Frag needed and DF set{more}", mtu=mtu)
