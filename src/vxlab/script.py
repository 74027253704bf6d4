"""Carries operations out as one shell program per step and node, with iproute2 and util-linux.

The program prints a mark after each operation, so that progress is live and a failure names the
operation and what the kernel said. The same text runs on a node of this machine and on a host
behind SSH; it needs a POSIX shell, iproute2, util-linux and coreutils there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from vxlab.errors import OperationError
from vxlab.ops import Op
from vxlab.state import BORN, RECORDS

#: Where nodes look for programs; an ordinary user's PATH often lacks the sbin directories.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: The functions that `Op.shell` texts call.
#:
#: A machine's PID 1 is the first process forked after `unshare`: whatever is forked first in a new
#: PID namespace is its PID 1, and with PID 1 the namespace ends. It ignores SIGCHLD, so that the
#: kernel reaps the orphans that it inherits; neither dash nor busybox passes an ignored SIGCHLD
#: on, so GNU env does it. Its stdout stays the pipe until it is ready, so that `$(...)` waits;
#: one that fails says so there, since it may look alive for a moment after its stdout is closed.
#: The inner shell is busybox: its own mount and hostname cost no further program.
#:
#: A daemon that ended already is recorded as started and gone: who waits for it tells its log.
#: `rooted` waits for a container's chroot, which comes after its stdout was closed: who entered it
#: before would be root in the node's own files.
#:
#: `remove` is for a real host's places: nothing is removed that is mounted, or through a mount.
#: `restore_firewall` gets the policy, and whether iptables-nft's table and chain were there before
#: flannel came. What others use by now stays: nft would remove their rules with it, so it is asked
#: first what there is. Older versions of iptables make all three chains when one is needed, and
#: cannot remove any.
#:
#: `stop` looks again when a kill fails: the process may have ended between the look and the kill.
PRELUDE = f"""\
export LC_ALL=C
R={RECORDS}
[ -d $R/daemons ] || mkdir -p $R/machines $R/daemons
pid() {{ read -r p _ <"$R/machines/$1" && echo "$p"; }}
{BORN}record() {{ case $3 in ''|*[!0-9]*) return 1; esac
  t=$(born "$3") || {{ echo "$2 ended at once" >&2; return 1; }}
  printf '%s %s\\n%s\\n' "$3" "$t" "${{4:-}}" >"$R/$1/$2"; }}
daemon() {{ n=$1; l=$2; w=$3; c=$4; shift 4
  [ -d "$w" ] || mkdir -p "$w"; cd "$w" || return 1
  setsid "$@" >>"$l" 2>&1 </dev/null &
  record daemons "$n" $! "$c" 2>/dev/null || printf '%s 0\\n%s\\n' $! "$c" >"$R/daemons/$n"; }}
stop() {{ f=$R/$1/$2; [ -r "$f" ] || return 0; read -r q t <"$f"; n=0; g=$3
  while [ -n "$t" ] && [ "$(born "$q")" = "$t" ]; do
    kill -s "$g" "$q" || [ "$(born "$q")" != "$t" ] || return 1
    n=$((n + 1)); [ $n -lt 250 ] || g=KILL; sleep 0.02; done
  rm -f "$f"; }}
rooted() {{ n=0; case $1 in ''|*[!0-9]*) return 1; esac
  until [ "/proc/$1/root" -ef "$2" ]; do n=$((n + 1))
    born "$1" >/dev/null && [ $n -lt 3000 ] || {{ echo "no chroot to $2" >&2; return 1; }}
    [ $n -lt 500 ] || sleep 0.01; done; }}
remove() {{ [ -e "$1" ] || [ -L "$1" ] || return 0
  ! grep -q "^[^ ]* [^ ]* [^ ]* [^ ]* $1[/ ]" /proc/self/mountinfo || {{
    echo "something is mounted at or below $1" >&2; return 1; }}
  rm -rf "$1"; }}
restore_firewall() {{ ! iptables-save | grep -q '^:FLANNEL-FWD ' || {{
    while iptables -w 5 -D FORWARD -m comment --comment 'flanneld forward' -j FLANNEL-FWD; do :
    done 2>/dev/null
    iptables -w 5 -F FLANNEL-FWD && iptables -w 5 -X FLANNEL-FWD || return 1; }}
  [ "$1" = ACCEPT ] || iptables -w 5 -P FORWARD "$1" || return 1
  command -v nft >/dev/null || return 0
  c=; [ "$3" = 1 ] || c=FORWARD; [ "$2" = 1 ] || c='INPUT FORWARD OUTPUT'
  for c in $c; do iptables -w 5 -X $c 2>/dev/null || ! bare 2 chain ip filter $c ||
    nft delete chain ip filter $c || return 1; done
  [ "$2" = 1 ] || ! bare 1 table ip filter || nft delete table ip filter; }}
bare() {{ n=$1; shift
  [ "$(nft list "$@" 2>/dev/null | grep -v 'policy accept;$' | grep -c '[^[:space:]}}]')" = $n ]; }}
start_node() {{ [ ! -e "$3" ] || rm -rf "$3"; mkdir -p "$3/run" "$3/log" || return 1
  p=$(unshare --mount --uts --ipc --net --pid --propagation slave "$1" sh -c '
    {{ hostname "$2" && mount --bind "$3/run" /run &&
      {{ [ -L /var/run ] || mount --bind "$3/run" /var/run; }} &&
      mount --bind "$3/log" /var/log && mount --bind "$4" /etc/hosts &&
      mount -t proc proc /proc && {{ mount -t sysfs sysfs /sys 2>/dev/null || :; }} &&
      exec /usr/bin/env --ignore-signal=CHLD "$1" sleep 2147483647 </dev/null >/dev/null 2>&1
      echo failed; }} &
    echo $!' sh "$@") && record machines "$2" "$p"; }}
start_container() {{ mkdir -p "$3" || return 1
  p=$(unshare --mount --uts --ipc --net --pid --user --map-root-user --propagation slave \\
    "$1/busybox" sh -c '
    {{ umask 022; cd "$3" && mkdir -p bin dev etc proc root tmp var && hostname "$2" &&
      echo root:x:0:0:root:/root:/bin/sh >etc/passwd && echo root:x:0: >etc/group &&
      echo "127.0.0.1 localhost" >etc/hosts && echo "$2" >etc/hostname &&
      mount --bind "$1" bin && mount -o remount,bind,ro "$1" bin && mount --rbind /dev dev &&
      mount -t proc proc proc && k=/proc/sys/net/ipv6/conf/all/disable_ipv6 &&
      {{ ! [ -w $k ] || echo "$4" >$k; }} &&
      exec /usr/bin/env --ignore-signal=CHLD "$1/busybox" chroot . /bin/busybox sleep 2147483647 \\
        </dev/null >/dev/null 2>&1
      echo failed; }} &
    echo $!' sh "$@") && rooted "$p" "$3" && record machines "$2" "$p"; }}
"""


def program(ops: Iterable[Op], *, first: str = "", every: bool = False) -> str:
    """The shell program that does the operations in order and stops at the first that fails.

    Args:
        first: shell text that comes before anything else.
        every: go on after a failure, as undo has to.
    """
    after = "" if every else "; exit 0"
    steps = (
        f"if o=$( {{ {op.shell()}\n}} 2>&1 ); then echo '@@ ok {index}'; "
        f"else echo '@@ failed {index}'; printf '%s\\n' \"$o\"{after}; fi\n"
        for index, op in enumerate(ops)
    )
    return first + PRELUDE + "".join(steps)


_CUT = "the program ended before this operation"


class Reading:
    """Reads the marks in a program's output as its lines come.

    Args:
        ops: the operations that the program does.
        done: told of every one that succeeded, at once.
    """

    def __init__(self, node: str, ops: Sequence[Op], done: Callable[[Op], None]) -> None:
        self._node, self._ops, self._done = node, ops, done
        self._next = 0
        self._lines: list[str] = []  # what was printed since the last mark
        self._failing: Op | None = None  # the last mark's, if that is of a failure
        self._failed: list[tuple[Op, str]] = []

    def line(self, text: str) -> None:
        """The next line of the output."""
        if self._next < len(self._ops) and text in self._marks():
            op, good = self._ops[self._next], text.startswith("@@ ok ")
            self._settle(None if good else op)
            self._next += 1
            if good:
                self._done(op)
        else:
            self._lines.append(text)

    def _marks(self) -> tuple[str, str]:
        return f"@@ ok {self._next}", f"@@ failed {self._next}"

    def _settle(self, failing: Op | None = None) -> None:
        """What was printed since the last mark belongs to its operation, if that failed."""
        if self._failing is not None:
            # The program prints a line even for one that said nothing, unless it was cut off.
            nothing = "it said nothing" if self._lines else _CUT
            self._failed.append((self._failing, "\n".join(self._lines).strip() or nothing))
        self._failing = failing
        self._lines.clear()

    def failures(self) -> list[OperationError]:
        """All that failed, once the output has ended.

        Where it ends after a success, too early, that is the failure of the next operation.
        """
        if self._failing is None and self._next < len(self._ops):
            self._failing = self._ops[self._next]
        self._settle()
        return [
            OperationError(f"cannot do: {op}", where=self._node, detail=said)
            for op, said in self._failed
        ]


def judge(node: str, ops: Sequence[Op], output: str, done: Callable[[Op], None]) -> None:
    """Read the marks in the program's output; call `done` for every operation that succeeded.

    Raises:
        OperationError: one failed, or the output ends too early; says which and what was printed.
    """
    reading = Reading(node, ops, done)
    for line in output.splitlines():
        reading.line(line)
    for error in reading.failures():
        raise error
