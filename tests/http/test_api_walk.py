"""Checks of every operation in the OpenAPI description: authentication, errors, documentation."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from schemathesis.core.result import Ok

from tests.http.callers import Caller, problem_of
from tests.http.description import DESCRIPTION, OPERATIONS, with_names

if TYPE_CHECKING:
    from flask_openapi3.openapi import OpenAPI

# Without credentials a client may log in, register, and renew a certificate with a proof of possession.
PUBLIC = {("POST", "/api/login"), ("POST", "/api/client-registry/register"), ("POST", "/api/certificates/renew")}
UNDESCRIBED = {
    "/api/openapi.json",
    "/api/policy.schema.json",
    "/api/docs",
    "/api/docs/static/{filename}",
    "/api/docs/swagger/{filename}",
}
# The documented operations, so that a test fails if one disappears.
PROMISED = {
    ("POST", "/api/login"),
    ("GET", "/api/me"),
    ("POST", "/api/me/otp"),
    ("POST", "/api/me/otp/confirm"),
    ("DELETE", "/api/me/otp"),
    ("DELETE", "/api/users/{username}/otp"),
    ("GET", "/api/tokens"),
    ("DELETE", "/api/tokens/{id}"),
    ("GET", "/api/users"),
    ("POST", "/api/users"),
    ("GET", "/api/users/{username}"),
    ("PATCH", "/api/users/{username}"),
    ("DELETE", "/api/users/{username}"),
    ("GET", "/api/users/{username}/decision"),
    ("GET", "/api/users/{username}/denials"),
    ("POST", "/api/users/{username}/permissions"),
    ("GET", "/api/history"),
    ("GET", "/api/roles"),
    ("POST", "/api/roles"),
    ("GET", "/api/roles/{name}"),
    ("PATCH", "/api/roles/{name}"),
    ("DELETE", "/api/roles/{name}"),
    ("GET", "/api/clients"),
    ("POST", "/api/clients/{broker}/{clientId}/disconnect"),
    ("GET", "/api/notifications"),
    ("POST", "/api/notifications"),
    ("GET", "/api/notifications/{id}"),
    ("PATCH", "/api/notifications/{id}"),
    ("DELETE", "/api/notifications/{id}"),
    ("GET", "/api/notifications/{id}/deliveries"),
    ("POST", "/api/notifications/{id}/test"),
    ("GET", "/api/audit"),
    ("GET", "/api/export"),
    ("POST", "/api/apply"),
    ("POST", "/api/import/mosquitto"),
    ("POST", "/api/import/dynsec"),
    ("POST", "/api/import/go-auth"),
    ("POST", "/api/users/batch"),
    ("POST", "/api/users/batch-delete"),
}

OWN_ACCOUNT = {(method, path) for method, path in OPERATIONS if path.startswith("/api/me/")}

every_operation = pytest.mark.parametrize(("method", "path"), sorted(OPERATIONS))
every_operation_that_needs_a_permission = pytest.mark.parametrize(
    ("method", "path"), sorted(set(OPERATIONS) - PUBLIC - OWN_ACCOUNT)
)
every_guarded_operation = pytest.mark.parametrize(("method", "path"), sorted(set(OPERATIONS) - PUBLIC))


@every_guarded_operation
def test_without_credentials_it_is_401(anonymous: Caller, method: str, path: str) -> None:
    answer = anonymous.call(method, with_names(path))
    problem_of(answer, 401, "unauthenticated")
    assert "WWW-Authenticate" in answer.headers


@every_operation_that_needs_a_permission
def test_without_permission_it_is_403(dot: Caller, method: str, path: str) -> None:
    problem_of(dot.call(method, with_names(path)), 403, "forbidden")


@every_guarded_operation
def test_with_all_permissions_it_is_neither_401_nor_403(alice: Caller, method: str, path: str) -> None:
    assert alice.call(method, with_names(path)).status_code in (200, 201, 400, 404)


@pytest.mark.parametrize(("method", "path"), sorted(PUBLIC))
def test_public_operation_needs_no_credentials(anonymous: Caller, method: str, path: str) -> None:
    assert anonymous.call(method, path).status_code == 400


@every_operation
def test_operation_has_summary_tag_and_id(method: str, path: str) -> None:
    operation = OPERATIONS[method, path]
    assert operation["summary"].strip(".")
    assert operation["tags"]
    assert operation["operationId"]


@every_operation
def test_its_failures_are_described_as_problems(method: str, path: str) -> None:
    responses = OPERATIONS[method, path]["responses"]
    failures = {status: response for status, response in responses.items() if int(status) >= 400}
    assert {"400", "401", "403"} <= set(failures)
    for response in failures.values():
        schema = response["content"]["application/problem+json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/Problem"}


@every_operation
def test_its_success_is_described(method: str, path: str) -> None:
    responses = OPERATIONS[method, path]["responses"]
    successes = [status for status in responses if int(status) < 300]
    assert successes
    assert all(status == "204" or responses[status]["content"] for status in successes)


@every_guarded_operation
def test_the_ways_to_sign_in_are_described(method: str, path: str) -> None:
    ways = [name for way in OPERATIONS[method, path]["security"] for name in way]
    assert set(ways) == set(DESCRIPTION["components"]["securitySchemes"])


def test_operation_ids_are_unique() -> None:
    ids = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(ids) == len(set(ids))


def test_tags_have_descriptions() -> None:
    explained = {tag["name"] for tag in DESCRIPTION["tags"] if tag["description"]}
    assert {tag for operation in OPERATIONS.values() for tag in operation["tags"]} <= explained


def test_description_has_every_documented_operation() -> None:
    assert set(OPERATIONS) >= PROMISED


def test_description_has_every_route_below_api(app: OpenAPI) -> None:
    served = {_in_braces(rule.rule) for rule in app.url_map.iter_rules() if rule.rule.startswith("/api")}
    assert served - {path for _, path in OPERATIONS} == UNDESCRIBED


def _in_braces(rule: str) -> str:
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)


def test_the_description_is_public_openapi_3_1(anonymous: Caller) -> None:
    answer = anonymous.get("/api/openapi.json")
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    assert re.fullmatch(r"3\.1\.\d+", answer.get_json()["openapi"])
    assert answer.get_json() == DESCRIPTION


def test_the_description_is_valid(app: OpenAPI) -> None:
    schema = schemathesis.openapi.from_wsgi("/api/openapi.json", app)
    schema.validate()
    read = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    assert {(operation.method.upper(), operation.path) for operation in read} == set(OPERATIONS)


def test_every_reference_in_the_description_resolves() -> None:
    for reference in _references(DESCRIPTION):
        place: Any = DESCRIPTION
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for inner in value.values() for found in _references(inner)]
    return [found for inner in value for found in _references(inner)] if isinstance(value, list) else []
