"""Worlds, nodes and containers for kernel tests, and a child process to enter them in.

Entering a world changes the calling process for good, and an ordinary user may enter it only
single-threaded: a test that does so is marked `in_child`, and its body runs in a forked process.
The world itself belongs to the test's parent, which ends it, whatever becomes of the child.
"""

from __future__ import annotations

import functools
import json
import os
import pickle
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec

import pytest

from bare_machine import real_busybox
from vxlab import netlink, script
from vxlab.binaries import rootfs
from vxlab.engine.down import end
from vxlab.journal import LabDirectory
from vxlab.lab import Lab
from vxlab.netlink import Netlink
from vxlab.nodes.local import ENVIRONMENT, LocalNode, World
from vxlab.ops import (
    AddAddress,
    AddBridge,
    AddRoute,
    AddVeth,
    Op,
    SetUp,
    StartContainer,
    StartNode,
)
from vxlab.steps.node import hosts
from vxlab.steps.site import SWITCH, Site

P = ParamSpec("P")
CarryOut = Callable[[LocalNode, Sequence[Op], Callable[[Op], None]], None]


def _refused() -> str:
    """Why this machine does not let the caller make namespaces; empty if it does."""
    user = ["--user", "--map-root-user"] if os.geteuid() else []
    flags = ["--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--mount-proc"]
    try:
        done = subprocess.run(
            ["unshare", *user, *flags, "ip", "link", "set", "lo", "up"],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        return f"KERNEL TESTS DID NOT RUN: {error}"
    said = done.stderr.strip() or f"exit code {done.returncode}"
    return f"KERNEL TESTS DID NOT RUN: no namespaces here ({said})" if done.returncode else ""


_WHY_NOT = _refused()

#: For every module of this tier.
KERNEL = [pytest.mark.kernel, pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT or "they run")]


# --- the child ------------------------------------------------------------------------------------


def in_child(test: Callable[P, None]) -> Callable[P, None]:
    """Run a test's body in a forked process; how it ends there is how the test ends."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        receive, send = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(receive)
            _child(send, functools.partial(test, *args, **kwargs))
        os.close(send)
        try:
            with open(receive, "rb") as pipe:
                told = pipe.read()
        finally:  # the test's timeout may come up while this reads
            os.kill(pid, signal.SIGKILL)
            status = os.waitpid(pid, 0)[1]
        assert told, f"the child ended with status {status} and told nothing"
        outcome, text = pickle.loads(told)  # noqa: S301 - our own child wrote it
        if outcome == "skipped":
            pytest.skip(text)
        if outcome == "failed":
            pytest.fail(text, pytrace=False)

    return run


def _child(send: int, body: Callable[[], None]) -> None:
    """Run the body, tell how it ended, and end without anything that pytest would do at its end."""
    outcome = ("passed", "")
    try:
        body()
    except pytest.skip.Exception as skipped:
        outcome = ("skipped", str(skipped))
    except BaseException:  # noqa: BLE001 - whatever it is, the parent raises it
        excinfo = pytest.ExceptionInfo.from_current()
        outcome = ("failed", str(excinfo.getrepr(style="short")))
    with open(send, "wb") as pipe:
        pipe.write(pickle.dumps(outcome))
    os._exit(0)


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Wait until something holds; the deadline is for what never will."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.005)


# --- worlds ---------------------------------------------------------------------------------------


@dataclass
class Place:
    """A world that nothing has been built in yet.

    `busybox` and `programs` are what nodes and containers are made of.
    """

    world: World
    directory: LabDirectory
    busybox: str
    programs: str

    def enter(self) -> LocalNode:
        """Enter the world, in a child; the switch."""
        self.world.enter()
        return LocalNode(SWITCH, "", self.world.proc)

    def start_node(self, name: str) -> StartNode:
        return StartNode(
            name=name,
            directory=str(self.directory.node(name)),
            hosts=str(self.directory.path / "hosts"),
            busybox=self.busybox,
        )

    def start_container(self, name: str) -> StartContainer:
        root = f"/run/container-demo/{name}"
        return StartContainer(name=name, root=root, programs=self.programs, ipv6=False)

    def node(self, name: str, *containers: str) -> LocalNode:
        """A fresh node in the entered world, with containers; IPv6 is off, as in a lab."""
        switch = LocalNode(SWITCH, "", self.world.proc)
        by_script(switch, [self.start_node(name)])
        node = LocalNode(name, self.world.proc)
        quiet = "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6"
        assert node.run(["sh", "-c", quiet]).err == ""
        by_script(node, [self.start_container(each) for each in containers])
        return node


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """busybox and its applets, which containers see as /bin."""
    cache = tmp_path_factory.mktemp("cache")
    cache.chmod(0o700)
    return rootfs.template(real_busybox(), cache) / "bin"


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LabDirectory]:
    """A lab's directory; a world that its journal tells of is ended with the test."""
    monkeypatch.setenv("VXLAB_HOME", str(tmp_path / "home"))
    made = LabDirectory("talk")
    made.path.mkdir(parents=True)
    (made.path / "hosts").write_text("127.0.0.1 localhost\n192.168.56.21 node01\n")
    yield made
    record = made.world()
    if record is not None:
        end(record.pid, record.start)


@pytest.fixture
def place(directory: LabDirectory, programs: Path) -> Place:
    """A fresh world. What enters it must be `in_child`."""
    busybox = str(real_busybox())
    return Place(World.start(directory, busybox), directory, busybox, str(programs))


def site(lab: Lab, directory: Path, programs: Path) -> Site:
    """What steps plan with; the daemons do nothing."""
    directory.mkdir(exist_ok=True)
    idle = directory / "idle"
    idle.write_text("#!/bin/sh\nexec sleep 1000\n")
    idle.chmod(0o755)
    made = Site(
        lab=lab,
        directory=str(directory),
        etcd=str(idle),
        flanneld=str(idle),
        busybox=str(programs / "busybox"),
        programs=str(programs),
    )
    (directory / "hosts").write_text(hosts(made))
    return made


# --- both ways to carry operations out ------------------------------------------------------------


def ignore(op: Op) -> None:
    """For callers who need not know what is done."""


def by_netlink(node: LocalNode, todo: Sequence[Op], done: Callable[[Op], None] = ignore) -> None:
    """Network operations, all in one namespace of the node, by `vxlab.netlink` alone."""
    assert [op for op in todo if not isinstance(op, netlink.KINDS)] == []
    (ns,) = {op.ns for op in todo}
    socket = Netlink(node.inside(ns) if ns else node.proc, node.name)
    peers = {ns: f"{node.inside(ns)}/ns/net" for op in todo if (ns := getattr(op, "peer_ns", ""))}
    try:
        socket.apply(todo, peers, done)
    finally:
        socket.close()


def by_script(node: LocalNode, todo: Sequence[Op], done: Callable[[Op], None] = ignore) -> None:
    """Operations by the program text that also goes to hosts behind SSH."""
    completed = node.run(["sh", "-s"], stdin=script.program(todo))
    script.judge(node.name, todo, completed.out + completed.err, done)


# --- what a node looks like, raw ------------------------------------------------------------------

_LOOK = """\
ip -j -d link show; ip -j -d addr show; ip -j -d route show table all; ip -j -d neigh show
bridge -j fdb show; cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/disable_ipv6
"""

#: What differs between two looks at the same thing: a bridge's and its ports' running timers.
_TIMERS = frozenset(
    {
        *("hello_timer", "tcn_timer", "topology_change_timer", "gc_timer"),
        *("hold_timer", "message_age_timer", "forward_delay_timer", "topology_change_detected"),
    }
)

#: A MAC address; in a bridge's id iproute2 leaves out leading zeros.
_MAC = re.compile(r"\b[0-9a-f]{1,2}(?::[0-9a-f]{1,2}){5}\b")

Raw = dict[str, list[Any]]


def raw(node: LocalNode, *, macs: bool = True) -> Raw:
    """What iproute2 prints about the node and about each machine held there, without timers.

    Args:
        macs: show MACs as they are; else random ones by the interface that has them.
    """
    places: dict[str, list[str]] = {node.name if macs else "": []} | {
        name: ["nsenter", "-t", str(process.pid), "-n"]
        for name, process in sorted(node.snapshot().machines.items())
        if process.alive
    }
    looks = {where: node.run([*enter, "sh", "-c", _LOOK]) for where, enter in places.items()}
    assert [look.err for look in looks.values() if look.err] == []
    texts = {where: _MAC.sub(_padded, look.out) for where, look in looks.items()}
    if not macs:
        texts = _named_macs(texts)
    rows = {where: map(json.loads, text.splitlines()) for where, text in texts.items()}
    return {where: [_plain(each) for each in lines] for where, lines in rows.items()}


def _padded(mac: re.Match[str]) -> str:
    return ":".join(byte.zfill(2) for byte in mac[0].split(":"))


def _named_macs(texts: dict[str, str]) -> dict[str, str]:
    """Put an interface's name where its random MAC is: in bridge ids and FDB entries, too.

    A bridge takes the lowest MAC of its ports, so that this says the same of two bridges only if
    they have no more than one port.
    """
    names: dict[str, str] = {}
    for where, text in texts.items():
        for link in json.loads(text.splitlines()[0]):
            mac = link.get("address", "")
            # lo has 00:00..., and vxlab's own begin with 02:00.
            if mac and not mac.startswith(("00:00", "02:00")):
                names.setdefault(mac, f"MAC of {where}/{link['ifname']}")
    for mac, name in names.items():
        texts = {where: text.replace(mac, name) for where, text in texts.items()}
    return texts


def _plain(value: Any) -> Any:
    """Without timers and empty rows; rows in an order that does not hang on MACs."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items() if key not in _TIMERS}
    if isinstance(value, list):
        return sorted((_plain(each) for each in value if each != {}), key=repr)
    return value


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """How two looks differ, a line each."""
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        one, other = dict(enumerate(one)), dict(enumerate(other))
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return [] if one == other else [f"{where}: {one} != {other}"]
    return [
        line
        for key in sorted(one.keys() | other.keys())
        for line in differences(one.get(key, "-"), other.get(key, "-"), f"{where}/{key}")
    ]


def settled(compare: Callable[[], list[str]], seconds: float = 10.0) -> list[str]:
    """What still differs when time is up; the kernel tells of a link's carrier with some delay."""
    deadline = time.monotonic() + seconds
    while (found := compare()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def quiet(node: LocalNode, seconds: float = 10.0) -> Raw:
    """A look at the node when the kernel has told of the carrier of every link that is up."""
    deadline = time.monotonic() + seconds
    while busy := _without_carrier_news(look := raw(node)):
        assert time.monotonic() < deadline, f"the kernel does not tell the carrier of {busy}"
        time.sleep(0.02)
    return look


def _without_carrier_news(look: Raw) -> list[str]:
    links = [link for rows, *_ in look.values() for link in rows]
    # lo has no carrier to tell, and a bridge only once it has a port.
    bridges = {link["ifname"] for link in links if "bridge" in str(link.get("linkinfo"))}
    silent = {"lo", *bridges} - {link.get("master") for link in links}
    return [
        link["ifname"]
        for link in links
        if "UP" in link["flags"] and link["ifname"] not in silent
        if link["operstate"] == "UNKNOWN" or not {"LOWER_UP", "NO-CARRIER"} & set(link["flags"])
    ]


# --- operations that several modules try ----------------------------------------------------------

BRIDGE = AddBridge(name="cbr0")
CABLE = AddVeth(name="vethlocal", peer="vethNS", peer_ns="demo")
INSIDE = (
    CABLE,
    AddAddress(name="vethNS", address="10.5.1.10/24", ns="demo"),
    SetUp(name="vethNS", ns="demo"),
)
DEFAULT = AddRoute(dst="default", via="10.5.1.1", dev="vethNS", ns="demo")
NEAR = "10.5.1.2 02:00:00:00:00:02"


@dataclass(frozen=True)
class Case:
    """An operation, and what has to be there before it."""

    op: Op
    given: tuple[Op, ...] = ()
    said: tuple[str, ...] = ()  # the kernel's words, one of these, if it is refused

    def __str__(self) -> str:
        return str(self.op)[:60]
