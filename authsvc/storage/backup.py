"""Backup and restore: every table as lines of JSON, in one format for SQLite and PostgreSQL, so data can be moved.

A backup holds password hashes and signing keys, so only its owner can read the file.
"""

from __future__ import annotations

import gzip
import json
import os
import tempfile
import zlib
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import peewee
import psycopg

from authsvc import __version__
from authsvc.errors import Conflict
from authsvc.storage import schema
from authsvc.storage.changes import KEPT_VERSIONS
from authsvc.storage.database import database, insert_rows, is_sqlite, read_transaction, session, transaction
from authsvc.storage.models import PolicyVersion, SigningKeyRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from authsvc.storage.fields import Model

_FORMAT = 1
_DAMAGED = (
    *(EOFError, gzip.BadGzipFile, zlib.error),
    *(ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError),
    *(peewee.IntegrityError, peewee.DataError, psycopg.IntegrityError, psycopg.DataError),
)
"""What reading or inserting a damaged backup raises."""


def backup(target: Path, tables: Iterable[type[Model]]) -> int:
    """Write one consistent view of the database to a new file and return the number of rows; never overwrite a file.

    The rows are written to a file beside it, `.NAME.*.part`, which is renamed once it is complete on disk. An error or
    an interruption removes that file; only SIGKILL and a power cut leave it behind.
    """
    if target.exists():
        raise _file_exists(target)
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            with gzip.open(file, "wt", encoding="utf-8") as lines, read_transaction():
                count = _write(lines, tables)
            file.flush()
            os.fsync(file.fileno())
        _publish(part, target)
    finally:
        part.unlink(missing_ok=True)
    return count


def restore(source: Path, tables: Sequence[type[Model]]) -> int:
    """Fill an empty, migrated database from a backup in one transaction and return the number of rows."""
    with session():
        try:
            with gzip.open(source, "rt", encoding="utf-8") as lines:
                _check_header(lines, source)
                with transaction():
                    return _replace_rows(lines, tables)
        except _DAMAGED:
            raise Conflict(f"{source} is damaged; nothing was restored", "not-a-backup") from None


def _publish(part: Path, target: Path) -> None:
    """Rename a complete backup to its final name, durably."""
    try:
        target.hardlink_to(part)  # fails if the file exists by now; a rename would overwrite it
    except FileExistsError:
        raise _file_exists(target) from None
    except OSError:  # a file system without hard links
        if target.exists():
            raise _file_exists(target) from None
        part.rename(target)
    directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _file_exists(target: Path) -> Conflict:
    return Conflict(f"{target} exists; choose a new file name: a backup never overwrites a file", "file-exists")


def _replace_rows(lines: IO[str], tables: Sequence[type[Model]]) -> int:
    if SigningKeyRow.select().exists():
        raise Conflict("the database is not empty; restore into a new one", "database-not-empty")
    # The migrations inserted rows that the backup holds too.
    for model in tables:
        if model.select().exists():
            model.delete().execute()
    count = _insert(lines, tables)
    _advance_sequences(tables)
    # Far enough that a worker which knows changes made after the backup reads everything again.
    PolicyVersion.update(version=PolicyVersion.version + 2 * KEPT_VERSIONS).execute()
    return count


def _write(lines: IO[str], tables: Iterable[type[Model]]) -> int:
    header = {"authsvc": __version__, "format": _FORMAT, "migrations": schema.applied()}
    lines.write(json.dumps(header) + "\n")
    count = 0
    for model in tables:
        fields = model._meta.sorted_fields  # noqa: SLF001 - peewee's documented way to a model's fields
        for row in model.select().tuples().iterator():
            values = [_plain(field.db_value(value)) for field, value in zip(fields, row, strict=True)]
            lines.write(json.dumps([model._meta.table_name, values]) + "\n")  # noqa: SLF001
            count += 1
    return count


def _check_header(lines: IO[str], source: Path) -> None:
    try:
        header: Any = json.loads(lines.readline())
    except (ValueError, OSError, EOFError):
        header = None
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise Conflict(f"{source} is not a backup that authsvc {__version__} can read", "not-a-backup")
    if header["migrations"] != schema.applied():
        raise Conflict(
            f"the backup was made by authsvc {header['authsvc']}, whose tables differ; "
            "restore it with that version, then upgrade",
            "other-version",
        )


def _insert(lines: IO[str], tables: Sequence[type[Model]]) -> int:
    models = {model._meta.table_name: model for model in tables}  # noqa: SLF001
    count = 0
    for table, entries in groupby(map(json.loads, lines), key=itemgetter(0)):
        fields = models[table]._meta.sorted_fields  # noqa: SLF001
        count += insert_rows(
            models[table],
            (
                {field.name: field.python_value(value) for field, value in zip(fields, values, strict=True)}
                for _, values in entries
            ),
        )
    return count


def _advance_sequences(tables: Sequence[type[Model]]) -> None:
    """Make PostgreSQL number new rows after the restored ones; SQLite does so by itself."""
    if is_sqlite():
        return
    for model in tables:
        key = model._meta.primary_key  # noqa: SLF001
        if isinstance(key, peewee.AutoField):
            table = model._meta.table_name  # noqa: SLF001
            database.execute_sql(
                f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), "  # noqa: S608 - the name of an own table
                f"(SELECT COALESCE(MAX(id), 1) FROM {table}))"
            )


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | str) else str(value)
