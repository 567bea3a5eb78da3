"""The lock and its unlock windows."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.http.callers import problem_of, refused_fields
from tests.registry.environment import (
    BOBS_PASSWORD,
    ON_BOTH_DATABASES,
    actions,
    expect_success,
    in_parallel,
    shift_time,
)

if TYPE_CHECKING:
    from tests.registry.environment import Environment

REGISTRY = "/api/client-registry"
UNLOCK = f"{REGISTRY}/unlock"


def state(env: Environment) -> dict[str, Any]:
    return expect_success(env.alice.get(REGISTRY))


@ON_BOTH_DATABASES
def test_registry_is_locked_by_default(env: Environment) -> None:
    assert state(env) == {
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
def test_registry_locks_itself_after_five_minutes(env: Environment) -> None:
    opened = expect_success(env.alice.call("POST", UNLOCK))
    assert (opened["locked"], opened["secondsLeft"]) == (False, 300)
    assert datetime.fromisoformat(opened["unlockedUntil"])
    env.register_pending()
    assert state(env)["pending"] == 1
    shift_time(timedelta(seconds=290))
    assert 1 <= state(env)["secondsLeft"] <= 10
    shift_time(timedelta(seconds=10))
    assert state(env)["locked"]
    assert state(env)["unlockedUntil"] is None
    problem_of(env.register("carol"), 423, "registry-locked")


@pytest.mark.parametrize("seconds", [1, 60, 86_400])
def test_unlock_duration_can_be_chosen(env: Environment, seconds: int) -> None:
    assert expect_success(env.alice.post(UNLOCK, {"durationSeconds": seconds}))["secondsLeft"] == seconds


@pytest.mark.parametrize("seconds", [0, -1, 86_401, 10**30, "60", 1.5, None, True])
def test_invalid_unlock_duration_is_refused(env: Environment, seconds: Any) -> None:
    assert refused_fields(env.alice.post(UNLOCK, {"durationSeconds": seconds})) == ["durationSeconds"]
    assert state(env)["locked"]


def test_registry_can_be_locked_at_once(env: Environment) -> None:
    env.unlock()
    env.lock()
    assert state(env)["locked"]
    problem_of(env.register(), 423, "registry-locked")
    env.lock()
    assert actions()[-3:] == ["registry.unlock", "registry.lock", "registry.lock"]


def test_unlocking_again_replaces_the_limits(env: Environment) -> None:
    env.unlock(maxRegistrations=1, usernamePattern="press_*", roles=["press"])
    env.register_pending("press_1")
    env.unlock()
    now = state(env)
    assert (now["maxRegistrations"], now["usernamePattern"], now["roles"]) == (None, None, [])
    env.register_pending("anybody")


@ON_BOTH_DATABASES
def test_attempts_do_not_count_towards_the_window_limit(env: Environment) -> None:
    env.unlock(maxRegistrations=2)
    for number in range(10):
        env.authenticate(f"flood-{number}", "a flood's secret")
        env.register(f"send_flood-{number}")
    env.flush()
    registration = env.register_pending("bob")
    env.connect("carol", "carol's secret")
    assert not env.registration("carol")["recordedWhileLocked"]
    env.grant_successfully(registration)
    env.grant_successfully(env.registration("carol")["id"])
    assert env.connect("carol", "carol's secret")


@ON_BOTH_DATABASES
def test_window_grants_at_most_its_limit(env: Environment) -> None:
    env.unlock(maxRegistrations=3)
    registrations = [env.register_pending(f"bob-{number}") for number in range(8)]
    assert state(env)["granted"] == 0
    answers = in_parallel(8, lambda number: env.grant(registrations[number]))
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [423] * 5
    assert (state(env)["granted"], state(env)["pending"]) == (3, 5)


def test_full_window_records_devices_like_a_locked_registry(env: Environment) -> None:
    env.unlock(maxRegistrations=1)
    env.grant_successfully(env.register_pending("bob"))
    problem_of(env.register("dave"), 423, "registry-locked")
    env.connect("carol", "carol's secret")
    carol = env.registration("carol")
    assert carol["recordedWhileLocked"]
    problem_of(env.grant(carol["id"]), 423, "window-full")


def test_registration_of_a_full_window_is_granted_in_the_next(env: Environment) -> None:
    env.unlock(maxRegistrations=1)
    waiting = [env.register_pending("bob"), env.register_pending("carol"), env.register_pending("dave")]
    env.grant_successfully(waiting.pop())
    env.lock()
    problem_of(env.grant(waiting[0]), 423, "window-full")
    env.unlock()
    for registration in waiting:
        env.grant_successfully(registration)


def test_device_recorded_while_locked_counts_when_granted(env: Environment) -> None:
    env.connect("bob", BOBS_PASSWORD)
    env.unlock(maxRegistrations=1)
    env.grant_successfully(env.registration("bob")["id"])
    assert state(env)["granted"] == 1
    problem_of(env.register("carol"), 423, "registry-locked")


def test_device_registered_over_mqtt_counts_towards_the_limit(env: Environment) -> None:
    env.unlock(maxRegistrations=1)
    env.connect("bob", BOBS_PASSWORD)
    env.grant_successfully(env.registration("bob")["id"])
    assert state(env)["granted"] == 1


def test_device_of_an_earlier_window_does_not_count(env: Environment) -> None:
    env.unlock()
    registration = env.register_pending("bob")
    env.unlock(maxRegistrations=1)
    env.grant_successfully(env.register_pending("carol"))
    env.grant_successfully(registration)
    assert state(env)["granted"] == 1


def test_device_with_an_enrolment_key_does_not_count(env: Environment) -> None:
    env.unlock(maxRegistrations=1)
    key = expect_success(
        env.alice.post(f"{REGISTRY}/enrolment-keys", {"label": "hall 3", "uses": 2, "approvalRequired": True})
    )
    registrations = [env.register_pending(name, enrolmentKey=key["secret"]) for name in ("bob", "carol")]
    env.grant_successfully(registrations[0])
    env.grant_successfully(env.register_pending("dave"))
    env.grant_successfully(registrations[1])


def test_deleted_user_does_not_count(env: Environment) -> None:
    env.unlock(maxRegistrations=1)
    env.grant_successfully(env.register_pending("bob"))
    assert env.alice.delete("/api/users/bob").status_code == 204
    env.grant_successfully(env.register_pending("carol"))


@pytest.mark.parametrize(
    ("pattern", "admitted", "refused"),
    [
        ("press_*", ["press_7", "press_"], ["Press_7", "my-press_7", "press-7"]),
        ("line-?", ["line-7"], ["line-77", "line-"]),
        ("hall[12].*", ["hall1.a", "hall2."], ["hall3.a"]),
        ("bob", ["bob"], ["bobby"]),
    ],
)
def test_username_pattern_limits_registrations(
    env: Environment, pattern: str, admitted: list[str], refused: list[str]
) -> None:
    env.unlock(usernamePattern=pattern)
    assert {env.register(name).status_code for name in admitted} == {202}
    for name in refused:
        problem_of(env.register(name), 423, "registry-locked")


def test_granted_registrations_get_the_roles_of_the_window(env: Environment) -> None:
    env.unlock(roles=["press"])
    explicit = env.register_pending("bob")
    env.connect("carol", "carol's secret")
    env.lock()
    env.connect("dave", "dave's secret")
    env.unlock()
    for registration, roles in ((explicit, ["line", "press"]), (env.registration("carol")["id"], ["line", "press"]),
                                (env.registration("dave")["id"], ["line"])):  # fmt: skip
        username = env.grant_successfully(registration, roles=["line"])["username"]
        user = env.user(username)
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
def test_invalid_limits_do_not_unlock(env: Environment, limits: dict[str, Any], refused: str) -> None:
    assert refused_fields(env.alice.post(UNLOCK, limits)) == [refused]
    assert state(env)["locked"]


def test_actor_cannot_unlock_with_roles_that_it_lacks(env: Environment) -> None:
    # Otherwise Alice would unknowingly grant rights that Charlie chose.
    answer = env.charlie.post(UNLOCK, {"roles": ["admin"]})
    problem_of(answer, 403, "beyond-own-rights")
    assert state(env)["locked"]


def test_registration_with_a_deleted_starting_role_can_be_granted(env: Environment) -> None:
    env.unlock(roles=["press"])
    registration = env.register_pending()
    env.alice.delete("/api/roles/press")
    env.grant_successfully(registration)
