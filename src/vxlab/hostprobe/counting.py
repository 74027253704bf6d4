"""What a host and its containers have counted: packets that were thrown away, and by whom."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from vxlab.hostprobe.shell import beginning

# The files are the kernel's, so that no program has to run inside a container. Rules are read as
# they are: naming a table would make it where there is none.
_PROGRAM = """\
counted() { echo "@@ counted $1"; cat "$2/net/snmp" "$2/net/netstat"
  echo "@@ links"; cat "$2/net/dev"; }
of() { if q=$(holder "$1"); then counted "$1" "/proc/$q"; fi; }
counted . /proc/self; echo "@@ rules"; iptables-save -c 2>/dev/null
"""


@dataclass(frozen=True, slots=True)
class Counted:
    """A machine's counters, as its files and its iptables print them."""

    stack: str  # /proc/net/snmp and netstat
    links: str  # /proc/net/dev
    rules: str  # iptables-save -c; only the host's own


def counting(busybox: str, containers: Iterable[str]) -> str:
    """The program that prints the counters of a host and of containers there.

    Args:
        busybox: where the host has it.
        containers: their names on the host.
    """
    program = beginning(busybox) + _PROGRAM
    return program + "".join(f"of {shlex.quote(name)}\n" for name in containers)


def read_counting(output: str) -> dict[str, Counted]:
    """The counters by container (empty: the host itself); none of what does not run."""
    found = {}
    for part in output.split("@@ counted ")[1:]:
        name, _, rest = part.partition("\n")
        stack, _, rest = rest.partition("@@ links\n")
        links, _, rules = rest.partition("@@ rules\n")
        found["" if name == "." else name] = Counted(stack, links, rules)
    return found
