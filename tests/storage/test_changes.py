"""Policy changes: one transaction and one version each, also if nested."""

from __future__ import annotations

import pytest

from authsvc.accounts import users
from authsvc.errors import Conflict, Forbidden, NotFound
from authsvc.storage.changes import Change, ChangeKind, changes_since, policy_change
from authsvc.storage.database import session
from tests.actors import CHARLIE, HASHER
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
