"""The contract of the Flask view and the ASGI application: each passes a request to `Webhooks` and its answer back."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import bcrypt
import pytest

from authsvc.broker.goauth_protocol import MAX_BODY
from tests.actors import BOBS_PASSWORD
from tests.http.broker import ADAPTERS, FORM, JSON, MALFORMED, YES, Answer, Broker, broker_by, no
from tests.http.callers import basic
from tests.http.conftest import with_services_of

if TYPE_CHECKING:
    from flask_openapi3.openapi import OpenAPI

    from authsvc.settings import Settings

SECRET = "webhook secret"
LOGIN = {"username": "bob", "password": BOBS_PASSWORD, "clientid": "c1"}


@pytest.mark.parametrize("method", ["POST", "PUT", "GET"])
def test_three_methods_are_accepted(adapter: Broker, method: str) -> None:
    assert adapter.send("user", json.dumps(LOGIN).encode(), method=method) == YES


@pytest.mark.parametrize("form", [JSON, FORM])
def test_each_webhook_is_reached_with_both_forms(adapter: Broker, form: str) -> None:
    assert adapter.logs_in("bob", BOBS_PASSWORD, form=form) == YES
    assert adapter.logs_in("bob", "wrong", form=form) == no("wrong-password")
    assert adapter.ask("superuser", form, username="bob") == no("no-superusers")
    assert adapter.acl("bob", "lines/7", 2, form=form) == YES
    assert adapter.acl("bob", "lines/7", 1, form=form) == no("no-permission")
    assert adapter.acl("bob", "lines/7", 7, form=form) == MALFORMED


def test_query_parameters_are_passed(adapter: Broker) -> None:
    assert adapter.acl("bob", "lines/7", 2, query="grant=certificate") == no("no-valid-certificate")
    status, content_type, body = adapter.acl("bob", "lines/7", 2, query="response=text")
    assert (status, content_type.partition(";")[0], body) == (200, "text/plain", b"ok")


def test_body_is_read_up_to_the_limit(adapter: Broker) -> None:
    body = json.dumps(LOGIN).encode()
    assert adapter.send("user", body.ljust(MAX_BODY)) == YES
    assert adapter.send("user", body.ljust(MAX_BODY + 1)) == MALFORMED
    assert adapter.send("user", b"") == MALFORMED


@pytest.mark.parametrize("way", ADAPTERS)
def test_login_is_refused_when_its_hash_takes_longer_than_the_wait_budget(
    way: str, routes: OpenAPI, seeded: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end = threading.Event()
    monkeypatch.setattr(bcrypt, "checkpw", lambda *_: may_end.wait(10))
    adapter = broker_by(way, with_services_of(routes, replace(seeded, connect_budget_ms=50)))
    try:
        assert adapter.logs_in("bob", BOBS_PASSWORD) == no("verifying")
    finally:
        may_end.set()


@pytest.mark.parametrize("way", ADAPTERS)
def test_webhook_secret_is_read_from_the_query_or_http_basic(way: str, routes: OpenAPI, seeded: Settings) -> None:
    adapter = broker_by(way, with_services_of(routes, replace(seeded, webhook_secret=SECRET)))

    def answer(query: str = "", authorization: str = "") -> Answer:
        return adapter.send("user", json.dumps(LOGIN).encode(), query=query, authorization=authorization)

    assert answer(query="key=webhook+secret") == answer(authorization=basic("", SECRET)) == YES
    assert answer() == answer(authorization=basic("", "wrong")) == no("wrong-webhook-secret", 401)
