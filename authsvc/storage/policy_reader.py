"""Reads policy from the database into the immutable records that decisions use.

A damaged row, which cannot be read, affects only its owner: a user or a role.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from peewee import SQL, chunked, fn

from authsvc.credentials.jwt import SigningKey
from authsvc.errors import InvalidInput, PreconditionFailed
from authsvc.policy.permissions import EVERY_RIGHT, Context, Effect, Operation, Permission
from authsvc.policy.snapshot import NO_CERTIFICATES, NO_TOKENS, RolePolicy, UserPolicy
from authsvc.storage.fields import UnreadableClientIds, UnreadableGrantTypes
from authsvc.storage.models import (
    Authority,
    Certificate,
    Identity,
    PermissionRow,
    Role,
    SigningKeyRow,
    Token,
    User,
    UserRole,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    import peewee

    from authsvc.policy.snapshot import GrantType

_BATCH = 500  # names in one IN (...)
_SHOWN = 100  # characters of a damaged value in a message


class OwnerPermissions(NamedTuple):
    """The permissions of one user or role, and a description of each damaged row."""

    permissions: tuple[Permission, ...] = ()
    damage: tuple[str, ...] = ()

    @property
    def rights(self) -> tuple[Permission, ...]:
        """The rights that an actor needs to change the owner. A damaged row could be any right, so it counts as all."""
        return (*self.permissions, EVERY_RIGHT) if self.damage else self.permissions


NO_STORED_PERMISSIONS = OwnerPermissions()


def user_policies(usernames: Iterable[str], now: datetime) -> dict[str, UserPolicy]:
    """Return the policies of those of these users that exist."""
    found: dict[str, UserPolicy] = {}
    for condition in _conditions(User.username, usernames):
        found |= policies_where(condition, now)
    return found


def policies_where(condition: Any, now: datetime) -> dict[str, UserPolicy]:
    """Return the policies of the users that meet a condition; `user_records` reads many users faster."""
    columns = (User.id, User.username, User.enabled, User.grant_types, User.password_hash, User.client_ids)
    permissions = permissions_of(PermissionRow.user, User.id, condition)
    roles = role_names(condition)
    tokens = _tokens(condition, now)
    certificates = _certificates(condition, now)
    found: dict[str, UserPolicy] = {}
    rows: Any = User.select(*columns).where(condition).tuples()
    for user_id, username, enabled, grant_types, password_hash, client_ids in rows:
        own = permissions.get(user_id, NO_STORED_PERMISSIONS)
        found[username] = UserPolicy(
            username,
            enabled,
            grant_types,
            password_hash,
            own.permissions,
            roles.get(user_id, ()),
            tokens.get(user_id, NO_TOKENS),
            certificates.get(user_id, NO_CERTIFICATES),
            client_ids,
            damage_of(grant_types, client_ids, own),
        )
    return found


def role_policies(names: Iterable[str] | None) -> dict[str, RolePolicy]:
    """Return the policies of those of these roles that exist, or of all roles for None."""
    found: dict[str, RolePolicy] = {}
    for condition in _conditions(Role.name, names):
        own = permissions_of(PermissionRow.role, Role.id, condition)
        for role_id, name, client_ids in _where(Role.select(Role.id, Role.name, Role.client_ids), condition).tuples():
            found[name] = role_policy(own.get(role_id, NO_STORED_PERMISSIONS), client_ids)
    return found


def users_with_tokens_since(version: int) -> frozenset[str]:
    """Return the names of the users for whom API tokens were created after a token version."""
    query: Any = Token.select(User.username).distinct().join(User).where(Token.version > version).tuples()
    return frozenset(username for (username,) in query)


def users_with_certificates() -> frozenset[str]:
    """Return the names of the users for whom a certificate was issued."""
    query: Any = Certificate.select(User.username).distinct().join(User).tuples()
    return frozenset(username for (username,) in query)


def rights_of_roles(names: Iterable[str]) -> list[Permission]:
    """Return the rights that these roles give, for `Actor.must_hold`."""
    return [right for role in role_policies(names).values() for right in role.rights]


def signing_keys() -> dict[str, SigningKey]:
    """Return the signing keys by id, oldest to newest."""
    found = {}
    for row in SigningKeyRow.select().order_by(SigningKeyRow.id):
        # A damaged key invalidates only the tokens that it signed.
        with suppress(ValueError):
            found[row.kid] = SigningKey(row.kid, bytes.fromhex(row.secret))
    return found


def version_tag(updated_at: datetime) -> str:
    """Return the version tag (ETag) of a user or role last changed at this time."""
    return f"{updated_at:%Y%m%dT%H%M%S.%fZ}"


def require_version(expected: frozenset[str] | None, updated_at: datetime) -> None:
    """Raise `PreconditionFailed` unless the stored version is one of the expected ones; None accepts every version.

    Call it in the transaction of the change, so that of two editors who expect the same version the second one fails.
    """
    if expected is not None and version_tag(updated_at) not in expected:
        raise PreconditionFailed("this was changed since you read it; read it again and repeat the change")


def next_update(updated_at: datetime) -> datetime:
    """Return the time of a change made now; it is later than the last change even if the clock was set back."""
    return max(datetime.now(UTC), updated_at + timedelta(microseconds=1))


def rights_of_user(username: str) -> tuple[Permission, ...]:
    """Return the rights of a user, its own and those of its roles, for `Actor.must_hold`."""
    (user,) = user_policies([username], datetime.now(UTC)).values()
    return (*OwnerPermissions(user.permissions, user.damage).rights, *rights_of_roles(user.roles))


# Most devices have the same permissions. Sharing equal objects saves most of the memory of a large snapshot.
@lru_cache(maxsize=4096)
def _permission(context: str, operation: str, resource: str, effect: str) -> Permission | str:
    """Parse a stored permission; return the error message instead if it is not valid."""
    try:
        return Permission.from_fields(context, operation, resource, effect)
    except InvalidInput as error:
        return f"{error.message}: {f'{effect} {context} {operation} {resource}'[:_SHOWN]!r}"


def permissions_of(column: peewee.Field, owner: peewee.Field, condition: Any) -> dict[int, OwnerPermissions]:
    """Return the permissions of the users or roles that meet a condition, by owner id, in the order of creation."""
    row = PermissionRow
    query = row.select(column, row.id, row.context, row.operation, row.resource, row.effect).join(owner.model)
    found: dict[int, list[Permission]] = defaultdict(list)
    damage: dict[int, list[str]] = defaultdict(list)
    for owner_id, row_id, *words in _where(query, condition).order_by(row.id).tuples().iterator():
        read = _permission(*words)
        if isinstance(read, Permission):
            found[owner_id].append(read)
        else:
            damage[owner_id].append(f"permission {row_id}: {read}")
    return {
        owner_id: OwnerPermissions(tuple(found.get(owner_id, ())), tuple(damage.get(owner_id, ())))
        for owner_id in found.keys() | damage.keys()
    }


def _gives_http_write() -> Any:
    row, write = PermissionRow, [Operation.WRITE, Operation.READ_WRITE]
    return (row.context == Context.HTTP) & (row.effect == Effect.ALLOW) & row.operation.in_(write)


def roles_that_write() -> frozenset[str]:
    """Return the names of the roles with a permission to change something in this service."""
    query: Any = PermissionRow.select(Role.name).distinct().join(Role).where(_gives_http_write()).tuples()
    return frozenset(name for (name,) in query)


def is_administrator_on_broker() -> Any:
    """Return the SQL condition for users that have both an http write permission and a grant type for the broker."""
    own = PermissionRow.select(PermissionRow.user).where(_gives_http_write(), PermissionRow.user.is_null(False))
    roles = PermissionRow.select(PermissionRow.role).where(_gives_http_write(), PermissionRow.role.is_null(False))
    holders = UserRole.select(UserRole.user).where(UserRole.role.in_(roles))
    return (User.grant_types.cast("text") != "") & User.id.in_(own | holders)


def users_with_http_rights() -> frozenset[str]:
    """Return the names of the users that may call anything in this service, by their own permissions or a role's."""
    row = PermissionRow
    gives_rights = (row.context != Context.MQTT) & (row.effect != Effect.DENY)
    own = row.select(row.user).where(gives_rights, row.user.is_null(False))
    roles = row.select(row.role).where(gives_rights, row.role.is_null(False))
    holders = UserRole.select(UserRole.user).where(UserRole.role.in_(roles))
    query: Any = User.select(User.username).where(User.id.in_(own | holders)).tuples()
    return frozenset(name for (name,) in query)


def rights_of_holders(role: str) -> list[Permission]:
    """Return the http rights of all users that have this role: their own and those of all their roles."""
    row, holder, holders_role = PermissionRow, UserRole.alias(), UserRole.alias()
    role_id = Role.select(Role.id).where(Role.name == role)

    def holds(user: Any) -> Any:
        return fn.EXISTS(holder.select(SQL("1")).where(holder.user == user, holder.role == role_id))

    of_holder = fn.EXISTS(holders_role.select(SQL("1")).where(holders_role.role == row.role, holds(holders_role.user)))
    found: list[Any] = []
    # Nearly all permissions are about MQTT. A database reads two ranges from the index, but not what is unequal. Each
    # of the few others is then compared with the holders, who may be all users.
    for others in (row.context < Context.MQTT, row.context > Context.MQTT):
        query = row.select(row.context, row.operation, row.resource, row.effect)
        found.extend(query.where(others, holds(row.user) | of_holder).tuples())
    parsed = [_permission(*words) for words in dict.fromkeys(found)]
    return [right if isinstance(right, Permission) else EVERY_RIGHT for right in parsed]


def damage_of(
    grant_types: frozenset[GrantType], client_ids: tuple[str, ...], stored: OwnerPermissions
) -> tuple[str, ...]:
    """Return a description of each damaged value of a user."""
    damage = (*_damage_of_client_ids(client_ids), *stored.damage)
    if isinstance(grant_types, UnreadableGrantTypes):
        return (f"grant types: {grant_types.text[:_SHOWN]!r} contains an unknown grant type", *damage)
    return damage


def _damage_of_client_ids(client_ids: tuple[str, ...]) -> tuple[str, ...]:
    if isinstance(client_ids, UnreadableClientIds):
        return (f"client ids: {client_ids.text[:_SHOWN]!r} is not a list of patterns",)
    return ()


def role_names(condition: Any, *, from_groups: bool | None = None) -> dict[int, tuple[str, ...]]:
    """Return the sorted role names of the users that meet a condition, by user id.

    With `from_groups` only the roles that groups give, or only those given here; for None both.
    """
    query = UserRole.select(UserRole.user, Role.name).join(Role).switch(UserRole).join(User)
    if from_groups is not None:
        query = query.where(UserRole.from_groups == from_groups)
    found: dict[int, list[str]] = defaultdict(list)
    for user_id, name in _where(query, condition).order_by(Role.name).tuples().iterator():
        names = found[user_id]
        if not names or names[-1] != name:  # given by an administrator and by a group
            names.append(name)
    return {user_id: tuple(names) for user_id, names in found.items()}


def role_policy(stored: OwnerPermissions, client_ids: tuple[str, ...]) -> RolePolicy:
    """Return a role's policy, including a description of each damaged value."""
    return RolePolicy(stored.permissions, client_ids, (*_damage_of_client_ids(client_ids), *stored.damage))


def _tokens(condition: Any, now: datetime) -> dict[int, dict[str, datetime]]:
    query = Token.select(Token.user, Token.digest, Token.expires_at).join(User).where(Token.expires_at > now)
    confirmed = _confirmed_until(condition)
    found: dict[int, dict[str, datetime]] = defaultdict(dict)
    for user_id, digest, expires_at in _where(query, condition).tuples().iterator():
        if expires_at > now:  # SQLite may compare a damaged time as greater
            found[user_id][digest] = min(expires_at, confirmed.get(user_id, expires_at))
    return found


def _confirmed_until(condition: Any) -> dict[int, datetime]:
    """Return until when users of providers and directories are confirmed, by user id; no token is valid for longer."""
    query = Identity.select(Identity.user, Identity.confirmed_until).join(User)
    return dict(_where(query, condition).tuples())


def _certificates(condition: Any, now: datetime) -> dict[int, dict[str, datetime]]:
    """Return the end of each certificate that is valid now, by user id and serial in upper case."""
    columns = (Certificate.user, Certificate.serial, Certificate.not_after, Certificate.revoked_at)
    query = Certificate.select(*columns, Authority.retires_at).join(Authority).switch(Certificate).join(User)
    query = query.where(
        Certificate.not_after > now,
        Certificate.revoked_at.is_null() | (Certificate.revoked_at > now),
        Authority.retires_at.is_null() | (Authority.retires_at > now),
    )
    found: dict[int, dict[str, datetime]] = defaultdict(dict)
    for user_id, serial, *ends in _where(query, condition).tuples().iterator():
        end = min(time for time in ends if time is not None)
        if end > now:  # SQLite may compare a damaged time as greater
            found[user_id][serial.upper()] = end
    return found


def _conditions(column: peewee.Field, names: Iterable[str] | None) -> Iterable[Any]:
    """Return conditions that select rows with these names in batches; for None, one condition that selects all rows."""
    return [None] if names is None else (column.in_(batch) for batch in chunked(sorted(names), _BATCH))


def _where(query: Any, condition: Any) -> Any:
    return query if condition is None else query.where(condition)
