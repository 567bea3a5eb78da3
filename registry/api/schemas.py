"""JSON schemas of the registry: its lock, registrations, preauthorizations and enrolment keys."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from flask_openapi3.models import RawModel
from pydantic import AfterValidator, Field, model_serializer, model_validator

from authsvc.api.schemas import (
    Body,
    ClientIds,
    IdPath,
    Moment,
    OptionalBody,
    PageQuery,
    PageView,
    PermissionBody,
    PermissionView,
    Query,
    RoleName,
    SearchQuery,
    Text,
    Time,
    TimeInQuery,
    Username,
    View,
    failures,
    permissions_from,
    sort_schema,
)
from authsvc.errors import InvalidInput
from authsvc.pki.csr import MAX_CHARACTERS
from registry import decisions, enrolment_keys, filters, lock, preauthorizations, records

if TYPE_CHECKING:
    from pydantic import SerializerFunctionWrapHandler

__all__ = ["IdPath", "PageQuery", "SearchQuery", "failures"]


def _check_depth(value: Any, levels: int = 16) -> Any:
    """Refuse JSON that is nested too deeply to read and to serialize."""
    if levels == 0:
        raise ValueError("is nested too deeply")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(item, levels - 1)
    return value


def _check_network(text: str) -> str:
    try:
        return filters.check_network(text)
    except InvalidInput as error:
        raise ValueError(error.errors[0].message) from None


Expiry = Annotated[Time | None, Field(None, description="RFC 3339; null for never")]
Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the public key, hexadecimal")]
Roles = Annotated[list[RoleName], Field(max_length=100)]
Permissions = Annotated[list[PermissionBody], Field(max_length=1000)]
Id = Annotated[Text, Field(max_length=64)]
Ids = Annotated[list[Id], Field(min_length=1, max_length=1000)]


class UnlockBody(OptionalBody):
    """Duration and limits of an unlock window."""

    duration_seconds: int = Field(lock.DEFAULT_SECONDS, ge=1, le=lock.MAX_SECONDS)
    max_registrations: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="maximum number of registrations that are granted in this unlock window, also of those recorded "
        "while the registry was locked. Attempts do not count, so a flood of made-up names cannot exhaust it",
    )
    username_pattern: Text | None = Field(None, min_length=1, max_length=64, examples=["press_*"])
    roles: Roles = Field([], description="roles of every registration that is granted in this unlock window")

    def limits(self) -> lock.Limits:
        return lock.Limits(self.max_registrations, self.username_pattern, tuple(self.roles))


class AddressView(View):
    """An IPv4 address or a /64 network of IPv6 addresses, and its attempts in the last minute."""

    address: str
    attempts: int


class FloodView(View):
    """Many unknown usernames in the last minute: their number, and what most of them have in common."""

    attempts: int
    names: int
    username_pattern: str = Field(description="matches most of the names; * if they have nothing in common")
    client_id_prefix: str | None
    addresses: list[AddressView] = Field(description="those with the most attempts, if the broker sends addresses")


class LockStateView(View):
    """The state of the lock and the limits of the latest unlock window."""

    locked: bool
    unlocked_until: Moment | None
    seconds_left: int
    pending: int
    max_registrations: int | None
    granted: int | None = Field(
        description="number of registrations granted in this window; null without `maxRegistrations`"
    )
    username_pattern: str | None
    roles: list[str]
    flood: FloodView | None


class RegisterBody(Body):
    """A registration: the username, the credentials that identify the client in later requests, and wanted rights."""

    username: Username
    password: Text | None = Field(None, max_length=200)
    csr: Text | None = Field(None, max_length=MAX_CHARACTERS, description="PEM, or Base64 of PEM")
    context: Annotated[dict[str, Any] | None, AfterValidator(_check_depth)] = Field(
        None, description="any JSON that helps the administrator to decide"
    )
    roles: Roles = []
    permissions: Permissions = []
    enrolment_key: Text | None = Field(
        None,
        max_length=200,
        description="an enrolment key, or the secret of the username's preauthorization",
    )

    @model_validator(mode="after")
    def has_credentials(self) -> RegisterBody:
        """Require a password or a CSR, because later requests are matched by them."""
        if self.password is None and self.csr is None:
            raise ValueError("must have a password, a csr or both")
        return self


class _WithoutNulls(View):
    @model_serializer(mode="wrap")
    def omit_nulls(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialize(self).items() if value is not None}


class PendingView(_WithoutNulls):
    """The registration waits for an administrator, who compares `pairingCode` with the one on the device."""

    status: Literal["pending"] = "pending"
    id: str
    pairing_code: str | None = None


class GrantedView(_WithoutNulls):
    """The client is a user."""

    status: Literal["granted"] = "granted"
    username: str
    certificate: str | None = None
    ca_certificate: str | None = None


class RegistrationQuery(SearchQuery):
    status: Literal["pending", "granted", "denied", "expired"] | None = None
    kind: Literal["implicit", "explicit"] | None = Field(None, description="registered over MQTT, or over REST")
    after: TimeInQuery | None = Field(None, description="first seen at this time or later; RFC 3339")
    before: TimeInQuery | None = Field(None, description="first seen before this time; RFC 3339")
    sort: Annotated[records.RegistrationSort, sort_schema(records.RegistrationSort)] = Field(
        "-lastSeen", description="the field to sort by; with - in front, descending"
    )

    def wanted(self) -> records.RegistrationFilter:
        return records.RegistrationFilter(self.status or "", self.search, self.kind or "", self.after, self.before)


class RegistrationView(View):
    """A registration, with the fingerprint of its key and without its password."""

    id: str
    username: str
    kind: Literal["implicit", "explicit"]
    status: Literal["pending", "granted", "denied", "expired"]
    recorded_while_locked: bool
    client_ids: list[str]
    attempts: int
    conflicts: int = Field(description="attempts under this name with another password or key")
    conflict_addresses: list[str] = Field(
        description="up to 10 source addresses of those, if the broker sends addresses"
    )
    similar_to: list[str] = Field(
        description="up to 10 names of users, preauthorizations and denied registrations that look like this one, as "
        "`bad-1` and `Bad-l` do"
    )
    held_reason: Literal["tried-before", "conflicts", "binding-not-met", "http-rights"] | None = Field(
        description="why a preauthorized name waits for an administrator: `tried-before`, somebody tried the name "
        "before it was preauthorized; `conflicts`, its first contact came with several passwords; `binding-not-met`, "
        "it lacks the bound secret or key; `http-rights`, its roles now give rights over this service"
    )
    first_seen: Moment
    last_seen: Moment
    pairing_code: str | None
    csr_fingerprint: str | None
    has_password: bool
    address: str | None
    context: dict[str, Any] | None
    requested_roles: list[str]
    requested_permissions: list[PermissionView]
    starting_roles: list[str]
    starting_permissions: list[PermissionView]
    decided_by: str | None
    decided_at: Moment | None
    reason: str | None
    damage: list[str] = Field(
        description="columns of its database row that cannot be read; if any, it can only be denied or deleted"
    )


class RegistrationPage(PageView[RegistrationView]):
    pass


class GivenBody(OptionalBody):
    """The rights that users get; `acceptRequested` adds the rights that the client requested."""

    roles: Roles = []
    permissions: Permissions = []
    accept_requested: bool = False
    client_ids: ClientIds = []

    def grant(self) -> decisions.Grant:
        """Return the grant; raise `InvalidInput` by field for an invalid permission."""
        permissions, client_ids = permissions_from(self.permissions), tuple(self.client_ids)
        return decisions.Grant(tuple(self.roles), permissions, self.accept_requested, client_ids=client_ids)


class GrantBody(GivenBody):
    """The rights that the user gets, and the risks that the administrator accepts."""

    accept_conflicts: bool = Field(
        default=False,
        description="grant although others tried the name, or another device may be meant (`heldReason` "
        "`binding-not-met` or `tried-before`); otherwise 409 `registration-has-conflicts` or `registration-held`",
    )
    accept_http_rights: bool = Field(
        default=False,
        description="also give requested or starting rights over this service (http) that `roles` and `permissions` do "
        "not name; otherwise 409 `registration-http-rights`",
    )

    def grant(self) -> decisions.Grant:
        """Return the grant; raise `InvalidInput` by field for an invalid permission."""
        given = super().grant()
        return replace(given, accept_conflicts=self.accept_conflicts, accept_http_rights=self.accept_http_rights)


class DenyBody(OptionalBody):
    reason: Text | None = Field(None, max_length=1000)


class GrantManyBody(GivenBody):
    """The rights that each user gets. A registration that needs a confirmation cannot be granted in bulk."""

    ids: Ids
    client_ids_of: dict[Id, ClientIds] = Field(
        {},
        max_length=1000,
        description="allowed client ids by registration id, in place of `clientIds`",
    )

    @model_validator(mode="after")
    def client_ids_of_names_granted_ids(self) -> GrantManyBody:
        """Refuse client ids of a registration that is not granted; they would be ignored."""
        if not self.client_ids_of.keys() <= set(self.ids):
            raise ValueError("clientIdsOf must name only registrations that are in ids")
        return self

    def grants(self) -> dict[str, decisions.Grant]:
        """Return the grants by registration id; raise `InvalidInput` by field for an invalid permission."""
        given = self.grant()
        return {id_: replace(given, client_ids=tuple(self.client_ids_of.get(id_, self.client_ids))) for id_ in self.ids}


class FilterBody(Body):
    """A filter for registrations: every given field must match, and at least one must be given."""

    username_pattern: Text | None = Field(None, min_length=1, max_length=64, examples=["press_*"])
    client_id_pattern: Text | None = Field(None, min_length=1, max_length=200, examples=["mqttjs_*"])
    address: Annotated[Text, AfterValidator(_check_network)] | None = Field(
        None, max_length=64, description="an IP address or a network", examples=["203.0.113.0/24"]
    )
    after: Time | None = Field(None, description="first seen at this time or later; RFC 3339")
    before: Time | None = Field(None, description="first seen before this time; RFC 3339")
    max_attempts: int | None = Field(None, ge=1, le=1_000_000_000, description="with at most this many attempts")

    @model_validator(mode="after")
    def is_not_empty(self) -> FilterBody:
        """Refuse an empty filter, which would match every registration."""
        try:
            self.filter()
        except InvalidInput as error:
            raise ValueError(error.errors[0].message) from None
        return self

    def filter(self) -> filters.Filter:
        return filters.Filter(**self.model_dump())


class DenyManyBody(DenyBody):
    """Either the ids of registrations, which are denied one by one, or a filter for pending registrations."""

    ids: Ids = []
    filter: FilterBody | None = None

    @model_validator(mode="after")
    def has_ids_or_a_filter(self) -> DenyManyBody:
        if bool(self.ids) == (self.filter is not None):
            raise ValueError("must have either ids or a filter")
        return self


class DeleteManyBody(Body):
    """A filter for registrations of one status; granted ones cannot be deleted in bulk."""

    filter: FilterBody
    status: Literal["pending", "denied", "expired"] = "pending"


class CountView(View):
    """The number of registrations that were changed."""

    count: int


class FailureView(View):
    """A registration that was not changed, and why."""

    id: str
    code: str
    detail: str


class BulkView(View):
    """The registrations that were changed, and the failures. Registrations of a filter are only counted."""

    count: int
    items: list[RegistrationView]
    failed: list[FailureView]


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

    def preauthorization(self) -> preauthorizations.NewPreauthorization:
        """Return the preauthorization; raise `InvalidInput` by field for an invalid permission."""
        return preauthorizations.NewPreauthorization(
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
    created_at: Moment


class CreatedPreauthorizationView(PreauthorizationView):
    """A new preauthorization; the `secret` that it is bound to, if any, is shown only once."""

    secret: str | None


class PreauthorizationPage(PageView[PreauthorizationView]):
    pass


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
    uses: int = Field(1, ge=1, le=enrolment_keys.MAX_USES)
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
    created_at: Moment
    revoked_at: Moment | None


class NewKeyView(KeyView):
    """A new enrolment key; its `secret` is shown only once."""

    secret: str


class KeyPage(PageView[KeyView]):
    pass


class RefusedNameView(View):
    """A username that cannot register, why, and the client id of the last attempt."""

    name: str = Field(description="at most the first 255 characters")
    reason: str
    client_id: str
    attempts: int
    first_seen: Moment
    last_seen: Moment


class RefusedNamePage(PageView[RefusedNameView]):
    pass
