"""The broker listener: an ASGI application that answers webhooks in the event loop, from memory.

A webhook costs no thread switch and no framework; `docs/performance.md` has the figures. Nothing that blocks may run
here: hashing goes to its pool, and everything that uses the database runs in background threads.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from authsvc.broker.goauth_protocol import MAX_BODY, Answer, WebhookRequest
from authsvc.broker.webhooks import PendingLogin

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from authsvc.broker.webhooks import Webhooks

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    # Called with the client's address and port.
    Notify = Callable[[tuple[str, int]], None]

_CHECKS = {"/auth/acl": "acl", "/auth/user": "user", "/auth/superuser": "superuser"}
_METHODS = frozenset({"POST", "PUT", "GET"})


class BrokerApplication:
    """Answers `/auth/*` and `/healthz`; everything else is 404.

    `request_complete` is called when a request has arrived as a whole, `trust` when a webhook was answered 200: only a
    caller with the webhook secret gets that answer.
    """

    def __init__(self, webhooks: Webhooks, request_complete: Notify, trust: Notify) -> None:
        self._webhooks = webhooks
        self._request_complete = request_complete
        self._trust = trust

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        check = _CHECKS.get(scope["path"])
        message = await receive()
        body = message.get("body", b"")
        if message.get("more_body"):
            whole = await _read_rest(message, receive)
            if whole is None:
                return  # the client has gone, and nobody is to be answered
            body = whole
        self._request_complete(scope["client"])
        if check is None or scope["method"] not in _METHODS:
            await _send(send, _other(scope["path"]))
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
            self._trust(scope["client"])
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


def _other(path: str) -> Answer:
    healthy = path == "/healthz"
    body = b'{"status":"ok"}\n' if healthy else b"only /auth/* and /healthz are answered here\n"
    headers = [
        (b"content-type", b"application/json" if healthy else b"text/plain"),
        (b"content-length", b"%d" % len(body)),
        # A connection that asked no webhook is no broker's, and is not kept.
        (b"connection", b"close"),
    ]
    return Answer(HTTPStatus.OK if healthy else HTTPStatus.NOT_FOUND, headers, body)
