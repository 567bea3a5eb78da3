"""The policy that the database holds, as entries of a policy document, with their password hashes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from peewee import chunked

from authsvc.accounts.users import KEPT_ELSEWHERE
from authsvc.errors import Conflict
from authsvc.policy_file.document import PolicyDocument, PolicyPreauthorization, PolicyRole, PolicyUser, in_order
from authsvc.storage import policy_reader
from authsvc.storage.database import read_transaction
from authsvc.storage.models import PermissionRow, Role, User, UserRole

if TYPE_CHECKING:
    from collections.abc import Iterable

_BATCH = 500
EntryType = TypeVar("EntryType", PolicyRole, PolicyUser, PolicyPreauthorization)


@dataclass(frozen=True, slots=True)
class Entries(Generic[EntryType]):
    """Entries of one kind by name. A damaged one has rows that cannot be read, so it differs from every other.

    A provider or directory confirms the users in `elsewhere` at each sign-in; they are no part of a policy file.
    """

    by_name: dict[str, EntryType] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    elsewhere: set[str] = field(default_factory=set)


def read_document(preauthorizations: tuple[PolicyPreauthorization, ...] = ()) -> PolicyDocument:
    """Return the roles and users of the database, sorted by name, without users that are kept elsewhere.

    `Conflict` if one is damaged.
    """
    with read_transaction():
        roles, users = read_roles(), read_users(None)
    for kind, damaged in (("role", roles.damaged), ("user", users.damaged)):
        if damaged:
            raise Conflict(f"the {kind} {min(damaged)} is damaged; authsvc check says how", "damaged-policy")
    return PolicyDocument(
        roles=tuple(roles.by_name.values()),
        users=tuple(user for name, user in users.by_name.items() if name not in users.elsewhere),
        preauthorizations=preauthorizations,
    )


def read_roles() -> Entries[PolicyRole]:
    """Return all roles but the built-in ones."""
    own = policy_reader.permissions_of(PermissionRow.role, Role.id, None)
    found: Entries[PolicyRole] = Entries()
    for row in Role.select().where(~Role.built_in).order_by(Role.name):
        stored = own.get(row.id, policy_reader.NO_STORED_PERMISSIONS)
        if policy_reader.role_policy(stored, row.client_ids).damage:
            found.damaged.add(row.name)
        found.by_name[row.name] = PolicyRole.model_construct(
            name=row.name,
            description=row.description,
            permissions=in_order(stored.permissions),
            client_ids=in_order(row.client_ids),
        )
    return found


def read_users(usernames: Iterable[str] | None) -> Entries[PolicyUser]:
    """Return those of these users that exist, or all users for None, sorted by name."""
    columns = (User.id, User.username, User.enabled, User.grant_types, User.client_ids, User.password_hash, User.origin)
    found: Entries[PolicyUser] = Entries()
    for condition in _conditions(usernames):
        permissions = policy_reader.permissions_of(PermissionRow.user, User.id, condition)
        roles = policy_reader.role_names(condition, from_groups=False)
        query: Any = User.select(*columns).order_by(User.username)
        for user_id, name, enabled, grant_types, client_ids, password_hash, origin in (
            query if condition is None else query.where(condition)
        ).tuples():
            stored = permissions.get(user_id, policy_reader.NO_STORED_PERMISSIONS)
            if policy_reader.damage_of(grant_types, client_ids, stored):
                found.damaged.add(name)
            if origin in KEPT_ELSEWHERE:
                found.elsewhere.add(name)
            found.by_name[name] = PolicyUser.model_construct(
                username=name,
                enabled=enabled,
                grant_types=grant_types,
                roles=in_order(roles.get(user_id, ())),
                permissions=in_order(stored.permissions),
                client_ids=in_order(client_ids),
                password_hash=password_hash,
            )
    return found


def holders(role: str) -> list[str]:
    """Return the names of the users that have a role."""
    query: Any = UserRole.select(User.username).join(User).switch(UserRole).join(Role).where(Role.name == role).tuples()
    return [username for (username,) in query]


def kept_elsewhere() -> frozenset[str]:
    """Return the names of the users that a provider or directory confirms."""
    query: Any = User.select(User.username).where(User.origin.in_(KEPT_ELSEWHERE)).tuples()
    return frozenset(name for (name,) in query)


def _conditions(usernames: Iterable[str] | None) -> Iterable[Any]:
    if usernames is None:
        return [None]
    return (User.username.in_(batch) for batch in chunked(sorted(usernames), _BATCH))
