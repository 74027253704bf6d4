"""The shell program: any sh can read it, its marks are understood, it stops where it fails."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace

import pytest

import kernel
from bare_machine import real_busybox
from kernel import KERNEL, Place, by_script, in_child
from vxlab import ops
from vxlab.errors import OperationError
from vxlab.ops import Op
from vxlab.script import Reading, judge, program

programs, directory, place = kernel.programs, kernel.directory, kernel.place

#: One of each, with names that a shell would take apart.
ODD = 'it\'s "$(touch /run/oops)" `reboot` \\n %s'
EVERY: tuple[Op, ...] = (
    ops.AddBridge(name="cbr0"),
    ops.AddBridge(name="cbr0", ns="demo"),
    ops.AddVeth(name="vethlocal", peer="vethNS", peer_ns="demo"),
    ops.DelLink(name="cbr0"),
    ops.DelLink(name="cbr0", ns="demo"),
    ops.SetMaster(name="vethlocal", master="cbr0"),
    ops.SetMaster(name="vethlocal", master=""),
    ops.SetMtu(name="cbr0", mtu=1450),
    ops.SetUp(name="cbr0"),
    ops.SetMac(name="cbr0", mac="02:00:00:00:00:01"),
    ops.SetAlias(name="cbr0", alias=ODD),
    ops.AddAddress(name="cbr0", address="10.5.1.1/24"),
    ops.DelAddress(name="cbr0", address="10.5.1.1/24"),
    ops.AddRoute(dst="default", via="10.5.1.1", dev="cbr0"),
    ops.DelRoute(dst="default", via="", dev="cbr0"),
    ops.AddNeighbours(name="cbr0", entries=("10.5.1.2 02:00:00:00:00:02",)),
    ops.AddNeighbours(name="cbr0", entries=("10.5.1.2 02:00:00:00:00:02",), ns="demo"),
    ops.SetSysctl(key="net.ipv4.ip_forward", value=ODD),
    ops.PutKey(key="/coreos.com/network/config", value=ODD),
    ops.StartDaemon(name="odd", command=("echo", ODD, ""), log="/var/log/odd.log"),
    ops.StartFlanneld(name="odd", command=("echo", ODD, ""), log="/var/log/odd.log"),
    ops.StopDaemon(name="odd"),
    ops.StartNode(name="node01", directory=ODD, hosts=ODD, busybox=ODD),
    ops.StartContainer(name="demo", root=ODD, programs=ODD, ipv6=True),
    ops.StopMachine(name="demo"),
    ops.MakePlace(path=ODD),
    ops.MakePlace(path=ODD, directory=False),
    ops.PutFile(path=f"/run/{ODD}/file", text=ODD),
    ops.Remove(path=ODD),
    ops.FlushRoutes(network="10.5.0.0/16"),
    ops.RestoreFirewall(policy="DROP", table=False, chain=False),
)

UP, MTU, BRIDGE = ops.SetUp(name="lo"), ops.SetMtu(name="lo", mtu=1450), ops.AddBridge(name="cbr0")


def judged(todo: Sequence[Op], output: str) -> tuple[list[Op], str, str]:
    """What was told as done, and message and detail of the error; empty without one."""
    told: list[Op] = []
    try:
        judge("node01", todo, output, told.append)
    except OperationError as error:
        return told, error.message, error.detail
    return told, "", ""


# --- the text -------------------------------------------------------------------------------------


def test_every_operation_is_here() -> None:
    """What this module says of all operations it says of all that there are."""
    assert {type(op).__name__ for op in EVERY} == set(ops.REGISTRY)


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
@pytest.mark.parametrize("op", EVERY, ids=lambda op: str(op)[:40])
def test_the_program_is_plain_shell(shell: str, op: Op) -> None:
    """Whatever sh a host has, it can read the program."""
    for text in (program([op]), program([op], first="umask 077\n", every=True)):
        assert_readable(shell, text)


def assert_readable(shell: str, text: str) -> None:
    path = str(real_busybox()) if shell == "busybox" else shutil.which(shell)
    if path is None:
        pytest.skip(f"NOT READ BY {shell}: it is not installed")
    words = {"busybox": ["sh", "-n"], "bash": ["--posix", "-n"], "dash": ["-n"]}
    argv = [path, *words[shell]]
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- the marks ------------------------------------------------------------------------------------


def test_all_done_is_told_in_order() -> None:
    """Each operation once, in the order in which they were asked for."""
    assert judged([UP, MTU, UP], "@@ ok 0\n@@ ok 1\n@@ ok 2\n") == ([UP, MTU, UP], "", "")
    assert judged([], "") == ([], "", "")


def test_the_one_that_failed_is_named_with_all_it_said() -> None:
    """Those before it are told as done, those after it are not."""
    output = "@@ ok 0\n@@ failed 1\nfirst line\nsecond line\n"
    expected = ([UP], f"cannot do: {MTU}", "first line\nsecond line")
    assert judged([UP, MTU, BRIDGE], output) == expected


@pytest.mark.parametrize(
    ("output", "detail"),
    [
        ("", "the program ended before this operation"),
        ("@@ ok 0\n", "the program ended before this operation"),
        ("@@ ok 0\n@@ o", "@@ o"),
        ("@@ ok 0\n@@ ok 2\n", "@@ ok 2"),
        ("nsenter: cannot open /proc/1/ns/net: No such file\n", "nsenter: cannot open"),
        ("@@ failed 0\n", "the program ended before this operation"),
        ("@@ ok 0\nKilled\n", "Killed"),
    ],
)
def test_output_that_was_cut_off_is_a_failure(output: str, detail: str) -> None:
    """Whatever was printed instead of the mark is what the user gets to see."""
    told, message, said = judged([UP, MTU], output)
    assert told == ([UP] if output.startswith("@@ ok 0") else [])
    assert message == f"cannot do: {MTU if told else UP}"
    assert said.startswith(detail)


def test_what_follows_the_last_mark_is_no_failure() -> None:
    """A warning on stderr, say."""
    assert judged([UP], "@@ ok 0\nwarning\n") == ([UP], "", "")


def test_what_comes_first_comes_first() -> None:
    """The journal is written before anything else is done, the functions included."""
    text = program([UP], first="echo first\n")
    assert text.startswith("echo first\n")
    assert text.removeprefix("echo first\n") == program([UP])


# --- live, and of a program that goes on ----------------------------------------------------------


def read(output: str, *todo: Op) -> tuple[list[Op], list[tuple[str, str]]]:
    """What was told as done, and message and detail of every failure."""
    told: list[Op] = []
    reading = Reading("node01", todo, told.append)
    for line in output.splitlines():
        reading.line(line)
    failures = reading.failures()
    assert {error.where for error in failures} <= {"node01"}
    return told, [(error.message.removeprefix("cannot do: "), error.detail) for error in failures]


def test_each_is_told_when_its_mark_comes() -> None:
    """Not at the end: progress is live."""
    told: list[Op] = []
    reading = Reading("node01", [UP, MTU], told.append)
    seen = []
    for line in ("a word from the kernel", "@@ ok 0", "another", "@@ ok 1"):
        reading.line(line)
        seen.append(list(told))
    assert seen == [[], [UP], [UP], [UP, MTU]]
    assert reading.failures() == []


@pytest.mark.parametrize(
    ("output", "told", "failed"),
    [
        (
            "@@ ok 0\n@@ failed 1\nsaid\nmore\n@@ ok 2\n",
            [UP, BRIDGE],
            [(str(MTU), "said\nmore")],
        ),
        (
            "@@ failed 0\none\n@@ failed 1\ntwo\n@@ failed 2\nthree\n",
            [],
            [(str(UP), "one"), (str(MTU), "two"), (str(BRIDGE), "three")],
        ),
        (
            "@@ failed 0\n\n@@ ok 1\nstray\n@@ failed 2\nthree\n",
            [MTU],
            [(str(UP), "it said nothing"), (str(BRIDGE), "three")],
        ),
        (
            "stray\n@@ failed 0\none\n@@ ok 1\nstray\n@@ ok 2\nstray\n",
            [MTU, BRIDGE],
            [(str(UP), "one")],
        ),
        (
            "@@ failed 0\n\n@@ failed 1\ntwo\n@@ ok 2\n",
            [BRIDGE],
            [(str(UP), "it said nothing"), (str(MTU), "two")],
        ),
        (
            "@@ failed 0\none\n@@ ok 1\nKilled\n",
            [MTU],
            [(str(UP), "one"), (str(BRIDGE), "Killed")],
        ),
        ("@@ failed 0\none\n", [], [(str(UP), "one")]),
        ("@@ failed 1\n@@ ok 2\n", [], [(str(UP), "@@ failed 1\n@@ ok 2")]),
        ("", [], [(str(UP), "the program ended before this operation")]),
    ],
)
def test_failures_belong_to_their_operations(
    output: str, told: list[Op], failed: list[tuple[str, str]]
) -> None:
    """What an operation said stands between its mark and the next."""
    assert read(output, UP, MTU, BRIDGE) == (told, failed)


# --- on a node ------------------------------------------------------------------------------------


@pytest.mark.kernel
@KERNEL[1]
@in_child
def test_odd_words_arrive_as_they_are(place: Place) -> None:
    """Nothing in an operation is taken apart or run by the shell."""
    place.enter()
    node = place.node("node01")
    text = 'printf "<%s>" "$@"; exec sleep 1000'
    words = ("sh", "-c", text, "sh", ODD, "", "two  words")
    daemon = ops.StartDaemon(name="odd", command=words, log="/var/log/odd.log")
    node.apply([BRIDGE], kernel.ignore)
    by_script(node, [ops.SetAlias(name="cbr0", alias=ODD), daemon])
    assert node.snapshot().net.links["cbr0"].alias == ODD
    kernel.wait_for(lambda: bool(node.read("/var/log/odd.log")), "the daemon's words")
    assert node.read("/var/log/odd.log") == f"<{ODD}><><two  words>"
    assert node.read("/run/oops") is None


@pytest.mark.kernel
@KERNEL[1]
@in_child
def test_nothing_after_a_failure_is_done(place: Place) -> None:
    """The program stops there; the node is as far as was told."""
    place.enter()
    node = place.node("node01")
    told: list[Op] = []
    late = ops.AddBridge(name="late")
    with pytest.raises(OperationError) as caught:
        by_script(node, [BRIDGE, ops.SetMtu(name="gone", mtu=1450), late], told.append)
    assert told == [BRIDGE]
    assert (caught.value.where, caught.value.exit_code) == ("node01", 70)
    assert sorted(node.snapshot().net.links) == ["cbr0", "lo"]


@pytest.mark.kernel
@KERNEL[1]
@in_child
def test_the_machine_that_an_operation_is_for_must_run(place: Place) -> None:
    """A container that never was: nothing is done to the node in its stead."""
    place.enter()
    node = place.node("node01")
    before = kernel.raw(node)
    for op in (ops.AddBridge(name="cbr0", ns="demo"), ops.SetUp(name="lo", ns="demo")):
        with pytest.raises(OperationError, match="demo"):
            by_script(node, [op])
    with pytest.raises(OperationError, match="vethlocal"):
        by_script(node, [ops.AddVeth(name="vethlocal", peer="vethNS", peer_ns="demo")])
    assert kernel.differences(before, kernel.raw(node)) == []


@pytest.mark.kernel
@KERNEL[1]
@in_child
def test_a_machine_that_cannot_start_is_told(place: Place) -> None:
    """Its own words, and no record of it."""
    place.enter()
    node = place.node("node01")
    assert node.run(["mkdir", "/run/odd"]).code == node.run(["touch", "/run/odd/proc"]).code == 0
    demo = place.start_container("demo")
    wrong: dict[str, Op] = {
        "/nowhere": replace(demo, programs="/nowhere"),
        "'proc'": replace(demo, root="/run/odd"),
        "/nothing": replace(place.start_node("late"), hosts="/nothing"),
    }
    for words, op in wrong.items():
        for _ in range(5):  # while it ends it may look alive
            with pytest.raises(OperationError) as caught:
                by_script(node, [op])
            assert words in caught.value.detail
    assert node.snapshot().machines == {}


@pytest.mark.kernel
@KERNEL[1]
@in_child
def test_an_undo_goes_on_after_a_failure(place: Place) -> None:
    """What cannot be taken back keeps nothing else from it; each failure has its own words."""
    place.enter()
    node = place.node("node01")
    todo = [
        BRIDGE,
        ops.SetMtu(name="gone", mtu=1450),
        ops.SetUp(name="cbr0"),
        ops.SetMaster(name="cbr0", master="lost"),
        ops.SetMtu(name="cbr0", mtu=1400),
    ]
    told: list[Op] = []
    reading = Reading("node01", todo, told.append)
    completed = node.run(["sh", "-s"], stdin=program(todo, every=True))
    for line in completed.out.splitlines():
        reading.line(line)
    assert completed.err == ""
    assert told == [todo[0], todo[2], todo[4]]
    first, second = reading.failures()
    assert (first.message, "gone" in first.detail) == (f"cannot do: {todo[1]}", True)
    assert (second.message, "lost" in second.detail) == (f"cannot do: {todo[3]}", True)
    link = node.snapshot().net.links["cbr0"]
    assert (link.up, link.mtu) == (True, 1400)


@pytest.mark.kernel
@KERNEL[1]
@in_child
def test_where_the_first_part_ends_the_program_nothing_is_done(place: Place) -> None:
    """A journal that cannot be written: its words are the first operation's failure."""
    place.enter()
    node = place.node("node01")
    text = program([BRIDGE], first="echo no space; exit\n")
    with pytest.raises(OperationError) as caught:
        judge("node01", [BRIDGE], node.run(["sh", "-s"], stdin=text).out, kernel.ignore)
    assert (caught.value.message, caught.value.detail) == (f"cannot do: {BRIDGE}", "no space")
    assert "cbr0" not in node.snapshot().net.links
