"""Where the overlay's MTU is decided: underlay MTU minus the backend's encapsulation overhead.

A packet that leaves a container is carried inside another packet. What is put in front of it must
fit the underlay's MTU too, or the outer packet is fragmented, or dropped when it must not be.
"""

from __future__ import annotations

OUTER_IPV4 = 20
OUTER_UDP = 8
VXLAN_HEADER = 8  # RFC 7348 section 5; the VNI is in it
INNER_ETHERNET = 14

#: Bytes that each flannel backend puts in front of the inner IP packet (flannel, Documentation/
#: backends.md). Kept by flannel's own names. The outer Ethernet header is not counted by an MTU.
OVERHEAD = {
    "vxlan": OUTER_IPV4 + OUTER_UDP + VXLAN_HEADER + INNER_ETHERNET,  # 50
    "host-gw": 0,  # plain routing: nothing is added
    "udp": OUTER_IPV4 + OUTER_UDP,  # 28: the IP packet travels in UDP, without its Ethernet header
}

#: The smallest MTU that IPv4 allows a link to have (RFC 791) is 68 bytes.
SMALLEST_MTU = 68


def overlay_mtu(underlay_mtu: int, backend: str) -> int:
    """The largest inner IP packet, in bytes, that one outer packet can carry.

    Args:
        underlay_mtu: MTU of the nodes' network interface, in bytes (1500 in the talk).
        backend: flannel's backend type, such as ``vxlan``.
    """
    return underlay_mtu - OVERHEAD[backend]
