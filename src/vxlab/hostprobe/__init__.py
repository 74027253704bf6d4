"""The same evidence from a real host, where there is no Python: busybox, nsenter and tcpdump.

Shell programs go to the host, what they print comes back and is read here. Text in, text out: how
it gets there and back is somebody else's business. What the evidence means is `vxlab.probe`'s.
"""

from __future__ import annotations

from vxlab.hostprobe.bundle import bundle, bundled
from vxlab.hostprobe.capture import Capture, Captured, Reader, Stream, capture_filter, command
from vxlab.hostprobe.edges import Question, edges, read_edges
from vxlab.hostprobe.pcap import PcapReader
from vxlab.hostprobe.pings import PATIENCE, packets, pings, read_pings

__all__ = [
    "PATIENCE",
    "Capture",
    "Captured",
    "PcapReader",
    "Question",
    "Reader",
    "Stream",
    "bundle",
    "bundled",
    "capture_filter",
    "command",
    "edges",
    "packets",
    "pings",
    "read_edges",
    "read_pings",
]
