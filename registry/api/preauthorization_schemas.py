"""JSON schemas of preauthorizations and enrolment keys."""

from __future__ import annotations

from flask_openapi3.models import RawModel
from pydantic import Field

from authsvc.api.schemas import Body, Moment, PermissionView, Query, Text, Username, View, permissions_from
from registry.api.schemas import Expiry, Fingerprint, PageView, Permissions, Roles
from registry.enrolment_keys import MAX_USES
from registry.preauthorizations import NewPreauthorization


class PreauthorizationBody(Body):
    """A username with its rights, its expiry, and the key or one-time secret that it is bound to."""

    username: Username
    roles: Roles = []
    permissions: Permissions = []
    csr_fingerprint: Fingerprint | None = None
    with_secret: bool = Field(
        default=False,
        description="bind it to a one-time secret, which the answer contains; the device sends it as `enrolmentKey`, "
        "or as the password of its first contact, which then stays its password",
    )
    expires_at: Expiry

    def preauthorization(self) -> NewPreauthorization:
        """Return the preauthorization; raise `InvalidInput` by field for an invalid permission."""
        return NewPreauthorization(
            self.username,
            tuple(self.roles),
            permissions_from(self.permissions),
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
    created: Moment = Field(validation_alias="created_at")


class CreatedPreauthorizationView(PreauthorizationView):
    """A new preauthorization; the `secret` that it is bound to, if any, is shown only once."""

    secret: str | None


class PreauthorizationPage(PageView):
    items: list[PreauthorizationView]


class CsvUpload(RawModel):
    mimetypes = ["text/csv"]


class UploadQuery(Query):
    with_secrets: bool = Field(default=False, description="bind each line without a key to a one-time secret")


class SecretView(View):
    username: str
    secret: str


class UploadView(View):
    """The number of preauthorizations and the secrets that they are bound to, which are shown only once."""

    created: int
    secrets: list[SecretView]


class KeyBody(Body):
    """An enrolment key: number of uses, expiry, roles, and whether an administrator must approve each registration."""

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
    created: Moment = Field(validation_alias="created_at")
    revoked: Moment | None = Field(validation_alias="revoked_at")


class NewKeyView(KeyView):
    """A new enrolment key; its `secret` is shown only once."""

    secret: str


class KeyPage(PageView):
    items: list[KeyView]
