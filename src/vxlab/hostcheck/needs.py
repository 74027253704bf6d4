"""What a lab needs from a real host: programs, kernel features, room, places that are free."""

from __future__ import annotations

from dataclasses import dataclass

from vxlab.lab import Lab, Node
from vxlab.state import RECORDS, SUBNET_ENV
from vxlab.steps import container, etcd, flannel


@dataclass(frozen=True, slots=True)
class Package:
    """Where distributions have a program; Alpine calls its package as Debian does."""

    debian: str
    fedora: str


_IPROUTE = Package("iproute2", "iproute")
_IPTABLES = Package("iptables", "iptables-nft")
_UTIL = Package("util-linux", "util-linux")
_COREUTILS = Package("coreutils", "coreutils")

#: Programs that vxlab calls on a host, and the package that has each.
NEEDS = {
    "ip": _IPROUTE,
    "bridge": _IPROUTE,
    "ss": _IPROUTE,
    "iptables": _IPTABLES,
    "iptables-save": _IPTABLES,
    "unshare": _UTIL,
    "nsenter": _UTIL,
    "setsid": _UTIL,
    "flock": _UTIL,
    "mount": Package("mount", "util-linux"),
    "hostname": Package("hostname", "hostname"),
    "env": _COREUTILS,
    "sync": _COREUTILS,
    "sha256sum": _COREUTILS,
    "chroot": _COREUTILS,
    "truncate": _COREUTILS,
    "sed": Package("sed", "sed"),
    "grep": Package("grep", "grep"),
}


@dataclass(frozen=True, slots=True)
class Try:
    """A kernel feature that is tried for real in namespaces of the try's own."""

    title: str
    wanted: str
    module: str = ""  # the kernel module that brings it
    backend: str = ""  # the only flannel backend that needs it


TRIES = {
    "namespaces": Try("Namespaces of one's own", "mount, UTS, IPC, network and PID namespaces"),
    "kernel-proc": Try("/proc of a namespace", "mount -t proc in a new PID namespace"),
    "kernel-mount": Try("Mounts", "tmpfs and bind mounts in a new mount namespace"),
    "kernel-veth": Try("veth pairs (the cables)", "ip link add type veth", "veth"),
    "kernel-bridge": Try("Bridges (cbr0)", "ip link add type bridge", "bridge"),
    "kernel-vxlan": Try(
        "VXLAN interfaces (flannel.1)", "a VTEP like flannel's, with neighbour and FDB", "vxlan"
    ),
    "kernel-iptables": Try("iptables (flannel's FORWARD rules)", "a chain with flannel's rule"),
    "kernel-forwarding": Try("IP forwarding", "net.ipv4.ip_forward=1 in a network namespace"),
    "kernel-container": Try("Containers", "unshare --user --map-root-user ..., with mounts in it"),
    "busybox": Try("busybox in a bare root", "chroot into a directory that holds busybox alone"),
    "kernel-tun": Try("TUN interfaces", "ip tuntap add mode tun", "tun", "udp"),
}

#: Where the programs that travel are kept on a host.
CACHE = "/var/cache/vxlab"

#: KiB that a lab takes below a host's directories. etcd's first write-ahead log has 64 MB at once.
PLACES = {"/var/cache": 150 * 1024, "/var/lib": 20 * 1024, "/var/log": 1024, "/run": 2 * 1024}
ETCD_ROOM = 80 * 1024

#: A port of etcd's node, on which etcd waits for members that no lab has (on loopback only).
PEER_PORT = etcd.PEER_PORT


def paths(lab: Lab, node: Node) -> tuple[str, ...]:
    """The files and directories that the lab makes on a host, none of which may be there before."""
    more = (etcd.DIRECTORY, etcd.LOG) if node.name == lab.etcd.node else ()
    flannels = SUBNET_ENV.rpartition("/")[0]
    return (RECORDS, container.ROOT, flannels, flannel.LOG, *more, CACHE)


def room(lab: Lab, node: Node) -> dict[str, int]:
    """KiB that the lab takes on a host, by directory."""
    extra = ETCD_ROOM if node.name == lab.etcd.node else 0
    return PLACES | {"/run": PLACES["/run"] + extra}


def udp_port(lab: Lab) -> int | None:
    """The UDP port that the overlay's packets go to; host-gw encapsulates nothing."""
    if lab.overlay.backend_type == "udp":
        return int(lab.overlay.backend.get("Port", 8285))  # flannel's default for udp
    return lab.overlay.port if lab.overlay.backend_type == "vxlan" else None
