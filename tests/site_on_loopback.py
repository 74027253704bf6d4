"""A release site on loopback that behaves well or badly on purpose; stands in for upstream's."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[["Handler"], None]


class Site(ThreadingHTTPServer):
    """Paths and what they answer; `asked` remembers every request."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.reached = threading.Event()  # a handler has sent what it sends before it hangs
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        answer = self.server.answers.get(self.path)
        if answer is None:
            self.send_error(404)
        else:
            answer(self)

    def log_message(self, *args: object) -> None:
        """Quiet: the tests look at `asked`."""

    def begin(self, length: int | None) -> None:
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()


@contextmanager
def site() -> Iterator[Site]:
    server = Site()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def gives(body: bytes, length: int | None = None) -> Answer:
    """The body; with `length` longer than it, a body that breaks off."""

    def answer(handler: Handler) -> None:
        handler.begin(len(body) if length is None else length)
        handler.wfile.write(body)

    return answer


def hangs(body: bytes, length: int) -> Answer:
    """The body, of `length` announced bytes, and then silence with the connection open."""

    def answer(handler: Handler) -> None:
        if length:
            handler.begin(length)
            handler.wfile.write(body)
            handler.wfile.flush()
        handler.server.reached.set()
        handler.server.closing.wait()

    return answer


def drips() -> Answer:
    """A byte now and then, for ever: never silent for long, never done."""

    def answer(handler: Handler) -> None:
        handler.begin(1 << 20)
        try:
            while not handler.server.closing.wait(0.02):
                handler.wfile.write(b".")
        except (BrokenPipeError, ConnectionResetError):
            return  # the client gave up, as it should

    return answer


def redirects(target: str) -> Answer:
    def answer(handler: Handler) -> None:
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
