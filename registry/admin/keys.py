"""Pages of enrolment keys; each secret is shown once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, Response, flash, request, url_for

from authsvc.admin.forms import parse_integer, validated
from authsvc.admin.pages import authorize_as, redirect_to, render
from authsvc.errors import AuthsvcError
from authsvc.web.request_context import actor
from registry import enrolment_keys
from registry.admin import fields
from registry.api import schemas

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as AnyResponse

blueprint = Blueprint("keys", __name__, url_prefix="/registry/enrolment-keys")


@blueprint.get("")
@authorize_as("GET", "/api/client-registry/enrolment-keys")
def show() -> Response:
    """List enrolment keys without their secrets, newest first."""
    query = validated(schemas.PageQuery, **request.args.to_dict())
    return render("registry/enrolment_keys.html", found=enrolment_keys.search(query.page, query.per_page))


@blueprint.get("/new")
@authorize_as("POST", "/api/client-registry/enrolment-keys")
def ask() -> Response:
    """Show the form for a new key."""
    return _form()


@blueprint.post("")
@authorize_as("POST", "/api/client-registry/enrolment-keys")
def create() -> AnyResponse:
    """Create a key and show its secret, which is not stored."""
    try:
        body = validated(
            schemas.KeyBody,
            label=request.form.get("label", "").strip(),
            uses=parse_integer(request.form.get("uses", "")),
            roles=fields.rights()["roles"],
            expiresAt=fields.end_of_period("expiresAt"),
            approvalRequired="approvalRequired" in request.form,
        )
        secret, record = enrolment_keys.create(
            actor(), body.label, body.uses, tuple(body.roles), body.expires_at, approval_required=body.approval_required
        )
    except AuthsvcError as error:
        return _form(error)
    answer = render("registry/key_created.html", 201, secret=secret, one=record)
    answer.headers["HX-Trigger"] = "keys-changed"
    return answer


@blueprint.post("/<key_id>/revoke")
@authorize_as("DELETE", "/api/client-registry/enrolment-keys/{key_id}")
def revoke(key_id: str) -> AnyResponse:
    """Revoke a key."""
    enrolment_keys.revoke(actor(), key_id)
    flash("The key is revoked. Devices that registered with it stay.")
    return redirect_to(url_for(".show"))


def _form(error: AuthsvcError | None = None) -> Response:
    return render("registry/key_new.html", error=error, periods=fields.PERIODS, roles=fields.role_choices())
