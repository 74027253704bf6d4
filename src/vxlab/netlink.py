"""Carries network operations out over rtnetlink, in the namespaces of this machine.

The only importer of pyroute2. Its message classes encode; the socket is our own, so that a whole
step goes to the kernel in one buffer and one acknowledgement per operation comes back. Routes are
written with ``proto boot``, as iproute2 does.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.machinery import PathFinder
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from vxlab import ops
from vxlab.errors import OperationError
from vxlab.namespaces import in_netns
from vxlab.ops import Op

#: The operations that this module can carry out; all others are `vxlab.script`'s.
KINDS: tuple[type[Op], ...] = (
    ops.AddBridge,
    ops.AddVeth,
    ops.DelLink,
    ops.SetMaster,
    ops.SetMtu,
    ops.SetUp,
    ops.SetMac,
    ops.SetAlias,
    ops.AddAddress,
    ops.DelAddress,
    ops.AddRoute,
    ops.DelRoute,
    ops.AddNeighbours,
    ops.SetSysctl,
)

# linux/netlink.h, linux/rtnetlink.h, linux/if.h
_NEWLINK, _DELLINK = 16, 17
_NEWADDR, _DELADDR = 20, 21
_NEWROUTE, _DELROUTE = 24, 25
_REQUEST, _ACK, _EXCL, _CREATE = 0x1, 0x4, 0x200, 0x400
_NEWNEIGH, _NDA_DST, _NDA_LLADDR, _NUD_PERMANENT, _REPLACE = 28, 1, 2, 0x80, 0x100
_NLMSG_ERROR = 2
#: struct nlmsghdr, struct ndmsg, NDA_DST (IPv4), NDA_LLADDR (Ethernet) and its padding
_NEIGHBOUR = struct.Struct("=IHHII B3xiHBB HH4s HH6s2x")
_NETLINK_EXT_ACK, _NETLINK_CAP_ACK, _SOL_NETLINK = 11, 10, 270
_NLM_F_CAPPED, _NLM_F_ACK_TLVS = 0x100, 0x200
_IFF_UP = 1
_SIOCGIFINDEX = 0x8933
_RT_TABLE_MAIN, _RTPROT_BOOT, _UNICAST = 254, 3, 1
_SCOPE_UNIVERSE, _SCOPE_LINK, _SCOPE_NOWHERE = 0, 253, 255


class _Messages(NamedTuple):
    link: Callable[[], Any]
    address: Callable[[], Any]
    route: Callable[[], Any]


def _messages() -> _Messages:
    """pyroute2's three message classes, without the rest of pyroute2.

    The package's own ``__init__`` imports the whole of it (NDB, asyncio, multiprocessing), which
    costs more time than building a two-node lab. Its submodules do not need that: give them a bare
    parent package while they load, and take it away again, so that a later ``import pyroute2`` is
    the real one.
    """
    bare = None
    if "pyroute2" not in sys.modules:
        spec = PathFinder.find_spec("pyroute2")
        if spec is not None and spec.submodule_search_locations:
            bare = ModuleType("pyroute2")
            bare.__path__ = list(spec.submodule_search_locations)
            sys.modules["pyroute2"] = bare
    try:
        from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
        from pyroute2.netlink.rtnl.rtmsg import rtmsg
    finally:
        if bare is not None and sys.modules.get("pyroute2") is bare:
            del sys.modules["pyroute2"]
    return _Messages(ifinfmsg, ifaddrmsg, rtmsg)


class Netlink:
    """An rtnetlink socket inside one network namespace.

    Args:
        proc: the /proc directory of a process there; its namespace and its own /proc are used.
        where: its name in error messages.
    """

    def __init__(self, proc: str, where: str) -> None:
        self.proc = proc
        self.netns = f"{proc}/ns/net"
        self.where = where
        self._messages = _messages()
        self._sequence = 0
        self._socket, self._ioctl = in_netns(self.netns, self._open)

    @staticmethod
    def _open() -> tuple[socket.socket, socket.socket]:
        route = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        route.bind((0, 0))
        # Errors then carry the kernel's sentence ("MTU greater than device maximum").
        route.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        route.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        return route, socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def close(self) -> None:
        self._socket.close()
        self._ioctl.close()

    def apply(
        self, todo: Sequence[Op], peers: Mapping[str, str], done: Callable[[Op], None]
    ) -> None:
        """Do the operations in order; `done` is called for each that the kernel acknowledged.

        Args:
            todo: operations of `KINDS`, all in this socket's namespace.
            peers: the namespace files of the machines that `AddVeth.peer_ns` may name.

        Raises:
            OperationError: one was refused. Those after it in the same buffer were not undone.
        """
        for batch in self._batches(todo):
            if isinstance(batch[0], ops.SetSysctl):
                self._sysctl(batch[0])
                done(batch[0])
            else:
                self._send(batch, peers, done)

    def _batches(self, todo: Sequence[Op]) -> Iterator[list[Op]]:
        """Cut where an operation needs the index of an interface made just before it."""
        batch: list[Op] = []
        fresh: set[str] = set()
        for op in todo:
            if isinstance(op, ops.SetSysctl):  # a file, not a message: in its place, by itself
                if batch:
                    yield batch
                yield [op]
                batch, fresh = [], set()
                continue
            needs = {getattr(op, "master", ""), getattr(op, "dev", "")}
            if isinstance(op, ops.AddAddress | ops.DelAddress | ops.AddNeighbours):
                needs.add(op.name)
            if needs & fresh:
                yield batch
                batch, fresh = [], set()
            batch.append(op)
            if isinstance(op, ops.AddBridge | ops.AddVeth):
                fresh.add(op.name)
        if batch:
            yield batch

    def _send(self, batch: list[Op], peers: Mapping[str, str], done: Callable[[Op], None]) -> None:
        buffer = bytearray()
        first = self._sequence + 1
        opened: list[int] = []
        try:
            for op in batch:
                self._sequence += 1
                try:
                    buffer += self._encode(op, peers, opened)
                except OSError as error:
                    if buffer:  # what came before it is still done and acknowledged
                        self._socket.send(buffer)
                        self._acknowledged(batch[: self._sequence - first], first, done)
                    raise self._refused(op, error.strerror or str(error)) from None
            self._socket.send(buffer)
        finally:
            for fd in opened:
                os.close(fd)
        self._acknowledged(batch, first, done)

    def _sysctl(self, op: ops.SetSysctl) -> None:
        """Write the value; /proc/sys/net shows the network namespace of the thread that looks."""
        # Its own /proc: the caller's may be read-only, as in many containers.
        path = Path(f"{self.proc}/root/proc/sys/{op.path}")
        try:
            in_netns(self.netns, lambda: path.write_text(op.value))
        except OSError as error:
            raise self._refused(op, error.strerror or str(error)) from None

    def _acknowledged(self, batch: list[Op], first: int, done: Callable[[Op], None]) -> None:
        pending = len(batch)
        while pending:
            data = self._socket.recv(1 << 16)
            while len(data) >= 16:
                length, kind, flags, sequence, _ = struct.unpack_from("=IHHII", data)
                if kind == _NLMSG_ERROR and sequence >= first:
                    pending -= 1
                    op = batch[sequence - first]
                    code = -struct.unpack_from("=i", data, 16)[0]
                    gone = code == errno.ENODEV and isinstance(op, ops.DelLink)
                    if code and not gone:
                        raise self._refused(op, _said(code, data[:length], flags))
                    done(op)
                data = data[(length + 3) & ~3 :]

    def _refused(self, op: Op, detail: str) -> OperationError:
        self.close()  # acknowledgements of the rest may still be queued: never read them again
        return OperationError(f"cannot do: {op}", where=self.where, detail=detail)

    # --- one message per operation --------------------------------------------------------------

    def _encode(self, op: Op, peers: Mapping[str, str], opened: list[int]) -> bytes:
        match op:
            case ops.AddBridge():
                return self._add_link(op.name, "bridge", {"attrs": [("IFLA_BR_STP_STATE", 0)]})
            case ops.AddVeth():
                fd = os.open(peers[op.peer_ns], os.O_RDONLY | os.O_CLOEXEC)
                opened.append(fd)
                peer: Any = {"attrs": [("IFLA_IFNAME", op.peer), ("IFLA_NET_NS_FD", fd)]}
                cable: Any = {"attrs": [("VETH_INFO_PEER", peer)]}
                return self._add_link(op.name, "veth", cable)
            case ops.DelLink():
                return self._link(_DELLINK, 0, ("IFLA_IFNAME", op.name))
            case ops.SetMaster():
                master = self._index(op.master) if op.master else 0
                return self._set_link(op.name, ("IFLA_MASTER", master))
            case ops.SetMtu():
                return self._set_link(op.name, ("IFLA_MTU", op.mtu))
            case ops.SetAlias():
                return self._set_link(op.name, ("IFLA_IFALIAS", op.alias))
            case ops.SetMac():
                return self._set_link(op.name, ("IFLA_ADDRESS", op.mac))
            case ops.SetUp():
                return self._set_link(op.name, up=op.up)
            case ops.AddAddress():
                return self._address(_NEWADDR, _CREATE | _EXCL, op.name, op.address)
            case ops.DelAddress():
                return self._address(_DELADDR, 0, op.name, op.address)
            case ops.AddRoute():
                return self._route(_NEWROUTE, _CREATE | _EXCL, op.dst, op.via, op.dev)
            case ops.DelRoute():
                return self._route(_DELROUTE, 0, op.dst, op.via, op.dev)
            case ops.AddNeighbours():
                return self._neighbours(op)
        raise TypeError(f"{type(op).__name__} is not a network operation")

    def _finish(self, message: Any, kind: int, flags: int) -> bytes:
        message["header"]["type"] = kind
        message["header"]["flags"] = _REQUEST | _ACK | flags
        message["header"]["sequence_number"] = self._sequence
        message.encode()
        return bytes(message.data)

    def _link(self, kind: int, flags: int, *attrs: tuple[str, Any]) -> bytes:
        message = self._messages.link()
        message["attrs"] = list(attrs)
        return self._finish(message, kind, flags)

    def _add_link(self, name: str, kind: str, data: Any) -> bytes:
        info = {"attrs": [("IFLA_INFO_KIND", kind), ("IFLA_INFO_DATA", data)]}
        return self._link(_NEWLINK, _CREATE | _EXCL, ("IFLA_IFNAME", name), ("IFLA_LINKINFO", info))

    def _set_link(self, name: str, *attrs: tuple[str, Any], up: bool | None = None) -> bytes:
        message = self._messages.link()
        message["attrs"] = [("IFLA_IFNAME", name), *attrs]
        if up is not None:
            message["change"] = _IFF_UP
            message["flags"] = _IFF_UP if up else 0
        return self._finish(message, _NEWLINK, 0)

    def _address(self, kind: int, flags: int, dev: str, address: str) -> bytes:
        interface = IPv4Interface(address)
        message = self._messages.address()
        message["family"] = socket.AF_INET
        message["index"] = self._index(dev)
        message["prefixlen"] = interface.network.prefixlen
        message["attrs"] = [("IFA_LOCAL", str(interface.ip)), ("IFA_ADDRESS", str(interface.ip))]
        return self._finish(message, kind, flags)

    def _route(self, kind: int, flags: int, dst: str, via: str, dev: str) -> bytes:
        message = self._messages.route()
        adding = kind == _NEWROUTE
        message["family"] = socket.AF_INET
        message["table"] = _RT_TABLE_MAIN
        message["proto"] = _RTPROT_BOOT if adding else 0
        scope = _SCOPE_UNIVERSE if via else _SCOPE_LINK
        message["scope"] = scope if adding else _SCOPE_NOWHERE
        message["type"] = _UNICAST if adding else 0
        attrs: list[tuple[str, Any]] = [("RTA_OIF", self._index(dev))]
        if via:
            attrs.append(("RTA_GATEWAY", via))
        if dst != "default":
            network = IPv4Network(dst)
            message["dst_len"] = network.prefixlen
            attrs.append(("RTA_DST", str(network.network_address)))
        message["attrs"] = attrs
        return self._finish(message, kind, flags)

    def _neighbours(self, op: ops.AddNeighbours) -> bytes:
        """One message per entry; only the last asks for an acknowledgement.

        Packed by hand: a lab of 50 nodes has 2,450 of these, and pyroute2 takes 0.1 ms for each.
        """
        index = self._index(op.name)
        messages = []
        for number, entry in enumerate(op.entries, 1):
            address, mac = entry.split()
            flags = _REQUEST | _CREATE | _REPLACE | (_ACK if number == len(op.entries) else 0)
            messages.append(
                _NEIGHBOUR.pack(
                    *(_NEIGHBOUR.size, _NEWNEIGH, flags, self._sequence, 0),
                    *(socket.AF_INET, index, _NUD_PERMANENT, 0, _UNICAST),
                    *(8, _NDA_DST, socket.inet_aton(address)),
                    *(10, _NDA_LLADDR, bytes.fromhex(mac.replace(":", ""))),
                )
            )
        return b"".join(messages)

    def _index(self, name: str) -> int:
        """An interface's index, asked of the namespace (an ioctl costs less than a dump)."""
        from fcntl import ioctl

        request = struct.pack("16sI20x", name.encode(), 0)
        try:
            answer = ioctl(self._ioctl, _SIOCGIFINDEX, request)
        except OSError as error:
            if error.errno == errno.ENODEV:
                raise OSError(errno.ENODEV, f'Cannot find device "{name}"') from None
            raise
        return int(struct.unpack_from("16sI", answer)[1])


def _said(code: int, message: bytes, flags: int) -> str:
    """The kernel's errno text and, if it gave one, its own sentence (NLMSGERR_ATTR_MSG)."""
    text = f"RTNETLINK answers: {os.strerror(code)}"
    if flags & _NLM_F_ACK_TLVS:
        offset = 20 + 16 if flags & _NLM_F_CAPPED else 20 + struct.unpack_from("=I", message, 20)[0]
        while offset + 4 <= len(message):
            length, kind = struct.unpack_from("=HH", message, offset)
            if length < 4:
                break
            if kind & 0x3FFF == 1:
                text += f" ({message[offset + 4 : offset + length].rstrip(bytes(1)).decode()})"
            offset += (length + 3) & ~3
    return text
