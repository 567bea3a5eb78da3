"""Roles: named sets of permissions and client ids that many users share."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypedDict

from peewee import chunked, fn

from authsvc.accounts import last_admin
from authsvc.activity import audit
from authsvc.credentials.usernames import validate_role_name
from authsvc.errors import Conflict, NotFound, invalid
from authsvc.policy.allowed_client_ids import validate_client_ids
from authsvc.policy.permissions import Context, Operation, Permission
from authsvc.record_json import audit_fields, from_row
from authsvc.storage import policy_reader
from authsvc.storage.changes import ChangeKind, policy_change
from authsvc.storage.database import read_transaction, session
from authsvc.storage.models import Identity, PermissionRow, Role, UserRole
from authsvc.storage.paging import Page, fetch_page

if TYPE_CHECKING:
    from collections.abc import Iterable

    from authsvc.policy.actors import Actor

_BUILT_IN = {
    last_admin.ROLE: (
        "Everything on the broker and in this service",
        (
            Permission(Context.MQTT, Operation.READ_WRITE, "#"),
            Permission(Context.HTTP, Operation.READ_WRITE, "/#"),
        ),
    ),
    "minimum-access": (
        "May log in and see who it is",
        (Permission(Context.HTTP, Operation.READ, "/api/me"),),
    ),
}
BUILT_IN = frozenset(_BUILT_IN)
"""The names of the roles that every database has and that no request can change."""


@dataclass(frozen=True, slots=True)
class RoleRecord:
    """A role. `damage` says which of its rows cannot be read."""

    name: str
    description: str
    built_in: bool
    permissions: tuple[Permission, ...]
    client_ids: tuple[str, ...]
    created_at: datetime
    updated_at: datetime
    damage: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """The ETag of the stored version."""
        return policy_reader.version_tag(self.updated_at)


class RoleChanges(TypedDict, total=False):
    """The changes of a PATCH; the service keeps a field whose key is absent."""

    description: str
    permissions: tuple[Permission, ...]
    client_ids: tuple[str, ...]


def create(
    actor: Actor, name: str, description: str, permissions: Iterable[Permission], client_ids: Iterable[str] = ()
) -> RoleRecord:
    """Create a role; `Conflict` if the name exists, `Forbidden` if it has rights that the actor lacks."""
    validate_role_name(name)
    wanted, patterns = tuple(dict.fromkeys(permissions)), validate_client_ids(client_ids)
    actor.must_hold(wanted)
    with policy_change() as announce:
        if Role.select().where(Role.name == name).exists():
            raise Conflict(f"a role named {name} exists", "role-exists")
        record = _insert(name, description, wanted, patterns, built_in=False)
        audit.record(actor, "role.create", f"role:{name}", after=audit_fields(record))
        announce(ChangeKind.ROLE, name)
    return record


def change(actor: Actor, name: str, changes: RoleChanges, expected: frozenset[str] | None = None) -> RoleRecord:
    """Change the given fields of a role; `Conflict` for a built-in role.

    `PreconditionFailed` if the stored version is not one of the expected ones.
    """
    with policy_change() as announce, last_admin.keep_last_administrator():
        row = _row_for_change(actor, name)
        policy_reader.require_version(expected, row.updated_at)
        before = _record(row)
        wanted = tuple(dict.fromkeys(changes.get("permissions", before.permissions)))
        actor.must_hold(wanted)
        row.description = changes.get("description", row.description)
        row.updated_at = policy_reader.next_update(row.updated_at)
        if "client_ids" in changes:
            row.client_ids = validate_client_ids(changes["client_ids"])
        row.save()
        if wanted != before.permissions or (before.damage and "permissions" in changes):
            PermissionRow.delete().where(PermissionRow.role == row).execute()
            insert_permissions(wanted, role_id=row.id)
        after = _record(row)
        earlier, later = audit.difference(audit_fields(before), audit_fields(after))
        if later:
            audit.record(actor, "role.change", f"role:{name}", earlier, later)
            announce(ChangeKind.ROLE, name)
    return after


def delete(actor: Actor, name: str, expected: frozenset[str] | None = None) -> None:
    """Delete a role; `Conflict` if a user has it or it is built in.

    `PreconditionFailed` if the stored version is not one of the expected ones.
    """
    with policy_change() as announce:
        row = _row_for_change(actor, name)
        policy_reader.require_version(expected, row.updated_at)
        holders = UserRole.select(UserRole.user).distinct().where(UserRole.role == row).count()
        if holders:
            raise Conflict(f"{holders} users have the role {name}; remove it from them first", "role-in-use")
        before = _record(row)
        row.delete_instance()
        audit.record(actor, "role.delete", f"role:{name}", before=audit_fields(before))
        announce(ChangeKind.ROLE, name)


def get(name: str) -> RoleRecord:
    """Return one role; `NotFound` otherwise."""
    with session():
        return _record(_row(name))


def search(text: str, page: int, per_page: int) -> Page[RoleRecord]:
    """Return one page of the roles with the text in their name or description, sorted by name."""
    query = Role.select()
    if text:
        query = query.where(Role.name.contains(text) | Role.description.contains(text))
    return fetch_page(query.order_by(Role.name), page, per_page, convert=_records)


def count_holders(names: Iterable[str]) -> dict[str, int]:
    """Return the number of users of each of these roles."""
    wanted, other = list(names), UserRole.alias()
    # Much faster than to count distinct users: few have a role twice, given here and by groups.
    rows: Any = UserRole.select(UserRole.role, fn.COUNT(UserRole.role)).group_by(UserRole.role)
    is_same_role = (other.user == UserRole.user) & (other.role == UserRole.role) & ~other.from_groups
    of_groups = UserRole.from_groups & UserRole.user.in_(Identity.select(Identity.user))
    with read_transaction():
        found: Any = Role.select(Role.name, Role.id).where(Role.name.in_(wanted))
        ids: dict[str, int] = dict(found.tuples())
        holders = Counter(dict(rows.where(UserRole.role.in_(list(ids.values()))).tuples()))
        holders.subtract(dict(rows.join(other, on=is_same_role).where(of_groups).tuples()))
    return {name: holders[ids[name]] if name in ids else 0 for name in wanted}


def with_http_rights(names: Iterable[str]) -> set[str]:
    """Return the names of those roles that allow anything in the REST API, such as `admin`."""
    with session():
        given = policy_reader.role_policies(set(names))
    return {name for name, role in given.items() if any(right.is_http_right for right in role.rights)}


def named(names: Iterable[str]) -> list[Role]:
    """Return the rows of these roles, each once; `InvalidInput` names the position of an unknown role."""
    wanted = list(dict.fromkeys(names))
    found = {role.name: role for role in Role.select().where(Role.name.in_(wanted))} if wanted else {}
    for position, name in enumerate(wanted):
        if name not in found:
            raise invalid(f"roles[{position}]", "no such role")
    return [found[name] for name in wanted]


def repair_built_in(actor: Actor) -> None:
    """Restore the permissions and client ids of damaged built-in roles, which no request can change."""
    with policy_change() as announce:
        for name, (_, permissions) in _BUILT_IN.items():
            row: Role | None = Role.get_or_none(Role.name == name)
            if row and (before := _record(row)).damage:
                PermissionRow.delete().where(PermissionRow.role == row).execute()
                insert_permissions(permissions, role_id=row.id)
                row.client_ids = ()
                row.save()
                audit.record(actor, "role.repair", f"role:{name}", audit_fields(before), audit_fields(_record(row)))
                announce(ChangeKind.ROLE, name)


def insert_built_in() -> None:
    """Create the built-in roles at the first start."""
    with policy_change() as announce:
        for name, (description, permissions) in _BUILT_IN.items():
            _insert(name, description, permissions, (), built_in=True)
            announce(ChangeKind.ROLE, name)


def insert_permissions(permissions: Iterable[Permission], **owner: int) -> None:
    """Store permissions of one owner, given as `user_id=` or `role_id=`."""
    for batch in chunked((asdict(each) | owner for each in permissions), 500):
        PermissionRow.insert_many(batch).execute()


def _insert(
    name: str, description: str, permissions: Iterable[Permission], client_ids: tuple[str, ...], *, built_in: bool
) -> RoleRecord:
    now = datetime.now(UTC)
    row = Role.create(
        name=name,
        description=description,
        built_in=built_in,
        client_ids=client_ids,
        created_at=now,
        updated_at=now,
    )
    insert_permissions(permissions, role_id=row.id)
    return _record(row)


def _row(name: str) -> Role:
    row: Role | None = Role.get_or_none(Role.name == name)
    if row is None:
        raise NotFound("no such role", "role-not-found")
    return row


def _row_for_change(actor: Actor, name: str) -> Role:
    row = _row(name)
    if row.built_in:
        raise Conflict(f"the role {name} is built in and cannot be changed; create another role", "role-built-in")
    actor.must_hold(policy_reader.rights_of_roles([name]))
    # A change of a role changes every user of it, through its deny rules too.
    actor.must_hold(policy_reader.rights_of_holders(name))
    return row


def _record(row: Role) -> RoleRecord:
    return _records([row])[0]


def _records(rows: list[Role]) -> list[RoleRecord]:
    own = policy_reader.permissions_of(PermissionRow.role, Role.id, Role.id.in_([row.id for row in rows]))
    policies = [
        policy_reader.role_policy(own.get(row.id, policy_reader.NO_STORED_PERMISSIONS), row.client_ids) for row in rows
    ]
    return [
        from_row(RoleRecord, row, permissions=policy.permissions, client_ids=policy.client_ids, damage=policy.damage)
        for row, policy in zip(rows, policies, strict=True)
    ]
