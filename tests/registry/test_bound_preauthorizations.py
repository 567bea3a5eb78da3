"""Preauthorizations that are bound to a secret or key, or held for an approval."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from authsvc.credentials.passwords import PasswordPolicy
from authsvc.storage.database import session
from registry import preauthorizations
from registry.models import Preauthorization
from registry.mqtt_registration.attempted_names import MAX_NAMES, AttemptedNames
from registry.mqtt_registration.registration import Outcome
from tests.http.callers import basic, problem_of, refused_fields
from tests.registry.environment import (
    BOBS_PASSWORD,
    ON_BOTH_DATABASES,
    REGISTRATIONS,
    actions,
    events,
    expect_success,
    expire,
    failing_writes,
    stored_registration,
    with_settings,
)
from tests.registry.signing import der_of, new_key, signing_request
from tests.registry.test_enrolment_keys import KEYS, make_key
from tests.registry.test_preauthorizations import PREAUTHORIZATIONS, READS_ORDERS, fingerprint, preauthorize, waiting

if TYPE_CHECKING:
    from werkzeug.test import TestResponse

    from tests.registry.environment import Environment

ATTACKERS_PASSWORD = "the attacker's secret"
OVER_USERS = {"context": "http", "operation": "write", "resource": "/api/users/#", "effect": "allow"}


def bound_to_secret(env: Environment, username: str = "bob", **fields: Any) -> str:
    """Preauthorize a name with a secret; return the secret."""
    secret: str = preauthorize(env, username, withSecret=True, **fields)["secret"]
    return secret


def held_reason(env: Environment) -> str | None:
    shown = env.registration()
    assert shown["status"] == "pending"
    reason: str | None = shown["heldReason"]
    return reason


@ON_BOTH_DATABASES
def test_device_that_connects_with_the_secret_keeps_it_as_password(env: Environment) -> None:
    secret = bound_to_secret(env, roles=["press"], permissions=[READS_ORDERS])
    assert not env.connect("bob", secret)
    assert env.connect("bob", secret)
    user = env.user()
    assert user
    assert (user["roles"], user["permissions"]) == (["press"], [READS_ORDERS])
    assert waiting(env) == []


@ON_BOTH_DATABASES
def test_first_device_without_the_secret_is_not_granted(env: Environment) -> None:
    secret = bound_to_secret(env, roles=["press"])
    assert not env.connect("bob", ATTACKERS_PASSWORD)
    assert not env.connect("bob", ATTACKERS_PASSWORD)
    problem_of(env.register(password="another guess"), 409, "username-taken")
    assert env.user() is None
    assert held_reason(env) == "binding-not-met"
    assert env.registration()["startingRoles"] == []
    assert not env.connect("bob", secret)
    assert env.connect("bob", secret)
    assert not env.connect("bob", ATTACKERS_PASSWORD)
    assert "registration.replace" in actions()


def test_secret_is_found_among_other_passwords_for_the_name(env: Environment) -> None:
    secret = bound_to_secret(env)
    for number in range(20):
        env.authenticate("bob", f"guess number {number}")
    env.authenticate("bob", secret)
    env.mqtt.flush()
    assert env.connect("bob", secret)


def test_many_passwords_delay_the_device_with_the_secret_by_one_attempt(env: Environment) -> None:
    secret = bound_to_secret(env)
    for _ in range(2):
        for number in range(60):
            env.authenticate("bob", f"guess number {number}")
        env.authenticate("bob", secret)
        env.mqtt.flush()
    assert env.connect("bob", secret)


@ON_BOTH_DATABASES
def test_client_can_send_the_secret_as_enrolment_key(env: Environment) -> None:
    secret = bound_to_secret(env, roles=["press"])
    problem_of(env.register(), 423, "registry-locked")
    problem_of(env.register(enrolmentKey="a guess"), 403, "enrolment-key-invalid")
    answer = env.register(enrolmentKey=secret, password=BOBS_PASSWORD, csr=signing_request("bob"))
    assert answer.status_code == 201
    assert env.connect("bob", BOBS_PASSWORD)
    assert not env.connect("bob", secret)
    problem_of(env.register("carol", enrolmentKey=secret), 403, "enrolment-key-invalid")


@pytest.mark.parametrize("same_holder", [True, False])
def test_client_with_the_secret_replaces_a_pending_registration(env: Environment, same_holder: bool) -> None:
    env.unlock()
    before = env.register_pending(password=BOBS_PASSWORD if same_holder else ATTACKERS_PASSWORD)
    problem_of(env.alice.post(PREAUTHORIZATIONS, {"username": "bob"}), 409, "username-taken")
    secret = bound_to_secret(env)
    env.lock()
    assert env.register(enrolmentKey=secret).status_code == 201
    assert env.connect("bob", BOBS_PASSWORD)
    assert env.registration()["id"] != before


def test_client_with_the_key_replaces_a_pending_registration(env: Environment) -> None:
    key = new_key()
    preauthorize(env, csrFingerprint=fingerprint(key))
    assert not env.connect("bob", ATTACKERS_PASSWORD)
    assert held_reason(env) == "binding-not-met"
    assert env.register(csr=signing_request("bob", key)).status_code == 201
    assert not env.connect("bob", ATTACKERS_PASSWORD)


def test_copied_csr_cannot_set_the_password_of_a_preauthorized_name(env: Environment) -> None:
    key = new_key()
    preauthorize(env, csrFingerprint=fingerprint(key))
    copied = signing_request("bob", key)
    problem_of(env.register(csr=copied, password=ATTACKERS_PASSWORD), 423, "registry-locked")
    env.unlock()
    assert env.register(csr=copied, password=ATTACKERS_PASSWORD).status_code == 202
    assert held_reason(env) == "binding-not-met"
    assert env.user() is None
    assert env.register(csr=copied).status_code == 201
    user = env.user()
    assert user
    assert user["grantTypes"] == ["certificate"]


def test_copied_csr_cannot_set_the_password_over_est(env: Environment) -> None:
    key = new_key()
    preauthorize(env, csrFingerprint=fingerprint(key))
    answer = enrols_over_est(env, signing_request("bob", key), ATTACKERS_PASSWORD)
    assert answer.status_code == 423
    assert env.user() is None


@ON_BOTH_DATABASES
@pytest.mark.parametrize("over", ["rest", "mqtt"])
def test_device_with_the_secret_is_granted_after_an_impostor_was_denied(env: Environment, over: str) -> None:
    secret = bound_to_secret(env)
    assert not env.connect("bob", ATTACKERS_PASSWORD)
    expect_success(env.deny(env.registration()["id"]))
    problem_of(env.register(password=ATTACKERS_PASSWORD), 403, "registration-denied")
    if over == "rest":
        assert env.register(enrolmentKey=secret).status_code == 201
    else:
        assert not env.connect("bob", secret)
        assert env.connect("bob", secret)
    assert env.registration()["status"] == "granted"
    assert "registration.replace" in actions()


def test_name_denied_for_another_reason_stays_denied_for_the_device_with_the_secret(
    env: Environment,
) -> None:
    env.unlock()
    registration = env.register_pending(password=ATTACKERS_PASSWORD)
    secret = bound_to_secret(env)
    expect_success(env.deny(registration))
    problem_of(env.register(enrolmentKey=secret), 403, "registration-denied")
    assert not env.connect("bob", secret)
    assert not env.connect("bob", secret)
    assert env.alice.delete(f"{REGISTRATIONS}/{registration}").status_code == 204
    assert env.register(enrolmentKey=secret).status_code == 201


def test_secret_can_be_used_once(env: Environment) -> None:
    secret = bound_to_secret(env)
    assert env.register(enrolmentKey=secret).status_code == 201
    assert env.alice.delete("/api/users/bob").status_code == 204
    problem_of(env.register(enrolmentKey=secret), 403, "enrolment-key-invalid")
    assert not env.connect("bob", secret)
    assert not env.connect("bob", secret)


@ON_BOTH_DATABASES
def test_secret_is_shown_once_and_stored_as_a_digest(env: Environment) -> None:
    made = preauthorize(env, withSecret=True)
    secret = made.pop("secret")
    assert made["withSecret"]
    assert expect_success(env.alice.get(PREAUTHORIZATIONS))["items"] == [made]
    with session():
        assert secret not in str(list(Preauthorization.select().tuples()))
    assert secret not in str(events())
    assert "secret" not in expect_success(env.alice.get(PREAUTHORIZATIONS))["items"][0]


@with_settings(password_policy=PasswordPolicy(min=30, lower=3, upper=3, numeric=3, symbol=3))
def test_secret_satisfies_the_password_policy(env: Environment) -> None:
    secret = bound_to_secret(env)
    assert not env.connect("bob", secret)
    assert env.connect("bob", secret)


def test_secret_and_key_cannot_be_combined(env: Environment) -> None:
    body = {"username": "bob", "withSecret": True, "csrFingerprint": fingerprint(new_key())}
    assert refused_fields(env.alice.post(PREAUTHORIZATIONS, body)) == ["withSecret"]


def test_upload_creates_a_secret_for_each_line_without_a_key(env: Environment) -> None:
    key = new_key()
    text = f"username,roles,csrFingerprint\nbob,press,\ncarol,,{fingerprint(key)}\n"
    answer = expect_success(env.alice.call("POST", f"{PREAUTHORIZATIONS}/csv?withSecrets=true", data=text.encode()))
    ((bob, secret),) = [(one["username"], one["secret"]) for one in answer["secrets"]]
    assert (answer["created"], bob) == (2, "bob")
    assert env.register("bob", enrolmentKey=secret).status_code == 201
    assert env.register("carol", csr=signing_request("carol", key)).status_code == 201


@ON_BOTH_DATABASES
def test_name_tried_before_its_preauthorization_needs_approval(env: Environment) -> None:
    problem_of(env.register(password=ATTACKERS_PASSWORD), 423, "registry-locked")
    preauthorize(env, roles=["press"], permissions=[READS_ORDERS])
    assert env.register(password=ATTACKERS_PASSWORD).status_code == 202
    assert env.user() is None
    assert held_reason(env) == "tried-before"
    shown = env.registration()
    assert (shown["startingRoles"], shown["startingPermissions"]) == (["press"], [READS_ORDERS])
    # It is preauthorized, so it can be granted while the registry is locked.
    env.grant_successfully(shown["id"], acceptConflicts=True)
    user = env.user()
    assert user
    assert (user["roles"], user["permissions"]) == (["press"], [READS_ORDERS])
    assert waiting(env) == []


@with_settings(registry_capture_while_locked=False)
def test_unrecorded_attempt_holds_a_later_preauthorization(env: Environment) -> None:
    assert not env.connect("bob", ATTACKERS_PASSWORD)
    assert env.mqtt.counters[Outcome.LOCKED] == 1
    preauthorize(env)
    assert not env.connect("bob", ATTACKERS_PASSWORD)
    assert not env.connect("bob", ATTACKERS_PASSWORD)
    assert held_reason(env) == "tried-before"


def test_queued_attempt_holds_a_later_preauthorization(env: Environment) -> None:
    env.authenticate("bob", ATTACKERS_PASSWORD)
    preauthorize(env)
    env.mqtt.flush()
    assert held_reason(env) == "tried-before"


@ON_BOTH_DATABASES
@pytest.mark.parametrize("end", ["deleted", "expired"])
def test_earlier_registration_holds_a_preauthorization_in_every_process(env: Environment, end: str) -> None:
    env.unlock()
    registration = env.register_pending(password=ATTACKERS_PASSWORD)
    if end == "deleted":
        assert env.alice.delete(f"{REGISTRATIONS}/{registration}").status_code == 204
    else:
        expire()
    env.lock()
    assert preauthorize(env)["heldReason"] == "tried-before"
    with session():
        found = preauthorizations.find_match("bob", None, (), AttemptedNames())
    assert found
    assert found.held_reason == "tried-before"


@ON_BOTH_DATABASES
def test_process_that_saw_the_name_holds_it_for_all_processes(env: Environment) -> None:
    another = AttemptedNames()
    another.add("bob")
    preauthorize(env)
    preauthorize(env, "carol")
    secret = bound_to_secret(env, "dave")
    another.add("carol")
    preauthorizations.hold_attempted_names(another)
    shown = {one["username"]: one["heldReason"] for one in expect_success(env.alice.get(PREAUTHORIZATIONS))["items"]}
    assert shown == {"bob": "tried-before", "carol": None, "dave": None}
    assert env.register("bob").status_code == 202
    assert env.register("carol").status_code == 201
    assert env.register("dave", enrolmentKey=secret).status_code == 201


def test_attempted_names_are_bounded_and_evict_the_least_recent() -> None:
    names = AttemptedNames()
    for number in range(MAX_NAMES):
        names.add(str(number))
    names.add("0")
    names.count_unrecorded("one more", 3)
    assert names.tried_before("0", 0)
    assert not names.tried_before("1", 0)
    assert not names.tried_before("0", 3600)
    assert [names.pop_unrecorded("one more") for _ in range(2)] == [3, 0]
    assert names.pop_unrecorded("1") == 0


@with_settings(registry_max_pending=1)
def test_held_registration_counts_towards_the_limit_while_unlocked(env: Environment) -> None:
    env.register(password=ATTACKERS_PASSWORD)
    preauthorize(env)
    env.unlock()
    env.register_pending("carol")
    env.register_pending("bob")
    assert [one["username"] for one in env.registrations(status="pending")] == ["bob"]
    assert held_reason(env) == "tried-before"
    # After the eviction of its registration, the name is held again.
    env.register_pending("carol")
    env.register_pending("bob")
    assert held_reason(env) == "tried-before"


@pytest.mark.parametrize("given", [{"roles": ["admin"]}, {"permissions": [OVER_USERS]}], ids=["role", "permission"])
def test_http_rights_can_only_be_preauthorized_with_a_binding(env: Environment, given: dict[str, Any]) -> None:
    (field,) = refused_fields(env.alice.post(PREAUTHORIZATIONS, {"username": "bob", **given}))
    assert field in ("roles[0]", "permissions[0]")
    secret = bound_to_secret(env, **given)
    assert env.register(enrolmentKey=secret).status_code == 201


def test_unbound_preauthorization_whose_role_gained_http_rights_is_held(env: Environment) -> None:
    preauthorize(env, roles=["press"])
    expect_success(env.alice.patch("/api/roles/press", {"permissions": [OVER_USERS]}))
    assert env.register().status_code == 202
    assert held_reason(env) == "http-rights"
    registration = env.registration()["id"]
    problem_of(env.grant(registration), 409, "registration-http-rights")
    env.grant_successfully(registration, acceptHttpRights=True)


@pytest.mark.parametrize("binding", ["secret", "key"])
def test_enrolment_key_cannot_register_a_bound_name(env: Environment, binding: str) -> None:
    holder = new_key()
    preauthorize(env, **({"withSecret": True} if binding == "secret" else {"csrFingerprint": fingerprint(holder)}))
    key = make_key(env, roles=["line"])
    problem_of(env.register(enrolmentKey=key["secret"]), 409, "username-taken")
    problem_of(env.register(enrolmentKey="a guess"), 403, "enrolment-key-invalid")
    assert env.user() is None
    assert waiting(env) == ["bob"]
    assert expect_success(env.alice.get(KEYS))["items"][0]["used"] == 0


def test_enrolment_key_does_not_grant_a_held_name(env: Environment) -> None:
    problem_of(env.register(password=ATTACKERS_PASSWORD), 423, "registry-locked")
    preauthorize(env)
    key = make_key(env, roles=["line"])
    assert env.register(enrolmentKey=key["secret"]).status_code == 202
    assert env.user() is None
    assert held_reason(env) == "tried-before"
    assert waiting(env) == ["bob"]


def enrols_over_est(env: Environment, csr: str, password: str) -> TestResponse:
    return env.anonymous.call(
        "POST",
        "/.well-known/est/simpleenroll",
        data=base64.encodebytes(der_of(csr)),
        headers={"Authorization": basic("bob", password)},
    )


def test_secret_is_accepted_as_password_over_est(env: Environment) -> None:
    secret = bound_to_secret(env)
    answer = enrols_over_est(env, signing_request("bob"), secret)
    assert answer.status_code == 200, answer.text
    assert env.connect("bob", secret)


def test_failed_grant_leaves_the_pending_registration_unchanged(env: Environment) -> None:
    env.unlock()
    env.register_pending(password=ATTACKERS_PASSWORD)
    secret = bound_to_secret(env)
    before = stored_registration()
    with failing_writes("audit_events", "NEW.action = 'registration.grant'"):
        assert env.register(enrolmentKey=secret).status_code in (409, 500)
    row = stored_registration()
    assert row
    assert before
    assert (row.id, row.status, row.password_hash) == (before.id, "pending", before.password_hash)
    assert waiting(env) == ["bob"]
