"""Reads what the program printed that looked at a host. Programs may have been missing there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Interface
from typing import Any

from vxlab.hostcheck.facts import Answer, Facts, Nic, Socket, Space
from vxlab.state import Route, Vxlan

Sections = Mapping[str, Sequence[str]]

#: In `ss -p`: users:(("etcd",pid=27,fd=7),...). A name may hold anything but its end.
_USER = re.compile(r'\("(.*?)",pid=(\d+)')

_ALL = ("0.0.0.0", "[::]", "*")  # noqa: S104 - how ss writes that a socket is bound to no address


class FactsError(ValueError):
    """The output is not what the program prints, or it was cut off."""


def parse(output: str) -> Facts:
    """What a host is, out of what `program` printed there.

    Raises:
        FactsError: the output is incomplete or malformed.
    """
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for line in output.splitlines():
        if line.startswith("@@ "):
            current = sections.setdefault(line[3:], [])
        else:
            current.append(line)
    if "end" not in sections:
        raise FactsError("the output ends before the program did")
    try:
        return _facts(sections)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise FactsError(f"cannot read what the host is: {error!r}") from error


def _facts(sections: Sections) -> Facts:
    release = dict(_assignments(sections["os"]))
    uname = [*sections["uname"], "", ""]
    addresses, routes = _net(sections["net"])
    refusal, tries = _answers(sections["tries"])
    login = _first(sections["login"], "root")
    uid_map = _first(sections["uidmap"]).split()
    return Facts(
        os=release.get("PRETTY_NAME", ""),
        families=frozenset(
            {release.get("ID", ""), *release.get("ID_LIKE", "").split()} - {""},
        ),
        machine=uname[0],
        kernel=uname[1],
        clock=float(_first(sections["clock"], "0")),
        boot=_first(sections["boot"]),
        machine_id=_first(sections["machine"]),
        own_users=uid_map not in ([], ["0", "0", "4294967295"]),
        container=_first(sections["container"]),
        login=login,
        kills=_kills(dict(_assignments(sections["logind"])), login),
        programs=dict(line.split(" ", 1) for line in sections["programs"]),
        ignores=bool(sections["env"]),
        iptables=_first(sections["iptables"]),
        nics={row["ifname"]: _nic(row) for row in addresses},
        routes=tuple(_route(row) for row in routes),
        sockets=tuple(_sockets(sections["sockets"])),
        processes={int(pid): name for pid, name in _pairs(sections["processes"])},
        chains=dict(_chains(sections["chains"])),
        tables=tuple(line.removeprefix("table ") for line in sections["tables"]),
        sysctls=dict(_pairs(sections["sysctls"])),
        enforcing=_first(sections["selinux"]) == "1",
        space=dict(_space(sections["space"])),
        mounts={point: frozenset(how.split(",")) for point, how in _pairs(sections["mounts"])},
        files=frozenset(sections["files"]),
        labs=frozenset(sections["labs"]),
        tries=tries,
        refusal=refusal,
    )


def _first(lines: Sequence[str], otherwise: str = "") -> str:
    return lines[0].strip() if lines and lines[0].strip() else otherwise


def _pairs(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        first, _, second = line.partition(" ")
        yield first, second


def _assignments(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Lines NAME=VALUE as os-release(5) and systemd's files have them; the last one counts."""
    for line in lines:
        name, found, value = line.partition("=")
        if found and not line.startswith("#"):
            yield name.strip(), value.strip().strip("\"'")


def _kills(settings: Mapping[str, str], login: str) -> bool:
    """logind.conf(5): root is left out unless KillExcludeUsers says otherwise."""
    only = settings.get("KillOnlyUsers", "").split()
    spared = settings.get("KillExcludeUsers", "root").split()
    on = settings.get("KillUserProcesses", "no").lower() in ("yes", "true", "on", "1")
    return on and login not in spared and (not only or login in only)


Rows = list[dict[str, Any]]


def _net(lines: Sequence[str]) -> tuple[Rows, Rows]:
    """Addresses and routes; nothing where there is no ip, or one that knows no JSON."""
    if len(lines) != 2:
        return [], []
    # `ip -j` prints an empty object for every row that it filters out.
    addresses, routes = ([row for row in json.loads(line) if row] for line in lines)
    return addresses, routes


def _nic(row: dict[str, Any]) -> Nic:
    info = row.get("linkinfo", {})
    kind = info.get("info_kind", "")
    data = info.get("info_data", {})
    vxlan = None
    if kind == "vxlan":
        learning = bool(data.get("learning", True))
        vxlan = Vxlan(data.get("id", 0), data.get("port", 0), data.get("local", ""), learning)
    return Nic(
        name=row["ifname"],
        kind=kind,
        mtu=row["mtu"],
        up="UP" in row["flags"],
        carrier="NO-CARRIER" not in row["flags"],
        mac=row.get("address", ""),
        alias=row.get("ifalias", ""),
        addresses=tuple(
            IPv4Interface(f"{a['local']}/{a['prefixlen']}")
            for a in row.get("addr_info", ())
            if a.get("family") == "inet"
        ),
        vxlan=vxlan,
        external=bool(data.get("external", False)),
    )


def _route(row: dict[str, Any]) -> Route:
    hops = row.get("nexthops") or [{}]  # of several ways, the first one tells the interface
    return Route(
        dst=row["dst"],
        via=row.get("gateway", hops[0].get("gateway", "")),
        dev=row.get("dev", hops[0].get("dev", "")),
        protocol=row.get("protocol", ""),
        scope=row.get("scope", ""),
    )


def _sockets(lines: Sequence[str]) -> Iterator[Socket]:
    for line in lines:
        columns = line.split(maxsplit=6)
        where, _, port = columns[4].rpartition(":")
        # A socket may be bound to an interface, too; IPv6 sockets may have IPv4 addresses.
        where = where.partition("%")[0]
        if where.startswith("[::ffff:"):
            where = where.removeprefix("[::ffff:").rstrip("]")
        address = "*" if where in _ALL else where
        users = _USER.findall(columns[6]) if len(columns) > 6 else []
        holder = ", ".join(dict.fromkeys(f"{name} (PID {pid})" for name, pid in users))
        yield Socket(columns[0], address, int(port), holder)


def _chains(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    table = ""
    for word, policy in _pairs(lines):
        if word.startswith("*"):
            table = word[1:]
        elif table == "filter":
            yield word[1:], policy


def _space(lines: Sequence[str]) -> Iterator[tuple[str, Space]]:
    for line in lines:
        path, free, mount = line.split(" ", 2)
        yield path, Space(int(free), mount)


def _answers(lines: Sequence[str]) -> tuple[str, dict[str, Answer]]:
    """What was said before the first answer, and the answers by code."""
    before, *blocks = ("\n" + "\n".join(lines)).split("\n@ ")
    answers = {}
    for block in blocks:
        head, _, said = block.partition("\n")
        code, _, status = head.partition(" ")
        answers[code] = Answer(int(status), said.strip())
    return before.strip(), answers
