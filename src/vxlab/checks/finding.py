"""What a check says, and what it says it from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from vxlab.lab import FLANNEL_PREFIX, Lab
from vxlab.packet import Packet
from vxlab.state import State


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer: what was seen and what was wanted, at one place.

    `ok` is None where nothing could be measured, which is neither good nor bad. `code` is stable.
    """

    code: str
    where: str
    ok: bool | None
    seen: str
    wanted: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Lease:
    """What a flanneld registered in etcd: which node has which subnet, and its VTEP's MAC."""

    subnet: str
    public_ip: str
    backend: str
    vtep_mac: str
    vni: int | None


@dataclass(frozen=True, slots=True)
class Reached:
    """What became of a ping: an answer, someone's refusal, or it could not even be tried."""

    ok: bool | None
    rtt_us: float = 0.0  # microseconds
    error: str = ""


@dataclass(frozen=True, slots=True)
class EdgeSeen:
    """Don't-fragment packets of `mtu`, `mtu` + 1 and again `mtu` bytes between two containers."""

    src: str
    dst: str
    mtu: int
    ok: bool | None
    reason: str


@dataclass(frozen=True, slots=True)
class WireSeen:
    """A trace's packets on a node's underlay interface, while one container pinged another with
    packets of exactly the overlay's MTU."""

    node: str
    src: str  # container addresses
    dst: str
    packets: tuple[Packet, ...] = ()  # only those that carry src -> dst, in whatever wrapping
    fragments: int = 0
    dropped: int = 0  # by the capture
    error: str = ""  # why nothing could be captured
    lost: str = (
        ""  # where the packet was seen last and why it came no farther, if it did not arrive
    )


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that the checks look at, gathered before they are asked."""

    lab: Lab
    states: Mapping[str, State]
    etcd_version: str = ""  # empty: it does not answer
    etcd_error: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)
    leases: tuple[Lease, ...] = ()
    gateways: Mapping[str, Reached] = field(default_factory=dict)  # by container (node/name)
    pairs: Mapping[tuple[str, str], Reached] = field(default_factory=dict)
    edges: tuple[EdgeSeen, ...] = ()
    wire: tuple[WireSeen, ...] = ()

    def lease_of(self, node: str) -> Lease | None:
        """The lease that is registered with the node's underlay address."""
        address = str(self.lab.node(node).address.ip)
        return next((lease for lease in self.leases if lease.public_ip == address), None)


@dataclass(frozen=True, slots=True)
class Check:
    """A question about a lab, and how it is answered from the evidence."""

    code: str
    question: str
    answer: Callable[[Evidence], Iterator[Finding]]


def leases(keys: Mapping[str, str]) -> tuple[Lease, ...]:
    """The leases among etcd's keys, such as ``.../subnets/10.5.73.0-24`` (flannel, etcd registry).

    What is no lease that flannel could have written is passed over: the check misses it then.
    """
    prefix = f"{FLANNEL_PREFIX}/subnets/"
    found = []
    for key, value in sorted(keys.items()):
        if not key.startswith(prefix):
            continue
        try:
            data = json.loads(value)
        except ValueError:
            continue
        if not isinstance(data, dict):
            continue
        backend = data.get("BackendData")
        details = backend if isinstance(backend, dict) else {}
        found.append(
            Lease(
                # A dual-stack lease's key goes on behind the IPv4 subnet.
                subnet=key.removeprefix(prefix).partition("&")[0].replace("-", "/"),
                public_ip=str(data.get("PublicIP", "")),
                backend=str(data.get("BackendType", "")),
                vtep_mac=str(details.get("VtepMAC", "")),
                vni=details.get("VNI"),
            )
        )
    return tuple(found)


def compare(
    code: str, where: str, what: str, seen: object, wanted: object, fix: str = ""
) -> Finding:
    """A finding that is good if what was seen is what was wanted."""
    ok = seen == wanted
    shown = f"{what} {seen}" if seen not in ("", None) else f"no {what.removesuffix(' =')}"
    return Finding(code, where, ok, shown, "" if ok else f"{what} {wanted}", "" if ok else fix)
