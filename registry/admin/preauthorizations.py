"""Pages of preauthorizations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, Response, flash, request, url_for

from authsvc.admin.forms import permission_rows, validated
from authsvc.admin.pages import authorize_as, messages_by_field, redirect_to, render, require_read
from authsvc.errors import AuthsvcError
from authsvc.web.request_context import actor, services
from registry import preauthorizations
from registry.admin import fields
from registry.api import schemas

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as AnyResponse

blueprint = Blueprint("preauthorizations", __name__, url_prefix="/registry/preauthorizations")


@blueprint.get("")
@authorize_as("GET", "/api/client-registry/preauthorizations")
def show() -> Response:
    """List unused preauthorizations, with forms to add some."""
    return _page()


@blueprint.post("")
@authorize_as("POST", "/api/client-registry/preauthorizations")
def create() -> AnyResponse:
    """Preauthorize a username."""
    try:
        binding = request.form.get("binding", "")
        body = validated(
            schemas.PreauthorizationBody,
            username=request.form.get("username", "").strip(),
            **fields.rights(),
            # If the binding is a key, an empty fingerprint is validated, and so refused.
            csrFingerprint=fields.text("csrFingerprint") or ("" if binding == "key" else None),
            withSecret=binding == "secret",
            expiresAt=fields.end_of_period("expiresAt"),
        )
        settings = services().settings
        (created,) = preauthorizations.create(
            actor(), [body.preauthorization()], settings.password_policy, names=settings.registration_usernames
        )
    except AuthsvcError as error:
        return _page(error, "one")
    if created.secret:
        return render("registry/preauthorization_created.html", 201, secret=created.secret, one=created.record)
    if created.record.held_reason:
        flash(f"{body.username} is preauthorized. Somebody tried the name earlier, so it needs an approval.")
    else:
        flash(f"{body.username} is preauthorized.")
    return redirect_to(url_for(".show"))


@blueprint.post("/csv")
@authorize_as("POST", "/api/client-registry/preauthorizations/csv")
def upload() -> AnyResponse:
    """Preauthorize all usernames of a CSV file, or none."""
    try:
        wanted = preauthorizations.read_csv(_uploaded(), with_secrets="withSecrets" in request.form)
        settings = services().settings
        created = preauthorizations.create(
            actor(), wanted, settings.password_policy, names=settings.registration_usernames
        )
    except AuthsvcError as error:
        return _page(error, "many")
    secrets = [one for one in created if one.secret]
    if secrets:
        return render("registry/preauthorizations_created.html", 201, created=created, secrets=secrets)
    flash(f"{len(created):,} preauthorized.")
    return redirect_to(url_for(".show"))


@blueprint.post("/<preauthorization_id>/delete")
@authorize_as("DELETE", "/api/client-registry/preauthorizations/{preauthorization_id}")
def delete(preauthorization_id: str) -> AnyResponse:
    """Delete an unused preauthorization."""
    preauthorizations.delete(actor(), preauthorization_id)
    flash("The preauthorization is deleted.")
    return redirect_to(url_for(".show"))


def _uploaded() -> str:
    file = request.files.get("file")
    return file.read().decode("utf-8-sig", "replace") if file else request.form.get("csv", "")


def _page(error: AuthsvcError | None = None, form: str = "") -> Response:
    require_read("/api/client-registry/preauthorizations")
    query = validated(schemas.SearchQuery, **request.args.to_dict())
    return render(
        "registry/preauthorizations.html",
        error=error,
        found=preauthorizations.search(query.search, query.page, query.per_page),
        search=query.search,
        periods=fields.PERIODS,
        roles=fields.role_choices(),
        rows=permission_rows(request.form),
        errors={form: messages_by_field(error)},
    )
