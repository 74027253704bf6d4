"""The scripts around vxlab: the plain demo, the benchmark, and what gets a machine ready."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from vxlab import binaries

SCRIPTS = Path(__file__).parent.parent / "scripts"


def write_program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


# --- plain-talk.sh --------------------------------------------------------------------------------


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The real programs for the plain script, and a place of its own for its files."""
    found = binaries.find(lambda line: None)
    assert found.etcdctl is not None
    (tmp_path / "tmp").mkdir()
    return {
        **os.environ,
        "TMPDIR": str(tmp_path / "tmp"),
        "VXLAB_ETCD": str(found.etcd.path),
        "VXLAB_ETCDCTL": str(found.etcdctl.path),
        "VXLAB_FLANNELD": str(found.flanneld.path),
        "VXLAB_BUSYBOX": str(found.busybox.path),
    }


def plain_talk(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SCRIPTS / "plain-talk.sh"), *arguments],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def leftovers(environ: dict[str, str]) -> list[str]:
    """Files and processes that a run left behind; its processes carry its directory's name."""
    place = environ["TMPDIR"]
    files = [str(path) for path in Path(place).iterdir()]
    mark = f"PLAIN_TALK_DIR={place}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes():
                files.append((process / "cmdline").read_text())
        except OSError:  # it ended meanwhile, or belongs to somebody else
            continue
    return files


@pytest.mark.kernel
@pytest.mark.lab
def test_the_plain_demo_works_and_leaves_nothing(environ: dict[str, str]) -> None:
    """Node01's container reaches node03's; both times are printed for the benchmark."""
    ended = plain_talk(environ, "--nodes", "3", "--fast-timers")

    assert (ended.returncode, ended.stderr) == (0, "")
    keys = re.findall(r"^(up_seconds|teardown_seconds)=\d+\.\d{3}$", ended.stdout, re.MULTILINE)
    assert keys == ["up_seconds", "teardown_seconds"]
    assert leftovers(environ) == []


@pytest.mark.kernel
@pytest.mark.lab
def test_a_stopped_plain_demo_leaves_nothing(environ: dict[str, str]) -> None:
    """SIGTERM while the lab is up ends all of it."""
    with subprocess.Popen(
        ["bash", str(SCRIPTS / "plain-talk.sh"), "--keep", "--fast-timers"],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as script:
        assert script.stdout is not None
        while not script.stdout.readline().startswith("the lab is up"):
            assert script.poll() is None
        assert leftovers(environ) != []
        script.terminate()
        assert script.wait() == 143

    assert leftovers(environ) == []


@pytest.mark.kernel
@pytest.mark.lab
@pytest.mark.parametrize(("arguments", "code"), [((), 1), (("--retry",), 0)])
def test_only_a_retry_gets_over_a_lost_lease(
    environ: dict[str, str], tmp_path: Path, arguments: tuple[str, ...], code: int
) -> None:
    """flanneld exits when it lost the race: with --retry it is started again, else that is said.

    A flanneld that fails once, with the real one's words, stands for the race, which is rare.
    """
    real = environ["VXLAB_FLANNELD"]
    once = tmp_path / "once"
    environ["VXLAB_FLANNELD"] = str(
        write_program(
            tmp_path / "flanneld",
            f'#!/bin/sh\nmkdir "{once}" 2>/dev/null || exec "{real}" "$@"\n'
            'echo "failed to acquire lease: subnet already exists" >&2\nexit 1\n',
        )
    )

    ended = plain_talk(environ, "--fast-timers", *arguments)

    assert ended.returncode == code
    assert ("failed to acquire lease" in ended.stderr) == (code == 1)
    assert leftovers(environ) == []


@pytest.mark.kernel
def test_the_plain_demo_does_not_wait_for_a_dead_etcd(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """etcd's last words are shown."""
    etcd = write_program(tmp_path / "etcd", '#!/bin/sh\necho "no space left" >&2\nexit 1\n')
    environ["VXLAB_ETCD"] = str(etcd)

    ended = plain_talk(environ)

    assert (ended.returncode, ended.stderr) == (1, "plain-talk: etcd died: no space left\n")
    assert leftovers(environ) == []


@pytest.mark.parametrize(
    ("arguments", "code"), [(("--nodes", "1"), 1), (("--nodes", "x"), 1), (("--nonsense",), 64)]
)
def test_the_plain_demo_refuses_what_makes_no_sense(
    environ: dict[str, str], arguments: tuple[str, ...], code: int
) -> None:
    """One node is no overlay."""
    assert plain_talk(environ, *arguments).returncode == code


# --- bench ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("vxlab_bench", str(SCRIPTS / "bench"))
    spec = importlib.util.spec_from_loader("vxlab_bench", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["vxlab_bench"] = module  # dataclasses look their module up
    loader.exec_module(module)
    return module


@pytest.mark.parametrize(("seconds", "good"), [(0.60, True), (0.61, False)])
def test_the_ratio_of_medians_is_held_against_its_target(
    bench: ModuleType, seconds: float, good: bool
) -> None:
    """0.60 of the plain script reaches the target, 0.61 misses it; one slow run changes neither."""
    cases = {
        "vxlab up, 2 nodes": [seconds, seconds, 30.0],
        "plain script, 2 nodes": [0.1, 1.0, 1.0],
    }

    rows, reached = bench.results(
        {name: bench.Case(name, "quiet", times) for name, times in cases.items()}
    )

    assert reached is good
    assert rows[0]["target_value"] == pytest.approx(seconds)
    assert rows[0]["target"].endswith("ok" if good else "MISSED")


@pytest.mark.parametrize(("seconds", "good"), [(0.12, True), (0.13, False)])
def test_start_up_is_held_against_a_bare_interpreter(
    bench: ModuleType, seconds: float, good: bool
) -> None:
    """--help may take 100 ms more than python alone."""
    cases = {"vxlab --help": [seconds], "python -c pass": [0.025]}

    _, reached = bench.results({name: bench.Case(name, "", t) for name, t in cases.items()})

    assert reached is good


def run_bench(vxlab: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    once = ["--runs", "1", "--big-runs", "0"]
    return subprocess.run(
        [sys.executable, str(SCRIPTS / "bench"), "--vxlab", str(vxlab), *once, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.kernel
@pytest.mark.lab
def test_the_benchmark_times_both_sides(tmp_path: Path) -> None:
    """Every case is timed, says what came before it, and a missed target is the exit code.

    A vxlab that sleeps in its teardown stands for one that became slow.
    """
    slow = write_program(tmp_path / "vxlab", '#!/bin/sh\n[ "$1" != teardown ] || sleep 0.4\n')

    ended = run_bench(slow, "--json", "--check")

    assert ended.returncode == 1
    report = json.loads(ended.stdout)
    before = {case["name"]: case["before"] for case in report["cases"]}
    assert before["vxlab up, 2 nodes"] == "quiet"
    assert before["vxlab up, 2 nodes, at once"] == "after teardown"
    assert before["plain script, 2 nodes"] == "quiet"
    missed = [case["name"] for case in report["cases"] if "MISSED" in case.get("target", "")]
    assert missed == ["vxlab teardown, 2 nodes"]


@pytest.mark.kernel
def test_the_benchmark_stops_at_a_command_that_fails(tmp_path: Path) -> None:
    """A failure is no time: it is shown, and nothing is printed as a result."""
    broken = write_program(tmp_path / "vxlab", "#!/bin/sh\necho out of order >&2\nexit 70\n")

    ended = run_bench(broken)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert "out of order" in ended.stderr


# --- quickstart and test: machine.sh --------------------------------------------------------------


class Machine:
    """A machine as machine.sh sees it: some programs of this one, and fakes that record calls."""

    PROGRAMS = (
        *("apt-get", "bash", "busybox", "cat", "cut", "env", "find", "grep", "head", "id", "ip"),
        *("ps", "rm", "sed", "sh", "sha256sum", "sort", "ss", "sudo", "xargs"),
    )

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bin = directory / "bin"
        self.log = directory / "log"
        self.log.touch()
        self.bin.mkdir()
        for name in self.PROGRAMS:
            if found := shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin"):
                (self.bin / name).symlink_to(found)

    def lacks(self, *names: str) -> None:
        for name in names:
            (self.bin / name).unlink(missing_ok=True)

    def fake(self, name: str, text: str = 'echo "$0 $*" | sed "s,.*/,," >>"$LOG"\n') -> None:
        (self.bin / name).unlink(missing_ok=True)
        write_program(self.bin / name, f"#!/bin/bash\n{text}")

    def run(self, text: str) -> subprocess.CompletedProcess[str]:
        # machine.sh adds the sbin directories for ordinary users; here they would undo `lacks`.
        source = f". {SCRIPTS}/machine.sh; PATH={self.bin}; {text}"
        return subprocess.run(
            [shutil.which("bash") or "bash", "-euo", "pipefail", "-c", source],
            cwd=self.directory,
            env={"PATH": str(self.bin), "LOG": str(self.log)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def done(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


TABLE = "printf 'ip iproute2 iproute\\nss iproute2 iproute\\nps procps procps-ng\\n'"


def test_nothing_is_installed_where_nothing_is_missing(machine: Machine) -> None:
    """Programs that are here name no package."""
    assert machine.run(f"{TABLE} | missing_packages").stdout == ""


@pytest.mark.parametrize(("tool", "package"), [("apt-get", "iproute2"), ("dnf", "iproute")])
def test_a_missing_program_names_its_package_once(
    machine: Machine, tool: str, package: str
) -> None:
    """Two programs of one package; its name is the one of the distribution at hand."""
    machine.lacks("ip", "ss", "apt-get", "dnf")
    machine.fake(tool)

    assert machine.run(f"{TABLE} | missing_packages").stdout == f"{package}\n"


def test_a_dynamic_busybox_is_a_missing_one(machine: Machine) -> None:
    """A container's root file system has no dynamic loader; any dynamic program stands for it."""
    machine.lacks("busybox")
    (machine.bin / "busybox").symlink_to("/usr/bin/env")

    answer = machine.run("echo busybox busybox-static busybox | missing_packages")

    assert answer.stdout == "busybox-static\n"


def test_debian_updates_its_lists_once_and_asks_nothing(machine: Machine) -> None:
    """One apt-get update, then one install of all packages, said as it is done."""
    machine.fake("apt-get")
    machine.fake("id", "echo 0\n")

    ended = machine.run("install_packages iproute2 tcpdump")

    assert machine.done() == [
        "apt-get update -q",
        "apt-get install -q -y --no-install-recommends iproute2 tcpdump",
    ]
    assert "+ env DEBIAN_FRONTEND=noninteractive apt-get install" in ended.stderr


def test_rocky_gets_busybox_from_epel(machine: Machine) -> None:
    """RHEL and its kin have busybox in EPEL only; this Debian without apt-get stands for them."""
    machine.lacks("apt-get")
    machine.fake("dnf")
    machine.fake("id", "echo 0\n")
    machine.fake("grep", '[ "$*" != "-q ^ID=fedora /etc/os-release" ]\n')

    machine.run("install_packages busybox iproute")

    assert machine.done() == [
        "dnf install -q -y epel-release",
        "dnf install -q -y busybox iproute",
    ]


def test_an_ordinary_user_goes_through_sudo_without_a_question(machine: Machine) -> None:
    """Without a terminal sudo may not ask: -n."""
    machine.lacks("apt-get")
    machine.fake("dnf")
    machine.fake("id", "echo 1000\n")
    machine.fake("sudo")

    machine.run("install_packages iproute")

    assert machine.done() == ["sudo -n dnf install -q -y iproute"]


def test_without_sudo_the_very_command_is_told(machine: Machine) -> None:
    """Somebody else can run it as root, then the script goes on."""
    machine.lacks("apt-get", "sudo")
    machine.fake("dnf")
    machine.fake("id", "echo 1000\n")

    ended = machine.run("install_packages iproute")

    assert ended.returncode == 69
    assert ended.stderr.endswith("run it as root, then this again: dnf install -q -y iproute\n")
    assert machine.done() == []


def test_no_known_package_manager_is_said(machine: Machine) -> None:
    """The names are told, so that they can be installed by hand."""
    machine.lacks("apt-get", "dnf")

    ended = machine.run("install_packages iproute2")

    assert ended.returncode == 69
    assert "iproute2" in ended.stderr


@pytest.mark.parametrize(
    ("version", "usable"), [("3, 10", False), ("3, 11", True), ("3, 30", True)]
)
def test_a_python_is_new_enough_from_3_11_on(machine: Machine, version: str, usable: bool) -> None:
    """Rocky 9's own Python is 3.9. An edited sys.version_info stands for other Pythons."""
    machine.fake(
        "python3.x",
        f'exec {sys.executable} -c "import sys; sys.version_info = ({version}); exec(sys.argv[1])"'
        ' "$2"\n',
    )

    assert (machine.run("can_run_vxlab python3.x").returncode == 0) is usable


def test_a_step_is_done_once_for_a_stamp(machine: Machine) -> None:
    """The same stamp: nothing is done. Another one, or a failure before: it is done again."""
    (machine.directory / ".venv").mkdir()
    machine.fake("pip")
    machine.fake("broken", "exit 1\n")

    machine.run("unless_done one pip 1; unless_done one pip 2; unless_done two pip 3")
    assert machine.run("unless_done three broken").returncode == 1
    machine.run("unless_done two pip 4; unless_done two pip 5")

    assert machine.done() == ["pip 1", "pip 3", "pip 4"]


def test_the_digest_follows_the_source(machine: Machine) -> None:
    """A changed file changes it, what Python compiled does not."""
    source = machine.directory / "src"
    source.mkdir()
    (source / "a.py").write_text("1")
    before = machine.run("digest src").stdout
    (source / "a.pyc").write_text("compiled")
    compiled = machine.run("digest src").stdout
    (source / "a.py").write_text("2")

    assert len(before) == 65
    assert compiled == before
    assert machine.run("digest src").stdout != before


# --- quickstart -----------------------------------------------------------------------------------


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone whose virtual environment holds a recording python and vxlab."""
    clone = tmp_path / "clone"
    shutil.copytree(SCRIPTS, clone / "scripts")
    (clone / "src").mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "src/module.py"):
        (clone / name).write_text(name)
    for name in ("python", "vxlab"):
        record = f'#!/bin/sh\necho "{name} $*" >>"{clone}/log"\n[ "$*" != "$FAILS" ]\n'
        write_program(clone / ".venv/bin" / name, record)
    (clone / ".venv/made-for").write_text(f"{clone}\n")
    return clone


def quickstart(clone: Path, fails: str = "") -> tuple[int, list[str]]:
    """The exit code, and what was called in the virtual environment."""
    log = clone / "log"
    log.write_text("")
    ended = subprocess.run(
        ["bash", str(clone / "scripts/quickstart")],
        env={**os.environ, "FAILS": fails},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return ended.returncode, [line for line in log.read_text().splitlines() if line != "python -c "]


LAB = ["vxlab install", "vxlab check", "vxlab up", "vxlab verify"]


def test_quickstart_leads_to_a_verified_lab(clone: Path) -> None:
    """Installed, checked, up, verified; the second run installs nothing."""
    pip = "python -m pip install -q --disable-pip-version-check ."

    assert quickstart(clone) == (0, [pip, *LAB])
    assert quickstart(clone) == (0, LAB)


def test_quickstart_installs_a_changed_source_again(clone: Path) -> None:
    """After a pull, the next run brings the new source into the environment."""
    quickstart(clone)
    (clone / "src/module.py").write_text("changed")

    _, called = quickstart(clone)

    assert called[0].startswith("python -m pip install")


def test_quickstart_stops_where_something_fails(clone: Path) -> None:
    """No lab is built on a machine that cannot carry it."""
    quickstart(clone)

    assert quickstart(clone, fails="check") == (1, LAB[:2])
