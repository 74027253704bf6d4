"""``vxlab filter --run`` on real hosts: their own tcpdump, or the one that travelled."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

import remote
from remote import Hosts, ok

pytestmark = [pytest.mark.kernel, pytest.mark.lab]

seed, make, pair = remote.seed, remote.make, remote.pair


def listening(running: subprocess.Popen[str]) -> str:
    """What it said until the capture ran."""
    assert running.stderr is not None
    told = ""
    while "listening on" not in told:
        line = running.stderr.readline()
        assert line, told
        told += line
    return told


@pytest.mark.parametrize("user", ["root", "alice"])
def test_run_on_a_host(pair: Hosts, tmp_path: Path, user: str) -> None:
    """The host's interface, the container's packets; nothing of it runs there afterwards."""
    ok(pair, "up", str(pair.lab(tmp_path / "lab.yaml", user=user)))
    told = json.loads(ok(pair, "filter", "container02", "--json"))
    far = told["address"]
    with pair.start("filter", "container02", "--run", "node01", "-c", "2") as running:
        said = listening(running)
        ok(pair, "exec", "container01", "--", "ping", "-c", "1", "-W", "5", far)
        shown, rest = running.communicate(timeout=60)
    assert (running.returncode, f"> {far}: ICMP echo request" in shown) == (0, True)
    assert f"node01: {told['command'].replace('-i eth0', '-i ' + told['interface'])}" in said
    assert "2 packets captured" in rest
    with pair.start("filter", far, "--run", "node02") as running:
        listening(running)
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)
    gone = "for i in $(seq 100); do pgrep -x tcpdump >/dev/null || exit 0; sleep 0.1; done; exit 1"
    pair["host2"].ok("sh", "-c", gone)
