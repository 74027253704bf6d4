"""Undo takes back: what an operation changed is as it was, for iproute2 and for vxlab's eyes."""

from __future__ import annotations

import shutil
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
from vxlab import labfile, ops, state
from vxlab.engine import up
from vxlab.engine.down import down
from vxlab.errors import OperationError
from vxlab.journal import LabDirectory
from vxlab.nodes.local import LocalNode
from vxlab.ops import Op, cleared, pending
from vxlab.state import Firewall, State, SubnetEnv
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
FILE, PLACE, EMPTY = "/run/lab/tls/key.pem", "/run/etcd", "/var/log/etcd.log"
#: What a snapshot of a real host would tell of.
FILES = (FILE, PLACE, EMPTY, "/run/lab")
OVERLAY = "10.5.0.0/16"
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
    Case(ops.MakePlace(path=PLACE)),
    Case(ops.MakePlace(path=EMPTY, directory=False)),
    Case(ops.PutFile(path=FILE, text="it's a key\n"), (ops.MakePlace(path="/run/lab/tls"),)),
    Case(
        ops.StartFlanneld(
            name="flannel", command=("sleep", "1000"), log=LOG, device="flannel.1", network=OVERLAY
        )
    ),
)

#: They only take back what vxlab made, or go with what it made.
ONE_WAY = (
    Case(ops.DelLink(name="cbr0"), (BRIDGE,)),
    Case(ops.AddNeighbours(name="cbr0", entries=(NEAR,)), ADDRESSED),
    Case(ops.StopDaemon(name="sleep"), (SLEEP,)),
    Case(ops.StopMachine(name="demo")),
    Case(ops.Remove(path=PLACE), (ops.MakePlace(path=f"{PLACE}/data/member"),)),
    Case(ops.Remove(path=EMPTY), (ops.MakePlace(path=EMPTY, directory=False),)),
    Case(
        ops.FlushRoutes(network=OVERLAY),
        (*ADDRESSED, ops.AddRoute(dst="10.5.2.0/24", via="10.5.1.2", dev="cbr0")),
    ),
    Case(ops.RestoreFirewall(policy="DROP", table=True, chain=True)),
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


def host(node: LocalNode, *files: str) -> State:
    """The node as if it were a real host: with its files and its firewall."""
    return state.parse(ok(node, state.program(files=files or FILES)))


def ok(node: LocalNode, script: str) -> str:
    """Run a shell script on the node, which must succeed."""
    completed = node.run(["sh", "-s"], stdin=script)
    assert (completed.code, completed.err) == (0, "")
    return completed.out


def still_pending(todo: Iterable[Op], node: LocalNode) -> list[str]:
    return [reason for _, reason in pending(todo, host(node))]


def changed(node: LocalNode, before: Raw) -> list[str]:
    """How the node differs from before, once its links have settled."""
    return settled(lambda: differences(before, raw(node)))


def lent(seen: State) -> tuple[object, ...]:
    """What iproute2 does not show."""
    return seen.machines, seen.daemons, seen.files, seen.firewall


@pytest.mark.parametrize("case", TAKEN_BACK, ids=str)
@in_child
def test_an_operation_is_taken_back(place: Place, case: Case) -> None:
    """It holds once it is done, a second time does nothing, and its undo leaves no trace."""
    place.enter()
    node = place.node("node01", "demo")
    by_script(node, case.given)
    op = fitted(case.op, place)
    before, was = quiet(node), host(node)
    assert op.holds(was) is not None

    todo = cleared([op], was)
    undo = undoing(todo, was)
    node.apply(todo, kernel.ignore)
    after = host(node)
    assert op.holds(after) is None
    assert pending([op], after) == []
    assert pending(undo, after) != []
    assert (raw(node), *lent(after)) != (before, *lent(was))

    node.apply(undo, kernel.ignore)
    assert changed(node, before) == []
    again = host(node)
    assert lent(again) == lent(was)
    assert still_pending(undo, node) == []


@pytest.mark.parametrize("case", ONE_WAY, ids=str)
@in_child
def test_what_has_no_undo_still_is_done_once(place: Place, case: Case) -> None:
    """It holds once it is done, and says that there is nothing to take back."""
    place.enter()
    node = place.node("node01", "demo")
    by_script(node, case.given)
    was = host(node)
    assert case.op.holds(was) is not None
    assert case.op.undo(was) == ()
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


# --- what a real host lends -----------------------------------------------------------------------


@in_child
def test_a_place_goes_with_all_that_is_in_it(place: Place) -> None:
    """etcd's data, a container's root; what a link there leads to stays."""
    place.enter()
    node = place.node("node01")
    before = ok(node, "find /run /var/log | sort")
    todo = [ops.MakePlace(path=PLACE), ops.MakePlace(path=EMPTY, directory=False)]
    undo = undoing(todo, host(node))
    node.apply(todo, kernel.ignore)
    ok(node, f"mkdir -p {PLACE}/data/a; echo x >{PLACE}/data/a/b; ln -s / {PLACE}/root")
    assert host(node).files == {PLACE: "directory", EMPTY: "log"}
    node.apply(undo, kernel.ignore)
    assert ok(node, "find /run /var/log | sort") == before


@pytest.mark.parametrize("where", ["", "/in", "/in/deep"])
@in_child
def test_nothing_is_removed_that_is_mounted(place: Place, where: str) -> None:
    """Neither through a mount nor at it: what is there is not the lab's."""
    place.enter()
    node = place.node("node01")
    ok(node, f"mkdir -p {PLACE}{where}; mount -t tmpfs none {PLACE}{where}; : >{PLACE}{where}/kept")
    with pytest.raises(OperationError) as caught:
        node.apply([ops.Remove(path=PLACE)], kernel.ignore)
    assert caught.value.detail == f"something is mounted at or below {PLACE}"
    assert ok(node, f"ls {PLACE}{where}") == "kept\n"
    ok(node, f"umount {PLACE}{where}; mkdir -p {PLACE}-2; mount -t tmpfs none {PLACE}-2")
    node.apply([ops.Remove(path=PLACE)], kernel.ignore)
    assert host(node).files == {}


@in_child
def test_a_link_is_removed_not_what_it_leads_to(place: Place) -> None:
    """Somebody moved the lab's place elsewhere and left a link."""
    place.enter()
    node = place.node("node01")
    ok(node, f"mkdir /run/elsewhere; : >/run/elsewhere/kept; ln -s elsewhere {PLACE}")
    node.apply([ops.Remove(path=PLACE)], kernel.ignore)
    assert ok(node, "ls /run/elsewhere; ls -d /run/etcd 2>/dev/null || :") == "kept\n"


@in_child
def test_a_file_is_private_from_its_first_moment(place: Place) -> None:
    """Key and directory are root's alone; no draft is left; it is replaced as a whole."""
    place.enter()
    node = place.node("node01")
    node.apply([ops.PutFile(path=FILE, text="one\n")], kernel.ignore)
    ok(node, f"ln {FILE} /run/old")
    node.apply([ops.PutFile(path=FILE, text="two\n")], kernel.ignore)
    look = f"stat -c '%a %n' /run/lab/tls {FILE}; ls /run/lab/tls; cat {FILE} /run/old"
    assert ok(node, look).splitlines() == [
        "700 /run/lab/tls",
        f"600 {FILE}",
        "key.pem",
        "two",
        "one",
    ]


@in_child
def test_a_full_disk_leaves_the_old_file(place: Place) -> None:
    """What cannot be written is an error, and the file that was there still is."""
    place.enter()
    node = place.node("node01")
    ok(node, "mkdir -p /run/lab; mount -t tmpfs -o size=16k none /run/lab")
    node.apply([ops.PutFile(path=FILE, text="one\n")], kernel.ignore)
    with pytest.raises(OperationError, match="cannot do: install") as caught:
        node.apply([ops.PutFile(path=FILE, text="x" * 40000)], kernel.ignore)
    assert "No space left on device" in caught.value.detail
    assert node.read(FILE) == "one\n"


@in_child
def test_ip_forward_gives_every_interface_its_own_back(place: Place) -> None:
    """One forwarded before, one did not, one has a dot in its name, one is gone meanwhile."""
    place.enter()
    node = place.node("node01")
    ok(node, "for i in aaa b1 eth0.100 gone; do ip link add $i type bridge; done")
    ok(node, "cd /proc/sys/net/ipv4/conf; echo 1 >eth0.100/forwarding; echo 1 >aaa/forwarding")
    ok(node, "echo 0 >/proc/sys/net/ipv4/conf/all/accept_redirects")
    look = "cd /proc/sys/net/ipv4; grep . ip_forward conf/*/forwarding conf/all/accept_redirects"
    before, was = ok(node, look), host(node)
    assert was.net.sysctls["net.ipv4.conf.eth0/100.forwarding"] == "1"
    op = ops.SetSysctl(key="net.ipv4.ip_forward", value="1")
    node.apply([op], kernel.ignore)
    assert ok(node, look) != before
    ok(node, "ip link del gone")
    by_script(node, op.undo(was))
    assert ok(node, look).splitlines() == [
        line for line in before.splitlines() if "/gone/" not in line
    ]


@pytest.mark.parametrize("carry_out", [LocalNode.apply, by_script])
@in_child
def test_a_switch_of_an_interface_with_a_dot(place: Place, carry_out: kernel.CarryOut) -> None:
    """Both ways write to the same file."""
    place.enter()
    node = place.node("node01")
    ok(node, "ip link add eth0.100 type bridge")
    op = ops.SetSysctl(key="net.ipv4.conf.eth0/100.forwarding", value="1")
    assert op.holds(host(node)) is not None
    carry_out(node, [op], kernel.ignore)
    assert op.holds(host(node)) is None


FLANNELD = """\
ip link add flannel.1 type vxlan id 1 dstport 8472 dev lo && ip link set flannel.1 up
ip link add uplink type bridge && ip addr add 192.168.7.1/24 dev uplink && ip link set uplink up
ip route add 10.5.2.0/24 via 192.168.7.2; ip route add 10.5.0.0/16 dev flannel.1
iptables -N FLANNEL-FWD
iptables -A FORWARD -m comment --comment 'flanneld forward' -j FLANNEL-FWD
iptables -A FLANNEL-FWD -s 10.5.0.0/16 -m comment --comment 'flanneld forward' -j ACCEPT
iptables -A FLANNEL-FWD -d 10.5.0.0/16 -m comment --comment 'flanneld forward' -j ACCEPT
iptables -P FORWARD ACCEPT
"""


@in_child
def test_what_flanneld_leaves_goes_with_its_undo(place: Place) -> None:
    """Its interface, its routes through others' interfaces, its rules; other routes stay."""
    place.enter()
    node = place.node("node01")
    before = raw(node)
    start = ops.StartFlanneld(
        name="flannel",
        command=("sh", "-c", f"{FLANNELD} echo ready; exec sleep 1000"),
        log=LOG,
        device="flannel.1",
        network=OVERLAY,
    )
    undo = start.undo(host(node))
    node.apply([start], kernel.ignore)
    wait_for(lambda: "ready" in (node.read(LOG) or ""), "flannel's changes")
    assert node.read(LOG) == "ready\n"
    assert len(host(node).net.routes_into(OVERLAY)) == 2
    assert still_pending(undo, node) == [
        "flannel runs",
        "flannel.1 exists",
        "routes into 10.5.0.0/16 exist",
        "flannel's rules are in the firewall",
    ]
    # Where it is started again, what was before it is in the first start's undo.
    assert [type(op).__name__ for op in start.undo(host(node))] == [
        "StopDaemon",
        "DelLink",
        "FlushRoutes",
    ]
    by_script(node, undo)
    assert still_pending(undo, node) == []
    assert [route.dst for route in host(node).net.routes] == ["192.168.7.0/24"]
    ok(node, "ip link del uplink")
    assert changed(node, before) == []
    by_script(node, undo)  # a teardown that is run again


# --- the firewall ---------------------------------------------------------------------------------

needs_nft = pytest.mark.skipif(shutil.which("nft") is None, reason="NOT TRIED: there is no nft")
RULES = "nft -s list ruleset 2>/dev/null"
RULE = "iptables -A FORWARD -s 10.9.9.9 -j DROP"
SET = "nft add set ip filter known '{ type ipv4_addr; }'"
ONLY_FLANNELS = FLANNELD[FLANNELD.index("iptables") :]


def taken_back(place: Place, given: str, meanwhile: str = "") -> tuple[str, str, Firewall]:
    """The rules before flannel came and after its undo, and the firewall as it was seen before."""
    node = place.node("node01")
    ok(node, given)
    before, was = ok(node, RULES), host(node)
    assert was.firewall is not None
    assert ok(node, RULES) == before  # looking changes nothing
    undo = ops.StartFlanneld(name="f", command=("f",), log=LOG, network=OVERLAY).undo(was)
    ok(node, ONLY_FLANNELS)
    seen = host(node).firewall
    assert seen is not None
    assert (seen.policy, seen.flannel) == ("ACCEPT", True)
    ok(node, meanwhile)
    by_script(node, undo)
    after = ok(node, RULES)
    by_script(node, undo)
    assert ok(node, RULES) == after
    if not meanwhile:
        assert host(node).firewall == was.firewall
    return before, after, was.firewall


@pytest.mark.parametrize(
    ("given", "firewall"),
    [
        ("", ("", False, False)),
        ("iptables -P FORWARD ACCEPT", ("ACCEPT", True, True)),
        ("iptables -P FORWARD DROP", ("DROP", True, True)),
        (f"iptables -P FORWARD DROP; {RULE}", ("DROP", True, True)),
        ("iptables -A INPUT -s 10.9.9.9 -j DROP", ("ACCEPT", True, False)),
        ("iptables -t nat -A POSTROUTING -s 10.9.9.9 -j MASQUERADE", ("", False, False)),
        ("iptables -t mangle -P FORWARD DROP", ("", False, False)),
        ("iptables -N OTHERS", ("ACCEPT", True, False)),
        ("nft add table ip filter", ("ACCEPT", True, False)),
        ("nft add table ip other; nft add chain ip other FORWARD", ("", False, False)),
        (f"nft add table ip filter; {SET}", ("ACCEPT", True, False)),
    ],
)
@needs_nft
@in_child
def test_the_firewall_is_as_it_was(
    place: Place, given: str, firewall: tuple[str, bool, bool]
) -> None:
    """Policy, chain and table: what was there stays, what flannel made goes."""
    place.enter()
    before, after, was = taken_back(place, given)
    assert was == Firewall(*firewall, flannel=False)
    assert after == before


@pytest.mark.parametrize(
    ("meanwhile", "kept"),
    [
        (RULE, ["table ip filter {", "chain FORWARD {", "ip saddr 10.9.9.9 counter drop"]),
        ("iptables -I FORWARD -s 10.9.9.9 -j DROP", ["ip saddr 10.9.9.9 counter drop"]),
        ("iptables -A INPUT -s 10.9.9.9 -j DROP", ["chain INPUT {", "ip saddr 10.9.9.9 counter"]),
        ("iptables -P INPUT DROP", ["hook input priority filter; policy drop;"]),
        ("iptables -P FORWARD DROP", ["hook forward priority filter; policy drop;"]),
        ("iptables -N OTHERS", ["chain OTHERS {"]),
        (SET, ["set known {"]),
        ("iptables -t nat -A POSTROUTING -s 10.9.9.9 -j MASQUERADE", ["table ip nat {"]),
    ],
)
@needs_nft
@in_child
def test_what_others_added_meanwhile_stays(place: Place, meanwhile: str, kept: list[str]) -> None:
    """There was no table; somebody else uses by now the one that came with flannel."""
    place.enter()
    before, after, _ = taken_back(place, "", meanwhile)
    assert before == ""
    assert [line for line in kept if line not in after] == []
    assert "FLANNEL" not in after


@needs_nft
@in_child
def test_a_chain_that_older_versions_of_iptables_make_goes_too(place: Place) -> None:
    """They make INPUT, FORWARD and OUTPUT when they need one of them."""
    place.enter()
    chains = (
        f"nft add chain ip filter {name} '{{ type filter hook {name.lower()} priority filter; }}';"
        for name in ("INPUT", "OUTPUT")
    )
    before, after, _ = taken_back(place, "", "".join(chains))
    assert (before, after) == ("", "")


@needs_nft
@in_child
def test_rules_of_flannel_that_others_refer_to_are_told(place: Place) -> None:
    """The chain cannot go while somebody else jumps to it: an error, and nothing is broken."""
    place.enter()
    node = place.node("node01")
    ok(node, f"{ONLY_FLANNELS} iptables -A INPUT -j FLANNEL-FWD")
    with pytest.raises(OperationError) as caught:
        by_script(node, [ops.RestoreFirewall(policy="ACCEPT", table=False, chain=False)])
    assert "FLANNEL-FWD" in caught.value.detail
    assert "jump FLANNEL-FWD" in ok(node, RULES)


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


Check = Callable[[LocalNode, Sequence[Op]], None]


def stop_at(kind: type[Op], check: Check, patch: pytest.MonkeyPatch) -> None:
    """Have `LocalNode` check before it carries anything out, and fail at operations of a kind."""

    def checked(self: LocalNode, batch: Sequence[Op]) -> None:
        check(self, batch)
        if any(isinstance(op, kind) for op in batch):
            raise _EnoughError(f"no {kind.__name__} here", where=self.name)

    by_netlink, by_shell = LocalNode._netlink, LocalNode._part_with

    def netlink(self: LocalNode, batch: Sequence[Op], done: Callable[[Op], None]) -> None:
        checked(self, batch)
        by_netlink(self, batch, done)

    def shell(self: LocalNode, batch: Sequence[Op]) -> None:
        checked(self, batch)
        by_shell(self, batch)

    patch.setattr(LocalNode, "_netlink", netlink)
    patch.setattr(LocalNode, "_part_with", shell)  # right before the program is run


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

    stop_at(kind, check, monkeypatch)
    site = kernel.site(labfile.default(), directory.path, programs)
    with pytest.raises(_EnoughError):
        up.up(site, directory, lambda event: None)
    assert [op for _, op in seen if isinstance(op, kind)] != []
    record = directory.world()
    assert record is not None
    assert record.alive()
    assert down(directory).ran
    wait_for(lambda: not record.alive(), "the end of the world")
