"""The lessons of what is no step: the things that flannel and the kernel bring with them."""

from __future__ import annotations

from vxlab.lessons.lesson import Lesson, Look

_VXLAN = ("vxlan",)
_LINK = Look(
    "node",
    "ip -d link show {device}",
    "the VTEP: id is the VNI, local the outer source address, dstport the UDP port; nolearning",
)
_NEIGH = Look(
    "node",
    "ip neigh show dev {device}",
    "per other node: its subnet's .0 address and VTEP MAC",
    _VXLAN,
)
_FDB = Look(
    "node",
    "bridge fdb show dev {device}",
    "per other node: its VTEP MAC and underlay address",
    _VXLAN,
)
_LAST = "Without it the last ping of the talk, container to container, gets no answer."

THINGS = (
    Lesson(
        "path",
        "the way of a packet, table by table",
        (
            "A packet leaves its container by the default route, enters the node through the veth"
            " pair and the bridge, and is routed by the node to flannel.1. The neighbour entry"
            " gives the MAC of the other node's VTEP, the FDB gives that node's underlay address."
            " The kernel wraps the frame in VXLAN, UDP and IP and sends it through the underlay."
            " The other node unwraps it and routes what was inside to its own bridge. Other"
            " backends than VXLAN go another way between the two nodes.",
        ),
        ("RFC 7348 section 4.1",),
        (
            Look("container", "ip route", "the default route, to the bridge's address"),
            Look("node", "ip route", "other nodes' subnets, each with its next hop and interface"),
            _NEIGH,
            _FDB,
        ),
        _LAST,
        ("way", "packet", "journey"),
    ),
    Lesson(
        "VXLAN",
        "Ethernet frames carried in UDP",
        (
            "VXLAN puts a whole Ethernet frame into a UDP datagram, so that machines on different"
            " networks seem to share one Ethernet. The nodes' network only sees UDP between nodes;"
            " it knows nothing of the containers' addresses. The end points that wrap and unwrap"
            " are called VTEPs. VXLAN neither encrypts nor authenticates what it carries.",
        ),
        ("RFC 7348 sections 4, 5 and 7", "Linux Documentation/networking/vxlan.rst"),
        (_LINK,),
        _LAST,
        step="flannel",
        backends=_VXLAN,
    ),
    Lesson(
        "VTEP",
        "the end of the tunnel: flannel.1",
        (
            "A VXLAN tunnel end point wraps frames on their way out and unwraps them on their way"
            " in. On a node it is the interface that flanneld makes, named flannel and the VNI:"
            " flannel.1. It has a MAC of its own, which the other nodes have to know. flanneld"
            " registers that MAC in etcd, with the node's lease.",
        ),
        ("RFC 7348 sections 2 and 4", "flannel Documentation/backends.md, VXLAN"),
        (_LINK,),
        _LAST,
        ("flannel.1",),
        "flannel",
        backends=_VXLAN,
    ),
    Lesson(
        "VNI",
        "which of many VXLANs a frame belongs to",
        (
            "The VXLAN network identifier is a number of 24 bits in the VXLAN header, as a VLAN"
            " has one of 12 bits. VTEPs hand a frame only to the interface with the same VNI."
            " flannel takes 1 unless its configuration says otherwise.",
        ),
        ("RFC 7348 section 5", "flannel Documentation/backends.md, VXLAN"),
        (Look("node", "ip -d link show {device}", "the number after `vxlan id`"),),
        step="flannel",
        backends=_VXLAN,
    ),
    Lesson(
        "neighbour",
        "which MAC an address has",
        (
            "To put an IP packet into a frame, Linux needs the next hop's MAC. On an ordinary"
            " Ethernet it asks with ARP. On flannel.1 nobody would answer, so flanneld writes the"
            " entry itself: the other subnet's first address, .0, which is the route's next hop,"
            " and the MAC of that node's VTEP. The entry is PERMANENT: it never expires.",
        ),
        ("ip-neighbour(8)", "flannel pkg/backend/vxlan"),
        (_NEIGH,),
        _LAST,
        ("neighbor", "neigh", "neighbour entry", "neighbor entry", "arp"),
        "flannel",
        backends=_VXLAN,
    ),
    Lesson(
        "FDB",
        "which node a MAC is behind",
        (
            "The forwarding database of a bridge says behind which port a MAC is. That of a VXLAN"
            " interface says behind which node: the underlay address of the VTEP with that MAC."
            " flanneld writes one permanent entry for every other node. flannel.1 learns nothing"
            " by itself (nolearning) and has no entry for unknown MACs: without its entry a frame"
            " is dropped.",
        ),
        ("RFC 7348 section 4.1", "bridge(8)", "Linux Documentation/networking/vxlan.rst"),
        (_FDB,),
        _LAST,
        ("forwarding database", "fdb entry"),
        "flannel",
        backends=_VXLAN,
    ),
    Lesson(
        "socket",
        "UDP 8472, open without a process",
        (
            "The outer packets arrive on a UDP port: 8472 on Linux and in flannel, from the time"
            " before IANA gave VXLAN 4789. `ss` shows the port open but names no process: the"
            " kernel made the socket together with flannel.1. Unwrapping is done in the kernel,"
            " so that traffic goes on while flanneld is stopped.",
        ),
        ("RFC 7348 section 5", "Linux drivers/net/vxlan", "flannel Documentation/backends.md"),
        (Look("node", "ss -lunp 'sport = :{port}'", "the port, and no process behind it"),),
        _LAST,
        ("8472", "port", "udp 8472"),
        "flannel",
        backends=_VXLAN,
    ),
    Lesson(
        "encapsulation",
        "what is put in front of a packet: 50 bytes",
        (
            "In front of the container's IP packet come the inner Ethernet header (14 bytes), the"
            " VXLAN header (8), the outer UDP header (8) and the outer IPv4 header (20): 50 bytes"
            " that count against the underlay's MTU. On the wire there is one more outer Ethernet"
            " header, 14 bytes, which no MTU counts.",
        ),
        ("RFC 7348 section 5",),
        (
            Look(
                "container",
                "ping -c 1 -s 1000 {target}",
                "1000 bytes of data make 1028 bytes inside and, in VXLAN, 1078 outside",
            ),
            Look(
                "node",
                "timeout 5 tcpdump -n -v -c 1 -i {nic} udp port {port}",
                "meanwhile: the outer packet's length, and the inner packet after it",
            ),
        ),
        "With an MTU that leaves no room for it, small pings pass and full-size packets do not.",
        ("overhead", "encapsulation overhead", "encap"),
        "mtu",
        backends=("vxlan", "udp"),
    ),
    Lesson(
        "overlay",
        "the containers' network",
        (
            "The overlay is the network that the containers see, 10.5.0.0/16 in the talk. flannel"
            " cuts it into one subnet per node, a /24 by default. Its addresses mean nothing on"
            " the underlay: between nodes, its packets travel inside others or by routes that"
            " only the nodes have.",
        ),
        ("flannel Documentation/configuration.md",),
        (
            Look("node", "ip route", "per other node: a route to its subnet"),
            Look("etcd", "etcdctl get /coreos.com/network/config", "the network, and the backend"),
        ),
        "Before the default route: Network is unreachable. After it and ip_forward it works.",
        step="config",
    ),
    Lesson(
        "lease",
        "who has which subnet, in etcd",
        (
            "A lease says which subnet a node has, its underlay address and, for VXLAN, its"
            " VTEP's MAC. flanneld writes it to etcd and watches those of the others: from them it"
            " makes routes, neighbour and FDB entries. A lease lasts 24 hours and is renewed while"
            " flanneld runs. A restarted flanneld finds its node's lease again by the address.",
        ),
        ("flannel Documentation/reservations.md", "flannel Documentation/configuration.md"),
        (
            Look(
                "etcd",
                "etcdctl get --prefix /coreos.com/network/subnets",
                "one key per node: its subnet, then PublicIP and VtepMAC",
            ),
        ),
        _LAST,
        ("leases", "subnet"),
        "flannel",
    ),
    Lesson(
        "subnet.env",
        "the node's lease, as a file",
        (
            "flanneld writes what it got to /var/run/flannel/subnet.env: the whole network, the"
            " node's subnet with the gateway's address in it, and the overlay's MTU. Whoever makes"
            " containers reads it: the bridge gets FLANNEL_SUBNET, the container another number of"
            " the same subnet, the cable FLANNEL_MTU.",
        ),
        ("flannel Documentation/reservations.md",),
        (
            Look("node", "cat /var/run/flannel/subnet.env", "four lines, FLANNEL_SUBNET in them"),
            Look(
                "node",
                "awk -F = '$1 ~ /^FLANNEL_SUBNET/ {print $2}' /var/run/flannel/subnet.env"
                ' | awk -F . \'{print $1"."$2"."$3"."10}\'',
                "the container's address, as the talk finds it",
            ),
        ),
        "With that address alone, the ping to the other container says: Network is unreachable.",
        ("subnetenv", "subnet env", "flannel_subnet"),
        "flannel",
    ),
    Lesson(
        "host-gw",
        "flannel's backend without a tunnel",
        (
            "host-gw sets a plain route per other node: its subnet, via its underlay address."
            " Nothing is put in front of a packet, so that the overlay has the underlay's whole"
            " MTU. There is no VTEP, no FDB entry and no UDP port. All nodes must share one"
            " network, since a route's next hop has to be a neighbour.",
        ),
        ("flannel Documentation/backends.md, host-gw",),
        (Look("node", "ip route", "other subnets, each via a node's underlay address"),),
        aliases=("hostgw", "host gateway"),
        step="config",
        backends=("host-gw",),
    ),
    Lesson(
        "DirectRouting",
        "VXLAN only where it is needed",
        (
            "With DirectRouting flannel's VXLAN backend sets plain routes, as host-gw does, to"
            " nodes on the same network, and keeps the tunnel for the others. flannel.1 is there"
            " and its MTU stays lower, since a packet may have to take the tunnel one day.",
        ),
        ("flannel Documentation/backends.md, VXLAN",),
        (Look("node", "ip route", "same network: via the node's address; else: dev {device}"),),
        aliases=("direct routing", "direct"),
        step="config",
        backends=_VXLAN,
    ),
    Lesson(
        "udp",
        "flannel's oldest backend: a tunnel in flanneld itself",
        (
            "The udp backend routes the whole overlay into flannel0, a TUN interface. flanneld"
            " reads each packet there, looks the node up in its own table and sends the packet in"
            " UDP, port 8285. The kernel has no neighbour or FDB entry for it, and every packet"
            " passes through a process, twice: it is slow. 28 bytes are put in front.",
        ),
        ("flannel Documentation/backends.md, UDP",),
        (Look("node", "ss -lunp", "the port, with flanneld behind it"),),
        aliases=("8285", "flannel0", "tun"),
        step="config",
        backends=("udp",),
    ),
)
