"""``vxlab capture`` on real hosts: a tcpdump at every hop there, each host by its own clock."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import remote
from kernel import wait_for
from remote import Hosts, MakeHosts, differences, ok, photograph
from test_capture_lab import hop_of, sums
from test_pcapng import needs_tshark
from vxlab.errors import OperationError, UnreachableError, UsageError

pytestmark = [pytest.mark.kernel, pytest.mark.lab]

seed, make = remote.seed, remote.make

HOPS = [
    f"{node}{rest}"
    for node, container in (("node01", "container01"), ("node02", "container02"))
    for rest in (":eth1", ":flannel.1", ":cbr0", ":vethlocal", f"/{container}:vethNS")
]


class Network:
    """Two hosts with a lab that is up."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts
        rows = json.loads(ok(hosts, "status", "talk", "--json"))["nodes"]
        self.here, self.far = (row["containers"][0]["address"].partition("/")[0] for row in rows)

    def ping(self, count: int = 1) -> None:
        """From container to container; not over SSH, whose packets would be seen."""
        enter = "read -r p _ </run/vxlab/machines/container01; exec nsenter -n -t $p"
        self.hosts["host1"].ok(f"{enter} ping -c {count} -i 0.02 -W 5 {self.far}")

    def capture(
        self, *words: str, during: Callable[[], object] = lambda: None, interrupt: bool = True
    ) -> tuple[str, str, int]:
        """Both outputs and the exit code of a capture that has said that it runs."""
        with self.start(*words) as process:
            during()
            if interrupt:
                process.send_signal(signal.SIGINT)
            out, said = process.communicate(timeout=60)
        return out, said, process.returncode

    def start(self, *words: str) -> subprocess.Popen[str]:
        process = self.hosts.start("capture", *words)
        assert process.stderr is not None
        begun = process.stderr.readline()
        assert begun.startswith("capturing at"), begun + process.stderr.read()
        assert begun.endswith("; the hosts' clocks are not compared\n")
        return process

    def wrong(self, *words: str) -> tuple[int, str]:
        done = self.hosts.vxlab("capture", *words)
        assert done.stdout == ""
        return done.returncode, done.stderr

    def left(self) -> list[str]:
        """What a capture has left on the hosts."""
        found = []
        for host in self.hosts:
            found += [p.command for p in host.processes() if re.search("tcpdump|taps", p.command)]
            found += host.ok("find /run /tmp /var/tmp -name '*taps*'").split()
        return found


@pytest.fixture(scope="module", params=["alice", "root"])
def network(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Network]:
    """The talk's lab on two hosts, by a login that needs sudo, and by root's."""
    directory = tmp_path_factory.mktemp("captured")
    with Hosts(directory / "hosts", 2) as hosts:
        before = photograph(hosts)
        lab = str(hosts.lab(directory / "lab.yaml", user=request.param))
        ok(hosts, "up", lab)
        made = Network(hosts)
        yield made
        wait_for(lambda: made.left() == [], f"nothing is left: {made.left()}")
        ok(hosts, "teardown", lab, "--purge")
        assert differences(before, hosts) == []


def by_node(lines: list[str], node: str) -> list[str]:
    """The hops of one host, in the order in which they are shown."""
    return [hop for hop in map(hop_of, lines) if hop.startswith(node)]


def heads(out: str) -> list[str]:
    return [line for line in out.splitlines() if not line.startswith(" ")]


def shark(file: Path, *fields: str) -> list[list[str]]:
    """What tshark reads of every frame in a file."""
    words = [word for field in fields for word in ("-e", field)]
    argv = ["tshark", "-r", str(file), "-T", "fields", *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return [line.split("\t") for line in done.stdout.splitlines()]


def test_a_ping_is_seen_at_every_hop(network: Network) -> None:
    """There and back, on each host in the order of its own clock; then the summary."""
    out, said, code = network.capture("all", "icmp", during=network.ping)
    lines = heads(out)
    assert code == 0
    assert Counter(map(hop_of, lines)) == dict.fromkeys(HOPS, 2)
    there = ["/container01:vethNS", ":vethlocal", ":cbr0", ":flannel.1", ":eth1"]
    assert by_node(lines, "node01") == [f"node01{hop}" for hop in (*there, *there[::-1])]
    inward = [":eth1", ":flannel.1", ":cbr0", ":vethlocal", "/container02:vethNS"]
    assert by_node(lines, "node02") == [f"node02{hop}" for hop in (*inward, *inward[::-1])]
    assert sums(said) == dict.fromkeys(HOPS, 2)
    assert "none dropped" in said
    assert network.left() == []


def test_what_is_inside_vxlan_is_asked_about_and_the_rest_left_out(network: Network) -> None:
    """The host keeps all of VXLAN; what was not asked for is in no line and no count."""

    def both() -> None:
        network.ping(2)
        network.hosts["host1"].ok("ping -c 3 -i 0.02 192.168.56.22")

    only = f"icmp[icmptype] == icmp-echo and dst host {network.far}"
    out, said, _ = network.capture("node01", "node01:flannel.1", "-f", only, during=both)
    assert sums(said) == {"node01:eth1": 2, "node01:flannel.1": 2}
    assert (out.count(f"> {network.far} "), out.count("echo request"), "reply" in out) == (
        4,
        4,
        False,
    )
    _, said, _ = network.capture("node01", "--outer", "-f", only, during=both)
    assert sums(said) == {"node01:eth1": 0}
    _, said, _ = network.capture("node01", "-f", "icmp", during=both)
    assert sums(said) == {"node01:eth1": 10}


def test_our_own_ssh_connections_are_left_out_and_no_other(network: Network) -> None:
    """What is captured travels by them: each packet would make more."""
    out, _, _ = network.capture("node01", "node02", during=lambda: network.ping(50))
    assert not [line for line in out.splitlines() if " > 22 " in line or " 22 > " in line]
    assert len(heads(out)) >= 200

    def another() -> None:
        ok(network.hosts, "exec", "node01", "--", "true")

    out, _, _ = network.capture("node01", "tcp", "port", "22", during=another)
    assert [line for line in out.splitlines() if " > 22 " in line]


@needs_tshark
def test_a_file_for_wireshark(network: Network, tmp_path: Path) -> None:
    """Every hop an interface, its frames with their directions; the clocks are told of."""
    file = tmp_path / "talk.pcapng"
    words = ("all", "-w", str(file), "--seconds", "1.5", "icmp")
    out, said, code = network.capture(*words, during=network.ping, interrupt=False)
    assert (out, code, "none dropped" in said) == ("", 0, True)
    rows = shark(file, "frame.interface_name", "frame.packet_flags_direction")
    assert Counter(row[0] for row in rows) == dict.fromkeys(HOPS, 2)
    assert b"those are not compared" in file.read_bytes()


def test_it_ends_after_so_many_packets(network: Network) -> None:
    """Over all hosts; to standard output, too."""
    out, said, code = network.capture(
        "all", "-c", "7", "icmp", during=lambda: network.ping(3), interrupt=False
    )
    assert (len(heads(out)), code, said.splitlines()[0]) == (
        7,
        0,
        "7 packets at 10 hops, none dropped",
    )


def test_a_flood_loses_nothing_or_says_how_much(network: Network) -> None:
    """What was captured and what was dropped is what was sent, at every hop that it passes."""
    enter = "read -r p _ </run/vxlab/machines/container01; exec nsenter -n -t $p"

    def flood() -> None:
        words = f"ping -q -f -c 5000 -s 100 {network.far}"
        network.hosts["host1"].ok(f"{enter} {words}")

    where = ("node01/container01", "node01:cbr0", "node02:flannel.1")
    _, said, _ = network.capture(*where, "-f", "icmp", "-w", "/dev/null", during=flood)
    found = {m[1]: (int(m[2]), int(m[3] or 0)) for m in re.finditer(
        r"^  (\S+) +(\d+)(?:  (\d+) dropped)?$", said, re.MULTILINE
    )}  # fmt: skip
    assert {sum(each) for each in found.values()} == {10_000}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("node01:flannel.2",), "did you mean node01:flannel.1?"),
        (("node01:any",), "node01 has no interface 'any'"),
        (("node01:1",), "node01 has no interface '1'"),
        (("container01:eth0",), "node01/container01 has no interface 'eth0'"),
        (("node01", "-f", "icmp and"), "the filter does not compile"),
        (("switch",), "no node or container 'switch'"),
    ],
)
def test_what_is_not_there_is_told(network: Network, words: tuple[str, ...], told: str) -> None:
    """In the same words as on a lab of this machine; nothing runs on the hosts afterwards."""
    code, said = network.wrong(*words)
    assert code == UsageError.exit_code
    assert told in said
    assert network.left() == []


def test_an_interface_that_goes_away_is_told(network: Network) -> None:
    """The others go on."""
    host = network.hosts["host1"]
    host.ok("ip link add spare type veth peer name end; ip link set spare up; ip link set end up")

    with network.start("node01:spare", "node01:cbr0", "icmp") as process:
        host.ok("ip link del spare")
        assert process.stderr is not None
        told = process.stderr.readline()
        network.ping()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert told.startswith("node01:spare is captured no more: ")
    assert (process.returncode, by_node(heads(out), "node01")) == (0, ["node01:cbr0"] * 2)


def test_a_container_that_does_not_run_is_told(network: Network) -> None:
    """Nothing is captured elsewhere either: it is not what was asked for."""
    host = network.hosts["host2"]
    host.ok("read -r p _ </run/vxlab/machines/container02; kill -KILL $p")
    code, said = network.wrong("node01", "container02")
    ok(network.hosts, "up", "talk")
    assert (code, said.splitlines()[0]) == (
        OperationError.exit_code,
        "error: node02/container02 does not run",
    )
    assert network.left() == []


@needs_tshark
def test_a_lost_connection_names_the_node_after_what_came(network: Network, tmp_path: Path) -> None:
    """The file is whole; nothing stays on the host, though nobody could tell it to end."""
    file = tmp_path / "talk.pcapng"
    with network.start("all", "-w", str(file), "icmp") as process:
        network.ping()
        wait_for(lambda: file.stat().st_size > 20 * 100, "the packets in the file")
        network.hosts["host2"].drop()
        out, said = process.communicate(timeout=60)
    assert (process.returncode, out) == (UnreachableError.exit_code, "")
    assert "the connection to node02 was lost" in said
    assert "node02: its last packets are missing, and what it lost is not known" in said
    assert len(shark(file, "frame.number")) == 20
    wait_for(lambda: network.left() == [], "nothing is left")


def test_a_jump_over_another_host_is_left_out_there(make: MakeHosts, tmp_path: Path) -> None:
    """The connection to one node passes the other one."""
    hosts = make()
    hosts.configure("Host host2\n  ProxyJump root@host1\n")
    ok(hosts, "up", str(hosts.lab(tmp_path / "lab.yaml")))
    network = Network(hosts)
    out, _, _ = network.capture("all", "tcp", "port", "22", during=lambda: network.ping(50))
    assert heads(out) == []
    ok(hosts, "teardown", "talk")


def test_a_host_without_tcpdump_runs_the_one_that_travelled(
    make: MakeHosts, tmp_path: Path
) -> None:
    """With its libraries and loader, in the containers' networks, too."""
    hosts = make()
    ok(hosts, "up", str(hosts.lab(tmp_path / "lab.yaml", user="alice")))
    for host in hosts:
        host.ok("for f in $(which -a tcpdump); do mount --bind /dev/null $f; done")
        assert host.run("command -v tcpdump").returncode
    network = Network(hosts)
    out, _, _ = network.capture("all", "icmp", during=network.ping)
    assert Counter(map(hop_of, heads(out))) == dict.fromkeys(HOPS, 2)
    ok(hosts, "teardown", "talk")
