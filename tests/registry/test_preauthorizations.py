"""Preauthorizations without a binding."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.http.callers import problem_of, refused_fields
from tests.registry.environment import (
    BOBS_PASSWORD,
    ON_BOTH_DATABASES,
    actions,
    expect_success,
    expire,
    in_parallel,
    shift_time,
    with_settings,
)
from tests.registry.signing import new_key, signing_request, spki

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from tests.registry.environment import Environment

PREAUTHORIZATIONS = "/api/client-registry/preauthorizations"
READS_ORDERS = {"context": "mqtt", "operation": "read", "resource": "orders/%u", "effect": "allow"}


def preauthorize(env: Environment, username: str = "bob", **fields: Any) -> dict[str, Any]:
    return expect_success(env.alice.post(PREAUTHORIZATIONS, {"username": username, **fields}))


def waiting(env: Environment) -> list[str]:
    """Return the names of unused preauthorizations."""
    return [one["username"] for one in expect_success(env.alice.get(PREAUTHORIZATIONS))["items"]]


def fingerprint(key: EllipticCurvePrivateKey) -> str:
    return hashlib.sha256(spki(key.public_key())).hexdigest()


@ON_BOTH_DATABASES
def test_preauthorized_device_connects_at_its_second_attempt(env: Environment) -> None:
    preauthorize(env, roles=["press"], permissions=[READS_ORDERS])
    assert not env.connect("bob", BOBS_PASSWORD, "press-7")
    assert env.connect("bob", BOBS_PASSWORD, "press-7")
    user = env.user()
    assert user
    assert (user["roles"], user["permissions"]) == (["press"], [READS_ORDERS])
    shown = env.registration()
    assert (shown["kind"], shown["status"], shown["clientIds"]) == ("implicit", "granted", ["press-7"])
    assert not shown["recordedWhileLocked"]
    assert waiting(env) == []


@ON_BOTH_DATABASES
def test_preauthorized_client_is_granted_at_once_over_rest(env: Environment) -> None:
    preauthorize(env, roles=["press"])
    answer = env.register(csr=signing_request("bob"), roles=["admin"])
    assert answer.status_code == 201
    assert "BEGIN CERTIFICATE" in answer.get_json()["certificate"]
    user = env.user()
    assert user
    assert user["roles"] == ["press"]


def test_preauthorization_can_be_used_once(env: Environment) -> None:
    preauthorize(env)
    assert env.register().status_code == 201
    assert env.alice.delete("/api/users/bob").status_code == 204
    problem_of(env.register(), 423, "registry-locked")


@ON_BOTH_DATABASES
def test_concurrent_clients_use_a_preauthorization_once(env: Environment) -> None:
    preauthorize(env)
    passwords = [f"secret number {number}" for number in range(8)]
    answers = in_parallel(8, lambda number: env.register(password=passwords[number]))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    assert [env.connect("bob", password) for password in passwords].count(True) == 1


def test_first_contact_with_several_passwords_needs_approval(env: Environment) -> None:
    preauthorize(env, roles=["press"])
    env.authenticate("bob", BOBS_PASSWORD)
    env.authenticate("bob", "charlie's secret")
    assert env.connect("bob", BOBS_PASSWORD) is False
    assert env.connect("bob", BOBS_PASSWORD) is False
    shown = env.registration()
    assert (shown["status"], shown["heldReason"], shown["startingRoles"]) == ("pending", "conflicts", ["press"])
    problem_of(env.grant(shown["id"]), 409, "registration-has-conflicts")
    env.grant_successfully(shown["id"], acceptConflicts=True)
    assert env.connect("bob", BOBS_PASSWORD) is True


def test_preauthorization_for_a_key_grants_only_that_key(env: Environment) -> None:
    key = new_key()
    preauthorize(env, csrFingerprint=fingerprint(key))
    problem_of(env.register(csr=signing_request("bob")), 423, "registry-locked")
    problem_of(env.register(password=BOBS_PASSWORD), 423, "registry-locked")
    assert env.register(csr=signing_request("bob", key)).status_code == 201


def test_preauthorization_for_a_key_does_not_grant_a_password(env: Environment) -> None:
    preauthorize(env, csrFingerprint=fingerprint(new_key()))
    assert not env.connect("bob", BOBS_PASSWORD)
    assert not env.connect("bob", BOBS_PASSWORD)
    assert env.registration()["status"] == "pending"
    assert env.registration()["recordedWhileLocked"]


def test_expired_preauthorization_is_ignored(env: Environment) -> None:
    preauthorize(env, expiresAt=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    preauthorize(env, "carol", expiresAt=(datetime.now(UTC) + timedelta(hours=3)).isoformat())
    shift_time(timedelta(hours=2))
    problem_of(env.register(), 423, "registry-locked")
    assert env.register("carol").status_code == 201


def test_preauthorization_can_be_deleted(env: Environment) -> None:
    preauthorization = preauthorize(env)
    assert env.alice.delete(f"{PREAUTHORIZATIONS}/{preauthorization['id']}").status_code == 204
    problem_of(env.register(), 423, "registry-locked")
    problem_of(env.alice.delete(f"{PREAUTHORIZATIONS}/{preauthorization['id']}"), 404, "preauthorization-not-found")
    assert actions()[-2:] == ["preauthorization.create", "preauthorization.delete"]


@pytest.mark.parametrize("status", ["pending", "granted", "denied"])
def test_taken_or_decided_name_cannot_be_preauthorized(env: Environment, status: str) -> None:
    env.create_in_status(status)
    problem_of(env.alice.post(PREAUTHORIZATIONS, {"username": "bob"}), 409, "username-taken")
    problem_of(env.alice.post(PREAUTHORIZATIONS, {"username": "alice"}), 409, "username-taken")


def test_name_cannot_be_preauthorized_twice(env: Environment) -> None:
    preauthorize(env)
    problem_of(env.alice.post(PREAUTHORIZATIONS, {"username": "bob"}), 409, "username-taken")


@pytest.mark.parametrize("status", ["expired", "user deleted"])
def test_preauthorization_after_an_earlier_registration_needs_approval(env: Environment, status: str) -> None:
    env.create_in_status("expired" if status == "expired" else "granted")
    env.alice.delete("/api/users/bob")
    env.lock()
    preauthorize(env)
    assert env.register().status_code == 202
    env.grant_successfully(env.registration()["id"], acceptConflicts=True)
    assert env.register().status_code == 201


def test_expired_preauthorization_can_be_replaced(env: Environment) -> None:
    preauthorize(env, expiresAt=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    shift_time(timedelta(hours=2))
    preauthorize(env)


@with_settings(registry_max_pending=1)
def test_preauthorized_names_ignore_the_pending_limit(env: Environment) -> None:
    preauthorize(env)
    preauthorize(env, "dave")
    env.unlock()
    env.register_pending("carol")
    assert env.register().status_code == 201
    assert not env.connect("dave", "dave's secret")
    assert env.connect("dave", "dave's secret")


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"username": "b/#"}, "username"),
        ({"roles": ["nobody"]}, "roles[0]"),
        ({"csrFingerprint": "AB" * 32}, "csrFingerprint"),
        ({"csrFingerprint": "ab"}, "csrFingerprint"),
        ({"expiresAt": "never"}, "expiresAt"),
        ({"permissions": [{"context": "mqtt", "operation": "read", "resource": "a/#/b"}]}, "permissions[0].resource"),
    ],
)
def test_invalid_preauthorization_is_refused(env: Environment, fields: dict[str, Any], refused: str) -> None:
    assert refused_fields(env.alice.post(PREAUTHORIZATIONS, {"username": "bob", **fields})) == [refused]
    assert waiting(env) == []


def test_actor_cannot_preauthorize_rights_that_it_lacks(env: Environment) -> None:
    over_users = {"context": "http", "operation": "write", "resource": "/api/users/#"}
    for given in ({"roles": ["admin"]}, {"permissions": [over_users]}):
        problem_of(env.charlie.post(PREAUTHORIZATIONS, {"username": "bob", **given}), 403, "beyond-own-rights")
    assert waiting(env) == []
    expect_success(env.charlie.post(PREAUTHORIZATIONS, {"username": "bob", "roles": ["press"]}))


def test_deleted_role_does_not_stop_other_preauthorizations(env: Environment) -> None:
    preauthorize(env, roles=["press"])
    assert env.alice.delete("/api/roles/press").status_code == 204
    env.authenticate("bob", BOBS_PASSWORD)
    env.authenticate("carol", "carol's secret")
    env.flush()
    assert env.registration("carol")["status"] == "pending"


def test_preauthorization_replaces_an_expired_registration(env: Environment) -> None:
    preauthorize(env, csrFingerprint=fingerprint(key := new_key()))
    assert not env.connect("bob", BOBS_PASSWORD)
    expire()
    assert env.register(csr=signing_request("bob", key)).status_code == 201
