"""Real hosts behind SSH in a lab file: which nodes they are, and what has to be true of them.

Their underlay is not the lab's to choose. What the file leaves out, each host is asked later; here
only what the file says can be held against itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address

from msgspec import UNSET

from vxlab.lab import ANYWHERE, Overlay, Underlay
from vxlab.labfile import form as labform
from vxlab.labfile.problem import Findings, Path, quote

#: Real hosts of one lab. vxlab holds an SSH connection to each of them all the time.
MOST_HOSTS = 250

#: Addresses that no host on a network has.
NOT_UNICAST = tuple(IPv4Network(n) for n in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3"))

_NAMED = 3  # nodes that a message names before it only counts the others

Forms = Mapping[str, labform.NodeForm | None]


def remote(forms: Forms, findings: Findings) -> bool:
    """Whether the nodes are real hosts; where only some are, that is a problem.

    A node whose `ssh` is wrong counts as a real host, one that is wrong altogether as neither.
    """
    hosts: list[str] = []
    local: list[str] = []
    for name, form in forms.items():
        if _is_host(name, form, findings):
            hosts.append(name)
        elif findings.sound(("nodes", name)):
            local.append(name)
    if hosts and local:
        found = f"{_names(hosts)} with ssh and {_names(local)} without"
        hint = "nodes without ssh live in a world of their own that no host can reach"
        wanted = "ssh for all nodes, or for none"
        findings.add(("nodes",), found, wanted, hint, doubt=False)
    return bool(hosts)


def _is_host(name: str, form: labform.NodeForm | None, findings: Findings) -> bool:
    if form is not None and form.ssh is not UNSET:
        return True
    return findings.sound(("nodes", name)) and not findings.sound(("nodes", name, "ssh"))


def check_local(forms: Forms, etcd: labform.EtcdForm, findings: Findings) -> None:
    """Refuse what only real hosts have in a lab of nodes on this machine."""
    if etcd.insecure and findings.sound(*(("nodes", name) for name in forms)):
        hint = "a local lab's etcd speaks plain http already, as the talk's does"
        wanted = "insecure with real hosts only"
        findings.add(("etcd", "insecure"), "true, and no node has ssh", wanted, hint)
    for name, form in forms.items():
        path: Path = ("nodes", name, "interface")
        if form is None or form.interface is UNSET or not findings.sound(path):
            continue
        hint = "underlay.interface names the NIC of nodes on this machine"
        found = f"{quote(form.interface)}, and no ssh"
        wanted = "the interface of a real host, which has ssh too"
        findings.add(path, found, wanted, hint)


def addresses(
    forms: Forms, underlay: Underlay, overlay: Overlay, findings: Findings
) -> dict[str, IPv4Interface]:
    """The underlay addresses that the file has for its real hosts, once all it says was checked.

    An address without a prefix length is a /32: how long the prefix is, the host knows.
    """
    real = {n: f or labform.NodeForm() for n, f in forms.items() if _is_host(n, f, findings)}
    if len(real) > MOST_HOSTS:
        hint = "vxlab holds an SSH connection to each of them"
        wanted = f"at most {MOST_HOSTS}"
        findings.add(("nodes",), f"{len(real)} real hosts", wanted, hint, doubt=False)
        return {}
    machines: dict[tuple[str, str], str] = {}
    owners: dict[IPv4Address, str] = {}
    given: dict[str, IPv4Interface] = {}
    for name, form in real.items():
        _check_target(name, form, machines, findings)
        _check_told(name, form, underlay, findings)
        path: Path = ("nodes", name, "address")
        if form.address is not UNSET and findings.sound(path):
            _check_address(form.address, underlay.network, path, findings)
            _check_owner(form.address.ip, name, owners, findings)
            given[name] = form.address
    _check_overlap(given, overlay, findings)
    return given


def interface(form: labform.NodeForm, underlay: Underlay) -> str:
    """The host's NIC on the underlay, empty where the file leaves it to be found by its address."""
    if form.ssh is UNSET:
        return ""
    return underlay.interface if form.interface is UNSET else form.interface


def _check_overlap(
    given: Mapping[str, IPv4Interface], overlay: Overlay, findings: Findings
) -> None:
    """Hold the hosts' addresses against the containers' network, as one problem."""
    own: Path = ("overlay", "network")
    if not findings.sound(own, ("underlay", "network")):
        return
    inside = {
        name: address
        for name, address in given.items()
        if findings.sound(("nodes", name, "address")) and address.network.overlaps(overlay.network)
    }
    if not inside:
        return
    first, address = next(iter(inside.items()))
    shown = address.ip if address.network.prefixlen == 32 else address
    found = f"{overlay.network} for the overlay and {shown} for {_names(inside)}"
    if len(inside) > 1:
        found = f"{overlay.network} for the overlay, with {_names(inside)} in it"
    path = own if own in findings.lines else ("nodes", first, "address")
    hint = "a node could not tell its peers from containers"
    findings.add(path, found, "an overlay.network away from the hosts' addresses", hint)


def _check_target(
    name: str, form: labform.NodeForm, machines: dict[tuple[str, str], str], findings: Findings
) -> None:
    """Refuse an impossible host, and one that is another node already, whoever logs in there."""
    path: Path = ("nodes", name, "ssh")
    if form.ssh is UNSET or not findings.sound(path):
        return
    host, port = _split(form.ssh)
    bracketed = host.startswith("[")
    try:
        if bracketed:
            host = str(IPv6Address(host[1:-1]))
        elif "." in host and host.replace(".", "").isdecimal():
            host = str(IPv4Address(host))
    except ValueError:
        wanted = "an IPv6 address in the brackets" if bracketed else "an IPv4 address or a name"
        findings.add(path, quote(form.ssh), wanted, f"{host} is none")
        return
    machine = (host.lower(), port)
    if machine in machines:
        found = f"{quote(form.ssh)}, which is where {machines[machine]} is"
        findings.add(path, found, "a host of its own", "a machine can be one node only")
    machines.setdefault(machine, name)


def _split(target: str) -> tuple[str, str]:
    """Host and port of a target that fits the form; the default is OpenSSH's."""
    place = target.rpartition("@")[2]
    if place.startswith("["):
        host, _, port = place.partition("]")
        return f"{host}]", port.removeprefix(":") or "22"
    host, _, port = place.partition(":")
    return host, port or "22"


def _check_told(name: str, form: labform.NodeForm, underlay: Underlay, findings: Findings) -> None:
    paths: tuple[Path, ...] = tuple(("nodes", name, key) for key in ("address", "interface"))
    if underlay.interface or not findings.sound(*paths, ("underlay", "interface")):
        return
    if form.address is UNSET and form.interface is UNSET:
        hint = "say which address or interface carries the traffic between the hosts"
        found = "neither address nor interface"
        findings.add(("nodes", name), found, "one of them, or both", hint, doubt=False)


def _check_owner(
    ip: IPv4Address, name: str, owners: dict[IPv4Address, str], findings: Findings
) -> None:
    if ip in owners:
        found = f"{ip}, which {owners[ip]} has too"
        findings.add(("nodes", name, "address"), found, "an address of its own")
    owners.setdefault(ip, name)


def _check_address(
    address: IPv4Interface, network: IPv4Network, path: Path, findings: Findings
) -> None:
    ip, own = address.ip, address.network
    ends = (own.network_address, own.broadcast_address) if own.prefixlen < 31 else ()
    reserved = next((other for other in NOT_UNICAST if ip in other), None)
    if reserved is not None:
        hint = f"{reserved} is not for hosts on a network"
        findings.add(path, str(ip), "the address that the other hosts reach it at", hint)
    elif network != ANYWHERE and ip not in network:
        findings.add(path, str(ip), f"an address in underlay.network, {network}")
    elif ip in ends:
        kind = "network" if ip == own.network_address else "broadcast"
        findings.add(path, f"{ip}, the {kind} address of {own}", "a host's address")


def _names(names: Iterable[str]) -> str:
    """A few names, and how many more there are."""
    every = [name if name.isprintable() and len(name) <= 40 else quote(name) for name in names]
    shown = every[:_NAMED]
    if len(every) > len(shown):
        shown.append(f"{len(every) - len(shown)} more")
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))
