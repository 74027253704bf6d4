"""Shell programs as one command line that every login shell understands in the same way."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

_PLAIN = frozenset(
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 /.,:;=+-_@%()[]{}<>|&^#~?*\t"
)


def command(program: str) -> str:
    r"""``sh -c`` with a program, for POSIX shells, csh and fish alike.

    They differ in what a backslash, a quote, ``!`` and a newline mean within single quotes; so
    these travel as octal numbers (`printf %b`), which none of them changes.
    """
    text = "".join(
        chr(byte) if byte in _PLAIN else f"\\0{byte:03o}" for byte in program.rstrip("\n").encode()
    )
    return f"""sh -c 'eval "$(printf %b "{text}")"'"""


def line(argv: Sequence[str]) -> str:
    """A command line for a POSIX shell."""
    return shlex.join(argv)
