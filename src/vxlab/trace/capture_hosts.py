"""Captures at hops of real hosts: one channel per host, whose clocks nobody compares.

Frames of one host come in the order of their time stamps, those of different hosts as they arrive.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from vxlab.errors import VxlabError
from vxlab.hostprobe.taps import Taps
from vxlab.sniff import Frame
from vxlab.trace.capture import Caught
from vxlab.trace.capture_sieve import Sieve
from vxlab.trace.hops import Hop

_MARGIN = 0.05  # seconds that an earlier frame of the same host may come later
_TOGETHER = 0.02  # seconds of a host's frames that are not divided by those of another one

Told = Callable[[Hop, str], None]


class Host:
    """The captures on one host.

    Args:
        name: the node's.
        taps: its captures.
        numbers: each one's hop, as a number in `HostCaptures.hops`.
        ranks: see `vxlab.trace.capture.ranks`; by hop.
        sieves: what decides about the frames of a hop; where there is none, all are wanted.
    """

    def __init__(
        self,
        name: str,
        taps: Taps,
        numbers: Sequence[int],
        ranks: Sequence[tuple[bool, int]],
        sieves: Mapping[int, Sieve],
    ) -> None:
        self.name, self.taps, self.numbers = name, taps, tuple(numbers)
        self._ranks, self._sieves = ranks, sieves
        self._held: list[tuple[float, Caught]] = []  # with the time of their arrival

    def take(self) -> list[Caught]:
        """The frames that have come since the last time, which are held now."""
        return self.add((self.numbers[tap], frame) for tap, frame in self.taps.read())

    def add(self, frames: Iterable[tuple[int, Frame]]) -> list[Caught]:
        """Hold frames that are wanted, each with its hop's number."""
        now = time.monotonic()
        found = [
            Caught(number, frame)
            for number, frame in frames
            if number not in self._sieves or self._sieves[number].takes(frame.data)
        ]
        self._held += [(now, caught) for caught in found]
        return found

    @property
    def waiting(self) -> bool:
        """Whether frames are held."""
        return bool(self._held)

    def release(self, before: float) -> list[tuple[float, Caught]]:
        """The frames that arrived before some time, and those that passed before such a one.

        Each with a time that sorts it among those of other hosts.
        """
        self._held.sort(key=lambda each: (each[1].frame.ns, self._ranks[each[1].number]))
        at = len(self._held)
        while at and self._held[at - 1][0] > before:
            at -= 1
        released, self._held = self._held[:at], self._held[at:]
        ordered, first = [], -_TOGETHER
        for arrived, caught in released:
            first = arrived if arrived >= first + _TOGETHER else first
            ordered.append((first, caught))
        return ordered

    def close(self) -> None:
        for sieve in self._sieves.values():
            sieve.close()


class HostCaptures:
    """Captures at several hops of real hosts, which run from their construction to `close`.

    Args:
        hops: where.
        hosts: the running captures.
        told: is told what happens to a capture, such as its interface's going away.
    """

    def __init__(
        self,
        hops: Sequence[Hop],
        hosts: Sequence[Host],
        told: Told = lambda hop, words: None,
    ) -> None:
        self.hops = tuple(hops)
        self.begun = time.time_ns()
        self._hosts = tuple(hosts)
        self._told = told
        self._received = [0] * len(self.hops)
        self._dropped = [0] * len(self.hops)
        self._ended: set[int] = set()  # hops
        self._stopped = False
        self._failure: VxlabError | None = None
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poller = select.poll()
        self._poller.register(self._wake, select.POLLIN)
        self._open = {host.taps.fileno(): host for host in hosts}
        for fd in self._open:
            self._poller.register(fd, select.POLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all captures."""
        self._stop()
        for host in self._hosts:
            host.close()
        os.close(self._wake)

    @property
    def running(self) -> bool:
        """Whether a hop is left that can bring something, and no host is lost."""
        return self._failure is None and len(self._ended) < len(self.hops)

    @property
    def failure(self) -> VxlabError | None:
        """The loss of the connection to a host."""
        return self._failure

    @property
    def received(self) -> tuple[int, ...]:
        """Frames by hop that were read so far."""
        return tuple(self._received)

    @property
    def dropped(self) -> tuple[int, ...]:
        """Frames by hop that were lost. Hosts tell it in the end: this ends the captures."""
        self._stop()
        return tuple(self._dropped)

    def wake(self) -> None:
        """Have `poll` return at once; may be called by a signal's handler."""
        os.eventfd_write(self._wake, 1)

    def poll(self, timeout: float) -> list[Caught]:
        """The next frames of all hops; a frame is held back for some milliseconds.

        Args:
            timeout: seconds to wait for the first one.
        """
        held = any(host.waiting for host in self._hosts)
        for fd, _ in self._poller.poll(min(timeout, _MARGIN if held else timeout) * 1000):
            if fd == self._wake:
                os.eventfd_read(fd)
            else:
                self._count(self._open[fd].take())
                self._look(self._open[fd])
        return self._release(time.monotonic() - _MARGIN)

    def rest(self) -> list[Caught]:
        """All that the hosts have captured and not sent yet; this ends the captures."""
        self._stop()
        return self._release(float("inf"))

    # --- within ---------------------------------------------------------------------------------

    def _count(self, found: Iterable[Caught]) -> None:
        for caught in found:
            self._received[caught.number] += 1

    def _release(self, before: float) -> list[Caught]:
        released = [each for host in self._hosts for each in host.release(before)]
        released.sort(key=lambda each: each[0])
        return [caught for _, caught in released]

    def _look(self, host: Host) -> None:
        """Whether captures of a host have ended by themselves, which is told."""
        self._failure = self._failure or host.taps.lost
        for tap, number in enumerate(host.numbers):
            if number not in self._ended and host.taps.ended(tap):
                self._ended.add(number)
                if host.taps.lost is None:
                    words = host.taps.error(tap) or "it ended"
                    self._told(self.hops[number], f"is captured no more: {words}")

    def _stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        with ThreadPoolExecutor(len(self._hosts)) as pool:
            every = list(pool.map(lambda host: host.taps.stop(), self._hosts))
        for host, captures in zip(self._hosts, every, strict=True):
            self._failure = self._failure or host.taps.lost
            for number, captured in zip(host.numbers, captures, strict=True):
                self._count(host.add((number, frame) for frame in captured.frames))
                self._dropped[number] = captured.dropped
                if captured.error and number not in self._ended and host.taps.lost is None:
                    self._told(self.hops[number], f"had an error: {captured.error}")


__all__ = ["Host", "HostCaptures", "Told"]
