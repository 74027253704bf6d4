"""The demo: the whole talk on real nodes, and what happens where reality differs from it."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from golden import agrees
from lablib import LAB, Home, cleaned, host_links, leftovers, one_error, told
from test_user import machine, place
from vxlab import binaries

__all__ = ["machine", "place"]  # an ordinary user's vxlab

pytestmark = LAB

#: The talk's lab with subnets that do not change from run to run.
PINNED = """\
nodes:
  node01: {subnet: 10.5.11.0/24}
  node02: {subnet: 10.5.12.0/24}
"""

#: What differs from run to run, or with the versions of iproute2, etcd and flannel.
VARIES = (
    (r"(?m)^  \{\"level\".*$", "  {...}"),
    (r"(?m)^  (root|\d+) .*etcd.*$", "  (etcd)"),
    (r"\S+/(etcd|flanneld|busybox)(?= )", r"\1"),
    (r"\b[0-9a-f]{16}, started", "MEMBER, started"),
    (r"([0-9a-f]{2}:){5}[0-9a-f]{2}", "MAC"),
    (r"(?m)^  (    )?\d+: (\S+?)(@\w+)?: <.*> (mtu \d+) .*$", r"  N: \2: \4"),
    (r"(?m)^ +(vxlan id \d+) local (\S+) .*(dstport \d+) nolearning.*$", r"  \1 local \2 \3"),
    (r"(?m)^( +link/\w+ MAC brd MAC).*$", r"\1"),
    (r"\beth0@if\d+", "eth0"),
    (r'"PublicIPv6":null,', ""),
    (r"time=[\d.]+ ms", "time=T"),
    (r"(?m)^  round-trip.*$", "  round-trip T"),
    (r"port \d+ → 8472", "port N → 8472"),
    (r"request, id \d+", "request, id N"),
    (r"(?m)^  State .*\bLocal Address.*$", "  State  Local Address"),
    (r"(?m)^  UNCONN .*(0\.0\.0\.0:8472)\s.*$", r"  UNCONN \1"),
    (r"(?m)^ +\d+ root +\{ps\}.*$", "  (ps)"),
    (r"(?m)^ +\d+ root +\S*busybox sleep.*$", "  1 sleep"),
    (r" +valid_lft.*\n", ""),
    (r"(?m) +$", ""),
    (r"(?<=\S) {2,}", "  "),
    (r"─+", "─"),
)


def filtered(text: str) -> str:
    for pattern, instead in VARIES:
        text = re.sub(pattern, instead, text)
    return text


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A private VXLAB_HOME; a terminal there is 80 columns wide."""
    own = Home(tmp_path / "vxlab-home", env={"COLUMNS": "80"})
    yield own
    cleaned(own)
    assert leftovers(own.path) == []


# --- the whole talk -----------------------------------------------------------------------------


def test_the_whole_talk(home: Home, tmp_path: Path) -> None:
    """Every command, every failure, every output, in the talk's order; then an ordinary lab."""
    file = tmp_path / "pinned.yaml"
    file.write_text(PINNED)
    links = host_links()
    done = home("demo", str(file), "--auto", "--delay", "0", COLUMNS="1000")
    assert done.returncode == 0, told(done)
    agrees("demo/talk.txt", filtered(done.stdout))
    assert host_links() == links
    for there in ("container01", "node01"):
        assert " mtu " not in home.sh(there, "ip route get 10.5.12.10")  # what was refused is past
    assert home.failed() == set()
    assert home.json("status")["drift"] == []
    assert home.json("up")["changes"] == []


def test_it_fits_80_columns(home: Home) -> None:
    """No line is left to the terminal to break, whatever flannel chose; plain text in a pipe."""
    lines = home.ok("demo").splitlines()
    assert [line for line in lines if len(line) > 80 or "\x1b" in line] == []
    failing = [line for line in lines if "Network is unreachable" in line and "sendto" in line]
    assert len(failing) == 2


def test_as_an_ordinary_user(machine: Path, place: Home) -> None:
    """Without any right on this machine: captures, refused packets and all."""
    etcdctl = binaries.find(lambda line: None).etcdctl
    assert etcdctl is not None
    shutil.copy(etcdctl.path, machine / "bin" / "etcdctl")
    (machine / "bin/etcdctl").chmod(0o755)
    links = host_links()
    shown = place.ok("demo", "--auto", "--delay", "0")
    assert "is now an ordinary lab" in shown
    assert "fragment 1480-1529" in shown
    assert place.failed() == set()
    place.ok("teardown")
    assert host_links() == links


# --- what it refuses ----------------------------------------------------------------------------


def test_a_lab_that_is_up_is_left_alone(home: Home) -> None:
    """The talk begins with nothing; nothing is torn down for it."""
    home.ok("up", "--to", "config")
    message = one_error(home("demo"), 64)
    assert "vxlab teardown talk" in message
    assert "etcd" in home.sh("node01", "ps -ef")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("overlay: {backend: {Type: host-gw}}", "is about VXLAN"),
        ("overlay: {backend: {Type: vxlan, DirectRouting: true}}", "is about VXLAN"),
        ("nodes: {a: , b: {containers: 0}}", "two nodes with a container each"),
        (
            "nodes: {a: {ssh: a.test, interface: eth0}, b: {ssh: b.test, interface: eth0}}",
            "on this machine only",
        ),
    ],
)
def test_labs_that_the_talk_is_not_about(
    home: Home, tmp_path: Path, text: str, reason: str
) -> None:
    """They are refused before anything is made."""
    file = tmp_path / "other.yaml"
    file.write_text(text)
    assert reason in one_error(home("demo", str(file)), 64)
    assert leftovers(home.path) in ([], [f"directory {home.path}"])


def test_commands_that_the_demo_lacks(home: Home, tmp_path: Path) -> None:
    """It is told which, before anything is made."""
    from vxlab.engine.walk.looking import need_programs
    from vxlab.errors import MissingError
    from vxlab.labfile import default
    from vxlab.steps.site import Site

    place = str(tmp_path / "etcd")
    with pytest.raises(MissingError, match="etcdctl"):
        need_programs(Site(default(), "/lab", place, place, place, "/bin"))


# --- keys ---------------------------------------------------------------------------------------

PROMPT = "Enter runs it"


class Terminal:
    """The demo on a terminal of its own: what it shows, and keys for it."""

    def __init__(self, home: Home, *words: str) -> None:
        self.main, side = pty.openpty()
        # The terminal has to be the session's own, or a shell could not take and give it.
        lead = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        become = "os.execv(sys.executable, [sys.executable, '-m', 'vxlab', *sys.argv[1:]])"
        self.process = subprocess.Popen(
            [sys.executable, "-c", lead + become, "demo", *words],
            stdin=side,
            stdout=side,
            stderr=side,
            env={**home.environment, "TERM": "xterm", "NO_COLOR": "1"},
            start_new_session=True,
        )
        os.close(side)
        self.shown = ""
        self._read = 0

    def key(self, text: str, then: str) -> str:
        """Press keys and wait until something is shown; all that was shown meanwhile."""
        os.write(self.main, text.encode())
        return self.wait(then)

    def wait(self, for_what: str) -> str:
        """Wait until a text is shown that was not waited for before."""
        deadline = time.monotonic() + 60
        while for_what not in self.shown[self._read :]:
            assert time.monotonic() < deadline, f"no {for_what!r} in {self.shown!r}"
            if select.select([self.main], [], [], 0.2)[0]:
                try:
                    more = os.read(self.main, 65536)
                except OSError:  # EIO: the demo has ended
                    more = b""
                assert more, f"it ended without {for_what!r}: {self.shown}"
                self.shown += more.decode(errors="replace")
        begun = self._read
        self._read = self.shown.index(for_what, begun) + len(for_what)
        return self.shown[begun : self._read]

    def end(self) -> int:
        """Wait for the end of the demo; its exit code."""
        while True:
            try:
                more = os.read(self.main, 65536)
            except OSError:
                break
            if not more:
                break
            self.shown += more.decode(errors="replace")
        return self.process.wait(timeout=60)


@pytest.fixture
def terminal(home: Home) -> Iterator[Terminal]:
    """A demo that waits for its first key."""
    one = Terminal(home)
    try:
        one.wait(PROMPT)
        yield one
    finally:
        one.process.kill()
        one.process.wait()
        os.close(one.main)


def stages(terminal: Terminal, last: str) -> None:
    """Enter, until the stage of that name is the next one."""
    while f"· {last}: " not in terminal.key("\n", PROMPT):
        pass


def test_nothing_is_built_before_the_first_key(home: Home, terminal: Terminal) -> None:
    """Help, no shell yet, and q: as if nothing had been."""
    assert "this help" in terminal.key("?", PROMPT)
    assert "nothing is built yet" in terminal.key("s", PROMPT)
    os.write(terminal.main, b"q")
    assert terminal.end() == 0
    assert "nothing was built" in terminal.shown
    assert home.json("ls") == []


def test_a_shell_in_the_middle_and_quitting(home: Home, terminal: Terminal) -> None:
    """The talk's failing ping by hand; then the demo goes on, is left, and `up` builds the rest."""
    stages(terminal, "bridge")
    assert "[container01] " in terminal.key("s", "[container01] ")
    terminal.key("\n", "container01:/# ")
    terminal.key("ping -c 1 10.5.0.1\n", "Network is unreachable")
    terminal.wait("container01:/# ")
    terminal.key("exit\n", "back in the demo")
    terminal.wait(PROMPT)
    terminal.key("s", "[container01] ")
    terminal.key("node02\n", "node02:")
    terminal.key("hostname; exit\n", "back in the demo")
    terminal.wait(PROMPT)
    assert "the gateway answers" in terminal.key("\n", PROMPT)
    os.write(terminal.main, b"q")
    assert terminal.end() == 0
    assert "talk is kept as it is after bridge" in terminal.shown
    assert "route" in {change["step"] for change in home.json("up")["changes"]}
    assert home.failed() == set()


def test_quitting_with_the_larger_mtu(home: Home, terminal: Terminal) -> None:
    """Before the last stage only the cables have 1500, which `up` mends."""
    stages(terminal, "packet")
    os.write(terminal.main, b"q")
    assert terminal.end() == 0
    assert home.failed() == {"mtu"}
    assert {change["step"] for change in home.json("up")["changes"]} == {"mtu"}
    assert home.failed() == set()


def test_a_ping_that_should_fail_otherwise(home: Home, terminal: Terminal) -> None:
    """Somebody gives the container its route too early: the demo tells, and keeps the lab."""
    stages(terminal, "bridge")
    gateway = "$(ip route | sed -n 's,[.]0/24.*,.1,p')"
    home.sh("container01", f"ip route add default via {gateway}")
    os.write(terminal.main, b"\n")
    assert terminal.end() == 1
    shown = terminal.shown[terminal.shown.index("This is not what the talk says") :]
    assert "expected  in the output: Network is unreachable" in shown
    assert "seen      it is not there" in shown
    assert "is kept" in shown
    assert home.json("status")["lab"] == "talk"
    home.ok("up")
    assert home.failed() == set()


def test_a_gateway_that_does_not_answer(home: Home, terminal: Terminal) -> None:
    """What should work and does not is told with its exit code."""
    stages(terminal, "bridge")
    home.sh("container01", "ip link set vethNS down")
    os.write(terminal.main, b"\n")
    assert terminal.end() == 1
    assert "expected  the command succeeds" in terminal.shown
    assert "seen      it ended with exit code 1" in terminal.shown


def test_packets_that_become_something_else(home: Home, terminal: Terminal) -> None:
    """Who wants fragments and finds none on the wire tells what was there instead."""
    stages(terminal, "wire")
    # The other node's end of the cable drops what is larger than this.
    home.sh("node02", "ip link set eth0 mtu 1000")
    os.write(terminal.main, b"\n")
    assert terminal.end() == 1
    assert "two outer packets, each with a fragment of the inner one" in terminal.shown
    assert "no answer within" in terminal.shown
    home.ok("up")
    assert home.failed() == set()
