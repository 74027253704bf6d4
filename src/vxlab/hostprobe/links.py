"""What a capture on a host has to know first: the interfaces there, and how we got in."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from vxlab.hostprobe.shell import answers, beginning

# sshd tells the login user's programs which connection they came by; sudo does not hand that on. So
# it is read from the first of the shell's ancestors that was told.
_PROGRAM = """\
came() { p=$$; while [ "${p:-0}" -gt 1 ]; do
    c=$("$B" tr '\\0' '\\n' <"/proc/$p/environ" | "$B" sed -n 's/^SSH_CONNECTION=//p')
    [ -z "$c" ] || { echo "@@ came $c"; return; }
    s=; read -r s <"/proc/$p/stat"; s=${s##*) }; set -- $s; p=$2; done; }
links() { echo "@@ links $1"; "$B" cat "$2/net/dev"; }
of() { if q=$(holder "$1"); then links "$1" "/proc/$q"; fi; }
came 2>/dev/null; echo "@@ sockets"; ss -tnp 2>/dev/null; links . /proc/self
"""


#: As ss(8) prints an end of a connection: an address, its interface if it needs one, a port.
_END = re.compile(r"\[?([0-9a-fA-F.:]+)(?:%[^\]\s:]+)?\]?(?:%[^\s:]+)?:(\d+)")
_PID = re.compile(r"\bpid=(\d+)")

#: An address and a port.
End = tuple[str, int]

#: Both ends of a TCP connection.
Connection = frozenset[End]


@dataclass(frozen=True, slots=True)
class Links:
    """What a host said."""

    came_by: Connection | None  # the SSH connection that the asking came by
    names: dict[str, list[str]]  # interfaces by container that runs (empty: the host itself)
    sockets: dict[int, set[Connection]]  # the host's TCP connections by process


def linking(busybox: str, containers: Iterable[str]) -> str:
    """The program that prints the interfaces of a host and of containers there.

    Args:
        busybox: where the host has it.
        containers: their names on the host.
    """
    program = beginning(busybox) + _PROGRAM
    return program + "".join(f"of {shlex.quote(name)}\n" for name in containers)


def read_linking(output: str) -> Links:
    """What the program of `linking` found out."""
    came = next((_connection(words) for words in answers(output, "came")), None)
    names = {}
    for part in output.split("@@ links ")[1:]:
        place, *lines = part.splitlines()
        table = [line.partition(":") for line in lines]
        names["" if place == "." else place] = [name.strip() for name, colon, _ in table if colon]
    sockets = output.partition("@@ sockets\n")[2].partition("@@ ")[0]
    return Links(came, names, _sockets(sockets))


def _connection(words: list[str]) -> Connection | None:
    match words:
        case [client, port, server, ssh] if port.isdecimal() and ssh.isdecimal():
            try:
                return frozenset({_end(client, port), _end(server, ssh)})
            except ValueError:
                return None
    return None


def _sockets(table: str) -> dict[int, set[Connection]]:
    found: dict[int, set[Connection]] = {}
    for line in table.splitlines():
        ends = [match for word in line.split() if (match := _END.fullmatch(word))]
        if len(ends) == 2:
            connection = frozenset(_end(*match.groups()) for match in ends)
            for pid in _PID.findall(line):
                found.setdefault(int(pid), set()).add(connection)
    return found


def _end(address: str, port: str) -> End:
    """The same, however it is written; the interface behind it is the host's own affair."""
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    return str(found), int(port)
