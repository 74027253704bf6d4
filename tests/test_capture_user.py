"""An ordinary user, who has no rights on this machine, captures in a lab of their own."""

from __future__ import annotations

import pytest

import test_user
from lablib import LAB, Home
from test_capture_filter import needs_tcpdump
from test_capture_lab import HOPS, Running, sums
from test_pcapng import blocks

pytestmark = LAB

machine, place = test_user.machine, test_user.place


@needs_tcpdump
@pytest.mark.parametrize("file", [True, False])
def test_an_ordinary_user_captures_at_every_hop(place: Home, file: bool) -> None:
    """Without root the buffers are the system's small ones; a fast ping loses nothing yet."""
    place.ok("up")
    path = place.path.parent / "x.pcapng"
    capture = Running(place, "all", *(["-w", str(path)] if file else []), "icmp")
    rows = place.json("status")["nodes"]
    target = rows[1]["containers"][0]["address"].partition("/")[0]
    place.ok("exec", "container01", "--", "ping", "-c", "500", "-i", "0.001", target)
    capture.process.terminate()
    out, said = capture.ended()
    assert said.startswith("10000 packets at 10 hops, none dropped\n")
    assert sums(said) == dict.fromkeys(HOPS, 1000)
    if file:
        assert sum(kind == 6 for kind, _ in blocks(path.read_bytes())) == 10_000
        path.unlink()
    else:
        assert out.count(b"\n") == 12_000
    place.ok("teardown")
