"""Certificates: list, issue and revoke; and the certificate authority that signs them."""

from __future__ import annotations

import re
import shlex
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from flask import Response, flash, request, url_for

from authsvc.accounts import users
from authsvc.admin.forms import parse_integer, validated, validated_query
from authsvc.admin.pages import (
    ApiCall,
    NavigationEntry,
    authorize_as,
    page_blueprint,
    redirect_to,
    render,
    require_read,
)
from authsvc.api.certificates import CertificateQuery, IssueBody, RevokeBody
from authsvc.errors import AuthsvcError
from authsvc.pki import authorities, certificates, csr
from authsvc.pki.ca import RevocationReason
from authsvc.web.request_context import actor, services

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as AnyResponse

blueprint = page_blueprint("certificates_page", __name__)
NAVIGATION = NavigationEntry(6, "Certificates", "certificates_page.list_", ApiCall("GET", "/api/certificates"))

SOON_DAYS = 30
_REASONS = {
    RevocationReason.UNSPECIFIED: "unspecified",
    RevocationReason.KEY_COMPROMISE: "the private key was stolen or lost",
    RevocationReason.SUPERSEDED: "the certificate was replaced",
    RevocationReason.CESSATION_OF_OPERATION: "the device is out of operation",
    RevocationReason.PRIVILEGE_WITHDRAWN: "the device may no longer connect",
    RevocationReason.AFFILIATION_CHANGED: "the device has a new owner",
    RevocationReason.CERTIFICATE_HOLD: "on hold until a final decision",
}


@blueprint.get("/certificates")
@authorize_as("GET", "/api/certificates")
def list_() -> Response:
    """List certificates, the next to expire first, with the state of the authorities."""
    query, filters = validated_query(CertificateQuery)
    return render(
        "admin/certificates.html",
        found=certificates.search(query.wanted(), query.page, query.per_page, query.sort),
        query=query,
        keep=filters,
        authorities=authorities.records(),
        soon=datetime.now(UTC) + timedelta(days=SOON_DAYS),
        soon_days=SOON_DAYS,
        expiring=certificates.search(certificates.CertificateFilter(expiring_within_days=SOON_DAYS), 1, 1).total,
    )


@blueprint.get("/certificates/<serial>")
@authorize_as("GET", "/api/certificates/{serial}")
def show(serial: str) -> Response:
    return _page(serial, None)


@blueprint.post("/certificates/<serial>/revoke")
@authorize_as("POST", "/api/certificates/{serial}/revoke")
def revoke(serial: str) -> AnyResponse:
    try:
        body = validated(RevokeBody, reason=request.form.get("reason", ""))
        record = certificates.revoke(actor(), serial, certificates.read_reason(body.reason))
    except AuthsvcError as error:
        require_read(f"/api/certificates/{serial}")
        return _page(serial, error)
    flash(
        f"The certificate of {record.username} is revoked. A broker refuses it as soon as it has loaded the next"
        " certificate revocation list."
    )
    return redirect_to(url_for("certificates_page.show", serial=record.serial))


@blueprint.get("/users/<name:username>/certificates/new")
@authorize_as("POST", "/api/users/{username}/certificates")
def new_form(username: str) -> Response:
    """Show the form for a certificate signing request."""
    users.get(username)
    return _form(username, None)


@blueprint.post("/users/<name:username>/certificates/new")
@authorize_as("POST", "/api/users/{username}/certificates")
def issue(username: str) -> AnyResponse:
    """Sign a certificate for the public key of a CSR, and show the certificate."""
    form = request.form
    try:
        body = validated(IssueBody, csr=form.get("csr", ""), days=parse_integer(form.get("days", "")))
        wanted = csr.read(body.csr, username)
        issuing = authorities.signing_policy(services().settings, body.days)
        issued = users.issue_certificate(actor(), username, wanted.public_key, issuing)
    except AuthsvcError as error:
        return _form(username, error)
    return render("admin/certificate_issued.html", 201, issued=issued)


def _page(serial: str, error: AuthsvcError | None) -> Response:
    return render("admin/certificate.html", error=error, record=certificates.get(serial), reasons=_REASONS)


def _form(username: str, error: AuthsvcError | None) -> Response:
    default_days = services().settings.certificate_days
    # openssl separates the parts of a name by slashes and plus signs.
    common_name = re.sub(r"([\\/+])", r"\\\1", username)
    fields: dict[str, Any] = {
        "username": username,
        "subject": shlex.quote(f"/CN={common_name}"),
        "default_days": default_days,
    }
    return render("admin/certificate_new.html", error=error, typed=request.form, **fields)
