"""Labs on real hosts, for tests: hosts that have the programs, and what differs afterwards."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

import hosts as real
from hosts import Host, Hosts, Options

Photograph = dict[str, dict[str, str]]
MakeHosts = Callable[..., Hosts]


@functools.cache
def _seed() -> Path:
    """What a first `up` left in /var/cache of a host; kept for the tests of this process."""
    directory = Path(tempfile.mkdtemp(prefix="vxlab-seed-"))
    with Hosts(directory / "hosts", 1) as network:
        lab = network.lab(directory / "lab.yaml")
        built = network.vxlab("up", str(lab))
        assert built.returncode == 0, built.stderr
        network.vxlab("teardown", str(lab))
        shutil.move(network["host1"].path("/var/cache/vxlab"), directory / "cache")
    return directory / "cache"


def _link(source: str, target: str) -> None:
    """Hosts only read the programs; a copy for each test would be a hundred megabytes."""
    os.link(source, target, follow_symlinks=False)


@pytest.fixture(scope="session")
def seed() -> Iterator[Callable[[], Path]]:
    """Makes the programs' place once; it is removed at the end of all tests."""
    yield _seed
    if _seed.cache_info().currsize and _seed().exists():  # each module has a fixture of its own
        shutil.rmtree(_seed().parent)


@pytest.fixture
def make(tmp_path: Path, seed: Callable[[], Path]) -> Iterator[MakeHosts]:
    """Makes hosts that were sent the programs earlier: ``make(3)``."""
    with ExitStack() as stack:

        def make_some(count: int = 2, options: Mapping[str, Options] | None = None) -> Hosts:
            directory = Path(tempfile.mkdtemp(prefix="hosts-", dir=tmp_path))
            network = stack.enter_context(Hosts(directory, count, options))
            for host in network:
                place = host.files / "var" / "cache" / "vxlab"
                shutil.copytree(seed(), place, symlinks=True, copy_function=_link)
            return network

        yield make_some


@pytest.fixture
def pair(make: MakeHosts) -> Hosts:
    """host1 and host2, to which the programs were sent earlier."""
    return make()


def photograph(network: Hosts) -> Photograph:
    return {host.name: host.photograph() for host in network}


def differences(before: Photograph, network: Hosts) -> list[str]:
    """What is not as it was; what has just ended may take a moment to be gone."""
    return [f"{host.name}: {each}" for host in network for each in host.remains(before[host.name])]


def ok(network: Hosts, *words: str) -> str:
    """Run vxlab, which must succeed; its output."""
    done = network.vxlab(*words)
    assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def write(host: Host, path: str, text: str, mode: str = "644") -> None:
    """A file on a host."""
    host.ok(
        "sh",
        "-c",
        'mkdir -p "${1%/*}" && cat >"$1" && chmod "$2" "$1"',
        "sh",
        path,
        mode,
        stdin=text,
    )


__all__ = ["Host", "Hosts", "Options", "differences", "ok", "photograph", "real", "write"]
