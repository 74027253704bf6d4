"""What leaves a host's underlay interface, as its tcpdump tells over a stream."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Network

from vxlab.errors import VxlabError
from vxlab.hostprobe.pcap import PcapReader
from vxlab.hostprobe.streams import Captured, Reader, Stream
from vxlab.sniff import Frame
from vxlab.state import BORN

__all__ = ["Capture", "Captured", "Reader", "Stream", "capture_filter", "command"]

_BLOCK = 1 << 16
_SNAPLEN = 256  # bytes of each frame: all headers, the inner ones too

# The host's own tcpdump, else the one that travelled. It ends with the input, so that it does not
# outlive whoever began it. Its start time tells it from a stranger with its PID.
_PROGRAM = """\
export LC_ALL=C; PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
t=$(command -v tcpdump) || t=$1; shift
[ -x "${t%% *}" ] || { echo 'there is no tcpdump on this host' >&2; exit 69; }
exec 3<&0
$t "$@" </dev/null 3<&- & p=$!; b=$(born $p)
{ read -r _; [ -n "$b" ] && [ "$(born $p)" = "$b" ] && kill -s TERM $p; } <&3 >/dev/null 2>&1 &
exec 3<&-; wait $p
"""

_DROPPED = re.compile(r"^(\d+) packets? dropped by kernel", re.MULTILINE)


def capture_filter(ports: Iterable[int], network: IPv4Network) -> str:
    """Keep the overlay's packets and pieces of packets; never the session that captures.

    The session is TCP, and nothing of that is kept whatever its port.

    Args:
        ports: UDP ports that outer packets may have.
        network: the containers' network, whose ICMP may come unencapsulated.
    """
    wrapped = " or ".join(f"udp port {port}" for port in sorted(set(ports)))
    pieces = "(ip[6:2] & 0x3fff != 0 and not ip proto 6)"
    return f"{wrapped} or (icmp and net {network}) or {pieces}"


def command(interface: str, expression: str, bundled: Sequence[str] = ()) -> list[str]:
    """The command line of a capture on a host: outgoing frames, as pcap, to its stdout.

    Args:
        interface: where to capture.
        expression: what to capture, as `capture_filter` says it.
        bundled: how the tcpdump that travelled is run there, if one did.
    """
    # -Z root: as it is started, since there may be no user tcpdump. --immediate-mode: no frame
    # waits for a buffer to fill up.
    flags = ["-i", interface, "-n", "-U", "-w", "-", "-Q", "out", "-Z", "root"]
    flags += ["-s", str(_SNAPLEN), "--immediate-mode", expression]
    return ["sh", "-c", BORN + _PROGRAM, "sh", " ".join(bundled), *flags]


class Capture:
    """A capture on one host, from its construction to `stop`; reads both outputs as they come.

    Args:
        stream: the running command of `command`, with its input open.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._frames: list[Frame] = []
        self._said = bytearray()
        self._error = ""
        self._changed = threading.Condition()
        self._open = 2  # outputs that have not ended
        self._threads = [
            threading.Thread(target=self._read, args=(stream.stdout, self._packets), daemon=True),
            threading.Thread(target=self._read, args=(stream.stderr, self._words), daemon=True),
        ]
        self._pcap = PcapReader()
        for thread in self._threads:
            thread.start()

    def _read(self, reader: Reader, take: Callable[[bytes], None]) -> None:
        try:
            while data := reader.read(_BLOCK):
                with self._changed:
                    take(data)
                    self._changed.notify_all()
        except (VxlabError, OSError, ValueError) as error:  # connection lost, or no pcap
            with self._changed:
                self._error = self._error or str(error)
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def _packets(self, data: bytes) -> None:
        if not self._error:
            self._frames += self._pcap.feed(data)

    def _words(self, data: bytes) -> None:
        self._said += data

    def ready(self, timeout: float) -> bool:
        """Wait until the capture runs; False if it does not, after so many seconds."""

        def settled() -> bool:
            return b"listening on" in self._said or self._open < 2

        with self._changed:
            self._changed.wait_for(settled, timeout)
            return b"listening on" in self._said

    def wait(self, until: Callable[[Sequence[Frame]], bool], timeout: float) -> bool:
        """Wait until the frames so far are what one waits for; False after so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: until(self._frames) or not self._open, timeout)
            return until(self._frames)

    def stop(self, timeout: float = 5.0) -> Captured:
        """End the capture and wait for its last words, the count of what it lost.

        Args:
            timeout: seconds to wait for them.
        """
        self._stream.end_input()
        deadline = time.monotonic() + timeout
        with self._changed:
            self._changed.wait_for(lambda: not self._open, deadline - time.monotonic())
        self._stream.close()
        with self._changed:
            said = self._said.decode(errors="replace")
            lost = _DROPPED.search(said)
            running = "listening on" in said
            error = self._error or ("" if running else _told(said))
            if running and not lost and not error:
                error = "the capture did not end as it should: what it lost is not known"
            return Captured(tuple(self._frames), int(lost[1]) if lost else 0, error)


def _told(said: str) -> str:
    return " ".join(said.split()) or "the capture did not begin"
