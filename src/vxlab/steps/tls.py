"""Certificates: on real hosts etcd and the flannelds prove to each other who they are."""

from __future__ import annotations

from collections.abc import Iterator

from vxlab.lab import Lab, Node
from vxlab.ops import Op, PutFile
from vxlab.steps.site import Site, States

CA = "ca.pem"
#: Certificate and key of etcd, and of those who talk to it.
SERVER = ("server.pem", "server-key.pem")
CLIENT = ("client.pem", "client-key.pem")


#: Where labs keep their journals and certificates on real hosts; a reboot leaves it alone.
LABS = "/var/lib/vxlab"


def directory(lab: Lab) -> str:
    """The lab's private directory on a host."""
    return f"{LABS}/{lab.name}"


def path(lab: Lab, file: str) -> str:
    return f"{directory(lab)}/tls/{file}"


def files(lab: Lab, node: Node) -> tuple[str, ...]:
    """The names of a node's files: everybody's client certificate, on etcd's node the server's.

    The authority's comes last: where it is, the others are the ones that it signed.
    """
    return (*CLIENT, *(SERVER if node.name == lab.etcd.node else ()), CA)


def plan(site: Site, node: Node, states: States) -> Iterator[Op]:
    """Without TLS everybody who reaches port 2379 could rewrite every node's routes.

    The lab is its own certificate authority. Its key signs once and is thrown away.
    """
    if not site.lab.tls:
        return
    made = site.certificates.get(node.name, {})
    for name in files(site.lab, node):
        yield PutFile(path=path(site.lab, name), text=made.get(name, ""))
