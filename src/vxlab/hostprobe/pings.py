"""Which places reach which, asked on a host with busybox's ping."""

from __future__ import annotations

import errno
import re
import shlex
from collections.abc import Mapping, Sequence

from vxlab.hostprobe.shell import TRACE, answers, beginning, number, refusal
from vxlab.probe import Echo
from vxlab.probe.pings import SILENCE

#: Seconds until a ping counts as unanswered: two tries of a second, busybox's smallest patience.
PATIENCE = 2
_WORKERS = 64  # pings under way at the same time, on one node

#: Errors that say "not now" instead of "not there".
_TRANSIENT = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM})

# Each worker takes every $w-th address. An answer is one line, so that two do not mix. busybox's
# ping says nothing of what routers say, hence the traceroute along with its second try.
_PINGS = """\
b=$1 c=$2 w=$3 end=$4; shift 4; set -f
try() { o=$("$b" ping -c 1 -W 1 "$1" 2>&1)
  case $o in *" bytes from "*|*ping:*) ;; *)
    o=$({ %(trace)s "$1" 84 & "$b" ping -c 1 -W 1 "$1"; wait; } 2>&1);; esac
  echo "@@ ping $c $1" $o; }
i=0; while [ $i -lt $w ] && [ $i -lt $# ]; do i=$((i + 1))
  ( k=0; for d; do k=$((k %% w + 1)); [ $k -eq $i ] || continue
    read -r now _ </proc/uptime; [ "${now%%.*}" -lt "$end" ] || break; try "$d"; done ) &
done; wait
"""

_REPLY = re.compile(r"(\d+) bytes from (\S+): (?:icmp_)?seq=\d+ ttl=(\d+) time=([\d.]+) ms")
_ERROR = re.compile(r"(?:ping: (?:sendto: )?|traceroute: .*?: )(.+)$")


def pings(busybox: str, targets: Mapping[str, Sequence[str]], *, patience: int = 20) -> str:
    """The program for one node that pings from its containers, all at the same time.

    It costs milliseconds where all answer, and two seconds more for every 64 dead addresses.

    Args:
        busybox: where the host has it.
        targets: addresses to ping, by the name of the container to ping from.
        patience: seconds after which no further ping is begun.
    """
    workers = max(4, _WORKERS // max(1, len(targets)))
    lines = [beginning(busybox), f"pings={shlex.quote(_PINGS % {'trace': TRACE})}"]
    lines.append(f"read -r now _ </proc/uptime; end=$((${{now%.*}} + {patience}))")
    for name, addresses in targets.items():
        words = " ".join(map(shlex.quote, addresses))
        lines.append(
            f'into {shlex.quote(name)} "$pings" {shlex.quote(name)} {workers} $end {words} &'
        )
    return "\n".join([*lines, "wait", ""])


def read_pings(output: str, targets: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], Echo]:
    """What became of the pings of `pings`, by container and address.

    A reply counts only if it came from the address that was asked. What is not in the output was
    not measured.
    """
    found = {(name, dst): _echo(dst, " ".join(said)) for name, dst, *said in _rows(output)}
    gone = {words[0] for words in answers(output, "gone") if words}
    noise = " ".join(line for line in output.splitlines() if not line.startswith("@@ "))
    lost = Echo(False, error=f"not tried: {noise.strip() or 'time was up'}", measured=False)
    echoes: dict[tuple[str, str], Echo] = {}
    for name, addresses in targets.items():
        missing = Echo(False, error=f"{name} does not run") if name in gone else lost
        echoes |= {(name, dst): found.get((name, dst), missing) for dst in addresses}
    return echoes


def _rows(output: str) -> list[list[str]]:
    return [words for words in answers(output, "ping") if len(words) > 1]


def _echo(dst: str, said: str) -> Echo:
    """One answer's line."""
    if reply := replied(dst, said):
        return reply
    if error := _ERROR.search(said):
        words = error[1].strip()
        code = number(words)
        return Echo(False, error=words, errno=code, measured=code not in _TRANSIENT)
    if refused := refusal(said, dst):
        return Echo(False, error=refused[0], router=refused[1], mtu=refused[2])
    return Echo(False, error=f"{SILENCE} within {PATIENCE} s")


def replied(dst: str, said: str, size: int | None = None) -> Echo | None:
    """The reply in what busybox's ping printed, if it came from the destination.

    Args:
        size: ICMP data in bytes that it has to bring back; None for any.
    """
    for length, who, ttl, ms in _REPLY.findall(said):
        if who == dst and size in (None, int(length) - 8):
            return Echo(True, float(ms) * 1000, int(ttl))
    return None
