"""The lab, resolved: which nodes, which networks, which addresses. No strings left to parse.

`vxlab.labfile` turns a YAML file into this; the steps read it. Everything here is immutable.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from vxlab import mtu

#: flannel's configuration key in etcd (flannel's --etcd-prefix default, and the talk's).
FLANNEL_PREFIX = "/coreos.com/network"

#: The underlay address of a real host that was not asked yet.
UNKNOWN = IPv4Interface("0.0.0.0/0")

#: The underlay of real hosts, which may be several networks with routers between them.
ANYWHERE = UNKNOWN.network

#: Host number of a node's first container in its subnet; the next container has the next one.
FIRST_CONTAINER_HOST = 10


@dataclass(frozen=True, slots=True)
class Underlay:
    """The network between the nodes, which carries the outer packets.

    Real hosts bring their own. Unless the lab file says something, their `network` is `ANYWHERE`,
    their `interface` empty (each node has its own), and `mtu` is 0 until they were asked.
    """

    network: IPv4Network
    mtu: int  # bytes
    interface: str = "eth0"  # the NIC's name inside each node


@dataclass(frozen=True, slots=True)
class Overlay:
    """The containers' network, which flannel cuts into one subnet per node.

    `backend` holds flannel's own option names and values, ``Type`` among them.
    """

    network: IPv4Network
    subnet_length: int  # prefix length of one node's subnet
    backend: Mapping[str, str | int | bool]
    subnet_min: IPv4Address | None = None
    subnet_max: IPv4Address | None = None

    @property
    def backend_type(self) -> str:
        return str(self.backend["Type"])

    @property
    def vni(self) -> int:
        """VXLAN network identifier (RFC 7348); flannel's default is 1."""
        return int(self.backend.get("VNI", 1))

    @property
    def port(self) -> int:
        """UDP port of the VTEPs; flannel keeps Linux's 8472, not IANA's 4789."""
        return int(self.backend.get("Port", 8472))

    @property
    def direct_routing(self) -> bool:
        """Whether nodes in one underlay network skip the encapsulation (DirectRouting)."""
        return bool(self.backend.get("DirectRouting", False))

    def flannel_config(self) -> str:
        """The JSON that goes to etcd under ``/coreos.com/network/config``."""
        config: dict[str, object] = {"Network": str(self.network)}
        # The talk's value has no SubnetLen, since 24 is flannel's default; keep it recognisable.
        if self.subnet_length != 24:
            config["SubnetLen"] = self.subnet_length
        if self.subnet_min is not None:
            config["SubnetMin"] = str(self.subnet_min)
        if self.subnet_max is not None:
            config["SubnetMax"] = str(self.subnet_max)
        config["Backend"] = dict(self.backend)
        return json.dumps(config)


@dataclass(frozen=True, slots=True)
class Etcd:
    """Where etcd runs and how. The timers are milliseconds, under etcd's own flag names.

    etcd's defaults (100 and 1000) make a single member wait up to a second before it elects itself;
    a lab's only member sits on the same machine as everything else and need not wait.
    """

    node: str
    port: int = 2379
    heartbeat_interval: int = 10
    election_timeout: int = 50
    insecure: bool = False  # real hosts: plain http, as in the talk, instead of mutual TLS


@dataclass(frozen=True, slots=True)
class Container:
    """One busybox container; its address is its node's subnet plus `host_number`."""

    name: str
    node: str
    host_number: int  # 10 for a node's first container, as in the talk
    veth: str  # the veth end on the node: vethlocal, vethlocal2, ...

    @property
    def full_name(self) -> str:
        return f"{self.node}/{self.name}"


@dataclass(frozen=True, slots=True)
class Node:
    """One machine of the lab, with its underlay address.

    A real host may be told by its `interface` alone; its address is `UNKNOWN` until it was asked.
    """

    name: str
    address: IPv4Interface
    containers: tuple[Container, ...]
    subnet: IPv4Network | None = None  # pinned by the lab file; None lets flannel choose
    ssh: str = ""  # user@host:port of a real host; empty: a node on this machine
    interface: str = ""  # a real host's NIC; empty until it was asked, or given in the lab file


@dataclass(frozen=True, slots=True)
class Lab:
    """A whole lab. The defaults are the talk's."""

    name: str
    underlay: Underlay
    overlay: Overlay
    etcd: Etcd
    nodes: tuple[Node, ...]
    ipv6: bool = False  # leave IPv6 autoconfiguration on the lab's interfaces alone
    source: str = field(default="", compare=False)  # the file it came from, for messages

    @property
    def overlay_mtu(self) -> int:
        """MTU in bytes of every overlay interface; decided in `vxlab.mtu`.

        0 where nobody knows: the underlay is that of real hosts which were not asked yet.
        """
        configured = self.overlay.backend.get("MTU")
        base = int(configured) if configured else self.underlay.mtu
        return mtu.overlay_mtu(base, self.overlay.backend_type) if base else 0

    @property
    def containers(self) -> tuple[Container, ...]:
        return tuple(c for node in self.nodes for c in node.containers)

    @property
    def etcd_node(self) -> Node:
        return self.node(self.etcd.node)

    @property
    def remote(self) -> bool:
        """Whether the nodes are real hosts behind SSH; all are, or none."""
        return any(node.ssh for node in self.nodes)

    @property
    def tls(self) -> bool:
        """Whether etcd and its clients prove to each other who they are (mutual TLS)."""
        return self.remote and not self.etcd.insecure

    @property
    def etcd_url(self) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://{self.etcd_node.address.ip}:{self.etcd.port}"

    def nic(self, node: Node) -> str:
        """The node's underlay interface, which the outer packets leave by."""
        return node.interface or self.underlay.interface

    @property
    def mark(self) -> str:
        """The alias that every interface made by this lab carries."""
        return f"vxlab:{self.name}"

    def node(self, name: str) -> Node:
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)
