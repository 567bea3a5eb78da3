"""Migrations create the tables of the models, also if several processes start at once."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import peewee
import pytest
from playhouse.migrations import Runner
from playhouse.schema_diff import diff_models

from authsvc.accounts import bootstrap, last_admin, roles, users
from authsvc.credentials.password_hashes import parse_stored
from authsvc.credentials.passwords import PasswordPolicy
from authsvc.storage import models, schema
from authsvc.storage.database import database, is_sqlite, session
from authsvc.storage.models import DisconnectOrder, PolicyVersion, SigningKeyRow, User
from registry import lock
from registry import models as registry_models
from registry.models import Registration
from tests.actors import ADMIN_PASSWORD
from tests.storage.environment import all_rows, change_user, execute, loaded_policy, policy_of

if TYPE_CHECKING:
    from authsvc.settings import Settings

ALL_MODELS = (*models.ALL, *registry_models.ALL)
CHECKOUT = Path(__file__).parents[2]
MIGRATIONS = CHECKOUT / "authsvc" / "storage" / "migrations"
# Prints "ready", runs the step that it reads from standard input, and prints the result.
STARTING_PROCESS = """
import json, sys
from pathlib import Path
from authsvc.accounts import bootstrap, roles, users
from authsvc.settings import Settings
from authsvc.storage.database import session

settings = Settings(data_dir=Path(sys.argv[1]), database_url=sys.argv[2], bcrypt_cost=4)
bootstrap.open_database(settings)
with session():
    pass
print("ready", flush=True)
step = sys.stdin.readline().strip()
print(json.dumps(getattr(bootstrap, step)(settings)))
"""


def all_at_once(settings: Settings, step: str, processes: int) -> list[Any]:
    """Run a step of the start in several processes at once and return their results."""
    bootstrap.open_database(settings)
    command = [sys.executable, "-c", STARTING_PROCESS, str(settings.data_dir), settings.database_url]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT)
        for _ in range(processes)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write(step + "\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=30)[0] for process in started]
    assert [process.returncode for process in started] == [0] * processes
    return [json.loads(output) for output in outputs]


def schema_of_tables() -> dict[str, Any]:
    """Return the columns with types and lengths, indexes and foreign keys of all tables."""
    with session():
        return {model.__name__: _shape_of(model._meta.table_name) for model in ALL_MODELS}


def _shape_of(table: str) -> list[Any]:
    columns = database.get_columns(table)
    if is_sqlite():  # which heeds no length, so a migration cannot change one
        columns = [column._replace(data_type=column.data_type.partition("(")[0]) for column in columns]
    described = sorted((column.name, column.data_type, column.null, column.primary_key) for column in columns)
    indexes = sorted((sorted(index.columns), index.unique) for index in database.get_indexes(table))
    foreign_keys = sorted((key.column, key.dest_table, key.dest_column) for key in database.get_foreign_keys(table))
    return [described, indexes, foreign_keys, _lengths(table)]


def _lengths(table: str) -> list[Any]:
    if is_sqlite():
        return []  # SQLite heeds none
    query = "SELECT column_name, character_maximum_length FROM information_schema.columns WHERE table_name = %s"
    return sorted(database.execute_sql(query, (table,)).fetchall(), key=repr)


def test_prepared_database_has_no_pending_migration(prepared: Settings) -> None:
    assert schema.pending() == []
    assert schema.applied()[0] == "0001_foundation"


def test_new_database_gets_all_migrations_once(settings: Settings) -> None:
    bootstrap.open_database(settings)
    pending = schema.pending()
    assert pending
    assert schema.applied() == []
    assert bootstrap.migrate(settings) == pending
    assert schema.applied() == pending
    assert bootstrap.migrate(settings) == []


def test_migrations_create_the_tables_of_the_models(prepared: Settings) -> None:
    with session():
        difference = diff_models(database.obj, ALL_MODELS)
        assert not difference, str(difference)
    migrated = schema_of_tables()
    with session():
        database.drop_tables(ALL_MODELS)
        database.create_tables(ALL_MODELS)
    assert schema_of_tables() == migrated


def test_migrated_users_and_roles_allow_any_client_id(settings: Settings) -> None:
    bootstrap.open_database(settings)
    moments = "'2026-11-20 08:00:00', '2026-11-20 08:00:00'"
    with session():
        runner = Runner(database.obj, str(MIGRATIONS), table_name="schema_migrations")
        runner.up("0004_browser_sessions")
        database.execute_sql(
            "INSERT INTO users (username, enabled, grant_types, created_at, updated_at) "
            f"VALUES ('press-7', TRUE, 'password', {moments})"
        )
        database.execute_sql(
            "INSERT INTO roles (name, description, built_in, created_at, updated_at) "
            f"VALUES ('line', '', FALSE, {moments})"
        )
    assert "0006_client_ids" in bootstrap.migrate(settings)
    assert (users.get("press-7").client_ids, roles.get("line").client_ids) == ((), ())
    known = loaded_policy().snapshot
    assert known.allows_client_id(known.users["press-7"], "anything")


def test_migrated_users_were_last_seen_when_one_of_their_client_ids_or_tokens_was(settings: Settings) -> None:
    bootstrap.open_database(settings)
    with session():
        runner = Runner(database.obj, str(MIGRATIONS), table_name="schema_migrations")
        runner.up("0024_identities")
        for number, username in enumerate(("press-7", "lamp", "gate"), 1):
            database.execute_sql(
                "INSERT INTO users (id, username, enabled, grant_types, created_at, updated_at) VALUES "
                f"({number}, '{username}', TRUE, 'password', '2026-11-20 08:00:00', '2026-11-20 08:00:00')"
            )
        for client_id, hour, logged_in in (("a", "09", True), ("b", "10", True), ("c", "11", False)):
            database.execute_sql(
                "INSERT INTO sightings (username, client_id, seen_at, logged_in) "
                f"VALUES ('press-7', '{client_id}', '2026-11-20 {hour}:00:00', {logged_in})"
            )
        database.execute_sql(
            "INSERT INTO tokens (id, user_id, digest, label, created_at, expires_at, last_used_at) VALUES "
            "('t', 2, 'd', '', '2026-11-20 08:00:00', '2026-11-21 08:00:00', '2026-11-20 12:00:00')"
        )
    assert "0025_last_seen" in bootstrap.migrate(settings)
    at = {name: users.get(name).last_seen for name in ("press-7", "lamp", "gate")}
    assert at == {
        "press-7": datetime(2026, 11, 20, 10, tzinfo=UTC),
        "lamp": datetime(2026, 11, 20, 12, tzinfo=UTC),
        "gate": None,
    }


def test_permission_belongs_to_exactly_one_user_or_role(prepared: Settings) -> None:
    columns = "INSERT INTO permissions (context, operation, resource, effect, user_id, role_id) VALUES"
    for owners in ("NULL, NULL", "1, 1"):
        with pytest.raises(peewee.IntegrityError):
            execute(f"{columns} ('mqtt', 'read', 'a', 'allow', {owners})")


def test_one_of_several_migrating_processes_applies_the_migrations(settings: Settings) -> None:
    results = all_at_once(settings, "migrate", processes=3)
    assert len(results) == 3
    assert [applied for applied in results if applied] == [schema.applied()] != [[]]


def test_one_of_several_first_starts_creates_the_administrator(settings: Settings) -> None:
    passwords = all_at_once(settings, "prepare", processes=3)
    assert passwords.count(None) == 2
    with session():
        assert [user.username for user in User.select()] == ["admin"]
        assert SigningKeyRow.select().count() == PolicyVersion.select().count() == 1


def test_second_start_changes_nothing(prepared: Settings) -> None:
    change_user("admin", password="changed since")
    before = {table: rows for table, rows in all_rows().items() if table != "PolicyVersion"}
    assert bootstrap.prepare(prepared) is None
    assert {table: rows for table, rows in all_rows().items() if table != "PolicyVersion"} == before


def administrators_password_is(password: str) -> bool:
    stored = policy_of("admin")
    assert stored.password_hash is not None
    return parse_stored(stored.password_hash).verify(password.encode())


def test_administrator_gets_the_configured_password_which_is_not_printed(settings: Settings) -> None:
    assert bootstrap.prepare(settings) is None
    assert administrators_password_is(ADMIN_PASSWORD)
    assert last_admin.ROLE in users.get("admin").roles


def test_administrator_password_is_generated_if_none_is_configured(settings: Settings) -> None:
    generated = bootstrap.prepare(replace(settings, admin_password=None))
    assert generated is not None
    assert administrators_password_is(generated)
    assert generated not in repr(all_rows())


def test_generated_password_meets_the_password_policy(settings: Settings) -> None:
    policy = PasswordPolicy(min=30, lower=3, upper=3, numeric=3, symbol=3)
    assert bootstrap.prepare(replace(settings, admin_password=None, password_policy=policy))


def test_data_directory_has_mode_0700(prepared: Settings) -> None:
    assert prepared.data_dir.stat().st_mode & 0o777 == 0o700


def test_open_disconnect_order_survives_the_migration(settings: Settings) -> None:
    bootstrap.open_database(settings)
    with session():
        directory = str(Path(schema.__file__).parent / "migrations")
        Runner(database.obj, directory, table_name="schema_migrations").up(target="0004_browser_sessions")
    columns = "INSERT INTO session_endings (username, cause, requested_at, finished_at) VALUES"
    for username, finished in (("bob", "NULL"), ("bob", "NULL"), ("carol", "'2026-11-20 08:00:01'"), ("dave", "NULL")):
        execute(f"{columns} ('{username}', 'user disabled', '2026-11-20 08:00:00', {finished})")
    bootstrap.migrate(settings)
    with session():
        rows = list(DisconnectOrder.select().order_by(DisconnectOrder.username))
    assert [(row.username, row.attempts, row.finished_at) for row in rows] == [("bob", 0, None), ("dave", 0, None)]
    assert {row.due_at for row in rows} == {datetime(2026, 11, 20, 8, tzinfo=UTC)}


@pytest.mark.parametrize("until", ["NULL", "'2099-11-20 08:00:00'"])
def test_registrations_of_earlier_versions_take_no_place_in_a_window(settings: Settings, until: str) -> None:
    bootstrap.open_database(settings)
    with session():
        Runner(database.obj, str(MIGRATIONS), table_name="schema_migrations").up(target="0011_session_endings")
    moments, empty = "'2026-11-20 08:00:00', '2026-11-20 08:00:00'", "'[]', '[]', '[]', '[]'"
    execute(
        "INSERT INTO registrations (id, username, kind, status, recorded_while_locked, attempts, conflicts, "
        "first_seen, last_seen, client_ids, requested_roles, requested_permissions, starting_roles) "
        f"VALUES ('1', 'bob', 'implicit', 'granted', FALSE, 1, 0, {moments}, {empty})"
    )
    execute(f"UPDATE registry_window SET max_registrations = 1, recorded = 1, unlocked_until = {until}")
    bootstrap.migrate(settings)
    state = lock.state()
    assert (state.granted, state.locked) == (0, until == "NULL")
    with session():
        assert Registration.get().window_opened_at is None is not state.opened_at


def test_client_ids_stored_by_an_older_version_are_not_known(settings: Settings) -> None:
    bootstrap.open_database(settings)
    insert = "INSERT INTO sightings (username, client_id, seen_at) VALUES ('bob', '{}', '2026-11-20 08:00:00')"
    with session():
        runner = Runner(database.obj, str(MIGRATIONS), table_name="schema_migrations")
        runner.up(target="0004_browser_sessions")
        execute(insert.format("before"))
        runner.up()
        execute(insert.format("by an older process"))
        stored = {row.client_id: row.logged_in for row in models.ClientIdRow.select()}
    assert stored == {"before": True, "by an older process": False}
