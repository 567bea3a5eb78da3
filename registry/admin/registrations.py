"""The table of registrations, and the dialog in which one is granted, denied or forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, Response, flash, request, url_for

from authsvc.admin.forms import permission_rows, validated
from authsvc.admin.pages import (
    authorize_as,
    is_htmx_request,
    messages_by_field,
    polled,
    redirect_to,
    render,
    require_read,
)
from authsvc.errors import AuthsvcError
from authsvc.web.problem import status_of
from authsvc.web.request_context import actor, services
from registry import decisions, lock, records
from registry.admin import fields
from registry.admin.listed import back, is_seen, listed, unchanged, where
from registry.api import schemas
from registry.api.routes import registry

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as AnyResponse

blueprint = Blueprint("registrations", __name__, url_prefix="/registry/registrations")


@blueprint.get("")
@authorize_as("GET", "/api/client-registry/registrations")
@polled
def table() -> AnyResponse:
    """Draw the table again, if it is another one than the browser has."""
    if not is_htmx_request():
        return redirect_to(back())
    shown = listed()
    if is_seen(shown.mark):
        return unchanged()
    captures = services().settings.registry_capture_while_locked
    risky = fields.risky_roles(shown.found.items)
    return render("registry/table.html", listed=shown, captures=captures, state=lock.state(), risky_roles=risky)


@blueprint.get("/<registration_id>")
@authorize_as("GET", "/api/client-registry/registrations/{registration_id}")
def show(registration_id: str) -> Response:
    """Show everything about one, with what can be decided."""
    return _show(registration_id)


@blueprint.post("/<registration_id>/grant")
@authorize_as("POST", "/api/client-registry/registrations/{registration_id}/grant")
def grant(registration_id: str) -> AnyResponse:
    """Make the user."""
    try:
        accepted = {name: name in request.form for name in ("acceptRequested", "acceptConflicts", "acceptHttpRights")}
        client_ids = request.form.getlist("clientIds")
        wanted = validated(schemas.GrantBody, **fields.given(), **accepted, clientIds=client_ids)
        record = decisions.grant(actor(), registration_id, wanted.grant(), registry().issuing)
    except AuthsvcError as error:
        return _show(registration_id, error, client_ids=request.form.getlist("clientIds"))
    flash(f"{record.username} is granted, and is let in at its next attempt.")
    return redirect_to(back())


@blueprint.post("/<registration_id>/deny")
@authorize_as("POST", "/api/client-registry/registrations/{registration_id}/deny")
def deny(registration_id: str) -> AnyResponse:
    """Refuse one."""
    try:
        reason = validated(schemas.DenyBody, reason=fields.text("reason")).reason
        record = decisions.deny(actor(), registration_id, reason)
    except AuthsvcError as error:
        return _show(registration_id, error)
    flash(f"{record.username} is denied.")
    return redirect_to(back())


@blueprint.post("/<registration_id>/delete")
@authorize_as("DELETE", "/api/client-registry/registrations/{registration_id}")
def delete(registration_id: str) -> AnyResponse:
    """Forget one."""
    decisions.delete(actor(), registration_id)
    flash("The registration is forgotten; the name may ask again.")
    return redirect_to(back())


@blueprint.post("/<registration_id>/unlock")
@authorize_as("POST", "/api/client-registry/unlock")
def unlock(registration_id: str) -> AnyResponse:
    """Open the registry for as long as it takes to grant this one; what was typed stays."""
    require_read(_call(registration_id))
    lock.unlock(actor(), lock.DEFAULT_SECONDS, lock.Limits())
    if is_htmx_request():
        return _show(registration_id, client_ids=request.form.getlist("clientIds"))
    flash("The registry is unlocked.")
    return redirect_to(url_for(".show", registration_id=registration_id, **where()))


def _show(registration_id: str, error: AuthsvcError | None = None, *, client_ids: list[str] | None = None) -> Response:
    """Draw the dialog; `client_ids` are the ticked ones, None to tick the suggested one."""
    require_read(_call(registration_id))
    record = records.get(registration_id)
    offered = fields.roles_to_give()
    return render(
        "registry/registration.html",
        status_of(error) if error else 200,
        one=record,
        context=fields.escape_invisible_json(record.context) if record.context else "",
        locked=lock.state().locked,
        unlock_minutes=lock.DEFAULT_SECONDS // 60,
        roles=offered,
        risky_roles=fields.risky_roles([record], offered),
        rows=permission_rows(request.form),
        client_ids=record.suggested_client_ids if client_ids is None else client_ids,
        where=where(),
        errors=messages_by_field(error),
    )


def _call(registration_id: str) -> str:
    return f"/api/client-registry/registrations/{registration_id}"
