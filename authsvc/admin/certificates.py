"""Certificates: who has one, until when, and an end to it; and the authority that signs them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from flask import Response, flash, request, url_for

from authsvc.accounts import users
from authsvc.admin.forms import submitted, whole_number
from authsvc.admin.pages import ApiCall, NavigationEntry, by_field, must_read, pages, render, see, stands_for
from authsvc.api.certificates import CertificateQuery, IssueBody, RevokeBody
from authsvc.errors import AuthsvcError
from authsvc.pki import authorities, certificates, csr
from authsvc.pki.ca import RevocationReason
from authsvc.web.problem import status_of
from authsvc.web.request_context import actor, services

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as AnyResponse

blueprint = pages("certificates_page", __name__)
NAVIGATION = NavigationEntry(5, "Certificates", "certificates_page.list_", ApiCall("GET", "/api/certificates"))

SOON_DAYS = 30
_REASONS = {
    RevocationReason.UNSPECIFIED: "not said",
    RevocationReason.KEY_COMPROMISE: "the key was stolen or lost",
    RevocationReason.SUPERSEDED: "it was replaced",
    RevocationReason.CESSATION_OF_OPERATION: "the device is out of use",
    RevocationReason.PRIVILEGE_WITHDRAWN: "it may not connect any more",
    RevocationReason.AFFILIATION_CHANGED: "the device has changed hands",
    RevocationReason.CERTIFICATE_HOLD: "on hold, to be decided later",
}


@blueprint.get("/certificates")
@stands_for("GET", "/api/certificates")
def list_() -> Response:
    """List certificates, the next to expire first, with the state of the authority."""
    query = submitted_query()
    wanted = certificates.CertificateFilter(
        query.username, query.search, query.status or "", query.expiring_within_days
    )
    now = datetime.now(UTC)
    return render(
        "admin/certificates.html",
        found=certificates.search(wanted, query.page, query.per_page),
        query=query,
        keep={name: value for name, value in request.args.items() if name != "page"},
        authorities=authorities.records(),
        soon=now + timedelta(days=SOON_DAYS),
        soon_days=SOON_DAYS,
        expiring=certificates.search(certificates.CertificateFilter(expiring_within_days=SOON_DAYS), 1, 1).total,
    )


@blueprint.get("/certificates/<serial>")
@stands_for("GET", "/api/certificates/{serial}")
def show(serial: str) -> Response:
    """Show a certificate."""
    return _page_of(certificates.get(serial), None)


@blueprint.post("/certificates/<serial>/revoke")
@stands_for("POST", "/api/certificates/{serial}/revoke")
def revoke(serial: str) -> AnyResponse:
    """End a certificate."""
    try:
        body = submitted(RevokeBody, reason=request.form.get("reason", ""))
        record = certificates.revoke(actor(), serial, certificates.read_reason(body.reason))
    except AuthsvcError as error:
        must_read(f"/api/certificates/{serial}")
        return _page_of(certificates.get(serial), error)
    flash(f"The certificate of {record.username} is revoked; brokers refuse it with their next revocation list.")
    return see(url_for("certificates_page.show", serial=record.serial))


@blueprint.get("/users/<username>/certificates/new")
@stands_for("POST", "/api/users/{username}/certificates")
def ask(username: str) -> Response:
    """Ask for the request to sign."""
    users.get(username)
    return _form(username, None)


@blueprint.post("/users/<username>/certificates/new")
@stands_for("POST", "/api/users/{username}/certificates")
def issue(username: str) -> AnyResponse:
    """Sign a certificate for the key of a request, and show it."""
    form = request.form
    try:
        body = submitted(IssueBody, csr=form.get("csr", ""), days=whole_number(form.get("days", "")))
        wanted = csr.read(body.csr, username)
        issuing = authorities.signing_policy(services().settings)
        issuing = issuing._replace(days=body.days or issuing.days)
        issued = users.issue_certificate(actor(), username, wanted.public_key, issuing)
    except AuthsvcError as error:
        return _form(username, error)
    return render("admin/certificate_issued.html", 201, issued=issued)


def submitted_query() -> CertificateQuery:
    """Return what is looked for; `InvalidInput` where it does not fit."""
    return submitted(CertificateQuery, **{name: value for name, value in request.args.items() if value})


def _page_of(record: certificates.CertificateRecord, error: AuthsvcError | None) -> Response:
    return render(
        "admin/certificate.html",
        status_of(error) if error else 200,
        record=record,
        reasons=_REASONS,
        errors=by_field(error),
    )


def _form(username: str, error: AuthsvcError | None) -> Response:
    return render(
        "admin/certificate_new.html",
        status_of(error) if error else 200,
        username=username,
        default_days=services().settings.certificate_days,
        errors=by_field(error),
        typed=request.form,
    )
