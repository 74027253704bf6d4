"""What a step plans with: the lab, and where its programs and files are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from vxlab.lab import Lab, Node
from vxlab.ops import Op
from vxlab.state import State

#: The machine that joins the nodes of a local lab: a bridge in the world's own namespaces.
SWITCH = "switch"

States = Mapping[str, State]


@dataclass(frozen=True, slots=True)
class Site:
    """A lab and where on the nodes its programs are. Paths are the nodes' own."""

    lab: Lab
    directory: str  # the lab's directory, for the files of local nodes
    etcd: str
    flanneld: str
    busybox: str
    programs: str  # busybox and its applets, which containers see as /bin
    #: How a tcpdump that travelled to real hosts is run there; empty: the host's own is used.
    tcpdump: str = ""
    #: What is to be given to real hosts in this run, by node and file; never stored.
    certificates: Mapping[str, Mapping[str, str]] = field(default_factory=dict, compare=False)


def changed(on: str, node: str) -> str:
    """The machine that a step changes when it works for a node: the node itself or the switch."""
    return SWITCH if on in ("switch", "cables") else node


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the talk: what it is called and what it would change on a node.

    `on` says where the operations go: to each node (``nodes``), to the switch once (``switch``),
    to the switch once per node (``cables``), to etcd's node (``etcd``) or to etcd (``keys``).
    `remote` is None for a step of every lab, else whether it is for real hosts only.
    """

    name: str
    title: str
    on: str
    plan: Callable[[Site, Node, States], Iterator[Op]]
    remote: bool | None = None
