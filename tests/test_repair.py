"""One thing is damaged in a running lab: `status` names it, `verify` fails, `up` repairs it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from lablib import LAB, Home, cleaned, leftovers, told
from vxlab import binaries

pytestmark = LAB


@dataclass(frozen=True)
class Damage:
    """What is done where, what `status` says then, and which checks fail.

    `where` is the node that `status` names; `script` runs in `place`. Pings and captures may fail
    besides, or still go through by an ARP entry that has not expired.
    """

    place: str
    script: str
    where: str
    says: str
    fails: frozenset[str]


def _kill(kind: str, name: str) -> str:
    """Kills what the node recorded as its daemon or machine, and waits until it is gone."""
    record = f"/run/vxlab/{kind}/{name}"
    return f"read -r p _ <{record}; kill -9 $p; while [ -e /proc/$p ]; do sleep 0.01; done"


def _damage(place: str, script: str, says: str, *fails: str, where: str = "") -> Damage:
    return Damage(place, script, where or place, says, frozenset(fails))


_TRAFFIC = ("pairs", "edge", "encapsulation")
_UNREACHED = ("pairs", "edge")

DAMAGES = {
    "flanneld killed": _damage("node01", _kill("daemons", "flannel"), "flannel (PID", "daemons"),
    "etcd killed": _damage(
        "node01", _kill("daemons", "etcd"), "etcd (PID", "daemons", "etcd", "lease", "entries"
    ),
    "container's PID 1 killed": _damage(
        "node01",
        _kill("machines", "container01"),
        "container01's PID 1",
        "daemons",
        "lease",
        "mtu",
        "gateway",
        *_UNREACHED,
    ),
    "node's PID 1 killed": _damage(
        "switch",
        _kill("machines", "node02"),
        "node02's PID 1",
        "daemons",
        "lease",
        "gateway",
        "vtep",
        "entries",
        "socket",
        "forwarding",
        "mtu",
        *_UNREACHED,
    ),
    "etcd's node killed": _damage(
        "switch",
        _kill("machines", "node01"),
        "node01's PID 1",
        "daemons",
        "etcd",
        "gateway",
        "lease",
        "vtep",
        "entries",
        "socket",
        "forwarding",
        "mtu",
        *_UNREACHED,
    ),
    "switch deleted": _damage("switch", "ip link del switch", "switch does not exist", *_UNREACHED),
    "node's cable deleted": _damage(
        "switch",
        "ip link del node02",
        "node02 does not exist",
        "mtu",
        "vtep",  # flannel.1 goes with the interface below it
        "entries",
        "socket",
        *_UNREACHED,
    ),
    "node's port pulled out": _damage(
        "switch", "ip link set node02 nomaster", "node02's bridge is unset", *_UNREACHED
    ),
    "bridge deleted": _damage(
        "node01", "ip link del cbr0", "cbr0 does not exist", "lease", "mtu", "gateway", *_UNREACHED
    ),
    "bridge down": _damage(
        "node01", "ip link set cbr0 down", "cbr0 is down", "gateway", *_UNREACHED
    ),
    "container's cable deleted": _damage(
        "node01",
        "ip link del vethlocal",
        "vethlocal does not exist",
        "lease",
        "mtu",
        "gateway",
        *_UNREACHED,
    ),
    "VTEP deleted": _damage(
        "node01",
        "ip link del flannel.1",
        "flannel",  # "flannel.1 does not exist", or it took flanneld with it
        "daemons",
        "vtep",
        "entries",
        "socket",
        "mtu",
        *_UNREACHED,
    ),
    "VTEP on another port": _damage(
        "node01",
        _kill("daemons", "flannel")  # a live one may make its own in between
        + "; ip link del flannel.1; ip link add flannel.1 mtu 1450 type vxlan id 1"
        " local 192.168.56.21 dev eth0 dstport 4789 nolearning; ip link set flannel.1 up",
        "flannel.1 has VNI 1 and port 4789, wanted 1 and 8472",
        "daemons",
        "vtep",
        "entries",
        "socket",
        *_UNREACHED,
    ),
    "VTEP down": _damage(
        "node01",
        "ip link set flannel.1 down",
        "flannel.1 is down",
        "vtep",
        "entries",
        "socket",
        *_UNREACHED,
    ),
    "FDB entry deleted": _damage(
        "node01",
        "set -- $(bridge fdb show dev flannel.1 | grep 192.168.56.22);"
        " bridge fdb del $1 dev flannel.1 dst 192.168.56.22",
        "no FDB entry",
        "entries",
        *_UNREACHED,
    ),
    "neighbour entry deleted": _damage(
        "node01",
        "set -- $(ip neigh show dev flannel.1 | grep PERMANENT); ip neigh del $1 dev flannel.1",
        "no neighbour entry",
        "entries",
        *_UNREACHED,
    ),
    "overlay route deleted": _damage(
        "node02",
        "set -- $(ip route show dev flannel.1); ip route del $1 dev flannel.1",
        "no route to 10.5.",
        "entries",
        *_UNREACHED,
    ),
    "container's default route deleted": _damage(
        "container02",
        "ip route del default",
        "no route to default",
        *_UNREACHED,
        where="node02",
    ),
    "container's default route wrong": _damage(
        "container02",
        "ip route del default;"
        " ip route add default via $(ip route | sed 's/.*src //;s/.10 *$/.99/')",
        "the route to default is via",
        *_UNREACHED,
        where="node02",
    ),
    "MTU of the container's cable": _damage(
        "node01", "ip link set vethlocal mtu 1400", "vethlocal's MTU is 1400", "mtu", "edge"
    ),
    "MTU in the container": _damage(
        "container01",
        "ip link set vethNS mtu 1500",
        "vethNS's MTU is 1500",
        "mtu",
        where="node01",
    ),
    "MTU of the underlay": _damage(
        "node02", "ip link set eth0 mtu 1400", "eth0's MTU is 1400", "mtu", "edge"
    ),
    "forwarding off": _damage(
        "node01",
        "echo 0 >/proc/sys/net/ipv4/ip_forward",
        "net.ipv4.ip_forward is 0",
        "forwarding",
        *_UNREACHED,
    ),
    "underlay down": _damage("node01", "ip link set eth0 down", "eth0 is down", *_UNREACHED),
    "wrong underlay address": _damage(
        "node02",
        "ip addr del 192.168.56.22/24 dev eth0; ip addr add 192.168.56.99/24 dev eth0",
        "eth0's address is 192.168.56.99/24",
        *_UNREACHED,
    ),
    "wrong container address": _damage(
        "container01",
        "ip addr flush dev vethNS; ip addr add 10.5.255.77/24 dev vethNS",
        "vethNS's address is 10.5.255.77/24",
        "lease",
        "gateway",
        *_UNREACHED,
        where="node01",
    ),
    "second bridge address": _damage(
        "node01", "ip addr add 10.99.0.1/24 dev cbr0", "cbr0's address is", "lease"
    ),
    "mark removed": _damage("node01", "ip link set cbr0 alias other", "cbr0's alias is other", *()),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """One lab for all: each damage is repaired before the next."""
    place = Home(tmp_path_factory.mktemp("repair") / "home")
    place.ok("up")
    yield place
    cleaned(place)
    assert leftovers(place.path) == []


@pytest.fixture
def lab(home: Home) -> Iterator[Home]:
    """The common lab, whole again at the end, so that one failure is not the next test's."""
    yield home
    if home("status").returncode:
        home("teardown", "--force")
        home.ok("up")


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damage_is_named_and_repaired(lab: Home, name: str) -> None:
    """`status` and `verify` exit 1 for the right reason; `up` says what it did and all is well."""
    damage = DAMAGES[name]
    lab.sh(damage.place, damage.script)

    status = lab("status")
    assert status.returncode == 1, told(status)
    drift = lab.json("status")["drift"]
    named = [d for d in drift if damage.says in d["reason"]]
    assert [d["node"] for d in named[:1]] == [damage.where], drift
    assert damage.says in status.stdout

    failed = lab.failed()
    assert damage.fails <= failed <= {*damage.fails, *_TRAFFIC}

    repaired = lab("up")
    assert repaired.returncode == 0, told(repaired)
    assert "repaired" in repaired.stdout
    assert damage.says in repaired.stdout
    assert lab.failed() == set()
    assert lab("status").returncode == 0
    assert lab.json("up")["changes"] == []


def test_flannels_configuration_is_put_back(lab: Home) -> None:
    """`status` does not ask etcd; `verify` does, and `up` writes the configuration again."""
    etcdctl = binaries.find(lambda line: None).etcdctl
    if etcdctl is None:
        pytest.skip("there is no etcdctl")
    key = "/coreos.com/network/config"
    lab.sh("node01", f'ETCDCTL_API=3 {etcdctl.path} put {key} \'{{"Network": "10.9.0.0/16"}}\'')
    assert lab.failed() == {"etcd"}
    (change,) = lab.json("up")["changes"]
    assert change["step"] == "config"
    assert key in change["reason"]
    assert lab.failed() == set()
    assert lab.json("up")["changes"] == []
