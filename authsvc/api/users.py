"""Users over REST: list, create, show, change, delete; the denials of one user, and dry runs of decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, cast
from urllib.parse import quote

from flask import Response, request
from pydantic import BaseModel, Field, model_validator

from authsvc.accounts import bulk, client_id_warnings, users
from authsvc.accounts.sign_in import second_factor
from authsvc.activity import denials
from authsvc.api.reports.denials import DenialList, view_denial
from authsvc.api.schemas import (
    WITH_ETAG,
    Answer,
    Body,
    ClientIds,
    GrantTypeName,
    IfMatch,
    Moment,
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
    WarningView,
    noun,
    render,
    render_page,
    sort_schema,
    tagged,
    unchanged,
)
from authsvc.credentials.usernames import MAX_USERNAME
from authsvc.errors import Forbidden
from authsvc.exports.rows import USER_COLUMNS, of_user
from authsvc.policy.access import access_number, decide_access
from authsvc.policy.snapshot import GrantType
from authsvc.policy.topics import path_level
from authsvc.web.exports import csv_file
from authsvc.web.request_context import actor, caller, services

if TYPE_CHECKING:
    from collections.abc import Iterable

    from authsvc.accounts.client_id_warnings import PolicyWarning
    from authsvc.policy.decision import Decision

SortName = Annotated[users.Sort, sort_schema(users.Sort)]

blueprint = noun("users", "Who may connect to the broker or call this service")

GRANT_TYPES = "how the user may log in to the broker; without any it cannot, but may still sign in to this service"

Password = Annotated[Text, Field(max_length=200)]
GrantTypes = Annotated[list[GrantTypeName], Field(max_length=3)]
Roles = Annotated[list[RoleName], Field(max_length=1000)]
Permissions = Annotated[list[PermissionBody], Field(max_length=10_000)]


class UserPath(BaseModel):
    """One level of the path; a slash in the name is sent as `%2F`."""

    username: Text = Field(max_length=MAX_USERNAME)


class UserChangeBody(Body):
    """The fields to change; an absent field keeps its value."""

    password: Password | None = unchanged("null removes the password")
    enabled: bool = unchanged()
    grant_types: GrantTypes = unchanged(GRANT_TYPES)
    roles: Roles = unchanged()
    permissions: Permissions = unchanged()
    client_ids: ClientIds = unchanged()

    def changes(self) -> users.UserChanges:
        """Return the fields that the request has."""
        given = self.given(users.UserChanges)
        if "grant_types" in given:
            given["grant_types"] = frozenset(map(GrantType, self.grant_types))
        return cast("users.UserChanges", given)


class UserPatchBody(UserChangeBody):
    """A change of a user that exists."""

    revoke_others: bool = unchanged(
        "with a password: also revoke all API tokens and certificates, and end browser sessions"
    )


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
    """A user without its password."""

    model_config = WITH_ETAG
    username: str
    enabled: bool
    grant_types: list[GrantTypeName]
    roles: list[str]
    group_roles: list[str] = Field(
        description="the roles that the user's groups at its provider or directory give, set at each sign-in"
    )
    permissions: list[PermissionView]
    client_ids: list[str]
    has_password: bool
    administrator_on_broker: bool = Field(description="may change something in this service and log in to the broker")
    damage: list[str] = Field(description="stored rows that cannot be read; with any, the user is denied everything")
    origin: str = Field(
        description="where the user comes from: an administrator, a registration, OpenID Connect or LDAP"
    )
    created_at: Moment
    updated_at: Moment
    last_seen: Moment | None = Field(
        description="when a client of the user was last seen by a broker, or the user by this service, exact to about "
        "10 minutes; null if never"
    )
    second_factor: bool
    warnings: list[WarningView]


class UserPage(PageView[UserView]):
    pass


class UserQuery(SearchQuery):
    role: Text = Field("", max_length=200, description="only users that have this role")
    administrator_on_broker: bool = Field(
        False, description="only users that may change something in this service and log in to the broker"
    )
    enabled: bool | None = Field(None, description="only enabled users, or only disabled ones")
    grant_type: GrantTypeName | None = Field(None, description="only users that have this grant type")
    second_factor: bool | None = Field(None, description="only users with a second factor, or only those without")
    origin: users.Origin | None = Field(None, description="only users that came to be in this way")
    last_seen_after: TimeInQuery | None = Field(None, description="only users that were seen at this time or later")
    last_seen_before: TimeInQuery | None = Field(
        None, description="only users that were last seen before this time or never"
    )
    created_before: TimeInQuery | None = Field(None, description="only users that were created before this time")
    sort: SortName = Field("username", description="the field to sort by; with - in front, descending")

    def wanted(self) -> users.UserFilter:
        return users.UserFilter(
            self.search,
            self.role,
            self.enabled,
            self.grant_type and GrantType(self.grant_type),
            self.origin,
            self.last_seen_after,
            self.last_seen_before,
            self.administrator_on_broker,
            self.created_before,
            self.second_factor,
        )


class DecisionQuery(Query):
    """An access to evaluate; `read` of a topic filter with wildcards means SUBSCRIBE."""

    topic: Text = Field(min_length=1, max_length=65_535)
    operation: Literal["read", "write", "readWrite", "subscribe"]
    client_id: Text = Field("", max_length=65_535, description="if empty, the allowed client ids are not checked")


class DecisionView(View):
    """The decision with its reason, and the permission and role that decided."""

    allowed: bool
    reason: str
    permission: PermissionView | None
    role: str | None


class UserFilterBody(Body):
    """Users that match every given field; at least one is required."""

    search: Text = Field("", max_length=200, description="part of the name")
    role: Text = Field("", max_length=200, description="users that have this role")
    enabled: bool | None = None
    grant_type: GrantTypeName | None = None
    second_factor: bool | None = Field(None, description="users with a second factor, or those without")
    origin: Literal["administrator", "registration", "oidc", "ldap"] | None = None
    last_seen_after: Time | None = None
    last_seen_before: Time | None = Field(None, description="also users that were never seen")
    administrator_on_broker: bool = Field(False, description="users that may change this service and use the broker")
    created_before: Time | None = Field(None, description="users that were created earlier")

    @model_validator(mode="after")
    def is_not_empty(self) -> UserFilterBody:
        """Refuse a filter that matches all users."""
        if self.wanted() == users.UserFilter():
            raise ValueError("must not be empty; createdBefore matches all users that were created before a time")
        return self

    def wanted(self) -> users.UserFilter:
        return users.UserFilter(
            self.search,
            self.role,
            self.enabled,
            self.grant_type and GrantType(self.grant_type),
            self.origin and users.Origin(self.origin),
            self.last_seen_after,
            self.last_seen_before,
            self.administrator_on_broker,
            self.created_before,
            self.second_factor,
        )


class BulkBody(Body):
    """One change of up to 1,000 users: those with these names, or the first ones that match a filter."""

    usernames: list[Annotated[Text, Field(max_length=MAX_USERNAME)]] | None = Field(
        None, min_length=1, max_length=bulk.MAX_AT_ONCE
    )
    filter: UserFilterBody | None = Field(None, description="in place of usernames; needs http read on /api/users")
    after_username: Text = Field(
        "",
        max_length=MAX_USERNAME,
        description="with a filter: go on after this name, the lastUsername of the answer before",
    )
    max_users: int = Field(
        bulk.MAX_AT_ONCE, ge=1, le=bulk.MAX_AT_ONCE, description="with a filter: change at most these"
    )
    action: Literal["enable", "disable", "delete", "addRole", "removeRole"]
    role: RoleName | None = Field(None, description="for addRole and removeRole only")

    @model_validator(mode="after")
    def fields_fit_together(self) -> BulkBody:
        """Refuse a missing role, a role that would be ignored, and anything but either names or a filter."""
        if (self.role is not None) != bulk.BulkAction(self.action).needs_role:
            raise ValueError("role is required for addRole and removeRole, and not allowed otherwise")
        if (self.usernames is None) == (self.filter is None):
            raise ValueError("give either usernames or filter")
        return self


class BulkFailureView(View):
    """A user that was not changed, and why."""

    username: str
    code: str
    detail: str


class ChangedUsersView(View):
    """The users that are now as the change makes them, and those that were not changed."""

    usernames: list[str]
    failed: list[BulkFailureView]
    remaining: int = Field(description="how many more users match the filter; change them with afterUsername")
    last_username: str | None = Field(description="the last user that the filter selected; null without one")


@blueprint.get("/users", responses={200: UserPage})
def list_users(query: UserQuery) -> dict[str, Any] | Response:
    """List users, sorted by name unless asked otherwise.

    With the header `Accept: text/csv` the answer is a CSV file of up to 100,000 users, sorted by name.
    """
    if request.accept_mimetypes.best_match(["application/json", "text/csv"]) == "text/csv":
        return csv_file("users.csv", USER_COLUMNS, map(of_user, users.export(query.wanted())))
    found = users.search(query.wanted(), query.page, query.per_page, query.sort)
    warnings = client_id_warnings.of_users(found.items)
    return render_page(found, [_view(record, warnings[record.username]) for record in found.items])


@blueprint.post("/users", responses={201: UserView})
def create_user(body: UserBody) -> Answer:
    """Create a user, which may connect at once."""
    record = users.create(actor(), body.username, body.changes(), services().hasher)
    shown, _, headers = _answer(record)
    return shown, 201, headers | {"Location": f"/api/users/{quote(record.username, safe='')}"}


@blueprint.post("/users/bulk", responses={200: ChangedUsersView})
def change_users(body: BulkBody) -> dict[str, Any]:
    """Change or delete many users, each in its own transaction.

    For each user the caller needs the permission to change or delete that user. A filter changes up to 1,000 users, in
    the order of their names; repeat the request with `afterUsername` until `remaining` is 0.
    """
    names, remaining, last = body.usernames or [], 0, None
    if body.filter:
        if not services().access.may_call(caller(), "GET", "/api/users"):
            raise Forbidden("your account needs the permission `http read /api/users` to use a filter")
        names, count = users.matching_names(body.filter.wanted(), body.after_username, body.max_users)
        remaining, last = count - len(names), names[-1] if names else None
    done, failed = change_each(names, bulk.BulkAction(body.action), body.role)
    failures = [BulkFailureView(username=name, code=error.code, detail=error.message) for name, error in failed]
    return render(ChangedUsersView(usernames=done, failed=failures, remaining=remaining, last_username=last))


def change_each(
    usernames: Iterable[str], action: bulk.BulkAction, role: str | None
) -> tuple[list[str], list[bulk.Failure]]:
    """Change each user that the caller may change; return the names of the changed users, and the failures."""
    author, hasher = actor(), services().hasher
    method = "DELETE" if action is bulk.BulkAction.DELETE else "PATCH"

    def change_one(username: str) -> str:
        path = f"/api/users/{path_level(username)}"
        if not services().access.may_call(caller(), method, path):
            raise Forbidden(f"your account needs the permission `http write {path}` to do this")
        return bulk.change_user(author, username, action, role or "", hasher)

    return bulk.apply_to_each(usernames, change_one)


@blueprint.get("/users/<name:username>", responses={200: UserView})
def get_user(path: UserPath) -> Answer:
    """Show a user."""
    return _answer(users.get(path.username))


@blueprint.patch("/users/<name:username>", responses={200: UserView})
def update_user(path: UserPath, body: UserPatchBody, header: IfMatch) -> Answer:
    """Change a user, effective at once for connected clients too."""
    return _answer(users.change(actor(), path.username, body.changes(), services().hasher, header.versions()))


@blueprint.delete("/users/<name:username>", responses={204: None})
def delete_user(path: UserPath, header: IfMatch) -> Response:
    """Delete a user and its tokens, and revoke its certificates."""
    users.delete(actor(), path.username, header.versions())
    return Response(status=204)


@blueprint.delete("/users/<name:username>/otp", responses={204: None})
def delete_second_factor(path: UserPath) -> Response:
    """Remove the second factor of a user who has lost it, so that the password is enough."""
    second_factor.remove(actor(), path.username)
    return Response(status=204)


@blueprint.get("/users/<name:username>/decision", responses={200: DecisionView})
def get_decision(path: UserPath, query: DecisionQuery) -> dict[str, Any]:
    """Evaluate whether the user would be allowed, and why (a dry run)."""
    users.get(path.username)
    decided = decide_for(path.username, query)
    return render(DecisionView.of(decided, allowed=bool(decided)))


def decide_for(username: str, query: DecisionQuery) -> Decision:
    """Return the decision on an ACL request without recording client activity (a dry run)."""
    access = access_number(query.operation, query.topic)
    return decide_access(services().policy.snapshot, username, query.client_id or None, query.topic, access)


@blueprint.get("/users/<name:username>/denials", responses={200: DenialList})
def list_user_denials(path: UserPath) -> dict[str, Any]:
    """List what the user's clients were denied in the last 7 days, latest first, and how to allow each."""
    return render(DenialList(items=list(map(view_denial, denials.of_user(path.username)))))


@blueprint.post("/users/<name:username>/permissions", responses={200: UserView})
def add_permission(path: UserPath, body: PermissionBody) -> Answer:
    """Add one permission to those of the user, effective at once."""
    return _answer(users.allow(actor(), path.username, body.permission()))


def _answer(record: users.UserRecord) -> Answer:
    return tagged(_view(record, client_id_warnings.of_user(record)), record.version)


def _view(record: users.UserRecord, warnings: tuple[PolicyWarning, ...]) -> UserView:
    return UserView.of(record, damage=damage_of(record), warnings=warnings)


def damage_of(record: users.UserRecord) -> list[str]:
    """Return which rows of the user or of its roles cannot be read, so that it is denied everything."""
    damaged = services().policy.snapshot.damaged_roles
    return [*record.damage, *(f"role {name} is damaged" for name in record.all_roles if name in damaged)]
