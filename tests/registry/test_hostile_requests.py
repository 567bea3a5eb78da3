"""Invalid and hostile registration requests."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from tests.http.callers import basic, problem_of, refused_fields
from tests.registry.environment import (
    BOBS_PASSWORD,
    ON_BOTH_DATABASES,
    REGISTER,
    REGISTRATIONS,
    expect_success,
    with_settings,
)
from tests.registry.signing import der_of, new_key, pem_of, request_for

if TYPE_CHECKING:
    from werkzeug.test import TestResponse

    from tests.registry.environment import Environment

BAD_RULE = {"context": "mqtt", "operation": "write", "resource": "a/#/b"}


def test_request_of_more_than_64_kib_is_refused_unread(env: Environment) -> None:
    env.unlock()
    assert env.register(context={"note": "x" * 60_000}).status_code == 202
    problem_of(env.register("carol", context={"note": "x" * 70_000}), 413, "request-entity-too-large")


@with_settings(registry_max_request_bytes=1024)
def test_the_size_limit_can_be_set(env: Environment) -> None:
    env.unlock()
    problem_of(env.register(context={"note": "x" * 1024}), 413, "request-entity-too-large")
    # Requests of administrators have another limit.
    assert env.deny("nobody", reason="x" * 1000 + "ä" * 100).status_code == 400


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"username": "bob"}, "body"),
        ({"username": "bob", "password": None, "csr": None}, "body"),
        ({"password": "secret"}, "username"),
        ({"username": "b", "password": "secret"}, "username"),
        ({"username": "bob/+", "password": "secret"}, "username"),
        ({"username": "bob\0", "password": "secret"}, "username"),
        ({"username": "b" * 65, "password": "secret"}, "username"),
        ({"username": "bob", "password": "1234"}, "password"),
        ({"username": "bob", "password": ""}, "password"),
        ({"username": "bob", "password": "ä" * 37}, "password"),
        ({"username": "bob", "password": "secret\0more"}, "password"),
        ({"username": "bob", "password": 12345}, "password"),
        ({"username": "bob", "password": "x" * 10_000}, "password"),
        ({"username": "bob", "password": "secret", "roles": ["no such/role"]}, "roles[0]"),
        ({"username": "bob", "password": "secret", "permissions": [BAD_RULE]}, "permissions[0].resource"),
        ({"username": "bob", "password": "secret", "context": "text"}, "context"),
        ({"username": "bob", "password": "secret", "enrolmentKey": 7}, "enrolmentKey"),
        ({"username": "bob", "password": "secret", "admin": True}, "admin"),
        ([], "body"),
    ],
)
def test_invalid_request_names_the_field_without_its_value(env: Environment, body: Any, field: str) -> None:
    env.unlock()
    answer = env.anonymous.post(REGISTER, body)
    assert refused_fields(answer) == [field]
    password = body.get("password") if isinstance(body, dict) else None
    if isinstance(password, str) and password:
        assert password not in answer.text
    assert env.registrations() == []


def test_body_that_is_not_json_is_refused(env: Environment) -> None:
    env.unlock()
    for junk in (b"", b"\xff\xfe", b"{", b"[" * 10_000, b'"text"'):
        answer = env.anonymous.call("POST", REGISTER, data=junk, content_type="application/json")
        assert answer.status_code == 400
        assert answer.content_type == "application/problem+json"


@pytest.mark.parametrize(
    "context",
    [
        '{"note": "\\u0000"}',
        '{"note": "\\ud800"}',
        '{"note": "<script>alert(1)</script>"}',
        '{"note": NaN, "more": [Infinity, -Infinity]}',
        '{"": "", "id": 7, "status": "granted"}',
        '{"note": 1e308}',
        pytest.param(f'{{"note": {"9" * 4000}}}', id="a huge number"),
        pytest.param(f'{{"note": {"[" * 100}{"]" * 100}}}', id="nested"),
    ],
)
def test_list_can_be_read_with_any_context(env: Environment, context: str) -> None:
    _sends_context(env, context)


@pytest.mark.parametrize("depth", [260, 400, 900])
def test_too_deeply_nested_context_is_refused(env: Environment, depth: int) -> None:
    _sends_context(env, f'{{"note": {"[" * depth}{"]" * depth}}}')


def _sends_context(env: Environment, context: str) -> None:
    env.unlock()
    env.register_pending("carol")
    body = f'{{"username": "bob", "password": "{BOBS_PASSWORD}", "context": {context}}}'
    answer = env.anonymous.call("POST", REGISTER, data=body, content_type="application/json")
    assert answer.status_code in (202, 400)
    shown = {one["username"]: one["id"] for one in env.registrations()}
    assert "carol" in shown
    for registration in shown.values():
        expect_success(env.alice.get(f"{REGISTRATIONS}/{registration}"))


def enrols(env: Environment, name: str) -> TestResponse:
    """Enrol over EST with Bob's password and a new key."""
    return env.anonymous.call(
        "POST",
        "/.well-known/est/simpleenroll",
        data=base64.encodebytes(der_of(pem_of(request_for([name], new_key())))),
        headers={"Authorization": basic(name, BOBS_PASSWORD)},
    )


@ON_BOTH_DATABASES
@pytest.mark.filterwarnings("ignore:Attribute's length")
@pytest.mark.parametrize("name", ["no/name", "b", "x" * 100, "x" * 300, "bob\0"])
def test_invalid_username_is_refused_over_est(env: Environment, name: str) -> None:
    env.unlock()
    assert enrols(env, name).status_code == 400
    assert env.registrations() == []
