"""What goes wrong on the way to real hosts, and on them: a clear error, and nothing is lost."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

import remote
from kernel import wait_for
from remote import Host, Hosts, differences, ok, photograph, write

pytestmark = [pytest.mark.kernel, pytest.mark.lab]

seed, make, pair = remote.seed, remote.make, remote.pair

#: Stands before a program and, at its Nth call, ends the SSH session that it runs in.
_TRAP = """\
#!/bin/sh
read -r n </run/calls || n=0
n=$((n + 1)); echo $n >/run/calls
p=$$
[ $n != {nth} ] || while [ "$p" -gt 1 ]; do
  read -r c </proc/$p/comm
  case $c in sshd*) kill -9 $p; exit 1;; esac
  p=$(cut -d')' -f2 /proc/$p/stat | cut -d' ' -f3); done
exec {program} "$@"
"""


def trap(host: Host, program: str, nth: int) -> None:
    """Have the connection break at the Nth call of a program on the host."""
    path = host.ok(f"command -v {program}").strip()
    text = _TRAP.format(nth=nth, program=path)
    write(host, f"/usr/local/sbin/{program}", text, "755")


def untrap(host: Host, program: str) -> None:
    host.ok(f"rm -f /usr/local/sbin/{program} /run/calls")


@pytest.mark.parametrize(
    ("program", "nth"),
    [
        *(("mkdir", n) for n in (1, 2, 4)),
        *(("ip", n) for n in (3, 5, 7, 9, 11, 13, 15, 17, 19, 21)),
        *(("unshare", n) for n in (2, 3)),
        *(("mv", n) for n in (1, 5)),
        *(("sync", n) for n in (1, 3, 6)),
    ],
)
def test_the_connection_drops(pair: Hosts, tmp_path: Path, program: str, nth: int) -> None:
    """In the middle of any step: exit 68, teardown takes back all there was, `up` goes on."""
    before = photograph(pair)
    lab = str(pair.lab(tmp_path / "lab.yaml"))
    trap(pair["host1"], program, nth)
    done = pair.vxlab("up", lab)
    dropped = pair["host1"].run("cat /run/calls").stdout.strip()
    untrap(pair["host1"], program)
    assert int(dropped) >= nth, "the trap was not reached"
    assert done.returncode == 68, done.stdout + done.stderr
    assert "the connection to node01 was lost" in done.stderr
    if nth % 2:
        ok(pair, "up", lab)
        assert "as wanted" in ok(pair, "status")
    ok(pair, "teardown", lab)
    assert differences(before, pair) == []


def test_vxlab_is_killed(pair: Hosts, tmp_path: Path) -> None:
    """kill -9 on the controller: the hosts' lock ends with the connection; teardown finds all."""
    before = photograph(pair)
    lab = str(pair.lab(tmp_path / "lab.yaml"))
    running = pair.start("up", lab)
    wait_for(lambda: pair["host1"].run("test -e /run/flannel").returncode == 0, "the first step")
    running.send_signal(signal.SIGKILL)
    running.wait()
    ok(pair, "teardown", lab)
    assert differences(before, pair) == []


def test_a_host_is_unreachable_at_teardown(pair: Hosts, tmp_path: Path) -> None:
    """The other one is cleaned, what remains is told with exit 68, and a later teardown ends it."""
    before = photograph(pair)
    lab = str(pair.lab(tmp_path / "lab.yaml"))
    ok(pair, "up", lab)
    pair["host2"].stop_sshd()
    done = pair.vxlab("teardown")
    assert done.returncode == 68
    assert "talk is gone from node01" in done.stderr
    assert "node02" in done.stderr
    assert "vxlab teardown" in done.stderr
    assert pair["host1"].remains(before["host1"]) == {}
    pair["host2"].start_sshd()
    assert ok(pair, "teardown") == "talk is gone\n"
    assert differences(before, pair) == []


def rebooted(before: remote.Photograph, network: Hosts, name: str) -> list[str]:
    """What differs although it should not; a host that rebooted has new interfaces of old names."""
    host = network[name]
    new = ("link", "addr")
    left = [f"{name}: {each}" for each in host.remains(before[name], apart_from=new)]
    others = {n: seen for n, seen in before.items() if n != name}
    left += [f"{n}: {each}" for n in others for each in network[n].remains(others[n])]
    return left + [each for each in host.ok("ls /sys/class/net").split() if each not in _OWN]


_OWN = ("lo", "eth1")


def test_a_host_reboots_before_teardown(pair: Hosts, tmp_path: Path) -> None:
    """What the reboot ended is left alone, what survived it is removed."""
    before = photograph(pair)
    lab = str(pair.lab(tmp_path / "lab.yaml"))
    ok(pair, "up", lab)
    pair["host1"].reboot(crash=True)
    pair["host1"].ok("sysctl -qw net.ipv4.ip_forward=1")  # the new boot's own: not ours to reset
    assert pair.vxlab("status").returncode == 1
    ok(pair, "teardown", lab)
    pair["host1"].ok("sysctl -qw net.ipv4.ip_forward=0")
    assert rebooted(before, pair, "host1") == []


@pytest.mark.parametrize("name", ["host1", "host2"])
def test_a_host_reboots_and_up_repairs(pair: Hosts, tmp_path: Path, name: str) -> None:
    """Whether etcd's host or another: the next `up` builds what the reboot took."""
    before = photograph(pair)
    lab = str(pair.lab(tmp_path / "lab.yaml"))
    ok(pair, "up", lab)
    pair[name].reboot(crash=True)
    ok(pair, "up", lab)
    assert "12 of 12 checks good" in ok(pair, "verify", "talk")
    ok(pair, "teardown", lab)
    assert rebooted(before, pair, name) == []


def test_a_host_reboots_during_up(pair: Hosts, tmp_path: Path) -> None:
    """`up` ends with exit 68; the next one goes on."""
    before = photograph(pair)
    lab = str(pair.lab(tmp_path / "lab.yaml"))
    running = pair.start("up", lab)
    wait_for(lambda: pair["host2"].run("test -e /run/flannel").returncode == 0, "the first step")
    pair["host2"].halt(crash=True)
    pair["host2"].boot()
    _, said = running.communicate(timeout=100)
    assert running.returncode == 68, said
    ok(pair, "up", lab)
    ok(pair, "teardown", lab)
    assert rebooted(before, pair, "host2") == []


@pytest.mark.parametrize(
    ("user", "words"), [("carol", "carol"), ("bob", "bob")], ids=["no-sudo", "password-unknown"]
)
def test_sudo_is_refused(pair: Hosts, tmp_path: Path, user: str, words: str) -> None:
    """Exit 77 with the user's name; nobody can be asked for a password without a terminal."""
    before = photograph(pair)
    done = pair.vxlab("up", str(pair.lab(tmp_path / "lab.yaml", user=user)))
    assert done.returncode == 77
    assert words in done.stderr
    assert "sudo" in done.stderr
    assert differences(before, pair) == []


def test_the_disk_is_full(pair: Hosts, tmp_path: Path) -> None:
    """No room for the journal: the change that it would have undone is not begun."""
    lab = str(pair.lab(tmp_path / "lab.yaml"))
    host = pair["host2"]
    host.ok("mount -t tmpfs -o size=64k tmpfs /var/lib && mkdir -m 700 /var/lib/vxlab")
    host.run("cat /dev/zero >/var/lib/filler 2>/dev/null")
    before = photograph(pair)
    done = pair.vxlab("up", lab)
    assert done.returncode in (69, 70)
    assert "node02" in done.stderr
    assert "Traceback" not in done.stderr
    pair.vxlab("teardown", lab)
    host.ok("mkdir -p -m 700 /var/lib/vxlab")  # an empty one is removed
    assert differences(before, pair) == []


def test_no_room_for_the_programs(tmp_path: Path) -> None:
    """The transfer stops with the host's words; nothing else was changed."""
    with Hosts(tmp_path, 2) as network:
        network["host1"].ok("mount -t tmpfs -o size=4m tmpfs /var/cache")
        before = photograph(network)
        lab = str(network.lab(tmp_path / "lab.yaml"))
        done = network.vxlab("up", lab)
        assert done.returncode in (69, 70)
        assert "node01" in done.stderr
        ok(network, "teardown", lab, "--purge")
        assert differences(before, network) == []


def test_the_clock_is_off(pair: Hosts, tmp_path: Path) -> None:
    """A host that lives in another year is told, and can carry the lab all the same."""
    write(
        pair["host2"],
        "/usr/local/bin/date",
        '#!/bin/sh\nexec /usr/bin/date -d "-3 years" "$@"\n',
        "755",
    )
    lab = str(pair.lab(tmp_path / "lab.yaml"))
    done = pair.vxlab("up", lab)
    assert done.returncode == 0, done.stderr
    assert "clock" in done.stderr
    assert "node02" in done.stderr
    ok(pair, "teardown", lab)


def test_two_controllers_at_once(pair: Hosts, tmp_path: Path) -> None:
    """The second one is told who works on the host, and changes nothing."""
    lab = str(pair.lab(tmp_path / "lab.yaml"))
    write(pair["host1"], "/usr/local/sbin/sync", "#!/bin/sh\nread -r x </run/gate\n", "755")
    pair["host1"].ok("mkfifo /run/gate")
    first = pair.start("up", lab)
    wait_for(lambda: pair["host1"].path("/var/lib/vxlab/owner").exists(), "the first one's lock")
    second = pair.vxlab("teardown", lab, env={"VXLAB_HOME": str(tmp_path / "elsewhere")})
    assert second.returncode == 75
    assert "vxlab up" in second.stderr
    pair["host1"].ok("rm /usr/local/sbin/sync; echo go >/run/gate; rm /run/gate")
    out, err = first.communicate(timeout=60)
    assert first.returncode == 0, out + err
    ok(pair, "teardown", lab)


def test_nothing_is_killed_by_its_number_alone(pair: Hosts, tmp_path: Path) -> None:
    """A stranger that has flanneld's PID by now lives on: its start time is another."""
    lab = str(pair.lab(tmp_path / "lab.yaml"))
    ok(pair, "up", lab)
    host = pair["host2"]
    host.ok("read -r p t </run/vxlab/daemons/flannel; kill -9 $p")
    stranger = subprocess.Popen([*_into(host), "sleep", "600"])
    try:
        number = host.ok("pidof -s sleep || busybox pidof -s sleep").split()[0]
        host.ok(
            f"f=/run/vxlab/daemons/flannel; sed -i '1s/^[0-9]*/{number}/' $f; grep -q ^{number} $f"
        )
        ok(pair, "teardown", lab)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def _into(host: Host) -> list[str]:
    return ["nsenter", f"--target={host.pid}", "--mount", "--net", "--pid", "--"]


@pytest.mark.parametrize("damage", ["rm {tls}/client.pem", "cp /etc/hostname {tls}/ca.pem"])
def test_lost_certificates_are_made_anew_for_all(pair: Hosts, tmp_path: Path, damage: str) -> None:
    """A host that lost its own, or has another authority's: everybody gets new ones."""
    lab = str(pair.lab(tmp_path / "lab.yaml"))
    ok(pair, "up", lab)
    pair["host2"].ok(damage.format(tls="/var/lib/vxlab/talk/tls"))
    assert "repaired with" in ok(pair, "up", lab)
    assert "12 of 12 checks good" in ok(pair, "verify", "talk")
    assert "nothing changed" in ok(pair, "up", lab)
    ok(pair, "teardown", lab)
