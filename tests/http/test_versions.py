"""ETag and If-Match (RFC 9110, 13.1.1): a change of a user or role can name the version that the caller read."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.http.callers import everything_stored, problem_of, refused_fields
from tests.service import permission

if TYPE_CHECKING:
    from flask_openapi3.openapi import OpenAPI

    from tests.http.callers import Caller

STALE = '"20200101T000000.000000Z"'
NOUNS = pytest.mark.parametrize("path", ["/api/users/bob", "/api/roles/spare"])


@pytest.fixture(autouse=True)
def _role_without_users(alice: Caller) -> None:
    assert alice.post("/api/roles", {"name": "spare"}).status_code == 201


def change_to(text: str) -> dict[str, Any]:
    """Return a change of a user or role with a permission for this topic."""
    return {"permissions": [permission(f"read {text}")]}


@NOUNS
def test_every_answer_with_a_user_or_role_has_an_etag(alice: Caller, path: str) -> None:
    first = alice.get(path).headers["ETag"]
    assert first.startswith('"')
    assert alice.get(path).headers["ETag"] == first
    changed = alice.patch(path, change_to("a"))
    assert changed.headers["ETag"] != first
    assert alice.get(path).headers["ETag"] == changed.headers["ETag"]


def test_creating_a_user_or_role_and_adding_a_permission_return_an_etag(alice: Caller) -> None:
    for made in (alice.post("/api/users", {"username": "eve"}), alice.post("/api/roles", {"name": "eves"})):
        assert made.headers["ETag"] == alice.get(made.headers["Location"]).headers["ETag"]
    allowed = alice.post("/api/users/eve/permissions", permission("read a"))
    assert allowed.headers["ETag"] == alice.get("/api/users/eve").headers["ETag"]


@NOUNS
@pytest.mark.parametrize("if_match", [STALE, "", "nonsense", "W/{tag}", f'"a", {STALE}'])
@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_if_match_of_another_version_changes_nothing(alice: Caller, path: str, if_match: str, method: str) -> None:
    tag = alice.get(path).headers["ETag"]
    before = everything_stored()
    body = {"json": change_to("a")} if method == "PATCH" else {}
    answer = alice.call(method, path, headers={"If-Match": if_match.format(tag=tag)}, **body)
    problem_of(answer, 412, "precondition-failed")
    after = everything_stored()
    assert {name: rows for name, rows in after.items() if before[name] != rows} == {}


@NOUNS
@pytest.mark.parametrize("if_match", ["{tag}", f"{STALE}, {{tag}}", "*"])
def test_if_match_of_the_stored_version_allows_change_and_deletion(alice: Caller, path: str, if_match: str) -> None:
    tag = alice.get(path).headers["ETag"]
    answer = alice.patch(path, change_to("a"), headers={"If-Match": if_match.format(tag=tag)})
    assert answer.status_code == 200, answer.text
    tag = answer.headers["ETag"]
    assert alice.delete(path, headers={"If-Match": if_match.format(tag=tag)}).status_code == 204


@NOUNS
def test_second_of_two_concurrent_editors_gets_412(app: OpenAPI, alice: Caller, path: str) -> None:
    tag = alice.get(path).headers["ETag"]
    together = threading.Barrier(2)

    def save(text: str) -> int:
        editor = type(alice)(app.test_client(), alice.headers["Authorization"])
        together.wait()
        return editor.patch(path, change_to(text), headers={"If-Match": tag}).status_code

    with ThreadPoolExecutor(2) as pool:
        outcomes = dict(zip("ab", pool.map(save, "ab"), strict=True))
    assert sorted(outcomes.values()) == [200, 412]
    saved = next(text for text, status in outcomes.items() if status == 200)
    assert [rule["resource"] for rule in alice.get(path).get_json()["permissions"]] == [saved]


@pytest.mark.parametrize("field", ["enabled", "grantTypes", "roles", "permissions"])
def test_null_is_refused_for_every_field_of_a_user_but_the_password(alice: Caller, field: str) -> None:
    before = alice.get("/api/users/bob").get_json()
    assert [
        error["field"]
        for error in problem_of(alice.patch("/api/users/bob", {field: None}), 400, "invalid-input")["errors"]
    ] == [field]
    assert alice.get("/api/users/bob").get_json() == before


@pytest.mark.parametrize("field", ["description", "permissions"])
def test_null_is_refused_for_every_field_of_a_role(alice: Caller, field: str) -> None:
    assert refused_fields(alice.patch("/api/roles/line", {field: None})) == [field]


@NOUNS
def test_an_empty_change_changes_nothing(alice: Caller, path: str) -> None:
    before = alice.get(path).get_json()
    after = alice.patch(path, {}).get_json()
    assert {**after, "updatedAt": ""} == {**before, "updatedAt": ""}
