"""The front of the service: webhooks are answered right in the event loop, all else by Flask in threads behind it.

One gunicorn application for brokers, API and pages. A broker's question costs no thread switch and no framework, and
it is the same `Webhooks` that answers as in Flask's own view; `docs/performance.md` has the figures. Nothing that
blocks may run in the loop: hashing goes to its pool, and what touches the database goes to Flask's threads.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from a2wsgi import WSGIMiddleware

from authsvc.broker.goauth_protocol import MAX_BODY, Answer, WebhookRequest
from authsvc.broker.webhooks import PendingLogin

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from flask import Flask

    from authsvc.broker.webhooks import Webhooks

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

_CHECKS = {"/auth/acl": "acl", "/auth/user": "user", "/auth/superuser": "superuser"}
_METHODS = frozenset({"POST", "PUT", "GET"})


class BrokerApplication:
    """An ASGI application round the webhooks and Flask."""

    def __init__(self, webhooks: Webhooks, flask: Flask, threads: int) -> None:
        self._webhooks = webhooks
        self._flask = WSGIMiddleware(flask, workers=threads)  # type: ignore[arg-type]  # WSGI as typeshed spells it

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        check = _CHECKS.get(scope["path"]) if scope["type"] == "http" else None
        if check is None or scope["method"] not in _METHODS:
            await self._flask(scope, receive, send)  # type: ignore[arg-type]  # a stricter spelling of the same
            return
        message = await receive()
        body = message.get("body", b"")
        if message.get("more_body"):
            body = await _whole(message, receive)
            if body is None:
                return  # broken off: nobody's attempt, and nobody to answer
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
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _wait(self, begun: PendingLogin) -> Answer:
        if begun.patience > 0:
            await asyncio.wait([asyncio.wrap_future(begun.future)], timeout=begun.patience)
        return self._webhooks.finish(begun)


async def _whole(message: Message, receive: Receive) -> bytes | None:
    """Return a body that comes in parts, or one byte more than is ever read of it; None when it breaks off."""
    body: bytes = message.get("body", b"")
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        if len(body) <= MAX_BODY:
            body += message.get("body", b"")
    return body[: MAX_BODY + 1]
