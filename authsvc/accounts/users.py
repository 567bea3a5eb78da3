"""Users: the principals that may connect to the broker, call this service, or both."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypedDict

from authsvc.accounts import api_tokens, browser_sessions, last_admin, roles
from authsvc.accounts.proof import check_proof
from authsvc.activity import audit, disconnects
from authsvc.credentials.usernames import skeleton, validate_username
from authsvc.errors import Conflict, NotFound, invalid
from authsvc.pki import certificates
from authsvc.pki.ca import RevocationReason
from authsvc.policy.allowed_client_ids import validate_client_ids
from authsvc.policy.permissions import Effect
from authsvc.policy.snapshot import GrantType
from authsvc.storage import policy_reader
from authsvc.storage.changes import ChangeKind, policy_change
from authsvc.storage.database import session
from authsvc.storage.models import PermissionRow, Role, User, UserRole
from authsvc.storage.paging import Page, fetch_page

if TYPE_CHECKING:
    from authsvc.activity.mqtt_takeover import TakeoverBroker
    from authsvc.credentials.passwords import PasswordHasher
    from authsvc.pki.authorities import SigningPolicy
    from authsvc.pki.csr import ClientKey
    from authsvc.policy.actors import Actor
    from authsvc.policy.permissions import Permission


@dataclass(frozen=True, slots=True)
class UserRecord:
    """A user as administrators see it; of its password, only whether there is one.

    `damage` says what could not be read of its own rows, and `over_the_service` whether it has http write rights.
    """

    username: str
    enabled: bool
    grant_types: frozenset[GrantType]
    roles: tuple[str, ...]
    permissions: tuple[Permission, ...]
    client_ids: tuple[str, ...]
    has_password: bool
    created_at: datetime
    updated_at: datetime
    damage: tuple[str, ...] = ()
    over_the_service: bool = False

    @property
    def version(self) -> str:
        """The name of its stored version."""
        return policy_reader.version_tag(self.updated_at)

    @property
    def is_administrator_on_broker(self) -> bool:
        """Whether it may change something in this service, and log in to the broker, where its secrets are seen."""
        return self.over_the_service and bool(self.grant_types)


class UserChanges(TypedDict, total=False):
    """What a new user has or a PATCH changes; a key that is absent stays as it is. `password` None takes it away."""

    password: str | None
    enabled: bool
    grant_types: frozenset[GrantType]
    roles: tuple[str, ...]
    permissions: tuple[Permission, ...]
    revoke_others: bool  # with a password: end all API tokens and certificates too
    client_ids: tuple[str, ...]


def create(actor: Actor, username: str, wanted: UserChanges, hasher: PasswordHasher) -> UserRecord:
    """Make a user; `Conflict` when the name is taken, `Forbidden` when it would hold more than the actor does.

    Absent keys: enabled, grant type `password`, no roles, no permissions, no password.
    """
    return create_with_hash(actor, username, wanted, _hash(wanted, hasher))


def create_with_hash(actor: Actor, username: str, wanted: UserChanges, password_hash: str | None) -> UserRecord:
    """`create` for a password that was hashed earlier, such as a registration's; `wanted` holds no other."""
    validate_username(username)
    with policy_change() as announce:
        if exists(username):
            raise Conflict(f"a user named {username} exists", "user-exists")
        row = _insert(username, wanted, password_hash)
        record = _rewrite_rights(actor, row, wanted)
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
    """Change what is named and nothing else; in force at once, also for clients that are connected.

    `Forbidden` when the user holds, or would hold, more than the actor; `Conflict` when nobody would be left
    to administer the service; `PreconditionFailed` when the user is not at one of the expected versions.
    """
    if changes.get("revoke_others") and "password" not in changes:
        raise invalid("revokeOthers", "needs a password in the same request")
    password_hash = _hash(changes, hasher)
    with policy_change() as announce, last_admin.keep_last_administrator():
        row = _row(username)
        policy_reader.require_version(expected, row.updated_at)
        before = _record(row)
        actor.must_hold(policy_reader.rights_of_user(row.username))
        row.enabled = changes.get("enabled", row.enabled)
        row.grant_types = changes.get("grant_types", row.grant_types)
        if "client_ids" in changes:
            row.client_ids = validate_client_ids(changes["client_ids"])
        row.password_hash = password_hash if "password" in changes else row.password_hash
        row.updated_at = policy_reader.next_update(row.updated_at)
        row.save()
        after = _rewrite_rights(actor, row, changes)
        cause = _ends_sessions(before, after, changes)
        if cause:
            disconnects.order(username, cause)
            browser_sessions.end_all(username)
        earlier, later = audit.difference(audit_fields(before), audit_fields(after))
        if changes.get("password") is not None:
            later["password"] = "changed"  # noqa: S105 - a word for the audit trail
        if changes.get("revoke_others"):  # browser sessions end with any new password
            certificates.revoke_all(actor, username, RevocationReason.PRIVILEGE_WITHDRAWN)
            later["revokedTokens"] = api_tokens.revoke_all(actor, username)
        if later:
            audit.record(actor, "user.change", f"user:{username}", earlier, later)
            announce(ChangeKind.USER, username)
    return after


def allow(actor: Actor, username: str, permission: Permission) -> UserRecord:
    """Add one permission to those the user has by then, whoever else adds some; one that it has is no error.

    `Forbidden` when the user holds, or would hold, more than the actor; `InvalidInput` for a permission that denies.
    """
    if permission.effect is not Effect.ALLOW:
        raise invalid("effect", "must be allow; to forbid something, change the user's permissions")
    with policy_change() as announce:
        row = _row(username)
        actor.must_hold((*policy_reader.rights_of_user(row.username), permission))
        if permission not in _record(row).permissions:
            roles.insert_permissions([permission], user_id=row.id)
            row.updated_at = policy_reader.next_update(row.updated_at)
            row.save()
            facts_added = {"permission": permission.fields()}
            audit.record(actor, "user.allow", f"user:{username}", after=facts_added)
            announce(ChangeKind.USER, username)
        return _record(row)


def delete(actor: Actor, username: str, expected: frozenset[str] | None = None) -> None:
    """Remove a user and its tokens; `Conflict` when nobody would be left to administer the service.

    `PreconditionFailed` when the user is not at one of the expected versions.
    """
    with policy_change() as announce, last_admin.keep_last_administrator():
        row = _row(username)
        policy_reader.require_version(expected, row.updated_at)
        actor.must_hold(policy_reader.rights_of_user(row.username))
        before = audit_fields(_record(row))
        certificates.revoke_all(actor, username, RevocationReason.CESSATION_OF_OPERATION)
        disconnects.order(username, disconnects.USER_REMOVED)
        row.delete_instance()
        audit.record(actor, "user.delete", f"user:{username}", before=before)
        announce(ChangeKind.USER, username)


def disconnect(actor: Actor, username: str, broker: TakeoverBroker | None) -> disconnects.DisconnectResult:
    """End a user's live sessions on the broker; `Conflict` when no broker is known."""
    get(username)
    if broker is None:
        raise Conflict("AUTHSVC_BROKER_URL is not set, so sessions cannot be ended", "no-broker")
    return disconnects.disconnect_now(actor, broker, username)


def issue_certificate(
    actor: Actor, username: str, key: ClientKey, issuing: SigningPolicy
) -> certificates.IssuedCertificate:
    """Sign a certificate for a user's key; `Forbidden` for one who holds more than the actor, who could pass as it.

    `Unauthenticated` if the actor's own credential has ended since it was checked.
    """
    with policy_change():
        check_proof(actor)
        actor.must_hold(policy_reader.rights_of_user(_row(username).username))
        return certificates.issue(actor, username, key, issuing)


def issue_token(
    actor: Actor, username: str, label: str, hours: float, limits: api_tokens.TokenLimits = api_tokens.DEFAULT_LIMITS
) -> api_tokens.IssuedToken:
    """Make an API token for a user; `Forbidden` for one who holds more than the actor, who could pass as it."""
    return api_tokens.issue_token(actor, username, label, hours, limits, within_own_rights=True)


def exists(username: str) -> bool:
    """Say whether there is a user of that name, by the database and not by a snapshot."""
    with session():
        return User.select().where(User.username == username).exists()


def get(username: str) -> UserRecord:
    """Return one user; `NotFound` otherwise."""
    with session():
        return _record(_row(username))


def search(
    text: str, page: int, per_page: int, role: str = "", *, administrators_on_broker: bool = False
) -> Page[UserRecord]:
    """Return one page of the users whose name contains the text, in any case, by name; or of those with a role."""
    query = User.select()
    if administrators_on_broker:
        query = query.where(policy_reader.is_administrator_on_broker())
    if role:
        query = query.where(User.id.in_(UserRole.select(UserRole.user).join(Role).where(Role.name == role)))
    if text:
        query = query.where(User.username.contains(text))
    return fetch_page(query.order_by(User.username), page, per_page, convert=_records)


def _insert(username: str, wanted: UserChanges, password_hash: str | None) -> User:
    now = datetime.now(UTC)
    row: User = User.create(
        username=username,
        skeleton=skeleton(username),
        password_hash=password_hash,
        enabled=wanted.get("enabled", True),
        grant_types=wanted.get("grant_types", frozenset({GrantType.PASSWORD})),
        client_ids=validate_client_ids(wanted.get("client_ids", ())),
        created_at=now,
        updated_at=now,
    )
    return row


def _rewrite_rights(actor: Actor, row: User, wanted: UserChanges) -> UserRecord:
    """Write the roles and permissions that are named, and hold the actor to its own rights in the outcome."""
    if "roles" in wanted:
        UserRole.delete().where(UserRole.user == row).execute()
        chosen = roles.named(wanted["roles"])
        if chosen:
            UserRole.insert_many([{"user": row, "role": role} for role in chosen]).execute()
    if "permissions" in wanted:
        PermissionRow.delete().where(PermissionRow.user == row).execute()
        roles.insert_permissions(dict.fromkeys(wanted["permissions"]), user_id=row.id)
    actor.must_hold(policy_reader.rights_of_user(row.username))
    return _record(row)


def _ends_sessions(before: UserRecord, after: UserRecord, changes: UserChanges) -> str | None:
    """Say why sessions that began before this change must end; None when they may go on."""
    if before.enabled and not after.enabled:
        return "user disabled"
    if "password" in changes:
        return "password changed"
    if before.grant_types - after.grant_types:
        return "grant type removed"
    return None


def _hash(wanted: UserChanges, hasher: PasswordHasher) -> str | None:
    # Before the transaction: others should not wait for a hash to write.
    password = wanted.get("password")
    return None if password is None else hasher.hash(password)


def _row(username: str) -> User:
    row: User | None = User.get_or_none(User.username == username)
    if row is None:
        raise NotFound("no such user", "user-not-found")
    return row


def _record(row: User) -> UserRecord:
    return _records([row])[0]


def _records(rows: list[User]) -> list[UserRecord]:
    chosen = User.id.in_([row.id for row in rows])
    permissions = policy_reader.permissions_of(PermissionRow.user, User.id, chosen)
    role_names = policy_reader.role_names(chosen)
    writing = policy_reader.roles_that_write()
    return [
        UserRecord(
            row.username,
            row.enabled,
            row.grant_types,
            names := role_names.get(row.id, ()),
            (own := permissions.get(row.id, policy_reader.NO_STORED_PERMISSIONS)).permissions,
            row.client_ids,
            row.password_hash is not None,
            row.created_at,
            row.updated_at,
            policy_reader.damage_of(row.grant_types, row.client_ids, own),
            any(each.writes_to_the_service for each in own.permissions) or not writing.isdisjoint(names),
        )
        for row in rows
    ]


def audit_fields(record: UserRecord) -> audit.Fields:
    """Return what the audit trail keeps of a user."""
    return {
        "enabled": record.enabled,
        "grantTypes": sorted(record.grant_types),
        "roles": list(record.roles),
        "permissions": [each.fields() for each in record.permissions],
        "clientIds": list(record.client_ids),
        "hasPassword": record.has_password,
        **({"damage": list(record.damage)} if record.damage else {}),
    }
