"""What is on a host already and is in the lab's way: ports, interfaces, files, other labs.

What is the lab's own, by the journal that the host keeps, is in nobody's way.
"""

from __future__ import annotations

from collections.abc import Iterator

from vxlab.hostcheck.facts import Facts, Nic, Socket
from vxlab.hostcheck.finding import HostFinding, Question, some
from vxlab.hostcheck.needs import CACHE, PEER_PORT, paths, udp_port
from vxlab.hostcheck.underlay import Places
from vxlab.lab import Lab, Node
from vxlab.steps import bridge, overlay
from vxlab.steps.tls import LABS

Owned = frozenset[str]


def ports(lab: Lab, node: Node, facts: Facts, where: Places, owned: Owned) -> Iterator[HostFinding]:
    """etcd's two TCP ports on its node, and the UDP port of the outer packets on all."""
    if node.name == lab.etcd.node:
        wanted = {"port-etcd": lab.etcd.port, "port-etcd-peer": PEER_PORT}
        for code, port in wanted.items():
            ask = Question(node.name, code, f"TCP port {port} (etcd)", "nobody listens there")
            busy = _listening(facts, "tcp", port, _bound(code, node, where))
            yield _port(ask, busy, own="etcd" in owned)
    udp = udp_port(lab)
    if udp is None:
        return
    ask = Question(node.name, "port-overlay", f"UDP port {udp} (overlay)", "free for flannel")
    busy = [s for s in _listening(facts, "udp", udp, _bound("", node, where)) if s.holder]
    if busy:
        yield _port(ask, busy, own="flannel" in owned)
    else:
        yield from _shared(ask, lab, facts, udp, owned)


def _bound(code: str, node: Node, where: Places) -> frozenset[str]:
    """The addresses that whoever takes the port for all, or for one of them, is in the way at."""
    loopback = frozenset({"127.0.0.1"})
    if code == "port-etcd-peer":
        return loopback
    own = {str(where[node.name].address.ip)} if node.name in where else set()
    return frozenset(own) if not code else loopback | own


def _listening(facts: Facts, protocol: str, port: int, addresses: frozenset[str]) -> list[Socket]:
    return [
        s
        for s in facts.sockets
        if s.protocol == protocol and s.port == port and s.address in {"*", *addresses}
    ]


def _port(ask: Question, busy: list[Socket], *, own: bool) -> HostFinding:
    if own or not busy:
        return ask.good("the lab's own" if busy else "free")
    holders = some(dict.fromkeys(s.holder or "the kernel" for s in busy))
    return ask.bad(f"taken by {holders}", "stop it, or choose another port in the lab file")


def _shared(
    ask: Question, lab: Lab, facts: Facts, port: int, owned: Owned
) -> Iterator[HostFinding]:
    """The kernel's own sockets: VXLAN devices share a port if their VNIs differ."""
    devices = [
        n for n in facts.nics.values() if n.vxlan and n.vxlan.port == port and n.name not in owned
    ]
    same = [n for n in devices if n.external or (n.vxlan and n.vxlan.vni == lab.overlay.vni)]
    if lab.overlay.backend_type == "udp":
        same = devices  # flanneld's own socket shares with nobody
    if same:
        todo = "another VNI or Port in the lab file's overlay.backend, or remove the device"
        yield ask.bad(f"taken by the VXLAN device {some(map(_vxlan, same))}", todo)
    elif devices:
        yield ask.odd(f"shared with the VXLAN device {some(map(_vxlan, devices))}")
    else:
        mine = any(n.vxlan and n.vxlan.port == port for n in facts.nics.values())
        yield ask.good("the lab's own" if mine else "free")


def _vxlan(nic: Nic) -> str:
    if nic.external or nic.vxlan is None:
        return f"{nic.name} (external)"
    return f"{nic.name} (VNI {nic.vxlan.vni})"


def interfaces(lab: Lab, node: Node, facts: Facts, owned: Owned) -> Iterator[HostFinding]:
    """The names that the lab gives to its interfaces."""
    names = [bridge.NAME, *filter(None, [overlay.device(lab)]), *(c.veth for c in node.containers)]
    ask = Question(node.name, "interfaces", "Interfaces of the lab", "none of them exists")
    there = [name for name in names if name in facts.nics and name not in owned]
    if not there:
        yield ask.good("none exists" if not owned else "none but the lab's own")
        return
    lines = [_interface_line(facts.nics[name]) for name in there]
    yield ask.bad(f"exist already: {', '.join(there)}", "\n".join(dict.fromkeys(lines)))


def _interface_line(nic: Nic) -> str:
    """Whose it is, as far as it tells."""
    if nic.alias.startswith("vxlab:"):
        return f"vxlab teardown {nic.alias.removeprefix('vxlab:')}"
    return f"sudo ip link delete {nic.name}   (if nobody needs it: vxlab does not know whose it is)"


def files(lab: Lab, node: Node, facts: Facts, owned: Owned) -> Iterator[HostFinding]:
    """The directories and logs that the lab makes, and takes away again."""
    ask = Question(node.name, "files", "Files of the lab", "none of them exists")
    names = [name for name in paths(lab, node) if name != CACHE]
    there = [name for name in names if name in facts.files and name not in owned]
    if there:
        todo = f"sudo mv {there[0]} {there[0]}.old   (or remove it, if nobody needs it)"
        yield ask.bad(f"exist already: {', '.join(there)}", todo)
    else:
        yield ask.good("none exists" if not owned else "none but the lab's own")


def labs(lab: Lab, node: Node, facts: Facts) -> Iterator[HostFinding]:
    """A host carries one lab: two would share cbr0, flannel's files and etcd's port."""
    ask = Question(node.name, "other-lab", "Labs on this host", f"none but {lab.name}")
    others = sorted(facts.labs - {lab.name})
    if others:
        todo = "\n".join(f"vxlab teardown {other}" for other in others)
        yield ask.bad(f"the lab {' and '.join(others)} ({LABS})", todo)
    else:
        yield ask.good(f"{lab.name} itself" if facts.labs else "none")
