"""The look at real hosts, on real hosts: what it sees there, and that it changes nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

from hosts import Host, Hosts, Options, hosts, make_hosts
from kernel import KERNEL
from vxlab import hostcheck, labfile
from vxlab.hostcheck import Facts, HostFinding
from vxlab.lab import Lab
from vxlab.state import Vxlan

pytestmark = [
    *KERNEL,
    pytest.mark.skipif(os.geteuid() != 0, reason="HOSTS DID NOT RUN: they need root"),
]

__all__ = ["hosts", "make_hosts"]  # fixtures

MakeHosts = Callable[..., Hosts]


def lab_of(network: Hosts, more: str = "", *, interface: str = "") -> Lab:
    told = [f"interface: {interface}" if interface else f"address: {h.address}" for h in network]
    lines = [
        f"  node{number:02}: {{ssh: root@{host.name}, {where}}}"
        for number, (host, where) in enumerate(zip(network, told, strict=True), 1)
    ]
    return labfile.loads("\n".join(["nodes:", *lines, more]) + "\n", "lab.yaml")


def look(host: Host, lab: Lab, number: int = 0, shell: str = "sh") -> Facts:
    text = hostcheck.program(lab, lab.nodes[number])
    # As a connection's root shell does it: a complete subshell, both outputs in one.
    return hostcheck.parse(host.ok(shell, "-c", f"( {text}\n) </dev/null 2>&1"))


def everyone(network: Hosts, lab: Lab) -> dict[str, Facts]:
    return {
        node.name: look(host, lab, number)
        for number, (node, host) in enumerate(zip(lab.nodes, network, strict=True))
    }


def judged(network: Hosts, lab: Lab) -> list[HostFinding]:
    return hostcheck.judge(lab, everyone(network, lab), {}, now=time.time())


def against(findings: list[HostFinding], ok: bool | None = False) -> set[tuple[str, str]]:
    return {(f.host, f.code) for f in findings if f.ok is ok}


def test_fresh_hosts_can_carry_the_lab(make_hosts: MakeHosts) -> None:
    """Nothing against them, no warning; located says where they are, NAT interface or not."""
    network = make_hosts(2, {"host1": Options(nat=True), "host2": Options(nat=True)})
    lab = lab_of(network)

    facts = everyone(network, lab)
    findings = hostcheck.judge(lab, facts, {}, now=time.time())

    assert [f for f in findings if f.ok is not True] == []
    assert {"kernel-vxlan", "kernel-container", "nat-interface"} <= {f.code for f in findings}
    located = hostcheck.located(lab, facts)
    assert [(n.interface, str(n.address)) for n in located.nodes] == [
        ("eth1", f"{host.address}/24") for host in network
    ]
    assert located.underlay.mtu == 1500


def test_the_nat_interface_is_refused(make_hosts: MakeHosts) -> None:
    """A lab file that names Vagrant's eth0 is refused on both hosts, in words."""
    network = make_hosts(2, {"host1": Options(nat=True), "host2": Options(nat=True)})

    findings = judged(network, lab_of(network, interface="eth0"))

    assert against(findings) == {("node01", "underlay-double"), ("node02", "underlay-double")}


def test_different_mtus_are_refused(make_hosts: MakeHosts) -> None:
    """Without an MTU option flannel would give each host's containers another MTU."""
    network = make_hosts(2, {"host2": Options(mtu=9000)})

    assert against(judged(network, lab_of(network))) == {("node02", "underlay-mtu")}


#: Everything that a look might disturb is there, and a lab's worth of what is in the way.
CROWDED = """\
ip link add cbr0 type bridge
ip addr add 10.5.3.1/24 dev cbr0
ip link set cbr0 up
ip link add flannel.1 type vxlan id 1 local 192.168.56.21 dev eth1 dstport 8472 nolearning
ip link set flannel.1 up
ip link add vethlocal type veth peer name other
ip link set vethlocal alias vxlab:demo
ip route add 10.5.9.0/24 via 192.168.56.22
iptables -N FLANNEL-FWD
iptables -A FORWARD -m comment --comment 'flanneld forward' -j FLANNEL-FWD
iptables -P FORWARD DROP
mkdir -p /run/flannel /run/etcd /run/container-demo /var/lib/vxlab/demo
touch /var/log/etcd.log /var/log/flannel.log
cp "$(command -v sleep)" /run/flanneld
cp /run/flanneld /run/dockerd
/run/flanneld 1000 >/dev/null 2>&1 </dev/null &
/run/dockerd 1000 >/dev/null 2>&1 </dev/null &
"""


def test_what_is_on_a_host_already_is_all_told_at_once(hosts: Hosts) -> None:
    """A flannel, a bridge, a lab of somebody else's: one report of one host."""
    host = hosts["host1"]
    host.ok(CROWDED)
    lab = lab_of(hosts)

    findings = judged(hosts, lab)

    assert against(findings) == {
        ("node01", code)
        for code in (
            *("overlay-network", "port-overlay", "interfaces", "files", "other-lab", "flannel"),
        )
    }
    assert against(findings, None) == {("node01", "docker"), ("node01", "forward-policy")}
    seen = {f.code: f.seen for f in findings if f.host == "node01"}
    assert seen["interfaces"] == "exist already: cbr0, flannel.1, vethlocal"
    assert seen["port-overlay"] == "taken by the VXLAN device flannel.1 (VNI 1)"
    assert seen["overlay-network"] == "cbr0 has 10.5.3.1/24, a route to 10.5.9.0/24 via " + (
        "192.168.56.22 dev eth1"
    )
    todo = {f.code: f.todo for f in findings if f.host == "node01"}
    assert "vxlab teardown demo" in todo["interfaces"]


def test_a_look_changes_nothing(hosts: Hosts) -> None:
    """Links, addresses, routes, firewall, sysctls, files and processes are as before."""
    lab = lab_of(hosts)
    hosts["host1"].ok(CROWDED)  # host2 has nothing, not even a table in its packet filter
    before = {host.name: host.photograph() for host in hosts}

    for number, host in enumerate(hosts):
        look(host, lab, number)

    assert {host.name: host.remains(before[host.name]) for host in hosts} == {
        "host1": {},
        "host2": {},
    }


def test_an_iptables_legacy_host_gets_no_table_by_being_looked_at(hosts: Hosts) -> None:
    """`iptables-legacy-save -t filter` would make the table that it prints."""
    host = hosts["host2"]
    host.ok(
        "mkdir -p /usr/local/sbin && for p in iptables iptables-save; do"
        ' ln -s "$(command -v iptables-legacy${p#iptables})" /usr/local/sbin/$p; done'
    )
    names = "cat /proc/net/ip_tables_names"
    if host.run(f"iptables --version | grep legacy && {names}").returncode != 0:
        pytest.skip("this kernel has no iptables-legacy")
    assert host.ok(names) == ""

    facts = look(host, lab_of(hosts), 1)

    assert (host.ok(names), "legacy" in facts.iptables, facts.chains) == ("", True, {})
    assert facts.tries["kernel-iptables"].status == 0


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_every_shell_sees_the_same(hosts: Hosts, shell: str) -> None:
    """Only a POSIX shell is needed; values, not only their keys, are there."""
    facts = look(hosts["host1"], lab_of(hosts), shell=shell)

    assert facts.sysctls["ip_forward"] == "0"
    assert facts.boot == hosts["host1"].boot_id
    assert set(facts.space) == {"/var/cache", "/var/lib", "/var/log", "/run"}
    assert abs(facts.clock - time.time()) < 60
    assert str(facts.nics["eth1"].addresses[0]) == f"{hosts['host1'].address}/24"
    assert {code for code, answer in facts.tries.items() if answer.status == 0} >= {
        *("namespaces", "kernel-proc", "kernel-mount", "kernel-veth", "kernel-bridge"),
        *("kernel-vxlan", "kernel-iptables", "kernel-forwarding", "kernel-container"),
    }


def test_a_host_without_any_program_is_told_to_install_them(hosts: Hosts) -> None:
    """An empty PATH: the look itself goes through, and asks for all packages in one line."""
    lab = lab_of(hosts)
    text = hostcheck.program(lab, lab.nodes[0])
    output = hosts["host1"].ok("/bin/sh", "-c", f"( PATH=/nonexistent\n{text}\n) </dev/null 2>&1")

    findings = hostcheck.judge(lab, {"node01": hostcheck.parse(output)}, {})

    (bad,) = [f for f in findings if f.ok is False]
    assert bad.code == "programs"
    assert bad.todo.startswith("sudo apt-get install iproute2 iptables util-linux mount")


def test_a_busybox_ip_is_not_taken_for_iproute2(hosts: Hosts) -> None:
    """It is there and works, but prints no JSON."""
    hosts["host1"].ok(
        "mkdir -p /usr/local/sbin && cat >/usr/local/sbin/ip && chmod 755 /usr/local/sbin/ip",
        stdin="#!/bin/sh\necho 'BusyBox v1.36.1 multi-call binary.' >&2; exit 1\n",
    )
    lab = lab_of(hosts)

    findings = hostcheck.judge(lab, {"node01": look(hosts["host1"], lab)}, {})

    assert ("node01", "program-ip") in against(findings)


def test_ports_are_seen_with_who_holds_them(hosts: Hosts) -> None:
    """A process at etcd's port and one at the overlay's; a VXLAN device elsewhere is no matter."""
    host = hosts["host1"]
    host.ok(
        "ip link add vx type vxlan id 9 local 192.168.56.21 dev eth1 dstport 4789 &&"
        " ip link set vx up"
    )
    lab = lab_of(hosts, "etcd: {port: 22}\n")  # sshd listens there

    facts = look(host, lab)
    findings = hostcheck.judge(lab, {"node01": facts}, {})

    assert facts.nics["vx"].vxlan == Vxlan(9, 4789, "192.168.56.21", learning=True)
    (bad,) = [f for f in findings if f.ok is False]
    assert (bad.code, bad.seen.partition(" (")[0]) == ("port-etcd", "taken by sshd")


@pytest.mark.parametrize("program", ["ip", "iptables", "mount", "unshare"])
def test_a_missing_program_is_no_missing_kernel_feature(hosts: Hosts, program: str) -> None:
    """What cannot be tried without it is not held against the kernel."""
    host = hosts["host1"]
    host.ok(
        "mkdir /tmp/bin && for d in /usr/sbin /usr/bin; do for f in $d/*; do"
        f' [ "${{f##*/}}" = {program} ] || [ -e "/tmp/bin/${{f##*/}}" ] ||'
        ' ln -s "$f" /tmp/bin/; done; done'
    )
    lab = lab_of(hosts)
    text = hostcheck.program(lab, lab.nodes[0])
    output = host.ok("/bin/sh", "-c", f"( PATH=/tmp/bin\n{text}\n) </dev/null 2>&1")

    findings = hostcheck.judge(lab, {"node01": hostcheck.parse(output)}, {})

    assert against(findings) == {("node01", "programs")}
