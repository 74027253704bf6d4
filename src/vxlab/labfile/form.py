"""The form of a lab file: every key, what it means in the network and which values it takes.

`vxlab.labfile.tree` fills these structs from YAML, `vxlab.labfile.resolve` makes a `Lab` of them,
and editors get their JSON schema from them. A key that is left out stays ``UNSET`` or takes the
talk's value.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

UNDERLAY_NETWORK = IPv4Network("192.168.56.0/24")
OVERLAY_NETWORK = IPv4Network("10.5.0.0/16")
MTU = 1500
INTERFACE = "eth0"

#: Words with a meaning of their own in vxlab, in a node or in ``/proc/sys/net/ipv4/conf``.
RESERVED = ("switch", "lo", "eth0", "all", "default", "etcd", "flannel")

# Python's `$` also matches before a final newline, that of JSON Schema does not.
_END = r"$(?!\n)"
_NOT_RESERVED = rf"^(?!(?:{'|'.join(RESERVED)}){_END})(?![0-9]+{_END})"
_OCTETS = r"^[0-9]{1,3}(\.[0-9]{1,3}){3}"
_TEXTS: dict[type, str] = {
    IPv4Network: rf"{_OCTETS}/[0-9]{{1,2}}{_END}",
    IPv4Address: rf"{_OCTETS}{_END}",
    IPv4Interface: rf"{_OCTETS}(/[0-9]{{1,2}})?{_END}",
}


def _name(pattern: str, wanted: str, most: int) -> Meta:
    return Meta(pattern=pattern, max_length=most, extra={"wanted": wanted})


def _text(kind: type, wanted: str) -> Meta:
    return Meta(extra_json_schema={"pattern": _TEXTS[kind]}, extra={"wanted": wanted})


def _about(description: str, default: str | int | None = None) -> Meta:
    if default is None:
        return Meta(description=description)
    return Meta(description=description, extra_json_schema={"default": default})


LabName = Annotated[
    str,
    _name(
        rf"^[a-z0-9][a-z0-9-]*{_END}",
        "at most 31 lowercase letters, digits and hyphens, no hyphen first",
        31,
    ),
]
# A node's name is its host name, and in the switch the name of the interface that leads to it:
# Linux takes 15 bytes for an interface (IFNAMSIZ), RFC 1123 letters, digits and inner hyphens.
NodeName = Annotated[
    str,
    _name(
        rf"{_NOT_RESERVED}[a-z0-9]([a-z0-9-]*[a-z0-9])?{_END}",
        "a host name of at most 15 lowercase letters, digits and inner hyphens",
        15,
    ),
]
ContainerName = Annotated[
    str,
    _name(
        rf"{_NOT_RESERVED}[a-z0-9]([a-z0-9-]*[a-z0-9])?{_END}",
        "a host name of at most 63 lowercase letters, digits and inner hyphens",
        63,
    ),
]
INTERFACE_PATTERN = (
    rf"^(?!(?:lo|all|default|cbr0|vethNS){_END})(?!flannel|vethlocal)"
    rf"[A-Za-z0-9][A-Za-z0-9._-]*{_END}"
)
InterfaceName = Annotated[
    str,
    _name(
        INTERFACE_PATTERN,
        "an interface name of at most 15 letters, digits, dots, hyphens and underscores",
        15,
    ),
]
# OpenSSH itself refuses a leading hyphen, blanks and what a shell would read (valid_hostname and
# valid_ruser in its ssh.c). The user is what is left of the last @, as there.
_USER = r"[A-Za-z0-9_][A-Za-z0-9._+-]*(?:[@\\][A-Za-z0-9._+-]+)*"
_HOST = r"(?:[A-Za-z0-9_][A-Za-z0-9._+-]*|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?\])"
_PORT = (  # from 1 to 65535
    r"(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}"
    r"|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
)
SSH_PATTERN = rf"^(?:{_USER}@)?{_HOST}(?::{_PORT})?{_END}"
SshTarget = Annotated[
    str, _name(SSH_PATTERN, "user@host:port, of which user@ and :port may be left out", 255)
]
Network = Annotated[IPv4Network, _text(IPv4Network, "an IPv4 network such as 10.5.0.0/16")]
Address = Annotated[IPv4Address, _text(IPv4Address, "an IPv4 address such as 10.5.1.0")]
NodeAddress = Annotated[
    IPv4Interface, _text(IPv4Interface, "an IPv4 address such as 192.168.56.21")
]
Port = Annotated[int, Meta(ge=1, le=65535)]
Mtu = Annotated[int, Meta(ge=68, le=65535)]


class Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A mapping of the lab file. Its docstrings and descriptions are what an editor shows."""


class UnderlayForm(Form, frozen=True):
    """The network between the nodes, which carries the outer packets."""

    network: Annotated[
        Network | UnsetType,
        _about(
            "The network that the nodes' own addresses are in; real hosts may be anywhere.",
            str(UNDERLAY_NETWORK),
        ),
    ] = UNSET
    mtu: Annotated[
        Mtu | UnsetType,
        _about("Largest packet on the nodes' network, in bytes; real hosts have their own.", MTU),
    ] = UNSET
    interface: Annotated[
        InterfaceName | UnsetType,
        _about("Name of the NIC in each node; real hosts have their own.", INTERFACE),
    ] = UNSET


class VxlanForm(
    Form,
    frozen=True,
    tag_field="Type",
    tag="vxlan",
    rename={
        "vni": "VNI",
        "port": "Port",
        "direct_routing": "DirectRouting",
        "gbp": "GBP",
        "learning": "Learning",
        "mtu": "MTU",
    },
):
    """VXLAN (RFC 7348), done by the kernel. The options are flannel's own and go to etcd as is."""

    vni: Annotated[
        Annotated[int, Meta(ge=1, le=16777215)] | UnsetType,
        _about("VXLAN network identifier; also the number in the interface name flannel.N.", 1),
    ] = UNSET
    port: Annotated[
        Port | UnsetType,
        _about("UDP port of the VTEPs; IANA's is 4789, Linux's and flannel's 8472.", 8472),
    ] = UNSET
    direct_routing: Annotated[
        bool | UnsetType, _about("Plain routes between nodes that share a network.")
    ] = UNSET
    gbp: Annotated[bool | UnsetType, _about("VXLAN Group Based Policy.")] = UNSET
    learning: Annotated[
        bool | UnsetType, _about("Let the kernel learn MAC addresses from received packets.")
    ] = UNSET
    mtu: Annotated[
        Mtu | UnsetType,
        _about("The underlay's MTU in bytes, for flannel to subtract its 50 from."),
    ] = UNSET


class HostGwForm(Form, frozen=True, tag_field="Type", tag="host-gw"):
    """Plain routes through the other nodes' underlay addresses; nothing is encapsulated."""


class UdpForm(Form, frozen=True, tag_field="Type", tag="udp", rename={"port": "Port"}):
    """IP in UDP through flanneld's own process: slow, for looking at."""

    port: Annotated[Port | UnsetType, _about("UDP port of flanneld.", 8285)] = UNSET


BackendForm = VxlanForm | HostGwForm | UdpForm

#: Every option of flannel's backends, with the backend types that have it.
BACKEND_OPTIONS = {
    "VNI": ("vxlan",),
    "Port": ("vxlan", "udp"),
    "DirectRouting": ("vxlan",),
    "GBP": ("vxlan",),
    "Learning": ("vxlan",),
    "MTU": ("vxlan",),
}


class OverlayForm(Form, frozen=True):
    """The containers' network, which flannel cuts into one subnet per node."""

    network: Annotated[
        Network | UnsetType,
        _about("The network that all containers' addresses are in.", str(OVERLAY_NETWORK)),
    ] = UNSET
    subnet_length: Annotated[
        Annotated[int, Meta(ge=2, le=30)] | UnsetType,
        _about("Prefix length of one node's subnet.", 24),
    ] = UNSET
    subnet_min: Annotated[
        Address | UnsetType, _about("First subnet to hand out; normally the network's second.")
    ] = UNSET
    subnet_max: Annotated[
        Address | UnsetType, _about("Last subnet to hand out; normally the network's last.")
    ] = UNSET
    backend: Annotated[
        BackendForm | None, _about("How flannel carries packets from node to node.")
    ] = None


class EtcdForm(Form, frozen=True):
    """Where flannel's configuration and the nodes' leases are kept."""

    node: Annotated[
        Annotated[str, Meta(extra={"wanted": "the name of a node"})] | UnsetType,
        _about("The node that etcd runs on; normally the first one."),
    ] = UNSET
    port: Annotated[Port, _about("TCP port for clients.")] = 2379
    # etcd's own bounds (embed/config.go): an election takes at most 50 s.
    heartbeat_interval: Annotated[
        Annotated[int, Meta(ge=1, le=10000)], _about("etcd's --heartbeat-interval, milliseconds.")
    ] = 10
    election_timeout: Annotated[
        Annotated[int, Meta(ge=5, le=50000)], _about("etcd's --election-timeout, milliseconds.")
    ] = 50
    insecure: Annotated[
        bool, _about("Real hosts only: plain http, as in the talk, open to all on their network.")
    ] = False


class NodeForm(Form, frozen=True):
    """One machine of the lab: a node on this machine, or with `ssh` a real host."""

    ssh: Annotated[
        SshTarget | UnsetType,
        _about("Where a real host is: user@host:port, or an alias of the OpenSSH configuration."),
    ] = UNSET
    address: Annotated[
        NodeAddress | UnsetType,
        _about("Underlay address, a real host's own; normally the next free one from .21 on."),
    ] = UNSET
    interface: Annotated[
        InterfaceName | UnsetType,
        _about("A real host's NIC that carries the traffic between the hosts."),
    ] = UNSET
    # A Linux bridge has room for 1023 ports (BR_MAX_PORTS), and each container takes one.
    containers: Annotated[
        Annotated[int, Meta(ge=0, le=1023)] | Annotated[list[ContainerName], Meta(max_length=1023)],
        Meta(
            description="How many containers the node has, or a list of their names.",
            extra={"wanted": "a count from 0 to 1023, or a list of at most 1023 names"},
        ),
    ] = 1
    subnet: Annotated[
        Network | UnsetType, _about("The node's subnet; normally flannel picks one.")
    ] = UNSET


class LabForm(Form, frozen=True):
    """A lab: nodes on an underlay, containers on an overlay. What is left out is the talk's."""

    name: Annotated[LabName, _about("Name of the lab.")] = "talk"
    underlay: UnderlayForm | None = None
    overlay: OverlayForm | None = None
    etcd: EtcdForm | None = None
    ipv6: Annotated[bool, _about("Leave IPv6 autoconfiguration on.")] = False
    nodes: Annotated[
        Annotated[dict[NodeName, NodeForm | None], Meta(min_length=1, max_length=1023)] | None,
        Meta(
            description="The nodes by name; normally node01 and node02.",
            extra={"wanted": "from 1 to 1023 nodes"},
        ),
    ] = None


def parse_text(kind: type, value: object) -> Any:
    """Make an address or a network of its text; msgspec's ``dec_hook``.

    A node's address without a prefix length comes out as a /32, which nobody can mean: it has no
    neighbours. Written out, a /32 is refused; a cloud's host that has one is told without it.

    Raises:
        ValueError: not text, not IPv4, a netmask for a prefix length, or host bits set.
    """
    if not isinstance(value, str) or not re.search(_TEXTS[kind], value):
        raise ValueError("not of the form")
    if kind is IPv4Interface and value.endswith("/32"):
        raise ValueError("an address without neighbours")
    return kind(value)


def schema() -> dict[str, Any]:
    """The JSON schema of lab files, for editors that check and complete YAML.

    It knows each value's form only; what values must have to do with each other is for `labcheck`.
    """
    form = msgspec.json.schema(LabForm, schema_hook=lambda kind: {"type": "string"})
    # vxlan is assumed where no type is given, which msgspec's tagged unions cannot express.
    form["$defs"]["VxlanForm"]["required"].remove("Type")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "vxlab lab", **form}
