"""Users, and what each would be allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from flask import Response
from pydantic import BaseModel, Field

from authsvc.accounts import client_id_warnings, users
from authsvc.activity import denials
from authsvc.api.schemas import (
    WITH_ETAG,
    Answer,
    Body,
    ClientIds,
    GrantTypeName,
    IfMatch,
    Moment,
    PermissionBody,
    PermissionView,
    Query,
    RoleName,
    SearchQuery,
    Text,
    Username,
    View,
    WarningView,
    noun,
    permissions_from,
    render,
    render_page,
    tagged,
    unchanged,
    view_permission,
    view_warnings,
)
from authsvc.policy.access import access_name, access_number, decide_access
from authsvc.policy.snapshot import GrantType
from authsvc.web.request_context import actor, services

if TYPE_CHECKING:
    from collections.abc import Iterable

    from authsvc.accounts.client_id_warnings import PolicyWarning
    from authsvc.policy.decision import Decision

blueprint = noun("users", "Who may connect to the broker or call this service")

GRANT_TYPES = (
    "how the user may log in to the broker; without any it stays off the broker and may still sign in to this service"
)

Password = Annotated[Text, Field(max_length=200)]
GrantTypes = Annotated[list[GrantTypeName], Field(max_length=3)]
Roles = Annotated[list[RoleName], Field(max_length=1000)]
Permissions = Annotated[list[PermissionBody], Field(max_length=10_000)]


class UserPath(BaseModel):
    username: Text = Field(max_length=200)


class UserChangeBody(Body):
    """What to change; a field that is left out stays as it is."""

    password: Password | None = unchanged("null takes the password away")
    enabled: bool = unchanged()
    grant_types: GrantTypes = unchanged(GRANT_TYPES)
    roles: Roles = unchanged()
    permissions: Permissions = unchanged()
    client_ids: ClientIds = unchanged()

    def changes(self) -> users.UserChanges:
        """Return what was named in the body, and nothing of what was not."""
        given = self.model_fields_set
        changes = users.UserChanges()
        if "password" in given:
            changes["password"] = self.password
        if "enabled" in given:
            changes["enabled"] = self.enabled
        if "grant_types" in given:
            changes["grant_types"] = frozenset(map(GrantType, self.grant_types))
        if "roles" in given:
            changes["roles"] = tuple(self.roles)
        if "permissions" in given:
            changes["permissions"] = permissions_from(self.permissions)
        if "client_ids" in given:
            changes["client_ids"] = tuple(self.client_ids)
        return changes


class UserPatchBody(UserChangeBody):
    """A change of a user that exists."""

    revoke_others: bool = unchanged(
        "with a password: also revoke all API tokens and certificates, and end browser sessions"
    )

    def changes(self) -> users.UserChanges:
        """Return what was named in the body, and nothing of what was not."""
        changes = super().changes()
        if "revoke_others" in self.model_fields_set:
            changes["revoke_others"] = self.revoke_others
        return changes


class UserBody(UserChangeBody):
    """A new user."""

    username: Username
    password: Password | None = None
    enabled: bool = True
    grant_types: GrantTypes = Field(["password"], description=GRANT_TYPES)
    roles: Roles = Field([])
    permissions: Permissions = Field([])
    client_ids: ClientIds = Field([])


class UserView(View):
    """A user; of its password, only whether there is one."""

    model_config = WITH_ETAG
    username: str
    enabled: bool
    grant_types: list[GrantTypeName]
    roles: list[str]
    permissions: list[PermissionView]
    client_ids: list[str]
    has_password: bool
    administrator_on_broker: bool = Field(description="may change something in this service and log in to the broker")
    damage: list[str] = Field(description="what could not be read of its stored rows; with any it is denied everything")
    created: Moment
    updated: Moment
    warnings: list[WarningView]


class UserPage(View):
    items: list[UserView]
    page: int
    per_page: int
    total: int


class UserQuery(SearchQuery):
    role: Text = Field("", max_length=200, description="only users that have this role")
    administrator_on_broker: bool = Field(
        False, description="only users that may change something in this service and log in to the broker"
    )


class DecisionQuery(Query):
    """A question to the rules. A `read` of a topic filter with wildcards asks what a SUBSCRIBE would."""

    topic: Text = Field(min_length=1, max_length=65_535)
    operation: Literal["read", "write", "readWrite", "subscribe"]
    client_id: Text = Field("", max_length=65_535, description="without it, the allowed client ids are not checked")


class DecisionView(View):
    """The answer, why, and the rule and role that decide."""

    allowed: bool
    reason: str
    permission: PermissionView | None
    role: str | None


class DenialView(View):
    """What a client was denied: a login, or an access to a topic; and the narrowest permission that would allow it.

    The client id is the latest. Of a topic that ends in an ellipsis only the beginning was kept.
    """

    client_id: str
    topic: str | None
    operation: Literal["login", "read", "write", "readWrite", "subscribe"]
    reason: str
    count: int
    first_seen: Moment
    last_seen: Moment
    suggested_permission: PermissionView | None
    remedy_note: str


class DenialList(View):
    items: list[DenialView]


@blueprint.get("/users", responses={200: UserPage})
def list_users(query: UserQuery) -> dict[str, Any]:
    """List users by name."""
    found = users.search(
        query.search, query.page, query.per_page, query.role, administrators_on_broker=query.administrator_on_broker
    )
    warnings = client_id_warnings.of_users(found.items)
    return render_page(found, [_view(record, warnings[record.username]) for record in found.items])


@blueprint.post("/users", responses={201: UserView})
def create(body: UserBody) -> Answer:
    """Make a user; it may connect at once."""
    record = users.create(actor(), body.username, body.changes(), services().hasher)
    shown, _, headers = _answer(record)
    return shown, 201, headers | {"Location": f"/api/users/{record.username}"}


@blueprint.get("/users/<username>", responses={200: UserView})
def show(path: UserPath) -> Answer:
    """Show a user."""
    return _answer(users.get(path.username))


@blueprint.patch("/users/<username>", responses={200: UserView})
def change(path: UserPath, body: UserPatchBody, header: IfMatch) -> Answer:
    """Change a user; in force at once, also for clients that are connected."""
    return _answer(users.change(actor(), path.username, body.changes(), services().hasher, header.versions()))


@blueprint.delete("/users/<username>", responses={204: None})
def delete(path: UserPath, header: IfMatch) -> Response:
    """Remove a user with its tokens."""
    users.delete(actor(), path.username, header.versions())
    return Response(status=204)


@blueprint.get("/users/<username>/decision", responses={200: DecisionView})
def decision(path: UserPath, query: DecisionQuery) -> dict[str, Any]:
    """Say whether the user would be allowed, and why."""
    users.get(path.username)
    decided = decide_for(path.username, query)
    return render(
        DecisionView(
            allowed=bool(decided),
            reason=decided.reason,
            permission=view_permission(decided.permission) if decided.permission else None,
            role=decided.role,
        )
    )


def decide_for(username: str, query: DecisionQuery) -> Decision:
    """Return the decision on an ACL request without recording client activity (a dry run)."""
    access = access_number(query.operation, query.topic)
    return decide_access(services().policy.snapshot, username, query.client_id or None, query.topic, access)


@blueprint.get("/users/<username>/denials", responses={200: DenialList})
def list_denials(path: UserPath) -> dict[str, Any]:
    """List what the user's clients were lately denied, the latest first, and what would cure each."""
    return render(DenialList(items=list(map(_view_denial, denials.of_user(path.username)))))


@blueprint.post("/users/<username>/permissions", responses={200: UserView})
def allow(path: UserPath, body: PermissionBody) -> Answer:
    """Add one permission to those that the user has; in force at once."""
    return _answer(users.allow(actor(), path.username, body.permission()))


def _view_denial(record: denials.DenialRecord) -> DenialView:
    denial, remedy = record.denial, record.advice
    return DenialView(
        client_id=denial.client_id,
        topic=(denial.topic if denial.whole else denial.topic + "…") or None,
        operation=access_name(denial.access) if denial.topic else "login",
        reason=denial.reason,
        count=record.count,
        first_seen=record.first_seen,
        last_seen=record.last_seen,
        suggested_permission=view_permission(remedy.permission) if remedy.permission else None,
        remedy_note=remedy.note,
    )


def _answer(record: users.UserRecord) -> Answer:
    return tagged(_view(record, client_id_warnings.of_user(record)), record.version)


def _view(record: users.UserRecord, warnings: Iterable[PolicyWarning]) -> UserView:
    return UserView(
        username=record.username,
        enabled=record.enabled,
        grant_types=sorted(grant.value for grant in record.grant_types),
        roles=list(record.roles),
        permissions=[view_permission(permission) for permission in record.permissions],
        client_ids=list(record.client_ids),
        has_password=record.has_password,
        administrator_on_broker=record.is_administrator_on_broker,
        damage=damage_of(record),
        created=record.created_at,
        updated=record.updated_at,
        warnings=view_warnings(warnings),
    )


def damage_of(record: users.UserRecord) -> list[str]:
    """Return why a user is denied everything: what could not be read of its own rows and those of its roles."""
    damaged = services().policy.snapshot.damaged_roles
    return [*record.damage, *(f"role {name} is damaged" for name in record.roles if name in damaged)]
