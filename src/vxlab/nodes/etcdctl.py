"""Asks the etcd of a real host: its own etcdctl runs there, through the SSH connection.

Nothing has to be reachable over the network, and the client's key stays on the host.
"""

from __future__ import annotations

import base64
import json
import shlex
from typing import Any

from vxlab.errors import DaemonError
from vxlab.lab import FLANNEL_PREFIX
from vxlab.nodes.remote import RemoteNode
from vxlab.ops import record_path
from vxlab.steps import tls
from vxlab.steps.site import Site

# etcd opens its port some time before it can answer; etcdctl waits in the connection then, and
# tries again only after a second when there is no port at all.
_WAIT = """\
read -r p t <{record}; n=0; until [ -n "$(ss -Hltn 'sport = :{port}')" ]; do
  n=$((n + 1)); [ $n -lt {looks} ] && [ -d "/proc/$p" ] || break; sleep 0.01; done
"""


def environment(site: Site) -> dict[str, str]:
    """What etcdctl needs to know on etcd's host; it tells a person's shell, too."""
    lab = site.lab
    words = {"ETCDCTL_API": "3", "ETCDCTL_ENDPOINTS": lab.etcd_url}
    if lab.tls:
        files = dict(zip(("CACERT", "CERT", "KEY"), (tls.CA, *tls.CLIENT), strict=True))
        words |= {f"ETCDCTL_{word}": tls.path(lab, file) for word, file in files.items()}
    return words


class Etcdctl:
    """The lab's etcd on a real host; does what `vxlab.etcd.Etcd` does for a local one."""

    def __init__(self, node: RemoteNode, site: Site) -> None:
        self._node = node
        self._port = site.lab.etcd.port
        self._program = site.etcd.rpartition("/")[0] + "/etcdctl"
        exports = environment(site).items()
        self._exports = "".join(f"export {k}={shlex.quote(v)}\n" for k, v in exports)

    def close(self) -> None:
        """The connection is the node's."""

    def wait_healthy(self, timeout: float = 15.0) -> str:
        """Wait until etcd serves; the version it tells.

        Raises:
            DaemonError: it ended, or does not serve after `timeout` seconds.
        """
        record = record_path("daemons", "etcd")
        wait = _WAIT.format(port=self._port, looks=int(timeout * 50), record=record)
        status = self._ask("endpoint", "status", "-w", "json", first=wait)
        try:
            return str(status[0]["Status"]["version"])
        except (LookupError, TypeError) as error:
            raise DaemonError("etcd's status makes no sense", detail=str(error)) from None

    def keys(self, prefix: str = FLANNEL_PREFIX) -> dict[str, str]:
        """All keys below a prefix with their values."""
        answer = self._ask("get", "--prefix", prefix, "-w", "json")
        return {_text(row["key"]): _text(row["value"]) for row in answer.get("kvs", [])}

    def put(self, key: str, value: str) -> None:
        """Write a key and read it back.

        Raises:
            DaemonError: etcd refused it, or holds another value afterwards.
        """
        words = shlex.join((self._program, "put", "--", key, value))
        answer = self._ask("get", key, "-w", "json", first=f"{words} >/dev/null && ")
        seen = [_text(row["value"]) for row in answer.get("kvs", [])]
        if seen != [value]:
            raise DaemonError(f"etcd holds another value for {key}", detail=str(seen))

    def _ask(self, *words: str, first: str = "") -> Any:
        command = shlex.join((self._program, "--command-timeout=5s", *words))
        # Warnings, on stderr, are JSON as well: what is on stdout gets a mark.
        marked = f"{{ {{ {first}{command}; }} 2>&3 | sed 's/^/@@ /'; }} 3>&1\n"
        output = self._node.script(self._exports + marked)
        line = next((ln[3:] for ln in output.splitlines() if ln.startswith("@@ ")), "")
        try:
            return json.loads(line)
        except ValueError:
            what = f"etcd did not answer: etcdctl {words[0]}"
            raise DaemonError(what, detail=output.strip()[-500:]) from None


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode(errors="replace")
