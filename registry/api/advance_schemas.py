"""What goes over the wire about preauthorisations and enrolment keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask_openapi3.models import RawModel
from pydantic import Field

from authsvc.api.schemas import (
    Body,
    Moment,
    PermissionView,
    Query,
    Text,
    Username,
    View,
    permissions_from,
)
from registry.api.schemas import Expiry, Fingerprint, Permissions, Roles  # noqa: TC001 - pydantic reads them
from registry.enrolment_keys import MAX_USES
from registry.preauthorizations import NewPreauthorization

if TYPE_CHECKING:
    from registry.enrolment_keys import KeyRecord
    from registry.preauthorizations import CreatedPreauthorization, PreauthorizationRecord


class PreauthorizationBody(Body):
    """For whom, with what, until when; for the holder of which key or secret alone."""

    username: Username
    roles: Roles = []
    permissions: Permissions = []
    csr_fingerprint: Fingerprint | None = None
    with_secret: bool = Field(
        default=False,
        description="bind it to a one-time secret, which the answer contains; the device sends it as `enrolmentKey`, "
        "or as its password at its first contact, and then it stays its password",
    )
    expires_at: Expiry

    def advance(self) -> NewPreauthorization:
        """Return what it spells; `InvalidInput` by field when a permission is none."""
        permissions = permissions_from(self.permissions)
        return NewPreauthorization(
            self.username,
            tuple(self.roles),
            permissions,
            self.csr_fingerprint,
            self.expires_at,
            with_secret=self.with_secret,
        )


class PreauthorizationView(View):
    """A preauthorization."""

    id: str
    username: str
    roles: list[str]
    permissions: list[PermissionView]
    csr_fingerprint: str | None
    with_secret: bool
    held_reason: str | None = Field(
        description="`tried-before`: somebody tried the name earlier, so its first contact waits for an administrator"
    )
    expires_at: Moment | None
    created_by: str
    created: Moment


class CreatedPreauthorizationView(PreauthorizationView):
    """A fresh preauthorization; `secret`, if it is bound to one, is shown this once."""

    secret: str | None


class PreauthorizationPage(View):
    items: list[PreauthorizationView]
    page: int
    per_page: int
    total: int


class CsvUpload(RawModel):
    mimetypes = ["text/csv"]


class UploadQuery(Query):
    with_secrets: bool = Field(default=False, description="bind each line without a key to a one-time secret")


class SecretView(View):
    username: str
    secret: str


class UploadView(View):
    """How many lines became preauthorizations, and the secrets that they are bound to, shown this once."""

    created: int
    secrets: list[SecretView]


class KeyBody(Body):
    """For how many, until when, with what roles, and whether somebody still decides on each."""

    label: Text = Field(min_length=1, max_length=200)
    uses: int = Field(1, ge=1, le=MAX_USES)
    expires_at: Expiry
    roles: Roles = []
    approval_required: bool = False


class KeyView(View):
    """An enrolment key without its secret."""

    id: str
    label: str
    uses: int
    used: int
    roles: list[str]
    approval_required: bool
    expires_at: Moment | None
    created_by: str
    created: Moment
    revoked: Moment | None


class NewKeyView(KeyView):
    """A fresh key; `secret` is shown this once."""

    secret: str


class KeyPage(View):
    items: list[KeyView]
    page: int
    per_page: int
    total: int


def view_preauthorization(record: PreauthorizationRecord) -> PreauthorizationView:
    """Show a preauthorization."""
    return PreauthorizationView(
        id=record.id,
        username=record.advance.username,
        roles=list(record.advance.roles),
        permissions=[PermissionView.of(permission) for permission in record.advance.permissions],
        csr_fingerprint=record.advance.csr_fingerprint,
        with_secret=record.advance.with_secret,
        held_reason=record.held_reason,
        expires_at=record.advance.expires_at,
        created_by=record.created_by,
        created=record.created_at,
    )


def view_upload(stored: list[CreatedPreauthorization]) -> UploadView:
    """Show what came of a file."""
    secrets = [SecretView(username=one.record.advance.username, secret=one.secret) for one in stored if one.secret]
    return UploadView(created=len(stored), secrets=secrets)


def view_key(record: KeyRecord) -> KeyView:
    """Show an enrolment key."""
    return KeyView(
        id=record.id,
        label=record.label,
        uses=record.uses,
        used=record.used,
        roles=list(record.roles),
        approval_required=record.approval_required,
        expires_at=record.expires_at,
        created_by=record.created_by,
        created=record.created_at,
        revoked=record.revoked_at,
    )
