"""Asked as a real host is, with busybox and tcpdump, a node tells the same as asked locally."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lablib import LAB, Home, cleaned, leftovers

pytestmark = [
    *LAB,
    pytest.mark.skipif(bool(os.geteuid()), reason="tcpdump on a host is started by real root"),
]

C1, C2 = "node01/container01", "node02/container02"
DRIVER = Path(__file__).with_name("hostprobe_driver.py")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    home = Home(tmp_path_factory.mktemp("hostprobe") / "home")
    home.ok("up")
    yield home
    cleaned(home)
    assert leftovers(home.path) == []


@pytest.fixture
def lab(shared: Home) -> Iterator[Home]:
    """A lab that is whole before each test; `up` repairs what the test before damaged."""
    yield shared
    shared.ok("up")


def asked(home: Home) -> dict[str, Any]:
    """What both ways of asking find out."""
    python = replace(home, command=(sys.executable, str(DRIVER)))
    found: dict[str, Any] = json.loads(python.ok("talk"))
    return found


def agree(found: dict[str, Any], *, words: bool = True) -> None:
    """Both found the same, in the same words; and nothing was measured by one of them only."""
    local, remote = found["local"], found["remote"]
    assert set(local["echoes"]) == set(remote["echoes"])
    for pair, (ok, measured, error, ttl) in local["echoes"].items():
        told = remote["echoes"][pair]
        assert [ok, measured, ttl] == [told[0], told[1], told[3]], pair
        assert not words or "within" in error or error == told[2], pair
    assert [e[:3] for e in local["edges"]] == [e[:3] for e in remote["edges"]]
    assert local["hops"] == remote["hops"]


def test_a_lab_that_works_is_proven_to_work(lab: Home) -> None:
    """Pings over two hops, the exact edge, 50 bytes more on the wire; nothing got lost."""
    found = asked(lab)
    agree(found)
    remote = found["remote"]
    assert remote["echoes"] == {
        f"{C1} {C2}": [True, True, "", 62],
        f"{C2} {C1}": [True, True, "", 62],
        f"{C1} gateway": [True, True, "", 64],
        f"{C2} gateway": [True, True, "", 64],
    }
    assert remote["edges"] == [["passed", 1450, "", ""]] * 2
    plain, wrapped = [1450, 1450], [1450, 1500]
    assert remote["hops"][0] == {
        "node01/container01:vethNS": [["out", *plain], 0, ""],
        "node01:vethlocal": [["in", *plain], 0, ""],
        "node01:cbr0": [["in", *plain], 0, ""],
        "node01:flannel.1": [["out", *plain], 0, ""],
        "node01:eth0": [["out", *wrapped], 0, ""],
        "node02:eth0": [["in", *wrapped], 0, ""],
        "node02:flannel.1": [["in", *plain], 0, ""],
        "node02:cbr0": [["out", *plain], 0, ""],
        "node02:vethlocal": [["out", *plain], 0, ""],
        "node02/container02:vethNS": [["in", *plain], 0, ""],
    }


def test_one_program_per_node_and_question(lab: Home) -> None:
    """Pings, edges and a trace's probe: three programs, whatever the lab's size."""
    assert asked(lab)["programs"] == {"node01": 3, "node02": 3}


def test_packets_of_the_mtu_carry_the_dont_fragment_bit(lab: Home) -> None:
    """Seen where they come out of the container: 1450 bytes whole with DF, 1451 only in pieces."""
    seen = asked(lab)["remote"]["packets"]
    icmp, udp = 1, 17
    full = [p for p in seen if p[0] == icmp and p[1] == 1450]
    assert [icmp, 1450, True, False, 0] in full
    assert [p for p in seen if p[1] > 1450] == []
    sent = [p for p in seen if p[0] == udp]
    assert [p[2:4] for p in sent] == [[False, True], [False, False]]
    assert sum(p[1] - 20 for p in sent) + 20 == 1451


def test_a_container_without_a_route_says_so(lab: Home) -> None:
    """The kernel's own words, as in the talk; no edge is tried, nothing leaves the node."""
    lab.sh("node01/container01", "ip route del default")
    found = asked(lab)
    agree(found)
    assert found["remote"]["echoes"][f"{C1} {C2}"] == [
        False,
        True,
        "Network is unreachable",
        None,
    ]
    assert found["remote"]["hops"][0]["node01:eth0"] == [0, ""]


def test_a_routers_refusal_is_told_with_its_name(lab: Home) -> None:
    """busybox's ping does not tell it; its traceroute does.

    The other container keeps quiet: a kernel does not send one host more than a refusal or two a
    second, and those to its replies count.
    """
    lab.sh("node02/container02", "ip route del default")
    there = lab.sh("node02", ". /run/flannel/subnet.env; echo ${FLANNEL_SUBNET%.*}").strip()
    here = lab.sh("node01", ". /run/flannel/subnet.env; echo ${FLANNEL_SUBNET%/*}").strip()
    lab.sh("node01", f"ip route del {there}.0/24; ip route add unreachable {there}.0/24")
    try:
        found = asked(lab)
    finally:
        lab.sh("node01", f"ip route del unreachable {there}.0/24")
    agree(found)
    words = f"Destination Host Unreachable, says {here}"
    assert found["remote"]["echoes"][f"{C1} {C2}"] == [False, True, words, None]


def test_silence_is_no_answer(lab: Home) -> None:
    """Nobody says a word where packets are dropped."""
    lab.sh("node02", "sysctl -qw net.ipv4.ip_forward=0")
    found = asked(lab)
    agree(found)
    assert found["remote"]["echoes"][f"{C1} {C2}"][:2] == [False, True]
    # The request still leaves the node, and is seen leaving: that is where to look next.
    assert found["remote"]["hops"][0]["node01:eth0"] == [["out", 1450, 1500], 0, ""]


def test_a_container_that_is_gone_is_told(lab: Home) -> None:
    """Its PID may be a stranger's by now, so nothing is tried with it."""
    kill = "kill -9 $p; while [ -e /proc/$p ]; do sleep 0.01; done"
    lab.sh("node01", f"read -r p _ </run/vxlab/machines/container01; {kill}")
    found = asked(lab)
    agree(found, words=False)  # who waits longer hears the router say that nobody answers ARP
    gone = [False, True, f"{C1} does not run", None]
    assert found["remote"]["echoes"][f"{C1} {C2}"] == gone


@pytest.mark.parametrize(
    ("script", "edges"),
    [
        (
            "nsenter -n -t $p ip link set vethNS mtu 1400; ip link set vethlocal mtu 1400",
            [["failed", 1400], ["failed", 1400]],
        ),
        (
            "nsenter -n -t $p ip link set vethNS mtu 1500; ip link set vethlocal mtu 1500",
            [["passed", 1450], ["passed", 1450]],
        ),
        ("ip link set flannel.1 mtu 1440", [["failed", 1440], ["passed", 1450]]),
    ],
    ids=["a small veth", "a large veth", "a small VTEP"],
)
def test_a_wrong_mtu_gives_the_same_verdict(
    lab: Home, script: str, edges: list[list[object]]
) -> None:
    """Refused by the container's own kernel or by its router, in both cases with the MTU."""
    lab.sh("node01", f"read -r p _ </run/vxlab/machines/container01; {script}")
    found = asked(lab)
    local, remote = found["local"]["edges"], found["remote"]["edges"]
    assert [e[:3] for e in remote] == [e[:3] for e in local]
    assert [e[:2] for e in remote] == edges


def test_verify_does_not_probe_the_edge_of_what_is_not_reached(lab: Home) -> None:
    """It is not measured, and why: three rounds of silence would tell nothing more."""
    lab.sh("node02", "sysctl -qw net.ipv4.ip_forward=0")
    checks = {c["code"]: c["findings"] for c in lab.json("verify")["checks"]}
    seen = [(f["ok"], f["seen"].split(":")[0]) for f in checks["edge"]]
    assert seen == [(None, "not tried, since a ping fails")] * 2
