"""Enter a Linux namespace: how this process gets a foot in a node's or a container's network.

A socket belongs to the network namespace of the thread that made it, for life, whoever uses it
later. So to probe from inside a container it is enough to make the socket there; everything after
that can be done from one ordinary loop over all sockets.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

# include/uapi/linux/sched.h; the os module has them only from Python 3.12 on.
CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000  # mounts
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000


def setns(fd: int, nstype: int) -> None:
    """Move the calling thread into another namespace.

    Args:
        fd: an open namespace file, such as ``/proc/PID/ns/net``, or a pidfd.
        nstype: the kind that `fd` must be, one of `CLONE_NEW*` (for a pidfd, several of them
            or-ed together).

    Raises:
        OSError: the kernel refused; ``errno`` says why (setns(2)).
    """
    if sys.version_info >= (3, 12):
        os.setns(fd, nstype)
        return
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, nstype) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def in_netns(path: str | Path, make: Callable[[], T]) -> T:
    """Make something, usually a socket, inside the network namespace at `path`.

    A thread is started for it, enters the namespace and ends afterwards. The caller's thread never
    leaves its own: an ordinary user may enter a namespace of theirs but could not come back, since
    the way back needs CAP_SYS_ADMIN over the namespace that they came from.

    Args:
        path: a network namespace file, such as ``/proc/PID/ns/net``.
        make: what to do there; it runs in another thread, and should be quick.

    Returns:
        What `make` returned.

    Raises:
        OSError: the namespace is gone or may not be entered.
        BaseException: whatever `make` raised.
    """
    from concurrent.futures import ThreadPoolExecutor

    def enter_and_make() -> T:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(fd, CLONE_NEWNET)
        finally:
            os.close(fd)
        return make()

    # A pool of one that ends at once: the thread must not be used again, it is in the wrong place.
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="vxlab-netns") as thread:
        return thread.submit(enter_and_make).result()
