"""The talk's filter: a container's address in hexadecimal, at its place inside the outer packet.

    port 8472 and (ip[62:4]==0x0A2A0107 or ip[66:4]==0x0A2A0107)

A filter has no word for the packet that VXLAN carries, so the talk counts the bytes to it. How many
they are depends on the backend and on the outer IP header; all of it is decided here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

from vxlab import mtu
from vxlab.errors import UsageError
from vxlab.trace.bpffields import ETHERNET, IPV6, TAG, Inside

Address = IPv4Address | IPv6Address
End = Literal["src", "dst"]

#: Where the addresses are in an IP header, in bytes (RFC 791, RFC 8200).
_PLACES: dict[int, dict[End, int]] = {4: {"src": 12, "dst": 16}, 6: {"src": 8, "dst": 24}}
WORDS: dict[End, str] = {"src": "source", "dst": "destination"}

#: flannel's names of backends; udp's default port is 8285 (flannel, Documentation/backends.md).
BACKENDS = ("vxlan", "udp", "host-gw")
PORTS = {"vxlan": 8472, "udp": 8285, "host-gw": 0}


@dataclass(frozen=True, slots=True)
class Wire:
    """How packets between containers look on the underlay.

    `backend` is host-gw for whatever is not encapsulated, DirectRouting too.
    """

    backend: str = "vxlan"
    port: int = 8472  # UDP destination port; unused by host-gw
    outer: Literal[4, 6] = 4  # version of the outer IP header
    vlan: int | None = None  # VLAN id of frames that are captured with their tag; 0 for any

    @property
    def encapsulated(self) -> bool:
        return self.backend != "host-gw"


@dataclass(frozen=True, slots=True)
class Row:
    """One header on the way to the address."""

    name: str
    size: int  # bytes
    start: int  # bytes from the beginning of the outer IP header


@dataclass(frozen=True, slots=True)
class Limit:
    """A case that the filter does not meet, and what to do about it."""

    words: str
    remedy: str = ""


class TalkFilter:
    """The filter for the packets of one address.

    Args:
        address: of the container, as it is in the inner packet.
        wire: how its packets look on the underlay.
        ends: whether packets from it count, packets to it, or both.

    Raises:
        UsageError: flannel's udp backend does not know IPv6.
    """

    def __init__(
        self, address: Address, wire: Wire = Wire(), ends: tuple[End, ...] = ("src", "dst")
    ) -> None:
        if wire.backend == "udp" and (address.version == 6 or wire.outer == 6):
            raise UsageError(
                "flannel's udp backend carries IPv4 in IPv4 only",
                hint="name an IPv4 address, or --backend vxlan",
            )
        self.address, self.wire, self.ends = address, wire, ends
        self.version: Literal[4, 6] = 4 if address.version == 4 else 6

    @property
    def hexadecimal(self) -> str:
        """The whole address: 10.42.1.7 is ``0x0A2A0107``."""
        return f"0x{self.address.packed.hex().upper()}"

    @property
    def words(self) -> tuple[str, ...]:
        """The address in the pieces that one comparison can take, 4 bytes each."""
        packed = self.address.packed.hex().upper()
        return tuple(f"0x{packed[at : at + 8]}" for at in range(0, len(packed), 8))

    @property
    def outer(self) -> int:
        """The version of the IP header that offsets count from; without tunnel, the only one."""
        return self.wire.outer if self.wire.encapsulated else self.version

    @property
    def rows(self) -> tuple[Row, ...]:
        """The headers before the inner IP header, from the outer IP header on."""
        if not self.wire.encapsulated:
            return ()
        outer = ("outer IPv4 header", mtu.OUTER_IPV4)
        if self.wire.outer == 6:
            outer = ("outer IPv6 header", IPV6)
        headers = [outer, ("outer UDP header", mtu.OUTER_UDP)]
        if self.wire.backend == "vxlan":
            headers += [("VXLAN header", mtu.VXLAN_HEADER)]
            headers += [("inner Ethernet header", mtu.INNER_ETHERNET)]
        rows, start = [], 0
        for name, size in headers:
            rows.append(Row(name, size, start))
            start += size
        return tuple(rows)

    @property
    def overhead(self) -> int:
        """Bytes from the outer IP header to the inner one; 0 without encapsulation."""
        return sum(row.size for row in self.rows)

    def place(self, end: End) -> int:
        """Where an address is inside its IP header, in bytes."""
        return _PLACES[self.version][end]

    def offset(self, end: End) -> int:
        """The number in the filter's brackets: 62 for the talk's source address."""
        return self.overhead + self.place(end)

    @property
    def link(self) -> int:
        """Bytes of the frame before the (outer) IP header, which bytecode counts, too."""
        return ETHERNET + (0 if self.wire.vlan is None else TAG)

    @property
    def expression(self) -> str:
        """The filter, in the talk's form."""
        return self._expression("ip6" if self.outer == 6 else "ip", 0)

    @property
    def surer(self) -> str:
        """The same without the talk's limit: offsets that count from the UDP header.

        libpcap reads the outer IPv4 header's length for ``udp[...]``, so that options do no harm.
        Without encapsulation it is the word ``host``. Empty where there is nothing better.
        """
        if not self.wire.encapsulated:
            word = f"{self.ends[0]} host" if len(self.ends) == 1 else "host"
            return self._tagged(f"{word} {self.address}")
        return self._expression("udp", mtu.OUTER_IPV4) if self.wire.outer == 4 else ""

    @property
    def inside(self) -> Inside | None:
        """What `vxlab.trace.bpfexplain.explain` has to know of the packets."""
        if not self.wire.encapsulated:
            return None
        backend: Literal["vxlan", "udp"] = "udp" if self.wire.backend == "udp" else "vxlan"
        return Inside(self.wire.port, backend, self.version)

    @property
    def limits(self) -> tuple[Limit, ...]:
        """What the filter does not find, or finds too much of."""
        return tuple(self._limits())

    def _expression(self, header: str, less: int) -> str:
        tests = [self._test(header, self.offset(end) - less) for end in self.ends]
        several = len(tests) > 1
        if several and len(self.words) > 1:
            tests = [f"({test})" for test in tests]
        either = " or ".join(tests)
        if not self.wire.encapsulated:
            return self._tagged(f"({either})" if several and self.wire.vlan is not None else either)
        return self._tagged(f"port {self.wire.port} and {f'({either})' if several else either}")

    def _test(self, header: str, offset: int) -> str:
        places = range(offset, offset + 4 * len(self.words), 4)
        pairs = zip(places, self.words, strict=True)
        return " and ".join(f"{header}[{at}:4]=={word}" for at, word in pairs)

    def _tagged(self, expression: str) -> str:
        if self.wire.vlan is None:
            return expression
        tag = f"vlan {self.wire.vlan}" if self.wire.vlan else "vlan"
        return f"{tag} and {expression}"

    def _limits(self) -> Iterator[Limit]:
        if self.wire.encapsulated and self.wire.outer == 4:
            words = "an outer IPv4 header with options is longer than 20 bytes"
            yield Limit(f"{words}, and the address is further back", self.surer)
        if self.wire.backend == "vxlan":
            other = 6 if self.wire.outer == 4 else 4
            option = "--outer-ipv6" if other == 6 else "leave out --outer-ipv6"
            yield Limit(f"packets that travel over IPv{other} do not match", option)
        if self.wire.vlan is None:
            yield Limit("frames that are captured with a VLAN tag do not match", "--vlan ID")
        if self.wire.encapsulated:
            yield Limit("of an outer packet in fragments, only the first has the UDP ports")
        if self.wire.backend == "vxlan" and self.version == 4:
            yield Limit("ARP inside VXLAN has its addresses elsewhere")
        if not self.wire.encapsulated and self.version == 4:
            yield Limit("ARP has its addresses elsewhere", self.surer)


def wire_of(backend: str, *, port: int | None, outer: Literal[4, 6], vlan: int | None) -> Wire:
    """How packets look on the underlay.

    Args:
        backend: one of `BACKENDS`.
        port: UDP port; None for flannel's default of the backend.
        outer: version of the outer IP header.
        vlan: see `Wire`.
    """
    if backend == "host-gw":
        if port is not None or outer == 6:
            what = "--port" if port is not None else "--outer-ipv6"
            raise UsageError(
                f"{what} makes no sense: these packets are not encapsulated",
                hint="leave it out, or name --backend vxlan",
            )
        return Wire(backend, 0, 4, vlan)
    return Wire(backend, PORTS[backend] if port is None else port, outer, vlan)
