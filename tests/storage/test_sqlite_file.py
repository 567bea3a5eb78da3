"""SQLite keeps everything in one file, with which more can happen than with a server."""

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
from tests.storage.environment import everything, execute, make_bob, version

if TYPE_CHECKING:
    from pathlib import Path

    from authsvc.settings import Settings

pytestmark = pytest.mark.usefixtures("prepared")

# Another program that looks at the file, as a second worker or a backup does.
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
    """Return the usernames that another process finds."""
    return subprocess.run([sys.executable, "-c", LOOK, str(file)], check=True, capture_output=True, text=True).stdout


def test_a_file_that_is_gone_is_an_error_and_not_a_new_and_empty_database(file: Path) -> None:
    file.rename(file.with_suffix(".away"))
    for attempt in (make_bob, lambda: users.get("admin"), version):
        with pytest.raises(peewee.OperationalError):
            attempt()
    assert not file.exists()


def test_a_file_that_exists_is_left_as_it_is(prepared: Settings) -> None:
    make_bob()
    create_file(prepared.database_url)
    assert users.get("bob")


def test_the_file_is_readable_by_its_owner_alone(file: Path) -> None:
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["with space.db", "100%.db", "a?b#c.db", "ü.db"])
def test_a_file_may_have_any_name(settings: Settings, tmp_path: Path, name: str) -> None:
    bootstrap.prepare(replace(settings, database_url=f"sqlite:///{tmp_path}/data/{name}"))
    make_bob()
    assert (tmp_path / "data" / name).stat().st_size > 0


def test_a_change_that_was_acknowledged_is_on_disk_and_in_order(file: Path) -> None:
    make_bob()
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with session():
        assert database.execute_sql("PRAGMA synchronous").fetchone() == (2,)
    assert "bob" in look(file)


def test_who_reads_first_and_then_writes_is_never_told_that_the_file_is_locked() -> None:
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


def test_what_is_written_after_the_file_was_found_to_exist_is_seen_by_everybody(prepared: Settings, file: Path) -> None:
    with session():
        assert User.select().exists()
        create_file(prepared.database_url)
        look(file)
        make_bob()
        assert "bob" in look(file)


def test_an_event_of_the_audit_trail_is_not_replaced() -> None:
    make_bob()
    before = everything()
    columns = "id, at, via, action, target"
    with pytest.raises(peewee.DatabaseError, match="append-only"):
        execute(f"REPLACE INTO audit_events ({columns}, actor) SELECT {columns}, 'nobody' FROM audit_events")
    assert everything() == before
