"""What the programs for a host have in common: into a container's network, and words out again."""

from __future__ import annotations

import errno
import os
import re
import shlex
from collections.abc import Iterator

from vxlab.probe import Echo
from vxlab.state import BORN, RECORDS

#: How an answer's line begins.
MARK = "@@ "

#: ``holder CONTAINER`` prints the PID that holds a container, if it runs. The record is "PID
#: START"; a PID whose process started at another time is a stranger's.
HOLDER = f"""\
{BORN}\
holder() {{ {{ read -r q t <{RECORDS}/machines/"$1"; }} 2>/dev/null && [ "$(born "$q")" = "$t" ] &&
  echo "$q"; }}
"""

_ENTER = """\
export LC_ALL=C
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
B=%s
into() { c=$1; p=$2; shift 2; q=$(holder "$c") || { echo "@@ gone $c"; return 1; }
  nsenter -n -t "$q" "$B" sh -c "$p" sh "$B" "$@"; }
"""

#: A router's answer to busybox's traceroute: who, and the sign of an ICMP error.
_HOP = re.compile(r" 30 +(\d+\.\d+\.\d+\.\d+) +([\d.]+) ms(?: !(\S+))?")

#: busybox's signs for the codes of "destination unreachable", in ping's words.
_SIGNS = {
    "N": "Destination Net Unreachable",
    "H": "Destination Host Unreachable",
    "P": "Destination Protocol Unreachable",
    "S": "Source Route Failed",
    "A": "Packet filtered",
    "C": "Destination Host Prohibited",
}

#: The kernel's words, back to its number.
_NUMBERS = {os.strerror(number): number for number in errno.errorcode}

#: Only the hop that matters: with 30 to go, none but the destination is where the TTL ends.
TRACE = '"$b" traceroute -n -q 1 -f 30 -m 30 -w 1'


def beginning(busybox: str) -> str:
    """The functions that the programs for a host begin with: `HOLDER`, and ``into``.

    ``into CONTAINER PROGRAM ARGUMENT...`` runs a program of busybox's shell in the network of a
    container; its first argument is busybox. It says ``@@ gone CONTAINER`` if that does not run.

    Args:
        busybox: where the host has it.
    """
    return HOLDER + _ENTER % shlex.quote(busybox)


def answers(output: str, kind: str) -> Iterator[list[str]]:
    """The words behind ``@@ kind`` in each such line; a line that was cut off says nothing."""
    for line in output.split("\n")[:-1]:
        if line.startswith(f"{MARK}{kind} "):
            yield line.split()[2:]


def number(words: str) -> int | None:
    """The error number of the kernel's words, as ``Network is unreachable``."""
    return _NUMBERS.get(words)


def kernel_words(said: str) -> str:
    """The kernel's error in what a program printed, as ``Network is unreachable``; or nothing."""
    found = [words for words in _NUMBERS if f": {words}" in said]
    return max(found, key=len, default="")


def refusal(said: str, dst: str) -> tuple[str, str, int | None] | None:
    """What a router said to a packet that did not arrive: words, its address, the MTU it states.

    Args:
        said: what busybox's traceroute printed.
        dst: the packet's destination.
    """
    for who, _, sign in _HOP.findall(said):
        if sign.startswith("F"):
            stated = sign.removeprefix("F-")
            mtu = int(stated) if stated.isdecimal() and int(stated) else None
            more = f", mtu={mtu}" if mtu else ""
            return f"Frag needed and DF set{more}, says {who}", who, mtu
        if sign:
            return f"{_SIGNS.get(sign, f'Destination Unreachable, !{sign}')}, says {who}", who, None
        if who != dst:
            return f"Time to live exceeded, says {who}", who, None
    return None


def reached(dst: str, said: str) -> Echo | None:
    """The destination's own answer to busybox's traceroute: the packet arrived there.

    Args:
        dst: its address.
        said: what busybox's traceroute printed.
    """
    for who, ms, sign in _HOP.findall(said):
        if who == dst and not sign:
            return Echo(True, float(ms) * 1000)
    return None
