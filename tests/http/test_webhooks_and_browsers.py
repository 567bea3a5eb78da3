"""The webhooks deny requests of browsers and, on loopback, of unknown host names (DNS rebinding)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.actors import BOBS_PASSWORD
from tests.http.broker import FORM, JSON, no
from tests.http.conftest import with_services_of
from tests.http.wire import Connection, answer_on

if TYPE_CHECKING:
    from flask.testing import FlaskClient
    from flask_openapi3.openapi import OpenAPI

    from authsvc.settings import Settings
    from tests.service import Service

ALLOWED_PUBLISH = {"username": "bob", "topic": "devices/bob/up", "acc": 2, "clientid": "c1"}
QUESTIONS = {
    "user": {"username": "bob", "password": BOBS_PASSWORD, "clientid": "c1"},
    "acl": ALLOWED_PUBLISH,
}
# Headers that browsers add to cross-site forms, requests of scripts, and images.
BROWSERS = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:8080"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none", "Origin": ""},
]
REBOUND = ["evil.example", "evil.example:8080", "localhost.evil.example", "10.0.0.7:8080", "0.0.0.0:8080"]
OWN = ["localhost", "localhost:8080", "127.0.0.1:8080", "127.0.0.2", "[::1]:8080"]


def ask(client: FlaskClient, check: str = "acl", headers: dict[str, str] | None = None, query: str = "") -> Any:
    """Call a webhook through the Flask view."""
    return client.post(f"/auth/{check}?{query}", json=QUESTIONS[check], headers=headers)


@pytest.mark.parametrize("headers", BROWSERS)
@pytest.mark.parametrize("check", QUESTIONS)
def test_view_refuses_a_browser(client: FlaskClient, check: str, headers: dict[str, str]) -> None:
    refused = ask(client, check, headers)
    assert (refused.status_code, refused.content_type, refused.data) == no("browser-request")
    assert b"browser-request" in ask(client, check, headers, "response=text").data


@pytest.mark.parametrize("host", REBOUND)
def test_view_on_loopback_refuses_an_unknown_host(client: FlaskClient, host: str) -> None:
    refused = ask(client, headers={"Host": host})
    assert (refused.status_code, refused.content_type, refused.data) == no("unknown-host")


def test_both_denials_are_counted_by_reason(client: FlaskClient) -> None:
    ask(client, headers={"Origin": "https://evil.example"})
    ask(client, headers={"Host": "evil.example"})
    counted = client.get("/metrics").text
    assert 'reason="unknown-host"' in counted
    assert 'reason="browser-request"' in counted


@pytest.mark.parametrize("host", OWN)
def test_view_on_loopback_accepts_every_name_of_loopback(client: FlaskClient, host: str) -> None:
    assert ask(client, headers={"Host": host}).status_code == 200


def test_service_on_another_address_accepts_any_host_name(routes: OpenAPI, seeded: Settings) -> None:
    settings = replace(seeded, bind="0.0.0.0:8080", webhook_secret="s3cret")
    client = with_services_of(routes, settings).test_client()
    assert ask(client, headers={"Host": "authsvc:8080"}, query="key=s3cret").status_code == 200
    assert b"browser-request" in ask(client, headers={"Origin": "https://evil.example"}, query="key=s3cret").data


def test_service_on_loopback_with_a_webhook_secret_accepts_any_host_name(routes: OpenAPI, seeded: Settings) -> None:
    client = with_services_of(routes, replace(seeded, webhook_secret="s3cret")).test_client()
    for host in REBOUND:
        assert ask(client, headers={"Host": host}, query="key=s3cret").status_code == 200
        for query in ("key=wrong", ""):
            refused = ask(client, headers={"Host": host}, query=query)
            assert (refused.status_code, b"wrong-webhook-secret" in refused.data) == (401, True)
    for headers in BROWSERS:
        assert b"browser-request" in ask(client, headers=headers, query="key=s3cret").data


def test_asgi_application_denies_browsers_and_unknown_hosts_and_answers_brokers(running: Service) -> None:
    running.start()
    url = running.broker_url + "/auth/acl"

    def answer(**headers: str) -> tuple[int, str]:
        answer = requests.post(url, json=ALLOWED_PUBLISH, headers=headers, timeout=10)
        return answer.status_code, answer.json()["error"]

    for headers in BROWSERS:
        assert answer(**headers) == (403, "browser-request")
    for host in REBOUND:
        assert answer(Host=host) == (403, "unknown-host")
    for host in OWN:
        assert answer(Host=host) == (200, "")
    form = {**ALLOWED_PUBLISH, "acc": "2"}
    as_form = requests.post(url, data=form, headers={"Origin": "null", "Content-Type": FORM}, timeout=10)
    assert as_form.json()["error"] == "browser-request"


def test_request_without_a_host_header_is_answered(running: Service) -> None:
    running.start()
    body = json.dumps(ALLOWED_PUBLISH).encode()
    with Connection(running) as connection:
        head = b"POST /auth/acl HTTP/1.0\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(head % (JSON.encode(), len(body)) + body)
        assert answer_on(connection)[0] == 200
