"""`/api/users/{username}/decision`: a dry run of an ACL request."""

from __future__ import annotations

from typing import Any

import pytest

from authsvc.accounts import roles, users
from authsvc.accounts.users import UserChanges
from tests.actors import HASHER, OPERATOR, mqtt
from tests.http.callers import Caller, problem_of, refused_fields
from tests.service import permission


def _asks(alice: Caller, username: str, **query: str) -> dict[str, Any]:
    answer = alice.get(f"/api/users/{username}/decision", query_string=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.get_json()
    return body


def test_decision_names_the_allowing_permission(alice: Caller) -> None:
    body = _asks(alice, "bob", topic="devices/bob/up", operation="write")
    assert body == {
        "allowed": True,
        "reason": "permission",
        "permission": permission("readWrite devices/%u/#"),
        "role": None,
    }


def test_decision_names_the_role_of_the_allowing_permission(alice: Caller) -> None:
    body = _asks(alice, "bob", topic="lines/7", operation="write")
    assert (body["allowed"], body["role"], body["permission"]) == (True, "line", permission("write lines/+"))


def test_decision_names_the_role_of_the_denying_permission(alice: Caller) -> None:
    roles.change(OPERATOR, "line", roles.RoleChanges(permissions=(mqtt("write", "lines/9", "deny"),)))
    body = _asks(alice, "bob", topic="lines/9", operation="write")
    assert body == {
        "allowed": False,
        "reason": "denied-by-permission",
        "permission": permission("deny write lines/9"),
        "role": "line",
    }


def test_decision_names_the_denying_permission(alice: Caller) -> None:
    body = _asks(alice, "bob", topic="sensors/secret/1", operation="read")
    assert (body["allowed"], body["reason"]) == (False, "denied-by-permission")
    assert body["permission"] == permission("deny readWrite sensors/secret/#")


@pytest.mark.parametrize(
    ("username", "query", "allowed", "reason"),
    [
        ("bob", {"topic": "elsewhere", "operation": "read"}, False, "no-permission"),
        ("bob", {"topic": "sensors/1", "operation": "readWrite"}, False, "no-permission"),
        ("bob", {"topic": "devices/bob/1", "operation": "readWrite"}, True, "permission"),
        ("bob", {"topic": "sensors/#", "operation": "read"}, True, "permission"),
        ("bob", {"topic": "sensors/+", "operation": "subscribe"}, True, "permission"),
        ("bob", {"topic": "sensors/1", "operation": "subscribe"}, True, "permission"),
        ("bob", {"topic": "#", "operation": "read"}, False, "no-permission"),
        ("bob", {"topic": "$share/g/sensors/#", "operation": "read"}, False, "share-reaches-denied-topics"),
        ("bob", {"topic": "clients/c7/up", "operation": "write", "clientId": "c7"}, True, "permission"),
        ("bob", {"topic": "clients/c7/up", "operation": "write"}, False, "no-permission"),
        ("dora", {"topic": "devices/dora/up", "operation": "write"}, False, "user-disabled"),
    ],
)
def test_decision_equals_the_answer_to_a_broker(
    alice: Caller, username: str, query: dict[str, str], allowed: bool, reason: str
) -> None:
    body = _asks(alice, username, **query)
    assert (body["allowed"], body["reason"]) == (allowed, reason)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"operation": "read"}, "topic"),
        ({"topic": "a"}, "operation"),
        ({"topic": "", "operation": "read"}, "topic"),
        ({"topic": "a", "operation": "publish"}, "operation"),
        ({"topic": "a/+", "operation": "write"}, "topic"),
        ({"topic": "a/#/b", "operation": "read"}, "topic"),
        ({"topic": "$share/g", "operation": "subscribe"}, "topic"),
        ({"topic": "a\0", "operation": "read"}, "topic"),
        ({"topic": "a", "operation": "read", "clientId": "\0"}, "clientId"),
        ({"topic": "a", "operation": "read", "client": "x"}, "client"),
    ],
)
def test_invalid_decision_query_is_refused(alice: Caller, query: dict[str, str], field: str) -> None:
    answer = alice.get("/api/users/bob/decision", query_string=query)
    assert field in refused_fields(answer)


def test_decision_for_an_unknown_user_is_not_found(alice: Caller) -> None:
    answer = alice.get("/api/users/nemo/decision?topic=a&operation=read")
    problem_of(answer, 404, "user-not-found")


def test_decision_uses_changes_of_other_processes(alice: Caller) -> None:
    users.change(OPERATOR, "bob", UserChanges(permissions=()), HASHER)
    body = _asks(alice, "bob", topic="devices/bob/up", operation="write")
    assert body["reason"] == "no-permission"
