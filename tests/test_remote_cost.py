"""What a lab on real hosts costs: round trips, not seconds, which `scripts/bench` measures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import remote
from hosts import Hosts
from remote import ok

pytestmark = [pytest.mark.kernel, pytest.mark.lab]

seed, make, pair = remote.seed, remote.make, remote.pair


def built(network: Hosts, lab: Path) -> dict[str, Any]:
    """What the driver told of an `up`."""
    driver = str(Path(__file__).with_name("remote_driver.py"))
    done = network.run(sys.executable, driver, str(lab))
    assert done.returncode == 0, done.stderr
    ok(network, "teardown", str(lab))
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_round_trips_do_not_grow_with_the_operations(pair: Hosts, tmp_path: Path) -> None:
    """Five containers a node are five times the operations, and not one program more."""
    one = pair.lab(tmp_path / "one.yaml")
    five = pair.lab(tmp_path / "five.yaml")
    five.write_text(five.read_text().replace("address:", "containers: 5, address:"))
    few, many = built(pair, one), built(pair, five)
    assert many["changes"] > 2 * few["changes"]
    assert many["programs"] == few["programs"]


def test_sixteen_hosts(tmp_path: Path) -> None:
    """All are asked at the same time; the report has every one of them."""
    with Hosts(tmp_path, 16) as network:
        lab = network.lab(tmp_path / "lab.yaml")
        done = network.vxlab("check", str(lab), "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        hosts = {finding["host"] for finding in json.loads(done.stdout)["findings"]}
        assert len(hosts) == 16
