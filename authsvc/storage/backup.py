"""Backup and restore: every table as lines of JSON, the same for both databases, so it also moves one into the other.

A backup holds password hashes and signing keys: the file is readable by its owner alone.
"""

from __future__ import annotations

import gzip
import json
import os
import tempfile
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import peewee

from authsvc import __version__
from authsvc.errors import Conflict
from authsvc.storage import schema
from authsvc.storage.changes import KEPT_VERSIONS
from authsvc.storage.database import database, is_sqlite, reading, session, transaction
from authsvc.storage.models import PolicyVersion, SigningKeyRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from authsvc.storage.fields import Model

_FORMAT = 1
_BATCH = 200


def backup(target: Path, tables: Iterable[type[Model]]) -> int:
    """Write one consistent view of the database to a new file and return the number of rows; never overwrites.

    The rows go to a file beside it, `.NAME.*.part`, which gets the target's name when all of it is on the disk. An
    error or an interruption removes that file; only SIGKILL and a power cut leave it behind.
    """
    if target.exists():
        raise _exists(target)
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as raw:
            with gzip.open(raw, "wt", encoding="utf-8") as lines, reading():
                count = _write(lines, tables)
            raw.flush()
            os.fsync(raw.fileno())
        _publish(part, target)
    finally:
        part.unlink(missing_ok=True)
    return count


def restore(source: Path, tables: Sequence[type[Model]]) -> int:
    """Fill an empty, migrated database from a backup, whole or not at all, and return the number of rows."""
    try:
        with session(), gzip.open(source, "rt", encoding="utf-8") as lines:
            _check_header(_header(lines, source))
            with transaction():
                if SigningKeyRow.select().exists():
                    raise Conflict("the database is not empty; restore into a new one", "database-not-empty")
                return _fill(lines, tables)
    except (EOFError, gzip.BadGzipFile, zlib.error, ValueError, KeyError, TypeError, peewee.IntegrityError):
        raise Conflict(f"{source} is damaged; nothing was restored", "not-a-backup") from None


def _publish(part: Path, target: Path) -> None:
    """Give a complete backup its name, durably."""
    try:
        target.hardlink_to(part)  # fails if the name was taken meanwhile, where a rename would overwrite
    except FileExistsError:
        raise _exists(target) from None
    except OSError:  # a file system without hard links
        if target.exists():
            raise _exists(target) from None
        part.rename(target)
    directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _exists(target: Path) -> Conflict:
    return Conflict(f"{target} exists; a backup never overwrites", "file-exists")


def _fill(lines: IO[str], tables: Sequence[type[Model]]) -> int:
    # What the migrations put there; the backup has its own.
    for model in tables:
        if model.select().exists():
            model.delete().execute()
    count = _read(lines, tables)
    _move_sequences(tables)
    # Far enough for a worker that knows what came after the backup to read everything anew.
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


def _header(lines: IO[str], source: Path) -> dict[str, Any]:
    try:
        header: Any = json.loads(lines.readline())
    except (ValueError, OSError, EOFError):
        header = None
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise Conflict(f"{source} is not a backup that this version understands", "not-a-backup")
    return header


def _check_header(header: dict[str, Any]) -> None:
    if header["migrations"] != schema.applied():
        raise Conflict(
            f"the backup was made by authsvc {header['authsvc']}, whose tables differ; "
            "restore it with that version, then upgrade",
            "other-version",
        )


def _read(lines: IO[str], tables: Sequence[type[Model]]) -> int:
    models = {model._meta.table_name: model for model in tables}  # noqa: SLF001
    count = 0
    for table, rows in _batches(lines):
        model = models[table]
        fields = model._meta.sorted_fields  # noqa: SLF001
        loaded = [[field.python_value(value) for field, value in zip(fields, row, strict=True)] for row in rows]
        model.insert_many(loaded, fields).execute()
        count += len(rows)
    return count


def _batches(lines: IO[str]) -> Iterator[tuple[str, list[list[Any]]]]:
    table = ""
    rows: list[list[Any]] = []
    for line in lines:
        name, row = json.loads(line)
        if rows and (name != table or len(rows) == _BATCH):
            yield table, rows
            rows = []
        table = name
        rows.append(row)
    if rows:
        yield table, rows


def _move_sequences(tables: Sequence[type[Model]]) -> None:
    """Let PostgreSQL number new rows after the restored ones; SQLite looks for itself."""
    if is_sqlite():
        return
    for model in tables:
        key = model._meta.primary_key  # noqa: SLF001
        if isinstance(key, peewee.AutoField):
            table = model._meta.table_name  # noqa: SLF001
            database.execute_sql(
                f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), "  # noqa: S608 - our own table's name
                f"(SELECT COALESCE(MAX(id), 1) FROM {table}))"
            )


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | str) else str(value)
