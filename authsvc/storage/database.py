"""The database: SQLite in one file, or PostgreSQL for many replicas, behind one proxy and one transaction.

A connection belongs to one piece of work: `session()` opens it and closes it. For SQLite that means a file
that was moved away is noticed at the next request instead of being written to unseen; PostgreSQL's come
from a pool.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import peewee
from playhouse.pool import MaxConnectionsExceeded
from playhouse.postgres_ext import PooledPsycopg3Database

if TYPE_CHECKING:
    from collections.abc import Iterator

database = peewee.DatabaseProxy()

DATABASE_GONE = (peewee.OperationalError, peewee.InterfaceError, MaxConnectionsExceeded, sqlite3.OperationalError)
"""The errors of a database that cannot be reached or used at the moment: the same call may succeed later.

`MaxConnectionsExceeded`, a ValueError, means that no pooled connection became free in time. peewee does not translate
the errors that SQLite raises while a query's rows are fetched.
"""

DATABASE_ERRORS = (peewee.PeeweeException, MaxConnectionsExceeded, sqlite3.Error)
"""Every error that the database raises: those of `DATABASE_GONE`, a damaged file, missing tables, a broken constraint.

For code that must continue without the database, whatever the cause.
"""

# Waiting longer than this for a lock or a connection would only pile up requests.
_PATIENCE_SECONDS = 5


def connect_to(url: str) -> peewee.Database:
    """Point the proxy at `sqlite:///PATH` or `postgresql://...` and return the database; opens no connection."""
    target = _sqlite(url) if url.startswith("sqlite:") else _postgresql(url)
    database.initialize(target)
    return target


def sqlite_file(url: str) -> Path | None:
    """Return the file that holds the database; None for a database that is a server's."""
    return _path(url) if url.startswith("sqlite:") else None


def create_file(url: str) -> None:
    """Make the SQLite file, readable by its owner alone, unless it exists; other databases make their own."""
    file = sqlite_file(url)
    if file:
        # The connections below open the file with mode=rw, so that a lost file is an error and not a new, empty one.
        # One that exists is not opened here: closing it would drop the locks that this process holds on it.
        with suppress(FileExistsError):
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


@contextmanager
def session() -> Iterator[None]:
    """Hold a connection for a piece of work; inside another session, join it."""
    opened = database.connect(reuse_if_open=True)
    try:
        yield
    finally:
        if opened:
            database.close()


@contextmanager
def transaction() -> Iterator[None]:
    """Do everything inside or nothing, durably once it returns; readers see no half of it.

    Inside another transaction it is a part of that one, undone on its own if it fails.
    """
    with session():
        # SQLite: take the write lock at the start, since a reader that turns writer cannot wait for it.
        immediate = ("IMMEDIATE",) if is_sqlite() and not database.in_transaction() else ()
        with database.atomic(*immediate):
            yield


@contextmanager
def reading() -> Iterator[None]:
    """See the database as of one moment, however long it takes, without keeping writers waiting."""
    with session(), database.atomic():
        if not is_sqlite():
            database.execute_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        yield


def database_time() -> datetime:
    """Return the time by the database's clock, on which all workers and replicas agree."""
    asked = (
        "SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')" if is_sqlite() else "SELECT clock_timestamp() AT TIME ZONE 'UTC'"
    )
    (now,) = database.execute_sql(asked).fetchone()
    naive: datetime = datetime.fromisoformat(now) if isinstance(now, str) else now
    return naive.replace(tzinfo=UTC)


def is_sqlite() -> bool:
    """Say which of the two dialects is spoken."""
    return isinstance(database.obj, peewee.SqliteDatabase)


def readable(stored: str | bytes) -> str:
    """Return stored text. A value that is not UTF-8 text becomes a NUL and a replacement, which no rule or name equals.

    SQLite may hold any bytes, or a blob, in a text column.
    """
    if isinstance(stored, str):
        return stored
    return "\0" + stored.decode(errors="replace")


def _decode(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return readable(raw)


class _Connection(sqlite3.Connection):
    """A connection on which text that is not UTF-8 is damage of its row, not an error of the whole query."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.text_factory = _decode


def _sqlite(url: str) -> peewee.Database:
    return peewee.SqliteDatabase(
        f"file:{quote(str(_path(url)))}?mode=rw",
        uri=True,
        factory=_Connection,
        timeout=_PATIENCE_SECONDS,
        # synchronous=FULL: an acknowledged change survives a power cut, not only a crash of this process.
        # recursive_triggers: without it, REPLACE would get past the triggers that keep the audit trail.
        pragmas={
            "journal_mode": "wal",
            "foreign_keys": 1,
            "synchronous": "FULL",
            "cache_size": -16_000,
            "recursive_triggers": 1,
        },
    )


def _postgresql(url: str) -> peewee.Database:
    pooled: peewee.Database = PooledPsycopg3Database(
        url.replace("postgres://", "postgresql://", 1),
        max_connections=32,
        stale_timeout=300,
        timeout=_PATIENCE_SECONDS,
        connect_timeout=_PATIENCE_SECONDS,
        # A server that vanished without a word is noticed as fast as one that refuses.
        tcp_user_timeout=_PATIENCE_SECONDS * 1000,
        application_name="authsvc",
    )
    return pooled


def _path(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))
