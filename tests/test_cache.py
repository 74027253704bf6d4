"""What the programs' cache gives out, and what it does not trust."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import vxlab
from bare_machine import Machine, bare
from vxlab.binaries.cache import Cache, Entry, NotTrusted, directory, sha256
from vxlab.errors import MissingError

BODY = b"#!/bin/sh\necho flanneld\n"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    return bare(monkeypatch, tmp_path)


def why_not(machine: Machine, *, full: bool = False) -> str:
    with pytest.raises(NotTrusted) as caught:
        Cache().entry("flanneld", full=full)
    return str(caught.value)


def set_times(path: Path, mtime_ns: int) -> None:
    os.utime(path, ns=(mtime_ns, mtime_ns))


@pytest.mark.parametrize(
    ("own", "xdg", "expected"),
    [
        ("/a/cache", "/xdg", "/a/cache"),
        ("", "/xdg", "/xdg/vxlab"),
        ("", "relative", "/home/me/.cache/vxlab"),
        ("", "", "/home/me/.cache/vxlab"),
        ("~/c", "", "/home/me/c"),
    ],
)
def test_where_the_cache_is(
    monkeypatch: pytest.MonkeyPatch, own: str, xdg: str, expected: str
) -> None:
    """VXLAB_CACHE, then an absolute XDG_CACHE_HOME, then ~/.cache."""
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("VXLAB_CACHE", own)
    monkeypatch.setenv("XDG_CACHE_HOME", xdg)
    assert directory() == Path(expected)


def test_a_placed_program_is_given_out(machine: Machine) -> None:
    """What was placed is executable, known by its manifest, and alone in a private directory."""
    path = machine.cached("flanneld", BODY, "v0.27.4")
    entry = Cache().entry("flanneld", full=True)
    assert isinstance(entry, Entry)
    assert (entry.version, entry.source) == ("v0.27.4", "a test")
    assert entry.files[0].sha256 == sha256(path)
    assert path.stat().st_mode & 0o777 == 0o755
    assert machine.cache.stat().st_mode & 0o777 == 0o700
    assert machine.leftovers() == []


def test_an_empty_cache_and_none_at_all_have_nothing(machine: Machine) -> None:
    """Looking creates nothing."""
    assert why_not(machine) == "not there"
    assert not machine.cache.exists()
    Cache().create()
    assert why_not(machine) == "not there"


def test_a_file_that_the_manifest_does_not_know_is_not_given_out(machine: Machine) -> None:
    """A runnable file alone, as an interrupted install or a stranger leaves it, counts nothing."""
    Cache().create()
    machine.put("flanneld", directory=machine.cache)
    assert why_not(machine) == "not there"


def test_another_size_is_not_trusted(machine: Machine) -> None:
    """A file that was cut or replaced is seen by its size."""
    path = machine.cached("flanneld", BODY)
    path.write_bytes(BODY[:-1])
    assert why_not(machine) == "flanneld is not the file that was put there"


def test_another_content_is_not_trusted(machine: Machine) -> None:
    """The size is the same, the time is not: then the bytes are read."""
    path = machine.cached("flanneld", BODY)
    path.write_bytes(BODY.replace(b"echo", b"nope"))
    set_times(path, 1)
    assert "SHA-256 differs" in why_not(machine)


def test_another_time_alone_is_trusted(machine: Machine) -> None:
    """A cache restored by a CI system has the same bytes and new times."""
    set_times(machine.cached("flanneld", BODY), 1)
    assert Cache().entry("flanneld").version == "v1"


def test_an_install_reads_every_byte(machine: Machine) -> None:
    """The quick look believes size and time; the full one finds a change behind both."""
    path = machine.cached("flanneld", BODY)
    before = path.stat().st_mtime_ns
    path.write_bytes(BODY.replace(b"echo", b"nope"))
    set_times(path, before)
    assert Cache().entry("flanneld").version == "v1"
    assert "SHA-256 differs" in why_not(machine, full=True)


def test_a_link_a_lost_file_and_a_lost_bit_are_not_trusted(machine: Machine) -> None:
    """Each says what is wrong."""
    path = machine.cached("flanneld", BODY)
    path.chmod(0o644)
    assert why_not(machine) == "flanneld is not executable"
    path.chmod(0o755)
    elsewhere = "e" * len(BODY)  # a link's size is its target's length
    path.rename(machine.cache / elsewhere)
    assert why_not(machine) == "flanneld is gone"
    path.symlink_to(elsewhere)
    assert why_not(machine) == "flanneld is not the file that was put there"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"format": 1}',
        '{"format": 1, "programs": []}',
        '{"format": 1, "programs": {"flanneld": 7}}',
        '{"format": 1, "programs": {"flanneld": {"version": "", "source": "", "files": []}}}',
        '{"format": 1, "programs": {"flanneld": {"version": "", "source": "", "files":'
        ' [{"name": "../flanneld", "sha256": "", "size": 0, "mtime_ns": 0}]}}}',
    ],
)
def test_a_damaged_manifest_is_not_believed(machine: Machine, text: str) -> None:
    """Nothing in it is used, and a new program can be placed all the same."""
    machine.cached("flanneld", BODY)
    (machine.cache / "manifest.json").write_text(text)
    assert why_not(machine) == "manifest.json is damaged"
    machine.cached("flanneld", BODY, "v2")
    assert Cache().entry("flanneld").version == "v2"


def test_a_manifest_of_another_format_is_not_believed(machine: Machine) -> None:
    """A later vxlab may write another manifest into the same directory."""
    machine.cached("flanneld", BODY)
    manifest = machine.cache / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 2}))
    assert why_not(machine) == "manifest.json is of another version of vxlab"


@pytest.mark.parametrize(("mode", "trusted"), [(0o700, True), (0o755, True), (0o720, False)])
def test_a_cache_that_others_may_write_is_not_trusted(
    machine: Machine, mode: int, trusted: bool
) -> None:
    """A program that anyone could have put there is not run."""
    machine.cached("flanneld", BODY)
    machine.cache.chmod(mode)
    if trusted:
        assert Cache().entry("flanneld").version == "v1"
    else:
        assert "others may write to" in why_not(machine)
        with pytest.raises(MissingError, match="cache cannot be used"):
            Cache().create()


def test_a_cache_of_another_user_is_not_trusted(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Except root's, and under sudo the caller's own. Needs root, or else a fake uid."""
    machine.cached("flanneld", BODY)
    if os.geteuid() == 0:
        os.chown(machine.cache, 12345, -1)
    else:
        mine = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    assert "belongs to another user" in why_not(machine)
    if os.geteuid() == 0:
        monkeypatch.setenv("SUDO_UID", "12345")
        assert Cache().entry("flanneld").version == "v1"


def test_a_cache_that_cannot_be_made_says_what_to_do(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file where the directory should be: one clear error with the variable to set."""
    (machine.bin / "file").touch()
    monkeypatch.setenv("VXLAB_CACHE", str(machine.bin / "file" / "cache"))
    with pytest.raises(MissingError) as caught:
        Cache().create()
    assert "VXLAB_CACHE" in caught.value.hint


def test_work_is_gone_after_an_error(machine: Machine) -> None:
    """Also when what is made there fails."""
    Cache().create()

    def fail() -> None:
        with Cache().work() as work:
            (work / "partial").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert machine.leftovers() == []


def test_a_sweep_spares_the_living(machine: Machine) -> None:
    """Only what no process works on any more is swept."""
    cache = Cache()
    cache.create()
    (machine.cache / ".part-dead").mkdir()
    (machine.cache / ".part-file").touch()
    with cache.work() as work:
        cache.sweep()
        assert machine.leftovers() == [work.name]


def test_a_killed_process_leaves_no_lock_and_no_trusted_file(machine: Machine) -> None:
    """kill -9 between the program's rename and the manifest's: the new file is not trusted."""
    machine.cached("flanneld", BODY)
    script = """if True:
        import os, signal
        from vxlab.binaries.cache import Cache
        Cache._write_manifest = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        cache = Cache()
        with cache.lock(print), cache.work() as work:
            (work / "new").write_bytes(b"#!/bin/sh")
            cache.place("flanneld", {"flanneld": work / "new"}, "v2", "a test")
    """
    environ = {**os.environ, "PYTHONPATH": str(Path(vxlab.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", script], env=environ, check=False)
    assert done.returncode == -9
    assert (machine.cache / "flanneld").read_bytes() == b"#!/bin/sh"
    assert why_not(machine) == "flanneld is not the file that was put there"
    assert len(machine.leftovers()) == 1
    cache = Cache()
    with cache.lock(machine.told.append):  # the kernel has dropped the dead one's lock
        cache.sweep()
    assert (machine.told, machine.leftovers()) == ([], [])
