"""Reads policy out of the database into the immutable records that decisions use.

A row that cannot be read is damage of its owner, a user or a role, and of nobody else.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from authsvc.credentials.jwt import SigningKey
from authsvc.errors import InvalidInput, PreconditionFailed
from authsvc.policy.permissions import EVERY_RIGHT, Context, Effect, Operation, Permission
from authsvc.policy.snapshot import NO_TOKENS, RolePolicy, UserPolicy
from authsvc.storage.fields import UnreadableClientIds, UnreadableGrantTypes
from authsvc.storage.models import Authority, Certificate, PermissionRow, Role, SigningKeyRow, Token, User, UserRole

if TYPE_CHECKING:
    from collections.abc import Iterable

    import peewee

    from authsvc.policy.snapshot import GrantType

_BATCH = 500  # names in one IN (...)
_SHOWN = 100  # characters of a damaged value that are shown


class OwnerPermissions(NamedTuple):
    """The permissions of one user or role, and what could not be read of its rows."""

    permissions: tuple[Permission, ...] = ()
    damage: tuple[str, ...] = ()

    @property
    def rights(self) -> tuple[Permission, ...]:
        """What an actor must hold to touch the owner: a row that cannot be read may have been any right."""
        return (*self.permissions, EVERY_RIGHT) if self.damage else self.permissions


NOTHING_STORED = OwnerPermissions()


def user_policies(usernames: Iterable[str] | None, now: datetime) -> dict[str, UserPolicy]:
    """Return the policies of the users so named that exist; None stands for every user."""
    if usernames is None:
        return _user_policies(None, now)
    found: dict[str, UserPolicy] = {}
    for names in _batches(sorted(usernames)):
        found |= _user_policies(User.username.in_(names), now)
    return found


def role_policies(names: Iterable[str] | None) -> dict[str, RolePolicy]:
    """Return the policies of the roles so named that exist; None stands for every role."""
    if names is None:
        return _role_policies(None)
    found: dict[str, RolePolicy] = {}
    for batch in _batches(sorted(names)):
        found |= _role_policies(Role.name.in_(batch))
    return found


def tokens_since(version: int, now: datetime) -> dict[str, dict[str, datetime]]:
    """Return the API tokens made after a token version that are still valid: by username, digest and expiry."""
    query = Token.select(User.username, Token.digest, Token.expires_at).join(User)
    made: Any = query.where(Token.version > version, Token.expires_at > now).tuples()
    found: dict[str, dict[str, datetime]] = defaultdict(dict)
    for username, digest, expires_at in made:
        found[username][digest] = expires_at
    return found


def rights_of_roles(names: Iterable[str]) -> list[Permission]:
    """Return all that the roles so named give, for `Actor.must_hold`."""
    return [each for role in role_policies(names).values() for each in role.rights]


def signing_keys() -> dict[str, SigningKey]:
    """Return the signing keys by id, oldest to newest."""
    found = {}
    for row in SigningKeyRow.select().order_by(SigningKeyRow.id):
        # A damaged key makes the tokens that it signed invalid, and nothing else.
        with suppress(ValueError):
            found[row.kid] = SigningKey(row.kid, bytes.fromhex(row.secret))
    return found


def version_tag(updated_at: datetime) -> str:
    """Return the name of a user's or role's stored version, by the time of its last change."""
    return f"{updated_at:%Y%m%dT%H%M%S.%fZ}"


def must_be_version(expected: frozenset[str] | None, updated_at: datetime) -> None:
    """Raise `PreconditionFailed` unless the stored version is one of the expected ones; None stands for any version.

    To be called in the transaction of the change: of two editors who expect the same version the second fails.
    """
    if expected is not None and version_tag(updated_at) not in expected:
        raise PreconditionFailed("somebody has changed this since it was read; read it again")


def next_update(updated_at: datetime) -> datetime:
    """Return the time of a change that is made now: always later than the last one, whatever the clock says."""
    return max(datetime.now(UTC), updated_at + timedelta(microseconds=1))


def rights_of_user(username: str) -> tuple[Permission, ...]:
    """Return all that a user has, by its own permissions and its roles', for `Actor.must_hold`."""
    (user,) = user_policies([username], datetime.now(UTC)).values()
    return (*OwnerPermissions(user.permissions, user.damage).rights, *rights_of_roles(user.roles))


# One device is much like the next: equal permissions share one object, which is most of a large snapshot.
@lru_cache(maxsize=4096)
def _permission(context: str, operation: str, resource: str, effect: str) -> Permission | str:
    """Return the permission that these stored words spell; text that says what is wrong with them if they do not."""
    try:
        return Permission.from_fields(context, operation, resource, effect)
    except InvalidInput as error:
        return f"{error.message}: {f'{effect} {context} {operation} {resource}'[:_SHOWN]!r}"


def permissions_of(column: peewee.Field, owner: peewee.Field, chosen: Any) -> dict[int, OwnerPermissions]:
    """Return permissions by owner id, in the order they were given."""
    row = PermissionRow
    query = row.select(column, row.id, row.context, row.operation, row.resource, row.effect).join(owner.model)
    found: dict[int, list[Permission]] = defaultdict(list)
    damage: dict[int, list[str]] = defaultdict(list)
    for owner_id, row_id, *words in _chosen(query, chosen).order_by(row.id).tuples().iterator():
        read = _permission(*words)
        if isinstance(read, Permission):
            found[owner_id].append(read)
        else:
            damage[owner_id].append(f"permission {row_id}: {read}")
    return {
        owner_id: OwnerPermissions(tuple(found.get(owner_id, ())), tuple(damage.get(owner_id, ())))
        for owner_id in found.keys() | damage.keys()
    }


def _writes_to_the_service() -> Any:
    row = PermissionRow
    writing = [Operation.WRITE, Operation.READ_WRITE]
    return (row.context == Context.HTTP) & (row.effect == Effect.ALLOW) & row.operation.in_(writing)


def roles_that_write() -> frozenset[str]:
    """Return the names of the roles that give a right to change something in this service."""
    query: Any = PermissionRow.select(Role.name).distinct().join(Role).where(_writes_to_the_service()).tuples()
    return frozenset(name for (name,) in query)


def is_administrator_on_broker() -> Any:
    """Return the condition on `User` for an http right to write together with a grant type for the broker."""
    own = PermissionRow.select(PermissionRow.user).where(_writes_to_the_service(), PermissionRow.user.is_null(False))
    roles = PermissionRow.select(PermissionRow.role).where(_writes_to_the_service(), PermissionRow.role.is_null(False))
    holders = UserRole.select(UserRole.user).where(UserRole.role.in_(roles))
    return (User.grant_types.cast("text") != "") & User.id.in_(own | holders)


def rights_of_holders(role_id: int) -> list[Permission]:
    """Return every different right over this service that somebody who has the role has, by itself or by any role."""
    row, of_holder = PermissionRow, UserRole.alias()
    holders = UserRole.select(UserRole.user).where(UserRole.role == role_id)
    their_roles = of_holder.select(of_holder.role).where(of_holder.user.in_(holders))
    query = row.select(row.context, row.operation, row.resource, row.effect).distinct()
    found: Any = query.where(row.context != Context.MQTT, row.user.in_(holders) | row.role.in_(their_roles)).tuples()
    read = [_permission(*words) for words in found]
    return [each if isinstance(each, Permission) else EVERY_RIGHT for each in read]


def damage_of(
    grant_types: frozenset[GrantType], client_ids: tuple[str, ...], stored: OwnerPermissions
) -> tuple[str, ...]:
    """Return what could not be read of a user's rows."""
    damage = (*_damage_of_client_ids(client_ids), *stored.damage)
    if isinstance(grant_types, UnreadableGrantTypes):
        return (f"grant types: {grant_types.text[:_SHOWN]!r} names an unknown one", *damage)
    return damage


def _damage_of_client_ids(client_ids: tuple[str, ...]) -> tuple[str, ...]:
    if isinstance(client_ids, UnreadableClientIds):
        return (f"client ids: {client_ids.text[:_SHOWN]!r} is no list of patterns",)
    return ()


def role_names(chosen: Any) -> dict[int, tuple[str, ...]]:
    """Return the names of users' roles by user id, sorted."""
    query = UserRole.select(UserRole.user, Role.name).join(Role).switch(UserRole).join(User)
    found: dict[int, list[str]] = defaultdict(list)
    for user_id, name in _chosen(query, chosen).order_by(Role.name).tuples().iterator():
        found[user_id].append(name)
    return {user_id: tuple(names) for user_id, names in found.items()}


def _user_policies(chosen: Any, now: datetime) -> dict[str, UserPolicy]:
    permissions = permissions_of(PermissionRow.user, User.id, chosen)
    roles = role_names(chosen)
    tokens = _tokens(chosen, now)
    certificates = _certificates(chosen)
    columns = (User.id, User.username, User.enabled, User.grant_types, User.password_hash, User.client_ids)
    return {
        username: UserPolicy(
            username,
            enabled,
            grant_types,
            password_hash,
            permissions.get(user_id, NOTHING_STORED).permissions,
            roles.get(user_id, ()),
            tokens.get(user_id, NO_TOKENS),
            certificates.get(user_id),
            client_ids,
            damage_of(grant_types, client_ids, permissions.get(user_id, NOTHING_STORED)),
        )
        for user_id, username, enabled, grant_types, password_hash, client_ids in _chosen(
            User.select(*columns), chosen
        ).tuples()
    }


def _role_policies(chosen: Any) -> dict[str, RolePolicy]:
    found = permissions_of(PermissionRow.role, Role.id, chosen)
    roles = _chosen(Role.select(Role.id, Role.name, Role.client_ids), chosen).tuples()
    return {name: role_policy(found.get(role_id, NOTHING_STORED), client_ids) for role_id, name, client_ids in roles}


def role_policy(stored: OwnerPermissions, client_ids: tuple[str, ...]) -> RolePolicy:
    """Return a role's policy with what could not be read of its rows."""
    return RolePolicy(stored.permissions, client_ids, (*_damage_of_client_ids(client_ids), *stored.damage))


def _tokens(chosen: Any, now: datetime) -> dict[int, dict[str, datetime]]:
    query = Token.select(Token.user, Token.digest, Token.expires_at).join(User).where(Token.expires_at > now)
    found: dict[int, dict[str, datetime]] = defaultdict(dict)
    for user_id, digest, expires_at in _chosen(query, chosen).tuples().iterator():
        if expires_at > now:  # a damaged time may be greater to SQLite
            found[user_id][digest] = expires_at
    return found


def _certificates(chosen: Any) -> dict[int, datetime]:
    columns = (Certificate.user, Certificate.not_after, Certificate.revoked_at, Authority.retires_at)
    query = Certificate.select(*columns).join(Authority).switch(Certificate).join(User)
    until: dict[int, datetime] = {}
    for user_id, *ends in _chosen(query, chosen).tuples().iterator():
        end = min(moment for moment in ends if moment is not None)
        until[user_id] = max(end, until.get(user_id, end))
    return until


def _chosen(query: Any, chosen: Any) -> Any:
    return query if chosen is None else query.where(chosen)


def _batches(names: list[str]) -> Iterable[list[str]]:
    return (names[start : start + _BATCH] for start in range(0, len(names), _BATCH))
