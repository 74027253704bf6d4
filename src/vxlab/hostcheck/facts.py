"""What a real host was found to be, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from vxlab.state import Route, Vxlan


@dataclass(frozen=True, slots=True)
class Nic:
    """One of the host's interfaces. `mtu` is in bytes."""

    name: str
    kind: str  # veth, bridge, vxlan, ...; empty for hardware and lo
    mtu: int
    up: bool
    carrier: bool
    mac: str
    alias: str = ""
    addresses: tuple[IPv4Interface, ...] = ()
    vxlan: Vxlan | None = None
    external: bool = False  # a VXLAN device whose VNIs somebody else chooses (Open vSwitch, Cilium)


@dataclass(frozen=True, slots=True)
class Socket:
    """A port that somebody listens at. The kernel's own (VXLAN) has no holder."""

    protocol: str  # tcp or udp
    address: str  # an address, or * for all
    port: int
    holder: str  # etcd (PID 27), or empty


@dataclass(frozen=True, slots=True)
class Space:
    """Room below a directory."""

    free: int  # KiB
    mount: str  # the file system's mount point


@dataclass(frozen=True, slots=True)
class Answer:
    """How the try of a kernel feature ended, and what was said."""

    status: int
    said: str


@dataclass(frozen=True, slots=True)
class Facts:
    """A host as it is before the lab changes anything."""

    os: str = ""  # Debian GNU/Linux 12 (bookworm)
    families: frozenset[str] = frozenset()  # debian, or fedora, rhel, centos
    machine: str = ""  # x86_64
    kernel: str = ""  # its release
    clock: float = 0  # seconds since the epoch, when it was asked; 0: it could not tell
    boot: str = ""
    machine_id: str = ""
    own_users: bool = False  # its root is an ordinary user outside: a user namespace
    container: str = ""  # the sign that it is a container
    login: str = "root"  # who logged in, before sudo
    kills: bool = False  # logind ends the login's processes with its last session
    programs: Mapping[str, str] = field(default_factory=dict)  # name -> path
    ignores: bool = False  # env knows --ignore-signal
    iptables: str = ""
    nics: Mapping[str, Nic] = field(default_factory=dict)
    routes: tuple[Route, ...] = ()
    sockets: tuple[Socket, ...] = ()
    processes: Mapping[int, str] = field(default_factory=dict)  # those of interest
    chains: Mapping[str, str] = field(default_factory=dict)  # filter's, with their policies
    tables: tuple[str, ...] = ()  # nftables': "ip filter"
    sysctls: Mapping[str, str] = field(default_factory=dict)  # net.ipv4's, as paths
    enforcing: bool = False  # SELinux
    space: Mapping[str, Space] = field(default_factory=dict)
    mounts: Mapping[str, frozenset[str]] = field(default_factory=dict)  # mount point -> options
    files: frozenset[str] = frozenset()
    labs: frozenset[str] = frozenset()  # vxlab's on this host
    tries: Mapping[str, Answer] = field(default_factory=dict)
    refusal: str = ""  # what was said when there were no namespaces to try anything in

    def holders(self, address: IPv4Address) -> tuple[Nic, ...]:
        """The interfaces that have an address."""
        return tuple(n for n in self.nics.values() if any(a.ip == address for a in n.addresses))

    def route_to(self, address: IPv4Address) -> Route | None:
        """The main table's route that a packet to this address takes: the longest prefix."""
        fitting = [r for r in self.routes if address in network_of(r)]
        return max(fitting, key=lambda r: network_of(r).prefixlen, default=None)

    def own(self) -> frozenset[IPv4Address]:
        """Every address of the host but loopback's."""
        every = (a.ip for n in self.nics.values() for a in n.addresses)
        return frozenset(ip for ip in every if not ip.is_loopback)


def network_of(route: Route) -> IPv4Network:
    """A route's destination; ``default`` is everything."""
    return IPv4Network("0.0.0.0/0" if route.dst == "default" else route.dst)
