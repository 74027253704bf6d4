"""What a node looks like: the program that reads it and the parser of what that program prints.

One shell program per node reads links (with their VXLAN details), addresses, routes, neighbour
entries, the FDB, UDP sockets, sysctls, files, daemons and the containers' own interfaces. The same
program serves a node on this machine and a host behind SSH; the parser is pure.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv4Network
from typing import Any

#: vxlab's records on a node. A line "PID START" per machine or daemon that runs there.
RECORDS = "/run/vxlab"
#: /var/run is a link to it everywhere; read from outside, an absolute link would lead out again.
SUBNET_ENV = "/run/flannel/subnet.env"

#: The sysctls that a snapshot holds; `vxlab.ops.SetSysctl` may only set these.
SYSCTLS = ("net.ipv4.ip_forward", "net.ipv6.conf.all.disable_ipv6")


@dataclass(frozen=True, slots=True)
class Vxlan:
    """The VTEP's side of a link: what ``ip -d link show flannel.1`` prints (RFC 7348)."""

    vni: int
    port: int  # UDP destination port
    local: str  # outer source address
    learning: bool


@dataclass(frozen=True, slots=True)
class Link:
    """One network interface. `mtu` is in bytes."""

    name: str
    kind: str  # veth, bridge, vxlan, ...; empty for hardware and lo
    mtu: int
    up: bool
    mac: str
    master: str = ""
    alias: str = ""
    addresses: tuple[str, ...] = ()  # IPv4, with prefix length
    stp: bool = False
    vxlan: Vxlan | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """One IPv4 route of the main table."""

    dst: str  # network/length or "default"
    via: str = ""
    dev: str = ""
    protocol: str = ""
    scope: str = ""
    onlink: bool = False


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One neighbour (ARP) entry: an address and the MAC it resolves to."""

    address: str
    dev: str
    mac: str
    state: str  # PERMANENT, REACHABLE, ...


@dataclass(frozen=True, slots=True)
class FdbEntry:
    """One forwarding database entry; on a VXLAN link `dst` is the remote VTEP's address."""

    mac: str
    dev: str
    dst: str = ""
    state: str = ""


@dataclass(frozen=True, slots=True)
class Net:
    """The network of one namespace."""

    links: Mapping[str, Link] = field(default_factory=dict)
    routes: tuple[Route, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    fdb: tuple[FdbEntry, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)

    def route(self, dst: str) -> Route | None:
        return next((r for r in self.routes if r.dst == dst), None)


@dataclass(frozen=True, slots=True)
class Process:
    """A daemon or a namespace holder. A PID without its start time may be a stranger's."""

    pid: int  # in the node's PID namespace
    start: int  # clock ticks since boot
    alive: bool
    rss: int = 0  # resident memory, KiB
    command: str = ""


@dataclass(frozen=True, slots=True)
class SubnetEnv:
    """What flanneld wrote to ``subnet.env``: the node's lease."""

    network: IPv4Network
    subnet: IPv4Interface  # the gateway's address and the subnet's prefix length
    mtu: int  # bytes


@dataclass(frozen=True, slots=True)
class State:
    """A node at one moment. A node that was never built has the empty state."""

    net: Net = field(default_factory=Net)
    inside: Mapping[str, Net] = field(default_factory=dict)  # containers' networks, by name
    machines: Mapping[str, Process] = field(default_factory=dict)  # namespace holders
    daemons: Mapping[str, Process] = field(default_factory=dict)
    udp: tuple[UdpSocket, ...] = ()
    subnet_env: SubnetEnv | None = None
    keys: Mapping[str, str] = field(default_factory=dict)  # etcd's, on the node that it runs on

    def net_of(self, where: str) -> Net:
        """The network of a container on this node, or of the node itself for an empty name."""
        return self.inside.get(where, Net()) if where else self.net


@dataclass(frozen=True, slots=True)
class UdpSocket:
    """A bound UDP socket. The kernel's own (VXLAN) has no process."""

    port: int
    process: str = ""


# --- reading ------------------------------------------------------------------------------------

_PROGRAM = """\
export LC_ALL=C
at() { echo "@@ $*"; }
sysctls() { for k in %(sysctls)s; do
  [ -r /proc/sys/$k ] && { read -r v </proc/sys/$k; echo "$k $v"; }; done; }
net() { printf 'addr show\\nroute show\\nneigh show\\n' | ip -d -j -batch -; }
alive() { s=; [ -r /proc/$1/stat ] && read -r s </proc/$1/stat; s=${s##*) }
  set -- "$2" $s; [ "$2" != Z ] && [ "${21:-}" = "$1" ]; }
record() { at "$1" "${2##*/}"; p=; { read -r p t; read -r c; } <"$2"
  [ -n "$t" ] || { echo "0 0 0 0 being started"; return 1; }
  if alive "$p" "$t"; then read -r _ m _ </proc/$p/statm; echo "$p $t 1 $m $c"
  else echo "$p $t 0 0 $c"; return 1; fi; }
at net; net
at fdb; bridge -j fdb show
at udp; ss -Haunp
at sysctl; sysctls
at subnet_env; [ -r %(env)s ] && while read -r l; do echo "$l"; done <%(env)s
for f in %(records)s/daemons/*; do [ -r "$f" ] && record daemon "$f"; done
for f in %(records)s/machines/*; do [ -r "$f" ] || continue
  if record machine "$f" && [ %(inside)s = 1 ]; then
    at inside "${f##*/}"
    nsenter -n -t "$p" sh -c 'printf "addr show\\nroute show\\nneigh show\\n" | ip -d -j -batch -'
  fi; done
at end
"""

_PAGE_KIB = 4  # statm counts pages; they are 4 KiB on the machines that flannel has releases for


def program(*, inside: bool = True) -> str:
    """The shell program whose output `parse` reads. It changes nothing.

    Args:
        inside: read the networks of the machines held on this node, too (its containers).
    """
    return _PROGRAM % {
        "sysctls": " ".join(key.replace(".", "/") for key in SYSCTLS),
        "env": SUBNET_ENV,
        "records": RECORDS,
        "inside": int(inside),
    }


class SnapshotError(ValueError):
    """The output is not what `program` prints, or it was cut off."""


def parse(output: str) -> State:
    """Turn the program's output into a State.

    Raises:
        SnapshotError: the output is incomplete or malformed.
    """
    sections: dict[tuple[str, ...], list[str]] = {}
    current: list[str] = []
    for line in output.splitlines():
        if line.startswith("@@ "):
            current = sections.setdefault(tuple(line.split()[1:]), [])
        else:
            current.append(line)
    if ("end",) not in sections:
        raise SnapshotError("the output ends before the program did")
    try:
        return _state(sections)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise SnapshotError(f"cannot read the snapshot: {error}") from error


def _state(sections: dict[tuple[str, ...], list[str]]) -> State:
    sysctls = dict(line.split(" ", 1) for line in sections.get(("sysctl",), []))
    inside, machines, daemons = {}, {}, {}
    for key, lines in sections.items():
        if key[0] == "machine":
            machines[key[1]] = _process(lines[0])
        elif key[0] == "daemon":
            daemons[key[1]] = _process(lines[0])
        elif key[0] == "inside":
            inside[key[1]] = _net(lines)
    return State(
        net=_net(
            sections[("net",)],
            fdb="".join(sections[("fdb",)]),
            sysctls={key.replace("/", "."): value for key, value in sysctls.items()},
        ),
        inside=inside,
        machines=machines,
        daemons=daemons,
        udp=tuple(_udp(line) for line in sections[("udp",)]),
        subnet_env=parse_subnet_env("\n".join(sections[("subnet_env",)])),
    )


def _rows(text: str) -> list[dict[str, Any]]:
    # `ip -j` prints an empty object for every row that it filters out.
    return [row for row in json.loads(text or "[]") if row]


def _net(lines: list[str], fdb: str = "", sysctls: Mapping[str, str] | None = None) -> Net:
    links, routes, neighbours = (_rows(line) for line in lines)
    return Net(
        links={row["ifname"]: _link(row) for row in links},
        routes=tuple(_route(row) for row in routes),
        neighbours=tuple(_neighbour(row) for row in neighbours if "lladdr" in row),
        fdb=tuple(
            FdbEntry(row["mac"], row["ifname"], row.get("dst", ""), row.get("state", ""))
            for row in _rows(fdb)
        ),
        sysctls=sysctls or {},
    )


def _link(row: dict[str, Any]) -> Link:
    info = row.get("linkinfo", {})
    kind = info.get("info_kind", "")
    data = info.get("info_data", {})
    return Link(
        name=row["ifname"],
        kind=kind,
        mtu=row["mtu"],
        up="UP" in row["flags"],
        mac=row.get("address", ""),
        master=row.get("master", ""),
        alias=row.get("ifalias", ""),
        addresses=tuple(
            f"{a['local']}/{a['prefixlen']}" for a in row["addr_info"] if a.get("family") == "inet"
        ),
        stp=kind == "bridge" and bool(data.get("stp_state", 0)),
        vxlan=Vxlan(data["id"], data["port"], data.get("local", ""), data.get("learning", True))
        if kind == "vxlan"
        else None,
    )


def _route(row: dict[str, Any]) -> Route:
    return Route(
        dst=row["dst"],
        via=row.get("gateway", ""),
        dev=row.get("dev", ""),
        protocol=row.get("protocol", ""),
        scope=row.get("scope", ""),
        onlink="onlink" in row.get("flags", []),
    )


def _neighbour(row: dict[str, Any]) -> Neighbour:
    return Neighbour(row["dst"], row["dev"], row["lladdr"], " ".join(row.get("state", [])))


def _udp(line: str) -> UdpSocket:
    columns = line.split(maxsplit=5)
    return UdpSocket(int(columns[3].rpartition(":")[2]), columns[5] if len(columns) > 5 else "")


def _process(line: str) -> Process:
    pid, start, alive, pages, *command = line.split(" ", 4)
    return Process(int(pid), int(start), alive == "1", int(pages) * _PAGE_KIB, "".join(command))


def parse_subnet_env(text: str) -> SubnetEnv | None:
    """The lease in flannel's ``subnet.env``, or None while the file is missing or half written.

    flannel writes FLANNEL_IPMASQ last (``WriteSubnetFile``): with it what comes before is whole.
    """
    pairs = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    if "FLANNEL_IPMASQ" not in pairs:
        return None
    try:
        return SubnetEnv(
            network=IPv4Network(pairs["FLANNEL_NETWORK"]),
            subnet=IPv4Interface(pairs["FLANNEL_SUBNET"]),
            mtu=int(pairs["FLANNEL_MTU"]),
        )
    except (KeyError, ValueError):
        return None


def parse_proc_route(text: str) -> frozenset[IPv4Network]:
    """The destinations in ``/proc/net/route``; the numbers there are in host byte order."""
    networks = set()
    for line in text.splitlines()[1:]:
        columns = line.split()
        address = int.from_bytes(bytes.fromhex(columns[1]), sys.byteorder)
        mask = int.from_bytes(bytes.fromhex(columns[7]), sys.byteorder)
        networks.add(IPv4Network((address, mask.bit_count())))
    return frozenset(networks)
