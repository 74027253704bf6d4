"""Does every node's lease in etcd agree with subnet.env, the bridge and the containers?"""

from __future__ import annotations

from collections.abc import Iterator

from vxlab.checks.finding import Evidence, Finding
from vxlab.state import Link, State
from vxlab.steps import bridge
from vxlab.steps.address import container_address
from vxlab.steps.veth import INSIDE

CODE = "lease"


def answer(evidence: Evidence) -> Iterator[Finding]:
    for node in evidence.lab.nodes:
        state = evidence.states.get(node.name, State())
        wrong = list(_wrong(evidence, node.name, state))
        lease = evidence.lease_of(node.name)
        if wrong or lease is None:
            wanted = f"the lease {lease.subnet}" if lease else "a lease"
            yield Finding(CODE, node.name, False, "; ".join(wrong), wanted, "vxlab up")
        else:
            gateway = state.subnet_env.subnet.ip if state.subnet_env else ""
            addresses = ", ".join(str(container_address(c, state)) for c in node.containers)
            shown = f"{lease.subnet} = subnet.env; cbr0 {gateway}"
            yield Finding(CODE, node.name, True, f"{shown}; {addresses}" if addresses else shown)


def _wrong(evidence: Evidence, name: str, state: State) -> Iterator[str]:
    node = evidence.lab.node(name)
    lease = evidence.lease_of(name)
    if lease is None:
        yield f"no lease in etcd for {node.address.ip}"
        return
    if node.subnet is not None and lease.subnet != str(node.subnet):
        yield f"the lease is {lease.subnet}, pinned is {node.subnet}"
    env = state.subnet_env
    if env is None:
        yield "no subnet.env"
        return
    if str(env.subnet.network) != lease.subnet:
        yield f"subnet.env says {env.subnet.network}"
    if _addresses(state.net.links.get(bridge.NAME)) != (str(env.subnet),):
        seen = " ".join(_addresses(state.net.links.get(bridge.NAME))) or "no address"
        yield f"{bridge.NAME} has {seen}"
    for container in node.containers:
        wanted = str(container_address(container, state))
        inside = _addresses(state.net_of(container.name).links.get(INSIDE))
        if inside != (wanted,):
            yield f"{container.name} has {' '.join(inside) or 'no address'}, wanted {wanted}"


def _addresses(link: Link | None) -> tuple[str, ...]:
    return link.addresses if link else ()
