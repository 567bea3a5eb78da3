"""The one table from errors to HTTP: every error leaves as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import re
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
DATABASE_LOST = "the database cannot be reached; nothing was changed"
SOMETHING_WRONG = "something went wrong here; the log has the details under the request id"
_DETAILS = {404: "there is nothing at this address", 405: "this address does not take that method"}
_CHALLENGE = 'Bearer realm="authsvc", Basic realm="authsvc", charset="UTF-8"'
# pydantic's own words for these speak of Python, or would repeat what was sent.
_WORDS = {
    "extra_forbidden": "is not a known field",
    "missing": "is required",
    "model_type": "must be a JSON object",
    "model_attributes_type": "must be a JSON object",
    "string_type": "must be text",
    "string_unicode": "must be valid Unicode text",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
}


def problem(status: int, code: str, detail: str, errors: Sequence[FieldError] = ()) -> Response:
    """Build the one form an error has, with the headers its status asks for."""
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
    """Turn pydantic's findings into field errors; no value that was sent is repeated."""
    return _of_error(invalid_input(error))


def invalid_input(error: ValidationError) -> InvalidInput:
    """Return pydantic's findings in this project's words, by field."""
    found = error.errors(include_input=False, include_url=False, include_context=False)
    return InvalidInput(*(FieldError(_path(one["loc"]), _words(one["type"], one["msg"])) for one in found))


def status_of(error: AuthsvcError) -> int:
    """Return the HTTP status of an error, by its kind."""
    return next(status for kind, status in STATUS.items() if isinstance(error, kind))


def register(app: Flask) -> None:
    """Let the app answer every error in this form."""
    app.register_error_handler(AuthsvcError, _of_error)
    app.register_error_handler(HTTPException, _of_http)
    app.register_error_handler(RecursionError, _of_nesting)
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


def _of_nesting(_error: RecursionError) -> Response:
    return problem(400, InvalidInput.code, "the body is nested too deeply")


def _of_lost_database(error: Exception) -> Response:
    log_lost_database(error)
    return problem(503, "database-unavailable", DATABASE_LOST)


def _of_anything(error: Exception) -> Response:
    log_unexpected(error)
    return problem(500, "internal-error", SOMETHING_WRONG)


def log_lost_database(error: Exception) -> None:
    """Leave a line about a request that the database was not there for."""
    log.warning("database unavailable", error=type(error).__name__)


def log_unexpected(error: Exception) -> None:
    """Leave a line about an error that nobody expected: its places, for its words could repeat a secret."""
    log.error("request failed", error=type(error).__name__, trace=_places(error))


def _places(error: Exception) -> list[str]:
    places, trace = [], error.__traceback__
    while trace:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return places[-8:]


def _path(location: tuple[int | str, ...]) -> str:
    """Spell a place in the body as its author would: `permissions[0].resource`."""
    path = ""
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else str(step)
    return path or "body"


def _words(kind: str, message: str) -> str:
    own = _WORDS.get(kind) or message.removeprefix("Value error, ")
    return re.sub(r"^(Input|String|List|Value) should ", "must ", own)
