"""Who may change users cannot become more than they are, and nobody can leave the service without an administrator."""

from __future__ import annotations

from typing import Any

import pytest

from tests.http.broker import YES, Broker
from tests.http.callers import Caller, everything_stored, problem_of
from tests.http.seed_data import CHARLIES_PASSWORD
from tests.service import permission

ALLOW_ALL = permission("http readWrite /#")
DENY_ALL = permission("deny http readWrite /#")

# Nobody hands out more than they have.


@pytest.mark.parametrize(
    "fields",
    [
        {"roles": ["admin"]},
        {"roles": ["line", "admin"]},
        {"permissions": [ALLOW_ALL]},
        {"permissions": [permission("http read /api/audit")]},
        {"permissions": [permission("http write /api/roles/#")]},
        {"permissions": [permission("http readWrite /api/+")]},
    ],
)
def test_charlie_cannot_make_anybody_mightier_than_himself(charlie: Caller, fields: dict[str, Any]) -> None:
    before = everything_stored()
    body = {"username": "mallory", "password": "good enough", **fields}
    problem_of(charlie.post("/api/users", body), 403, "beyond-own-rights")
    for username in ("bob", "charlie"):
        problem_of(charlie.patch(f"/api/users/{username}", fields), 403, "beyond-own-rights")
    assert everything_stored() == before


@pytest.mark.parametrize(
    "change",
    [
        {"password": "charlie's choice"},
        {"enabled": False},
        {"roles": []},
        {"grantTypes": []},
        {"permissions": [DENY_ALL]},
        {},
    ],
)
def test_charlie_cannot_touch_an_administrator(charlie: Caller, change: dict[str, Any]) -> None:
    before = everything_stored()
    problem_of(charlie.patch("/api/users/alice", change), 403, "beyond-own-rights")
    problem_of(charlie.delete("/api/users/alice"), 403, "beyond-own-rights")
    assert everything_stored() == before


def test_charlie_may_make_devices_with_any_topics(charlie: Caller, broker: Broker) -> None:
    charlie.creates_user("press-7", "good enough", roles=["line"], permissions=[permission("readWrite #")])
    assert broker.acl("press-7", "any/thing", 2) == YES


def test_charlie_may_hand_out_what_he_has(charlie: Caller) -> None:
    charlie.creates_user("cindy", permissions=[permission("http read /api/users/+"), permission("http read /api/me")])
    charlie.creates_user("colin", roles=["minimum-access"])
    charlie.creates_user("craig", permissions=[DENY_ALL])


def test_whoever_is_denied_a_part_cannot_hand_out_the_whole(alice: Caller, charlie: Caller) -> None:
    rights = [permission("http readWrite /api/users/#"), permission("deny http write /api/users/admin")]
    alice.patch("/api/users/charlie", {"permissions": rights})
    whole = {"username": "mallory", "permissions": [permission("http write /api/users/#")]}
    problem_of(charlie.post("/api/users", whole), 403, "beyond-own-rights")


def test_nobody_shakes_off_a_deny_rule_of_their_own(alice: Caller, charlie: Caller) -> None:
    rights = [permission("http readWrite /api/users/#"), permission("deny http write /api/users/admin")]
    alice.patch("/api/users/charlie", {"permissions": rights})
    problem_of(charlie.patch("/api/users/charlie", {"permissions": rights[:1]}), 403, "beyond-own-rights")


# The same through roles.

REGISTRAR = [permission("http readWrite /api/roles/#"), permission("http readWrite /api/users/#")]


@pytest.fixture
def registrar(alice: Caller, charlie: Caller) -> Caller:
    """Charlie with roles to look after as well."""
    assert alice.patch("/api/users/charlie", {"permissions": REGISTRAR}).status_code == 200
    return charlie


def test_charlie_cannot_put_into_a_role_what_he_lacks(registrar: Caller) -> None:
    before = everything_stored()
    mighty = {"name": "mighty", "permissions": [ALLOW_ALL]}
    problem_of(registrar.post("/api/roles", mighty), 403, "beyond-own-rights")
    problem_of(registrar.patch("/api/roles/line", {"permissions": [ALLOW_ALL]}), 403, "beyond-own-rights")
    assert everything_stored() == before


@pytest.mark.parametrize("change", [{"description": "mine"}, {"permissions": []}])
def test_charlie_cannot_touch_a_role_that_holds_more_than_he(
    alice: Caller, registrar: Caller, change: dict[str, Any]
) -> None:
    alice.post("/api/roles", {"name": "auditor", "permissions": [permission("http read /api/audit")]})
    problem_of(registrar.patch("/api/roles/auditor", change), 403, "beyond-own-rights")
    problem_of(registrar.delete("/api/roles/auditor"), 403, "beyond-own-rights")


def test_nobody_shakes_off_a_deny_rule_that_came_through_a_role(alice: Caller, nobody: Caller) -> None:
    hands_off = {"name": "hands-off", "permissions": [permission("deny http write /api/users/#")]}
    assert alice.post("/api/roles", hands_off).status_code == 201
    alice.creates_user("eve", CHARLIES_PASSWORD, roles=["hands-off"], permissions=[ALLOW_ALL])
    eve = nobody.signs_in("eve", CHARLIES_PASSWORD)
    before = everything_stored()
    assert eve.patch("/api/roles/hands-off", {"permissions": []}).status_code == 403
    assert everything_stored() == before


# Nobody is left without an administrator.

LOCKING_OUT = [
    {"enabled": False},
    {"password": None},
    {"roles": []},
    {"roles": ["line"]},
    {"grantTypes": ["token"]},
    {"grantTypes": ["certificate", "token"]},
]


@pytest.fixture
def alone(alice: Caller) -> Caller:
    """Alice after `admin` has left."""
    assert alice.delete("/api/users/admin").status_code == 204
    return alice


@pytest.mark.parametrize("change", LOCKING_OUT)
def test_the_last_administrator_cannot_be_shut_out(alone: Caller, change: dict[str, Any]) -> None:
    before = everything_stored()
    problem_of(alone.patch("/api/users/alice", change), 409, "last-administrator")
    assert everything_stored() == before


def test_the_last_administrator_cannot_be_removed(alone: Caller) -> None:
    before = everything_stored()
    problem_of(alone.delete("/api/users/alice"), 409, "last-administrator")
    assert everything_stored() == before


def test_a_deny_rule_cannot_shut_out_the_last_administrator(alone: Caller) -> None:
    before = everything_stored()
    answer = alone.patch("/api/users/alice", {"permissions": [DENY_ALL]})
    problem_of(answer, 409, "last-administrator")
    assert everything_stored() == before


@pytest.mark.parametrize("change", LOCKING_OUT)
def test_one_of_two_administrators_may_go(alice: Caller, change: dict[str, Any]) -> None:
    assert alice.patch("/api/users/admin", change).status_code == 200


def test_a_disabled_administrator_does_not_count_as_one(alice: Caller) -> None:
    assert alice.patch("/api/users/admin", {"enabled": False}).status_code == 200
    problem_of(alice.delete("/api/users/alice"), 409, "last-administrator")


def test_the_last_administrator_may_change_what_does_not_matter(alone: Caller) -> None:
    assert alone.patch("/api/users/alice", {"password": "alice's next secret"}).status_code == 200
    assert alone.patch("/api/users/alice", {"roles": ["admin", "line"]}).status_code == 200


def test_a_deny_rule_in_a_role_cannot_shut_out_the_last_administrator(alone: Caller) -> None:
    assert alone.patch("/api/users/alice", {"roles": ["admin", "line"]}).status_code == 200
    before = everything_stored()
    answer = alone.patch("/api/roles/line", {"permissions": [DENY_ALL]})
    problem_of(answer, 409, "last-administrator")
    assert everything_stored() == before
