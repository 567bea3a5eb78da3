"""Client and server certificates over REST: list, issue, renew, revoke; and the end of MQTT sessions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from flask import g, request
from pydantic import BaseModel, Field

from authsvc.accounts import users
from authsvc.accounts.proof import check_proof
from authsvc.api.schemas import (
    Body,
    Moment,
    OptionalBody,
    PageView,
    SearchQuery,
    Text,
    TimeInQuery,
    View,
    noun,
    render,
    render_page,
    sort_schema,
)
from authsvc.api.users import UserPath  # noqa: TC001 - the view's types are read when it is made
from authsvc.pki import certificates, csr, renewal, server_certificates
from authsvc.pki.authorities import signing_policy
from authsvc.storage.database import transaction
from authsvc.web.request_context import actor, public, services

SortName = Annotated[certificates.CertificateSort, sort_schema(certificates.CertificateSort)]

blueprint = noun("certificates", "Client certificates")

ReasonName = Literal[
    "unspecified",
    "keyCompromise",
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    "certificateHold",
    "privilegeWithdrawn",
]


class SerialPath(BaseModel):
    serial: Text = Field(max_length=64)


class IssueBody(Body):
    """A CSR, of which only the public key is used."""

    csr: Text = Field(max_length=csr.MAX_CHARACTERS, description="PEM, or Base64 of PEM; Common Name = username")
    days: int | None = Field(None, ge=1, le=certificates.MAX_DAYS)


class IssueServerBody(Body):
    """A CSR, of which only the public key is used, and the names by which clients reach the server."""

    csr: Text = Field(max_length=csr.MAX_CHARACTERS, description="PEM, or Base64 of PEM; any Common Name")
    hosts: list[Annotated[Text, Field(max_length=server_certificates.MAX_HOST_CHARACTERS + 2)]] = Field(
        min_length=1,
        max_length=server_certificates.MAX_HOSTS,
        description="host names and IP addresses",
        examples=[["broker.plant", "192.0.2.7"]],
    )
    days: int | None = Field(None, ge=1, le=certificates.MAX_DAYS)


class RenewBody(Body):
    """Proof of possession of the current certificate's key; `docs/certificates.md` says what is signed."""

    certificate: Text = Field(max_length=csr.MAX_CHARACTERS, description="the current certificate as PEM")
    csr: Text = Field(max_length=csr.MAX_CHARACTERS, description="a CSR with the new key")
    time: Text = Field(
        max_length=40,
        description="the current time as RFC 3339; valid for 5 minutes",
        json_schema_extra={"format": "date-time"},
    )
    signature: Text = Field(max_length=2048, description="Base64, by the current key")


class RevokeBody(OptionalBody):
    reason: ReasonName = "unspecified"


class CertificateQuery(SearchQuery):
    username: Text = Field("", max_length=255)
    status: Literal["valid", "revoked", "expired"] | None = None
    expiring_within_days: int | None = Field(
        None, ge=0, le=36_500, description="only valid certificates that expire in this time"
    )
    expiring_before: TimeInQuery | None = Field(None, description="only valid certificates that expire earlier")
    sort: SortName = Field("notAfter", description="- in front means descending")

    def wanted(self) -> certificates.CertificateFilter:
        return certificates.CertificateFilter(
            self.username, self.search, self.status or "", self.expiring_within_days, self.expiring_before
        )


class IssuedView(View):
    """A new certificate with that of its authority."""

    serial: str
    certificate: str
    ca_certificate: str
    not_after: Moment


class CertificateView(View):
    """A certificate; `revokedAt` may be in the future, at the end of a renewal's overlap."""

    serial: str
    username: str
    status: Literal["valid", "revoked", "expired"]
    certificate: str
    fingerprint: str
    not_before: Moment
    not_after: Moment
    revoked_at: Moment | None
    reason: str | None


class CertificatePage(PageView[CertificateView]):
    pass


class DisconnectView(View):
    """The client ids of ended MQTT sessions, and those of sessions that the broker did not let us end."""

    ended: list[str]
    failed: list[str]


@blueprint.get("/certificates", responses={200: CertificatePage})
def list_certificates(query: CertificateQuery) -> dict[str, Any]:
    """List certificates, the next to expire first unless `sort` says otherwise."""
    found = certificates.search(query.wanted(), query.page, query.per_page, query.sort)
    return render_page(found, map(_view, found.items))


@blueprint.get("/users/<name:username>/certificates", responses={200: CertificatePage})
def list_user_certificates(path: UserPath, query: SearchQuery) -> dict[str, Any]:
    """List a user's certificates, the next to expire first."""
    users.get(path.username)
    found = certificates.search(certificates.CertificateFilter(path.username, query.search), query.page, query.per_page)
    return render_page(found, map(_view, found.items))


@blueprint.post("/users/<name:username>/certificates", responses={201: IssuedView})
def issue_certificate(path: UserPath, body: IssueBody) -> tuple[dict[str, Any], int]:
    """Sign a certificate for a user's key."""
    wanted = csr.read(body.csr, path.username)
    issuing = signing_policy(services().settings)
    issuing = issuing._replace(days=body.days or issuing.days)
    return _issued(users.issue_certificate(actor(), path.username, wanted.public_key, issuing)), 201


@blueprint.post("/certificates/server", responses={201: IssuedView})
def issue_server(body: IssueServerBody) -> tuple[dict[str, Any], int]:
    """Sign a server certificate for a broker."""
    key = csr.read_key(body.csr)
    author = actor()
    with transaction():
        check_proof(author)
        policy = signing_policy(services().settings, body.days)
        return _issued(server_certificates.issue(author, body.hosts, key, policy)), 201


@blueprint.post("/certificates/renew", responses={201: IssuedView}, security=[{}])
@public
def renew_certificate(body: RenewBody) -> tuple[dict[str, Any], int]:
    """Sign a certificate for a new key if the caller proves possession of the current one, after 2/3 of its life."""
    proven = renewal.verify(renewal.RenewalRequest(**body.model_dump()), datetime.now(UTC))
    settings = services().settings
    overlap = timedelta(hours=settings.renewal_overlap_hours)
    made = certificates.renew(proven, signing_policy(settings), overlap, request.remote_addr, g.get("request_id"))
    return _issued(made), 201


@blueprint.get("/certificates/<serial>", responses={200: CertificateView})
def get_certificate(path: SerialPath) -> dict[str, Any]:
    """Show a certificate."""
    return render(_view(certificates.get(path.serial)))


@blueprint.post("/certificates/<serial>/revoke", responses={200: CertificateView})
def revoke_certificate(path: SerialPath, body: RevokeBody) -> dict[str, Any]:
    """Revoke a certificate and sign a new revocation list."""
    return render(_view(certificates.revoke(actor(), path.serial, certificates.read_reason(body.reason))))


@blueprint.post("/users/<name:username>/disconnect", responses={200: DisconnectView})
def disconnect_user(path: UserPath) -> dict[str, Any]:
    """End the MQTT sessions of a user."""
    return render(DisconnectView.of(users.disconnect(actor(), path.username, services().broker)))


def _issued(issued: certificates.IssuedCertificate) -> dict[str, Any]:
    return render(IssuedView.of(issued.record, ca_certificate=issued.ca_certificate))


def _view(record: certificates.CertificateRecord) -> CertificateView:
    return CertificateView.of(record, status=record.status_at(datetime.now(UTC)))
