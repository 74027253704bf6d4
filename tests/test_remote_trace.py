"""`vxlab trace` on real hosts: a tcpdump at every hop there, the hosts' own programs send."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from remote import Hosts, differences, ok, photograph
from test_journey_report import tshark_rows_agree
from test_trace_lab import FDB

pytestmark = [pytest.mark.kernel, pytest.mark.lab]

THERE = [
    "node01/container01:vethNS",
    "node01:vethlocal",
    "node01:cbr0",
    "node01:flannel.1",
    "node01:eth1",
    "node02:eth1",
    "node02:flannel.1",
    "node02:cbr0",
    "node02:vethlocal",
    "node02/container02:vethNS",
]
WAYS = ["out", "in", "in", "out", "out", "in", "in", "out", "out", "in"]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """The talk's lab on two hosts, by a login that needs sudo."""
    directory = tmp_path_factory.mktemp("traced")
    with Hosts(directory / "hosts", 2) as hosts:
        before = photograph(hosts)
        lab = str(hosts.lab(directory / "lab.yaml", user="alice"))
        ok(hosts, "up", lab)
        yield hosts
        ok(hosts, "teardown", lab, "--purge")
        assert differences(before, hosts) == []


@pytest.fixture
def lab(network: Hosts) -> Iterator[Hosts]:
    """What a test did to the lab is repaired."""
    yield network
    ok(network, "up", "talk")


def trace(network: Hosts, *words: str, code: int = 0) -> Any:
    """What `vxlab trace --json` found."""
    done = network.vxlab("trace", *words, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def hops(leg: Any) -> list[str]:
    return [stop["hop"] for stop in leg["stops"]]


PROBES = {
    "icmp": [],
    "udp": ["--udp", "9999"],
    "tcp": ["--tcp", "9999"],
    "df": ["--size", "1422", "--df"],
    "fragments": ["--size", "3000"],
}


@pytest.mark.parametrize("words", PROBES.values(), ids=PROBES.keys())
def test_there_and_back(network: Hosts, words: list[str]) -> None:
    """Ten hops there, ten back, each with its direction and the table entries that decided."""
    found = trace(network, "container01", "container02", *words)
    (journey,) = found["journeys"]
    request, answer = journey["legs"]
    assert (hops(request), hops(answer)) == (THERE, THERE[::-1])
    assert [stop["direction"] for stop in request["stops"]] == WAYS
    assert (found["ok"], found["dropped"], request["encapsulated"]) == (True, 0, True)
    assert all(stop["why"] for stop in request["stops"])
    assert {hop["error"] for hop in found["hops"]} == {None}


def test_times_are_of_one_host_each(network: Hosts) -> None:
    """No difference between two clocks is told, but the time on the wire is."""
    found = trace(network, "container01", "container02")
    assert found["one_clock"] is False
    (journey,) = found["journeys"]
    request, answer = journey["legs"]
    last = [stop["since_last_us"] is None for stop in request["stops"]]
    assert last == [hop in (THERE[0], THERE[5]) for hop in THERE]
    assert request["stops"][5]["since_start_us"] == 0.0
    assert 0 < journey["between_hosts_us"] < journey["round_trip_us"]
    assert answer["stops"][-1]["since_start_us"] == journey["round_trip_us"]
    printed = ok(network, "trace", "container01", "container02")
    assert "each host has a clock of its own" in printed
    assert "µs of it between the hosts" in printed


def test_many_probes_lose_nothing(network: Hosts) -> None:
    """Every one is seen at every hop, there and back."""
    printed = ok(network, "trace", "container01", "container02", "--count", "200")
    assert "all 200 answered" in printed
    # busybox's ping may send a few more than it is asked for.
    captured = re.search(r"captured (\d+) frames at 10 hops, 0 dropped", printed)
    assert captured, printed
    assert int(captured[1]) >= 4000
    found = trace(network, "container01", "container02", "--tcp", "9999", "--count", "20")
    ways = [[hops(leg) for leg in journey["legs"]] for journey in found["journeys"]]
    assert ways == [[THERE, THERE[::-1]]] * 20
    # Of these the target's kernel answers but a few (icmp_ratelimit).
    done = network.vxlab(
        "trace", "container01", "container02", "--udp", "9999", "--count", "20", "--json"
    )
    found = json.loads(done.stdout)
    assert [hops(journey["legs"][0]) for journey in found["journeys"]] == [THERE] * 20
    assert found["dropped"] == 0


def test_other_targets(network: Hosts) -> None:
    """The gateway, the other node itself."""
    found = trace(network, "container01", "gateway")
    request, answer = found["journeys"][0]["legs"]
    assert (hops(request), hops(answer)) == (THERE[:3], THERE[2::-1])
    found = trace(network, "container01", "node02")
    request, answer = found["journeys"][0]["legs"]
    assert hops(request) == [*THERE[:3], "node01:eth1", "node02:eth1"]
    assert (request["encapsulated"], answer["encapsulated"]) == (False, True)


def test_the_session_is_not_caught(network: Hosts) -> None:
    """Not even where it goes to the target's own port: each packet would cause the next."""
    found = trace(network, "container01", "node02", "--tcp", "22")
    (journey,) = found["journeys"]
    assert journey["ok"] is True
    assert sum(hop["frames"] for hop in found["hops"]) < 40


def test_too_long_and_not_to_be_cut(network: Hosts) -> None:
    """The container's kernel refuses it, with the MTU."""
    found = trace(network, "container01", "container02", "--size", "1423", "--df", code=1)
    (journey,) = found["journeys"]
    assert journey["refused"] == "Message too long, mtu=1450"
    assert journey["legs"] == []


CASES = {
    "forwarding": (
        "host2", "sysctl -qw net.ipv4.ip_forward=0", "node02:flannel.1", "forwarding",
    ),
    "FDB": ("host1", FDB, "node01:flannel.1", "no-fdb"),
    "firewall": (
        "host2", "iptables -I FORWARD -d 10.5.0.0/16 -i flannel.1 -j DROP", "node02:flannel.1",
        "iptables",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_loss_is_marked_and_explained(lab: Hosts, case: str) -> None:
    """From the hosts' tables, and from the counters that grew meanwhile."""
    host, damage, last, code = CASES[case]
    lab[host].ok(damage)
    try:
        found = trace(lab, "container01", "container02", code=1)
    finally:
        if case == "firewall":
            lab[host].ok(damage.replace("-I", "-D"))
    (request,) = found["journeys"][0]["legs"]
    assert (request["last_seen"], request["arrived"]) == (last, False)
    assert code in [reason["code"] for reason in request["reasons"]], request["reasons"]


def test_verify_tells_where_its_packet_got_lost(lab: Hosts) -> None:
    """The packet left as it should, and the trace says how far it came."""
    lab["host2"].ok("sysctl -qw net.ipv4.ip_forward=0")
    done = lab.vxlab("verify", "--json")
    assert done.returncode == 1
    checks = {check["code"]: check["findings"] for check in json.loads(done.stdout)["checks"]}
    first = checks["encapsulation"][0]
    assert first["where"] == "node01:eth1"
    assert first["ok"] is True
    assert "last seen at node02:flannel.1: node02 does not pass packets on" in first["seen"]


def test_a_container_that_does_not_run(lab: Hosts) -> None:
    """Nothing can be sent from it; as a target it is only not watched."""
    lab["host1"].ok("kill -9 $(cut -d' ' -f1 /run/vxlab/machines/container01 | head -1)")
    done = lab.vxlab("trace", "container01", "container02")
    assert "node01/container01 does not run" in done.stderr
    found = trace(lab, "container02", "container01", code=1)
    errors = {hop["hop"]: hop["error"] for hop in found["hops"]}
    assert "does not run" in errors["node01/container01:vethNS"]


def test_tshark_reads_the_same_off_the_wire(network: Hosts, tmp_path: Path) -> None:
    """Of every host's frames, with their own time stamps."""
    file = tmp_path / "trace.pcapng"
    found = trace(network, "container01", "container02", "--pcap", str(file), "--size", "3000")
    assert tshark_rows_agree(found, file) == sum(hop["frames"] for hop in found["hops"])


def test_no_program_and_no_file_stays(network: Hosts) -> None:
    """When a trace has ended, nothing of it runs on a host, and no file of it is left."""
    ok(network, "trace", "container01", "container02")
    for host in network:
        assert [p.command for p in host.processes() if "tcpdump" in p.command] == []
        assert host.ok("find /run /tmp /var/tmp -name '*tap*'") == ""
