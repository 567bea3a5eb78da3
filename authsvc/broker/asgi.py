"""The broker listener: an ASGI application that answers webhooks in the event loop, from memory.

A webhook costs no thread switch and no framework; `docs/performance.md` has the figures. Nothing that blocks may run
here: hashing goes to its pool, and everything that uses the database runs in background threads.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from authsvc.broker.goauth_protocol import MAX_BODY, Answer, WebhookRequest
from authsvc.broker.webhooks import PendingLogin

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from authsvc.broker.webhooks import Webhooks

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Client = tuple[str, int]

_CHECKS = {"/auth/acl": "acl", "/auth/user": "user", "/auth/superuser": "superuser"}
_METHODS = frozenset({"POST", "PUT", "GET"})


class Connections(Protocol):
    """What is told about a connection, which is named by its client's address and port."""

    def request_began(self, client: Client) -> None:
        """Give the request a deadline, unless it has one."""

    def request_complete(self, client: Client) -> None:
        """Stop the deadline: the request has arrived as a whole."""

    def trust(self, client: Client) -> None:
        """Keep the connection: its client proved to be a broker."""

    def close(self, client: Client) -> None:
        """Close the connection when its answer has been written."""


class BrokerApplication:
    """Answers `/auth/*` and `/healthz`; everything else is 404.

    A caller is trusted once a webhook was answered 200: only a caller with the webhook secret gets that answer.
    """

    def __init__(self, webhooks: Webhooks, connections: Connections) -> None:
        self._webhooks = webhooks
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # a WebSocket, which the server then refuses
        check, client = _CHECKS.get(scope["path"]), scope["client"]
        self._connections.request_began(client)
        message = await receive()
        body = message.get("body", b"")
        if message.get("more_body"):
            whole = await _read_rest(message, receive)
            if whole is None:
                return  # the client has gone, and nobody is to be answered
            body = whole
        self._connections.request_complete(client)
        if check is None or scope["method"] not in _METHODS:
            await _send(send, _other(scope["path"], scope["method"]))
            self._connections.close(client)
            return
        headers = dict(scope["headers"])
        request = WebhookRequest(
            check,
            scope["query_string"],
            headers.get(b"content-type", b""),
            headers.get(b"authorization", b""),
            body,
            headers.get(b"host", b""),
            b"origin" in headers or b"sec-fetch-site" in headers,
        )
        answer = self._webhooks.begin(request)
        if isinstance(answer, PendingLogin):
            answer = await self._wait(answer)
        if answer.status == HTTPStatus.OK:
            self._connections.trust(client)
        await _send(send, answer)

    async def _wait(self, login: PendingLogin) -> Answer:
        if login.patience > 0:
            await asyncio.wait([asyncio.wrap_future(login.future)], timeout=login.patience)
        return self._webhooks.finish(login)


async def _read_rest(message: Message, receive: Receive) -> bytes | None:
    """Return a body that comes in parts, cut off one byte after `MAX_BODY`; None if the client leaves."""
    body: bytes = message.get("body", b"")
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        if len(body) <= MAX_BODY:
            body += message.get("body", b"")
    return body[: MAX_BODY + 1]


async def _send(send: Send, answer: Answer) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": answer.body})


def _other(path: str, method: str) -> Answer:
    healthy = path == "/healthz"
    body = b'{"status":"ok"}\n' if healthy else b"only /auth/* and /healthz are answered here\n"
    headers = [
        (b"content-type", b"application/json" if healthy else b"text/plain"),
        (b"content-length", b"%d" % len(body)),
        # A connection that asked no webhook is no broker's, and is not kept.
        (b"connection", b"close"),
    ]
    return Answer(HTTPStatus.OK if healthy else HTTPStatus.NOT_FOUND, headers, b"" if method == "HEAD" else body)
