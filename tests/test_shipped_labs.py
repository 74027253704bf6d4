"""The lab files in labs/: each comes up, verifies, and shows what its comments promise."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lablib import CHECKS, LAB, Home, cleaned, findings, leftovers, rows
from vxlab import labfile

pytestmark = LAB

LABS = Path(__file__).parents[1] / "labs"
#: The labs whose nodes are on this machine.
NAMES = sorted(path.stem for path in LABS.glob("*.yaml") if not labfile.load(path).remote)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home")
    yield home
    cleaned(home)
    assert leftovers(home.path) == []


@pytest.fixture(scope="module", params=NAMES)
def shipped(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Home, str]]:
    """Each lab of labs/, up, with its name."""
    home = Home(tmp_path_factory.mktemp(request.param) / "home")
    home.ok("up", str(LABS / f"{request.param}.yaml"))
    yield home, home.json("ls")[0]["lab"]
    cleaned(home)
    assert leftovers(home.path) == []


def test_a_shipped_lab_works(shipped: tuple[Home, str]) -> None:
    """It verifies, and a second up changes nothing."""
    home, name = shipped
    assert home.failed(name) == set()
    assert home.json("up", name)["changes"] == []
    assert home.json("status", name)["drift"] == []


@pytest.fixture
def one(place: Home, request: pytest.FixtureRequest) -> Home:
    """One lab of labs/, up; the marker `lab_file` is its name."""
    place.ok("up", str(LABS / f"{request.param}.yaml"))
    return place


@pytest.mark.parametrize("one", ["jumbo"], indirect=True)
def test_jumbo_frames_leave_8950_bytes(one: Home) -> None:
    """`ping -s 8922` fits with its 28 bytes of headers, `-s 8923` does not."""
    lab = one.json("status", "jumbo")
    first, second = (n["containers"][0] for n in lab["nodes"])
    assert first["mtu"] == 8950
    peer = second["address"].partition("/")[0]
    (edge, _) = findings(one, "edge", "jumbo")
    assert edge["seen"].startswith("8950 bytes pass, 8951 do not")
    if shutil.which("ping") is None:
        return  # busybox's, which is in the container, cannot forbid fragments
    ping = "nsenter -n -t $(sed 's/ .*//;q' /run/vxlab/machines/container01) ping -c1 -W2 -M do"
    assert "0% packet loss" in one.sh("node01", f"{ping} -s 8922 {peer}", "jumbo")
    too_long = one.sh("node01", f"{ping} -s 8923 {peer} 2>&1 || echo refused", "jumbo")
    assert "refused" in too_long


@pytest.mark.parametrize("one", ["vni-port"], indirect=True)
def test_another_vni_and_port(one: Home) -> None:
    """The interface is flannel.42, the port 4789, and both are on the wire."""
    (link,) = rows(one, "node01", "ip -j -d link show flannel.42", "vni-port")
    assert link["linkinfo"]["info_data"]["id"] == 42
    assert link["linkinfo"]["info_data"]["port"] == 4789
    (first, _) = findings(one, "encapsulation", "vni-port")
    assert first["seen"].startswith("VXLAN, VNI 42, UDP 4789, +50 bytes")


@pytest.mark.parametrize("one", ["host-gw"], indirect=True)
def test_host_gw_has_plain_routes_and_nothing_else(one: Home) -> None:
    """1500 bytes inside, a route via the other node, no VXLAN interface, FDB entry or port."""
    lab = one.json("status", "host-gw")
    assert [c["mtu"] for n in lab["nodes"] for c in n["containers"]] == [1500, 1500]
    assert rows(one, "node01", "ip -j link show type vxlan", "host-gw") == []
    (route,) = rows(one, "node01", f"ip -j route show {lab['nodes'][1]['subnet']}", "host-gw")
    assert (route["gateway"], route["dev"]) == ("192.168.56.22", "eth0")
    assert "8472" not in one.sh("node01", "ss -Haun", "host-gw")
    for finding in findings(one, "encapsulation", "host-gw"):
        assert finding["seen"].startswith("not encapsulated")
    asked = {c["code"] for c in one.json("verify", "host-gw")["checks"]}
    assert asked == set(CHECKS) - {"vtep", "socket"}


@pytest.mark.parametrize("one", ["direct-routing"], indirect=True)
def test_direct_routing_has_a_tunnel_that_nothing_goes_through(one: Home) -> None:
    """flannel.1 is there, the route goes past it, and the MTU stays 1450."""
    lab = one.json("status", "direct-routing")
    assert [c["mtu"] for n in lab["nodes"] for c in n["containers"]] == [1450, 1450]
    assert rows(one, "node01", "ip -j link show flannel.1", "direct-routing") != []
    subnet = lab["nodes"][1]["subnet"]
    (route,) = rows(one, "node01", f"ip -j route show {subnet}", "direct-routing")
    assert (route["gateway"], route["dev"]) == ("192.168.56.22", "eth0")
    for finding in findings(one, "encapsulation", "direct-routing"):
        assert finding["seen"].startswith("not encapsulated")


@pytest.mark.parametrize("one", ["four-node"], indirect=True)
def test_tables_grow_with_the_nodes(one: Home) -> None:
    """Per node three routes, three neighbour and three FDB entries; eight containers reach all."""
    lab = one.json("status", "four-node")
    names = [[c["name"] for c in n["containers"]] for n in lab["nodes"]]
    assert names[0] == ["container01", "container01-2"]
    assert names[3] == ["web", "db"]
    hosts = [
        c["address"].split("/")[0].split(".")[-1] for n in lab["nodes"] for c in n["containers"]
    ]
    assert hosts == ["10", "11"] * 4
    for node in ("node01", "node02", "node03", "node04"):
        for command in ("ip -j route", "ip -j neigh", "bridge -j fdb"):
            shown = rows(one, node, f"{command} show dev flannel.1", "four-node")
            assert len([row for row in shown if row.get("state") != []]) == 3, (node, command)
    reached = [f["seen"] for f in findings(one, "pairs", "four-node")]
    assert len(reached) == 8
    assert all(words.startswith("reaches 7 of 7 others") for words in reached)


@pytest.mark.parametrize("path", ["ssh-two-hosts.yaml", "vms/vagrant.yaml"])
def test_labs_of_real_hosts(path: str) -> None:
    """They load, two hosts each, with mutual TLS; nothing here can bring them up."""
    lab = labfile.load(LABS / path)
    assert (lab.remote, lab.tls, len(lab.nodes)) == (True, True, 2)
