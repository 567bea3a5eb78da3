"""Permissions, and the one rule that decides between them: no permission, no access; deny wins over allow.

MQTT topics and HTTP paths go through the same code: a path is a topic whose levels are its segments.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from authsvc.errors import invalid
from authsvc.policy import topics
from authsvc.policy.decision import Allowed, Decision, Denied, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Context(StrEnum):
    """What a permission speaks of: topics on the broker, or paths of this service."""

    MQTT = "mqtt"
    HTTP = "http"


class Operation(StrEnum):
    """What a permission lets a client do; `readWrite` stands for both."""

    READ = "read"
    WRITE = "write"
    READ_WRITE = "readWrite"

    @property
    def parts(self) -> tuple[Operation, ...]:
        """The plain operations this one stands for."""
        return (Operation.READ, Operation.WRITE) if self is Operation.READ_WRITE else (self,)


class Effect(StrEnum):
    """Whether a permission gives or takes."""

    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True, slots=True, order=True)
class Permission:
    """One rule; a `Permission` that exists is well formed, anything else raises `InvalidInput` for `resource`."""

    context: Context
    operation: Operation
    resource: str
    effect: Effect = Effect.ALLOW

    def __post_init__(self) -> None:
        if self.context is Context.HTTP and not self.resource.startswith("/"):
            raise invalid("resource", "an http permission names a path, as in /api/users/#")
        topics.validate_rule(self.resource)

    @property
    def levels(self) -> topics.Levels:
        """The resource, split; made anew each time, since a large snapshot would hold millions of them."""
        return topics.split(self.resource)

    @property
    def is_http_right(self) -> bool:
        """Whether it allows anything in this service's own API."""
        return self.effect is Effect.ALLOW and self.context is Context.HTTP

    @property
    def writes_to_the_service(self) -> bool:
        """Whether it is a right to change something in this service."""
        return self.effect is Effect.ALLOW and self.speaks_of(Context.HTTP, Operation.WRITE)

    def speaks_of(self, context: Context, operation: Operation) -> bool:
        """Say whether the rule is about this kind of access at all."""
        return self.context is context and self.operation in (operation, Operation.READ_WRITE)


EVERY_RIGHT = Permission(Context.HTTP, Operation.READ_WRITE, "/#")
"""Every right over this service."""


class Rule(NamedTuple):
    """A permission and the role it came through; None for the user's own."""

    permission: Permission
    role: str | None


class Request(NamedTuple):
    """What is asked: `operation` is read or write; `levels` were validated. `shared`: as a member of a share group."""

    context: Context
    operation: Operation
    levels: topics.Levels
    identity: topics.Identity
    shared: bool = False


def decide(rules: Iterable[Rule], request: Request) -> Decision:
    """Decide one request by a user's rules, its own and its roles'.

    A member of a share group that is refused a message at delivery swallows it, for no other member gets
    it then. So for `shared` a deny rule that merely overlaps the filter refuses the subscription.
    """
    allowed: Allowed | None = None
    for permission, role in rules:
        if not permission.speaks_of(request.context, request.operation):
            continue
        levels = permission.levels
        if topics.levels_cover(levels, request.levels, request.identity):
            if permission.effect is Effect.DENY:
                return Denied(Reason.DENIED_BY_PERMISSION, permission, role)
            allowed = allowed or Allowed(Reason.PERMISSION, permission, role)
        elif request.shared and permission.effect is Effect.DENY and _overlaps(levels, request):
            return Denied(Reason.SHARE_REACHES_DENIED, permission, role)
    return allowed or Denied(Reason.NO_PERMISSION)


def first_beyond(held: Sequence[Rule], given: Iterable[Permission], identity: topics.Identity) -> Permission | None:
    """Return the first of the given permissions that reaches further than the rules held, or None.

    Nobody may hand out what they do not have: a permission is within the rules held when an allow rule
    covers it and no deny rule overlaps it, for each operation it stands for.
    """
    for permission in given:
        if permission.effect is Effect.DENY:
            continue
        for operation in permission.operation.parts:
            # To whom %u and %c will refer is not known yet: it could be anybody.
            levels = tuple("+" if level in ("%u", "%c") else level for level in permission.levels)
            request = Request(permission.context, operation, levels, identity, shared=True)
            if not decide(held, request):
                return permission
    return None


def _overlaps(levels: topics.Levels, request: Request) -> bool:
    return topics.levels_overlap(levels, request.levels, request.identity)
