"""Users: the accounts that may connect to the broker, call this service, or both."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict

from peewee import fn

from authsvc.accounts import api_tokens, browser_sessions, last_admin, roles
from authsvc.accounts.proof import check_proof
from authsvc.accounts.sign_in import second_factor
from authsvc.activity import audit, disconnects, live_clients
from authsvc.credentials.usernames import skeleton, validate_username
from authsvc.errors import Conflict, NotFound, invalid
from authsvc.pki import certificates
from authsvc.pki.ca import RevocationReason
from authsvc.policy.allowed_client_ids import validate_client_ids
from authsvc.policy.permissions import Effect
from authsvc.policy.snapshot import GrantType
from authsvc.record_json import audit_fields, json_fields
from authsvc.storage import policy_reader
from authsvc.storage.changes import ChangeKind, policy_change
from authsvc.storage.database import session
from authsvc.storage.models import PermissionRow, Role, User, UserRole
from authsvc.storage.paging import Page, fetch_page, in_order

if TYPE_CHECKING:
    from collections.abc import Iterator

    from authsvc.activity.mqtt_takeover import TakeoverBroker
    from authsvc.credentials.passwords import PasswordHasher
    from authsvc.credentials.rehashing import Rehashed
    from authsvc.pki.authorities import SigningPolicy
    from authsvc.pki.csr import ClientKey
    from authsvc.policy.actors import Actor
    from authsvc.policy.permissions import Permission


MAX_EXPORTED = 100_000
_BATCH = 1000
_MANY_HOLDERS = 100_000


@dataclass(frozen=True, slots=True)
class UserRecord:
    """A user without its password hash.

    `group_roles` are the roles that its groups at a provider or in a directory give; `roles` are those given here.
    `administrator_on_broker`: it may change something in this service and log in to the broker, which sees its
    secrets. `damage` says which of its own rows cannot be read. `last_seen` is None if the user was not seen in the
    last 30 days.
    """

    username: str
    enabled: bool
    grant_types: frozenset[GrantType]
    roles: tuple[str, ...]
    group_roles: tuple[str, ...]
    permissions: tuple[Permission, ...]
    client_ids: tuple[str, ...]
    has_password: bool
    administrator_on_broker: bool
    damage: tuple[str, ...]
    origin: str
    created_at: datetime
    updated_at: datetime
    last_seen: datetime | None
    second_factor: bool

    @property
    def all_roles(self) -> tuple[str, ...]:
        """The roles given here and by groups, each once."""
        return tuple(dict.fromkeys((*self.roles, *self.group_roles)))

    @property
    def version(self) -> str:
        """The ETag of the stored version."""
        return policy_reader.version_tag(self.updated_at)


class Origin(StrEnum):
    """Where a user comes from: an administrator, a granted registration, or a sign-in by a directory's account."""

    ADMINISTRATOR = "administrator"
    REGISTRATION = "registration"
    OIDC = "oidc"
    LDAP = "ldap"


KEPT_ELSEWHERE = (Origin.OIDC, Origin.LDAP)
"""The origins of users without a password here: a provider or directory confirms them."""

Sort = Literal["username", "-username", "createdAt", "-createdAt", "updatedAt", "-updatedAt", "lastSeen", "-lastSeen"]


@dataclass(frozen=True, slots=True)
class UserFilter:
    """The users to list; an empty field matches all.

    `text` is part of the name, in any case; `role` is exact. A user that was never seen counts as seen before any
    time.
    """

    text: str = ""
    role: str = ""
    enabled: bool | None = None
    grant_type: GrantType | None = None
    origin: Origin | None = None
    last_seen_after: datetime | None = None
    last_seen_before: datetime | None = None
    administrators_on_broker: bool = False
    created_before: datetime | None = None
    second_factor: bool | None = None


class UserChanges(TypedDict, total=False):
    """The fields of a new user or a PATCH, which keeps a field whose key is absent; `password` None removes it."""

    password: str | None
    enabled: bool
    grant_types: frozenset[GrantType]
    roles: tuple[str, ...]
    permissions: tuple[Permission, ...]
    revoke_others: bool  # with a password: revoke all API tokens and certificates too
    client_ids: tuple[str, ...]


def create(actor: Actor, username: str, wanted: UserChanges, hasher: PasswordHasher) -> UserRecord:
    """Create a user; `Conflict` if the name exists, `Forbidden` if it would have rights that the actor lacks.

    Defaults: enabled, grant type `password`, no roles, no permissions, no password.
    """
    return create_with_hash(actor, username, wanted, _hash(wanted, hasher))


def create_with_hash(
    actor: Actor,
    username: str,
    wanted: UserChanges,
    password_hash: str | None,
    origin: Origin = Origin.ADMINISTRATOR,
) -> UserRecord:
    """Create a user with a password that was hashed earlier, such as that of a registration."""
    validate_username(username)
    with policy_change() as announce:
        if exists(username):
            raise Conflict(f"a user named {username} exists", "user-exists")
        row = _insert(username, wanted, password_hash, origin)
        record = _store_rights(actor, row, wanted)
        audit.record(actor, "user.create", f"user:{username}", after=audit_fields(record))
        announce(ChangeKind.USER, username)
    return record


def change(
    actor: Actor,
    username: str,
    changes: UserChanges,
    hasher: PasswordHasher,
    expected: frozenset[str] | None = None,
) -> UserRecord:
    """Change the given fields, effective at once for connected clients too.

    `Forbidden` if the user has, or would have, rights that the actor lacks; `Conflict` if no administrator would be
    left; `PreconditionFailed` if the stored version is not one of the expected ones; `Unauthenticated` if the actor's
    credential has ended since it was checked, and the actor sets its own password.
    """
    if changes.get("revoke_others") and "password" not in changes:
        raise invalid("revokeOthers", "needs a password in the same request")
    password_hash = _hash(changes, hasher)
    with policy_change() as announce, last_admin.keep_last_administrator():
        if "password" in changes and actor.username == username:
            check_proof(actor)
        row = _row(username)
        policy_reader.require_version(expected, row.updated_at)
        before = _record(row)
        actor.must_hold(policy_reader.rights_of_user(row.username))
        if password_hash is not None and row.origin in KEPT_ELSEWHERE:
            raise invalid("password", "this user signs in at its provider or directory and has no password here")
        row.enabled = changes.get("enabled", row.enabled)
        row.grant_types = changes.get("grant_types", row.grant_types)
        if "client_ids" in changes:
            row.client_ids = validate_client_ids(changes["client_ids"])
        row.password_hash = password_hash if "password" in changes else row.password_hash
        row.updated_at = policy_reader.next_update(row.updated_at)
        row.save()
        after = _store_rights(actor, row, changes)
        cause = cause_to_end_sessions(before, after, new_password="password" in changes)
        if cause:
            disconnects.order(cause, username)
            browser_sessions.end_all(username)
        earlier, later = audit.difference(audit_fields(before), audit_fields(after))
        if changes.get("password") is not None:
            later["password"] = "changed"  # noqa: S105 - text of the audit event
        if changes.get("revoke_others"):  # any new password ends the browser sessions
            certificates.revoke_all(actor, username, RevocationReason.PRIVILEGE_WITHDRAWN)
            later["revokedTokens"] = api_tokens.revoke_all(actor, username)
        if later:
            audit.record(actor, "user.change", f"user:{username}", earlier, later)
            announce(ChangeKind.USER, username)
    return after


def replace_hashes(rehashed: list[Rehashed]) -> None:
    """Replace stored hashes of other systems by ours of the same passwords, which ends no session.

    A hash that has changed since is left alone. Nobody has changed a user, so nothing is added to the audit trail.
    """
    with policy_change() as announce:
        for username, stored, replacement in rehashed:
            unchanged = (User.username == username) & (User.password_hash == stored)
            if User.update(password_hash=replacement).where(unchanged).execute():
                announce(ChangeKind.USER, username)


def allow(actor: Actor, username: str, permission: Permission) -> UserRecord:
    """Add one permission to the stored ones, so that concurrent additions are all kept; no error if it exists.

    `Forbidden` if the user has, or would have, rights that the actor lacks; `InvalidInput` for effect `deny`.
    """
    if permission.effect is not Effect.ALLOW:
        raise invalid("effect", "must be allow; to deny something, change the user's permissions")
    with policy_change() as announce:
        row = _row(username)
        actor.must_hold((*policy_reader.rights_of_user(row.username), permission))
        if permission not in _record(row).permissions:
            roles.insert_permissions([permission], user_id=row.id)
            row.updated_at = policy_reader.next_update(row.updated_at)
            row.save()
            audit.record(actor, "user.allow", f"user:{username}", after={"permission": json_fields(permission)})
            announce(ChangeKind.USER, username)
        return _record(row)


def delete(actor: Actor, username: str, expected: frozenset[str] | None = None) -> None:
    """Delete a user and its tokens, and revoke its certificates; `Conflict` if no administrator would be left.

    `PreconditionFailed` if the stored version is not one of the expected ones.
    """
    with policy_change() as announce, last_admin.keep_last_administrator():
        row = _row(username)
        policy_reader.require_version(expected, row.updated_at)
        actor.must_hold(policy_reader.rights_of_user(row.username))
        before = audit_fields(_record(row))
        certificates.revoke_all(actor, username, RevocationReason.CESSATION_OF_OPERATION)
        disconnects.order(disconnects.USER_REMOVED, username)
        row.delete_instance()
        audit.record(actor, "user.delete", f"user:{username}", before=before)
        announce(ChangeKind.USER, username)


def disconnect(actor: Actor, username: str, broker: TakeoverBroker | None) -> disconnects.DisconnectResult:
    """End the MQTT sessions of a user: by the brokers' plugins, then by connecting to `broker` with its client ids.

    `Conflict` if no broker is configured and the user has no client at a broker with the plugin.
    """
    get(username)
    by_plugin = live_clients.disconnect_user(actor, username)
    if broker is None:
        if not (by_plugin.ended or by_plugin.failed):
            raise Conflict(
                f"{username} has no client at a broker with authsvc's own plugin; "
                "to disconnect clients of other brokers, set AUTHSVC_BROKER_URL",
                "no-broker",
            )
        return by_plugin
    taken_over = disconnects.disconnect_now(actor, broker, username, by_plugin.ended)
    failed = list(dict.fromkeys((*by_plugin.failed, *taken_over.failed)))
    ended = dict.fromkeys((*by_plugin.ended, *taken_over.ended))
    return disconnects.DisconnectResult([client_id for client_id in ended if client_id not in failed], failed)


class _Access(Protocol):
    @property
    def enabled(self) -> bool: ...
    @property
    def grant_types(self) -> frozenset[GrantType]: ...


def cause_to_end_sessions(before: _Access, after: _Access, *, new_password: bool) -> str | None:
    """Return why a change ends the MQTT and browser sessions of a user; None if it does not."""
    if before.enabled and not after.enabled:
        return "user disabled"
    if new_password:
        return "password changed"
    if before.grant_types - after.grant_types:
        return "grant type removed"
    return None


def issue_certificate(
    actor: Actor, username: str, key: ClientKey, issuing: SigningPolicy
) -> certificates.IssuedCertificate:
    """Sign a certificate for a user's key.

    `Forbidden` if the user has rights that the actor lacks: the actor could use the certificate itself.
    `Unauthenticated` if the actor's own credential has ended since it was checked.
    """
    with policy_change():
        check_proof(actor)
        actor.must_hold(policy_reader.rights_of_user(_row(username).username))
        return certificates.issue(actor, username, key, issuing)


def issue_token(
    actor: Actor, username: str, label: str, hours: float, limits: api_tokens.TokenLimits = api_tokens.DEFAULT_LIMITS
) -> api_tokens.IssuedToken:
    """Issue an API token for a user; `Forbidden` if the user has rights that the actor lacks."""
    return api_tokens.issue_token(actor, username, label, hours, limits, within_own_rights=True)


def exists(username: str) -> bool:
    """Return whether the database, not the snapshot, has this user."""
    with session():
        return User.select().where(User.username == username).exists()


def get(username: str) -> UserRecord:
    with session():
        return _record(_row(username))


def search(wanted: UserFilter, page: int, per_page: int, sort: Sort = "username") -> Page[UserRecord]:
    """Return one page of users; a `sort` that begins with `-` is descending."""
    counted = query = _matching(wanted)
    if wanted == UserFilter(role=wanted.role) and wanted.role:
        counted = UserRole.select(UserRole.user).join(Role).where(Role.name == wanted.role)
    ordered = in_order(query, sort, _SORTED_BY, User.username)
    return fetch_page(ordered, page, per_page, convert=_records, counted=counted)


def matching_names(wanted: UserFilter, after: str, limit: int) -> tuple[list[str], int]:
    """Return the first names of matching users that sort after a name, and how many there are without this limit."""
    query = _matching(wanted).where(User.username > after)
    with session():
        names = [name for (name,) in query.select(User.username).order_by(User.username).limit(limit).tuples()]
        return names, query.count()


def export(wanted: UserFilter) -> Iterator[UserRecord]:
    """Yield up to `MAX_EXPORTED` users, sorted by name. They are read in batches, so that few are in memory at once."""
    left, last = MAX_EXPORTED, ""
    while left > 0:
        query = _matching(wanted).where(User.username > last).order_by(User.username).limit(min(left, _BATCH))
        with session():
            # Between filtered users there may be very many others.
            found = _records(list(query.namedtuples()), are_neighbours=wanted == UserFilter())
        yield from found
        left -= len(found)
        if len(found) < _BATCH:
            return
        last = found[-1].username


_SORTED_BY: dict[str, Any] = {
    "username": User.username,
    "createdAt": User.created_at,
    "updatedAt": User.updated_at,
    "lastSeen": User.last_seen_at,
}


def _matching(wanted: UserFilter) -> Any:
    query = User.select()
    if wanted.administrators_on_broker:
        query = query.where(policy_reader.is_administrator_on_broker())
    if wanted.role:
        query = query.where(_has_role(wanted.role))
    if wanted.text:
        query = query.where(User.username.contains(wanted.text))
    if wanted.enabled is not None:
        query = query.where(User.enabled == wanted.enabled)
    if wanted.grant_type is not None:
        # A comma-separated list; no name of a grant type is part of another one.
        query = query.where(User.grant_types.cast("text").contains(wanted.grant_type))
    if wanted.origin is not None:
        query = query.where(User.origin == wanted.origin)
    if wanted.second_factor is not None:
        confirmed = second_factor.is_confirmed(User.id)
        query = query.where(confirmed if wanted.second_factor else ~confirmed)
    return _within_times(query, wanted)


def _has_role(name: str) -> Any:
    """Return the condition that a user has this role, in the form that the database answers faster."""
    holders: Any = UserRole.select(UserRole.user).join(Role).where(Role.name == name)
    with session():
        if not holders.offset(_MANY_HOLDERS).limit(1).exists():
            return User.id.in_(holders)
        role = Role.get(Role.name == name)
    # Sorting so many ids costs more than asking for each user in the order of the list.
    return fn.EXISTS(UserRole.select(UserRole.user).where(UserRole.user == User.id, UserRole.role == role))


def _within_times(query: Any, wanted: UserFilter) -> Any:
    if wanted.created_before is not None:
        query = query.where(User.created_at < wanted.created_before)
    if wanted.last_seen_after is not None:
        query = query.where(User.last_seen_at >= wanted.last_seen_after)
    if wanted.last_seen_before is not None:
        query = query.where(User.last_seen_at.is_null() | (User.last_seen_at < wanted.last_seen_before))
    return query


def _insert(username: str, wanted: UserChanges, password_hash: str | None, origin: Origin) -> User:
    now = datetime.now(UTC)
    row: User = User.create(
        username=username,
        skeleton=skeleton(username),
        password_hash=password_hash,
        enabled=wanted.get("enabled", True),
        grant_types=wanted.get("grant_types", frozenset({GrantType.PASSWORD})),
        client_ids=validate_client_ids(wanted.get("client_ids", ())),
        origin=origin,
        created_at=now,
        updated_at=now,
    )
    return row


def _store_rights(actor: Actor, row: User, wanted: UserChanges) -> UserRecord:
    """Store the given roles and permissions; `Forbidden` if the user now has rights that the actor lacks."""
    if "roles" in wanted:
        UserRole.delete().where(UserRole.user == row, ~UserRole.from_groups).execute()
        chosen = roles.named(wanted["roles"])
        if chosen:
            UserRole.insert_many([{"user": row, "role": role} for role in chosen]).execute()
    if "permissions" in wanted:
        PermissionRow.delete().where(PermissionRow.user == row).execute()
        roles.insert_permissions(dict.fromkeys(wanted["permissions"]), user_id=row.id)
    actor.must_hold(policy_reader.rights_of_user(row.username))
    return _record(row)


def _hash(wanted: UserChanges, hasher: PasswordHasher) -> str | None:
    # Called before the transaction, which would make other writers wait for the hash.
    password = wanted.get("password")
    return None if password is None else hasher.hash(password)


def _row(username: str) -> User:
    row: User | None = User.get_or_none(User.username == username)
    if row is None:
        raise NotFound("no such user", "user-not-found")
    return row


def _record(row: User) -> UserRecord:
    return _records([row])[0]


def _records(rows: list[Any], *, are_neighbours: bool = False) -> list[UserRecord]:
    if not rows:
        return []
    names = [row.username for row in rows]

    def selecting(column: Any) -> Any:
        # The database reads a range faster than a list of names.
        return column.between(names[0], names[-1]) if are_neighbours else column.in_(names)

    chosen = selecting(User.username) if are_neighbours else User.id.in_([row.id for row in rows])
    permissions = policy_reader.permissions_of(PermissionRow.user, User.id, chosen)
    given_here = policy_reader.role_names(chosen, from_groups=False)
    from_groups = policy_reader.role_names(chosen, from_groups=True)
    writing = policy_reader.roles_that_write()
    with_second_factor = second_factor.owners(selecting(User.username))
    return [
        UserRecord(
            row.username,
            row.enabled,
            row.grant_types,
            here := given_here.get(row.id, ()),
            by_groups := from_groups.get(row.id, ()),
            (own := permissions.get(row.id, policy_reader.NO_STORED_PERMISSIONS)).permissions,
            row.client_ids,
            row.password_hash is not None,
            bool(row.grant_types)
            and (
                any(each.writes_to_the_service for each in own.permissions)
                or not writing.isdisjoint((*here, *by_groups))
            ),
            policy_reader.damage_of(row.grant_types, row.client_ids, own),
            row.origin,
            row.created_at,
            row.updated_at,
            row.last_seen_at,
            row.username in with_second_factor,
        )
        for row in rows
    ]
