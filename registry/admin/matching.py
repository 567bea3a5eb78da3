"""All registrations that match a filter: what they are, and deny or forget them at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, flash, request, url_for

from authsvc.admin.forms import parse_integer, validated
from authsvc.admin.pages import (
    authorize_as,
    is_htmx_request,
    messages_by_field,
    polled,
    redirect_to,
    render,
    require_read,
)
from authsvc.errors import AuthsvcError, InvalidInput
from authsvc.web.problem import status_of
from authsvc.web.request_context import actor
from registry import filters
from registry.admin import fields
from registry.admin.listed import back, is_seen, mark_of, unchanged, where
from registry.api import filter_schemas, schemas
from registry.mqtt_registration import unknown_names
from registry.states import Status

if TYPE_CHECKING:
    from werkzeug.datastructures import MultiDict
    from werkzeug.wrappers import Response as AnyResponse

blueprint = Blueprint("matching", __name__, url_prefix="/registry")

FIELDS = ("usernamePattern", "clientIdPattern", "address", "maxAttempts", "after", "before")
# The form that unlocks the registry is on the same page and has fields of the same names.
PREFIX = "filter"
_EXAMPLES = 10


@blueprint.get("/flood")
@authorize_as("GET", "/api/client-registry")
@polled
def flood() -> AnyResponse:
    """Draw again whether a flood is going on, if that is another answer than the browser has."""
    if not is_htmx_request():
        return redirect_to(url_for("registry_page.lock.show"))
    context = flood_context()
    return unchanged() if is_seen(context["flood_mark"]) else render("registry/flood.html", **context)


@blueprint.get("/matching")
@authorize_as("GET", "/api/client-registry/registrations")
def show() -> Response:
    """Ask for a filter, and show what matches it."""
    return _show(request.args)


@blueprint.post("/matching/deny")
@authorize_as("POST", "/api/client-registry/registrations/deny")
def deny() -> AnyResponse:
    """Deny all pending registrations that match."""
    try:
        reason = validated(schemas.DenyBody, reason=fields.text("reason")).reason
        count = filters.deny(actor(), _filter(request.form), reason)
    except AuthsvcError as error:
        return _show(request.form, error)
    flash(f"{count:,} registrations are denied.")
    return redirect_to(back())


@blueprint.post("/matching/delete")
@authorize_as("POST", "/api/client-registry/registrations/delete")
def delete() -> AnyResponse:
    """Forget all pending registrations that match."""
    try:
        count = filters.delete(actor(), _filter(request.form), Status.PENDING)
    except AuthsvcError as error:
        return _show(request.form, error)
    flash(f"{count:,} registrations are forgotten.")
    return redirect_to(back())


def flood_context() -> dict[str, Any]:
    """Return what the templates say about a flood."""
    found = unknown_names.flood()
    suggested = (found and found.suggested_filter) or {}
    wanted = {f"{PREFIX}.{name}": value for name, value in suggested.items()}
    return {"flood": found, "flood_filter": wanted, "flood_mark": mark_of(found)}


def _filter(given: MultiDict[str, str]) -> filters.Filter:
    typed: dict[str, Any] = {name: _typed(given, name) or None for name in FIELDS}
    typed["maxAttempts"] = parse_integer(_typed(given, "maxAttempts"))
    try:
        return validated(filter_schemas.FilterBody, **typed).filter()
    except InvalidInput as error:
        raise error.within(PREFIX) from None


def _typed(given: MultiDict[str, str], name: str) -> str:
    return given.get(f"{PREFIX}.{name}", "").strip()


def _show(given: MultiDict[str, str], error: AuthsvcError | None = None) -> Response:
    require_read("/api/client-registry/registrations")
    names: list[str] | None = None
    if any(_typed(given, name) for name in FIELDS):
        try:
            names = [name for _, name in filters.matching(_filter(given))]
        except AuthsvcError as wrong:
            error = wrong
    return render(
        "registry/matching.html",
        status_of(error) if error else 200,
        given={f"{PREFIX}.{name}": _typed(given, name) for name in FIELDS},
        names=names,
        examples=_EXAMPLES,
        where=where(),
        errors=messages_by_field(error),
    )
