"""Creating, changing, finding and deleting users."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import bcrypt
import pytest
import time_machine

from authsvc.accounts import api_tokens, users
from authsvc.activity.client_ids import SeenClientIds
from authsvc.credentials.passwords import PasswordHasher, PasswordPolicy
from authsvc.errors import Conflict, InvalidInput, NotFound, PreconditionFailed
from authsvc.policy.snapshot import GrantType
from authsvc.storage import policy_reader
from authsvc.storage.database import database, session
from authsvc.storage.models import PermissionRow, Token, UserRole
from tests.actors import ALICE, BOBS_PASSWORD, HASHER, http, mqtt
from tests.storage.environment import all_rows, change_user, create_bob, create_role, create_user, policy_of

pytestmark = pytest.mark.usefixtures("prepared")

STATE = mqtt("write", "devices/%u/state")
COMMANDS = mqtt("read", "devices/%u/commands")


def password_is(username: str, password: str) -> bool:
    policy = policy_of(username)
    return policy.password_hash is not None and bcrypt.checkpw(password.encode(), policy.password_hash.encode())


def test_new_user_without_options_can_only_log_in() -> None:
    bob = users.create(ALICE, "bob", {}, HASHER)
    assert (bob.username, bob.enabled, bob.grant_types) == ("bob", True, frozenset({GrantType.PASSWORD}))
    assert (bob.roles, bob.permissions, bob.has_password) == ((), (), False)


def test_created_user_can_be_read() -> None:
    create_role("devices", STATE)
    made = create_bob(
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
def test_user_has_the_given_grant_types(grant_types: tuple[str, ...]) -> None:
    wanted = frozenset(map(GrantType, grant_types))
    create_bob(grant_types=wanted)
    assert users.get("bob").grant_types == wanted
    policy = policy_of("bob")
    assert policy.grant_types == wanted


def test_duplicate_roles_and_permissions_are_stored_once() -> None:
    create_role("devices", STATE)
    bob = create_bob(roles=("devices", "devices"), permissions=(COMMANDS, STATE, COMMANDS))
    assert bob.roles == ("devices",)
    assert bob.permissions == (COMMANDS, STATE)


@pytest.mark.parametrize("name", ["", "b" * 256, "bob\0", "bob\ud800"])
def test_invalid_username_is_refused(name: str) -> None:
    before = all_rows()
    with pytest.raises(InvalidInput):
        create_user(name)
    assert all_rows() == before


def test_duplicate_name_is_refused() -> None:
    create_bob()
    before = all_rows()
    with pytest.raises(Conflict) as error:
        create_bob(permissions=(STATE,))
    assert error.value.code == "user-exists"
    assert all_rows() == before


def test_usernames_are_case_sensitive() -> None:
    create_bob(enabled=False)
    create_user("Bob")
    assert not users.get("bob").enabled
    assert users.get("Bob").enabled


def test_password_against_the_policy_creates_no_user() -> None:
    before = all_rows()
    with pytest.raises(InvalidInput):
        create_bob(password="1234")
    assert all_rows() == before


@pytest.mark.parametrize("unknown", ["pilots", "", "\x01", "' OR 1=1 --"])
def test_unknown_role_is_reported_by_position_and_nothing_is_changed(unknown: str) -> None:
    create_user("bertha")
    before = all_rows()
    with pytest.raises(InvalidInput) as error:
        create_bob(roles=("minimum-access", unknown))
    assert error.value.errors[0].field == "roles[1]"
    with pytest.raises(InvalidInput):
        change_user("bertha", roles=(unknown,), enabled=False)
    assert all_rows() == before


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
def test_change_affects_only_the_named_fields(changes: dict[str, Any], field: str, expected: Any) -> None:
    create_role("devices", COMMANDS)
    before = create_bob(roles=("minimum-access",), permissions=(STATE,))
    after = change_user("bob", **changes)
    assert users.get("bob") == after
    assert getattr(after, field) == expected
    for untouched in {"enabled", "grant_types", "roles", "permissions", "has_password", "created_at"} - {field}:
        assert getattr(after, untouched) == getattr(before, untouched)
    assert field == "has_password" or password_is("bob", BOBS_PASSWORD)


def test_change_of_an_outdated_version_is_refused() -> None:
    seen = create_bob(permissions=(STATE,))
    latest = users.change(ALICE, "bob", {"permissions": (COMMANDS,)}, HASHER, frozenset({seen.version}))
    before = all_rows()
    with pytest.raises(PreconditionFailed) as error:
        users.change(ALICE, "bob", {"enabled": False}, HASHER, frozenset({seen.version}))
    assert error.value.code == "precondition-failed"
    assert all_rows() == before
    assert not users.change(ALICE, "bob", {"enabled": False}, HASHER, frozenset({latest.version})).enabled


def test_new_password_replaces_the_old_one() -> None:
    create_bob()
    change_user("bob", password="bob's next secret")
    assert password_is("bob", "bob's next secret")
    assert not password_is("bob", BOBS_PASSWORD)


class LockCheckingHasher(PasswordHasher):
    """A hasher that checks whether other writers are blocked while it hashes."""

    def hash(self, password: str) -> str:
        assert database.is_closed()
        return super().hash(password)


def test_hashing_does_not_block_other_writers() -> None:
    watchful = LockCheckingHasher(PasswordPolicy(), 4, HASHER.pool)
    users.create(ALICE, "bob", {"password": BOBS_PASSWORD}, watchful)
    users.change(ALICE, "bob", {"password": "bob's next secret"}, watchful)
    assert password_is("bob", "bob's next secret")


def test_times_are_utc_and_a_change_updates_only_updated_at() -> None:
    made_at = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)
    with time_machine.travel(made_at, tick=False):
        create_bob()
    with time_machine.travel(made_at + timedelta(days=1), tick=False):
        change_user("bob", enabled=False)
    bob = users.get("bob")
    assert (bob.created_at, bob.updated_at) == (made_at, made_at + timedelta(days=1))
    assert bob.created_at.tzinfo is UTC


def test_user_created_again_after_deletion_has_no_old_rights() -> None:
    create_bob(roles=("minimum-access",), permissions=(STATE,))
    api_tokens.issue_token(ALICE, "bob", "", 1)
    users.delete(ALICE, "bob")
    with pytest.raises(NotFound):
        users.get("bob")
    namesake = create_bob()
    assert (namesake.roles, namesake.permissions) == ((), ())
    assert not api_tokens.list_tokens("bob", "", 1, 10).items
    with session():
        assert not Token.select().exists()
        assert UserRole.select().count() == 1
        assert not PermissionRow.select().where(PermissionRow.user.is_null(False)).exists()


@pytest.mark.parametrize("name", ["bob", "", "%", "x" * 500, "' OR 1=1 --"])
def test_unknown_user_raises_not_found(name: str) -> None:
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
def test_search_finds_names_containing_the_text_in_any_case(text: str, expected: list[str]) -> None:
    for name in ("bob_1", "Bob-2", "bruno", "Bertha"):
        create_user(name)
    found = users.search(users.UserFilter(text), 1, 50)
    assert sorted(user.username for user in found.items) == expected
    assert found.total == len(expected)


def test_search_finds_users_with_a_role() -> None:
    create_role("devices", STATE)
    create_role("Devices", STATE)
    for name, roles in (("press-1", ("devices",)), ("press-2", ("Devices",)), ("lamp-1", ("devices", "Devices"))):
        create_user(name, roles=roles)
    assert names(users.UserFilter(role="devices")) == ["lamp-1", "press-1"]
    found = users.search(users.UserFilter("press", "devices"), 1, 1)
    assert (found.total, [user.username for user in found.items]) == (1, ["press-1"])
    assert users.search(users.UserFilter("", "device"), 1, 50).total == 0


def names(wanted: users.UserFilter, sort: users.Sort = "username") -> list[str]:
    """Return the names of the matching users, without the first administrator."""
    found = [user.username for user in users.search(wanted, 1, 50, sort).items if user.username != "admin"]
    exported = [user.username for user in users.export(wanted) if user.username != "admin"]
    assert sorted(exported) == exported == sorted(found)
    return found


def test_users_are_filtered_by_status_grant_type_and_origin() -> None:
    create_user("device-1", enabled=False)
    create_user("device-2", grant_types=frozenset({GrantType.CERTIFICATE, GrantType.TOKEN}))
    users.create_with_hash(ALICE, "device-3", {"grant_types": frozenset()}, None, users.Origin.REGISTRATION)
    assert names(users.UserFilter(enabled=False)) == ["device-1"]
    assert names(users.UserFilter(enabled=True)) == ["device-2", "device-3"]
    assert names(users.UserFilter(grant_type=GrantType.TOKEN)) == ["device-2"]
    assert names(users.UserFilter(grant_type=GrantType.PASSWORD)) == ["device-1"]
    assert names(users.UserFilter(origin=users.Origin.REGISTRATION)) == ["device-3"]
    assert names(users.UserFilter(origin=users.Origin.ADMINISTRATOR, text="-2")) == ["device-2"]


def test_users_are_filtered_and_sorted_by_the_time_they_were_last_seen() -> None:
    now = datetime.now(UTC)
    seen = SeenClientIds()
    for name in ("device-1", "device-2", "device-3", "device-4"):
        create_user(name)
    for name, hours, logged_in in (("device-1", 5, True), ("device-2", 50, True), ("device-3", 1, False)):
        with time_machine.travel(now - timedelta(hours=hours), tick=False):
            seen.note(name, f"{name}-main", logged_in)
            seen.store()
    assert users.get("device-1").last_seen == now - timedelta(hours=5)
    assert users.get("device-3").last_seen is None
    day = now - timedelta(hours=24)
    assert names(users.UserFilter(last_seen_after=day)) == ["device-1"]
    assert names(users.UserFilter(last_seen_before=day)) == ["device-2", "device-3", "device-4"]
    assert names(users.UserFilter(last_seen_after=now - timedelta(days=3), last_seen_before=day)) == ["device-2"]
    assert names(users.UserFilter(), "-lastSeen") == ["device-1", "device-2", "device-4", "device-3"]
    assert names(users.UserFilter(), "lastSeen") == ["device-3", "device-4", "device-2", "device-1"]


def test_users_are_sorted_by_name_creation_and_last_change() -> None:
    for name in ("device-2", "device-1", "device-3"):
        create_user(name)
    change_user("device-2", enabled=False)
    assert names(users.UserFilter()) == ["device-1", "device-2", "device-3"]
    assert names(users.UserFilter(), "-username") == ["device-3", "device-2", "device-1"]
    assert names(users.UserFilter(), "createdAt") == ["device-2", "device-1", "device-3"]
    assert names(users.UserFilter(), "-createdAt") == ["device-3", "device-1", "device-2"]
    assert names(users.UserFilter(), "updatedAt") == ["device-1", "device-3", "device-2"]
    assert names(users.UserFilter(), "-updatedAt") == ["device-2", "device-3", "device-1"]


def test_export_reads_users_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "_BATCH", 2)
    for number in range(5):
        create_user(f"device-{number}")
    expected = [f"device-{number}" for number in range(5)]
    assert [user.username for user in users.export(users.UserFilter("device-"))] == expected
    monkeypatch.setattr(users, "MAX_EXPORTED", 3)
    assert [user.username for user in users.export(users.UserFilter("device-"))] == expected[:3]


def test_filtered_export_reads_no_permissions_of_other_users(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    permissions_of = policy_reader.permissions_of

    def recording(*arguments: Any) -> Any:
        found = permissions_of(*arguments)
        read.append(len(found))
        return found

    for number in range(5):
        create_user(f"device-{number}", enabled=number in (0, 4), permissions=(STATE,))
    monkeypatch.setattr(policy_reader, "permissions_of", recording)
    assert len(list(users.export(users.UserFilter("device-", enabled=True)))) == 2
    assert read == [2]


def test_pages_have_no_gap_and_no_repetition() -> None:
    for n in range(6):
        create_user(f"device-{n}", permissions=(mqtt("read", f"own/{n}"),), roles=("minimum-access",))
    pages = [users.search(users.UserFilter("device"), page, 4) for page in (1, 2, 3)]
    assert [[user.username for user in page.items] for page in pages] == [
        ["device-0", "device-1", "device-2", "device-3"],
        ["device-4", "device-5"],
        [],
    ]
    assert {(page.total, page.per_page) for page in pages} == {(6, 4)}
    assert pages[1].items[0] == users.get("device-4")
    assert pages[1].items[0].permissions == (mqtt("read", "own/4"),)


def test_user_can_have_thousands_of_the_longest_permissions() -> None:
    many = tuple(mqtt("read", f"rooms/{n}/#") for n in range(1200))
    longest = mqtt("write", "€" * 21_845)
    assert create_bob(permissions=(*many, longest)).permissions == (*many, longest)
