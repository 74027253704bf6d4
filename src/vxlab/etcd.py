"""Talks to the lab's etcd: health, flannel's configuration, the leases. The only importer of etcd3.

The connection is a unix socket in etcd's working directory, on which etcd listens besides its TCP
address: a path reaches across network namespaces, and nothing listens on the host.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vxlab.errors import DaemonError
from vxlab.lab import FLANNEL_PREFIX


def load() -> Any:
    """Import etcd3; with today's protobuf its generated code needs the pure-Python runtime."""
    os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
    # grpc would otherwise print about forked children and the unix socket on stderr.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import etcd3

    return etcd3


class Etcd:
    """A connection to the lab's etcd.

    Args:
        socket: etcd's unix socket, named ``NAME:PORT`` as etcd does.
        alive: whether etcd still runs; asked while waiting.
    """

    def __init__(self, socket: Path, alive: Callable[[], bool]) -> None:
        name, _, port = socket.name.rpartition(":")
        self._alive = alive
        self._etcd3 = load()
        self._client = self._etcd3.client(
            host=f"unix:{socket.parent / name}",
            port=int(port),
            timeout=2,
            # gRPC waits a second before it tries again; etcd boots in a tenth of that.
            grpc_options=[(f"grpc.{w}_reconnect_backoff_ms", 5) for w in ("initial", "min", "max")],
        )

    def close(self) -> None:
        self._client.close()

    def wait_healthy(self, timeout: float = 15.0) -> str:
        """Wait until etcd has a leader and serves; the version it tells.

        Raises:
            DaemonError: it ended, or it is not healthy after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                return str(self._client.status().version)
            except self._etcd3.exceptions.Etcd3Exception as error:
                reason = type(error).__name__
            if not self._alive():
                raise DaemonError("etcd ended before it was ready")
            if time.monotonic() > deadline:
                raise DaemonError(f"etcd is not healthy after {timeout:g} s", detail=reason)
            time.sleep(0.003)

    def _call(self, what: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except self._etcd3.exceptions.Etcd3Exception as error:
            raise DaemonError(f"etcd did not answer: {what}", detail=type(error).__name__) from None

    def keys(self, prefix: str = FLANNEL_PREFIX) -> dict[str, str]:
        """All keys below a prefix with their values, as ``etcdctl get --prefix`` shows them."""
        rows = self._call("get", lambda: list(self._client.get_prefix(prefix)))
        return {meta.key.decode(): value.decode() for value, meta in rows}

    def put(self, key: str, value: str) -> None:
        """Write a key and read it back.

        Raises:
            DaemonError: etcd refused it, or holds another value afterwards.
        """
        self._call("put", lambda: self._client.put(key, value))
        seen, _ = self._call("get", lambda: self._client.get(key))
        if seen is None or seen.decode() != value:
            raise DaemonError(f"etcd holds another value for {key}", detail=str(seen))
