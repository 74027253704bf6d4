"""Fixtures for all tiers: a private home for labs, and vxlab run as its users run it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Vxlab = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A private place for labs; whatever a test leaves there is taken away at its end."""
    place = tmp_path / "vxlab-home"
    monkeypatch.setenv("VXLAB_HOME", str(place))
    yield place
    if place.exists():
        run("teardown", "--all", "--force", env={**os.environ, "VXLAB_HOME": str(place)})


def run(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """vxlab as a process of its own, in a plain environment without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "vxlab", *words],
        env=env,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture
def vxlab(home: Path) -> Vxlab:
    """Runs vxlab against the private home: ``vxlab("up", "--nodes", "3").stdout``."""
    return run
