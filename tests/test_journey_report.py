"""The tree, JSON and file of a journey: golden trees at 80 and 120 columns, tshark on the file."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import golden
from journeys import (
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
    states,
    trace,
    vxlan,
)
from vxlab.errors import JournalError
from vxlab.report import journey as report
from vxlab.trace.journey import Trace


def lost() -> Trace:
    """The FDB entry is missing: flannel.1 is the last hop."""
    wire = Wire().ping(there=4)
    wire.errors["node02:flannel.1"] = "No such device"
    state = states()["node01"]
    return trace(wire, node01=replace(state, net=replace(state.net, fdb=())))


def complained() -> Trace:
    """A node says that the packet is too long."""
    wire = Wire()
    wire.pass_by(WAY[:3], A, B, echo(size=1472), df=True)
    error = complaint(4, ipv4(A, B, echo(size=1472), df=True), mtu=1450)
    for name in ("node01:cbr0", "node01:vethlocal"):
        wire.see(name, "out", ether(ipv4("10.5.1.1", A, error, ident=9)))
    wire.see("node01/container01:vethNS", "in", ether(ipv4("10.5.1.1", A, error, ident=9)))
    return trace(wire)


def in_pieces() -> Trace:
    """Fragments of the inner and of the outer packet, and one twice."""
    wire = Wire()
    cut = pieces(ipv4(A, B, echo(size=2000), ident=5), 1450)
    for fragment in cut:
        wire.see("node01:flannel.1", "out", ether(fragment))
    for number, fragment in enumerate(cut):
        for piece in pieces(vxlan(ether(fragment), ident=900 + number), 1400):
            wire.see("node01:eth0", "out", ether(piece))
    return trace(wire)


def several() -> Trace:
    """Three probes: two went the same way, the last was lost; the captures dropped frames."""
    tokens = [b"token-%d-" % number for number in (1, 2, 3)]
    wire = Wire()
    for number, token in enumerate(tokens, 1):
        wire.ping(seq=number, token=token, there=10 if number < 3 else 5)
    wire.dropped["node02:eth0"] = 2
    probes = [probe(n, token=token, sport=7) for n, token in enumerate(tokens, 1)]
    return trace(wire, probes)


def refused() -> Trace:
    return trace(Wire(), [probe(refused="Message too long, mtu=1450")])


CASES: dict[str, Callable[[], Trace]] = {
    "ping": lambda: trace(Wire().ping()),
    "lost": lost,
    "lost-answer": lambda: trace(Wire().ping(back=5)),
    "silence": lambda: trace(Wire().ping(back=0)),
    "complained": complained,
    "fragments": in_pieces,
    "several": several,
    "refused": refused,
}


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("case", CASES)
def test_trees(case: str, columns: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Every line fits the width; without a terminal there is no colour."""
    report.show(CASES[case](), columns)
    printed = capsys.readouterr().out
    golden.agrees(f"trace/{case}-{columns}.txt", printed)
    # Only what a hop is in figures may be longer, such as the lengths of many fragments.
    assert [line for line in printed.splitlines() if len(line) > columns] == []
    assert "\x1b" not in printed


@pytest.mark.parametrize("case", ["lost", "ping"])
def test_json(case: str) -> None:
    """The stable form."""
    text = json.dumps(report.as_json(CASES[case]()), indent=1)
    golden.agrees(f"trace/{case}.json", text + "\n")


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    """One error says so."""
    with pytest.raises(JournalError, match="cannot write"):
        report.write_pcap(tmp_path / "no" / "such.pcapng", trace(Wire().ping()))


# --- an independent reader ----------------------------------------------------------------------

#: tshark's field -> where ours is in a frame; "outer." and "" by whether it is encapsulated.
FIELDS = {
    "ip.src": "src",
    "ip.dst": "dst",
    "ip.ttl": "ttl",
    "ip.id": "id",
    "ip.len": "ip_length",
    "ip.flags.df": "df",
    "ip.flags.mf": "mf",
    "ip.frag_offset": "fragment_offset",
    "eth.src": "mac_src",
    "eth.dst": "mac_dst",
}
SINGLE = ("frame.interface_name", "frame.len", "vxlan.vni", "udp.srcport", "udp.dstport")


def tshark(file: Path) -> list[dict[str, str]]:
    """Every packet of a file as tshark reads it, fragments not put together."""
    fields = [*SINGLE, *FIELDS, "frame.time_epoch", "frame.comment"]
    command = ["tshark", "-r", str(file), "-T", "fields", "-E", "header=y", "-E", "separator=/t"]
    command += ["-o", "ip.defragment:FALSE", "-d", "udp.port==8472,vxlan"]
    for field in fields:
        command += ["-e", field]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return list(csv.DictReader(done.stdout.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))


def number(text: str) -> int:
    return {"True": 1, "False": 0}[text] if text in ("True", "False") else int(text, 0)


def ours(found: dict[str, Any]) -> dict[tuple[str, int], dict[str, Any]]:
    """All frames of all stops in the JSON form, by hop and time."""
    return {
        (stop["hop"], frame["ns"]): frame
        for journey in found["journeys"]
        for leg in journey["legs"]
        for stop in leg["stops"]
        for frame in stop["frames"]
    }


def nanoseconds(epoch: str) -> int:
    seconds, _, fraction = epoch.partition(".")
    return int(seconds) * 1_000_000_000 + int(fraction.ljust(9, "0"))


def agree(row: dict[str, str], frame: dict[str, Any]) -> None:
    """Field by field: what tshark shows of a frame, outermost first, is what we say of it."""
    levels = [level for level in (frame["outer"], frame) if level and level["src"]]
    for field, name in FIELDS.items():
        # An ICMP error quotes the packet that it is about; tshark shows that one's fields, too.
        seen = row[field].split(",")[: len(levels)]
        wanted = [level[name] for level in levels if level[name] is not None]
        if name in ("src", "dst", "mac_src", "mac_dst"):
            assert seen == wanted, field
        elif name == "fragment_offset":  # some versions of tshark count it in 8 bytes
            eights = [[number(value) * unit for value in seen] for unit in (1, 8)]
            assert wanted in eights
        else:
            assert [number(value) for value in seen] == [int(value) for value in wanted], field
    assert int(row["frame.len"]) == frame["length"]
    if frame["outer"] and frame["src"]:
        assert number(row["vxlan.vni"]) == frame["outer"]["vni"]
        assert int(row["udp.srcport"].split(",")[0]) == frame["outer"]["udp_sport"]
        assert int(row["udp.dstport"].split(",")[0]) == frame["outer"]["udp_dport"]


def tshark_rows_agree(found: dict[str, Any], file: Path) -> int:
    """Compare all matched frames; how many there were."""
    rows = tshark(file)
    frames = ours(found)
    compared = 0
    for row in rows:
        key = row["frame.interface_name"], nanoseconds(row["frame.time_epoch"])
        if key in frames:
            agree(row, frames[key])
            assert row["frame.comment"].startswith("probe ")
            compared += 1
    assert compared == len(frames)
    return compared


@pytest.mark.skipif(shutil.which("tshark") is None, reason="TSHARK TESTS DID NOT RUN: no tshark")
@pytest.mark.parametrize("case", ["ping", "lost", "complained", "fragments"])
def test_tshark_reads_the_same(case: str, tmp_path: Path) -> None:
    """Addresses, TTL, lengths, flags, MACs, VNI and UDP ports of every frame at every hop."""
    found = CASES[case]()
    file = tmp_path / "trace.pcapng"
    report.write_pcap(file, found)
    assert tshark_rows_agree(report.as_json(found), file) == sum(
        len(w.frames) for w in found.watched
    )
