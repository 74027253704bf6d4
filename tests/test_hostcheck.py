"""What the lab says about real hosts: a table of conditions, each with the finding it makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface

import pytest

from vxlab import hostcheck, labfile
from vxlab.hostcheck import HostFinding
from vxlab.hostcheck.facts import Answer, Facts, Nic, Socket, Space
from vxlab.hostcheck.needs import NEEDS, TRIES
from vxlab.lab import Lab
from vxlab.state import Route, Vxlan

#: The talk's two VMs; the controller asks at this moment.
NOW = 1_800_000_000.0
TALK = """\
nodes:
  node01: {ssh: root@one, address: 192.168.56.21}
  node02: {ssh: root@two, address: 192.168.56.22}
"""

Everyone = dict[str, Facts]


def lab(more: str = "", text: str = TALK) -> Lab:
    return labfile.loads(text + more, "lab.yaml")


def nic(name: str, address: str = "", mac: str = "", **more: object) -> Nic:
    addresses = (IPv4Interface(address),) if address else ()
    made = Nic(name, "", 1500, up=True, carrier=True, mac=mac, addresses=addresses)
    return replace(made, **more)  # type: ignore[arg-type]


def host(number: int) -> Facts:
    """A Vagrant box as it should be: NAT at eth0, the network between the hosts at eth1."""
    return Facts(
        os="Debian GNU/Linux 12 (bookworm)",
        families=frozenset({"debian"}),
        machine="x86_64",
        kernel="6.1.0-28-amd64",
        clock=NOW,
        boot=f"boot-{number}",
        machine_id=f"machine-{number}",
        programs={name: f"/usr/bin/{name}" for name in NEEDS},
        ignores=True,
        iptables="iptables v1.8.9 (nf_tables)",
        nics={
            "lo": nic("lo", "127.0.0.1/8"),
            "eth0": nic("eth0", "10.0.2.15/24", f"52:54:00:00:00:{number:02x}"),
            "eth1": nic("eth1", f"192.168.56.{20 + number}/24", f"52:54:00:00:01:{number:02x}"),
        },
        routes=(
            Route("default", "10.0.2.2", "eth0", "dhcp"),
            Route("10.0.2.0/24", "", "eth0", "kernel", "link"),
            Route("192.168.56.0/24", "", "eth1", "kernel", "link"),
        ),
        sockets=(Socket("tcp", "*", 22, "sshd (PID 300)"),),
        chains={"INPUT": "ACCEPT", "FORWARD": "ACCEPT", "OUTPUT": "ACCEPT"},
        sysctls={"ip_forward": "0", "conf/all/rp_filter": "0", "conf/eth1/rp_filter": "0"},
        space={
            "/var/cache": Space(9_000_000, "/"),
            "/var/lib": Space(9_000_000, "/"),
            "/var/log": Space(9_000_000, "/"),
            "/run": Space(400_000, "/run"),
        },
        mounts={"/": frozenset({"rw"}), "/run": frozenset({"rw", "noexec"})},
        tries={code: Answer(0, "") for code in TRIES},
    )


def everyone() -> Everyone:
    return {"node01": host(1), "node02": host(2)}


def judge(
    facts: Everyone, what: Lab | None = None, owned: Mapping[str, frozenset[str]] | None = None
) -> list[HostFinding]:
    return hostcheck.judge(what or lab(), facts, owned or {}, machine="x86_64", now=NOW)


def found(findings: list[HostFinding], code: str, on: str = "node01") -> HostFinding:
    (only,) = [f for f in findings if f.code == code and f.host == on]
    return only


# --- the table ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """What is different on node01, and the finding that this makes: its verdict and some words."""

    code: str
    ok: bool | None
    words: str
    change: Callable[[Facts], Facts]
    more: str = ""  # lines of the lab file
    todo: str = ""

    def __str__(self) -> str:
        return f"{self.code}: {self.words}"[:60]


def with_nic(new: Nic) -> Callable[[Facts], Facts]:
    return lambda f: replace(f, nics={**f.nics, new.name: new})


def underlay(**changes: object) -> Callable[[Facts], Facts]:
    """Something else about eth1."""
    return lambda f: with_nic(replace(f.nics["eth1"], **changes))(f)  # type: ignore[arg-type]


def refused(code: str, said: str) -> Callable[[Facts], Facts]:
    return lambda f: replace(f, tries={**f.tries, code: Answer(2, said)})


def without(*programs: str) -> Callable[[Facts], Facts]:
    def change(facts: Facts) -> Facts:
        left = {n: p for n, p in facts.programs.items() if n not in programs}
        return replace(facts, programs=left)

    return change


def runs(*names: str) -> Callable[[Facts], Facts]:
    return lambda f: replace(f, processes=dict(enumerate(names, 700)))


def listens(protocol: str, address: str, port: int, holder: str) -> Callable[[Facts], Facts]:
    return lambda f: replace(f, sockets=(*f.sockets, Socket(protocol, address, port, holder)))


def routes(*new: Route) -> Callable[[Facts], Facts]:
    return lambda f: replace(f, routes=(*f.routes, *new))


def vxlan(name: str, vni: int, port: int, *, external: bool = False) -> Nic:
    device = Vxlan(vni, port, "192.168.56.21", learning=False)
    return nic(name, kind="vxlan", vxlan=device, external=external)


def chains(**new: str) -> Callable[[Facts], Facts]:
    names = {name.replace("_", "-"): policy for name, policy in new.items()}
    return lambda f: replace(f, chains={**f.chains, **names})


def changed(**changes: object) -> Callable[[Facts], Facts]:
    return lambda f: replace(f, **changes)  # type: ignore[arg-type]


def both(*steps: Callable[[Facts], Facts]) -> Callable[[Facts], Facts]:
    def change(facts: Facts) -> Facts:
        for step in steps:
            facts = step(facts)
        return facts

    return change


HOSTGW = "overlay: {backend: {Type: host-gw}}\n"
UDP = "overlay: {backend: {Type: udp}}\n"

CASES = [
    # --- the machine
    Case(
        "programs",
        False,
        "not there: ss, iptables",
        without("ss", "iptables"),
        todo="sudo apt-get install iproute2 iptables",
    ),
    Case(
        "programs",
        False,
        "not there: mount",
        both(without("mount"), changed(families=frozenset({"rocky", "rhel", "fedora"}))),
        todo="sudo dnf install util-linux",
    ),
    Case("program-ip", False, "does not print JSON", changed(nics={})),
    Case("program-env", False, "does not know --ignore-signal", changed(ignores=False)),
    Case("architecture", False, "aarch64", changed(machine="aarch64"), todo="run vxlab on"),
    Case("architecture", None, "uname does not tell", changed(machine="")),
    Case("container", None, "unprivileged container", changed(own_users=True)),
    Case(
        "namespaces",
        False,
        "Operation not permitted",
        changed(tries={}, refusal="unshare: unshare failed: Operation not permitted"),
        todo="max_user_namespaces",
    ),
    Case("kernel-veth", False, "Unknown", refused("kernel-veth", "Unknown device type")),
    Case(
        "kernel-vxlan",
        False,
        "Unknown device type",
        refused("kernel-vxlan", "Error: Unknown device type."),
        todo="sudo modprobe vxlan",
    ),
    Case(
        "kernel-iptables",
        False,
        "can't initialize",
        refused("kernel-iptables", "Module ip_tables not found in directory\ncan't initialize"),
        todo="modprobe -a nf_tables",
    ),
    Case(
        "kernel-iptables",
        False,
        "can't initialize",
        both(
            refused("kernel-iptables", "can't initialize iptables table"),
            lambda f: replace(f, tries={**f.tries, "other-iptables-nft": Answer(0, "")}),
        ),
        todo="--set iptables /usr/sbin/iptables-nft",
    ),
    Case(
        "kernel-bridge",
        None,
        "could not be tried",
        refused("kernel-bridge", "/bin/sh: 3: ip: not found"),
    ),
    Case(
        "kernel-container",
        False,
        "No space left",
        refused("kernel-container", "unshare: unshare failed: No space left on device"),
        todo="max_user_namespaces",
    ),
    Case(
        "kernel-forwarding",
        None,
        "not tried",
        lambda f: replace(f, tries={"namespaces": Answer(0, "")}),
    ),
    Case(
        "kernel-tun", False, "No such", refused("kernel-tun", "open: No such file"), UDP, "modprobe"
    ),
    Case(
        "space",
        False,
        "97 MiB free on / for /var/cache",
        lambda f: replace(f, space={**f.space, "/var/cache": Space(100_000, "/")}),
        todo="make room on /",
    ),
    Case(
        "space",
        False,
        "78 MiB free on /run",
        lambda f: replace(f, space={**f.space, "/run": Space(80_000, "/run")}),
    ),
    Case(
        "mounts",
        False,
        "read-only",
        changed(mounts={"/": frozenset({"ro"}), "/run": frozenset({"rw"})}),
        todo="sudo mount -o remount,rw /",
    ),
    Case(
        "mounts",
        False,
        "/var is mounted noexec",
        changed(mounts={"/": frozenset({"rw"}), "/var": frozenset({"rw", "noexec"})}),
        todo="sudo mount -o remount,exec /var",
    ),
    Case("selinux", None, "enforcing", changed(enforcing=True), todo="ausearch"),
    Case("logind", None, "of alice", changed(kills=True, login="alice"), todo="KillUserProcesses"),
    Case("clock", None, "61 seconds ahead", changed(clock=NOW + 61), todo="set-ntp"),
    Case("clock", None, "3600 seconds behind", changed(clock=NOW - 3600)),
    # --- the underlay
    Case(
        "underlay-interface",
        False,
        "no interface has the address 192.168.56.21",
        underlay(addresses=()),
        todo="eth0 10.0.2.15/24",
    ),
    Case("underlay-interface", False, "eth1 is down", underlay(up=False), todo="set eth1 up"),
    Case("underlay-interface", False, "no carrier", underlay(carrier=False)),
    Case(
        "underlay-double",
        False,
        "eth1 has 10.0.2.15, and so has node02",
        both(
            lambda f: with_nic(nic("eth0"))(f),
            underlay(addresses=(IPv4Interface("192.168.56.21/24"), IPv4Interface("10.0.2.15/24"))),
        ),
    ),
    Case("underlay-mtu", False, "9000 on eth1", underlay(mtu=9000), todo="mtu 1500"),
    Case(
        "underlay-mtu",
        False,
        "1400 on eth1",
        underlay(mtu=1400),
        "underlay: {mtu: 1500}\n",
        "MTU: 1400",
    ),
    Case(
        "underlay-mtu",
        False,
        "1400 on eth1",
        underlay(mtu=1400),
        "overlay: {backend: {Type: vxlan, MTU: 1450}}\n",
        "mtu 1450",
    ),
    Case("underlay-route", False, "no route to node02", changed(routes=()), todo="ip route"),
    Case(
        "underlay-route",
        None,
        "leave by tun0, not by eth1",
        routes(Route("192.168.56.22/32", "", "tun0")),
        todo="ip route get 192.168.56.22",
    ),
    Case(
        "underlay-route",
        None,
        "rp_filter=1 drops",
        both(
            routes(Route("192.168.56.22/32", "", "tun0")),
            lambda f: replace(f, sysctls={**f.sysctls, "conf/all/rp_filter": "1"}),
        ),
    ),
    Case(
        "underlay-network",
        False,
        "node02 not in 192.168.56.20/31",
        underlay(addresses=(IPv4Interface("192.168.56.21/31"),)),
        HOSTGW,
        "vxlan",
    ),
    Case("twin", False, "the same machine as node02", lambda f: host(2)),
    Case(
        "twin",
        None,
        "copies of one image",
        changed(machine_id="machine-2"),
        todo="machine-id",
    ),
    Case("twin", None, "has the MAC", underlay(mac="52:54:00:00:01:02"), todo="a MAC of its own"),
    # --- the overlay's addresses
    Case(
        "overlay-network",
        False,
        "tun0 has 10.5.8.1/24",
        with_nic(nic("tun0", "10.5.8.1/24")),
        todo="another overlay.network",
    ),
    Case(
        "overlay-network",
        False,
        "eth1 has 10.0.0.21/8",
        underlay(addresses=(IPv4Interface("10.0.0.21/8"),)),
    ),
    Case(
        "overlay-network",
        False,
        "a route to 10.5.1.0/24 via 192.168.56.1",
        routes(Route("10.5.1.0/24", "192.168.56.1", "eth1", "static")),
    ),
    Case(
        "overlay-network",
        None,
        "a route to 10.0.0.0/8 dev tun0",
        routes(Route("10.0.0.0/8", "", "tun0", "static")),
    ),
    # --- what is there already
    Case(
        "port-etcd",
        False,
        "taken by etcd (PID 812)",
        listens("tcp", "192.168.56.21", 2379, "etcd (PID 812)"),
        todo="stop it",
    ),
    Case("port-etcd", False, "taken by nc", listens("tcp", "*", 2379, "nc (PID 9)")),
    Case("port-etcd-peer", False, "taken by nc", listens("tcp", "127.0.0.1", 2380, "nc (PID 9)")),
    Case("port-overlay", False, "taken by nc", listens("udp", "*", 8472, "nc (PID 9)")),
    Case(
        "port-overlay",
        False,
        "the VXLAN device other (VNI 1)",
        both(with_nic(vxlan("other", 1, 8472)), listens("udp", "*", 8472, "")),
        todo="another VNI or Port",
    ),
    Case(
        "port-overlay",
        False,
        "vxlan_sys (external)",
        with_nic(vxlan("vxlan_sys", 0, 8472, external=True)),
    ),
    Case(
        "port-overlay",
        None,
        "shared with the VXLAN device other (VNI 7)",
        with_nic(vxlan("other", 7, 8472)),
    ),
    Case("port-overlay", False, "other (VNI 7)", with_nic(vxlan("other", 7, 8285)), UDP),
    Case("interfaces", False, "cbr0", with_nic(nic("cbr0")), todo="ip link delete cbr0"),
    Case("interfaces", False, "flannel.1", with_nic(vxlan("flannel.1", 1, 4789))),
    Case("interfaces", False, "flannel0", with_nic(nic("flannel0")), UDP),
    Case(
        "interfaces",
        False,
        "vethlocal",
        with_nic(nic("vethlocal", alias="vxlab:demo")),
        todo="vxlab teardown demo",
    ),
    Case("files", False, "/run/flannel", changed(files=frozenset({"/run/flannel"})), todo="mv"),
    Case("files", False, "/run/etcd", changed(files=frozenset({"/run/etcd"}))),
    Case("files", False, "/var/log/etcd.log", changed(files=frozenset({"/var/log/etcd.log"}))),
    Case(
        "files", False, "/var/log/flannel.log", changed(files=frozenset({"/var/log/flannel.log"}))
    ),
    Case("files", False, "container-demo", changed(files=frozenset({"/run/container-demo"}))),
    Case("other-lab", False, "demo", changed(labs=frozenset({"demo"})), todo="vxlab teardown demo"),
    # --- who else is there
    Case("flannel", False, "flanneld (PID 700)", runs("flanneld"), todo="stop it"),
    Case("flannel", False, "FLANNEL-FWD", chains(FLANNEL_FWD="-"), todo="-X FLANNEL-FWD"),
    Case(
        "flannel",
        False,
        "ip flannel-ipv4",
        changed(tables=("ip flannel-ipv4",)),
        todo="nft delete table ip flannel-ipv4",
    ),
    Case("etcd", None, "etcd (PID 700)", runs("etcd")),
    Case("docker", None, "containerd, dockerd", runs("dockerd", "containerd")),
    Case("kubernetes", None, "kubelet", runs("kubelet")),
    Case("kubernetes", None, "k3s-server", runs("k3s-server")),
    Case("forward-policy", None, "DROP", chains(FORWARD="DROP")),
    Case(
        "firewall",
        None,
        "firewalld is active",
        runs("firewalld"),
        todo="source address=192.168.56.0/24 port port=8472 protocol=udp accept",
    ),
    Case(
        "firewall",
        None,
        "ufw is active",
        chains(ufw_user_input="-"),
        todo="sudo ufw allow proto udp from 192.168.56.0/24 to any port 8472",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_condition_makes_its_finding(case: Case) -> None:
    """With the condition, the finding says what was seen and what to do."""
    facts = everyone()
    facts["node01"] = case.change(facts["node01"])

    finding = found(judge(facts, lab(case.more)), case.code)

    assert (finding.ok, case.words in finding.seen, case.todo in finding.todo) == (
        case.ok,
        True,
        True,
    ), finding


@pytest.mark.parametrize("more", ["", HOSTGW, UDP, "ipv6: true\n", "underlay: {mtu: 1500}\n"])
def test_hosts_as_they_should_be_have_nothing_against_them(more: str) -> None:
    """Without any of the conditions every finding is good, and none tells to do anything."""
    findings = judge(everyone(), lab(more))

    assert [f for f in findings if f.ok is not True or f.todo] == []


def test_every_code_has_a_case() -> None:
    """No finding can be made that the table does not make appear."""
    plain = {f.code for f in judge(everyone(), lab(HOSTGW)) + judge(everyone(), lab(UDP))}
    same = {"kernel-proc", "kernel-mount", "busybox"}  # as other tries
    info = {"ip-forward", "nat-interface"}  # say something, never against the host

    assert plain - {case.code for case in CASES} == same | info


# --- several hosts --------------------------------------------------------------------------------


def test_vagrants_nat_interface_is_refused_in_words() -> None:
    """Two hosts told by eth0, which has 10.0.2.15 on both: the message says why and what else."""
    nat = TALK.replace("address: 192.168.56.21", "interface: eth0")
    nat = nat.replace("address: 192.168.56.22", "interface: eth0")

    findings = judge(everyone(), lab(text=nat))

    assert {f.host for f in findings if f.ok is False} == {"node01", "node02"}
    finding = found(findings, "underlay-double")
    assert finding.seen == (
        "eth0 has 10.0.2.15, and so has node02: it is not the network between the hosts, but one"
        " that each has for itself (as VirtualBox's and Vagrant's NAT)"
    )
    assert finding.todo.endswith("leads to the others: eth1 192.168.56.21/24")


def test_a_nat_interface_that_is_not_the_underlay_is_only_told() -> None:
    """The default route through 10.0.2.15 on all hosts harms nobody."""
    finding = found(judge(everyone()), "nat-interface")

    assert (finding.ok, finding.seen) == (
        True,
        "eth0 10.0.2.15, which other hosts have too; the lab does not use it",
    )


def test_all_problems_of_all_hosts_come_at_once() -> None:
    """One report: what is wrong with the first host does not hide what is wrong with the second."""
    facts = everyone()
    facts["node01"] = with_nic(nic("cbr0"))(facts["node01"])
    facts["node02"] = both(without("ss"), underlay(up=False))(facts["node02"])

    bad = [(f.host, f.code) for f in judge(facts) if f.ok is False]

    assert bad == [
        ("node01", "interfaces"),
        ("node02", "programs"),
        ("node02", "underlay-interface"),
    ]


def test_all_bare_hosts_are_told_to_install_everything() -> None:
    """A host without any of the programs: one line, and nothing that only follows from it."""
    facts = everyone()
    bare = Facts(families=frozenset({"alpine"}), refusal="sh: unshare: not found")
    facts["node02"] = bare

    findings = [f for f in judge(facts) if f.host == "node02"]

    assert [f.code for f in findings if f.ok is False] == ["programs"]
    assert found(findings, "programs", "node02").todo.startswith("sudo apk add iproute2 iptables")


def test_an_overlay_too_small_for_ip_is_refused() -> None:
    """What the hosts' MTU leaves for containers is known only when they were asked."""
    facts = {name: underlay(mtu=600)(each) for name, each in everyone().items()}

    finding = found(judge(facts), "overlay-mtu")

    assert (finding.ok, finding.seen) == (False, "550, which an underlay with 600 leaves")
    assert "625" not in finding.todo
    assert finding.todo.endswith("626 or more")


def test_ports_are_asked_for_only_where_they_are_needed() -> None:
    """etcd's port matters on its node; other addresses' listeners do not; host-gw has no port."""
    facts = everyone()
    facts["node02"] = listens("tcp", "*", 2379, "nc (PID 9)")(facts["node02"])
    facts["node01"] = both(
        listens("tcp", "10.0.2.15", 2379, "nc (PID 9)"), listens("udp", "*", 8472, "nc (PID 9)")
    )(facts["node01"])

    assert [f for f in judge(facts, lab(HOSTGW)) if f.ok is not True] == []


def test_a_host_with_the_programs_needs_no_room_for_them() -> None:
    """An earlier lab left them in the cache."""
    facts = everyone()
    facts["node01"] = replace(
        host(1),
        space={**host(1).space, "/var/cache": Space(1000, "/var/cache")},
        files=frozenset({"/var/cache/vxlab"}),
    )

    assert [f for f in judge(facts) if f.ok is not True] == []


# --- what is the lab's own ------------------------------------------------------------------------


OWN = frozenset(
    {
        *("cbr0", "flannel.1", "vethlocal", "etcd", "flannel", "/run/vxlab", "/run/flannel"),
        *("/run/container-demo", "/run/etcd", "/var/log/etcd.log", "/var/log/flannel.log"),
    }
)


def built(facts: Facts, number: int) -> Facts:
    """The host while the lab is up."""
    peer = Route(f"10.5.{3 - number}.0/24", f"10.5.{3 - number}.0", "flannel.1")
    return both(
        with_nic(nic("cbr0", f"10.5.{number}.1/24", alias="vxlab:talk")),
        with_nic(nic("vethlocal", alias="vxlab:talk")),
        with_nic(
            replace(vxlan("flannel.1", 1, 8472), addresses=(IPv4Interface(f"10.5.{number}.0/32"),))
        ),
        routes(peer, Route(f"10.5.{number}.0/24", "", "cbr0", "kernel")),
        runs("flanneld", "etcd"),
        listens("tcp", "192.168.56.21", 2379, "etcd (PID 701)"),
        listens("tcp", "127.0.0.1", 2380, "etcd (PID 701)"),
        listens("udp", "*", 8472, ""),
        chains(FLANNEL_FWD="-"),
        changed(labs=frozenset({"talk"}), files=OWN),
    )(facts)


def test_what_the_lab_has_made_is_not_in_its_way() -> None:
    """`up` on a lab that is up finds nothing against the hosts."""
    facts = {"node01": built(host(1), 1), "node02": built(host(2), 2)}

    findings = judge(facts, owned={"node01": OWN, "node02": OWN})

    assert [f for f in findings if f.ok is not True] == []


def test_the_same_without_a_journal_is_somebody_elses() -> None:
    """What only looks like the lab's is refused, all of it."""
    facts = {"node01": built(host(1), 1), "node02": built(host(2), 2)}

    bad = {f.code for f in judge(facts) if f.ok is False and f.host == "node01"}

    assert bad == {
        *("overlay-network", "port-etcd", "port-etcd-peer", "port-overlay"),
        *("interfaces", "files", "flannel"),
    }


def test_host_gws_own_routes_are_not_in_its_way() -> None:
    """They go through the NIC, to the other hosts' addresses."""
    facts = everyone()
    facts["node01"] = routes(Route("10.5.2.0/24", "192.168.56.22", "eth1"))(facts["node01"])
    own = {"node01": frozenset({"flannel"})}

    assert [f for f in judge(facts, lab(HOSTGW), own) if f.ok is not True] == []
    assert [f.code for f in judge(facts, lab(HOSTGW)) if f.ok is False] == ["overlay-network"]


# --- located --------------------------------------------------------------------------------------


def test_located_fills_in_what_only_the_hosts_know() -> None:
    """Interfaces, the addresses' real prefix lengths, and the underlay's MTU."""
    there = hostcheck.located(lab(), everyone())

    assert [(n.interface, str(n.address)) for n in there.nodes] == [
        ("eth1", "192.168.56.21/24"),
        ("eth1", "192.168.56.22/24"),
    ]
    assert (there.underlay.mtu, there.overlay_mtu) == (1500, 1450)


def test_located_finds_the_address_of_a_named_interface() -> None:
    """A node told by its interface alone; of two addresses, the one in underlay.network."""
    text = "nodes:\n  node01: {ssh: root@one, interface: eth1}\n"
    facts = {
        "node01": underlay(
            addresses=(IPv4Interface("172.16.0.9/12"), IPv4Interface("192.168.56.21/24"))
        )(host(1))
    }

    first = hostcheck.located(lab(text=text), facts)
    within = hostcheck.located(lab("underlay: {network: 192.168.56.0/24}\n", text), facts)

    assert [str(each.nodes[0].address) for each in (first, within)] == [
        "172.16.0.9/12",
        "192.168.56.21/24",
    ]


@pytest.mark.parametrize(
    ("more", "seen"),
    [
        ("interface: eth7", "there is no interface eth7"),
        ("interface: lo", "127.0.0.1/8 on lo leads to no other host"),
        ("interface: eth0, address: 192.168.56.21", "eth0 does not have the address"),
        ("interface: eth2", "eth2 has no IPv4 address"),
    ],
)
def test_an_interface_that_cannot_carry_the_underlay_is_refused(more: str, seen: str) -> None:
    """Named and not there, or there without the address; located leaves such a node alone."""
    text = f"nodes:\n  node01: {{ssh: root@one, {more}}}\n"
    facts = {"node01": with_nic(nic("eth2"))(host(1))}
    what = lab(text=text) if "lo" not in more else replace_interface(lab(), "lo")

    finding = found(judge(facts, what), "underlay-interface")

    assert (finding.ok, seen in finding.seen) == (False, True), finding
    assert "eth1 192.168.56.21/24" in finding.todo


def replace_interface(what: Lab, name: str) -> Lab:
    """A lab that the lab file does not allow."""
    from vxlab.lab import UNKNOWN

    return replace(what, nodes=(replace(what.nodes[0], address=UNKNOWN, interface=name),))


def test_located_takes_the_smallest_of_different_mtus_where_flannel_has_its_own() -> None:
    """flannel's option MTU rules; an underlay.mtu in the lab file stays."""
    facts = everyone()
    facts["node01"] = underlay(mtu=9000)(facts["node01"])
    option = "overlay: {backend: {Type: vxlan, MTU: 1400}}\n"

    made = hostcheck.located(lab(option), facts)

    assert (made.underlay.mtu, made.overlay_mtu) == (1500, 1350)
    assert [f for f in judge(facts, lab(option)) if f.ok is not True] == []
    assert hostcheck.located(lab("underlay: {mtu: 1400}\n"), facts).underlay.mtu == 1400


def test_the_words_for_the_labs_own_are_true_while_it_is_up() -> None:
    """No port is called free that the lab uses, and nobody promises its own switch back."""
    facts = {"node01": built(host(1), 1), "node02": built(host(2), 2)}

    findings = judge(facts, owned={"node01": OWN, "node02": OWN})

    seen = {f.code: f.seen for f in findings if f.host == "node01"}
    codes = ("port-etcd", "port-etcd-peer", "port-overlay", "ip-forward")
    assert [seen[code] for code in codes] == [*["the lab's own"] * 3, "0 now"]
