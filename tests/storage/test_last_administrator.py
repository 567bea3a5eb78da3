"""There is always somebody left who could sign in and mend things."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from authsvc.accounts import roles, users
from authsvc.errors import Conflict, Forbidden
from authsvc.policy.snapshot import GrantType
from tests.actors import ALICE, CHARLIE, OPERATOR, http
from tests.storage.environment import change_user, everything, execute, make_bob, make_role, make_user

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("prepared")

PASSWORD = frozenset({GrantType.PASSWORD})
TOKEN = frozenset({GrantType.TOKEN})
# The first start made one administrator, by the name of admin.
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
    before = everything()
    with pytest.raises(Conflict) as error:
        step_down()
    assert error.value.code == "last-administrator"
    assert everything() == before


@each_way
def test_the_last_administrator_stays(step_down: Callable[[], object]) -> None:
    make_bob()
    assert_refused(step_down)


@each_way
def test_of_two_administrators_either_may_go(step_down: Callable[[], object]) -> None:
    make_user("alice", roles=("admin",), grant_types=PASSWORD)
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
def test_who_could_not_sign_in_or_mend_everything_is_no_other_administrator(wanted: dict[str, Any]) -> None:
    make_user("alice", **wanted)
    for step_down in STEPS_DOWN.values():
        assert_refused(step_down)


def test_the_operator_at_the_command_line_is_held_to_it_too() -> None:
    with pytest.raises(Conflict):
        users.delete(OPERATOR, "admin")


def test_the_last_administrator_may_change_in_every_other_way() -> None:
    change_user("admin", password="another secret", roles=("admin", "minimum-access"), grant_types=PASSWORD)


def test_everybody_else_may_come_and_go() -> None:
    make_bob()
    change_user("bob", enabled=False, password=None)
    users.delete(ALICE, "bob")


def test_where_nobody_administers_any_more_the_rest_can_still_be_changed() -> None:
    make_bob()
    make_user("alice", roles=("admin",), enabled=False)
    execute("UPDATE users SET enabled = FALSE WHERE username = 'admin'")
    change_user("bob", enabled=False)
    users.delete(ALICE, "bob")
    change_user("alice", enabled=True)


def test_an_administrator_who_is_denied_everything_is_none() -> None:
    assert_refused(lambda: change_user("admin", permissions=(http("readWrite", "/#", "deny"),)))


def test_an_administrator_who_is_denied_the_way_to_its_own_mending_is_none() -> None:
    itself = http("write", "/api/users/%u", "deny")
    assert_refused(lambda: change_user("admin", permissions=(itself,)))
    change_user("admin", permissions=(http("write", "/api/audit", "deny"),))


def test_a_role_does_not_bind_the_hands_of_the_last_administrator() -> None:
    make_role("staff")
    change_user("admin", roles=("admin", "staff"))
    denial = http("readWrite", "/#", "deny")
    assert_refused(lambda: roles.change(ALICE, "staff", {"permissions": (denial,)}))


def test_a_role_that_denies_does_not_bind_the_hands_of_who_holds_more() -> None:
    make_role("staff")
    change_user("admin", roles=("admin", "staff"))
    with pytest.raises(Forbidden):
        roles.change(CHARLIE, "staff", {"permissions": (http("readWrite", "/api/audit/#", "deny"),)})
