"""A name that can be mistaken for that of a user, of a preauthorized device or of a denied one is marked."""

from __future__ import annotations

from datetime import timedelta

import pytest

from authsvc.storage.database import database, session
from tests.registry.environment import BOBS_PASSWORD, ON_BOTH_DATABASES, REGISTRATIONS, Place, done, expire, time_passes
from tests.registry.test_preauthorizations import ADVANCES


def similar(place: Place, username: str) -> list[str]:
    names: list[str] = place.registration(username)["similarTo"]
    return names


@ON_BOTH_DATABASES
@pytest.mark.parametrize("name", ["Bad-1", "BAD_1", "bad.l", "bad-I", "bacl-1", "8ad-1", "bad1"])
def test_a_denied_name_does_not_come_back_unmarked(place: Place, name: str) -> None:
    place.unlock()
    done(place.deny(place.asks("bad-1")))
    registration = place.asks(name)
    assert similar(place, name) == ["bad-1"]
    assert done(place.alice.get(f"{REGISTRATIONS}/{registration}"))["similarTo"] == ["bad-1"]
    assert done(place.grant(registration))["similarTo"] == ["bad-1"]


@pytest.mark.parametrize("name", ["A1ice", "a1ice", "aIice", "ALICE"])
def test_a_name_that_looks_like_a_user_s_is_marked(place: Place, name: str) -> None:
    place.connects(name, BOBS_PASSWORD)
    assert similar(place, name) == ["alice"]


def test_a_name_of_its_own_is_not_marked(place: Place) -> None:
    place.connects("alicia", BOBS_PASSWORD)
    assert similar(place, "alicia") == []


def test_users_made_in_every_way_are_compared(place: Place) -> None:
    place.unlock()
    place.granted(place.asks("press-7"))
    place.alice.creates_user("oven-1", "by hand")
    for name, looks_like in (("Press_7", "press-7"), ("0ven-l", "oven-1"), ("adm1n", "admin"), ("press7", "press-7")):
        place.asks(name)
        assert similar(place, name) == [looks_like]


def test_a_name_is_not_like_itself_and_not_like_what_is_gone(place: Place) -> None:
    place.unlock()
    place.granted(place.asks("press-7"))
    done(place.deny(denied := place.asks("oven-1")))
    assert similar(place, "press-7") == similar(place, "oven-1") == []
    place.asks("Press-7")
    place.asks("Oven-1")
    assert place.alice.delete("/api/users/press-7").status_code == 204
    assert place.alice.delete(f"{REGISTRATIONS}/{denied}").status_code == 204
    assert similar(place, "Press-7") == similar(place, "Oven-1") == []
    expire()
    place.unlock()
    place.asks("0ven-1")
    assert similar(place, "0ven-1") == []


def test_ten_names_are_shown(place: Place) -> None:
    for number in range(12):
        place.alice.creates_user(f"press{'-_.'[number % 3] * (number + 1)}7", "by hand")
    place.connects("PRESS-7", BOBS_PASSWORD)
    assert len(similar(place, "PRESS-7")) == 10


@ON_BOTH_DATABASES
@pytest.mark.parametrize("name", ["Press-7", "PRESS_7", "press.7", "pre5s7"])
def test_a_name_that_looks_like_a_preauthorized_one_is_marked(place: Place, name: str) -> None:
    done(place.alice.post(ADVANCES, {"username": "press-7", "withSecret": True}))
    place.connects(name, BOBS_PASSWORD)
    assert similar(place, name) == ["press-7"]


def test_the_device_that_was_preauthorized_is_not_marked(place: Place) -> None:
    done(place.alice.post(ADVANCES, {"username": "press-7", "withSecret": True}))
    place.connects("press-7", "a guess")
    assert similar(place, "press-7") == []


def test_a_preauthorization_that_is_over_marks_nobody(place: Place) -> None:
    taken_back = done(place.alice.post(ADVANCES, {"username": "press-7"}))["id"]
    done(place.alice.post(ADVANCES, {"username": "oven-1", "expiresAt": "2099-01-01T00:00:00Z"}))
    for name in ("Press-7", "Oven-1"):
        place.connects(name, BOBS_PASSWORD)
    assert (similar(place, "Press-7"), similar(place, "Oven-1")) == (["press-7"], ["oven-1"])
    assert place.alice.delete(f"{ADVANCES}/{taken_back}").status_code == 204
    time_passes(timedelta(days=36_500))
    assert similar(place, "Press-7") == similar(place, "Oven-1") == []


def test_a_list_of_preauthorized_names_is_compared(place: Place) -> None:
    answer = place.alice.call("POST", f"{ADVANCES}/csv", data="username\npress-7\noven-1\n", content_type="text/csv")
    assert answer.status_code == 201, answer.text
    place.connects("0ven-l", BOBS_PASSWORD)
    assert similar(place, "0ven-l") == ["oven-1"]


@pytest.mark.parametrize("table", ["users", "registrations", "preauthorizations"])
def test_look_alikes_are_found_by_an_index(place: Place, table: str) -> None:
    with session():
        query = f"EXPLAIN QUERY PLAN SELECT username FROM {table} WHERE skeleton IN ('a', 'b')"
        plan = str(database.execute_sql(query).fetchall())
    assert "USING INDEX" in plan
    assert "SCAN" not in plan
