"""Every field of every header: its value and its place, and no byte without a field."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from test_packet import FRAMES
from vxlab.packet import Layer, decode
from vxlab.packet.fields import fields


def read(frame: bytes, kind: str, number: int = 0) -> dict[str, tuple[str, int, int]]:
    """The fields of one of a frame's layers, by name: value, place, length."""
    layers = [layer for layer in decode(frame).layers if type(layer).__name__ == kind]
    return {f.name: (f.value, f.offset, f.length) for f in fields(layers[number], frame)}


def covered(layer: Layer, frame: bytes) -> None:
    """Each field is within its layer, and together they are all of it."""
    found = fields(layer, frame)
    places = {at for field in found for at in range(field.offset, field.offset + field.length)}
    assert places == set(range(layer.offset, layer.end))


@pytest.mark.parametrize("name", FRAMES)
def test_every_byte_is_in_a_field(name: str) -> None:
    """Of all kinds of packets that the decoder is tested with."""
    for layer in decode(FRAMES[name]).layers:
        covered(layer, FRAMES[name])


@given(st.sampled_from(sorted(FRAMES)), st.data())
def test_damaged_packets_have_fields_too(name: str, data: st.DataObject) -> None:
    """Whatever the decoder makes of bytes can be shown."""
    frame = bytearray(FRAMES[name])
    places = st.integers(0, len(frame) - 1)
    for place, value in data.draw(st.dictionaries(places, st.integers(0, 255), max_size=4)).items():
        frame[place] = value
    damaged = bytes(frame[: data.draw(st.integers(0, len(frame)))])
    for layer in decode(damaged).layers:
        covered(layer, damaged)


def test_the_talks_packet() -> None:
    """The inner source address is where the talk's filter looks for it: 62 behind the outer IP."""
    frame = FRAMES["ping in vxlan"]
    assert read(frame, "VXLAN") == {
        "flags": ("0x08 (the VNI is valid)", 42, 1),
        "reserved": ("0x00", 49, 1),
        "VNI": ("1", 46, 3),
    }
    assert read(frame, "IPv4", 1)["source address"] == ("10.5.1.10", 14 + 62, 4)
    assert read(frame, "IPv4", 1)["flags"] == ("don't fragment", 70, 1)
    assert read(frame, "UDP")["destination port"] == ("8472 (Linux's VXLAN)", 36, 2)
    assert read(frame, "UDP")["checksum"] == ("0x0000 (none)", 40, 2)
    assert read(frame, "ICMP")["type"] == ("8 (echo request)", 84, 1)
    assert read(frame, "Ethernet")["EtherType"] == ("0x0800 (IPv4)", 12, 2)


def test_what_only_some_headers_have() -> None:
    """VLAN tags, options, a router's MTU, a checksum that is wrong."""
    assert read(FRAMES["tagged"], "Ethernet")["VLAN tag"] == ("VLAN 100", 12, 4)
    assert read(FRAMES["options"], "IPv4")["options"] == ("4 bytes", 34, 4)
    assert read(FRAMES["frag needed"], "ICMP")["MTU of the next hop"] == ("1450 bytes", 40, 2)
    assert read(FRAMES["frag needed"], "ICMP")["code"] == ("4 (fragmentation needed)", 35, 1)
    assert read(FRAMES["bad checksum"], "IPv4")["header checksum"][0].endswith("(WRONG)")
    assert read(FRAMES["tcp"], "TCP")["flags"] == ("0x18 (PSH, ACK)", 47, 1)
