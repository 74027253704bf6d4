"""The interfaces that packets pass: their names, their order, and words that mean them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vxlab import labfile
from vxlab.errors import UsageError
from vxlab.lab import Lab
from vxlab.trace import hops
from vxlab.trace.hops import Hop

LAB = labfile.default()

FOUR = [
    "node01/container01:vethNS",
    "node01:vethlocal",
    "node01:cbr0",
    "node01:flannel.1",
    "node01:eth0",
    "node02:eth0",
    "node02:flannel.1",
    "node02:cbr0",
    "node02:vethlocal",
    "node02/container02:vethNS",
]


def lab_of(backend: dict[str, str | int | bool]) -> Lab:
    return replace(LAB, overlay=replace(LAB.overlay, backend=backend))


def two_on_a_node() -> Lab:
    text = "nodes:\n  node01: {containers: [one, two]}\n  node02: {containers: [one]}\n"
    return labfile.loads(text, "lab.yaml")


def parsed(*words: str, lab: Lab = LAB) -> list[str]:
    return [hop.name for hop in hops.parse(lab, words)]


def test_a_packet_passes_ten_hops_from_container_to_container() -> None:
    """The talk's way: out of one node's container, down to the underlay, and up on the other."""
    first, second = LAB.containers
    assert [hop.name for hop in hops.path(LAB, first, second)] == FOUR


def test_the_way_back_is_the_way_there_from_the_other_side() -> None:
    """Nothing about the path depends on which node comes first in the lab."""
    first, second = LAB.containers
    back = [hop.name for hop in hops.path(LAB, second, first)]
    assert back == FOUR[::-1]


@pytest.mark.parametrize("backend", [{"Type": "host-gw"}, {"Type": "vxlan", "DirectRouting": True}])
def test_without_encapsulation_the_overlay_interface_is_not_passed(
    backend: dict[str, str | int | bool],
) -> None:
    """host-gw has none, and with DirectRouting packets go around it."""
    lab = lab_of(backend)
    there = hops.path(lab, *lab.containers)
    assert [hop.name for hop in there] == [name for name in FOUR if "flannel" not in name]


def test_flannels_udp_backend_has_a_device_without_ethernet() -> None:
    """flannel0 is a tun device: what passes it begins with an IP header."""
    lab = lab_of({"Type": "udp"})
    there = hops.path(lab, *lab.containers)
    assert [hop.interface for hop in there if hops.without_ethernet(lab, hop)] == ["flannel0"] * 2


def test_within_a_node_packets_are_bridged() -> None:
    """Between two ports of cbr0: neither cbr0 itself nor the overlay sees them."""
    lab = two_on_a_node()
    one, two = lab.containers[:2]
    names = [hop.name for hop in hops.path(lab, one, two)]
    assert names == [
        "node01/one:vethNS",
        "node01:vethlocal",
        "node01:vethlocal2",
        "node01/two:vethNS",
    ]


def test_all_are_the_hops_of_every_path() -> None:
    """Nothing that a packet passes is left out."""
    assert sorted(parsed("all")) == sorted(FOUR)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("node01", ["node01:eth0"]),
        ("node01:flannel.1", ["node01:flannel.1"]),
        ("node01:lo", ["node01:lo"]),
        ("node01:all", ["node01:eth0", "node01:flannel.1", "node01:cbr0", "node01:vethlocal"]),
        ("container02", ["node02/container02:vethNS"]),
        ("node02/container02", ["node02/container02:vethNS"]),
        ("container02:lo", ["node02/container02:lo"]),
        ("all:cbr0", ["node01:cbr0", "node02:cbr0"]),
        ("all:vethNS", ["node01/container01:vethNS", "node02/container02:vethNS"]),
        ("switch", ["switch:node01", "switch:node02"]),
        ("switch:node02", ["switch:node02"]),
    ],
)
def test_a_word_means_hops(word: str, expected: list[str]) -> None:
    """A node is its underlay interface, a container its own end of the cable."""
    assert parsed(word) == expected


def test_hops_that_are_named_twice_are_captured_once() -> None:
    """In the order in which they were named first."""
    assert parsed("node02", "all:eth0", "node02:eth0") == ["node02:eth0", "node01:eth0"]


@pytest.mark.parametrize(
    ("word", "message", "hint"),
    [
        ("nod01", "no node or container 'nod01'", "did you mean node01"),
        ("nod01:cbr0", "no node or container 'nod01'", "did you mean node01:cbr0"),
        ("flannel.1", "no node or container", "did you mean node01:flannel.1, or all:flannel.1?"),
        ("elsewhere", "no node or container 'elsewhere'", "such as node01, node01:flannel.1"),
        ("all:flanel.1", "has an interface 'flanel.1'", "did you mean all:flannel.1?"),
        ("all:x", "has an interface 'x'", "there are eth0, flannel.1, cbr0"),
        ("node01:", "'' cannot be an interface", "such as node01"),
        ("node01:a name", "'a name' cannot be an interface", "such as node01"),
        ("node01:sixteen-letters-", "cannot be an interface", "such as node01"),
        ("node01:../x", "cannot be an interface", "such as node01"),
    ],
)
def test_a_word_that_means_nothing_is_told_with_what_is_near(
    word: str, message: str, hint: str
) -> None:
    """One error, that names the word and what may have been meant."""
    with pytest.raises(UsageError) as raised:
        hops.parse(LAB, [word])
    assert message in raised.value.message
    assert raised.value.hint.startswith(hint)


def test_a_name_that_two_containers_share_needs_the_node() -> None:
    """The error lists them."""
    with pytest.raises(UsageError, match="'one' may be any of node01/one, node02/one"):
        hops.parse(two_on_a_node(), ["one"])


def test_places_are_told_from_other_words() -> None:
    """What the command line needs to know where the filter begins."""
    words = ["node01", "node01:x", "container01", "all", "all:lo", "switch"]
    assert [word for word in [*words, "icmp", "host", "(tcp", ""] if hops.is_place(LAB, word)] == (
        words
    )


def test_every_hop_is_described() -> None:
    """For Wireshark's list of interfaces; one that is not the lab's has no description."""
    told = {hop.name: hops.described(LAB, hop) for hop in hops.parse(LAB, ["node01:all", "switch"])}
    assert told == {
        "node01:eth0": "node01's interface on the underlay",
        "node01:flannel.1": "node01's VTEP of VNI 1",
        "node01:cbr0": "node01's bridge, the containers' gateway",
        "node01:vethlocal": "node01's end of the cable to container01",
        "switch:node01": "the switch's port to node01",
        "switch:node02": "the switch's port to node02",
    }
    assert hops.described(LAB, hops.inside(LAB.containers[0])) == "container01's end of its cable"
    assert hops.described(LAB, Hop("node01", "", "lo")) == ""
