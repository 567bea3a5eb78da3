"""`/api/roles`: create, list, change, delete."""

from __future__ import annotations

from typing import Any

import pytest

from tests.http.broker import YES, Broker, no
from tests.http.callers import Caller, everything_stored, problem_of, refused_fields
from tests.service import permission

OPERATORS = {
    "name": "line-operator",
    "description": "Who stands at the line",
    "permissions": [permission("readWrite lines/#"), permission("deny write lines/0")],
}


def test_a_new_role_is_shown_as_it_was_made(alice: Caller) -> None:
    made = alice.post("/api/roles", OPERATORS)
    assert made.status_code == 201
    assert made.headers["Location"] == "/api/roles/line-operator"
    shown = alice.get("/api/roles/line-operator").get_json()
    assert shown == made.get_json()
    assert {name: shown[name] for name in OPERATORS} == OPERATORS
    assert shown["builtIn"] is False


def test_role_needs_only_a_name(alice: Caller) -> None:
    body = alice.post("/api/roles", {"name": "x"}).get_json()
    assert (body["description"], body["permissions"]) == ("", [])


def test_two_roles_cannot_have_one_name(alice: Caller) -> None:
    before = everything_stored()
    problem_of(alice.post("/api/roles", {"name": "line"}), 409, "role-exists")
    assert everything_stored() == before


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
@pytest.mark.parametrize("name", ["none", "Line", "x" * 200])
def test_unknown_role_is_not_found(alice: Caller, method: str, name: str) -> None:
    body: dict[str, Any] | None = {} if method == "PATCH" else None
    problem_of(alice.call(method, f"/api/roles/{name}", json=body), 404, "role-not-found")


def test_the_list_shows_every_role_with_its_permissions(alice: Caller) -> None:
    body = alice.get("/api/roles").get_json()
    names = [role["name"] for role in body["items"]]
    assert names == ["admin", "line", "minimum-access"]
    assert body["total"] == len(names)
    assert body["items"] == [alice.get(f"/api/roles/{name}").get_json() for name in names]


def test_the_list_comes_in_pages(alice: Caller) -> None:
    pages = [alice.get(f"/api/roles?page={page}&perPage=2").get_json() for page in (1, 2, 3)]
    assert [[role["name"] for role in page["items"]] for page in pages] == [["admin", "line"], ["minimum-access"], []]
    assert {page["total"] for page in pages} == {3}


@pytest.mark.parametrize(
    ("text", "found"), [("MIN", ["admin", "minimum-access"]), ("press", ["line"]), ("_", []), ("zzz", [])]
)
def test_role_search_covers_names_and_descriptions(alice: Caller, text: str, found: list[str]) -> None:
    body = alice.get(f"/api/roles?search={text}").get_json()
    assert [role["name"] for role in body["items"]] == found
    assert body["total"] == len(found)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("description", "new words"),
        ("description", ""),
        ("permissions", []),
        ("permissions", [permission("read lines/+"), permission("deny read lines/0")]),
        ("permissions", [permission("http read /api/me")]),
    ],
)
def test_change_keeps_all_other_fields(alice: Caller, field: str, value: object) -> None:
    before = alice.get("/api/roles/line").get_json()
    changed = alice.patch("/api/roles/line", {field: value})
    assert changed.status_code == 200
    after = alice.get("/api/roles/line").get_json()
    assert after == changed.get_json()
    assert after.pop("updatedAt") >= before.pop("updatedAt")
    assert after == {**before, field: value}


def test_role_change_takes_effect_at_once_for_its_users(alice: Caller, broker: Broker) -> None:
    assert broker.acl("bob", "lines/7", 2) == YES
    alice.patch("/api/roles/line", {"permissions": [permission("deny write lines/7")]})
    assert broker.acl("bob", "lines/7", 2) == no("denied-by-permission")


def test_a_role_cannot_be_renamed(alice: Caller) -> None:
    assert refused_fields(alice.patch("/api/roles/line", {"name": "queue"})) == ["name"]


@pytest.mark.parametrize("name", ["admin", "minimum-access"])
def test_built_in_role_cannot_be_changed(alice: Caller, name: str) -> None:
    before = everything_stored()
    changes: list[dict[str, Any]] = [{"description": "mine"}, {"permissions": []}, {}]
    for change in changes:
        problem_of(alice.patch(f"/api/roles/{name}", change), 409, "role-built-in")
    problem_of(alice.delete(f"/api/roles/{name}"), 409, "role-built-in")
    assert everything_stored() == before


def test_built_in_roles_have_the_documented_permissions(alice: Caller) -> None:
    admin = alice.get("/api/roles/admin").get_json()
    assert admin["builtIn"] is True
    assert admin["permissions"] == [permission("readWrite #"), permission("http readWrite /#")]
    least = alice.get("/api/roles/minimum-access").get_json()
    assert least["permissions"] == [permission("http read /api/me")]


def test_role_of_a_user_cannot_be_deleted(alice: Caller) -> None:
    before = everything_stored()
    problem_of(alice.delete("/api/roles/line"), 409, "role-in-use")
    assert everything_stored() == before


def test_role_without_users_can_be_deleted(alice: Caller) -> None:
    alice.patch("/api/users/bob", {"roles": []})
    answer = alice.delete("/api/roles/line")
    assert (answer.status_code, answer.data) == (204, b"")
    problem_of(alice.get("/api/roles/line"), 404, "role-not-found")


def test_role_can_be_deleted_after_its_last_user(alice: Caller) -> None:
    alice.delete("/api/users/bob")
    assert alice.delete("/api/roles/line").status_code == 204


IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"name": None}, "name"),
    ({"name": 7}, "name"),
    ({"name": ""}, "name"),
    ({"name": "a b"}, "name"),
    ({"name": "a/b"}, "name"),
    ({"name": "#"}, "name"),
    ({"name": "x" * 65}, "name"),
    ({"name": "a\0"}, "name"),
    ({"name": "a\ud800"}, "name"),
    ({"description": None}, "description"),
    ({"description": 7}, "description"),
    ({"description": "x" * 1001}, "description"),
    ({"description": "a\0b"}, "description"),
    ({"description": "a\ud800b"}, "description"),
    ({"permissions": None}, "permissions"),
    ({"permissions": {}}, "permissions"),
    ({"permissions": ["read a"]}, "permissions[0]"),
    ({"permissions": [{**permission("read a"), "resource": "a/b#"}]}, "permissions[0].resource"),
    ({"permissions": [permission("read a"), permission("http read api")]}, "permissions[1].resource"),
    ({"permissions": [permission("read a")] * 10_001}, "permissions"),
    ({"builtIn": True}, "builtIn"),
    ({"users": ["bob"]}, "users"),
]


@pytest.mark.parametrize(("fields", "field"), IMPOSSIBLE)
def test_invalid_role_is_refused(alice: Caller, fields: dict[str, Any], field: str) -> None:
    before = everything_stored()
    assert refused_fields(alice.post("/api/roles", {"name": "line-operator", **fields})) == [field]
    assert everything_stored() == before


@pytest.mark.parametrize(("fields", "field"), [row for row in IMPOSSIBLE if "name" not in row[0]])
def test_invalid_change_changes_nothing(alice: Caller, fields: dict[str, Any], field: str) -> None:
    before = everything_stored()
    assert refused_fields(alice.patch("/api/roles/line", fields)) == [field]
    assert everything_stored() == before
