"""Undo takes back: what an operation changed is as it was, for iproute2 and for vxlab's eyes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
    Raw,
    by_script,
    differences,
    in_child,
    quiet,
    raw,
    settled,
    wait_for,
)
from vxlab import labfile, ops
from vxlab.engine import up
from vxlab.engine.down import down
from vxlab.errors import OperationError
from vxlab.journal import LabDirectory
from vxlab.nodes.local import LocalNode
from vxlab.ops import Op, cleared, pending
from vxlab.state import State, SubnetEnv
from vxlab.steps import BY_NAME
from vxlab.steps.site import SWITCH, Site

pytestmark = KERNEL

programs, directory, place = kernel.programs, kernel.directory, kernel.place

LOG = "/var/log/sleep.log"
SLEEP = ops.StartDaemon(name="sleep", command=("sleep", "1000"), log=LOG)
#: A bridge without a MAC of its own has its lowest port's, and the last port's leaving changes it.
OWN_MAC = ops.SetMac(name="cbr0", mac="02:00:00:00:00:01")
#: An interface that never was up differs for ever from one that was (``qdisc noop``).
ONCE_UP = (ops.SetUp(name="vethlocal"), ops.SetUp(name="vethlocal", up=False))
#: A bridge that never had a port, too (``tso_max_size``).
ONCE_A_PORT = (
    ops.SetMaster(name="vethlocal", master="cbr0"),
    ops.SetMaster(name="vethlocal", master=""),
)
ADDRESSED = (
    BRIDGE,
    OWN_MAC,
    ops.AddAddress(name="cbr0", address="10.5.1.1/24"),
    ops.SetUp(name="cbr0"),
)


TAKEN_BACK = (
    Case(BRIDGE),
    Case(CABLE),
    Case(ops.SetMaster(name="vethlocal", master="cbr0"), (BRIDGE, OWN_MAC, CABLE, *ONCE_A_PORT)),
    Case(
        ops.SetMaster(name="vethlocal", master=""),
        (BRIDGE, OWN_MAC, CABLE, ops.SetMaster(name="vethlocal", master="cbr0")),
    ),
    Case(ops.SetMtu(name="vethlocal", mtu=1450), (CABLE,)),
    Case(ops.SetMtu(name="vethNS", mtu=1450, ns="demo"), (CABLE,)),
    Case(ops.SetUp(name="vethlocal"), (CABLE, *ONCE_UP)),
    Case(ops.SetUp(name="vethlocal", up=False), (CABLE, ops.SetUp(name="vethlocal"))),
    Case(ops.SetMac(name="vethlocal", mac="02:00:c0:a8:38:15"), (CABLE,)),
    Case(ops.SetAlias(name="cbr0", alias="vxlab:talk"), (BRIDGE,)),
    Case(ops.SetAlias(name="cbr0", alias="new"), (BRIDGE, ops.SetAlias(name="cbr0", alias="old"))),
    Case(ops.AddAddress(name="cbr0", address="10.5.1.1/24"), (BRIDGE, ops.SetUp(name="cbr0"))),
    Case(ops.AddAddress(name="cbr0", address="10.5.7.1/24"), ADDRESSED),
    Case(ops.AddAddress(name="vethNS", address="10.5.1.11/24", ns="demo"), INSIDE),
    Case(ops.DelAddress(name="cbr0", address="10.5.1.1/24"), ADDRESSED),
    Case(DEFAULT, INSIDE),
    Case(ops.AddRoute(dst="default", via="10.5.1.2", dev="vethNS", ns="demo"), (*INSIDE, DEFAULT)),
    Case(
        ops.AddRoute(dst="10.5.2.0/24", via="10.5.1.2", dev="cbr0"),
        (*ADDRESSED, ops.AddRoute(dst="10.5.2.0/24", via="", dev="cbr0")),
    ),
    Case(ops.DelRoute(dst="default", via="10.5.1.1", dev="vethNS", ns="demo"), (*INSIDE, DEFAULT)),
    Case(ops.SetSysctl(key="net.ipv4.ip_forward", value="1")),
    Case(SLEEP),
    Case(
        ops.StartContainer(name="late", root="/run/late", programs="PROGRAMS", ipv6=False),
    ),
    Case(ops.StartNode(name="late", directory="DIR", hosts="/etc/hosts", busybox="BUSYBOX")),
)

#: They only take back what vxlab made, or go with what it made.
ONE_WAY = (
    Case(ops.DelLink(name="cbr0"), (BRIDGE,)),
    Case(ops.AddNeighbours(name="cbr0", entries=(NEAR,)), ADDRESSED),
    Case(ops.StopDaemon(name="sleep"), (SLEEP,)),
    Case(ops.StopMachine(name="demo")),
)


def test_no_operation_is_forgotten() -> None:
    """Every operation that a node meets has a case here; etcd's keys end with etcd."""
    here = {type(case.op).__name__ for case in (*TAKEN_BACK, *ONE_WAY)}
    assert here == set(ops.REGISTRY) - {"PutKey"}


def fitted(op: Op, place: Place) -> Op:
    """The operation with this machine's paths in it."""
    if isinstance(op, ops.StartContainer):
        return replace(op, programs=place.programs)
    if isinstance(op, ops.StartNode):
        return replace(op, directory=str(place.directory.node("late")), busybox=place.busybox)
    return op


def undoing(todo: Sequence[Op], before: State) -> list[Op]:
    """What takes operations back, in the order in which it must be done (as `engine.up` does)."""
    return [back for op in reversed(todo) for back in op.undo(before)]


def still_pending(todo: Iterable[Op], node: LocalNode) -> list[str]:
    return [reason for _, reason in pending(todo, node.snapshot())]


def changed(node: LocalNode, before: Raw) -> list[str]:
    """How the node differs from before, once its links have settled."""
    return settled(lambda: differences(before, raw(node)))


@pytest.mark.parametrize("case", TAKEN_BACK, ids=str)
@in_child
def test_an_operation_is_taken_back(place: Place, case: Case) -> None:
    """It holds once it is done, a second time does nothing, and its undo leaves no trace."""
    place.enter()
    node = place.node("node01", "demo")
    by_script(node, case.given)
    op = fitted(case.op, place)
    before, state = quiet(node), node.snapshot()
    assert op.holds(state) is not None

    todo = cleared([op], state)
    undo = undoing(todo, state)
    node.apply(todo, kernel.ignore)
    after = node.snapshot()
    assert op.holds(after) is None
    assert pending([op], after) == []
    assert pending(undo, after) != []
    assert (raw(node), after.machines, after.daemons) != (before, state.machines, state.daemons)

    node.apply(undo, kernel.ignore)
    assert changed(node, before) == []
    again = node.snapshot()
    assert (again.machines, again.daemons) == (state.machines, state.daemons)
    assert still_pending(undo, node) == []


@pytest.mark.parametrize("case", ONE_WAY, ids=str)
@in_child
def test_what_has_no_undo_still_is_done_once(place: Place, case: Case) -> None:
    """It holds once it is done, and says that there is nothing to take back."""
    place.enter()
    node = place.node("node01", "demo")
    by_script(node, case.given)
    state = node.snapshot()
    assert case.op.holds(state) is not None
    assert case.op.undo(state) == ()
    node.apply([case.op], kernel.ignore)
    assert still_pending([case.op], node) == []


@in_child
def test_undo_that_was_done_already_does_no_harm(place: Place) -> None:
    """A teardown that is run again finds interfaces, daemons and machines gone: no error."""
    place.enter()
    node = place.node("node01", "demo")
    todo = [SLEEP, BRIDGE, CABLE]
    undo = undoing(todo, node.snapshot())
    before = raw(node)
    node.apply(todo, kernel.ignore)
    told: list[Op] = []
    for carry_out in (LocalNode.apply, by_script, LocalNode.apply):
        carry_out(node, undo, told.append)
    assert told == undo * 3
    assert changed(node, before) == []


# --- a whole lab ----------------------------------------------------------------------------------

#: Each step that needs no etcd, with what flanneld would have written.
STEPS = (
    *("switch", "node", "underlay", "container", "veth", "mtu"),
    *("address", "bridge", "route", "forwarding"),
)
LEASES = {
    f"node0{number}": SubnetEnv(
        IPv4Network("10.5.0.0/16"), IPv4Interface(f"10.5.{number}.1/24"), 1450
    )
    for number in (1, 2)
}


def machines(place: Place, site: Site) -> dict[str, LocalNode]:
    """The switch and the nodes, whether or not they run."""
    proc = place.world.proc
    nodes = {node.name: LocalNode(node.name, proc) for node in site.lab.nodes}
    return {SWITCH: LocalNode(SWITCH, "", proc), **nodes}


def plans(site: Site, states: dict[str, State]) -> Iterable[tuple[str, list[Op]]]:
    """Every step's plan for every node, with the machine that it is carried out on."""
    for name in STEPS:
        step = BY_NAME[name]
        for node in site.lab.nodes:
            target = node.name if step.on == "nodes" else SWITCH
            yield target, list(step.plan(site, node, states))


@in_child
def test_a_whole_lab_is_taken_back_from_its_journal(place: Place, programs: Path) -> None:
    """All steps on two nodes, undone by what the journal says: the switch is as it was."""
    place.enter()
    site = kernel.site(labfile.default(), place.directory.path, programs)
    nodes = machines(place, site)
    before = raw(nodes[SWITCH])
    states = {name: replace(State(), subnet_env=LEASES.get(name)) for name in nodes}
    for target, plan in plans(site, states):
        state = nodes[target].snapshot()
        todo = cleared((op for op, _ in pending(plan, state)), state)
        place.directory.append_undo(target, undoing(todo, state))
        nodes[target].apply(todo, kernel.ignore)
    built = {name: node.snapshot() for name, node in nodes.items()}
    assert [pending(plan, built[target]) for target, plan in plans(site, states)] == [
        [] for _ in plans(site, states)
    ]
    inside = {name: sorted(net.links) for name, net in built["node01"].inside.items()}
    assert inside == {site.lab.nodes[0].containers[0].name: ["lo", "vethNS"]}

    for target, op in LabDirectory(place.directory.name).undo():
        nodes[target].apply([op], kernel.ignore)
    assert changed(nodes[SWITCH], before) == []
    assert nodes[SWITCH].snapshot().machines == {}


# --- the journal is written before the change -----------------------------------------------------


class _EnoughError(OperationError):
    """What the recording node says instead of starting a daemon."""


def stopping_at(
    kind: type[Op], check: Callable[[LocalNode, Sequence[Op]], None]
) -> Callable[[LocalNode, Sequence[Op], Callable[[Op], None]], None]:
    """A `LocalNode.apply` that checks before it applies, and fails at operations of a kind."""
    real = LocalNode.apply

    def apply(self: LocalNode, todo: Sequence[Op], done: Callable[[Op], None]) -> None:
        check(self, todo)
        if any(isinstance(op, kind) for op in todo):
            raise _EnoughError(f"no {kind.__name__} here", where=self.name)
        real(self, todo, done)

    return apply


@pytest.mark.parametrize(
    "kind",
    [ops.AddBridge, ops.StartNode, ops.SetMac, ops.StartContainer, ops.SetMtu, ops.StartDaemon],
    ids=lambda kind: str(kind.__name__),
)
@in_child
def test_the_undo_is_on_disk_before_anything_is_applied(
    directory: LabDirectory,
    programs: Path,
    kind: type[Op],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever operation fails: its undo was in the journal before the node met it."""
    seen: list[tuple[str, Op]] = []

    def check(node: LocalNode, todo: Sequence[Op]) -> None:
        journal = list(LabDirectory(directory.name).undo())
        for op in todo:
            back = op.undo(State())
            assert [each for each in back if (node.name, each) not in journal] == []
            seen.append((node.name, op))

    monkeypatch.setattr(LocalNode, "apply", stopping_at(kind, check))
    site = kernel.site(labfile.default(), directory.path, programs)
    with pytest.raises(_EnoughError):
        up.up(site, directory, lambda event: None)
    assert [op for _, op in seen if isinstance(op, kind)] != []
    record = directory.world()
    assert record is not None
    assert record.alive()
    assert down(directory).ran
    wait_for(lambda: not record.alive(), "the end of the world")
