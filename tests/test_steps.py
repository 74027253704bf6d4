"""The steps of the talk: what each would do on a node, as the commands a person would type.

Golden cases in ``cases/steps``: what every step plans for a lab whose nodes are as nothing, or as
they are when flannel has given them their subnets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

import talk
from golden import agrees
from vxlab import labfile
from vxlab.engine.running import drift, places
from vxlab.lab import Lab
from vxlab.ops import AddAddress, AddNeighbours, Op, PutKey, SetMtu, SetSysctl, StartDaemon, pending
from vxlab.state import State
from vxlab.steps import BY_NAME, STEPS, bridge, host, node, overlay, steps_of, tls
from vxlab.steps.address import container_address
from vxlab.steps.site import SWITCH, States

THREE = """
name: three
nodes:
  node01: {containers: 3}
"""
PINNED = """
name: pinned
nodes:
  node01: {subnet: 10.5.7.0/24}
  node02: {subnet: 10.5.8.0/24}
"""
SSH = """
name: ssh
underlay: {mtu: 1500}
nodes:
  node01: {ssh: alice@one.example, address: 192.168.56.21/24, interface: eth1}
  node02: {ssh: two, address: 192.168.56.22/24, interface: ens7}
"""
LABS = {
    "talk": "",
    "ssh": SSH,
    "ssh-insecure": f"{SSH}etcd: {{insecure: true}}",
    "three-containers": THREE,
    "pinned": PINNED,
    "ipv6": "ipv6: true",
    "host-gw": "overlay: {backend: {Type: host-gw}}",
    "jumbo": "underlay: {mtu: 9000, interface: ens1}",
    "options": """
etcd: {node: node02, port: 23790, heartbeat_interval: 100, election_timeout: 1000}
overlay: {network: 10.64.0.0/12, subnet_length: 20, backend: {Type: vxlan, VNI: 7}}
""",
}


def lab_of(name: str) -> Lab:
    return labfile.loads(LABS[name], f"{name}.yaml")


def empty(lab: Lab) -> dict[str, State]:
    """Nodes that were never built."""
    return {name: State() for name in (SWITCH, *(n.name for n in lab.nodes))}


def leased(lab: Lab) -> dict[str, State]:
    """Nodes of which nothing is known but that flannel has given them their subnets."""
    states = empty(lab)
    for number, member in enumerate(lab.nodes, 1):
        states[member.name] = State(subnet_env=talk.subnet_env(lab, number))
    return states


def lent(lab: Lab, states: Mapping[str, State]) -> dict[str, State]:
    """The same hosts with the lab's places and certificates on them."""
    found = dict(states)
    for member in lab.nodes:
        files = {op.path: "directory" for op in host.places(talk.site(lab), member)}
        if lab.tls:
            files |= {tls.path(lab, name): "0" * 64 for name in tls.files(lab, member)}
        found[member.name] = replace(found[member.name], files=files)
    return found


def planned(step: str, lab: Lab, states: States, member: int = 0) -> list[Op]:
    return list(BY_NAME[step].plan(talk.site(lab), lab.nodes[member], states))


def plan(lab: Lab, states: States) -> str:
    """Every step, every machine that it changes, every command."""
    lines = []
    for step in steps_of(lab):
        lines.append(f"# {step.name}: {step.title}")
        for name, changed in places(lab, step.on):
            todo = step.plan(talk.site(lab), lab.node(name), states)
            lines += [f"{changed:<8} {op}" for op in todo]
        lines.append("")
    return "\n".join(lines)


@pytest.mark.parametrize("name", LABS)
def test_golden_plan(name: str) -> None:
    """From the switch to ip_forward; addresses and routes are there once there is a lease."""
    lab = lab_of(name)
    agrees(f"steps/{name}.txt", plan(lab, leased(lab)))


def test_golden_plan_without_leases() -> None:
    """Before flannel has chosen the subnets nothing can be said about what depends on them."""
    agrees("steps/talk-without-leases.txt", plan(talk.TALK, empty(talk.TALK)))


#: Lines of the talk, as a learner knows them. Lines that differ say why.
TALK = """\
etcdctl put /coreos.com/network/config '{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}'
ip link add vethlocal type veth peer name vethNS netns container01
ip link set dev vethlocal mtu 1450
container01# ip link set dev vethNS mtu 1450
container01# ip addr add 10.5.1.10/24 dev vethNS
container01# ip link set vethNS up
ip link add cbr0 type bridge stp_state 0
ip addr add 10.5.1.1/24 dev cbr0
ip link set cbr0 up
ip link set vethlocal master cbr0
ip link set vethlocal up
container01# ip route add default via 10.5.1.1 dev vethNS
sysctl -w net.ipv4.ip_forward=1
"""


def test_the_talks_commands_are_recognisable() -> None:
    """Who has seen the talk finds its commands word for word."""
    lab = talk.TALK
    done = {str(op) for step in steps_of(lab) for op in planned(step.name, lab, leased(lab))}
    assert [line for line in TALK.splitlines() if line not in done] == []


def test_the_talks_daemons_are_recognisable() -> None:
    """In the background with nohup, with the talk's logs; each flanneld has its public address."""
    lab = talk.TALK
    etcd, flannel = (str(planned(name, lab, empty(lab))[0]) for name in ("etcd", "flannel"))
    assert etcd.startswith("nohup /opt/etcd --name=node01 ")
    assert "http://192.168.56.21:2379" in etcd
    assert etcd.endswith(" >/var/log/etcd.log 2>&1 &")
    assert flannel == (
        "nohup /opt/flanneld --etcd-endpoints=http://192.168.56.21:2379 "
        "--public-ip=192.168.56.21 --iface=eth0 >/var/log/flannel.log 2>&1 &"
    )


def test_the_talks_container_is_recognisable() -> None:
    """All the namespaces of the talk, and its chroot."""
    start = str(planned("container", talk.TALK, empty(talk.TALK))[0])
    assert start == (
        "unshare --mount --uts --ipc --net --pid --fork --user --map-root-user --mount-proc "
        "chroot /run/container-demo/container01 /bin/sh"
    )


def test_the_order_is_the_talks() -> None:
    """The steps that the talk has, in its order; `switch` and `node` build its two machines."""
    assert [step.name for step in steps_of(talk.TALK)] == [
        "switch",
        "node",
        "underlay",
        "etcd",
        "config",
        "flannel",
        "container",
        "veth",
        "mtu",
        "address",
        "bridge",
        "route",
        "forwarding",
    ]


def test_real_hosts_have_steps_of_their_own() -> None:
    """No switch, no machines and no underlay to build; but places, and certificates to give."""
    assert [step.name for step in steps_of(lab_of("ssh"))][:3] == ["host", "tls", "etcd"]
    assert {step.name for step in STEPS if step.remote is False} == {"switch", "node", "underlay"}
    assert {step.name for step in STEPS if step.remote is True} == {"host", "tls"}
    both = [step for step in STEPS if step.remote is None]
    assert [s for s in steps_of(lab_of("ssh")) if s.remote is None] == both
    assert [s for s in steps_of(talk.TALK) if s.remote is None] == both


@pytest.mark.parametrize("name", BY_NAME)
def test_every_step_has_a_lesson(name: str) -> None:
    """Its docstring ends its sentences; its title fits beside its name on a screen."""
    lesson, title = BY_NAME[name].plan.__doc__ or "", BY_NAME[name].title
    assert lesson.strip().endswith(".")
    assert 0 < len(title) <= 28


# --- a lab that is up ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in LABS if n != "ipv6"])
def test_a_lab_that_is_up_needs_nothing(name: str) -> None:
    """A second `up` finds nothing to do: every operation of every step holds."""
    lab = lab_of(name)
    states = lent(lab, talk.states(lab)) if lab.remote else talk.states(lab)
    assert drift(talk.site(lab), states) == []
    etcd = states[lab.etcd.node]
    config = BY_NAME["config"].plan(talk.site(lab), lab.etcd_node, states)
    assert pending(config, etcd) == []


def test_a_large_lab_that_is_up_needs_nothing() -> None:
    """Beyond ARP's limit the nodes' entries for each other are part of what holds."""
    lab = labfile.default(17)
    assert drift(talk.site(lab), talk.states(lab)) == []


def test_a_plan_on_nothing_is_all_to_be_done() -> None:
    """On nodes that were never built every operation is pending."""
    lab = talk.TALK
    states = empty(lab)
    for step in steps_of(lab):
        for name, changed in places(lab, step.on):
            todo = list(step.plan(talk.site(lab), lab.node(name), states))
            assert [op for op, _ in pending(todo, states[changed])] == todo


def test_drift_is_told_with_step_and_command() -> None:
    """The MTU of the talk's mistake: who, in which step, why, and what mends it."""
    lab = talk.TALK
    states = talk.states(lab)
    net = states["node01"].net
    links = {**net.links, "vethlocal": replace(net.links["vethlocal"], mtu=1500)}
    states["node01"] = replace(states["node01"], net=replace(net, links=links))
    (found,) = drift(talk.site(lab), states)
    assert (found.step, found.node, found.reason, found.command) == (
        "mtu",
        "node01",
        "vethlocal's MTU is 1500, wanted 1450",
        "ip link set dev vethlocal mtu 1450",
    )


# --- addresses ----------------------------------------------------------------------------------


def test_containers_have_the_numbers_from_10_on() -> None:
    """The talk's .10 for a node's first container; the next ones follow."""
    lab = lab_of("three-containers")
    state = leased(lab)["node01"]
    addresses = [str(container_address(c, state)) for c in lab.nodes[0].containers]
    assert addresses == ["10.5.1.10/24", "10.5.1.11/24", "10.5.1.12/24"]
    assert container_address(lab.nodes[0].containers[0], State()) is None


def test_three_containers_share_the_bridge() -> None:
    """Each has a cable of its own into cbr0, and an address and a default route of its own."""
    lab = lab_of("three-containers")
    ports = [str(op) for op in planned("bridge", lab, leased(lab)) if "master" in str(op)]
    assert ports == [
        "ip link set vethlocal master cbr0",
        "ip link set vethlocal2 master cbr0",
        "ip link set vethlocal3 master cbr0",
    ]
    assert [str(op) for op in planned("route", lab, leased(lab))] == [
        "container01# ip route add default via 10.5.1.1 dev vethNS",
        "container01-2# ip route add default via 10.5.1.1 dev vethNS",
        "container01-3# ip route add default via 10.5.1.1 dev vethNS",
    ]


def test_without_a_lease_there_are_no_addresses() -> None:
    """Neither the container, nor the bridge, nor a route."""
    states = empty(talk.TALK)
    ops = [op for s in ("address", "bridge", "route") for op in planned(s, talk.TALK, states)]
    assert [op for op in ops if isinstance(op, AddAddress)] == []
    assert planned("route", talk.TALK, states) == []


def test_the_gateway_is_the_bridge() -> None:
    """FLANNEL_SUBNET's address, the .1 of the node's subnet."""
    gateways = [
        op.address
        for op in planned("bridge", talk.TALK, leased(talk.TALK), member=1)
        if isinstance(op, AddAddress)
    ]
    assert (bridge.NAME, gateways) == ("cbr0", ["10.5.2.1/24"])


# --- pinned subnets -----------------------------------------------------------------------------


def test_pinned_subnets_are_reserved_before_flannel_starts() -> None:
    """A lease with the node's public address, which its flanneld takes over."""
    lab = lab_of("pinned")
    reserved = [op for op in planned("config", lab, empty(lab)) if isinstance(op, PutKey)]
    assert [(op.key, op.value) for op in reserved[1:]] == [
        ("/coreos.com/network/subnets/10.5.7.0-24", '{"PublicIP": "192.168.56.21"}'),
        ("/coreos.com/network/subnets/10.5.8.0-24", '{"PublicIP": "192.168.56.22"}'),
    ]


@pytest.mark.parametrize(
    ("lease", "left_alone"),
    [
        ({"PublicIP": "192.168.56.21", "BackendData": {"VtepMAC": "aa"}}, True),
        ({"PublicIP": "192.168.56.21"}, True),
        ({"PublicIP": "192.168.56.99"}, False),
        ({}, False),
    ],
)
def test_a_lease_that_flannel_took_over_is_left_alone(
    lease: Mapping[str, object], left_alone: bool
) -> None:
    """It holds the VTEP's MAC by now; only one of another node is written over."""
    lab = lab_of("pinned")
    key = "/coreos.com/network/subnets/10.5.7.0-24"
    states = {**empty(lab), "node01": State(keys={key: json.dumps(lease)})}
    written = [op.key for op in planned("config", lab, states) if isinstance(op, PutKey)]
    assert (key not in written) is left_alone


@pytest.mark.parametrize("value", ["half {", "[1]", "7", "null"])
def test_a_pinned_lease_that_is_none_is_written_over(value: str) -> None:
    """Somebody put something else there by hand."""
    lab = lab_of("pinned")
    key = "/coreos.com/network/subnets/10.5.7.0-24"
    states = {**empty(lab), "node01": State(keys={key: value})}
    assert key in [op.key for op in planned("config", lab, states) if isinstance(op, PutKey)]


# --- real hosts ---------------------------------------------------------------------------------


def commands(step: str, lab: Lab, member: int = 0) -> list[str]:
    return [str(op) for op in planned(step, lab, empty(lab), member)]


def test_etcds_node_lends_more_than_the_others() -> None:
    """etcd works and logs on its node alone, and only there is its certificate."""
    lab = lab_of("ssh")
    more = {
        step: sorted(set(commands(step, lab)) - set(commands(step, lab, 1)))
        for step in ("host", "tls")
    }
    assert more["host"] == ["mkdir -p /run/etcd", "touch /var/log/etcd.log"]
    assert [line.rpartition("/")[2] for line in more["tls"]] == ["server-key.pem", "server.pem"]


def test_without_tls_nothing_of_it_is_left() -> None:
    """The talk's plain http: no file, no flag, and the URL says so."""
    secure, plain = lab_of("ssh"), lab_of("ssh-insecure")
    assert commands("tls", plain) == []
    (etcd,), (flannel,) = commands("etcd", plain), commands("flannel", plain)
    assert ("https" in etcd + flannel, ".pem" in etcd + flannel) == (False, False)
    assert "--etcd-endpoints=http://192.168.56.21:2379 " in flannel
    for command in (*commands("etcd", secure), *commands("flannel", secure)):
        assert "http://" not in command


def test_only_who_has_a_certificate_is_served() -> None:
    """For clients, and for the port that members would use; both name the lab's own authority."""
    (etcd,) = planned("etcd", lab_of("ssh"), empty(lab_of("ssh")))
    assert isinstance(etcd, StartDaemon)
    place = "/var/lib/vxlab/ssh/tls"
    for prefix in ("--", "--peer-"):
        wanted = {
            f"{prefix}client-cert-auth",
            f"{prefix}trusted-ca-file={place}/ca.pem",
            f"{prefix}cert-file={place}/server.pem",
            f"{prefix}key-file={place}/server-key.pem",
        }
        assert wanted <= set(etcd.command)
    urls = [word for word in etcd.command if "://" in word]
    assert urls == [
        "--listen-client-urls=https://192.168.56.21:2379,https://127.0.0.1:2379",
        "--advertise-client-urls=https://192.168.56.21:2379",
        "--listen-peer-urls=https://127.0.0.1:2380",
        "--initial-advertise-peer-urls=https://127.0.0.1:2380",
        "--initial-cluster=node01=https://127.0.0.1:2380",
    ]


def test_each_flanneld_has_its_hosts_own_interface() -> None:
    """Hosts need not call it the same."""
    lab = lab_of("ssh")
    faces = [word for i in (0, 1) for word in commands("flannel", lab, i)[0].split()]
    assert [word for word in faces if "iface" in word] == ["--iface=eth1", "--iface=ens7"]


def test_flannelds_undo_knows_its_interface_and_its_network() -> None:
    """What it put into a real host's kernel is found when it is gone itself."""
    (start,) = planned("flannel", lab_of("ssh"), empty(lab_of("ssh")))
    assert [str(op) for op in start.undo(State())][1:] == [
        "ip link del flannel.1",
        "ip route flush root 10.5.0.0/16",
    ]


def test_new_certificates_start_the_daemons_again() -> None:
    """All of them: the old authority is not known any more. The texts reach the hosts."""
    lab = lab_of("ssh")
    states = lent(lab, talk.states(lab))
    made = {n.name: dict.fromkeys(tls.files(lab, n), f"{n.name}'s") for n in lab.nodes}
    site = replace(talk.site(lab), certificates=made)
    for member in lab.nodes:
        here = states[member.name]
        puts = list(BY_NAME["tls"].plan(site, member, states))
        assert [op for op, _ in pending(puts, here)] == puts
        assert {getattr(op, "text", "") for op in puts} == {f"{member.name}'s"}
        (start,) = BY_NAME["flannel"].plan(site, member, states)
        assert start.holds(here) == "it has new certificates"
    (start,) = BY_NAME["etcd"].plan(site, lab.etcd_node, states)
    assert start.holds(states["node01"]) == "it has new certificates"


def test_no_step_tells_a_key() -> None:
    """What people get to see of a plan has no file's text in it."""
    lab = lab_of("ssh")
    made = {n.name: dict.fromkeys(tls.files(lab, n), "SECRET") for n in lab.nodes}
    site = replace(talk.site(lab), certificates=made)
    assert "SECRET" in str([op.shell() for op in BY_NAME["tls"].plan(site, lab.nodes[0], {})])
    assert "SECRET" not in " ".join(map(str, BY_NAME["tls"].plan(site, lab.nodes[0], {})))


# --- ipv6, large labs, mtu ----------------------------------------------------------------------


def test_ipv6_is_switched_off_unless_it_is_wanted() -> None:
    """Router and neighbour discovery would be in every capture; with ``ipv6: true`` they are."""

    def switches(lab: Lab) -> list[str]:
        ops = [op for s in ("switch", "underlay") for op in planned(s, lab, empty(lab))]
        return [str(op) for op in ops if isinstance(op, SetSysctl)]

    off = "sysctl -w net.ipv6.conf.all.disable_ipv6=1"
    assert (switches(talk.TALK), switches(lab_of("ipv6"))) == ([off, off], [])


@pytest.mark.parametrize(("nodes", "told"), [(2, 0), (16, 0), (17, 16), (50, 49)])
def test_nodes_of_large_labs_are_told_each_others_macs(nodes: int, told: int) -> None:
    """ARP's table is one for all namespaces; permanent entries do not count there."""
    lab = labfile.default(nodes)
    ops = [op for op in planned("underlay", lab, empty(lab)) if isinstance(op, AddNeighbours)]
    entries = [entry for op in ops for entry in op.entries]
    assert len(entries) == told
    assert all(not entry.startswith("192.168.56.21 ") for entry in entries)
    assert told == 0 or entries[0] == "192.168.56.22 02:00:c0:a8:38:16"


@pytest.mark.parametrize(("name", "outer", "inner"), [("talk", 1500, 1450), ("jumbo", 9000, 8950)])
def test_where_which_mtu_goes(name: str, outer: int, inner: int) -> None:
    """The underlay's on the nodes' own interfaces, the overlay's on cables, bridge, containers."""
    lab = lab_of(name)

    def mtus(*steps: str) -> set[int]:
        ops = [op for s in steps for op in planned(s, lab, leased(lab))]
        return {op.mtu for op in ops if isinstance(op, SetMtu)}

    assert (mtus("switch", "node", "underlay"), mtus("mtu", "bridge")) == ({outer}, {inner})


def test_every_interface_carries_the_labs_mark() -> None:
    """What vxlab made can be told from what was there before."""
    lab = talk.TALK
    ops = [op for step in steps_of(lab) for op in planned(step.name, lab, leased(lab))]
    made = {(op.ns, op.name) for op in ops if hasattr(op, "name") and "link add" in str(op)}
    marked = {(op.ns, op.name) for op in ops if hasattr(op, "alias") and hasattr(op, "name")}
    assert made <= marked
    assert {op.alias for op in ops if hasattr(op, "alias")} == {"vxlab:talk"}


def test_the_nodes_know_each_other_by_name() -> None:
    """/etc/hosts of every node."""
    assert node.hosts(talk.site()) == (
        "127.0.0.1 localhost\n192.168.56.21 node01\n192.168.56.22 node02\n"
    )


# --- flannel's entries --------------------------------------------------------------------------


def without(lab: Lab, table: str) -> dict[str, State]:
    """A lab that is up, but for one table of node01."""
    states = talk.states(lab)
    changes: dict[str, Any] = {table: ()}
    net = replace(states["node01"].net, **changes)
    return {**states, "node01": replace(states["node01"], net=net)}


def link_of(lab: Lab, **changes: Any) -> dict[str, State]:
    """A lab that is up, with another flannel.1 on node01; without changes it is gone."""
    states = talk.states(lab)
    links = dict(states["node01"].net.links)
    old = links.pop("flannel.1")
    if changes:
        links["flannel.1"] = replace(old, **changes)
    net = replace(states["node01"].net, links=links)
    return {**states, "node01": replace(states["node01"], net=net)}


@pytest.mark.parametrize(
    ("states", "missing"),
    [
        (talk.states(), []),
        (link_of(talk.TALK), ["flannel.1 does not exist"]),
        (link_of(talk.TALK, up=False), ["flannel.1 is down"]),
        (without(talk.TALK, "routes"), ["no route to 10.5.2.0/24 (node02)"]),
        (
            without(talk.TALK, "neighbours"),
            ["no neighbour entry 10.5.2.0 -> 5a:00:00:00:00:02 (node02)"],
        ),
        (
            without(talk.TALK, "fdb"),
            ["no FDB entry 5a:00:00:00:00:02 -> 192.168.56.22 (node02)"],
        ),
        ({**talk.states(), "node02": State()}, []),
    ],
    ids=["whole", "no device", "down", "no route", "no neighbour", "no fdb", "peer has no lease"],
)
def test_what_flannel_lost_starts_it_again(states: States, missing: list[str]) -> None:
    """flanneld does not put back what others take away; only its restart does."""
    lab = talk.TALK
    assert list(overlay.missing(lab, lab.nodes[0], states)) == missing
    (start,) = planned("flannel", lab, states)
    assert isinstance(start, StartDaemon)
    assert start.again == "; ".join(missing)
    assert start.holds(states["node01"]) == ("; ".join(missing) or None)


@pytest.mark.parametrize(
    ("keys", "forgotten"),
    [
        ({}, False),
        (talk.keys(), False),
        ({k: v for k, v in talk.keys().items() if "56.21" not in v}, True),
        ({"/coreos.com/network/subnets/10.5.1.0-24": '{"PublicIP": "192.168.56.21"}'}, True),
    ],
    ids=["not asked", "there", "lost", "only reserved"],
)
def test_a_lost_lease_starts_flannel_again(keys: dict[str, str], forgotten: bool) -> None:
    """A running flanneld registers its lease at its start only; a reservation is not yet one."""
    states = talk.states()
    states["node01"] = replace(states["node01"], keys=keys)
    (start,) = planned("flannel", talk.TALK, states)
    assert isinstance(start, StartDaemon)
    assert start.again == ("etcd has no lease for 192.168.56.21" if forgotten else "")


def test_a_plain_route_must_go_to_the_node() -> None:
    """Without encapsulation the next hop is the node itself."""
    lab = lab_of("host-gw")
    states = talk.states(lab)
    routes = tuple(replace(r, via="192.168.56.99") for r in states["node01"].net.routes)
    states["node01"] = replace(states["node01"], net=replace(states["node01"].net, routes=routes))
    assert list(overlay.missing(lab, lab.nodes[0], states)) == [
        "the route to 10.5.2.0/24 goes via 192.168.56.99, wanted 192.168.56.22 (node02)"
    ]


@pytest.mark.parametrize(
    ("backend", "routes"),
    [("vxlan", {"10.5.2.0/24"}), ("host-gw", {"10.5.2.0/24"}), ("udp", {"10.5.0.0/16"})],
)
def test_routes_to_wait_for(backend: str, routes: set[str]) -> None:
    """One for each other node; the udp backend has one for all."""
    lab = labfile.loads(f"overlay: {{backend: {{Type: {backend}}}}}", "test")
    found = overlay.routed(lab, lab.nodes[0], talk.states(lab))
    assert set(map(str, found)) == routes


@pytest.mark.parametrize(
    ("text", "device", "encapsulated"),
    [
        ("", "flannel.1", True),
        ("overlay: {backend: {Type: vxlan, VNI: 7}}", "flannel.7", True),
        ("overlay: {backend: {Type: vxlan, DirectRouting: true}}", "flannel.1", False),
        ("overlay: {backend: {Type: host-gw}}", "", False),
        ("overlay: {backend: {Type: udp}}", "flannel0", False),
    ],
)
def test_what_a_backend_makes(text: str, device: str, encapsulated: bool) -> None:
    """Which device, and whether VXLAN is on the wire."""
    lab = labfile.loads(text, "test")
    assert (overlay.device(lab), overlay.encapsulated(lab)) == (device, encapsulated)
