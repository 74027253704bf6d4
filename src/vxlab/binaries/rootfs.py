"""The container's root file system: one static busybox under all of its names, and nothing else."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from vxlab.binaries.cache import Cache, NotTrusted
from vxlab.errors import MissingError


def template(busybox: Path, cache: Path) -> Path:
    """The directory whose ``bin`` every container of a lab sees read-only as its ``/bin``.

    It is made once for each busybox; from then on it costs a stat of the busybox and two
    of directories. The links are relative, so that they hold behind a chroot.

    Args:
        busybox: a static busybox.
        cache: the programs' cache; the template is kept there.

    Returns:
        the directory that holds ``bin/busybox`` and a link for each of its applets.

    Raises:
        MissingError: the busybox is not there or does not run, or the cache cannot be written.
    """
    try:
        seen = busybox.stat()
        # A busybox that is updated gets a template of its own: running containers keep the old one.
        key = f"{zlib.crc32(os.fsencode(busybox)):08x}-{seen.st_size:x}-{seen.st_mtime_ns:x}"
        final = cache / f"rootfs-{key}"
        if final.is_dir():
            Cache(cache).check()
        else:
            _make(busybox, Cache(cache), final)
    except NotTrusted as error:
        raise MissingError(
            "the containers' root file system is not trusted",
            where=str(final),
            detail=str(error),
            hint="set VXLAB_CACHE to a directory of your own",
        ) from error
    except OSError as error:
        raise MissingError(
            "the containers' root file system cannot be made",
            where=str(error.filename or cache),
            detail=error.strerror or str(error),
            hint="set VXLAB_BUSYBOX to a static busybox, VXLAB_CACHE to a directory of your own",
        ) from error
    return final


def _make(busybox: Path, cache: Cache, final: Path) -> None:
    import shutil

    applets = _applets(busybox)
    cache.create()
    with cache.work() as work:
        directory = work / "rootfs" / "bin"
        directory.mkdir(parents=True)
        shutil.copyfile(busybox, directory / "busybox")
        (directory / "busybox").chmod(0o755)
        for applet in applets:
            (directory / applet).symlink_to("busybox")
        for made in (directory, directory.parent):
            made.chmod(0o755)  # whatever the umask says
        try:
            (work / "rootfs").rename(final)
        except OSError:
            if not final.is_dir():  # else another vxlab was faster, with the same result
                raise


def _applets(busybox: Path) -> list[str]:
    """The names that busybox answers to, as it lists them itself."""
    import subprocess

    try:
        # busybox goes by the name it is called by, and its file may have any name.
        answer = subprocess.run(
            ["busybox", "--list"],
            executable=busybox,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _useless(busybox, "no answer after 10 s") from error
    names = [name for name in answer.stdout.split() if "/" not in name and name != "busybox"]
    if answer.returncode or "sh" not in names:
        raise _useless(busybox, answer.stderr.strip() or f"exit code {answer.returncode}, no sh")
    return names


def _useless(busybox: Path, said: str) -> MissingError:
    return MissingError(
        "busybox does not list its applets",
        where=f"{busybox} --list",
        detail=said,
        hint="set VXLAB_BUSYBOX to a static busybox with a shell",
    )
