"""Which interface of a host carries the outer packets, and whether it can.

The lab file names an address, an interface, or both. What it leaves out, the host tells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface

from vxlab import mtu
from vxlab.hostcheck.facts import Facts, Nic
from vxlab.hostcheck.finding import HostFinding, Question, some
from vxlab.lab import ANYWHERE, UNKNOWN, Lab, Node
from vxlab.labfile.resolve import LEAST_IPV6_MTU, LEAST_MTU


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node is on the underlay: its NIC, and the address there with its real prefix."""

    nic: Nic
    address: IPv4Interface


Everyone = Mapping[str, Facts]
Places = Mapping[str, Place]


def place(lab: Lab, node: Node, facts: Facts) -> Place | str:
    """Where the node is on the underlay, or why nobody can tell."""
    name = lab.nic(node)
    known = node.address.ip if node.address != UNKNOWN else None
    if name:
        if name not in facts.nics:
            return f"there is no interface {name}"
        return _on(lab, facts.nics[name], known)
    if known is None:
        return "the lab file names neither address nor interface"
    holders = facts.holders(known)
    return _on(lab, holders[0], known) if holders else f"no interface has the address {known}"


def _on(lab: Lab, nic: Nic, known: IPv4Address | None) -> Place | str:
    """The node's place on this interface; of several addresses, the first in the underlay."""
    network = lab.underlay.network
    fitting = [
        address
        for address in nic.addresses
        if (address.ip == known if known else network == ANYWHERE or address.ip in network)
    ]
    if fitting:
        return Place(nic, fitting[0])
    if known:
        return f"{nic.name} does not have the address {known}"
    return f"{nic.name} has no IPv4 address" + ("" if network == ANYWHERE else f" in {network}")


def places(lab: Lab, everyone: Everyone) -> dict[str, Place]:
    """Where all nodes are, as far as that can be told."""
    found = ((n.name, place(lab, n, everyone[n.name])) for n in lab.nodes if n.name in everyone)
    return {name: where for name, where in found if isinstance(where, Place)}


def located(lab: Lab, facts: Everyone) -> Lab:
    """The lab with what only its hosts know: each NIC and prefix length, and the underlay's MTU.

    A node that cannot be found on its host stays as it is; `judge` says why.
    """
    where = places(lab, facts)
    nodes = tuple(
        replace(n, interface=where[n.name].nic.name, address=where[n.name].address)
        if n.name in where
        else n
        for n in lab.nodes
    )
    size = lab.underlay.mtu or min((w.nic.mtu for w in where.values()), default=0)
    return replace(lab, nodes=nodes, underlay=replace(lab.underlay, mtu=size))


# --- one host -----------------------------------------------------------------------------------


def interface(lab: Lab, node: Node, facts: Facts) -> Iterator[HostFinding]:
    """The NIC is there, is up, and has the node's address."""
    ask = Question(node.name, "underlay-interface", "Underlay interface", _told(lab, node))
    where = place(lab, node, facts)
    if isinstance(where, str):
        todo = f"say in the lab file which of these it is: {_addresses(facts)}"
        yield ask.bad(where, todo)
        return
    nic, address = where.nic, where.address
    if nic.name == "lo" or address.is_loopback:
        yield ask.bad(f"{address} on {nic.name} leads to no other host", _addresses(facts))
    elif not nic.up:
        yield ask.bad(f"{nic.name} is down", f"sudo ip link set {nic.name} up")
    elif not nic.carrier:
        yield ask.bad(f"{nic.name} has no carrier", "plug it in, or look at the virtual network")
    else:
        yield ask.good(f"{nic.name} {address}, MTU {nic.mtu}")


def _told(lab: Lab, node: Node) -> str:
    address = "" if node.address == UNKNOWN else str(node.address.ip)
    return " on ".join(filter(None, (address or "an address", lab.nic(node)))) + ", up"


def _addresses(facts: Facts) -> str:
    """Where the host's addresses are; those of containers' bridges are of no use here."""
    rows = [
        f"{nic.name} {' '.join(map(str, nic.addresses))}"
        for nic in facts.nics.values()
        if nic.addresses and nic.name != "lo"
    ]
    return some(rows) or "no interface has an address"


# --- all hosts together ---------------------------------------------------------------------------


def doubles(lab: Lab, everyone: Everyone, where: Places) -> Iterator[HostFinding]:
    """An address that two hosts have leads to neither: every Vagrant box has 10.0.2.15."""
    owners: dict[IPv4Address, list[str]] = {}
    for name in (n.name for n in lab.nodes if n.name in everyone):
        for address in everyone[name].own():
            owners.setdefault(address, []).append(name)
    for name, mine in where.items():
        ask = Question(name, "underlay-double", "Address of its own", "one that no other host has")
        chosen = [a.ip for a in mine.nic.addresses]
        shared = [ip for ip in (mine.address.ip, *chosen) if len(owners.get(ip, ())) > 1]
        if shared:
            yield ask.bad(*_double(everyone[name], name, mine, shared[0], owners))
            continue
        yield ask.good(f"{mine.address.ip} on {mine.nic.name}")
        yield from _harmless(everyone[name], name, owners)


def _double(
    facts: Facts, name: str, mine: Place, ip: IPv4Address, owners: Mapping[IPv4Address, list[str]]
) -> tuple[str, str]:
    others = some(other for other in owners[ip] if other != name)
    seen = (
        f"{mine.nic.name} has {ip}, and so has {others}: it is not the network between the hosts,"
        " but one that each has for itself (as VirtualBox's and Vagrant's NAT)"
    )
    better = [
        f"{nic.name} {a}"
        for nic in facts.nics.values()
        for a in nic.addresses
        if nic.name not in ("lo", mine.nic.name) and len(owners.get(a.ip, ())) == 1
    ]
    if not better:
        return seen, "give the hosts a network in common, with an address of its own for each"
    return seen, f"name the interface or the address that leads to the others: {some(better)}"


def _harmless(
    facts: Facts, name: str, owners: Mapping[IPv4Address, list[str]]
) -> Iterator[HostFinding]:
    ways_out = {route.dev for route in facts.routes if route.dst == "default"}
    for nic in facts.nics.values():
        ip = next((a.ip for a in nic.addresses if len(owners.get(a.ip, ())) > 1), None)
        if ip is not None and nic.name in ways_out:
            wanted = "not to be the underlay interface"
            ask = Question(name, "nat-interface", "NAT interface", wanted)
            yield ask.good(f"{nic.name} {ip}, which other hosts have too; the lab does not use it")


def same_machines(lab: Lab, everyone: Everyone, where: Places) -> Iterator[HostFinding]:
    """One machine twice, or copies of one virtual machine that still pass for each other."""
    names = [n.name for n in lab.nodes if n.name in everyone]
    for name in names:
        mine = everyone[name]
        others = {other: everyone[other] for other in names if other != name}
        ask = Question(name, "twin", "A machine of its own", "no other host's identity")
        macs = _macs(mine)
        same = [o for o, f in others.items() if f.boot == mine.boot and macs and _macs(f) == macs]
        copies = [
            o
            for o, f in others.items()
            if f.boot != mine.boot and mine.machine_id and f.machine_id == mine.machine_id
        ]
        nics = [o for o in others if name in where and o in where and _same_mac(name, o, where)]
        if same:
            yield ask.bad(f"this is the same machine as {some(same)}", "a host for each node")
        elif nics:
            todo = "give each virtual NIC a MAC of its own, then start the machines again"
            mac = where[name].nic.mac
            yield ask.odd(f"{where[name].nic.name} has the MAC {mac}, as {some(nics)} has", todo)
        elif copies:
            todo = "rm /etc/machine-id; systemd-machine-id-setup   (DHCP may give both one address)"
            yield ask.odd(f"/etc/machine-id is that of {some(copies)}: copies of one image", todo)
        else:
            yield ask.good(f"boot {mine.boot}")


def _macs(facts: Facts) -> frozenset[str]:
    """The MACs of the host's own NICs; what software makes has random ones."""
    return frozenset(
        n.mac for n in facts.nics.values() if n.name != "lo" and n.kind in ("", "veth") and n.mac
    )


def _same_mac(name: str, other: str, where: Places) -> bool:
    mine, theirs = where[name], where[other]
    return mine.nic.mac == theirs.nic.mac and mine.address.network == theirs.address.network


def mtus(lab: Lab, where: Places) -> Iterator[HostFinding]:
    """One MTU for all, or the overlay's would differ from host to host.

    flannel takes its host's NIC's MTU unless its option MTU says which to take.
    """
    option = int(lab.overlay.backend.get("MTU", 0))
    sizes = Counter(place.nic.mtu for place in where.values())
    if not sizes:
        return
    # Of equally many, the smaller one: every NIC can go down to it.
    common = lab.underlay.mtu or max(sizes, key=lambda size: (sizes[size], -size))
    for name, mine in where.items():
        nic = mine.nic
        wanted = f"at least {option}" if option else f"{common}, as on all hosts"
        if not option and lab.underlay.mtu:
            wanted = f"{common}, as underlay.mtu says"
        ask = Question(name, "underlay-mtu", "Underlay MTU", wanted)
        if nic.mtu >= option if option else nic.mtu == common:
            yield ask.good(f"{nic.mtu} on {nic.name}")
            continue
        least = min(sizes)
        todo = f"sudo ip link set {nic.name} mtu {option or common}"
        if not option and lab.overlay.backend_type == "vxlan":
            todo += f"\nor in the lab file: overlay: {{backend: {{Type: vxlan, MTU: {least}}}}}"
        yield ask.bad(f"{nic.mtu} on {nic.name}", todo)
    base = option or (lab.underlay.mtu or min(sizes))
    yield from _overlay_mtu(lab, base, where)


def _overlay_mtu(lab: Lab, base: int, where: Places) -> Iterator[HostFinding]:
    """Hold what is left for containers against what IP needs, on the host with the least."""
    left = mtu.overlay_mtu(base, lab.overlay.backend_type)
    least = LEAST_IPV6_MTU if lab.ipv6 else LEAST_MTU
    if left < least:
        name = min(where, key=lambda each: where[each].nic.mtu)
        why = "RFC 8200 wants 1280 for IPv6" if lab.ipv6 else "RFC 791 wants 576 for IPv4"
        ask = Question(name, "overlay-mtu", "Overlay MTU", f"at least {least}: {why}")
        todo = f"an underlay with an MTU of {base - left + least} or more"
        yield ask.bad(f"{left}, which an underlay with {base} leaves", todo)
