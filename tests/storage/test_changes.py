"""A change of policy: one transaction, one version, and what it touched; also when it is made of others."""

from __future__ import annotations

import pytest

from authsvc.accounts import users
from authsvc.errors import Conflict, Forbidden, NotFound
from authsvc.storage.changes import Change, ChangeKind, changes_since, policy_change
from authsvc.storage.database import session
from tests.actors import CHARLIE, HASHER
from tests.storage.environment import everything, loaded_policy, make_bob, make_role, make_user, version

pytestmark = pytest.mark.usefixtures("prepared")


def announced_since(before: int) -> set[Change] | None:
    with session():
        return changes_since(before)


def test_a_change_raises_the_version_by_one_and_names_what_it_touched() -> None:
    before = version()
    make_bob()
    make_role("devices")
    assert version() == before + 2
    assert announced_since(before) == {Change(ChangeKind.USER, "bob"), Change(ChangeKind.ROLE, "devices")}
    assert announced_since(before + 1) == {Change(ChangeKind.ROLE, "devices")}
    assert announced_since(before + 2) == set()


def test_changes_within_a_change_are_one_change() -> None:
    before = version()
    known = loaded_policy()
    with policy_change():
        make_bob()
        make_role("devices")
    assert version() == before + 1
    assert announced_since(before) == {Change(ChangeKind.USER, "bob"), Change(ChangeKind.ROLE, "devices")}
    known.catch_up()
    assert "bob" in known.snapshot.users
    make_user("bertha")
    assert version() == before + 2


def test_of_changes_within_a_change_one_may_fail_and_leaves_nothing_behind() -> None:
    before = version()
    with policy_change():
        make_bob()
        with pytest.raises(Conflict):
            make_bob()
        with pytest.raises(Forbidden):
            users.create(CHARLIE, "carl", {"roles": ("admin",)}, HASHER)
    assert users.get("bob")
    with pytest.raises(NotFound):
        users.get("carl")
    assert announced_since(before) == {Change(ChangeKind.USER, "bob")}


def make_bob_within_a_change_that_fails() -> None:
    with policy_change():
        make_bob()
        raise ZeroDivisionError


def test_a_change_that_fails_takes_those_within_it_along() -> None:
    before = everything()
    with pytest.raises(ZeroDivisionError):
        make_bob_within_a_change_that_fails()
    assert everything() == before
    make_bob()
    assert users.get("bob")
