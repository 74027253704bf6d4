"""BPF bytecode as values, and in tcpdump's two notations: a line of assembly (-d), numbers (-ddd).

The machine has an accumulator A, an index register X, 16 words of memory M, and jumps that go
forwards (McCanne and Jacobson, "The BSD Packet Filter", 1993; include/uapi/linux/filter.h). The
assembly is libpcap's own spelling of it (bpf_image.c).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

#: One BPF instruction: code, jump if true, jump if false, operand (struct sock_filter).
Instruction = tuple[int, int, int, int]

Kind = Literal["load", "store", "alu", "jump", "return", "move", "unknown"]

#: Loads beyond this place ask the kernel for something that is not in the packet (SKF_AD_OFF).
BESIDE = 0x1_0000_0000 - 0x1000

#: What the kernel knows beside the packet, by libpcap's names (linux/filter.h, SKF_AD_*).
ANCILLARY = {
    0: "proto",
    4: "type",
    8: "ifidx",
    12: "nla",
    16: "nlan",
    20: "mark",
    24: "queue",
    28: "hatype",
    32: "rxhash",
    36: "cpu",
    40: "xor_x",
    44: "vlan_tci",
    48: "vlanp",
    52: "poff",
    56: "random",
    60: "vlan_tpid",
}

_SIZES = {0x00: 4, 0x08: 2, 0x10: 1}
_SUFFIX = {4: "", 2: "h", 1: "b"}
_MODES = {0x00: "imm", 0x20: "abs", 0x40: "ind", 0x60: "mem", 0x80: "len", 0xA0: "msh"}
_ALU = {
    0x00: "add",
    0x10: "sub",
    0x20: "mul",
    0x30: "div",
    0x40: "or",
    0x50: "and",
    0x60: "lsh",
    0x70: "rsh",
    0x80: "neg",
    0x90: "mod",
    0xA0: "xor",
}
_JUMPS = {0x00: "ja", 0x10: "jeq", 0x20: "jgt", 0x30: "jge", 0x40: "jset"}
_RETURNS = {0x00: "k", 0x08: "x", 0x10: "a"}


@dataclass(frozen=True, slots=True)
class Decoded:
    """One instruction taken apart.

    `way` is a load's mode (imm, abs, ind, mem, len, msh), and for the others where the operand
    comes from (k: it is in the instruction; x, a: that register). `size` is in bytes.
    """

    kind: Kind
    name: str  # ldh, jeq, and, ret, ...
    register: Literal["A", "X", ""]  # which a load or store is about
    way: str
    size: int
    k: int
    yes: int = 0  # numbers of the instructions that a jump goes to
    no: int = 0

    @property
    def text(self) -> str:
        """As ``tcpdump -d`` prints it, without the line's number."""
        operand = self._operand()
        if self.kind == "jump" and self.name != "ja":
            return f"{self.name:<8} {operand:<16} jt {self.yes}\tjf {self.no}"
        return f"{self.name:<8} {operand}"

    def _operand(self) -> str:
        if self.kind == "jump":
            return "x" if self.way == "x" else str(self.yes) if self.name == "ja" else _hex(self.k)
        if self.kind == "alu":
            if self.name == "neg" or self.way == "x":
                return "" if self.name == "neg" else "x"
            return _hex(self.k) if self.name in ("and", "or", "xor") else f"#{signed(self.k)}"
        if self.kind == "return":
            return f"#{signed(self.k)}" if self.way == "k" else ""
        words = {
            "imm": _hex(self.k),
            "abs": f"[{beside(self.k) or signed(self.k)}]",
            "ind": f"[x + {signed(self.k)}]",
            "mem": f"M[{signed(self.k)}]",
            "len": "#pktlen",
            "msh": f"4*([{signed(self.k)}]&0xf)",
        }
        return _hex(self.k) if self.kind == "unknown" else words.get(self.way, "")


def _hex(k: int) -> str:
    return f"#0x{k:x}"


def signed(k: int) -> int:
    """An operand as tcpdump prints it: 32 bits, with a sign."""
    return k - (1 << 32) if k >= 1 << 31 else k


def beside(k: int) -> str:
    """libpcap's name of what a load asks the kernel for; empty if it reads the packet."""
    return ANCILLARY.get(k - BESIDE, "") if k >= BESIDE else ""


def decode(instruction: Instruction, number: int = 0) -> Decoded:
    """Take an instruction apart.

    Args:
        instruction: as the kernel gets it.
        number: its own number in the program, which jumps count from.
    """
    code, jt, jf, k = instruction
    group = code & 0x07
    if code >> 8:
        return _unknown(code)
    if group in (0x00, 0x01):
        return _load(code, k)
    if group in (0x02, 0x03) and not code & 0xF8:
        name, register = ("st", "A") if group == 0x02 else ("stx", "X")
        return Decoded("store", name, "A" if register == "A" else "X", "mem", 4, k)
    if group == 0x04 and code & 0xF0 in _ALU:
        return Decoded("alu", _ALU[code & 0xF0], "A", "x" if code & 0x08 else "k", 4, k)
    if group == 0x05 and code & 0xF0 in _JUMPS:
        return _jump(code, number + 1, jt, jf, k)
    if group == 0x06 and code & 0xF8 in _RETURNS:
        return Decoded("return", "ret", "", _RETURNS[code & 0xF8], 4, k)
    if code in (0x07, 0x87):
        return Decoded("move", "tax" if code == 0x07 else "txa", "", "", 4, 0)
    return _unknown(code)


def _load(code: int, k: int) -> Decoded:
    size, way = _SIZES.get(code & 0x18, 0), _MODES.get(code & 0xE0, "")
    if code & 0x07 == 0x01:
        if way == "msh" and size == 1:
            return Decoded("load", "ldxb", "X", way, 1, k)
        if way in ("imm", "mem", "len") and size == 4:
            return Decoded("load", "ldx", "X", way, 4, k)
        return _unknown(code)
    if size and (way in ("abs", "ind") or (way in ("imm", "mem", "len") and size == 4)):
        return Decoded("load", f"ld{_SUFFIX[size]}", "A", way, size, k)
    return _unknown(code)


def _jump(code: int, after: int, jt: int, jf: int, k: int) -> Decoded:
    name, way = _JUMPS[code & 0xF0], "x" if code & 0x08 else "k"
    if name == "ja":
        return Decoded("jump", name, "", "k", 4, k, after + signed(k), after + signed(k))
    return Decoded("jump", name, "A", way, 4, k, after + jt, after + jf)


def _unknown(code: int) -> Decoded:
    return Decoded("unknown", "unimp", "", "", 0, code)


def assembly(program: Sequence[Instruction]) -> list[str]:
    """The program as ``tcpdump -d`` prints it, one line an instruction."""
    return [f"({n:03d}) {decode(one, n).text}" for n, one in enumerate(program)]


def decimal(program: Sequence[Instruction]) -> list[str]:
    """The program as ``tcpdump -ddd`` prints it: how many instructions, then each in decimal."""
    return [str(len(program)), *(" ".join(map(str, one)) for one in program)]
