"""The program that looks at a real host. It changes nothing there, and needs a POSIX shell alone.

Kernel features are tried in namespaces that end with the try, everything else is only read. The
tries run in the left part of a pipe while the right part reads: the pipe keeps what they print.
"""

from __future__ import annotations

import shlex

from vxlab.hostcheck.needs import NEEDS, PLACES, TRIES, paths
from vxlab.lab import Lab, Node
from vxlab.steps.tls import LABS

#: What is tried everywhere, in namespaces of the try's own: `try CODE COMMAND...` prints
#: "@ CODE STATUS" and then what the command said.
TRYING = """\
try() { c=$1; shift
  if m=$("$@" 2>&1); then echo "@ $c 0"; else echo "@ $c $?"; fi; printf '%s\\n' "$m"; }
bridge_up() { ip link add cbr0 type bridge stp_state 0 &&
  ip address add 192.0.2.1/24 dev cbr0 && ip link set cbr0 up; }
vxlan() {
  ip link add flannel.1 type vxlan id 1 local 192.0.2.1 dev lo dstport 8472 nolearning &&
  ip link set flannel.1 up &&
  ip neigh replace 10.5.9.0 lladdr 02:00:00:00:00:09 dev flannel.1 nud permanent &&
  bridge fdb append 02:00:00:00:00:09 dev flannel.1 dst 192.0.2.9; }
rules() { "$1" -w 5 -N TRY && "$1" -w 5 -P FORWARD ACCEPT &&
  "$1" -w 5 -A TRY -s 10.5.0.0/16 -m comment --comment 'flanneld forward' -j ACCEPT; }
forwarding() { echo 1 >/proc/sys/net/ipv4/ip_forward; }
bare() { mkdir /run/root && cp "$busybox" /run/root/sh && chroot /run/root /sh -c :; }
"""

# There is a tmpfs over /run, where iptables has its lock and mount its table.
_TRIAL = """\
mounts() { mkdir /run/.cache && mount --bind "$cache" /run/.cache &&
  mount --bind /run/.cache /run/.cache; }
container() { mkdir /run/demo && unshare --mount --uts --ipc --net --pid --user --map-root-user \\
  --propagation slave --fork /bin/sh -c '
    cd /run/demo && mkdir bin dev proc && hostname demo && mount --bind "$1" bin &&
    mount -o remount,bind,ro "$1" bin && mount --rbind /dev dev && mount -t proc proc proc' \\
  sh /run/.cache; }
busybox=$1 cache=/var/cache
[ -d "$cache" ] || cache=/
echo '@ namespaces 0'
if m=$(mount -n -t tmpfs tmpfs /run 2>&1); then
  try kernel-proc mount -t proc proc /proc
  try kernel-mount mounts
  ip link set lo up
  try kernel-veth ip link add vethlocal mtu 1450 type veth peer name vethNS mtu 1450
  try kernel-bridge bridge_up
  try kernel-vxlan vxlan
  try kernel-iptables rules iptables
  for other in iptables-nft iptables-legacy; do
    rules $other >/dev/null 2>&1 && echo "@ other-$other 0"; done
  try kernel-forwarding forwarding
  try kernel-container container
  [ -z "$busybox" ] || [ ! -x "$busybox" ] || try busybox bare
  [ -z "$2" ] || try kernel-tun ip tuntap add dev tun0 mode tun
else printf '@ kernel-mount 1\\n%s\\n' "$m"; fi
"""

# `lines FILE` is `cat FILE`. Only processes that share the host's network count: what lives in
# other namespaces, such as a lab on this machine, has its own ports and interfaces.
_PROGRAM = """\
export LC_ALL=C
{ unshare --mount --uts --ipc --net --pid --propagation private --fork /bin/sh -c %(trial)s \\
  sh %(busybox)s %(tun)s 2>&1 </dev/null; } | { exec 2>/dev/null
at() { echo "@@ $*"; }
lines() { [ -r "$1" ] && while IFS= read -r l || [ -n "$l" ]; do
  printf '%%s\\n' "$l"; done <"$1"; }
at os; lines /etc/os-release || lines /usr/lib/os-release
at uname; uname -m; uname -r
at clock; date +%%s
at boot; lines /proc/sys/kernel/random/boot_id
at machine; lines /etc/machine-id
at uidmap; lines /proc/self/uid_map
at container; for f in /.dockerenv /run/.containerenv /run/systemd/container; do
  [ -e $f ] && echo $f; done
at login; echo "${SUDO_USER:-root}"
at logind; for f in /usr/lib/systemd/logind.conf.d/*.conf /etc/systemd/logind.conf \\
  /run/systemd/logind.conf.d/*.conf /etc/systemd/logind.conf.d/*.conf; do lines "$f"; done |
  while IFS= read -r l; do case $l in Kill*) printf '%%s\\n' "$l";; esac; done
at programs; for p in %(programs)s; do w=$(command -v $p) && echo "$p $w"; done
at env; env --ignore-signal=CHLD env >/dev/null && echo works
at iptables; iptables --version
at net; printf 'addr show\\nroute show\\n' | ip -d -j -batch -
at sockets; ss -Hlntup
at processes; for p in /proc/[0-9]*; do c=; { read -r c <$p/comm; }; case $c in
  flannel|flanneld|etcd|dockerd|containerd|kubelet|kube-proxy|k3s*|rke2*|k0s*|crio|firewalld)
  [ $p/ns/net -ef /proc/self/ns/net ] && echo "${p#/proc/} $c";; esac; done
at chains; iptables-save | while read -r c p _; do
  case $c in '*'*|:*) echo "$c $p";; esac; done
at tables; nft list tables
at sysctls; (cd /proc/sys/net/ipv4 && for f in ip_forward conf/*/rp_filter; do
  v=; read -r v <$f; echo "$f $v"; done)
at selinux; lines /sys/fs/selinux/enforce
at space; for f in %(places)s; do df -Pk $f | { read -r _; read -r _ _ _ v _ m
  [ -n "$v" ] && echo "$f $v $m"; }; done
at mounts; while read -r _ m _ o _; do case $m in
  /|/var|/var/cache|/var/cache/vxlab|/var/lib|/var/lib/vxlab|/var/log|/run) echo "$m $o";; esac
  done </proc/self/mounts
at files; for f in %(files)s; do if [ -e "$f" ] || [ -L "$f" ]; then echo "$f"; fi; done
at labs; for f in %(labs)s/*/; do [ -d "$f" ] && f=${f%%/} && echo "${f##*/}"; done
at tries; while IFS= read -r l; do printf '%%s\\n' "$l"; done
at end
}
"""


def program(lab: Lab, node: Node, *, busybox: str = "") -> str:
    """The shell program that looks at a host before the lab changes anything there.

    It has to run as root. Only what it loads stays: the kernel's modules for veth, bridge, VXLAN
    and iptables, if they were not loaded.

    Args:
        lab: what is to be built there.
        node: the host.
        busybox: a static busybox on the host to try in a bare root; none is there at first.
    """
    words = shlex.join(paths(lab, node))
    return _PROGRAM % {
        "trial": shlex.quote(TRYING + _TRIAL),
        "busybox": shlex.quote(busybox),
        "tun": "1" if lab.overlay.backend_type == TRIES["kernel-tun"].backend else "''",
        "programs": " ".join(NEEDS),
        "places": " ".join(PLACES),
        "files": words,
        "labs": LABS,
    }
