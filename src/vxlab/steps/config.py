"""flannel's configuration: the overlay network, written to etcd before any flanneld starts."""

from __future__ import annotations

import json
from collections.abc import Iterator

from vxlab.lab import FLANNEL_PREFIX, Node
from vxlab.ops import Op, PutKey
from vxlab.steps.site import Site, States


def plan(site: Site, node: Node, states: States) -> Iterator[Op]:
    """flannel looks for its configuration under /coreos.com/network/config.

    A node whose subnet is pinned gets a lease written beforehand (flannel's reservations): the
    flanneld with that public IP finds it and takes it over.
    """
    yield PutKey(key=f"{FLANNEL_PREFIX}/config", value=site.lab.overlay.flannel_config())
    seen = states[node.name].keys
    for member in site.lab.nodes:
        if member.subnet is None:
            continue
        key = f"{FLANNEL_PREFIX}/subnets/{str(member.subnet).replace('/', '-')}"
        # Once its flanneld has taken it over the lease also tells the VTEP's MAC: leave it then.
        if str(member.address.ip) != _public_ip(seen.get(key, "")):
            yield PutKey(key=key, value=json.dumps({"PublicIP": str(member.address.ip)}))


def _public_ip(lease: str) -> object:
    """Whose lease it is; None for what is no lease at all."""
    try:
        data = json.loads(lease)
    except ValueError:
        return None
    return data.get("PublicIP") if isinstance(data, dict) else None
