#!/usr/bin/env bash
# The talk's demo as a plain script: what vxlab is measured against (see scripts/bench).
#
# N nodes on one switch, etcd on node01, one flanneld a node, one busybox container a node, in the
# talk's order. Everything lives in namespaces of this run: no root needed, nothing outside touched.
# The steps go node by node, as a person would script them; only the flannelds start together.
set -euo pipefail

started=${PLAIN_TALK_STARTED:-$EPOCHREALTIME}

usage() {
  cat <<'END'
usage: plain-talk.sh [--nodes N] [--fast-timers] [--retry] [--keep]

  --nodes N      nodes in the lab, 2 to 200 (2)
  --fast-timers  etcd elects itself in 50 ms instead of a second
  --retry        start a flanneld again that lost the race for its lease
  --keep         leave the lab up until Enter, the end of the input or a signal

Binaries: VXLAB_ETCD, VXLAB_ETCDCTL, VXLAB_FLANNELD and VXLAB_BUSYBOX, or those on PATH.
Prints up_seconds=... once node01's container reaches the last node's, then teardown_seconds=...
END
}

die() {
  echo "plain-talk: $*" >&2
  exit 1
}

nodes=2 timers=() retry=no keep=no arguments=("$@")
while [ $# -gt 0 ]; do
  case $1 in
    --nodes) nodes=${2:?--nodes needs a number} && shift ;;
    --fast-timers) timers=(--heartbeat-interval 10 --election-timeout 50) ;;
    --retry) retry=yes ;;
    --keep) keep=yes ;;
    -h | --help) usage && exit ;;
    *) usage >&2 && exit 64 ;;
  esac
  shift
done
if ! [[ $nodes =~ ^[0-9]+$ ]] || ((nodes < 2 || nodes > 200)); then
  die "--nodes wants 2 to 200: $nodes"
fi

PATH=$PATH:/usr/sbin:/sbin # an ordinary user of Debian finds ip and iptables there only
etcd=${VXLAB_ETCD:-$(command -v etcd)} || die "no etcd: set VXLAB_ETCD"
etcdctl=${VXLAB_ETCDCTL:-$(command -v "${etcd%/*}/etcdctl" etcdctl | head -n 1)} || die "no etcdctl: set VXLAB_ETCDCTL"
flanneld=${VXLAB_FLANNELD:-$(command -v flanneld)} || die "no flanneld: set VXLAB_FLANNELD"
busybox=${VXLAB_BUSYBOX:-$(command -v busybox)} || die "no busybox: set VXLAB_BUSYBOX"

seconds_since() { # microseconds are what EPOCHREALTIME counts
  local now=$EPOCHREALTIME us
  us=$((${now/[.,]/} - ${1/[.,]/}))
  printf '%d.%03d' $((us / 1000000)) $((us % 1000000 / 1000))
}

# --- outside: make the namespaces, run the rest in them, measure how long it takes to end them ----

if [ -z "${PLAIN_TALK_STARTED:-}" ]; then
  dir=$(mktemp -d)
  top=
  # shellcheck disable=SC2317 # the trap calls it
  end_lab() { # whatever ends this script ends the lab: all processes die with the namespace's PID 1
    if [ -n "$top" ]; then
      kill -KILL "$(tr -d ' ' <"/proc/$top/task/$top/children")" || kill -KILL "$top"
      wait "$top" || true
    fi 2>/dev/null
    rm -rf "$dir"
  }
  trap end_lab EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  user=(--user --map-root-user)
  [ "$(id -u)" != 0 ] || user=()
  PLAIN_TALK_STARTED=$started PLAIN_TALK_DIR=$dir \
    unshare "${user[@]}" --net --mount --pid --fork --mount-proc --kill-child=KILL \
    "$BASH" "$0" "${arguments[@]}" <&0 &
  top=$!
  status=0
  wait "$top" || status=$?
  top=
  [ ! -e "$dir/down" ] || echo "teardown_seconds=$(seconds_since "$(<"$dir/down")")"
  exit "$status"
fi

# --- inside: this shell is PID 1, and root of its namespaces ---------------------------------------

dir=${PLAIN_TALK_DIR:?}
trap 'exit 130' INT
trap 'exit 143' TERM HUP
mount -t tmpfs tmpfs /run # for iptables' lock

wait_for() { # SECONDS COMMAND...: try until it works or the time is over
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ "$SECONDS" -le "$end" ] || return 1
    sleep 0.01
  done
}

here=$(readlink /proc/self/ns/net)
has_own_network() { [ "$(readlink "/proc/$1/ns/net")" != "$here" ]; }
phase() { # NAME: how long the part that ends here took
  echo "$1 $(seconds_since "$lap")"
  lap=$EPOCHREALTIME
}
lap=$started

# The switch and the nodes: namespaces with a NIC each, 192.168.56.21 and up.
ip -batch - <<'END'
link set lo up
link add switch type bridge
link set switch up
END
names=() address=() node=()
for ((i = 0; i < nodes; i++)); do
  printf -v names[i] node%02d $((i + 1))
  address[i]=192.168.56.$((21 + i))
  unshare --net --uts sleep infinity &
  node[i]=$!
  wait_for 5 has_own_network "${node[i]}" || die "${names[i]}: no network namespace"
  nsenter --target "${node[i]}" --uts hostname "${names[i]}"
  ip -batch - <<END
link add ${names[i]} type veth peer name eth0 netns ${node[i]}
link set ${names[i]} master switch up
END
  nsenter --target "${node[i]}" --net ip -batch - <<END
link set lo up
link set eth0 up
address add ${address[i]}/24 dev eth0
END
done
phase nodes

# 1. etcd on node01.
endpoint=http://${address[0]}:2379
: >"$dir/etcd.log"
nsenter --target "${node[0]}" --net --uts "$etcd" --data-dir "$dir/etcd" "${timers[@]}" \
  --listen-client-urls "$endpoint" --advertise-client-urls "$endpoint" >"$dir/etcd.log" 2>&1 &
etcd_pid=$!
serves() {
  grep -q 'ready to serve client requests' "$dir/etcd.log" && return
  kill -0 "$etcd_pid" 2>/dev/null || die "etcd died: $(tail -n 3 "$dir/etcd.log")"
  return 1
}
wait_for 15 serves || die "etcd does not serve: $(tail -n 3 "$dir/etcd.log")"
phase etcd

# 2. flannel's configuration.
config='{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}'
ETCDCTL_API=3 nsenter --target "${node[0]}" --net "$etcdctl" --endpoints "$endpoint" \
  put /coreos.com/network/config "$config" >/dev/null
phase config

# 3. One flanneld a node; each takes a lease and writes its subnet.env.
flannel=()
start_flanneld() {
  nsenter --target "${node[$1]}" --net --uts "$flanneld" --etcd-endpoints="$endpoint" \
    --public-ip="${address[$1]}" --iface=eth0 --subnet-file="$dir/${names[$1]}.env" \
    >>"$dir/${names[$1]}.log" 2>&1 &
  flannel[$1]=$!
}
has_lease() {
  [ ! -e "$dir/${names[$1]}.env" ] || return 0
  if ! kill -0 "${flannel[$1]}" 2>/dev/null; then
    [ $retry = yes ] || die "${names[$1]}: flanneld died: $(tail -n 1 "$dir/${names[$1]}.log")"
    start_flanneld "$1"
  fi
  return 1
}
for ((i = 0; i < nodes; i++)); do start_flanneld "$i"; done
for ((i = 0; i < nodes; i++)); do
  wait_for 20 has_lease "$i" || die "${names[i]}: no lease: $(tail -n 1 "$dir/${names[i]}.log")"
done
phase flannel

# 4. to 8. A container a node, its cable, its address, the bridge, the route, forwarding.
root=$dir/container-demo
mkdir -p "$root/bin" "$root/proc"
cp "$busybox" "$root/bin/busybox"
for applet in sh sleep ip ping; do ln -s busybox "$root/bin/$applet"; done
container=() inner=()
for ((i = 0; i < nodes; i++)); do
  # shellcheck source=/dev/null
  . "$dir/${names[i]}.env" # FLANNEL_SUBNET=10.5.x.1/24
  inner[i]=${FLANNEL_SUBNET%.*}.10
  unshare --mount --uts --ipc --net --pid --fork --user --map-root-user --mount-proc="$root/proc" \
    chroot "$root" /bin/sleep 2147483647 &
  container[i]=$!
  wait_for 5 has_own_network "${container[i]}" || die "${names[i]}: no container"
  nsenter --target "${node[i]}" --net ip -batch - <<END
link add vethlocal mtu 1450 type veth peer name vethNS mtu 1450 netns ${container[i]}
link add cbr0 type bridge stp_state 0
address add $FLANNEL_SUBNET dev cbr0
link set vethlocal master cbr0 up
link set cbr0 up
END
  nsenter --target "${container[i]}" --net ip -batch - <<END
link set lo up
link set vethNS up
address add ${inner[i]}/${FLANNEL_SUBNET#*/} dev vethNS
route add default via ${FLANNEL_SUBNET%/*}
END
  nsenter --target "${node[i]}" --net sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
done
phase containers

# Works? flanneld may still be told of the last node: a lost ping is tried again after 0.2 s.
reaches_last() {
  timeout 0.2 nsenter --target "${container[0]}" --net "$busybox" ping -c 1 "${inner[-1]}" \
    >/dev/null 2>&1
}
wait_for 10 reaches_last || die "${inner[0]} does not reach ${inner[-1]}"
phase ping
echo "up_seconds=$(seconds_since "$started")"

if [ $keep = yes ]; then
  echo "the lab is up; Enter ends it"
  read -r _ || true
fi
echo "$EPOCHREALTIME" >"$dir/down"
# PID 1 ends here: the kernel kills every other process, and the interfaces go with their namespaces.
