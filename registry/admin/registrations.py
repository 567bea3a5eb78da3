"""The table of registrations, and the dialog to grant, deny or delete one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, Response, flash, request, url_for

from authsvc.admin.forms import permission_rows, validated
from authsvc.admin.pages import authorize_as, is_htmx_request, polled, redirect_to, render, require_read
from authsvc.errors import AuthsvcError
from authsvc.web.request_context import actor, services
from registry import decisions, lock, records
from registry.admin import fields
from registry.admin.listing import is_shown, list_query, list_url, listing, unchanged
from registry.api import schemas
from registry.api.routes import registry

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as AnyResponse

blueprint = Blueprint("registrations", __name__, url_prefix="/registry/registrations")


@blueprint.get("")
@authorize_as("GET", "/api/client-registry/registrations")
@polled
def table() -> AnyResponse:
    """Render the table if it has changed."""
    if not is_htmx_request():
        return redirect_to(list_url())
    shown = listing()
    if is_shown(shown.content_hash):
        return unchanged()
    captures = services().settings.registry_capture_while_locked
    risky = fields.risky_roles(shown.found.items)
    return render("registry/table.html", listing=shown, captures=captures, state=lock.state(), risky_roles=risky)


@blueprint.get("/<registration_id>")
@authorize_as("GET", "/api/client-registry/registrations/{registration_id}")
def show(registration_id: str) -> Response:
    """Show a registration and the forms to decide on it."""
    return _show(registration_id)


@blueprint.post("/<registration_id>/grant")
@authorize_as("POST", "/api/client-registry/registrations/{registration_id}/grant")
def grant(registration_id: str) -> AnyResponse:
    """Grant a registration."""
    accepted = {name: name in request.form for name in ("acceptRequested", "acceptConflicts", "acceptHttpRights")}
    client_ids = request.form.getlist("clientIds")
    try:
        wanted = validated(schemas.GrantBody, **fields.rights(), **accepted, clientIds=client_ids)
        record = decisions.grant(actor(), registration_id, wanted.grant(), registry().signing)
    except AuthsvcError as error:
        return _show(registration_id, error, client_ids=client_ids)
    flash(f"{record.username} is granted and can connect at its next attempt.")
    return redirect_to(list_url())


@blueprint.post("/<registration_id>/deny")
@authorize_as("POST", "/api/client-registry/registrations/{registration_id}/deny")
def deny(registration_id: str) -> AnyResponse:
    """Deny a registration."""
    try:
        reason = validated(schemas.DenyBody, reason=fields.text("reason")).reason
        record = decisions.deny(actor(), registration_id, reason)
    except AuthsvcError as error:
        return _show(registration_id, error)
    flash(f"{record.username} is denied.")
    return redirect_to(list_url())


@blueprint.post("/<registration_id>/delete")
@authorize_as("DELETE", "/api/client-registry/registrations/{registration_id}")
def delete(registration_id: str) -> AnyResponse:
    """Delete a registration."""
    decisions.delete(actor(), registration_id)
    flash("The registration is deleted. The username can register again.")
    return redirect_to(list_url())


@blueprint.post("/<registration_id>/unlock")
@authorize_as("POST", "/api/client-registry/unlock")
def unlock(registration_id: str) -> AnyResponse:
    """Unlock the registry so that this registration can be granted; the form keeps its input."""
    require_read(_call(registration_id))
    lock.unlock(actor(), lock.DEFAULT_SECONDS, lock.Limits())
    if is_htmx_request():
        return _show(registration_id, client_ids=request.form.getlist("clientIds"))
    flash("The registry is unlocked.")
    return redirect_to(url_for(".show", registration_id=registration_id, **list_query()))


def _show(registration_id: str, error: AuthsvcError | None = None, *, client_ids: list[str] | None = None) -> Response:
    """Render the dialog; `client_ids` are the selected ones, None to select the suggested one."""
    require_read(_call(registration_id))
    record = records.get(registration_id)
    offered = fields.role_choices()
    return render(
        "registry/registration.html",
        error=error,
        one=record,
        context=fields.readable_json(record.context) if record.context else "",
        locked=lock.state().locked,
        unlock_minutes=lock.DEFAULT_SECONDS // 60,
        roles=offered,
        risky_roles=fields.risky_roles([record], offered),
        rows=permission_rows(request.form),
        client_ids=record.suggested_client_ids if client_ids is None else client_ids,
        list_query=list_query(),
    )


def _call(registration_id: str) -> str:
    return f"/api/client-registry/registrations/{registration_id}"
