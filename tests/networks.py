"""Networks of plain namespaces, without vxlab, for the tests of namespaces, probe and sniff."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="KERNEL TESTS DID NOT RUN: they need root (or `unshare -Urn pytest`)"
)


@dataclass
class Net:
    """Network namespaces by name, each held by a process."""

    holders: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def add(self, *names: str) -> None:
        for name in names:
            self.holders[name] = subprocess.Popen(["unshare", "--net", "sleep", "600"])
        ours = os.readlink("/proc/self/ns/net")
        deadline = time.monotonic() + 10
        for name in names:
            while os.readlink(self.path(name)) == ours:
                assert time.monotonic() < deadline, f"{name} got no network namespace"
                os.sched_yield()
            # Autoconfigured IPv6 would put packets into the captures that no test sends.
            self.run(name, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
            self.ip(name, "link set lo up")

    def pid(self, name: str) -> int:
        return self.holders[name].pid

    def path(self, name: str) -> str:
        return f"/proc/{self.pid(name)}/ns/net"

    def run(self, name: str, *argv: str, stdin: str | None = None) -> str:
        enter = ["nsenter", "-t", str(self.pid(name)), "-n"]
        done = subprocess.run([*enter, *argv], input=stdin, text=True, capture_output=True)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def ip(self, name: str, *commands: str) -> None:
        """Run ``ip`` commands; ``@other`` stands for the PID of another namespace's holder."""
        batch = "\n".join(commands)
        for other, holder in self.holders.items():
            batch = batch.replace(f"@{other} ", f"{holder.pid} ")
        self.run(name, "ip", "-batch", "-", stdin=batch)

    def settle(self) -> None:
        """Wait until all links work: a veth drops what is sent before its carrier is noticed."""
        deadline = time.monotonic() + 10
        for name in self.holders:
            while "LOWERLAYERDOWN" in (links := self.run(name, "ip", "-o", "link")) or (
                " state DOWN" in links
            ):
                assert time.monotonic() < deadline, links

    def close(self) -> None:
        for holder in self.holders.values():
            holder.kill()
        for holder in self.holders.values():
            holder.wait()


@contextmanager
def namespaces(*names: str) -> Iterator[Net]:
    net = Net()
    try:
        net.add(*names)
        yield net
    finally:
        net.close()


@contextmanager
def overlay(*, mtu: int = 1450, container_mtu: int = 1450, vxlan: str = "") -> Iterator[Net]:
    """The talk's two nodes with a container each: c1 - n1 = VXLAN = n2 - c2.

    Args:
        mtu: of flannel.1 on both nodes; the underlay has 1500. More than 1450 only goes when
            flannel.1 is not bound to eth0: otherwise the kernel caps it.
        container_mtu: of the containers' veths.
        vxlan: more options for flannel.1, such as ``df set``.
    """
    bound = "dev eth0" if mtu <= 1450 else ""
    macs = {1: "02:00:00:00:00:01", 2: "02:00:00:00:00:02"}
    with namespaces("n1", "n2", "c1", "c2") as net:
        net.ip("n1", "link add eth0 type veth peer name eth0 netns @n2 ")
        for me, peer in ((1, 2), (2, 1)):
            net.run(f"n{me}", "sysctl", "-qw", "net.ipv4.ip_forward=1")
            net.ip(
                f"n{me}",
                f"addr add 192.168.56.2{me}/24 dev eth0",
                "link set eth0 up",
                f"link add flannel.1 address {macs[me]} mtu {mtu} type vxlan id 1 dstport 8472 "
                f"local 192.168.56.2{me} {bound} nolearning {vxlan}",
                f"addr add 10.5.{me}.0/32 dev flannel.1",
                "link set flannel.1 up",
                f"route add 10.5.{peer}.0/24 via 10.5.{peer}.0 dev flannel.1 onlink",
                f"neigh add 10.5.{peer}.0 lladdr {macs[peer]} dev flannel.1 nud permanent",
                f"link add veth0 mtu {container_mtu} type veth "
                f"peer name eth0 mtu {container_mtu} netns @c{me} ",
                f"addr add 10.5.{me}.1/24 dev veth0",
                "link set veth0 up",
            )
            fdb = f"fdb append {macs[peer]} dev flannel.1 dst 192.168.56.2{peer}"
            net.run(f"n{me}", "bridge", *fdb.split())
            net.ip(
                f"c{me}",
                f"addr add 10.5.{me}.10/24 dev eth0",
                "link set eth0 up",
                f"route add default via 10.5.{me}.1",
            )
        net.settle()
        yield net


def _mac(host: int) -> str:
    return f"02:00:00:00:09:{host:02x}"


@contextmanager
def switch(hosts: int) -> Iterator[Net]:
    """Hosts h0, h1, ... with addresses 10.9.0.1, 10.9.0.2, ... on one bridge in sw.

    They know each other by permanent neighbour entries: learnt ones of all namespaces together may
    be 1024 (net.ipv4.neigh.default.gc_thresh3), and beyond that the kernel drops without a word.
    """
    with namespaces("sw", *(f"h{i}" for i in range(hosts))) as net:
        net.ip(
            "sw",
            "link add br0 type bridge",
            "link set br0 up",
            *(
                f"link add v{i} type veth peer name eth0 address {_mac(i)} netns @h{i} "
                for i in range(hosts)
            ),
            *(f"link set v{i} master br0 up" for i in range(hosts)),
        )
        for i in range(hosts):
            net.ip(
                f"h{i}",
                f"addr add 10.9.0.{i + 1}/24 dev eth0",
                "link set eth0 up",
                *(
                    f"neigh add 10.9.0.{k + 1} lladdr {_mac(k)} dev eth0 nud permanent"
                    for k in range(hosts)
                ),
            )
        net.settle()
        yield net
