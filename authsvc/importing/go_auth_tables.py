"""Reads the tables of go-auth's SQL backends: SQLite and PostgreSQL. The database is only read."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from authsvc.errors import invalid

_SECONDS_TO_CONNECT = 10

Rows = list[tuple[Any, ...]]


def read_tables(url: str, user_query: str, acl_query: str | None) -> tuple[Rows, Rows | None]:
    """Return the rows of both queries; `InvalidInput` for `database`, `userQuery` or `aclQuery`.

    `url` is `sqlite:///PATH` or `postgresql://...`.
    """
    if url.startswith("sqlite:///"):
        return _from_sqlite(Path(url.removeprefix("sqlite:///")), user_query, acl_query)
    if url.startswith(("postgresql://", "postgres://")):
        return _from_postgresql(url, user_query, acl_query)
    raise invalid(
        "database",
        "must be sqlite:///PATH or postgresql://...; for another database write its users as lines USERNAME:HASH and"
        " its rules as an acl file, and import these files",
    )


def _from_sqlite(path: Path, user_query: str, acl_query: str | None) -> tuple[Rows, Rows | None]:
    if not path.is_file():
        raise invalid("database", f"there is no file {path}")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            return _fetch(connection, user_query, acl_query)
    except sqlite3.Error as error:
        raise invalid("database", f"cannot be read: {error}") from None


def _from_postgresql(url: str, user_query: str, acl_query: str | None) -> tuple[Rows, Rows | None]:
    try:
        with psycopg.connect(
            url, connect_timeout=_SECONDS_TO_CONNECT, options="-c default_transaction_read_only=on"
        ) as connection:
            return _fetch(connection, user_query, acl_query)
    except psycopg.Error:
        raise invalid("database", "cannot connect with this URL") from None


def _fetch(connection: Any, user_query: str, acl_query: str | None) -> tuple[Rows, Rows | None]:
    found: list[Rows | None] = []
    for name, query in (("userQuery", user_query), ("aclQuery", acl_query)):
        if query is None:
            found.append(None)
            continue
        try:
            found.append(connection.execute(query).fetchall())
        except (sqlite3.Error, psycopg.Error) as error:
            reason = str(error).partition("\n")[0]
            raise invalid(name, f"the database refuses it: {reason}") from None
    users, acls = found
    return users or [], acls
