"""Real hosts for the tests of remote labs: OpenSSH servers in namespaces, and where vxlab runs.

A `Hosts` is one network: a bridge in a namespace of its own, a controller (a network namespace
only: there vxlab, ssh and paramiko run), and hosts with a file system, processes and a network of
their own. Of this machine a host sees `/usr` alone, read-only, without Python and `/usr/local`.
All of it lives in one PID namespace, whose PID 1 ends with the test's process, whatever becomes of
that. Only root can make this: without a user namespace, so that sshd and sudo are the real ones.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from kernel import wait_for
from vxlab.nodes.local import ENVIRONMENT

Completed = subprocess.CompletedProcess[str]

#: What a host's root directory is made of; all but `usr` is private, these survive a reboot.
_KEPT = ("etc", "home", "root", "var")

#: Of this machine's /etc: what programs need, and nothing that is secret.
_ETC = (
    *("alternatives", "bash.bashrc", "ethertypes", "gai.conf", "iproute2", "ld.so.cache"),
    *("ld.so.conf", "ld.so.conf.d", "localtime", "login.defs", "os-release", "profile"),
    *("protocols", "security", "services", "shells"),
)

_SSHD = """\
Port 22
AddressFamily inet
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PubkeyAuthentication yes
PasswordAuthentication yes
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
MaxStartups 100
MaxSessions 100
PidFile /run/sshd.pid
LogLevel VERBOSE
Subsystem sftp internal-sftp
"""

_SUDOERS = """\
Defaults env_reset, mail_badpass, use_pty, !fqdn
Defaults secure_path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
root ALL=(ALL:ALL) ALL
"""

_PAM = """\
auth required pam_unix.so nodelay
account required pam_unix.so
session required pam_permit.so
"""

# The shell prints its PID as this machine counts, since /proc is still this machine's. What is
# mounted over a file below /proc makes that /proc unfit as a model for one in a user namespace
# (mount_too_revealing() in fs/namespace.c), as a container's is; the second one at /media is fit.
# The shell becomes a PID 1 that reaps by ignoring SIGCHLD, once it was told that the NICs are up.
_BOOT = """\
set -e
exec 2>&1
read -r pid _ </proc/self/stat
echo "$pid"
files=$1
hostname "$2"
mount -n -t tmpfs -o mode=755 root "$files/mnt"
cd "$files/mnt"
mkdir usr proc sys dev run tmp boot media mnt opt srv old $3
for each in /bin /sbin /lib*; do
  if [ -L "$each" ]; then cp -P "$each" .; else
    mkdir ".$each"; mount -n --bind "$each" ".$each"; mount -n -o remount,bind,ro ".$each"; fi; done
mount -n --bind /usr usr
mount -n -o remount,bind,ro usr
mount -n -t tmpfs -o mode=755 local usr/local
for each in usr/bin/python3.*[0-9] usr/bin/busybox; do
  [ ! -f "$each" ] || mount -n --bind /dev/null "$each"; done
for each in $3; do mount -n --bind "$files/$each" "$each"; done
mount -n -t proc proc proc
mount -n -t proc proc media
mount -n -t sysfs sysfs sys
mount -n -t tmpfs -o mode=755 run run
mount -n -t tmpfs -o mode=1777 tmp tmp
mount -n -t tmpfs -o mode=755 dev dev
mkdir dev/pts dev/shm dev/net run/lock run/sshd
chmod 1777 dev/shm run/lock
for each in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 net/tun:10:200; do
  name=${each%%:*} numbers=${each#*:}
  mknod -m 666 "dev/$name" c "${numbers%:*}" "${numbers#*:}"; done
mount -n -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
mount -n --bind "$files/boot_id" proc/sys/kernel/random/boot_id
for each in all default; do
  echo 0 >"/proc/sys/net/ipv6/conf/$each/accept_dad"
  echo 0 >"/proc/sys/net/ipv6/conf/$each/router_solicitations"; done
pivot_root . old
umount -n -l old
rmdir old
echo mounted
read -r network
ip -batch - <<end
link set lo up
$(echo "$network" | tr ';' '\\n')
end
/usr/sbin/sshd -E /var/log/sshd.log
echo booted
exec env --ignore-signal=CHLD sleep 2147483647 </dev/null >/dev/null 2>&1
"""


@dataclass(frozen=True)
class User:
    """Somebody who may log in with the controller's key.

    Args:
        shadow: the password's hash; ``*``: there is none that fits.
        sudo: what sudoers grants.
    """

    name: str
    uid: int
    shadow: str = "*"
    sudo: str = ""


#: bob's, for logins and for sudo.
PASSWORD = "bobs-password"  # noqa: S105 - of a user who exists for the length of a test
_HASH = (
    "$6$vxlabtests$NGptgHIoQKF7VTByk7PNxW07rbT.cfsBTRRQTzgsQcJGKwjZADvIQ4EE2Gttf5em/"
    "XdFlMlFodofnV5iP6q2e."
)

ROOT = User("root", 0)
ALICE = User("alice", 1001, sudo="ALL=(ALL:ALL) NOPASSWD: ALL")
BOB = User("bob", 1002, _HASH, sudo="ALL=(ALL:ALL) ALL")
CAROL = User("carol", 1003)
USERS = (ROOT, ALICE, BOB, CAROL)


@dataclass(frozen=True)
class Options:
    """What hosts differ in.

    Args:
        mtu: of eth1, in bytes.
        nat: whether there is an eth0 with the address that all of Vagrant's boxes have there, and
            with the default route; nothing answers behind it.
        users: who may log in.
    """

    mtu: int = 1500
    nat: bool = False
    users: tuple[User, ...] = USERS


# --- keys -----------------------------------------------------------------------------------------


@functools.cache
def key(name: str) -> tuple[bytes, bytes]:
    """A private and a public key, made once per test run and name."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "key"
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)]
        subprocess.run(command, check=True, capture_output=True)
        return path.read_bytes(), path.with_suffix(".pub").read_bytes()


def _write(path: Path, content: bytes | str, mode: int = 0o644, uid: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    os.chown(path, uid, uid)


# --- one host -------------------------------------------------------------------------------------


def _entering(pid: int, *kinds: str) -> list[str]:
    return ["nsenter", f"--target={pid}", *(f"--{kind}" for kind in kinds)]


class _Holder:
    """A process that says its PID first, and then holds namespaces."""

    def __init__(self, command: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=ENVIRONMENT,
            text=True,
        )
        self.pid = int(self.expect("[0-9]+"))

    def expect(self, pattern: str) -> str:
        """Wait for a line; if it says anything else it has failed and soon ends."""
        assert self.process.stdout is not None
        said = self.process.stdout.readline().strip()
        if not re.fullmatch(pattern, said):
            pytest.fail(f"{said}\n{self.process.stdout.read()}")
        return said

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self) -> None:
        """Kill it and what lives in its PID namespace; all of that is gone afterwards."""
        if self.process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def wait(self) -> None:
        with self.process:  # closes the pipes and waits
            pass


@dataclass
class Host:
    """A machine behind SSH.

    Args:
        name: its host name, and its alias in the controller's OpenSSH configuration.
        number: the last byte of its address.
        files: where its files are on this machine; `etc`, `home`, `root` and `var` in there are
            its own, which tests may read and change.
    """

    name: str
    number: int
    files: Path
    lan: int
    options: Options
    holder: _Holder | None = None

    @property
    def address(self) -> str:
        return f"192.168.56.{self.number}"

    @property
    def pid(self) -> int:
        """Its PID 1 as this machine counts."""
        assert self.holder is not None, f"{self.name} is off"
        return self.holder.pid

    @property
    def boot_id(self) -> str:
        return (self.files / "boot_id").read_text().strip()

    # --- power ----------------------------------------------------------------------------------

    def install(self) -> None:
        """Its files, as they are before it ran for the first time."""
        for each in (*_KEPT, "mnt"):
            (self.files / each).mkdir(parents=True)
        var = self.files / "var"
        for each in ("cache", "lib", "local", "log", "mail", "opt", "spool", "tmp"):
            (var / each).mkdir()
        (var / "tmp").chmod(0o1777)
        (var / "run").symlink_to("/run")
        (var / "lock").symlink_to("/run/lock")
        for each in _ETC:
            source = Path("/etc", each)
            target = self.files / "etc" / each
            if source.is_dir() and not source.is_symlink():
                shutil.copytree(source, target, symlinks=True)
            elif source.exists():
                shutil.copy2(source, target, follow_symlinks=False)
        self._write_etc()
        for user in self.options.users:
            self._add(user)

    def _write_etc(self) -> None:
        etc, users = self.files / "etc", self.options.users
        (etc / "mtab").symlink_to("/proc/mounts")
        _write(etc / "hostname", f"{self.name}\n")
        _write(etc / "hosts", f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n")
        _write(etc / "nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files\n")
        homes = [(u, "/root" if u.uid == 0 else f"/home/{u.name}") for u in users]
        lines = [f"{u.name}:x:{u.uid}:{u.uid}::{home}:/bin/bash\n" for u, home in homes]
        others = "sshd:x:103:65534::/run/sshd:/usr/sbin/nologin\n"
        others += "nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n"
        _write(etc / "passwd", "".join(lines) + others)
        groups = [f"{u.name}:x:{u.uid}:\n" for u in users]
        _write(etc / "group", "".join(groups) + "tty:x:5:\nshadow:x:42:\nnogroup:x:65534:\n")
        shadow = [f"{u.name}:{u.shadow}:19000:0:99999:7:::\n" for u in users]
        _write(etc / "shadow", "".join(shadow), 0o640)
        grants = [f"{u.name} {u.sudo}\n" for u in users if u.sudo]
        _write(etc / "sudoers", _SUDOERS + "".join(grants), 0o440)
        for each in ("other", "sudo", "sudo-i"):
            _write(etc / "pam.d" / each, _PAM)
        _write(etc / "ssh" / "sshd_config", _SSHD)
        private, public = key(self.name)
        _write(etc / "ssh" / "ssh_host_ed25519_key", private, 0o600)
        _write(etc / "ssh" / "ssh_host_ed25519_key.pub", public)

    def _add(self, user: User) -> None:
        home = self.files / "root" if user.uid == 0 else self.files / "home" / user.name
        _write(home / ".ssh" / "authorized_keys", key("controller")[1], 0o600, user.uid)
        for each in (home, home / ".ssh"):
            each.chmod(0o700)
            os.chown(each, user.uid, user.uid)

    def start(self) -> None:
        """Begin to boot: up to where its NICs must be there."""
        _write(self.files / "boot_id", f"{uuid.uuid4()}\n", 0o444)
        flags = ["--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--propagation=private"]
        self.holder = _Holder(
            [
                *(*_entering(self.lan, "pid"), "--", "unshare", *flags, "sh", "-c", _BOOT, "sh"),
                *(str(self.files), self.name, " ".join(_KEPT)),
            ]
        )

    def mounted(self) -> None:
        assert self.holder is not None
        self.holder.expect("mounted")

    def wiring(self) -> list[str]:
        """The `ip` commands that give it its NICs, in the network's own namespace."""
        mac = f"02:00:00:00:38:{self.number:02x}"
        # What is too long for the other end is dropped there, as by a real NIC, not in between.
        commands = [
            f"link add {self.name} mtu 65000 type veth "
            f"peer name eth1 address {mac} mtu {self.options.mtu} netns {self.pid}",
            f"link set {self.name} master lan up",
        ]
        if self.options.nat:
            commands += [
                f"link add {self.name}-nat type veth peer name eth0 netns {self.pid}",
                f"link set {self.name}-nat up",
            ]
        return commands

    def wired(self) -> None:
        """Go on with the boot."""
        assert self.holder is not None
        commands = [f"addr add {self.address}/24 brd + dev eth1", "link set eth1 up"]
        if self.options.nat:
            commands += ["addr add 10.0.2.15/24 brd + dev eth0", "link set eth0 up"]
            commands += ["route add default via 10.0.2.2 dev eth0"]
        self.holder.tell(";".join(commands))

    def settle(self) -> None:
        """Wait until it answers."""
        assert self.holder is not None
        self.holder.expect("booted")
        wait_for(self.answers, f"{self.name}'s sshd")

    def answers(self) -> bool:
        """Whether sshd listens."""
        table = Path(f"/proc/{self.pid}/net/tcp").read_text()
        return " 00000000:0016 00000000:0000 0A " in table

    def halt(self, *, crash: bool = False) -> None:
        """Switch it off.

        Args:
            crash: without a word to who is connected.
        """
        assert self.holder is not None
        if crash:
            self.cut()
        self.holder.end()
        self.holder = None

    def boot(self) -> None:
        """Switch it on again: its files are there but for /run and /tmp, its boot id is new."""
        self.start()
        self.mounted()
        _unplug(self.lan, self.name, f"{self.name}-nat")
        _ip(self.lan, self.wiring())
        self.wired()
        self.settle()
        _carrier(self.lan)

    def reboot(self, *, crash: bool = False) -> None:
        self.halt(crash=crash)
        self.boot()

    # --- disturbances ---------------------------------------------------------------------------

    def cut(self) -> None:
        """Pull the cable of eth1, at the other end."""
        _ip(self.lan, [f"link set {self.name} down"])

    def mend(self) -> None:
        _ip(self.lan, [f"link set {self.name} up"])
        _carrier(self.lan)

    def sessions(self) -> list[int]:
        """The sshd processes but for the one that listens, as the host counts."""
        found = {p.pid for p in self.processes() if p.name.startswith("sshd")}
        try:
            listener = int(self.path("/run/sshd.pid").read_text())
        except FileNotFoundError:  # it was stopped
            return sorted(found)
        return sorted(found - {listener})

    def drop(self) -> None:
        """Break every SSH connection at once; sshd goes on."""
        pids = " ".join(map(str, self.sessions()))
        if pids:
            self.run(f"kill -KILL {pids}")  # one may have ended by itself

    def stop_sshd(self) -> None:
        """Nobody can log in any more; who is logged in stays."""
        self.ok("kill $(cat /run/sshd.pid)")
        wait_for(lambda: not self.answers(), f"the end of {self.name}'s sshd")

    def start_sshd(self) -> None:
        self.ok("/usr/sbin/sshd -E /var/log/sshd.log")
        wait_for(self.answers, f"{self.name}'s sshd")

    # --- inside ---------------------------------------------------------------------------------

    def run(self, *argv: str, stdin: str = "") -> Completed:
        """Run a program as root, not over SSH; a single word is a shell script."""
        words = ["sh", "-c", argv[0]] if len(argv) == 1 else argv
        return subprocess.run(
            [*_entering(self.pid, "mount", "uts", "ipc", "net", "pid"), *words],
            input=stdin,
            capture_output=True,
            text=True,
            env=ENVIRONMENT,
            timeout=60,
            check=False,
        )

    def ok(self, *argv: str, stdin: str = "") -> str:
        """The same, which must succeed; its output."""
        done = self.run(*argv, stdin=stdin)
        assert done.returncode == 0, f"{self.name}: {argv}\n{done.stdout}{done.stderr}"
        return done.stdout

    def path(self, path: str) -> Path:
        """A path in the host as this machine sees it, below links of the host's root at most."""
        return Path(f"/proc/{self.pid}/root{path}")

    def processes(self) -> list[Process]:
        """All that run, zombies left out."""
        found = []
        for entry in self.path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    status = (entry / "stat").read_text()
                    command = (entry / "cmdline").read_bytes()
                except (FileNotFoundError, ProcessLookupError):
                    continue  # it ended
                name, _, rest = status.partition("(")[2].rpartition(")")
                state, parent = rest.split()[:2]
                if state not in "ZX":
                    words = command.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
                    found.append(Process(int(entry.name), int(parent), name, words))
        return found

    def photograph(self) -> dict[str, str]:
        """All that exact undo is about, with one key for each thing that can differ.

        Sections of iproute2, the firewall, the mounts and the processes have a key each, every
        sysctl and every file its own: ``sysctl net/ipv4/ip_forward``, ``file /etc/passwd``.
        """
        output = self.ok(_LOOK)
        looked = dict(part.split("\n", 1) for part in output.split("@@ ")[1:])
        sysctls = looked.pop("sysctl")
        found = {each: _plain(each, text) for each, text in looked.items()}
        found["processes"] = "\n".join(sorted(self._lasting()))
        return found | _sysctls(sysctls) | self._files()

    def remains(
        self, before: Mapping[str, str], seconds: float = 5.0, apart_from: tuple[str, ...] = ()
    ) -> Changes:
        """What is not as on a photograph, once it does not get better any more.

        A process whose SSH session ended needs a moment to notice; what is really left stays.

        Args:
            apart_from: how keys begin that may differ, such as ``file /var/cache/vxlab``.
        """
        deadline = time.monotonic() + seconds
        while True:
            found = changes(before, self.photograph())
            left = {k: pair for k, pair in found.items() if not k.startswith(apart_from)}
            if not left or time.monotonic() > deadline:
                return left

    def _lasting(self) -> Iterator[str]:
        """The command lines of processes that are not below an SSH session."""
        processes = {p.pid: p for p in self.processes()}
        sessions = set(self.sessions())
        for process in processes.values():
            above: Process | None = process
            while above is not None and above.pid not in sessions:
                above = processes.get(above.parent)
            if above is None:
                # sshd tells in its title how many are about to log in.
                yield re.sub(r"\[listener\].*", "[listener]", process.command)

    def _files(self) -> dict[str, str]:
        found = {}
        for top in ("/run", "/tmp", "/var", "/etc", "/root", "/home"):
            root = self.path("")
            for directory, below, names in os.walk(self.path(top)):
                for name in [*below, *names]:
                    path = Path(directory, name)
                    inside = f"/{path.relative_to(root)}"
                    if not _VOLATILE_FILES.match(inside):
                        found[f"file {inside}"] = _about(path)
        return found


@dataclass(frozen=True)
class Process:
    """A process of a host, with PIDs as the host counts."""

    pid: int
    parent: int
    name: str
    command: str


# --- photographs ----------------------------------------------------------------------------------

#: What differs: before and after, None where there is none.
Changes = dict[str, tuple[str | None, str | None]]


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> Changes:
    """What differs between two photographs."""
    keys = sorted(before.keys() | after.keys())
    pairs = {key: (before.get(key), after.get(key)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


# nft comes before iptables-save, which is one of its users.
_LOOK = """\
at() { echo "@@ $1"; shift; "$@"; }
at link ip -j -d link show
at addr ip -j -d addr show
at route ip -j -d -4 route show table all
at route6 ip -j -d -6 route show table all
at rule ip -j -d -4 rule show
at rule6 ip -j -d -6 rule show
at neigh ip -j -d neigh show nud permanent
at proxy ip -j -d neigh show proxy
at fdb bridge -j fdb show
at nft nft list ruleset
at iptables iptables-save
at ip6tables ip6tables-save
at mounts cut -d' ' -f4- /proc/self/mountinfo
at sysctl grep -rs '' /proc/sys/net
:
"""

#: A bridge's and its ports' running timers, and how many addresses it has learnt just now.
_VOLATILE_FIELDS = frozenset(
    {
        *("hello_timer", "tcn_timer", "topology_change_timer", "gc_timer", "hold_timer"),
        *("message_age_timer", "forward_delay_timer", "topology_change_detected"),
        *("topology_change", "fdb_n_learned"),
    }
)

#: Sysctls that count or are drawn by lot, and so tell nothing of a setting: connections that are
#: tracked now; the key for TCP Fast Open's cookies, which the kernel makes at first use.
_VOLATILE_SYSCTLS = frozenset({"net/netfilter/nf_conntrack_count", "net/ipv4/tcp_fastopen_key"})

#: Files that logging in and looking write by themselves: sshd's log, PID and records of logins
#: on terminals, sudo's time stamps and lectures, and the lock that every iptables takes.
_VOLATILE_FILES = re.compile(
    r"/run/(sshd\.pid|sudo(/.*)?|utmp|xtables\.lock)$|/var/lib/sudo(/.*)?$"
    r"|/var/log/(sshd\.log|lastlog|wtmp|btmp)$"
)


def _plain(section: str, text: str) -> str:
    """A section without what changes by itself."""
    if section in ("iptables", "ip6tables"):
        text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)  # dates
        return re.sub(r"\[\d+:\d+\]", "", text)
    if section in ("nft", "mounts"):
        return re.sub(r" packets \d+ bytes \d+", "", text)
    rows = [_steady(row) for row in json.loads(text or "[]") if row]
    if section == "fdb":
        # What a bridge's port has learnt from a packet is forgotten again.
        rows = [r for r in rows if r.get("state") or "master" not in r]
    return "\n".join(map(json.dumps, rows))


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _steady(v) for k, v in value.items() if k not in _VOLATILE_FIELDS}
    if isinstance(value, list):
        return [_steady(each) for each in value]
    return value


def _sysctls(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in text.splitlines():
        path, _, value = line.removeprefix("/proc/sys/").partition(":")
        if path not in _VOLATILE_SYSCTLS:
            known = found.get(f"sysctl {path}")
            found[f"sysctl {path}"] = value if known is None else f"{known}\n{value}"
    return found


def _about(path: Path) -> str:
    """Mode, owner, size and contents of a file."""
    try:
        status = path.lstat()
        kind = stat.filemode(status.st_mode)
        owner = f"{kind} {status.st_uid}:{status.st_gid}"
        if stat.S_ISLNK(status.st_mode):
            return f"{owner} -> {os.readlink(path)}"
        if stat.S_ISREG(status.st_mode):
            with path.open("rb") as file:
                return f"{owner} {status.st_size} {file_digest(file, 'sha256').hexdigest()}"
    except FileNotFoundError:
        return "gone while it was looked at"
    return owner


# --- the network ----------------------------------------------------------------------------------


def _ip(pid: int, commands: Sequence[str]) -> None:
    """Run `ip` commands in the network namespace of a process."""
    done = subprocess.run(
        [*_entering(pid, "net"), "ip", "-batch", "-"],
        input="\n".join(commands) + "\n",
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), f"{commands}\n{done.stderr}"


def _links(pid: int) -> list[dict[str, Any]]:
    command = [*_entering(pid, "net"), "ip", "-j", "link"]
    text = subprocess.run(command, capture_output=True, check=True, env=ENVIRONMENT).stdout
    links: list[dict[str, Any]] = json.loads(text)
    return links


def _unplug(lan: int, *names: str) -> None:
    """Take interfaces away; the kernel does so itself soon after their other end's host ended."""
    for name in names:
        command = [*_entering(lan, "net"), "ip", "link", "del", name]
        subprocess.run(command, capture_output=True, env=ENVIRONMENT, check=False)
    wait_for(lambda: not {ln["ifname"] for ln in _links(lan)} & set(names), f"no {names}")


def _carrier(lan: int) -> None:
    """Wait until every plug with a cable works: what is sent before is lost."""

    def works() -> bool:
        plugs = [ln for ln in _links(lan) if ln["ifname"] not in ("lo", "lan")]
        return all(ln["operstate"] == "UP" for ln in plugs if "UP" in ln["flags"])

    wait_for(works, "the network's links")


_LAN = """\
read -r pid _ </proc/self/stat
echo "$pid"
exec env --ignore-signal=CHLD cat >/dev/null 2>&1
"""

_CONTROLLER = """\
read -r pid _ </proc/self/stat
echo "$pid"
exec sleep 2147483647 </dev/null >/dev/null 2>&1
"""


class Hosts:
    """Hosts on one network, and a controller.

    Args:
        directory: a private place; the hosts' files, the controller's and VXLAB_HOME are there.
        count: how many hosts, called host1, host2...
        options: what some of them differ in, by name.
    """

    def __init__(
        self, directory: Path, count: int = 2, options: Mapping[str, Options] | None = None
    ) -> None:
        if os.geteuid() != 0:
            pytest.skip("HOSTS DID NOT RUN: sshd and sudo in namespaces need root")
        self.directory = directory
        self.home = directory / "vxlab-home"
        self.config = directory / "controller" / "ssh_config"
        self.known_hosts = directory / "controller" / "known_hosts"
        self.identity = directory / "controller" / "id_ed25519"
        self._options = options or {}
        self._count = count
        self._stack = ExitStack()
        self._started: list[subprocess.Popen[str]] = []
        self.hosts: list[Host] = []

    def __getitem__(self, name: str) -> Host:
        return {host.name: host for host in self.hosts}[name]

    def __iter__(self) -> Iterator[Host]:
        return iter(self.hosts)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._build(stack)
            stack.callback(self._end_started)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _build(self, stack: ExitStack) -> None:
        lan = _Holder(
            ["unshare", "--net", "--pid", "--fork", "sh", "-c", _LAN],
        )
        stack.callback(lan.end)
        inside = [*_entering(lan.pid, "pid"), "--", "unshare", "--net"]
        self.controller = _Holder([*inside, "sh", "-c", _CONTROLLER])
        stack.callback(self.controller.end)
        self.lan = lan.pid
        for number in range(1, self._count + 1):
            name = f"host{number}"
            files = self.directory / name
            options = self._options.get(name, Options())
            host = Host(name, 20 + number, files, lan.pid, options)
            host.install()
            host.start()
            stack.callback(self._off, host)
            self.hosts.append(host)
        self._write_controller()
        for host in self.hosts:
            host.mounted()
        peer = f"peer name eth1 address 02:00:00:00:38:01 netns {self.controller.pid}"
        wiring = [
            "link set lo up",
            "link add lan type bridge",
            "link set lan up",
            f"link add controller mtu 65000 type veth {peer}",
            "link set controller master lan up",
        ]
        _ip(lan.pid, wiring + [command for host in self.hosts for command in host.wiring()])
        for host in self.hosts:
            host.wired()
        mine = ["link set lo up", "addr add 192.168.56.1/24 brd + dev eth1", "link set eth1 up"]
        _ip(self.controller.pid, mine)
        for host in self.hosts:
            host.settle()
        _carrier(lan.pid)

    @staticmethod
    def _off(host: Host) -> None:
        if host.holder is not None:
            host.halt()

    def _end_started(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def _write_controller(self) -> None:
        _write(self.identity, key("controller")[0], 0o600)
        _write(self.identity.with_suffix(".pub"), key("controller")[1])
        known = [b"%s %s" % (h.address.encode(), key(h.name)[1]) for h in self.hosts]
        _write(self.known_hosts, b"".join(known), 0o600)
        aliases = [f"Host {h.name}\n  HostName {h.address}\n" for h in self.hosts]
        everywhere = [
            "Host *\n",
            f"  IdentityFile {self.identity}\n",
            "  IdentitiesOnly yes\n",
            f"  UserKnownHostsFile {self.known_hosts}\n",
            "  GlobalKnownHostsFile none\n",
            "  StrictHostKeyChecking yes\n",
        ]
        _write(self.config, "".join(aliases + everywhere), 0o600)

    def configure(self, text: str) -> None:
        """Put lines before all others in the controller's OpenSSH configuration: the first wins."""
        self.config.write_text(text + self.config.read_text())

    # --- the controller -------------------------------------------------------------------------

    def environment(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """What programs on the controller inherit: no agent, no home of this machine's labs."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("SSH_")}
        ours = {"VXLAB_HOME": str(self.home), "VXLAB_SSH_CONFIG": str(self.config)}
        return {**kept, **ours, **(env or {})}

    def inside(self, *argv: str) -> list[str]:
        """The command line that runs a program on the controller."""
        return [*_entering(self.controller.pid, "net"), *argv]

    def run(
        self, *argv: str, env: Mapping[str, str] | None = None, stdin: str | None = None
    ) -> Completed:
        """Run a program on the controller."""
        return subprocess.run(
            self.inside(*argv),
            env=self.environment(env),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def ssh(self, target: str, *argv: str, stdin: str | None = None) -> Completed:
        """Run a program on a host by OpenSSH's client, never asking anybody."""
        options = ["-F", str(self.config), "-o", "BatchMode=yes"]
        return self.run("ssh", *options, target, *argv, stdin=stdin)

    def vxlab(
        self, *words: str, env: Mapping[str, str] | None = None, stdin: str | None = None
    ) -> Completed:
        """Run vxlab on the controller, whatever its exit code."""
        return self.run(sys.executable, "-m", "vxlab", *words, env=env, stdin=stdin)

    def start(self, *words: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start vxlab on the controller; it is killed with the network if it still runs."""
        process = subprocess.Popen(
            self.inside(sys.executable, "-m", "vxlab", *words),
            env=self.environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def lab(
        self,
        path: Path,
        *,
        name: str = "talk",
        user: str = "root",
        nodes: int | None = None,
        insecure: bool = False,
        interface: bool = False,
        target: Callable[[Host], str] | None = None,
        more: str = "",
    ) -> Path:
        """Write a lab file for these hosts: node01 on host1, node02 on host2...

        Args:
            user: who logs in.
            nodes: how many of the hosts; all unless told.
            insecure: plain http for etcd.
            interface: tell the NIC instead of the address.
            target: what `ssh` says, instead of the user at the alias.
            more: further lines of the file.
        """
        lines = [f"name: {name}", "nodes:"]
        for number, host in enumerate(self.hosts[:nodes], 1):
            ssh = target(host) if target else f"{user}@{host.name}"
            where = "interface: eth1" if interface else f"address: {host.address}"
            lines.append(f"  node{number:02}: {{ssh: {json.dumps(ssh)}, {where}}}")
        if insecure:
            lines.append("etcd: {insecure: true}")
        path.write_text("\n".join([*lines, more]) + "\n")
        return path


@pytest.fixture
def make_hosts(tmp_path: Path) -> Iterator[Callable[..., Hosts]]:
    """Makes networks of hosts, in a directory each: ``make_hosts(count=3)``."""
    with ExitStack() as stack:

        def make(count: int = 2, options: Mapping[str, Options] | None = None) -> Hosts:
            directory = Path(tempfile.mkdtemp(prefix="hosts-", dir=tmp_path))
            return stack.enter_context(Hosts(directory, count, options))

        yield make


@pytest.fixture
def hosts(make_hosts: Callable[..., Hosts]) -> Hosts:
    """host1 and host2."""
    return make_hosts()
