"""Who calls the API, and whether its http permissions let it: one rule for every path below `/api`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog
from flask import Flask, Response, current_app, g, request

from authsvc.errors import Forbidden, Unauthenticated
from authsvc.observability.redaction import without_secrets
from authsvc.policy.access import http_operation
from authsvc.policy.actors import Proof
from authsvc.policy.permissions import Operation
from authsvc.storage.database import DATABASE_ERRORS
from authsvc.web.request_context import catch_up, is_page, services
from authsvc.web.tracing import TOKEN_KEY

if TYPE_CHECKING:
    from authsvc.policy.snapshot import UserPolicy

log = structlog.get_logger()

_PUBLIC_FILES = "/api/docs/"


def register(app: Flask) -> None:
    """Guard every path below `/api`, also those that do not exist."""
    app.before_request(_guard)
    app.after_request(_take_effect)


def _guard() -> None:
    if not request.path.startswith("/api/"):
        return
    # Decide by what the database holds now, not by what this worker last heard of it.
    catch_up()
    if _is_public():
        return
    g.caller, g.proof = _authenticate()
    if not services().access.may_call(g.caller, request.method, request.path):
        raise Forbidden(f"you lack http {http_operation(request.method)} on {without_secrets(request.path)}")


def _is_public() -> bool:
    view = current_app.view_functions.get(request.endpoint or "")
    return getattr(view, "public", False) or request.path.startswith(_PUBLIC_FILES)


def _take_effect(response: Response) -> Response:
    """Let a change be in force when its answer leaves, here and in the workers that answer brokers."""
    writes = http_operation(request.method) is Operation.WRITE
    if (request.path.startswith("/api/") or is_page(request.path)) and writes and response.status_code < 400:  # noqa: PLR2004
        try:
            services().policy.catch_up()
            snapshot = services().policy.snapshot
            services().propagation.notify((snapshot.version, snapshot.token_version))
        except DATABASE_ERRORS:
            # The change is made all the same; this worker follows as soon as it can.
            log.warning("database lost right after a change")
    return response


def _authenticate() -> tuple[UserPolicy, Proof]:
    given = request.authorization
    if given is not None and given.type == "bearer" and given.token:
        return _holder_of(given.token)
    if given is not None and given.type == "basic" and given.username is not None:
        user = services().sign_ins.check_password(given.username, given.password or "", request.remote_addr)
        return user, Proof(password_hash=user.password_hash)
    if "Authorization" in request.headers:
        raise Unauthenticated("the Authorization header must be Bearer or Basic")
    token = request.environ.get(TOKEN_KEY)
    if token:
        return _holder_of(token)
    raise Unauthenticated("a token or a password is needed")


def _holder_of(token: str) -> tuple[UserPolicy, Proof]:
    user, digest = services().access.authenticate_token(token, datetime.now(UTC))
    return user, Proof(token_digest=digest)
