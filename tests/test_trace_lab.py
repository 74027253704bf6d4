"""`vxlab trace` on real labs: each kind of journey, and each kind of loss marked and explained."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lablib import LAB, Home, cleaned, one_error, told
from test_journey_report import tshark_rows_agree

pytestmark = LAB

LABS = Path(__file__).parents[1] / "labs"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """The talk's lab, which every test leaves as it found it."""
    place = Home(tmp_path_factory.mktemp("trace") / "home")
    place.ok("up")
    yield place
    cleaned(place)


@pytest.fixture
def lab(home: Home) -> Iterator[Home]:
    """The talk's lab, healthy; what a test did to it is repaired."""
    yield home
    home.ok("up")
    deadline = time.monotonic() + 10
    while home("trace", "container01", "container02", "--timeout", "0.3").returncode:
        assert time.monotonic() < deadline, "the lab was not repaired"


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Home]:
    """A place for another lab."""
    place = Home(tmp_path / "home")
    yield place
    cleaned(place)


def trace(home: Home, *words: str, code: int = 0) -> Any:
    """What `vxlab trace --json` found."""
    completed = home("trace", *words, "--json")
    assert completed.returncode == code, told(completed)
    return json.loads(completed.stdout)


def hops(leg: Any) -> list[str]:
    return [stop["hop"] for stop in leg["stops"]]


def kinds(leg: Any) -> list[str]:
    return [change["kind"] for stop in leg["stops"] for change in stop["changes"]]


THERE = [
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

PROBES = {
    "icmp": [],
    "udp": ["--udp", "9999"],
    "tcp": ["--tcp", "9999"],
    "df": ["--size", "1422", "--df"],
}


@pytest.mark.parametrize("words", PROBES.values(), ids=PROBES.keys())
def test_there_and_back(home: Home, words: list[str]) -> None:
    """Ten hops there, ten back, encapsulated on the underlay only; every table entry is named."""
    found = trace(home, "container01", "container02", *words)
    (journey,) = found["journeys"]
    request, answer = journey["legs"]
    assert (hops(request), hops(answer)) == (THERE, THERE[::-1])
    assert (found["ok"], found["dropped"], request["encapsulated"]) == (True, 0, True)
    assert kinds(request) == ["ttl", "macs", "encapsulated", "decapsulated", "ttl", "macs"]
    stops = {stop["hop"]: stop for stop in request["stops"]}
    assert [e["kind"] for e in stops["node01:flannel.1"]["why"]] == ["route", "neighbour"]
    assert [e["kind"] for e in stops["node01:eth0"]["why"]][:2] == ["fdb", "route"]
    outer = stops["node01:eth0"]["frames"][0]["outer"]
    assert (outer["src"], outer["dst"], outer["vni"], outer["udp_dport"]) == (
        "192.168.56.21",
        "192.168.56.22",
        1,
        8472,
    )
    times = [stop["since_start_us"] for leg in journey["legs"] for stop in leg["stops"]]
    assert times == sorted(times)


def test_many_probes_go_the_same_way(home: Home) -> None:
    """Each has a journey of its own in JSON; the tree tells it once."""
    found = trace(home, "container01", "container02", "--count", "3")
    assert [hops(j["legs"][0]) == THERE for j in found["journeys"]] == [True] * 3
    printed = home.ok("trace", "container01", "container02", "--count", "300")
    assert "all 300 answered" in printed
    assert "captured 6000 frames at 10 hops, 0 dropped" in printed
    assert "others went the same way" in printed


def test_the_gateway(home: Home) -> None:
    """The bridge answers itself: nothing leaves the node."""
    found = trace(home, "container01", "gateway")
    request, answer = found["journeys"][0]["legs"]
    assert (hops(request), hops(answer)) == (THERE[:3], THERE[2::-1])
    assert found["expected"] == "no VXLAN: both are on node01, nothing leaves the node"


def test_a_node_and_its_address(home: Home) -> None:
    """Plain on the way there; the answer comes through VXLAN."""
    for target in ("node02", "192.168.56.22"):
        found = trace(home, "container01", target)
        request, answer = found["journeys"][0]["legs"]
        assert hops(request) == [*THERE[:3], "node01:eth0", "node02:eth0"]
        assert (request["encapsulated"], answer["encapsulated"]) == (False, True)
        assert found["target"]["place"] == "node02"


def test_fragments(home: Home) -> None:
    """A packet longer than the MTU goes in pieces, each encapsulated."""
    found = trace(home, "container01", "container02", "--size", "3000")
    request = found["journeys"][0]["legs"][0]
    assert [len(stop["frames"]) for stop in request["stops"]] == [3] * 10
    assert kinds(request)[0] == "fragmented"


def test_too_long_and_not_to_be_cut(home: Home) -> None:
    """The container's own kernel refuses; no hop sees anything."""
    found = trace(home, "container01", "container02", "--size", "1423", "--df", code=1)
    (journey,) = found["journeys"]
    assert (journey["legs"], journey["refused"]) == ([], "Message too long, mtu=1450")


def test_masquerading(lab: Home) -> None:
    """The way out: the source becomes the node's; the answer is turned back by conntrack."""
    rule = "POSTROUTING -s 10.5.0.0/16 ! -d 10.5.0.0/16 -j MASQUERADE"
    lab.sh("node01", f"iptables -t nat -A {rule}")
    try:
        found = trace(lab, "container01", "192.168.56.22")
    finally:
        lab.sh("node01", f"iptables -t nat -D {rule}")
    request, answer = found["journeys"][0]["legs"]
    assert ("source" in kinds(request), "destination" in kinds(answer)) == (True, True)
    assert "nat" in [e["kind"] for stop in answer["stops"] for e in stop["why"]]


def test_outer_fragments(lab: Home) -> None:
    """The underlay carries less than the outer packet has: VXLAN's packet itself is cut."""
    for node in ("node01", "node02"):
        lab.sh(node, "ip link set eth0 mtu 1400")
    found = trace(lab, "container01", "container02", "--size", "1422")
    request = found["journeys"][0]["legs"][0]
    assert hops(request) == THERE
    assert [len(stop["frames"]) for stop in request["stops"]] == [1, 1, 1, 1, 2, 2, 1, 1, 1, 1]
    assert kinds(request)[2:4] == ["encapsulated", "fragmented"]


# --- losses -------------------------------------------------------------------------------------

# flannel leaves the entries of VTEPs that are no more: there may be several.
FDB = "bridge fdb show dev flannel.1 | while read -r m _; do bridge fdb del $m dev flannel.1; done"
ROUTE = "ip route del $(ip route show dev flannel.1 | cut -d' ' -f1)"
OTHER_VTEP = (
    "ip link del flannel.1; ip link add flannel.1 type vxlan {} local 192.168.56.22 dev eth0; "
    "ip link set flannel.1 up"
)
# flanneld takes over a device with another port as it is.
NO_VTEP = "ip link del flannel.1"
DROP = "iptables -{} FORWARD {} -p icmp -j DROP"

#: node, damage, its undoing if `vxlab up` does not, index of the leg, last hop, code, text
LOSSES = {
    "flannel.1 down": (
        "node01", "ip link set flannel.1 down", "",
        0, "node01:cbr0", "no-route", "flannel.1 is down",
    ),
    "the peer's flannel.1 down": (
        "node02", "ip link set flannel.1 down", "",
        0, "node02:eth0", "link-down", "flannel.1 is down",
    ),
    "FDB entry deleted": ("node01", FDB, "", 0, "node01:flannel.1", "no-fdb", "no FDB entry"),
    "the peer's FDB entry deleted": (
        "node02", FDB, "", 1, "node02:flannel.1", "no-fdb", "no FDB entry"
    ),
    "neighbour entry deleted": (
        "node01", "ip neigh flush dev flannel.1 nud permanent", "",
        0, "node01:cbr0", "no-neighbour", "no neighbour entry",
    ),
    "route deleted": ("node01", ROUTE, "", 0, "node01:cbr0", "no-route", "node01 has no route"),
    "the peer's route deleted": (
        "node02", ROUTE, "", 1, "node02:cbr0", "no-route", "node02 has no route"
    ),
    "forwarding off": (
        "node01", "sysctl -qw net.ipv4.ip_forward=0", "",
        0, "node01:cbr0", "forwarding", "ip_forward = 0",
    ),
    "the peer's forwarding off": (
        "node02", "sysctl -qw net.ipv4.ip_forward=0", "",
        0, "node02:flannel.1", "forwarding", "ip_forward = 0",
    ),
    "iptables drops": (
        "node01", DROP.format("I", "1"), DROP.format("D", ""),
        0, "node01:cbr0", "iptables", "-A FORWARD -p icmp -j DROP",
    ),
    "the peer's iptables drops": (
        "node02", DROP.format("I", "1"), DROP.format("D", ""),
        0, "node02:flannel.1", "iptables", "-A FORWARD -p icmp -j DROP",
    ),
    "VTEP gone": (
        "node02", "ip link del flannel.1", "", 0, "node02:eth0", "no-vtep", "no VTEP for VNI 1"
    ),
    "other VNI": (
        "node02", OTHER_VTEP.format("id 7 dstport 8472"), NO_VTEP,
        0, "node02:eth0", "no-vtep", "flannel.1 has VNI 7",
    ),
    "other port": (
        "node02", OTHER_VTEP.format("id 1 dstport 4789"), NO_VTEP,
        0, "node02:eth0", "no-vtep", "on UDP 4789",
    ),
    "the peer's NIC down": (
        "node02", "ip link set eth0 down", "",
        0, "node01:eth0", "link-down", "eth0 is down on node02",
    ),
    "the switch's port down": (
        "switch", "ip link set node02 down", "",
        0, "node01:eth0", "link-down", "the switch's port to node02 is down",
    ),
    "no way back from the container": (
        "container02", "ip route del default", "", 1, None, "no-route", "container02 has no route"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LOSSES)
def test_a_loss_is_marked_and_explained(lab: Home, case: str) -> None:
    """The last hop that saw it, and the reason from tables and counters."""
    place, damage, undo, leg, last, code, text = LOSSES[case]
    lab.sh(place, damage)
    try:
        found = trace(lab, "container01", "container02", "--timeout", "0.3", code=1)
    finally:
        if undo:
            lab.sh(place, undo)
    legs = [x for x in found["journeys"][0]["legs"] if x["role"] != "error"]
    assert (len(legs), legs[leg]["arrived"], legs[leg]["last_seen"]) == (leg + 1, False, last)
    assert legs[leg]["reasons"][0]["code"] == code
    assert text in legs[leg]["reasons"][0]["text"]
    if last is not None:
        whole = THERE if leg == 0 else THERE[::-1]
        assert legs[leg]["missed"] == whole[whole.index(last) + 1 :]


def test_an_mtu_on_the_way_is_the_reason(lab: Home) -> None:
    """The container thinks that 1500 bytes fit; its node's tunnel does not take them."""
    lab.sh("container01", "ip link set vethNS mtu 1500")
    lab.sh("node01", "ip link set vethlocal mtu 1500; ip link set cbr0 mtu 1500")
    # First without don't-fragment: the error would teach the container the path's MTU.
    cut = trace(lab, "container01", "container02", "--size", "1472")["journeys"][0]["legs"][0]
    assert [len(stop["frames"]) for stop in cut["stops"]] == [1, 1, 1, *[2] * 7]
    found = trace(lab, "container01", "container02", "--size", "1472", "--df", code=1)
    request, error = found["journeys"][0]["legs"]
    assert (request["last_seen"], error["role"], error["arrived"]) == ("node01:cbr0", "error", True)
    assert [r["code"] for r in request["reasons"]] == ["mtu", "icmp"]
    assert "mtu=1450" in request["reasons"][1]["text"]


def test_no_way_out_of_the_lab(home: Home) -> None:
    """The node has no default route; it says so, and so does the trace."""
    found = trace(home, "container01", "203.0.113.9", code=1)
    request = found["journeys"][0]["legs"][0]
    assert (request["last_seen"], request["reasons"][0]["code"]) == ("node01:cbr0", "no-route")


# --- other labs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("host-gw", "host-gw sets plain routes from node to node"),
        ("direct-routing", "DirectRouting, since the nodes share a network"),
    ],
)
def test_labs_without_encapsulation(other: Home, name: str, says: str) -> None:
    """From NIC to NIC, and it says why."""
    other.ok("up", str(LABS / f"{name}.yaml"))
    found = trace(other, "container01", "container02")
    request, answer = found["journeys"][0]["legs"]
    plain = [h for h in THERE if "flannel" not in h]
    assert (hops(request), hops(answer)) == (plain, plain[::-1])
    assert (request["encapsulated"], "encapsulated" in kinds(request)) == (False, False)
    assert found["expected"] == f"no encapsulation: {says}"


def test_containers_of_one_node(other: Home) -> None:
    """Bridged from port to port, without VXLAN, and without cbr0 itself."""
    other.ok("up", str(LABS / "four-node.yaml"))
    found = trace(other, "container01", "container01-2")
    request = found["journeys"][0]["legs"][0]
    assert hops(request) == [
        "node01/container01:vethNS",
        "node01:vethlocal",
        "node01:vethlocal2",
        "node01/container01-2:vethNS",
    ]
    assert found["expected"].startswith("no VXLAN: both are on node01")
    far = trace(other, "node02/container02", "web")["journeys"][0]["legs"][0]
    assert (len(far["stops"]), far["stops"][-1]["hop"]) == (10, "node04/web:vethNS")


def test_another_vni_and_port(other: Home) -> None:
    """The outer headers are the lab's own."""
    other.ok("up", str(LABS / "vni-port.yaml"))
    request = trace(other, "container01", "container02")["journeys"][0]["legs"][0]
    wrapped = request["stops"][4]["changes"][0]
    assert (wrapped["vni"], wrapped["udp_dport"], wrapped["overhead"]) == (42, 4789, 50)


def test_flannels_udp_backend(other: Home, tmp_path: Path) -> None:
    """flanneld carries the packets: flannel0 has no Ethernet header, and it counts the TTL, too."""
    file = tmp_path / "udp.yaml"
    file.write_text("name: udp\noverlay: {backend: {Type: udp}}\n")
    other.ok("up", str(file))
    found = trace(other, "container01", "container02")
    request = found["journeys"][0]["legs"][0]
    assert hops(request) == [h.replace("flannel.1", "flannel0") for h in THERE]
    assert request["stops"][4]["changes"][0]["overhead"] == 28


# --- the command --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("node01", "container02"), "'node01' is no container"),
        (("container01", "nowhere"), "no node or container 'nowhere'"),
        (("container01", "switch"), "the switch has no address"),
        (("container01", "container02", "--tcp", "1", "--udp", "2"), "do not go together"),
        (("container01", "container02", "--tcp", "1", "--size", "99"), "--size does not go"),
    ],
)
def test_what_makes_no_sense(home: Home, words: tuple[str, ...], says: str) -> None:
    """One error, exit code 64."""
    assert says in one_error(home("trace", *words), 64)


KILL = "read -r p _ </run/vxlab/machines/{0}; kill -9 $p; while [ -e /proc/$p ]; do :; done"


def test_a_container_that_does_not_run(lab: Home) -> None:
    """As the source it is an error; as the target the loss is explained."""
    lab.sh("node02", KILL.format("container02"))
    found = trace(lab, "container01", "container02", "--timeout", "0.3", code=1)
    request = found["journeys"][0]["legs"][0]
    assert request["last_seen"] in ("node02:flannel.1", "node02:cbr0")
    assert request["reasons"][0]["text"] == f"nobody at cbr0 has {request['dst']}"
    unseen = {h["hop"]: h["error"] for h in found["hops"] if h["error"]}
    assert unseen["node02/container02:vethNS"] == "node02/container02 does not run"
    said = one_error(lab("trace", "container02", "container01"), 70)
    assert "container02 does not run" in said


def test_the_tree_marks_the_loss(lab: Home) -> None:
    """What a person sees."""
    lab.sh("node01", FDB)
    completed = lab("trace", "container01", "container02", "--timeout", "0.3")
    assert completed.returncode == 1
    assert "└─ lost: node01:flannel.1 is the last hop that saw it" in completed.stdout
    assert "lost: the packet was last seen at node01:flannel.1" in completed.stdout


@pytest.mark.skipif(shutil.which("tshark") is None, reason="TSHARK TESTS DID NOT RUN: no tshark")
@pytest.mark.parametrize(
    "words", [(), ("--size", "3000"), ("--udp", "9999"), ("--tcp", "80", "--count", "2")], ids=str
)
def test_tshark_reads_the_same_off_the_wire(
    home: Home, words: tuple[str, ...], tmp_path: Path
) -> None:
    """Every frame at every hop of a real trace, field by field."""
    file = tmp_path / "trace.pcapng"
    found = trace(home, "container01", "container02", "--pcap", str(file), *words)
    assert tshark_rows_agree(found, file) >= 20
