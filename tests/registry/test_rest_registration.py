"""A client asks over REST, and repeats the same request until it has its answer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from registry.api import routes
from tests.actors import ADMIN_PASSWORD
from tests.http.callers import problem_of
from tests.registry.environment import (
    ALICES_PASSWORD,
    BOBS_PASSWORD,
    ON_BOTH_DATABASES,
    REGISTER,
    REGISTRATIONS,
    actions,
    expire,
    stored,
    with_settings,
)
from tests.registry.signing import new_key, signing_request

if TYPE_CHECKING:
    from tests.registry.environment import Place

WRITES_ITS_STATE = {"context": "mqtt", "operation": "write", "resource": "presses/bob/state", "effect": "allow"}


def test_while_the_registry_is_locked_a_stranger_is_told_to_come_back(place: Place) -> None:
    answer = place.registers()
    problem_of(answer, 423, "registry-locked")
    assert int(answer.headers["Retry-After"]) > 0
    assert place.registrations() == []


@ON_BOTH_DATABASES
def test_a_client_asks_waits_is_granted_and_gets_in(place: Place) -> None:
    place.unlock()
    waiting = place.registers(context={"line": 7})
    assert waiting.status_code == 202
    assert int(waiting.headers["Retry-After"]) > 0
    body = waiting.get_json()
    assert set(body) == {"status", "id", "pairingCode"}
    assert body["status"] == "pending"
    assert re.fullmatch("[2-9A-HJ-NP-Z]{6}", body["pairingCode"])
    assert not place.connects("bob", BOBS_PASSWORD)
    place.granted(body["id"])
    answer = place.registers(context={"line": 7})
    assert answer.status_code == 201
    assert answer.get_json() == {"status": "granted", "username": "bob"}
    assert place.connects("bob", BOBS_PASSWORD)


def test_asking_again_is_the_same_registration(place: Place) -> None:
    place.unlock()
    first, second = place.registers().get_json(), place.registers().get_json()
    assert first == second
    shown = place.registration()
    assert shown["attempts"] == 2
    assert shown["conflicts"] == 0
    assert shown["pairingCode"] == first["pairingCode"]
    assert shown["kind"] == "explicit"
    assert not shown["recordedWhileLocked"]


def test_pairing_codes_differ(place: Place) -> None:
    place.unlock()
    codes = {place.registers(f"bob-{number}").get_json()["pairingCode"] for number in range(5)}
    assert len(codes) == 5


@pytest.mark.parametrize(("status", "answered"), [("pending", 202), ("granted", 201), ("denied", 403)])
def test_a_known_registration_is_answered_after_the_window_has_closed(place: Place, status: str, answered: int) -> None:
    place.in_status(status)
    place.lock()
    assert place.registers().status_code == answered


def test_a_denied_client_is_told_so_for_as_long_as_it_is_remembered(place: Place) -> None:
    registration = place.in_status("denied")
    problem_of(place.registers(), 403, "registration-denied")
    assert place.alice.delete(f"{REGISTRATIONS}/{registration}").status_code == 204
    assert place.asks() != registration


def test_what_was_never_answered_may_be_asked_anew_also_with_another_password(place: Place) -> None:
    expired = place.in_status("expired")
    problem_of(place.registers(), 423, "registry-locked")
    place.unlock()
    assert place.asks(password="another secret") != expired
    assert place.registration()["status"] == "pending"


@ON_BOTH_DATABASES
def test_one_whose_user_was_deleted_may_ask_again_from_the_beginning(place: Place) -> None:
    registration = place.in_status("granted")
    assert place.alice.delete("/api/users/bob").status_code == 204
    place.lock()
    problem_of(place.registers(), 423, "registry-locked")
    place.unlock()
    assert place.asks() != registration
    assert place.user() is None


def test_whoever_held_a_name_earlier_is_not_taken_for_the_user_who_has_it_now(place: Place) -> None:
    place.in_status("granted")
    assert place.alice.delete("/api/users/bob").status_code == 204
    place.alice.creates_user("bob", "quite another secret")
    problem_of(place.registers(), 409, "username-taken")


def others(key: Any) -> dict[str, dict[str, Any]]:
    """Return what somebody else could bring in place of Bob's password and key."""
    mine = signing_request("bob", key)
    return {
        "another password": {"password": "charlie's secret", "csr": mine},
        "another key": {"password": BOBS_PASSWORD, "csr": signing_request("bob")},
        "the password alone": {"password": BOBS_PASSWORD},
        "the key alone": {"csr": mine},
        "neither": {"password": "charlie's secret", "csr": signing_request("bob")},
    }


@ON_BOTH_DATABASES
@pytest.mark.parametrize("status", ["pending", "granted"])
def test_only_the_holder_of_the_same_password_and_key_is_answered(place: Place, status: str) -> None:
    key = new_key()
    held = {"password": BOBS_PASSWORD, "csr": signing_request("bob", key)}
    place.unlock()
    registration = place.asks(**held)
    if status == "granted":
        place.granted(registration)
    answers = {who: place.registers(**brought) for who, brought in others(key).items()}
    # A user of that name, made by hand, is answered for in the very same words.
    place.alice.creates_user("carol", "carol's secret")
    answers["a user's name"] = place.registers("carol")
    place.lock()
    answers["while locked"] = place.registers(password="charlie's secret")
    for answer in answers.values():
        problem_of(answer, 409, "username-taken")
        assert answer.data == answers["a user's name"].data
        assert "Retry-After" not in answer.headers
    assert place.registers(**held).status_code == {"pending": 202, "granted": 201}[status]
    shown = place.registration()
    assert shown["conflicts"] == 6
    assert shown["status"] == status


def test_who_registered_by_connecting_may_go_on_over_rest_with_the_same_password(place: Place) -> None:
    place.unlock()
    assert not place.connects("bob", BOBS_PASSWORD)
    answer = place.registers()
    assert answer.status_code == 202
    assert "pairingCode" not in answer.get_json()
    problem_of(place.registers(password="charlie's secret"), 409, "username-taken")
    place.granted(place.registration()["id"], acceptConflicts=True)
    assert place.registers().status_code == 201


def test_what_a_client_asks_for_is_shown_and_not_given(place: Place) -> None:
    place.unlock()
    wishes: dict[str, Any] = {
        "context": {"serial": "A-7", "hall": [1, None]},
        "roles": ["press"],
        "permissions": [WRITES_ITS_STATE],
    }
    registration = place.asks(**wishes)
    shown = place.registration()
    assert shown["context"] == wishes["context"]
    assert shown["requestedRoles"] == ["press"]
    assert shown["requestedPermissions"] == [WRITES_ITS_STATE]
    place.granted(registration)
    user = place.user()
    assert user
    assert (user["roles"], user["permissions"]) == ([], [])


def test_what_a_client_asks_for_is_given_when_alice_accepts_it(place: Place) -> None:
    place.unlock()
    registration = place.asks(roles=["press"], permissions=[WRITES_ITS_STATE])
    place.granted(registration, roles=["line"], acceptRequested=True)
    user = place.user()
    assert user
    assert user["roles"] == ["line", "press"]
    assert user["permissions"] == [WRITES_ITS_STATE]


def test_wishes_that_come_later_change_nothing(place: Place) -> None:
    place.unlock()
    registration = place.asks(roles=["press"])
    assert place.asks(roles=["admin"], context={"late": True}) == registration
    place.granted(registration, acceptRequested=True)
    user = place.user()
    assert user
    assert user["roles"] == ["press"]


@with_settings(registry_max_pending=2)
@ON_BOTH_DATABASES
def test_a_newcomer_takes_the_place_of_the_oldest_that_never_came_back(place: Place) -> None:
    place.unlock()
    returning = place.asks("bob-1")
    assert place.asks("bob-1") == returning
    place.asks("bob-2")
    newcomer = place.asks("bob-3")
    assert {one["username"] for one in place.registrations()} == {"bob-1", "bob-3"}
    place.granted(newcomer)
    assert place.asks("bob-2")
    assert place.asks("bob-1") == returning


def test_what_a_client_holds_is_shown_to_nobody(place: Place) -> None:
    place.unlock()
    registration = place.asks(password=BOBS_PASSWORD, csr=signing_request("bob"))
    row = stored()
    assert row
    assert row.password_hash
    assert row.password_hash.startswith("$2")
    for path in (f"{REGISTRATIONS}/{registration}", REGISTRATIONS, "/api/audit"):
        text = place.alice.get(path).text
        assert BOBS_PASSWORD not in text
        assert row.password_hash not in text
        assert "BEGIN" not in text
    assert place.registration()["hasPassword"] is True


def test_a_key_is_known_by_its_fingerprint(place: Place) -> None:
    place.unlock()
    place.asks(csr=signing_request("bob"))
    shown = place.registration()
    assert re.fullmatch("[0-9a-f]{64}", shown["csrFingerprint"])
    assert shown["hasPassword"] is False


def test_the_front_door_needs_no_credentials_and_minds_no_bad_ones(place: Place) -> None:
    place.unlock()
    body = {"username": "bob", "password": BOBS_PASSWORD}
    answer = place.stranger.post(REGISTER, body, headers={"Authorization": "Bearer nonsense"})
    assert answer.status_code == 202


@pytest.mark.parametrize("path", [REGISTRATIONS, "/api/client-registry", "/api/client-registry/preauthorizations"])
def test_everything_else_needs_them(place: Place, path: str) -> None:
    problem_of(place.stranger.get(path), 401, "unauthenticated")


def test_the_administrator_made_at_the_first_start_cannot_be_registered_over(place: Place) -> None:
    place.unlock()
    problem_of(place.registers("admin", password=ADMIN_PASSWORD), 409, "username-taken")


def test_registering_leaves_no_event_before_somebody_decides(place: Place) -> None:
    place.unlock()
    place.asks()
    assert actions()[-1] == "registry.unlock"
    expire()
    assert actions()[-1] == "registration.expire"


def test_flood_of_registrations_takes_only_its_own_places_for_hashes(place: Place) -> None:
    place.unlock()
    waiting = place.registers().get_json()
    places = place.app.extensions[routes.EXTENSION].explicit.places
    number = place.services.settings.threads // 4
    assert [places.acquire(blocking=False) for _ in range(number + 1)] == [True] * number + [False]
    problem_of(place.registers("carl"), 503, "hashing-busy")
    problem_of(place.registers(), 503, "hashing-busy")
    assert stored("carl") is None
    assert place.services.sign_ins.check_password("alice", ALICES_PASSWORD, "203.0.113.9").username == "alice"
    places.release(1)
    assert place.registers("carl").status_code == 202
    assert place.registers().get_json() == waiting
    assert places.acquire(blocking=False), "places are free again"
    assert place.registers().get_json() == waiting, "a password that proved right before takes no hash"
