"""A broker as the webhooks see it, over either of the two ways in: the plain function and the Flask view."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlencode

from authsvc.edge import EXTENSION, Services
from authsvc.webhooks import MAX_BODY, Answer, WebhookRequest

if TYPE_CHECKING:
    from flask.testing import FlaskClient
    from flask_openapi3.openapi import OpenAPI

    from authsvc.webhooks import Webhooks

WAYS = ("function", "view")
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
YES = Answer(200, JSON, b'{"ok":true,"error":""}')


class Way(Protocol):
    """Carries one request to the webhooks and the answer back."""

    def __call__(self, asked: WebhookRequest, method: str = "POST", /) -> Answer: ...


@dataclass(frozen=True)
class Broker:
    """Asks as go-auth does."""

    way: Way

    def ask(self, check: str, form: str = JSON, query: str = "", **fields: Any) -> Answer:
        """Ask with fields that go-auth sends, as JSON or as a form."""
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
        """Ask with any bytes whatever."""
        asked = WebhookRequest(check, query, content_type, authorization, body)
        return self.way(asked, method)

    def logs_in(self, username: str, password: str, client_id: str = "c1", **options: Any) -> Answer:
        return self.ask("user", username=username, password=password, clientid=client_id, **options)

    def acl(self, username: str, topic: str, acc: Any, client_id: str = "c1", **options: Any) -> Answer:
        return self.ask("acl", username=username, topic=topic, acc=acc, clientid=client_id, **options)


def no(reason: str, status: int = 403) -> Answer:
    """Return a denial as it must stand in the answer, byte by byte."""
    return Answer(status, JSON, b'{"ok":false,"error":"%s"}' % reason.encode())


MALFORMED = no("malformed", 400)


def broker_by(way: str, app: OpenAPI) -> Broker:
    """Return a broker that asks this service in one of the `WAYS`."""
    return Broker(_by_function(services_of(app).webhooks) if way == "function" else _by_view(app.test_client()))


def services_of(app: OpenAPI) -> Services:
    """Return the parts that an app was composed of."""
    parts = app.extensions[EXTENSION]
    assert isinstance(parts, Services)
    return parts


def _by_function(webhooks: Webhooks) -> Way:
    """Return the way of an adapter that hands over no more than the function takes."""

    def carry(asked: WebhookRequest, _method: str = "POST") -> Answer:
        return webhooks.answer(asked._replace(body=asked.body[: MAX_BODY + 1]))

    return carry


def _by_view(client: FlaskClient) -> Way:
    """Return the way through Flask."""

    def carry(asked: WebhookRequest, method: str = "POST") -> Answer:
        answer = client.open(
            f"/auth/{asked.check}",
            method=method,
            query_string=asked.query,
            data=asked.body,
            content_type=asked.content_type,
            headers={"Authorization": asked.authorization} if asked.authorization else {},
        )
        return Answer(answer.status_code, answer.content_type or "", answer.data)

    return carry
