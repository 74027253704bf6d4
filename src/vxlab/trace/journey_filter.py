"""The filter that runs in the kernel at every hop of a trace, and keeps other traffic out.

It is written twice: as a program for sockets of our own, which no compiler has to make first, and
in tcpdump's language for real hosts.

It lets through what may be one of the trace's packets, in whatever wrapping: of the probes'
protocol from or to one of the two addresses, outside or inside a tunnel, every ICMP packet, and
every later fragment. What is
let through is looked at closely afterwards (`vxlab.trace.journey_match`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address

from vxlab.sniff import Instruction
from vxlab.trace.journey import Protocol

# Codes of linux/filter.h: load (word, half, byte), jump if equal or if any bit is set, return.
_LD, _LDH, _LDB = 0x20, 0x28, 0x30
_LD_X, _LDB_X = 0x40, 0x50  # the same, counted from X
_LDX_HEADER = 0xB1  # X = 4 * (byte & 15): the length of the IPv4 header
_JEQ, _JSET, _RET = 0x15, 0x45, 0x06

_ACCEPT, _REJECT, _INNER, _NEXT = "accept", "reject", "inner", ""
_EVERYTHING = 0x40000  # bytes of a frame that are kept

_OUTER = 14  # where the IPv4 header begins in an Ethernet frame
_ICMP, _UDP = 1, 17
_NUMBERS: dict[Protocol, int] = {"icmp": _ICMP, "tcp": 6, "udp": _UDP}
#: Bytes from the outer UDP header's begin to the inner IPv4 header.
_BEFORE_INNER = {"vxlan": 8 + 8 + 14, "udp": 8}

_Line = tuple[int, int, str, str]  # code, operand, where to if true, where to if false


def wanted(src: str, dst: str, backend: str, protocol: Protocol) -> tuple[Instruction, ...]:
    """The program for frames of Ethernet interfaces.

    Args:
        src: the probes' source address.
        dst: their destination.
        backend: flannel's backend type, which says where a packet inside a tunnel begins.
        protocol: the probes'.
    """
    addresses = [int(IPv4Address(address)) for address in (src, dst)]
    number = _NUMBERS[protocol]
    lines: list[_Line] = [
        (_LDH, 12, _NEXT, _NEXT),
        (_JEQ, 0x0800, _NEXT, _REJECT),
        (_LDH, _OUTER + 6, _NEXT, _NEXT),
        (_JSET, 0x1FFF, _ACCEPT, _NEXT),
        (_LDB, _OUTER + 9, _NEXT, _NEXT),
        (_JEQ, _ICMP, _ACCEPT, _NEXT),
    ]
    inner, inside = _BEFORE_INNER.get(backend), 0
    # What is not of the probes' protocol outside may have it inside.
    if number != _ICMP:
        lines.append((_JEQ, number, _NEXT, _INNER if inner else _REJECT))
        lines += _between(addresses, _LD, _OUTER)
    if inner is not None:
        at, inside = _OUTER + inner, len(lines)
        lines += [
            (_LDB, _OUTER + 9, _NEXT, _NEXT),
            (_JEQ, _UDP, _NEXT, _REJECT),
            (_LDX_HEADER, _OUTER, _NEXT, _NEXT),
            (_LDB_X, at + 9, _NEXT, _NEXT),
            (_JEQ, _ICMP, _ACCEPT, _NEXT),
        ]
        if number != _ICMP:
            lines.append((_JEQ, number, _NEXT, _REJECT))
            lines += _between(addresses, _LD_X, at)
    return _assembled(lines, inside)


def _between(addresses: Iterable[int], load: int, at: int) -> Iterator[_Line]:
    """Accept what comes from or goes to an address; the IP header begins at `at`."""
    for place in (12, 16):
        yield (load, at + place, _NEXT, _NEXT)
        yield from ((_JEQ, address, _ACCEPT, _NEXT) for address in addresses)


def expression(src: str, dst: str, backend: str, protocol: Protocol) -> str:
    """The same for tcpdump on a real host (pcap-filter(7)).

    Of TCP only what begins or ends a connection passes, which is all that a trace looks at: were
    the session caught that brings the capture here, each packet of it would cause the next.

    Args:
        src, dst, backend, protocol: see `wanted`.
    """
    parts = ["icmp", "(ip[6:2] & 0x1fff != 0 and not ip proto 6)"]
    kind = {"tcp": "tcp[tcpflags] & (tcp-syn|tcp-rst) != 0", "udp": "udp"}.get(protocol)
    if kind:
        parts.append(f"((host {src} or host {dst}) and {kind})")
    if before := _BEFORE_INNER.get(backend):
        inside = f"udp[{before + 9}] = {_ICMP}"
        if kind:
            ends = (f"0x{int(IPv4Address(address)):08x}" for address in (src, dst))
            between = " or ".join(f"udp[{before + at}:4] = {n}" for n in ends for at in (12, 16))
            inside += f" or (udp[{before + 9}] = {_NUMBERS[protocol]} and ({between}))"
        parts.append(f"(udp and ({inside}))")
    return " or ".join(parts)


def _assembled(lines: list[_Line], inside: int) -> tuple[Instruction, ...]:
    """The lines as numbers: BPF jumps forwards, over so many instructions.

    Args:
        inside: the line where looking into a tunnel begins.
    """
    targets = {_INNER: inside, _REJECT: len(lines), _ACCEPT: len(lines) + 1}
    program = [
        (code, _over(yes, i, targets), _over(no, i, targets), k)
        for i, (code, k, yes, no) in enumerate(lines)
    ]
    return (*program, (_RET, 0, 0, 0), (_RET, 0, 0, _EVERYTHING))


def _over(to: str, here: int, targets: dict[str, int]) -> int:
    return targets[to] - here - 1 if to else 0
