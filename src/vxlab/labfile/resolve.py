"""From the lab file's form to a `Lab`: what each value must have to do with the others.

flannel, etcd and the kernel would find out too, but late, one at a time and in their own words.
The rules for subnets are flannel's (``CheckNetworkConfig`` in its pkg/subnet/config.go).
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import msgspec
from msgspec import UNSET

from vxlab import mtu
from vxlab.lab import (
    ANYWHERE,
    FIRST_CONTAINER_HOST,
    UNKNOWN,
    Container,
    Etcd,
    Lab,
    Node,
    Overlay,
    Underlay,
)
from vxlab.labfile import form as labform
from vxlab.labfile import hosts
from vxlab.labfile.problem import Findings, Path, closest, quote

#: A node at position N has the underlay address .20+N, as node01 and node02 of the talk have.
FIRST_NODE_HOST = 21

#: Every IPv4 host takes packets of this many bytes (RFC 791), every IPv6 link carries so many
#: (RFC 8200); below it Linux switches IPv6 off on the interface.
LEAST_MTU = 576
LEAST_IPV6_MTU = 1280

#: Containers of a whole lab, each with a process and a veth pair. The stored lab, which spells out
#: every name, has to stay within what `vxlab.labfile` and `vxlab.labfile.tree` read.
MOST_CONTAINERS = 10_000

_LONGEST_INTERFACE = 15  # bytes, IFNAMSIZ without the final NUL


def resolve(form: labform.LabForm, findings: Findings) -> Lab | None:
    """The lab that the form describes, with every default filled in.

    Args:
        form: what the user wrote.
        findings: what was wrong with it so far; more is added here.
    Returns:
        The lab, or None when anything is wrong with it.
    """
    underlay_form = form.underlay or labform.UnderlayForm()
    overlay_form = form.overlay or labform.OverlayForm()
    node_forms = form.nodes or {"node01": None, "node02": None}
    etcd_form = form.etcd or labform.EtcdForm()
    remote = hosts.remote(node_forms, findings)
    underlay = _underlay(underlay_form, remote, findings)
    overlay = _overlay(overlay_form, findings)
    _check_overlap(underlay, overlay, findings)
    _check_mtu(underlay, overlay, form.ipv6, findings)
    if remote:
        addresses = hosts.addresses(node_forms, underlay, overlay, findings)
    else:
        hosts.check_local(node_forms, etcd_form, findings)
        addresses = _addresses(node_forms, underlay.network, findings)
    nodes = _nodes(node_forms, addresses, underlay, findings)
    _check_subnets(nodes, overlay, findings)
    etcd = _etcd(etcd_form, tuple(node_forms), findings)
    if findings.problems:
        return None
    return Lab(form.name, underlay, overlay, etcd, nodes, form.ipv6, findings.source)


def _underlay(form: labform.UnderlayForm, remote: bool, findings: Findings) -> Underlay:
    network = ANYWHERE if remote else labform.UNDERLAY_NETWORK
    path: Path = ("underlay", "network")
    if form.network is not UNSET:
        network = form.network
        _check_unicast(network, path, findings)
    if network.prefixlen > 30 and not remote:
        findings.add(path, str(network), "a network with room for nodes, at most a /30")
    # What a real host has, it is asked; vxlab does not change it.
    default_mtu, default_interface = (0, "") if remote else (labform.MTU, labform.INTERFACE)
    size = default_mtu if form.mtu is UNSET else form.mtu
    interface = default_interface if form.interface is UNSET else form.interface
    return Underlay(network, size, interface)


def _overlay(form: labform.OverlayForm, findings: Findings) -> Overlay:
    network = labform.OVERLAY_NETWORK if form.network is UNSET else form.network
    _check_unicast(network, ("overlay", "network"), findings)
    if network.prefixlen > 28:
        wanted = "at most a /28, for flannel to cut into four subnets"
        findings.add(("overlay", "network"), str(network), wanted)
    # flannel's own defaults: /24 where the network holds four of them, else a quarter of it.
    length = 24 if network.prefixlen <= 22 else min(network.prefixlen + 2, 30)
    if form.subnet_length is not UNSET:
        length = form.subnet_length
        _check_subnet_length(length, network, findings)
    lowest = None if form.subnet_min is UNSET else form.subnet_min
    highest = None if form.subnet_max is UNSET else form.subnet_max
    overlay = Overlay(network, length, _backend(form, findings), lowest, highest)
    _check_bounds(overlay, findings)
    return overlay


def _backend(form: labform.OverlayForm, findings: Findings) -> dict[str, str | int | bool]:
    """flannel's options as the user wrote them, in the user's order."""
    path: Path = ("overlay", "backend")
    options: dict[str, str | int | bool] = msgspec.to_builtins(form.backend or labform.VxlanForm())
    vni = options.get("VNI", 1)
    interface = f"flannel.{vni}"
    if len(interface) > _LONGEST_INTERFACE:
        hint = f"flannel's interface would be {interface}, and Linux allows 15 characters"
        findings.add((*path, "VNI"), str(vni), "at most 9999999", hint)
    written = findings.written(path)
    order = written if "Type" in written else ("Type", *written)
    return {key: options[key] for key in order if key in options}


def _check_unicast(network: IPv4Network, path: Path, findings: Findings) -> None:
    for other in hosts.NOT_UNICAST:
        if network.overlaps(other) and findings.sound(path):
            hint = f"{other} is not for hosts"
            findings.add(path, str(network), "a network of unicast addresses", hint)


def _check_subnet_length(length: int, network: IPv4Network, findings: Findings) -> None:
    if not findings.sound(("overlay", "network"), ("overlay", "subnet_length")):
        return
    if length < network.prefixlen + 2:
        wanted = f"{network.prefixlen + 2} to 30"
        hint = f"flannel wants room for four subnets in {network}"
        findings.add(("overlay", "subnet_length"), str(length), wanted, hint)


def _check_bounds(overlay: Overlay, findings: Findings) -> None:
    if not findings.sound(("overlay", "network"), ("overlay", "subnet_length")):
        return
    bounds = {"subnet_min": overlay.subnet_min, "subnet_max": overlay.subnet_max}
    for key, bound in bounds.items():
        path: Path = ("overlay", key)
        if bound is None or not findings.sound(path):
            continue
        start = IPv4Network((bound, overlay.subnet_length), strict=False).network_address
        if bound not in overlay.network:
            findings.add(path, str(bound), f"an address in {overlay.network}")
        elif bound != start:
            wanted = f"the first address of a /{overlay.subnet_length} subnet"
            findings.add(path, str(bound), wanted, f"such as {start}")
    subnets = _subnets(overlay)
    paths: list[Path] = [("overlay", key) for key in bounds]
    if not subnets and findings.sound(*paths):
        key = "subnet_min" if overlay.subnet_max is None else "subnet_max"
        found = f"{_dotted(subnets.start)} to {_dotted(subnets.stop - subnets.step)}"
        findings.add(("overlay", key), found, "subnet_min no higher than subnet_max")


def _subnets(overlay: Overlay) -> range:
    """The first address of every subnet that flannel may hand out, as numbers.

    flannel leaves out the network's first subnet, whose first address is the network's own.
    """
    size = 2 ** (32 - overlay.subnet_length)
    first = int(overlay.subnet_min or int(overlay.network.network_address) + size)
    last = int(overlay.subnet_max or int(overlay.network.broadcast_address) + 1 - size)
    return range(first, last + size, size)


def _dotted(number: int) -> str:
    return str(IPv4Address(number))


def _check_overlap(underlay: Underlay, overlay: Overlay, findings: Findings) -> None:
    paths: tuple[Path, Path] = ("overlay", "network"), ("underlay", "network")
    if underlay.network == ANYWHERE or not findings.sound(*paths):
        return
    if overlay.network.overlaps(underlay.network):
        own = paths[0] if paths[0] in findings.lines else paths[1]
        hint = "a node could not tell its peers from containers"
        found = f"{overlay.network} for the overlay and {underlay.network} for the underlay"
        findings.add(own, found, "networks that do not overlap", hint)


def _check_mtu(underlay: Underlay, overlay: Overlay, ipv6: bool, findings: Findings) -> None:
    """Hold the MTU that is left for containers against what IP needs."""
    own: Path = ("overlay", "backend", "MTU")
    below: Path = ("underlay", "mtu")
    configured = overlay.backend.get("MTU")
    unknown = configured is None and underlay.mtu == 0
    if unknown or not findings.sound(own, below, ("ipv6",)):
        return
    if configured is not None and underlay.mtu and int(configured) > underlay.mtu:
        # The kernel would cut flannel.1 down in silence, and subnet.env would tell another MTU.
        hint = "flannel takes the underlay's MTU here and subtracts 50 itself"
        findings.add(own, str(configured), f"at most the underlay's {underlay.mtu}", hint)
        return
    base = underlay.mtu if configured is None else int(configured)
    left = mtu.overlay_mtu(base, str(overlay.backend["Type"]))
    least = LEAST_IPV6_MTU if ipv6 else LEAST_MTU
    if left < least:
        why = "and RFC 8200 wants 1280 for IPv6" if ipv6 else "and RFC 791 wants 576 for IPv4"
        path = below if configured is None else own
        hint = f"{left} bytes would be left for the overlay, {why}"
        findings.add(path, str(base), f"at least {base - left + least}", hint)


def _etcd(form: labform.EtcdForm, nodes: tuple[str, ...], findings: Findings) -> Etcd:
    node = nodes[0] if form.node is UNSET else form.node
    if node not in nodes and findings.sound(("nodes",), ("etcd", "node")):
        meant = closest(node, nodes)
        hint = f"did you mean {meant}?" if meant else ""
        findings.add(("etcd", "node"), quote(node), "the name of a node", hint)
    least = 5 * form.heartbeat_interval
    timers: tuple[Path, Path] = ("etcd", "heartbeat_interval"), ("etcd", "election_timeout")
    if form.election_timeout < least and findings.sound(*timers):
        wanted = f"at least {least}"
        own = timers[1] if timers[1] in findings.lines else timers[0]
        found = f"an election timeout of {form.election_timeout} ms"
        findings.add(own, found, wanted, "etcd insists on five heartbeat intervals")
    return Etcd(
        node, form.port, form.heartbeat_interval, form.election_timeout, insecure=form.insecure
    )


def _nodes(
    forms: Mapping[str, labform.NodeForm | None],
    addresses: Mapping[str, IPv4Interface],
    underlay: Underlay,
    findings: Findings,
) -> tuple[Node, ...]:
    wishes = [form.containers for form in forms.values() if form is not None]
    total = sum(wish if isinstance(wish, int) else len(wish) for wish in wishes)
    if total > MOST_CONTAINERS:
        if findings.sound(("nodes",)):
            wanted = f"at most {MOST_CONTAINERS} in a lab"
            findings.add(("nodes",), f"{total} containers", wanted)
        return ()
    nodes = []
    for position, (name, given) in enumerate(forms.items(), 1):
        form = given or labform.NodeForm()
        names = form.containers
        if isinstance(names, int):
            first = f"container{position:02d}"
            names = [first if n == 1 else f"{first}-{n}" for n in range(1, names + 1)]
        _check_names(name, names, forms, findings)
        containers = tuple(_container(own, name, index) for index, own in enumerate(names))
        subnet = None if form.subnet is UNSET else form.subnet
        address = addresses.get(name, UNKNOWN)
        ssh = "" if form.ssh is UNSET else form.ssh
        nic = hosts.interface(form, underlay)
        nodes.append(Node(name, address, containers, subnet, ssh, nic))
    return tuple(nodes)


def _container(name: str, node: str, index: int) -> Container:
    veth = "vethlocal" if index == 0 else f"vethlocal{index + 1}"
    return Container(name, node, FIRST_CONTAINER_HOST + index, veth)


def _check_names(
    node: str, names: list[str], nodes: Mapping[str, object], findings: Findings
) -> None:
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        path: Path = ("nodes", node, "containers", index)
        if not findings.sound(path):
            continue
        if name in first:
            found = f"{quote(name)}, which is also the name of containers[{first[name]}]"
            findings.add(path, found, "a name of its own in its node")
        elif name in nodes:
            findings.add(path, f"{quote(name)}, a node's name", "a name that no node has")
        first.setdefault(name, index)


def _addresses(
    forms: Mapping[str, labform.NodeForm | None], network: IPv4Network, findings: Findings
) -> dict[str, IPv4Interface]:
    """Every node's underlay address; those that the file leaves out are the next free ones."""
    addresses: dict[str, IPv4Interface] = {}
    if not findings.sound(("underlay", "network")):
        return addresses
    owners: dict[IPv4Address, str] = {}
    for name, form in forms.items():
        path: Path = ("nodes", name, "address")
        if form is None or form.address is UNSET or not findings.sound(path):
            continue
        ip = form.address.ip
        if ip in owners:
            found = f"{ip}, which {owners[ip]} has too"
            findings.add(path, found, "an address of its own")
        owners.setdefault(ip, name)
        _check_address(form.address, network, path, findings)
        addresses[name] = IPv4Interface((ip, network.prefixlen))
    for position, (name, form) in enumerate(forms.items()):
        if form is not None and form.address is not UNSET:
            continue
        free = _next_free(network, FIRST_NODE_HOST + position, owners)
        if free is None:
            hint = "widen underlay.network"
            found = f"no address left in {network}"
            findings.add(("nodes", name), found, "an address for every node", hint)
            break
        owners[free] = name
        addresses[name] = IPv4Interface((free, network.prefixlen))
    return addresses


def _check_address(
    address: IPv4Interface, network: IPv4Network, path: Path, findings: Findings
) -> None:
    ip = address.ip
    if ip not in network:
        findings.add(path, str(ip), f"an address in underlay.network, {network}")
    elif ip in (network.network_address, network.broadcast_address):
        kind = "network" if ip == network.network_address else "broadcast"
        findings.add(path, f"{ip}, the {kind} address of {network}", "a host's address")
    elif address.network.prefixlen not in (32, network.prefixlen):  # /32: none was given
        wanted = f"/{network.prefixlen}, as underlay.network has, or no prefix length"
        findings.add(path, str(address), wanted)


def _next_free(
    network: IPv4Network, start: int, owners: Mapping[IPv4Address, str]
) -> IPv4Address | None:
    """The first free address from host number `start` on, coming round to .1 at the end.

    In networks wider than a /24 it leaves out .0 and .255, which are valid there and look wrong.
    """
    hosts = network.num_addresses - 2
    for step in range(hosts):
        address = network[(start - 1 + step) % hosts + 1]
        odd = network.prefixlen < 24 and address.packed[-1] in (0, 255)
        if address not in owners and not odd:
            return address
    return None


def _check_subnets(nodes: tuple[Node, ...], overlay: Overlay, findings: Findings) -> None:
    keys = ("network", "subnet_length", "subnet_min", "subnet_max")
    if not findings.sound(*(("overlay", key) for key in keys)):
        return
    subnets = _subnets(overlay)
    if len(subnets) < len(nodes) and findings.sound(("nodes",)):
        hint = "flannel leaves out the first one; widen overlay.network or raise subnet_length"
        found = f"{len(nodes)} nodes and {len(subnets)} subnets for them"
        findings.add(("nodes",), found, f"at most {len(subnets)} nodes", hint)
    owners: dict[IPv4Network, str] = {}
    for node in nodes:
        if node.subnet is not None:
            _check_pinned(node.name, node.subnet, overlay, subnets, owners, findings)
    _check_room(nodes, overlay.subnet_length, findings)


def _check_pinned(
    name: str,
    subnet: IPv4Network,
    overlay: Overlay,
    subnets: range,
    owners: dict[IPv4Network, str],
    findings: Findings,
) -> None:
    path: Path = ("nodes", name, "subnet")
    if not findings.sound(path):
        return
    lowest, highest = _dotted(subnets[0]), _dotted(subnets[-1])
    if subnet.prefixlen != overlay.subnet_length:
        wanted = f"a /{overlay.subnet_length}, as overlay.subnet_length says"
        findings.add(path, str(subnet), wanted)
    elif int(subnet.network_address) not in subnets:
        wanted = f"a subnet from {lowest} to {highest}"
        findings.add(path, str(subnet), wanted, "flannel hands out no other")
    elif subnet in owners:
        found = f"{subnet}, which {owners[subnet]} has too"
        findings.add(path, found, "a subnet of its own")
    owners.setdefault(subnet, name)


def _check_room(nodes: tuple[Node, ...], length: int, findings: Findings) -> None:
    """Hold the containers against the host numbers of a subnet, from .10 to the last but one."""
    room = max(0, 2 ** (32 - length) - 1 - FIRST_CONTAINER_HOST)
    hint = f"the first container has host number {FIRST_CONTAINER_HOST}"
    if room == 0 and any(node.containers for node in nodes):
        findings.add(("overlay", "subnet_length"), str(length), "at most 28", hint)
        return
    for node in nodes:
        path: Path = ("nodes", node.name, "containers")
        if len(node.containers) > room and findings.sound(path):
            found = f"{len(node.containers)} containers"
            findings.add(path, found, f"at most {room} in a /{length} subnet", hint)
