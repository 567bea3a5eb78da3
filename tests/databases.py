"""Connections to a test's database."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from authsvc.storage.database import sqlite_file

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def kept_open(url: str) -> Iterator[None]:
    """Hold one more connection to this SQLite file during the `with` block; do nothing for PostgreSQL.

    Then each session is cheap, as while other requests run. Otherwise it is the last connection, which writes the WAL
    back and deletes it: several times in each request. `tests/storage` tests that.
    """
    file = sqlite_file(url)
    if file is None:
        yield
        return
    with closing(sqlite3.connect(f"file:{file}?mode=rw", uri=True)) as connection:
        # SQLite opens the file at the first statement.
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        yield
