"""Adding one permission to a user, for a denied request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from authsvc.accounts import users
from authsvc.errors import Forbidden, InvalidInput, NotFound
from tests.actors import ALICE, CHARLIE, http, mqtt
from tests.storage.environment import (
    all_rows,
    change_user,
    create_bob,
    create_role,
    create_user,
    events,
    loaded_policy,
    policy_of,
)
from tests.storage.test_concurrency import all_at_once

if TYPE_CHECKING:
    from authsvc.settings import Settings

STATE = mqtt("write", "devices/%u/state")
TOPIC = mqtt("read", "lines/7")


@pytest.fixture(autouse=True)
def _bob(prepared: Settings) -> None:
    create_role("readers", mqtt("read", "news"))
    create_bob(permissions=(STATE,), roles=("readers",))


def test_allowed_permission_is_added_and_in_force() -> None:
    before = users.get("bob")
    after = users.allow(ALICE, "bob", TOPIC)
    assert after == users.get("bob")
    assert (after.permissions, after.roles) == ((STATE, TOPIC), before.roles)
    assert after.updated_at > before.updated_at
    policy = policy_of("bob")
    assert policy.permissions == (STATE, TOPIC)


def test_running_worker_reads_the_added_permission() -> None:
    policy = loaded_policy()
    users.allow(ALICE, "bob", TOPIC)
    policy.catch_up()
    assert policy.snapshot.users["bob"].permissions == (STATE, TOPIC)


def test_audit_event_contains_the_added_permission() -> None:
    users.allow(ALICE, "bob", TOPIC)
    event = events()[-1]
    assert (event.actor, event.action, event.target) == ("alice", "user.allow", "user:bob")
    assert event.before is None
    assert event.after == {
        "permission": {"context": "mqtt", "operation": "read", "resource": "lines/7", "effect": "allow"}
    }


def test_allowing_an_existing_permission_writes_no_event() -> None:
    count = len(events())
    assert users.allow(ALICE, "bob", STATE).permissions == (STATE,)
    assert len(events()) == count


def test_simultaneously_allowed_permissions_are_all_stored() -> None:
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
def test_actor_cannot_allow_more_than_it_holds(given: object) -> None:
    before = all_rows()
    with pytest.raises(Forbidden):
        users.allow(CHARLIE, "bob", given)  # type: ignore[arg-type]
    assert all_rows() == before


def test_actor_cannot_change_a_user_with_more_rights() -> None:
    create_user("erwin", permissions=(http("read", "/api/audit"),))
    with pytest.raises(Forbidden):
        users.allow(CHARLIE, "erwin", TOPIC)
    assert users.allow(CHARLIE, "bob", TOPIC).permissions == (STATE, TOPIC)


def test_deny_rule_cannot_be_allowed() -> None:
    with pytest.raises(InvalidInput) as refused:
        users.allow(ALICE, "bob", mqtt("read", "lines/#", "deny"))
    assert refused.value.errors[0].field == "effect"


def test_allowing_for_an_unknown_user_raises_not_found() -> None:
    with pytest.raises(NotFound):
        users.allow(ALICE, "nemo", TOPIC)
