"""Whether a host has what a lab needs: its programs, its kernel's features, room on its disks."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from vxlab.hostcheck import advice
from vxlab.hostcheck.facts import Answer, Facts
from vxlab.hostcheck.finding import HostFinding, Question, some
from vxlab.hostcheck.needs import CACHE, NEEDS, TRIES, room
from vxlab.lab import Lab, Node

#: Seconds that a host's clock may be off before its logs no longer line up with others'.
CLOCK = 60


def programs(node: Node, facts: Facts) -> Iterator[HostFinding]:
    """All that are missing in one finding, with one line that installs them."""
    ask = Question(node.name, "programs", "Programs", ", ".join(NEEDS))
    missing = [name for name in NEEDS if name not in facts.programs]
    if missing:
        line = advice.install_line(facts.families, (NEEDS[name] for name in missing))
        yield ask.bad(f"not there: {', '.join(missing)}", line)
    else:
        yield ask.good(f"{len(NEEDS)} programs, {facts.iptables}")
    if "ip" not in missing and not facts.nics:
        old = Question(node.name, "program-ip", "ip", "iproute2 4.16 or newer, which knows -json")
        line = advice.install_line(facts.families, [NEEDS["ip"]])
        yield old.bad(f"{facts.programs['ip']} does not print JSON", line)
    if "env" not in missing and not facts.ignores:
        # The option came with coreutils 8.31 (2019); busybox's env has none.
        old = Question(node.name, "program-env", "env", "coreutils 8.31 or newer (--ignore-signal)")
        line = advice.install_line(facts.families, [NEEDS["env"]])
        yield old.bad(f"{facts.programs['env']} does not know --ignore-signal", line)


def architecture(node: Node, facts: Facts, machine: str) -> Iterator[HostFinding]:
    """The programs that travel are the controller's own."""
    ask = Question(node.name, "architecture", "Machine", f"{machine}, as the controller's programs")
    if not facts.machine:
        yield ask.odd("uname does not tell it")
    elif _plain(facts.machine) == _plain(machine):
        yield ask.good(f"{facts.machine}, Linux {facts.kernel}, {facts.os}")
    else:
        yield ask.bad(facts.machine, f"run vxlab on a machine that is {facts.machine}, too")


#: How shells say that there is no such program; the kernel's and modprobe's words end otherwise.
_MISSING = re.compile(r": (command )?not found$", re.MULTILINE)


def _plain(machine: str) -> str:
    """One name for what kernels and Python call differently."""
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine.lower(), machine.lower())


# --- the kernel ---------------------------------------------------------------------------------


def kernel(lab: Lab, node: Node, facts: Facts) -> Iterator[HostFinding]:
    """Every feature that was tried; what hangs on a missing program is that program's finding."""
    for code, each in TRIES.items():
        if each.backend not in ("", lab.overlay.backend_type):
            continue
        ask = Question(node.name, code, each.title, each.wanted)
        answer = facts.tries.get(code)
        if code == "namespaces" and answer is None:
            answer = Answer(1, facts.refusal or "nothing was said")
        if answer is None:
            if code != "busybox" and "namespaces" in facts.tries:
                yield ask.odd("not tried: the tries ended before")
        elif answer.status == 0:
            yield ask.good("works")
        elif _MISSING.search(answer.said):
            yield ask.odd(f"could not be tried: {answer.said}", "install the missing programs")
        else:
            yield ask.bad(answer.said, _todo(code, facts))


def _todo(code: str, facts: Facts) -> str:
    module = TRIES[code].module
    if module and not facts.own_users:
        return advice.module_line(facts.families, facts.kernel, module)
    if code == "kernel-iptables":
        return advice.iptables_line(facts.tries)
    if facts.own_users or facts.container:
        return advice.container_line()
    return advice.namespaces_line(facts) if code in ("namespaces", "kernel-container") else ""


def container(node: Node, facts: Facts) -> Iterator[HostFinding]:
    """A container with a user namespace has a root who may not do what root does."""
    ask = Question(node.name, "container", "Kind of machine", "a machine with a kernel of its own")
    if facts.own_users:
        yield ask.odd(
            "an unprivileged container: its root is an ordinary user outside",
            "take a virtual machine where something below is refused",
        )
    elif facts.container:
        yield ask.good(f"a container ({facts.container}) that may do what a machine does")
    else:
        yield ask.good("a machine")


# --- files --------------------------------------------------------------------------------------


def space(lab: Lab, node: Node, facts: Facts) -> Iterator[HostFinding]:
    """Programs, journal, logs and etcd's data; what shares a file system is added up."""
    need: dict[str, int] = defaultdict(int)
    where: dict[str, list[str]] = defaultdict(list)
    for path, kib in room(lab, node).items():
        if path not in facts.space or (path in CACHE and CACHE in facts.files):
            continue  # the programs are there from an earlier lab
        mount = facts.space[path].mount
        need[mount] += kib
        where[mount].append(path)
    ask = Question(node.name, "space", "Room on disk", _rooms(need))
    short = {
        mount: facts.space[paths[0]].free
        for mount, paths in where.items()
        if facts.space[paths[0]].free < need[mount]
    }
    if short:
        seen = ", ".join(
            f"{_mib(free)} free on {mount} for {' and '.join(where[mount])}"
            for mount, free in short.items()
        )
        yield ask.bad(seen, "\n".join(f"make room on {mount}: df -h {mount}" for mount in short))
    else:
        yield ask.good(
            _rooms({mount: facts.space[paths[0]].free for mount, paths in where.items()})
        )


def _rooms(kib: Mapping[str, int]) -> str:
    return ", ".join(f"{_mib(each)} on {mount}" for mount, each in kib.items())


def _mib(kib: int) -> str:
    return f"{kib // 1024} MiB"


def mounts(lab: Lab, node: Node, facts: Facts) -> Iterator[HostFinding]:
    """Where the lab writes and where its programs lie, the file system must allow it."""
    ask = Question(
        node.name, "mounts", "File systems", "writable; programs may run from /var/cache"
    )
    readonly = [p for p in room(lab, node) if "ro" in _options(facts, p)]
    if readonly:
        points = {_mount(facts, path) for path in readonly}
        lines = "\n".join(f"sudo mount -o remount,rw {point}" for point in sorted(points))
        yield ask.bad(f"{some(readonly)}: read-only", lines)
    elif "noexec" in _options(facts, CACHE):
        point = _mount(facts, CACHE)
        yield ask.bad(f"{point} is mounted noexec", f"sudo mount -o remount,exec {point}")
    else:
        yield ask.good("writable, and programs may run from /var/cache")


def _mount(facts: Facts, path: str) -> str:
    """The mount point that a path is below."""
    above = [p for p in facts.mounts if p == "/" or path == p or path.startswith(f"{p}/")]
    return max(above, key=len, default="/")


def _options(facts: Facts, path: str) -> frozenset[str]:
    return facts.mounts.get(_mount(facts, path), frozenset())


# --- what a lab can live with -------------------------------------------------------------------


def manners(node: Node, facts: Facts, now: float | None) -> Iterator[HostFinding]:
    """What does not stop a lab, but may surprise: SELinux, logind, the clock."""
    ask = Question(node.name, "selinux", "SELinux", "permissive, or no rule in the way")
    if facts.enforcing:
        todo = "if a step is refused: sudo ausearch -m avc -ts recent, or sudo setenforce 0"
        yield ask.odd("enforcing", todo)
    else:
        yield ask.good("not enforcing")
    ask = Question(node.name, "logind", "Daemons after logout", "processes outlive the SSH session")
    if facts.kills:
        yield ask.odd(
            f"logind ends all processes of {facts.login} with the SSH session"
            " (KillUserProcesses=yes), etcd and flanneld with them",
            "log in as root, or set KillUserProcesses=no in /etc/systemd/logind.conf",
        )
    else:
        yield ask.good("they do")
    if now is not None and facts.clock:
        yield _clock(node, facts.clock - now)


def _clock(node: Node, ahead: float) -> HostFinding:
    ask = Question(node.name, "clock", "Clock", "about the controller's time, so that logs line up")
    way = "ahead of" if ahead > 0 else "behind"
    if abs(ahead) > CLOCK:
        seen = f"{abs(ahead):.0f} seconds {way} the controller's clock"
        # The lab's certificates are valid at any time: nothing hangs on it but reading logs.
        return ask.odd(seen, "sudo timedatectl set-ntp true")
    return ask.good("right")
