"""The errors that callers may see. Each has a stable `code` and a message that contains no possible secret.

The table in `web/problem.py` maps them to HTTP statuses.
"""

from __future__ import annotations

from typing import NamedTuple


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
