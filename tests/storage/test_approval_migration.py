"""The migration for look-alike names fills the new column of existing users."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playhouse.migrations import Runner

from authsvc.accounts import bootstrap
from authsvc.credentials.usernames import skeleton
from authsvc.storage import schema
from authsvc.storage.database import database, session
from authsvc.storage.models import User
from registry.models import Preauthorization
from tests.storage.environment import execute

if TYPE_CHECKING:
    from authsvc.settings import Settings

MIGRATIONS = Path(schema.__file__).parent / "migrations"
NAMES = ["Press-1", "0VEN_2", "modem.w8", "q-9_d"]


def migrate_to_before(number: str, settings: Settings) -> None:
    bootstrap.open_database(settings)
    earlier = max(path.stem for path in MIGRATIONS.glob("[0-9]*.py") if path.stem < number)
    with session():
        Runner(database.obj, str(MIGRATIONS), table_name="schema_migrations").up(earlier)


@pytest.mark.parametrize("names", [NAMES, [f"device-{number}" for number in range(1_200)]])
def test_users_of_earlier_versions_get_the_skeletons_of_their_names(settings: Settings, names: list[str]) -> None:
    migrate_to_before("0009", settings)
    rows = ", ".join(f"('{name}', TRUE, 'password', '2026-11-20 08:00:00', '2026-11-20 08:00:00')" for name in names)
    execute(f"INSERT INTO users (username, enabled, grant_types, created_at, updated_at) VALUES {rows}")
    assert bootstrap.migrate(settings)[0] == "0009_registry_approval"
    with session():
        assert {user.username: user.skeleton for user in User.select()} == {name: skeleton(name) for name in names}


def test_preauthorizations_of_earlier_versions_get_the_skeletons_of_their_names(settings: Settings) -> None:
    migrate_to_before("0013", settings)
    rows = ", ".join(f"('{name}', '{name}', '[]', '[]', 'alice', '2026-11-20 08:00:00')" for name in NAMES)
    execute(f"INSERT INTO preauthorizations (id, username, roles, permissions, created_by, created_at) VALUES {rows}")
    assert bootstrap.migrate(settings)[0] == "0013_preauthorized_look_alikes"
    with session():
        assert {row.username: row.skeleton for row in Preauthorization.select()} == {
            name: skeleton(name) for name in NAMES
        }
