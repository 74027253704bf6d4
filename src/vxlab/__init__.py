"""vxlab builds, checks and explains a VXLAN/flannel overlay between nodes.

The layers, from the bottom up, are described in ARCHITECTURE.md and held by a test.
"""

__version__ = "0.1.0"
