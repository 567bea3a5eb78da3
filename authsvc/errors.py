"""The errors that callers may see. Each has a stable `code` and a message that contains no possible secret.

The table in `web/problem.py` maps them to HTTP statuses.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pydantic import ValidationError

# pydantic's own messages for these use terms of Python, or would repeat the value that was sent.
_MESSAGES = {
    "extra_forbidden": "is not a known field",
    "missing": "is required",
    "model_type": "must be a JSON object",
    "model_attributes_type": "must be a JSON object",
    "string_type": "must be text",
    "string_unicode": "must be valid Unicode text",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "frozen_set_type": "must be a list",
}


class FieldError(NamedTuple):
    """A rejected field; `field` is its path in the request, such as `permissions[0].resource`."""

    field: str
    message: str


class AuthsvcError(Exception):
    """The base class of all errors that this service raises itself."""

    code = "error"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code:
            self.code = code


class InvalidInput(AuthsvcError):
    """The request has invalid fields; nothing was changed."""

    code = "invalid-input"

    def __init__(self, *errors: FieldError) -> None:
        super().__init__("; ".join(": ".join(filter(None, error)) for error in errors))
        self.errors = errors

    @classmethod
    def of_validation(cls, error: ValidationError) -> InvalidInput:
        """Return pydantic's errors by field; no message repeats a value that was sent."""
        found = error.errors(include_input=False, include_url=False, include_context=False)
        return cls(*(FieldError(_path(one["loc"]), _message(one["type"], one["msg"])) for one in found))

    def within(self, prefix: str) -> InvalidInput:
        """Return the same error with a prefix before each field: `resource` becomes `permissions[0].resource`."""
        return InvalidInput(*(FieldError(f"{prefix}.{error.field}", error.message) for error in self.errors))


class Unauthenticated(AuthsvcError):
    """The request has no valid credentials."""

    code = "unauthenticated"


class Forbidden(AuthsvcError):
    """The caller is authenticated and lacks a permission."""

    code = "forbidden"


class NotFound(AuthsvcError):
    """The named object does not exist."""

    code = "not-found"


class Conflict(AuthsvcError):
    """The request is valid but contradicts the stored state."""

    code = "conflict"


class PreconditionFailed(AuthsvcError):
    """The object has changed since the caller read it; nothing was changed."""

    code = "precondition-failed"


class Busy(AuthsvcError):
    """The service is overloaded; the same request may succeed later."""

    code = "busy"


class Locked(AuthsvcError):
    """The registry is locked; an administrator can unlock it."""

    code = "locked"


class TooMany(AuthsvcError):
    """A rate limit is reached; the caller may try again in `retry_after` seconds."""

    code = "too-many"

    def __init__(self, message: str, code: str, retry_after: int) -> None:
        super().__init__(message, code)
        self.retry_after = retry_after


class SettingsError(AuthsvcError):
    """An environment variable is unknown or has an invalid value."""

    code = "settings"


def invalid(field: str, message: str) -> InvalidInput:
    """Return the error for a single field."""
    return InvalidInput(FieldError(field, message))


def _path(location: tuple[int | str, ...]) -> str:
    """Return the path of a field in the body, such as `permissions[0].resource`."""
    path = ""
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else str(step)
    return path or "body"


def _message(kind: str, message: str) -> str:
    own = _MESSAGES.get(kind) or message.removeprefix("Value error, ")
    return re.sub(r"^(Input|String|List|Tuple|Value) should ", "must ", own)
