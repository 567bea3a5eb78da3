"""Receivers of notifications: a real HTTP server and a real SMTP server."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from standardwebhooks import Webhook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from ssl import SSLContext

PATIENCE = 20.0


@dataclass(frozen=True)
class Received:
    """A request to the receiver."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def verified(self, secret: str) -> Any:
        """Return the message; the library raises an error unless its signature is valid."""
        return Webhook(secret).verify(self.body, self.headers)


@dataclass
class Receiver:
    """An HTTP server that keeps what it receives and answers as `answer` says."""

    port: int = 0
    answer: Callable[[BaseHTTPRequestHandler], object] = lambda request: answer_with(204)(request)  # noqa: PLW0108 - defined below
    received: list[Received] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?token=top-secret"

    def wait_for(self, count: int) -> list[Received]:
        """Wait until this many requests came and return them."""
        wait_until(lambda: len(self.received) >= count)
        return self.received


def answer_with(status: int, *headers: tuple[str, str], body: bytes = b"") -> Callable[[BaseHTTPRequestHandler], None]:
    """Return a function that answers a request with this status, these headers and this body."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in headers:
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    return answer


@contextmanager
def receiving(
    answer: Callable[[BaseHTTPRequestHandler], object] | None = None, tls: SSLContext | None = None
) -> Iterator[Receiver]:
    """Run a receiver on a free port of 127.0.0.1."""
    receiver = Receiver()
    if answer:
        receiver.answer = answer

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            one = Received(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            receiver.received.append(one)
            receiver.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        receiver.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield receiver
        server.shutdown()
        thread.join()


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    deadline = monotonic() + PATIENCE
    while not condition():
        assert monotonic() < deadline, "the condition was not met"
        sleep(0.01)
