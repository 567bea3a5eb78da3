"""Authentication and authorization of every request below `/api`."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

import structlog
from flask import Flask, Response, current_app, g, request

from authsvc.accounts.sign_in.methods import Missing
from authsvc.errors import Forbidden, Unauthenticated
from authsvc.observability import metrics
from authsvc.observability.redaction import without_secrets
from authsvc.policy.access import http_operation
from authsvc.policy.permissions import Operation
from authsvc.storage.database import DATABASE_ERRORS
from authsvc.web.request_context import actor_for, catch_up, is_page, services
from authsvc.web.tracing import TOKEN_KEY

if TYPE_CHECKING:
    from authsvc.accounts.sign_in.methods import SignIn

log = structlog.get_logger()

_PUBLIC_FILES = "/api/docs/"


def register(app: Flask) -> None:
    """Check every request below `/api`, also to paths that do not exist."""
    app.before_request(_authorize)
    app.after_request(_reload_policy)


def _authorize() -> None:
    if not request.path.startswith("/api/"):
        return
    # Decide by what the database holds now, not by the snapshot of up to 200 ms ago.
    catch_up()
    view = current_app.view_functions.get(request.endpoint or "")
    if getattr(view, "public", False) or request.path.startswith(_PUBLIC_FILES):
        return
    signed_in = _authenticate()
    if not (signed_in.missing is Missing.ENROLMENT and getattr(view, "enrols", False)):
        signed_in = services().sign_ins.complete(signed_in, actor_for(signed_in.user, signed_in.proof), "")
    g.caller, g.proof = signed_in.user, signed_in.proof
    if not services().access.may_call(g.caller, request.method, request.path):
        needed = f"http {http_operation(request.method)} {without_secrets(request.path)}"
        raise Forbidden(f"your account needs the permission `{needed}` to do this")


def _reload_policy(response: Response) -> Response:
    """Reload the policy here and in the broker workers before the response to a change leaves."""
    writes = http_operation(request.method) is Operation.WRITE
    if (request.path.startswith("/api/") or is_page(request.path)) and writes and response.status_code < 400:  # noqa: PLR2004
        try:
            services().policy.catch_up()
            snapshot = services().policy.snapshot
            started = perf_counter()
            complete = services().propagation.notify((snapshot.version, snapshot.token_version))
            if complete is not None:
                metrics.observe_propagation(perf_counter() - started, complete=complete)
        except DATABASE_ERRORS:
            # The change is stored; this worker reloads the policy when the database is back.
            log.warning("policy not reloaded after a change: database unavailable")
    return response


def _authenticate() -> SignIn:
    given = request.authorization
    if given is not None and given.type == "bearer" and given.token:
        return services().sign_ins.with_token(given.token)
    if given is not None and given.type == "basic" and given.username is not None:
        return services().sign_ins.with_password(given.username, given.password or "", request.remote_addr)
    if "Authorization" in request.headers:
        raise Unauthenticated("the Authorization header must be Bearer or Basic")
    token = request.environ.get(TOKEN_KEY)
    if token:
        return services().sign_ins.with_token(token)
    raise Unauthenticated("send a token or a username and password in the Authorization header")
