"""The broker listener: an ASGI application that answers webhooks in the event loop, from memory.

A webhook costs no thread switch and no framework; `docs/performance.md` has the figures. Nothing that blocks may run
here: hashing goes to its pool, reports of plugins to theirs, and everything else that uses the database runs in
background threads.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from authsvc.broker import plugin_protocol
from authsvc.broker.goauth_protocol import MAX_BODY, Answer, WebhookRequest, parse_query
from authsvc.broker.webhooks import PendingLogin

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from authsvc.broker.plugin_protocol import StreamRequest
    from authsvc.broker.plugin_routes import PluginRoutes
    from authsvc.broker.webhooks import Webhooks

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Client = tuple[str, int]
    Headers = dict[bytes, bytes]

_CHECKS = {"/auth/acl": "acl", "/auth/user": "user", "/auth/superuser": "superuser"}
_METHODS = frozenset({"POST", "PUT", "GET"})
_PLUGIN_METHODS = {"/auth/plugin/users": "POST", "/auth/plugin/changes": "GET", "/auth/plugin/report": "POST"}
_PLUGIN_VERSION = b"%d" % plugin_protocol.PROTOCOL
_HEALTHY = (HTTPStatus.OK, b'{"status":"ok"}\n')
# Ready also while the database is gone: brokers are then answered from the last policy.
_READY = (HTTPStatus.OK, b'{"status":"ready"}\n')
_NOT_READY = (HTTPStatus.SERVICE_UNAVAILABLE, b'{"status":"not ready","policy":"loading"}\n')
_NOT_FOUND = (HTTPStatus.NOT_FOUND, b"only /auth/*, /healthz and /readyz are answered here\n")
_STREAM_HEADERS = [(b"content-type", b"application/x-ndjson"), (b"cache-control", b"no-store")]


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
    """Answers `/auth/*`, `/healthz` and `/readyz`; everything else is 404.

    A caller is trusted once it was answered 200 below `/auth`: only a caller with the webhook secret gets that answer.
    """

    def __init__(self, webhooks: Webhooks, plugin: PluginRoutes, connections: Connections) -> None:
        self._webhooks = webhooks
        self._plugin = plugin
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # a WebSocket, which the server then refuses
        path, client = scope["path"], scope["client"]
        self._connections.request_began(client)
        headers = dict(scope["headers"])
        from_plugin = headers.get(plugin_protocol.VERSION_HEADER) == _PLUGIN_VERSION
        if from_plugin and _PLUGIN_METHODS.get(path) == scope["method"]:
            await self._answer_plugin(scope, headers, receive, send)
            return
        body = await _read_body(receive, MAX_BODY)
        if body is None:
            return  # the client has gone, and nobody is to be answered
        self._connections.request_complete(client)
        check = _CHECKS.get(path)
        if check is None or scope["method"] not in _METHODS:
            await _send(send, _other(path, scope["method"], is_ready=self._webhooks.is_ready))
            self._connections.close(client)
            return
        answer = self._webhooks.begin(_request(scope, headers, check, body, from_plugin))
        if isinstance(answer, PendingLogin):
            answer = await self._wait(answer)
        if answer.status == HTTPStatus.OK:
            self._connections.trust(client)
        await _send(send, answer)

    async def _answer_plugin(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        refusal = self._webhooks.refusal(_request(scope, headers, "", b"", True))
        body = await _read_body(receive, MAX_BODY if refusal else plugin_protocol.MAX_BODY)
        if body is None:
            return
        client = scope["client"]
        self._connections.request_complete(client)
        if refusal:
            answer = refusal
        elif scope["path"] == "/auth/plugin/users":
            answer = await self._plugin.users(body)
        elif scope["path"] == "/auth/plugin/report":
            answer = await self._plugin.report(body)
        else:
            asked = self._plugin.stream_request(parse_query(scope["query_string"]))
            if not isinstance(asked, Answer):
                self._connections.trust(client)
                await self._stream(asked, receive, send)
                return
            answer = asked
        if answer.status == HTTPStatus.OK:
            self._connections.trust(client)
        await _send(send, answer)

    async def _stream(self, asked: StreamRequest, receive: Receive, send: Send) -> None:
        """Send the lines of a change stream until the client has left."""
        left = asyncio.ensure_future(receive())
        try:
            await send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": _STREAM_HEADERS})
            async with aclosing(self._plugin.changes(asked, left)) as changes:
                async for lines in changes:
                    await send({"type": "http.response.body", "body": lines, "more_body": True})
        finally:
            left.cancel()

    async def _wait(self, login: PendingLogin) -> Answer:
        if login.patience > 0:
            await asyncio.wait([asyncio.wrap_future(login.future)], timeout=login.patience)
        return self._webhooks.finish(login)


def _request(scope: Scope, headers: Headers, check: str, body: bytes, from_plugin: bool) -> WebhookRequest:
    return WebhookRequest(
        check,
        scope["query_string"],
        headers.get(b"content-type", b""),
        headers.get(b"authorization", b""),
        body,
        headers.get(b"host", b""),
        b"origin" in headers or b"sec-fetch-site" in headers,
        from_plugin,
    )


async def _read_body(receive: Receive, most: int) -> bytes | None:
    """Return the whole body, cut off one byte after `most`; None if the client leaves."""
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        return body
    parts = bytearray(body)
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        if len(parts) <= most:
            parts += message.get("body", b"")
    return bytes(parts[: most + 1])


async def _send(send: Send, answer: Answer) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": answer.body})


def _other(path: str, method: str, *, is_ready: bool) -> Answer:
    answers = {"/healthz": _HEALTHY, "/readyz": _READY if is_ready else _NOT_READY}
    status, body = answers.get(path, _NOT_FOUND)
    headers = [
        (b"content-type", b"application/json" if path in answers else b"text/plain"),
        (b"content-length", b"%d" % len(body)),
        # A connection that asked no webhook is no broker's, and is not kept.
        (b"connection", b"close"),
    ]
    return Answer(status, headers, b"" if method == "HEAD" else body)
