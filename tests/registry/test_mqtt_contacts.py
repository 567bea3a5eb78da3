"""A refused CONNECT with an unknown username becomes a pending registration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import bcrypt
import pytest

from authsvc.credentials.passwords import PasswordVerifier, Verdict
from authsvc.storage.database import session
from registry.models import Registration
from registry.mqtt_registration.registration import Outcome
from tests.http.callers import problem_of
from tests.registry.environment import (
    BOBS_PASSWORD,
    ON_BOTH_DATABASES,
    REGISTRATIONS,
    expect_success,
    expire,
    stored_registration,
    with_settings,
)

if TYPE_CHECKING:
    from tests.registry.environment import Environment

CHARLIES_GUESS = "charlie's secret"


@ON_BOTH_DATABASES
def test_unknown_device_is_recorded_granted_and_can_connect(env: Environment) -> None:
    env.unlock()
    assert env.authenticate("bob", BOBS_PASSWORD, "press-7") == "unknown-user"
    assert env.registrations() == []
    env.flush()
    shown = env.registration()
    assert (shown["kind"], shown["status"], shown["clientIds"]) == ("implicit", "pending", ["press-7"])
    assert (shown["attempts"], shown["conflicts"], shown["recordedWhileLocked"]) == (1, 0, False)
    assert (shown["pairingCode"], shown["csrFingerprint"], shown["hasPassword"]) == (None, None, True)
    assert shown["firstSeen"] == shown["lastSeen"]
    env.grant_successfully(shown["id"])
    assert env.connect("bob", BOBS_PASSWORD)
    assert not env.connect("bob", CHARLIES_GUESS)
    user = env.user()
    assert user
    assert (user["grantTypes"], user["roles"], user["permissions"]) == (["password"], [], [])


@ON_BOTH_DATABASES
def test_registration_recorded_while_locked_can_only_be_granted_while_unlocked(env: Environment) -> None:
    env.connect("bob", BOBS_PASSWORD)
    shown = env.registration()
    assert shown["recordedWhileLocked"]
    problem_of(env.grant(shown["id"]), 423, "registry-locked")
    bulk = expect_success(env.alice.post(f"{REGISTRATIONS}/grant", {"ids": [shown["id"]]}))
    assert [one["code"] for one in bulk["failed"]] == ["registry-locked"]
    assert env.user() is None
    env.unlock()
    env.grant_successfully(shown["id"])
    assert env.connect("bob", BOBS_PASSWORD)


def test_registration_recorded_while_unlocked_can_always_be_granted(env: Environment) -> None:
    env.unlock()
    env.connect("bob", BOBS_PASSWORD)
    env.lock()
    env.grant_successfully(env.registration()["id"])
    assert env.connect("bob", BOBS_PASSWORD)


def test_registration_recorded_while_locked_can_be_denied_and_deleted_while_locked(env: Environment) -> None:
    env.connect("bob", BOBS_PASSWORD)
    env.connect("carol", "carol's secret")
    assert env.deny(env.registration("bob")["id"]).status_code == 200
    assert env.alice.delete(f"{REGISTRATIONS}/{env.registration('carol')['id']}").status_code == 204


@with_settings(registry_capture_while_locked=False)
def test_capture_while_locked_can_be_switched_off(env: Environment) -> None:
    env.connect("bob", BOBS_PASSWORD)
    assert env.registrations() == []
    assert env.mqtt.counters[Outcome.LOCKED] == 1
    env.unlock()
    env.connect("bob", BOBS_PASSWORD)
    assert not env.registration()["recordedWhileLocked"]


@ON_BOTH_DATABASES
def test_attempts_and_client_ids_of_a_name_are_collected(env: Environment) -> None:
    for client_id in ("press-7", "press-8", "press-7", ""):
        env.authenticate("bob", BOBS_PASSWORD, client_id)
    env.flush()
    for client_id in ("press-9", "press-8"):
        env.connect("bob", BOBS_PASSWORD, client_id)
    shown = env.registration()
    assert shown["attempts"] == 6
    assert shown["clientIds"] == ["press-7", "press-8", "press-9"]
    assert shown["conflicts"] == 0


def test_first_ten_client_ids_are_stored(env: Environment) -> None:
    for number in range(30):
        env.authenticate("bob", BOBS_PASSWORD, f"flurry-{number}")
        if number % 7 == 0:
            env.flush()
    assert env.registration()["clientIds"] == [f"flurry-{number}" for number in range(10)]


def test_long_client_id_is_cut(env: Environment) -> None:
    env.connect("bob", BOBS_PASSWORD, "x" * 60_000)
    (shown,) = env.registration()["clientIds"]
    assert shown == "x" * 200


@pytest.mark.parametrize("client_id", ["\ud800", "\x1b[31m", "[/bold]", "ä\U0001f980", "' OR 1=1", "\uffff"])
def test_client_ids_of_any_kind_are_recorded(env: Environment, client_id: str) -> None:
    env.connect("bob", BOBS_PASSWORD, client_id)
    assert env.registration()["clientIds"] == [client_id]


@ON_BOTH_DATABASES
def test_other_password_is_a_conflict_and_never_replaces_the_first(env: Environment) -> None:
    env.unlock()
    env.connect("bob", BOBS_PASSWORD)
    env.connect("bob", CHARLIES_GUESS)
    env.connect("bob", BOBS_PASSWORD)
    env.connect("bob", "yet another secret")
    shown = env.registration()
    assert (shown["attempts"], shown["conflicts"]) == (4, 2)
    env.grant_successfully(shown["id"], acceptConflicts=True)
    assert not env.connect("bob", CHARLIES_GUESS)
    assert env.connect("bob", BOBS_PASSWORD)


def test_first_password_of_a_queued_contact_is_stored(env: Environment) -> None:
    env.unlock()
    for password in (BOBS_PASSWORD, CHARLIES_GUESS, BOBS_PASSWORD, CHARLIES_GUESS):
        env.authenticate("bob", password)
    env.flush()
    shown = env.registration()
    assert (shown["attempts"], shown["conflicts"]) == (4, 2)
    env.grant_successfully(shown["id"], acceptConflicts=True)
    assert env.connect("bob", BOBS_PASSWORD)


@pytest.mark.parametrize(
    ("flurry", "conflicts"),
    [
        ([CHARLIES_GUESS] * 3, 3),
        ([CHARLIES_GUESS, BOBS_PASSWORD, BOBS_PASSWORD], 1),
        (["guess number 1", "guess number 2", "guess number 3", BOBS_PASSWORD], 3),
    ],
    ids=["only wrong ones", "a wrong one first", "more than are compared"],
)
def test_conflicts_are_counted_against_the_stored_password(env: Environment, flurry: list[str], conflicts: int) -> None:
    env.connect("bob", BOBS_PASSWORD)
    for password in flurry:
        env.authenticate("bob", password)
    env.flush()
    assert env.registration()["conflicts"] == conflicts


def test_uncompared_attempt_is_not_a_conflict(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    env.connect("bob", BOBS_PASSWORD)
    env.authenticate("bob", BOBS_PASSWORD)
    env.authenticate("bob", CHARLIES_GUESS)
    with monkeypatch.context() as patched:
        patched.setattr(PasswordVerifier, "verify", lambda *_: Verdict.BUSY)
        env.flush()
    shown = env.registration()
    assert (shown["attempts"], shown["conflicts"]) == (3, 0)


def test_password_is_stored_as_hash_only(env: Environment) -> None:
    env.connect("bob", BOBS_PASSWORD)
    with session():
        rows = str(list(Registration.select().tuples()))
    row = stored_registration()
    assert row
    assert row.password_hash
    assert row.password_hash in rows
    assert BOBS_PASSWORD not in rows
    assert row.password_hash.startswith("$2b$04$")
    assert bcrypt.checkpw(BOBS_PASSWORD.encode(), row.password_hash.encode())
    assert row.password_hash not in env.alice.get(REGISTRATIONS).text


@pytest.mark.parametrize("end", ["denied", "expired", "deleted"])
def test_password_hash_is_deleted_with_denial_or_expiry(env: Environment, end: str) -> None:
    env.connect("bob", BOBS_PASSWORD)
    registration = env.registration()["id"]
    if end == "denied":
        env.deny(registration)
    elif end == "expired":
        assert expire() == 1
    else:
        env.alice.delete(f"{REGISTRATIONS}/{registration}")
    row = stored_registration()
    assert row is None if end == "deleted" else row is not None and row.password_hash is None


def test_wrong_password_of_a_user_creates_no_registration(env: Environment) -> None:
    env.unlock()
    assert not env.connect("alice", CHARLIES_GUESS)
    env.alice.creates_user("dora", "dora's secret", enabled=False)
    assert not env.connect("dora", "dora's secret")
    assert env.registrations() == []


def test_new_user_creates_no_registration(env: Environment) -> None:
    # Queued before the user was created, flushed after.
    env.authenticate("bob", BOBS_PASSWORD)
    env.alice.creates_user("bob", BOBS_PASSWORD)
    env.flush()
    assert env.registrations() == []


@pytest.mark.parametrize("username", ["bo", "bob/1", "_bob", "bob ", "b\u00f6b", "x" * 65])
def test_invalid_username_creates_no_registration(env: Environment, username: str) -> None:
    env.connect(username, BOBS_PASSWORD)
    assert env.registrations() == []
    assert env.mqtt.counters.total() == 0


@pytest.mark.parametrize("password", ["1234", "ä" * 37, "x" * 60_000])
def test_invalid_password_creates_no_registration(env: Environment, password: str) -> None:
    env.unlock()
    env.connect("bob", password)
    assert env.registrations() == []
    assert env.mqtt.counters[Outcome.UNUSABLE_PASSWORD] == 1


def test_password_that_is_not_text_does_not_stop_others(env: Environment) -> None:
    env.authenticate("bob", "half a surrogate \ud800")
    env.authenticate("carol", "carol's secret")
    env.flush()
    assert [one["username"] for one in env.registrations()] == ["carol"]


@ON_BOTH_DATABASES
def test_device_of_a_deleted_user_is_unknown_again(env: Environment) -> None:
    first = env.create_in_status("granted")
    assert env.alice.delete("/api/users/bob").status_code == 204
    assert not env.connect("bob", "a new secret")
    shown = env.registration()
    assert shown["id"] != first
    assert (shown["status"], shown["attempts"]) == ("pending", 1)


def test_attempts_of_a_denied_name_are_counted(env: Environment) -> None:
    env.unlock()
    env.connect("bob", BOBS_PASSWORD)
    env.deny(env.registration()["id"])
    env.connect("bob", BOBS_PASSWORD, "another-client")
    shown = env.registration()
    assert (shown["status"], shown["attempts"], shown["clientIds"]) == ("denied", 2, ["c1", "another-client"])
    assert shown["hasPassword"] is False
