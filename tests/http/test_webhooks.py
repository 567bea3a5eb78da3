"""Logging in: the broker gets the same answers whether the plain function is asked or the Flask view round it."""

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
from tests.http.broker import FORM, JSON, MALFORMED, WAYS, YES, Broker, broker_by, no
from tests.http.callers import basic
from tests.http.conftest import with_parts_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask_openapi3.openapi import OpenAPI

    from authsvc.settings import Settings
    from authsvc.web.request_context import Services

SECRET = "what only our broker knows: ä&=+"

both_forms = pytest.mark.parametrize("form", [JSON, FORM])
every_check = pytest.mark.parametrize("check", ["user", "superuser", "acl"])


@both_forms
def test_bob_is_let_in_with_his_password(broker: Broker, form: str) -> None:
    assert broker.logs_in("bob", BOBS_PASSWORD, form=form) == YES


@both_forms
def test_bob_is_refused_with_another_password(broker: Broker, form: str) -> None:
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
def test_a_right_password_is_not_enough_for_everybody(broker: Broker, username: str, reason: str) -> None:
    assert broker.logs_in(username, BOBS_PASSWORD) == no(reason)


def test_a_login_needs_no_client_id(broker: Broker) -> None:
    assert broker.ask("user", username="bob", password=BOBS_PASSWORD) == YES


@pytest.mark.parametrize("method", ["POST", "PUT", "GET"])
def test_three_methods_carry_a_body(broker: Broker, method: str) -> None:
    body = json.dumps({"username": "bob", "password": BOBS_PASSWORD}).encode()
    assert broker.send("user", body, method=method) == YES


@pytest.mark.parametrize("content_type", [JSON, "application/json; charset=utf-8", "text/plain", ""])
def test_json_is_read_whatever_the_content_type_calls_it(broker: Broker, content_type: str) -> None:
    body = json.dumps({"username": "bob", "password": BOBS_PASSWORD}).encode()
    assert broker.send("user", body, content_type) == YES


def test_a_form_may_name_its_character_set(broker: Broker) -> None:
    body = b"clientid=c1&password=bob%27s+very+own+secret&username=bob"
    assert broker.send("user", body, FORM + "; charset=utf-8") == YES


def test_the_escapes_that_go_writes_are_read(broker: Broker, services: Services) -> None:
    users.change(OPERATOR, "bob", UserChanges(password="<bob> & co"), HASHER)
    services.policy.catch_up()
    body = rb'{"clientid":"c1","password":"\u003cbob\u003e \u0026 co","username":"bob"}'
    assert broker.send("user", body) == YES


def test_a_changed_password_counts_at_once_although_the_old_one_was_remembered(
    broker: Broker, services: Services
) -> None:
    assert [broker.logs_in("bob", BOBS_PASSWORD) for _ in range(3)] == [YES] * 3
    users.change(OPERATOR, "bob", UserChanges(password="bob's next secret"), HASHER)
    services.policy.catch_up()
    assert broker.logs_in("bob", BOBS_PASSWORD) == no("wrong-password")
    assert broker.logs_in("bob", "bob's next secret") == YES


def test_a_disabled_user_is_out_at_once_although_the_password_was_remembered(
    broker: Broker, services: Services
) -> None:
    assert [broker.logs_in("bob", BOBS_PASSWORD) for _ in range(3)] == [YES] * 3
    assert [broker.acl("bob", "devices/bob/up", 2) for _ in range(3)] == [YES] * 3
    users.change(OPERATOR, "bob", UserChanges(enabled=False), HASHER)
    services.policy.catch_up()
    assert broker.logs_in("bob", BOBS_PASSWORD) == no("user-disabled")
    assert broker.acl("bob", "devices/bob/up", 2) == no("user-disabled")


@both_forms
@pytest.mark.parametrize("username", ["bob", "admin", "nemo"])
def test_nobody_is_a_superuser(broker: Broker, form: str, username: str) -> None:
    assert broker.ask("superuser", form, username=username) == no("no-superusers")


# Text answers.


def test_a_broker_that_wants_text_reads_two_letters(broker: Broker) -> None:
    answer = broker.logs_in("bob", BOBS_PASSWORD, query="response=text")
    assert (answer.status, answer.body) == (200, b"ok")
    assert answer.content_type.startswith("text/plain")


@pytest.mark.parametrize(
    ("password", "status", "words"), [("wrong", 403, b"wrong-password"), ("\0", 400, b"malformed")]
)
def test_a_broker_that_wants_text_never_reads_ok_in_a_denial(
    broker: Broker, password: str, status: int, words: bytes
) -> None:
    answer = broker.logs_in("bob", password, query="response=text")
    assert (answer.status, answer.body) == (status, words)


@pytest.mark.parametrize("query", ["response=json", "response=", "response", "RESPONSE=text", "response=texts"])
def test_any_other_wish_is_answered_as_json(broker: Broker, query: str) -> None:
    assert broker.logs_in("bob", BOBS_PASSWORD, query=query) == YES


# The secret between broker and service.


@pytest.fixture(params=WAYS)
def careful(request: pytest.FixtureRequest, routes: OpenAPI, inhabited: Settings) -> Broker:
    """A broker before a service that wants to hear a secret first."""
    return broker_by(request.param, with_parts_of(routes, replace(inhabited, webhook_secret=SECRET)))


def test_the_secret_may_stand_in_the_query(careful: Broker) -> None:
    query = "key=what+only%20our+broker+knows%3a%20%C3%A4%26%3D%2B"
    assert careful.logs_in("bob", BOBS_PASSWORD, query=query) == YES
    assert careful.logs_in("bob", BOBS_PASSWORD, query="response=json&" + query) == YES


@pytest.mark.parametrize("username", ["", "mosquitto"])
def test_the_secret_may_be_the_password_of_http_basic(careful: Broker, username: str) -> None:
    body = json.dumps({"username": "bob", "password": BOBS_PASSWORD}).encode()
    assert careful.send("user", body, authorization=basic(username, SECRET)) == YES


@every_check
@pytest.mark.parametrize(
    "query", ["", "key=", "key=wrong", "key=what", "KEY=" + SECRET, "key=%ff", "&".join(["a=b"] * 5000)]
)
def test_nothing_is_told_to_whoever_lacks_the_secret(careful: Broker, check: str, query: str) -> None:
    fields: dict[str, Any] = {"username": "bob", "password": BOBS_PASSWORD, "topic": "devices/bob/up", "acc": 2}
    assert careful.ask(check, query=query, **fields) == no("wrong-webhook-secret", 401)


@pytest.mark.parametrize(
    "authorization",
    [basic("mosquitto", "wrong"), basic(SECRET, ""), "Basic", "Basic !!!", "Basic /w==", "Bearer x", "ä"],
)
def test_a_wrong_http_basic_is_no_secret(careful: Broker, authorization: str) -> None:
    body = json.dumps({"username": "bob", "password": BOBS_PASSWORD}).encode()
    assert careful.send("user", body, authorization=authorization) == no("wrong-webhook-secret", 401)


def test_a_wrong_key_is_not_mended_by_a_right_http_basic(careful: Broker) -> None:
    answer = careful.send("user", b"{}", query="key=wrong", authorization=basic("", SECRET))
    assert answer == no("wrong-webhook-secret", 401)


# API tokens as passwords.


@pytest.mark.parametrize("username", ["tom", "tess"])
def test_a_token_is_a_password_for_whoever_has_the_grant_type(
    broker: Broker, services: Services, username: str
) -> None:
    token = _token_of(username, services).token
    assert broker.logs_in(username, token) == YES


def test_a_password_still_works_beside_tokens(broker: Broker) -> None:
    assert broker.logs_in("tom", BOBS_PASSWORD) == YES


def test_a_token_is_no_password_without_the_grant_type(broker: Broker, services: Services) -> None:
    token = _token_of("bob", services).token
    assert broker.logs_in("bob", token) == no("wrong-password")


def test_a_token_is_a_password_for_nobody_else(broker: Broker, services: Services) -> None:
    token = _token_of("tom", services).token
    assert broker.logs_in("tess", token) == no("invalid-token")


def test_a_revoked_token_is_no_password(broker: Broker, services: Services) -> None:
    issued = _token_of("tom", services)
    api_tokens.revoke_token(OPERATOR, issued.record.id)
    services.policy.catch_up()
    assert broker.logs_in("tom", issued.token) == no("invalid-token")


def test_an_expired_token_is_no_password(broker: Broker, services: Services) -> None:
    token = _token_of("tom", services).token
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=59), tick=False):
        assert broker.logs_in("tom", token) == YES
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=61), tick=False):
        assert broker.logs_in("tom", token) == no("invalid-token")


@pytest.mark.parametrize("mark", [0, 20, -1])
def test_a_forged_token_is_no_password(broker: Broker, services: Services, mark: int) -> None:
    token = _token_of("tom", services).token
    flipped = "A" if token[mark] != "A" else "B"
    forged = token[:mark] + flipped + token[mark + 1 or len(token) :]
    assert broker.logs_in("tom", forged) in (no("invalid-token"), no("wrong-password"))


def _token_of(username: str, service: Services) -> api_tokens.IssuedToken:
    issued = api_tokens.issue_token(OPERATOR, username, "", 1)
    service.policy.catch_up()
    return issued


# Who is unknown is told to whoever listens.


@pytest.fixture
def heard() -> Iterator[list[dict[str, Any]]]:
    """What the signal of an unknown username has told so far."""
    told: list[dict[str, Any]] = []

    def listen(_sender: object, **words: Any) -> None:
        told.append(words)

    with unknown_username.connected_to(listen):
        yield told


@both_forms
def test_an_unknown_user_is_refused_and_told_to_the_registry(
    broker: Broker, heard: list[dict[str, Any]], form: str
) -> None:
    assert broker.logs_in("nemo", "let me in", "c7", form=form) == no("unknown-user")
    assert heard == [{"username": "nemo", "password": "let me in", "client_id": "c7"}]


@pytest.mark.parametrize("username", ["bob", "dora", "carol", "nick", "tess"])
def test_a_known_user_is_not_told_whatever_the_password(
    broker: Broker, heard: list[dict[str, Any]], username: str
) -> None:
    for password in (BOBS_PASSWORD, "wrong"):
        broker.logs_in(username, password)
    assert heard == []


@pytest.mark.parametrize("username", ["ne", "nemo+", "#", "a/b", "-nemo", "nemo ", "némo", "\ud800emo", "n" * 64 + "o"])
def test_a_name_that_nobody_could_have_is_not_told(broker: Broker, heard: list[dict[str, Any]], username: str) -> None:
    assert broker.logs_in(username, "let me in").status in (400, 403)
    assert heard == []


def test_an_empty_password_is_not_told(broker: Broker, heard: list[dict[str, Any]]) -> None:
    assert broker.logs_in("nemo", "") == no("unknown-user")
    assert heard == []


def test_a_question_about_a_topic_tells_nothing(broker: Broker, heard: list[dict[str, Any]]) -> None:
    assert broker.acl("nemo", "a/b", 1) == no("unknown-user")
    assert broker.ask("superuser", username="nemo") == no("no-superusers")
    assert heard == []


# Malformed questions are denials like any other, by another number.


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"username": "bob"},
        {"password": BOBS_PASSWORD},
        {"username": "", "password": "x"},
        {"username": "b" * 65, "password": "x"},
        {"username": "bob\0", "password": "x"},
        {"username": "bob", "password": BOBS_PASSWORD + "\0"},
        {"username": "bob", "password": "x" * 65_536},
        {"username": "bob", "password": "é" * 32_768},
        {"username": "bob", "password": "x", "clientid": "c\0"},
        {"username": "bob", "password": "x", "clientid": "c" * 65_536},
    ],
)
@both_forms
def test_what_go_auth_could_not_have_sent_is_malformed(broker: Broker, form: str, fields: dict[str, str]) -> None:
    assert broker.ask("user", form, **fields) == MALFORMED


@pytest.mark.parametrize("value", [None, 7, 1.5, True, [], {}, ["bob"], {"username": "bob"}])
@pytest.mark.parametrize("field", ["username", "password", "clientid"])
def test_a_value_of_another_type_is_malformed(broker: Broker, field: str, value: object) -> None:
    fields: dict[str, Any] = {"username": "bob", "password": BOBS_PASSWORD, field: value}
    assert broker.ask("user", **fields) == MALFORMED


@pytest.mark.parametrize("password", ["x" * 73, "é" * 40, "x" * 65_535])
def test_a_password_that_nobody_could_have_set_is_merely_wrong(broker: Broker, password: str) -> None:
    assert broker.logs_in("bob", password) == no("wrong-password")
