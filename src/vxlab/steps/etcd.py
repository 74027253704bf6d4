"""etcd: the place where the flannelds agree on who has which subnet."""

from __future__ import annotations

from collections.abc import Iterator

from vxlab.lab import Node
from vxlab.ops import Op, StartDaemon
from vxlab.steps.site import Site, States

#: The talk's log, and where etcd works; it listens there on a unix socket, too (`vxlab.etcd`).
LOG = "/var/log/etcd.log"
DIRECTORY = "/run/etcd"
SOCKET = f"{DIRECTORY}/etcd:2379"


def plan(site: Site, node: Node, states: States) -> Iterator[Op]:
    """etcd runs on node01, in the background, with its log in /var/log/etcd.log.

    Every flanneld reads the network's configuration there and registers its lease: subnet, node
    address and VTEP MAC. Look at its log, at ``ps -ef | grep etcd``, at ``etcdctl member list``.
    """
    etcd = site.lab.etcd
    url = site.lab.etcd_url
    command = (
        site.etcd,
        f"--name={node.name}",
        f"--data-dir={DIRECTORY}/data",
        f"--listen-client-urls={url},http://127.0.0.1:{etcd.port},unix://etcd:2379",
        f"--advertise-client-urls={url}",
        f"--heartbeat-interval={etcd.heartbeat_interval}",
        f"--election-timeout={etcd.election_timeout}",
    )
    yield StartDaemon(name="etcd", command=command, log=LOG, cwd=DIRECTORY)
