"""A lab as bash scripts, one per node in the talk's order, for fresh hosts and without vxlab."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import replace

from vxlab.lab import Lab, Node
from vxlab.lessons import LESSONS
from vxlab.ops import MakePlace, Op, PutKey
from vxlab.ops.links import NewLink
from vxlab.rehearsal.command import Command
from vxlab.rehearsal.found import Found, found, supposed, supposed_states
from vxlab.rehearsal.rehearse import concerned
from vxlab.rehearsal.shell import Shell
from vxlab.rehearsal.teardown import KEPT, KEPT_BEFORE, teardown
from vxlab.rehearsal.texts import FUNCTIONS, HEAD, PLAIN_HTTP, RECORD, readme
from vxlab.state import State
from vxlab.steps import overlay, steps_of
from vxlab.steps.site import Site, Step

_WIDTH = 92
#: Into all namespaces of a container, and its root directory.
_ENTER = "nsenter --preserve-credentials -U -m -u -i -n -p -r -t"
_LESSONS = {lesson.name: lesson.text for lesson in LESSONS}

#: The programs: what stands for them in a plan, and their variables at the top of a script.
_ETCD, _ETCDCTL, _FLANNELD, _BUSYBOX = "@ETCD@", "@ETCDCTL@", "@FLANNELD@", "@BUSYBOX@"


def scripts(lab: Lab) -> dict[str, str]:
    """The lab as files that can be handed out: two bash scripts per node, and README.txt.

    The nodes are real machines there that have their underlay address already; what a lab on one
    machine does to imitate machines and their network is left out. etcd speaks plain http.

    Args:
        lab: on this machine, or on real hosts.

    Returns:
        the files' texts by their names, such as ``node01.sh`` and ``node01-teardown.sh``.
    """
    site = supposed(Site(_fresh(lab), "", _ETCD, _FLANNELD, _BUSYBOX, _BUSYBOX))
    files = {}
    for node in site.lab.nodes:
        plan = _plan(site, node)
        ops = [op for _, todo in plan for op in todo]
        files[f"{node.name}.sh"] = _script(site, node, plan)
        files[f"{node.name}-teardown.sh"] = teardown(lab, node.name, ops)
    files["README.txt"] = readme(lab, _fresh(lab))
    return files


def _fresh(lab: Lab) -> Lab:
    """The lab as one of real hosts; the NICs that a lab on one machine gives its nodes are not."""
    hosts = tuple(
        node if node.ssh else replace(node, ssh=node.name, interface="") for node in lab.nodes
    )
    underlay = lab.underlay if lab.remote else replace(lab.underlay, interface="")
    etcd = replace(lab.etcd, insecure=True)
    return replace(lab, nodes=hosts, underlay=underlay, etcd=etcd)


def _plan(site: Site, node: Node) -> list[tuple[Step, list[Op]]]:
    """What each step does on the node, on which nothing of the lab is yet."""
    states = supposed_states(site.lab, {n.name: State() for n in site.lab.nodes})
    plan = []
    for step in steps_of(site.lab):
        if node in concerned(site.lab, step):
            ops = list(step.plan(site, node, states))
            if step.name == "config":
                # A flanneld elsewhere starts as soon as it sees the configuration: its subnet
                # must be reserved by then.
                ops.sort(key=lambda op: isinstance(op, PutKey) and op.key.endswith("/config"))
            if ops:
                plan.append((step, ops))
    return plan


# --- the script that builds ---------------------------------------------------------------------


def _script(site: Site, node: Node, plan: list[tuple[Step, list[Op]]]) -> str:
    lab = site.lab
    states = supposed_states(lab, {})
    programs = [Found(f"@{name}@", f"${name}") for name in ("ETCD", "ETCDCTL", "FLANNELD")]
    programs.append(Found(_BUSYBOX, "$BUSYBOX"))
    values = [*found(lab, node.name, states, known=False), *programs]
    shell = Shell(lab, node.name, values, etcdctl=_ETCDCTL, recorded=True)
    parts = [_head(lab, node), FUNCTIONS, RECORD, _checks(lab, node, plan)]
    for step, ops in plan:
        lines = list(_rows(shell.type(ops)))
        if step.name == "host":
            lines += [f"echo {lab.name} >{KEPT}/exported", *KEPT_BEFORE.splitlines()]
        parts.append("\n".join([*_lesson(step), *lines]) + "\n")
    parts.append(_end(node, shell))
    return "\n".join(parts)


def _rows(commands: Iterable[Command]) -> Iterator[str]:
    for command in commands:
        if command.note:
            yield from comment(command.note)
        lines = command.folded(_WIDTH)
        if command.broken:
            lines[-1] += " ||"
            lines.append(f"  fail {_string(command.broken)}")
        yield from lines


def _string(words: str) -> str:
    return f"'{words}'" if "'" not in words else f'"{words}"'


def comment(words: str) -> list[str]:
    return textwrap.wrap(
        words,
        _WIDTH,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _lesson(step: Step) -> Iterator[str]:
    title = f"{step.name}: {step.title}"
    yield f"# --- {title} ".ljust(_WIDTH, "-")
    for paragraph in _LESSONS[step.name]:
        yield "#"
        yield from comment(paragraph)
    yield ""
    yield f'echo "{title}"'


def _head(lab: Lab, node: Node) -> str:
    place = "" if int(node.address) < 2**16 else f" ({node.address.ip})"
    serves = node.name == lab.etcd.node
    names = [*(("etcd", "etcdctl") if serves else ()), "flanneld"]
    names += ["busybox"] if node.containers else []
    about = [f'{node.name} of the lab "{lab.name}": an overlay network by flannel, step by step.']
    about.append(
        f"Run this as root on {node.name}{place}, a host that has nothing of the lab yet."
        f" {node.name}-teardown.sh takes it away again; README.txt tells what has to be there."
    )
    if lab.overlay.backend_type != "vxlan" or lab.overlay.backend.get("MTU"):
        about.append(
            f"flannel's backend is {lab.overlay.backend_type} here, and containers have an MTU of"
            f" {_mtu(lab)}; the comments tell of the talk's: VXLAN and 1450."
        )
    about.append(PLAIN_HTTP)
    text = "\n#\n".join("\n".join(comment(each)) for each in about)
    variables = "\n".join(f"{name.upper()}=${{{name.upper()}:-{name}}}" for name in names)
    return (
        f"#!/usr/bin/env bash\n{text}\n{HEAD}\n# The programs, by name or by path.\n{variables}\n"
    )


def _mtu(lab: Lab) -> str:
    return str(lab.overlay_mtu) if lab.overlay_mtu <= 65535 else "what flannel finds"


# --- what is looked at first --------------------------------------------------------------------


def _checks(lab: Lab, node: Node, plan: list[tuple[Step, list[Op]]]) -> str:
    ops = [op for _, todo in plan for op in todo]
    places = [op.path for op in ops if isinstance(op, MakePlace)]
    links = [op.name for op in ops if isinstance(op, NewLink) and not op.ns]
    links += [overlay.device(lab)] if overlay.device(lab) else []
    programs = ['"$FLANNELD"', "awk", "ip", "iptables", "nsenter", "pgrep", "sysctl", "timeout"]
    if node.containers:
        programs[:0] = ['"$BUSYBOX"']
        programs += ["chroot", "unshare"]
    if node.name == lab.etcd.node:
        programs[:0] = ['"$ETCD"', '"$ETCDCTL"']
    return "\n".join(
        [
            "# Before anything is changed: is this the host, and is it fresh?",
            '[ "$(id -u)" = 0 ] || fail "this must be run as root"',
            *Command(("for program in", *programs)).folded(_WIDTH),
            "do",
            '  command -v "$program" >/dev/null || fail "there is no $program here (README.txt)"',
            "done",
            *_address_check(node),
            *Command(("for place in", *places)).folded(_WIDTH),
            "do",
            '  [ ! -e "$place" ] || fail "$place is there already: the host is not fresh"',
            "done",
            f"for link in {' '.join(links)}; do",
            '  ! ip link show dev "$link" >/dev/null 2>&1 ||',
            '    fail "there is an interface $link already: the host is not fresh"',
            "done",
            "",
        ]
    )


def _address_check(node: Node) -> Iterator[str]:
    address = node.address.ip
    if int(address) < 2**16:
        nic = node.interface
        yield f'[ -n "$(ip -o -4 addr show dev {nic})" ] || fail "{nic} has no address"'
    else:
        yield f'[ -n "$(ip -o -4 addr show to {address})" ] ||'
        yield f'  fail "no interface has the address {address}: is this {node.name}?"'


def _end(node: Node, shell: Shell) -> str:
    lines = ["# --- ready ".ljust(_WIDTH, "-"), "", f'echo "{node.name} is ready"']
    for container in node.containers:
        pid = shell.pid(container.name)
        lines += [
            f'address=$(nsenter -n -t "${pid}" ip -o -4 addr show dev vethNS |'
            " awk '{print $4}')",
            f'echo "{container.name} has $address; its shell:"',
            f'echo "  {_ENTER} ${pid} /bin/sh"',
        ]
    return "\n".join(lines) + "\n"
