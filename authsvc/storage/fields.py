"""Column types that SQLite and PostgreSQL store the same way, and the base class of the models."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

import peewee

from authsvc.policy.snapshot import GrantType
from authsvc.storage.database import database, decode_blob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

DAMAGED_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""The value of a column in which SQLite holds no time. It is in the past: an expiry is over, a revocation in force."""


class UtcDateTimeField(peewee.DateTimeField):
    """An aware UTC time in Python, a naive one in the database."""

    def db_value(self, value: datetime | None) -> Any:
        return super().db_value(value and value.astimezone(UTC).replace(tzinfo=None))  # type: ignore[no-untyped-call]

    def python_value(self, value: Any) -> datetime | None:
        naive = super().python_value(value)  # type: ignore[no-untyped-call]
        if naive is None:
            return None
        return naive.replace(tzinfo=UTC) if isinstance(naive, datetime) else DAMAGED_TIME


class FlagField(peewee.BooleanField):
    """True or false. Any other value, which SQLite can hold, is read as false."""

    def python_value(self, value: Any) -> bool:
        return value in (True, 1)


class UnreadableGrantTypes(frozenset[GrantType]):
    """The empty set, read from a `text` that names an unknown grant type; saving it writes the same text."""

    text: str

    def __new__(cls, text: str) -> Self:
        made = super().__new__(cls)
        made.text = text
        return made


class TextField(peewee.TextField):
    """Text of any length; a blob is read by `decode_blob`."""

    def python_value(self, value: str | bytes | None) -> str | None:
        return None if value is None else decode_blob(value)


class CharField(peewee.CharField):
    """Text of limited length, read like `TextField`."""

    def python_value(self, value: str | bytes | None) -> str | None:
        return None if value is None else decode_blob(value)


class GrantTypesField(peewee.TextField):
    """A set of grant types, stored as their sorted names separated by commas."""

    def db_value(self, value: frozenset[GrantType]) -> str:
        return value.text if isinstance(value, UnreadableGrantTypes) else ",".join(sorted(value))

    def python_value(self, value: str | bytes | None) -> frozenset[GrantType]:
        # None if an outer join found no user.
        return frozenset() if value is None else _grant_types(decode_blob(value))


@lru_cache  # there are only a few different sets
def _grant_types(names: str) -> frozenset[GrantType]:
    try:
        return frozenset(map(GrantType, names.split(","))) if names else frozenset()
    except ValueError:
        return UnreadableGrantTypes(names)


class ClientIdsField(peewee.TextField):
    """Allowed client ids, stored as a JSON list of patterns."""

    def db_value(self, value: Iterable[str]) -> str:
        return value.text if isinstance(value, UnreadableClientIds) else json.dumps(list(value))

    def python_value(self, value: str | bytes | None) -> tuple[str, ...]:
        return () if value is None else _client_ids(decode_blob(value))


class UnreadableClientIds(tuple[str, ...]):
    """One pattern that no client id matches, read from a column that holds no list of patterns."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        # An empty tuple would allow any client id; no client id contains a NUL.
        return super().__new__(cls, ("\0" + text,))

    @property
    def text(self) -> str:
        """The text in the column."""
        return self[0].removeprefix("\0")


@lru_cache(maxsize=4096)  # most users have the same few patterns; they share one tuple
def _client_ids(patterns: str) -> tuple[str, ...]:
    try:
        read = json.loads(patterns)
    except (ValueError, TypeError, RecursionError):
        return UnreadableClientIds(str(patterns))
    if isinstance(read, list) and all(isinstance(each, str) for each in read):
        return tuple(read)
    return UnreadableClientIds(patterns)


class UnreadableJson(list[Any]):
    """The empty list, read from a `text` that is not valid here; saving it writes the same text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class JsonField(peewee.TextField):
    """A JSON value, stored as text. If `accepts` is false for it, it is read as `UnreadableJson`."""

    def __init__(self, *args: Any, accepts: Callable[[Any], bool] = lambda _: True, **options: Any) -> None:
        super().__init__(*args, **options)
        self._accepts = accepts

    def db_value(self, value: Any) -> str | None:
        if isinstance(value, UnreadableJson):
            return value.text
        return None if value is None else json.dumps(value, sort_keys=True)

    def python_value(self, value: str | None) -> Any:
        if value is None:
            return None
        try:
            read = json.loads(value)
        except (ValueError, TypeError, RecursionError):
            return UnreadableJson(str(value))
        return read if self._accepts(read) else UnreadableJson(value)


class Model(peewee.Model):
    class Meta:
        database = database
        legacy_table_names = False


class NumberedModel(Model):
    id = peewee.AutoField()
