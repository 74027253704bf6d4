"""What a node looks like: the program that reads it and the parser of what that program prints.

One shell program per node reads links (with their VXLAN details), addresses, routes, neighbour
entries, the FDB, UDP sockets, sysctls, files, daemons and the containers' own interfaces. The same
program serves a node on this machine and a host behind SSH; the parser is pure.
"""

from __future__ import annotations

from vxlab.state.model import (
    BORN,
    RECORDS,
    SUBNET_ENV,
    SYSCTL_DOTS,
    SYSCTLS,
    FdbEntry,
    Firewall,
    Link,
    Neighbour,
    Net,
    Process,
    Route,
    State,
    SubnetEnv,
    UdpSocket,
    Vxlan,
)
from vxlab.state.reading import (
    SnapshotError,
    parse,
    parse_proc_route,
    parse_subnet_env,
    program,
)

__all__ = [
    "BORN",
    "RECORDS",
    "SUBNET_ENV",
    "SYSCTLS",
    "SYSCTL_DOTS",
    "FdbEntry",
    "Firewall",
    "Link",
    "Neighbour",
    "Net",
    "Process",
    "Route",
    "SnapshotError",
    "State",
    "SubnetEnv",
    "UdpSocket",
    "Vxlan",
    "parse",
    "parse_proc_route",
    "parse_subnet_env",
    "program",
]
