"""Who else works on the host's network: flannel, etcd, Docker, Kubernetes, a firewall."""

from __future__ import annotations

from collections.abc import Iterator

from vxlab.hostcheck import advice
from vxlab.hostcheck.facts import Facts
from vxlab.hostcheck.finding import HostFinding, Question, some
from vxlab.hostcheck.needs import udp_port
from vxlab.hostcheck.underlay import Places
from vxlab.lab import Lab, Node

_FLANNEL = ("flanneld", "flannel")
_CONTAINERS = ("dockerd", "containerd", "crio")
_KUBERNETES = ("kubelet", "kube-proxy", "k3s", "rke2", "k0s")

#: What flannel puts into the packet filter (pkg/trafficmngr of flannel).
_CHAINS = ("FLANNEL-FWD", "FLANNEL-POSTRTG")
_TABLES = ("ip flannel-ipv4", "ip6 flannel-ipv6")

_REMOVE_CHAIN = (
    "sudo iptables -D FORWARD -m comment --comment 'flanneld forward' -j FLANNEL-FWD;"
    " sudo iptables -F FLANNEL-FWD; sudo iptables -X FLANNEL-FWD"
)


def flannel(node: Node, facts: Facts, owned: frozenset[str]) -> Iterator[HostFinding]:
    """Another flannel would use the same interface, file and firewall rules."""
    ask = Question(node.name, "flannel", "flannel", "no other one on this host")
    if "flannel" in owned:
        yield ask.good("the lab's own")
        return
    running = [f"{name} (PID {pid})" for pid, name in facts.processes.items() if name in _FLANNEL]
    chains = [f"the chain {name}" for name in _CHAINS if name in facts.chains]
    tables = [f"the table {name}" for name in _TABLES if name in facts.tables]
    if running:
        yield ask.bad(some(running), "stop it, or use hosts without flannel")
    elif chains or tables:
        lines = [_REMOVE_CHAIN] if "FLANNEL-FWD" in facts.chains else []
        lines += [f"sudo nft delete table {name}" for name in _TABLES if name in facts.tables]
        yield ask.bad(f"rules of an earlier flannel: {some([*chains, *tables])}", "\n".join(lines))
    else:
        yield ask.good("none")


def others(node: Node, facts: Facts, owned: frozenset[str]) -> Iterator[HostFinding]:
    """Docker, Kubernetes and other etcds get along with a lab, but their users should know."""
    names = facts.processes
    etcd = [f"etcd (PID {pid})" for pid, name in names.items() if name == "etcd"]
    ask = Question(node.name, "etcd", "etcd", "no other one on this host")
    if etcd and "etcd" not in owned:
        yield ask.odd(f"{some(etcd)} runs; the lab starts its own", "")
    else:
        yield ask.good("none but the lab's own" if "etcd" in owned else "none")
    ask = Question(node.name, "kubernetes", "Kubernetes", "not on this host")
    found = sorted({name for name in names.values() if name.startswith(_KUBERNETES)})
    if found:
        todo = "its pods' network must not overlap with overlay.network; rather take another host"
        yield ask.odd(f"{some(found)} runs", todo)
    else:
        yield ask.good("none")
    ask = Question(node.name, "docker", "Docker", "not on this host")
    found = sorted({name for name in names.values() if name in _CONTAINERS})
    if found:
        yield ask.odd(f"{some(found)} runs; it has rules of its own in the packet filter", "")
    else:
        yield ask.good("none")


def firewall(lab: Lab, node: Node, facts: Facts, where: Places) -> Iterator[HostFinding]:
    """A firewall has to let the outer packets in; flannel itself lets the inner ones through."""
    ask = Question(node.name, "forward-policy", "Policy of FORWARD", "ACCEPT, for the containers")
    policy = facts.chains.get("FORWARD", "")
    if policy == "DROP":
        seen = "DROP; flanneld sets it to ACCEPT when it starts, and teardown sets it back"
        yield ask.odd(
            seen, "while the lab is up, this host forwards what it did not forward before"
        )
    else:
        yield ask.good(policy or "ACCEPT (no rules at all)")
    ask = Question(node.name, "firewall", "Firewall", "lets the hosts' packets in")
    if not (advice.ufw(facts) or advice.firewalld(facts)):
        yield ask.good("neither firewalld nor ufw")
        return
    name = "ufw" if advice.ufw(facts) else "firewalld"
    port = udp_port(lab)
    wanted = [] if port is None else [f"{port}/udp"]
    if node.name == lab.etcd.node:
        wanted.append(f"{lab.etcd.port}/tcp")
    lines = advice.open_lines(facts, sources(node, where), wanted)
    yield ask.odd(f"{name} is active; it may drop {' and '.join(wanted) or 'packets'}", lines)


def sources(node: Node, where: Places) -> list[str]:
    """Where the other hosts' packets come from: their network if they share it, or each one."""
    mine = where.get(node.name)
    others = [p.address.ip for n, p in where.items() if n != node.name]
    if mine is not None and others and all(ip in mine.address.network for ip in others):
        return [str(mine.address.network)]
    return [str(ip) for ip in others]


def forwarding(node: Node, facts: Facts, owned: frozenset[str]) -> Iterator[HostFinding]:
    """Teardown gives the host's switch its value back."""
    ask = Question(node.name, "ip-forward", "net.ipv4.ip_forward", "1 while the lab is up")
    value = facts.sysctls.get("ip_forward", "unknown")
    # Of a lab that is up, the journal knows what was before.
    yield ask.good(f"{value} now" + ("" if owned else f"; it is {value} again after teardown"))
