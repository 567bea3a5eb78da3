"""Database sessions, transactions and errors."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import peewee
import pytest
from playhouse.postgres_ext import PooledPsycopg3Database
from structlog.testing import capture_logs

from authsvc.accounts import users
from authsvc.errors import NotFound
from authsvc.storage.background import BackgroundThread, Job
from authsvc.storage.changes import current_version
from authsvc.storage.database import (
    DATABASE_ERRORS,
    DATABASE_GONE,
    database,
    database_version,
    is_sqlite,
    read_transaction,
    session,
    shared_session,
    sqlite_file,
    transaction,
)
from tests.http.wire import within
from tests.storage.environment import change_user, create_bob, create_user, execute, version

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from authsvc.settings import Settings

pytestmark = pytest.mark.usefixtures("prepared")


def in_another_thread(work: Callable[[], object]) -> None:
    """Call a function in another thread, which has its own connection, and wait for it."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def create_bob_and_fail() -> None:
    with transaction():
        create_bob()
        raise ZeroDivisionError


def test_nested_session_uses_the_same_connection() -> None:
    assert database.is_closed()
    with session():
        with session():
            assert not database.is_closed()
        assert not database.is_closed()
    assert database.is_closed()


def test_shared_session_keeps_a_connection_to_sqlite_and_none_to_postgresql() -> None:
    with shared_session():
        assert database.is_closed()
        create_bob()
        assert database.is_closed() is not is_sqlite()
        with pytest.raises(ZeroDivisionError), session():
            raise ZeroDivisionError
        in_another_thread(lambda: change_user("bob", enabled=False))
        assert not users.get("bob").enabled
    assert database.is_closed()


def test_rows_that_are_still_being_read_keep_the_connection_of_a_shared_session() -> None:
    def rows() -> Iterator[int]:
        with read_transaction():
            yield current_version()
            in_another_thread(create_bob)
            yield current_version()

    with shared_session():
        first = version()
        reading = rows()
        assert next(reading) == first
    assert not database.is_closed()
    assert list(reading) == [first]
    assert database.is_closed()
    assert version() == first + 1


def test_rows_that_another_thread_stops_reading_close_no_connection_of_that_thread() -> None:
    def rows() -> Generator[int, None, None]:
        with session():
            yield 1

    def stop() -> None:
        with session():
            reading.close()
            assert not database.is_closed()
        stopped.append(database.is_closed())

    reading = rows()
    stopped: list[bool] = []
    assert next(reading) == 1
    in_another_thread(stop)
    assert stopped == [True]
    with session():
        pass
    assert database.is_closed()


def test_shared_session_without_sql_does_not_wait_while_another_thread_opens_a_connection(settings: Settings) -> None:
    file = sqlite_file(settings.database_url)
    if file is None:
        pytest.skip("sessions share no connection to PostgreSQL")

    def is_open(times: int) -> bool:
        targets = [str(link.resolve()) for link in Path("/proc/self/fd").iterdir()]
        return targets.count(str(file)) == times

    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("UPDATE policy_version SET version = version")
        opening = threading.Thread(target=version)
        opening.start()
        assert within(5, lambda: is_open(2))
        with shared_session():
            pass
        assert opening.is_alive()
    opening.join()


def test_connection_is_closed_after_an_error() -> None:
    with pytest.raises(peewee.DatabaseError):
        execute("no such statement")
    with pytest.raises(ZeroDivisionError):
        create_bob_and_fail()
    assert database.is_closed()


def test_failed_transaction_is_rolled_back() -> None:
    with pytest.raises(ZeroDivisionError):
        create_bob_and_fail()
    with pytest.raises(NotFound):
        users.get("bob")


def test_read_transaction_is_consistent_and_does_not_block_writers() -> None:
    create_bob()
    with read_transaction():
        before = current_version()
        in_another_thread(lambda: change_user("bob", enabled=False))
        assert current_version() == before
        assert users.get("bob").enabled
    assert version() == before + 1
    assert not users.get("bob").enabled


def test_foreign_keys_are_enforced() -> None:
    create_user("alice", roles=("admin",))
    with pytest.raises(peewee.IntegrityError):
        execute("DELETE FROM roles WHERE name = 'admin'")
    execute("DELETE FROM users WHERE username = 'alice'")


def test_error_while_rows_are_fetched_means_that_the_database_is_gone() -> None:
    if not is_sqlite():
        pytest.skip("PostgreSQL sends all rows with the answer to the query")
    with session():
        # abs() of the smallest integer is an error, which SQLite meets at the second row.
        rows = database.execute_sql("SELECT abs(n) FROM (SELECT 1 n UNION ALL SELECT -9223372036854775807 - 1)")
        with pytest.raises(DATABASE_GONE):
            list(rows)


def test_exhausted_connection_pool_means_that_the_database_is_gone() -> None:
    if is_sqlite():
        pytest.skip("SQLite has no pool")
    pool = PooledPsycopg3Database(database.obj.database, max_connections=1, timeout=1, **database.obj.connect_params)
    pool.connect()
    try:
        with ThreadPoolExecutor(1) as other, pytest.raises(DATABASE_GONE):
            other.submit(pool.connect).result()
    finally:
        pool.close_all()


@pytest.mark.parametrize("error", DATABASE_GONE)
def test_background_thread_logs_every_kind_of_outage_as_one(error: type[Exception]) -> None:
    def write() -> None:
        raise error("gone")

    job = Job(1.0, write)
    background = BackgroundThread("test", [job])
    with capture_logs() as logged:
        background._attempt(job.work)
        background._attempt(job.work)
    assert [entry["log_level"] for entry in logged] == ["warning"]


def test_every_error_of_a_gone_database_is_a_database_error() -> None:
    assert all(issubclass(error, DATABASE_ERRORS) for error in DATABASE_GONE)


def test_version_names_the_database_software() -> None:
    with session():
        name, _, number = database_version().partition(" ")
    assert name == ("SQLite" if is_sqlite() else "PostgreSQL")
    assert number[0].isdigit()
