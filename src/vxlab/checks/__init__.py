"""The questions that `vxlab verify` asks, one module each; all are answered from snapshots."""

from __future__ import annotations

from vxlab.checks import (
    daemons,
    edge,
    encapsulation,
    entries,
    etcd,
    forwarding,
    gateway,
    lease,
    mtu,
    pairs,
    socket,
    vtep,
)
from vxlab.checks.finding import Check

CHECKS: tuple[Check, ...] = (
    Check(daemons.CODE, "the daemons and containers run", daemons.answer),
    Check(etcd.CODE, "etcd is healthy and holds the configuration", etcd.answer),
    Check(lease.CODE, "leases, subnet.env, bridge and containers agree", lease.answer),
    Check(vtep.CODE, "the VTEP is as configured", vtep.answer),
    Check(entries.CODE, "route, neighbour and FDB entry for every other node", entries.answer),
    Check(socket.CODE, "the VXLAN port is the kernel's own socket", socket.answer),
    Check(forwarding.CODE, "the nodes forward", forwarding.answer),
    Check(mtu.CODE, "every MTU leaves room for the encapsulation", mtu.answer),
    Check(gateway.CODE, "the gateway answers each container", gateway.answer),
    Check(pairs.CODE, "every container reaches every other", pairs.answer),
    Check(edge.CODE, "the MTU is exact: one byte more does not pass", edge.answer),
    Check(encapsulation.CODE, "the packets on the wire", encapsulation.answer),
)
