"""Whether hosts' packets arrive at each other: tried on real hosts, with real firewalls between."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from bare_machine import real_busybox
from hosts import Host, Hosts, hosts, make_hosts
from test_hostcheck_hosts import everyone, lab_of
from vxlab import hostcheck
from vxlab.hostcheck import Facts, FactsError, HostFinding, Reach
from vxlab.hostcheck.reach import SIDE, peers
from vxlab.lab import Lab

__all__ = ["hosts", "make_hosts"]  # fixtures

MakeHosts = Callable[..., Hosts]

on_hosts = pytest.mark.skipif(os.geteuid() != 0, reason="HOSTS DID NOT RUN: they need root")

#: Where a lab has it, more or less; busybox wants its own name.
BUSYBOX = "/var/cache/vxlab/busybox"


def located(network: Hosts, more: str = "") -> tuple[Lab, dict[str, Facts]]:
    for host in network:
        place = host.path(BUSYBOX)
        place.parent.mkdir()
        shutil.copy(real_busybox(), place)
    lab = lab_of(network, more)
    facts = everyone(network, lab)
    return hostcheck.located(lab, facts), facts


def send(network: Hosts, lab: Lab, *, serve: bool = True, window: float = 2.0) -> dict[str, Reach]:
    """All hosts at the same time, as they have to be."""

    def one(number: int, host: Host) -> Reach:
        node = lab.nodes[number]
        text = hostcheck.reach_program(lab, node, BUSYBOX, "run-7", serve=serve, window=window)
        return hostcheck.parse_reach(host.ok("sh", "-c", f"( {text}\n) </dev/null 2>&1"))

    with ThreadPoolExecutor(len(lab.nodes)) as pool:
        done = list(pool.map(one, range(len(lab.nodes)), network))
    return dict(zip((node.name for node in lab.nodes), done, strict=True))


def outcome(findings: list[HostFinding]) -> dict[tuple[str, str], bool | None]:
    return {(f.host, f.code): f.ok for f in findings}


GOOD = {("node01", "reach-overlay"): True, ("node02", "reach-overlay"): True} | {
    ("node01", "reach-etcd"): True
}


@on_hosts
@pytest.mark.kernel
@pytest.mark.parametrize("more", ["", "overlay: {backend: {Type: udp}}", "etcd: {port: 4001}"])
def test_hosts_that_reach_each_other(hosts: Hosts, more: str) -> None:
    """Packets arrive both ways at the overlay's port, and connections at etcd's."""
    lab, facts = located(hosts, more)

    findings = hostcheck.judge_reach(lab, facts, send(hosts, lab))

    assert outcome(findings) == GOOD


@on_hosts
@pytest.mark.kernel
def test_host_gw_asks_for_etcds_port_alone(hosts: Hosts) -> None:
    """Without encapsulation no UDP port has to be open."""
    lab, facts = located(hosts, "overlay: {backend: {Type: host-gw}}")

    findings = hostcheck.judge_reach(lab, facts, send(hosts, lab))

    assert outcome(findings) == {("node01", "reach-etcd"): True}


@on_hosts
@pytest.mark.kernel
def test_sending_leaves_nothing_behind(hosts: Hosts) -> None:
    """No interface, socket, process or file, whether it works or not."""
    lab, _ = located(hosts)
    before = {host.name: (host.photograph(), host.ok("ss -Hlntup")) for host in hosts}

    send(hosts, lab)
    hosts["host1"].ok("iptables -I INPUT -p udp --dport 8472 -j DROP")
    hosts["host1"].ok("iptables -I INPUT -p tcp --dport 2379 -j DROP")
    send(hosts, lab, window=0.5)
    hosts["host1"].ok("iptables -F; iptables -X; nft delete table ip filter")

    for host in hosts:
        photograph, sockets = before[host.name]
        assert (host.remains(photograph), host.ok("ss -Hlntup")) == ({}, sockets)


@on_hosts
@pytest.mark.kernel
def test_a_firewall_in_the_way_is_found_where_it_is(make_hosts: MakeHosts) -> None:
    """host2 drops what comes to UDP 8472 from host1 alone; the finding is host2's, and host1's."""
    network = make_hosts(3)
    lab, facts = located(network)
    rule = "INPUT -p udp --dport 8472 -s 192.168.56.21 -j DROP"
    network["host2"].ok(f"iptables -I {rule}")

    findings = hostcheck.judge_reach(lab, facts, send(network, lab, window=1.0))

    (bad,) = [f for f in findings if f.ok is not True]
    assert (bad.host, bad.code) == ("node02", "reach-overlay")
    assert bad.seen == (
        "nothing arrived at UDP port 8472 from node01 (192.168.56.21):"
        " a firewall here or on the way"
    )
    # The advice, taken, is what helps.
    assert bad.todo == "sudo iptables -I INPUT -p udp -s 192.168.56.21 --dport 8472 -j ACCEPT"
    network["host2"].ok(bad.todo.removeprefix("sudo "))
    again = hostcheck.judge_reach(lab, facts, send(network, lab))
    assert [f for f in again if f.ok is not True] == []


@on_hosts
@pytest.mark.kernel
@pytest.mark.parametrize("target", ["DROP", "REJECT"])
def test_a_firewall_before_etcd_is_found(hosts: Hosts, target: str) -> None:
    """Whether it refuses or stays silent."""
    lab, facts = located(hosts)
    hosts["host1"].ok(f"iptables -I INPUT -p tcp --dport 2379 -j {target}")

    findings = hostcheck.judge_reach(lab, facts, send(hosts, lab, window=1.0))

    assert outcome(findings) == GOOD | {("node01", "reach-etcd"): False}
    (bad,) = [f for f in findings if f.ok is False]
    assert bad.seen.startswith("not reached by node02 (192.168.56.22): ")
    assert bad.todo == "sudo iptables -I INPUT -p tcp -s 192.168.56.0/24 --dport 2379 -j ACCEPT"


@on_hosts
@pytest.mark.kernel
def test_addresses_translated_on_the_way_are_found(hosts: Hosts) -> None:
    """flannel tells the peers its own address; packets from another one would be lost."""
    lab, facts = located(hosts)
    hosts["host2"].ok(
        "ip addr add 192.168.56.99/24 dev eth1 && iptables -t nat -A POSTROUTING -p udp"
        " --dport 8472 -j SNAT --to-source 192.168.56.99"
    )

    findings = hostcheck.judge_reach(lab, facts, send(hosts, lab, window=1.0))

    seen = [f.seen for f in findings if f.ok is False]
    assert seen == [
        "packets arrive of node02 from 192.168.56.99, not 192.168.56.22:"
        " something translates addresses"
    ]


@on_hosts
@pytest.mark.kernel
def test_a_lab_that_is_up_is_not_disturbed(hosts: Hosts) -> None:
    """flannel.1 keeps its socket; another VNI shares it. etcd's port is only connected to."""
    lab, facts = located(hosts)
    for host in hosts:
        host.ok(
            f"ip link add flannel.1 type vxlan id 1 local {host.address} dev eth1 dstport 8472"
            " nolearning && ip link set flannel.1 up"
        )
    lab = replace(lab, etcd=replace(lab.etcd, port=22))  # somebody listens there: sshd

    findings = hostcheck.judge_reach(lab, facts, send(hosts, lab, serve=False))

    assert outcome(findings) == GOOD
    assert "8472" in hosts["host1"].ok("ss -Hlun")


@on_hosts
@pytest.mark.kernel
def test_a_taken_port_cannot_be_tried(hosts: Hosts) -> None:
    """Somebody's VXLAN device with other rights to the port: its host says so, the others wait."""
    lab, facts = located(hosts)
    hosts["host1"].ok("ip link add sys type vxlan external dstport 8472 && ip link set sys up")

    findings = hostcheck.judge_reach(lab, facts, send(hosts, lab, window=0.5))

    assert outcome(findings) == GOOD | {("node01", "reach-overlay"): None}
    (odd,) = [f for f in findings if f.ok is None]
    assert "Address already in use" in odd.seen


@on_hosts
@pytest.mark.kernel
def test_a_host_that_is_silent_is_missed_by_all(make_hosts: MakeHosts) -> None:
    """A cable that is out: every other host hears the rest."""
    network = make_hosts(3)
    lab, facts = located(network)
    network["host3"].cut()

    reached = send(network, lab, window=1.0)
    network["host3"].mend()

    silent = {
        n: [p.name for p in peers(lab, lab.node(n)) if _mac(p, lab) not in reached[n].heard]
        for n in reached
    }
    assert silent == {
        "node01": ["node03"],
        "node02": ["node03"],
        "node03": ["node01", "node02"],
    }
    assert outcome(hostcheck.judge_reach(lab, facts, reached))[("node01", "reach-etcd")] is False


def _mac(node: object, lab: Lab) -> str:
    number = [n.name for n in lab.nodes].index(getattr(node, "name", ""))
    return f"02:76:78:00:00:{number:02x}"


# --- without hosts --------------------------------------------------------------------------------


def many(count: int) -> Lab:
    from vxlab import labfile

    lines = [f"  n{i}: {{ssh: h{i}, address: 10.9.{i // 200}.{i % 200 + 1}}}" for i in range(count)]
    lab = labfile.loads("nodes:\n" + "\n".join(lines) + "\n", "lab.yaml")
    nodes = (replace(n, address=type(n.address)(f"{n.address.ip}/16")) for n in lab.nodes)
    return replace(lab, nodes=tuple(nodes))


@pytest.mark.parametrize("count", [1, 2, 17, 18, 100])
def test_everybody_sends_to_whoever_sends_to_them(count: int) -> None:
    """In small labs to all, in large ones to the nearest; always to each other."""
    lab = many(count)
    to = {n.name: {p.name for p in peers(lab, n)} for n in lab.nodes}

    assert {len(names) for names in to.values()} == {min(count - 1, 2 * SIDE)}
    assert all(name in to[peer] for name, names in to.items() for peer in names)


def test_with_direct_routing_only_other_networks_are_sent_to() -> None:
    """Within a network DirectRouting encapsulates nothing."""
    lab = many(3)
    backend: Mapping[str, str | int | bool] = {"Type": "vxlan", "DirectRouting": True}
    lab = replace(lab, overlay=replace(lab.overlay, backend=backend))
    away = replace(lab.nodes[2], address=type(lab.nodes[2].address)("172.16.0.9/16"))
    lab = replace(lab, nodes=(*lab.nodes[:2], away))

    assert [[p.name for p in peers(lab, n)] for n in lab.nodes] == [["n2"], ["n2"], ["n0", "n1"]]


def test_half_an_answer_is_refused() -> None:
    """Cut off, or not what the program prints."""
    whole = '@@ etcd reached\n@@ fdb\n[{"mac": "m", "dst": "192.0.2.1", "state": ""}]\n@@ end\n'

    assert hostcheck.parse_reach(whole) == Reach({"m": "192.0.2.1"}, "", "")
    for text in (whole[: whole.index("@@ end")], "", whole.replace("[{", "[[")):
        with pytest.raises(FactsError):
            hostcheck.parse_reach(text)


def test_what_could_not_be_tried_says_why() -> None:
    """No unshare, no busybox: nothing is held against the hosts."""
    text = "@@ etcd untried sh: busybox: not found\nsh: 3: unshare: not found\n@@ end\n"
    lab = many(2)
    reached = {"n0": hostcheck.parse_reach(text), "n1": hostcheck.parse_reach(text)}

    findings = hostcheck.judge_reach(lab, {"n0": Facts(), "n1": Facts()}, reached)

    assert [(f.ok, f.seen) for f in findings] == [
        (None, "could not be tried: sh: 3: unshare: not found"),
        (None, "could not be tried: sh: 3: unshare: not found"),
    ]
