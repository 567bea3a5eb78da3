"""Records: filled from rows, and as JSON for the REST API, `--json` on the command line and the audit trail."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import AfterValidator
from pydantic.alias_generators import to_camel

from authsvc.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")

# Fields that an audit event omits: its target has the name, and the other fields decide the rest.
_NOT_AUDITED = frozenset(
    (
        *("username", "name", "builtIn", "administratorOnBroker", "createdAt", "updatedAt"),
        *("origin", "lastSeen", "secondFactor"),
    )
)


def from_row(record: type[Record], row: Any, **computed: Any) -> Record:
    """Return a record with the computed fields; all others are attributes of the row with the same name."""
    stored = {field.name: getattr(row, field.name) for field in fields(record) if field.name not in computed}
    return record(**stored, **computed)


def json_fields(record: Any) -> dict[str, Any]:
    """Return the fields of a dataclass in camelCase and in their order."""
    return {to_camel(field.name): json_value(getattr(record, field.name)) for field in fields(record)}


def json_value(value: Any) -> Any:
    """Return a field as JSON has it: a dataclass as an object, a set as a sorted list, a time as RFC 3339."""
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return [json_value(each) for each in value]
    return json_fields(value) if is_dataclass(value) else value


def rfc3339(moment: datetime) -> str:
    """Return a time as RFC 3339 in UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def audit_fields(record: Any) -> dict[str, Any]:
    """Return the fields of a user or role that an audit event keeps; `damage` and `groupRoles` only if not empty."""
    found = json_fields(record)
    rare = ("damage", "groupRoles")
    return {name: found[name] for name in found if name not in _NOT_AUDITED and (name not in rare or found[name])}


def checked_by(rule: Callable[[str], str]) -> AfterValidator:
    """Return a validator that applies a rule of the domain and reports its message."""

    def check(text: str) -> str:
        try:
            return rule(text)
        except InvalidInput as error:
            raise ValueError(error.errors[0].message) from None

    return AfterValidator(check)
