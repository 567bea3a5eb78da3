"""What the files of another system say, in the terms of this service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from authsvc.errors import InvalidInput, invalid
from authsvc.policy.permissions import Context, Effect, Operation, Permission

if TYPE_CHECKING:
    from collections.abc import Iterable

    from authsvc.importing.notes import Note
    from authsvc.policy_file.document import PolicyDocument, PolicyRole, PolicyUser

Entry = TypeVar("Entry", "PolicyRole", "PolicyUser")


@dataclass(frozen=True, slots=True)
class Imported:
    """The users and roles to make, and what an administrator has to know. It gives no right over this service."""

    document: PolicyDocument
    notes: list[Note]


def entry(kind: type[Entry], **fields: Any) -> Entry:
    """Return a user or role of the document; `InvalidInput` for `file` if it is beyond a limit of this service."""
    try:
        return kind(**fields)
    except ValidationError as error:
        wrong = InvalidInput.of_validation(error).errors[0]
        name = fields.get("name") or fields.get("username")
        raise invalid("file", f"{name}: {wrong.field} {wrong.message}") from None


def mqtt(operation: str, resource: str) -> Permission:
    """Return a permission for a topic filter. `operation` is `read`, `write`, `readWrite` or `deny`."""
    if operation == "deny":
        return Permission(Context.MQTT, Operation.READ_WRITE, resource, Effect.DENY)
    return Permission(Context.MQTT, Operation(operation), resource)


def merged(permissions: Iterable[Permission]) -> tuple[Permission, ...]:
    """Return the permissions without duplicates; `read x` and `write x` become `readWrite x`."""
    operations: dict[tuple[str, Effect], Operation] = {}
    for each in permissions:
        key = each.resource, each.effect
        known = operations.setdefault(key, each.operation)
        if known is not each.operation:
            operations[key] = Operation.READ_WRITE
    return tuple(
        Permission(Context.MQTT, operation, resource, effect) for (resource, effect), operation in operations.items()
    )
