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

    So each session is cheap, as in a service of several processes. The last connection that is closed writes the WAL
    back and deletes it; tests with one process would do that several times in each request.
    """
    file = sqlite_file(url)
    if file is None:
        yield
        return
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        yield
