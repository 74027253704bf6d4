"""netlink and the shell program do the same, and refuse the same.

Each operation is carried out by `vxlab.netlink` on one fresh node and by `vxlab.script` on another;
what iproute2 then prints about both must be equal, interface indexes included.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

import pytest

import kernel
from kernel import (
    BRIDGE,
    CABLE,
    DEFAULT,
    INSIDE,
    KERNEL,
    NEAR,
    Case,
    Place,
    by_netlink,
    by_script,
    differences,
    in_child,
    raw,
    settled,
)
from vxlab import labfile, netlink, ops
from vxlab.errors import OperationError
from vxlab.nodes.local import LocalNode
from vxlab.ops import Op
from vxlab.state import State, SubnetEnv
from vxlab.steps import BY_NAME
from vxlab.steps.site import SWITCH

pytestmark = KERNEL

programs, directory, place = kernel.programs, kernel.directory, kernel.place

ADDRESSED = (
    BRIDGE,
    ops.AddAddress(name="cbr0", address="10.5.1.1/24"),
    ops.SetUp(name="cbr0"),
)


DONE = (
    Case(BRIDGE),
    Case(ops.AddBridge(name="cbr0", ns="demo")),
    Case(CABLE),
    Case(ops.AddVeth(name="one", peer="other", peer_ns="second", ns="demo")),
    Case(ops.DelLink(name="cbr0"), (BRIDGE,)),
    Case(ops.DelLink(name="vethlocal"), (CABLE,)),
    Case(ops.DelLink(name="vethNS", ns="demo"), (CABLE,)),
    Case(ops.DelLink(name="missing")),
    Case(ops.DelLink(name="missing", ns="demo")),
    Case(ops.SetMaster(name="vethlocal", master="cbr0"), (BRIDGE, CABLE)),
    Case(
        ops.SetMaster(name="vethlocal", master=""),
        (BRIDGE, CABLE, ops.SetMaster(name="vethlocal", master="cbr0")),
    ),
    Case(ops.SetMtu(name="cbr0", mtu=1450), (BRIDGE,)),
    Case(ops.SetMtu(name="vethlocal", mtu=65535), (CABLE,)),
    Case(ops.SetMtu(name="vethNS", mtu=68, ns="demo"), (CABLE,)),
    Case(ops.SetUp(name="lo")),
    Case(ops.SetUp(name="lo", ns="demo")),
    Case(ops.SetUp(name="vethlocal"), INSIDE),
    Case(ops.SetUp(name="cbr0", up=False), ADDRESSED),
    Case(ops.SetMac(name="vethlocal", mac="02:00:c0:a8:38:15"), (CABLE,)),
    Case(ops.SetMac(name="vethNS", mac="02:00:c0:a8:38:15", ns="demo"), (CABLE,)),
    Case(ops.SetAlias(name="cbr0", alias="vxlab:talk"), (BRIDGE,)),
    Case(ops.SetAlias(name="vethNS", alias="a lab's 'own' \"cable\"", ns="demo"), (CABLE,)),
    Case(ops.SetAlias(name="cbr0", alias=""), (BRIDGE, ops.SetAlias(name="cbr0", alias="old"))),
    Case(ops.AddAddress(name="cbr0", address="10.5.1.1/24"), (BRIDGE,)),
    Case(ops.AddAddress(name="cbr0", address="10.5.1.2/24"), ADDRESSED),
    Case(ops.AddAddress(name="cbr0", address="10.5.1.0/32"), (BRIDGE, ops.SetUp(name="cbr0"))),
    Case(ops.AddAddress(name="vethNS", address="10.5.1.10/24", ns="demo"), (CABLE,)),
    Case(ops.DelAddress(name="cbr0", address="10.5.1.1/24"), ADDRESSED),
    Case(ops.DelAddress(name="vethNS", address="10.5.1.10/24", ns="demo"), INSIDE),
    Case(DEFAULT, INSIDE),
    Case(ops.AddRoute(dst="10.5.2.0/24", via="10.5.1.2", dev="cbr0"), ADDRESSED),
    Case(ops.AddRoute(dst="10.5.2.7/32", via="10.5.1.2", dev="cbr0"), ADDRESSED),
    Case(ops.AddRoute(dst="10.5.2.0/24", via="", dev="cbr0"), ADDRESSED),
    Case(ops.DelRoute(dst="default", via="10.5.1.1", dev="vethNS", ns="demo"), (*INSIDE, DEFAULT)),
    Case(
        ops.DelRoute(dst="10.5.2.0/24", via="10.5.1.2", dev="cbr0"),
        (*ADDRESSED, ops.AddRoute(dst="10.5.2.0/24", via="10.5.1.2", dev="cbr0")),
    ),
    Case(ops.DelRoute(dst="10.5.1.0/24", via="", dev="cbr0"), ADDRESSED),
    Case(ops.AddNeighbours(name="cbr0", entries=(NEAR,)), ADDRESSED),
    Case(
        ops.AddNeighbours(name="cbr0", entries=("10.5.1.2 02:00:00:00:00:09", NEAR)),
        (*ADDRESSED, ops.AddNeighbours(name="cbr0", entries=("10.5.1.3 02:00:00:00:00:03",))),
    ),
    Case(ops.AddNeighbours(name="vethNS", entries=(NEAR,), ns="demo"), INSIDE),
    Case(ops.SetSysctl(key="net.ipv4.ip_forward", value="1")),
    Case(ops.SetSysctl(key="net.ipv6.conf.all.disable_ipv6", value="0")),
)

# iproute2 looks a name up itself, and newer kernels explain in a sentence what older ones do not.
_GONE = ('Cannot find device "gone"', "No such device", "Device does not exist")
_EXISTS = ("RTNETLINK answers: File exists", "Address already assigned")
_TOO_BIG = ("mtu greater than device maximum",)
_TOO_SMALL = ("mtu less than device minimum",)
_NO_ADDRESS = ("RTNETLINK answers: Cannot assign requested address", "Address not found")

REFUSED = (
    Case(BRIDGE, (BRIDGE,), _EXISTS),
    Case(CABLE, (CABLE,), _EXISTS),
    Case(
        CABLE,
        (ops.AddVeth(name="vethNS", peer="spare", peer_ns="demo", ns="demo"),),
        _EXISTS,
    ),
    Case(ops.SetMaster(name="gone", master="cbr0"), (BRIDGE,), _GONE),
    Case(ops.SetMaster(name="vethlocal", master="gone"), (CABLE,), _GONE),
    Case(
        ops.SetMaster(name="vethlocal", master="lo"),
        (CABLE,),
        ("RTNETLINK answers: Operation not supported",),
    ),
    Case(ops.SetMtu(name="gone", mtu=1450), (), _GONE),
    Case(ops.SetMtu(name="vethlocal", mtu=65536), (CABLE,), _TOO_BIG),
    Case(ops.SetMtu(name="vethNS", mtu=67, ns="demo"), (CABLE,), _TOO_SMALL),
    Case(ops.SetUp(name="gone"), (), _GONE),
    Case(ops.SetMac(name="gone", mac="02:00:00:00:00:01"), (), _GONE),
    Case(ops.SetMac(name="vethlocal", mac="01:00:00:00:00:01"), (CABLE,), _NO_ADDRESS),
    Case(ops.SetAlias(name="gone", alias="x"), (), _GONE),
    Case(
        ops.SetAlias(name="cbr0", alias="x" * 256),
        (BRIDGE,),
        ("Numerical result out of range", "alias too long"),
    ),
    Case(ops.AddAddress(name="cbr0", address="10.5.1.1/24"), ADDRESSED, _EXISTS),
    Case(ops.AddAddress(name="gone", address="10.5.1.1/24"), (), _GONE),
    Case(ops.DelAddress(name="cbr0", address="10.5.1.9/24"), ADDRESSED, _NO_ADDRESS),
    Case(ops.DelAddress(name="gone", address="10.5.1.9/24"), (), _GONE),
    Case(
        ops.AddRoute(dst="default", via="10.9.9.9", dev="vethNS", ns="demo"),
        INSIDE,
        ("Nexthop has invalid gateway", "Network is unreachable"),
    ),
    Case(DEFAULT, (*INSIDE, DEFAULT), _EXISTS),
    Case(ops.AddRoute(dst="default", via="10.5.1.1", dev="gone"), (), _GONE),
    Case(
        ops.DelRoute(dst="10.5.2.0/24", via="10.5.1.2", dev="cbr0"),
        ADDRESSED,
        ("RTNETLINK answers: No such process",),
    ),
    Case(ops.DelRoute(dst="default", via="", dev="gone"), (), _GONE),
    Case(ops.AddNeighbours(name="gone", entries=(NEAR,)), (), _GONE),
    Case(
        ops.SetSysctl(key="net.ipv4.gone", value="1"),
        said=("No such file or directory", "Directory nonexistent", "nonexistent directory"),
    ),
    Case(
        ops.SetSysctl(key="net.ipv4.ip_forward", value="yes"), (), ("Invalid argument", "I/O error")
    ),
)


def pair(place: Place) -> tuple[LocalNode, LocalNode]:
    """Two fresh nodes with two containers each: for netlink and for the script."""
    place.enter()
    return place.node("native", "demo", "second"), place.node("shell", "demo", "second")


def unlike(native: LocalNode, shell: LocalNode) -> list[str]:
    """How two nodes differ, once their links have settled."""
    return settled(lambda: differences(raw(native, macs=False), raw(shell, macs=False)))


def test_no_network_operation_is_forgotten() -> None:
    """Each has a case that is done; each that can be refused has one that is."""
    assert {type(case.op) for case in DONE} == set(netlink.KINDS)
    assert set(netlink.KINDS) - {type(case.op) for case in REFUSED} == {ops.DelLink}


def test_all_other_operations_are_left_to_the_script() -> None:
    """Processes, etcd's keys, and what a real host lends: no netlink message does them."""
    others = set(ops.REGISTRY.values()) - set(netlink.KINDS)
    assert {cls.__name__ for cls in others} == {
        *("StartDaemon", "StopDaemon", "StartNode", "StartContainer", "StopMachine", "PutKey"),
        *("MakePlace", "PutFile", "Remove", "FlushRoutes", "RestoreFirewall", "StartFlanneld"),
    }


@pytest.mark.parametrize("case", DONE, ids=str)
@in_child
def test_both_leave_the_same(place: Place, case: Case) -> None:
    """The operation alone: all that iproute2 prints, in the node and in its containers."""
    native, shell = pair(place)
    for node in (native, shell):
        by_script(node, case.given)
    before = raw(shell)
    told: list[Op] = []
    by_netlink(native, [case.op], told.append)
    by_script(shell, [case.op], told.append)
    assert unlike(native, shell) == []
    assert told == [case.op, case.op]
    # What changes nothing would be equal, too.
    nothing = case.op in (ops.DelLink(name="missing"), ops.DelLink(name="missing", ns="demo"))
    assert (raw(shell) == before) is nothing


@pytest.mark.parametrize("case", REFUSED, ids=str)
@in_child
def test_both_refuse_the_same(place: Place, case: Case) -> None:
    """OperationError with node, operation and the kernel's words; nothing is changed."""
    native, shell = pair(place)
    by_script(native, case.given)
    by_script(shell, case.given)
    told: list[Op] = []
    with pytest.raises(OperationError) as by_native:
        by_netlink(native, [case.op], told.append)
    with pytest.raises(OperationError) as by_shell:
        by_script(shell, [case.op], told.append)
    assert told == []
    assert by_native.value.message == by_shell.value.message == f"cannot do: {case.op}"
    assert (by_native.value.where, by_shell.value.where) == ("native", "shell")
    details = (by_native.value.detail, by_shell.value.detail)
    assert [d for d in details if not any(words in d for words in case.said)] == []
    assert unlike(native, shell) == []


#: Fails in its middle: there is no bridge called br1.
BROKEN = (
    BRIDGE,
    CABLE,
    ops.SetMaster(name="vethlocal", master="cbr0"),
    ops.SetMtu(name="vethlocal", mtu=1450),
    ops.SetMtu(name="br1", mtu=1450),
    ops.SetUp(name="vethlocal"),
    ops.SetUp(name="cbr0"),
)


@pytest.mark.parametrize("carry_out", [by_netlink, by_script])
@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(ops.SetMtu(name="br1", mtu=1450), id="refused by the kernel"),
        pytest.param(ops.AddAddress(name="br1", address="10.5.1.1/24"), id="not even sent"),
        pytest.param(ops.SetSysctl(key="net.ipv4.gone", value="1"), id="no message"),
    ],
)
@in_child
def test_what_was_done_before_a_failure_is_told(
    place: Place, carry_out: kernel.CarryOut, wrong: Op
) -> None:
    """`done` is called for exactly the operations before the one that failed, in their order."""
    place.enter()
    node = place.node("node01", "demo")
    before = [BRIDGE, CABLE, ops.SetMaster(name="vethlocal", master="cbr0")]
    told: list[Op] = []
    with pytest.raises(OperationError, match=r"br1|gone"):
        carry_out(node, [*before, wrong, ops.SetUp(name="cbr0")], told.append)
    assert told == before
    state = node.snapshot()
    assert [op.holds(state) for op in told] == [None, None, None]


@in_child
def test_a_node_goes_on_after_a_refusal(place: Place) -> None:
    """The socket that still has acknowledgements in it is not read again."""
    place.enter()
    node = place.node("node01", "demo")
    with pytest.raises(OperationError, match="br1"):
        node.apply(BROKEN, kernel.ignore)
    told: list[Op] = []
    node.apply([ops.SetMtu(name="cbr0", mtu=1400), ops.SetMtu(name="cbr0", mtu=1300)], told.append)
    assert [op.argv()[-1] for op in told] == ["1400", "1300"]
    assert node.snapshot().net.links["cbr0"].mtu == 1300


@in_child
def test_all_at_once_is_the_same_as_one_by_one(place: Place) -> None:
    """Several messages in one buffer, cut where one needs what another makes."""
    native, shell = pair(place)
    todo: list[Op] = [*ADDRESSED, CABLE, ops.SetMaster(name="vethlocal", master="cbr0")]
    todo += [
        ops.AddNeighbours(name="cbr0", entries=(NEAR, "10.5.1.3 02:00:00:00:00:03")),
        ops.AddRoute(dst="10.5.2.0/24", via="10.5.1.2", dev="cbr0"),
        ops.SetSysctl(key="net.ipv4.ip_forward", value="1"),
        ops.DelLink(name="missing"),
        ops.DelRoute(dst="10.5.2.0/24", via="10.5.1.2", dev="cbr0"),
        ops.SetUp(name="vethlocal"),
    ]
    told: list[Op] = []
    by_netlink(native, todo, told.append)
    for op in todo:
        by_script(shell, [op])
    assert told == todo
    assert unlike(native, shell) == []


# --- whole steps ----------------------------------------------------------------------------------

LEASE = SubnetEnv(IPv4Network("10.5.0.0/16"), IPv4Interface("10.5.1.1/24"), 1450)

#: Each step that changes a network, in the talk's order; so many nodes that ARP is not relied on.
STEPS = (
    *("switch", "node", "underlay", "container", "veth", "mtu"),
    *("address", "bridge", "route", "forwarding"),
)
MANY = 17


@in_child
def test_whole_steps_are_the_same(place: Place) -> None:
    """The plans of a lab's steps, one after the other, on a switch and the node on it."""
    place.enter()
    lab = labfile.default(MANY)
    native, shell = place.node("native"), place.node("shell")
    for side, carry_out in ((native, LocalNode.apply), (shell, by_script)):
        site = kernel.site(lab, place.directory.path / side.name, Path(place.programs))
        states = {SWITCH: State(), lab.nodes[0].name: replace(State(), subnet_env=LEASE)}
        below = LocalNode(lab.nodes[0].name, side.proc)
        for name in STEPS:
            step = BY_NAME[name]
            node = below if step.on == "nodes" else side
            carry_out(node, list(step.plan(site, lab.nodes[0], states)), kernel.ignore)
    nodes = [LocalNode(lab.nodes[0].name, side.proc) for side in (native, shell)]
    assert unlike(native, shell) == []
    assert unlike(*nodes) == []
