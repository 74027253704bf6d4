"""etcd: the place where the flannelds agree on who has which subnet."""

from __future__ import annotations

from collections.abc import Iterator

from vxlab.lab import Lab, Node
from vxlab.ops import Op, StartDaemon
from vxlab.steps import tls
from vxlab.steps.site import Site, States

#: The talk's log, and where etcd works; it listens there on a unix socket, too (`vxlab.etcd`).
LOG = "/var/log/etcd.log"
DIRECTORY = "/run/etcd"
SOCKET = f"{DIRECTORY}/etcd:2379"

#: Where etcd waits for further members, which no lab has; on loopback only.
PEER_PORT = 2380


def plan(site: Site, node: Node, states: States) -> Iterator[Op]:
    """etcd runs on node01, in the background, with its log in /var/log/etcd.log.

    Every flanneld reads the network's configuration there and registers its lease: subnet, node
    address and VTEP MAC. Look at its log, at ``ps -ef | grep etcd``, at ``etcdctl member list``.
    """
    lab = site.lab
    url = lab.etcd_url
    local = url.replace(str(node.address.ip), "127.0.0.1")
    listen = f"{url},{local}" if lab.remote else f"{url},{local},unix://etcd:2379"
    command = (
        site.etcd,
        f"--name={node.name}",
        f"--data-dir={DIRECTORY}/data",
        f"--listen-client-urls={listen}",
        f"--advertise-client-urls={url}",
        f"--heartbeat-interval={lab.etcd.heartbeat_interval}",
        f"--election-timeout={lab.etcd.election_timeout}",
        *(_secured(lab, node) if lab.tls else ()),
    )
    again = "it has new certificates" if site.certificates else ""
    yield StartDaemon(name="etcd", command=command, log=LOG, cwd=DIRECTORY, again=again)


def _secured(lab: Lab, node: Node) -> Iterator[str]:
    """Mutual TLS for clients, and for the port on which etcd's members would find each other."""
    ca = tls.path(lab, tls.CA)
    certificate, key = (tls.path(lab, file) for file in tls.SERVER)
    peer = f"https://127.0.0.1:{PEER_PORT}"
    yield f"--listen-peer-urls={peer}"
    yield f"--initial-advertise-peer-urls={peer}"
    yield f"--initial-cluster={node.name}={peer}"
    for prefix in ("", "peer-"):
        yield f"--{prefix}client-cert-auth"
        yield f"--{prefix}trusted-ca-file={ca}"
        yield f"--{prefix}cert-file={certificate}"
        yield f"--{prefix}key-file={key}"
