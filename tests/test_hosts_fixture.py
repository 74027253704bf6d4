"""The hosts that remote labs are tested on are what they claim to be, and touch nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hosts import CAROL, PASSWORD, ROOT, Host, Hosts, Options, changes, hosts, make_hosts
from kernel import KERNEL, wait_for
from lablib import told
from vxlab import labfile

pytestmark = [
    *KERNEL,
    pytest.mark.skipif(os.geteuid() != 0, reason="HOSTS DID NOT RUN: they need root"),
]

__all__ = ["hosts", "make_hosts"]  # fixtures

MakeHosts = Callable[..., Hosts]

#: Names that only a test makes, for looking whether this machine has them now.
MARK = "vxlab-hosts-fixture"


# --- logging in -----------------------------------------------------------------------------------


def test_root_logs_in_on_every_host_by_key(hosts: Hosts) -> None:
    for host in hosts:
        done = hosts.ssh(f"root@{host.name}", "id -un; hostname")
        assert (done.returncode, done.stdout) == (0, f"root\n{host.name}\n"), told(done)


def test_alice_needs_no_password_for_sudo(hosts: Hosts) -> None:
    for host in hosts:
        done = hosts.ssh(f"alice@{host.name}", "id -un; sudo -n id -un")
        assert (done.stdout, done.stderr) == ("alice\nroot\n", "")


def test_bob_needs_his_password_for_sudo(hosts: Hosts) -> None:
    without = hosts.ssh("bob@host1", "sudo -n id -un")
    assert (without.returncode, without.stderr) == (1, "sudo: a password is required\n")
    right = hosts.ssh("bob@host1", "sudo -S -p '' id -un", stdin=f"{PASSWORD}\n")
    assert (right.returncode, right.stdout) == (0, "root\n"), told(right)
    wrong = hosts.ssh("bob@host1", "sudo -k -S -p '' id -un", stdin="wrong\n")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "incorrect password" in wrong.stderr or "no password" in wrong.stderr


def test_carol_may_not_use_sudo(hosts: Hosts) -> None:
    done = hosts.ssh("carol@host1", "id -un; sudo -n id -un")
    assert (done.returncode, done.stdout) == (1, "carol\n")


@pytest.mark.parametrize(("password", "said"), [(PASSWORD, "bob\n"), ("wrong", "")])
def test_bob_logs_in_by_password(hosts: Hosts, tmp_path: Path, password: str, said: str) -> None:
    """OpenSSH asks a program where nobody sits at a terminal (ssh(1), SSH_ASKPASS_REQUIRE)."""
    asked = tmp_path / "askpass"
    asked.write_text(f"#!/bin/sh\necho {password}\n")
    asked.chmod(0o755)
    options = ["-F", str(hosts.config), "-o", "PubkeyAuthentication=no"]
    ask = {"SSH_ASKPASS": str(asked), "SSH_ASKPASS_REQUIRE": "force"}
    done = hosts.run("ssh", *options, "bob@host1", "id -un", env=ask)
    assert (done.returncode, done.stdout) == (0 if said else 255, said), told(done)


def test_a_login_may_have_a_terminal(hosts: Hosts) -> None:
    done = hosts.ssh("alice@host1", "-tt", "tty")
    assert done.stdout.strip() == "/dev/pts/0", told(done)


def test_files_go_over_sftp(hosts: Hosts, tmp_path: Path) -> None:
    (tmp_path / "sent").write_text("a binary")
    batch = f"put {tmp_path / 'sent'} /tmp/received\n"
    done = hosts.run("sftp", "-F", str(hosts.config), "-b", "-", "alice@host1", stdin=batch)
    assert done.returncode == 0, told(done)
    assert hosts["host1"].ok("stat -c %U /tmp/received; cat /tmp/received") == "alice\na binary"


def test_a_host_whose_key_is_not_known_is_refused(hosts: Hosts) -> None:
    hosts.known_hosts.write_text("")
    done = hosts.ssh("root@host1", "id")
    assert done.returncode == 255
    assert "Host key verification failed" in done.stderr


def test_lines_before_the_configuration_win(hosts: Hosts) -> None:
    hosts.configure("Host elsewhere\n  HostName 192.168.56.22\n  User carol\n")
    assert hosts.ssh("elsewhere", "id -un; hostname").stdout == "carol\nhost2\n"


# --- the network ----------------------------------------------------------------------------------


def banner(host: Host, address: str) -> str:
    """What another host's sshd says first."""
    return host.ok("bash", "-c", f"exec 3<>/dev/tcp/{address}/22; read -r line <&3; echo $line")


def test_hosts_reach_each_other_and_the_controller_does_not_serve(hosts: Hosts) -> None:
    one, two = hosts
    assert banner(one, two.address).startswith("SSH-2.0-OpenSSH")
    assert banner(two, one.address).startswith("SSH-2.0-OpenSSH")
    refused = one.run("bash", "-c", "exec 3<>/dev/tcp/192.168.56.1/22")
    assert "Connection refused" in refused.stderr


def test_options_of_a_host(make_hosts: MakeHosts) -> None:
    """Its MTU, Vagrant's NAT interface, and who may log in."""
    nat = Options(mtu=9000, nat=True, users=(ROOT, CAROL))
    one, two = lan = make_hosts(options={"host1": nat, "host2": Options(nat=True)})
    assert one.ok("cat /sys/class/net/eth1/mtu") == "9000\n"
    assert two.ok("cat /sys/class/net/eth1/mtu") == "1500\n"
    for host in lan:
        assert "10.0.2.15/24" in host.ok("ip -br addr show eth0")
        assert host.ok("ip route show default") == "default via 10.0.2.2 dev eth0 \n"
    assert lan.ssh("carol@host1", "id -un").stdout == "carol\n"
    assert lan.ssh("alice@host1", "id -un").returncode == 255


def test_a_cut_cable_breaks_nothing_but_the_way(hosts: Hosts) -> None:
    options = ["-F", str(hosts.config), "-o", "ConnectTimeout=1"]
    one = hosts["host1"]
    one.cut()
    done = hosts.run("ssh", *options, "root@host1", "id")
    assert done.returncode == 255, told(done)
    assert hosts.ssh("root@host2", "id -un").stdout == "root\n"
    one.mend()
    assert hosts.ssh("root@host1", "id -un").stdout == "root\n"


# --- private --------------------------------------------------------------------------------------


def test_nothing_of_this_machine_can_be_written(hosts: Hosts) -> None:
    """Not its files, its host name or its network: a host's root only has the host."""
    one = hosts["host1"]
    places = ["/", "/etc", "/var/log", "/var/lib", "/var/cache", "/root", "/home", "/tmp", "/run"]
    places += ["/dev", "/dev/shm", "/opt", "/srv", "/mnt", "/usr/local", "/usr/local/bin"]
    files = [f"{place}/{MARK}" for place in places]
    links = os.listdir("/sys/class/net")
    one.run(f"mkdir -p /usr/local/bin; touch {' '.join(files)}")
    one.ok(f"hostname {MARK}; ip link add mark type bridge; echo 0 >/proc/sys/net/ipv4/ip_forward")
    assert [f for f in files if not one.path(f).exists()] == []
    assert [f for f in files if Path(f).exists()] == []
    refused = one.run(f"touch /usr/bin/{MARK}")
    assert "Read-only file system" in refused.stderr
    assert os.uname().nodename != MARK
    assert os.listdir("/sys/class/net") == links


def test_nothing_of_this_machine_can_be_read(hosts: Hosts) -> None:
    """Its disks, its users' files and passwords are not there, and no program but the system's."""
    one = hosts["host1"]
    assert "no such file" in one.run("ls /dev/vda /dev/sda").stderr.lower()
    assert one.ok("ls -A /root /home /tmp /opt /srv").split() == [
        *("/home:", "alice", "bob", "carol", "/opt:", "/root:", ".ssh", "/srv:", "/tmp:")
    ]
    assert [line.split(":")[0] for line in one.ok("cat /etc/shadow").splitlines()] == [
        *("root", "alice", "bob", "carol")
    ]
    for program in ("python3", "busybox", "etcd", "flanneld"):
        assert one.run(f"{program} --help").returncode in (126, 127)


def test_processes_are_the_hosts_own(hosts: Hosts) -> None:
    one, two = hosts
    commands = [process.command for process in one.processes()]
    assert [command.split(" [")[0] for command in commands] == [
        "sleep 2147483647",
        "sshd: /usr/sbin/sshd -E /var/log/sshd.log",
    ]
    spaces = ("mnt", "uts", "ipc", "net", "pid")
    for kind in spaces:
        seen = {os.readlink(f"/proc/{pid}/ns/{kind}") for pid in (one.pid, two.pid, "self")}
        assert len(seen) == 3, kind


def test_a_container_on_a_host_may_mount_its_proc(hosts: Hosts) -> None:
    """In a user namespace the kernel allows that only if a whole /proc is seen already."""
    spaces = "--mount --uts --ipc --net --pid --user --map-root-user --fork"
    script = f"unshare {spaces} sh -c 'mount -t proc proc /proc && cat /proc/1/comm'"
    assert hosts["host1"].ok(script) == "sh\n"


def test_two_networks_at_a_time(make_hosts: MakeHosts) -> None:
    first, second = make_hosts(1), make_hosts(1)
    first["host1"].ok("touch /run/first")
    assert first.ssh("root@host1", "ls /run/first").returncode == 0
    assert second.ssh("root@host1", "ls /run/first").returncode == 2


_KILLED = """\
import os, sys, time
from pathlib import Path
from hosts import Hosts
hosts = Hosts(Path(sys.argv[1])).__enter__()
print(hosts.lan, hosts.controller.pid, *(host.pid for host in hosts), flush=True)
time.sleep(1000)
"""


def test_everything_ends_with_the_test_process(tmp_path: Path) -> None:
    """Also when it is killed, and ends nothing itself."""
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        pids = process.stdout.readline().split()
        process.send_signal(signal.SIGKILL)
    assert len(pids) == 4
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "their end")


def test_a_host_that_does_not_boot_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    broken = Hosts(tmp_path, 1)
    (tmp_path / "host1").mkdir()
    (tmp_path / "host1" / "mnt").write_text("no directory")
    with pytest.raises(FileExistsError):
        broken.__enter__()
    assert not Path(f"/proc/{broken.lan}").exists()


# --- power and disturbances -----------------------------------------------------------------------


@pytest.mark.parametrize("crash", [False, True])
def test_a_reboot(hosts: Hosts, crash: bool) -> None:
    """It has a new boot id, an empty /run and /tmp, its files and its address."""
    one = hosts["host1"]
    old = one.ok("cat /proc/sys/kernel/random/boot_id")
    kept, lost = ["/var/lib", "/var/log", "/var/cache", "/etc", "/root"], ["/run", "/tmp"]
    one.ok("touch", *(f"{directory}/mark" for directory in kept + lost))
    one.ok("setsid sleep 500 >/dev/null 2>&1 &")
    one.ok("ip link add mark type bridge")
    pid = one.pid
    one.reboot(crash=crash)
    assert not Path(f"/proc/{pid}").exists()
    assert one.ok("ls /run /tmp").split() == ["/run:", "lock", "sshd", "sshd.pid", "/tmp:"]
    assert [d for d in kept if not one.path(f"{d}/mark").exists()] == []
    assert "sleep 500" not in [process.command for process in one.processes()]
    assert "mark" not in one.ok("ls /sys/class/net")
    now = hosts.ssh("root@host1", "cat /proc/sys/kernel/random/boot_id").stdout
    assert now.strip() == one.boot_id
    assert now != old
    assert now != Path("/proc/sys/kernel/random/boot_id").read_text()
    assert banner(hosts["host2"], one.address).startswith("SSH-2.0")


def test_a_host_that_is_off_does_not_answer(hosts: Hosts) -> None:
    one = hosts["host1"]
    one.halt()
    options = ["-F", str(hosts.config), "-o", "ConnectTimeout=1"]
    assert hosts.run("ssh", *options, "root@host1", "id").returncode == 255
    one.boot()
    assert hosts.ssh("root@host1", "id -un").stdout == "root\n"


def connected(hosts: Hosts, target: str) -> subprocess.Popen[str]:
    """A connection over which a program waits."""
    command = hosts.inside("ssh", "-F", str(hosts.config), target, "echo ready; cat")
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=hosts.environment(),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_dropped_connections_break_and_new_ones_work(hosts: Hosts) -> None:
    one = hosts["host1"]
    processes = [connected(hosts, target) for target in ("root@host1", "alice@host1")]
    other = connected(hosts, "root@host2")
    one.drop()
    for process in processes:
        process.communicate(timeout=20)
        assert process.returncode == 255
    assert hosts.ssh("root@host1", "id -un").stdout == "root\n"
    assert other.communicate("still there", timeout=20) == ("still there", "")
    wait_for(lambda: one.sessions() == [], "the sessions' end")


def test_without_sshd_nobody_logs_in_and_who_is_in_stays(hosts: Hosts) -> None:
    one = hosts["host1"]
    process = connected(hosts, "root@host1")
    one.stop_sshd()
    assert "Connection refused" in hosts.ssh("root@host1", "id").stderr
    assert len(one.sessions()) == 1
    assert process.communicate("still there", timeout=20) == ("still there", "")
    wait_for(lambda: one.sessions() == [], "the session's end")
    one.start_sshd()
    assert hosts.ssh("root@host1", "id -un").stdout == "root\n"


# --- photographs ----------------------------------------------------------------------------------


def test_two_photographs_of_an_unchanged_host_are_equal(hosts: Hosts) -> None:
    """Logging in, sudo, terminals and traffic change nothing that lasts."""
    one, two = hosts
    before = one.photograph()
    for target in ("root@host1", "alice@host1"):
        hosts.ssh(target, "sudo -n id; ip neigh")
        hosts.ssh(target, "-tt", "tty")
    banner(two, one.address)
    one.ok("iptables-save; nft list ruleset; ip route")
    assert one.remains(before) == {}


def test_what_runs_in_a_session_is_not_on_a_photograph(hosts: Hosts) -> None:
    one = hosts["host1"]
    before = one.photograph()
    process = connected(hosts, "root@host1")
    assert changes(before, one.photograph()) == {}
    process.communicate(timeout=20)


CHANGES = [
    pytest.param("ip link add d0 type bridge", {"link", "addr"}, id="link"),
    pytest.param("ip link set eth1 mtu 1400", {"link", "addr"}, id="mtu"),
    pytest.param("ip addr add 10.1.1.1/24 dev eth1", {"addr", "route"}, id="address"),
    pytest.param("ip route add 10.2.0.0/16 via 192.168.56.22", {"route"}, id="route"),
    pytest.param("ip route add blackhole 10.2.0.0/16 table 7", {"route"}, id="table"),
    pytest.param("ip -6 route add 2001:db8::/64 dev eth1", {"route6"}, id="route6"),
    pytest.param("ip rule add from 10.2.0.0/16 table 7", {"rule"}, id="rule"),
    pytest.param("ip -6 rule add from 2001:db8::/64 table 7", {"rule6"}, id="rule6"),
    pytest.param(
        "ip neigh add 192.168.56.99 lladdr 02:00:00:00:00:99 dev eth1 nud permanent",
        {"neigh"},
        id="neighbour",
    ),
    pytest.param("ip neigh add proxy 192.168.56.98 dev eth1", {"proxy"}, id="proxy"),
    pytest.param(
        "ip link add v0 type vxlan id 9 dstport 9 local 192.168.56.21;"
        "bridge fdb append 02:00:00:00:00:99 dev v0 dst 192.168.56.22",
        {"link", "addr", "fdb"},
        id="fdb",
    ),
    pytest.param("iptables -A INPUT -p udp --dport 1 -j DROP", {"iptables", "nft"}, id="iptables"),
    pytest.param("iptables -P FORWARD DROP", {"iptables", "nft"}, id="policy"),
    pytest.param("ip6tables -A INPUT -j DROP", {"ip6tables", "nft"}, id="ip6tables"),
    pytest.param("nft add table ip other", {"nft"}, id="nft"),
    pytest.param(
        "echo 0 >/proc/sys/net/ipv4/conf/eth1/send_redirects",
        {"sysctl net/ipv4/conf/eth1/send_redirects"},
        id="sysctl",
    ),
    pytest.param("echo new >/var/lib/mark", {"file /var/lib/mark"}, id="file"),
    pytest.param("mkdir -p /run/a/b", {"file /run/a", "file /run/a/b"}, id="directory"),
    pytest.param("ln -s /nowhere /tmp/link", {"file /tmp/link"}, id="symlink"),
    pytest.param("echo 127.0.0.1 x >>/etc/hosts", {"file /etc/hosts"}, id="contents"),
    pytest.param("chmod 600 /etc/hosts", {"file /etc/hosts"}, id="mode"),
    pytest.param("chown alice /etc/hosts", {"file /etc/hosts"}, id="owner"),
    pytest.param("rm /root/.ssh/authorized_keys", {"file /root/.ssh/authorized_keys"}, id="gone"),
    pytest.param("mount -n -t tmpfs tmpfs /srv", {"mounts"}, id="mount"),
    pytest.param("setsid sleep 500 >/dev/null 2>&1 </dev/null &", {"processes"}, id="process"),
]


@pytest.mark.parametrize(("change", "seen"), CHANGES)
def test_a_change_is_on_the_photograph(make_hosts: MakeHosts, change: str, seen: set[str]) -> None:
    (one,) = make_hosts(1)
    before = one.photograph()
    assert one.run(change).stderr == ""
    found = one.remains(before, seconds=0)
    # A new interface has dozens of sysctls of its own, and multicast and link-local entries.
    assert seen <= found.keys()
    if not {"link", "addr"} & seen:
        assert found.keys() == seen


def test_what_may_remain_is_left_out(make_hosts: MakeHosts) -> None:
    (one,) = make_hosts(1)
    before = one.photograph()
    one.ok("mkdir /var/cache/vxlab; echo 1 >/var/cache/vxlab/etcd; echo 1 >/var/cache/other")
    remains = one.remains(before, seconds=0, apart_from=("file /var/cache/vxlab",))
    assert remains.keys() == {"file /var/cache/other"}


def test_a_daemon_that_a_session_left_is_on_the_photograph(hosts: Hosts) -> None:
    one = hosts["host1"]
    before = one.photograph()
    done = hosts.ssh("root@host1", "setsid sleep 500 >/dev/null 2>&1 </dev/null &")
    assert done.returncode == 0, told(done)
    before_and_after = one.remains(before, seconds=0.1)["processes"]
    assert "sleep 500" in str(before_and_after[1])


# --- vxlab ----------------------------------------------------------------------------------------


def test_vxlab_runs_on_the_controller(hosts: Hosts) -> None:
    """In its network, with a home and an OpenSSH configuration of its own."""
    done = hosts.vxlab("--version")
    assert (done.returncode, done.stdout[:6]) == (0, "vxlab,"), told(done)
    process = hosts.start("--version")
    assert process.communicate(timeout=60) == (done.stdout, "")
    seen = hosts.run("sh", "-c", 'echo "$VXLAB_HOME $VXLAB_SSH_CONFIG"; readlink /proc/self/ns/net')
    assert seen.stdout.splitlines() == [
        f"{hosts.home} {hosts.config}",
        os.readlink(f"/proc/{hosts.controller.pid}/ns/net"),
    ]


def test_the_lab_file_tells_of_the_hosts(hosts: Hosts, tmp_path: Path) -> None:
    lab = labfile.load(hosts.lab(tmp_path / "lab.yaml", user="alice", insecure=True))
    assert [(node.name, node.ssh, str(node.address.ip)) for node in lab.nodes] == [
        ("node01", "alice@host1", "192.168.56.21"),
        ("node02", "alice@host2", "192.168.56.22"),
    ]
    assert (lab.name, lab.etcd.insecure) == ("talk", True)
    plain = labfile.load(hosts.lab(tmp_path / "plain.yaml", name="x", nodes=1, interface=True))
    assert (plain.name, plain.etcd.insecure) == ("x", False)
    assert [(node.ssh, node.interface) for node in plain.nodes] == [("root@host1", "eth1")]
