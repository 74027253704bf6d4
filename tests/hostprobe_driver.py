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
from vxlab.engine.prober import Journey, Prober, carries, is_piece, outer
from vxlab.engine.remote_evidence import RemoteProber
from vxlab.engine.running import Running
from vxlab.engine.verify import _places, _ring  # the same questions as verify's
from vxlab.journal import LabDirectory
from vxlab.nodes.local import ENVIRONMENT, LocalNode, entering
from vxlab.nodes.remote import Login
from vxlab.packet import decode
from vxlab.sniff import Sniffer


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

    def stream(self, argv: Sequence[str], *, stdin: bool = False) -> hostprobe.Stream:
        assert stdin
        return Command([*entering(self.node.proc), *argv])


def answers(prober: Prober, running: Running, watch: str = "") -> dict[str, Any]:
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
    wires = prober.capture(journeys)
    return {
        "echoes": {f"{a} {b}": [e.ok, e.measured, e.error, e.ttl] for (a, b), e in echoes.items()},
        "edges": [[e.state.value, e.stated_mtu, e.stated_by, e.reason] for e in edges],
        "wires": [
            {
                "whole": [
                    [p.overhead, p.outer_ip.total_length if p.outer_ip else 0]
                    for p in (outer(lab, frame) for frame in wire.frames)
                    if carries(lab, p, journey)
                ],
                "pieces": sum(is_piece(lab, outer(lab, f), journey) for f in wire.frames),
                "dropped": wire.dropped,
                "error": wire.error,
            }
            for journey, wire in zip(journeys, wires, strict=True)
        ],
        "packets": packets,
    }


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
    remote = answers(RemoteProber(running.site, hosts), running, watch="node01")
    local = answers(LocalProber(running), running)
    programs = {name: host.programs for name, host in hosts.items()}
    found = {"local": local, "remote": remote, "programs": programs}
    running.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
