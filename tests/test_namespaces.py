"""Entering namespaces."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from networks import namespaces, needs_root
from vxlab.namespaces import CLONE_NEWNET, CLONE_NEWUTS, in_netns, setns


def netns_of(sock: socket.socket) -> int:
    """The identity of the network namespace that a socket belongs to (ioctl SIOCGSKNS)."""
    import fcntl

    fd = fcntl.ioctl(sock, 0x894C)
    try:
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)


@needs_root
@pytest.mark.kernel
def test_a_socket_made_in_a_namespace_belongs_to_it() -> None:
    """The socket is the container's, and what it sees are the container's interfaces."""
    with namespaces("c1") as net:
        inside = os.stat(net.path("c1")).st_ino
        with in_netns(net.path("c1"), socket.socket) as sock:
            assert netns_of(sock) == inside
        assert in_netns(net.path("c1"), lambda: [name for _, name in socket.if_nameindex()]) == [
            "lo"
        ]


@needs_root
@pytest.mark.kernel
def test_the_calling_thread_stays_where_it_is() -> None:
    """Only the thread made for it enters; it is gone afterwards."""
    with namespaces("c1") as net:
        before = os.readlink("/proc/thread-self/ns/net")
        inside = in_netns(Path(net.path("c1")), lambda: os.readlink("/proc/thread-self/ns/net"))
        assert inside == os.readlink(net.path("c1"))
        assert os.readlink("/proc/thread-self/ns/net") == before
        assert [t for t in threading.enumerate() if t.name.startswith("vxlab-netns")] == []


@needs_root
@pytest.mark.kernel
def test_an_error_inside_comes_out_as_it_was() -> None:
    """The caller sees the exception of what it wanted to be made."""

    def fail() -> None:
        raise KeyError("inside")

    with namespaces("c1") as net, pytest.raises(KeyError, match="inside"):
        in_netns(net.path("c1"), fail)


def test_a_namespace_that_is_gone_is_reported() -> None:
    """No such file: nothing is made, least of all in the wrong place."""
    made: list[int] = []
    with pytest.raises(FileNotFoundError):
        in_netns("/proc/0/ns/net", lambda: made.append(1))
    assert made == []


def test_the_wrong_kind_of_namespace_is_refused_with_the_kernels_error() -> None:
    """A file that is no network namespace gives EINVAL."""
    fd = os.open("/proc/self/ns/uts", os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="Invalid argument") as caught:
            setns(fd, CLONE_NEWNET)
    finally:
        os.close(fd)
    assert caught.value.errno == errno.EINVAL


@needs_root
@pytest.mark.kernel
def test_other_kinds_of_namespaces_can_be_entered_too() -> None:
    """`setns` alone, in a thread of the test's own: the host name is the namespace's."""
    with subprocess.Popen(
        ["unshare", "--uts", "sh", "-c", "hostname node01 && echo ready && exec sleep 600"],
        stdout=subprocess.PIPE,
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"ready\n"
            names: list[str] = []

            def enter() -> None:
                fd = os.open(f"/proc/{holder.pid}/ns/uts", os.O_RDONLY)
                setns(fd, CLONE_NEWUTS)
                os.close(fd)
                names.append(socket.gethostname())

            thread = threading.Thread(target=enter)
            thread.start()
            thread.join()
            assert names == ["node01"]
        finally:
            holder.kill()
