"""Can this machine carry the overlay? Every kernel feature the lab needs, tried for real.

One child makes namespaces the way a lab does and tries each feature in them: interfaces, a VTEP as
flannel makes it, an iptables rule, a container. The namespaces end with the child, so nothing is
left behind and the host's own network is never touched. Switches and distributions matter only
when a try failed: they decide what the user is told to do.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vxlab import binaries
from vxlab.errors import MissingError
from vxlab.hostcheck import advice
from vxlab.hostcheck.looking import TRYING
from vxlab.script import PATH

TIMEOUT = 10.0  # seconds, for all tries together; they take a tenth of one


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that the lab's network needs from this machine, and whether it is there."""

    code: str  # stable, such as kernel-vxlan
    title: str
    ok: bool | None  # None: not needed by every lab, or it could not be tried
    seen: str  # what the kernel or the program said, verbatim
    wanted: str
    todo: str  # what to do about it; empty if nothing


@dataclass(frozen=True, slots=True)
class _Program:
    name: str
    version: str  # shell words that print its version
    debian: str  # package names
    fedora: str
    optional: str = ""  # what does without it


_PROGRAMS = (
    _Program("ip", "ip -V", "iproute2", "iproute"),
    _Program("bridge", "bridge -V", "iproute2", "iproute"),
    _Program("ss", "ss -V", "iproute2", "iproute"),
    _Program("iptables", "iptables --version", "iptables", "iptables-nft"),
    _Program("unshare", "unshare --version", "util-linux", "util-linux"),
    _Program("nsenter", "nsenter --version", "util-linux", "util-linux-core"),
    _Program("mount", "mount --version", "mount", "util-linux-core"),
    # The option came with coreutils 8.31 (2019); busybox's env has none.
    _Program("env", "env --ignore-signal=CHLD env --version", "coreutils", "coreutils"),
    _Program("tcpdump", "tcpdump --version", "tcpdump", "tcpdump", "only tracing needs it"),
)


@dataclass(frozen=True, slots=True)
class _Try:
    title: str
    wanted: str
    module: str = ""  # the kernel module that brings it
    optional: str = ""


_TRIES = {
    "namespaces": _Try("Namespaces of one's own", "mount, UTS, IPC, network and PID namespaces"),
    "kernel-proc": _Try("/proc of a node", "mount -t proc in a new PID namespace"),
    "kernel-mount": _Try("Directories of a node", "tmpfs and bind mounts in a new mount namespace"),
    "kernel-veth": _Try("veth pairs (the cables)", "ip link add type veth", "veth"),
    "kernel-bridge": _Try("Bridges (cbr0, the switch)", "ip link add type bridge", "bridge"),
    "kernel-vxlan": _Try(
        "VXLAN interfaces (flannel.1)", "a VTEP like flannel's, with neighbour and FDB", "vxlan"
    ),
    "kernel-iptables": _Try("iptables (flannel's FORWARD rules)", "a chain with flannel's rule"),
    "kernel-forwarding": _Try("IP forwarding", "net.ipv4.ip_forward=1 in a network namespace"),
    "kernel-icmp": _Try("Raw ICMP sockets (pings)", "one opened in a network namespace"),
    "kernel-container": _Try(
        "Containers", "unshare --user --map-root-user ... --mount-proc inside a node"
    ),
    "busybox": _Try("busybox in a bare root", "chroot into a directory that holds busybox alone"),
    "kernel-tun": _Try(
        "TUN interfaces", "ip tuntap add mode tun", "tun", "only flannel's udp backend needs them"
    ),
}

_TRIAL = """\
export LC_ALL=C
mounts() { mount -t tmpfs tmpfs /run && mkdir /run/log && mount --bind /run/log /var/log; }
icmp() { "$python" -I -S -c 'import _socket as s; s.socket(s.AF_INET, s.SOCK_RAW, 1)'; }
busybox=$1 python=$2
echo '@ namespaces 0'
ip link set lo up
try kernel-proc mount -t proc proc /proc
try kernel-mount mounts
try kernel-veth ip link add vethlocal mtu 1450 type veth peer name vethNS mtu 1450
try kernel-bridge bridge_up
try kernel-vxlan vxlan
try kernel-iptables rules iptables
for other in iptables-nft iptables-legacy; do
  rules $other >/dev/null 2>&1 && echo "@ other-$other 0"; done
try kernel-forwarding forwarding
try kernel-icmp icmp
try kernel-container unshare --mount --uts --ipc --net --pid --fork --user --map-root-user \\
  --mount-proc true
[ -z "$busybox" ] || try busybox bare
try kernel-tun ip tuntap add dev tun0 mode tun
"""

_SH = ("/bin/sh", "-c")

Answers = dict[str, tuple[int, str]]  # code -> exit status, what was said


def run(path: str = PATH) -> list[Finding]:
    """What this machine offers the lab's networks; takes about a quarter of a second.

    Args:
        path: the directories where the nodes' programs are looked for.
    """
    found, problem = _overlay_programs()
    busybox = str(found.busybox.path) if found else ""
    with _child(_trial_argv(busybox), path) as trial, _child(_versions_argv(), path) as versions:
        daemons = list(_daemon_findings(found, problem))
        said, answers = _answers(trial)
        _, programs = _answers(versions)
    findings = [_program_finding(program, programs) for program in _PROGRAMS]
    return findings + daemons + list(_kernel_findings(answers, said, have_busybox=bool(busybox)))


# --- asking -------------------------------------------------------------------------------------


def _overlay_programs() -> tuple[binaries.Binaries | None, MissingError | None]:
    try:
        return binaries.find(lambda line: None), None
    except MissingError as error:
        return None, error


def _trial_argv(busybox: str) -> list[str]:
    user = ["--user", "--map-root-user"] if os.geteuid() else []
    spaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--propagation", "slave"]
    ends = ["--fork", "--kill-child=KILL"]  # killing unshare ends the namespaces, too
    return ["unshare", *user, *spaces, *ends, *_SH, TRYING + _TRIAL, "sh", busybox, sys.executable]


def _versions_argv() -> list[str]:
    ask = "\n".join(
        f"if m=$(command -v {p.name} && {p.version} 2>&1); then s=0; else s=1; fi\n"
        f"printf '@ {p.name} %s\\n%s\\n' $s \"$m\""
        for p in _PROGRAMS
    )
    return [*_SH, ask]


def _child(argv: list[str], path: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*_SH, 'exec "$@"', "sh", *argv],  # the shell tells it if there is no unshare
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={"PATH": path, "HOME": "/", "LC_ALL": "C"},
    )


def _answers(child: subprocess.Popen[str]) -> tuple[str, Answers]:
    """What a child said before its first answer, and its answers by code."""
    try:
        output, _ = child.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        child.kill()
        output = child.communicate()[0] + f"\n(stopped after {TIMEOUT:.0f} seconds)"
    before, *blocks = ("\n" + output).split("\n@ ")
    answers: Answers = {}
    for block in blocks:
        head, _, said = block.partition("\n")
        code, _, status = head.partition(" ")
        answers[code] = (int(status), said.strip())
    return before.strip(), answers


# --- judging ------------------------------------------------------------------------------------


def _program_finding(program: _Program, answers: Answers) -> Finding:
    status, said = answers.get(program.name, (1, ""))
    path, _, version = said.partition("\n")
    found = status == 0
    return Finding(
        f"program-{program.name}",
        program.name,
        True if found else (None if program.optional else False),
        f"{version.partition(chr(10))[0]} ({path})" if found else (version or "not found"),
        program.optional or f"{program.name} in {PATH}",
        "" if found else install_line(program.debian, program.fedora),
    )


def _daemon_findings(
    found: binaries.Binaries | None, problem: MissingError | None
) -> Iterator[Finding]:
    if problem is not None:
        seen = "\n".join(filter(None, (problem.message, problem.detail)))
        wanted = "etcd, flanneld and a static busybox"
        yield Finding("overlay-programs", "Overlay's programs", False, seen, wanted, problem.hint)
    for each in (found.etcd, found.flanneld, found.busybox) if found else ():
        try:
            seen, ok, todo = f"{binaries.version_of(each)} ({each.path})", True, ""
        except MissingError as error:
            seen, ok, todo = f"{error.message}: {error.detail}", False, error.hint
        yield Finding(f"program-{each.name}", each.name, ok, seen, f"{each.name} that runs", todo)


def _kernel_findings(answers: Answers, said: str, *, have_busybox: bool) -> Iterator[Finding]:
    for code, each in _TRIES.items():
        wanted = each.optional or each.wanted
        if code not in answers and code != "namespaces":
            if code != "busybox" or have_busybox:
                yield Finding(
                    code, each.title, None, "not tried: the tries ended before", wanted, ""
                )
            continue
        status, message = answers.get(code, (1, said))
        if status == 0:
            yield Finding(code, each.title, True, "works", wanted, "")
            continue
        todo = _todo(code, each, message, answers)
        # Of a Python traceback, the last line says it.
        seen = message.rpartition("\n")[2] if message.startswith("Traceback") else message
        yield Finding(code, each.title, None if each.optional else False, seen, wanted, todo)


def _todo(code: str, each: _Try, message: str, answers: Answers) -> str:
    if "not found" in message:  # the shell's word; the program has a finding of its own
        return "install the program that is missing"
    if code == "kernel-tun" and "Unknown" not in message:
        return tun_line(message)
    if each.module:
        return module_line(each.module, message)
    if code == "kernel-iptables":
        return advice.iptables_line(answers)
    if code in ("namespaces", "kernel-container", "kernel-proc"):
        return "\n".join(allow_lines(message, root=os.geteuid() == 0))
    return container_line() if in_container() else ""


# --- what to do ---------------------------------------------------------------------------------

_LIMITS = ("user", "mnt", "uts", "ipc", "net", "pid")

#: Switches that forbid an ordinary user new user namespaces: Debian's and Ubuntu's own patch (until
#: Debian 11), AppArmor's restriction (Ubuntu 23.10 and later). Name, forbidding and allowing value.
_SWITCHES = (
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
)


def allow_lines(message: str, *, root: bool, slash: Path = Path("/")) -> list[str]:
    """The commands that allow this caller namespaces of their own, after the kernel refused.

    Args:
        message: what the kernel said.
        root: whether the caller is root, whom the switches for ordinary users do not stop.
        slash: the root directory of the machine.
    """
    switches = () if root else _SWITCHES
    # RHEL 7 and some hardening guides set limits to 0 (user_namespaces(7), namespaces(7)).
    limits = tuple((f"user.max_{kind}_namespaces", "0", "15000") for kind in _LIMITS)
    lines = []
    for name, forbids, allows in switches + limits:
        file = slash / "proc/sys" / name.replace(".", "/")
        if file.exists() and file.read_text().strip() == forbids:
            lines.append(
                f"{'' if root else 'sudo '}sysctl -w {name}={allows}"
                f"   ({name} is {forbids}; /etc/sysctl.d keeps it over a reboot)"
            )
    if lines:
        return lines
    if in_container(slash):
        return [container_line()]
    if "No space left" in message:
        return ["too many namespaces exist already, or nest too deep: see namespaces(7)"]
    if root:
        return ["root lacks CAP_SYS_ADMIN here; try it as an ordinary user"]
    return ["a seccomp filter, a security module or a chroot forbids it; try it as root"]


def in_container(slash: Path = Path("/")) -> bool:
    """Whether this machine is itself a container (docker, podman, systemd-nspawn, lxc)."""
    signs = (".dockerenv", "run/.containerenv", "run/systemd/container")
    return any((slash / sign).exists() for sign in signs)


def container_line() -> str:
    """What a container's engine has to leave alone: its seccomp filter and masks over /proc."""
    return (
        "if this machine is a container, as it seems, start it with\n"
        "  docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
        " --security-opt systempaths=unconfined ...\n"
        "  podman run --security-opt seccomp=unconfined --security-opt unmask=ALL ...\n"
        "or with --privileged"
    )


def tun_line(message: str) -> str:
    """How to get at the TUN device; udev makes it for everybody, a bare /dev for root alone."""
    if "Permission denied" in message:
        return "sudo chmod 666 /dev/net/tun"
    return "sudo modprobe tun   (in a container: --device /dev/net/tun)"


def module_line(module: str, message: str) -> str:
    """How to get a kernel feature that is a module and is not loaded."""
    if "Unknown device type" not in message and "not supported" not in message.lower():
        return container_line() if in_container() else f"sudo modprobe {module}"
    return advice.module_line(_family(), os.uname().release, module)


def install_line(debian: str, fedora: str) -> str:
    """The package manager's command for a missing program."""
    family = _family()
    if "debian" in family:
        return f"sudo apt-get install {debian}"
    if "fedora" in family or "rhel" in family:
        return f"sudo dnf install {fedora}"
    return f"install the package {debian}"


def _family() -> set[str]:
    from platform import freedesktop_os_release

    try:
        release = freedesktop_os_release()
    except OSError:
        return set()
    return {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
