"""The one place where the overlay's MTU is decided."""

from __future__ import annotations

import pytest

from vxlab import labfile, mtu
from vxlab.mtu import OVERHEAD, overlay_mtu


@pytest.mark.parametrize(
    ("backend", "underlay", "overlay"),
    [
        ("vxlan", 1500, 1450),
        ("vxlan", 9000, 8950),
        ("host-gw", 1500, 1500),
        ("udp", 1500, 1472),
    ],
)
def test_what_a_backend_leaves(backend: str, underlay: int, overlay: int) -> None:
    """The talk's 1450 of 1500; plain routing takes nothing, the udp backend no Ethernet header."""
    assert overlay_mtu(underlay, backend) == overlay


def test_vxlan_costs_the_four_headers_of_the_talk() -> None:
    """Outer IPv4, outer UDP, VXLAN (RFC 7348), inner Ethernet."""
    headers = (mtu.OUTER_IPV4, mtu.OUTER_UDP, mtu.VXLAN_HEADER, mtu.INNER_ETHERNET)
    assert (headers, OVERHEAD["vxlan"]) == ((20, 8, 8, 14), 50)


def test_an_unknown_backend_has_no_mtu() -> None:
    """A number for a backend that is not known would be a guess."""
    with pytest.raises(KeyError):
        overlay_mtu(1500, "carrier-pigeon")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", 1450),
        ("underlay: {mtu: 1400}", 1350),
        ("overlay: {backend: {Type: vxlan, MTU: 1300}}", 1250),
        ("overlay: {backend: {Type: host-gw}}", 1500),
        ("overlay: {backend: {Type: udp}}", 1472),
    ],
)
def test_what_a_lab_takes(text: str, wanted: int) -> None:
    """A lab's overlay MTU follows its underlay, or the backend's own MTU option as flannel does.

    flannel takes the option as the outer MTU and subtracts its overhead from it.
    """
    assert labfile.loads(text, "test.yaml").overlay_mtu == wanted
