"""What each instruction of a filter does, in words: which field it reads, what it asks.

The program is followed along all its ways at once. What was found on the way to an instruction,
such as an EtherType, tells what lies at the place that it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from vxlab.trace.bpfcode import Decoded, Instruction, assembly, beside, decode, signed
from vxlab.trace.bpffields import (
    ETHERTYPES,
    PROTOCOLS,
    TAGS,
    Inside,
    Place,
    Read,
    locate,
)

_MOST_WAYS = 64  # ways to one instruction that are followed; more tell nothing new
_WORD = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Explained:
    """One instruction: as ``tcpdump -d`` prints it, and in a sentence."""

    number: int
    instruction: Instruction
    assembly: str
    words: str


@dataclass(frozen=True, slots=True)
class _Value:
    """What a register holds: a number, bytes of the packet, or a place after a header."""

    number: int | None = None
    read: Read | None = None
    mask: int = _WORD
    header: int | None = None  # the length of the IPv4 header at this byte
    words: str = "A"


_NOTHING = _Value(number=0, words="0")


@dataclass(frozen=True, slots=True)
class _Way:
    """What is known at an instruction, on one way to it."""

    a: _Value = _NOTHING
    x: _Value = _NOTHING
    memory: tuple[tuple[int, _Value], ...] = ()
    known: frozenset[tuple[Read, int]] = frozenset()


def explain(program: Sequence[Instruction], inside: Inside | None = None) -> list[Explained]:
    """A filter for Ethernet frames, instruction by instruction, in words.

    Args:
        program: as `vxlab.trace.bpf.compile` gives it.
        inside: what the underlay's UDP packets carry; then fields are told as outer and inner ones.
    """
    decoded = [decode(one, n) for n, one in enumerate(program)]
    ways = _follow(decoded, inside)
    lines = assembly(program)
    found = []
    for n, (one, line) in enumerate(zip(program, lines, strict=True)):
        teller = _Teller(decoded, ways[n], inside)
        found.append(Explained(n, one, line, teller.words(decoded[n])))
    return found


# --- following the program ----------------------------------------------------------------------


def _follow(program: Sequence[Decoded], inside: Inside | None) -> list[list[_Way]]:
    """The ways to each instruction."""
    ways: list[list[_Way]] = [[] for _ in program]
    todo = [(0, _Way())]
    while todo:
        n, way = todo.pop()
        if not 0 <= n < len(program) or way in ways[n] or len(ways[n]) >= _MOST_WAYS:
            continue
        ways[n].append(way)
        todo += _next(program[n], n, way, inside)
    return ways


def _next(one: Decoded, n: int, way: _Way, inside: Inside | None) -> list[tuple[int, _Way]]:
    if one.kind in ("return", "unknown"):
        return []
    if one.kind != "jump":
        return [(n + 1, _after(one, way))]
    if one.name == "ja":
        return [(one.yes, way)]
    learned = way
    if one.name == "jeq" and one.way == "k" and way.a.read and way.a.mask == _WORD:
        learned = _learned(way, way.a.read, one.k, inside)
    return [(one.no, way), (one.yes, learned)]


def _learned(way: _Way, read: Read, value: int, inside: Inside | None) -> _Way:
    """The way on which a place holds a value; only what tells where headers are is kept."""
    place = locate(read, dict(way.known), inside)
    if place.rank != 1 or place.meaning not in ("ethertype", "protocol", "port"):
        return way
    if value in TAGS:
        value = min(TAGS)  # what follows is the same
    if place.meaning == "port" and (inside is None or value != inside.port):
        return way
    known = {r: v for r, v in way.known if r != read}
    return replace(way, known=frozenset({**known, read: value}.items()))


def _after(one: Decoded, way: _Way) -> _Way:
    """What is known after an instruction that is no jump."""
    memory = dict(way.memory)
    if one.kind == "move":
        return replace(way, x=way.a) if one.name == "tax" else replace(way, a=way.x)
    if one.kind == "store":
        memory[one.k] = way.a if one.register == "A" else way.x
        return replace(way, memory=tuple(sorted(memory.items(), key=lambda item: item[0])))
    if one.kind == "alu":
        return replace(way, a=_computed(one, way))
    value = _loaded(one, way)
    return replace(way, a=value) if one.register == "A" else replace(way, x=value)


def _loaded(one: Decoded, way: _Way) -> _Value:
    if one.way == "imm":
        return _Value(number=one.k, words=str(one.k))
    if one.way == "mem":
        return dict(way.memory).get(one.k, _Value())
    if one.way == "len":
        return _Value(words="the packet's length")
    if one.way == "msh":
        return _Value(header=one.k, words="the IPv4 header's length")
    if one.way == "abs" and beside(one.k):
        return _Value(words=_BESIDE.get(beside(one.k), f"what the kernel knows as {one.k:#x}"))
    read = _place_read(one, way.x)
    return _Value(read=read) if read else _Value()


def _place_read(one: Decoded, x: _Value) -> Read | None:
    """Where a load reads in the frame, if that is known."""
    if one.way == "abs":
        return Read(one.k, one.size)
    if x.number is not None:
        return Read((x.number + one.k) & _WORD, one.size)
    # libpcap adds the IPv4 header's own place to the offset: [x + 14] is what follows the header.
    return Read(one.k - x.header, one.size, x.header) if x.header is not None else None


def _computed(one: Decoded, way: _Way) -> _Value:
    other = one.k if one.way == "k" else way.x.number
    a = way.a
    if one.name == "and" and a.read and other is not None:
        return replace(a, mask=a.mask & other)
    if other == 0 and one.name in ("add", "sub", "or", "xor", "lsh", "rsh"):
        return a
    if one.name == "add" and a.number is not None and other is not None:
        total = (a.number + other) & _WORD
        # In a loop numbers would grow for ever.
        return _Value(number=total, words=str(total)) if total < 1 << 12 else _Value()
    return _Value()


# --- words --------------------------------------------------------------------------------------

_BESIDE = {
    "proto": "the EtherType, as the kernel noted it",
    "type": "the packet's direction (4: this host sends it)",
    "ifidx": "the interface's number",
    "vlan_tci": "the VLAN tag that the kernel took out of the frame",
    "vlanp": "whether the kernel took a VLAN tag out of the frame (1: yes)",
    "vlan_tpid": "the type of the VLAN tag that the kernel took out of the frame",
    "hatype": "the interface's type",
    "mark": "the packet's mark",
    "queue": "the packet's queue",
    "rxhash": "the packet's receive hash",
    "cpu": "the CPU's number",
    "random": "a random number",
    "poff": "where the payload begins",
}
_ALU = {
    "add": "Add {0} to A.",
    "sub": "Subtract {0} from A.",
    "mul": "Multiply A by {0}.",
    "div": "Divide A by {0}.",
    "mod": "Take the rest of A divided by {0}.",
    "and": "Keep of A only the bits {0}.",
    "or": "Set in A the bits {0}.",
    "xor": "Turn over in A the bits {0}.",
    "lsh": "Shift A left by {0} bits.",
    "rsh": "Shift A right by {0} bits.",
    "neg": "Change the sign of A.",
}
_ASKS = {"jeq": "is", "jgt": "is more than", "jge": "is at least"}


class _Teller:
    """Says one instruction in words.

    Args:
        program: what jumps lead to.
        ways: what is known at the instruction.
        inside: see `explain`.
    """

    def __init__(
        self, program: Sequence[Decoded], ways: Sequence[_Way], inside: Inside | None
    ) -> None:
        self._program, self._ways, self._inside = program, ways, inside

    def words(self, one: Decoded) -> str:
        """The sentence."""
        if one.kind == "load":
            return self._load(one)
        if one.kind == "store":
            return f"Keep {one.register} in memory word {one.k}."
        if one.kind == "alu":
            return self._alu(one)
        if one.kind == "jump":
            return self._jump(one)
        if one.kind == "move":
            return "Copy A to X." if one.name == "tax" else "Copy X to A."
        return _return(one)

    def _load(self, one: Decoded) -> str:
        if one.way == "msh":
            return f"X = length of {self._header(one.k)}: the low 4 bits of byte {one.k}, times 4."
        if one.way == "imm":
            return f"{one.register} = {one.k}."
        if one.way == "mem":
            return f"{one.register} = memory word {one.k}."
        if one.way == "len":
            return f"{one.register} = the packet's length in bytes."
        if one.way == "abs" and beside(one.k):
            return f"Ask the kernel: {self._common(lambda way: _loaded(one, way).words)}."
        size = "1 byte" if one.size == 1 else f"{one.size} bytes"
        at = str(signed(one.k)) if one.way == "abs" else f"X + {signed(one.k)}"
        what = self._names([_loaded(one, way).read for way in self._ways])
        return f"Load {what}: {size} at {at}." if what else f"Load {size} of the frame at {at}."

    def _header(self, at: int) -> str:
        places = [locate(Read(at, 1), dict(way.known), self._inside) for way in self._ways]
        names = dict.fromkeys(p.header for p in places if p.header)
        return f"the {' or '.join(names)} header" if names else "the header"

    def _names(self, reads: Sequence[Read | None]) -> str:
        """What all ways together read: of several readings those that tell most."""
        places = self._places(reads)
        best = max((p.rank for p in places), default=0)
        kept = [p for p in places if p.rank == best]
        if not kept:
            return ""
        headers: dict[str, list[str]] = {}
        for p in kept:
            headers.setdefault(p.field, []).append(p.header)
        told = " or ".join(_merged(field, some) for field, some in headers.items())
        sure = "" if all(p.sure for p in kept) else " (if the IPv4 header before it has no options)"
        return f"the {told}{sure}"

    def _places(self, reads: Sequence[Read | None]) -> list[Place]:
        """Each place once, in the order of the ways."""
        pairs = zip(self._ways, reads, strict=True)
        found = (locate(read, dict(way.known), self._inside) for way, read in pairs if read)
        return list(dict.fromkeys(found))

    def _alu(self, one: Decoded) -> str:
        if one.name == "and" and one.way == "k":
            places = self._places([way.a.read for way in self._ways])
            if places and all(p.meaning == "tag" for p in places) and one.k == 0xFFF:
                return "Keep of it only the VLAN id, the low 12 bits."
        bits = one.name in ("and", "or", "xor")
        operand = "X" if one.way == "x" else f"0x{one.k:x}" if bits else str(signed(one.k))
        return _ALU[one.name].format(operand)

    def _jump(self, one: Decoded) -> str:
        yes, no = self._goes(one.yes), self._goes(one.no)
        if one.name == "ja":
            return f"Go to {yes}."
        return f"If {self._question(one)}, go to {yes}; otherwise to {no}."

    def _goes(self, number: int) -> str:
        if not 0 <= number < len(self._program):
            return f"{number}, outside of the program"
        target = self._program[number]
        if target.kind != "return" or target.way != "k":
            return str(number)
        return f"{number} (match)" if target.k else f"{number} (no match)"

    def _question(self, one: Decoded) -> str:
        places = self._places([way.a.read for way in self._ways])
        masks = {way.a.mask for way in self._ways if way.a.read}
        plain = masks == {_WORD} and all(way.a.read for way in self._ways)
        best = max((p.rank for p in places), default=0)
        meanings = {p.meaning for p in places if p.rank == best}
        if plain and (one.name, one.k, meanings) == ("jset", 0x1FFF, {"fragment"}):
            return "the fragment offset is not 0 (a later fragment, which has no ports)"
        subject = self._subject(places, plain=plain)
        value = "X" if one.way == "x" else f"0x{one.k:x}"
        if plain and one.way == "k" and one.name != "jset" and len(meanings) == 1:
            value = _value(meanings.pop(), one.k)
        elif one.way == "k" and one.name != "jset":
            value = self._masked(places, masks, one.k)
        if one.name == "jset":
            return f"any of the bits {value} is set in {subject}"
        asks = _ASKS[one.name].replace("is", "are") if subject.endswith("flags") else None
        return f"{subject} {asks or _ASKS[one.name]} {value}"

    def _masked(self, places: Sequence[Place], masks: set[int], k: int) -> str:
        """A number that some bits of the packet are compared with."""
        meanings = {p.meaning for p in places}
        if meanings == {"ipv4"}:
            return str(IPv4Address(k))
        return f"0x{k:x}" if masks and meanings != {"tag"} else str(k)

    def _subject(self, places: Sequence[Place], *, plain: bool) -> str:
        if places and plain:
            best = max(p.rank for p in places)
            fields = dict.fromkeys(p.field.split(",")[0] for p in places if p.rank == best)
            parts = [p for p in places if p.rank == best and ", " in p.field]
            return f"{'it' if parts else 'the ' + ' or '.join(fields)}"
        if places and all(p.meaning == "tag" for p in places):
            return "the VLAN id"
        return self._common(lambda way: "A" if way.a.read else way.a.words, "A")

    def _common(self, words: Callable[[_Way], str], several: str = "something") -> str:
        """What is said on every way, if it is the same."""
        found = dict.fromkeys(map(words, self._ways))
        return next(iter(found)) if len(found) == 1 else several


def _merged(field: str, headers: Sequence[str]) -> str:
    """``UDP source port``, or ``source port (of UDP, TCP)`` where it may be in several headers."""
    told = [h for h in dict.fromkeys(headers) if h]
    if len(told) < 2:
        return f"{told[0]} {field}" if told else field
    first = told[0].split()[0]
    if all(h.split()[0] == first for h in told) and first in ("outer", "inner"):
        return f"{first} {field} ({' or '.join(h.removeprefix(first + ' ') for h in told)})"
    return f"{field} ({' or '.join(told)})"


def _value(meaning: str, k: int) -> str:
    if meaning == "ethertype":
        return f"0x{k:04x} ({ETHERTYPES[k]})" if k in ETHERTYPES else f"0x{k:04x}"
    if meaning == "protocol":
        return f"{k} ({PROTOCOLS[k]})" if k in PROTOCOLS else str(k)
    if meaning == "ipv4":
        return f"{IPv4Address(k)}"
    return f"0x{k:08x}" if meaning == "ipv6" else str(k)


def _return(one: Decoded) -> str:
    if one.kind == "unknown":
        return f"An instruction that this kernel's filters do not have (0x{one.k:x})."
    if one.way != "k":
        return f"Match if {one.way.upper()} is not 0, and capture as many bytes."
    if not one.k:
        return "No match: the capture does not get this packet, which goes on its way."
    return f"Match: the capture gets the packet, at most {one.k} bytes of it."
