"""The last administrator who can sign in and repair everything cannot be removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from authsvc.accounts import roles, users
from authsvc.errors import Conflict, Forbidden
from authsvc.policy.snapshot import GrantType
from tests.actors import ALICE, CHARLIE, OPERATOR, http
from tests.storage.environment import all_rows, change_user, create_bob, create_role, create_user, execute

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("prepared")

PASSWORD = frozenset({GrantType.PASSWORD})
TOKEN = frozenset({GrantType.TOKEN})
# The first start creates one administrator, admin.
STEPS_DOWN: dict[str, Callable[[], object]] = {
    "delete": lambda: users.delete(ALICE, "admin"),
    "disable": lambda: change_user("admin", enabled=False),
    "take the role": lambda: change_user("admin", roles=("minimum-access",)),
    "take the password": lambda: change_user("admin", password=None),
    "take the grant type": lambda: change_user("admin", grant_types=TOKEN),
    "everything at once": lambda: change_user("admin", enabled=False, roles=(), password=None, grant_types=frozenset()),
}
each_way = pytest.mark.parametrize("step_down", STEPS_DOWN.values(), ids=STEPS_DOWN)


def assert_refused(step_down: Callable[[], object]) -> None:
    before = all_rows()
    with pytest.raises(Conflict) as error:
        step_down()
    assert error.value.code == "last-administrator"
    assert all_rows() == before


@each_way
def test_last_administrator_cannot_be_removed(step_down: Callable[[], object]) -> None:
    create_bob()
    assert_refused(step_down)


@each_way
def test_one_of_two_administrators_can_be_removed(step_down: Callable[[], object]) -> None:
    create_user("alice", roles=("admin",), grant_types=PASSWORD)
    step_down()


@pytest.mark.parametrize(
    "wanted",
    [
        {"roles": ("minimum-access",)},
        {"roles": ("admin",), "enabled": False},
        {"roles": ("admin",), "password": None},
        {"roles": ("admin",), "grant_types": TOKEN},
        {"permissions": (http("readWrite", "/#"),)},
    ],
    ids=["another role", "disabled", "no password", "token alone", "rights without the role"],
)
def test_user_who_cannot_sign_in_or_repair_everything_is_no_administrator(wanted: dict[str, Any]) -> None:
    create_user("alice", **wanted)
    for step_down in STEPS_DOWN.values():
        assert_refused(step_down)


def test_operator_cannot_remove_the_last_administrator_either() -> None:
    with pytest.raises(Conflict):
        users.delete(OPERATOR, "admin")


def test_last_administrator_can_be_changed_in_other_ways() -> None:
    change_user("admin", password="another secret", roles=("admin", "minimum-access"), grant_types=PASSWORD)


def test_other_users_can_be_removed() -> None:
    create_bob()
    change_user("bob", enabled=False, password=None)
    users.delete(ALICE, "bob")


def test_changes_work_without_any_administrator() -> None:
    create_bob()
    create_user("alice", roles=("admin",), enabled=False)
    execute("UPDATE users SET enabled = FALSE WHERE username = 'admin'")
    change_user("bob", enabled=False)
    users.delete(ALICE, "bob")
    change_user("alice", enabled=True)


def test_user_denied_everything_is_no_administrator() -> None:
    assert_refused(lambda: change_user("admin", permissions=(http("readWrite", "/#", "deny"),)))


def test_user_who_may_not_change_its_own_account_is_no_administrator() -> None:
    itself = http("write", "/api/users/%u", "deny")
    assert_refused(lambda: change_user("admin", permissions=(itself,)))
    change_user("admin", permissions=(http("write", "/api/audit", "deny"),))


def test_deny_rule_of_a_role_cannot_disable_the_last_administrator() -> None:
    create_role("staff")
    change_user("admin", roles=("admin", "staff"))
    denial = http("readWrite", "/#", "deny")
    assert_refused(lambda: roles.change(ALICE, "staff", {"permissions": (denial,)}))


def test_actor_cannot_deny_rights_to_users_with_more_rights() -> None:
    create_role("staff")
    change_user("admin", roles=("admin", "staff"))
    with pytest.raises(Forbidden):
        roles.change(CHARLIE, "staff", {"permissions": (http("readWrite", "/api/audit/#", "deny"),)})
