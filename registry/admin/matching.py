"""Deny or delete all registrations that match a filter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, flash, request, url_for

from authsvc.admin.forms import parse_integer, validated
from authsvc.admin.pages import authorize_as, is_htmx_request, polled, redirect_to, render, require_read
from authsvc.errors import AuthsvcError, InvalidInput
from authsvc.web.request_context import actor
from registry import filters
from registry.admin.fields import text
from registry.admin.listing import content_hash, is_shown, list_query, list_url, unchanged
from registry.api import schemas
from registry.mqtt_registration import unknown_names
from registry.states import Status

if TYPE_CHECKING:
    from werkzeug.datastructures import MultiDict
    from werkzeug.wrappers import Response as AnyResponse

blueprint = Blueprint("matching", __name__, url_prefix="/registry")

FIELDS = ("usernamePattern", "clientIdPattern", "address", "maxAttempts", "after", "before")
# Prefix of the field names, because the unlock form on the same page has fields of the same names.
PREFIX = "filter"
_EXAMPLES = 10


@blueprint.get("/flood")
@authorize_as("GET", "/api/client-registry")
@polled
def flood() -> AnyResponse:
    """Render the notice of a flood if it has changed."""
    if not is_htmx_request():
        return redirect_to(url_for("registry_page.lock.show"))
    context = flood_context()
    return unchanged() if is_shown(context["flood_hash"]) else render("registry/flood.html", **context)


@blueprint.get("/matching")
@authorize_as("GET", "/api/client-registry/registrations")
def show() -> Response:
    """Show the form of a filter and the registrations that match."""
    return _show(request.args)


@blueprint.post("/matching/deny")
@authorize_as("POST", "/api/client-registry/registrations/deny")
def deny() -> AnyResponse:
    """Deny all pending registrations that match."""
    try:
        reason = validated(schemas.DenyBody, reason=text("reason")).reason
        count = filters.deny(actor(), _filter(request.form), reason)
    except AuthsvcError as error:
        return _show(request.form, error)
    flash(f"{count:,} registrations are denied.")
    return redirect_to(list_url())


@blueprint.post("/matching/delete")
@authorize_as("POST", "/api/client-registry/registrations/delete")
def delete() -> AnyResponse:
    """Delete all pending registrations that match."""
    try:
        count = filters.delete(actor(), _filter(request.form), Status.PENDING)
    except AuthsvcError as error:
        return _show(request.form, error)
    flash(f"{count:,} registrations are deleted.")
    return redirect_to(list_url())


def flood_context() -> dict[str, Any]:
    """Return the template variables of a flood."""
    found = unknown_names.flood()
    suggested = (found and found.suggested_filter) or {}
    wanted = {f"{PREFIX}.{name}": value for name, value in suggested.items()}
    return {"flood": found, "flood_filter": wanted, "flood_hash": content_hash(found)}


def _filter(form: MultiDict[str, str]) -> filters.Filter:
    fields: dict[str, Any] = {name: _typed(form, name) or None for name in FIELDS}
    fields["maxAttempts"] = parse_integer(_typed(form, "maxAttempts"))
    try:
        return validated(schemas.FilterBody, **fields).filter()
    except InvalidInput as error:
        raise error.within(PREFIX) from None


def _typed(form: MultiDict[str, str], name: str) -> str:
    return form.get(f"{PREFIX}.{name}", "").strip()


def _show(form: MultiDict[str, str], error: AuthsvcError | None = None) -> Response:
    require_read("/api/client-registry/registrations")
    names: list[str] | None = None
    if any(_typed(form, name) for name in FIELDS):
        try:
            names = [name for _, name in filters.matching(_filter(form))]
        except AuthsvcError as filter_error:
            error = filter_error
    return render(
        "registry/matching.html",
        error=error,
        given={f"{PREFIX}.{name}": _typed(form, name) for name in FIELDS},
        names=names,
        examples=_EXAMPLES,
        list_query=list_query(),
    )
