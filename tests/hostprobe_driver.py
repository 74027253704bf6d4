"""Asks a local lab's nodes the way real hosts are asked, and the local way; prints both as JSON.

Usage: hostprobe_driver.py LAB. A node's shell sees the same files as a host's root shell would.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import IO, Any

from vxlab import hostprobe
from vxlab.engine.local_evidence import LocalProber
from vxlab.engine.prober import Journey, Prober
from vxlab.engine.remote_evidence import RemoteProber
from vxlab.engine.running import Running
from vxlab.engine.verify import _places, _ring  # the same questions as verify's
from vxlab.journal import LabDirectory
from vxlab.lab import Lab
from vxlab.nodes.local import ENVIRONMENT, LocalNode, entering
from vxlab.nodes.remote import Login
from vxlab.packet import ICMP, ICMP_ECHO, IPv4, Packet, decode
from vxlab.sniff import Sniffer
from vxlab.trace import hops
from vxlab.trace.local_lookout import LocalLookout
from vxlab.trace.lookout import Lookout, Order
from vxlab.trace.remote_lookout import RemoteLookout
from vxlab.trace.why import Place


class Command:
    """A command in a node, as a channel over SSH would be."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=ENVIRONMENT,
        )
        self.stdout: IO[bytes] = _there(self.process.stdout)
        self.stderr: IO[bytes] = _there(self.process.stderr)

    def end_input(self) -> None:
        _there(self.process.stdin).close()

    def close(self) -> None:
        self.process.wait()
        self.stdout.close()
        self.stderr.close()


def _there(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


class StandIn:
    """A node of a local lab in a real host's place."""

    def __init__(self, node: LocalNode) -> None:
        self.node, self.name, self.programs = node, node.name, 0

    def script(self, program: str) -> str:
        self.programs += 1
        completed = self.node.run(["sh", "-c", "exec 2>&1; exec sh -s"], stdin=program)
        return completed.out

    def lives(self, container: str) -> bool:
        raise NotImplementedError  # nobody asks before a probe is sent

    def stream(self, argv: Sequence[str], *, stdin: bool = False) -> hostprobe.Stream:
        assert stdin
        return Command([*entering(self.node.proc), *argv])


def answers(prober: Prober, lookout: Lookout, running: Running, watch: str = "") -> dict[str, Any]:
    """Everything that a prober finds out; `watch` is a node whose veth's packets are told."""
    lab = running.site.lab
    places = list(_places(lab, running.states()))
    echoes = prober.ping(places)
    journeys = list(_ring(places, echoes))
    tried = [j for j in journeys if j.answered]
    if watch and tried:
        packets, edges = _watched(prober, running, tried, watch)
    else:
        packets, edges = [], prober.edges(tried) if tried else []
    return {
        "echoes": {f"{a} {b}": [e.ok, e.measured, e.error, e.ttl] for (a, b), e in echoes.items()},
        "edges": [[e.state.value, e.stated_mtu, e.stated_by, e.reason] for e in edges],
        "hops": [_followed(lookout, lab, journey) for journey in journeys],
        "packets": packets,
    }


def _followed(lookout: Lookout, lab: Lab, journey: Journey) -> dict[str, list[Any]]:
    """The echo requests of a trace at every hop: direction, bytes of the inner and outer packet."""
    src, dst = journey.src, journey.dst
    order = Order(
        source=Place(src.container.node, src.container.name),
        src=src.address,
        dst=dst.address,
        protocol="icmp",
        port=0,
        size=1422,
        count=1,
        df=True,
        timeout=1.0,
        hops=tuple(hops.path(lab, src.container, dst.container)),
    )
    seen = {}
    for watched in lookout.follow(order, lambda words: None).watched:
        packets = [(f.direction, decode(f.data, vxlan_ports={8472})) for f in watched.frames]
        seen[str(watched.hop)] = [
            [direction, _length(packet.inner or packet), _length(packet)]
            for direction, packet in packets
            if (icmp := (packet.inner or packet).find(ICMP)) and icmp.type == ICMP_ECHO
        ] + [watched.dropped, watched.error]
    return seen


def _length(packet: Packet) -> int:
    ip = packet.find(IPv4)
    return ip.total_length if ip else 0


def _watched(
    prober: Prober, running: Running, journeys: Sequence[Journey], name: str
) -> tuple[list[Any], list[Any]]:
    """The packets that come out of a container while edges are probed: protocol, bytes, DF, MF."""
    node = running.nodes[name]
    assert isinstance(node, LocalNode)
    seen = []
    with Sniffer(f"{node.proc}/ns/net", "vethlocal") as sniffer:
        edges = prober.edges(journeys)
        while batch := sniffer.poll():
            for frame in batch:
                ip = decode(frame.data).outer_ip
                if frame.direction == "in" and ip is not None and hasattr(ip, "df"):
                    seen.append([ip.proto, ip.total_length, ip.df, ip.mf, ip.frag_offset])
    return seen, edges


def main(lab: str) -> None:
    running = Running.attach(LabDirectory(lab), Login(lambda question: None))
    nodes = {n: node for n, node in running.nodes.items() if isinstance(node, LocalNode)}
    hosts = {name: StandIn(node) for name, node in nodes.items()}
    # In this order: the kernel tells one sender of five refusals at once, then of one a second, and
    # the way of hosts needs more of them.
    site = running.site
    remote = answers(RemoteProber(site, hosts), RemoteLookout(site, hosts), running, watch="node01")
    local = answers(LocalProber(running), LocalLookout(running), running)
    programs = {name: host.programs for name, host in hosts.items()}
    found = {"local": local, "remote": remote, "programs": programs}
    running.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
