"""Captures at many hops at once, read by one loop: frames in the order in which they passed."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol, Self

from vxlab.engine.running import Running
from vxlab.errors import OperationError, UsageError, VxlabError
from vxlab.nodes.local import LocalNode
from vxlab.sniff import BATCH, Frame, Instruction, Sniffer, close_all
from vxlab.steps import bridge
from vxlab.trace.hops import Hop

#: What a capture at a hop lets through: bytecode by hop; a hop that is not in it gets everything.
Programs = Mapping[Hop, Sequence[Instruction]]

_AT_ONCE = 16  # captures that are begun at the same time
_MARGIN = 5_000_000  # nanoseconds between a frame's time stamp and its coming into the buffer
_TURN = 8  # batches of one capture before the next one's turn


@dataclass(frozen=True, slots=True)
class Caught:
    """A frame and the hop that it passed, as a number in `Captures.hops`."""

    number: int
    frame: Frame


class Source(Protocol):
    """A capture at one hop that runs; `vxlab.sniff.Sniffer` is one."""

    def fileno(self) -> int:
        """Readable when `poll` has something."""

    def poll(self) -> list[Frame]:
        """The frames that wait, without waiting; a batch of `BATCH` if there are more.

        Raises:
            OperationError: nothing can be seen there at the moment.
        """

    def close(self) -> None:
        """End it."""

    @property
    def dropped(self) -> int:
        """How many frames it lost."""

    def gone(self) -> bool:
        """Whether it can never bring anything again."""


class Capturing(Protocol):
    """Captures at several hops that run, wherever those are."""

    #: Where, each once; frames name a hop by its number here.
    hops: tuple[Hop, ...]
    #: When they began: nanoseconds since 1970, by this machine's clock.
    begun: int

    @property
    def running(self) -> bool:
        """Whether a hop is left that can bring something."""

    @property
    def failure(self) -> VxlabError | None:
        """Why they ended by themselves, if that was no hop's own end."""

    @property
    def received(self) -> tuple[int, ...]:
        """Frames by hop that were read so far."""

    @property
    def dropped(self) -> tuple[int, ...]:
        """Frames by hop that were lost, since a capture's buffer was full."""

    def wake(self) -> None:
        """Have `poll` return at once; may be called by a signal's handler."""

    def poll(self, timeout: float) -> list[Caught]:
        """The next frames of all hops; waits at most so many seconds for the first one."""

    def rest(self) -> list[Caught]:
        """All that waits to be read, at the end."""


def ranks(hops: Sequence[Hop]) -> list[tuple[bool, int]]:
    """How the hops' frames with the same time stamp sort.

    The kernel stamps a packet once on its way in. Ports come before the bridge that they are of,
    and tunnels (named behind it) after the interface that their packets came in by.
    """
    return [(hop.interface == bridge.NAME, i) for i, hop in enumerate(hops)]


class LocalSource(Sniffer):
    """A capture at an interface of a local lab."""

    def gone(self) -> bool:
        return self.ifname not in interfaces(self.netns)


def interfaces(netns: str) -> list[str]:
    """The interfaces in a network namespace; none if it is gone.

    Args:
        netns: ``/proc/PID/ns/net``.
    """
    try:
        table = Path(netns.removesuffix("/ns/net"), "net/dev").read_text()
    except OSError:
        return []
    return [line.partition(":")[0].strip() for line in table.splitlines()[2:]]


class Captures:
    """Captures at several hops, which run from their construction to `close`.

    Args:
        hops: where.
        sources: the running captures, in the same order.
        told: is told what happens to a capture, such as its interface's going down.
    """

    def __init__(
        self,
        hops: Sequence[Hop],
        sources: Sequence[Source],
        told: Callable[[Hop, str], None] = lambda hop, words: None,
    ) -> None:
        self.hops = tuple(hops)
        self.begun = time.time_ns()
        self._sources = tuple(sources)
        self._told = told
        self._received = [0] * len(self.hops)
        self._rank = ranks(self.hops)
        self._held: list[Caught] = []
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poller = select.poll()
        self._poller.register(self._wake, select.POLLIN)
        self._open = {source.fileno(): i for i, source in enumerate(sources)}
        for fd in self._open:
            self._poller.register(fd, select.POLLIN)

    @classmethod
    def begin(
        cls,
        running: Running,
        hops: Sequence[Hop],
        programs: Programs,
        *,
        told: Callable[[Hop, str], None] = lambda hop, words: None,
        rcvbuf: int = 16 << 20,
    ) -> Captures:
        """Start capturing at all hops at once; when this returns, all of them run.

        Args:
            running: a local lab, whose world this process has entered.
            hops: where, each once.
            programs: what is let through.
            told: see the class.
            rcvbuf: bytes of each capture's buffer.

        Raises:
            UsageError: there is no such interface; says which there are.
            OperationError: one of the captures cannot be begun. None is left then.
        """

        def open_one(hop: Hop) -> LocalSource | UsageError | OperationError:
            try:
                netns = _netns(running, hop)
                names = interfaces(netns)
                if hop.interface not in names:
                    return no_interface(hop, names)
                return LocalSource(netns, hop.interface, bpf=programs.get(hop), rcvbuf=rcvbuf)
            except OperationError as error:
                return error

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            opened = list(pool.map(open_one, hops))
        sources = [source for source in opened if isinstance(source, LocalSource)]
        for failed in opened:
            if not isinstance(failed, LocalSource):
                close_all(sources)
                raise failed
        return cls(hops, sources, told)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all captures."""
        close_all(self._sources)
        os.close(self._wake)

    @property
    def running(self) -> bool:
        """Whether a hop is left that can bring something."""
        return bool(self._open)

    @property
    def failure(self) -> None:
        """Nothing but its hops' ends can end it."""

    @property
    def received(self) -> tuple[int, ...]:
        """Frames by hop that were read so far."""
        return tuple(self._received)

    @property
    def dropped(self) -> tuple[int, ...]:
        """Frames by hop that were lost so far, since the capture's buffer was full."""
        return tuple(source.dropped for source in self._sources)

    def wake(self) -> None:
        """Have `poll` return at once; may be called by a signal's handler."""
        os.eventfd_write(self._wake, 1)

    def poll(self, timeout: float) -> list[Caught]:
        """The next frames of all hops, in the order of their time stamps.

        A frame is held back for some milliseconds, since one that passed another hop before may
        still come.

        Args:
            timeout: seconds to wait for the first one.
        """
        wait = min(timeout, _MARGIN / 1e9) if self._held else timeout
        ready = self._poller.poll(wait * 1000)
        complete = time.time_ns() - _MARGIN  # what passed before has been read below
        for fd, _ in ready:
            if fd == self._wake:
                os.eventfd_read(fd)
            elif (seen := self._drain(self._open[fd], _TURN)) is not None:
                complete = min(complete, seen)
        return self._release(complete)

    def rest(self) -> list[Caught]:
        """All that waits to be read, at the end."""
        while self._open:
            ready = [fd for fd, _ in self._poller.poll(0) if fd != self._wake]
            now = time.time_ns()
            left = [self._drain(self._open[fd], _TURN) for fd in ready]
            # On a busy hop there is always more: what passed before this call was enough.
            if not any(seen is not None and seen < now for seen in left):
                break
        return self._release(None)

    def _release(self, complete: int | None) -> list[Caught]:
        self._held.sort(key=self._when)
        # A frame of the future: the clock was set back, and time stamps say nothing now.
        if complete is None or (self._held and self._held[-1].frame.ns > time.time_ns()):
            released, self._held = self._held, []
            return released
        at = len(self._held)
        while at and self._held[at - 1].frame.ns > complete:
            at -= 1
        released, self._held = self._held[:at], self._held[at:]
        return released

    def _when(self, caught: Caught) -> tuple[int, tuple[bool, int]]:
        return caught.frame.ns, self._rank[caught.number]

    def _drain(self, number: int, turns: int) -> int | None:
        """Read what waits at a hop; the last frame's time stamp if there may be more."""
        source = self._sources[number]
        for _ in range(turns):
            try:
                frames = source.poll()
            except OperationError as error:
                self._interrupted(number, error)
                return None
            self._received[number] += len(frames)
            self._held += [Caught(number, frame) for frame in frames]
            if len(frames) < BATCH:
                return None
        return frames[-1].ns

    def _interrupted(self, number: int, error: OperationError) -> None:
        """An interface that went down may come up again, and its capture then goes on."""
        source, hop = self._sources[number], self.hops[number]
        if source.gone():
            fd = source.fileno()
            self._poller.unregister(fd)
            del self._open[fd]
            self._told(hop, "is gone; the capture there ended")
        else:
            self._told(hop, f"{error.detail}; the capture goes on when it is up again")


def _netns(running: Running, hop: Hop) -> str:
    node = running.node(hop.node)
    assert isinstance(node, LocalNode)  # noqa: S101 - a lab's nodes are all local, or none
    return f"{node.inside(hop.container) if hop.container else node.proc}/ns/net"


def no_interface(hop: Hop, names: Iterable[str]) -> UsageError:
    """The answer to an interface that is not there; with what is close to it.

    Args:
        hop: that was asked for.
        names: the interfaces that are there.
    """
    names = [name for name in names if name != "lo"]
    near = get_close_matches(hop.interface, names, n=1)
    hint = f"did you mean {hop.place}:{near[0]}?" if near else f"there are {', '.join(names)}"
    return UsageError(f"{hop.place} has no interface {hop.interface!r}", hint=hint)


__all__ = [
    "Captures",
    "Capturing",
    "Caught",
    "LocalSource",
    "Programs",
    "Source",
    "interfaces",
    "no_interface",
    "ranks",
]
