"""The filter that runs in the kernel at every hop of a trace, and keeps other traffic out.

It lets through what may be one of the trace's packets, in whatever wrapping: from or to one of the
two addresses, outside or inside a tunnel, every ICMP packet, and every later fragment. What is
let through is looked at closely afterwards (`vxlab.trace.journey_match`).
"""

from __future__ import annotations

from ipaddress import IPv4Address

from vxlab.sniff import Instruction

# Codes of linux/filter.h: load (word, half, byte), jump if equal or if any bit is set, return.
_LD, _LDH, _LDB = 0x20, 0x28, 0x30
_LD_X, _LDB_X = 0x40, 0x50  # the same, counted from X
_LDX_HEADER = 0xB1  # X = 4 * (byte & 15): the length of the IPv4 header
_JEQ, _JSET, _RET = 0x15, 0x45, 0x06

_ACCEPT, _REJECT, _NEXT = "accept", "reject", ""
_EVERYTHING = 0x40000  # bytes of a frame that are kept

_OUTER = 14  # where the IPv4 header begins in an Ethernet frame
_UDP = 17
#: Bytes from the outer IPv4 header's end to the inner IPv4 header.
_BEFORE_INNER = {"vxlan": 8 + 8 + 14, "udp": 8}

_Line = tuple[int, int, str, str]  # code, operand, where to if true, where to if false


def wanted(src: str, dst: str, backend: str) -> tuple[Instruction, ...]:
    """The program for frames of Ethernet interfaces.

    Args:
        src: the probes' source address.
        dst: their destination.
        backend: flannel's backend type, which says where a packet inside a tunnel begins.
    """
    addresses = [int(IPv4Address(address)) for address in (src, dst)]
    lines: list[_Line] = [
        (_LDH, 12, _NEXT, _NEXT),
        (_JEQ, 0x0800, _NEXT, _REJECT),
        (_LDB, _OUTER + 9, _NEXT, _NEXT),
        (_JEQ, 1, _ACCEPT, _NEXT),
        (_LDH, _OUTER + 6, _NEXT, _NEXT),
        (_JSET, 0x1FFF, _ACCEPT, _NEXT),
    ]
    for place in (12, 16):
        lines.append((_LD, _OUTER + place, _NEXT, _NEXT))
        lines += [(_JEQ, address, _ACCEPT, _NEXT) for address in addresses]
    inner = _BEFORE_INNER.get(backend)
    if inner is not None:
        lines += [
            (_LDB, _OUTER + 9, _NEXT, _NEXT),
            (_JEQ, _UDP, _NEXT, _REJECT),
            (_LDX_HEADER, _OUTER, _NEXT, _NEXT),
            (_LDB_X, _OUTER + inner + 9, _NEXT, _NEXT),
            (_JEQ, 1, _ACCEPT, _NEXT),
        ]
        for place in (12, 16):
            lines.append((_LD_X, _OUTER + inner + place, _NEXT, _NEXT))
            lines += [(_JEQ, address, _ACCEPT, _NEXT) for address in addresses]
    return _assembled(lines)


def _assembled(lines: list[_Line]) -> tuple[Instruction, ...]:
    """The lines as numbers: BPF jumps forwards, over so many instructions."""
    reject, accept = len(lines), len(lines) + 1
    targets = {_ACCEPT: accept, _REJECT: reject}
    program = [
        (code, _over(yes, i, targets), _over(no, i, targets), k)
        for i, (code, k, yes, no) in enumerate(lines)
    ]
    return (*program, (_RET, 0, 0, 0), (_RET, 0, 0, _EVERYTHING))


def _over(to: str, here: int, targets: dict[str, int]) -> int:
    return targets[to] - here - 1 if to else 0
