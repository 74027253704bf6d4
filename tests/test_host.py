"""A lab leaves the host as it was: interfaces, addresses, routes, firewall, sysctls, /etc."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lablib import LAB, Home, cleaned, leftovers

pytestmark = LAB

#: The kernel itself counts with this one.
_COUNTERS = ("net.netfilter.nf_conntrack_count",)


def _said(*argv: str) -> str:
    """What a command of the host prints; nothing where the host has no such command."""
    if shutil.which(argv[0]) is None:
        return ""
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout


def _ip(what: str) -> list[Any]:
    rows: list[Any] = json.loads(_said("ip", "-j", what, "show") or "[]")
    for row in rows:
        for address in row.get("addr_info", []):
            for lifetime in ("valid_life_time", "preferred_life_time"):
                address.pop(lifetime, None)  # they run down by themselves
    return rows


def _neighbours() -> list[Any]:
    """Only entries that someone set: the others come and go with the host's own traffic."""
    return [row for row in _ip("neigh") if "PERMANENT" in row.get("state", [])]


def _sysctls() -> dict[str, str]:
    lines = _said("sysctl", "-a", "--pattern", r"^net\.").splitlines()
    pairs = (line.partition(" = ") for line in lines)
    return {key: value for key, _, value in pairs if key not in _COUNTERS}


def _files(directory: str) -> dict[str, tuple[float, int]]:
    """Every file with its time of change and size."""
    seen = {}
    for folder, folders, names in os.walk(directory):
        for name in (*folders, *names):
            stat = os.lstat(os.path.join(folder, name))
            seen[os.path.join(folder, name)] = (stat.st_mtime, stat.st_size)
    return seen


def host() -> dict[str, Any]:
    """All of the host that a lab could have touched."""
    return {
        "links": _ip("link"),
        "addresses": _ip("addr"),
        "routes": _ip("route"),
        "rules": _ip("rule"),
        "neighbours": _neighbours(),
        "bridge ports": _said("bridge", "-j", "link"),
        "named namespaces": _said("ip", "netns", "list"),
        "iptables": [line for line in _said("iptables-save").splitlines() if line[:1] != "#"],
        "nftables": _said("nft", "-s", "list", "ruleset"),
        "mounts": Path("/proc/self/mountinfo").read_text(),
        "name": os.uname().nodename,
        "etc": _files("/etc"),
        "listening": sorted(_said("ss", "-Hltun").splitlines()),
    }


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home")
    yield home
    cleaned(home)


def test_the_host_is_the_same_before_during_and_after_a_lab(place: Home) -> None:
    """Nothing of a lab reaches the host's network, firewall, mounts or configuration."""
    before, sysctls = host(), _sysctls()

    place.ok("up")
    place.ok("verify")
    during, then = host(), _sysctls()
    assert during == before
    # A kernel module that a lab uses first may bring sysctls; those that were there stay.
    assert {key: then.get(key) for key in sysctls} == sysctls

    place.ok("teardown")
    after, then = host(), _sysctls()
    assert after == before
    assert {key: then.get(key) for key in sysctls} == sysctls
    assert leftovers(place.path) == []
