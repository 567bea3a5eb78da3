"""HTTP status and body of every error, as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog
from flask import Blueprint, Flask, Response, json, request
from werkzeug.exceptions import HTTPException

from authsvc.errors import (
    AuthsvcError,
    Busy,
    Conflict,
    FieldError,
    Forbidden,
    InvalidInput,
    Locked,
    NotFound,
    PreconditionFailed,
    TooMany,
    Unauthenticated,
)
from authsvc.observability.logs import trace_locations
from authsvc.storage.database import DATABASE_GONE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pydantic import ValidationError

log = structlog.get_logger()

STATUS: dict[type[AuthsvcError], int] = {
    InvalidInput: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    PreconditionFailed: 412,
    Locked: 423,
    TooMany: 429,
    Busy: 503,
}
TITLES = {
    400: "Invalid input",
    401: "Not signed in",
    403: "Not permitted",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    412: "Precondition failed",
    413: "Too large",
    415: "Unsupported media type",
    423: "Locked",
    429: "Too many requests",
    500: "Internal error",
    503: "Unavailable",
}
DATABASE_LOST = "the database cannot be reached; try again in a few seconds"
INTERNAL_ERROR = "the service failed; its log has the details under the request id"
_DETAILS = {404: "no resource has this path", 405: "this path does not support the method; see the Allow header"}
_CHALLENGE = 'Bearer realm="authsvc", Basic realm="authsvc", charset="UTF-8"'


def problem(status: int, code: str, detail: str, errors: Sequence[FieldError] = ()) -> Response:
    """Return an error response with the headers that its status requires."""
    body: dict[str, Any] = {
        "type": f"urn:authsvc:problem:{code}",
        "title": TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
        "code": code,
    }
    if errors:
        body["errors"] = [error._asdict() for error in errors]
    response = Response(json.dumps(body), status, content_type="application/problem+json")
    if status == 401:  # noqa: PLR2004
        response.headers["WWW-Authenticate"] = _CHALLENGE
    if status == 503:  # noqa: PLR2004
        response.headers["Retry-After"] = "2"
    return response


def of_validation(error: ValidationError) -> Response:
    """Return a response with pydantic's errors by field; it repeats no value that was sent."""
    return _of_error(InvalidInput.of_validation(error))


def status_of(error: AuthsvcError) -> int:
    return next(status for kind, status in STATUS.items() if isinstance(error, kind))


def register(app: Flask) -> None:
    """Register the error handlers of the app."""
    app.register_error_handler(AuthsvcError, _of_error)
    app.register_error_handler(HTTPException, _of_http)
    nested = "the body is nested too deeply"
    app.register_error_handler(RecursionError, lambda _: problem(400, InvalidInput.code, nested))
    on_lost_database(app, _of_lost_database)
    app.register_error_handler(Exception, _of_anything)


def on_lost_database(app: Flask | Blueprint, handler: Callable[[Exception], Response]) -> None:
    """Answer the errors of `DATABASE_GONE` with this error handler."""
    for kind in DATABASE_GONE:
        app.register_error_handler(kind, handler)


def _of_error(error: AuthsvcError) -> Response:
    response = problem(status_of(error), error.code, error.message, getattr(error, "errors", ()))
    if isinstance(error, TooMany):
        response.headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, Locked):
        response.headers["Retry-After"] = "10"
    return response


def _of_http(error: HTTPException) -> Response:
    status = error.code or 500
    code = error.name.lower().replace(" ", "-")
    response = problem(status, code, _DETAILS.get(status) or error.description or error.name)
    for name, value in error.get_headers(request.environ):
        if name != "Content-Type":
            response.headers[name] = value
    return response


def _of_lost_database(error: Exception) -> Response:
    log_lost_database(error)
    return problem(503, "database-unavailable", DATABASE_LOST)


def _of_anything(error: Exception) -> Response:
    log_unexpected(error)
    return problem(500, "internal-error", INTERNAL_ERROR)


def log_lost_database(error: Exception) -> None:
    """Log that a request failed because the database is unavailable."""
    log.warning("database unavailable", error=type(error).__name__)


def log_unexpected(error: Exception) -> None:
    """Log an unexpected exception without its message, which might contain a secret."""
    log.error("request failed", error=type(error).__name__, trace=trace_locations(error))
