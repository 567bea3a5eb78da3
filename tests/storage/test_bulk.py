"""Changes of many users at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import peewee
import pytest

from authsvc.accounts import bulk, users
from authsvc.accounts.bulk import BulkAction
from authsvc.activity import audit
from authsvc.errors import Conflict, Forbidden, InvalidInput, NotFound
from tests.actors import ALICE, CHARLIE, HASHER, http, mqtt
from tests.storage.environment import create_role, create_user

if TYPE_CHECKING:
    from authsvc.policy.actors import Actor

pytestmark = pytest.mark.usefixtures("prepared")


def change(username: str, action: BulkAction, role: str = "", actor: Actor = ALICE) -> str:
    return bulk.change_user(actor, username, action, role, HASHER)


def events_of(username: str) -> list[str]:
    return [event.action for event in audit.events(1, 50, audit.AuditFilter(target=f"user:{username}")).items]


def test_each_action_changes_the_user_once_and_audits_it_once() -> None:
    create_role("line")
    create_role("hall")
    create_user("bob", roles=("hall",))
    for _ in range(2):
        assert change("bob", BulkAction.DISABLE) == "bob"
        assert not users.get("bob").enabled
    for _ in range(2):
        change("bob", BulkAction.ADD_ROLE, "line")
        assert set(users.get("bob").roles) == {"hall", "line"}
    for _ in range(2):
        change("bob", BulkAction.REMOVE_ROLE, "hall")
        assert users.get("bob").roles == ("line",)
    change("bob", BulkAction.ENABLE)
    change("bob", BulkAction.DELETE)
    assert not users.exists("bob")
    assert events_of("bob") == ["user.delete", *["user.change"] * 4, "user.create"]


def test_unchanged_user_keeps_its_version() -> None:
    before = create_user("bob")
    change("bob", BulkAction.ENABLE)
    change("bob", BulkAction.REMOVE_ROLE, "line")
    assert users.get("bob").version == before.version


def test_refused_changes_are_those_of_a_single_change() -> None:
    create_user("boss", permissions=(http("readWrite", "/#"),))
    create_role("owner", http("readWrite", "/#"))
    create_user("bob")
    with pytest.raises(Forbidden):
        change("boss", BulkAction.DISABLE, actor=CHARLIE)
    with pytest.raises(Forbidden):
        change("bob", BulkAction.ADD_ROLE, "owner", actor=CHARLIE)
    with pytest.raises(InvalidInput):
        change("bob", BulkAction.ADD_ROLE, "missing")
    with pytest.raises(NotFound):
        change("nobody", BulkAction.DELETE)
    assert (users.get("bob").roles, users.get("boss").enabled) == ((), True)


@pytest.mark.parametrize("action", [BulkAction.DISABLE, BulkAction.DELETE, BulkAction.REMOVE_ROLE])
def test_last_administrator_stays_and_the_others_are_changed(action: BulkAction) -> None:
    create_user("bob", permissions=(mqtt("read", "a"),))
    create_user("second", roles=("admin",))
    done, failed = bulk.apply_to_each(["bob", "second", "admin", "bob"], lambda name: change(name, action, "admin"))
    assert done == ["bob", "second"]
    ((name, error),) = failed
    assert name == "admin"
    assert isinstance(error, Conflict)
    assert error.code == "last-administrator"
    assert users.get("admin").enabled
    assert users.get("admin").roles == ("admin",)


def test_lost_database_leaves_a_report_of_what_was_done() -> None:
    def lose_at(name: str) -> str:
        if name == "b":
            raise peewee.OperationalError
        return name

    done, failed = bulk.apply_to_each(["a", "b", "c"], lose_at)
    assert done == ["a"]
    assert [(one.id, one.error.code) for one in failed] == [(name, "database-unavailable") for name in ("b", "c")]
    with pytest.raises(peewee.OperationalError):
        bulk.apply_to_each(["b", "c"], lose_at)
