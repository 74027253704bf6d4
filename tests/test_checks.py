"""The questions of `verify`: each is good on a lab that works, and fails for every reason it has.

The evidence is `talk.evidence`; each case damages it in one way and names all findings that are
then not good.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import lablib
import talk
from vxlab import labfile
from vxlab.checks import CHECKS
from vxlab.checks.finding import EdgeSeen, Evidence, Finding, Lease, Reached, compare, leases
from vxlab.engine.verify import Answered, verdict
from vxlab.lab import FLANNEL_PREFIX, Lab
from vxlab.packet import Packet, decode
from vxlab.state import FdbEntry, Neighbour, Net, Route, State, UdpSocket, Vxlan

WORKS = talk.evidence()
C1, C2 = "node01/container01", "node02/container02"

Damage = Callable[[Evidence], Evidence]


def answers(evidence: Evidence) -> list[Answered]:
    return [Answered(check, tuple(check.answer(evidence))) for check in CHECKS]


def findings(evidence: Evidence) -> list[Finding]:
    return [finding for answer in answers(evidence) for finding in answer.findings]


def bad(evidence: Evidence) -> list[tuple[str, str, bool | None, str]]:
    """Code, place, verdict and what was seen, of all that is not good."""
    return [(f.code, f.where, f.ok, f.seen) for f in findings(evidence) if f.ok is not True]


# --- ways to damage -----------------------------------------------------------------------------


def on(node: str, **changes: Any) -> Damage:
    """Another state of a node."""
    return lambda e: replace(e, states={**e.states, node: replace(e.states[node], **changes)})


def net(node: str, **changes: Any) -> Damage:
    """Other tables on a node."""

    def damage(e: Evidence) -> Evidence:
        return on(node, net=replace(e.states[node].net, **changes))(e)

    return damage


def link(node: str, name: str, **changes: Any) -> Damage:
    """An interface of a node with other values; without values it is gone."""

    def damage(e: Evidence) -> Evidence:
        links = dict(e.states[node].net.links)
        old = links.pop(name)
        return net(node, links={**links, name: replace(old, **changes)} if changes else links)(e)

    return damage


def inside(node: str, container: str, **changes: Any) -> Damage:
    """A container's vethNS with other values; without values it is gone."""

    def damage(e: Evidence) -> Evidence:
        old = e.states[node].inside[container].links["vethNS"]
        links = {"vethNS": replace(old, **changes)} if changes else {}
        return on(node, inside={container: Net(links=links)})(e)

    return damage


def dead(node: str, kind: str, name: str) -> Damage:
    """A daemon or a container that ended."""

    def damage(e: Evidence) -> Evidence:
        processes = getattr(e.states[node], kind)
        ended = replace(processes[name], alive=False)
        return on(node, **{kind: {**processes, name: ended}})(e)

    return damage


def pinned(subnet: str) -> Damage:
    """A lab whose node01 wants that very subnet."""
    text = f"nodes: {{node01: {{subnet: {subnet}}}, node02: }}"
    return lambda e: replace(e, lab=labfile.loads(text, "pinned"))


def seen(**changes: Any) -> Damage:
    return lambda e: replace(e, **changes)


def lease(address: str, **changes: Any) -> Damage:
    """A lease with other values; without values it is gone."""

    def damage(e: Evidence) -> Evidence:
        kept = [x for x in e.leases if x.public_ip != address]
        old = next(x for x in e.leases if x.public_ip == address)
        return replace(e, leases=(*kept, *([replace(old, **changes)] if changes else [])))

    return damage


def wire(**changes: Any) -> Damage:
    """Another capture on node01."""
    return lambda e: replace(e, wire=(replace(e.wire[0], **changes), *e.wire[1:]))


def packet(lab: Lab = talk.TALK, **how: Any) -> Packet:
    """A packet on node01's wire."""
    capture = talk.evidence(lab).wire[0]
    outer = ("192.168.56.21", "192.168.56.22")
    return talk.on_the_wire(lab, capture.src, capture.dst, outer, **how)


MAC2 = talk.vtep_mac(2)
VXLAN = Vxlan(1, 8472, "192.168.56.21", False)
VTEP = "VNI 1, port 8472, local 192.168.56.21, nolearning, MTU 1450, up"

#: What is done to the evidence, and all findings that are then not good.
CASES: dict[str, tuple[Damage, list[tuple[str, str, bool | None, str]]]] = {
    # daemons
    "flanneld ended": (
        dead("node02", "daemons", "flannel"),
        [("daemons", "node02", False, "not running: flannel")],
    ),
    "etcd ended": (
        dead("node01", "daemons", "etcd"),
        [("daemons", "node01", False, "not running: etcd")],
    ),
    "a container ended": (
        dead("node02", "machines", "container02"),
        [("daemons", "node02", False, "not running: container02")],
    ),
    "nothing was ever started": (
        on("node01", daemons={}, machines={}),
        [("daemons", "node01", False, "not running: etcd, flannel, container01")],
    ),
    # etcd
    "etcd does not answer": (
        seen(etcd_version="", etcd_error="etcd is not healthy after 2 s"),
        [("etcd", "node01", False, "etcd is not healthy after 2 s")],
    ),
    "etcd does not answer and nobody knows why": (
        seen(etcd_version=""),
        [("etcd", "node01", False, "no answer")],
    ),
    "another configuration": (
        seen(keys={**talk.keys(), f"{FLANNEL_PREFIX}/config": '{"Network": "10.9.0.0/16"}'}),
        [("etcd", "node01", False, 'configuration {"Network": "10.9.0.0/16"}')],
    ),
    "no configuration": (
        seen(keys={}),
        [("etcd", "node01", False, "no configuration")],
    ),
    "a configuration that is no JSON": (
        seen(keys={f"{FLANNEL_PREFIX}/config": "vxlan please"}),
        [("etcd", "node01", False, "configuration vxlan please")],
    ),
    # lease
    "no lease": (
        lease("192.168.56.22"),
        [
            ("lease", "node02", False, "no lease in etcd for 192.168.56.22"),
            ("entries", "node01", False, "node02 has no lease in etcd"),
        ],
    ),
    "another lease than subnet.env's": (
        lease("192.168.56.22", subnet="10.5.9.0/24"),
        [
            ("lease", "node02", False, "subnet.env says 10.5.2.0/24"),
            ("entries", "node01", False, "no route to 10.5.9.0/24 (node02)"),
        ],
    ),
    "no subnet.env": (
        on("node01", subnet_env=None),
        [
            ("lease", "node01", False, "no subnet.env"),
            ("mtu", "node01", False, "subnet.env is missing, wanted 1450"),
        ],
    ),
    "another subnet than the pinned one": (
        pinned("10.5.7.0/24"),
        [("lease", "node01", False, "the lease is 10.5.1.0/24, pinned is 10.5.7.0/24")],
    ),
    "the bridge has no address": (
        link("node01", "cbr0", addresses=()),
        [("lease", "node01", False, "cbr0 has no address")],
    ),
    "the bridge has another address": (
        link("node01", "cbr0", addresses=("10.5.1.1/24", "10.5.9.1/24")),
        [("lease", "node01", False, "cbr0 has 10.5.1.1/24 10.5.9.1/24")],
    ),
    "the bridge is gone": (
        link("node01", "cbr0"),
        [
            ("lease", "node01", False, "cbr0 has no address"),
            ("mtu", "node01", False, "cbr0 is missing, wanted 1450"),
        ],
    ),
    "a container has another address": (
        inside("node02", "container02", addresses=("10.5.2.77/24",)),
        [("lease", "node02", False, "container02 has 10.5.2.77/24, wanted 10.5.2.10/24")],
    ),
    "a container has no interface": (
        inside("node02", "container02"),
        [
            ("lease", "node02", False, "container02 has no address, wanted 10.5.2.10/24"),
            ("mtu", "node02", False, "container02:vethNS is missing, wanted 1450"),
        ],
    ),
    # vtep
    "the VTEP is gone": (
        link("node01", "flannel.1"),
        [
            ("vtep", "node01", False, "flannel.1: does not exist"),
            ("mtu", "node01", False, "flannel.1 is missing, wanted 1450"),
        ],
    ),
    "the VTEP is no VXLAN device": (
        link("node01", "flannel.1", kind="dummy", vxlan=None),
        [("vtep", "node01", False, "flannel.1: a dummy, no VXLAN")],
    ),
    "the VTEP has another VNI": (
        link("node01", "flannel.1", vxlan=replace(VXLAN, vni=7)),
        [("vtep", "node01", False, f"flannel.1: {VTEP.replace('VNI 1', 'VNI 7')}")],
    ),
    "the VTEP has another port": (
        link("node01", "flannel.1", vxlan=replace(VXLAN, port=4789)),
        [("vtep", "node01", False, f"flannel.1: {VTEP.replace('8472', '4789')}")],
    ),
    "the VTEP has another local address": (
        link("node01", "flannel.1", vxlan=replace(VXLAN, local="127.0.0.1")),
        [("vtep", "node01", False, f"flannel.1: {VTEP.replace('192.168.56.21', '127.0.0.1')}")],
    ),
    "the VTEP learns": (
        link("node01", "flannel.1", vxlan=replace(VXLAN, learning=True)),
        [("vtep", "node01", False, f"flannel.1: {VTEP.replace('nolearning', 'learning')}")],
    ),
    "the VTEP is down": (
        link("node01", "flannel.1", up=False),
        [("vtep", "node01", False, f"flannel.1: {VTEP.removesuffix('up')}down")],
    ),
    "the VTEP has another MTU": (
        link("node01", "flannel.1", mtu=1500),
        [
            ("vtep", "node01", False, f"flannel.1: {VTEP.replace('1450', '1500')}"),
            ("mtu", "node01", False, "flannel.1 1500, wanted 1450"),
        ],
    ),
    # entries
    "no route": (
        net("node01", routes=()),
        [("entries", "node01", False, "no route to 10.5.2.0/24 (node02)")],
    ),
    "a route elsewhere": (
        net("node01", routes=(Route("10.5.2.0/24", "192.168.56.22", "eth0"),)),
        [
            (
                "entries",
                "node01",
                False,
                "10.5.2.0/24 via 192.168.56.22 dev eth0, "
                "wanted via 10.5.2.0 dev flannel.1 (node02)",
            )
        ],
    ),
    "no neighbour entry": (
        net("node01", neighbours=()),
        [("entries", "node01", False, "no neighbour entry for 10.5.2.0 (node02)")],
    ),
    "a neighbour entry on another interface": (
        net("node01", neighbours=(Neighbour("10.5.2.0", "eth0", MAC2, "PERMANENT"),)),
        [("entries", "node01", False, "no neighbour entry for 10.5.2.0 (node02)")],
    ),
    "a neighbour entry with another MAC": (
        net("node01", neighbours=(Neighbour("10.5.2.0", "flannel.1", "aa", "PERMANENT"),)),
        [
            (
                "entries",
                "node01",
                False,
                f"10.5.2.0 is at aa PERMANENT, wanted {MAC2} PERMANENT (node02)",
            )
        ],
    ),
    "a neighbour entry that will go stale": (
        net("node01", neighbours=(Neighbour("10.5.2.0", "flannel.1", MAC2, "REACHABLE"),)),
        [
            (
                "entries",
                "node01",
                False,
                f"10.5.2.0 is at {MAC2} REACHABLE, wanted {MAC2} PERMANENT (node02)",
            )
        ],
    ),
    "no FDB entry": (
        net("node01", fdb=()),
        [
            (
                "entries",
                "node01",
                False,
                f"the FDB sends {MAC2} to nowhere, wanted 192.168.56.22 (node02)",
            )
        ],
    ),
    "an FDB entry to another node": (
        net("node01", fdb=(FdbEntry(MAC2, "flannel.1", "192.168.56.99"),)),
        [
            (
                "entries",
                "node01",
                False,
                f"the FDB sends {MAC2} to 192.168.56.99, wanted 192.168.56.22 (node02)",
            )
        ],
    ),
    "a second FDB entry": (
        net(
            "node01",
            fdb=tuple(FdbEntry(MAC2, "flannel.1", f"192.168.56.{n}") for n in (22, 99)),
        ),
        [
            (
                "entries",
                "node01",
                False,
                f"the FDB sends {MAC2} to 192.168.56.22, 192.168.56.99, "
                "wanted 192.168.56.22 (node02)",
            )
        ],
    ),
    "the peer's VTEP has another MAC than its lease": (
        lease("192.168.56.22", vtep_mac="5a:ff"),
        [
            (
                "entries",
                "node01",
                False,
                f"10.5.2.0 is at {MAC2} PERMANENT, wanted 5a:ff PERMANENT (node02); "
                "the FDB sends 5a:ff to nowhere, wanted 192.168.56.22 (node02)",
            )
        ],
    ),
    # socket
    "nobody listens": (
        on("node01", udp=(UdpSocket(53),)),
        [("socket", "node01", False, "UDP 8472 is not open")],
    ),
    "a process listens": (
        on("node01", udp=(UdpSocket(8472, 'users:(("thief",pid=7,fd=3))'),)),
        [("socket", "node01", False, 'UDP 8472 belongs to users:(("thief",pid=7,fd=3))')],
    ),
    # forwarding
    "no forwarding": (
        net("node02", sysctls={"net.ipv4.ip_forward": "0"}),
        [("forwarding", "node02", False, "net.ipv4.ip_forward = 0")],
    ),
    "forwarding is not known": (
        net("node02", sysctls={}),
        [("forwarding", "node02", False, "no net.ipv4.ip_forward")],
    ),
    # mtu
    "the underlay's MTU": (
        link("node01", "eth0", mtu=1400),
        [("mtu", "node01", False, "eth0 1400, wanted 1500")],
    ),
    "the cable's MTU, as the talk has it at first": (
        lambda e: inside("node01", "container01", mtu=1500)(
            link("node01", "vethlocal", mtu=1500)(e)
        ),
        [
            (
                "mtu",
                "node01",
                False,
                "vethlocal 1500, wanted 1450; container01:vethNS 1500, wanted 1450",
            )
        ],
    ),
    "the bridge's MTU": (
        link("node02", "cbr0", mtu=1500),
        [("mtu", "node02", False, "cbr0 1500, wanted 1450")],
    ),
    # gateway
    "the gateway is silent": (
        seen(gateways={C1: Reached(False, error="no answer within 1 s"), C2: Reached(True, 9.0)}),
        [("gateway", C1, False, "no answer within 1 s")],
    ),
    "the gateway could not be asked": (
        seen(gateways={C1: Reached(None, error="sendto: operation not permitted")}),
        [
            ("gateway", C1, None, "sendto: operation not permitted"),
            ("gateway", C2, None, "could not be tried"),
        ],
    ),
    # pairs
    "one way does not work": (
        seen(pairs={(C1, C2): Reached(False, error="unreachable"), (C2, C1): Reached(True, 9.0)}),
        [("pairs", C1, False, f"-> {C2}: unreachable")],
    ),
    "one way was not measured": (
        seen(pairs={(C1, C2): Reached(None, error="the reply was late"), (C2, C1): Reached(True)}),
        [("pairs", C1, None, f"-> {C2}: the reply was late")],
    ),
    "no pair was tried": (
        seen(pairs={}),
        [
            ("pairs", C1, None, "1 of 1 others could not be tried"),
            ("pairs", C2, None, "1 of 1 others could not be tried"),
        ],
    ),
    # edge
    "a byte more passes": (
        seen(edges=(EdgeSeen(C1, C2, 1450, False, "1451 bytes passed"),)),
        [("edge", f"{C1} -> {C2}", False, "1451 bytes passed")],
    ),
    "the edge was not measured": (
        seen(edges=(EdgeSeen(C1, C2, 1450, None, "the third packet was lost"),)),
        [("edge", f"{C1} -> {C2}", None, "the third packet was lost")],
    ),
    "no pair for the edge": (
        seen(edges=()),
        [("edge", "talk", None, "no pair to try it on")],
    ),
    # encapsulation
    "another VNI on the wire": (
        wire(packets=(packet(vni=7),)),
        [
            (
                "encapsulation",
                "node01:eth0",
                False,
                "VXLAN, VNI 7, UDP 8472, +50 bytes (1 packet of 1500 bytes)",
            )
        ],
    ),
    "another port on the wire": (
        wire(packets=(packet(port=4789),)),
        [
            (
                "encapsulation",
                "node01:eth0",
                False,
                "VXLAN, VNI 1, UDP 4789, +50 bytes (1 packet of 1500 bytes)",
            )
        ],
    ),
    "another overhead": (
        wire(packets=(packet(filler=4),)),
        [
            (
                "encapsulation",
                "node01:eth0",
                False,
                "VXLAN, VNI 1, UDP 8472, +54 bytes (1 packet of 1504 bytes)",
            )
        ],
    ),
    "bare packets on the wire": (
        wire(packets=(packet(bare=True),)),
        [
            (
                "encapsulation",
                "node01:eth0",
                False,
                "not encapsulated (1 packet of 1450 bytes)",
            )
        ],
    ),
    "one of two packets is bare": (
        wire(packets=(packet(), packet(bare=True))),
        [
            (
                "encapsulation",
                "node01:eth0",
                False,
                "VXLAN, VNI 1, UDP 8472, +50 bytes; not encapsulated "
                "(2 packets of 1450, 1500 bytes)",
            )
        ],
    ),
    "fragments beside the packets": (
        wire(fragments=2),
        [
            (
                "encapsulation",
                "node01:eth0",
                False,
                "VXLAN, VNI 1, UDP 8472, +50 bytes; 2 fragments (1 packet of 1500 bytes)",
            )
        ],
    ),
    "nothing but fragments": (
        wire(packets=(), fragments=2),
        [("encapsulation", "node01:eth0", False, "2 fragments")],
    ),
    "nothing was captured": (
        wire(packets=()),
        [
            (
                "encapsulation",
                "node01:eth0",
                None,
                "no packet 10.5.1.10 -> 10.5.2.10 was captured",
            )
        ],
    ),
    "the capture lost packets": (
        wire(packets=(), dropped=3),
        [
            (
                "encapsulation",
                "node01:eth0",
                None,
                "no packet 10.5.1.10 -> 10.5.2.10 was captured; the capture lost 3 packets",
            )
        ],
    ),
    "the capture could not be opened": (
        wire(packets=(), error="no such interface: eth0"),
        [("encapsulation", "node01:eth0", None, "no such interface: eth0")],
    ),
    "there was no pair to capture": (
        seen(wire=()),
        [("encapsulation", "talk", None, "no pair on two nodes to capture")],
    ),
}


def test_a_lab_that_works() -> None:
    """Every check says something, and all of it is good."""
    assert bad(WORKS) == []
    assert [a.check.code for a in answers(WORKS) if a.findings] == [c.code for c in CHECKS]


def test_every_finding_tells_what_was_seen() -> None:
    """A good finding is evidence, not a tick: the numbers are in it. Nothing is to be mended."""
    for finding in findings(WORKS):
        assert (bool(finding.seen), finding.wanted, finding.fix) == (True, "", "")


@pytest.mark.parametrize("name", CASES)
def test_damage(name: str) -> None:
    """One damage: these findings are not good, and no other."""
    damage, expected = CASES[name]
    assert bad(damage(WORKS)) == expected


def test_every_check_fails_in_some_case() -> None:
    """A check that cannot fail asks nothing."""
    failing = {code for _, expected in CASES.values() for code, _, ok, _ in expected if ok is False}
    assert failing == {check.code for check in CHECKS}


@pytest.mark.parametrize("name", CASES)
def test_what_is_not_good_says_what_was_wanted(name: str) -> None:
    """Unless what was seen tells it in the same breath."""
    for finding in findings(CASES[name][0](WORKS)):
        if finding.ok is not True:
            assert finding.wanted or "wanted" in finding.seen


def test_codes_are_stable() -> None:
    """Scripts and CI reports look for these."""
    assert [check.code for check in CHECKS] == lablib.CHECKS
    for check in CHECKS:
        assert {finding.code for finding in check.answer(WORKS)} == {check.code}


def test_a_node_of_which_nothing_is_known() -> None:
    """A node that is down has the empty state: every check has an answer, none an exception."""
    for states in ({}, {"node01": State(), "node02": State()}):
        damaged = replace(WORKS, states=states)
        failed = {f.code for f in findings(damaged) if f.ok is False}
        assert failed == {"daemons", "lease", "vtep", "entries", "socket", "forwarding", "mtu"}


# --- other labs ---------------------------------------------------------------------------------

OTHERS = {
    "host-gw": "overlay: {backend: {Type: host-gw}}",
    "udp": "overlay: {backend: {Type: udp}}",
    "direct": "overlay: {backend: {Type: vxlan, DirectRouting: true}}",
    "options": "overlay: {backend: {Type: vxlan, VNI: 7, Port: 4789, Learning: true}}",
    "jumbo": "underlay: {mtu: 9000}",
    "four": "nodes: {node01: {containers: 2}, node02: {containers: 2}, node03: , node04: }",
    "empty node": "nodes: {node01: {containers: 0}, node02: , node03: }",
}


def other(name: str) -> Evidence:
    """A working lab of another kind."""
    evidence = talk.evidence(labfile.loads(OTHERS[name], name))
    if name == "options":
        learning = {"vxlan": Vxlan(7, 4789, "192.168.56.21", True)}
        evidence = link("node01", "flannel.7", **learning)(evidence)
        learning = {"vxlan": Vxlan(7, 4789, "192.168.56.22", True)}
        evidence = link("node02", "flannel.7", **learning)(evidence)
    return evidence


@pytest.mark.parametrize("name", OTHERS)
def test_other_labs_that_work(name: str) -> None:
    """Backends without VXLAN, other options, more nodes, several containers or none on a node."""
    assert bad(other(name)) == []


@pytest.mark.parametrize(
    ("name", "silent"),
    [("host-gw", ["vtep", "socket"]), ("udp", ["vtep", "socket"]), ("direct", [])],
)
def test_checks_that_do_not_concern_a_lab_say_nothing(name: str, silent: list[str]) -> None:
    """A lab without VXLAN has no VTEP to judge."""
    assert [a.check.code for a in answers(other(name)) if not a.findings] == silent


def test_one_node_has_no_pair() -> None:
    """What needs two containers cannot be measured, which is not the same as bad."""
    evidence = replace(talk.evidence(labfile.default(1)), pairs={}, edges=(), wire=())
    assert [(code, ok) for code, _, ok, _ in bad(evidence)] == [
        ("pairs", None),
        ("edge", None),
        ("encapsulation", None),
    ]


def test_routes_without_encapsulation() -> None:
    """host-gw and DirectRouting: the next hop is the other node itself, on the underlay."""
    evidence = net("node01", routes=(Route("10.5.2.0/24", "10.5.2.0", "flannel.1"),))(
        other("direct")
    )
    assert bad(evidence) == [
        (
            "entries",
            "node01",
            False,
            "10.5.2.0/24 via 10.5.2.0 dev flannel.1, wanted via 192.168.56.22 dev eth0 (node02)",
        )
    ]


def test_the_udp_backend_needs_its_one_route() -> None:
    """flanneld itself knows the nodes; the kernel has one route to the whole overlay."""
    evidence = net("node01", routes=(Route("10.5.0.0/16", "", "eth0"),))(other("udp"))
    assert bad(evidence) == [("entries", "node01", False, "no route to 10.5.0.0/16")]


def test_packets_that_should_be_bare_are_not() -> None:
    """host-gw adds nothing; whatever encapsulates there is somebody else."""
    lab = other("host-gw").lab
    frames = wire(packets=(packet(talk.TALK),))(other("host-gw"))
    assert bad(frames)[0][3] == "VXLAN, VNI 1, UDP 8472, +50 bytes (1 packet of 1500 bytes)"
    assert lab.overlay.backend_type == "host-gw"


def test_udp_on_another_port() -> None:
    """flannel's udp backend is known by its port alone."""
    evidence = other("udp")
    bare = wire(packets=(packet(evidence.lab, bare=True),))(evidence)
    assert bad(bare)[0][3] == "not encapsulated (1 packet of 1472 bytes)"


def test_many_peers_are_told_in_short() -> None:
    """A node of a large lab has an entry for each other node; one is shown."""
    evidence = talk.evidence(labfile.default(6))
    shown = next(f.seen for f in findings(evidence) if f.code == "entries")
    assert shown.startswith("node02: 10.5.2.0/24 via 10.5.2.0 dev flannel.1")
    assert shown.endswith("; and 4 more")


# --- verdicts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("oks", "wanted"),
    [
        ([], True),
        ([True], True),
        ([True, None], None),
        ([None], None),
        ([True, False], False),
        ([None, False], False),
        ([False, None, True], False),
    ],
)
def test_verdict(oks: list[bool | None], wanted: bool | None) -> None:
    """Bad outweighs unknown, unknown outweighs good."""
    assert verdict(iter(oks)) is wanted


@pytest.mark.parametrize(
    ("damage", "wanted"),
    [
        (seen(), True),
        (seen(edges=()), None),
        (seen(wire=()), None),
        (lambda e: net("node01", fdb=())(seen(edges=())(e)), False),
    ],
)
def test_the_labs_verdict(damage: Damage, wanted: bool | None) -> None:
    """Exit codes 0, 2 and 1 of `vxlab verify` are these."""
    assert verdict(a.ok for a in answers(damage(WORKS))) is wanted


# --- leases -------------------------------------------------------------------------------------


def test_leases() -> None:
    """What flanneld registers: subnet, node address, VTEP MAC and VNI."""
    assert leases(talk.keys())[1] == Lease("10.5.2.0/24", "192.168.56.22", "vxlan", MAC2, 1)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("half {", None),
        ("[1]", None),
        ("7", None),
        ("{}", Lease("10.5.7.0/24", "", "", "", None)),
        ('{"PublicIP": "1.2.3.4"}', Lease("10.5.7.0/24", "1.2.3.4", "", "", None)),
        ('{"BackendData": "none"}', Lease("10.5.7.0/24", "", "", "", None)),
        ('{"BackendData": {"VtepMAC": "aa"}}', Lease("10.5.7.0/24", "", "", "aa", None)),
    ],
)
def test_leases_that_somebody_else_wrote(value: str, wanted: Lease | None) -> None:
    """A reservation has no VTEP yet; what is no lease is passed over, and then missed."""
    found = leases({f"{FLANNEL_PREFIX}/subnets/10.5.7.0-24": value})
    assert found == ((wanted,) if wanted else ())


def test_leases_of_dual_stack_networks() -> None:
    """flannel appends the IPv6 subnet to the key; other keys are no leases."""
    keys = {
        f"{FLANNEL_PREFIX}/subnets/10.5.7.0-24&fd00:7::-64": json.dumps({"PublicIP": "1.2.3.4"}),
        f"{FLANNEL_PREFIX}/config": "{}",
        "/other": "{}",
    }
    assert [lease.subnet for lease in leases(keys)] == ["10.5.7.0/24"]


def test_compare() -> None:
    """What is as wanted needs no word about what was wanted."""
    assert compare("c", "w", "MTU", 1450, 1450, "fix") == Finding("c", "w", True, "MTU 1450")
    assert compare("c", "w", "MTU", 1500, 1450, "fix") == Finding(
        "c", "w", False, "MTU 1500", "MTU 1450", "fix"
    )
    assert compare("c", "w", "MTU", None, 1450).seen == "no MTU"


def test_the_evidence_is_made_of_real_packets() -> None:
    """The frames of this module are read by the same decoder as captured ones."""
    seen_packet = packet()
    assert (seen_packet.overhead, seen_packet.vxlan is not None) == (50, True)
    assert decode(b"").vxlan is None
