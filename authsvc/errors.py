"""What can go wrong, by name: every error carries a stable `code` and words for a person.

No HTTP here: `problem.py` holds the one table that turns these into statuses.
Messages never contain a value that may be a secret.
"""

from __future__ import annotations

from typing import NamedTuple


class FieldError(NamedTuple):
    """One field that was refused; `field` is its name as the caller spelled it, such as `permissions[0].resource`."""

    field: str
    message: str


class AuthsvcError(Exception):
    """The root of every error this service raises on purpose."""

    code = "error"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code:
            self.code = code


class InvalidInput(AuthsvcError):
    """The caller sent something that cannot be accepted; nothing was changed."""

    code = "invalid-input"

    def __init__(self, *errors: FieldError) -> None:
        super().__init__("; ".join(": ".join(filter(None, error)) for error in errors))
        self.errors = errors

    def within(self, prefix: str) -> InvalidInput:
        """Return the same refusal with every field seen from outside, `resource` becoming `permissions[0].resource`."""
        return InvalidInput(*(FieldError(f"{prefix}.{error.field}", error.message) for error in self.errors))


class Unauthenticated(AuthsvcError):
    """Who is calling is not known, or not believed."""

    code = "unauthenticated"


class Forbidden(AuthsvcError):
    """The caller is known and may not do this."""

    code = "forbidden"


class NotFound(AuthsvcError):
    """The thing that was named does not exist."""

    code = "not-found"


class Conflict(AuthsvcError):
    """The request is sound but does not fit what is stored."""

    code = "conflict"


class PreconditionFailed(AuthsvcError):
    """What is to be changed is no longer as the caller has seen it; nothing was changed."""

    code = "precondition-failed"


class Busy(AuthsvcError):
    """Too much is under way; the same request may succeed later."""

    code = "busy"


class Locked(AuthsvcError):
    """What is asked for is closed at the moment, and an administrator can open it."""

    code = "locked"


class TooMany(AuthsvcError):
    """The caller asks more often than is allowed; `retry_after` seconds from now it may again."""

    code = "too-many"

    def __init__(self, message: str, code: str, retry_after: int) -> None:
        super().__init__(message, code)
        self.retry_after = retry_after


class SettingsError(AuthsvcError):
    """The environment asks for something this service does not know or cannot do."""

    code = "settings"


def invalid(field: str, message: str) -> InvalidInput:
    """Return the refusal of a single field."""
    return InvalidInput(FieldError(field, message))
