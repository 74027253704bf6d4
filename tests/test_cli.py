"""The command line as a user meets it: help, mistakes, exit codes, and output for programs.

Most of these need no lab that is up; those that do are marked ``lab``.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

import click
import pytest

import talk
import vxlab.cli
from conftest import Vxlab, run
from lablib import LAB
from vxlab import __version__, errors
from vxlab.checks import CHECKS
from vxlab.cli import COMMANDS
from vxlab.cli.where import find
from vxlab.engine.running import save
from vxlab.errors import UsageError, VxlabError
from vxlab.journal import LabDirectory, boot_id
from vxlab.labfile import LabFileError
from vxlab.steps import steps_of

EVERY = pytest.mark.parametrize("name", COMMANDS)
VXLAB = [sys.executable, "-m", "vxlab"]

Test = TypeVar("Test", bound=Callable[..., None])


def needs_lab(test: Test) -> Test:
    """A test that builds a lab; skipped, loudly, where etcd or flanneld are missing."""
    for mark in (pytest.mark.kernel, *LAB):
        test = mark(test)
    return test


def command_of(name: str) -> click.Command:
    command = importlib.import_module(f"vxlab.cli.{name}").command
    assert isinstance(command, click.Command)
    return command


def stored(home: Path, name: str = "talk", **world: Any) -> LabDirectory:
    """A lab that was up before this machine was restarted, or whose world is as given."""
    directory = LabDirectory(name)
    with directory.locked("test", create=True):
        save(directory, talk.site())
        record = {"pid": 1, "start": 1, "boot": "another boot", **world}
        directory.append({"world": record})
    return directory


def plain(done: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    """Exit code, output, errors of a command that behaved: no traceback, no colours in a pipe."""
    assert "Traceback" not in done.stderr + done.stdout
    assert "\x1b" not in done.stderr + done.stdout
    return done.returncode, done.stdout, done.stderr


# --- help ---------------------------------------------------------------------------------------


def test_help_lists_every_command() -> None:
    """By what a user wants to do, each with its line, on a terminal of 80 columns."""
    code, out, err = plain(run("--help"))
    assert (code, err) == (0, "")
    listed = re.findall(r"^  (\w+) {2,}(\S.*)$", out.partition("Build:")[2], re.MULTILINE)
    assert dict(listed) == {name: line for name, (_, line) in COMMANDS.items()}
    assert [line for line in out.splitlines() if len(line) > 80] == []


@EVERY
def test_every_command_has_help(name: str) -> None:
    """Its arguments, what it does, its options; it fits the terminal."""
    code, out, err = plain(run(name, "--help"))
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: vxlab {name} ")
    assert [line for line in out.splitlines() if len(line) > 80] == []


@EVERY
def test_every_option_has_help(name: str) -> None:
    """And every command a sentence, which the table's line does not contradict."""
    command = command_of(name)
    assert command.name == name
    assert command.help
    assert command.help.splitlines()[0].endswith((".", ":", "or"))
    options = [p for p in command.params if isinstance(p, click.Option)]
    assert [option.name for option in options if not option.help] == []


def test_the_table_and_the_modules_agree() -> None:
    """Every module with a command is in the table, and the other way round."""
    folder = Path(vxlab.cli.__file__).parent
    modules = {
        path.stem
        for path in folder.glob("*.py")
        if any(
            isinstance(node, ast.FunctionDef) and node.name == "command"
            for node in ast.parse(path.read_text(encoding="utf-8")).body
        )
    }
    assert modules == set(COMMANDS)


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version(option: str) -> None:
    """The package's own."""
    assert plain(run(option)) == (0, f"vxlab, version {__version__}\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    """A script that names vxlab; the shell itself can read it."""
    code, out, err = plain(run("completion", shell))
    assert (code, err) == (0, "")
    assert "_VXLAB_COMPLETE" in out
    if shutil.which(shell):
        read = subprocess.run([shell, "-n"], input=out, text=True, check=False, timeout=20)
        assert read.returncode == 0


# --- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("upp", "did you mean `vxlab up`?"),
        ("down", "did you mean `vxlab teardown`?"),
        ("verfy", "did you mean `vxlab verify`?"),
        ("xyzzy", "see `vxlab --help`"),
        ("", "see `vxlab --help`"),
    ],
)
def test_an_unknown_command(word: str, hint: str) -> None:
    """The nearest one is suggested."""
    assert plain(run(word)) == (64, "", f"error: there is no command {word!r}\n  do     {hint}\n")


@pytest.mark.parametrize(
    "words",
    [
        ["--nope"],
        ["up", "--nope"],
        ["up", "--nodes"],
        ["up", "--nodes", "many"],
        ["up", "--nodes", "0"],
        ["up", "one", "two"],
        ["verify", "--junit"],
        ["exec"],
        ["exec", "node01"],
        ["logs"],
        ["logs", "kubelet"],
        ["logs", "etcd", "-n", "-1"],
        ["completion", "tcsh"],
    ],
    ids=" ".join,
)
def test_a_bad_command_line(words: list[str], home: Path) -> None:
    """Exit code 64 and a sentence; nothing is made."""
    code, out, err = plain(run(*words))
    assert (code, out) == (64, "")
    assert "Error: " in err
    assert not home.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["status"], "there is no lab called 'talk'"),
        (["verify"], "there is no lab called 'talk'"),
        (["verify", "mine"], "there is no lab called 'mine'"),
        (["shell"], "there is no lab called 'talk'"),
        (["exec", "node01", "true"], "there is no lab called 'talk'"),
        (["exec", "--lab", "mine", "node01", "--", "true"], "there is no lab called 'mine'"),
        (["logs", "etcd"], "there is no lab called 'talk'"),
        (["up", "mine"], "there is no lab called 'mine'"),
        (["up", "Not A Name"], "'Not A Name' is neither a lab file nor a lab's name"),
        (["up", ""], "'' is neither a lab file nor a lab's name"),
        (["teardown", ".."], "'..' is neither a lab file nor a lab's name"),
        (["status", "a" * 32], f"'{'a' * 32}' is neither a lab file nor a lab's name"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_lab_that_is_not_there(words: list[str], message: str, home: Path) -> None:
    """Exit code 64, what to do instead, and nothing is made."""
    code, out, err = plain(run(*words))
    assert (code, out, err.splitlines()[0]) == (64, "", f"error: {message}")
    assert err.splitlines()[1].startswith("  do     ")
    assert not home.exists()


def test_a_name_that_is_no_text(home: Path) -> None:
    """A byte that is not UTF-8 is shown as such."""
    done = subprocess.run([*VXLAB, b"up", b"\xff"], capture_output=True, check=False, timeout=60)
    assert (done.returncode, b"Traceback" in done.stderr) == (64, False)


def test_which_of_several_labs(home: Path) -> None:
    """None is guessed, unless the talk's is among them."""
    for name in ("first", "second"):
        stored(home, name)
    code, _, err = plain(run("status"))
    assert (code, err.splitlines()[0]) == (64, "error: which lab? There are first, second")


@pytest.mark.parametrize("words", [["up"], ["teardown"], ["status"]], ids=" ".join)
def test_a_lab_file_that_is_wrong(words: list[str], home: Path, tmp_path: Path) -> None:
    """Exit code 65, with file and line; nothing is made."""
    file = tmp_path / "bad.yaml"
    file.write_text("name: talk\nunderlay:\n  mtu: 12\n")
    code, out, err = plain(run(*words, str(file)))
    assert (code, out) == (65, "")
    assert f"{file}:3" in err
    assert not home.exists()


def test_nodes_scale_the_talks_lab_only(home: Path, tmp_path: Path) -> None:
    """A lab file says itself how many nodes it has."""
    (tmp_path / "lab.yaml").write_text("name: mine\n")
    code, _, err = plain(run("up", str(tmp_path / "lab.yaml"), "--nodes", "3"))
    assert (code, err) == (64, "error: --nodes scales the talk's lab, not a lab file\n")


def test_a_lab_file_that_is_not_there(home: Path) -> None:
    """A path is a path, also where nothing is."""
    code, _, err = plain(run("up", "./none.yaml"))
    assert code == 65
    assert "no such file" in err


def test_exit_codes_are_those_of_the_drawing() -> None:
    """The tree at the top of `vxlab.errors` is right, and every error of the package is in it."""
    drawn = dict(re.findall(r"(\w+Error) +(\d+) ", errors.__doc__ or ""))
    kinds: list[type[VxlabError]] = [*VxlabError.__subclasses__(), errors.DaemonError]
    assert LabFileError in kinds
    known = {k.__name__: str(k.exit_code) for k in kinds if k.__module__.startswith("vxlab.")}
    assert known == drawn


# --- damage -------------------------------------------------------------------------------------


def test_a_lab_that_another_command_works_on(home: Path) -> None:
    """Exit code 75, and which command it is."""
    with LabDirectory("talk").locked("vxlab up", create=True):
        for words in (["up"], ["teardown"]):
            code, out, err = plain(run(*words))
            assert (code, out) == (75, "")
            assert f"another command works on the lab 'talk': vxlab up (PID {os.getpid()})" in err


def test_a_journal_that_is_damaged(home: Path) -> None:
    """Exit code 74 and the way out, which works."""
    directory = stored(home)
    directory.journal.write_text("garbage\n")
    for words in (["status"], ["verify"], ["teardown"], ["up"]):
        code, _, err = plain(run(*words))
        assert code == 74
        assert "`vxlab teardown talk --force`" in err
    assert "damaged" in run("ls").stdout
    assert plain(run("teardown", "--force")) == (0, "talk is gone\n", "")
    assert not directory.path.exists()


@pytest.mark.parametrize("file", ["lab.json", "site.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"nodes": 7}'])
def test_a_stored_lab_that_is_damaged(home: Path, file: str, content: bytes) -> None:
    """Exit code 74; a teardown still works, since it needs the journal alone."""
    directory = stored(home)
    (directory.path / file).write_bytes(content)
    if (file, content) != ("lab.json", b""):  # an empty lab file is the talk's lab
        code, _, err = plain(run("verify"))
        assert (code, "teardown talk --force" in err) == (74, True)
    plain(run("ls"))
    assert plain(run("teardown"))[0] == 0


def test_a_lab_after_a_restart_of_the_machine(home: Path) -> None:
    """It is down, which is said, and what can be done about it."""
    stored(home)
    code, out, err = plain(run("status"))
    assert (code, err) == (1, "")
    assert "was this machine restarted?" in out
    assert json.loads(run("status", "--json").stdout)["up"] is False
    code, _, err = plain(run("verify"))
    assert (code, err.splitlines()[0][:34]) == (64, "error: the lab 'talk' is not runni")
    assert json.loads(run("ls", "--json").stdout)[0]["state"] == "down"
    assert plain(run("teardown")) == (0, "talk is gone\n", "")


def test_a_strangers_process_is_left_alone(home: Path) -> None:
    """The recorded PID is alive, but it is another process by now."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        stored(home, pid=stranger.pid, start=1, boot=boot_id())
        assert plain(run("teardown")) == (0, "talk is gone\n", "")
        assert stranger.poll() is None
        stranger.communicate(b"\n")


# --- output for programs ------------------------------------------------------------------------


def test_json_where_there_is_nothing(home: Path) -> None:
    """A document in any case."""
    assert json.loads(run("ls", "--json").stdout) == []
    gone = {"lab": "talk", "existed": False, "ran": False}
    assert json.loads(run("teardown", "--json").stdout) == [gone]
    assert json.loads(run("teardown", "--all", "--json").stdout) == []


@pytest.mark.parametrize("command", ["up", "verify", "status"])
def test_an_error_is_a_document_too(command: str, home: Path) -> None:
    """With --json stdout holds the error's stable form; stderr is for people, as ever."""
    done = run(command, "mine", "--json")
    document = json.loads(done.stdout)
    assert (document["error"], document["exit_code"]) == ("UsageError", done.returncode)
    assert document["message"] in done.stderr


def test_ls_of_stored_labs(home: Path) -> None:
    """Name, state, size, place."""
    directory = stored(home)
    assert json.loads(run("ls", "--json").stdout) == [
        {"lab": "talk", "state": "down", "nodes": 2, "directory": str(directory.path)}
    ]
    assert run("ls").stdout.splitlines()[1].split() == ["talk", "down", "2", str(directory.path)]


def test_schema() -> None:
    """A JSON schema."""
    assert json.loads(run("schema").stdout)["$schema"].startswith("https://json-schema.org/")


@pytest.mark.parametrize("words", [["schema"], ["ls"], ["ls", "--json"]], ids=" ".join)
def test_a_reader_that_goes_away(words: list[str], home: Path) -> None:
    """``vxlab schema | head -0``: no traceback; the exit code is a shell's for SIGPIPE."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*VXLAB, *words], stdout=writing, stderr=subprocess.PIPE, check=False, timeout=60
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def on_terminal(*words: str, **env: str) -> str:
    """What a terminal shows."""
    main, side = pty.openpty()
    with subprocess.Popen(
        [*VXLAB, *words],
        stdin=side,
        stdout=side,
        stderr=side,
        env={**os.environ, "TERM": "xterm", **env},
    ):
        os.close(side)
        shown = b""
        while True:
            try:
                more = os.read(main, 4096)
            except OSError:  # EIO: the other side is closed
                break
            if not more:
                break
            shown += more
    os.close(main)
    return shown.decode()


def test_colours_on_a_terminal(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a person looks, and only if NO_COLOR does not forbid it."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[31merror:\x1b[0m" in on_terminal("status")
    assert "\x1b" not in on_terminal("status", NO_COLOR="1")
    assert "\x1b" not in on_terminal("status", TERM="dumb")


# --- places -------------------------------------------------------------------------------------


class Lab:
    """As much of a running lab as a place needs."""

    def __init__(self, text: str) -> None:
        from vxlab import labfile

        self.site = talk.site(labfile.loads(text, "test"))


TWINS = "nodes: {node01: {containers: [web, db]}, node02: {containers: [web]}}"


@pytest.mark.parametrize(
    ("word", "place"),
    [
        ("node01", ("node01", "")),
        ("switch", ("switch", "")),
        ("db", ("node01", "db")),
        ("node01/web", ("node01", "web")),
        ("node02/web", ("node02", "web")),
    ],
)
def test_places(word: str, place: tuple[str, str]) -> None:
    """A node, the switch, a container by its name, or with its node."""
    running: Any = Lab(TWINS)
    assert find(running.site.lab, word) == place


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("web", "'web' may be any of node01/web, node02/web"),
        ("node03", "the lab 'talk' has no node or container 'node03'"),
        ("node02/db", "the lab 'talk' has no node or container 'node02/db'"),
    ],
)
def test_places_that_are_none(word: str, message: str) -> None:
    """What there is, or which of several."""
    running: Any = Lab(TWINS)
    with pytest.raises(UsageError) as caught:
        find(running.site.lab, word)
    assert caught.value.message == message
    assert caught.value.hint


# --- a lab that is up ---------------------------------------------------------------------------


def parsed(done: subprocess.CompletedProcess[str], code: int = 0) -> Any:
    """The one document of a command with --json."""
    assert (done.returncode, done.stderr) == (code, "")
    return json.loads(done.stdout)


@needs_lab
def test_output_for_programs_of_a_whole_lab(vxlab: Vxlab, tmp_path: Path) -> None:
    """up, status, verify, exec, ls and teardown, as a program uses them."""
    built = parsed(vxlab("up", "--json"))
    assert (built["lab"], built["fresh"]) == ("talk", True)
    assert [s["step"] for s in built["steps"]] == [s.name for s in steps_of(talk.TALK)]
    assert sum(s["changes"] for s in built["steps"]) == len(built["changes"])

    status = parsed(vxlab("status", "--json"))
    assert (status["up"], status["drift"], len(status["nodes"])) == (True, [], 2)

    report = tmp_path / "report.xml"
    proven = parsed(vxlab("verify", "--json", "--junit", str(report)))
    assert [c["code"] for c in proven["checks"]] == [c.code for c in CHECKS]
    assert proven["ok"] is True
    suite = ElementTree.parse(report).getroot()  # noqa: S314 - vxlab wrote it
    findings = sum(len(c["findings"]) for c in proven["checks"])
    assert (len(suite), suite.get("tests"), suite.get("failures")) == (findings, str(findings), "0")

    assert parsed(vxlab("ls", "--json"))[0]["state"] == "up"
    assert parsed(vxlab("up", "--json"))["changes"] == []
    assert parsed(vxlab("teardown", "--json")) == [{"lab": "talk", "existed": True, "ran": True}]


@needs_lab
def test_commands_in_a_lab(vxlab: Vxlab) -> None:
    """The exit code is the command's; options behind the place are the command's, too."""
    assert vxlab("up").returncode == 0
    seen = [
        vxlab("exec", "node01", "--", "hostname").stdout,
        vxlab("exec", "container02", "hostname").stdout,
        vxlab("exec", "node01", "sh", "-c", "exit 7").returncode,
        vxlab("exec", "node01", "ls", "--json").returncode != 0,
        plain(vxlab("exec", "node09", "true"))[0],
        plain(vxlab("logs", "etcd", "--node", "node02"))[0],
        len(plain(vxlab("logs", "flannel", "-n", "1"))[1].splitlines()),
    ]
    assert seen == ["node01\n", "container02\n", 7, True, 64, 64, 2]


@needs_lab
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_stopped(vxlab: Vxlab, number: signal.Signals) -> None:
    """Ctrl-C or a service manager's stop: exit code 130 and no traceback."""
    assert vxlab("up").returncode == 0
    with subprocess.Popen(
        [*VXLAB, "logs", "etcd", "-f"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as following:
        assert following.stdout is not None
        following.stdout.readline()
        following.send_signal(number)
        _, err = following.communicate(timeout=20)
    assert (following.returncode, "Traceback" in err) == (130, False)


@needs_lab
def test_a_lab_that_differs_is_not_overwritten(vxlab: Vxlab, tmp_path: Path) -> None:
    """Another lab under the same name: the first has to go, or the second be called otherwise."""
    assert vxlab("up").returncode == 0
    (tmp_path / "other.yaml").write_text("name: talk\nunderlay: {mtu: 9000}\n")
    code, _, err = plain(vxlab("up", str(tmp_path / "other.yaml")))
    assert (code, "was built from another lab file" in err) == (64, True)
    assert vxlab("verify").returncode == 0
