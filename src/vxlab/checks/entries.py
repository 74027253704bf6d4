"""Does every node have, for each other node, the entries that etcd's leases call for?

The route says through which device, the neighbour entry gives the VTEP's MAC, the FDB entry gives
the node's address. All three must agree with what the other node registered in etcd.
"""

from __future__ import annotations

from collections.abc import Iterator

from vxlab.checks.finding import Evidence, Finding, Lease
from vxlab.lab import Lab, Node
from vxlab.state import State
from vxlab.steps import overlay

CODE = "entries"


def answer(evidence: Evidence) -> Iterator[Finding]:
    lab = evidence.lab
    for node in lab.nodes:
        state = evidence.states.get(node.name, State())
        wrong: list[str] = []
        shown: list[str] = []
        for peer in lab.nodes:
            if peer.name == node.name:
                continue
            lease = evidence.lease_of(peer.name)
            if lease is None:
                wrong.append(f"{peer.name} has no lease in etcd")
                continue
            bad, good = _for_peer(lab, node, state, peer, lease)
            wrong += bad
            shown.append(f"{peer.name}: {good}")
        if wrong:
            fix = "vxlab up (it starts flanneld again)"
            yield Finding(CODE, node.name, False, "; ".join(wrong), "as in etcd", fix)
        elif shown:
            yield Finding(CODE, node.name, True, _short(shown))


def _short(shown: list[str]) -> str:
    return "; ".join(shown) if len(shown) <= 3 else f"{shown[0]}; and {len(shown) - 1} more"


def _for_peer(
    lab: Lab, node: Node, state: State, peer: Node, lease: Lease
) -> tuple[list[str], str]:
    """What is wrong with the entries for one other node, and what is there."""
    address = str(peer.address.ip)
    if lab.overlay.backend_type == "udp":
        route = state.net.route(str(lab.overlay.network))
        bad = [] if route and route.dev == "flannel0" else [f"no route to {lab.overlay.network}"]
        return bad, f"{lab.overlay.network} dev flannel0"
    route = state.net.route(lease.subnet)
    if route is None:
        return [f"no route to {lease.subnet} ({peer.name})"], ""
    vtep = lease.subnet.partition("/")[0]
    encapsulated = overlay.encapsulated(lab)
    device = overlay.device(lab) if encapsulated else lab.nic(node)
    via = vtep if encapsulated else address
    good = f"{lease.subnet} via {route.via} dev {route.dev}"
    bad = []
    if (route.via, route.dev) != (via, device):
        bad.append(f"{good}, wanted via {via} dev {device} ({peer.name})")
    if not encapsulated:
        return bad, good
    neighbour = next((n for n in state.net.neighbours if n.address == vtep), None)
    if neighbour is None or neighbour.dev != device:
        bad.append(f"no neighbour entry for {vtep} ({peer.name})")
    elif (neighbour.mac, neighbour.state) != (lease.vtep_mac, "PERMANENT"):
        seen = f"{neighbour.mac} {neighbour.state}"
        bad.append(f"{vtep} is at {seen}, wanted {lease.vtep_mac} PERMANENT ({peer.name})")
    dsts = {f.dst for f in state.net.fdb if f.mac == lease.vtep_mac and f.dev == device}
    if dsts != {address}:
        seen = ", ".join(sorted(dsts)) or "nowhere"
        bad.append(f"the FDB sends {lease.vtep_mac} to {seen}, wanted {address} ({peer.name})")
    return bad, f"{good}, {vtep} is at {lease.vtep_mac}, FDB -> {address}"
