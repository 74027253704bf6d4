"""An ordinary user traces packets: no right on this machine is needed."""

from __future__ import annotations

from lablib import LAB, Home
from test_user import machine, place  # noqa: F401 - fixtures

pytestmark = LAB


def test_an_ordinary_user_traces(place: Home) -> None:  # noqa: F811
    """Captures at every hop of the user's own lab, and the reason of a loss."""
    place.ok("up")
    found = place.json("trace", "container01", "container02")
    legs = found["journeys"][0]["legs"]
    assert (found["ok"], [len(leg["stops"]) for leg in legs]) == (True, [10, 10])
    assert (
        place("trace", "container01", "container02", "--udp", "9", "--count", "5").returncode == 0
    )

    place.sh("node02", "iptables -I FORWARD 1 -p icmp -j DROP")
    lost = place("trace", "container01", "container02", "--timeout", "0.3")
    assert (lost.returncode, "-A FORWARD -p icmp -j DROP" in lost.stdout) == (1, True)
    assert place("trace", "node01", "node02").returncode == 64
