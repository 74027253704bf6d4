"""Packets from host to host, sent as the lab will send them, before there is a lab.

Every host makes a VTEP in a network namespace that ends with the program; its UDP socket is in the
host's own network, as that of flannel's device will be (the kernel keeps a VXLAN device's socket in
the namespace that the device was made from). Each asks all the others for their MACs by ARP, with
the kernel's retries. What was learned tells whose packets arrived, and from which address. Nothing
appears among the host's interfaces. An existing VXLAN device on the port is shared with: the VNI is
another one.

For etcd's port, a busybox listens on etcd's node while the others connect to it.
"""

from __future__ import annotations

import json
import shlex
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from itertools import chain

from vxlab.hostcheck.advice import open_lines
from vxlab.hostcheck.facts import Facts
from vxlab.hostcheck.finding import HostFinding, Question, some
from vxlab.hostcheck.needs import udp_port
from vxlab.hostcheck.reading import FactsError
from vxlab.lab import Lab, Node

#: Hosts on either side of a host in the lab's order that it sends to: all of them in small labs.
SIDE = 8

#: Seconds for all of it. Hosts that reach each other are done after a fraction of one.
WINDOW = 2.0
_PAUSE = 0.02  # seconds between two tries

#: In the namespace of the try; 198.18.0.0/15 is for tests of networks (RFC 2544).
_FIRST = IPv4Address("198.18.0.1")

_DEVICE = "vxlabtry"

# The address comes last: from then on the others are answered, and they are asked at once. A host
# goes on answering for some tries after it has got all its answers.
_VTEP = """\
nsenter -t "$1" -n ip link add %(device)s netns $$ address %(mac)s type vxlan id %(vni)s \\
  dev %(nic)s local %(address)s dstport %(port)s || exit
p=/proc/sys/net/ipv4/neigh/%(device)s
echo %(pause_ms)s >$p/retrans_time_ms && echo %(tries)s >$p/ucast_solicit
ip link set %(device)s up || exit
printf 'fdb append 00:00:00:00:00:00 dev %(device)s dst %%s\\n' %(peers)s | bridge -batch -
{ echo 'addr add %(own)s/15 dev %(device)s'
  for w in %(neighbours)s; do
    echo "neigh replace ${w%%=*} lladdr ${w#*=} dev %(device)s nud probe"; done; } | ip -batch -
n=0; while [ $n -lt %(tries)s ] && sleep %(pause)s; do n=$((n + 1))
  [ "$(ip neigh show dev %(device)s nud reachable | grep -c .)" -lt %(count)s ] || break; done
sleep %(linger)s
echo '@@ fdb'; bridge -j fdb show dev %(device)s
ip link del %(device)s
"""

# `nc -ll` starts a program per connection, whose stderr is nc's own. The pipe tells of each.
# The client's `timeout` is for somebody else's server, which may never answer nor hang up.
_SERVE = """\
{ { %(busybox)s nc -ll -p %(port)s -e /bin/sh -c 'read -r n; echo %(token)s; echo "heard $n" >&2' \\
    2>&1 >/dev/null </dev/null & echo $!; sleep %(window)s & echo $!; wait $!; echo late; } |
{ read -r p; read -r q; n=0
  while [ $n -lt %(count)s ] && read -r w c; do
    case $w in heard) n=$((n + 1));; late) break;; esac; done
  kill $p $q; }; } 2>/dev/null
"""

_ASK = """\
t=; ! command -v timeout >/dev/null || t='timeout 2'
n=0; m=; r=failed; while [ $n -lt %(tries)s ]; do n=$((n + 1))
  m=$(echo %(name)s | $t %(busybox)s nc -w 1 %(address)s %(port)s 2>&1) && r=reached m= && break
  case $m in *refused*) sleep %(pause)s;; *'not found'*|*denied*) r=untried; break;;
    *) n=$((n + %(second)s));; esac; done
echo "@@ etcd $r $m"
"""

_PROGRAM = """\
export LC_ALL=C
{ %(udp)s; } 2>&1 </dev/null | { %(tcp)s
while IFS= read -r l; do printf '%%s\\n' "$l"; done; }
echo '@@ end'
"""


@dataclass(frozen=True, slots=True)
class Reach:
    """What one host heard of the others."""

    heard: Mapping[str, str] = field(default_factory=dict)  # MAC -> outer source address
    refusal: str = ""  # why it could not be tried
    etcd: str | None = None  # why etcd's port was not reached; empty: it was; None: not tried


def reach_program(
    lab: Lab, node: Node, busybox: str, token: str, *, serve: bool = True, window: float = WINDOW
) -> str:
    """The shell program that sends to the other hosts and tells what came from them.

    It has to run on all hosts at the same time, each in a thread of its own, and leaves nothing.

    Args:
        lab: the located lab: every node has its NIC and address.
        node: the host.
        busybox: the static busybox's path on the hosts.
        token: something of this run's own, the same on all hosts.
        serve: listen at etcd's port on etcd's node; False if the lab's etcd does already.
        window: seconds after which those that did not answer count as out of reach.
    """
    return _PROGRAM % {
        "udp": _udp(lab, node, token, window) or ":",
        "tcp": _tcp(lab, node, shlex.quote(busybox), token, serve=serve, window=window),
    }


def peers(lab: Lab, node: Node) -> list[Node]:
    """The hosts that a host sends to over the overlay's port, and that send to it."""
    if udp_port(lab) is None:
        return []
    nodes = lab.nodes
    mine = nodes.index(node)
    near = {(mine + step) % len(nodes) for step in range(-SIDE, SIDE + 1)} - {mine}
    return [
        nodes[index]
        for index in sorted(near)
        # With DirectRouting nothing is encapsulated within a network.
        if not (lab.overlay.direct_routing and nodes[index].address.ip in node.address.network)
    ]


def _vni(lab: Lab, token: str) -> int:
    """A VNI of this run's own, so that nobody else's packets count."""
    vni = zlib.crc32(token.encode()) % 0xFFFFFE + 1
    return vni if vni != lab.overlay.vni else vni % 0xFFFFFE + 1


def _mac(lab: Lab, node: Node) -> str:
    number = lab.nodes.index(node)
    return f"02:76:78:00:{number >> 8:02x}:{number & 0xFF:02x}"


def _inner(lab: Lab, node: Node) -> IPv4Address:
    return _FIRST + lab.nodes.index(node)


def _udp(lab: Lab, node: Node, token: str, window: float) -> str:
    others = peers(lab, node)
    if not others:
        return ""
    script = _VTEP % {
        "device": _DEVICE,
        "mac": _mac(lab, node),
        "vni": _vni(lab, token),
        "nic": shlex.quote(lab.nic(node)),
        "address": node.address.ip,
        "port": udp_port(lab),
        "own": _inner(lab, node),
        "peers": " ".join(str(peer.address.ip) for peer in others),
        "neighbours": " ".join(f"{_inner(lab, p)}={_mac(lab, p)}" for p in others),
        "count": len(others),
        "tries": int(window / _PAUSE),
        "pause": _PAUSE,
        "pause_ms": int(_PAUSE * 1000),
        "linger": 3 * _PAUSE,
    }
    return f"unshare --net /bin/sh -c {shlex.quote(script)} sh $$"


def _tcp(lab: Lab, node: Node, busybox: str, token: str, *, serve: bool, window: float) -> str:
    words = {
        "busybox": busybox,
        "port": lab.etcd.port,
        "token": shlex.quote(token),
        "window": window,
        "count": len(lab.nodes) - 1,
        "name": node.name,
        "address": lab.etcd_node.address.ip,
        "tries": int(window / _PAUSE),
        "second": int(1 / _PAUSE),
        "pause": _PAUSE,
    }
    if node.name != lab.etcd.node:
        return _ASK % words
    return _SERVE % words if serve and len(lab.nodes) > 1 else ""


def parse_reach(output: str) -> Reach:
    """What a host heard, out of what `reach_program` printed there.

    Raises:
        FactsError: the output is incomplete or malformed.
    """
    lines = output.splitlines()
    if "@@ end" not in lines:
        raise FactsError("the output ends before the program did")
    etcd, rest, rows = None, [], None
    for index, line in enumerate(lines):
        if line.startswith("@@ etcd "):
            word, _, said = line.removeprefix("@@ etcd ").partition(" ")
            etcd = {"reached": "", "untried": None}.get(word, said or "no answer")
        elif line == "@@ fdb":
            rows = lines[index + 1]
            break
        elif not line.startswith("@@ "):
            rest.append(line)
    try:
        table = [row for row in json.loads(rows or "[]") if row]
        heard = {row["mac"]: row["dst"] for row in table if row.get("state") != "permanent"}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise FactsError(f"cannot read what the host heard: {error!r}") from error
    return Reach(heard, "" if rows is not None else "\n".join(rest).strip(), etcd)


def judge_reach(
    lab: Lab, facts: Mapping[str, Facts], reached: Mapping[str, Reach]
) -> list[HostFinding]:
    """Whether the hosts' packets arrive at each other, both ways, and at etcd.

    Args:
        lab: the located lab.
        facts: what the hosts are, for advice on their firewalls.
        reached: what each host heard; all of them at the same time.
    """
    heard = (_heard(lab, n, facts[n.name], reached) for n in lab.nodes if n.name in reached)
    return [*chain.from_iterable(heard), *_etcd(lab, facts, reached)]


def _heard(
    lab: Lab, node: Node, facts: Facts, reached: Mapping[str, Reach]
) -> Iterator[HostFinding]:
    others = [peer for peer in peers(lab, node) if peer.name in reached]
    if not others:
        return
    port = udp_port(lab)
    wanted = f"VXLAN packets to UDP port {port} arrive from every host"
    ask = Question(node.name, "reach-overlay", "Packets of the others", wanted)
    mine = reached[node.name]
    if mine.refusal:
        yield ask.odd(f"could not be tried: {mine.refusal}")
        return
    # A host that could not send says so itself.
    others = [peer for peer in others if not reached[peer.name].refusal]
    silent = [p for p in others if _mac(lab, p) not in mine.heard]
    moved = [p for p in others if mine.heard.get(_mac(lab, p)) not in (None, str(p.address.ip))]
    if silent:
        names = some(f"{p.name} ({p.address.ip})" for p in silent)
        lines = open_lines(facts, _sources(lab, node, silent), [f"{port}/udp"])
        yield ask.bad(
            f"nothing arrived at UDP port {port} from {names}: a firewall here or on the way",
            lines,
        )
    elif moved:
        seen = some(f"{p.name} from {mine.heard[_mac(lab, p)]}, not {p.address.ip}" for p in moved)
        todo = "flannel needs the hosts' own addresses: no NAT between them"
        yield ask.bad(f"packets arrive of {seen}: something translates addresses", todo)
    else:
        yield ask.good(f"from {len(others)} of {len(others)}" if others else "nobody could send")


def _etcd(
    lab: Lab, facts: Mapping[str, Facts], reached: Mapping[str, Reach]
) -> Iterator[HostFinding]:
    """One finding for all, on etcd's node: what keeps the others away is there, or before it."""
    server = lab.etcd_node
    asked = {
        n: reached[n.name].etcd or ""
        for n in lab.nodes
        if n.name in reached and reached[n.name].etcd is not None
    }
    if not asked:
        return
    wanted = f"TCP connections to {server.address.ip}:{lab.etcd.port} from every host"
    ask = Question(server.name, "reach-etcd", "Way to etcd", wanted)
    failed = [node for node, said in asked.items() if said]
    if not failed:
        yield ask.good(f"{len(asked)} of {len(asked)} reach it")
        return
    lines = open_lines(
        facts.get(server.name, Facts()), _sources(lab, server, failed), [f"{lab.etcd.port}/tcp"]
    )
    names = some(f"{node.name} ({node.address.ip})" for node in failed)
    yield ask.bad(f"not reached by {names}: {asked[failed[0]]}", lines)


def _sources(lab: Lab, node: Node, others: list[Node]) -> list[str]:
    """Where these hosts' packets come from: their network if all who share it are meant."""
    network = node.address.network
    if len(others) == len(lab.nodes) - 1 and all(n.address.ip in network for n in others):
        return [str(network)]
    return [str(n.address.ip) for n in others]
