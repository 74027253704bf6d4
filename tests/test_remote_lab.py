"""A lab's whole life on real hosts: OpenSSH, sudo, the real etcd and flanneld."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

import remote
from remote import Hosts, MakeHosts, Options, differences, ok, photograph, write

pytestmark = [pytest.mark.kernel, pytest.mark.lab]

seed, make, pair = remote.seed, remote.make, remote.pair


def ping(network: Hosts) -> int:
    """Whether the first node's container reaches the second node's."""
    rows = json.loads(ok(network, "status", "talk", "--json"))["nodes"]
    target = rows[1]["containers"][0]["address"].partition("/")[0]
    words = ("exec", "container01", "--", "ping", "-c", "1", "-W", "2", target)
    return network.vxlab(*words).returncode


@pytest.mark.parametrize("user", ["root", "alice"])
def test_whole_life(pair: Hosts, tmp_path: Path, user: str) -> None:
    """Up, ping, up again, verify, status, teardown: and the hosts are as they were."""
    before = photograph(pair)
    lab = str(pair.lab(tmp_path / "lab.yaml", user=user))
    assert "talk is up: 2 nodes, 2 containers" in ok(pair, "up", lab)
    assert ping(pair) == 0
    assert "nothing changed" in ok(pair, "up", lab)
    assert "nothing changed" in ok(pair, "up", "talk")
    assert "12 of 12 checks good" in ok(pair, "verify", "talk")
    assert "as wanted: nothing drifted" in ok(pair, "status")
    assert "on hosts" in ok(pair, "ls")
    assert ok(pair, "teardown", lab) == "talk is gone\n"
    assert differences(before, pair) == []
    assert ok(pair, "teardown", lab) == "talk is not there; nothing to do\n"


def test_the_programs_travel_once_and_purge_takes_them_away(
    tmp_path: Path, make_bare: Hosts
) -> None:
    """Sent by the first `up`, kept by teardown, removed by ``--purge``: /var/cache is as before."""
    before = photograph(make_bare)
    lab = str(make_bare.lab(tmp_path / "lab.yaml", user="alice"))
    ok(make_bare, "up", lab)
    kept = make_bare["host1"].ok("find /var/cache/vxlab -name flanneld -printf '%i %u %m'")
    assert kept.split()[1:] == ["root", "755"]
    ok(make_bare, "teardown", lab)
    ok(make_bare, "up", lab)
    again = make_bare["host1"].ok("find /var/cache/vxlab -name flanneld -printf '%i %u %m'")
    assert again == kept
    ok(make_bare, "teardown", lab, "--purge")
    assert differences(before, make_bare) == []


@pytest.fixture
def make_bare(tmp_path: Path) -> object:
    """host1 and host2 as nobody has touched them."""
    directory = tmp_path / "bare"
    directory.mkdir()
    with Hosts(directory, 2) as network:
        yield network


def test_damage_is_repaired(pair: Hosts, tmp_path: Path) -> None:
    """What drifts on a host is told by `status`, mended by `up`, and teardown is still exact."""
    before = photograph(pair)
    lab = str(pair.lab(tmp_path / "lab.yaml"))
    ok(pair, "up", lab)
    pair["host1"].ok("ip link del flannel.1; sysctl -qw net.ipv4.ip_forward=0; ip link del cbr0")
    pair["host2"].ok("kill -9 $(cut -d' ' -f1 /run/vxlab/machines/container02 | head -1)")
    status = pair.vxlab("status")
    assert status.returncode == 1
    for reason in ("cbr0 does not exist", "net.ipv4.ip_forward is 0", "container02's PID 1"):
        assert reason in status.stdout
    assert "repaired with" in ok(pair, "up", lab)
    assert "as wanted" in ok(pair, "status")
    assert ping(pair) == 0
    ok(pair, "teardown", lab)
    assert differences(before, pair) == []


@pytest.mark.parametrize("host_gw", [False, True], ids=["vxlan", "host-gw"])
def test_what_a_host_had_it_has_again(pair: Hosts, tmp_path: Path, host_gw: bool) -> None:
    """Forwarding that was on stays on, a hardened host stays hardened, rules of others stay."""
    pair["host1"].ok("sysctl -qw net.ipv4.ip_forward=1")
    pair["host2"].ok(
        "sysctl -qw net.ipv4.conf.all.accept_redirects=0 net.ipv4.conf.eth1.forwarding=1 &&"
        " ip link add eth1.7 type veth peer name other.7 &&"
        " sysctl -qw net/ipv4/conf/eth1.7/forwarding=1 &&"
        " iptables -P FORWARD DROP && iptables -A FORWARD -s 192.0.2.1 -j ACCEPT"
    )
    before = photograph(pair)
    more = "overlay: {backend: {Type: host-gw}}" if host_gw else ""
    lab = str(pair.lab(tmp_path / "lab.yaml", more=more))
    ok(pair, "up", lab)
    assert ping(pair) == 0
    ok(pair, "teardown", lab)
    assert differences(before, pair) == []


def test_another_controller_takes_it_away(pair: Hosts, tmp_path: Path) -> None:
    """With the lab file alone, by the hosts' own journal."""
    before = photograph(pair)
    lab = str(pair.lab(tmp_path / "lab.yaml"))
    ok(pair, "up", lab)
    elsewhere = {"VXLAB_HOME": str(tmp_path / "elsewhere")}
    done = pair.vxlab("teardown", lab, env=elsewhere)
    assert (done.stdout, done.returncode) == ("talk is gone\n", 0)
    assert differences(before, pair) == []
    assert ok(pair, "teardown", "talk") == "talk is not there; nothing to do\n"


def test_another_controller_goes_on(pair: Hosts, tmp_path: Path) -> None:
    """A lab that is up is taken on by its file: nothing is built twice."""
    lab = str(pair.lab(tmp_path / "lab.yaml"))
    ok(pair, "up", lab)
    done = pair.vxlab("up", lab, env={"VXLAB_HOME": str(tmp_path / "elsewhere")})
    assert "nothing changed" in done.stdout


FOREIGN = {
    "cbr0": ("ip link add cbr0 type bridge", "cbr0"),
    "flannel.1": ("ip link add flannel.1 type vxlan id 1 dev eth1 dstport 8472", "flannel.1"),
    "port 2379": ("nc -l -p 2379 </dev/null >/dev/null 2>&1 &", "2379"),
    "a route": ("ip route add 10.5.9.0/24 dev eth1", "10.5.9.0/24"),
    "a log": ("echo mine >/var/log/etcd.log", "/var/log/etcd.log"),
    "another lab": (
        "mkdir -p /var/lib/vxlab/other && echo '{}' >/var/lib/vxlab/other/journal",
        "other",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_there_is_refused(pair: Hosts, tmp_path: Path, name: str) -> None:
    """Neither adopted nor removed: exit 69, what it is and where, and nothing was changed."""
    command, word = FOREIGN[name]
    pair["host1"].ok(command.replace("nc ", "/var/cache/vxlab/*/busybox nc "))
    before = photograph(pair)
    lab = str(pair.lab(tmp_path / "lab.yaml"))
    done = pair.vxlab("up", lab)
    assert done.returncode == 69
    assert "nothing was changed" in done.stderr
    assert word in done.stderr
    assert "node01" in done.stderr
    assert differences(before, pair) == []
    pair.vxlab("teardown", lab)
    assert differences(before, pair) == []


def test_all_problems_of_all_hosts_at_once(pair: Hosts, tmp_path: Path) -> None:
    """Who has to mend something mends it in one go."""
    pair["host1"].ok("ip link add cbr0 type bridge")
    pair["host2"].ok("ip link add flannel.1 type vxlan id 1 dev eth1 dstport 8472")
    done = pair.vxlab("up", str(pair.lab(tmp_path / "lab.yaml")))
    told = [line for line in done.stderr.splitlines() if "node0" in line]
    assert any("node01" in line and "cbr0" in line for line in told)
    assert any("node02" in line and "flannel.1" in line for line in told)


def test_by_interface_and_in_plain_http(pair: Hosts, tmp_path: Path) -> None:
    """The address is the interface's; `insecure` is the talk's etcd."""
    before = photograph(pair)
    lab = str(pair.lab(tmp_path / "lab.yaml", interface=True, insecure=True))
    ok(pair, "up", lab)
    assert "http://192.168.56.21:2379" in ok(pair, "status")
    assert ping(pair) == 0
    ok(pair, "teardown", lab)
    assert differences(before, pair) == []


def test_etcd_talks_to_nobody_without_a_certificate(pair: Hosts, tmp_path: Path) -> None:
    """Mutual TLS: another host without the lab's certificate gets no answer, the lab's own does."""
    lab = str(pair.lab(tmp_path / "lab.yaml"))
    ok(pair, "up", lab)
    ask = "/var/cache/vxlab/*/etcdctl --endpoints=https://192.168.56.21:2379 --command-timeout=2s"
    look = f"{ask} --insecure-skip-tls-verify get --prefix /coreos.com/network"
    assert pair["host2"].run(look).returncode != 0
    tls = "/var/lib/vxlab/talk/tls"
    allowed = f"{ask} --cacert {tls}/ca.pem --cert {tls}/client.pem --key {tls}/client-key.pem"
    seen = pair["host2"].ok(f"{allowed} get --prefix /coreos.com/network")
    assert "10.5.0.0/16" in seen
    modes = pair["host1"].ok("stat -c '%a %U' /var/lib/vxlab/talk/tls/*")
    assert set(modes.splitlines()) == {"600 root"}
    assert pair["host1"].run(f"grep -rl 'PRIVATE KEY' {pair.home}").stdout == ""


def test_jumbo_hosts(make: MakeHosts, tmp_path: Path) -> None:
    """The overlay's MTU comes from the hosts' own interfaces."""
    network = make(2, {name: Options(mtu=9000) for name in ("host1", "host2")})
    lab = str(network.lab(tmp_path / "lab.yaml"))
    ok(network, "up", lab)
    assert "MTU 8950" in ok(network, "status")
    ok(network, "teardown", lab)


def test_exec_and_logs(pair: Hosts, tmp_path: Path) -> None:
    """As on a local lab: exit codes, both streams, standard input, etcdctl, the logs."""
    lab = str(pair.lab(tmp_path / "lab.yaml", user="alice"))
    ok(pair, "up", lab)
    done = pair.vxlab("exec", "node01", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)
    copied = pair.vxlab("exec", "container02", "--", "cat", stdin="through\n")
    assert (copied.stdout, copied.returncode) == ("through\n", 0)
    assert "container02" in ok(pair, "exec", "container02", "--", "hostname")
    assert "node01" in ok(pair, "exec", "node01", "--", "etcdctl", "member", "list")
    assert "Wrote subnet file" in ok(pair, "logs", "flannel", "--node", "node02")
    write(pair["host1"], "/run/flannel/note", "x")  # in a place of the lab: goes with it
    ok(pair, "teardown", lab)


def test_logs_are_followed(pair: Hosts, tmp_path: Path) -> None:
    """What is written on a host appears with its node; Ctrl-C ends it, and the host's tail, too."""
    lab = str(pair.lab(tmp_path / "lab.yaml"))
    ok(pair, "up", lab)
    following = pair.start("logs", "flannel", "-f", "-n", "1")
    assert following.stdout is not None
    assert following.stdout.readline().startswith("node01 │ ")
    assert following.stdout.readline().startswith("node02 │ ")
    pair["host2"].ok("echo 'a new line' >>/var/log/flannel.log")
    assert following.stdout.readline() == "node02 │ a new line\n"
    following.send_signal(signal.SIGINT)
    following.communicate(timeout=30)
    assert following.returncode == 130
    ok(pair, "teardown", lab)
    tails = [p.command for host in pair for p in host.processes() if "tail" in p.command]
    assert tails == []
