"""A preauthorized name goes to the device that is meant: by a one-time secret, by its key, or by an approval."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from authsvc.credentials.passwords import PasswordPolicy
from authsvc.storage.database import session
from registry import preauthorization_match
from registry.models import Preauthorization
from registry.mqtt_registration.attempted_names import MAX_NAMES, AttemptedNames
from registry.mqtt_registration.registration import Outcome
from tests.http.callers import basic, problem_of, refused_fields
from tests.registry.environment import (
    BOBS_PASSWORD,
    ON_BOTH_DATABASES,
    REGISTRATIONS,
    actions,
    broken,
    done,
    events,
    expire,
    stored,
    with_settings,
)
from tests.registry.signing import der_of, new_key, signing_request
from tests.registry.test_enrolment_keys import KEYS, make_key
from tests.registry.test_preauthorizations import ADVANCES, READS_ORDERS, fingerprint, preauthorize, waiting

if TYPE_CHECKING:
    from werkzeug.test import TestResponse

    from tests.registry.environment import Place

ATTACKERS_PASSWORD = "the attacker's secret"
OVER_USERS = {"context": "http", "operation": "write", "resource": "/api/users/#", "effect": "allow"}


def bound_to_secret(place: Place, username: str = "bob", **fields: Any) -> str:
    """Let Alice preauthorize a name with a secret, and return the secret."""
    secret: str = preauthorize(place, username, withSecret=True, **fields)["secret"]
    return secret


def held_reason(place: Place) -> str | None:
    shown = place.registration()
    assert shown["status"] == "pending"
    reason: str | None = shown["heldReason"]
    return reason


@ON_BOTH_DATABASES
def test_a_device_that_connects_with_the_secret_is_let_in_and_keeps_it_as_its_password(place: Place) -> None:
    secret = bound_to_secret(place, roles=["press"], permissions=[READS_ORDERS])
    assert not place.connects("bob", secret)
    assert place.connects("bob", secret)
    user = place.user()
    assert user
    assert (user["roles"], user["permissions"]) == (["press"], [READS_ORDERS])
    assert waiting(place) == []


@ON_BOTH_DATABASES
def test_whoever_tries_the_name_first_without_the_secret_does_not_get_it(place: Place) -> None:
    secret = bound_to_secret(place, roles=["press"])
    assert not place.connects("bob", ATTACKERS_PASSWORD)
    assert not place.connects("bob", ATTACKERS_PASSWORD)
    problem_of(place.registers(password="another guess"), 409, "username-taken")
    assert place.user() is None
    assert held_reason(place) == "binding-not-met"
    assert place.registration()["startingRoles"] == []
    assert not place.connects("bob", secret)
    assert place.connects("bob", secret)
    assert not place.connects("bob", ATTACKERS_PASSWORD)
    assert "registration.replace" in actions()


def test_the_secret_counts_also_when_others_try_the_name_at_the_same_time(place: Place) -> None:
    secret = bound_to_secret(place)
    for number in range(20):
        place.hears("bob", f"guess number {number}")
    place.hears("bob", secret)
    place.intake.flush()
    assert place.connects("bob", secret)


def test_a_spray_of_passwords_keeps_the_holder_of_the_secret_out_for_one_attempt_at_most(place: Place) -> None:
    secret = bound_to_secret(place)
    for _ in range(2):
        for number in range(60):
            place.hears("bob", f"guess number {number}")
        place.hears("bob", secret)
        place.intake.flush()
    assert place.connects("bob", secret)


@ON_BOTH_DATABASES
def test_a_client_sends_the_secret_as_its_enrolment_key(place: Place) -> None:
    secret = bound_to_secret(place, roles=["press"])
    problem_of(place.registers(), 423, "registry-locked")
    problem_of(place.registers(enrolmentKey="a guess"), 403, "enrolment-key-invalid")
    answer = place.registers(enrolmentKey=secret, password=BOBS_PASSWORD, csr=signing_request("bob"))
    assert answer.status_code == 201
    assert place.connects("bob", BOBS_PASSWORD)
    assert not place.connects("bob", secret)
    problem_of(place.registers("carol", enrolmentKey=secret), 403, "enrolment-key-invalid")


@pytest.mark.parametrize("same_holder", [True, False])
def test_a_client_with_the_secret_takes_the_place_of_a_pending_registration(place: Place, same_holder: bool) -> None:
    place.unlock()
    before = place.asks(password=BOBS_PASSWORD if same_holder else ATTACKERS_PASSWORD)
    problem_of(place.alice.post(ADVANCES, {"username": "bob"}), 409, "username-taken")
    secret = bound_to_secret(place)
    place.lock()
    assert place.registers(enrolmentKey=secret).status_code == 201
    assert place.connects("bob", BOBS_PASSWORD)
    assert place.registration()["id"] != before


def test_a_client_with_the_key_takes_the_place_of_whoever_tried_the_name_first(place: Place) -> None:
    key = new_key()
    preauthorize(place, csrFingerprint=fingerprint(key))
    assert not place.connects("bob", ATTACKERS_PASSWORD)
    assert held_reason(place) == "binding-not-met"
    assert place.registers(csr=signing_request("bob", key)).status_code == 201
    assert not place.connects("bob", ATTACKERS_PASSWORD)


def test_a_copied_signing_request_does_not_set_the_password_of_a_preauthorized_name(place: Place) -> None:
    key = new_key()
    preauthorize(place, csrFingerprint=fingerprint(key))
    copied = signing_request("bob", key)
    problem_of(place.registers(csr=copied, password=ATTACKERS_PASSWORD), 423, "registry-locked")
    place.unlock()
    assert place.registers(csr=copied, password=ATTACKERS_PASSWORD).status_code == 202
    assert held_reason(place) == "binding-not-met"
    assert place.user() is None
    assert place.registers(csr=copied).status_code == 201
    user = place.user()
    assert user
    assert user["grantTypes"] == ["certificate"]


def test_a_copied_signing_request_does_not_set_the_password_over_est(place: Place) -> None:
    key = new_key()
    preauthorize(place, csrFingerprint=fingerprint(key))
    answer = enrols_over_est(place, signing_request("bob", key), ATTACKERS_PASSWORD)
    assert answer.status_code == 423
    assert place.user() is None


@ON_BOTH_DATABASES
@pytest.mark.parametrize("over", ["rest", "mqtt"])
def test_denying_an_impostor_does_not_lock_out_the_holder_of_the_secret(place: Place, over: str) -> None:
    secret = bound_to_secret(place)
    assert not place.connects("bob", ATTACKERS_PASSWORD)
    done(place.deny(place.registration()["id"]))
    problem_of(place.registers(password=ATTACKERS_PASSWORD), 403, "registration-denied")
    if over == "rest":
        assert place.registers(enrolmentKey=secret).status_code == 201
    else:
        assert not place.connects("bob", secret)
        assert place.connects("bob", secret)
    assert place.registration()["status"] == "granted"
    assert "registration.replace" in actions()


def test_a_name_that_was_denied_for_another_reason_stays_denied_also_for_the_holder_of_the_secret(
    place: Place,
) -> None:
    place.unlock()
    registration = place.asks(password=ATTACKERS_PASSWORD)
    secret = bound_to_secret(place)
    done(place.deny(registration))
    problem_of(place.registers(enrolmentKey=secret), 403, "registration-denied")
    assert not place.connects("bob", secret)
    assert not place.connects("bob", secret)
    assert place.alice.delete(f"{REGISTRATIONS}/{registration}").status_code == 204
    assert place.registers(enrolmentKey=secret).status_code == 201


def test_the_secret_of_a_name_is_good_for_one_device(place: Place) -> None:
    secret = bound_to_secret(place)
    assert place.registers(enrolmentKey=secret).status_code == 201
    assert place.alice.delete("/api/users/bob").status_code == 204
    problem_of(place.registers(enrolmentKey=secret), 403, "enrolment-key-invalid")
    assert not place.connects("bob", secret)
    assert not place.connects("bob", secret)


@ON_BOTH_DATABASES
def test_a_secret_is_shown_once_and_stored_as_a_digest(place: Place) -> None:
    made = preauthorize(place, withSecret=True)
    secret = made.pop("secret")
    assert made["withSecret"]
    assert done(place.alice.get(ADVANCES))["items"] == [made]
    with session():
        assert secret not in str(list(Preauthorization.select().tuples()))
    assert secret not in str(events())
    assert "secret" not in done(place.alice.get(ADVANCES))["items"][0]


@with_settings(password_policy=PasswordPolicy(min=30, lower=3, upper=3, numeric=3, symbol=3))
def test_a_secret_satisfies_the_policy_for_passwords(place: Place) -> None:
    secret = bound_to_secret(place)
    assert not place.connects("bob", secret)
    assert place.connects("bob", secret)


def test_a_secret_and_a_key_cannot_be_combined(place: Place) -> None:
    body = {"username": "bob", "withSecret": True, "csrFingerprint": fingerprint(new_key())}
    assert refused_fields(place.alice.post(ADVANCES, body)) == ["withSecret"]


def test_a_file_gets_a_secret_for_each_line_that_names_no_key(place: Place) -> None:
    key = new_key()
    text = f"username,roles,csrFingerprint\nbob,press,\ncarol,,{fingerprint(key)}\n"
    answer = done(place.alice.call("POST", f"{ADVANCES}/csv?withSecrets=true", data=text.encode()))
    ((bob, secret),) = [(one["username"], one["secret"]) for one in answer["secrets"]]
    assert (answer["created"], bob) == (2, "bob")
    assert place.registers("bob", enrolmentKey=secret).status_code == 201
    assert place.registers("carol", csr=signing_request("carol", key)).status_code == 201


@ON_BOTH_DATABASES
def test_a_name_that_was_tried_before_it_was_preauthorized_waits_for_approval(place: Place) -> None:
    problem_of(place.registers(password=ATTACKERS_PASSWORD), 423, "registry-locked")
    preauthorize(place, roles=["press"], permissions=[READS_ORDERS])
    assert place.registers(password=ATTACKERS_PASSWORD).status_code == 202
    assert place.user() is None
    assert held_reason(place) == "tried-before"
    shown = place.registration()
    assert (shown["startingRoles"], shown["startingPermissions"]) == (["press"], [READS_ORDERS])
    # It was expected, so nobody has to unlock the registry for it.
    place.granted(shown["id"], acceptConflicts=True)
    user = place.user()
    assert user
    assert (user["roles"], user["permissions"]) == (["press"], [READS_ORDERS])
    assert waiting(place) == []


@with_settings(registry_capture_while_locked=False)
def test_an_attempt_to_connect_that_was_not_recorded_counts_as_one(place: Place) -> None:
    assert not place.connects("bob", ATTACKERS_PASSWORD)
    assert place.intake.counters[Outcome.LOCKED] == 1
    preauthorize(place)
    assert not place.connects("bob", ATTACKERS_PASSWORD)
    assert not place.connects("bob", ATTACKERS_PASSWORD)
    assert held_reason(place) == "tried-before"


def test_an_attempt_that_waits_to_be_written_counts_as_one(place: Place) -> None:
    place.hears("bob", ATTACKERS_PASSWORD)
    preauthorize(place)
    place.intake.flush()
    assert held_reason(place) == "tried-before"


@ON_BOTH_DATABASES
@pytest.mark.parametrize("end", ["deleted", "expired"])
def test_an_earlier_registration_counts_as_an_attempt_in_every_process(place: Place, end: str) -> None:
    place.unlock()
    registration = place.asks(password=ATTACKERS_PASSWORD)
    if end == "deleted":
        assert place.alice.delete(f"{REGISTRATIONS}/{registration}").status_code == 204
    else:
        expire()
    place.lock()
    assert preauthorize(place)["heldReason"] == "tried-before"
    with session():
        found = preauthorization_match.match("bob", None, (), AttemptedNames())
    assert found
    assert found.held == "tried-before"


@ON_BOTH_DATABASES
def test_a_process_that_has_seen_the_name_holds_it_for_all_others(place: Place) -> None:
    another = AttemptedNames()
    another.note("bob")
    preauthorize(place)
    preauthorize(place, "carol")
    secret = bound_to_secret(place, "dave")
    another.note("carol")
    preauthorization_match.hold_attempted(another)
    shown = {one["username"]: one["heldReason"] for one in done(place.alice.get(ADVANCES))["items"]}
    assert shown == {"bob": "tried-before", "carol": None, "dave": None}
    assert place.registers("bob").status_code == 202
    assert place.registers("carol").status_code == 201
    assert place.registers("dave", enrolmentKey=secret).status_code == 201


def test_names_are_remembered_in_bounded_memory_and_the_one_tried_least_recently_is_forgotten() -> None:
    names = AttemptedNames()
    for number in range(MAX_NAMES):
        names.note(str(number))
    names.note("0")
    names.count_unrecorded("one more", 3)
    assert names.tried_before("0", 0)
    assert not names.tried_before("1", 0)
    assert not names.tried_before("0", 3600)
    assert [names.take_unrecorded("one more") for _ in range(2)] == [3, 0]
    assert names.take_unrecorded("1") == 0


@with_settings(registry_max_pending=1)
def test_one_that_is_held_takes_a_place_among_those_recorded_while_unlocked(place: Place) -> None:
    place.registers(password=ATTACKERS_PASSWORD)
    preauthorize(place)
    place.unlock()
    place.asks("carol")
    place.asks("bob")
    assert [one["username"] for one in place.registrations(status="pending")] == ["bob"]
    assert held_reason(place) == "tried-before"
    # Once its registration had to go, the name is held again.
    place.asks("carol")
    place.asks("bob")
    assert held_reason(place) == "tried-before"


@pytest.mark.parametrize("given", [{"roles": ["admin"]}, {"permissions": [OVER_USERS]}], ids=["role", "permission"])
def test_rights_over_this_service_are_preauthorized_only_for_the_holder_of_a_secret_or_key(
    place: Place, given: dict[str, Any]
) -> None:
    (field,) = refused_fields(place.alice.post(ADVANCES, {"username": "bob", **given}))
    assert field in ("roles[0]", "permissions[0]")
    secret = bound_to_secret(place, **given)
    assert place.registers(enrolmentKey=secret).status_code == 201


def test_a_role_that_gained_rights_over_this_service_is_not_given_to_whoever_comes_first(place: Place) -> None:
    preauthorize(place, roles=["press"])
    done(place.alice.patch("/api/roles/press", {"permissions": [OVER_USERS]}))
    assert place.registers().status_code == 202
    assert held_reason(place) == "http-rights"
    registration = place.registration()["id"]
    problem_of(place.grant(registration), 409, "registration-http-rights")
    place.granted(registration, acceptHttpRights=True)


@pytest.mark.parametrize("binding", ["secret", "key"])
def test_an_enrolment_key_does_not_take_a_name_that_is_bound_to_something_else(place: Place, binding: str) -> None:
    holder = new_key()
    preauthorize(place, **({"withSecret": True} if binding == "secret" else {"csrFingerprint": fingerprint(holder)}))
    key = make_key(place, roles=["line"])
    problem_of(place.registers(enrolmentKey=key["secret"]), 409, "username-taken")
    problem_of(place.registers(enrolmentKey="a guess"), 403, "enrolment-key-invalid")
    assert place.user() is None
    assert waiting(place) == ["bob"]
    assert done(place.alice.get(KEYS))["items"][0]["used"] == 0


def test_an_enrolment_key_does_not_admit_a_name_whose_preauthorization_is_held(place: Place) -> None:
    problem_of(place.registers(password=ATTACKERS_PASSWORD), 423, "registry-locked")
    preauthorize(place)
    key = make_key(place, roles=["line"])
    assert place.registers(enrolmentKey=key["secret"]).status_code == 202
    assert place.user() is None
    assert held_reason(place) == "tried-before"
    assert waiting(place) == ["bob"]


def enrols_over_est(place: Place, csr: str, password: str) -> TestResponse:
    return place.stranger.call(
        "POST",
        "/.well-known/est/simpleenroll",
        data=base64.encodebytes(der_of(csr)),
        headers={"Authorization": basic("bob", password)},
    )


def test_over_est_the_secret_is_the_password(place: Place) -> None:
    secret = bound_to_secret(place)
    answer = enrols_over_est(place, signing_request("bob"), secret)
    assert answer.status_code == 200, answer.text
    assert place.connects("bob", secret)


def test_a_preauthorization_that_fails_leaves_the_pending_registration_as_it_was(place: Place) -> None:
    place.unlock()
    place.asks(password=ATTACKERS_PASSWORD)
    secret = bound_to_secret(place)
    before = stored()
    with broken("audit_events", "NEW.action = 'registration.grant'"):
        assert place.registers(enrolmentKey=secret).status_code in (409, 500)
    row = stored()
    assert row
    assert before
    assert (row.id, row.status, row.password_hash) == (before.id, "pending", before.password_hash)
    assert waiting(place) == ["bob"]
