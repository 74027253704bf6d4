"""Where a capture's bytes go: a file, a pipe or a terminal; and the loop that brings them there.

Whoever reads the output may be slow, such as a pager. The captures must be read all the same: what
is not read in time is lost. So nothing here waits for the output before the capture has ended.
"""

from __future__ import annotations

import os
import select
import time
from collections import deque
from collections.abc import Callable

from vxlab.errors import OperationError
from vxlab.trace.capture import Capturing, Caught

_PIECE = select.PIPE_BUF  # bytes that a pipe which is ready takes without waiting (pipe(7))
_FULL = 8 << 20  # bytes that wait for a slow reader; beyond, frames wait to be shown
_MOST_WAITING = 200_000  # frames that wait; beyond, the kernel's buffers fill up, and it counts
_AT_ONCE = 200  # frames that are shown before the captures are looked at again
_IDLE, _STUCK = 1.0, 0.02  # seconds between two looks at an output: at an idle one, at a slow one


class Output:
    """A file descriptor that is written to as fast as it takes bytes, and not faster.

    Args:
        fd: the file descriptor; stays open.
        where: its name, for messages.
    """

    def __init__(self, fd: int, where: str) -> None:
        self._fd, self._where = fd, where
        self._waiting: deque[bytes] = deque()
        self.waiting = 0  # bytes
        self._poller = select.poll()
        self._poller.register(fd, select.POLLOUT)

    def put(self, data: bytes) -> None:
        """Bytes to be written, in pieces that may be long."""
        self._waiting.append(data)
        self.waiting += len(data)

    def push(self, patience: float = 0) -> None:
        """Write what can be written without waiting.

        Args:
            patience: seconds to wait until there is room for anything at all.

        Raises:
            BrokenPipeError: nobody reads any more.
            OperationError: the disk is full, or another reason not to write.
        """
        while True:
            events = self._poller.poll(patience * 1000)
            patience = 0
            if events and events[0][1] & (select.POLLERR | select.POLLNVAL):
                raise BrokenPipeError(self._where)
            if not self.waiting or not events:
                return
            self._write(self._next())

    def finish(self) -> None:
        """Write all the rest, however long it takes."""
        while self.waiting:
            self._write(self._next())

    def _next(self) -> bytes:
        """A piece of what waits."""
        size, parts = 0, []
        while self._waiting and size < _PIECE:
            parts.append(self._waiting.popleft())
            size += len(parts[-1])
        data = b"".join(parts)
        if len(data) > _PIECE:
            self._waiting.appendleft(data[_PIECE:])
        return data[:_PIECE]

    def _write(self, data: bytes) -> None:
        try:
            written = os.write(self._fd, data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OperationError(
                "cannot write the capture", where=self._where, detail=os.strerror(error.errno or 0)
            ) from None
        self.waiting -= written
        if written < len(data):
            self._waiting.appendleft(data[written:])


class Pump:
    """Brings frames from captures to an output, until there are enough or it is told to stop.

    Args:
        captures: the running captures.
        output: where to.
        shown: what is written for a frame.
        most: frames to write at most; None for all.
    """

    def __init__(
        self,
        captures: Capturing,
        output: Output,
        shown: Callable[[Caught], bytes],
        most: int | None = None,
    ) -> None:
        self._captures, self._output, self._shown = captures, output, shown
        self._left = most
        self._waiting: deque[Caught] = deque()
        self._stopped = False
        self.written = [0] * len(captures.hops)

    def stop(self) -> None:
        """End `run`; may be called by a signal's handler."""
        self._stopped = True
        self._captures.wake()

    def run(self, seconds: float | None = None) -> None:
        """Write frames until `stop`, until there are enough, or until time is over.

        When it returns, what passed before is written or waits in the output.

        Args:
            seconds: how long at most; None for no limit.

        Raises:
            BrokenPipeError: nobody reads the output any more.
            OperationError: the output cannot be written.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while not self._stopped and self._left != 0 and self._captures.running:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            full = len(self._waiting) >= _MOST_WAITING
            if not full:
                self._waiting.extend(self._captures.poll(self._patience(left)))
            if self._output.waiting < _FULL:
                self._show(_AT_ONCE)
            self._output.push(_STUCK if full and self._output.waiting >= _FULL else 0)
        self._waiting.extend(self._captures.rest())
        self._show(len(self._waiting))

    def _patience(self, left: float | None) -> float:
        """Seconds to wait for frames."""
        if self._waiting and self._output.waiting < _FULL:
            return 0
        patience = _STUCK if self._output.waiting else _IDLE
        return patience if left is None else min(patience, left)

    def _show(self, most: int) -> None:
        count = min(most, len(self._waiting))
        if self._left is not None:
            count = min(count, self._left)
            self._left -= count
        for _ in range(count):
            caught = self._waiting.popleft()
            self._output.put(self._shown(caught))
            self.written[caught.number] += 1
