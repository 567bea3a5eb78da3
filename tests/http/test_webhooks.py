"""Logins at `/auth/user`, `/auth/superuser`, the webhook secret, and the signal for unknown usernames."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import time_machine

from authsvc.accounts import api_tokens, users
from authsvc.accounts.users import UserChanges
from authsvc.broker.signals import unknown_username
from tests.actors import BOBS_PASSWORD, HASHER, OPERATOR
from tests.http.broker import FORM, JSON, MALFORMED, YES, Broker, broker_by, no
from tests.http.callers import basic
from tests.http.conftest import with_services_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask_openapi3.openapi import OpenAPI

    from authsvc.settings import Settings
    from authsvc.web.request_context import Services

SECRET = "webhook secret: ä&=+"

both_forms = pytest.mark.parametrize("form", [JSON, FORM])
every_check = pytest.mark.parametrize("check", ["user", "superuser", "acl"])


@both_forms
def test_right_password_is_allowed(broker: Broker, form: str) -> None:
    assert broker.logs_in("bob", BOBS_PASSWORD, form=form) == YES


@both_forms
def test_wrong_password_is_denied(broker: Broker, form: str) -> None:
    assert broker.logs_in("bob", BOBS_PASSWORD + "!", form=form) == no("wrong-password")


@pytest.mark.parametrize(
    ("username", "reason"),
    [
        ("dora", "user-disabled"),
        ("carol", "grant-type-missing"),
        ("tess", "grant-type-missing"),
        ("nick", "grant-type-missing"),
        ("nemo", "unknown-user"),
        ("BOB", "unknown-user"),
    ],
)
def test_right_password_is_denied_for_disabled_or_unknown_users_and_other_grant_types(
    broker: Broker, username: str, reason: str
) -> None:
    assert broker.logs_in(username, BOBS_PASSWORD) == no(reason)


def test_login_without_a_client_id_is_allowed(broker: Broker) -> None:
    assert broker.ask("user", username="bob", password=BOBS_PASSWORD) == YES


@pytest.mark.parametrize("content_type", [JSON, "application/json; charset=utf-8", "text/plain", ""])
def test_json_is_accepted_with_any_content_type_but_a_form(broker: Broker, content_type: str) -> None:
    body = json.dumps({"username": "bob", "password": BOBS_PASSWORD}).encode()
    assert broker.send("user", body, content_type) == YES


def test_form_content_type_may_have_a_charset(broker: Broker) -> None:
    body = b"clientid=c1&password=bob%27s+very+own+secret&username=bob"
    assert broker.send("user", body, FORM + "; charset=utf-8") == YES


def test_json_escapes_of_go_are_decoded(broker: Broker, services: Services) -> None:
    users.change(OPERATOR, "bob", UserChanges(password="<bob> & co"), HASHER)
    services.policy.catch_up()
    body = rb'{"clientid":"c1","password":"\u003cbob\u003e \u0026 co","username":"bob"}'
    assert broker.send("user", body) == YES


def test_changed_password_replaces_the_cached_one_at_once(broker: Broker, services: Services) -> None:
    assert [broker.logs_in("bob", BOBS_PASSWORD) for _ in range(3)] == [YES] * 3
    users.change(OPERATOR, "bob", UserChanges(password="bob's next secret"), HASHER)
    services.policy.catch_up()
    assert broker.logs_in("bob", BOBS_PASSWORD) == no("wrong-password")
    assert broker.logs_in("bob", "bob's next secret") == YES


def test_disabled_user_is_denied_at_once_despite_cached_answers(broker: Broker, services: Services) -> None:
    assert [broker.logs_in("bob", BOBS_PASSWORD) for _ in range(3)] == [YES] * 3
    assert [broker.acl("bob", "devices/bob/up", 2) for _ in range(3)] == [YES] * 3
    users.change(OPERATOR, "bob", UserChanges(enabled=False), HASHER)
    services.policy.catch_up()
    assert broker.logs_in("bob", BOBS_PASSWORD) == no("user-disabled")
    assert broker.acl("bob", "devices/bob/up", 2) == no("user-disabled")


@both_forms
@pytest.mark.parametrize("username", ["bob", "admin", "nemo"])
def test_every_superuser_request_is_denied(broker: Broker, form: str, username: str) -> None:
    assert broker.ask("superuser", form, username=username) == no("no-superusers")


# Text answers.


def test_text_answer_of_an_allowed_login_is_ok(broker: Broker) -> None:
    answer = broker.logs_in("bob", BOBS_PASSWORD, query="response=text")
    assert (answer.status, answer.body) == (200, b"ok")
    assert answer.content_type.startswith("text/plain")


@pytest.mark.parametrize(
    ("password", "status", "words"), [("wrong", 403, b"wrong-password"), ("\0", 400, b"malformed")]
)
def test_text_answer_of_a_denied_login_is_the_reason(broker: Broker, password: str, status: int, words: bytes) -> None:
    answer = broker.logs_in("bob", password, query="response=text")
    assert (answer.status, answer.body) == (status, words)


@pytest.mark.parametrize("query", ["response=json", "response=", "response", "RESPONSE=text", "response=texts"])
def test_other_values_of_response_are_answered_as_json(broker: Broker, query: str) -> None:
    assert broker.logs_in("bob", BOBS_PASSWORD, query=query) == YES


# The webhook secret.


@pytest.fixture
def protected(routes: OpenAPI, seeded: Settings) -> Broker:
    """A broker that calls a service with a webhook secret."""
    return broker_by("function", with_services_of(routes, replace(seeded, webhook_secret=SECRET)))


def test_webhook_secret_is_accepted_as_query_parameter_key(protected: Broker) -> None:
    query = "key=webhook+secret%3a%20%C3%A4%26%3D%2B"
    assert protected.logs_in("bob", BOBS_PASSWORD, query=query) == YES
    assert protected.logs_in("bob", BOBS_PASSWORD, query="response=json&" + query) == YES


@pytest.mark.parametrize("username", ["", "mosquitto"])
def test_webhook_secret_is_accepted_as_password_of_http_basic(protected: Broker, username: str) -> None:
    body = json.dumps({"username": "bob", "password": BOBS_PASSWORD}).encode()
    assert protected.send("user", body, authorization=basic(username, SECRET)) == YES


@every_check
@pytest.mark.parametrize(
    "query", ["", "key=", "key=wrong", "key=webhook", "KEY=" + SECRET, "key=%ff", "&".join(["a=b"] * 5000)]
)
def test_request_without_the_webhook_secret_is_unauthorized(protected: Broker, check: str, query: str) -> None:
    fields: dict[str, Any] = {"username": "bob", "password": BOBS_PASSWORD, "topic": "devices/bob/up", "acc": 2}
    assert protected.ask(check, query=query, **fields) == no("wrong-webhook-secret", 401)


@pytest.mark.parametrize(
    "authorization",
    [basic("mosquitto", "wrong"), basic(SECRET, ""), "Basic", "Basic !!!", "Basic /w==", "Bearer x", "ä"],
)
def test_wrong_http_basic_is_unauthorized(protected: Broker, authorization: str) -> None:
    body = json.dumps({"username": "bob", "password": BOBS_PASSWORD}).encode()
    assert protected.send("user", body, authorization=authorization) == no("wrong-webhook-secret", 401)


def test_wrong_key_is_unauthorized_despite_right_http_basic(protected: Broker) -> None:
    answer = protected.send("user", b"{}", query="key=wrong", authorization=basic("", SECRET))
    assert answer == no("wrong-webhook-secret", 401)


# API tokens as passwords.


@pytest.mark.parametrize("username", ["tom", "tess"])
def test_token_is_allowed_as_password_with_grant_type_token(broker: Broker, services: Services, username: str) -> None:
    token = _token_of(username, services).token
    assert broker.logs_in(username, token) == YES


def test_password_is_allowed_for_a_user_with_both_grant_types(broker: Broker) -> None:
    assert broker.logs_in("tom", BOBS_PASSWORD) == YES


def test_token_is_denied_without_grant_type_token(broker: Broker, services: Services) -> None:
    token = _token_of("bob", services).token
    assert broker.logs_in("bob", token) == no("wrong-password")


def test_token_of_another_user_is_denied(broker: Broker, services: Services) -> None:
    token = _token_of("tom", services).token
    assert broker.logs_in("tess", token) == no("invalid-token")


def test_revoked_token_is_denied(broker: Broker, services: Services) -> None:
    issued = _token_of("tom", services)
    api_tokens.revoke_token(OPERATOR, issued.record.id)
    services.policy.catch_up()
    assert broker.logs_in("tom", issued.token) == no("invalid-token")


def test_expired_token_is_denied(broker: Broker, services: Services) -> None:
    token = _token_of("tom", services).token
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=59), tick=False):
        assert broker.logs_in("tom", token) == YES
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=61), tick=False):
        assert broker.logs_in("tom", token) == no("invalid-token")


@pytest.mark.parametrize("mark", [0, 20, -1])
def test_forged_token_is_denied(broker: Broker, services: Services, mark: int) -> None:
    token = _token_of("tom", services).token
    flipped = "A" if token[mark] != "A" else "B"
    forged = token[:mark] + flipped + token[mark + 1 or len(token) :]
    assert broker.logs_in("tom", forged) in (no("invalid-token"), no("wrong-password"))


def _token_of(username: str, service: Services) -> api_tokens.IssuedToken:
    issued = api_tokens.issue_token(OPERATOR, username, "", 1)
    service.policy.catch_up()
    return issued


# The signal for unknown usernames.


@pytest.fixture
def signalled() -> Iterator[list[dict[str, Any]]]:
    """The arguments of each `unknown_username` signal."""
    signals: list[dict[str, Any]] = []

    def receive(_sender: object, **arguments: Any) -> None:
        signals.append(arguments)

    with unknown_username.connected_to(receive):
        yield signals


@both_forms
def test_unknown_user_is_denied_and_signalled(broker: Broker, signalled: list[dict[str, Any]], form: str) -> None:
    assert broker.logs_in("nemo", "let me in", "c7", form=form) == no("unknown-user")
    assert signalled == [{"username": "nemo", "password": "let me in", "client_id": "c7"}]


@pytest.mark.parametrize("username", ["bob", "dora", "carol", "nick", "tess"])
def test_known_user_is_not_signalled(broker: Broker, signalled: list[dict[str, Any]], username: str) -> None:
    for password in (BOBS_PASSWORD, "wrong"):
        broker.logs_in(username, password)
    assert signalled == []


@pytest.mark.parametrize("username", ["ne", "nemo+", "#", "a/b", "-nemo", "nemo ", "némo", "\ud800emo", "n" * 64 + "o"])
def test_name_that_cannot_register_is_signalled_too(
    broker: Broker, signalled: list[dict[str, Any]], username: str
) -> None:
    assert broker.logs_in(username, "let me in") == no("unknown-user")
    assert [one["username"] for one in signalled] == [username]


def test_too_long_username_is_malformed_and_signalled(broker: Broker, signalled: list[dict[str, Any]]) -> None:
    assert broker.logs_in("n" * 256, "let me in") == MALFORMED
    assert [one["username"] for one in signalled] == ["n" * 256]


def test_unknown_user_without_a_password_is_not_signalled(broker: Broker, signalled: list[dict[str, Any]]) -> None:
    assert broker.logs_in("nemo", "") == no("unknown-user")
    assert signalled == []


def test_acl_and_superuser_requests_are_not_signalled(broker: Broker, signalled: list[dict[str, Any]]) -> None:
    assert broker.acl("nemo", "a/b", 1) == no("unknown-user")
    assert broker.ask("superuser", username="nemo") == no("no-superusers")
    assert signalled == []


# Malformed requests.


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"username": "bob"},
        {"password": BOBS_PASSWORD},
        {"username": "", "password": "x"},
        {"username": "b" * 256, "password": "x"},
        {"username": "bob\0", "password": "x"},
        {"username": "bob", "password": BOBS_PASSWORD + "\0"},
        {"username": "bob", "password": "x" * 65_536},
        {"username": "bob", "password": "é" * 32_768},
        {"username": "bob", "password": "x", "clientid": "c\0"},
        {"username": "bob", "password": "x", "clientid": "c" * 65_536},
    ],
)
@both_forms
def test_missing_too_long_or_nul_fields_are_malformed(broker: Broker, form: str, fields: dict[str, str]) -> None:
    assert broker.ask("user", form, **fields) == MALFORMED


@pytest.mark.parametrize("value", [None, 7, 1.5, True, [], {}, ["bob"], {"username": "bob"}])
@pytest.mark.parametrize("field", ["username", "password", "clientid"])
def test_field_of_another_type_is_malformed(broker: Broker, field: str, value: object) -> None:
    fields: dict[str, Any] = {"username": "bob", "password": BOBS_PASSWORD, field: value}
    assert broker.ask("user", **fields) == MALFORMED


@pytest.mark.parametrize("password", ["x" * 73, "é" * 40, "x" * 65_535])
def test_password_longer_than_72_bytes_is_wrong(broker: Broker, password: str) -> None:
    assert broker.logs_in("bob", password) == no("wrong-password")
