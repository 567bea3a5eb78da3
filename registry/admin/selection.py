"""Several registrations at once: what becomes of them, and what could not be done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, Response, flash, request

from authsvc.admin.forms import permission_rows, validated
from authsvc.admin.pages import authorize_as, may_call, messages_by_field, redirect_to, render, require_read
from authsvc.errors import AuthsvcError, Forbidden, NotFound
from authsvc.web.problem import status_of
from authsvc.web.request_context import actor
from registry import decisions, lock, records
from registry.admin import fields
from registry.admin.listed import back, where
from registry.api import filter_schemas, schemas
from registry.api.routes import registry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from werkzeug.wrappers import Response as AnyResponse

blueprint = Blueprint("selection", __name__, url_prefix="/registry/registrations")


@blueprint.post("/selected")
@authorize_as("GET", "/api/client-registry/registrations")
def ask() -> Response:
    """Show who was selected and ask what they get, or why they are denied."""
    decision = "deny" if request.form.get("decision") == "deny" else "grant"
    if not may_call("POST", f"/api/client-registry/registrations/{decision}"):
        raise Forbidden(f"you may not {decision} registrations")
    return _ask(decision)


@blueprint.post("/grant")
@authorize_as("POST", "/api/client-registry/registrations/grant")
def grant() -> AnyResponse:
    """Grant them all, each on its own."""
    accepted = "acceptRequested" in request.form
    try:
        body = validated(
            schemas.GrantManyBody, ids=_ids(), **fields.given(), acceptRequested=accepted, clientIdsOf=_ticked()
        )
        grants = body.grants()
    except AuthsvcError as error:
        return _ask("grant", error)
    names = _names(body.ids)
    return _outcome(names, "granted", *decisions.grant_many(actor(), grants, registry().issuing))


@blueprint.post("/deny")
@authorize_as("POST", "/api/client-registry/registrations/deny")
def deny() -> AnyResponse:
    """Deny them all, each on its own."""
    try:
        body = validated(filter_schemas.DenyManyBody, ids=_ids(), reason=fields.text("reason"))
    except AuthsvcError as error:
        return _ask("deny", error)
    names, author = _names(body.ids), actor()
    return _outcome(names, "denied", *decisions.each(body.ids, lambda id_: decisions.deny(author, id_, body.reason)))


def _ask(decision: str, error: AuthsvcError | None = None) -> Response:
    require_read("/api/client-registry/registrations")
    chosen = list(_found(_ids()))
    client_ids = _ticked() if error else {one.id: one.suggested_client_ids for one in chosen}
    offered = fields.roles_to_give()
    return render(
        "registry/selection.html",
        status_of(error) if error else 200,
        decision=decision,
        chosen=chosen,
        risky_roles=fields.risky_roles(chosen, offered),
        locked=lock.state().locked,
        roles=offered,
        rows=permission_rows(request.form),
        client_ids=client_ids,
        where=where(),
        errors=messages_by_field(error),
    )


def _outcome(
    names: dict[str, str], word: str, done: list[records.Record], failed: list[decisions.Failure]
) -> AnyResponse:
    if failed:
        words = [(names.get(id_, "one that was forgotten"), error.message) for id_, error in failed]
        return render("registry/outcome.html", done=done, failed=words, word=word, where=where())
    flash(f"{len(done)} {'registration is' if len(done) == 1 else 'registrations are'} {word}.")
    return redirect_to(back())


def _ids() -> list[str]:
    return request.form.getlist("ids")


def _ticked() -> dict[str, list[str]]:
    """Return the client ids that are ticked, by registration; without those of which none is."""
    ticked = {id_: request.form.getlist(f"clientIds.{id_}") for id_ in _ids()}
    return {id_: client_ids for id_, client_ids in ticked.items() if client_ids}


def _names(ids: Iterable[str]) -> dict[str, str]:
    return {record.id: record.username for record in _found(ids)}


def _found(ids: Iterable[str]) -> Iterable[records.Record]:
    for registration_id in ids:
        try:
            yield records.get(registration_id)
        except NotFound:
            continue
