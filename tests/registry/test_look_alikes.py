"""Names that look like those of users, preauthorizations or denied registrations are marked."""

from __future__ import annotations

from datetime import timedelta

import pytest

from authsvc.storage.database import database, session
from tests.registry.environment import (
    BOBS_PASSWORD,
    ON_BOTH_DATABASES,
    REGISTRATIONS,
    Environment,
    expect_success,
    expire,
    shift_time,
)
from tests.registry.test_preauthorizations import PREAUTHORIZATIONS


def similar(env: Environment, username: str) -> list[str]:
    names: list[str] = env.registration(username)["similarTo"]
    return names


@ON_BOTH_DATABASES
@pytest.mark.parametrize("name", ["Bad-1", "BAD_1", "bad.l", "bad-I", "bacl-1", "8ad-1", "bad1"])
def test_look_alike_of_a_denied_name_is_marked(env: Environment, name: str) -> None:
    env.unlock()
    expect_success(env.deny(env.register_pending("bad-1")))
    registration = env.register_pending(name)
    assert similar(env, name) == ["bad-1"]
    assert expect_success(env.alice.get(f"{REGISTRATIONS}/{registration}"))["similarTo"] == ["bad-1"]
    assert expect_success(env.grant(registration))["similarTo"] == ["bad-1"]


@pytest.mark.parametrize("name", ["A1ice", "a1ice", "aIice", "ALICE"])
def test_look_alike_of_a_user_is_marked(env: Environment, name: str) -> None:
    env.connect(name, BOBS_PASSWORD)
    assert similar(env, name) == ["alice"]


def test_unlike_name_is_not_marked(env: Environment) -> None:
    env.connect("alicia", BOBS_PASSWORD)
    assert similar(env, "alicia") == []


def test_users_created_in_every_way_are_compared(env: Environment) -> None:
    env.unlock()
    env.grant_successfully(env.register_pending("press-7"))
    env.alice.creates_user("oven-1", "by hand")
    for name, looks_like in (("Press_7", "press-7"), ("0ven-l", "oven-1"), ("adm1n", "admin"), ("press7", "press-7")):
        env.register_pending(name)
        assert similar(env, name) == [looks_like]


def test_name_is_not_compared_with_itself_or_deleted_names(env: Environment) -> None:
    env.unlock()
    env.grant_successfully(env.register_pending("press-7"))
    expect_success(env.deny(denied := env.register_pending("oven-1")))
    assert similar(env, "press-7") == similar(env, "oven-1") == []
    env.register_pending("Press-7")
    env.register_pending("Oven-1")
    assert env.alice.delete("/api/users/press-7").status_code == 204
    assert env.alice.delete(f"{REGISTRATIONS}/{denied}").status_code == 204
    assert similar(env, "Press-7") == similar(env, "Oven-1") == []
    expire()
    env.unlock()
    env.register_pending("0ven-1")
    assert similar(env, "0ven-1") == []


def test_at_most_ten_similar_names_are_shown(env: Environment) -> None:
    for number in range(12):
        env.alice.creates_user(f"press{'-_.'[number % 3] * (number + 1)}7", "by hand")
    env.connect("PRESS-7", BOBS_PASSWORD)
    assert len(similar(env, "PRESS-7")) == 10


@ON_BOTH_DATABASES
@pytest.mark.parametrize("name", ["Press-7", "PRESS_7", "press.7", "pre5s7"])
def test_look_alike_of_a_preauthorized_name_is_marked(env: Environment, name: str) -> None:
    expect_success(env.alice.post(PREAUTHORIZATIONS, {"username": "press-7", "withSecret": True}))
    env.connect(name, BOBS_PASSWORD)
    assert similar(env, name) == ["press-7"]


def test_preauthorized_device_is_not_marked(env: Environment) -> None:
    expect_success(env.alice.post(PREAUTHORIZATIONS, {"username": "press-7", "withSecret": True}))
    env.connect("press-7", "a guess")
    assert similar(env, "press-7") == []


def test_expired_preauthorization_is_not_compared(env: Environment) -> None:
    taken_back = expect_success(env.alice.post(PREAUTHORIZATIONS, {"username": "press-7"}))["id"]
    expect_success(env.alice.post(PREAUTHORIZATIONS, {"username": "oven-1", "expiresAt": "2099-01-01T00:00:00Z"}))
    for name in ("Press-7", "Oven-1"):
        env.connect(name, BOBS_PASSWORD)
    assert (similar(env, "Press-7"), similar(env, "Oven-1")) == (["press-7"], ["oven-1"])
    assert env.alice.delete(f"{PREAUTHORIZATIONS}/{taken_back}").status_code == 204
    shift_time(timedelta(days=36_500))
    assert similar(env, "Press-7") == similar(env, "Oven-1") == []


def test_uploaded_preauthorizations_are_compared(env: Environment) -> None:
    answer = env.alice.call(
        "POST", f"{PREAUTHORIZATIONS}/csv", data="username\npress-7\noven-1\n", content_type="text/csv"
    )
    assert answer.status_code == 201, answer.text
    env.connect("0ven-l", BOBS_PASSWORD)
    assert similar(env, "0ven-l") == ["oven-1"]


@pytest.mark.parametrize("table", ["users", "registrations", "preauthorizations"])
def test_look_alike_query_uses_an_index(env: Environment, table: str) -> None:
    with session():
        query = f"EXPLAIN QUERY PLAN SELECT username FROM {table} WHERE skeleton IN ('a', 'b')"
        plan = str(database.execute_sql(query).fetchall())
    assert "USING INDEX" in plan
    assert "SCAN" not in plan
