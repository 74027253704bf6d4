"""The steps of the talk, one module each, in the order in which a lab is built."""

from __future__ import annotations

from vxlab.lab import Lab
from vxlab.steps import (
    address,
    bridge,
    config,
    container,
    etcd,
    flannel,
    forwarding,
    host,
    mtu,
    node,
    route,
    switch,
    tls,
    underlay,
    veth,
)
from vxlab.steps.site import Step

STEPS: tuple[Step, ...] = (
    Step("switch", "the network between nodes", "switch", switch.plan, remote=False),
    Step("node", "machines on that network", "cables", node.plan, remote=False),
    Step("underlay", "addresses of the nodes", "nodes", underlay.plan, remote=False),
    Step("host", "the lab's places on the host", "nodes", host.plan, remote=True),
    Step("tls", "who may talk to etcd", "nodes", tls.plan, remote=True),
    Step("etcd", "where the flannelds agree", "etcd", etcd.plan),
    Step("config", "flannel's configuration", "keys", config.plan),
    Step("flannel", "a subnet for every node", "nodes", flannel.plan),
    Step("container", "busybox in namespaces", "nodes", container.plan),
    Step("veth", "a cable into each container", "nodes", veth.plan),
    Step("mtu", "room for the encapsulation", "nodes", mtu.plan),
    Step("address", "out of the node's subnet", "nodes", address.plan),
    Step("bridge", "the containers' gateway", "nodes", bridge.plan),
    Step("route", "the containers' way out", "nodes", route.plan),
    Step("forwarding", "nodes pass packets on", "nodes", forwarding.plan),
)

BY_NAME = {step.name: step for step in STEPS}


def steps_of(lab: Lab) -> tuple[Step, ...]:
    """The steps that build a lab: real hosts need no switch, nodes of this machine no TLS."""
    return tuple(step for step in STEPS if step.remote in (None, lab.remote))
