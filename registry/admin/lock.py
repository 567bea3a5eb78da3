"""The registry's main page: the lock and the list of registrations."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, flash, request, url_for

from authsvc.admin.forms import submitted, whole_number
from authsvc.admin.pages import by_field, is_partial, must_read, render, see, stands_for, unattended
from authsvc.errors import AuthsvcError
from authsvc.web.problem import status_of
from authsvc.web.request_context import actor, services
from registry import lock as registry_lock
from registry.admin import fields
from registry.admin.listing import STATUSES, content_hash, is_shown, list_url, listing, unchanged
from registry.admin.matching import flood_context
from registry.api import schemas

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as AnyResponse

blueprint = Blueprint("lock", __name__, url_prefix="/registry")

DURATIONS = {
    "60": "1 minute",
    "300": "5 minutes",
    "900": "15 minutes",
    "3600": "1 hour",
    "28800": "8 hours",
    "86400": "24 hours",
}


@blueprint.get("")
@stands_for("GET", "/api/client-registry")
def show() -> Response:
    """Show the lock and the registrations."""
    return _page(None)


@blueprint.get("/lock")
@stands_for("GET", "/api/client-registry")
@unattended
def state() -> AnyResponse:
    """Render the lock if it has changed."""
    if not is_partial():
        return see(url_for("registry_page.lock.show"))
    lock = _lock()
    return unchanged() if is_shown(lock["content_hash"]) else render("registry/lock.html", **lock)


@blueprint.post("/unlock")
@stands_for("POST", "/api/client-registry/unlock")
def unlock() -> AnyResponse:
    """Unlock the registry for a limited time."""
    try:
        body = submitted(
            schemas.UnlockBody,
            durationSeconds=whole_number(request.form.get("durationSeconds", "")),
            maxRegistrations=whole_number(request.form.get("maxRegistrations", "")),
            usernamePattern=fields.text("usernamePattern"),
            roles=fields.rights()["roles"],
        )
        registry_lock.unlock(actor(), body.duration_seconds, body.limits())
    except AuthsvcError as error:
        return _page(error)
    flash("The registry is unlocked.")
    return see(list_url())


@blueprint.post("/lock")
@stands_for("POST", "/api/client-registry/lock")
def lock() -> AnyResponse:
    """Lock the registry."""
    registry_lock.lock(actor())
    flash("The registry is locked.")
    return see(list_url())


def _page(error: AuthsvcError | None) -> Response:
    must_read("/api/client-registry")
    shown = listing()
    return render(
        "registry/show.html",
        status_of(error) if error else 200,
        durations=DURATIONS,
        statuses=STATUSES,
        listing=shown,
        risky_roles=fields.risky_roles(shown.found.items),
        roles=fields.role_choices(),
        captures=services().settings.registry_capture_while_locked,
        errors=by_field(error),
        **flood_context(),
        **_lock(),
    )


def _lock() -> dict[str, Any]:
    state = registry_lock.state()
    # Without the seconds left, which the browser counts down itself.
    return {"state": state, "content_hash": content_hash((state.locked, replace(state, seconds_left=0)))}
