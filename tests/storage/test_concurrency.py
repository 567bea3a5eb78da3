"""Simultaneous changes: each is complete, and none is lost."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from authsvc.accounts import roles, users
from authsvc.errors import AuthsvcError, Conflict
from authsvc.storage.database import session
from authsvc.storage.models import PolicyChange, User
from authsvc.storage.policy_cache import PolicyCache
from tests.actors import ALICE, mqtt
from tests.storage.environment import change_user, create_bob, create_role, create_user, events, loaded_policy, version

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

pytestmark = pytest.mark.usefixtures("prepared")

STATE = mqtt("write", "devices/%u/state")
PATIENCE = 30.0


def all_at_once(*acts: Callable[[], object]) -> list[object]:
    """Call these functions at the same time in threads; return their results or exceptions."""
    start = threading.Barrier(len(acts))

    def run(act: Callable[[], object]) -> object:
        start.wait(PATIENCE)
        try:
            return act()
        except AuthsvcError as error:
            return error

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(run, acts, timeout=PATIENCE))


def kinds(outcomes: Sequence[object]) -> set[str]:
    return {type(outcome).__name__ for outcome in outcomes}


def test_creating_the_same_user_twice_at_once_gives_one_conflict() -> None:
    outcomes = all_at_once(create_bob, create_bob)
    assert kinds(outcomes) == {"UserRecord", "Conflict"}
    (refused,) = [outcome for outcome in outcomes if isinstance(outcome, Conflict)]
    assert refused.code == "user-exists"
    with session():
        assert User.select().where(User.username == "bob").count() == 1
    assert [event.action for event in events() if event.target == "user:bob"] == ["user.create"]


def test_creating_the_same_role_twice_at_once_gives_one_conflict() -> None:
    outcomes = all_at_once(lambda: create_role("devices", STATE), lambda: create_role("devices", STATE))
    assert kinds(outcomes) == {"RoleRecord", "Conflict"}
    assert roles.get("devices").permissions == (STATE,)


def test_simultaneous_changes_of_different_fields_are_both_stored() -> None:
    for _ in range(5):
        create_bob()
        all_at_once(
            lambda: change_user("bob", enabled=False),
            lambda: change_user("bob", permissions=(STATE,)),
            lambda: change_user("bob", password=None),
        )
        bob = users.get("bob")
        assert (bob.enabled, bob.permissions, bob.has_password) == (False, (STATE,), False)
        users.delete(ALICE, "bob")


def test_two_last_administrators_cannot_delete_each_other() -> None:
    create_user("alice", roles=("admin",))
    outcomes = all_at_once(lambda: users.delete(ALICE, "admin"), lambda: users.delete(ALICE, "alice"))
    assert kinds(outcomes) == {"NoneType", "Conflict"}


def test_role_is_not_deleted_while_it_is_assigned() -> None:
    create_role("devices", STATE)
    create_bob()
    all_at_once(lambda: roles.delete(ALICE, "devices"), lambda: change_user("bob", roles=("devices",)))
    assert [role.name for role in roles.search("devices", 1, 5).items] == list(users.get("bob").roles)


def test_versions_become_visible_in_order_without_gaps() -> None:
    known = loaded_policy()
    before = version()
    seen: list[int] = []

    def watch() -> None:
        while len(known.snapshot.users) < 21:
            known.catch_up()
            seen.append(known.snapshot.version)

    makers = [lambda n=n: [create_user(f"device-{n}-{m}", password=None) for m in range(5)] for n in range(4)]
    outcomes = all_at_once(watch, *makers)
    assert kinds(outcomes) == {"NoneType", "list"}
    assert seen == sorted(seen)
    assert version() == before + 20
    with session():
        versions = [change.version for change in PolicyChange.select().where(PolicyChange.version > before)]
    assert sorted(versions) == list(range(before + 1, before + 21))


def test_several_threads_can_catch_up_at_once() -> None:
    known = PolicyCache()
    for n in range(5):
        create_user(f"device-{n}", password=None)
        all_at_once(*[known.catch_up] * 4)
        assert known.snapshot.version == version()
        assert len(known.snapshot.users) == n + 2


def test_many_users_can_be_created_at_once() -> None:
    outcomes = all_at_once(*(lambda n=n: create_user(f"device-{n}") for n in range(8)))
    assert kinds(outcomes) == {"UserRecord"}
    assert users.search(users.UserFilter("device-"), 1, 10).total == 8
