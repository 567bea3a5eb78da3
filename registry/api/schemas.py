"""What goes over the wire to and from the registry."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime  # noqa: TC003 - pydantic reads it
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, Field, model_serializer, model_validator

from authsvc.api.schemas import (
    Body,
    ClientIds,
    Moment,
    OptionalBody,
    PageQuery,
    PermissionBody,
    PermissionView,
    RoleName,
    SearchQuery,
    Text,
    Username,
    View,
    failures,
    permissions_from,
)
from authsvc.pki.csr import MAX_CHARACTERS
from registry import decisions, lock
from registry.api.flood_schemas import FloodView  # noqa: TC001 - pydantic reads it

if TYPE_CHECKING:
    from pydantic import SerializerFunctionWrapHandler

    from registry.records import Record

_FIRST_YEAR, _LAST_YEAR = 1970, 9998

__all__ = ["PageQuery", "SearchQuery", "failures"]


def a_text(value: Any) -> Any:
    if value is not None and not isinstance(value, str):
        raise ValueError("must be a time as RFC 3339 has it")
    return value


def this_side_of_the_calendar(moment: datetime | None) -> datetime | None:
    if moment is not None and not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise ValueError(f"must be from {_FIRST_YEAR} to {_LAST_YEAR}")
    return moment


def _not_too_deep(value: Any, levels: int = 16) -> Any:
    """Refuse what is nested beyond reading, and beyond what can be shown again."""
    if levels == 0:
        raise ValueError("is nested too deeply")
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _not_too_deep(each, levels - 1)
    return value


Expiry = Annotated[
    AwareDatetime | None,
    Field(None, strict=False, description="RFC 3339; null for never"),
    BeforeValidator(a_text),
    AfterValidator(this_side_of_the_calendar),
]
Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the public key, hexadecimal")]
Roles = Annotated[list[RoleName], Field(max_length=100)]
Permissions = Annotated[list[PermissionBody], Field(max_length=1000)]
Id = Annotated[Text, Field(max_length=64)]
Ids = Annotated[list[Id], Field(min_length=1, max_length=1000)]


class IdPath(BaseModel):
    id: Text = Field(max_length=64)


class UnlockBody(OptionalBody):
    """For how long, and for whom."""

    duration_seconds: int = Field(lock.DEFAULT_SECONDS, ge=1, le=lock.MAX_SECONDS)
    max_registrations: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="how many registrations are granted at most: of those that come while the registry is unlocked, or "
        "came while it was locked. Attempts do not count, so a flood of made-up names uses up no place",
    )
    username_pattern: Text | None = Field(None, min_length=1, max_length=64, examples=["press_*"])
    roles: Roles = Field([], description="what everything granted from this window starts with")

    def limits(self) -> lock.Limits:
        """Return for whom."""
        return lock.Limits(self.max_registrations, self.username_pattern, tuple(self.roles))


class LockStateView(View):
    """The lock."""

    locked: bool
    unlocked_until: Moment | None
    seconds_left: int
    pending: int
    max_registrations: int | None
    granted: int | None = Field(description="how many of `maxRegistrations` are granted; null without a limit")
    username_pattern: str | None
    roles: list[str]
    flood: FloodView | None


class RegisterBody(Body):
    """Who wants to be a user, what proves that it is the same one who asks again, and what it asks for."""

    username: Username
    password: Text | None = Field(None, max_length=200)
    csr: Text | None = Field(None, max_length=MAX_CHARACTERS, description="PEM, or Base64 of PEM")
    context: Annotated[dict[str, Any] | None, AfterValidator(_not_too_deep)] = Field(
        None, description="anything that helps whoever decides"
    )
    roles: Roles = []
    permissions: Permissions = []
    enrolment_key: Text | None = Field(
        None,
        max_length=200,
        description="an enrolment key, or the secret of the username's preauthorization",
    )

    @model_validator(mode="after")
    def something_to_hold(self) -> RegisterBody:
        """Ask for a password or a signing request, since nobody could be told apart without."""
        if self.password is None and self.csr is None:
            raise ValueError("must have a password, a csr or both")
        return self


class _WithoutNulls(View):
    @model_serializer(mode="wrap")
    def leave_out_what_there_is_not(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialize(self).items() if value is not None}


class PendingView(_WithoutNulls):
    """An administrator has yet to decide; `pairingCode` is what both can compare."""

    status: Literal["pending"] = "pending"
    id: str
    pairing_code: str | None = None


class GrantedView(_WithoutNulls):
    """The client is a user now."""

    status: Literal["granted"] = "granted"
    username: str
    certificate: str | None = None
    ca_certificate: str | None = None


class RegistrationQuery(SearchQuery):
    status: Literal["pending", "granted", "denied", "expired"] | None = None


class RegistrationView(View):
    """A registration; of a password only whether there is one, of a key only its fingerprint."""

    id: str
    username: str
    kind: Literal["implicit", "explicit"]
    status: Literal["pending", "granted", "denied", "expired"]
    recorded_while_locked: bool
    client_ids: list[str]
    attempts: int
    conflicts: int = Field(description="attempts under this name with another password or key")
    conflict_addresses: list[str] = Field(description="where those came from, as far as it is known; the first 10")
    similar_to: list[str] = Field(
        description="users, preauthorizations and denied registrations, up to 10, whose names look like this one: "
        "`bad-1` and `Bad-l`"
    )
    held_reason: Literal["tried-before", "conflicts", "binding-not-met", "http-rights"] | None = Field(
        description="why a preauthorized name waits for an administrator: somebody tried the name before it was "
        "preauthorized; its first contact came with several passwords; the client does not have the secret or key that "
        "the preauthorization is bound to; the roles now give rights over this service"
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
        description="columns of its database row that cannot be read; it cannot be granted, only denied or deleted"
    )


class RegistrationPage(View):
    items: list[RegistrationView]
    page: int
    per_page: int
    total: int


class GivenBody(OptionalBody):
    """What users get; `acceptRequested` adds what the client asked for."""

    roles: Roles = []
    permissions: Permissions = []
    accept_requested: bool = False
    client_ids: ClientIds = []

    def grant(self) -> decisions.Grant:
        """Return what it spells; `InvalidInput` by field when a permission is none."""
        permissions, client_ids = permissions_from(self.permissions), tuple(self.client_ids)
        return decisions.Grant(tuple(self.roles), permissions, self.accept_requested, client_ids=client_ids)


class GrantBody(GivenBody):
    """What the user gets; `acceptRequested` adds what the client asked for. What is dangerous is confirmed by name."""

    accept_conflicts: bool = Field(
        default=False,
        description="grant although others tried the name, or although another device may be meant (`heldReason` "
        "`binding-not-met` or `tried-before`); without it 409 `registration-has-conflicts` or `registration-held`",
    )
    accept_http_rights: bool = Field(
        default=False,
        description="also give rights over this service (http) that `roles` and `permissions` do not name, because the "
        "client asked for them or starts with them; without it 409 `registration-http-rights`",
    )

    def grant(self) -> decisions.Grant:
        """Return what it spells; `InvalidInput` by field when a permission is none."""
        given = super().grant()
        return replace(given, accept_conflicts=self.accept_conflicts, accept_http_rights=self.accept_http_rights)


class DenyBody(OptionalBody):
    reason: Text | None = Field(None, max_length=1000)


class GrantManyBody(GivenBody):
    """The same for each, and nothing that has to be confirmed: that is granted singly."""

    ids: Ids
    client_ids_of: dict[Id, ClientIds] = Field(
        {},
        max_length=1000,
        description="by registration id, in place of `clientIds`: such as the one that all its attempts came with",
    )

    @model_validator(mode="after")
    def is_about_those_that_are_granted(self) -> GrantManyBody:
        """Refuse client ids of a registration that is not granted, which would be ignored."""
        if not self.client_ids_of.keys() <= set(self.ids):
            raise ValueError("clientIdsOf must name only registrations that are in ids")
        return self

    def grants(self) -> dict[str, decisions.Grant]:
        """Return what it spells for each registration; `InvalidInput` by field when a permission is none."""
        given = self.grant()
        return {id_: replace(given, client_ids=tuple(self.client_ids_of.get(id_, self.client_ids))) for id_ in self.ids}


class FailureView(View):
    """One that could not be done."""

    id: str
    code: str
    detail: str


class BulkView(View):
    """What was done, and what could not be; registrations chosen by a filter are only counted."""

    count: int
    items: list[RegistrationView]
    failed: list[FailureView]


def view_registration(record: Record) -> RegistrationView:
    """Show a registration."""
    return RegistrationView.model_validate(record, from_attributes=True)
