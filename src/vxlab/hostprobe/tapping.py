"""The program that captures at many interfaces of a host and sends all of it down one channel.

What it prints: a mark, which no packet contains, on a line of its own; then pieces of any bytes,
each followed by the mark, a capture's number, a word and a newline. The words:

``data``   the piece before is what this capture's tcpdump wrote
``ready``  the capture runs; the piece is empty
``said``   the capture has ended, and the piece is what its tcpdump said
"""

from __future__ import annotations

from vxlab.hostprobe.shell import HOLDER

#: Arguments of the program for each capture: container, interface, direction, KiB of buffer, bytes
#: of each frame, filter.
WORDS = 6

# A tcpdump for each direction, since its format does not tell it. What one has written is taken by
# one read into a file, and goes from there to the channel. Only one may write there at a time: who
# has read the newline in the pipe "lock", and puts it back afterwards. A packet is sent at once;
# then there is a pause, unless more waits than one read takes: a host has more to do than to start
# programs for each packet.
#
# Debian and Ubuntu let tcpdump write to nothing but files called .pcap (its AppArmor profile). That
# goes for pipes that have a name and for its messages, too.
#
# The captures end with the input, so that nothing outlives whoever began it. First every tcpdump
# gets time to write what was captured before. It sleeps only while its buffer is empty, or while
# the pipe is full. Its start time tells it from a stranger with its PID.
PROGRAM = f"""\
{HOLDER}\
export LC_ALL=C; PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; set -f; umask 077
B=$1 pause=$2; t=$(command -v tcpdump) || t=$3; shift 3
[ -x "${{t%% *}}" ] || {{ echo 'there is no tcpdump on this host' >&2; exit 69; }}
trap : HUP INT TERM
d=$("$B" mktemp -d /run/vxlab-taps.XXXXXX 2>/dev/null) ||
  d=$("$B" mktemp -d "${{TMPDIR:-/tmp}}/vxlab-taps.XXXXXX") || exit
trap 'cd /; "$B" rm -rf "$d"' EXIT; cd "$d" || exit
tap() {{ enter=; [ -z "$1" ] || {{ q=$(holder "$1") && enter="nsenter -n -t $q"; }} ||
    {{ echo "$1 does not run" >&2; exit 70; }}
  exec $enter $t -i "$2" -Q "$3" -B "$4" -s "$5" -n -p -U -Z root --immediate-mode \\
    --time-stamp-precision=nano -w - -- "$6"; }}
send() {{ read -r _ <&8; {{ "$B" cat "$1" && echo "$mark $2 $3"; }} 2>/dev/null; c=$?
  echo >&8; return $c; }}
pump() {{ trap '' HUP INT TERM PIPE
  while {{ "$B" dd bs=32768 count=1 of="$1.data" 2>"$1.dd" || {{ "$B" cat "$1.dd" >>"$1.said.pcap"
    false; }}; }} && [ -s "$1.data" ] && send "$1.data" "$1" data; do
    read -r full _ <"$1.dd"; case $full in 1+*) ;; *) "$B" usleep "$pause";; esac; done
  exec </dev/null; while [ -n "$3" ] && [ "$(born "$2")" = "$3" ]; do "$B" usleep 10000; done
  : >"$1.over"; send "$1.said.pcap" "$1" said; }}
begun() {{ while IFS= read -r line; do
  case $line in *'listening on'*) return 0;; esac; done; return 1; }}
watch() {{ trap '' PIPE; while [ $# -gt 0 ]; do left=
    for n; do if begun <"$n.said.pcap"; then send /dev/null "$n" ready || exit
      else [ -e "$n.over" ] || left="$left $n"; fi; done
    set -- $left; [ $# -eq 0 ] || "$B" usleep 4000; done; }}
idle() {{ for each in $all; do
    {{ read -r s <"/proc/${{each%:*}}/stat"; }} 2>/dev/null || continue
    case ${{s##*) }} in [ZX]*) continue;; S*) ;; *) return 1;; esac
    w=; {{ read -r w <"/proc/${{each%:*}}/wchan"; }} 2>/dev/null
    case $w in *pipe*) return 1;; esac; done; return 0; }}
n=0 all= names= pipes=; while [ $n -lt $(($# / {WORDS})) ]; do n=$((n + 1))
  names="$names $n" pipes="$pipes $n.pcap"; done
"$B" mkfifo lock $pipes && exec 8<>lock && echo >&8 || exit
read -r mark </proc/sys/kernel/random/uuid; echo "$mark"
n=0; while [ $# -gt 0 ]; do n=$((n + 1))
  exec 6<>$n.pcap; exec 5>$n.pcap 7<$n.pcap 6>&-; : >$n.said.pcap
  tap "$@" </dev/null >&5 2>>$n.said.pcap 5>&- 7<&- 8>&- & p=$!; b=$(born $p); all="$all $p:$b"
  {{ exec <&7 5>&- 7<&-; pump $n $p "$b"; }} & exec 5>&- 7<&-; shift {WORDS}; done
watch $names &
while read -r _; do :; done
trap '' HUP INT TERM
i=0; until idle || [ $i -ge 200 ]; do i=$((i + 1)); "$B" usleep 5000; done
for each in $all; do p=${{each%:*}}; [ "$(born $p)" != "${{each#*:}}" ] || kill -s TERM $p; done
wait
"""
