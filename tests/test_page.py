"""The page of a trace: complete in itself, small, true, and nothing in it but text from the lab."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import pages
import talk
from journeys import (
    NODE1,
    NODE2,
    WAY,
    A,
    B,
    Wire,
    complaint,
    echo,
    ether,
    ipv4,
    pieces,
    probe,
    trace,
    vxlan,
)
from test_journey_report import CASES, complained, in_pieces, lost, several
from vxlab.errors import JournalError
from vxlab.lab import Lab
from vxlab.report import page
from vxlab.report.page.picture import Picture
from vxlab.trace.journey import Trace
from vxlab.trace.why import Place

LAB: Lab = talk.TALK


class Elements(HTMLParser):
    """What a parser of HTML finds: elements with their attributes, and the words on the page."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.mark.parametrize("case", CASES)
def test_the_page_is_well_formed_and_loads_nothing(case: str) -> None:
    """No element refers to anything, ids are unique, and what is opened is closed."""
    html = pages.text(CASES[case]())
    elements = Elements(html)
    assert (elements.open, elements.unbalanced) == ([], [])
    attributes = [each for _, found in elements.found for each in found.items()]
    assert {value for name, value in attributes if name in ("src", "href")} == {"#hop"}
    ids = [value for name, value in attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert [name for name, _ in attributes if name.startswith("on") or name == "style"] == []
    assert "url(" not in html
    assert "@import" not in html


def test_the_policy_allows_this_style_and_this_script_alone() -> None:
    """The hashes are those of the elements' texts, as a browser takes them (CSP level 3)."""
    html = pages.text(pages.ping())
    (policy,) = [
        meta["content"]
        for meta in Elements(html).named("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    ]
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}';" in str(policy)
    assert str(policy).startswith("default-src 'none';")
    assert "unsafe" not in str(policy)


def test_no_text_becomes_markup() -> None:
    """Names, a kernel's words, tables' entries: whatever they are, they are shown as they are."""
    html = pages.text(pages.hostile())
    elements, harmless = Elements(html), Elements(pages.text(lost()))
    assert elements.named("img") == []
    assert len(elements.named("script")) == len(harmless.named("script")) == 2
    assert (elements.open, elements.unbalanced) == ([], [])
    assert pages.HOSTILE in elements.text
    embedded = html.partition('id="data">')[2].partition("</script>")[0]
    assert set("<>&") & set(embedded) == set()
    (journey,) = pages.data(html)["journeys"]
    assert journey["legs"][0]["stops"][3]["changes"][0][0] == pages.HOSTILE
    assert journey["legs"][0]["reasons"][0] == [pages.HOSTILE, pages.HOSTILE]


def test_what_is_not_utf8_is_written_all_the_same(tmp_path: Path) -> None:
    """A file name out of a kernel's message may be any bytes."""
    file = tmp_path / "page.html"
    page.write(file, replace(pages.ping(), expected="caf\udce9"), LAB, command="")
    assert "caf?" in file.read_text(encoding="utf-8")


# --- what it says --------------------------------------------------------------------------------


def stops_of(html: str) -> list[dict[str, Any]]:
    return [
        stop
        for journey in pages.data(html)["journeys"]
        for leg in journey["legs"]
        for stop in leg["stops"]
    ]


def test_every_hop_with_its_numbers() -> None:
    """Hop, direction, times, length, what changed, why, and the frame's own bytes."""
    found = pages.ping()
    shown = stops_of(pages.text(found))
    stops = [stop for _, stop in pages.shown(found)]
    assert [stop["hop"] for stop in shown] == [str(stop.hop) for stop in stops]
    assert [stop["frames"][0]["bytes"] for stop in shown] == [
        stop.frames[0].frame.data.hex() for stop in stops
    ]
    assert shown[4]["facts"] == [
        ["since the start", "4.0 µs"],
        ["since the last hop", "+1.0 µs"],
        ["IP packet", "134 bytes"],
    ]
    assert shown[4]["changes"][0][0].startswith("encapsulated: +50 bytes")
    assert shown[4]["why"][0] == [
        "FDB",
        "bridge fdb",
        "node01",
        "5a:00:00:00:00:02 dev flannel.1 dst 192.168.56.22 permanent",
    ]
    assert [stop["frames"][0]["headers"] for stop in shown[:7]] == [42, 42, 42, 42, 92, 92, 42]


def test_a_time_that_is_not_known_is_not_shown() -> None:
    """Between two hosts' clocks there is no time; the page says why."""
    found = pages.ping()
    (journey,) = found.journeys
    legs = [
        replace(leg, stops=tuple(replace(stop, since_last=None) for stop in leg.stops))
        for leg in journey.legs
    ]
    remote = replace(found, one_clock=False, journeys=(replace(journey, legs=tuple(legs)),))
    html = pages.text(remote)
    names = {name for stop in stops_of(html) for name, _ in stop["facts"]}
    assert names == {"since the start", "IP packet"}
    assert "Each host has a clock of its own" in Elements(html).text
    assert "None" not in html


@pytest.mark.parametrize("case", ["ping", "fragments", "complained"])
def test_headers_follow_each_other_and_cover_the_frame(case: str) -> None:
    """Every byte has one header, and every header's fields are in it."""
    for stop in stops_of(pages.text(CASES[case]())):
        for frame in stop["frames"]:
            at = 0
            for layer in frame["layers"]:
                assert layer["offset"] == at
                at += layer["length"]
                places = {i for _, _, start, n in layer["fields"] for i in range(start, start + n)}
                assert places == set(range(layer["offset"], at))
            assert at == frame["kept"] == len(frame["bytes"]) // 2


def named(html: str, stop: int, frame: int = 0) -> list[str]:
    return [layer["name"] for layer in stops_of(html)[stop]["frames"][frame]["layers"]]


def test_an_error_quotes_the_packet_it_is_about() -> None:
    """The quoted headers are opened, and are not taken for the error's own."""
    html = pages.text(complained())
    assert named(html, 3) == ["Ethernet", "IPv4", "ICMP", "quoted IPv4", "quoted ICMP", "data"]
    quoted = stops_of(html)[3]["frames"][0]["layers"][3]
    assert (quoted["offset"], quoted["said"]) == (42, f"{A} → {B}, TTL 64")


def test_fragments_have_a_frame_each() -> None:
    """A first piece shows what it carries; a later one does not know."""
    html = pages.text(in_pieces())
    inner, outer = stops_of(html)[:2]
    assert [frame["title"] for frame in inner["frames"]] == [
        "fragment 1 of 2",
        "fragment 2 of 2",
    ]
    assert len(outer["frames"]) > 2
    assert named(html, 1, 0)[-3:] == ["inner IPv4", "inner ICMP", "data"]
    assert named(html, 1, 2) == ["outer Ethernet", "outer IPv4", "rest of the packet"]


def test_a_duplicate_is_shown_as_one() -> None:
    """Behind the frame itself."""
    wire = Wire().ping()
    name = "node01:eth0"
    wire.frames[name].insert(1, replace(wire.frames[name][0], ns=wire.frames[name][0].ns + 50))
    stop = stops_of(pages.text(trace(wire)))[4]
    assert [frame["title"] for frame in stop["frames"]] == ["", "seen again"]


def test_the_udp_backends_packet_is_opened() -> None:
    """No Ethernet header on the tun device, and none in front of what UDP carries."""
    html = pages.text(pages.udp_backend())
    assert named(html, 0) == ["IPv4", "ICMP", "data"]
    assert named(html, 1) == [
        *("outer Ethernet", "outer IPv4", "outer UDP"),
        *("inner IPv4", "inner ICMP", "data"),
    ]
    assert stops_of(html)[1]["frames"][0]["outer"] == 42


def test_what_a_quoted_packet_carries() -> None:
    """A node refuses the outer packet, and quotes it with all that VXLAN carries."""
    outer = vxlan(ether(ipv4(A, B, echo(), ttl=63)))
    wire = Wire()
    wire.see("node01:eth0", "out", ether(outer))
    wire.see("node01:eth0", "in", ether(ipv4(NODE2, NODE1, complaint(3, outer))))
    html = pages.text(trace(wire))
    assert named(html, 1) == [
        *("Ethernet", "IPv4", "ICMP", "quoted IPv4", "quoted UDP", "quoted VXLAN"),
        *("quoted Ethernet", "quoted IPv4", "quoted ICMP", "data"),
    ]
    assert stops_of(html)[1]["frames"][0]["outer"] == 0


def test_a_lost_packet_says_where_and_why() -> None:
    """In the head, at its last hop, and in the tables; and where it never came to."""
    html = pages.text(lost())
    (leg,) = pages.data(html)["journeys"][0]["legs"]
    assert (leg["verdict"], leg["lost"], leg["stops"][-1]["hop"]) == (
        *("lost", True),
        "node01:flannel.1",
    )
    assert "no FDB entry" in leg["reasons"][0][0]
    assert leg["missed"][0] == "node01:eth0"
    assert Elements(html).text.count("node01 has no FDB entry") == 2
    assert "Lost: the packet was last seen at node01:flannel.1" in Elements(html).text


def test_lost_frames_of_the_capture_are_no_lost_packets() -> None:
    """Nothing is called lost, and no reason is given, where the captures may have missed it."""
    html = pages.text(several())
    legs = [leg for journey in pages.data(html)["journeys"] for leg in journey["legs"]]
    assert [leg["verdict"] for leg in legs] == ["arrived", "arrived", "not seen to arrive"]
    assert [(leg["lost"], leg["reasons"], leg["missed"]) for leg in legs] == [(False, [], [])] * 3
    assert "node02:eth0 lost 2 frames" in Elements(html).text


def test_a_refused_probe_has_reasons_and_no_hops() -> None:
    """The kernel's own words."""
    html = pages.text(CASES["refused"]())
    (journey,) = pages.data(html)["journeys"]
    assert (journey["legs"], journey["reasons"][0][0]) == (
        [],
        "the kernel says: Message too long, mtu=1450",
    )
    assert "Message too long, mtu=1450" in Elements(html).text


def test_without_a_script_there_are_tables() -> None:
    """All hops with times, changes and entries, and the picture, are in the page itself."""
    found = pages.ping()
    elements = Elements(pages.text(found))
    assert len(elements.named("noscript")) == 1
    assert "open" in elements.named("details")[0]
    assert len(elements.named("tr")) == 2 + sum(len(leg.stops) for leg in found.journeys[0].legs)
    assert "encapsulated: +50 bytes" in elements.text
    assert "5a:00:00:00:00:02 dev flannel.1 dst 192.168.56.22 permanent" in elements.text
    assert len(elements.named("circle")) == len(WAY)


def test_the_head_says_what_was_done() -> None:
    """Lab, date, command, verdict, and how packets travel in this lab."""
    words = Elements(pages.text(pages.ping())).text
    for part in (
        "node01/container01 → node02/container02",
        "Packet and answer arrived: 19.0 µs round trip",
        "2023-11-14 22:13:20 UTC",
        "VXLAN: VNI 1, UDP 8472",
        pages.COMMAND,
    ):
        assert part in words
    assert "no VXLAN: both are on node01" in Elements(pages.text(pages.gateway())).text


def test_the_command_for_doing_it_again() -> None:
    """As it was typed; text, whatever is in it."""
    typed = "vxlab trace a b --html '<b>.html'"
    assert typed in Elements(page.page(pages.ping(), LAB, command=typed)).text


# --- its size ------------------------------------------------------------------------------------


def test_journeys_that_went_the_same_way_are_told_once() -> None:
    """A thousand probes make no larger page than one does."""
    tokens = [b"t%07d" % number for number in range(1000)]
    wire = Wire()
    for number, token in enumerate(tokens):
        wire.ping(seq=number, token=token)
    html = pages.text(trace(wire, [probe(n + 1, token=t, dport=n) for n, t in enumerate(tokens)]))
    (journey,) = pages.data(html)["journeys"]
    assert journey["label"] == "Probe 1, 999 others the same way: answered in 19.0 µs"
    assert len(html) < len(pages.text(pages.ping())) + 500


def test_ways_that_are_left_out_are_counted() -> None:
    """The first five, as in the terminal."""
    html = pages.text(pages.of_many_ways(8))
    assert len(pages.data(html)["journeys"]) == 5
    assert "3 more ways that packets went are not on this page" in Elements(html).text


def test_frames_that_are_left_out_are_counted() -> None:
    """A datagram of 60,000 bytes comes in 43 pieces."""
    wire = Wire()
    for piece in pieces(ipv4(A, B, echo(size=60_000), ident=5), 1450):
        wire.see("node01:cbr0", "in", ether(piece))
    (stop,) = stops_of(pages.text(trace(wire)))
    assert (len(stop["frames"]), stop["left_out"]) == (12, 31)
    assert stop["frames"][11]["title"] == "fragment 12 of 43"


def test_a_long_frames_bytes_are_cut() -> None:
    """A jumbo frame is not whole on the page, and its length is."""
    (stop,) = stops_of(pages.text(pages.as_bytes(8000)))
    frame = stop["frames"][0]
    assert (len(frame["bytes"]) // 2, frame["kept"], frame["length"]) == (1600, 8042, 8042)


# --- the picture ---------------------------------------------------------------------------------


def test_the_picture_shows_the_hops_of_the_way() -> None:
    """Down through one node, up through the other; the underlay below both."""
    picture = Picture(pages.ping(), LAB)
    names = [str(hop) for hop in picture.places]
    assert sorted(names) == sorted(name for name, *_ in WAY)
    spots = {str(hop): place for hop, place in picture.places.items()}
    left = [spots[name] for name, *_ in WAY[:5]]
    right = [spots[name] for name, *_ in WAY[5:]]
    assert left == sorted(left, key=lambda place: place[1])
    assert right == sorted(right, key=lambda place: -place[1])
    assert len({x for x, _ in left}) == len({x for x, _ in right}) == 1
    assert all(0 < x < picture.width and 0 < y < picture.height for x, y in spots.values())


def test_the_line_between_two_nodes_goes_over_the_underlay() -> None:
    """The data of the hop on the other node holds the corners."""
    picture = Picture(pages.ping(), LAB)
    shown = stops_of(pages.text(pages.ping()))
    (x1, _), (x2, y2) = shown[4]["via"][-1], shown[5]["via"][-1]
    assert shown[5]["via"] == [[x1, picture.wire_y], [x2, picture.wire_y], [x2, y2]]


def test_only_what_a_trace_concerns_is_drawn() -> None:
    """The gateway's has one node and no underlay; an address outside is outside."""
    picture = Picture(pages.gateway(), LAB)
    assert [str(hop) for hop in picture.places] == [name for name, *_ in WAY[:3]]
    assert (picture.wire_y, {box.kind for box in picture.boxes}) == (0, {"node", "container"})
    wire = Wire()
    wire.see("node01:eth0", "out", ether(ipv4(A, "8.8.8.8", echo())))
    away = replace(trace(wire, [probe(dst="8.8.8.8")], at=None), at=None, dst="8.8.8.8")
    assert ("outside", "8.8.8.8") in [(b.kind, b.note) for b in Picture(away, LAB).boxes]


def test_addresses_and_sizes_are_those_of_the_lab() -> None:
    """What is known of each interface stands beside it."""
    words = Elements(Picture(pages.ping(), LAB).svg()).text
    for part in ("10.5.1.10", "10.5.2.1 MTU 1450", "192.168.56.22/24 MTU 1500", "10.5.1.0/24"):
        assert part in words


# --- the file ------------------------------------------------------------------------------------


def test_the_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old page stays until the new one is there; a draft does not."""
    file = tmp_path / "page.html"
    file.write_text("old")

    def refused(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", refused)
        with pytest.raises(JournalError, match=r"cannot write .*: No space left on device"):
            page.write(file, pages.ping(), LAB, command=pages.COMMAND)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("page.html", "old")]
    page.write(file, pages.ping(), LAB, command=pages.COMMAND)
    assert file.read_text(encoding="utf-8") == pages.text(pages.ping())


def test_the_file_is_as_readable_as_others(tmp_path: Path) -> None:
    """It goes by the umask, as if it had been opened for writing; a link stays one."""
    plain, link = tmp_path / "plain", tmp_path / "link"
    plain.write_text("")
    link.symlink_to("page.html")
    page.write(link, pages.ping(), LAB, command="")
    assert link.is_symlink()
    written = tmp_path / "page.html"
    assert stat.S_IMODE(written.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    """One error says so."""
    with pytest.raises(JournalError, match=r"cannot write .*: No such file or directory"):
        page.write(tmp_path / "no" / "such.html", pages.ping(), LAB, command="")


def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    """Such as a pipe to another program."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as other:
        written = other.submit(page.write, pipe, pages.gateway(), LAB, command=pages.COMMAND)
        with pipe.open("rb") as file:
            assert file.read().decode() == pages.text(pages.gateway())
        written.result()
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_its_parts_are_in_the_package() -> None:
    """Where importlib finds them, from a wheel, too."""
    for name in ("page.html", "page.css", "page.js"):
        assert files("vxlab.report.page").joinpath(name).is_file()


def test_the_script_is_strict_and_sets_text_only() -> None:
    """No way from data to markup, and no name of the network's."""
    script = files("vxlab.report.page").joinpath("page.js").read_text(encoding="utf-8")
    assert script.startswith('"use strict";')
    for word in ("innerHTML", "outerHTML", "insertAdjacent", "eval(", "document.write", "fetch("):
        assert word not in script


def test_places_without_containers() -> None:
    """A node as the target: its interface on the underlay is where the line ends."""
    wire = Wire()
    for name, direction in (("node01:eth0", "out"), ("node02:eth0", "in")):
        wire.see(name, direction, ether(ipv4(A, "192.168.56.22", echo())))  # type: ignore[arg-type]
    found: Trace = replace(
        trace(wire, [probe(dst="192.168.56.22")], at=Place("node02")),
        at=Place("node02"),
        dst="192.168.56.22",
    )
    picture = Picture(found, LAB)
    assert [b.title for b in picture.boxes if b.kind == "node"] == ["node01", "node02"]
    assert [b.title for b in picture.boxes if b.kind == "container"] == ["container01"]
