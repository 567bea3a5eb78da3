"""Permissions: their one text form and one JSON form, and how a request is decided by a list of them.

Without a matching permission a request is denied, and deny wins over allow. MQTT topics and HTTP paths go through the
same code: a path is a topic whose levels are its segments.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from authsvc.errors import InvalidInput, invalid
from authsvc.policy import topics
from authsvc.policy.decision import Allowed, Decision, Denied, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PERMISSION_FORM = "[allow|deny] [mqtt|http] read|write|readWrite RESOURCE"
"""The text form of a permission, for help texts and errors."""
_TEXT_FORM = re.compile(r"\s*(?:(allow|deny)\s+)?(?:(mqtt|http)\s+)?(read|write|readWrite)\s+(\S.*)", re.DOTALL)


class Context(StrEnum):
    """Whether a permission is about topics on the broker or about paths of this service."""

    MQTT = "mqtt"
    HTTP = "http"


class Operation(StrEnum):
    READ = "read"
    WRITE = "write"
    READ_WRITE = "readWrite"

    @property
    def parts(self) -> tuple[Operation, ...]:
        """Return `read` and `write` for `readWrite`, otherwise the operation itself."""
        return (Operation.READ, Operation.WRITE) if self is Operation.READ_WRITE else (self,)


class Effect(StrEnum):
    ALLOW = "allow"
    DENY = "deny"


_Member = TypeVar("_Member", bound=StrEnum)


@dataclass(frozen=True, slots=True, order=True)
class Permission:
    """One rule of a user or role. Its resource is always valid: the constructor raises `InvalidInput` otherwise."""

    context: Context
    operation: Operation
    resource: str
    effect: Effect = Effect.ALLOW

    def __post_init__(self) -> None:
        if self.context is Context.HTTP and not self.resource.startswith("/"):
            raise invalid("resource", "an http permission names a path, as in /api/users/#")
        topics.validate_rule(self.resource)

    @classmethod
    def parse(cls, text: str) -> Permission:
        """Return the permission that `text` spells, as in `deny http read /api/#`; `allow` and `mqtt` may be omitted.

        `InvalidInput` for `permission` or one of its fields, such as `permission.resource`.
        """
        match = _TEXT_FORM.fullmatch(text)
        if match is None:
            raise invalid("permission", f"must be {PERMISSION_FORM}")
        effect, context, operation, resource = match.groups()
        try:
            return cls.from_fields(context or "mqtt", operation, resource, effect or "allow")
        except InvalidInput as error:
            raise error.within("permission") from None

    @classmethod
    def from_fields(cls, context: str, operation: str, resource: str, effect: str) -> Permission:
        """Return the permission with these JSON fields; `InvalidInput` that names the wrong field."""
        return cls(
            _member(Context, "context", context),
            _member(Operation, "operation", operation),
            resource,
            _member(Effect, "effect", effect),
        )

    def fields(self) -> dict[str, str]:
        """Return the JSON form, which `from_fields` reads."""
        return {
            "context": self.context.value,
            "operation": self.operation.value,
            "resource": self.resource,
            "effect": self.effect.value,
        }

    def __str__(self) -> str:
        """Return the text form, which `parse` reads, without `allow` and `mqtt`."""
        effect = "deny " if self.effect is Effect.DENY else ""
        context = "http " if self.context is Context.HTTP else ""
        return f"{effect}{context}{self.operation} {self.resource}"

    @property
    def levels(self) -> topics.Levels:
        """Return the levels of the resource. They are not stored: a large snapshot would hold millions of them."""
        return topics.split(self.resource)

    @property
    def is_http_right(self) -> bool:
        """Whether it allows anything in this service's own API."""
        return self.effect is Effect.ALLOW and self.context is Context.HTTP

    @property
    def writes_to_the_service(self) -> bool:
        """Whether it allows a change in this service."""
        return self.is_http_right and self.operation is not Operation.READ

    def applies_to(self, context: Context, operation: Operation) -> bool:
        """Return whether the context is the same and the operation includes the given one."""
        return self.context is context and self.operation in (operation, Operation.READ_WRITE)


EVERY_RIGHT = Permission(Context.HTTP, Operation.READ_WRITE, "/#")
"""Every right over this service."""


class Rule(NamedTuple):
    """A permission of a user, and the role that it has it from; None for the user's own."""

    permission: Permission
    role: str | None


class Request(NamedTuple):
    """One request to decide. `operation` is read or write, `levels` are validated.

    `shared` says that it is a shared subscription.
    """

    context: Context
    operation: Operation
    levels: topics.Levels
    identity: topics.Identity
    shared: bool = False


def decide(rules: Iterable[Rule], request: Request) -> Decision:
    """Return the decision on one request by a user's rules, its own and its roles'.

    A deny rule that overlaps the filter of a shared subscription refuses it. Otherwise a message that the broker hands
    to a member that may not read it would be lost for the whole group.
    """
    allowed: Allowed | None = None
    for permission, role in rules:
        if not permission.applies_to(request.context, request.operation):
            continue
        levels, denies = permission.levels, permission.effect is Effect.DENY
        if topics.levels_cover(levels, request.levels, request.identity):
            if denies:
                return Denied(Reason.DENIED_BY_PERMISSION, permission, role)
            allowed = allowed or Allowed(Reason.PERMISSION, permission, role)
        elif request.shared and denies and topics.levels_overlap(levels, request.levels, request.identity):
            return Denied(Reason.SHARE_REACHES_DENIED, permission, role)
    return allowed or Denied(Reason.NO_PERMISSION)


def first_beyond(held: Sequence[Rule], given: Iterable[Permission], identity: topics.Identity) -> Permission | None:
    """Return the first allow permission that the rules held do not include, or None.

    The rules include a permission if, for each of its operations, an allow rule covers it and no deny rule overlaps it.
    """
    for permission in given:
        if permission.effect is Effect.DENY:
            continue
        # %u and %c may stand for any name, because the user who gets the permission is not known yet.
        levels = tuple("+" if level in ("%u", "%c") else level for level in permission.levels)
        for operation in permission.operation.parts:
            if not decide(held, Request(permission.context, operation, levels, identity, shared=True)):
                return permission
    return None


def _member(kind: type[_Member], field: str, value: str) -> _Member:
    try:
        return kind(value)
    except ValueError:
        raise invalid(field, f"must be one of: {', '.join(kind)}") from None
