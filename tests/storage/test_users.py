"""Users, as an administrator makes, changes, finds and deletes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import bcrypt
import pytest
import time_machine

from authsvc.accounts import api_tokens, users
from authsvc.credentials.passwords import PasswordHasher, PasswordPolicy
from authsvc.errors import Conflict, InvalidInput, NotFound, PreconditionFailed
from authsvc.policy.snapshot import GrantType
from authsvc.storage.database import database, session
from authsvc.storage.models import PermissionRow, Token, UserRole
from tests.actors import ALICE, BOBS_PASSWORD, HASHER, http, mqtt
from tests.storage.environment import change_user, everything, make_bob, make_role, make_user, policy_of

pytestmark = pytest.mark.usefixtures("prepared")

STATE = mqtt("write", "devices/%u/state")
COMMANDS = mqtt("read", "devices/%u/commands")


def password_is(username: str, password: str) -> bool:
    policy = policy_of(username)
    assert policy is not None
    return policy.password_hash is not None and bcrypt.checkpw(password.encode(), policy.password_hash.encode())


def test_a_new_user_that_nothing_is_said_of_may_log_in_and_no_more() -> None:
    bob = users.create(ALICE, "bob", {}, HASHER)
    assert (bob.username, bob.enabled, bob.grant_types) == ("bob", True, frozenset({GrantType.PASSWORD}))
    assert (bob.roles, bob.permissions, bob.has_password) == ((), (), False)


def test_a_new_user_is_found_again_as_it_was_made() -> None:
    make_role("devices", STATE)
    made = make_bob(
        enabled=False,
        grant_types=frozenset({GrantType.CERTIFICATE, GrantType.TOKEN}),
        roles=("minimum-access", "devices"),
        permissions=(STATE, http("read", "/api/me"), mqtt("read", "ü/€/#", "deny")),
    )
    assert users.get("bob") == made
    assert made.roles == ("devices", "minimum-access")
    assert made.permissions == (STATE, http("read", "/api/me"), mqtt("read", "ü/€/#", "deny"))
    assert password_is("bob", BOBS_PASSWORD)


@pytest.mark.parametrize(
    "grant_types", [(), ("password",), ("token", "certificate"), ("password", "token", "certificate")]
)
def test_a_user_has_the_grant_types_it_was_given(grant_types: tuple[str, ...]) -> None:
    wanted = frozenset(map(GrantType, grant_types))
    make_bob(grant_types=wanted)
    assert users.get("bob").grant_types == wanted
    policy = policy_of("bob")
    assert policy is not None
    assert policy.grant_types == wanted


def test_what_is_named_twice_is_given_once() -> None:
    make_role("devices", STATE)
    bob = make_bob(roles=("devices", "devices"), permissions=(COMMANDS, STATE, COMMANDS))
    assert bob.roles == ("devices",)
    assert bob.permissions == (COMMANDS, STATE)


@pytest.mark.parametrize("name", ["bo", "bob/x", "b" * 65, "bob\0"])
def test_a_user_needs_a_proper_name(name: str) -> None:
    before = everything()
    with pytest.raises(InvalidInput):
        make_user(name)
    assert everything() == before


def test_a_name_is_taken_once() -> None:
    make_bob()
    before = everything()
    with pytest.raises(Conflict) as error:
        make_bob(permissions=(STATE,))
    assert error.value.code == "user-exists"
    assert everything() == before


def test_names_of_different_case_are_different_users() -> None:
    make_bob(enabled=False)
    make_user("Bob")
    assert not users.get("bob").enabled
    assert users.get("Bob").enabled


def test_a_password_that_the_policy_refuses_makes_no_user() -> None:
    before = everything()
    with pytest.raises(InvalidInput):
        make_bob(password="1234")
    assert everything() == before


@pytest.mark.parametrize("unknown", ["pilots", "", "\x01", "' OR 1=1 --"])
def test_a_role_that_does_not_exist_is_named_by_its_place_and_nothing_is_changed(unknown: str) -> None:
    make_user("bertha")
    before = everything()
    with pytest.raises(InvalidInput) as error:
        make_bob(roles=("minimum-access", unknown))
    assert error.value.errors[0].field == "roles[1]"
    with pytest.raises(InvalidInput):
        change_user("bertha", roles=(unknown,), enabled=False)
    assert everything() == before


@pytest.mark.parametrize(
    ("changes", "field", "expected"),
    [
        ({"enabled": False}, "enabled", False),
        ({"grant_types": frozenset({GrantType.TOKEN})}, "grant_types", {GrantType.TOKEN}),
        ({"roles": ()}, "roles", ()),
        ({"roles": ("devices", "minimum-access")}, "roles", ("devices", "minimum-access")),
        ({"permissions": ()}, "permissions", ()),
        ({"permissions": (COMMANDS,)}, "permissions", (COMMANDS,)),
        ({"password": None}, "has_password", False),
        ({}, "enabled", True),
    ],
)
def test_a_change_changes_what_it_names_and_nothing_else(changes: dict[str, Any], field: str, expected: Any) -> None:
    make_role("devices", COMMANDS)
    before = make_bob(roles=("minimum-access",), permissions=(STATE,))
    after = change_user("bob", **changes)
    assert users.get("bob") == after
    assert getattr(after, field) == expected
    for untouched in {"enabled", "grant_types", "roles", "permissions", "has_password", "created_at"} - {field}:
        assert getattr(after, untouched) == getattr(before, untouched)
    assert field == "has_password" or password_is("bob", BOBS_PASSWORD)


def test_a_change_of_what_was_seen_is_refused_once_it_looks_different() -> None:
    seen = make_bob(permissions=(STATE,))
    latest = users.change(ALICE, "bob", {"permissions": (COMMANDS,)}, HASHER, frozenset({seen.version}))
    before = everything()
    with pytest.raises(PreconditionFailed) as error:
        users.change(ALICE, "bob", {"enabled": False}, HASHER, frozenset({seen.version}))
    assert error.value.code == "precondition-failed"
    assert everything() == before
    assert not users.change(ALICE, "bob", {"enabled": False}, HASHER, frozenset({latest.version})).enabled


def test_a_new_password_replaces_the_old_one() -> None:
    make_bob()
    change_user("bob", password="bob's next secret")
    assert password_is("bob", "bob's next secret")
    assert not password_is("bob", BOBS_PASSWORD)


class WatchfulHasher(PasswordHasher):
    """Looks whether anybody has to wait while it hashes."""

    def hash(self, password: str) -> str:
        assert database.is_closed()
        return super().hash(password)


def test_nobody_waits_for_a_hash_to_write_something_else() -> None:
    watchful = WatchfulHasher(PasswordPolicy(), 4, HASHER.pool)
    users.create(ALICE, "bob", {"password": BOBS_PASSWORD}, watchful)
    users.change(ALICE, "bob", {"password": "bob's next secret"}, watchful)
    assert password_is("bob", "bob's next secret")


def test_times_are_utc_and_only_the_update_moves() -> None:
    made_at = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)
    with time_machine.travel(made_at, tick=False):
        make_bob()
    with time_machine.travel(made_at + timedelta(days=1), tick=False):
        change_user("bob", enabled=False)
    bob = users.get("bob")
    assert (bob.created_at, bob.updated_at) == (made_at, made_at + timedelta(days=1))
    assert bob.created_at.tzinfo is UTC


def test_a_deleted_user_takes_everything_along_and_leaves_no_rights_to_a_namesake() -> None:
    make_bob(roles=("minimum-access",), permissions=(STATE,))
    api_tokens.issue_token(ALICE, "bob", "", 1)
    users.delete(ALICE, "bob")
    with pytest.raises(NotFound):
        users.get("bob")
    namesake = make_bob()
    assert (namesake.roles, namesake.permissions) == ((), ())
    assert not api_tokens.list_tokens("bob", "", 1, 10).items
    with session():
        assert not Token.select().exists()
        assert UserRole.select().count() == 1
        assert not PermissionRow.select().where(PermissionRow.user.is_null(False)).exists()


@pytest.mark.parametrize("name", ["bob", "", "%", "x" * 500, "' OR 1=1 --"])
def test_a_user_that_does_not_exist_is_not_found(name: str) -> None:
    for attempt in (
        lambda: users.get(name),
        lambda: users.delete(ALICE, name),
        lambda: change_user(name, enabled=True),
        lambda: api_tokens.issue_token(ALICE, name, "", 1),
    ):
        with pytest.raises(NotFound) as error:
            attempt()
        assert error.value.code == "user-not-found"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["Bertha", "Bob-2", "admin", "bob_1", "bruno"]),
        ("b", ["Bertha", "Bob-2", "bob_1", "bruno"]),
        ("BO", ["Bob-2", "bob_1"]),
        ("run", ["bruno"]),
        ("_", ["bob_1"]),
        ("%", []),
        ("b%", []),
        ("\\", []),
        ("'", []),
        ("nobody", []),
    ],
)
def test_a_search_finds_names_that_contain_the_text_literally_in_any_case(text: str, expected: list[str]) -> None:
    for name in ("bob_1", "Bob-2", "bruno", "Bertha"):
        make_user(name)
    found = users.search(text, 1, 50)
    assert sorted(user.username for user in found.items) == expected
    assert found.total == len(expected)


def test_a_search_finds_those_who_have_a_role() -> None:
    make_role("devices", STATE)
    make_role("Devices", STATE)
    for name, roles in (("press-1", ("devices",)), ("press-2", ("Devices",)), ("lamp-1", ("devices", "Devices"))):
        make_user(name, roles=roles)
    assert [user.username for user in users.search("", 1, 50, role="devices").items] == ["lamp-1", "press-1"]
    found = users.search("press", 1, 1, role="devices")
    assert (found.total, [user.username for user in found.items]) == (1, ["press-1"])
    assert users.search("", 1, 50, role="device").total == 0


def test_pages_follow_each_other_by_name_without_gap_or_repetition() -> None:
    for n in range(6):
        make_user(f"device-{n}", permissions=(mqtt("read", f"own/{n}"),), roles=("minimum-access",))
    pages = [users.search("device", page, 4) for page in (1, 2, 3)]
    assert [[user.username for user in page.items] for page in pages] == [
        ["device-0", "device-1", "device-2", "device-3"],
        ["device-4", "device-5"],
        [],
    ]
    assert {(page.total, page.per_page) for page in pages} == {(6, 4)}
    assert pages[1].items[0] == users.get("device-4")
    assert pages[1].items[0].permissions == (mqtt("read", "own/4"),)


def test_a_user_may_have_more_permissions_than_fit_into_one_statement_and_as_long_as_topics_may_be() -> None:
    many = tuple(mqtt("read", f"rooms/{n}/#") for n in range(1200))
    longest = mqtt("write", "€" * 21_845)
    assert make_bob(permissions=(*many, longest)).permissions == (*many, longest)
