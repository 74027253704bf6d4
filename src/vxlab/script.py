"""Carries operations out as one shell program per step and node, with iproute2 and util-linux.

The program prints a mark after each operation, so that progress is live and a failure names the
operation and what the kernel said. The same text runs on a node of this machine and on a host
behind SSH; it needs a POSIX shell, iproute2, util-linux and coreutils there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from vxlab.errors import OperationError
from vxlab.ops import Op
from vxlab.state import RECORDS

#: The functions that `Op.shell` texts call.
#:
#: A machine's PID 1 is the first process forked after `unshare`: whatever is forked first in a new
#: PID namespace is its PID 1, and with PID 1 the namespace ends. It ignores SIGCHLD, so that the
#: kernel reaps the orphans that it inherits; neither dash nor busybox passes an ignored SIGCHLD
#: on, so GNU env does it. Its stdout stays the pipe until it is ready, so that `$(...)` waits.
PRELUDE = f"""\
export LC_ALL=C
R={RECORDS}
mkdir -p $R/machines $R/daemons
pid() {{ read -r p _ <"$R/machines/$1" && echo "$p"; }}
born() {{ s=; {{ read -r s <"/proc/$1/stat"; }} 2>/dev/null; s=${{s##*) }}; set -- $s
  [ "${{1:-Z}}" != Z ] && echo "${{20}}"; }}
record() {{ t=$(born "$3") || {{ echo "$2 ended at once" >&2; return 1; }}
  printf '%s %s\\n%s\\n' "$3" "$t" "${{4:-}}" >"$R/$1/$2"; }}
daemon() {{ n=$1; l=$2; w=$3; c=$4; shift 4
  mkdir -p "$w"; cd "$w" || return 1
  setsid "$@" >>"$l" 2>&1 </dev/null &
  record daemons "$n" $! "$c"; }}
stop() {{ f=$R/$1/$2; [ -r "$f" ] || return 0; read -r q t <"$f"; n=0; g=$3
  while [ "$(born "$q")" = "$t" ]; do kill -s "$g" "$q" || return 1
    n=$((n + 1)); [ $n -lt 250 ] || g=KILL; sleep 0.02; done
  rm -f "$f"; }}
start_node() {{ rm -rf "$3"; mkdir -p "$3/run" "$3/log" || return 1
  p=$(unshare --mount --uts --ipc --net --pid --propagation slave sh -c '
    {{ "$1" hostname "$2" && "$1" mount --bind "$3/run" /run &&
      {{ [ -L /var/run ] || "$1" mount --bind "$3/run" /var/run; }} &&
      "$1" mount --bind "$3/log" /var/log && "$1" mount --bind "$4" /etc/hosts &&
      "$1" mount -t proc proc /proc && {{ "$1" mount -t sysfs sysfs /sys 2>/dev/null || :; }} &&
      exec env --ignore-signal=CHLD "$1" sleep 2147483647 </dev/null >/dev/null 2>&1; }} &
    echo $!' sh "$@") && record machines "$2" "$p"; }}
start_container() {{
  (umask 022; mkdir -p "$3/bin" "$3/dev" "$3/etc" "$3/proc" "$3/root" "$3/tmp" "$3/var"
   echo root:x:0:0:root:/root:/bin/sh >"$3/etc/passwd"; echo root:x:0: >"$3/etc/group"
   echo "127.0.0.1 localhost" >"$3/etc/hosts"; echo "$2" >"$3/etc/hostname") || return 1
  p=$(unshare --mount --uts --ipc --net --pid --user --map-root-user --propagation slave sh -c '
    {{ b=$1/busybox; "$b" hostname "$2" && "$b" mount --bind "$1" "$3/bin" &&
      "$b" mount -o remount,bind,ro "$1" "$3/bin" && "$b" mount --rbind /dev "$3/dev" &&
      "$b" mount -t proc proc "$3/proc" && k=/proc/sys/net/ipv6/conf/all/disable_ipv6 &&
      {{ ! [ -w $k ] || echo "$4" >$k; }} &&
      exec env --ignore-signal=CHLD "$b" chroot "$3" /bin/busybox sleep 2147483647 \\
        </dev/null >/dev/null 2>&1; }} &
    echo $!' sh "$@") && record machines "$2" "$p"; }}
"""


def program(ops: Iterable[Op]) -> str:
    """The shell program that does the operations in order and stops at the first that fails."""
    steps = (
        f"if o=$( {{ {op.shell()}\n}} 2>&1 ); then echo '@@ ok {index}'; "
        f"else echo '@@ failed {index}'; printf '%s\\n' \"$o\"; exit 0; fi\n"
        for index, op in enumerate(ops)
    )
    return PRELUDE + "".join(steps)


def judge(node: str, ops: Sequence[Op], output: str, done: Callable[[Op], None]) -> None:
    """Read the marks in the program's output; call `done` for every operation that succeeded.

    Raises:
        OperationError: one failed, or the output ends too early; says which and what was printed.
    """
    lines = output.splitlines()
    for index, op in enumerate(ops):
        if lines and lines[0] == f"@@ ok {index}":
            done(op)
            lines.pop(0)
            continue
        said = "\n".join(lines[1:] if lines and lines[0].startswith("@@ failed") else lines)
        raise OperationError(
            f"cannot do: {op}",
            where=node,
            detail=said.strip() or "the program ended before this operation",
        )
