"""A refused CONNECT of an unknown username becomes a pending registration, behind the broker's back."""

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
    done,
    expire,
    stored,
    with_settings,
)

if TYPE_CHECKING:
    from tests.registry.environment import Place

CHARLIES_GUESS = "charlie's secret"


@ON_BOTH_DATABASES
def test_a_stranger_is_refused_appears_is_granted_and_gets_in(place: Place) -> None:
    place.unlock()
    assert place.hears("bob", BOBS_PASSWORD, "press-7") == "unknown-user"
    assert place.registrations() == []
    place.writes_down()
    shown = place.registration()
    assert (shown["kind"], shown["status"], shown["clientIds"]) == ("implicit", "pending", ["press-7"])
    assert (shown["attempts"], shown["conflicts"], shown["recordedWhileLocked"]) == (1, 0, False)
    assert (shown["pairingCode"], shown["csrFingerprint"], shown["hasPassword"]) == (None, None, True)
    assert shown["firstSeen"] == shown["lastSeen"]
    place.granted(shown["id"])
    assert place.connects("bob", BOBS_PASSWORD)
    assert not place.connects("bob", CHARLIES_GUESS)
    user = place.user()
    assert user
    assert (user["grantTypes"], user["roles"], user["permissions"]) == (["password"], [], [])


@ON_BOTH_DATABASES
def test_one_recorded_while_locked_is_granted_only_while_unlocked(place: Place) -> None:
    place.connects("bob", BOBS_PASSWORD)
    shown = place.registration()
    assert shown["recordedWhileLocked"]
    problem_of(place.grant(shown["id"]), 423, "registry-locked")
    bulk = done(place.alice.post(f"{REGISTRATIONS}/grant", {"ids": [shown["id"]]}))
    assert [one["code"] for one in bulk["failed"]] == ["registry-locked"]
    assert place.user() is None
    place.unlock()
    place.granted(shown["id"])
    assert place.connects("bob", BOBS_PASSWORD)


def test_one_recorded_while_unlocked_is_granted_at_any_time(place: Place) -> None:
    place.unlock()
    place.connects("bob", BOBS_PASSWORD)
    place.lock()
    place.granted(place.registration()["id"])
    assert place.connects("bob", BOBS_PASSWORD)


def test_one_recorded_while_locked_can_be_denied_and_deleted_while_locked(place: Place) -> None:
    place.connects("bob", BOBS_PASSWORD)
    place.connects("carol", "carol's secret")
    assert place.deny(place.registration("bob")["id"]).status_code == 200
    assert place.alice.delete(f"{REGISTRATIONS}/{place.registration('carol')['id']}").status_code == 204


@with_settings(registry_capture_while_locked=False)
def test_nothing_is_recorded_while_locked_if_so_set(place: Place) -> None:
    place.connects("bob", BOBS_PASSWORD)
    assert place.registrations() == []
    assert place.intake.counters[Outcome.LOCKED] == 1
    place.unlock()
    place.connects("bob", BOBS_PASSWORD)
    assert not place.registration()["recordedWhileLocked"]


@ON_BOTH_DATABASES
def test_attempts_and_client_ids_of_one_name_are_gathered(place: Place) -> None:
    for client_id in ("press-7", "press-8", "press-7", ""):
        place.hears("bob", BOBS_PASSWORD, client_id)
    place.writes_down()
    for client_id in ("press-9", "press-8"):
        place.connects("bob", BOBS_PASSWORD, client_id)
    shown = place.registration()
    assert shown["attempts"] == 6
    assert shown["clientIds"] == ["press-7", "press-8", "press-9"]
    assert shown["conflicts"] == 0


def test_the_first_ten_client_ids_are_kept(place: Place) -> None:
    for number in range(30):
        place.hears("bob", BOBS_PASSWORD, f"flurry-{number}")
        if number % 7 == 0:
            place.writes_down()
    assert place.registration()["clientIds"] == [f"flurry-{number}" for number in range(10)]


def test_a_client_id_that_nobody_would_read_is_cut(place: Place) -> None:
    place.connects("bob", BOBS_PASSWORD, "x" * 60_000)
    (shown,) = place.registration()["clientIds"]
    assert shown == "x" * 200


@pytest.mark.parametrize("client_id", ["\ud800", "\x1b[31m", "[/bold]", "ä\U0001f980", "' OR 1=1", "\uffff"])
def test_client_ids_of_any_kind_are_recorded(place: Place, client_id: str) -> None:
    place.connects("bob", BOBS_PASSWORD, client_id)
    assert place.registration()["clientIds"] == [client_id]


@ON_BOTH_DATABASES
def test_another_password_is_a_conflict_and_never_replaces_the_first(place: Place) -> None:
    place.unlock()
    place.connects("bob", BOBS_PASSWORD)
    place.connects("bob", CHARLIES_GUESS)
    place.connects("bob", BOBS_PASSWORD)
    place.connects("bob", "yet another secret")
    shown = place.registration()
    assert (shown["attempts"], shown["conflicts"]) == (4, 2)
    place.granted(shown["id"], acceptConflicts=True)
    assert not place.connects("bob", CHARLIES_GUESS)
    assert place.connects("bob", BOBS_PASSWORD)


def test_the_first_password_counts_also_within_a_flurry(place: Place) -> None:
    place.unlock()
    for password in (BOBS_PASSWORD, CHARLIES_GUESS, BOBS_PASSWORD, CHARLIES_GUESS):
        place.hears("bob", password)
    place.writes_down()
    shown = place.registration()
    assert (shown["attempts"], shown["conflicts"]) == (4, 2)
    place.granted(shown["id"], acceptConflicts=True)
    assert place.connects("bob", BOBS_PASSWORD)


@pytest.mark.parametrize(
    ("flurry", "conflicts"),
    [
        ([CHARLIES_GUESS] * 3, 3),
        ([CHARLIES_GUESS, BOBS_PASSWORD, BOBS_PASSWORD], 1),
        (["guess number 1", "guess number 2", "guess number 3", BOBS_PASSWORD], 3),
    ],
    ids=["only wrong ones", "a wrong one first", "more than are compared"],
)
def test_conflicts_are_counted_against_the_password_that_is_stored(
    place: Place, flurry: list[str], conflicts: int
) -> None:
    place.connects("bob", BOBS_PASSWORD)
    for password in flurry:
        place.hears("bob", password)
    place.writes_down()
    assert place.registration()["conflicts"] == conflicts


def test_an_attempt_that_could_not_be_compared_is_no_conflict(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.connects("bob", BOBS_PASSWORD)
    place.hears("bob", BOBS_PASSWORD)
    place.hears("bob", CHARLIES_GUESS)
    with monkeypatch.context() as patched:
        patched.setattr(PasswordVerifier, "verify", lambda *_: Verdict.BUSY)
        place.writes_down()
    shown = place.registration()
    assert (shown["attempts"], shown["conflicts"]) == (3, 0)


def test_the_password_is_kept_as_its_hash_alone(place: Place) -> None:
    place.connects("bob", BOBS_PASSWORD)
    with session():
        rows = str(list(Registration.select().tuples()))
    row = stored()
    assert row
    assert row.password_hash
    assert row.password_hash in rows
    assert BOBS_PASSWORD not in rows
    assert row.password_hash.startswith("$2b$04$")
    assert bcrypt.checkpw(BOBS_PASSWORD.encode(), row.password_hash.encode())
    assert row.password_hash not in place.alice.get(REGISTRATIONS).text


@pytest.mark.parametrize("end", ["denied", "expired", "deleted"])
def test_the_hash_is_gone_when_the_registration_has_come_to_nothing(place: Place, end: str) -> None:
    place.connects("bob", BOBS_PASSWORD)
    registration = place.registration()["id"]
    if end == "denied":
        place.deny(registration)
    elif end == "expired":
        assert expire() == 1
    else:
        place.alice.delete(f"{REGISTRATIONS}/{registration}")
    row = stored()
    assert row is None if end == "deleted" else row is not None and row.password_hash is None


def test_the_wrong_password_of_a_known_user_is_no_registration(place: Place) -> None:
    place.unlock()
    assert not place.connects("alice", CHARLIES_GUESS)
    place.alice.creates_user("dora", "dora's secret", enabled=False)
    assert not place.connects("dora", "dora's secret")
    assert place.registrations() == []


def test_a_user_made_a_moment_ago_is_no_registration(place: Place) -> None:
    # Heard before the user was made, written down after.
    place.hears("bob", BOBS_PASSWORD)
    place.alice.creates_user("bob", BOBS_PASSWORD)
    place.writes_down()
    assert place.registrations() == []


@pytest.mark.parametrize("username", ["bo", "bob/1", "_bob", "bob ", "b\u00f6b", "x" * 65])
def test_a_name_that_no_user_could_have_is_no_registration(place: Place, username: str) -> None:
    place.connects(username, BOBS_PASSWORD)
    assert place.registrations() == []
    assert place.intake.counters.total() == 0


@pytest.mark.parametrize("password", ["1234", "ä" * 37, "x" * 60_000])
def test_a_password_that_no_user_could_have_is_no_registration(place: Place, password: str) -> None:
    place.unlock()
    place.connects("bob", password)
    assert place.registrations() == []
    assert place.intake.counters[Outcome.UNUSABLE_PASSWORD] == 1


def test_a_password_that_is_no_text_keeps_nobody_else_out(place: Place) -> None:
    place.hears("bob", "half a surrogate \ud800")
    place.hears("carol", "carol's secret")
    place.writes_down()
    assert [one["username"] for one in place.registrations()] == ["carol"]


@ON_BOTH_DATABASES
def test_one_whose_user_was_deleted_is_a_stranger_again(place: Place) -> None:
    first = place.in_status("granted")
    assert place.alice.delete("/api/users/bob").status_code == 204
    assert not place.connects("bob", "a new secret")
    shown = place.registration()
    assert shown["id"] != first
    assert (shown["status"], shown["attempts"]) == ("pending", 1)


def test_a_denied_name_goes_on_being_counted_and_stays_denied(place: Place) -> None:
    place.unlock()
    place.connects("bob", BOBS_PASSWORD)
    place.deny(place.registration()["id"])
    place.connects("bob", BOBS_PASSWORD, "another-client")
    shown = place.registration()
    assert (shown["status"], shown["attempts"], shown["clientIds"]) == ("denied", 2, ["c1", "another-client"])
    assert shown["hasPassword"] is False
