"""Whether the hosts can reach each other, and whether the overlay's addresses are free."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

from vxlab.hostcheck.facts import Facts, network_of
from vxlab.hostcheck.finding import HostFinding, Question, some
from vxlab.hostcheck.underlay import Place, Places
from vxlab.lab import Lab, Node
from vxlab.state import Route


def ways(lab: Lab, node: Node, facts: Facts, where: Places) -> Iterator[HostFinding]:
    """Packets to the other hosts leave by the underlay interface; host-gw needs one network."""
    if node.name not in where:
        return
    mine = where[node.name]
    others = {n: p.address.ip for n, p in where.items() if n != node.name}
    ask = Question(
        node.name, "underlay-route", "Way to the other hosts", f"a route out of {mine.nic.name}"
    )
    routes = {name: facts.route_to(ip) for name, ip in others.items()}
    none = [f"{name} ({others[name]})" for name, route in routes.items() if route is None]
    astray = [(name, r) for name, r in routes.items() if r and r.dev != mine.nic.name]
    if none:
        yield ask.bad(f"no route to {some(none)}", "ip route   (are the addresses right?)")
    elif astray:
        yield _astray(ask, facts, mine, astray, others)
    else:
        yield ask.good(f"all of it out of {mine.nic.name}")
    if lab.overlay.backend_type == "host-gw":
        yield _one_network(node, mine, where)


def _astray(
    ask: Question,
    facts: Facts,
    mine: Place,
    astray: list[tuple[str, Route]],
    others: dict[str, IPv4Address],
) -> HostFinding:
    name, route = astray[0]
    nic = mine.nic.name
    # The kernel takes the stricter of an interface's own switch and that of all (ip-sysctl).
    switches = (f"conf/{each}/rp_filter" for each in ("all", nic))
    strict = max(int(facts.sysctls.get(key, "0")) for key in switches) == 1
    seen = f"packets to {name} ({others[name]}) leave by {route.dev}, not by {nic}"
    if strict:
        seen += f", and rp_filter=1 drops what comes in at {nic}"
    return ask.odd(seen, f"ip route get {others[name]}; the underlay may be another interface")


def _one_network(node: Node, mine: Place, where: Places) -> HostFinding:
    wanted = "all hosts in one network: host-gw routes to them without a router between"
    ask = Question(node.name, "underlay-network", "One network", wanted)
    away = [n for n, p in where.items() if p.address.ip not in mine.address.network]
    if away:
        todo = "overlay: {backend: {Type: vxlan}} in the lab file works through routers, too"
        return ask.bad(f"{some(away)} not in {mine.address.network}", todo)
    return ask.good(str(mine.address.network))


# --- the overlay's addresses ----------------------------------------------------------------------


def overlay(
    lab: Lab, node: Node, facts: Facts, where: Places, owned: frozenset[str]
) -> Iterator[HostFinding]:
    """Nothing on the host may use the containers' addresses already."""
    network = lab.overlay.network
    ask = Question(node.name, "overlay-network", "Overlay network", f"{network} is free here")
    taken = [
        f"{nic.name} has {address}"
        for nic in facts.nics.values()
        for address in nic.addresses
        if nic.name not in owned and address.network.overlaps(network)
    ]
    peers = {str(p.address.ip) for p in where.values()} if "flannel" in owned else set()
    inside: list[str] = []
    around: list[str] = []
    for route in facts.routes:
        # An interface's own route is told with its address.
        if route.dst == "default" or route.dev in owned or route.protocol == "kernel":
            continue
        target = network_of(route)
        if not target.overlaps(network) or route.via in peers:
            continue
        (inside if target.subnet_of(network) else around).append(_route(route))
    if taken or inside:
        todo = "another overlay.network in the lab file, such as 10.244.0.0/16"
        yield ask.bad(some([*taken, *(f"a route to {each}" for each in inside)]), todo)
    elif around:
        todo = "another overlay.network, if what lives there must stay in reach"
        yield ask.odd(f"a route to {some(around)} leads there by now", todo)
    else:
        yield ask.good("free")


def _route(route: Route) -> str:
    words = (route.dst, *(("via", route.via) if route.via else ()), "dev", route.dev)
    return " ".join(words)
