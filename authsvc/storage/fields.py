"""What tables are made of: kinds of columns that both databases store alike, and the models' common root."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

import peewee

from authsvc.policy.snapshot import GrantType
from authsvc.storage.database import database, readable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

UNREADABLE_MOMENT = datetime(1970, 1, 1, tzinfo=UTC)
"""What is read where SQLite holds no time. It is long past, so an expiry is over and a revocation is in force."""


class UtcDateTimeField(peewee.DateTimeField):
    """An aware UTC time outside, a naive one in the database."""

    def db_value(self, value: datetime | None) -> Any:
        return super().db_value(value and value.astimezone(UTC).replace(tzinfo=None))  # type: ignore[no-untyped-call]

    def python_value(self, value: Any) -> datetime | None:
        naive = super().python_value(value)  # type: ignore[no-untyped-call]
        if naive is None:
            return None
        return naive.replace(tzinfo=UTC) if isinstance(naive, datetime) else UNREADABLE_MOMENT


class FlagField(peewee.BooleanField):
    """True or false; a value that is neither, which SQLite may hold, is false."""

    def python_value(self, value: Any) -> bool:
        return value in (True, 1)


class UnreadableGrantTypes(frozenset[GrantType]):
    """No grant types at all, in place of a stored `text` that names an unknown one; it is written back as it was."""

    text: str

    def __new__(cls, text: str) -> Self:
        """Return the empty set for a text that cannot be read."""
        made = super().__new__(cls)
        made.text = text
        return made


class TextField(peewee.TextField):
    """Text of any length; a value that is not UTF-8 is read as `readable` text that no word equals."""

    def python_value(self, value: str | bytes | None) -> str | None:
        return None if value is None else readable(value)


class CharField(peewee.CharField):
    """Text of limited length, read like `TextField`."""

    def python_value(self, value: str | bytes | None) -> str | None:
        return None if value is None else readable(value)


class GrantTypesField(peewee.TextField):
    """A set of grant types, stored as their sorted names with commas between."""

    def db_value(self, value: frozenset[GrantType]) -> str:
        return value.text if isinstance(value, UnreadableGrantTypes) else ",".join(sorted(value))

    def python_value(self, value: str | bytes | None) -> frozenset[GrantType]:
        # None in the columns of a user that an outer join did not find.
        return frozenset() if value is None else _grant_types(readable(value))


@lru_cache  # the same few sets for everybody
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
        return () if value is None else _client_ids(readable(value))


class UnreadableClientIds(tuple[str, ...]):
    """What is read where the column holds no list of patterns: one pattern that no client id matches."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        # Not empty, which would allow any client id; no client id contains a NUL.
        return super().__new__(cls, ("\0" + text,))

    @property
    def text(self) -> str:
        """What the column holds."""
        return self[0].removeprefix("\0")


@lru_cache(maxsize=4096)  # most users have the same few patterns, and share one tuple
def _client_ids(patterns: str) -> tuple[str, ...]:
    try:
        read = json.loads(patterns)
    except (ValueError, TypeError):
        return UnreadableClientIds(str(patterns))
    if isinstance(read, list) and all(isinstance(each, str) for each in read):
        return tuple(read)
    return UnreadableClientIds(patterns)


class UnreadableJson(list[Any]):
    """An empty list, in place of a stored `text` that cannot be read; it is written back as it was."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class JsonField(peewee.TextField):
    """A JSON value, as text; both databases store it the same way. `accepts` says which values belong here."""

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


class Numbered(Model):
    id = peewee.AutoField()
