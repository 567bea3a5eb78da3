"""Policy changes: one transaction and one version each, also if nested."""

from __future__ import annotations

import pytest

from authsvc.accounts import api_tokens, users
from authsvc.errors import Conflict, Forbidden, NotFound
from authsvc.policy.snapshot import GrantType, SnapshotChange
from authsvc.storage.changes import Change, ChangeKind, changes_since, policy_change
from authsvc.storage.database import session
from authsvc.storage.policy_cache import PolicyCache
from tests.actors import ALICE, CHARLIE, HASHER
from tests.storage.environment import all_rows, create_bob, create_role, create_user, loaded_policy, version

pytestmark = pytest.mark.usefixtures("prepared")


def changes_after(before: int) -> set[Change] | None:
    with session():
        return changes_since(before)


def test_change_raises_the_version_by_one_and_records_what_changed() -> None:
    before = version()
    create_bob()
    create_role("devices")
    assert version() == before + 2
    assert changes_after(before) == {Change(ChangeKind.USER, "bob"), Change(ChangeKind.ROLE, "devices")}
    assert changes_after(before + 1) == {Change(ChangeKind.ROLE, "devices")}
    assert changes_after(before + 2) == set()


def test_nested_changes_have_one_version() -> None:
    before = version()
    known = loaded_policy()
    with policy_change():
        create_bob()
        create_role("devices")
    assert version() == before + 1
    assert changes_after(before) == {Change(ChangeKind.USER, "bob"), Change(ChangeKind.ROLE, "devices")}
    known.catch_up()
    assert "bob" in known.snapshot.users
    create_user("bertha")
    assert version() == before + 2


def test_failed_nested_change_is_rolled_back_alone() -> None:
    before = version()
    with policy_change():
        create_bob()
        with pytest.raises(Conflict):
            create_bob()
        with pytest.raises(Forbidden):
            users.create(CHARLIE, "carl", {"roles": ("admin",)}, HASHER)
    assert users.get("bob")
    with pytest.raises(NotFound):
        users.get("carl")
    assert changes_after(before) == {Change(ChangeKind.USER, "bob")}


def create_bob_in_a_failing_change() -> None:
    with policy_change():
        create_bob()
        raise ZeroDivisionError


def test_failed_outer_change_rolls_back_nested_ones() -> None:
    before = all_rows()
    with pytest.raises(ZeroDivisionError):
        create_bob_in_a_failing_change()
    assert all_rows() == before
    create_bob()
    assert users.get("bob")


# What subscribers of the policy are told.


def told_after(known: PolicyCache) -> list[SnapshotChange]:
    """Refresh the policy and return what its subscribers are told."""
    told: list[SnapshotChange] = []
    known.subscribe(told.append)
    known.catch_up()
    known.catch_up()
    return told


def test_subscribers_are_told_the_changed_users_and_roles_once() -> None:
    create_user("bertha")
    known = loaded_policy()
    create_bob(grant_types=frozenset({GrantType.TOKEN}))
    create_role("devices")
    api_tokens.issue_token(ALICE, "bertha", "", 12)
    users.delete(ALICE, "bob")
    (change,) = told_after(known)
    expected = SnapshotChange(known.snapshot.revision, frozenset({"bob", "bertha"}), frozenset({"devices"}))
    assert change == expected


def test_subscribers_are_told_of_a_new_token_and_the_revision_grows() -> None:
    create_bob(grant_types=frozenset({GrantType.TOKEN}))
    known = loaded_policy()
    before = known.snapshot.revision, known.generation
    api_tokens.issue_token(ALICE, "bob", "", 12)
    assert told_after(known) == [SnapshotChange(before[0] + 1, frozenset({"bob"}))]
    assert known.generation == before[1]


def test_connection_to_end_changes_no_entry_and_keeps_cached_answers() -> None:
    create_bob()
    known = loaded_policy()
    users_before, generation = known.snapshot.users, known.generation
    with policy_change() as announce:
        announce(ChangeKind.CLIENT, "0123456789abcdef0123456789abcdef/17")
    (change,) = told_after(known)
    assert change.clients == {"0123456789abcdef0123456789abcdef/17"}
    assert (change.users, change.roles, change.everything) == (frozenset(), frozenset(), False)
    assert known.snapshot.users is users_before
    assert known.generation == generation


def test_subscribers_are_told_that_everything_was_read() -> None:
    first = PolicyCache()
    assert told_after(first) == [SnapshotChange(first.snapshot.revision, everything=True)]
    create_bob()
    known = loaded_policy()
    known.snapshot.version += 1000  # as before an older database was restored
    assert [change.everything for change in told_after(known)] == [True]


def test_subscribers_are_told_nothing_without_a_change() -> None:
    assert told_after(loaded_policy()) == []
