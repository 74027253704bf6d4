"""``vxlab quiz`` against a real lab: whoever looks in its tables gets ten of ten.

The answers come from `ip`, `bridge`, `ss`, `ps` and `ping` in the nodes, not from vxlab's states.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any

import pytest

from conftest import Vxlab, run
from lablib import LAB
from vxlab.quiz import ASKS

VXLAB = [sys.executable, "-m", "vxlab"]

needs_lab = [pytest.mark.kernel, *LAB]


def marked(test: Any) -> Any:
    for mark in needs_lab:
        test = mark(test)
    return test


def quiz(answers: str, *words: str) -> subprocess.CompletedProcess[str]:
    """vxlab quiz with its answers as lines."""
    return subprocess.run(
        [*VXLAB, "quiz", *words],
        input=answers,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def typed(place: str, *words: str) -> str:
    done = run("exec", place, "--", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def rows(node: str, *words: str) -> list[dict[str, Any]]:
    found = json.loads(typed(node, *words))
    assert isinstance(found, list)
    return [row for row in found if row]


# --- one who looks ------------------------------------------------------------------------------


class Learner:
    """Answers questions by typing commands in nodes and containers.

    Args:
        nodes: the lab's nodes.
    """

    def __init__(self, nodes: list[str]) -> None:
        self.nodes = nodes

    def link(self, node: str, name: str) -> dict[str, Any]:
        return rows(node, "ip", "-d", "-j", "link", "show", name)[0]

    def device(self, node: str) -> str:
        every = rows(node, "ip", "-d", "-j", "link", "show")
        kinds = {row["ifname"]: row.get("linkinfo", {}).get("info_kind") for row in every}
        return next((name for name, kind in kinds.items() if kind == "vxlan"), "")

    def route(self, node: str, target: str) -> dict[str, Any]:
        return rows(node, "ip", "-j", "route", "get", target)[0]

    def mac(self, node: str, hop: str, dev: str) -> str:
        (row,) = rows(node, "ip", "-j", "neigh", "show", hop, "dev", dev)
        return str(row["lladdr"])

    def behind(self, node: str, mac: str, dev: str) -> str:
        every = rows(node, "bridge", "-j", "fdb", "show", "dev", dev)
        return next(str(row["dst"]) for row in every if row["mac"] == mac and "dst" in row)

    def next_mac(self, node: str, target: str) -> str:
        route = self.route(node, target)
        return self.mac(node, route["gateway"], route["dev"])

    def tunnelled(self, node: str, target: str) -> bool:
        kind = self.link(node, self.route(node, target)["dev"]).get("linkinfo", {})
        return bool(kind.get("info_kind") == "vxlan")

    def mtu(self, container: str) -> int:
        found = re.search(r"mtu (\d+)", typed(container, "ip", "link", "show", "vethNS"))
        assert found is not None
        return int(found[1])

    def subnet(self, node: str) -> str:
        text = typed(node, "cat", "/var/run/flannel/subnet.env")
        pairs = dict(line.split("=", 1) for line in text.splitlines())
        return str(IPv4Interface(pairs["FLANNEL_SUBNET"]).network)

    def owner(self, address: str) -> str:
        return next(
            n for n in self.nodes if IPv4Address(address) in IPv4Interface(self.subnet(n)).network
        )

    def gone(self, text: str, choices: list[str]) -> str:
        """The line whose absence is described, as its command prints it now."""
        if "Network is unreachable" in text:
            (place,) = re.findall(r"In (\S+), `ping", text)
            return f"{place}, ip route: {typed(place, 'ip', 'route').splitlines()[0].strip()}"
        if "knows no interface" in text:
            ((node, target),) = re.findall(r": (\S+) gets a packet for (\S+) and", text)
            row = rows(node, "ip", "-j", "route", "show", "match", target)[-1]
            begin = f"{node}, ip route: {row['dst']} via {row['gateway']} dev {row['dev']}"
            (line,) = (c for c in choices if c.startswith(begin))
            return line
        if "knows no MAC" in text:
            ((node, target, dev),) = re.findall(
                r": (\S+) routes a packet for (\S+) to (\S+),", text
            )
            hop = self.route(node, target)["gateway"]
            shown = typed(node, "ip", "neigh", "show", hop, "dev", dev)
            return f"{node}, ip neigh: {shown.strip()}"
        ((node, mac, dev),) = re.findall(r": (\S+) has a frame for (\S+) on (\S+),", text)
        entries = typed(node, "bridge", "fdb", "show", "dev", dev).splitlines()
        return f"{node}, bridge fdb: {next(e for e in entries if e.startswith(mac)).strip()}"

    def port_of(self, node: str) -> str:
        return str(self.link(node, self.device(node))["linkinfo"]["info_data"]["port"])

    def socket(self, node: str) -> str:
        port = self.port_of(node)
        shown = typed(node, "ss", "-Hlunp", f"sport = :{port}")
        assert f":{port} " in shown
        return "no process: the kernel itself" if "users:" not in shown else shown

    def etcd(self) -> str:
        return next(n for n in self.nodes if "etcd --name" in typed(n, "ps", "-ef"))

    def plugged(self, node: str, choices: list[str]) -> str:
        ports = {r["ifname"] for r in rows(node, "ip", "-j", "link", "show", "master", "cbr0")}
        (port,) = set(choices) & ports
        return port

    def ttl(self, container: str, target: str) -> str:
        return str(re.findall(r"ttl=(\d+)", typed(container, "ping", "-c", "1", target))[0])

    def target_of(self, container: str) -> str:
        shown = typed(container, "ip", "addr", "show", "vethNS")
        return str(re.findall(r"inet (\d[\d.]*)/", shown)[0])

    def largest(self, container: str) -> str:
        return str(self.mtu(container) - 28)

    def answer(self, text: str, choices: list[str]) -> str:
        for pattern, solve in self.ways(text, choices).items():
            if found := re.search(pattern, text):
                return solve(*found.groups())
        raise AssertionError(f"nobody knows how to answer {text!r}")

    def ways(self, text: str, choices: list[str]) -> dict[str, Callable[..., str]]:
        """By a pattern of the question: what to type for it."""

        def said(part: str) -> str:
            (choice,) = (c for c in choices if part in c)
            return choice

        def wire(node: str, target: str, data: str) -> str:
            return str(int(data) + 28 + (50 if self.tunnelled(node, target) else 0))

        def why(outer: str, inner: str) -> str:
            return said({50: "(VXLAN)", 0: "nothing is put in front"}[int(outer) - int(inner)])

        def in_front(node: str, target: str) -> str:
            return said("50 bytes" if self.tunnelled(node, target) else "nothing")

        def wrote(node: str, hop: str, dev: str) -> str:
            shown = typed(node, "ip", "neigh", "show", hop, "dev", dev)
            return said("flanneld" if "PERMANENT" in shown else "ARP")

        def count(node: str, dev: str) -> str:
            every = rows(node, "bridge", "-j", "fdb", "show", "dev", dev)
            return str(sum("dst" in row for row in every))

        def hop(node: str, network: str) -> str:
            return str(rows(node, "ip", "-j", "route", "show", network)[0]["gateway"])

        def leaves(node: str, target: str) -> str:
            return str(self.route(node, target)["dev"])

        def outer(node: str, target: str) -> str:
            dev = self.route(node, target)["dev"]
            return self.behind(node, self.next_mac(node, target), dev)

        def gateway(container: str) -> str:
            return str(re.findall(r"default via (\S+)", typed(container, "ip", "route"))[0])

        return {
            r"neighbour entry of (\S+) on (\S+)'s (\S+) give": lambda h, n, d: self.mac(n, h, d),
            r"FDB of (\S+)'s (\S+) send frames for (\S+)\?": lambda n, d, m: self.behind(n, m, d),
            r"How many entries .* FDB of (\S+)'s (\S+) have": count,
            r"^(\S+)/\S+ pings (\S+)\. Which destination MAC": self.next_mac,
            r"Which MAC does (\S+)'s VTEP": lambda n: self.link(n, self.device(n))["address"],
            r"sends a packet to (\S+)\. To which node": self.owner,
            r"does (\S+)'s route to (\S+) have": hop,
            r"interface does (\S+) route a packet for (\S+)\?": lambda n, t: self.route(n, t)[
                "dev"
            ],
            r"^(\S+)/\S+ pings (\S+)\. Which destination address": outer,
            r"(\S+) knows the MAC of (\S+) on (\S+)\. Who told": wrote,
            r"Suppose one line were missing": lambda: self.gone(text, choices),
            r"What MTU does vethNS in (\S+) have": lambda c: str(self.mtu(c)),
            r"has an MTU of (\d+), vethNS in \S+ one of (\d+)": why,
            r"^(\S+)/\S+ pings (\S+) with `-s (\d+)`": wire,
            r"largest `ping -s` from (\S+) to": self.largest,
            r"a packet of (\d+) bytes from": lambda n: str(int(n) + 50),
            r"^(\S+)/\S+ sends an IP packet to (\S+)\. What comes": in_front,
            r"Which subnet did flannel give to (\S+)\?": self.subnet,
            r"Which gateway does (\S+) send": gateway,
            r"On which node does etcd run": self.etcd,
            r"port of cbr0 on (\S+) is": lambda n: self.plugged(n, choices),
            r"UDP port does (\S+) wait": self.port_of,
            r"Which VNI does (\S+)'s VTEP": lambda n: str(
                self.link(n, self.device(n))["linkinfo"]["info_data"]["id"]
            ),
            r"UDP port is open on (\S+)\. Which process": self.socket,
            r"had nothing but its address": lambda: "Network is unreachable",
            r"default route not yet": lambda: "its gateway only",
            r"^(\S+) answers a ping from (\S+);": lambda b, a: self.ttl(a, self.target_of(b)),
        }


def asked(output: str) -> list[tuple[str, list[str]]]:
    """The questions and their choices, as they were printed."""
    found: list[tuple[str, list[str]]] = []
    for line in output.splitlines():
        if question := re.match(r" ?\d+\. (.*)", line):
            found.append((question[1], []))
        elif choice := re.match(r"    [a-d]\) (.*)", line):
            found[-1][1].append(choice[1])
    return found


def looked_up(nodes: list[str], output: str) -> list[str]:
    learner = Learner(nodes)
    return [learner.answer(text, choices) for text, choices in asked(output)]


LABS = {
    "two": ("nodes: {node01: , node02: }", 2, range(5)),
    "three": ("nodes: {node01: {containers: 2}, node02: , node03: }", 3, range(3)),
    "host-gw": ("overlay: {backend: {Type: host-gw}}", 2, range(3)),
    "direct": ("overlay: {backend: {Type: vxlan, DirectRouting: true}}", 2, range(3)),
}


@marked
@pytest.mark.parametrize("name", LABS)
def test_who_looks_gets_ten_of_ten(vxlab: Vxlab, tmp_path: Path, name: str) -> None:
    """Every answer that the lab itself gives is right, for several seeds."""
    text, count, seeds = LABS[name]
    file = tmp_path / "lab.yaml"
    file.write_text(f"name: {name}\n{text}\n")
    assert vxlab("up", str(file)).returncode == 0
    nodes = [f"node{number:02}" for number in range(1, count + 1)]
    for seed in seeds:
        blank = quiz("\n" * 10, "--seed", str(seed))
        assert (blank.returncode, blank.stderr) == (1, "")
        assert "0 of 10 right" in blank.stdout
        answers = looked_up(nodes, blank.stdout)
        done = quiz("\n".join(answers) + "\n", "--seed", str(seed))
        assert [line for line in done.stdout.splitlines() if "FAILED" in line] == []
        assert (done.returncode, done.stderr) == (0, "")
        assert "10 of 10 right" in done.stdout


def test_every_kind_of_question_has_a_way_to_look_it_up() -> None:
    """A new kind of question needs a new way to check it against a lab."""
    assert len(Learner([]).ways("", [])) == len(ASKS)


# --- the command --------------------------------------------------------------------------------


def test_without_a_lab(vxlab: Vxlab) -> None:
    """Exit code 64; what to do about it."""
    done = quiz("")
    assert (done.returncode, done.stdout) == (64, "")
    assert "`vxlab up`" in done.stderr


@marked
def test_the_answers_of_a_pipe(vxlab: Vxlab) -> None:
    """They may end early; wrong bytes are a wrong answer; Ctrl-C leaves quietly."""
    assert vxlab("up").returncode == 0
    early = quiz("a\nb\n", "--seed", "1")
    assert (early.returncode, early.stderr) == (1, "")
    last = early.stdout.splitlines()[-1]
    assert re.fullmatch(r"the answers ended with 8 questions left; [012] of 2 right", last)
    assert "\x1b" not in early.stdout
    done = subprocess.run(
        [*VXLAB, "quiz"], input=b"\xff\xfe\n" * 10, capture_output=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (1, b"")
    assert b"0 of 10 right" in done.stdout
    stopped_by_ctrl_c()


def stopped_by_ctrl_c() -> None:
    with subprocess.Popen(
        [*VXLAB, "quiz", "--seed", "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if line.startswith(" 1. "):
                break
        # A signal just before a read that blocks is only seen after it: press once more then.
        for _ in range(3):
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
                break
        assert (process.poll(), process.stderr.read()) == (130, "")


@marked
def test_a_lab_that_is_half_built_has_too_little(vxlab: Vxlab) -> None:
    """It says so, and how to go on."""
    assert vxlab("up", "--to", "config").returncode == 0
    done = quiz("")
    assert (done.returncode, done.stdout) == (64, "")
    assert "`vxlab up talk` builds the rest" in done.stderr
