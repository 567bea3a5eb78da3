"""Reads policy out of the database into the immutable records that decisions use."""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from authsvc.errors import Conflict
from authsvc.permissions import Context, Effect, Operation, Permission
from authsvc.snapshot import NO_TOKENS, RolePolicy, UserPolicy
from authsvc.storage.models import Authority, Certificate, PermissionRow, Role, SigningKeyRow, Token, User, UserRole
from authsvc.tokens import SigningKey

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    import peewee

_BATCH = 500  # names in one IN (...)


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


def role_permissions(names: Iterable[str]) -> dict[str, tuple[Permission, ...]]:
    """Return the permissions of the roles so named that exist."""
    return {name: role.permissions for name, role in role_policies(names).items()}


def signing_keys() -> dict[str, SigningKey]:
    """Return the signing keys by id, oldest to newest."""
    rows = SigningKeyRow.select().order_by(SigningKeyRow.id)
    return {row.kid: SigningKey(row.kid, bytes.fromhex(row.secret)) for row in rows}


def must_be_as_of(expected: datetime | None, updated_at: datetime) -> None:
    """Raise `Conflict` when what somebody looked at, as of a time, was changed since; None stands for any time."""
    if expected not in (None, updated_at):
        raise Conflict("somebody has changed this meanwhile", "changed-meanwhile")


# One device is much like the next: equal permissions share one object, which is most of a large snapshot.
@lru_cache(maxsize=4096)
def permission(context: str, operation: str, resource: str, effect: str) -> Permission:
    """Return the permission that these stored words spell."""
    return Permission(Context(context), Operation(operation), resource, Effect(effect))


def permissions_of(column: peewee.Field, owner: peewee.Field, chosen: Any) -> dict[int, tuple[Permission, ...]]:
    """Return permissions by owner id, in the order they were given."""
    row = PermissionRow
    query = row.select(column, row.context, row.operation, row.resource, row.effect).join(owner.model)
    found: dict[int, list[Permission]] = defaultdict(list)
    for owner_id, *words in _chosen(query, chosen).order_by(row.id).tuples().iterator():
        found[owner_id].append(permission(*words))
    return {owner_id: tuple(permissions) for owner_id, permissions in found.items()}


def rights_of_holders(role_id: int) -> list[Permission]:
    """Return every different right over this service that somebody who has the role has, by itself or by any role."""
    row, of_holder = PermissionRow, UserRole.alias()
    holders = UserRole.select(UserRole.user).where(UserRole.role == role_id)
    their_roles = of_holder.select(of_holder.role).where(of_holder.user.in_(holders))
    query = row.select(row.context, row.operation, row.resource, row.effect).distinct()
    found: Any = query.where(row.context == Context.HTTP, row.user.in_(holders) | row.role.in_(their_roles)).tuples()
    return [permission(*words) for words in found]


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
            bool(enabled),
            grant_types,
            password_hash,
            permissions.get(user_id, ()),
            roles.get(user_id, ()),
            tokens.get(user_id, NO_TOKENS),
            certificates.get(user_id),
            client_ids,
        )
        for user_id, username, enabled, grant_types, password_hash, client_ids in _chosen(
            User.select(*columns), chosen
        ).tuples()
    }


def _role_policies(chosen: Any) -> dict[str, RolePolicy]:
    permissions = permissions_of(PermissionRow.role, Role.id, chosen)
    roles = _chosen(Role.select(Role.id, Role.name, Role.client_ids), chosen).tuples()
    return {name: RolePolicy(permissions.get(role_id, ()), client_ids) for role_id, name, client_ids in roles}


def _tokens(chosen: Any, now: datetime) -> dict[int, dict[str, datetime]]:
    query = Token.select(Token.user, Token.digest, Token.expires_at).join(User).where(Token.expires_at > now)
    found: dict[int, dict[str, datetime]] = defaultdict(dict)
    for user_id, digest, expires_at in _chosen(query, chosen).tuples().iterator():
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
