"""Users read as records are the same as users that were read row by row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from authsvc.accounts import api_tokens, users
from authsvc.policy.snapshot import GrantType, Snapshot, SnapshotChange, UserPolicy
from authsvc.storage import policy_reader, user_records
from authsvc.storage.database import database, is_sqlite, read_transaction
from authsvc.storage.policy_cache import PolicyCache
from tests.actors import ALICE, http, mqtt
from tests.storage.environment import change_user, create_role, create_user, execute, loaded_policy

pytestmark = pytest.mark.usefixtures("prepared")

PERMISSIONS = (
    mqtt("read", "devices/%u/state"),
    mqtt("write", "a//+/ä b/100 percent/#", "deny"),
    mqtt("readWrite", "/%c"),
    mqtt("read", "#"),
    mqtt("read", "$SYS/#"),
    http("read", "/api/users/#"),
)
BOTH = frozenset({GrantType.PASSWORD, GrantType.TOKEN})


@pytest.fixture(autouse=True)
def _users(prepared: object) -> None:
    create_role("devices", mqtt("read", "news"))
    create_role("Floor-2")
    create_user("bob", roles=("devices", "Floor-2"), permissions=PERMISSIONS, client_ids=("%u-*", "press 7"))
    create_user("carl", password=None, enabled=False, grant_types=frozenset({GrantType.CERTIFICATE}))
    create_user("dora", grant_types=BOTH)
    for label in ("one", "two"):
        api_tokens.issue_token(ALICE, "dora", label, 12)


def read_as_records(*usernames: str) -> dict[str, bytes | UserPolicy]:
    """Return these users, or all users if none are named, by name."""
    with read_transaction():
        return dict(user_records.read(usernames or None, datetime.now(UTC)))


def read_row_by_row() -> dict[str, UserPolicy]:
    with read_transaction():
        return policy_reader.user_policies(["admin", "bob", "carl", "dora"], datetime.now(UTC))


def unpacked(read: dict[str, bytes | UserPolicy]) -> dict[str, UserPolicy]:
    return {name: user_records.unpack(user) if isinstance(user, bytes) else user for name, user in read.items()}


def others(read: dict[str, bytes | UserPolicy]) -> set[str]:
    """Return the names of the users that are no records."""
    return {name for name, user in read.items() if not isinstance(user, bytes)}


def insert_authorities(created_at: datetime, retires_at: datetime) -> None:
    """Insert authority 7, which does not retire, and authority 8, which does."""
    execute(
        "INSERT INTO authorities (id, certificate, chain, key, created_at, retires_at, crl_number, crl_entries, "
        f"crl_policy_version) VALUES (7, '', '', '', '{created_at:%F %T}', NULL, 0, '', 0), "
        f"(8, '', '', '', '{created_at:%F %T}', '{retires_at:%F %T}', 0, '', 0)"
    )


def insert_certificate(serial: str, authority: int, begin: datetime, end: datetime, revoked_at: str) -> None:
    """Insert a certificate of carl; `revoked_at` is an SQL expression."""
    execute(
        "INSERT INTO certificates (serial, authority_id, user_id, username, fingerprint, certificate, not_before, "
        f"not_after, created_at, revoked_at) VALUES ('{serial}', {authority}, (SELECT id FROM users WHERE "
        f"username = 'carl'), 'carl', '', '', '{begin:%F %T}', '{end:%F %T}', '{begin:%F %T}', {revoked_at})"
    )


def test_record_describes_the_same_user() -> None:
    read = read_as_records()
    assert not others(read)
    assert unpacked(read) == read_row_by_row()
    assert unpacked(read_as_records("bob", "dora", "nobody")).keys() == {"bob", "dora"}


def test_postgresql_does_not_compile_the_queries_that_read_all_users() -> None:
    if is_sqlite():
        pytest.skip("SQLite compiles no query")
    with read_transaction():
        read_as_records()
        assert database.execute_sql("SHOW jit").fetchone() == ("off",)


def test_record_has_the_certificates_that_are_valid_and_their_earliest_end() -> None:
    now = datetime.now(UTC)
    soon, late, past = now + timedelta(days=1), now + timedelta(days=9), now - timedelta(days=1)
    insert_authorities(past, soon)
    certificates = [("ab1", 7, late, "NULL"), ("ab2", 7, late, f"'{soon:%F %T.%f}'"), ("ab3", 8, late, "NULL")]
    certificates += [("ab4", 7, past, "NULL"), ("ab5", 7, late, f"'{past:%F %T}'")]
    for serial, authority, end, revoked_at in certificates:
        insert_certificate(serial, authority, past, end, revoked_at)
    read = read_as_records()
    assert not others(read)
    assert unpacked(read) == read_row_by_row()
    ends = unpacked(read)["carl"].certificates
    assert {serial: f"{end:%F}" for serial, end in ends.items()} == {
        "AB1": f"{late:%F}",
        "AB2": f"{soon:%F}",
        "AB3": f"{soon:%F}",
    }


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE permissions SET resource = 'a/#/b' WHERE resource = '#'",
        "UPDATE permissions SET resource = 'x\ny' WHERE resource = '#'",
        "UPDATE permissions SET resource = 'x\nallow http readWrite /#' WHERE resource = '#'",
        "UPDATE permissions SET resource = '$share/a' WHERE resource = '#'",
        "UPDATE permissions SET resource = '' WHERE resource = '#'",
        "UPDATE permissions SET effect = 'forbid' WHERE resource = '#'",
        "UPDATE permissions SET context = 'http' WHERE resource = '#'",
        "UPDATE permissions SET operation = 'raed' WHERE resource = '#'",
        "UPDATE users SET grant_types = 'pasword' WHERE username = 'bob'",
        "UPDATE users SET client_ids = 'no list' WHERE username = 'bob'",
        "UPDATE users SET client_ids = '[1]' WHERE username = 'bob'",
        """UPDATE users SET client_ids = '["\\u00e4"]' WHERE username = 'bob'""",
    ],
)
def test_unusual_or_damaged_user_is_read_row_by_row(change: str) -> None:
    execute(change)
    read = read_as_records()
    assert others(read) == {"bob"}
    assert unpacked(read) == read_row_by_row()


@pytest.mark.parametrize("column", ["context", "operation", "effect", "resource"])
def test_blob_in_a_permission_is_read_row_by_row(column: str) -> None:
    if not is_sqlite():
        pytest.skip("PostgreSQL holds no other value in this column")
    execute(f"UPDATE permissions SET {column} = CAST({column} AS BLOB) WHERE resource = '#'")
    assert others(read_as_records()) == {"bob"}


@pytest.mark.parametrize(
    ("username", "change"),
    [
        ("bob", "UPDATE roles SET name = CAST(name AS BLOB) WHERE name = 'devices'"),
        ("bob", f"UPDATE users SET client_ids = '{'[' * 100_000}' WHERE username = 'bob'"),
        ("carl", "UPDATE certificates SET revoked_at = 'yesterday'"),
        ("carl", "UPDATE certificates SET revoked_at = CAST('2026-01-01 00:00:00' AS BLOB)"),
        ("carl", "UPDATE authorities SET retires_at = 'yesterday' WHERE id = 8"),
        ("carl", "UPDATE authorities SET retires_at = CAST('2026-01-01 00:00:00' AS BLOB) WHERE id = 8"),
        ("carl", "UPDATE certificates SET not_after = CAST('2099-01-01 00:00:00' AS BLOB)"),
        ("carl", "UPDATE certificates SET serial = CAST(serial AS BLOB)"),
        ("dora", "UPDATE tokens SET expires_at = CAST('2099-01-01 00:00:00' AS BLOB)"),
        ("dora", "UPDATE tokens SET expires_at = 'tomorrow'"),
        ("dora", "UPDATE tokens SET digest = CAST(digest AS BLOB)"),
    ],
    ids=lambda value: value[:70],
)
def test_value_of_another_kind_is_read_row_by_row(username: str, change: str) -> None:
    if not is_sqlite():
        pytest.skip("PostgreSQL holds no other value in these columns")
    now = datetime.now(UTC)
    insert_authorities(now, now + timedelta(days=3))
    insert_certificate("ab1", 8, now, now + timedelta(days=9), "NULL")
    execute(change)
    read = read_as_records()
    assert others(read) == {username}
    assert unpacked(read) == read_row_by_row()
    users_of = unpacked(read)
    assert bool(users_of["carl"].certificates) == (username != "carl" or "serial" in change)
    assert len(users_of["dora"].tokens) == (0 if "expires_at" in change else 2)


def test_worker_with_the_policy_of_its_parent_reads_only_what_changed() -> None:
    parent = loaded_policy()
    change_user("bob", permissions=(PERMISSIONS[0],))
    users.delete(ALICE, "carl")
    worker = PolicyCache(parent.snapshot)
    assert not worker.is_loaded, "the parent may have read its policy long ago"
    told: list[SnapshotChange] = []
    worker.subscribe(told.append)
    worker.catch_up()
    assert worker.snapshot == loaded_policy().snapshot
    assert worker.snapshot.users["dora"] is parent.snapshot.users["dora"]
    assert worker.generation == 1
    assert [change.everything for change in told] == [True]
    assert parent.snapshot.users["bob"].permissions == PERMISSIONS


def test_worker_whose_parent_has_read_nothing_reads_everything() -> None:
    worker = PolicyCache(Snapshot())
    worker.catch_up()
    assert worker.snapshot == loaded_policy().snapshot
