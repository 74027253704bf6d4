"""The vocabulary: every change to a node is a value that does nothing by itself.

An operation says three things: the command a person would type (`argv`), whether a node already
looks as if it had been done (`holds`), and what takes it back (`undo`). `vxlab.netlink` and
`vxlab.script` carry operations out; nothing else changes a node.

Every operation has a `ns`: empty for the node itself, else the name of a machine held there (a
container on a node, a node on the switch).
"""

from __future__ import annotations

from vxlab.ops.addresses import (
    AddAddress,
    AddNeighbours,
    AddRoute,
    DelAddress,
    DelRoute,
    SetSysctl,
)
from vxlab.ops.host import (
    SURVIVES_REBOOT,
    FlushRoutes,
    MakePlace,
    PutFile,
    Remove,
    RestoreFirewall,
    StartFlanneld,
)
from vxlab.ops.links import (
    AddBridge,
    AddVeth,
    DelLink,
    SetAlias,
    SetMac,
    SetMaster,
    SetMtu,
    SetUp,
)
from vxlab.ops.op import REGISTRY, NodeOp, Op, from_json, operation, to_json
from vxlab.ops.processes import (
    PutKey,
    StartContainer,
    StartDaemon,
    StartNode,
    StopDaemon,
    StopMachine,
    record_path,
)
from vxlab.ops.todo import cleared, outlasting, pending

__all__ = [
    "REGISTRY",
    "SURVIVES_REBOOT",
    "AddAddress",
    "AddBridge",
    "AddNeighbours",
    "AddRoute",
    "AddVeth",
    "DelAddress",
    "DelLink",
    "DelRoute",
    "FlushRoutes",
    "MakePlace",
    "NodeOp",
    "Op",
    "PutFile",
    "PutKey",
    "Remove",
    "RestoreFirewall",
    "SetAlias",
    "SetMac",
    "SetMaster",
    "SetMtu",
    "SetSysctl",
    "SetUp",
    "StartContainer",
    "StartDaemon",
    "StartFlanneld",
    "StartNode",
    "StopDaemon",
    "StopMachine",
    "cleared",
    "from_json",
    "operation",
    "outlasting",
    "pending",
    "record_path",
    "to_json",
]
