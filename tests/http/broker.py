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

ADAPTERS = ("view", "asgi")
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


class Answer(NamedTuple):
    """A webhook's answer: status, content type and body."""

    status: int
    content_type: str
    body: bytes


YES = Answer(200, JSON, b'{"ok":true,"error":""}')


class RecordingConnections:
    """Records the calls that an application makes about its connections."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[str, int]]] = []

    def request_began(self, client: tuple[str, int]) -> None:
        self.calls.append(("request began", client))

    def request_complete(self, client: tuple[str, int]) -> None:
        self.calls.append(("request complete", client))

    def trust(self, client: tuple[str, int]) -> None:
        self.calls.append(("trust", client))

    def close(self, client: tuple[str, int]) -> None:
        self.calls.append(("close", client))


class Transport(Protocol):
    """Sends one request to the webhooks and returns the answer."""

    def __call__(self, request: WebhookRequest, method: str, /) -> Answer: ...


@dataclass(frozen=True)
class Broker:
    """Sends the requests of go-auth."""

    transport: Transport

    def ask(self, check: str, form: str = JSON, query: str = "", **fields: Any) -> Answer:
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
    ) -> Answer:
        """Send any bytes."""
        words = (query.encode(), content_type.encode("latin-1"), authorization.encode("latin-1"))
        return self.transport(WebhookRequest(check, *words, body), method)

    def logs_in(self, username: str, password: str, client_id: str = "c1", **options: Any) -> Answer:
        return self.ask("user", username=username, password=password, clientid=client_id, **options)

    def acl(self, username: str, topic: str, acc: Any, client_id: str = "c1", **options: Any) -> Answer:
        return self.ask("acl", username=username, topic=topic, acc=acc, clientid=client_id, **options)


def no(reason: str, status: int = 403) -> Answer:
    """Return the exact answer of a denial."""
    return Answer(status, JSON, b'{"ok":false,"error":"%s"}' % reason.encode())


MALFORMED = no("malformed", 400)


def broker_by(name: str, app: OpenAPI) -> Broker:
    """Return a broker that calls the plain `function`, or one of the `ADAPTERS`."""
    if name == "asgi":
        services = services_of(app)
        return Broker(_by_asgi(BrokerApplication(services.webhooks, services.plugin, RecordingConnections())))
    return Broker(_by_function(services_of(app).webhooks) if name == "function" else _by_view(app.test_client()))


def services_of(app: OpenAPI) -> Services:
    """Return the services of an app."""
    parts = app.extensions[EXTENSION]
    assert isinstance(parts, Services)
    return parts


def _by_function(webhooks: Webhooks) -> Transport:
    """Call `Webhooks.answer`, with bodies cut as the adapters do."""

    def send(request: WebhookRequest, _method: str) -> Answer:
        status, headers, body = webhooks.answer(request._replace(body=request.body[: MAX_BODY + 1]))
        return Answer(status, dict(headers)[b"content-type"].decode(), body)

    return send


def _by_view(client: FlaskClient) -> Transport:
    """Call the Flask view."""

    def send(request: WebhookRequest, method: str) -> Answer:
        answer = client.open(
            f"/auth/{request.check}",
            method=method,
            query_string=request.query.decode(),
            data=request.body,
            content_type=request.content_type.decode("latin-1"),
            headers={"Authorization": request.authorization.decode("latin-1")} if request.authorization else {},
        )
        return Answer(answer.status_code, answer.content_type or "", answer.data)

    return send


def _by_asgi(application: BrokerApplication) -> Transport:
    """Call the ASGI application, with the body in two parts."""

    def send(request: WebhookRequest, method: str) -> Answer:
        return asyncio.run(_call_asgi(application, request, method))

    return send


async def _call_asgi(application: BrokerApplication, request: WebhookRequest, method: str) -> Answer:
    scope = {
        "type": "http",
        "client": ("192.0.2.1", 50_000),
        "method": method,
        "path": f"/auth/{request.check}",
        "query_string": request.query,
        "headers": [(b"content-type", request.content_type), (b"authorization", request.authorization)],
    }
    half = len(request.body) // 2
    parts = [request.body[half:], request.body[:half]]
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": parts.pop(), "more_body": bool(parts)}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await application(scope, receive, send)
    start, body = sent
    return Answer(start["status"], dict(start["headers"])[b"content-type"].decode(), body["body"])
