"""Allowing one thing more: one permission is added to what the user has by then, and nothing else changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from authsvc.accounts import users
from authsvc.errors import Forbidden, InvalidInput, NotFound
from tests.actors import ALICE, CHARLIE, http, mqtt
from tests.storage.environment import (
    change_user,
    events,
    everything,
    loaded_policy,
    make_bob,
    make_role,
    make_user,
    policy_of,
)
from tests.storage.test_concurrency import all_at_once

if TYPE_CHECKING:
    from authsvc.settings import Settings

STATE = mqtt("write", "devices/%u/state")
TOPIC = mqtt("read", "lines/7")


@pytest.fixture(autouse=True)
def _bob(prepared: Settings) -> None:
    make_role("readers", mqtt("read", "news"))
    make_bob(permissions=(STATE,), roles=("readers",))


def test_one_permission_is_added_to_those_there_are_and_is_in_force() -> None:
    before = users.get("bob")
    after = users.allow(ALICE, "bob", TOPIC)
    assert after == users.get("bob")
    assert (after.permissions, after.roles) == ((STATE, TOPIC), before.roles)
    assert after.updated_at > before.updated_at
    policy = policy_of("bob")
    assert policy is not None
    assert policy.permissions == (STATE, TOPIC)


def test_a_worker_that_runs_learns_of_it() -> None:
    policy = loaded_policy()
    users.allow(ALICE, "bob", TOPIC)
    policy.catch_up()
    assert policy.snapshot.users["bob"].permissions == (STATE, TOPIC)


def test_the_audit_trail_names_what_was_added() -> None:
    users.allow(ALICE, "bob", TOPIC)
    event = events()[-1]
    assert (event.actor, event.action, event.target) == ("alice", "user.allow", "user:bob")
    assert event.before is None
    assert event.after == {
        "permission": {"context": "mqtt", "operation": "read", "resource": "lines/7", "effect": "allow"}
    }


def test_one_that_is_there_is_no_error_and_no_event() -> None:
    count = len(events())
    assert users.allow(ALICE, "bob", STATE).permissions == (STATE,)
    assert len(events()) == count


def test_of_administrators_who_allow_at_once_none_is_lost() -> None:
    given = [mqtt("read", f"lines/{n}") for n in range(6)]
    all_at_once(
        *(lambda each=each: users.allow(ALICE, "bob", each) for each in given),
        lambda: users.allow(ALICE, "bob", given[0]),
        lambda: change_user("bob", enabled=False),
    )
    record = users.get("bob")
    assert sorted(record.permissions) == sorted([STATE, *given])
    assert not record.enabled


@pytest.mark.parametrize("given", [http("read", "/api/audit"), http("readWrite", "/#")])
def test_nobody_allows_more_than_they_hold(given: object) -> None:
    before = everything()
    with pytest.raises(Forbidden):
        users.allow(CHARLIE, "bob", given)  # type: ignore[arg-type]
    assert everything() == before


def test_nobody_touches_a_user_who_holds_more() -> None:
    make_user("erwin", permissions=(http("read", "/api/audit"),))
    with pytest.raises(Forbidden):
        users.allow(CHARLIE, "erwin", TOPIC)
    assert users.allow(CHARLIE, "bob", TOPIC).permissions == (STATE, TOPIC)


def test_to_forbid_something_is_not_to_allow_it() -> None:
    with pytest.raises(InvalidInput) as refused:
        users.allow(ALICE, "bob", mqtt("read", "lines/#", "deny"))
    assert refused.value.errors[0].field == "effect"


def test_nobody_is_not_found() -> None:
    with pytest.raises(NotFound):
        users.allow(ALICE, "nemo", TOPIC)
