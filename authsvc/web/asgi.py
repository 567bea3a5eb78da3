"""The API listener: an ASGI application that reads a whole request before Flask gets a thread for it.

A client that sends its request slowly, or reads its answer slowly, therefore holds a connection and no thread.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from a2wsgi import WSGIMiddleware

if TYPE_CHECKING:
    from flask import Flask

    from authsvc.broker.asgi import Connections, Message, Receive, Scope, Send

# Maximum number of waiting requests per thread; a further request is answered 503.
_WAITING_PER_THREAD = 8
# Maximum size of all incomplete bodies together, without the first 64 KiB of each. A body beyond it is answered 503, so
# that half-sent large bodies cannot block sign-ins and other small requests.
_MAX_INCOMPLETE = 64 * 1024 * 1024
_SMALL = 64 * 1024
# Maximum duration of sending an answer.
_ANSWER_SECONDS = 60.0
_FRAMING = (b"content-length", b"transfer-encoding")


class ApiApplication:
    """Reads each request in the event loop, then lets Flask answer it in a thread."""

    def __init__(self, flask: Flask, threads: int, connections: Connections) -> None:
        self._flask = WSGIMiddleware(flask, workers=threads)  # type: ignore[arg-type]  # WSGI as typeshed spells it
        self._max_body: int = flask.config["MAX_CONTENT_LENGTH"]
        self._max_waiting = threads * _WAITING_PER_THREAD
        self._waiting = 0
        self._incomplete = 0
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # a WebSocket, which the server then refuses
        client = scope["client"]
        self._connections.request_began(client)
        try:
            body = await self._read_body(receive)
        except ConnectionError:
            return  # the client has disconnected
        self._connections.request_complete(client)
        busy = body is None or self._waiting >= self._max_waiting
        if body is None or busy:
            messages = _busy()
        else:
            self._waiting += 1
            try:
                messages = await self._ask_flask(scope, body)
            finally:
                self._waiting -= 1
        for message in messages:
            await asyncio.wait_for(send(message), _ANSWER_SECONDS)
        if busy:
            self._connections.close(client)

    async def _read_body(self, receive: Receive) -> bytes | None:
        """Return the body, cut off one byte after the maximum size; None if too much memory is in use."""
        body, counted = bytearray(), 0
        more = True
        try:
            while more and len(body) <= self._max_body:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ConnectionResetError
                body += message.get("body", b"")
                self._incomplete += max(len(body) - _SMALL, 0) - counted
                counted = max(len(body) - _SMALL, 0)
                if counted and self._incomplete > _MAX_INCOMPLETE:
                    return None
                more = message.get("more_body", False)
        finally:
            self._incomplete -= counted
        return bytes(body[: self._max_body + 1])

    async def _ask_flask(self, scope: Scope, body: bytes) -> list[Message]:
        # The body is complete now, however it was framed.
        headers = [(name, value) for name, value in scope["headers"] if name not in _FRAMING]
        if body or scope["method"] in ("POST", "PUT", "PATCH"):
            headers.append((b"content-length", b"%d" % len(body)))
        messages: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def collect(message: Any) -> None:
            messages.append(message)

        await self._flask({**scope, "headers": headers}, receive, collect)  # type: ignore[arg-type]  # stricter types
        return messages


def _busy() -> list[Message]:
    body = b"too many requests are waiting; try again in a second\n"
    headers = [
        (b"content-type", b"text/plain"),
        (b"content-length", b"%d" % len(body)),
        (b"retry-after", b"1"),
        (b"connection", b"close"),
    ]
    return [
        {"type": "http.response.start", "status": HTTPStatus.SERVICE_UNAVAILABLE, "headers": headers},
        {"type": "http.response.body", "body": body},
    ]
