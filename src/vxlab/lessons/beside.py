"""What belongs to a step besides its lesson: what to look at, sources, the ping that fails."""

from __future__ import annotations

from vxlab.lessons.lesson import Beside, Look

_BACKENDS = "flannel Documentation/backends.md"
_UNREACHABLE = "Ping of the other container: Network is unreachable. It has no route there."

STEPS = {
    "switch": Beside(
        (Look("switch", "ip link show master switch", "one cable per node, named like it"),),
    ),
    "node": Beside(
        (
            Look("node", "ps -ef", "the node's own processes; PID 1 holds its namespaces"),
            Look("node", "ip link show {nic}", "the node's end of its cable"),
        ),
        sources=("namespaces(7)", "veth(4)"),
        aliases=("nodes", "machine"),
    ),
    "underlay": Beside(
        (
            Look("node", "ip addr show {nic}", "the node's own address, and the MTU"),
            Look("node", "ip route", "the underlay, directly on {nic}"),
        ),
        more="Underlay means the network that carries; overlay the one that is carried. Nodes reach"
        " each other on the underlay before flannel is there, and need nothing else.",
        sources=("RFC 7348 section 4",),
        aliases=("nic",),
    ),
    "host": Beside((Look("node", "ls /run/flannel /run/etcd", "the lab's places"),)),
    "tls": Beside(
        (Look("etcd", "etcdctl member list", "answers those who have a certificate of the lab"),),
        sources=("etcd Documentation, transport security model",),
        aliases=("certificates",),
    ),
    "etcd": Beside(
        (
            Look("etcd", "etcdctl member list", "the only member, and its client URL"),
            Look("etcd", "tail -n 3 /var/log/etcd.log", "its log"),
            Look("etcd", "ps -ef", "its process, and how it was started"),
        ),
        more="The flannelds never talk to each other; what one writes to etcd, the others are told."
        " While etcd is down packets go on, but no node can join.",
        sources=("flannel Documentation/running.md",),
    ),
    "config": Beside(
        (
            Look(
                "etcd",
                "etcdctl get /coreos.com/network/config",
                "the overlay's network and flannel's backend, as JSON",
            ),
        ),
        sources=("flannel Documentation/configuration.md",),
        aliases=("configuration",),
    ),
    "flannel": Beside(
        (
            Look("node", "cat /var/run/flannel/subnet.env", "the subnet that the node got"),
            Look("node", "tail -n 5 /var/log/flannel.log", "what flanneld did"),
            Look("node", "ip -d link show {device}", "the interface that it made"),
            Look("node", "ip route", "a route to the other nodes' subnets"),
        ),
        sources=(_BACKENDS, "flannel Documentation/running.md"),
        aliases=("flanneld",),
    ),
    "container": Beside(
        (
            Look("container", "ip link", "lo, and nothing else before the step veth"),
            Look("container", "ps", "its own processes: PID 1 is its own"),
        ),
        sources=("namespaces(7)", "unshare(1)", "chroot(1)"),
        aliases=("containers", "busybox", "namespace", "namespaces"),
    ),
    "veth": Beside(
        (
            Look("node", "ip -d link show {veth}", "the node's end"),
            Look("container", "ip link show vethNS", "the container's end"),
        ),
        more="What enters one end leaves the other, in another network namespace. When one end"
        " goes, or its namespace, the other goes too.",
        sources=("veth(4)",),
        aliases=("cable", "vethlocal", "vethns", "veth pair"),
    ),
    "mtu": Beside(
        (
            Look("node", "ip link show {nic}", "mtu: what the underlay carries"),
            Look("container", "ip link show vethNS", "mtu: what a container may send"),
        ),
        more="The MTU of an interface is the largest IP packet that it sends in one piece. A ping"
        " of 1422 bytes is an IP packet of 1450: 20 bytes IPv4 and 8 bytes ICMP come on top. With"
        " don't-fragment set, 1422 passes and 1423 fails: message too long, mtu=1450. flannel.1 has"
        " 1450, too: what is larger the node itself cuts up, or refuses with ICMP.",
        sources=("RFC 791", "RFC 1191", "RFC 7348 section 4.3"),
        ping="With 1500 inside, small pings work; a full-size one with don't-fragment does not.",
        aliases=("fragmentation", "1450"),
    ),
    "address": Beside(
        (
            Look("container", "ip addr show vethNS", "the address, with the subnet's length"),
            Look("container", "ip route", "only its own subnet"),
        ),
        sources=("ip-address(8)",),
        ping=_UNREACHABLE,
        aliases=("addresses", "ip address"),
    ),
    "bridge": Beside(
        (
            Look("node", "ip link show master cbr0", "its ports: the containers' cables only"),
            Look("node", "ip addr show cbr0", "the gateway's address"),
        ),
        more="A bridge is a switch in the kernel: it passes frames between its ports by their MACs."
        " The node itself is on it too, with the bridge's own address, and routes from there.",
        sources=("ip-link(8), bridge",),
        ping="Ping of the gateway works. Ping of the other container: still Network is"
        " unreachable, until the container has a route.",
        aliases=("cbr0", "gateway"),
    ),
    "route": Beside(
        (Look("container", "ip route", "default, via the bridge's address"),),
        sources=("ip-route(8)",),
        ping="Before it: Network is unreachable. With it, and with ip_forward on the nodes, the"
        " ping of the other container works.",
        aliases=("default route", "routes"),
    ),
    "forwarding": Beside(
        (Look("node", "sysctl net.ipv4.ip_forward", "1: the node is a router"),),
        more="Without ip_forward a node drops what is addressed to others. As a router it lowers"
        " the TTL by one: a ping through two nodes comes back with ttl=62. flanneld lets forwarded"
        " packets through the firewall, but does not set this switch.",
        sources=("Linux Documentation/networking/ip-sysctl.rst",),
        ping="Without it the gateway answers, but pings of the other container get no answer.",
        aliases=("ip_forward", "forward", "router"),
    ),
}
