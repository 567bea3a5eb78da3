"""Preauthorizations: who is let in at the first contact."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, Response, flash, request, url_for

from authsvc.admin.forms import permission_rows, validated
from authsvc.admin.pages import authorize_as, messages_by_field, redirect_to, render, require_read
from authsvc.errors import AuthsvcError
from authsvc.web.problem import status_of
from authsvc.web.request_context import actor, services
from registry import preauthorizations
from registry.admin import fields
from registry.api import advance_schemas, schemas

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as AnyResponse

blueprint = Blueprint("advances", __name__, url_prefix="/registry/preauthorizations")


@blueprint.get("")
@authorize_as("GET", "/api/client-registry/preauthorizations")
def show() -> Response:
    """List those that were not used yet, and offer to add some."""
    return _page()


@blueprint.post("")
@authorize_as("POST", "/api/client-registry/preauthorizations")
def create() -> AnyResponse:
    """Preauthorize one."""
    try:
        binding = request.form.get("binding", "")
        body = validated(
            advance_schemas.PreauthorizationBody,
            username=request.form.get("username", "").strip(),
            **fields.given(),
            # Chosen and left empty, it is refused as no fingerprint.
            csrFingerprint=fields.text("csrFingerprint") or ("" if binding == "key" else None),
            withSecret=binding == "secret",
            expiresAt=fields.end_of_period("expiresAt"),
        )
        (made,) = preauthorizations.create(actor(), [body.advance()], services().settings.password_policy)
    except AuthsvcError as error:
        return _page(error, "one")
    if made.secret:
        return render("registry/preauthorization_made.html", 201, secret=made.secret, one=made.record)
    if made.record.held_reason:
        flash(f"{body.username} is preauthorized. Somebody tried the name earlier, so it waits for approval.")
    else:
        flash(f"{body.username} is let in at its first contact.")
    return redirect_to(url_for(".show"))


@blueprint.post("/csv")
@authorize_as("POST", "/api/client-registry/preauthorizations/csv")
def upload() -> AnyResponse:
    """Preauthorize everybody in a list, or nobody."""
    try:
        advances = preauthorizations.read_csv(_uploaded(), with_secrets="withSecrets" in request.form)
        stored = preauthorizations.create(actor(), advances, services().settings.password_policy)
    except AuthsvcError as error:
        return _page(error, "many")
    secrets = [one for one in stored if one.secret]
    if secrets:
        return render("registry/preauthorizations_made.html", 201, stored=stored, secrets=secrets)
    flash(f"{len(stored):,} preauthorized.")
    return redirect_to(url_for(".show"))


@blueprint.post("/<advance_id>/delete")
@authorize_as("DELETE", "/api/client-registry/preauthorizations/{advance_id}")
def delete(advance_id: str) -> AnyResponse:
    """Take one back."""
    preauthorizations.delete(actor(), advance_id)
    flash("The preauthorization is taken back.")
    return redirect_to(url_for(".show"))


def _uploaded() -> str:
    file = request.files.get("file")
    return file.read().decode("utf-8-sig", "replace") if file else request.form.get("csv", "")


def _page(error: AuthsvcError | None = None, form: str = "") -> Response:
    require_read("/api/client-registry/preauthorizations")
    query = validated(schemas.SearchQuery, **request.args.to_dict())
    return render(
        "registry/preauthorizations.html",
        status_of(error) if error else 200,
        found=preauthorizations.search(query.search, query.page, query.per_page),
        search=query.search,
        periods=fields.PERIODS,
        roles=fields.roles_to_give(),
        rows=permission_rows(request.form),
        errors={form: messages_by_field(error)},
    )
