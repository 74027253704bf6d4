"""What a node looks like, as values: links, addresses, routes, neighbour entries, the FDB."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv4Network

#: vxlab's records on a node. A line "PID START" per machine or daemon that runs there.
RECORDS = "/run/vxlab"
#: The shell function ``born PID`` prints when a process started, in clock ticks since boot
#: (proc(5)), and nothing for one that is gone or dead. A PID without its start time may be a
#: stranger's.
BORN = """\
born() { s=; { read -r s <"/proc/$1/stat"; } 2>/dev/null; s=${s##*) }; set -- $s
  [ "${1:-Z}" != Z ] && echo "${20}"; }
"""
#: /var/run is a link to it everywhere; read from outside, an absolute link would lead out again.
SUBNET_ENV = "/run/flannel/subnet.env"

#: The sysctls that a snapshot holds; `vxlab.ops.SetSysctl` may only set these.
SYSCTLS = ("net.ipv4.ip_forward", "net.ipv6.conf.all.disable_ipv6")

#: sysctl(8) writes a dot in an interface's name as a slash, and the other way round.
SYSCTL_DOTS = str.maketrans("./", "/.")

#: What writing ip_forward changes besides; a real host gets these back, too. Shell patterns.
FORWARDING = ("net/ipv4/conf/*/forwarding", "net/ipv4/conf/all/accept_redirects")


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

    def routes_into(self, network: str) -> tuple[Route, ...]:
        """The routes to (parts of) a network."""
        whole = IPv4Network(network)
        return tuple(
            r for r in self.routes if r.dst != "default" and IPv4Network(r.dst).subnet_of(whole)
        )


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
class Firewall:
    """What of a host's packet filter flannel would change; see `vxlab.ops.RestoreFirewall`."""

    policy: str  # of the FORWARD chain; empty: there is no filter table
    table: bool  # the nftables table "ip filter" exists
    chain: bool  # its chain FORWARD exists
    flannel: bool  # flannel's rules are there


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
    files: Mapping[str, str] = field(default_factory=dict)  # a real host's: SHA-256, or a word
    firewall: Firewall | None = None  # a real host's

    def net_of(self, where: str) -> Net:
        """The network of a container on this node, or of the node itself for an empty name."""
        return self.inside.get(where, Net()) if where else self.net


@dataclass(frozen=True, slots=True)
class UdpSocket:
    """A bound UDP socket. The kernel's own (VXLAN) has no process."""

    port: int
    process: str = ""
