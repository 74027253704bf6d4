"""Filters for captures at many hops: containers and nodes by name, and a look into VXLAN.

One filter serves all hops. On the underlay the packets of containers are inside others, where a
filter for a container's address would not find them. So there two programs run in the kernel: the
filter at its usual place, and the same filter moved to where the inner packet begins. The libpcap
that systems ship has no words for that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from vxlab.errors import UsageError
from vxlab.lab import Lab
from vxlab.sniff import Instruction
from vxlab.steps.site import SWITCH
from vxlab.trace.hops import Hop, without_ethernet

#: Filter and link type (EN10MB, RAW) in, bytecode out: `vxlab.trace.bpf.compile`.
Compiler = Callable[[str, str], list[Instruction]]

_LANGUAGE = """
host src dst net mask port portrange tcp udp icmp icmp6 ip ip6 arp rarp ether wlan vlan mpls less
greater len broadcast multicast not and or gateway proto protochain inbound outbound geneve vxlan
pppoes pppoed sctp esp ah igmp igrp pim vrrp carp aarp atalk iso clnp esis isis stp ipx netbeui lat
moprc mopdl decnet ifindex link ifname on rnr rset reason action type subtype dir fddi tr ppp slip
"""
#: Words of pcap-filter(7): in a filter they are never names. ``node01/icmp`` is one in any case.
WORDS = frozenset(_LANGUAGE.split())

# A name as it may stand in a filter, with its node in front or not. In ip[2:2]/4 there is none.
_NAME = re.compile(r"(?<![\w.:/-])[A-Za-z_][\w.-]*(?:/[A-Za-z_][\w.-]*)?(?![\w:])")

# BPF's instruction set (include/uapi/linux/bpf_common.h): class and mode of an operation.
_CLASS, _MODE = 0x07, 0xE0
_LD, _LDX, _JMP, _RET = 0x00, 0x01, 0x05, 0x06
_ABS, _IND, _LEN, _MSH = 0x20, 0x40, 0x80, 0xA0
_JA, _JEQ, _JSET = 0x05, 0x15, 0x45
_LD_HALF, _LD_BYTE, _LD_LENGTH, _SUB = 0x28, 0x30, 0x80, 0x14
_RET_NUMBER = 0x06

_MOST = 4096  # instructions that the kernel takes (BPF_MAXINSNS)
_FARTHEST = 255  # instructions that a conditional jump can pass over
_SPECIAL = 0x80000000  # loads from there on are not from the packet (SKF_AD_OFF)

_ETHERNET, _IPV4, _UDP, _VXLAN = 14, 20, 8, 8
#: Where the frame inside a VXLAN packet begins; where the packet inside one of flannel's udp does.
IN_UDP = _ETHERNET + _IPV4 + _UDP
IN_VXLAN = IN_UDP + _VXLAN


def addresses(lab: Lab, filter: str, look: Callable[[], Mapping[str, str]]) -> str:
    """A filter with the addresses of containers and nodes instead of their names.

    Args:
        lab: the lab.
        filter: as pcap-filter(7) writes it, with names of containers (``container01``, or
            ``node01/container01``) and nodes where it takes addresses.
        look: tells the containers' addresses by full name; only asked if one is named.

    Raises:
        UsageError: a name may be any of several containers, or a container has no address.
    """
    nodes = {node.name: str(node.address.ip) for node in lab.nodes}
    known: dict[str, str] = {}

    def replaced(match: re.Match[str]) -> str:
        name = match[0]
        if name in WORDS:
            return name
        if name in nodes:
            return nodes[name]
        found = [c.full_name for c in lab.containers if name in (c.name, c.full_name)]
        if len(found) > 1:
            several = f"{name!r} in the filter may be any of {', '.join(found)}"
            raise UsageError(several, where="filter", hint="name the node, too")
        if not found:
            return name
        known.update(known or look())
        if found[0] not in known:
            hint = "run `vxlab up` to repair it"
            raise UsageError(f"{found[0]} has no address", where="filter", hint=hint)
        return known[found[0]]

    return _NAME.sub(replaced, filter)


def within(
    inner: Sequence[Instruction],
    outer: Sequence[Instruction],
    ports: Collection[int],
    start: int = IN_VXLAN,
) -> list[Instruction]:
    """A program that takes a packet if one filter takes it, or another the packet inside it.

    Packets inside are looked for behind an IPv4 header of 20 bytes and UDP; only a packet's first
    fragment tells what is inside.

    Args:
        inner: the filter for packets inside.
        outer: the filter for packets as they are.
        ports: UDP destination ports behind which there are packets inside.
        start: where those begin: `IN_VXLAN` or `IN_UDP`.

    Raises:
        UsageError: the filter does something that cannot be moved, or is too long.
    """
    ports = sorted(set(ports))
    out: Instruction = (_JA, 0, 0, 0)  # go on with the outer program; how far is seen below
    program: list[Instruction] = [
        (_LD_HALF, 0, 0, 12),
        *((_JEQ, 1, 0, 0x0800), out),
        (_LD_BYTE, 0, 0, _ETHERNET),
        *((_JEQ, 1, 0, 0x45), out),
        (_LD_BYTE, 0, 0, _ETHERNET + 9),
        *((_JEQ, 1, 0, 17), out),
        (_LD_HALF, 0, 0, _ETHERNET + 6),
        *((_JSET, 0, 1, 0x1FFF), out),
        (_LD_HALF, 0, 0, _ETHERNET + _IPV4 + 2),
        *((_JEQ, len(ports) - i, 0, port) for i, port in enumerate(ports)),
        out,
        *_moved(inner, start, out),
    ]
    length = len(program)
    program = [
        (_JA, 0, 0, length - i - 1) if line is out else line for i, line in enumerate(program)
    ]
    if length + len(outer) > _MOST:
        raise _unmovable("it is too long")
    return [*program, *outer]


def _moved(program: Sequence[Instruction], by: int, out: Instruction) -> list[Instruction]:
    """A program for a packet that begins so many bytes later; instead of refusing it goes `out`."""
    parts = [_moved_line(line, by, out) for line in program]
    places = [0]
    for part in parts:
        places.append(places[-1] + len(part))
    moved: list[Instruction] = []
    for at, part in enumerate(parts):
        code, jt, jf, k = part[-1]
        if code & _CLASS == _JMP and part[-1] is not out:
            after = places[at + 1]
            if code == _JA:
                k = places[at + 1 + k] - after
            else:
                jt, jf = places[at + 1 + jt] - after, places[at + 1 + jf] - after
            if max(jt, jf) > _FARTHEST:
                raise _unmovable("it is too long")
            part = [*part[:-1], (code, jt, jf, k)]
        moved += part
    return moved


def _moved_line(line: Instruction, by: int, out: Instruction) -> list[Instruction]:
    code, jt, jf, k = line
    kind, mode = code & _CLASS, code & _MODE
    if (kind, mode) in ((_LD, _ABS), (_LD, _IND), (_LDX, _MSH)):
        if k >= _SPECIAL:
            raise _unmovable("it asks for what is not in the packet")
        return [(code, jt, jf, k + by)]
    if code == _LD_LENGTH:
        return [line, (_SUB, 0, 0, by)]
    if (kind, mode) == (_LDX, _LEN) or (kind == _RET and code != _RET_NUMBER):
        raise _unmovable("it is of an unusual form")
    return [out] if kind == _RET and k == 0 else [line]


def _unmovable(why: str) -> UsageError:
    return UsageError(
        "the filter cannot be looked for inside VXLAN packets",
        where="filter",
        detail=why,
        hint="with --outer it is asked about the packets as they are on the wire",
    )


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter for all hops of a lab.

    Args:
        text: as pcap-filter(7) writes it, with addresses; see `addresses`.
        ports: UDP ports at which the overlay's packets travel on the underlay.
        outer: only ask about packets as they are on the wire, never inside.
    """

    text: str
    ports: frozenset[int] = frozenset()
    outer: bool = False

    def program(self, lab: Lab, hop: Hop, compile_: Compiler) -> list[Instruction]:
        """The bytecode for one hop.

        Raises:
            UsageError: the filter does not compile, or cannot be looked for inside packets.
        """
        plain = compile_(self.text, "RAW" if without_ethernet(lab, hop) else "EN10MB")
        if not self.inside(lab, hop):
            return plain
        if lab.overlay.backend_type == "udp":
            return within(compile_(self.text, "RAW"), plain, self.ports, IN_UDP)
        return within(plain, plain, self.ports)

    def inside(self, lab: Lab, hop: Hop) -> bool:
        """Whether it is asked about the packets inside others at a hop."""
        return bool(self.text and self.ports and not self.outer and on_underlay(lab, hop))

    def expression(self, lab: Lab, hop: Hop) -> str:
        """What a host has to capture at a hop, as pcap-filter(7) writes it.

        The filter; where it is asked about packets inside others, all that may hold some, too,
        since it has no words for that. `program` then decides about what was captured.
        """
        if not self.inside(lab, hop):
            return self.text
        # In front: behind the word vlan everything is looked for four bytes later.
        wrapped = [f"udp dst port {port}" for port in sorted(self.ports)]
        return " or ".join([*wrapped, f"({self.text})"])


def on_underlay(lab: Lab, hop: Hop) -> bool:
    """Whether a hop is a node's NIC or the switch's port to it, where outer packets pass."""
    if hop.container:
        return False
    return hop.node == SWITCH or hop.interface == lab.nic(lab.node(hop.node))
