"""The containers' root file system: one busybox, all its names."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from bare_machine import real_busybox
from vxlab.binaries.rootfs import template
from vxlab.errors import MissingError


@pytest.fixture
def busybox(tmp_path: Path) -> Path:
    """A copy of the real static one, whose time and size may be changed."""
    path = tmp_path / "busybox"
    shutil.copyfile(real_busybox(), path)
    path.chmod(0o755)
    return path


def test_every_applet_is_there_and_runs(busybox: Path, tmp_path: Path) -> None:
    """`busybox --list` is the measure; a link runs as its applet."""
    made = template(busybox, tmp_path / "cache")
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    assert {path.name for path in (made / "bin").iterdir()} == {*listed.stdout.split(), "busybox"}
    said = subprocess.run([made / "bin/echo", "hello"], capture_output=True, text=True, check=True)
    assert said.stdout == "hello\n"
    assert (made / "bin/busybox").read_bytes() == busybox.read_bytes()


def test_links_hold_behind_a_chroot(busybox: Path, tmp_path: Path) -> None:
    """They are relative, and the directories are readable whatever the umask is."""
    before = os.umask(0o077)
    try:
        made = template(busybox, tmp_path / "cache")
    finally:
        os.umask(before)
    assert os.readlink(made / "bin/sh") == "busybox"
    assert [p.stat().st_mode & 0o777 for p in (made, made / "bin", made / "bin/sh")] == [0o755] * 3


@pytest.mark.kernel
def test_a_container_shell_runs_in_it(busybox: Path, tmp_path: Path) -> None:
    """The talk's chroot, in namespaces of its own: a shell, and nothing of the host."""
    made = template(busybox, tmp_path / "cache")
    argv = ["unshare", "--user", "--map-root-user", "--root", str(made), "/bin/sh", "-c", "ls /"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "bin\n", "")


def test_it_is_made_once(busybox: Path, tmp_path: Path) -> None:
    """The second call gives the same directory and does not even run busybox."""
    made = template(busybox, tmp_path / "cache")
    inode = made.stat().st_ino
    busybox.chmod(0o644)
    assert template(busybox, tmp_path / "cache") == made
    assert made.stat().st_ino == inode
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [made.name]


def test_another_busybox_gets_another_one(busybox: Path, tmp_path: Path) -> None:
    """By time, size and path; the old one stays for containers that still run in it."""
    made = [template(busybox, tmp_path / "cache")]
    os.utime(busybox, ns=(1, 1))
    made.append(template(busybox, tmp_path / "cache"))
    shutil.copy2(busybox, tmp_path / "copy")
    made.append(template(tmp_path / "copy", tmp_path / "cache"))
    with busybox.open("ab") as file:
        file.write(b"\0")
    os.utime(busybox, ns=(1, 1))
    made.append(template(busybox, tmp_path / "cache"))
    assert len(set(made)) == 4
    assert all((each / "bin/sh").exists() for each in made)


def test_several_at_once_agree(busybox: Path, tmp_path: Path) -> None:
    """Whoever is first wins, and nobody fails or leaves anything."""
    made: list[Path] = []
    start = threading.Barrier(4)

    def make() -> None:
        start.wait()
        made.append(template(busybox, tmp_path / "cache"))

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [made[0]] * 4
    assert list((tmp_path / "cache").iterdir()) == [made[0]]


@pytest.mark.parametrize(
    "body", ["exit 0", "echo ls", "echo sh; exit 1", "echo applet not found >&2; exit 127"]
)
def test_a_busybox_without_a_shell_is_refused(tmp_path: Path, body: str) -> None:
    """Scripts stand for broken builds; nothing is made of them."""
    path = tmp_path / "busybox"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    with pytest.raises(MissingError, match="does not list its applets"):
        template(path, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_names_that_leave_the_directory_are_dropped(tmp_path: Path) -> None:
    """No applet is called ../sh, and no link is made for one."""
    path = tmp_path / "busybox"
    path.write_text("#!/bin/sh\necho sh; echo ../evil; echo '['\n")
    path.chmod(0o755)
    made = template(path, tmp_path / "cache")
    assert sorted(each.name for each in (made / "bin").iterdir()) == ["[", "busybox", "sh"]
    assert list(made.iterdir()) == [made / "bin"]


def test_no_busybox_and_no_cache_are_told(busybox: Path, tmp_path: Path) -> None:
    """Both say what to set."""
    with pytest.raises(MissingError) as caught:
        template(tmp_path / "none", tmp_path / "cache")
    assert (caught.value.where, caught.value.detail) == (
        str(tmp_path / "none"),
        "No such file or directory",
    )
    with pytest.raises(MissingError, match="cache cannot be used") as caught:
        template(busybox, busybox / "cache")
    assert "VXLAB_CACHE" in caught.value.hint


def test_a_template_that_others_could_change_is_refused(busybox: Path, tmp_path: Path) -> None:
    """A container would run whatever they put there."""
    template(busybox, tmp_path / "cache")
    (tmp_path / "cache").chmod(0o777)
    with pytest.raises(MissingError, match="not trusted"):
        template(busybox, tmp_path / "cache")
