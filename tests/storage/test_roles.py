"""Roles: permissions that many users share."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import time_machine

from authsvc.accounts import roles
from authsvc.errors import Conflict, InvalidInput, NotFound, PreconditionFailed
from tests.actors import ALICE, OPERATOR, http, mqtt
from tests.storage.environment import change_user, everything, loaded_policy, make_bob, make_role, make_user

if TYPE_CHECKING:
    from authsvc.policy.actors import Actor

pytestmark = pytest.mark.usefixtures("prepared")

STATE = mqtt("write", "devices/%u/state")
COMMANDS = mqtt("read", "devices/%u/commands")


def test_a_role_is_found_again_as_it_was_made() -> None:
    made = make_role("devices", STATE, COMMANDS, STATE, description="Whatever reports its state ✓")
    assert roles.get("devices") == made
    assert (made.name, made.description) == ("devices", "Whatever reports its state ✓")
    assert made.permissions == (STATE, COMMANDS)
    assert not made.built_in


@pytest.mark.parametrize("name", ["", "de vices", "d" * 65, "devices/1"])
def test_a_role_needs_a_proper_name(name: str) -> None:
    before = everything()
    with pytest.raises(InvalidInput):
        make_role(name)
    assert everything() == before


def test_a_name_is_taken_once() -> None:
    make_role("devices")
    before = everything()
    with pytest.raises(Conflict) as error:
        make_role("devices", STATE)
    assert error.value.code == "role-exists"
    assert everything() == before


def test_a_change_changes_what_it_names_and_nothing_else() -> None:
    before = make_role("devices", STATE, description="old")
    described = roles.change(ALICE, "devices", {"description": "new"})
    assert (described.description, described.permissions) == ("new", (STATE,))
    permitted = roles.change(ALICE, "devices", {"permissions": (COMMANDS, STATE, COMMANDS)})
    assert (permitted.description, permitted.permissions) == ("new", (COMMANDS, STATE))
    assert roles.change(ALICE, "devices", {"permissions": ()}).permissions == ()
    assert permitted.created_at == before.created_at


def test_a_change_of_what_was_seen_is_refused_once_it_looks_different() -> None:
    seen = make_role("devices", STATE)
    latest = roles.change(ALICE, "devices", {"permissions": (COMMANDS,)}, frozenset({seen.version}))
    before = everything()
    with pytest.raises(PreconditionFailed) as error:
        roles.change(ALICE, "devices", {"description": "mine"}, frozenset({seen.version}))
    assert error.value.code == "precondition-failed"
    assert everything() == before
    assert roles.change(ALICE, "devices", {"description": "mine"}, frozenset({latest.version})).description == "mine"


def test_who_has_a_role_is_counted() -> None:
    for name in ("devices", "lamps", "nobodys"):
        make_role(name)
    make_bob(roles=("devices", "lamps"))
    make_user("press-1", roles=("devices",))
    assert roles.count_holders(["devices", "nobodys"]) == {"devices": 2, "nobodys": 0}
    assert roles.count_holders([]) == {}


def test_only_the_update_moves_with_a_change() -> None:
    made_at = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)
    with time_machine.travel(made_at, tick=False):
        make_role("devices")
    with time_machine.travel(made_at + timedelta(hours=1), tick=False):
        roles.change(ALICE, "devices", {"description": "new"})
    devices = roles.get("devices")
    assert (devices.created_at, devices.updated_at) == (made_at, made_at + timedelta(hours=1))


def test_a_role_that_somebody_has_is_not_deleted() -> None:
    make_role("devices", STATE)
    make_bob(roles=("devices",))
    before = everything()
    with pytest.raises(Conflict) as error:
        roles.delete(ALICE, "devices")
    assert error.value.code == "role-in-use"
    assert everything() == before

    change_user("bob", roles=())
    roles.delete(ALICE, "devices")
    with pytest.raises(NotFound):
        roles.get("devices")


def test_a_new_role_of_an_old_name_begins_with_nothing() -> None:
    make_role("devices", STATE)
    roles.delete(ALICE, "devices")
    assert make_role("devices").permissions == ()


@pytest.mark.parametrize("name", ["pilots", "", "%", "x" * 500])
def test_a_role_that_does_not_exist_is_not_found(name: str) -> None:
    for attempt in (roles.get, lambda name: roles.delete(ALICE, name), lambda name: roles.change(ALICE, name, {})):
        with pytest.raises(NotFound) as error:
            attempt(name)
        assert error.value.code == "role-not-found"


def test_admin_may_do_everything_and_minimum_access_see_itself() -> None:
    admin, minimum = roles.get("admin"), roles.get("minimum-access")
    assert set(admin.permissions) == {mqtt("readWrite", "#"), http("readWrite", "/#")}
    assert minimum.permissions == (http("read", "/api/me"),)
    assert admin.built_in
    assert minimum.built_in
    assert set(loaded_policy().snapshot.roles) == {"admin", "minimum-access"}


@pytest.mark.parametrize("name", ["admin", "minimum-access"])
@pytest.mark.parametrize("actor", [ALICE, OPERATOR])
def test_a_built_in_role_stays_as_it_is_whoever_asks(name: str, actor: Actor) -> None:
    before = everything()
    for attempt in (
        lambda: roles.change(actor, name, {"description": "mine"}),
        lambda: roles.change(actor, name, {"permissions": ()}),
        lambda: roles.delete(actor, name),
    ):
        with pytest.raises(Conflict) as error:
            attempt()
        assert error.value.code == "role-built-in"
    assert everything() == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["admin", "devices", "minimum-access", "screens"]),
        ("REPORT", ["devices"]),
        ("e", ["admin", "devices", "minimum-access", "screens"]),
        ("screen", ["screens"]),
        ("100%", ["screens"]),
        ("0_", []),
    ],
)
def test_a_search_finds_names_and_descriptions_that_contain_the_text_literally(text: str, expected: list[str]) -> None:
    make_role("screens", COMMANDS, description="100% passive")
    make_role("devices", STATE, description="Whatever reports its state")
    found = roles.search(text, 1, 50)
    assert [role.name for role in found.items] == expected
    assert found.total == len(expected)


def test_pages_follow_each_other_by_name() -> None:
    for n in range(3):
        make_role(f"room-{n}", mqtt("read", f"rooms/{n}"))
    pages = [roles.search("room", page, 2) for page in (1, 2, 3)]
    assert [[role.name for role in page.items] for page in pages] == [["room-0", "room-1"], ["room-2"], []]
    assert {page.total for page in pages} == {3}
    assert pages[1].items[0] == roles.get("room-2")
