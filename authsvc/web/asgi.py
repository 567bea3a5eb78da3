"""The API listener: an ASGI application that reads a whole request before Flask gets a thread for it.

A client that sends its request slowly, or reads its answer slowly, therefore holds a connection and no thread. The
exception is a file of unknown length, such as an export: it is sent while Flask makes it, so that it is never in memory
as a whole. Few threads do that at the same time.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from a2wsgi import WSGIMiddleware

from authsvc.web.request_context import MAX_LARGE_BODY, takes_large_body

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask import Flask

    from authsvc.broker.asgi import Connections, Message, Receive, Scope, Send

# Maximum number of waiting requests per thread; a further request is answered 503.
_WAITING_PER_THREAD = 8
# Maximum size of all incomplete bodies together, without the first 64 KiB of each. A body beyond it is answered 503, so
# that half-sent large bodies cannot block sign-ins and other small requests.
_MAX_INCOMPLETE = 64 * 1024 * 1024
_SMALL = 64 * 1024
# Bodies above the limit of all other requests that may be in memory at once; a further one is answered 503.
_MAX_LARGE = 2
# Maximum duration of sending an answer or a part of a file.
_ANSWER_SECONDS = 60.0
# Maximum duration of sending a file.
_FILE_SECONDS = 600.0
# One file at a time may be sent for this many threads; another one is answered 503.
_THREADS_PER_FILE = 4
_FRAMING = (b"content-length", b"transfer-encoding")
# The key in the scope of a function that returns whether the answer is still wanted.
_IS_WANTED = "authsvc.is_wanted"


class ApiApplication:
    """Reads each request in the event loop, then lets Flask answer it in a thread."""

    def __init__(
        self, flask: Flask, threads: int, connections: Connections, answer_seconds: float = _ANSWER_SECONDS
    ) -> None:
        self._flask = WSGIMiddleware(_stoppable(flask), workers=threads)
        self._max_body: int = flask.config["MAX_CONTENT_LENGTH"]
        self._max_waiting = threads * _WAITING_PER_THREAD
        self._answer_seconds = answer_seconds
        self._waiting = 0
        self._large = 0
        self._max_files = max(1, threads // _THREADS_PER_FILE)
        self._files = 0
        self._incomplete = 0
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # a WebSocket, which the server then refuses
        client = scope["client"]
        self._connections.request_began(client)
        try:
            limit = MAX_LARGE_BODY if takes_large_body(scope["path"]) else self._max_body
            body = await self._read_body(receive, limit)
        except ConnectionError:
            return  # the client has disconnected
        self._connections.request_complete(client)
        is_large = body is not None and len(body) > self._max_body + 1
        busy = body is None or self._waiting >= self._max_waiting or (is_large and self._large >= _MAX_LARGE)
        if body is None or busy:
            messages = _busy()
        else:
            self._waiting += 1
            self._large += is_large
            try:
                messages = await self._ask_flask(scope, body, send)
            finally:
                self._waiting -= 1
                self._large -= is_large
        for message in messages:
            await asyncio.wait_for(send(message), self._answer_seconds)
        if busy:
            self._connections.close(client)

    async def _read_body(self, receive: Receive, limit: int) -> bytes | None:
        """Return the body, cut off one byte after the maximum size; None if too much memory is in use."""
        body, counted = bytearray(), 0
        more = True
        try:
            while more and len(body) <= limit:
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
        return bytes(body[: limit + 1])

    async def _ask_flask(self, scope: Scope, body: bytes, send: Send) -> list[Message]:
        """Return the messages of Flask's answer; those of a file are sent here, and the list is empty.

        gunicorn cancels this soon after the client has disconnected. Flask's thread then ends by itself: it would wait
        without end if what takes its messages were cancelled too.
        """
        # The body is complete now, however it was framed.
        headers = [(name, value) for name, value in scope["headers"] if name not in _FRAMING]
        if body or scope["method"] in ("POST", "PUT", "PATCH"):
            headers.append((b"content-length", b"%d" % len(body)))
        messages: list[Message] = []
        file = _File(send, self._answer_seconds)

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def take(message: Any) -> None:
            if message["type"] == "http.response.start" and _is_file(message):
                self._files += 1
                file.begin(allowed=self._files <= self._max_files)
            if file.has_begun:
                await file.send(message)
            else:
                messages.append(message)

        asked = {**scope, "headers": headers, _IS_WANTED: lambda: file.is_wanted}
        answering = asyncio.ensure_future(self._flask(asked, receive, take))  # type: ignore[arg-type]  # stricter types
        try:
            await asyncio.shield(answering)
        except asyncio.CancelledError:
            file.stop()
            await asyncio.wait([answering])
            raise
        finally:
            self._files -= file.has_begun
        if not file.is_wanted:
            if file.was_sent_in_part:
                self._connections.close(scope["client"])
            else:
                return _busy()
        return messages


class _File:
    """An answer that, if it is a file, is sent while Flask makes it until it is no longer wanted.

    It is not wanted if it is refused, if the client reads too slowly, or if the client has disconnected.
    """

    def __init__(self, send: Send, part_seconds: float) -> None:
        self._send = send
        self._part_seconds = part_seconds
        self._ends_at = 0.0
        self._limit = asyncio.timeout(None)
        self.has_begun = False
        self.is_wanted = True
        self.was_sent_in_part = False

    def begin(self, *, allowed: bool) -> None:
        """Begin to send, or refuse the file."""
        self._ends_at = asyncio.get_running_loop().time() + _FILE_SECONDS
        self.has_begun = True
        self.is_wanted = self.is_wanted and allowed

    def stop(self) -> None:
        """Make the answer unwanted, and give up the part that is being sent."""
        self.is_wanted = False
        with suppress(RuntimeError):  # no part is being sent
            self._limit.reschedule(0.0)

    async def send(self, message: Message) -> None:
        """Send a message; drop it if the file is not wanted, because a2wsgi's thread waits until it is taken."""
        left = self._ends_at - asyncio.get_running_loop().time()
        self.is_wanted = self.is_wanted and left > 0
        if not self.is_wanted:
            return
        self.was_sent_in_part = True
        self._limit = asyncio.timeout(min(left, self._part_seconds))
        try:
            async with self._limit:
                await self._send(message)
        except TimeoutError:
            self.is_wanted = False


def _is_file(start: Message) -> bool:
    return start["status"] == HTTPStatus.OK and all(name != b"content-length" for name, _ in start["headers"])


def _stoppable(flask: Flask) -> Any:
    """Return the WSGI application, which stops in the middle of a file that is no longer wanted."""

    def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        parts: Any = flask(environ, start_response)
        try:
            for part in parts:
                yield part
                if not environ["asgi.scope"][_IS_WANTED]():
                    return
        finally:
            getattr(parts, "close", lambda: None)()

    return application


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
