"""A filter's program run on frames that were captured elsewhere: by the kernel, as in a capture.

It may be attached to any socket. So a frame goes through a pair of them, and comes out of the other
one if the program takes it.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from vxlab.sniff import Instruction, attach


class Sieve:
    """A program that is asked about one frame after the other.

    Args:
        program: for frames as they are in captures.
    """

    def __init__(self, program: Sequence[Instruction]) -> None:
        self._here, self._there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for end in (self._here, self._there):
            end.setblocking(False)
        attach(self._there, program)

    def takes(self, data: bytes) -> bool:
        """Whether the program takes a frame."""
        self._here.send(data)
        try:
            self._there.recv(1)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        self._here.close()
        self._there.close()
