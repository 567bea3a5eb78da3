"""The database connection: SQLite in one file, or PostgreSQL for several replicas.

`session()` opens a connection for one piece of work and closes it, at the latest at the end of the request. So the next
request notices that an SQLite file was moved, instead of writing to the moved file. Connections to PostgreSQL come from
a pool.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import peewee
import psycopg
from playhouse.pool import MaxConnectionsExceeded
from playhouse.postgres_ext import PooledPsycopg3Database

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

database = peewee.DatabaseProxy()

DATABASE_GONE = (
    *(peewee.OperationalError, peewee.InterfaceError, MaxConnectionsExceeded),
    *(sqlite3.OperationalError, psycopg.OperationalError, psycopg.InterfaceError),
)
"""The errors of a database that cannot be reached or used at the moment: the same call may succeed later.

`MaxConnectionsExceeded`, a ValueError, means that no pooled connection became free in time. peewee does not translate
the errors that SQLite raises while a query's rows are fetched, nor those of PostgreSQL while rows are copied to it.
"""

DATABASE_ERRORS = (peewee.PeeweeException, MaxConnectionsExceeded, sqlite3.Error, psycopg.Error)
"""Every error that the database raises: those of `DATABASE_GONE`, a damaged file, missing tables, a broken constraint.

For code that must continue without the database, whatever the cause.
"""

_ROWS = 200  # in one statement
# PostgreSQL reads them while it inserts: if they fit into its buffers, no pause of the server ends the connection.
_COPIED_ROWS = 1000
# The longest wait for a lock or a connection; a longer one would make requests queue up.
_TIMEOUT_SECONDS = 5


def connect_to(url: str) -> peewee.Database:
    """Configure `database` for `sqlite:///PATH` or `postgresql://...` and return it; opens no connection."""
    target = _sqlite(url) if url.startswith("sqlite:") else _postgresql(url)
    database.initialize(target)
    return target


def close_all_connections() -> None:
    """Close the connections of this process, so that no forked process shares them."""
    if not is_sqlite():
        database.close_all()
    elif not database.is_closed():
        database.close()


def sqlite_file(url: str) -> Path | None:
    """Return the SQLite file; None for PostgreSQL."""
    return Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:") else None


def create_file(url: str) -> None:
    """Create the SQLite file with mode 0600 unless it exists; do nothing for PostgreSQL."""
    file = sqlite_file(url)
    if file:
        # Connections open the file with mode=rw, so a missing file is an error and is not created empty.
        # An existing file is not opened here: closing it would release the locks that this process holds on it.
        with suppress(FileExistsError):
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


@contextmanager
def session() -> Iterator[None]:
    """Hold a database connection during the `with` block; a nested session uses the connection of the outer one."""
    with _last_closes():
        database.connect(reuse_if_open=True)
        yield


@contextmanager
def shared_session() -> Iterator[None]:
    """Let all sessions of the `with` block use one connection to SQLite, which the first of them opens.

    Opening one costs as much as some queries, and closing the last one of all threads and processes writes the WAL
    back. Connections to PostgreSQL are left to the pool: none may be held while a request hashes a password.
    """
    with _last_closes() if is_sqlite() else nullcontext():
        yield


@contextmanager
def transaction() -> Iterator[None]:
    """Run the `with` block in one transaction, which is durable after the block.

    A nested transaction is a savepoint of the outer one: if it fails, only its own changes are rolled back.
    """
    with session():
        # SQLite: take the write lock at the start, because a transaction that has read cannot wait for it later.
        immediate = ("IMMEDIATE",) if is_sqlite() and not database.in_transaction() else ()
        with database.atomic(*immediate):
            yield


@contextmanager
def read_transaction(query_seconds: int | None = None) -> Iterator[None]:
    """Run the `with` block on one consistent view of the database, without blocking writers.

    Within a transaction it is that of the transaction. PostgreSQL ends a query that takes longer than `query_seconds`;
    a query of SQLite waits at most 5 s for a lock.
    """
    with session():
        if database.in_transaction():
            yield
            return
        with database.atomic():
            if not is_sqlite():
                database.execute_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                if query_seconds:
                    # Not an option of the connection, which would replace those of the URL.
                    database.execute_sql(f"SET LOCAL statement_timeout = '{query_seconds}s'")
            yield


def insert_rows(model: type[peewee.Model], rows: Iterable[Mapping[str, Any]]) -> int:
    """Insert rows that all have the same fields, given by name, and return how many.

    An absent field gets the default of the database. About 10 times as fast as `insert_many`, which builds each
    statement from objects.
    """
    fields_of = model._meta.fields  # noqa: SLF001 - peewee's documented way to the fields
    table = model._meta.table_name  # noqa: SLF001
    count = 0
    left, size = iter(rows), _ROWS if is_sqlite() else _COPIED_ROWS
    while batch := list(islice(left, size)):
        fields = [fields_of[name] for name in batch[0]]
        columns = ", ".join(f'"{field.column_name}"' for field in fields)
        values = [[field.db_value(row[field.name]) for field in fields] for row in batch]
        count += len(batch)
        if len(batch) > _ROWS:
            # psycopg takes longer to find the parameters of a long statement than PostgreSQL to execute it.
            with database.cursor().copy(f'COPY "{table}" ({columns}) FROM STDIN') as copy:
                for row_values in values:
                    copy.write_row(row_values)
            continue
        one = f"({', '.join([database.param] * len(fields))})"
        database.execute_sql(
            f'INSERT INTO "{table}" ({columns}) VALUES {", ".join([one] * len(batch))}',  # noqa: S608 - names of ours
            list(chain.from_iterable(values)),
        )
    return count


def database_time() -> datetime:
    """Return the time of the database's clock, which all workers and replicas share."""
    query = (
        "SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')" if is_sqlite() else "SELECT clock_timestamp() AT TIME ZONE 'UTC'"
    )
    (now,) = database.execute_sql(query).fetchone()
    naive: datetime = datetime.fromisoformat(now) if isinstance(now, str) else now
    return naive.replace(tzinfo=UTC)


def database_version() -> str:
    """Return the version of the database software, such as `SQLite 3.46.1`."""
    query = "SELECT sqlite_version()" if is_sqlite() else "SHOW server_version"
    (version,) = database.execute_sql(query).fetchone()
    return f"{'SQLite' if is_sqlite() else 'PostgreSQL'} {version}"


def is_sqlite() -> bool:
    return isinstance(database.obj, peewee.SqliteDatabase)


def decode_blob(stored: str | bytes) -> str:
    """Return stored text. Bytes become a NUL and their text with replacements, which equals no rule and no name.

    SQLite can hold a blob in a text column.
    """
    return stored if isinstance(stored, str) else "\0" + stored.decode(errors="replace")


class _Thread(threading.local):
    """What belongs to one thread, as peewee's connections do."""

    def __init__(self) -> None:
        self.sessions: list[None] = []


_thread = _Thread()


@contextmanager
def _last_closes() -> Iterator[None]:
    sessions = _thread.sessions
    sessions.append(None)
    try:
        yield
    finally:
        sessions.pop()
        # Not `sessions`: another thread can end an abandoned generator, and must not close a connection it uses itself.
        # And not without a connection: to close none would wait while another thread opens one.
        if not _thread.sessions and not database.is_closed():
            database.close()


def _decode_text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return decode_blob(raw)


class _Connection(sqlite3.Connection):
    """A connection on which text that is not UTF-8 damages only its row; by default the whole query would fail."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.text_factory = _decode_text


def _sqlite(url: str) -> peewee.Database:
    return peewee.SqliteDatabase(
        f"file:{quote(str(sqlite_file(url)))}?mode=rw",
        uri=True,
        factory=_Connection,
        timeout=_TIMEOUT_SECONDS,
        # synchronous=FULL: an acknowledged change survives a power cut, not only a crash of this process.
        # recursive_triggers: otherwise REPLACE would bypass the triggers that protect the audit trail.
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
        timeout=_TIMEOUT_SECONDS,
        connect_timeout=_TIMEOUT_SECONDS,
        # Detects a server that stopped answering as fast as one that refuses connections.
        tcp_user_timeout=_TIMEOUT_SECONDS * 1000,
        application_name="authsvc",
    )
    return pooled
