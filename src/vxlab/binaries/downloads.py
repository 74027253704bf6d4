"""Getting a release over HTTPS: streamed, bounded in time and size, checked before it counts."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from http.client import HTTPResponse
    from urllib.request import OpenerDirector

#: Where releases are published; VXLAB_MIRROR replaces it by a base URL with the same paths below.
UPSTREAM = "https://github.com"

_BLOCK = 1 << 17


class SourceError(Exception):
    """One source did not give the program; the next one is tried. One line, no traceback."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a download may take, and how large it may be."""

    stall: float = 10.0  # seconds for connecting, and without a byte
    total: float = 900.0  # seconds in all: a server that drips bytes never stalls
    size: int = 300_000_000  # bytes


def base_url() -> str:
    """Base URL of the releases, without a slash at its end: VXLAB_MIRROR's or upstream's."""
    return os.environ.get("VXLAB_MIRROR", "").rstrip("/") or UPSTREAM


def download(
    url: str,
    target: Path,
    digest: str,
    *,
    limits: Limits | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Bring one release file over the network; it is there and right, or not there at all.

    Args:
        url: https, or http on this machine's loopback.
        target: a file in a private directory; it is made without the executable bit.
        digest: its SHA-256 in hexadecimal, known beforehand.
        limits: bounds in seconds and bytes.
        progress: called with bytes done and bytes in all (0 if the server does not say).

    Raises:
        SourceError: what went wrong, in one line; nothing is left at `target`.
    """
    import http.client
    import urllib.error

    limits = limits or Limits()
    refuse_plain(url)
    try:
        with _opener(url).open(url, timeout=limits.stall) as response, target.open("xb") as file:
            seen = _copy(response, file, limits, progress or _silent)
        if seen != digest:
            raise SourceError(f"the checksum of {url} is wrong ({seen}), discarded")
    except urllib.error.HTTPError as error:
        error.close()
        raise _gone(target, f"{url}: HTTP {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise _gone(target, f"{url}: {_reason(error.reason)}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _gone(target, f"{url}: {_reason(error)}") from error
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def refuse_plain(url: str, origin: str | None = None) -> None:
    """Refuse a URL that a stranger on the path could answer.

    Args:
        url: the address to be asked.
        origin: the address that redirects to it, if any. Only loopback may redirect to loopback.

    Raises:
        SourceError: neither https nor http on loopback.
    """
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        plain = parts.scheme == "http" and _is_loopback(parts.hostname)
    except ValueError as error:
        raise SourceError(f"{url}: {error}") from error
    if parts.scheme == "https" and parts.hostname:
        return
    if not plain or (origin is not None and not _is_loopback(urlsplit(origin).hostname)):
        how = f"redirected to {url}" if origin else url
        raise SourceError(f"{how}: neither https nor on this machine's loopback, refused")


def _is_loopback(host: str | None) -> bool:
    from ipaddress import ip_address

    if host is None or host == "localhost":
        return host is not None
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def _opener(url: str) -> OpenerDirector:
    from urllib.parse import urlsplit
    from urllib.request import HTTPRedirectHandler, ProxyHandler, build_opener

    class Redirects(HTTPRedirectHandler):
        def redirect_request(
            self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str
        ) -> Any:
            with fp:
                refuse_plain(newurl, req.full_url)
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    # A proxy is right for the world, but it cannot reach this machine's loopback.
    local = _is_loopback(urlsplit(url).hostname)
    opener = build_opener(Redirects(), *([ProxyHandler({})] if local else []))
    opener.addheaders = [("User-Agent", "vxlab")]
    return opener


def _copy(
    response: HTTPResponse, file: Any, limits: Limits, progress: Callable[[int, int], None]
) -> str:
    import hashlib
    import time

    deadline = time.monotonic() + limits.total
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdigit() else 0
    digest, done = hashlib.sha256(), 0
    progress(0, total)
    # read1 gives what has arrived: read would wait for a whole block, and the deadline with it.
    while block := response.read1(_BLOCK):
        done += len(block)
        if done > limits.size:
            raise SourceError(f"{response.url}: more than {limits.size} bytes, discarded")
        if time.monotonic() > deadline:
            raise SourceError(f"{response.url}: not done after {limits.total:g} s, discarded")
        digest.update(block)
        file.write(block)
        progress(done, total)
    if done < total:
        raise SourceError(f"{response.url}: broke off after {done} of {total} bytes, discarded")
    return digest.hexdigest()


def _gone(target: Path, reason: str) -> SourceError:
    target.unlink(missing_ok=True)
    return SourceError(reason)


def _reason(error: object) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _silent(done: int, total: int) -> None:
    """Progress that nobody wants to see."""
