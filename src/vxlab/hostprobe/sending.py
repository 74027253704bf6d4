"""A trace's probes from a container on a host: busybox pings and connects, bash sends datagrams.

Nothing else is sure to be there that sends what it is told to. What the programs cannot be told
(busybox's ping writes the time into its data) is learnt from the first capture of a probe.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from vxlab.hostprobe.shell import answers, beginning, kernel_words

#: Bytes at the end of a datagram's token that hold the probe's number, big-endian.
NUMBER = 2

_REPLY = re.compile(r"bytes from \S+ (?:icmp_)?seq=(\d+) ")
_TOO_LONG = re.compile(r"local error: message too long(, mtu=\d+)", re.IGNORECASE)

_PING = '"$1" ping -c "$3" -A -i "$4" -W "$5" -s "$6" -p "$7" "$2" 2>&1; :'

# The ping of iputils sets the don't-fragment bit, busybox's cannot. busybox's shell would take its
# own for a word without a path.
_PING_DF = """\
ping=$("$1" which ping) || ping=:
case $("$ping" -V 2>&1) in *iputils*) ;; *) echo "@@ lacks ping"; exit;; esac
"$ping" -n -M do -c "$3" -A -i "$4" -W "$5" -s "$6" -p "$7" "$2" 2>&1; :
"""

# A probe after each pace, since the next one does not wait for an answer.
_EACH = """\
b=$1 dst=$2 port=$3 count=$4 pace=$5 patience=$6; shift 6
n=0; while [ $n -lt "$count" ]; do n=$((n + 1)); [ $n -eq 1 ] || "$b" usleep "$pace"
  { o=$(%s) 2>&1; c=$?; echo "@@ fate $n $c" $o; } </dev/null &
done; wait
"""

_CONNECT = _EACH % (
    '"$b" timeout "$patience" "$b" nc -w "$patience" "$dst" "$port" 2>&1 >/dev/null'
)

_DATAGRAM = 'bash=$("$1" which bash) || { echo "@@ lacks bash"; exit; }\n' + _EACH % (
    '"$bash" -c "$3" bash "$b" "$dst" "$port" "$1" "$2" "$patience" $((n >> 8)) $((n & 255)) 2>&1'
    " >/dev/null"
)

# Token, number and filling go in one write, or they would be several datagrams.
_SEND = """\
exec 3<>"/dev/udp/$2/$3" || exit
{ printf "$4"; printf "\\\\$(printf %03o "$7")\\\\$(printf %03o "$8")"; "$1" cat /dev/zero
} 2>/dev/null |
  "$1" dd bs="$5" count=1 iflag=fullblock >&3 || exit
"$1" timeout "$6" "$1" dd bs=65536 count=1 <&3
"""


@dataclass(frozen=True, slots=True)
class Sent:
    """What the sending host said of its probes."""

    answered: frozenset[int] = frozenset()  # by number, from 1
    refused: str = ""  # the kernel's words, if it did not send the last one
    count: int = 0  # probes that were sent, or refused
    lacks: str = ""  # a program that is not there


def pings(
    busybox: str, container: str, dst: str, *, count: int, pace: float, patience: int, size: int,
    fill: bytes, df: bool,
) -> str:  # fmt: skip
    """The program that sends ICMP echo requests from a container, each when the last was answered.

    Their sequence numbers count from 0; with the don't-fragment bit, which takes the ping of
    iputils, from 1.

    Args:
        busybox: where the host has it.
        container: the container's name on its node.
        dst: where to, an IPv4 address.
        count: how many.
        pace: seconds until the next one where there is no answer.
        patience: whole seconds to wait for the last answer.
        size: bytes of data.
        fill: the byte that the data is filled with.
        df: set the don't-fragment bit.
    """
    words = [dst, str(count), f"{pace:g}", str(patience), str(size), fill.hex()]
    return _program(busybox, container, _PING_DF if df else _PING, words)


def connections(
    busybox: str, container: str, dst: str, port: int, *, count: int, pace: float, patience: int
) -> str:  # fmt: skip
    """The program that opens TCP connections from a container, and closes them at once.

    The container's kernel chooses their source ports, and nobody tells them.

    Args:
        busybox, container, dst, count, pace, patience: see `pings`.
        port: the destination's.
    """
    words = [dst, str(port), str(count), str(int(pace * 1e6)), str(patience)]
    return _program(busybox, container, _CONNECT, words)


def datagrams(
    busybox: str, container: str, dst: str, port: int, *, count: int, pace: float, patience: int,
    size: int, token: bytes,
) -> str:  # fmt: skip
    """The program that sends UDP datagrams from a container; it takes the host's bash.

    Their data begins with the token and the probe's number.

    Args:
        busybox, container, dst, count, pace, patience, size: see `pings`.
        port: the destination's.
        token: what the data begins with.
    """
    octal = "".join(f"\\{byte:03o}" for byte in token)
    words = [dst, str(port), str(count), str(int(pace * 1e6)), str(patience)]
    return _program(busybox, container, _DATAGRAM, [*words, octal, str(size), _SEND])


def _program(busybox: str, container: str, program: str, words: Sequence[str]) -> str:
    return f"{beginning(busybox)}into {shlex.join([container, program, *words])}\n"


def read_pings(output: str, count: int, *, df: bool) -> Sent:
    """What became of the probes of `pings`."""
    lacks = _lacks(output)
    if lacks:
        return Sent(lacks=lacks)
    first = 1 if df else 0
    answered = frozenset(int(seq) - first + 1 for seq in _REPLY.findall(output))
    if too_long := _TOO_LONG.search(output):
        return Sent(refused=f"Message too long{too_long[1]}", count=1)
    if refused := kernel_words(output):
        return Sent(answered, refused, max(answered, default=0) + 1)
    return Sent(answered, count=count)


#: Errors that an answer on the way causes: the packet was sent.
_LATER = ("Connection refused", "No route to host", "Connection timed out")


def read_fates(output: str, count: int) -> Sent:
    """What became of the probes of `connections` or `datagrams`."""
    lacks = _lacks(output)
    if lacks:
        return Sent(lacks=lacks)
    answered, refused = set(), {}
    for words in answers(output, "fate"):
        probe, code, said = int(words[0]), words[1], " ".join(words[2:])
        error = kernel_words(said)
        if code == "0" or error == "Connection refused":
            answered.add(probe)
        elif error and error not in _LATER:
            refused[probe] = error
    last = min(refused, default=count)
    return Sent(frozenset(answered), refused.get(last, ""), last)


def _lacks(output: str) -> str:
    return next((words[0] for words in answers(output, "lacks") if words), "")
