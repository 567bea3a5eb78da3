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
from tests.storage.environment import execute

if TYPE_CHECKING:
    from authsvc.settings import Settings

MIGRATIONS = Path(schema.__file__).parent / "migrations"


@pytest.mark.parametrize(
    "names", [["Press-1", "0VEN_2", "modem.w8", "q-9_d"], [f"device-{number}" for number in range(1_200)]]
)
def test_migration_stores_the_skeletons_of_existing_usernames(settings: Settings, names: list[str]) -> None:
    bootstrap.open_database(settings)
    earlier = max(path.stem for path in MIGRATIONS.glob("[0-9]*.py") if path.stem < "0009")
    with session():
        Runner(database.obj, str(MIGRATIONS), table_name="schema_migrations").up(earlier)
    rows = ", ".join(f"('{name}', TRUE, 'password', '2026-11-20 08:00:00', '2026-11-20 08:00:00')" for name in names)
    execute(f"INSERT INTO users (username, enabled, grant_types, created_at, updated_at) VALUES {rows}")
    assert bootstrap.migrate(settings)[0] == "0009_registry_approval"
    with session():
        assert {user.username: user.skeleton for user in User.select()} == {name: skeleton(name) for name in names}
