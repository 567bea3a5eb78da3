"""The registry's main page: the lock and the list of registrations."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, flash, request, url_for

from authsvc.admin.forms import parse_integer, validated
from authsvc.admin.pages import authorize_as, is_htmx_request, polled, redirect_to, render, require_read
from authsvc.errors import AuthsvcError
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
@authorize_as("GET", "/api/client-registry")
def show() -> Response:
    """Show the lock and the registrations."""
    return _page(None)


@blueprint.get("/lock")
@authorize_as("GET", "/api/client-registry")
@polled
def state() -> AnyResponse:
    """Render the lock if it has changed."""
    if not is_htmx_request():
        return redirect_to(url_for("registry_page.lock.show"))
    lock = _lock()
    return unchanged() if is_shown(lock["content_hash"]) else render("registry/lock.html", **lock)


@blueprint.post("/unlock")
@authorize_as("POST", "/api/client-registry/unlock")
def unlock() -> AnyResponse:
    """Unlock the registry for a limited time."""
    try:
        body = validated(
            schemas.UnlockBody,
            durationSeconds=parse_integer(request.form.get("durationSeconds", "")),
            maxRegistrations=parse_integer(request.form.get("maxRegistrations", "")),
            usernamePattern=fields.text("usernamePattern"),
            roles=fields.rights()["roles"],
        )
        registry_lock.unlock(actor(), body.duration_seconds, body.limits())
    except AuthsvcError as error:
        return _page(error)
    flash("The registry is unlocked.")
    return redirect_to(list_url())


@blueprint.post("/lock")
@authorize_as("POST", "/api/client-registry/lock")
def lock() -> AnyResponse:
    """Lock the registry."""
    registry_lock.lock(actor())
    flash("The registry is locked.")
    return redirect_to(list_url())


def _page(error: AuthsvcError | None) -> Response:
    require_read("/api/client-registry")
    shown = listing()
    return render(
        "registry/show.html",
        error=error,
        durations=DURATIONS,
        statuses=STATUSES,
        listing=shown,
        risky_roles=fields.risky_roles(shown.found.items),
        roles=fields.role_choices(),
        captures=services().settings.registry_capture_while_locked,
        **flood_context(),
        **_lock(),
    )


def _lock() -> dict[str, Any]:
    state = registry_lock.state()
    # Without the seconds left, which the browser counts down itself.
    return {"state": state, "content_hash": content_hash((state.locked, replace(state, seconds_left=0)))}
