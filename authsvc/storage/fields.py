"""What tables are made of: kinds of columns that both databases store alike, and the models' common root."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import peewee

from authsvc.snapshot import GrantType
from authsvc.storage.database import database

if TYPE_CHECKING:
    from collections.abc import Iterable


class UtcDateTimeField(peewee.DateTimeField):
    """An aware UTC time outside, a naive one in the database."""

    def db_value(self, value: datetime | None) -> Any:
        return super().db_value(value and value.astimezone(UTC).replace(tzinfo=None))  # type: ignore[no-untyped-call]

    def python_value(self, value: Any) -> datetime | None:
        naive: datetime | None = super().python_value(value)  # type: ignore[no-untyped-call]
        return naive and naive.replace(tzinfo=UTC)


class GrantTypesField(peewee.TextField):
    """A set of grant types, stored as their sorted names with commas between."""

    def db_value(self, value: frozenset[GrantType]) -> str:
        return ",".join(sorted(value))

    def python_value(self, value: str) -> frozenset[GrantType]:
        return _grant_types(value)


@lru_cache  # the same few sets for everybody
def _grant_types(names: str) -> frozenset[GrantType]:
    return frozenset(map(GrantType, names.split(","))) if names else frozenset()


class ClientIdsField(peewee.TextField):
    """Allowed client ids, stored as a JSON list of patterns."""

    def db_value(self, value: Iterable[str]) -> str:
        return json.dumps(list(value))

    def python_value(self, value: str) -> tuple[str, ...]:
        return _client_ids(value)


@lru_cache(maxsize=4096)  # most users have the same few patterns, and share one tuple
def _client_ids(patterns: str) -> tuple[str, ...]:
    return tuple(json.loads(patterns))


class JsonField(peewee.TextField):
    """Any JSON value, as text; both databases store it the same way."""

    def db_value(self, value: Any) -> str | None:
        return None if value is None else json.dumps(value, sort_keys=True)

    def python_value(self, value: str | None) -> Any:
        return None if value is None else json.loads(value)


class Model(peewee.Model):
    class Meta:
        database = database
        legacy_table_names = False


class Numbered(Model):
    id = peewee.AutoField()
