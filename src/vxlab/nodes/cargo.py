"""The programs that a real host needs and does not have: they travel there once, and are kept.

/var/cache/vxlab/DIGEST/       etcd, etcdctl, flanneld, busybox; only root may write
/var/cache/vxlab/DIGEST/bin/   busybox and its applets, which containers see as /bin
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vxlab.errors import OperationError
from vxlab.hostprobe import bundled
from vxlab.lab import Lab
from vxlab.nodes.remote import RemoteNode
from vxlab.steps.site import Site

CACHE = "/var/cache/vxlab"

_LOOK = """\
cd {place} 2>/dev/null && for f in {names}; do
  [ -x $f ] && echo "@@ have $f $(wc -c <$f)"; done; [ -x {place}/bin/sh ] && echo '@@ have bin 0'
"""

# The login user writes into a directory of their own; what counts is what root reads afterwards.
_ROOM = """\
mkdir -p -m 755 {cache} && mkdir -p -m 755 {place} && rm -rf {place}/incoming &&
  mkdir -m 700 {place}/incoming && chown "${{SUDO_UID:-0}}" {place}/incoming && echo '@@ room'
"""

_KEEP = """\
cd {place} && mv incoming/{name} .{name} && chown 0:0 .{name} && chmod 755 .{name} &&
  echo '{digest}  .{name}' | sha256sum -c --status && mv .{name} {name} && echo '@@ kept'
"""

_APPLETS = """\
cd {place} && rm -rf incoming bin && mkdir -m 755 bin && ln busybox bin/busybox && cd bin &&
  for a in $(./busybox --list); do [ -e $a ] || ln -s busybox $a || exit; done; echo '@@ linked'
"""


@dataclass(frozen=True, slots=True)
class Cargo:
    """The controller's programs by name, with their SHA-256."""

    files: Mapping[str, Path]
    digests: Mapping[str, str]

    @property
    def place(self) -> str:
        """Where they are kept on a host; other versions have another place."""
        every = " ".join(f"{name} {digest}" for name, digest in sorted(self.digests.items()))
        return f"{CACHE}/{hashlib.sha256(every.encode()).hexdigest()[:16]}"

    def site(self, lab: Lab) -> Site:
        """The lab with its programs where the hosts have them."""
        place, names = self.place, tuple(self.files)
        return Site(
            lab=lab,
            directory="",
            etcd=f"{place}/etcd",
            flanneld=f"{place}/flanneld",
            busybox=f"{place}/busybox",
            programs=f"{place}/bin",
            tcpdump=shlex.join(bundled(names, place)) if "tcpdump" in names else "",
        )

    def send(self, node: RemoteNode, progress: Callable[[str, int, int], None]) -> int:
        """Bring a host what it does not have; each file counts once its SHA-256 is right.

        Args:
            node: the host.
            progress: is told a program's name, the bytes that are there and those wanted.

        Returns:
            How many bytes had to travel.

        Raises:
            OperationError: no room on the host, no SFTP, or it arrived damaged.
        """
        output = node.script(_LOOK.format(place=self.place, names=" ".join(self.files)))
        rows = (line.split() for line in output.splitlines() if line.startswith("@@ have "))
        there = {name: int(size) for _, _, name, size in rows}
        sizes = {name: path.stat().st_size for name, path in self.files.items()}
        missing = {name: size for name, size in sizes.items() if there.get(name) != size}
        if not missing and "bin" in there:
            return 0
        self._do(node, "make room for the programs", _ROOM, "@@ room", cache=CACHE)
        for name, size in missing.items():
            target = f"{self.place}/incoming/{name}"

            def told(done: int, total: int, name: str = name, size: int = size) -> None:
                progress(name, done, size)

            node.connection.put(self.files[name], target, told)
            words = {"name": name, "digest": self.digests[name]}
            self._do(node, f"keep {name}", _KEEP, "@@ kept", **words)
        self._do(node, "link busybox's applets", _APPLETS, "@@ linked")
        return sum(missing.values())

    def _do(self, node: RemoteNode, what: str, program: str, mark: str, **words: str) -> None:
        output = node.script(program.format(place=shlex.quote(self.place), **words))
        if mark not in output:
            hint = f"free some space for {CACHE} there, then run it again"
            said = output.strip() or "its SHA-256 is wrong after the transfer"
            raise OperationError(f"cannot {what}", where=node.name, detail=said, hint=hint)


def purge() -> str:
    """The shell text that removes the programs from a host."""
    return f"rm -rf {CACHE}\n"
