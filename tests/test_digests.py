"""Digests of programs: right, kept, and reckoned anew for whatever has changed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from vxlab.binaries import digests as module
from vxlab.binaries.digests import digests


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VXLAB_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "etcd"
    path.write_bytes(b"one")
    return path


def reckoned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read from now on."""
    seen: list[str] = []
    real = module._digest

    def noted(path: Path) -> str:
        seen.append(path.name)
        return real(path)

    monkeypatch.setattr(module, "_digest", noted)
    return seen


def test_a_digest_is_kept(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time no program is read."""
    seen = reckoned(monkeypatch)
    wanted = {"etcd": hashlib.sha256(b"one").hexdigest()}
    assert [digests({"etcd": program}) for _ in range(2)] == [wanted, wanted]
    assert seen == ["etcd"]


def test_a_changed_program_is_read_again(program: Path) -> None:
    """Also one of the same size and time stamp: ctime tells."""
    digests({"etcd": program})
    stamp = program.stat().st_mtime_ns
    program.write_bytes(b"two")
    os.utime(program, ns=(stamp, stamp))
    assert digests({"etcd": program}) == {"etcd": hashlib.sha256(b"two").hexdigest()}


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_a_damaged_store_is_written_anew(program: Path, tmp_path: Path, content: str) -> None:
    """What cannot be read is forgotten."""
    digests({"etcd": program})
    (tmp_path / "cache" / "digests.json").write_text(content)
    assert digests({"etcd": program}) == {"etcd": hashlib.sha256(b"one").hexdigest()}
