"""Whether a program can run in a container that holds nothing else."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from bare_machine import real_busybox
from vxlab.binaries.programs import is_static


def elf(bits: int, order: str, types: list[int]) -> bytes:
    """An ELF header with program headers of these types, and nothing else."""
    head = bytearray(64 if bits == 64 else 52)
    head[:6] = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2])
    size = 56 if bits == 64 else 32
    if bits == 64:
        struct.pack_into(order + "Q", head, 32, len(head))
        struct.pack_into(order + "HH", head, 54, size, len(types))
    else:
        struct.pack_into(order + "I", head, 28, len(head))
        struct.pack_into(order + "HH", head, 42, size, len(types))
    table = b"".join(struct.pack(order + "I", kind).ljust(size, b"\0") for kind in types)
    return bytes(head) + table


def test_a_real_static_and_a_real_dynamic_program() -> None:
    """This machine's own static busybox and its ls."""
    assert is_static(real_busybox())
    assert not is_static(Path("/bin/ls"))


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_interpreter_header_decides(tmp_path: Path, bits: int, order: str) -> None:
    """PT_LOAD alone is static, also with PT_DYNAMIC (static PIE); PT_INTERP is not."""
    path = tmp_path / "program"
    path.write_bytes(elf(bits, order, [1, 2, 1]))
    assert is_static(path)
    path.write_bytes(elf(bits, order, [1, 3, 1]))
    assert not is_static(path)


@pytest.mark.parametrize(
    "body", [b"", b"#!/bin/sh\n", b"\x7fELF", elf(64, "<", []), elf(64, "<", [1, 1])[:-1]]
)
def test_what_is_no_whole_elf_program_is_not_static(tmp_path: Path, body: bytes) -> None:
    """Scripts, empty and cut files."""
    (tmp_path / "program").write_bytes(body)
    assert not is_static(tmp_path / "program")
