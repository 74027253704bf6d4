"""What a capture on a host comes by, and what it brought."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from vxlab.sniff import Frame


class Reader(Protocol):
    """Where a command's output comes from."""

    def read(self, size: int, /) -> bytes:
        """Wait for some bytes, `size` at most; none at the end."""


class Stream(Protocol):
    """A command that runs on a host, with its input and outputs."""

    @property
    def stdout(self) -> Reader:
        """What it prints."""

    @property
    def stderr(self) -> Reader:
        """What it complains about."""

    def end_input(self) -> None:
        """Nothing more comes."""

    def close(self) -> None:
        """Let go of it."""


@dataclass(frozen=True, slots=True)
class Captured:
    """What a capture brought."""

    frames: tuple[Frame, ...] = ()
    dropped: int = 0  # frames that did not fit the capture's buffer
    error: str = ""  # why nothing could be captured
