"""A broker that calls the webhooks: the plain function, the Flask view or the ASGI application."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import urlencode

from authsvc.broker.asgi import BrokerApplication
from authsvc.broker.goauth_protocol import MAX_BODY, WebhookRequest
from authsvc.web.request_context import EXTENSION, Services

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from flask.testing import FlaskClient
    from flask_openapi3.openapi import OpenAPI

    from authsvc.broker.webhooks import Webhooks

ADAPTERS = ("view", "front")
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


class Told(NamedTuple):
    """An answer as a broker reads it."""

    status: int
    content_type: str
    body: bytes


YES = Told(200, JSON, b'{"ok":true,"error":""}')


class NotedConnections:
    """Notes what an application says about its connections."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, tuple[str, int]]] = []

    def request_began(self, client: tuple[str, int]) -> None:
        self.notes.append(("request began", client))

    def request_complete(self, client: tuple[str, int]) -> None:
        self.notes.append(("request complete", client))

    def trust(self, client: tuple[str, int]) -> None:
        self.notes.append(("trust", client))

    def close(self, client: tuple[str, int]) -> None:
        self.notes.append(("close", client))


class Way(Protocol):
    """Sends one request to the webhooks and returns the answer."""

    def __call__(self, asked: WebhookRequest, method: str, /) -> Told: ...


@dataclass(frozen=True)
class Broker:
    """Sends the requests of go-auth."""

    way: Way

    def ask(self, check: str, form: str = JSON, query: str = "", **fields: Any) -> Told:
        """Send fields as JSON or as a form."""
        body = urlencode(fields) if form == FORM else json.dumps(fields)
        return self.send(check, body.encode(), form, query)

    def send(
        self,
        check: str,
        body: bytes,
        content_type: str = JSON,
        query: str = "",
        authorization: str = "",
        method: str = "POST",
    ) -> Told:
        """Send any bytes."""
        words = (query.encode(), content_type.encode("latin-1"), authorization.encode("latin-1"))
        return self.way(WebhookRequest(check, *words, body), method)

    def logs_in(self, username: str, password: str, client_id: str = "c1", **options: Any) -> Told:
        return self.ask("user", username=username, password=password, clientid=client_id, **options)

    def acl(self, username: str, topic: str, acc: Any, client_id: str = "c1", **options: Any) -> Told:
        return self.ask("acl", username=username, topic=topic, acc=acc, clientid=client_id, **options)


def no(reason: str, status: int = 403) -> Told:
    """Return the exact answer of a denial."""
    return Told(status, JSON, b'{"ok":false,"error":"%s"}' % reason.encode())


MALFORMED = no("malformed", 400)


def broker_by(way: str, app: OpenAPI) -> Broker:
    """Return a broker that calls the plain `function`, or one of the `ADAPTERS`."""
    if way == "front":
        services = services_of(app)
        return Broker(_by_front(BrokerApplication(services.webhooks, services.plugin, NotedConnections())))
    return Broker(_by_function(services_of(app).webhooks) if way == "function" else _by_view(app.test_client()))


def services_of(app: OpenAPI) -> Services:
    """Return the services of an app."""
    parts = app.extensions[EXTENSION]
    assert isinstance(parts, Services)
    return parts


def _by_function(webhooks: Webhooks) -> Way:
    """Call `Webhooks.answer`, with bodies cut as the adapters do."""

    def carry(asked: WebhookRequest, _method: str) -> Told:
        status, headers, body = webhooks.answer(asked._replace(body=asked.body[: MAX_BODY + 1]))
        return Told(status, dict(headers)[b"content-type"].decode(), body)

    return carry


def _by_view(client: FlaskClient) -> Way:
    """Call the Flask view."""

    def carry(asked: WebhookRequest, method: str) -> Told:
        answer = client.open(
            f"/auth/{asked.check}",
            method=method,
            query_string=asked.query.decode(),
            data=asked.body,
            content_type=asked.content_type.decode("latin-1"),
            headers={"Authorization": asked.authorization.decode("latin-1")} if asked.authorization else {},
        )
        return Told(answer.status_code, answer.content_type or "", answer.data)

    return carry


def _by_front(front: BrokerApplication) -> Way:
    """Call the ASGI application, with the body in two parts."""

    def carry(asked: WebhookRequest, method: str) -> Told:
        return asyncio.run(_through(front, asked, method))

    return carry


async def _through(front: BrokerApplication, asked: WebhookRequest, method: str) -> Told:
    scope = {
        "type": "http",
        "client": ("192.0.2.1", 50_000),
        "method": method,
        "path": f"/auth/{asked.check}",
        "query_string": asked.query,
        "headers": [(b"content-type", asked.content_type), (b"authorization", asked.authorization)],
    }
    half = len(asked.body) // 2
    parts = [asked.body[half:], asked.body[:half]]
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": parts.pop(), "more_body": bool(parts)}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await front(scope, receive, send)
    start, body = sent
    return Told(start["status"], dict(start["headers"])[b"content-type"].decode(), body["body"])
