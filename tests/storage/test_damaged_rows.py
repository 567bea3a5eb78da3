"""A damaged row denies all requests of its owner, and no requests of others."""

from __future__ import annotations

from concurrent.futures import Future
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from authsvc.accounts import api_tokens, bootstrap, roles, users
from authsvc.accounts.findings import findings
from authsvc.credentials.passwords import PasswordVerifier
from authsvc.errors import Conflict, Forbidden
from authsvc.policy.access import READ, AccessControl
from authsvc.policy.decision import Reason
from authsvc.policy.known_client_ids import KnownClientIds
from authsvc.policy.snapshot import GrantType
from authsvc.storage.database import is_sqlite
from tests.actors import ADMIN_PASSWORD, ALICE, BOBS_PASSWORD, CHARLIE, HASHER, mqtt
from tests.storage.environment import change_user, create_role, create_user, events, execute, loaded_policy

if TYPE_CHECKING:
    from authsvc.policy.decision import Decision
    from authsvc.settings import Settings
    from authsvc.storage.policy_cache import PolicyCache

STATE = mqtt("read", "devices/%u/state")
SECRET = mqtt("read", "secret/#", "deny")
ALL = mqtt("read", "#")

DAMAGE = pytest.mark.parametrize(
    ("column", "value"),
    [
        ("context", "mqqt"),
        ("operation", "raed"),
        ("effect", "forbid"),
        ("effect", ""),
        ("resource", "a/#/b"),
        ("resource", ""),
        ("context", "http"),  # whose resource must be a path
    ],
)
NOT_TEXT = pytest.mark.parametrize("value", ["CAST(x'61ff' AS TEXT)", "x'61ff'", "x'61'"])
WORDS = pytest.mark.parametrize("column", ["context", "operation", "effect", "resource"])


@pytest.fixture(autouse=True)
def _bob_and_a_neighbour(prepared: Settings) -> None:
    create_role("devices", STATE)
    create_user("bob", permissions=(ALL, SECRET))
    create_user("neighbour", roles=("devices",), permissions=(ALL,))


def damage_user(username: str, column: str, value: str) -> None:
    """Write an invalid value into the last of a user's own permissions and announce it."""
    write_into_permission(username, column, f"'{value}'")


def write_into_permission(username: str, column: str, expression: str) -> None:
    change_user(username, enabled=True)
    execute(
        f"UPDATE permissions SET {column} = {expression} WHERE id = "
        f"(SELECT MAX(permissions.id) FROM permissions JOIN users ON user_id = users.id WHERE username = '{username}')"
    )
    announce()


def damage_role(name: str) -> None:
    execute(f"UPDATE permissions SET operation = 'raed' WHERE role_id = (SELECT id FROM roles WHERE name = '{name}')")
    announce()


def announce() -> None:
    """Make every worker read everything again."""
    execute("UPDATE policy_version SET version = version + 20000")


def access_by(known: PolicyCache) -> AccessControl:
    return AccessControl(
        known, PasswordVerifier(HASHER.pool, HASHER.pool, 10, cost=4), KnownClientIds(), lambda *_: None
    )


def log_in(access: AccessControl, username: str, password: str = BOBS_PASSWORD) -> Decision:
    while isinstance(outcome := access.may_log_in(username, "", password, datetime.now(UTC)), Future):
        outcome.result()
    return outcome


@DAMAGE
def test_damaged_permission_denies_only_its_user(column: str, value: str) -> None:
    token = api_tokens.issue_token(ALICE, "bob", "", 12).token
    damage_user("bob", column, value)
    access = access_by(known := loaded_policy())
    assert log_in(access, "bob").reason is Reason.DAMAGED_POLICY
    assert access.may_access("bob", "", "public/a", READ).reason is Reason.DAMAGED_POLICY
    assert access.may_call(known.snapshot.users["bob"], "GET", "/api/me").reason is Reason.DAMAGED_POLICY
    assert not access.authenticate_password("bob", BOBS_PASSWORD)
    change_user("bob", grant_types=frozenset({GrantType.TOKEN}))
    known.catch_up()
    assert log_in(access, "bob", token).reason is Reason.DAMAGED_POLICY
    assert log_in(access, "neighbour")
    assert access.may_access("neighbour", "", "public/a", READ)
    assert access.authenticate_password("admin", ADMIN_PASSWORD)


@WORDS
@NOT_TEXT
def test_permission_that_is_not_text_denies_only_its_user(column: str, value: str) -> None:
    if not is_sqlite():
        pytest.skip("PostgreSQL holds no other value in this column")
    write_into_permission("bob", column, value)
    access = access_by(known := loaded_policy())
    assert access.may_access("bob", "", "public/a", READ).reason is Reason.DAMAGED_POLICY
    assert log_in(access, "neighbour")
    assert users.get("bob").damage
    assert [finding.target for finding in findings()] == ["user:bob"]
    change_user("bob", permissions=(ALL,))
    known.catch_up()
    assert access.may_access("bob", "", "public/a", READ)


@pytest.mark.parametrize("column", ["password_hash", "grant_types", "client_ids"])
@NOT_TEXT
def test_user_column_that_is_not_text_denies_only_its_user(column: str, value: str) -> None:
    if not is_sqlite():
        pytest.skip("PostgreSQL holds no other value in this column")
    execute(f"UPDATE users SET {column} = {value} WHERE username = 'bob'")
    announce()
    access = access_by(known := loaded_policy())
    assert not log_in(access, "bob")
    assert not access.authenticate_password("bob", BOBS_PASSWORD)
    assert log_in(access, "neighbour")
    change_user("bob", password=BOBS_PASSWORD, grant_types=frozenset({GrantType.PASSWORD}), client_ids=())
    known.catch_up()
    assert log_in(access, "bob")


@pytest.mark.parametrize("column", ["username", "skeleton"])
@NOT_TEXT
def test_username_that_is_not_text_denies_only_its_user(column: str, value: str) -> None:
    if not is_sqlite():
        pytest.skip("PostgreSQL holds no other value in this column")
    execute(f"UPDATE users SET {column} = {value} WHERE username = 'bob'")
    announce()
    assert log_in(access_by(loaded_policy()), "neighbour")
    assert users.search(users.UserFilter(""), 1, 50).total == 3


def test_damaged_role_denies_only_its_users() -> None:
    damage_role("devices")
    access = access_by(loaded_policy())
    assert log_in(access, "neighbour").reason is Reason.DAMAGED_POLICY
    assert access.may_access("neighbour", "", "public/a", READ).reason is Reason.DAMAGED_POLICY
    assert access.may_access("bob", "", "public/a", READ)
    assert log_in(access, "bob")


def test_unknown_grant_types_deny_their_user_and_are_kept() -> None:
    execute("UPDATE users SET grant_types = 'password,pasword' WHERE username = 'bob'")
    announce()
    access = access_by(known := loaded_policy())
    assert log_in(access, "bob").reason is Reason.DAMAGED_POLICY
    assert not access.authenticate_password("bob", BOBS_PASSWORD)
    assert log_in(access, "neighbour")
    assert "pasword" in users.get("bob").damage[0]
    change_user("bob", permissions=(ALL,))
    known.catch_up()
    assert log_in(access, "bob").reason is Reason.DAMAGED_POLICY
    change_user("bob", grant_types=frozenset({GrantType.PASSWORD}))
    known.catch_up()
    assert log_in(access, "bob")
    assert not users.get("bob").damage


def test_enabled_flag_that_is_no_boolean_disables_the_user() -> None:
    if not is_sqlite():
        pytest.skip("PostgreSQL holds no other value in this column")
    execute("UPDATE users SET enabled = 'perhaps' WHERE username = 'bob'")
    announce()
    assert log_in(access_by(loaded_policy()), "bob").reason is Reason.USER_DISABLED


def test_token_or_certificate_with_a_damaged_expiry_has_expired() -> None:
    if not is_sqlite():
        pytest.skip("PostgreSQL holds no other value in this column")
    token = api_tokens.issue_token(ALICE, "neighbour", "", 12).token
    change_user("neighbour", grant_types=frozenset({GrantType.TOKEN}))
    execute("UPDATE tokens SET expires_at = 'tomorrow'")
    announce()
    access = access_by(loaded_policy())
    assert not any(at > datetime.now(UTC) for at in loaded_policy().snapshot.users["neighbour"].tokens.values())
    assert log_in(access, "bob")
    assert log_in(access, "neighbour", token).reason is Reason.INVALID_TOKEN


def test_damaged_signing_key_invalidates_only_its_tokens() -> None:
    execute("UPDATE signing_keys SET secret = 'not hexadecimal'")
    announce()
    access = access_by(loaded_policy())
    assert log_in(access, "bob")
    with pytest.raises(Conflict) as error:
        api_tokens.issue_token(ALICE, "bob", "", 12)
    assert "authsvc tokens rotate-key" in error.value.message


def test_unknown_kind_of_change_makes_workers_read_everything_again() -> None:
    known = loaded_policy()
    change_user("bob", enabled=False)
    execute("UPDATE policy_changes SET kind = 'weather' WHERE version = (SELECT version FROM policy_version)")
    known.catch_up()
    assert not known.snapshot.users["bob"].enabled


def test_damage_is_logged_once() -> None:
    known = loaded_policy()
    damage_user("bob", "operation", "raed")
    damage_role("devices")
    with capture_logs() as logs:
        for _ in range(3):
            known.catch_up()
            announce()
    logged = [(entry["owner"], entry["log_level"]) for entry in logs if "damage" in entry]
    assert sorted(logged) == [("role:devices", "error"), ("user:bob", "error")]


def test_setting_permissions_repairs_a_damaged_user_or_role() -> None:
    damage_user("bob", "operation", "raed")
    damage_role("devices")
    known = loaded_policy()
    assert users.get("bob").damage
    assert roles.get("devices").damage
    change_user("bob", permissions=())
    roles.change(ALICE, "devices", {"permissions": ()})
    known.catch_up()
    assert log_in(access_by(known), "bob")
    assert log_in(access_by(known), "neighbour")
    assert not users.get("bob").damage
    assert not roles.get("devices").damage
    assert [event.action for event in events()[-2:]] == ["user.change", "role.change"]


def test_damaged_user_and_role_can_be_deleted() -> None:
    damage_user("bob", "operation", "raed")
    damage_role("devices")
    users.delete(ALICE, "bob")
    change_user("neighbour", roles=())
    roles.delete(ALICE, "devices")
    assert log_in(access_by(loaded_policy()), "neighbour")


def test_damaged_row_counts_as_every_right() -> None:
    damage_user("bob", "context", "htp")
    with pytest.raises(Forbidden):
        users.change(CHARLIE, "bob", {"password": "taken over"}, HASHER)
    with pytest.raises(Forbidden):
        users.change(CHARLIE, "bob", {"permissions": ()}, HASHER)
    with pytest.raises(Forbidden):
        users.delete(CHARLIE, "bob")


def test_damaged_administrator_does_not_count_as_administrator() -> None:
    create_user("alice", roles=("admin",), permissions=(STATE,))
    damage_user("alice", "effect", "perhaps")
    with pytest.raises(Conflict) as error:
        change_user("admin", enabled=False)
    assert error.value.code == "last-administrator"


def test_next_start_repairs_a_damaged_built_in_role(prepared: Settings) -> None:
    before = roles.get("admin").permissions
    damage_role("admin")
    assert not access_by(loaded_policy()).authenticate_password("admin", ADMIN_PASSWORD)
    bootstrap.prepare(prepared)
    assert access_by(loaded_policy()).authenticate_password("admin", ADMIN_PASSWORD)
    assert (roles.get("admin").permissions, roles.get("admin").damage) == (before, ())
    assert (events()[-1].action, events()[-1].target) == ("role.repair", "role:admin")


def test_next_start_repairs_damaged_client_ids_of_a_built_in_role(prepared: Settings) -> None:
    execute("UPDATE roles SET client_ids = 'none' WHERE name = 'admin'")
    announce()
    assert not access_by(loaded_policy()).authenticate_password("admin", ADMIN_PASSWORD)
    bootstrap.prepare(prepared)
    assert access_by(loaded_policy()).authenticate_password("admin", ADMIN_PASSWORD)
    assert (roles.get("admin").client_ids, roles.get("admin").damage) == ((), ())


def test_check_reports_damage() -> None:
    damage_user("bob", "operation", "raed")
    damage_role("devices")
    found = [(finding.code, finding.target) for finding in findings()]
    assert found == [("damaged-policy", "user:bob"), ("damaged-policy", "role:devices")]


def test_damage_shows_only_the_beginning_of_a_value() -> None:
    damage_user("bob", "resource", "x" * 10_000 + "/#/y")
    (damage,) = users.get("bob").damage
    assert len(damage) < 300
