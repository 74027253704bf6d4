"""The operations: the command, when it holds, what takes it back, and what is to be done.

``cases/ops/operations.txt`` shows every operation as the commands that a person and a program see.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import fields, replace
from typing import Any

import pytest

from golden import agrees
from vxlab import ops
from vxlab.ops import (
    REGISTRY,
    AddAddress,
    AddBridge,
    AddNeighbours,
    AddRoute,
    AddVeth,
    DelAddress,
    DelLink,
    DelRoute,
    FlushRoutes,
    MakePlace,
    NodeOp,
    Op,
    PutFile,
    PutKey,
    Remove,
    RestoreFirewall,
    SetAlias,
    SetMac,
    SetMaster,
    SetMtu,
    SetSysctl,
    SetUp,
    StartContainer,
    StartDaemon,
    StartFlanneld,
    StartNode,
    StopDaemon,
    StopMachine,
    cleared,
    from_json,
    outlasting,
    pending,
    to_json,
)
from vxlab.state import Firewall, Link, Neighbour, Net, Process, Route, State

MAC = "02:00:c0:a8:38:15"
NEIGHBOURS = ("192.168.56.22 02:00:c0:a8:38:16", "192.168.56.23 02:00:c0:a8:38:17")
OVERLAY = "10.5.0.0/16"
PLACE, SECRET, GONE = "/run/etcd", "/var/lib/vxlab/talk/tls/client-key.pem", "/var/log/old.log"
TEXT = "a key's text\n"
DIGEST = hashlib.sha256(TEXT.encode()).hexdigest()
COMMAND = ("/opt/flanneld", "--public-ip=192.168.56.21", "--iface=eth0")

#: One of each, as the talk's lab has it.
SAMPLES: dict[str, Op] = {
    type(op).__name__: op
    for op in (
        AddAddress(name="vethNS", address="10.5.73.10/24", ns="container01"),
        AddBridge(name="cbr0"),
        AddNeighbours(name="eth0", entries=NEIGHBOURS),
        AddRoute(dst="default", via="10.5.73.1", dev="vethNS", ns="container01"),
        AddVeth(name="vethlocal", peer="vethNS", peer_ns="container01"),
        DelAddress(name="cbr0", address="10.5.9.1/24"),
        DelLink(name="old0"),
        DelRoute(dst="10.9.0.0/24", via="192.168.56.99", dev="eth0"),
        FlushRoutes(network="10.9.0.0/16"),
        MakePlace(path=PLACE),
        PutFile(path=SECRET, text=TEXT),
        PutKey(key="/coreos.com/network/config", value='{"Network": "10.5.0.0/16"}'),
        Remove(path=GONE),
        RestoreFirewall(policy="DROP", table=True, chain=True),
        SetAlias(name="cbr0", alias="vxlab:talk"),
        SetMac(name="eth0", mac=MAC),
        SetMaster(name="vethlocal", master="cbr0"),
        SetMtu(name="vethNS", mtu=1450, ns="container01"),
        SetSysctl(key="net.ipv4.ip_forward", value="1"),
        SetUp(name="cbr0"),
        StartContainer(
            name="container01", root="/run/container-demo/c", programs="/opt/b", ipv6=False
        ),
        StartDaemon(name="flannel", command=COMMAND, log="/var/log/flannel.log"),
        StartFlanneld(
            name="flannel",
            command=COMMAND,
            log="/var/log/flannel.log",
            device="flannel.1",
            network=OVERLAY,
        ),
        StartNode(name="node01", directory="/lab/nodes/node01", hosts="/lab/hosts", busybox="/b"),
        StopDaemon(name="old"),
        StopMachine(name="gone"),
    )
}

#: A node that looks as if all of them had been done.
DONE = State(
    net=Net(
        links={
            "eth0": Link("eth0", "veth", 1500, True, MAC, addresses=("192.168.56.21/24",)),
            "cbr0": Link("cbr0", "bridge", 1450, True, "5a:00:00:00:00:01", alias="vxlab:talk"),
            "vethlocal": Link("vethlocal", "veth", 1450, True, "5a:00:00:00:00:02", master="cbr0"),
        },
        neighbours=tuple(Neighbour(e.split()[0], "eth0", e[14:], "PERMANENT") for e in NEIGHBOURS),
        sysctls={"net.ipv4.ip_forward": "1"},
    ),
    inside={
        "container01": Net(
            links={
                "vethNS": Link(
                    "vethNS", "veth", 1450, True, "ee:00:00:00:00:01", addresses=("10.5.73.10/24",)
                )
            },
            routes=(Route("default", "10.5.73.1", "vethNS"),),
        )
    },
    machines={"container01": Process(27, 99, True), "node01": Process(12, 98, True)},
    daemons={"flannel": Process(40, 99, True, command=" ".join(COMMAND))},
    keys={"/coreos.com/network/config": '{"Network": "10.5.0.0/16"}'},
    files={PLACE: "directory", SECRET: DIGEST},
    firewall=Firewall("DROP", table=True, chain=True, flannel=False),
)

#: A node on which something else is in the place of each of them.
OTHERWISE = State(
    net=Net(
        links={
            "eth0": Link("eth0", "veth", 9000, False, "aa:aa:aa:aa:aa:aa", alias="host's"),
            "cbr0": Link(
                "cbr0", "vxlan", 1500, False, "5a:00:00:00:00:01", addresses=("10.5.9.1/24",)
            ),
            "vethlocal": Link("vethlocal", "", 1500, False, "5a:00:00:00:00:02", master="br9"),
            "old0": Link("old0", "bridge", 1500, True, "5a:00:00:00:00:03"),
        },
        routes=(Route("10.9.0.0/24", "192.168.56.99", "eth0"),),
        sysctls={"net.ipv4.ip_forward": "0"},
    ),
    inside={
        "container01": Net(
            links={
                "vethNS": Link(
                    "vethNS", "veth", 1500, False, "ee:00:00:00:00:01", addresses=("10.5.9.9/24",)
                )
            },
            routes=(Route("default", "10.5.9.1", "vethNS"),),
        )
    },
    machines={"container01": Process(27, 99, False), "gone": Process(30, 99, True)},
    daemons={"flannel": Process(40, 99, True, command="flanneld"), "old": Process(5, 9, True)},
    keys={"/coreos.com/network/config": "{}"},
    files={SECRET: "0" * 64, GONE: "log"},
    firewall=Firewall("ACCEPT", table=False, chain=False, flannel=False),
)

#: Fields that leave no trace which a snapshot could show: how a process is started, how a file is
#: made. They are the same for a lab's whole life; what may change is in the command.
UNSEEN = {
    ("StartDaemon", "log"),
    ("StartDaemon", "cwd"),
    ("StartFlanneld", "log"),
    ("StartFlanneld", "cwd"),
    ("StartFlanneld", "device"),
    ("StartFlanneld", "network"),
    ("StartFlanneld", "remake"),
    ("MakePlace", "directory"),
    ("PutFile", "mode"),
    ("StartNode", "directory"),
    ("StartNode", "hosts"),
    ("StartNode", "busybox"),
    ("StartContainer", "root"),
    ("StartContainer", "programs"),
    ("StartContainer", "ipv6"),
}
#: These hold where something is not.
REMOVING = (DelAddress, DelLink, DelRoute, FlushRoutes, Remove, StopDaemon, StopMachine)
#: Another value, where a digit more would be none.
NETWORKS = {("FlushRoutes", "network"): "10.8.0.0/16"}

EVERY = pytest.mark.parametrize("name", sorted(REGISTRY))


def other(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, tuple):
        return (*value, "192.168.56.99 02:00:c0:a8:38:63")
    return f"{value}9"


def changes(*, removing: bool) -> list[tuple[str, str]]:
    """(operation, field) for all fields that can differ between a node and an operation."""
    return [
        (name, field.name)
        for name, op in SAMPLES.items()
        for field in fields(op)
        if (name, field.name) not in UNSEEN
        and not (field.name == "ns" and isinstance(op, NodeOp))
        and isinstance(op, REMOVING) is removing
    ]


def test_every_operation_has_a_sample() -> None:
    """A new operation is covered by this module, or this fails."""
    assert sorted(SAMPLES) == sorted(REGISTRY)


def test_golden_commands() -> None:
    """What a person would type, what the script runs, and what takes it back."""
    blocks = []
    for name, op in sorted(SAMPLES.items()):
        lines = [
            f"[{name}]",
            f"shown   {op}",
            *(f"shell   {line}" for line in op.shell().splitlines()),
            *(f"clears  {each}" for each in op.clears(OTHERWISE)),
            *(f"undo    {each}" for each in op.undo(OTHERWISE)),
            f"reason  {op.holds(OTHERWISE)}",
            f"json    {json.dumps(to_json(op))}",
        ]
        blocks.append("\n".join(lines) + "\n")
    agrees("ops/operations.txt", "\n".join(blocks))


@EVERY
def test_shell_text_is_a_shell_program(name: str) -> None:
    """A shell can read every text, wherever it is put in the program."""
    program = f"if o=$( {{ {SAMPLES[name].shell()}\n}} 2>&1 ); then :; fi\n"
    read = subprocess.run(
        ["sh", "-n"], input=program, capture_output=True, text=True, check=False, timeout=10
    )
    assert (read.returncode, read.stderr) == (0, "")


def test_shell_texts_quote_what_they_are_given() -> None:
    """No value gets out of its word: a key, a value, a path with a space or a quote."""
    hostile = "a b'; reboot; '"
    quoted = "'a b'\"'\"'; reboot; '\"'\"''"
    texts = [
        SetAlias(name="cbr0", alias=hostile).shell(),
        SetSysctl(key="net.ipv4.ip_forward", value=hostile).shell(),
        StartDaemon(name="etcd", command=(hostile,), log="/l").shell(),
        StartNode(name="n", directory=hostile, hosts="h", busybox="b").shell(),
        MakePlace(path=hostile).shell(),
        PutFile(path="/l", text=hostile).shell(),
        PutFile(path=f"/{hostile}/l", text="x").shell().replace("'/a b", "'a b"),
        Remove(path=hostile).shell(),
        FlushRoutes(network=hostile).shell(),
        RestoreFirewall(policy=hostile, table=True, chain=True).shell(),
    ]
    assert [quoted in text for text in texts] == [True] * 10


@EVERY
def test_holds_on_a_node_that_has_it(name: str) -> None:
    """Nothing is to be done twice."""
    assert SAMPLES[name].holds(DONE) is None


@EVERY
def test_does_not_hold_on_a_node_that_was_never_built(name: str) -> None:
    """The empty state lacks everything that is made, and has nothing that is removed."""
    op = SAMPLES[name]
    assert (op.holds(State()) is None) is isinstance(op, REMOVING)


@EVERY
def test_gives_a_reason_on_a_node_that_is_otherwise(name: str) -> None:
    """The reason is a sentence without a line break."""
    reason = SAMPLES[name].holds(OTHERWISE)
    assert reason
    assert "\n" not in reason


@pytest.mark.parametrize(("name", "field"), changes(removing=True))
def test_every_field_tells_what_is_removed(name: str, field: str) -> None:
    """What differs in one field alone is something else, and that is not there."""
    op = SAMPLES[name]
    wrong = NETWORKS.get((name, field)) or other(getattr(op, field))
    changed: Any = replace(op, **{field: wrong})
    assert (bool(op.holds(OTHERWISE)), changed.holds(OTHERWISE)) == (True, None)


@pytest.mark.parametrize(("name", "field"), changes(removing=False))
def test_every_field_counts(name: str, field: str) -> None:
    """An operation that differs in one field alone is not yet done."""
    op = SAMPLES[name]
    changed: Any = replace(op, **{field: other(getattr(op, field))})
    assert changed.holds(DONE)


def test_unseen_fields_exist() -> None:
    """The list of exceptions holds nothing that is no exception."""
    known = {(name, field.name) for name, op in SAMPLES.items() for field in fields(op)}
    assert known >= UNSEEN


@pytest.mark.parametrize(
    ("op", "state", "reason"),
    [
        (
            AddBridge(name="cbr0"),
            replace(
                DONE,
                net=replace(DONE.net, links={"cbr0": replace(DONE.net.links["cbr0"], stp=True)}),
            ),
            "cbr0 has STP on, wanted off",
        ),
        (
            AddVeth(name="vethlocal", peer="vethNS", peer_ns="container01"),
            replace(DONE, machines={"container01": Process(27, 99, False)}),
            "vethNS went with container01",
        ),
        (
            AddVeth(name="vethlocal", peer="vethNS", peer_ns="container01"),
            replace(DONE, inside={"container01": Net()}),
            "vethNS is not in container01",
        ),
        (
            AddNeighbours(name="eth0", entries=NEIGHBOURS),
            replace(
                DONE,
                net=replace(
                    DONE.net,
                    neighbours=tuple(replace(n, state="STALE") for n in DONE.net.neighbours),
                ),
            ),
            "2 neighbour entries are missing",
        ),
        (
            StartDaemon(name="flannel", command=COMMAND, log="/l"),
            replace(DONE, daemons={"flannel": Process(40, 99, False)}),
            "flannel (PID 40) is gone",
        ),
        (
            StartDaemon(name="flannel", command=COMMAND, log="/l", again="flannel.1 is down"),
            DONE,
            "flannel.1 is down",
        ),
        (
            StartContainer(name="container01", root="/r", programs="/p", ipv6=False),
            replace(DONE, machines={"container01": Process(27, 99, False)}),
            "container01's PID 1 (27) is gone",
        ),
        (MakePlace(path=PLACE), State(), "/run/etcd does not exist"),
        (Remove(path=PLACE), DONE, "/run/etcd exists"),
        (PutFile(path=SECRET, text=TEXT), State(), f"{SECRET} does not exist"),
        (PutFile(path=SECRET, text="other"), DONE, f"{SECRET} has other contents"),
        (PutFile(path=SECRET), State(), f"{SECRET} does not exist"),
        (
            FlushRoutes(network=OVERLAY),
            State(net=Net(routes=(Route("10.5.2.0/24", "192.168.56.22", "eth0"),))),
            "routes into 10.5.0.0/16 exist",
        ),
        (
            RestoreFirewall(policy="DROP", table=True, chain=True),
            replace(DONE, firewall=Firewall("DROP", table=True, chain=True, flannel=True)),
            "flannel's rules are in the firewall",
        ),
        (
            RestoreFirewall(policy="DROP", table=True, chain=True),
            OTHERWISE,
            "the FORWARD chain is not as it was",
        ),
        (
            AddAddress(name="eth0", address="192.168.56.21/24"),
            replace(
                DONE,
                net=replace(
                    DONE.net,
                    links={
                        "eth0": replace(
                            DONE.net.links["eth0"], addresses=("192.168.56.21/24", "10.0.0.1/8")
                        )
                    },
                ),
            ),
            "eth0's address is 192.168.56.21/24 10.0.0.1/8, wanted 192.168.56.21/24",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_reasons(op: Op, state: State, reason: str) -> None:
    """What a field's change does not show: the reason is in the node."""
    assert op.holds(state) == reason


def test_a_file_whose_text_nobody_knows_any_more_only_has_to_be_there() -> None:
    """Keys are not kept: on a second `up` there is no text to compare with."""
    assert PutFile(path=SECRET).holds(DONE) is None
    assert PutFile(path=SECRET).holds(OTHERWISE) is None


def test_a_files_text_is_on_no_command_line() -> None:
    """Anybody on a host may look at others' arguments; only the shell itself sees a key."""
    op = PutFile(path=SECRET, text=TEXT)
    assert TEXT not in " ".join(op.argv())
    assert TEXT not in str(op)


@pytest.mark.parametrize(
    ("dst", "inside"),
    [
        ("10.5.0.0/16", True),
        ("10.5.2.0/24", True),
        ("10.5.2.7", True),
        ("10.0.0.0/8", False),
        ("10.6.0.0/24", False),
        ("default", False),
    ],
)
def test_routes_into_a_network(dst: str, inside: bool) -> None:
    """The network itself and its parts; what it is a part of is somebody else's."""
    route = Route(dst, "192.168.56.22", "eth0")
    assert Net(routes=(route,)).routes_into(OVERLAY) == ((route,) if inside else ())


def test_a_veth_on_the_switch_is_judged_without_looking_into_the_node() -> None:
    """The switch's snapshot does not read the nodes' networks; that the node lives is enough."""
    cable = AddVeth(name="node01", peer="eth0", peer_ns="node01")
    links = {"node01": Link("node01", "veth", 1500, True, MAC)}
    assert cable.holds(State(net=Net(links), machines={"node01": Process(9, 1, True)})) is None


def test_a_removed_route_must_be_that_very_route() -> None:
    """A route to the same network through another gateway is not the one to remove."""
    state = State(net=Net(routes=(Route("default", "10.0.0.2", "eth0"),)))
    seen = [
        DelRoute(dst="default", via=via, dev=dev).holds(state)
        for via, dev in [("10.0.0.2", "eth0"), ("10.0.0.1", "eth0"), ("10.0.0.2", "eth1")]
    ]
    assert seen == ["a route to default exists", None, None]


def test_operations_of_the_node_itself_refuse_a_machine() -> None:
    """A sysctl or a daemon is the node's; a `ns` there would be ignored silently."""
    own = {name: op for name, op in SAMPLES.items() if isinstance(op, NodeOp)}
    assert sorted(own) == [
        "FlushRoutes",
        "MakePlace",
        "PutFile",
        "PutKey",
        "Remove",
        "RestoreFirewall",
        "SetSysctl",
        "StartContainer",
        "StartDaemon",
        "StartFlanneld",
        "StartNode",
        "StopDaemon",
        "StopMachine",
    ]
    for name, op in own.items():
        with pytest.raises(ValueError, match=f"{name} is for a node itself, not for 'container01'"):
            replace(op, ns="container01")


# --- undo ---------------------------------------------------------------------------------------


@EVERY
def test_undo_gives_back_what_was_there(name: str) -> None:
    """On a node where it was otherwise, the undo aims at that."""
    op = SAMPLES[name]
    back = op.undo(OTHERWISE)
    assert all(isinstance(each, Op) for each in back)
    assert op not in back


@pytest.mark.parametrize(
    ("op", "undo"),
    [
        (SetMtu(name="eth0", mtu=1500), SetMtu(name="eth0", mtu=9000)),
        (SetUp(name="cbr0"), SetUp(name="cbr0", up=False)),
        (SetMac(name="eth0", mac=MAC), SetMac(name="eth0", mac="aa:aa:aa:aa:aa:aa")),
        (SetAlias(name="eth0", alias="vxlab:talk"), SetAlias(name="eth0", alias="host's")),
        (SetMaster(name="vethlocal", master="cbr0"), SetMaster(name="vethlocal", master="br9")),
        (
            SetSysctl(key="net.ipv4.ip_forward", value="1"),
            SetSysctl(key="net.ipv4.ip_forward", value="0"),
        ),
        (
            DelAddress(name="cbr0", address="10.5.9.1/24"),
            AddAddress(name="cbr0", address="10.5.9.1/24"),
        ),
        (
            AddRoute(dst="default", via="10.0.0.1", dev="eth0", ns="c"),
            DelRoute(dst="default", via="10.0.0.1", dev="eth0", ns="c"),
        ),
        (AddBridge(name="cbr0"), DelLink(name="cbr0")),
        (AddVeth(name="v", peer="p", peer_ns="c"), DelLink(name="v")),
        (StartDaemon(name="etcd", command=("e",), log="/l"), StopDaemon(name="etcd")),
        (MakePlace(path=PLACE), Remove(path=PLACE)),
        (MakePlace(path=GONE, directory=False), Remove(path=GONE)),
        (PutFile(path=SECRET, text=TEXT), Remove(path=SECRET)),
        (
            StartContainer(name="c", root="/r", programs="/p", ipv6=False),
            StopMachine(name="c"),
        ),
    ],
    ids=lambda op: type(op).__name__,
)
def test_undo(op: Op, undo: Op) -> None:
    """A value goes back to what it was; what was made is removed."""
    assert op.undo(OTHERWISE) == (undo,)


@pytest.mark.parametrize(
    "op",
    [
        SetMtu(name="none", mtu=1),
        SetUp(name="none"),
        SetMac(name="none", mac=MAC),
        SetAlias(name="none", alias="a"),
        SetMaster(name="none", master="b"),
        SetSysctl(key="net.ipv6.conf.all.disable_ipv6", value="1"),
    ],
    ids=lambda op: type(op).__name__,
)
def test_undo_of_what_was_not_there(op: Op) -> None:
    """An interface that did not exist, or a sysctl that the kernel lacks, has no value before."""
    assert op.undo(OTHERWISE) == ()


FLANNELD = StartFlanneld(name="flannel", command=COMMAND, log="/l", network=OVERLAY)


@pytest.mark.parametrize(
    ("op", "firewall", "undo"),
    [
        (FLANNELD, None, [FlushRoutes(network=OVERLAY)]),
        (
            replace(FLANNELD, device="flannel.1"),
            None,
            [DelLink(name="flannel.1"), FlushRoutes(network=OVERLAY)],
        ),
        (
            FLANNELD,
            Firewall("DROP", table=True, chain=False, flannel=False),
            [
                FlushRoutes(network=OVERLAY),
                RestoreFirewall(policy="DROP", table=True, chain=False),
            ],
        ),
        (
            FLANNELD,
            Firewall("ACCEPT", table=True, chain=True, flannel=True),
            [FlushRoutes(network=OVERLAY)],
        ),
    ],
    ids=["host-gw", "vxlan", "a real host", "started again"],
)
def test_undo_of_flanneld(op: StartFlanneld, firewall: Firewall | None, undo: list[Op]) -> None:
    """First it ends, then goes what it left; the firewall goes back to before its first start."""
    before = replace(OTHERWISE, firewall=firewall)
    assert list(op.undo(before)) == [StopDaemon(name="flannel"), *undo]


def forwarding(**values: str) -> State:
    """A node with these switches, the interfaces' own by their names."""
    keys = {f"net.ipv4.conf.{name.replace('_', '/')}.forwarding": v for name, v in values.items()}
    return State(net=Net(sysctls={"net.ipv4.ip_forward": "0", **keys}))


def test_undo_of_ip_forward_restores_every_interfaces_own() -> None:
    """The kernel writes the value into every interface; one may have had another."""
    before = forwarding(all="0", default="0", eth0="1", eth0_100="0")
    assert [str(op) for op in SetSysctl(key="net.ipv4.ip_forward", value="1").undo(before)] == [
        "sysctl -w net.ipv4.ip_forward=0",
        "sysctl -w net.ipv4.conf.all.forwarding=0",
        "sysctl -w net.ipv4.conf.default.forwarding=0",
        "sysctl -w net.ipv4.conf.eth0.forwarding=1",
        "sysctl -w net.ipv4.conf.eth0/100.forwarding=0",
    ]


def test_undo_of_another_switch_is_that_switch() -> None:
    """IPv6's has no interfaces' values to it."""
    op = SetSysctl(key="net.ipv6.conf.all.disable_ipv6", value="1")
    before = forwarding(eth0="1")
    before = replace(before, net=replace(before.net, sysctls={**before.net.sysctls, op.key: "0"}))
    assert op.undo(before) == (replace(op, value="0"),)


def test_a_dot_in_an_interfaces_name() -> None:
    """sysctl(8) writes it as a slash; below /proc/sys it is a dot."""
    op = SetSysctl(key="net.ipv4.conf.eth0/100.forwarding", value="1")
    assert op.path == "net/ipv4/conf/eth0.100/forwarding"
    assert "echo 1 >/proc/sys/net/ipv4/conf/eth0.100/forwarding" in op.shell()
    assert op.holds(forwarding(eth0_100="1")) is None


@EVERY
def test_undo_of_a_node_that_was_otherwise_then_holds_there(name: str) -> None:
    """Once everything is taken back the node is as it was: the undo holds on the old state.

    What went out of the way first is put back by its own undo. A lab's file that is written anew
    is not: its place is the lab's.
    """
    op = SAMPLES[name]
    new = op.clears(OTHERWISE) or isinstance(op, (*REMOVING, PutFile))
    before = State() if new else OTHERWISE
    assert [back.holds(before) for back in op.undo(before) if not isinstance(op, REMOVING)] == [
        None for _ in op.undo(before) if not isinstance(op, REMOVING)
    ]


# --- what is in the way -------------------------------------------------------------------------


@EVERY
def test_clears_nothing_on_a_new_node(name: str) -> None:
    """There is nothing in the way where nothing is."""
    assert SAMPLES[name].clears(State()) == ()


@pytest.mark.parametrize(
    ("op", "first"),
    [
        (AddBridge(name="cbr0"), (DelLink(name="cbr0"),)),
        (
            AddAddress(name="vethNS", address="10.5.73.10/24", ns="container01"),
            (DelAddress(name="vethNS", address="10.5.9.9/24", ns="container01"),),
        ),
        (
            AddRoute(dst="default", via="10.5.73.1", dev="vethNS", ns="container01"),
            (DelRoute(dst="default", via="10.5.9.1", dev="vethNS", ns="container01"),),
        ),
        (
            StartDaemon(name="flannel", command=COMMAND, log="/l"),
            (StopDaemon(name="flannel"),),
        ),
        (SetMtu(name="eth0", mtu=1500), ()),
    ],
    ids=lambda op: type(op).__name__,
)
def test_clears(op: Op, first: tuple[Op, ...]) -> None:
    """What has the name, the address's interface, the route or the daemon's place goes first."""
    assert op.clears(OTHERWISE) == first


def test_cleared_puts_first_what_is_in_the_way() -> None:
    """The old address goes right before the new one comes."""
    new = AddAddress(name="vethNS", address="10.5.73.10/24", ns="container01")
    up = SetUp(name="vethNS", ns="container01")
    old = DelAddress(name="vethNS", address="10.5.9.9/24", ns="container01")
    assert cleared([new, up], OTHERWISE) == [old, new, up]


def test_nothing_is_in_the_way_on_a_new_interface() -> None:
    """The old bridge's address went with the bridge; deleting it would fail."""
    todo: list[Op] = [AddBridge(name="cbr0"), AddAddress(name="cbr0", address="10.5.73.1/24")]
    assert cleared(todo, OTHERWISE) == [DelLink(name="cbr0"), *todo]


def test_nothing_is_in_the_way_in_a_new_container() -> None:
    """A machine that is started anew has neither its old addresses nor its old routes."""
    todo: list[Op] = [
        StartContainer(name="container01", root="/r", programs="/p", ipv6=False),
        AddAddress(name="vethNS", address="10.5.73.10/24", ns="container01"),
        AddRoute(dst="default", via="10.5.73.1", dev="vethNS", ns="container01"),
    ]
    assert cleared(todo, OTHERWISE) == todo


# --- what is to be done -------------------------------------------------------------------------


def test_pending_keeps_the_order_and_says_why() -> None:
    """Only what does not hold, in the plan's order."""
    todo: list[Op] = [
        SetMtu(name="cbr0", mtu=1400),
        SetUp(name="cbr0"),
        SetMaster(name="eth0", master="cbr0"),
        SetAlias(name="cbr0", alias="vxlab:talk"),
    ]
    assert pending(todo, DONE) == [
        (todo[0], "cbr0's MTU is 1450, wanted 1400"),
        (todo[2], "eth0's bridge is unset, wanted cbr0"),
    ]


def test_nothing_is_pending_on_a_node_that_is_as_wanted() -> None:
    """All samples hold where all were done."""
    assert pending(SAMPLES.values(), DONE) == []


def test_what_is_on_a_new_bridge_is_done_again() -> None:
    """STP was on, so the bridge is made anew: alias, address and ports of the old one are gone."""
    bridge = replace(DONE.net.links["cbr0"], stp=True, addresses=("10.5.73.1/24",))
    state = replace(DONE, net=replace(DONE.net, links={**DONE.net.links, "cbr0": bridge}))
    todo: list[Op] = [
        SetMac(name="eth0", mac=MAC),
        AddBridge(name="cbr0"),
        SetAlias(name="cbr0", alias="vxlab:talk"),
        SetMaster(name="vethlocal", master="cbr0"),
        AddAddress(name="cbr0", address="10.5.73.1/24"),
        SetMtu(name="vethlocal", mtu=1450),
    ]
    assert pending(todo, state) == [
        (todo[1], "cbr0 has STP on, wanted off"),
        (todo[2], "cbr0 is made anew"),
        (todo[3], "cbr0 is made anew"),
        (todo[4], "cbr0 is made anew"),
    ]


def test_what_is_in_a_new_container_is_done_again() -> None:
    """A container that is started anew has no interface, whatever the snapshot shows."""
    state = replace(DONE, machines={"container01": Process(27, 99, False)})
    todo: list[Op] = [
        StartContainer(name="container01", root="/r", programs="/p", ipv6=False),
        AddVeth(name="vethlocal", peer="vethNS", peer_ns="container01"),
        SetMtu(name="vethNS", mtu=1450, ns="container01"),
        AddRoute(dst="default", via="10.5.73.1", dev="vethNS", ns="container01"),
        SetUp(name="cbr0"),
    ]
    assert [op for op, _ in pending(todo, state)] == todo[:4]
    assert pending(todo, state)[3][1] == "container01 is made anew"


def test_what_is_on_the_far_end_of_a_new_cable_is_done_again() -> None:
    """A veth pair is made as one: the end in the container is a new interface, too."""
    links = {**DONE.net.links, "vethlocal": Link("vethlocal", "", 1450, True, MAC)}
    state = replace(DONE, net=replace(DONE.net, links=links))
    todo: list[Op] = [
        AddVeth(name="vethlocal", peer="vethNS", peer_ns="container01"),
        AddAddress(name="vethNS", address="10.5.73.10/24", ns="container01"),
        AddRoute(dst="default", via="10.5.73.1", dev="vethNS", ns="container01"),
        SetMac(name="eth0", mac=MAC),
    ]
    assert pending(todo, state) == [
        (todo[0], "vethlocal is a device, wanted a veth"),
        (todo[1], "vethNS is made anew"),
        (todo[2], "vethNS is made anew"),
    ]


def test_an_interface_of_the_same_name_elsewhere_is_not_new() -> None:
    """Every container has a vethNS; a new one is new in its container alone."""
    inside = dict.fromkeys(("container01", "container02"), DONE.inside["container01"])
    machines = {name: Process(27, 99, True) for name in inside}
    state = replace(DONE, inside=inside, machines=machines)
    todo: list[Op] = [
        AddVeth(name="vethlocal2", peer="vethNS", peer_ns="container02"),
        SetMtu(name="vethNS", mtu=1450, ns="container01"),
        SetMtu(name="vethNS", mtu=1450, ns="container02"),
    ]
    assert [op for op, _ in pending(todo, state)] == [todo[0], todo[2]]


# --- what an undo can do without -----------------------------------------------------------------


def test_an_undo_leaves_out_what_goes_with_an_interface() -> None:
    """Its address, MTU and bridge need not be taken back: it goes. So does the cable's far end."""
    undo: list[Op] = [
        DelRoute(dst="default", via="10.5.1.1", dev="vethNS", ns="demo"),
        SetUp(name="cbr0", up=False),
        SetMaster(name="vethlocal", master=""),
        DelAddress(name="cbr0", address="10.5.1.1/24"),
        DelLink(name="cbr0"),
        SetMtu(name="vethlocal", mtu=1500),
        SetMtu(name="eth0", mtu=9000),
        DelAddress(name="vethNS", address="10.5.1.10/24", ns="demo"),
        DelLink(name="vethlocal"),
        StopMachine(name="demo"),
        StopDaemon(name="flannel"),
        DelLink(name="flannel.1"),
        FlushRoutes(network=OVERLAY),
        RestoreFirewall(policy="DROP", table=True, chain=True),
        SetSysctl(key="net.ipv4.ip_forward", value="0"),
        Remove(path=PLACE),
    ]
    kept = (DelLink, StopMachine, StopDaemon, FlushRoutes, RestoreFirewall, SetSysctl, Remove)
    eth0 = SetMtu(name="eth0", mtu=9000)
    assert outlasting(undo) == [op for op in undo if isinstance(op, kept) or op == eth0]


def test_an_undo_keeps_what_is_of_the_same_name_elsewhere() -> None:
    """The node's own vethNS, if it had one, is not the container's."""
    undo: list[Op] = [
        SetMtu(name="vethNS", mtu=1400),
        SetMtu(name="cbr0", mtu=1400, ns="other"),
        DelLink(name="vethNS", ns="demo"),
        DelLink(name="cbr0"),
    ]
    assert outlasting(undo) == undo


# --- the journal's form -------------------------------------------------------------------------


@EVERY
def test_json_round_trip(name: str) -> None:
    """What the journal keeps is the same operation when a later process reads it."""
    op = SAMPLES[name]
    assert from_json(json.loads(json.dumps(to_json(op)))) == op


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"op": "Reboot"}, "no operation called 'Reboot'"),
        ({}, "no operation called None"),
        ({"op": ["SetMtu"]}, "no operation called ['SetMtu']"),
        ({"op": "SetMtu", "name": "eth0"}, "SetMtu has the fields ns, name, mtu, not ['name']"),
        (
            {"op": "DelLink", "name": "eth0", "force": True},
            "DelLink has the fields ns, name, not ['force', 'name']",
        ),
        ([1], "an operation is a JSON object, not [1]"),
        (
            {"op": "SetSysctl", "key": "k", "value": "v", "ns": "c"},
            "SetSysctl is for a node itself, not for 'c'",
        ),
    ],
)
def test_json_that_is_no_operation(data: Any, message: str) -> None:
    """Another version's or a damaged journal is refused with what is wrong with it."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared
        from_json(data)
    assert str(caught.value) == message


def test_the_vocabulary_is_one_module_for_its_users() -> None:
    """``ops.AddVeth`` and ``from vxlab.ops import AddVeth`` name every registered operation."""
    assert {name: getattr(ops, name) for name in REGISTRY} == REGISTRY
    assert set(REGISTRY) <= set(ops.__all__)
