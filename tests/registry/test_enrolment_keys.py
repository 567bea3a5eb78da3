"""Enrolment keys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from authsvc.storage.database import session
from registry.models import EnrolmentKey, Registration
from tests.http.callers import problem_of, refused_fields
from tests.registry.environment import (
    BOBS_PASSWORD,
    ON_BOTH_DATABASES,
    events,
    expect_success,
    in_parallel,
    shift_time,
    with_settings,
)
from tests.registry.signing import signing_request

if TYPE_CHECKING:
    from tests.registry.environment import Environment

KEYS = "/api/client-registry/enrolment-keys"


def make_key(env: Environment, **fields: Any) -> dict[str, Any]:
    """Create a key as Alice; return it with its secret."""
    return expect_success(env.alice.post(KEYS, {"label": "hall 3", **fields}))


def listed(env: Environment) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = expect_success(env.alice.get(KEYS))["items"]
    return items


@ON_BOTH_DATABASES
def test_client_with_a_key_is_granted_while_the_registry_is_locked(env: Environment) -> None:
    key = make_key(env, roles=["press"])
    answer = env.register(enrolmentKey=key["secret"], password=BOBS_PASSWORD, csr=signing_request("bob"))
    assert answer.status_code == 201
    assert "BEGIN CERTIFICATE" in answer.get_json()["certificate"]
    assert env.connect("bob", BOBS_PASSWORD)
    user = env.user()
    assert user
    assert (user["roles"], user["permissions"]) == (["press"], [])
    assert env.registration()["decidedBy"] == "authsvc"


def test_key_does_not_grant_requested_rights(env: Environment) -> None:
    key = make_key(env)
    assert env.register(enrolmentKey=key["secret"], roles=["admin"]).status_code == 201
    user = env.user()
    assert user
    assert user["roles"] == []


def test_key_with_approval_required_creates_a_pending_registration(env: Environment) -> None:
    key = make_key(env, roles=["press"], approvalRequired=True)
    registration = env.register_pending(enrolmentKey=key["secret"])
    assert env.user() is None
    assert env.registration()["startingRoles"] == ["press"]
    assert not env.registration()["recordedWhileLocked"]
    env.grant_successfully(registration, roles=["line"])
    user = env.user()
    assert user
    assert user["roles"] == ["line", "press"]


def test_repeated_request_costs_no_further_use(env: Environment) -> None:
    key = make_key(env, uses=2, approvalRequired=True)
    for _ in range(4):
        env.register_pending(enrolmentKey=key["secret"])
    assert listed(env)[0]["used"] == 1
    # A known client no longer needs the key.
    assert env.register().status_code == 202


@ON_BOTH_DATABASES
@pytest.mark.parametrize("approval_required", [False, True])
def test_key_with_five_uses_registers_exactly_five_clients(env: Environment, approval_required: bool) -> None:
    secret = make_key(env, uses=5, approvalRequired=approval_required)["secret"]
    answers = in_parallel(15, lambda number: env.register(f"bob-{number}", enrolmentKey=secret))
    let_in = 202 if approval_required else 201
    assert sorted(answer.status_code for answer in answers) == [let_in] * 5 + [403] * 10
    assert listed(env)[0]["used"] == 5
    assert len(env.registrations()) == 5
    made = [name for name in (f"bob-{number}" for number in range(15)) if env.user(name)]
    assert len(made) == (0 if approval_required else 5)


@ON_BOTH_DATABASES
def test_concurrent_requests_of_one_client_cost_one_use(env: Environment) -> None:
    secret, csr = make_key(env, uses=5)["secret"], signing_request("bob")
    answers = in_parallel(8, lambda _: env.register(enrolmentKey=secret, csr=csr))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.get_json()["certificate"] for answer in answers}) == 1
    assert listed(env)[0]["used"] == 1


def test_invalid_keys_are_refused_with_the_same_error(env: Environment) -> None:
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    used_up, revoked, expired = (make_key(env), make_key(env), make_key(env, expiresAt=soon))
    assert env.register("carol", enrolmentKey=used_up["secret"]).status_code == 201
    assert env.alice.delete(f"{KEYS}/{revoked['id']}").status_code == 204
    shift_time(timedelta(hours=1, seconds=1))
    secrets = [used_up["secret"], revoked["secret"], expired["secret"], "ek_unknown", "", used_up["id"]]
    answers = [env.register(enrolmentKey=secret) for secret in secrets]
    for answer in answers:
        problem_of(answer, 403, "enrolment-key-invalid")
        assert answer.data == answers[0].data
    assert env.user() is None
    # An invalid key is refused also while the registry is unlocked.
    env.unlock()
    problem_of(env.register(enrolmentKey="ek_unknown"), 403, "enrolment-key-invalid")


def test_registrations_survive_the_revocation_of_their_key(env: Environment) -> None:
    key = make_key(env)
    assert env.register(enrolmentKey=key["secret"]).status_code == 201
    env.alice.delete(f"{KEYS}/{key['id']}")
    assert env.register(enrolmentKey=key["secret"]).status_code == 201
    assert env.connect("bob", BOBS_PASSWORD)


@ON_BOTH_DATABASES
def test_key_secret_is_shown_once_and_stored_as_a_digest(env: Environment) -> None:
    key = make_key(env, uses=3, roles=["line"])
    secret = key.pop("secret")
    assert listed(env) == [key]
    assert (key["label"], key["uses"], key["used"], key["roles"]) == ("hall 3", 3, 0, ["line"])
    assert (key["createdBy"], key["revokedAt"], key["expiresAt"]) == ("alice", None, None)
    env.register(enrolmentKey=secret)
    with session():
        rows = [*EnrolmentKey.select().tuples(), *Registration.select().tuples()]
    assert secret not in str(rows)
    assert secret not in str(events())


def test_keys_are_listed_newest_first(env: Environment) -> None:
    first, second = make_key(env, label="first"), make_key(env, label="second")
    env.alice.delete(f"{KEYS}/{first['id']}")
    assert [(key["label"], key["revokedAt"] is not None) for key in listed(env)] == [("second", False), ("first", True)]
    problem_of(env.alice.delete(f"{KEYS}/nobody"), 404, "enrolment-key-not-found")
    assert second["revokedAt"] is None


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"uses": 0}, "uses"),
        ({"uses": 1_000_001}, "uses"),
        ({"label": ""}, "label"),
        ({"label": "x" * 201}, "label"),
        ({"roles": ["nobody"]}, "roles[0]"),
        ({"expiresAt": "tomorrow"}, "expiresAt"),
        ({"expiresAt": "2026-12-24T18:00:00"}, "expiresAt"),
    ],
)
def test_invalid_key_is_refused(env: Environment, fields: dict[str, Any], refused: str) -> None:
    assert refused_fields(env.alice.post(KEYS, {"label": "hall 3", **fields})) == [refused]
    assert listed(env) == []


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+10:00", "9999-12-31T23:59:59-10:00"])
def test_expiry_outside_the_supported_years_is_refused(env: Environment, moment: str) -> None:
    assert refused_fields(env.alice.post(KEYS, {"label": "hall 3", "expiresAt": moment})) == ["expiresAt"]


def test_actor_cannot_create_a_key_with_rights_that_it_lacks(env: Environment) -> None:
    answer = env.charlie.post(KEYS, {"label": "hall 3", "roles": ["admin"]})
    problem_of(answer, 403, "beyond-own-rights")
    assert listed(env) == []
    expect_success(env.charlie.post(KEYS, {"label": "hall 3", "roles": ["press"]}))


def test_key_with_a_deleted_role_still_registers(env: Environment) -> None:
    secret = make_key(env, roles=["press"])["secret"]
    env.alice.delete("/api/roles/press")
    assert env.register(enrolmentKey=secret).status_code == 201


@with_settings(registry_max_pending=1)
def test_registrations_with_a_key_count_towards_the_pending_limit(env: Environment) -> None:
    secret = make_key(env, uses=3, approvalRequired=True)["secret"]
    env.register_pending("bob-1", enrolmentKey=secret)
    env.register_pending("bob-2", enrolmentKey=secret)
    assert [one["username"] for one in env.registrations()] == ["bob-2"]
    assert listed(env)[0]["used"] == 2


def test_refused_password_costs_no_use(env: Environment) -> None:
    secret = make_key(env)["secret"]
    assert refused_fields(env.register(enrolmentKey=secret, password="1234")) == ["password"]
    assert listed(env)[0]["used"] == 0
