"""A release download is there and right, or not there at all. The site is a local one."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from site_on_loopback import Answer, Site, digest, drips, gives, hangs, redirects, site
from vxlab.binaries.downloads import Limits, SourceError, base_url, download, refuse_plain

BODY = b"flanneld" * 50_000
QUICK = Limits(stall=0.2, total=0.5, size=1 << 20)


@pytest.fixture
def server() -> Iterator[Site]:
    with site() as running:
        yield running


def refused(server: Site, target: Path, answer: Answer, body: bytes = BODY) -> str:
    """What `download` says about an answer that it must not accept; nothing may be left."""
    server.answers["/f"] = answer
    with pytest.raises(SourceError) as caught:
        download(f"{server.url}/f", target, digest(body), limits=QUICK)
    assert list(target.parent.iterdir()) == []
    return str(caught.value)


def test_a_good_download_is_complete_and_not_yet_executable(server: Site, tmp_path: Path) -> None:
    """The bytes arrive, progress runs from 0 to all of them, and no x bit is set by a download."""
    server.answers["/f"] = gives(BODY)
    seen: list[tuple[int, int]] = []
    download(
        f"{server.url}/f", tmp_path / "f", digest(BODY), progress=lambda d, t: seen.append((d, t))
    )
    assert (tmp_path / "f").read_bytes() == BODY
    assert (tmp_path / "f").stat().st_mode & 0o111 == 0
    assert seen[0] == (0, len(BODY))
    assert seen[-1] == (len(BODY), len(BODY))
    assert seen == sorted(seen)


def test_a_wrong_checksum_is_discarded(server: Site, tmp_path: Path) -> None:
    """One wrong byte and the file is gone; the message holds the checksum that was seen."""
    wrong = BODY[:-1] + b"X"
    said = refused(server, tmp_path / "f", gives(wrong))
    assert f"checksum of {server.url}/f is wrong ({digest(wrong)}), discarded" in said


def test_a_body_that_breaks_off_is_discarded(server: Site, tmp_path: Path) -> None:
    """A connection closed before the announced length is no download, and is told as such."""
    said = refused(server, tmp_path / "f", gives(BODY[:1000], length=len(BODY)))
    assert f"broke off after 1000 of {len(BODY)} bytes" in said


def test_a_missing_release_says_404(server: Site, tmp_path: Path) -> None:
    """A release that does not exist is told with its status."""
    with pytest.raises(SourceError, match="/nowhere: HTTP 404 Not Found"):
        download(f"{server.url}/nowhere", tmp_path / "f", digest(BODY))
    assert list(tmp_path.iterdir()) == []


def test_a_closed_port_is_told(tmp_path: Path) -> None:
    """Nobody listens: the kernel's words, without a traceback of urllib."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(SourceError, match=f"http://127.0.0.1:{port}/f: Connection refused"):
        download(f"http://127.0.0.1:{port}/f", tmp_path / "f", digest(BODY))


def test_a_server_that_never_answers_is_given_up(server: Site, tmp_path: Path) -> None:
    """A server that accepts and says nothing costs the stall limit."""
    assert "no answer in time" in refused(server, tmp_path / "f", hangs(b"", 0))


def test_a_server_that_falls_silent_is_given_up(server: Site, tmp_path: Path) -> None:
    """Half of the body and then nothing: the stall limit holds within the body too."""
    said = refused(server, tmp_path / "f", hangs(BODY[:1000], len(BODY)))
    assert "no answer in time" in said


def test_a_server_that_drips_is_given_up(server: Site, tmp_path: Path) -> None:
    """A byte now and then never stalls; the limit on the whole download ends it."""
    assert "not done after 0.5 s" in refused(server, tmp_path / "f", drips())


def test_a_server_that_sends_too_much_is_given_up(server: Site, tmp_path: Path) -> None:
    """The disk is not filled, whatever a server sends."""
    body = b"x" * (QUICK.size + 1)
    said = refused(server, tmp_path / "f", gives(body), body)
    assert f"more than {QUICK.size} bytes" in said


def test_a_body_of_exactly_the_limit_is_taken(server: Site, tmp_path: Path) -> None:
    """The other side of that edge."""
    body = b"x" * QUICK.size
    server.answers["/f"] = gives(body)
    download(f"{server.url}/f", tmp_path / "f", digest(body), limits=QUICK)
    assert (tmp_path / "f").stat().st_size == QUICK.size


def test_a_redirect_on_loopback_is_followed(server: Site, tmp_path: Path) -> None:
    """Release pages redirect to where the files lie."""
    server.answers |= {"/f": redirects("/g"), "/g": gives(BODY)}
    download(f"{server.url}/f", tmp_path / "f", digest(BODY))
    assert server.asked == ["/f", "/g"]
    assert (tmp_path / "f").read_bytes() == BODY


@pytest.mark.parametrize("target", ["http://192.0.2.1/f", "file:///etc/passwd", "ftp://192.0.2.1/"])
def test_a_redirect_away_from_https_is_refused(server: Site, tmp_path: Path, target: str) -> None:
    """Nobody is asked at the new address (192.0.2.0/24 is for documentation, RFC 5737)."""
    said = refused(server, tmp_path / "f", redirects(target))
    assert ("is not allowed" if target.startswith("file") else "neither https nor") in said


def test_an_endless_redirect_ends(server: Site, tmp_path: Path) -> None:
    """A redirect to itself is told, not followed for ever."""
    assert "HTTP 302" in refused(server, tmp_path / "f", redirects("/f"))


@pytest.mark.parametrize(
    "url",
    [
        "http://192.0.2.1/f",
        "http://localhost.example/f",
        "file:///etc/passwd",
        "ftp://127.0.0.1/f",
        "https:///f",
        "http://[::1/f",
        "f",
        "",
    ],
)
def test_plain_addresses_are_refused(url: str) -> None:
    """Only https, or http to this machine itself: everything else could be answered by anyone."""
    with pytest.raises(SourceError):
        refuse_plain(url)


def test_a_file_is_no_release_site(tmp_path: Path) -> None:
    """A mirror has to be a server: a file URL is refused though its content is right."""
    (tmp_path / "f").write_bytes(BODY)
    with pytest.raises(SourceError, match="neither https nor"):
        download(f"file://{tmp_path}/f", tmp_path / "g", digest(BODY))
    assert not (tmp_path / "g").exists()


@pytest.mark.parametrize(
    "url", ["https://192.0.2.1/f", "http://127.0.0.1:8/f", "http://[::1]/f", "http://localhost/f"]
)
def test_safe_addresses_are_accepted(url: str) -> None:
    """https anywhere, http on loopback in both families."""
    refuse_plain(url)


def test_the_world_may_not_redirect_to_loopback() -> None:
    """A release site has no business with what listens on the user's machine."""
    with pytest.raises(SourceError, match=r"redirected to http://127\.0\.0\.1/f"):
        refuse_plain("http://127.0.0.1/f", "https://192.0.2.1/f")


def test_a_proxy_is_not_asked_for_loopback(
    server: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mirror on this machine works behind a proxy that only knows the world."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    server.answers["/f"] = gives(BODY)
    download(f"{server.url}/f", tmp_path / "f", digest(BODY))
    assert server.asked == ["/f"]


def test_an_interrupted_download_leaves_nothing(server: Site, tmp_path: Path) -> None:
    """Ctrl-C in the middle of the body removes what had come."""
    server.answers["/f"] = gives(BODY)

    def interrupt(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(f"{server.url}/f", tmp_path / "f", digest(BODY), progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_the_mirror_replaces_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    """VXLAB_MIRROR is a base URL; an empty one is none."""
    monkeypatch.setenv("VXLAB_MIRROR", "https://mirror.example/releases/")
    assert base_url() == "https://mirror.example/releases"
    monkeypatch.setenv("VXLAB_MIRROR", "")
    assert base_url().startswith("https://")
