"""The steps of the talk, one module each, in the order in which a lab is built."""

from __future__ import annotations

from vxlab.steps import (
    address,
    bridge,
    config,
    container,
    etcd,
    flannel,
    forwarding,
    mtu,
    node,
    route,
    switch,
    underlay,
    veth,
)
from vxlab.steps.site import Step

STEPS: tuple[Step, ...] = (
    Step("switch", "the network between nodes", "switch", switch.plan),
    Step("node", "machines on that network", "cables", node.plan),
    Step("underlay", "addresses of the nodes", "nodes", underlay.plan),
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
