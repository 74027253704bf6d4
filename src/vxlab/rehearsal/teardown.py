"""The script that takes a node's part of a lab away again, from the operations' own undo."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from vxlab.lab import Lab
from vxlab.ops import (
    DelLink,
    FlushRoutes,
    Op,
    RestoreFirewall,
    SetSysctl,
    StopDaemon,
    StopMachine,
    outlasting,
)
from vxlab.rehearsal.texts import FUNCTIONS, HEAD
from vxlab.state import RECORDS, Firewall, Net, State

#: Where the scripts keep the PIDs, and what the host was like.
KEPT = RECORDS

#: In the script that builds, once its directory is there: what the host was like before.
KEPT_BEFORE = f"""\
# What the teardown puts back: the forwarding switches and the policy of the FORWARD chain.
grep -s '' /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/*/forwarding \\
  /proc/sys/net/ipv4/conf/all/accept_redirects >{KEPT}/sysctls
iptables-save | awk '/^\\*/ {{t = $1}} t == "*filter" && $1 == ":FORWARD" {{print $2}}' \\
  >{KEPT}/policy
! nft list table ip filter >/dev/null 2>&1 || touch {KEPT}/filter
"""

#: A host on which all is off; what it was really like is read from the files above.
_BEFORE = State(
    net=Net(sysctls={"net.ipv4.ip_forward": "0"}),
    firewall=Firewall("", table=False, chain=False, flannel=False),
)

_FUNCTIONS = f"""\
end() {{ # KIND NAME SIGNAL: a process of the lab, if its PID still is that process
  local pid start
  read -r pid start 2>/dev/null <"{KEPT}/$1.$2" || return 0
  for _ in {{1..100}}; do
    [ -n "$start" ] && [ "$(born "$pid")" = "$start" ] || return 0
    kill -s "$3" "$pid" 2>/dev/null || true
    sleep 0.1
  done
  fail "$2 (PID $pid) does not end"
}}

unplug() {{ # an interface, if it is there
  ! ip link show dev "$1" >/dev/null 2>&1 || ip link del "$1"
}}

restore_sysctls() {{ # ip_forward comes first: it sets the switches of all interfaces
  local file value
  while IFS=: read -r file value; do
    [ ! -e "$file" ] || [ "$(cat "$file")" = "$value" ] || echo "$value" >"$file"
  done <{KEPT}/sysctls
}}

restore_firewall() {{ # without flannel's chain, and with the policy that FORWARD had
  local policy ours
  if iptables-save | grep '^:FLANNEL-FWD ' >/dev/null; then
    while iptables -w 5 -D FORWARD -m comment --comment 'flanneld forward' -j FLANNEL-FWD; do
      :
    done 2>/dev/null
    iptables -w 5 -F FLANNEL-FWD
    iptables -w 5 -X FLANNEL-FWD
  fi
  policy=$(cat {KEPT}/policy)
  [ "${{policy:-ACCEPT}}" = ACCEPT ] || iptables -w 5 -P FORWARD "$policy"
  # iptables made the table when flannel came; it goes if nothing of others is in it by now.
  [ ! -e {KEPT}/filter ] && nft list table ip filter >/dev/null 2>&1 || return 0
  ours='^#|^table ip filter|^[[:space:]]*(chain (INPUT|FORWARD|OUTPUT) \\{{|\\}}|$)|policy accept;$'
  nft list table ip filter | grep -Ev "$ours" >/dev/null || nft delete table ip filter
}}
"""


def teardown(lab: Lab, node: str, done: Iterable[Op]) -> str:
    """The script that takes back what was done on a node, the last first.

    Args:
        lab: whose name the script looks for before it does anything.
        node: the node's name.
        done: the operations of the script that builds.
    """
    undo = outlasting(back for op in reversed(list(done)) for back in op.undo(_BEFORE))
    lines = [
        "#!/usr/bin/env bash",
        f'# Takes the lab "{lab.name}" away from {node}: the last that {node}.sh did goes first.',
        "# Run it as root. What was not made by that script stays as it is.",
        HEAD,
        FUNCTIONS,
        _FUNCTIONS,
        '[ "$(id -u)" = 0 ] || fail "this must be run as root"',
        f'if [ "$(cat {KEPT}/exported 2>/dev/null)" != {shlex.quote(lab.name)} ]; then',
        f'  echo "nothing that {node}.sh has made runs here"',
        "  exit 0",
        "fi",
        *_lines(undo),
        f'echo "{lab.name} is gone from {node}"',
    ]
    return "\n".join(lines) + "\n"


def _lines(undo: Iterable[Op]) -> Iterator[str]:
    for op in undo:
        match op:
            case StopMachine():
                yield f"end container {op.name} KILL"
            case StopDaemon():
                yield f"end daemon {op.name} TERM"
            case DelLink():
                yield f"unplug {op.name}"
            case RestoreFirewall():
                yield "restore_firewall"
            case SetSysctl():
                yield "restore_sysctls"
            case FlushRoutes():
                yield f"ip route flush root {op.network} 2>/dev/null || true # no route, no table"
            case _:
                yield shlex.join(op.argv())
