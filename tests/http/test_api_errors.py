"""Errors of the API: RFC 9457, with the invalid fields, without secrets; nothing is stored."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import peewee
import pytest

from tests.actors import ADMIN_PASSWORD, BOBS_PASSWORD
from tests.http.broker import YES, broker_by
from tests.http.callers import Caller, everything_stored, problem_of, refused_fields
from tests.http.conftest import with_services_of
from tests.http.seed_data import ALICES_PASSWORD
from tests.service import permission

if TYPE_CHECKING:
    from flask_openapi3.openapi import OpenAPI

    from authsvc.settings import Settings
    from authsvc.web.request_context import Services

MARK = "a-secret-that-must-not-come-back"

WRITES = [("POST", "/api/users"), ("PATCH", "/api/users/bob"), ("POST", "/api/roles"), ("PATCH", "/api/roles/line")]
every_write = pytest.mark.parametrize(("method", "path"), WRITES)
every_body = pytest.mark.parametrize(("method", "path"), [*WRITES, ("POST", "/api/login")])


# Bodies.

DEEP = b"[" * 100_000
NO_OBJECTS = {
    "nothing": b"",
    "garbage": b"\xff\xfe\x00garbage",
    "half": b'{"username": "press-7"',
    "null": b"null",
    "a number": b"7",
    "a list": b'[{"username": "press-7"}]',
    "a text": b'"press-7"',
    "deep lists": DEEP,
    "deep objects": b'{"a":' * 100_000,
    "deep in a field": b'{"username":' + DEEP + b"]" * 100_000 + b"}",
    "a huge number": b'{"username": ' + b"9" * 10_000 + b"}",
}


@every_body
@pytest.mark.parametrize("body", NO_OBJECTS.values(), ids=NO_OBJECTS.keys())
def test_body_that_is_no_json_object_is_refused(alice: Caller, method: str, path: str, body: bytes) -> None:
    before = everything_stored()
    answer = alice.call(method, path, data=body, content_type="application/json")
    problem_of(answer, 400, "invalid-input")
    assert everything_stored() == before


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/users", {"username": "press-7"}),
        ("PATCH", "/api/users/bob", {"enabled": False}),
        ("POST", "/api/roles", {"name": "queue"}),
        ("POST", "/api/login", {"username": "alice", "password": ALICES_PASSWORD}),
    ],
)
def test_json_object_inside_a_string_is_refused(alice: Caller, method: str, path: str, body: dict[str, Any]) -> None:
    before = everything_stored()
    problem_of(alice.call(method, path, json=json.dumps(body)), 400, "invalid-input")
    assert everything_stored() == before


@every_write
@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_other_content_types_than_json_are_refused(alice: Caller, method: str, path: str, content_type: str) -> None:
    before = everything_stored()
    body = json.dumps({"username": "press-7", "name": "queue"})
    problem_of(alice.call(method, path, data=body, content_type=content_type), 400, "invalid-input")
    assert everything_stored() == before


def test_body_of_many_megabytes_is_too_large(alice: Caller) -> None:
    before = everything_stored()
    body = json.dumps({"username": "press-7", "password": "x" * 5_000_000})
    answer = alice.call("POST", "/api/users", data=body, content_type="application/json")
    problem_of(answer, 413, "request-entity-too-large")
    assert everything_stored() == before


# Secrets.


@pytest.mark.parametrize(
    "password", [[MARK], {MARK: MARK}, MARK * 10, MARK * 1000, f"{MARK}\0", f"{MARK}é" * 3, f"{MARK}\ud800"]
)
@pytest.mark.parametrize(
    ("method", "path", "fields"),
    [
        ("POST", "/api/users", {"username": "press-7"}),
        ("PATCH", "/api/users/bob", {}),
        ("POST", "/api/login", {"username": "alice", "label": 7}),
    ],
)
def test_refused_password_is_not_echoed(
    alice: Caller, method: str, path: str, fields: dict[str, Any], password: object, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = alice.call(method, path, json={**fields, "password": password})
    assert answer.status_code == 400
    assert MARK not in answer.text
    assert MARK not in "".join(capfd.readouterr())


def test_secret_in_the_wrong_field_is_not_echoed(alice: Caller) -> None:
    for fields in ({"enabled": MARK}, {"roles": [MARK + " "]}, {"grantTypes": [MARK]}, {"permissions": MARK}):
        answer = alice.post("/api/users", {"username": "press-7", **fields})
        assert answer.status_code == 400
        assert MARK not in answer.text


# The form of errors.


def test_unknown_path_is_answered_with_a_problem(alice: Caller, anonymous: Caller) -> None:
    problem_of(alice.get("/api/no-such-thing"), 404, "not-found")
    problem_of(anonymous.get("/no-such-thing"), 404, "not-found")
    assert anonymous.get("/api/no-such-thing").status_code == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/api/users"),
        ("DELETE", "/api/users"),
        ("POST", "/api/users/bob"),
        ("PUT", "/api/me"),
        ("PUT", "/api/tokens"),
    ],
)
def test_unsupported_method_is_answered_with_the_allowed_ones(alice: Caller, method: str, path: str) -> None:
    answer = alice.call(method, path)
    problem_of(answer, 405, "method-not-allowed")
    assert "GET" in answer.headers["Allow"]


def test_forbidden_names_the_missing_permission(dot: Caller) -> None:
    body = problem_of(dot.delete("/api/users/bob"), 403, "forbidden")
    assert body["detail"] == "your account needs the permission `http write /api/users/bob` to do this"
    assert "read" in problem_of(dot.get("/api/users"), 403, "forbidden")["detail"]


def test_only_401_has_www_authenticate(anonymous: Caller, alice: Caller) -> None:
    problem_of(anonymous.get("/api/me"), 401, "unauthenticated")
    assert anonymous.get("/api/me").headers["WWW-Authenticate"].startswith("Bearer")
    assert "WWW-Authenticate" not in alice.get("/api/users/nemo").headers


def test_unexpected_exception_is_500_without_its_message(
    alice: Caller, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def surprise(*_: object) -> None:
        raise LookupError(MARK)

    monkeypatch.setattr("authsvc.accounts.users.search", surprise)
    answer = alice.get("/api/users")
    problem_of(answer, 500, "internal-error")
    assert MARK not in answer.text
    assert MARK not in "".join(capfd.readouterr())


# Authorization.


@pytest.mark.parametrize(
    ("rules", "method", "path", "allowed"),
    [
        (["http read /api/users/+"], "GET", "/api/users/bob", True),
        (["http read /api/users/+"], "HEAD", "/api/users/bob", True),
        (["http read /api/users/+"], "DELETE", "/api/users/bob", False),
        (["http read /api/users/+"], "GET", "/api/users", False),
        (["http read /api/users/+"], "GET", "/api/users/bob/decision?topic=a&operation=read", False),
        (["http read /api/users/#"], "GET", "/api/users", True),
        (["http read /api/users/#"], "GET", "/api/users/bob/decision?topic=a&operation=read", True),
        (["http write /api/users/bob"], "DELETE", "/api/users/bob", True),
        (["http write /api/users/bob"], "GET", "/api/users/bob", False),
        (["http readWrite /api/users/%u"], "GET", "/api/users/dot", True),
        (["http readWrite /api/users/%u"], "GET", "/api/users/bob", False),
        (["http readWrite /api/users/%u"], "GET", "/api/users/%25u", False),
        (["http readWrite /+/users/bob"], "GET", "/api/users/bob", True),
        (["http readWrite /#"], "GET", "/api/users/bob", True),
        (["http readWrite #"], "GET", "/api/users/bob", False),
        (["http readWrite /#", "deny http write /api/users/bob"], "DELETE", "/api/users/bob", False),
        (["http readWrite /#", "deny http write /api/users/bob"], "GET", "/api/users/bob", True),
        (["deny http write /api/users/bob", "http readWrite /#"], "DELETE", "/api/users/bob", False),
        (["http readWrite /#", "deny http readWrite /api/users/%u"], "GET", "/api/users/dot", False),
        (["http readWrite /#", "deny http read /api/users/#"], "GET", "/api/users/b%6fb", False),
        (["http readWrite /#", "deny http read /api/users/#"], "GET", "//api//users//bob", False),
        (["http readWrite /#", "deny http read /api/users/#"], "GET", "/api/./users/bob", False),
        (["http readWrite /#", "deny http read /api/users/#"], "GET", "/api/users/../users/bob", False),
        (["readWrite #"], "GET", "/api/users/bob", False),
        ([], "GET", "/api/me", False),
    ],
)
def test_http_permission_applies_to_paths_that_its_filter_covers(
    alice: Caller, dot: Caller, rules: list[str], method: str, path: str, allowed: bool
) -> None:
    permissions = [permission(rule) for rule in rules if rule != "http readWrite #"]
    assert alice.patch("/api/users/dot", {"permissions": permissions}).status_code == 200
    status = dot.call(method, path).status_code
    assert (status < 300) is allowed
    assert status in (200, 204) if allowed else status in (403, 404, 308)


def test_an_http_permission_must_name_a_path(alice: Caller) -> None:
    answer = alice.patch("/api/users/dot", {"permissions": [permission("http readWrite #")]})
    assert refused_fields(answer) == ["permissions[0].resource"]


# Database failures.


def test_api_answers_503_without_a_database_and_recovers(alice: Caller, settings: Settings) -> None:
    file = settings.data_dir / "authsvc.db"
    elsewhere = file.rename(settings.data_dir / "elsewhere.db")
    for answer in (alice.get("/api/users"), alice.post("/api/users", {"username": "press-7"}), alice.get("/api/me")):
        problem_of(answer, 503, "database-unavailable")
        assert answer.headers["Retry-After"]
    elsewhere.rename(file)
    alice.creates_user("press-7")


def test_stored_change_succeeds_if_the_database_fails_right_after(
    alice: Caller, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    catch_up = services.policy.catch_up
    calls = iter([catch_up, _lost])
    monkeypatch.setattr(type(services.policy), "catch_up", lambda _: next(calls, catch_up)())
    assert alice.post("/api/users", {"username": "press-7"}).status_code == 201
    assert alice.get("/api/users/press-7").status_code == 200


def _lost() -> None:
    raise peewee.OperationalError("gone")


# PostgreSQL refuses some text that SQLite stores, so the API must refuse it for both.


@pytest.fixture
def alice_on_either(routes: OpenAPI, prepared_on_either: Settings) -> Caller:
    """An administrator, on SQLite and on PostgreSQL."""
    return Caller(with_services_of(routes, prepared_on_either).test_client()).signs_in("admin", ADMIN_PASSWORD)


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
def test_text_that_a_database_cannot_store_is_refused_on_both_databases(alice_on_either: Caller, text: str) -> None:
    before = everything_stored()
    for path, body in (
        ("/api/users", {"username": text}),
        ("/api/users", {"username": "press-7", "password": text * 3}),
        ("/api/users", {"username": "press-7", "roles": [text]}),
        ("/api/users", {"username": "press-7", "permissions": [{**permission("read a"), "resource": text}]}),
        ("/api/roles", {"name": "queue", "description": text}),
        ("/api/login", {"username": "admin", "password": ADMIN_PASSWORD, "label": text}),
    ):
        problem_of(alice_on_either.post(path, body), 400, "invalid-input")
    assert everything_stored() == before


@pytest.mark.parametrize("path", ["/api/users/{}", "/api/roles/{}", "/api/users?search={}", "/api/audit?actor={}"])
def test_paths_with_unusual_text_are_answered_on_both_databases(alice_on_either: Caller, path: str) -> None:
    for text in ("%00", "%ED%A0%80", "%FF", "%F0%9F%A6%84", "'%22;--", "%25", "%5C"):
        assert alice_on_either.get(path.format(text)).status_code in (200, 400, 404)


def test_life_of_a_device_is_the_same_on_both_databases(alice_on_either: Caller) -> None:
    broker = broker_by("view", alice_on_either.client.application)  # type: ignore[arg-type]
    alice_on_either.post("/api/roles", {"name": "line", "permissions": [permission("write lines/+")]})
    alice_on_either.creates_user("Bob.7", BOBS_PASSWORD, roles=["line"])
    assert broker.logs_in("Bob.7", BOBS_PASSWORD) == YES
    assert broker.acl("Bob.7", "lines/7", 2) == YES
    found = alice_on_either.get("/api/users?search=bOB").get_json()
    assert [user["username"] for user in found["items"]] == ["Bob.7"]
    alice_on_either.delete("/api/users/Bob.7")
    assert broker.acl("Bob.7", "lines/7", 2).status == 403
    actions = [event["action"] for event in alice_on_either.get("/api/audit?target=user:Bob.7").get_json()["items"]]
    assert actions == ["user.delete", "user.create"]
