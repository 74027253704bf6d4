"""flannel: one flanneld per node takes a subnet lease and fills the kernel's tables."""

from __future__ import annotations

from collections.abc import Iterator

from vxlab.lab import Lab, Node
from vxlab.ops import Op, StartFlanneld
from vxlab.steps import overlay, tls
from vxlab.steps.site import Site, States

LOG = "/var/log/flannel.log"

#: flanneld's last words when another node took the subnet that it wanted; a new try picks another.
LOST_RACE = "subnet already exists"


def _forgotten(site: Site, node: Node, states: States) -> Iterator[str]:
    """Whether etcd lost the node's lease: a running flanneld registers it at its start only.

    Where etcd was not asked there are no keys at all, not even flannel's configuration.
    """
    keys = states[site.lab.etcd.node].keys
    address = str(node.address.ip)
    # A reservation (see `config`) has no backend yet: no flanneld has taken it over.
    if keys and not any(f'"{address}"' in v and "BackendType" in v for v in keys.values()):
        yield f"etcd has no lease for {address}"


def plan(site: Site, node: Node, states: States) -> Iterator[Op]:
    """flanneld is pointed at etcd and told which underlay address its node has.

    It leases a subnet, writes it to /var/run/flannel/subnet.env and creates flannel.1, a VXLAN
    device. For every other node it adds a route, a permanent neighbour entry and an FDB entry.
    """
    command = (
        site.flanneld,
        f"--etcd-endpoints={site.lab.etcd_url}",
        f"--public-ip={node.address.ip}",
        f"--iface={site.lab.nic(node)}",
        *(_secured(site.lab) if site.lab.tls else ()),
    )
    # A flanneld does not put back what others take away: it has to be started again.
    reasons = [*overlay.missing(site.lab, node, states), *_forgotten(site, node, states)]
    if site.certificates:
        reasons.append("it has new certificates")
    yield StartFlanneld(
        name="flannel",
        command=command,
        log=LOG,
        again="; ".join(reasons),
        device=overlay.device(site.lab),
        network=str(site.lab.overlay.network),
        remake=bool(overlay.misfit(site.lab, states[node.name])),
    )


def _secured(lab: Lab) -> Iterator[str]:
    names = ("etcd-cafile", "etcd-certfile", "etcd-keyfile")
    for name, file in zip(names, (tls.CA, *tls.CLIENT), strict=True):
        yield f"--{name}={tls.path(lab, file)}"
