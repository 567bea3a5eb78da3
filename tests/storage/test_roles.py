"""Roles: permissions that many users share."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import time_machine

from authsvc.accounts import roles
from authsvc.errors import Conflict, InvalidInput, NotFound, PreconditionFailed
from tests.actors import ALICE, OPERATOR, http, mqtt
from tests.storage.environment import all_rows, change_user, create_bob, create_role, create_user, loaded_policy

if TYPE_CHECKING:
    from authsvc.policy.actors import Actor

pytestmark = pytest.mark.usefixtures("prepared")

STATE = mqtt("write", "devices/%u/state")
COMMANDS = mqtt("read", "devices/%u/commands")


def test_created_role_can_be_read() -> None:
    made = create_role("devices", STATE, COMMANDS, STATE, description="Whatever reports its state ✓")
    assert roles.get("devices") == made
    assert (made.name, made.description) == ("devices", "Whatever reports its state ✓")
    assert made.permissions == (STATE, COMMANDS)
    assert not made.built_in


@pytest.mark.parametrize("name", ["", "de vices", "d" * 65, "devices/1"])
def test_invalid_role_name_is_refused(name: str) -> None:
    before = all_rows()
    with pytest.raises(InvalidInput):
        create_role(name)
    assert all_rows() == before


def test_duplicate_name_is_refused() -> None:
    create_role("devices")
    before = all_rows()
    with pytest.raises(Conflict) as error:
        create_role("devices", STATE)
    assert error.value.code == "role-exists"
    assert all_rows() == before


def test_change_affects_only_the_named_fields() -> None:
    before = create_role("devices", STATE, description="old")
    described = roles.change(ALICE, "devices", {"description": "new"})
    assert (described.description, described.permissions) == ("new", (STATE,))
    permitted = roles.change(ALICE, "devices", {"permissions": (COMMANDS, STATE, COMMANDS)})
    assert (permitted.description, permitted.permissions) == ("new", (COMMANDS, STATE))
    assert roles.change(ALICE, "devices", {"permissions": ()}).permissions == ()
    assert permitted.created_at == before.created_at


def test_change_of_an_outdated_version_is_refused() -> None:
    seen = create_role("devices", STATE)
    latest = roles.change(ALICE, "devices", {"permissions": (COMMANDS,)}, frozenset({seen.version}))
    before = all_rows()
    with pytest.raises(PreconditionFailed) as error:
        roles.change(ALICE, "devices", {"description": "mine"}, frozenset({seen.version}))
    assert error.value.code == "precondition-failed"
    assert all_rows() == before
    assert roles.change(ALICE, "devices", {"description": "mine"}, frozenset({latest.version})).description == "mine"


def test_holders_of_a_role_are_counted() -> None:
    for name in ("devices", "lamps", "nobodys"):
        create_role(name)
    create_bob(roles=("devices", "lamps"))
    create_user("press-1", roles=("devices",))
    assert roles.count_holders(["devices", "nobodys"]) == {"devices": 2, "nobodys": 0}
    assert roles.count_holders([]) == {}


def test_change_updates_only_updated_at() -> None:
    made_at = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)
    with time_machine.travel(made_at, tick=False):
        create_role("devices")
    with time_machine.travel(made_at + timedelta(hours=1), tick=False):
        roles.change(ALICE, "devices", {"description": "new"})
    devices = roles.get("devices")
    assert (devices.created_at, devices.updated_at) == (made_at, made_at + timedelta(hours=1))


def test_assigned_role_cannot_be_deleted() -> None:
    create_role("devices", STATE)
    create_bob(roles=("devices",))
    before = all_rows()
    with pytest.raises(Conflict) as error:
        roles.delete(ALICE, "devices")
    assert error.value.code == "role-in-use"
    assert all_rows() == before

    change_user("bob", roles=())
    roles.delete(ALICE, "devices")
    with pytest.raises(NotFound):
        roles.get("devices")


def test_role_created_again_has_no_old_permissions() -> None:
    create_role("devices", STATE)
    roles.delete(ALICE, "devices")
    assert create_role("devices").permissions == ()


@pytest.mark.parametrize("name", ["pilots", "", "%", "x" * 500])
def test_unknown_role_raises_not_found(name: str) -> None:
    for attempt in (roles.get, lambda name: roles.delete(ALICE, name), lambda name: roles.change(ALICE, name, {})):
        with pytest.raises(NotFound) as error:
            attempt(name)
        assert error.value.code == "role-not-found"


def test_built_in_roles_have_the_documented_permissions() -> None:
    admin, minimum = roles.get("admin"), roles.get("minimum-access")
    assert set(admin.permissions) == {mqtt("readWrite", "#"), http("readWrite", "/#")}
    assert minimum.permissions == (http("read", "/api/me"),)
    assert admin.built_in
    assert minimum.built_in
    assert set(loaded_policy().snapshot.roles) == {"admin", "minimum-access"}


@pytest.mark.parametrize("name", ["admin", "minimum-access"])
@pytest.mark.parametrize("actor", [ALICE, OPERATOR])
def test_built_in_role_cannot_be_changed(name: str, actor: Actor) -> None:
    before = all_rows()
    for attempt in (
        lambda: roles.change(actor, name, {"description": "mine"}),
        lambda: roles.change(actor, name, {"permissions": ()}),
        lambda: roles.delete(actor, name),
    ):
        with pytest.raises(Conflict) as error:
            attempt()
        assert error.value.code == "role-built-in"
    assert all_rows() == before


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
def test_search_finds_names_and_descriptions_containing_the_text(text: str, expected: list[str]) -> None:
    create_role("screens", COMMANDS, description="100% passive")
    create_role("devices", STATE, description="Whatever reports its state")
    found = roles.search(text, 1, 50)
    assert [role.name for role in found.items] == expected
    assert found.total == len(expected)


def test_pages_are_ordered_by_name() -> None:
    for n in range(3):
        create_role(f"room-{n}", mqtt("read", f"rooms/{n}"))
    pages = [roles.search("room", page, 2) for page in (1, 2, 3)]
    assert [[role.name for role in page.items] for page in pages] == [["room-0", "room-1"], ["room-2"], []]
    assert {page.total for page in pages} == {3}
    assert pages[1].items[0] == roles.get("room-2")
