"""What a lab keeps on a real host: a lock, and the journal of all that was changed there.

    /var/lib/vxlab/           survives a reboot; only root may look
        owner                 who works on the host at the moment (the lock is on the directory)
        LAB/journal           one JSON object per line, the oldest first
        LAB/tls/              certificates and keys

The journal's line is written, and waited for, before the change that it undoes. It tells the boot
that it was written in: what a reboot ends anyway, a later teardown leaves alone.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vxlab.errors import JournalError
from vxlab.ops import SURVIVES_REBOOT, DelLink, Op, Remove, StopDaemon, from_json, to_json
from vxlab.state import BORN
from vxlab.steps.tls import LABS

_FORMAT = 1

# The lock is the root shell's own descriptor: it ends with the connection.
_LOCK = """\
exec 9<&-
d={labs}
{make}if [ -d $d ]; then exec 9<$d
  if flock -n 9 && [ $d -ef /proc/$$/fd/9 ]; then
    echo $$ "$(born $$)" {owner} >$d/owner; echo '@@ locked'
  else exec 9<&-; echo "@@ busy $(cat $d/owner)"; fi
else echo '@@ locked'; fi
"""

_READ = """\
read -r b </proc/sys/kernel/random/boot_id; echo "@@ boot $b"
for j in {labs}/*/journal; do
  [ ! -f "$j" ] || {{ l=${{j%/journal}}; echo "@@ lab ${{l##*/}}"; }}; done
[ ! -f {journal} ] || {{ echo '@@ journal'; cat {journal}; echo; }}
"""

# Half a line of a try that was cut off goes first; its change was not begun. On a full disk a file
# can still be shortened. cat tells what the kernel said, which dash's printf does not.
_APPEND = """\
j={journal}; mkdir -p -m 700 "${{j%/*}}" && : >>$j || exit
n=$(wc -c <$j); [ -z "$(tail -c 1 $j)" ] || n=$((n - $(tail -n 1 $j | wc -c)))
{{ truncate -s $n $j && {{ [ $n != 0 ] || printf '%s\\n' {header} | cat >>$j; }} &&
  printf '%s\\n' {line} | cat >>$j && sync $j; }} || {{ truncate -s $n $j
  echo '@@ the journal cannot be written'; exit; }}
"""


# The same once the journal is known to be whole: no program is started but the one that waits.
_APPEND_MORE = """\
printf '%s\\n' {line} >>{journal} && sync {journal} || {{
  echo '@@ the journal cannot be written'; exit; }}
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One step's undo, in the order in which it must be done, and the boot it belongs to."""

    boot: str
    undo: tuple[Op, ...]


@dataclass(frozen=True, slots=True)
class Ledger:
    """What a host's journals tell: its boot, its labs, and the wanted lab's entries."""

    boot: str
    labs: tuple[str, ...]
    entries: tuple[Entry, ...]

    def undo(self) -> list[Op]:
        """What takes the lab back, the newest change first."""
        return [
            op
            for entry in reversed(self.entries)
            for op in entry.undo
            if entry.boot == self.boot or isinstance(op, SURVIVES_REBOOT)
        ]

    def owned(self) -> frozenset[str]:
        """The names of what the lab made on the host: interfaces, daemons and paths."""
        names = (
            op.path if isinstance(op, Remove) else op.name
            for op in self.undo()
            if isinstance(op, Remove | DelLink | StopDaemon)
        )
        return frozenset(names)


def lock(owner: str, *, make: bool) -> str:
    """The shell text that takes the host for one command; it runs in the root shell itself.

    Args:
        owner: who wants it, for others to read.
        make: make the labs' directory if there is none; else there is nothing to lock.
    """
    mkdir = f"mkdir -p -m 700 {LABS}\n" if make else ""
    return BORN + _LOCK.format(labs=LABS, make=mkdir, owner=shlex.quote(owner))


def unlock() -> str:
    """The shell text that gives the host back; for the root shell itself."""
    return f"rm -f {LABS}/owner; exec 9<&-\n"


def release(pid: str, start: str) -> str:
    """The shell text that ends a root shell which holds the lock, if it still is that process."""
    return f'{BORN}[ "$(born {int(pid)})" = {int(start)} ] && kill {int(pid)}\n'


def read(lab: str) -> str:
    """The shell text that prints what `parse` reads; it changes nothing."""
    return _READ.format(labs=LABS, journal=_journal(lab))


def append(lab: str, boot: str, undo: Iterable[Op], *, whole: bool = False) -> str:
    """The shell text that writes a step's undo to the journal; it ends the program if it cannot.

    Args:
        lab: the lab's name.
        boot: the host's boot id.
        undo: in the order in which it must be done.
        whole: the journal is there and ends with a whole line: this connection wrote it.
    """
    entry = {"boot": boot, "undo": [to_json(op) for op in undo]}
    header = json.dumps({"vxlab": _FORMAT, "lab": lab})
    words = {"header": shlex.quote(header), "line": shlex.quote(json.dumps(entry))}
    return (_APPEND_MORE if whole else _APPEND).format(journal=_journal(lab), **words)


def remove(lab: str) -> str:
    """The shell text that ends a lab's book-keeping; the directories above it go when empty."""
    place = shlex.quote(f"{LABS}/{lab}")
    return f"rm -rf {place} && {{ rm -f {LABS}/owner; rmdir {LABS} 2>/dev/null || :; }}\n"


def _journal(lab: str) -> str:
    return shlex.quote(f"{LABS}/{lab}/journal")


def parse(host: str, lab: str, output: str) -> Ledger:
    """Read what the program of `read` printed.

    Raises:
        JournalError: the journal on the host is damaged.
    """
    head, _, text = output.partition("@@ journal\n")
    marks = [line.split() for line in head.splitlines() if line.startswith("@@ ")]
    boot = next((words[2] for words in marks if words[1] == "boot"), "")
    labs = tuple(words[2] for words in marks if words[1] == "lab")
    lines = text.split("\n")
    # `cat` and `echo` leave one empty line, or two where the last line was whole.
    whole = lines[:-2] if len(lines) > 1 else []
    try:
        return Ledger(boot, labs, _entries(lab, whole))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise JournalError(
            f"the journal of the lab {lab!r} cannot be read: {error}",
            where=f"{host}:{LABS}/{lab}/journal",
            hint="look at it on the host; every line is what takes one step back",
        ) from None


def _entries(lab: str, lines: Sequence[str]) -> tuple[Entry, ...]:
    if not lines or lines == [""]:
        return ()
    head = json.loads(lines[0])
    if head != {"vxlab": _FORMAT, "lab": lab}:
        raise ValueError("it does not begin as a journal of this lab does")
    data = [json.loads(line) for line in lines[1:] if line]
    return tuple(Entry(str(d["boot"]), tuple(from_json(op) for op in d["undo"])) for d in data)
