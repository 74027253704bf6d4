"""`vxlab trace --html` on real labs: the page says what the command says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pages
from lablib import LAB, Home, cleaned, one_error, told

pytestmark = LAB

#: Two containers on the first node; `{backend}` is flannel's.
LAB_FILE = """
name: talk
nodes:
  node01: {{containers: 2}}
  node02: {{}}
overlay:
  backend: {{Type: {backend}}}
"""


def up(place: Path, backend: str) -> Home:
    home = Home(place / "home")
    file = place / "lab.yaml"
    file.write_text(LAB_FILE.format(backend=backend))
    home.ok("up", str(file))
    return home


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A lab with VXLAN, which every test leaves as it found it."""
    place = up(tmp_path_factory.mktemp("page"), "vxlan")
    yield place
    cleaned(place)


def both(home: Home, file: Path, *words: str, code: int = 0) -> tuple[Any, Any]:
    """What `--json` prints, and the data in the page of the same trace."""
    completed = home("trace", *words, "--json", "--html", str(file))
    assert completed.returncode == code, told(completed)
    return json.loads(completed.stdout), pages.data(file.read_text(encoding="utf-8"))


def hops(found: Any) -> list[list[str]]:
    return [[stop["hop"] for stop in leg["stops"]] for leg in found["journeys"][0]["legs"]]


def lengths(found: Any) -> list[list[int]]:
    return [
        [frame["length"] for frame in stop["frames"]]
        for leg in found["journeys"][0]["legs"]
        for stop in leg["stops"]
    ]


def agree(found: Any, page: Any) -> None:
    """The same hops with the same frames, in the same order."""
    assert hops(page) == hops(found)
    assert lengths(page) == lengths(found)


def headers(page: Any) -> list[int]:
    """Bytes of headers at each hop of the request."""
    return [stop["frames"][0]["headers"] for stop in page["journeys"][0]["legs"][0]["stops"]]


@pytest.mark.parametrize("words", [[], ["--udp", "9999"], ["--size", "3000"]])
def test_the_page_says_what_json_says(home: Home, tmp_path: Path, words: list[str]) -> None:
    """All ten hops there and back; 50 bytes more on the wire, in every fragment, too."""
    found, page = both(home, tmp_path / "trace.html", "container01", "container02", *words)
    agree(found, page)
    assert [len(leg) for leg in hops(page)] == [10, 10]
    assert headers(page) == [42] * 4 + [92] * 2 + [42] * 4
    for leg in page["journeys"][0]["legs"]:
        for stop in leg["stops"]:
            assert stop["station"] is not None
            assert all(len(point) == 2 for point in stop["via"])


def test_on_one_node_and_to_the_gateway(home: Home, tmp_path: Path) -> None:
    """Nothing leaves the node, and the page says so."""
    file = tmp_path / "trace.html"
    agree(*both(home, file, "container01", "container01-2"))
    assert "no VXLAN: both are on node01, nothing leaves the node" in file.read_text()
    agree(*both(home, file, "container01", "gateway"))
    assert 'class="box wire"' not in file.read_text()


def test_lost_and_out_of_the_lab(home: Home, tmp_path: Path) -> None:
    """Reasons from a real kernel; the probe that its own kernel refuses has no hops."""
    file = tmp_path / "trace.html"
    words = ("container01", "container02", "--df", "--size", "1450")
    _, page = both(home, file, *words, code=1)
    assert page["journeys"][0]["legs"] == []
    assert "Message too long" in page["journeys"][0]["reasons"][0][0]

    found, page = both(home, file, "container01", "8.8.8.8", "--timeout", "0.2", code=1)
    agree(found, page)
    assert "outside the lab" in file.read_text()

    rule = "FORWARD -p icmp -j DROP"
    home.sh("node02", f"iptables -I {rule}")
    try:
        found, page = both(home, file, "container01", "container02", "--timeout", "0.2", code=1)
    finally:
        home.sh("node02", f"iptables -D {rule}")
    agree(found, page)
    (leg,) = page["journeys"][0]["legs"]
    assert (leg["verdict"], "-A FORWARD -p icmp -j DROP" in leg["reasons"][0][0]) == ("lost", True)


def test_many_probes_make_a_small_page(home: Home, tmp_path: Path) -> None:
    """Journeys that went the same way are in it once."""
    file = tmp_path / "trace.html"
    both(home, file, "container01", "container02", "--count", "200")
    assert re.search(r"Probe 1, \d+ others? the same way", file.read_text())
    assert file.stat().st_size < 1_000_000


@pytest.mark.parametrize(("backend", "wrapped"), [("udp", [28, 70]), ("host-gw", [42, 42])])
def test_other_backends(tmp_path: Path, backend: str, wrapped: list[int]) -> None:
    """udp: no Ethernet header on flannel0, 42 bytes in front on the wire; host-gw: nothing."""
    home = up(tmp_path, backend)
    try:
        found, page = both(home, tmp_path / "trace.html", "container01", "container02")
    finally:
        cleaned(home)
    agree(found, page)
    assert headers(page)[3:5] == wrapped


def test_a_file_that_cannot_be_written(home: Home, tmp_path: Path) -> None:
    """One error, and no draft is left."""
    completed = home(
        "trace", "container01", "container02", "--html", str(tmp_path / "no" / "trace.html")
    )
    assert "cannot write" in one_error(completed, 74)
    assert list(tmp_path.iterdir()) == []
