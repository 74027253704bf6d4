"""``vxlab export``: the scripts, run on fresh hosts, do what vxlab does, and take it back.

Golden cases in ``cases/export``: every file of some labs.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
import stat
import subprocess
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest

import remote
from conftest import Vxlab
from golden import agrees
from hosts import Host, Hosts
from kernel import wait_for
from remote import MakeHosts, differences, ok, photograph
from vxlab import binaries, labfile
from vxlab.rehearsal import scripts

seed, make = remote.seed, remote.make

PINNED = """
name: talk
nodes:
  node01: {subnet: 10.5.7.0/24}
  node02: {subnet: 10.5.8.0/24, containers: 2}
"""
LABS = {
    "talk": "",
    "pinned": PINNED,
    "three-containers": "{name: three, nodes: {node01: {containers: 3}}}",
    "host-gw": "{name: host-gw, overlay: {backend: {Type: host-gw}}}",
    "ssh": """
name: ssh
nodes:
  node01: {ssh: alice@one.example, interface: eth1}
  node02: {ssh: two, address: 192.168.56.22}
""",
    "small-subnets": "overlay: {subnet_length: 26}",
}


def exported(text: str) -> dict[str, str]:
    return scripts(labfile.loads(text, "lab.yaml"))


# --- the texts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LABS)
def test_golden(name: str) -> None:
    """Every file of the lab is as reviewed."""
    files = exported(LABS[name])
    agrees(f"export/{name}.txt", "".join(f"===== {n}\n{t}\n" for n, t in files.items()))


@pytest.mark.parametrize("name", LABS)
def test_shellcheck_has_nothing_to_say(name: str, tmp_path: Path) -> None:
    """The scripts are good bash, by a linter's eyes."""
    if shutil.which("shellcheck") is None:
        pytest.skip("SHELLCHECK DID NOT RUN: it is not installed")
    for file, text in exported(LABS[name]).items():
        (tmp_path / file).write_text(text)
    command = ["shellcheck", *map(str, sorted(tmp_path.glob("*.sh")))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", LABS)
def test_lines_fit(name: str) -> None:
    """Nobody has to scroll sideways: no line has more than 100 characters."""
    for file, text in exported(LABS[name]).items():
        assert [line for line in text.splitlines() if len(line) > 100] == [], file


def test_reservations_come_before_the_configuration() -> None:
    """A flanneld that waits on another host takes no subnet before all pinned ones are written."""
    text = exported(PINNED)["node01.sh"]
    puts = re.findall(r"put +(?:\\\n +)?/coreos.com/network/(config|subnets)", text)
    assert puts == ["subnets", "subnets", "config"]


# --- the command ----------------------------------------------------------------------------------


def test_files_and_modes(vxlab: Vxlab, tmp_path: Path) -> None:
    """Scripts may be executed, nothing else may be; two per node and a README."""
    target = tmp_path / "out"
    done = vxlab("export", "-o", str(target))
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in target.iterdir()} == {
        "README.txt": 0o644,
        "node01.sh": 0o755,
        "node01-teardown.sh": 0o755,
        "node02.sh": 0o755,
        "node02-teardown.sh": 0o755,
    }


def test_nothing_is_overwritten(vxlab: Vxlab, tmp_path: Path) -> None:
    """A directory that is there is left alone; with --force only the scripts in it are replaced."""
    (tmp_path / "node01.sh").write_text("mine")
    (tmp_path / "notes").write_text("mine")
    done = vxlab("export", "-o", str(tmp_path))
    assert (done.returncode, (tmp_path / "node01.sh").read_text()) == (64, "mine")
    assert "is there already" in done.stderr
    done = vxlab("export", "-o", str(tmp_path), "--force")
    assert (done.returncode, (tmp_path / "notes").read_text()) == (0, "mine")
    assert (tmp_path / "node01.sh").read_text() == exported("")["node01.sh"]


def test_force_replaces_a_link(vxlab: Vxlab, tmp_path: Path) -> None:
    """What a link in the directory leads to is not written."""
    other = tmp_path / "other"
    other.write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "node01.sh").symlink_to(other)
    assert vxlab("export", "-o", str(tmp_path / "out"), "--force").returncode == 0
    assert other.read_text() == "mine"


def test_a_place_that_cannot_be_written(vxlab: Vxlab, tmp_path: Path) -> None:
    """Where no directory can be made, the error says so."""
    (tmp_path / "file").write_text("")
    done = vxlab("export", "-o", str(tmp_path / "file" / "out"))
    assert done.returncode == 64
    assert "error: the scripts cannot be written" in done.stderr


def test_names_that_would_clash(vxlab: Vxlab, tmp_path: Path) -> None:
    """A node called like another's teardown script is refused, not overwritten by it."""
    lab = tmp_path / "lab.yaml"
    lab.write_text("nodes: {one: , one-teardown: }\n")
    done = vxlab("export", str(lab), "-o", str(tmp_path / "out"))
    assert (done.returncode, (tmp_path / "out").exists()) == (64, False)


def test_tls_is_said_to_be_left_out(vxlab: Vxlab, tmp_path: Path) -> None:
    """A lab with TLS becomes one with plain http, which is told, on the screen and in the files."""
    lab = tmp_path / "lab.yaml"
    lab.write_text(LABS["ssh"])
    done = vxlab("export", str(lab), "-o", str(tmp_path / "out"))
    assert "plain http" in done.stderr
    assert "WARNING: etcd speaks plain http" in (tmp_path / "out" / "node02.sh").read_text()


# --- on hosts -------------------------------------------------------------------------------------

#: All namespaces of a container, and its root directory.
_IN = ("--preserve-credentials", "-U", "-m", "-u", "-i", "-n", "-p", "-r")

PROGRAMS = ("etcd", "etcdctl", "flanneld", "busybox")


@pytest.fixture
def network(make: MakeHosts) -> Hosts:
    """Two hosts, with the programs on PATH of a login."""
    network = make()
    found = binaries.find(lambda line: None)
    for host in network:
        for name in PROGRAMS:
            program = getattr(found, name)
            target = host.path(f"/opt/{name}")
            shutil.copy(program.path, target)
            target.chmod(0o755)
    return network


def environment() -> list[str]:
    programs = (f"{name.upper()}=/opt/{name}" for name in PROGRAMS)
    return ["env", "ADDRESS_NODE01=192.168.56.21", *programs]


def put(host: Host, files: Mapping[str, str]) -> None:
    host.ok("mkdir -p /opt/lab")
    for name, text in files.items():
        host.path(f"/opt/lab/{name}").write_text(text)


def run(host: Host, script: str) -> subprocess.CompletedProcess[str]:
    return host.run(*environment(), "bash", f"/opt/lab/{script}")


def build(network: Hosts, files: Mapping[str, str]) -> None:
    for host, node in zip(network, ("node01", "node02"), strict=True):
        put(host, files)
        done = run(host, f"{node}.sh")
        assert done.returncode == 0, f"{node}\n{done.stdout}{done.stderr}"


def take_away(network: Hosts) -> None:
    for host, node in zip(network, ("node01", "node02"), strict=True):
        done = run(host, f"{node}-teardown.sh")
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        host.ok("rm -r /opt/lab")


#: What differs from one start to the next: numbers of interfaces and namespaces, the MACs that the
#: kernel draws by lot and what is made of them, timers and counters.
_RANDOM = {
    *("ifindex", "link_index", "link_netnsid", "bridge_id", "root_id", "designated_bridge"),
    *("designated_root", "hello_timer", "gc_timer", "tcn_timer", "topology_change_timer"),
    *("fdb_n_learned", "port_no", "inet6_addr", "valid_life_time", "preferred_life_time"),
    *("message_age_timer", "forward_delay_timer", "hold_timer", "topology_change_detected"),
}
_LOOKS = {
    "addr": "ip -j -d addr show",
    "route": "ip -j -d -4 route show table all",
    "neigh": "ip -j -d neigh show nud permanent",
    "fdb": "bridge -j fdb show",
}


def steady(value: Any, macs: Mapping[str, str]) -> Any:
    """Without what is random; each MAC by the interface whose it is."""
    if isinstance(value, dict):
        return {k: steady(v, macs) for k, v in value.items() if k not in _RANDOM}
    if isinstance(value, list):
        return [steady(v, macs) for v in value]
    return macs.get(value, value) if isinstance(value, str) else value


def looks(network: Hosts, pids: Mapping[str, list[str]]) -> dict[str, Any]:
    """All of both nodes and their containers that `ip -j -d` tells."""
    found: dict[str, dict[str, Any]] = {}
    for host in network:
        places = {"": [], **{pid: ["nsenter", "-n", "-t", pid] for pid in pids[host.name]}}
        for number, words in enumerate(places.values()):
            read = {k: json.loads(host.ok(*words, *look.split())) for k, look in _LOOKS.items()}
            found[f"{host.name}/{number}"] = read
    macs = {
        # A bridge takes over the lowest of its ports' MACs: which port's that is, is chance.
        link["address"]: f"MAC of {place} {link['ifname'].rstrip('2')}"
        for place, read in found.items()
        for link in read["addr"]
        if link and link["ifname"] not in ("lo", "eth1", "cbr0")
    }
    for read in found.values():
        # A link-local address is made of the MAC; multicast entries are IPv6's.
        for link in read["addr"]:
            if link:
                link["addr_info"] = [a for a in link["addr_info"] if a["family"] == "inet"]
        read["fdb"] = [row for row in read["fdb"] if row.get("state") and row["mac"][:2] != "33"]
        for key in ("addr", "route", "neigh", "fdb"):
            rows = [row for row in read[key] if row]
            read[key] = sorted((steady(row, macs) for row in rows), key=json.dumps)
    return found


def converged(network: Hosts) -> None:
    """Wait until each node has flannel's entries for the other, and all plugs notice each other."""

    def settled(host: Host) -> bool:
        routed = " via " in host.ok("ip route show root 10.5.0.0/16")
        return routed and "NO-CARRIER" not in host.ok("ip link")

    for host in network:
        wait_for(functools.partial(settled, host), f"{host.name}'s route and links")


@pytest.mark.kernel
@pytest.mark.lab
def test_scripts_build_what_vxlab_builds(network: Hosts, tmp_path: Path) -> None:
    """Links, addresses, routes, neighbours and FDB are the same; pings pass; the end is exact."""
    pristine = photograph(network)
    rows = [
        f"  node0{n}: {{ssh: root@host{n}, address: 192.168.56.2{n}, {more}}}"
        for n, more in ((1, "subnet: 10.5.7.0/24"), (2, "subnet: 10.5.8.0/24, containers: 2"))
    ]
    lab = tmp_path / "lab.yaml"
    lab.write_text("\n".join(["name: talk", "nodes:", *rows, "etcd: {insecure: true}"]) + "\n")
    ok(network, "up", str(lab))
    converged(network)
    read = "for f in /run/vxlab/machines/*; do read -r p _ <$f; echo $p; done"
    wanted = looks(network, {host.name: host.ok(read).split() for host in network})
    ok(network, "teardown", "talk")
    assert differences(pristine, network) == []

    build(network, exported(PINNED))
    converged(network)
    read = "for f in /run/vxlab/container.*; do read -r p _ <$f; echo $p; done"
    pids = {host.name: host.ok(read).split() for host in network}
    seen = looks(network, pids)
    differing = [
        (place, look, was, now)
        for place in wanted
        for look in _LOOKS
        for was, now in zip_longest(wanted[place][look], seen[place][look])
        if was != now
    ]
    assert differing == []
    assert seen.keys() == wanted.keys()
    ping = ["nsenter", *_IN, "-t", pids["host1"][0], "ping", "-c", "1", "-W", "2"]
    for address in ("10.5.8.10", "10.5.8.11"):
        network["host1"].ok(*ping, address)

    take_away(network)
    assert differences(pristine, network) == []


@pytest.mark.kernel
@pytest.mark.lab
@pytest.mark.parametrize("name", ["talk", "host-gw", "ssh"])
def test_without_pinned_subnets(network: Hosts, name: str) -> None:
    """Scripts find what flannel chose, and NICs; a host that was a router stays one."""
    network["host1"].ok("sysctl -qw net.ipv4.ip_forward=1 && iptables -P FORWARD DROP")
    network["host2"].ok("iptables -N MINE && iptables -A FORWARD -j MINE")
    pristine = photograph(network)
    build(network, exported(LABS[name]))
    converged(network)
    read = "nsenter -n -t $(cut -d' ' -f1 /run/vxlab/container.*) ip -j -4 addr show vethNS"
    seen = [json.loads(host.ok(read))[0]["addr_info"][0] for host in network]
    envs = [host.ok("cat /run/flannel/subnet.env") for host in network]
    bases = [re.findall(r"FLANNEL_SUBNET=(.*)\.1/24", env)[0] for env in envs]
    assert [row["local"] for row in seen] == [f"{base}.10" for base in bases]
    assert {row["prefixlen"] for row in seen} == {24}
    pid = network["host2"].ok("cut -d' ' -f1 /run/vxlab/container.*").strip()
    network["host2"].ok("nsenter", *_IN, "-t", pid, "ping", "-c", "1", seen[0]["local"])

    again = run(network["host1"], "node01.sh")
    assert again.returncode == 1
    assert "/run/vxlab is there already: the host is not fresh" in again.stderr
    take_away(network)
    assert differences(pristine, network) == []


@pytest.mark.kernel
@pytest.mark.lab
def test_a_script_that_fails(network: Hosts) -> None:
    """It says what failed and where to look; teardown takes away what is there by then."""
    pristine = photograph(network)
    host = network["host1"]
    put(host, exported(""))
    failed = host.run(*environment(), "FLANNELD=/bin/false", "bash", "/opt/lab/node01.sh")
    assert failed.returncode == 1
    assert "flanneld got no subnet; the end of /var/log/flannel.log says why" in failed.stderr
    done = run(host, "node01-teardown.sh")
    assert (done.returncode, done.stderr) == (0, "")
    done = run(host, "node01-teardown.sh")
    assert (done.returncode, done.stdout) == (0, "nothing that node01.sh has made runs here\n")
    host.ok("ip link add cbr0 type bridge")
    refused = run(host, "node01.sh")
    assert "there is an interface cbr0 already: the host is not fresh" in refused.stderr
    assert run(host, "node01-teardown.sh").returncode == 0
    host.ok("ip link del cbr0")  # it is still there
    refused = run(host, "node02.sh")
    assert "no interface has the address 192.168.56.22: is this node02?" in refused.stderr
    host.ok("rm -r /opt/lab")
    assert differences(pristine, network) == []
