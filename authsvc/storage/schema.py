"""Migrations: numbered files, applied in order, by one process at a time."""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from playhouse.migrations import Runner

from authsvc.storage.database import database, is_sqlite, session

if TYPE_CHECKING:
    from collections.abc import Iterator

_DIRECTORY = Path(__file__).parent / "migrations"
_HISTORY_TABLE = "schema_migrations"
# An arbitrary constant: it must differ from the advisory locks of other programs in the same database.
_ADVISORY_LOCK = 0x61757468


def migrate(lock_file: Path) -> list[str]:
    """Apply the pending migrations and return their names."""
    with session(), _exclusive(lock_file):
        names: list[str] = _runner().up()
        return names


def pending() -> list[str]:
    """Return the names of the migrations that are not yet applied."""
    with session():
        return [migration.name for migration in _runner().status() if migration.applied is None]


def applied() -> list[str]:
    """Return the names of the applied migrations, in order."""
    with session():
        return sorted(_runner().applied())


def _runner() -> Runner:
    return Runner(database.obj, str(_DIRECTORY), table_name=_HISTORY_TABLE)


@contextmanager
def _exclusive(lock_file: Path) -> Iterator[None]:
    """Hold the migration lock: a lock file beside an SQLite file, an advisory lock in PostgreSQL."""
    if is_sqlite():
        with lock_file.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        return
    database.execute_sql("SELECT pg_advisory_lock(%s)", (_ADVISORY_LOCK,))
    try:
        yield
    finally:
        database.execute_sql("SELECT pg_advisory_unlock(%s)", (_ADVISORY_LOCK,))
