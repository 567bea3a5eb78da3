"""`/api/users`: create, list, change, delete."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.actors import BOBS_PASSWORD
from tests.http.broker import YES, Broker, no
from tests.http.callers import Caller, everything_stored, problem_of, refused_fields
from tests.service import permission

if TYPE_CHECKING:
    from werkzeug.test import TestResponse

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
ALL_USERS = ["admin", "alice", "bob", "carol", "charlie", "dora", "dot", "nick", "tess", "tom"]
PRESS = {
    "username": "press-7",
    "password": "press seven's secret",
    "enabled": True,
    "grantTypes": ["password", "token"],
    "roles": ["line"],
    "permissions": [permission("readWrite devices/%u/#"), permission("deny read secret/#")],
    "clientIds": ["%u", "%u:*"],
}


def test_new_user_is_returned_without_its_password(alice: Caller) -> None:
    made = alice.post("/api/users", PRESS)
    assert made.status_code == 201
    assert made.headers["Location"] == "/api/users/press-7"
    shown = alice.get(made.headers["Location"])
    assert shown.status_code == 200
    assert shown.get_json() == made.get_json()
    _is_shown_without_secrets(shown)


def _is_shown_without_secrets(answer: TestResponse) -> None:
    body = answer.get_json()
    assert all(MOMENT.fullmatch(body.pop(name)) for name in ("createdAt", "updatedAt"))
    assert (body.pop("hasPassword"), body.pop("secondFactor")) == (True, False)
    assert (body.pop("administratorOnBroker"), body.pop("damage")) == (False, [])
    assert (body.pop("warnings"), body.pop("lastSeen"), body.pop("origin")) == ([], None, "administrator")
    assert body.pop("groupRoles") == []
    assert body == {name: value for name, value in PRESS.items() if name != "password"}
    assert "secret's" not in answer.text
    assert "$2b$" not in answer.text


def test_user_needs_only_a_name_and_has_no_permissions(alice: Caller) -> None:
    body = alice.post("/api/users", {"username": "press-7"}).get_json()
    assert body["enabled"] is True
    assert body["grantTypes"] == ["password"]
    assert (body["roles"], body["permissions"], body["hasPassword"]) == ([], [], False)


def test_a_new_user_may_connect_at_once(alice: Caller, broker: Broker) -> None:
    alice.creates_user("press-7", "press seven's secret", permissions=[permission("write presses/%u")])
    assert broker.logs_in("press-7", "press seven's secret") == YES
    assert broker.acl("press-7", "presses/press-7", 2) == YES


@pytest.mark.parametrize("username", ["abc", "a" * 64, "0-1", "A.b_c-D", "007"])
def test_valid_usernames_are_accepted(alice: Caller, username: str) -> None:
    alice.creates_user(username)
    assert alice.get(f"/api/users/{username}").get_json()["username"] == username


def test_usernames_are_case_sensitive(alice: Caller) -> None:
    alice.creates_user("Bob")
    assert alice.get("/api/users/Bob").get_json()["permissions"] == []
    assert alice.get("/api/users/bob").get_json()["permissions"] != []


def test_username_is_unique(alice: Caller) -> None:
    before = everything_stored()
    problem_of(alice.post("/api/users", {"username": "bob"}), 409, "user-exists")
    assert everything_stored() == before


def test_repeated_roles_and_permissions_are_stored_once(alice: Caller) -> None:
    twice = [permission("read a"), permission("read a")]
    alice.creates_user("press-7", roles=["line", "line"], permissions=twice)
    body = alice.get("/api/users/press-7").get_json()
    assert (body["roles"], body["permissions"]) == (["line"], [permission("read a")])


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
@pytest.mark.parametrize("username", ["nobody", "no/such", "%00", "x" * 200, "Bob", "bob%20", "%F0%9F%A6%84"])
def test_unknown_user_is_not_found(alice: Caller, method: str, username: str) -> None:
    body: dict[str, Any] | None = {} if method == "PATCH" else None
    answer = alice.call(method, f"/api/users/{username}", json=body)
    assert answer.status_code == (400 if "%00" in username else 404)
    assert answer.content_type == "application/problem+json"


# The list.


def test_user_list_is_sorted_by_name_and_has_the_total(alice: Caller) -> None:
    body = alice.get("/api/users").get_json()
    assert [user["username"] for user in body["items"]] == ALL_USERS
    assert (body["page"], body["perPage"], body["total"]) == (1, 50, len(ALL_USERS))


def test_list_item_equals_the_single_user(alice: Caller) -> None:
    items = alice.get("/api/users").get_json()["items"]
    assert items == [alice.get(f"/api/users/{name}").get_json() for name in ALL_USERS]


def test_pages_of_users_neither_overlap_nor_leave_gaps(alice: Caller) -> None:
    pages = [alice.get(f"/api/users?page={page}&perPage=4").get_json() for page in (1, 2, 3, 4)]
    assert [user["username"] for page in pages for user in page["items"]] == ALL_USERS
    assert [len(page["items"]) for page in pages] == [4, 4, 2, 0]
    assert {(page["perPage"], page["total"]) for page in pages} == {(4, len(ALL_USERS))}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("do", ["dora", "dot"]),
        ("DO", ["dora", "dot"]),
        ("o", ["bob", "carol", "dora", "dot", "tom"]),
        ("bob", ["bob"]),
        ("nobody", []),
        ("%25", []),
        ("_", []),
        ("*", []),
        ("'", []),
        ("%F0%9F%A6%84", []),
    ],
)
def test_user_search_matches_part_of_the_name(alice: Caller, text: str, found: list[str]) -> None:
    body = alice.get(f"/api/users?search={text}").get_json()
    assert [user["username"] for user in body["items"]] == found
    assert body["total"] == len(found)


def test_users_can_be_filtered_by_role(alice: Caller) -> None:
    body = alice.get("/api/users?role=line").get_json()
    assert [user["username"] for user in body["items"]] == ["bob"]
    assert alice.get("/api/users?role=no-such-role").get_json()["total"] == 0


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("page=0", "page"),
        ("page=-1", "page"),
        ("page=1.5", "page"),
        ("page=x", "page"),
        ("page=", "page"),
        ("page=99999999999999999999", "page"),
        ("perPage=0", "perPage"),
        ("perPage=1001", "perPage"),
        ("per_page=5", "per_page"),
        ("limit=5", "limit"),
        ("search=%00", "search"),
        ("search=" + "x" * 201, "search"),
    ],
)
def test_invalid_page_is_refused(alice: Caller, query: str, field: str) -> None:
    assert refused_fields(alice.get(f"/api/users?{query}")) == [field]


# Changes.


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("enabled", False),
        ("grantTypes", ["certificate"]),
        ("grantTypes", []),
        ("roles", []),
        ("roles", ["minimum-access"]),
        ("permissions", []),
        ("permissions", [permission("deny read only/this")]),
    ],
)
def test_change_keeps_all_other_fields(alice: Caller, field: str, value: object) -> None:
    before = alice.get("/api/users/bob").get_json()
    changed = alice.patch("/api/users/bob", {field: value})
    assert changed.status_code == 200
    assert alice.get("/api/users/bob").get_json() == changed.get_json()
    after = changed.get_json()
    assert after.pop("updatedAt") >= before.pop("updatedAt")
    for shown in (before, after):
        shown.pop("warnings")  # which depend on the other fields
    assert after == {**before, field: value}


def test_password_change_takes_effect_at_once(alice: Caller, broker: Broker) -> None:
    assert broker.logs_in("bob", BOBS_PASSWORD) == YES
    assert alice.patch("/api/users/bob", {"password": "bob's next secret"}).status_code == 200
    assert broker.logs_in("bob", BOBS_PASSWORD) == no("wrong-password")
    assert broker.logs_in("bob", "bob's next secret") == YES


def test_null_removes_the_password(alice: Caller, broker: Broker) -> None:
    assert alice.patch("/api/users/bob", {"password": None}).get_json()["hasPassword"] is False
    assert broker.logs_in("bob", BOBS_PASSWORD) == no("grant-type-missing")


def test_a_change_without_a_password_keeps_the_password(alice: Caller, broker: Broker) -> None:
    alice.patch("/api/users/bob", {"enabled": False})
    alice.patch("/api/users/bob", {"enabled": True})
    assert broker.logs_in("bob", BOBS_PASSWORD) == YES


def test_a_user_cannot_be_renamed(alice: Caller) -> None:
    assert refused_fields(alice.patch("/api/users/bob", {"username": "rob"})) == ["username"]


def test_deleted_user_loses_its_permissions_and_tokens(alice: Caller, broker: Broker) -> None:
    tom = alice.signs_in("tom", BOBS_PASSWORD)
    answer = alice.delete("/api/users/tom")
    assert (answer.status_code, answer.data) == (204, b"")
    problem_of(alice.get("/api/users/tom"), 404, "user-not-found")
    assert broker.logs_in("tom", BOBS_PASSWORD) == no("unknown-user")
    assert tom.get("/api/me").status_code == 401
    assert alice.get("/api/tokens?username=tom").get_json()["items"] == []


def test_new_user_with_the_name_of_a_deleted_one_has_nothing_of_it(alice: Caller, broker: Broker) -> None:
    tom = alice.signs_in("tom", BOBS_PASSWORD)
    alice.delete("/api/users/tom")
    alice.creates_user("tom", "another tom's secret")
    assert tom.get("/api/me").status_code == 401
    assert broker.logs_in("tom", BOBS_PASSWORD) == no("wrong-password")


# Invalid input is refused by field, and nothing is stored.

PERMISSION = permission("read a/b")
IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"username": None}, "username"),
    ({"username": 7}, "username"),
    ({"username": ""}, "username"),
    ({"username": "a" * 256}, "username"),
    ({"username": "abc\n"}, "username"),
    ({"username": "abc\x85"}, "username"),
    ({"username": "abc\0"}, "username"),
    ({"username": "abc\ud800"}, "username"),
    ({"password": 12345}, "password"),
    ({"password": ["secret"]}, "password"),
    ({"password": ""}, "password"),
    ({"password": "four"}, "password"),
    ({"password": "x" * 73}, "password"),
    ({"password": "é" * 37}, "password"),
    ({"password": "x" * 5000}, "password"),
    ({"password": "secret\0"}, "password"),
    ({"password": "secret\ud800"}, "password"),
    ({"enabled": None}, "enabled"),
    ({"enabled": 1}, "enabled"),
    ({"enabled": "true"}, "enabled"),
    ({"grantTypes": None}, "grantTypes"),
    ({"grantTypes": "password"}, "grantTypes"),
    ({"grantTypes": ["magic"]}, "grantTypes[0]"),
    ({"grantTypes": ["password", 7]}, "grantTypes[1]"),
    ({"grantTypes": ["password"] * 4}, "grantTypes"),
    ({"roles": "line"}, "roles"),
    ({"roles": [None]}, "roles[0]"),
    ({"roles": ["line", "no-such-role"]}, "roles[1]"),
    ({"roles": ["line", "a/b"]}, "roles[1]"),
    ({"roles": {"line": True}}, "roles"),
    ({"permissions": [7]}, "permissions[0]"),
    ({"permissions": [{}]}, "permissions[0].context"),
    ({"permissions": [PERMISSION, {**PERMISSION, "context": "ftp"}]}, "permissions[1].context"),
    ({"permissions": [{**PERMISSION, "operation": "subscribe"}]}, "permissions[0].operation"),
    ({"permissions": [{**PERMISSION, "effect": "maybe"}]}, "permissions[0].effect"),
    ({"permissions": [{**PERMISSION, "effect": None}]}, "permissions[0].effect"),
    ({"permissions": [{**PERMISSION, "priority": 1}]}, "permissions[0].priority"),
    ({"permissions": [{**PERMISSION, "resource": ""}]}, "permissions[0].resource"),
    ({"permissions": [{**PERMISSION, "resource": 7}]}, "permissions[0].resource"),
    ({"permissions": [{**PERMISSION, "resource": "a#"}]}, "permissions[0].resource"),
    ({"permissions": [{**PERMISSION, "resource": "a/#/b"}]}, "permissions[0].resource"),
    ({"permissions": [{**PERMISSION, "resource": "a/x%u"}]}, "permissions[0].resource"),
    ({"permissions": [{**PERMISSION, "resource": "$share/g/a"}]}, "permissions[0].resource"),
    ({"permissions": [{**PERMISSION, "resource": "a\0"}]}, "permissions[0].resource"),
    ({"permissions": [{**PERMISSION, "resource": "a\ud800"}]}, "permissions[0].resource"),
    ({"permissions": [{**PERMISSION, "resource": "a/" * 200}]}, "permissions[0].resource"),
    ({"permissions": [{**PERMISSION, "resource": "é" * 40_000}]}, "permissions[0].resource"),
    ({"permissions": [PERMISSION, {**PERMISSION, "context": "http"}]}, "permissions[1].resource"),
    ({"isAdmin": True}, "isAdmin"),
    ({"grant_types": ["password"]}, "grant_types"),
    ({"hasPassword": False}, "hasPassword"),
]


@pytest.mark.parametrize(("fields", "field"), IMPOSSIBLE)
def test_invalid_user_is_refused(alice: Caller, fields: dict[str, Any], field: str) -> None:
    before = everything_stored()
    answer = alice.post("/api/users", {"username": "press-7", "password": "good enough", **fields})
    assert field in refused_fields(answer)
    assert everything_stored() == before


@pytest.mark.parametrize(("fields", "field"), [row for row in IMPOSSIBLE if "username" not in row[0]])
def test_invalid_change_changes_nothing(alice: Caller, fields: dict[str, Any], field: str) -> None:
    before = everything_stored()
    answer = alice.patch("/api/users/bob", {"enabled": False, **fields} if "enabled" not in fields else fields)
    assert field in refused_fields(answer)
    assert everything_stored() == before


def test_user_without_a_name_is_refused(alice: Caller) -> None:
    assert refused_fields(alice.post("/api/users", {"password": "good enough"})) == ["username"]


def test_error_names_every_invalid_field(alice: Caller) -> None:
    answer = alice.post("/api/users", {"username": "a\nb", "password": 7, "enabled": "no", "size": 1})
    assert sorted(refused_fields(answer)) == ["enabled", "password", "size", "username"]
