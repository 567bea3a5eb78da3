"""Pages of preauthorizations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, Response, flash, request, url_for

from authsvc.admin.forms import permission_rows, submitted
from authsvc.admin.pages import by_field, must_read, render, see, stands_for
from authsvc.errors import AuthsvcError
from authsvc.web.problem import status_of
from authsvc.web.request_context import actor, services
from registry import preauthorizations
from registry.admin import fields
from registry.api import preauthorization_schemas, schemas

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as AnyResponse

blueprint = Blueprint("preauthorizations", __name__, url_prefix="/registry/preauthorizations")


@blueprint.get("")
@stands_for("GET", "/api/client-registry/preauthorizations")
def show() -> Response:
    """List unused preauthorizations, with forms to add some."""
    return _page()


@blueprint.post("")
@stands_for("POST", "/api/client-registry/preauthorizations")
def create() -> AnyResponse:
    """Preauthorize a username."""
    try:
        binding = request.form.get("binding", "")
        body = submitted(
            preauthorization_schemas.PreauthorizationBody,
            username=request.form.get("username", "").strip(),
            **fields.rights(),
            # If the binding is a key, an empty fingerprint is validated, and so refused.
            csrFingerprint=fields.text("csrFingerprint") or ("" if binding == "key" else None),
            withSecret=binding == "secret",
            expiresAt=fields.end_of_period("expiresAt"),
        )
        (created,) = preauthorizations.create(actor(), [body.preauthorization()], services().settings.password_policy)
    except AuthsvcError as error:
        return _page(error, "one")
    if created.secret:
        return render("registry/preauthorization_created.html", 201, secret=created.secret, one=created.record)
    if created.record.held_reason:
        flash(f"{body.username} is preauthorized. Somebody tried the name earlier, so it needs an approval.")
    else:
        flash(f"{body.username} is preauthorized.")
    return see(url_for(".show"))


@blueprint.post("/csv")
@stands_for("POST", "/api/client-registry/preauthorizations/csv")
def upload() -> AnyResponse:
    """Preauthorize all usernames of a CSV file, or none."""
    try:
        wanted = preauthorizations.read_csv(_uploaded(), with_secrets="withSecrets" in request.form)
        created = preauthorizations.create(actor(), wanted, services().settings.password_policy)
    except AuthsvcError as error:
        return _page(error, "many")
    secrets = [one for one in created if one.secret]
    if secrets:
        return render("registry/preauthorizations_created.html", 201, created=created, secrets=secrets)
    flash(f"{len(created):,} preauthorized.")
    return see(url_for(".show"))


@blueprint.post("/<preauthorization_id>/delete")
@stands_for("DELETE", "/api/client-registry/preauthorizations/{preauthorization_id}")
def delete(preauthorization_id: str) -> AnyResponse:
    """Delete an unused preauthorization."""
    preauthorizations.delete(actor(), preauthorization_id)
    flash("The preauthorization is deleted.")
    return see(url_for(".show"))


def _uploaded() -> str:
    file = request.files.get("file")
    return file.read().decode("utf-8-sig", "replace") if file else request.form.get("csv", "")


def _page(error: AuthsvcError | None = None, form: str = "") -> Response:
    must_read("/api/client-registry/preauthorizations")
    query = submitted(schemas.SearchQuery, **request.args.to_dict())
    return render(
        "registry/preauthorizations.html",
        status_of(error) if error else 200,
        found=preauthorizations.search(query.search, query.page, query.per_page),
        search=query.search,
        periods=fields.PERIODS,
        roles=fields.role_choices(),
        rows=permission_rows(request.form),
        errors={form: by_field(error)},
    )
