"""The parts of exported scripts that are the same for every lab, and their README."""

from __future__ import annotations

from vxlab.lab import UNKNOWN, Lab, Node

HEAD = """\
# shellcheck source=/dev/null disable=SC2016
set -Eeuo pipefail
umask 022
export LC_ALL=C PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
"""

FUNCTIONS = """\
fail() {
  echo "$0: $*" >&2
  exit 1
}
trap 'fail "line $LINENO failed: $BASH_COMMAND"' ERR

born() { # when a process started: with it, a PID means one process only
  { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null || true; } | cut -d' ' -f20
}
"""

RECORD = """\
record() { # KIND NAME PID: for the teardown
  echo "$3 $(born "$3")" >"/run/vxlab/$1.$2"
}
"""

PLAIN_HTTP = (
    "WARNING: etcd speaks plain http, as in the talk. Whoever reaches its port can rewrite every"
    " node's routes: use a network that only the lab's hosts are on."
)

_README = """\
The lab "{name}": an overlay network by flannel, to be built by hand
{line}

One script per node, in the order of the talk, with the reasons as comments. Read it, then run it
as root on that host; or type its commands one by one.

{table}

The host of each node needs
  - its address above on the network between the hosts (the underlay), before it begins
  - etcd and etcdctl on {etcd} (3.4 or later), flanneld on all, and a static busybox
  - iproute2, iptables, util-linux (unshare, nsenter), procps (pgrep, sysctl), bash, coreutils, awk
  - nothing of the lab's: no {links}; nothing in /run/flannel, /run/etcd ...

Programs that are not on PATH are named by variables:
  ETCD=/opt/etcd ETCDCTL=/opt/etcdctl FLANNELD=/opt/flanneld BUSYBOX=/opt/busybox ./{etcd}.sh
{unknown}
Begin with {etcd}, where etcd runs; the others wait for it. Each script ends with its containers'
addresses and the line that opens a shell in them: when all are ready, ping from one to another.

A script that fails says where and why. Then, and at the end of the lab, run NODE-teardown.sh: it
takes away what the script made, and leaves the host as it was. If flanneld lost a race for its
subnet ("subnet already exists" in /var/log/flannel.log), tear the node down and begin it again.

{warning}
"""


def readme(lab: Lab, fresh: Lab) -> str:
    """What a person has to know who was handed the scripts.

    Args:
        lab: as it is described.
        fresh: as it is on hosts.
    """
    import textwrap

    title = f'The lab "{lab.name}": an overlay network by flannel, to be built by hand'
    rows = [[node.name, _place(node), f"{node.name}.sh, {_containers(node)}"] for node in lab.nodes]
    wide = [max(len(row[i]) for row in rows) for i in range(2)]
    table = "\n".join(f"  {a:<{wide[0]}}  {b:<{wide[1]}}  {c}" for a, b, c in rows)
    unknown = [node.name for node in lab.nodes if node.address == UNKNOWN]
    told = ""
    if unknown:
        first = unknown[0].upper()
        told = (
            "\nAddresses that the lab file does not tell are given to the other nodes' scripts:\n"
            f"  ADDRESS_{first}=192.0.2.1 ./NODE.sh\n"
        )
    device = {"vxlan": f"flannel.{lab.overlay.vni}, ", "udp": "flannel0, "}
    links = f"{device.get(lab.overlay.backend_type, '')}cbr0, vethlocal"
    return _README.format(
        name=lab.name,
        line="=" * len(title),
        table=table,
        etcd=fresh.etcd.node,
        links=links,
        unknown=told,
        warning="\n".join(textwrap.wrap(PLAIN_HTTP, 98)),
    )


def _place(node: Node) -> str:
    if node.address == UNKNOWN:
        return node.interface
    whole = node.address.network.prefixlen == 32  # nobody has told how long it is
    return str(node.address.ip if whole else node.address)


def _containers(node: Node) -> str:
    return " ".join(c.name for c in node.containers) or "no container"
