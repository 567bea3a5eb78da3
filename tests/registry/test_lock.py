"""The lock: closed by default, opened for a while and within limits, closing by itself."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.http.callers import problem_of, refused_fields
from tests.registry.environment import BOBS_PASSWORD, ON_BOTH_DATABASES, actions, at_once, done, time_passes

if TYPE_CHECKING:
    from tests.registry.environment import Place

REGISTRY = "/api/client-registry"
UNLOCK = f"{REGISTRY}/unlock"


def state(place: Place) -> dict[str, Any]:
    return done(place.alice.get(REGISTRY))


@ON_BOTH_DATABASES
def test_the_registry_is_locked_until_somebody_opens_it(place: Place) -> None:
    assert state(place) == {
        "locked": True,
        "unlockedUntil": None,
        "secondsLeft": 0,
        "pending": 0,
        "maxRegistrations": None,
        "granted": None,
        "usernamePattern": None,
        "roles": [],
        "flood": None,
    }


@ON_BOTH_DATABASES
def test_it_opens_for_five_minutes_and_locks_itself(place: Place) -> None:
    opened = done(place.alice.call("POST", UNLOCK))
    assert (opened["locked"], opened["secondsLeft"]) == (False, 300)
    assert datetime.fromisoformat(opened["unlockedUntil"])
    place.asks()
    assert state(place)["pending"] == 1
    time_passes(timedelta(seconds=290))
    assert 1 <= state(place)["secondsLeft"] <= 10
    time_passes(timedelta(seconds=10))
    assert state(place)["locked"]
    assert state(place)["unlockedUntil"] is None
    problem_of(place.registers("carol"), 423, "registry-locked")


@pytest.mark.parametrize("seconds", [1, 60, 86_400])
def test_it_opens_for_as_long_as_alice_wants(place: Place, seconds: int) -> None:
    assert done(place.alice.post(UNLOCK, {"durationSeconds": seconds}))["secondsLeft"] == seconds


@pytest.mark.parametrize("seconds", [0, -1, 86_401, 10**30, "60", 1.5, None, True])
def test_and_for_no_other_time(place: Place, seconds: Any) -> None:
    assert refused_fields(place.alice.post(UNLOCK, {"durationSeconds": seconds})) == ["durationSeconds"]
    assert state(place)["locked"]


def test_it_locks_at_once(place: Place) -> None:
    place.unlock()
    place.lock()
    assert state(place)["locked"]
    problem_of(place.registers(), 423, "registry-locked")
    place.lock()
    assert actions()[-3:] == ["registry.unlock", "registry.lock", "registry.lock"]


def test_opening_it_again_begins_anew_with_the_limits_named_then(place: Place) -> None:
    place.unlock(maxRegistrations=1, usernamePattern="press_*", roles=["press"])
    place.asks("press_1")
    place.unlock()
    now = state(place)
    assert (now["maxRegistrations"], now["usernamePattern"], now["roles"]) == (None, None, [])
    place.asks("anybody")


@ON_BOTH_DATABASES
def test_a_flood_uses_up_no_place_of_a_window(place: Place) -> None:
    place.unlock(maxRegistrations=2)
    for number in range(10):
        place.hears(f"flood-{number}", "a flood's secret")
        place.registers(f"storm-{number}")
    place.writes_down()
    registration = place.asks("bob")
    place.connects("carol", "carol's secret")
    assert not place.registration("carol")["recordedWhileLocked"]
    place.granted(registration)
    place.granted(place.registration("carol")["id"])
    assert place.connects("carol", "carol's secret")


@ON_BOTH_DATABASES
def test_as_many_are_granted_as_alice_said_and_no_more(place: Place) -> None:
    place.unlock(maxRegistrations=3)
    registrations = [place.asks(f"bob-{number}") for number in range(8)]
    assert state(place)["granted"] == 0
    answers = at_once(8, lambda number: place.grant(registrations[number]))
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [423] * 5
    assert (state(place)["granted"], state(place)["pending"]) == (3, 5)


def test_a_window_whose_places_are_taken_records_devices_as_if_it_were_locked(place: Place) -> None:
    place.unlock(maxRegistrations=1)
    place.granted(place.asks("bob"))
    problem_of(place.registers("dave"), 423, "registry-locked")
    place.connects("carol", "carol's secret")
    carol = place.registration("carol")
    assert carol["recordedWhileLocked"]
    problem_of(place.grant(carol["id"]), 423, "window-full")


def test_what_a_full_window_left_waiting_is_granted_in_the_next(place: Place) -> None:
    place.unlock(maxRegistrations=1)
    waiting = [place.asks("bob"), place.asks("carol"), place.asks("dave")]
    place.granted(waiting.pop())
    place.lock()
    problem_of(place.grant(waiting[0]), 423, "window-full")
    place.unlock()
    for registration in waiting:
        place.granted(registration)


def test_a_device_that_came_while_locked_takes_a_place_when_it_is_granted(place: Place) -> None:
    place.connects("bob", BOBS_PASSWORD)
    place.unlock(maxRegistrations=1)
    place.granted(place.registration("bob")["id"])
    assert state(place)["granted"] == 1
    problem_of(place.registers("carol"), 423, "registry-locked")


def test_a_device_that_tried_to_connect_takes_a_place(place: Place) -> None:
    place.unlock(maxRegistrations=1)
    place.connects("bob", BOBS_PASSWORD)
    place.granted(place.registration("bob")["id"])
    assert state(place)["granted"] == 1


def test_a_device_of_an_earlier_window_takes_no_place(place: Place) -> None:
    place.unlock()
    registration = place.asks("bob")
    place.unlock(maxRegistrations=1)
    place.granted(place.asks("carol"))
    place.granted(registration)
    assert state(place)["granted"] == 1


def test_a_device_with_an_enrolment_key_takes_no_place(place: Place) -> None:
    place.unlock(maxRegistrations=1)
    key = done(place.alice.post(f"{REGISTRY}/enrolment-keys", {"label": "hall 3", "uses": 2, "approvalRequired": True}))
    registrations = [place.asks(name, enrolmentKey=key["secret"]) for name in ("bob", "carol")]
    place.granted(registrations[0])
    place.granted(place.asks("dave"))
    place.granted(registrations[1])


def test_a_deleted_user_gives_its_place_back(place: Place) -> None:
    place.unlock(maxRegistrations=1)
    place.granted(place.asks("bob"))
    assert place.alice.delete("/api/users/bob").status_code == 204
    place.granted(place.asks("carol"))


@pytest.mark.parametrize(
    ("pattern", "admitted", "refused"),
    [
        ("press_*", ["press_7", "press_"], ["Press_7", "my-press_7", "press-7"]),
        ("line-?", ["line-7"], ["line-77", "line-"]),
        ("hall[12].*", ["hall1.a", "hall2."], ["hall3.a"]),
        ("bob", ["bob"], ["bobby"]),
    ],
)
def test_a_pattern_says_which_names_may_come(
    place: Place, pattern: str, admitted: list[str], refused: list[str]
) -> None:
    place.unlock(usernamePattern=pattern)
    assert {place.registers(name).status_code for name in admitted} == {202}
    for name in refused:
        problem_of(place.registers(name), 423, "registry-locked")


def test_what_is_granted_from_a_window_starts_with_its_roles(place: Place) -> None:
    place.unlock(roles=["press"])
    explicit = place.asks("bob")
    place.connects("carol", "carol's secret")
    place.lock()
    place.connects("dave", "dave's secret")
    place.unlock()
    for registration, roles in ((explicit, ["line", "press"]), (place.registration("carol")["id"], ["line", "press"]),
                                (place.registration("dave")["id"], ["line"])):  # fmt: skip
        username = place.granted(registration, roles=["line"])["username"]
        user = place.user(username)
        assert user
        assert user["roles"] == roles


@pytest.mark.parametrize(
    ("limits", "refused"),
    [
        ({"maxRegistrations": 0}, "maxRegistrations"),
        ({"maxRegistrations": 1_000_001}, "maxRegistrations"),
        ({"usernamePattern": ""}, "usernamePattern"),
        ({"usernamePattern": "x" * 65}, "usernamePattern"),
        ({"usernamePattern": "a\0"}, "usernamePattern"),
        ({"roles": ["nobody"]}, "roles[0]"),
        ({"until": "tomorrow"}, "until"),
    ],
)
def test_limits_that_make_no_sense_open_nothing(place: Place, limits: dict[str, Any], refused: str) -> None:
    assert refused_fields(place.alice.post(UNLOCK, limits)) == [refused]
    assert state(place)["locked"]


def test_charlie_opens_no_window_to_rights_that_he_lacks(place: Place) -> None:
    # Otherwise Alice, who only says yes to a name, would hand out what Charlie chose.
    answer = place.charlie.post(UNLOCK, {"roles": ["admin"]})
    problem_of(answer, 403, "beyond-own-rights")
    assert state(place)["locked"]


def test_who_came_in_with_a_role_that_was_deleted_since_can_be_granted(place: Place) -> None:
    place.unlock(roles=["press"])
    registration = place.asks()
    place.alice.delete("/api/roles/press")
    place.granted(registration)
