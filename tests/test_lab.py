"""Whole labs with the real etcd and flanneld: built, looked at, used and removed."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lablib import (
    CHECKS,
    LAB,
    Home,
    cleaned,
    findings,
    host_links,
    in_namespaces_of,
    leftovers,
    one_error,
    program,
    rows,
    rss,
    told,
)

pytestmark = LAB


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home")
    yield home
    cleaned(home)
    assert leftovers(home.path) == []


# --- the talk's lab -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """The talk's lab, for tests that only look at it."""
    home = Home(tmp_path_factory.mktemp("talk") / "home")
    home.ok("up")
    yield home
    cleaned(home)


def test_a_lab_comes_up_once_and_goes_once(place: Home) -> None:
    """up, up again without a change, verify, teardown, teardown again; nothing is left."""
    links = host_links()
    assert "talk is up: 2 nodes, 2 containers in" in place.ok("up")

    again = place.json("up")
    assert again["changes"] == []
    assert again["fresh"] is False
    assert "talk is up and as wanted; nothing changed" in place.ok("up")

    assert place.ok("teardown") == "talk is gone\n"
    assert leftovers(place.path) == []
    assert place.ok("teardown") == "talk is not there; nothing to do\n"
    assert host_links() == links


def test_verify_asks_every_question_and_all_are_good(talk: Home) -> None:
    """Exit code 0, every check is asked and each has evidence."""
    done = talk("verify", "--json")
    assert done.returncode == 0, told(done)
    report = json.loads(done.stdout)
    assert report["ok"] is True
    assert [c["code"] for c in report["checks"]] == CHECKS
    assert {c["code"]: c["ok"] for c in report["checks"]} == dict.fromkeys(CHECKS, True)
    assert all(c["findings"] for c in report["checks"])
    assert "talk works: 12 of 12 checks good" in talk.ok("verify")


def test_verify_writes_junit_xml(talk: Home, tmp_path: Path) -> None:
    """A test case per finding, none failed."""
    talk.ok("verify", "--junit", str(tmp_path / "junit.xml"))
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()  # noqa: S314 - vxlab's own
    assert suite.get("failures") == "0"
    assert suite.get("errors") == "0"
    assert int(suite.get("tests", "0")) == len(suite) > len(CHECKS)


def test_what_is_on_the_wire_is_vxlan_of_exactly_the_underlays_mtu(talk: Home) -> None:
    """A 1450-byte packet becomes one of 1500 bytes, with VNI 1 on UDP port 8472."""
    seen = {f["where"]: f["seen"] for f in findings(talk, "encapsulation")}
    assert sorted(seen) == ["node01:eth0", "node02:eth0"]
    for words in seen.values():
        assert words.startswith("VXLAN, VNI 1, UDP 8472, +50 bytes")
        assert "1500 bytes" in words


def test_status_and_ls_show_the_lab(talk: Home) -> None:
    """Nodes, subnets, VTEPs, containers; the containers have number 10 of their node's subnet."""
    assert "as wanted: nothing drifted" in talk.ok("status")
    report = talk.json("status")
    assert report["drift"] == []
    assert [n["underlay"] for n in report["nodes"]] == ["192.168.56.21/24", "192.168.56.22/24"]
    for node in report["nodes"]:
        subnet = node["subnet"].removesuffix("0/24")
        assert subnet.startswith("10.5.")
        assert [c["address"] for c in node["containers"]] == [f"{subnet}10/24"]
        assert [c["mtu"] for c in node["containers"]] == [1450]
    row = {"lab": "talk", "state": "up", "nodes": 2, "directory": str(talk.lab())}
    assert talk.json("ls") == [row]
    assert str(talk.lab()) in talk.ok("ls")


def test_exec_runs_in_nodes_and_containers_with_the_commands_exit_code(talk: Home) -> None:
    """By node, by container, by both; the words reach the command as they are."""
    assert talk.ok("exec", "node02", "--", "hostname") == "node02\n"
    assert talk.ok("exec", "container01", "--", "hostname") == "container01\n"
    assert talk.ok("exec", "node01/container01", "hostname") == "container01\n"
    assert talk.ok("exec", "node01", "--", "printf", "%s|", "a b", "$HOME") == "a b|$HOME|"
    assert talk("exec", "node01", "--", "sh", "-c", "exit 7").returncode == 7
    peer = talk.json("status")["nodes"][1]["containers"][0]["address"].partition("/")[0]
    assert "0% packet loss" in talk.ok("exec", "container01", "--", "ping", "-c1", "-w5", peer)


def test_the_talks_paths_are_in_a_node(talk: Home) -> None:
    """What the talk shows: the logs, subnet.env, processes of this node alone, its name."""
    assert "FLANNEL_MTU=1450" in talk.sh("node01", "cat /var/run/flannel/subnet.env")
    assert "ready to serve client requests" in talk.sh("node01", "cat /var/log/etcd.log")
    assert "192.168.56.22" in talk.sh("node02", "cat /var/log/flannel.log")
    processes = talk.sh("node02", "ps -eo args")
    assert "--public-ip=192.168.56.22" in processes
    assert "--public-ip=192.168.56.21" not in processes
    assert "192.168.56.22 node02" in talk.sh("node01", "cat /etc/hosts")


def test_a_container_sees_only_itself(talk: Home) -> None:
    """Its own interfaces and processes, and a read-only busybox."""
    listed = talk.ok("exec", "container01", "--", "ip", "-o", "link").splitlines()
    names = sorted(line.split(": ")[1].partition("@")[0] for line in listed)
    assert names == ["lo", "vethNS"]
    processes = talk.ok("exec", "container01", "--", "ps").splitlines()[1:]
    assert processes[0].split()[0] == "1"
    assert len(processes) == 2  # PID 1 and ps
    assert talk("exec", "container01", "--", "touch", "/bin/new").returncode == 1


def test_logs_come_with_their_nodes(talk: Home) -> None:
    """etcd's from its node; the flannelds' together, or one."""
    assert "ready to serve client requests" in talk.ok("logs", "etcd")
    both = talk.ok("logs", "flannel").splitlines()
    assert {line.partition(" │")[0] for line in both} == {"node01", "node02"}
    one = talk.ok("logs", "flannel", "--node", "node02", "-n", "3").splitlines()
    assert len(one) == 3
    assert not one[0].startswith("node02")


@pytest.mark.parametrize(
    ("words", "name"),
    [((), "container01"), (("node02",), "node02"), (("node02/container02",), "container02")],
)
def test_a_shell_is_interactive_and_ends(talk: Home, words: tuple[str, ...], name: str) -> None:
    """On a terminal: a prompt, a command, exit. Without an argument: the first container."""
    main, terminal = pty.openpty()
    with subprocess.Popen(
        [*talk.command, "shell", *words],
        env=talk.environment,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    ) as shell:
        os.close(terminal)
        os.write(main, b"echo it is $(hostname); exit 5\n")
        shown = bytearray()
        while chunk := _read(main):
            shown += chunk
    os.close(main)
    assert f"it is {name}".encode() in shown
    assert shell.returncode == 5


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # EIO: the other end is closed
        return b""


def test_every_interface_carries_the_labs_mark(talk: Home) -> None:
    """Whoever looks at an interface sees whose it is; flannel's own are flannel's."""
    marks = {}
    for where in ("switch", "node01", "node02"):
        for row in rows(talk, where, "ip -j -d link"):
            marks[f"{where}:{row['ifname']}"] = row.get("ifalias")
    ours = {name: mark for name, mark in marks.items() if not name.endswith((":lo", ".1"))}
    assert sorted(ours) == [
        "node01:cbr0",
        "node01:eth0",
        "node01:vethlocal",
        "node02:cbr0",
        "node02:eth0",
        "node02:vethlocal",
        "switch:node01",
        "switch:node02",
        "switch:switch",
    ]
    assert set(ours.values()) == {"vxlab:talk"}


def test_only_the_labs_own_programs_run_and_their_holders_are_small(talk: Home) -> None:
    """No Python stays behind; what holds a namespace is a busybox with hardly any memory."""
    members = in_namespaces_of(talk.world())
    programs = sorted(program(pid) for pid in members)
    assert programs.count("busybox") == 5  # the world, two nodes, two containers
    assert len([name for name in programs if name != "busybox"]) == 3  # etcd, two flannelds
    assert not [name for name in programs if "python" in name]
    holders = [pid for pid in members if program(pid) == "busybox"]
    assert max(rss(pid) for pid in holders) < 1024  # KiB
    assert _running_vxlab(talk) == []


def _running_vxlab(home: Home) -> list[int]:
    """Processes that were started with this home in their environment."""
    wanted, found = f"VXLAB_HOME={home.path}".encode(), []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and wanted in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue  # it ended
    return found


# --- other labs ---------------------------------------------------------------------------------


def lab_file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "lab.yaml"
    path.write_text(text)
    return str(path)


def test_a_pinned_subnet_is_the_nodes(place: Home, tmp_path: Path) -> None:
    """flannel's reservation: the node gets the subnet that its lab file asks for."""
    text = "name: pinned\nnodes:\n  node01: {subnet: 10.5.77.0/24}\n  node02: {}\n"
    place.ok("up", lab_file(tmp_path, text))
    nodes = place.json("status", "pinned")["nodes"]
    assert nodes[0]["subnet"] == "10.5.77.0/24"
    assert nodes[0]["containers"][0]["address"] == "10.5.77.10/24"
    assert place.failed("pinned") == set()
    assert place.json("up", "pinned")["changes"] == []


def test_five_nodes(place: Home) -> None:
    """`--nodes 5` scales the talk's lab; another number on a lab that is up is refused."""
    assert "talk is up: 5 nodes, 5 containers" in place.ok("up", "--nodes", "5")
    assert len(findings(place, "pairs")) == 5
    assert place.failed() == set()
    assert "another lab file" in one_error(place("up", "--nodes", "3"), 64)
    assert "nothing changed" in place.ok("up")


def test_more_nodes_than_arp_entries_would_serve(place: Home) -> None:
    """From 17 nodes on the nodes are told each other's MACs; every container reaches every."""
    place.ok("up", "--nodes", "18")
    neighbours = rows(place, "node03", "ip -j neigh show dev eth0 nud permanent")
    assert len(neighbours) == 17
    assert place.failed() == set()
    assert place.json("up")["changes"] == []


def test_one_node_proves_nothing_and_verify_says_so(place: Home) -> None:
    """A lab with nobody to reach is built, but its overlay is not proven: exit code 2."""
    place.ok("up", "--nodes", "1")
    assert place("verify").returncode == 2
    assert place.failed() == {"pairs", "edge", "encapsulation"}


def test_two_labs_with_the_same_addresses_do_not_see_each_other(
    place: Home, tmp_path: Path
) -> None:
    """Side by side; what happens to the one is nothing to the other."""
    other = lab_file(tmp_path, "name: other\n")
    place.ok("up")
    place.ok("up", other)
    assert [row["state"] for row in place.json("ls")] == ["up", "up"]
    assert place.failed("talk") == set()
    assert place.failed("other") == set()

    place.sh("node01", "ip link del cbr0", "other")
    assert place("status", "other").returncode == 1
    assert place.json("status", "talk")["drift"] == []
    place.ok("teardown", "other")
    assert place.failed("talk") == set()
    place.ok("up", other)
    place.ok("teardown", "--all")
    assert leftovers(place.path) == []


def test_a_lab_outlives_its_file(place: Home, tmp_path: Path) -> None:
    """Edited, moved, lost: by its name the lab is looked at, verified, repaired and removed."""
    file = lab_file(tmp_path, "name: mine\n")
    place.ok("up", file)

    Path(file).write_text("name: mine\nunderlay: {mtu: 9000}\n")
    assert "was built from another lab file" in one_error(place("up", file), 64)
    assert place.failed("mine") == set()

    Path(file).rename(tmp_path / "moved.yaml")
    assert place.json("up", "mine")["changes"] == []

    (tmp_path / "moved.yaml").unlink()
    place.sh("node01", "ip link set cbr0 down", "mine")
    assert place("status", "mine").returncode == 1
    assert "repaired" in place.ok("up", "mine")
    assert place.failed("mine") == set()
    place.ok("teardown", "mine")
    assert leftovers(place.path) == []


def test_a_relative_home_and_another_directory_are_the_same_lab(
    place: Home, tmp_path: Path
) -> None:
    """VXLAB_HOME may be relative; what is built keeps absolute paths."""
    assert place("up", cwd=tmp_path, VXLAB_HOME="home").returncode == 0
    assert place.json("status")["drift"] == []


def test_a_home_with_spaces_and_quotes_works(tmp_path: Path) -> None:
    """Paths are quoted wherever a shell sees them."""
    home = Home(tmp_path / "a 'b' \"c\" $d")
    try:
        home.ok("up")
        assert home.failed() == set()
    finally:
        cleaned(home)
    assert leftovers(home.path) == []


@pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="there is no /dev/net/tun")
def test_the_udp_backend(place: Home, tmp_path: Path) -> None:
    """flannel's oldest backend carries bare IP packets in UDP, through flanneld: 28 bytes."""
    text = "name: udp\noverlay:\n  backend: {Type: udp}\n"
    up = place("up", lab_file(tmp_path, text))
    if up.returncode and "/dev/net/tun" in up.stderr:
        pytest.skip("this machine does not let a lab use /dev/net/tun")
    assert up.returncode == 0, told(up)
    lab = place.json("status", "udp")
    assert [c["mtu"] for n in lab["nodes"] for c in n["containers"]] == [1472, 1472]
    assert place.failed("udp") == set()
    for finding in findings(place, "encapsulation", "udp"):
        assert finding["seen"].startswith("UDP 8285, +28 bytes")


def test_ipv6_is_left_alone_where_the_lab_says_so(place: Home, tmp_path: Path) -> None:
    """`ipv6: true` keeps Linux's link-local addresses; else a lab has none."""
    place.ok("up", lab_file(tmp_path, "name: six\nipv6: true\n"))
    place.ok("up")
    have = {lab: "fe80:" in place.sh("node01", "ip addr", lab) for lab in ("six", "talk")}
    kernel = Path("/proc/net/if_inet6").exists()
    assert have == {"six": kernel, "talk": False}
    assert place.failed("six") == set()
