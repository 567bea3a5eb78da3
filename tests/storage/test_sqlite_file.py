"""The SQLite file: missing, existing, shared with other processes."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import peewee
import pytest

from authsvc.accounts import bootstrap, users
from authsvc.storage.changes import current_version
from authsvc.storage.database import create_file, database, session, transaction
from authsvc.storage.models import PolicyVersion, User
from tests.storage.environment import all_rows, create_bob, execute, version

if TYPE_CHECKING:
    from pathlib import Path

    from authsvc.settings import Settings

pytestmark = pytest.mark.usefixtures("prepared")

# Another program that reads the file, like a second worker or a backup.
LOOK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(connection.execute("SELECT username FROM users ORDER BY username").fetchall())
connection.close()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "authsvc.db"


@pytest.fixture
def database_url(file: Path) -> str:
    return f"sqlite:///{file}"


def look(file: Path) -> str:
    """Return the usernames that another process reads."""
    return subprocess.run([sys.executable, "-c", LOOK, str(file)], check=True, capture_output=True, text=True).stdout


def test_missing_file_is_an_error_and_is_not_created(file: Path) -> None:
    file.rename(file.with_suffix(".away"))
    for attempt in (create_bob, lambda: users.get("admin"), version):
        with pytest.raises(peewee.OperationalError):
            attempt()
    assert not file.exists()


def test_existing_file_is_not_changed(prepared: Settings) -> None:
    create_bob()
    create_file(prepared.database_url)
    assert users.get("bob")


def test_file_has_mode_0600(file: Path) -> None:
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["with space.db", "100%.db", "a?b#c.db", "ü.db"])
def test_file_can_have_any_name(settings: Settings, tmp_path: Path, name: str) -> None:
    bootstrap.prepare(replace(settings, database_url=f"sqlite:///{tmp_path}/data/{name}"))
    create_bob()
    assert (tmp_path / "data" / name).stat().st_size > 0


def test_acknowledged_change_is_on_disk(file: Path) -> None:
    create_bob()
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with session():
        assert database.execute_sql("PRAGMA synchronous").fetchone() == (2,)
    assert "bob" in look(file)


def test_transaction_that_reads_before_writing_is_never_locked_out() -> None:
    before = version()

    def count_up() -> None:
        for _ in range(25):
            with transaction():
                seen = current_version()
                PolicyVersion.update(version=seen + 1).execute()

    with ThreadPoolExecutor(2) as pool:
        for counting in [pool.submit(count_up) for _ in range(2)]:
            counting.result(timeout=30)
    assert version() == before + 50


def test_writes_after_create_file_are_visible_to_other_processes(prepared: Settings, file: Path) -> None:
    with session():
        assert User.select().exists()
        create_file(prepared.database_url)
        look(file)
        create_bob()
        assert "bob" in look(file)


def test_audit_event_cannot_be_replaced() -> None:
    create_bob()
    before = all_rows()
    columns = "id, at, via, action, target"
    with pytest.raises(peewee.DatabaseError, match="append-only"):
        execute(f"REPLACE INTO audit_events ({columns}, actor) SELECT {columns}, 'nobody' FROM audit_events")
    assert all_rows() == before
