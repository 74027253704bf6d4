"""The program that reads a node, and the parser of what that program prints."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Interface, IPv4Network
from typing import Any

from vxlab.state.model import (
    FORWARDING,
    RECORDS,
    SUBNET_ENV,
    SYSCTL_DOTS,
    SYSCTLS,
    FdbEntry,
    Firewall,
    Link,
    Neighbour,
    Net,
    Process,
    Route,
    State,
    SubnetEnv,
    UdpSocket,
    Vxlan,
)

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
%(host)s
at end
"""

_HOST_PROGRAM = """\
at forwarding; for f in %(forwarding)s; do
  [ -r /proc/sys/$f ] && { read -r v </proc/sys/$f; echo "$f $v"; }; done
at firewall; iptables-save 2>/dev/null | while read -r c p _; do
  case $c in "*"*) t=$c;; esac
  case $t$c in "*filter:FORWARD") echo "policy $p";; "*filter:FLANNEL-FWD") echo flannel;; esac
done
if command -v nft >/dev/null; then at nft
  nft list table ip filter 2>/dev/null | while read -r w c _; do
    case $w in table) echo table;; chain) echo "chain $c";; esac; done
fi
at files; for f in %(files)s; do
  if [ -d "$f" ]; then echo "directory $f"
  elif [ -f "$f" ]; then case $f in *.log) echo "log $f";; *) sha256sum "$f";; esac; fi; done
"""

_PAGE_KIB = 4  # statm counts pages; they are 4 KiB on the machines that flannel has releases for


def program(*, inside: bool = True, files: Sequence[str] | None = None) -> str:
    """The shell program whose output `parse` reads. It changes nothing.

    Args:
        inside: read the networks of the machines held on this node, too (its containers).
        files: on a real host, where the lab has its files there.
    """
    host = "" if files is None else _host_program(files)
    return _PROGRAM % {
        "host": host,
        "sysctls": " ".join(key.replace(".", "/") for key in SYSCTLS),
        "env": SUBNET_ENV,
        "records": RECORDS,
        "inside": int(inside),
    }


def _host_program(files: Sequence[str]) -> str:
    # The patterns are expanded where they start: in /proc/sys.
    patterns = " ".join(f"$(cd /proc/sys && echo {pattern})" for pattern in FORWARDING)
    words = " ".join(shlex.quote(path) for path in files)
    return _HOST_PROGRAM % {"forwarding": patterns, "files": words}


class SnapshotError(ValueError):
    """The output is not what `program` prints, or it was cut off."""


def parse(output: str) -> State:
    """Turn the program's output into a State.

    Raises:
        SnapshotError: the output is incomplete or malformed.
    """
    sections: Sections = {}
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


Sections = dict[tuple[str, ...], list[str]]


def _state(sections: Sections) -> State:
    lines = [*sections.get(("sysctl",), []), *sections.get(("forwarding",), [])]
    sysctls = dict(line.split(" ", 1) for line in lines)
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
            sysctls={key.translate(SYSCTL_DOTS): value for key, value in sysctls.items()},
        ),
        inside=inside,
        machines=machines,
        daemons=daemons,
        udp=tuple(_udp(line) for line in sections[("udp",)]),
        subnet_env=parse_subnet_env("\n".join(sections[("subnet_env",)])),
        files=dict(_file(line) for line in sections.get(("files",), [])),
        firewall=_firewall(sections),
    )


def _file(line: str) -> tuple[str, str]:
    """A path, and a word or its digest; sha256sum puts two blanks between."""
    word, path = line.split(maxsplit=1)
    return path, word


def _firewall(sections: Sections) -> Firewall | None:
    lines = sections.get(("firewall",))
    if lines is None:
        return None
    policy = next((line.split()[1] for line in lines if line.startswith("policy ")), "")
    nft = sections.get(("nft",))
    # iptables-save prints a table that exists, with all its chains. Without nft nobody knows which
    # of them do, nor could take them away again.
    table = bool(policy) if nft is None else "table" in nft
    chain = table if nft is None else "chain FORWARD" in nft
    return Firewall(policy, table, chain, "flannel" in lines)


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
