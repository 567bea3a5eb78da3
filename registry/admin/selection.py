"""Grant or deny several registrations at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, Response, flash, request

from authsvc.accounts.bulk import MAX_AT_ONCE, apply_to_each
from authsvc.admin.forms import permission_rows, validated
from authsvc.admin.pages import authorize_as, may_call, redirect_to, render, require_read
from authsvc.errors import AuthsvcError, Forbidden
from authsvc.web.request_context import actor
from registry import decisions, lock, records
from registry.admin import fields
from registry.admin.listing import list_query, list_url, listing
from registry.api import schemas
from registry.api.routes import registry
from registry.states import Status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from werkzeug.wrappers import Response as AnyResponse

    from authsvc.accounts.bulk import Failure

blueprint = Blueprint("selection", __name__, url_prefix="/registry/registrations")


@blueprint.post("/selected")
@authorize_as("GET", "/api/client-registry/registrations")
def ask() -> Response:
    """Show the selected registrations and the form to grant or deny them."""
    decision = "deny" if request.form.get("decision") == "deny" else "grant"
    if not may_call("POST", f"/api/client-registry/registrations/{decision}"):
        raise Forbidden(f"your account lacks the permission to {decision} registrations")
    return _form(decision)


@blueprint.post("/grant")
@authorize_as("POST", "/api/client-registry/registrations/grant")
def grant() -> AnyResponse:
    """Grant the selected registrations, each in its own transaction."""
    accepted = "acceptRequested" in request.form
    try:
        body = validated(
            schemas.GrantManyBody,
            ids=_ids(),
            **fields.rights(),
            acceptRequested=accepted,
            clientIdsOf=_selected_client_ids(),
        )
        grants = body.grants()
    except AuthsvcError as error:
        return _form("grant", error)
    return _outcome(_names(body.ids), "granted", *decisions.grant_many(actor(), grants, registry().signing))


@blueprint.post("/deny")
@authorize_as("POST", "/api/client-registry/registrations/deny")
def deny() -> AnyResponse:
    """Deny the selected registrations, each in its own transaction."""
    try:
        body = validated(schemas.DenyManyBody, ids=_ids(), reason=fields.text("reason"))
    except AuthsvcError as error:
        return _form("deny", error)
    author = actor()
    return _outcome(
        _names(body.ids),
        "denied",
        *apply_to_each(body.ids, lambda id_: decisions.deny(author, id_, body.reason)),
    )


def _form(decision: str, error: AuthsvcError | None = None) -> Response:
    require_read("/api/client-registry/registrations")
    chosen, matching = _chosen()
    client_ids = _selected_client_ids() if error else {one.id: one.suggested_client_ids for one in chosen}
    offered = fields.role_choices()
    return render(
        "registry/selection.html",
        error=error,
        decision=decision,
        chosen=chosen,
        matching=matching,
        risky_roles=fields.risky_roles(chosen, offered),
        locked=lock.state().locked,
        roles=offered,
        rows=permission_rows(request.form),
        client_ids=client_ids,
        list_query=list_query(),
    )


def _outcome(
    names: dict[str, str], word: str, done: list[records.RegistrationRecord], failed: list[Failure]
) -> AnyResponse:
    if failed:
        failures = [(names.get(id_, "a deleted registration"), error.message) for id_, error in failed]
        return render("registry/outcome.html", done=done, failed=failures, word=word, list_query=list_query())
    flash(f"{len(done)} {'registration is' if len(done) == 1 else 'registrations are'} {word}.")
    return redirect_to(list_url())


def _chosen() -> tuple[list[records.RegistrationRecord], int]:
    """Return the registrations to decide on, at most `MAX_AT_ONCE`, and how many were asked for."""
    if "all" not in request.form:
        chosen = records.get_many(_ids())
        return chosen, len(chosen)
    found = records.search(records.RegistrationFilter(Status.PENDING, listing().search), 1, MAX_AT_ONCE)
    return found.items, found.total


def _ids() -> list[str]:
    return request.form.getlist("ids")


def _selected_client_ids() -> dict[str, list[str]]:
    """Return the selected client ids by registration id, without registrations that have none."""
    selected = {id_: request.form.getlist(f"clientIds.{id_}") for id_ in _ids()}
    return {id_: client_ids for id_, client_ids in selected.items() if client_ids}


def _names(ids: Iterable[str]) -> dict[str, str]:
    return {record.id: record.username for record in records.get_many(ids)}
