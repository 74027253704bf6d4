"""The same evidence from a real host, where there is no Python: busybox, nsenter and tcpdump.

Shell programs go to the host, what they print comes back and is read here. Text in, text out: how
it gets there and back is somebody else's business. What the evidence means is `vxlab.probe`'s.
"""

from __future__ import annotations

from vxlab.hostprobe.bundle import bundle, bundled
from vxlab.hostprobe.edges import Question, edges, read_edges
from vxlab.hostprobe.pcap import PcapReader
from vxlab.hostprobe.pings import PATIENCE, pings, read_pings
from vxlab.hostprobe.streams import Captured, Reader, Stream
from vxlab.hostprobe.taps import Tap, Taps

__all__ = [
    "PATIENCE",
    "Captured",
    "PcapReader",
    "Question",
    "Reader",
    "Stream",
    "Tap",
    "Taps",
    "bundle",
    "bundled",
    "edges",
    "pings",
    "read_edges",
    "read_pings",
]
