"""A server in the place of the webhooks: it records every call and answers as it was told."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from tests.devices import SOON


@dataclass(frozen=True)
class Call:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: tuple[str, int]

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = json.loads(self.body)
        return fields


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: bytes = b'{"ok":true,"error":""}'
    location: str | None = None
    closes: bool = False  # ends the connection after the answer, without a word of it in the answer
    waits_for: threading.Event | None = None


ALLOW = Reply()
DENY = Reply(403, b'{"ok":false,"error":"no-permission"}')
BROKEN = Reply(500, b"")
HANG_UP = Reply(status=0)  # the connection ends where an answer should begin


class Webhooks(ThreadingHTTPServer):
    """Records every call; answers each path with its replies in turn, then repeats the last one."""

    daemon_threads = True
    calls: list[Call]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Conversation)
        self.calls = []
        self.closed = threading.Event()
        self._replies: dict[str, list[Reply]] = {}
        self._news = threading.Condition()

    def answer(self, path: str, *replies: Reply) -> None:
        self._replies[path] = list(replies)

    def take(self, call: Call) -> Reply:
        with self._news:
            self.calls.append(call)
            self._news.notify_all()
            replies = self._replies.get(call.path, [ALLOW])
            return replies.pop(0) if len(replies) > 1 else replies[0]

    def wait_for(self, count: int) -> None:
        with self._news:
            assert self._news.wait_for(lambda: len(self.calls) >= count, SOON), self.calls

    def to(self, path: str) -> list[Call]:
        return [call for call in self.calls if call.path == path]

    def accesses(self) -> list[tuple[int, str, str]]:
        """Who asked for what on the ACL path: `acc`, username, topic or topic filter."""
        fields = [call.fields for call in self.to("/auth/acl")]
        return [(field["acc"], field["username"], field["topic"]) for field in fields]


class Conversation(BaseHTTPRequestHandler):
    """One kept-alive connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Webhooks

    def converse(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        call = Call(self.command, self.path, dict(self.headers), body, self.client_address)
        reply = self.server.take(call)
        if reply.waits_for:
            reply.waits_for.wait(SOON)
        if reply.status:
            self.write(reply)
        self.close_connection = reply.closes or not reply.status

    do_GET = do_POST = do_PUT = converse  # noqa: N815

    def write(self, reply: Reply) -> None:
        self.send_response(reply.status)
        if reply.location:
            self.send_header("Location", reply.location)
        if reply.status != 204:
            self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    def finish(self) -> None:
        super().finish()
        self.connection.close()
        self.server.closed.set()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass
