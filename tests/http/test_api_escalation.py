"""Escalation over REST; `tests/storage` has the full tables in `test_escalation` and `test_last_administrator`."""

from __future__ import annotations

from typing import Any

import pytest

from tests.http.callers import Caller, everything_stored, problem_of
from tests.http.seed_data import CHARLIES_PASSWORD
from tests.service import permission

ALLOW_ALL = permission("http readWrite /#")
DENY_ALL = permission("deny http readWrite /#")

# Rights of users.


@pytest.mark.parametrize(
    "fields", [{"roles": ["line", "admin"]}, {"permissions": [permission("http read /api/audit")]}]
)
def test_rights_beyond_the_callers_own_cannot_be_given(charlie: Caller, fields: dict[str, Any]) -> None:
    before = everything_stored()
    body = {"username": "mallory", "password": "good enough", **fields}
    problem_of(charlie.post("/api/users", body), 403, "beyond-own-rights")
    for username in ("bob", "charlie"):
        problem_of(charlie.patch(f"/api/users/{username}", fields), 403, "beyond-own-rights")
    assert everything_stored() == before


@pytest.mark.parametrize("change", [{"password": "charlie's choice"}, {}])
def test_user_with_more_rights_than_the_caller_cannot_be_changed(charlie: Caller, change: dict[str, Any]) -> None:
    before = everything_stored()
    problem_of(charlie.patch("/api/users/alice", change), 403, "beyond-own-rights")
    problem_of(charlie.delete("/api/users/alice"), 403, "beyond-own-rights")
    assert everything_stored() == before


def test_own_http_permissions_can_be_given(charlie: Caller) -> None:
    charlie.creates_user("cindy", permissions=[permission("http read /api/users/+"), permission("http read /api/me")])
    charlie.creates_user("colin", roles=["minimum-access"])
    charlie.creates_user("craig", permissions=[DENY_ALL])


def test_own_deny_rule_cannot_be_removed(alice: Caller, charlie: Caller) -> None:
    rights = [permission("http readWrite /api/users/#"), permission("deny http write /api/users/admin")]
    alice.patch("/api/users/charlie", {"permissions": rights})
    problem_of(charlie.patch("/api/users/charlie", {"permissions": rights[:1]}), 403, "beyond-own-rights")


# Rights of roles.

ROLE_EDITOR = [permission("http readWrite /api/roles/#"), permission("http readWrite /api/users/#")]


@pytest.fixture
def role_editor(alice: Caller, charlie: Caller) -> Caller:
    """Charlie, who may change roles too."""
    assert alice.patch("/api/users/charlie", {"permissions": ROLE_EDITOR}).status_code == 200
    return charlie


def test_role_with_rights_beyond_the_callers_own_cannot_be_created(role_editor: Caller) -> None:
    before = everything_stored()
    too_much = {"name": "all-rights", "permissions": [ALLOW_ALL]}
    problem_of(role_editor.post("/api/roles", too_much), 403, "beyond-own-rights")
    problem_of(role_editor.patch("/api/roles/line", {"permissions": [ALLOW_ALL]}), 403, "beyond-own-rights")
    assert everything_stored() == before


@pytest.mark.parametrize("change", [{"description": "mine"}, {"permissions": []}])
def test_role_with_more_rights_than_the_caller_cannot_be_changed(
    alice: Caller, role_editor: Caller, change: dict[str, Any]
) -> None:
    alice.post("/api/roles", {"name": "auditor", "permissions": [permission("http read /api/audit")]})
    problem_of(role_editor.patch("/api/roles/auditor", change), 403, "beyond-own-rights")
    problem_of(role_editor.delete("/api/roles/auditor"), 403, "beyond-own-rights")


def test_deny_rule_of_an_own_role_cannot_be_removed(alice: Caller, anonymous: Caller) -> None:
    denying = {"name": "hands-off", "permissions": [permission("deny http write /api/users/#")]}
    assert alice.post("/api/roles", denying).status_code == 201
    alice.creates_user("eve", CHARLIES_PASSWORD, roles=["hands-off"], permissions=[ALLOW_ALL])
    eve = anonymous.signs_in("eve", CHARLIES_PASSWORD)
    before = everything_stored()
    assert eve.patch("/api/roles/hands-off", {"permissions": []}).status_code == 403
    assert everything_stored() == before


# The last administrator.


@pytest.fixture
def only_admin(alice: Caller) -> Caller:
    """Alice, the only administrator."""
    assert alice.delete("/api/users/admin").status_code == 204
    return alice


def test_last_administrator_cannot_be_disabled(only_admin: Caller) -> None:
    before = everything_stored()
    problem_of(only_admin.patch("/api/users/alice", {"enabled": False}), 409, "last-administrator")
    assert everything_stored() == before


def test_last_administrator_cannot_be_deleted(only_admin: Caller) -> None:
    before = everything_stored()
    problem_of(only_admin.delete("/api/users/alice"), 409, "last-administrator")
    assert everything_stored() == before
