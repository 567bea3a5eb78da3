"""Writes a plan: all of it in one transaction, under one policy version, with one audit event for each change."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from peewee import chunked

from authsvc.accounts import browser_sessions, roles, users
from authsvc.activity import audit, disconnects
from authsvc.credentials.usernames import skeleton
from authsvc.pki import certificates
from authsvc.pki.ca import RevocationReason
from authsvc.policy_file.document import PolicyRole
from authsvc.policy_file.plan import Action, Kind, make_plan
from authsvc.storage import policy_reader
from authsvc.storage.changes import ChangeKind, current_version, policy_change
from authsvc.storage.database import insert_rows
from authsvc.storage.models import Certificate, PermissionRow, Role, User, UserRole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from authsvc.policy.actors import Actor
    from authsvc.policy_file.document import PolicyDocument, PolicyUser
    from authsvc.policy_file.plan import Permit, Plan, PlannedChange, PlanOptions
    from authsvc.storage.changes import Announce

_BATCH = 500


def apply(actor: Actor, wanted: PolicyDocument, options: PlanOptions, permit: Permit | None = None) -> Plan:
    """Put the users and roles of a document into force and return what was changed; the errors are those of the plan.

    `actor.policy_file` is noted in each audit event.
    """
    return in_one_transaction(
        lambda: make_plan(actor, wanted, options, permit), lambda plan, announce: write(actor, plan, announce)
    )


def in_one_transaction(make: Callable[[], Plan], write_all: Callable[[Plan, Announce], None]) -> Plan:
    """Make a plan, then write it in one policy change; without changes the policy version stays.

    Other changes wait only while the plan is written. If one was made since the plan, the plan is made again.
    """
    plan = make()
    if plan.changes:
        with policy_change() as announce:
            if current_version() != plan.version + 1:
                plan = make()
            write_all(plan, announce)
    return plan


def write(actor: Actor, plan: Plan, announce: Announce) -> None:
    """Write the changes of roles and users. Call it in the policy change in which the plan is valid."""
    for change in (*plan.of(Kind.ROLE, Action.CREATE), *plan.of(Kind.ROLE, Action.CHANGE)):
        role = change.after
        if isinstance(role, PolicyRole) and change.before is None:
            roles.create(actor, role.name, role.description, role.permissions, role.client_ids)
        elif isinstance(role, PolicyRole):
            fields = {"description", "permissions", "client_ids"}
            roles.change(actor, role.name, roles.RoleChanges(**{name: getattr(role, name) for name in fields}))  # type: ignore[typeddict-item]
    stored_roles: Any = Role.select(Role.name, Role.id).tuples()
    role_ids: dict[str, int] = dict(stored_roles)
    _create_users(actor, [after for change in plan.of(Kind.USER, Action.CREATE) if (after := change.user[1])], role_ids)
    _change_users(actor, plan.of(Kind.USER, Action.CHANGE), role_ids)
    _remove_users(actor, plan.of(Kind.USER, Action.REMOVE))
    announce(ChangeKind.USER, *(change.name for change in plan.changes if change.kind is Kind.USER))
    for change in plan.of(Kind.ROLE, Action.REMOVE):
        roles.delete(actor, change.name)


def _create_users(actor: Actor, created: list[PolicyUser], role_ids: dict[str, int]) -> None:
    now = datetime.now(UTC)
    insert_rows(
        User,
        (
            {
                "username": user.username,
                "skeleton": skeleton(user.username),
                "password_hash": user.password_hash,
                "enabled": user.enabled,
                "grant_types": user.grant_types,
                "client_ids": user.client_ids,
                "origin": users.Origin.ADMINISTRATOR,
                "created_at": now,
                "updated_at": now,
            }
            for user in created
        ),
    )
    ids = {name: row_id for name, row_id, _ in _rows(user.username for user in created)}
    _insert_roles(created, ids, role_ids)
    _insert_permissions(created, ids)
    events = ((f"user:{user.username}", None, _audited(user)) for user in created)
    audit.record_many(actor, "user.create", events)


def _change_users(actor: Actor, changes: list[PlannedChange], role_ids: dict[str, int]) -> None:
    pairs = [(before, after, change) for change in changes for before, after in [change.user] if before and after]
    updated = {
        name: (row_id, updated_at) for name, row_id, updated_at in _rows(after.username for _, after, _ in pairs)
    }
    ids = {name: row_id for name, (row_id, _) in updated.items()}
    ended: dict[str, list[str]] = {}
    events = []
    for before, after, change in pairs:
        row_id, updated_at = updated[after.username]
        fields: dict[Any, Any] = {
            User.enabled: after.enabled,
            User.grant_types: after.grant_types,
            User.client_ids: after.client_ids,
            User.updated_at: policy_reader.next_update(updated_at),
        }
        if change.sets_password:
            fields[User.password_hash] = after.password_hash
        User.update(fields).where(User.id == row_id).execute()
        cause = users.cause_to_end_sessions(before, after, new_password=change.sets_password)
        if cause:
            ended.setdefault(cause, []).append(after.username)
        earlier, later = audit.difference(_audited(before), _audited(after))
        if change.sets_password:
            later["password"] = "changed"  # noqa: S105 - text of the audit event
        events.append((f"user:{after.username}", earlier, later))
    with_other_roles = [after for before, after, _ in pairs if before.roles != after.roles]
    with_other_permissions = [
        after for before, after, change in pairs if change.damaged or before.permissions != after.permissions
    ]
    for batch in chunked(with_other_roles, _BATCH):
        of_batch = UserRole.user.in_([ids[user.username] for user in batch])
        UserRole.delete().where(of_batch, ~UserRole.from_groups).execute()
    for batch in chunked(with_other_permissions, _BATCH):
        PermissionRow.delete().where(PermissionRow.user.in_([ids[user.username] for user in batch])).execute()
    _insert_roles(with_other_roles, ids, role_ids)
    _insert_permissions(with_other_permissions, ids)
    for cause, usernames in ended.items():
        disconnects.order(cause, *usernames)
        browser_sessions.end_all(*usernames)
    audit.record_many(actor, "user.change", events)


def _remove_users(actor: Actor, changes: list[PlannedChange]) -> None:
    now = datetime.now(UTC)
    removed = [before for change in changes if (before := change.user[0])]
    for batch in chunked([user.username for user in removed], _BATCH):
        query: Any = Certificate.select(Certificate.username).distinct()
        for (username,) in list(query.where(Certificate.username.in_(batch), Certificate.not_after > now).tuples()):
            certificates.revoke_all(actor, username, RevocationReason.CESSATION_OF_OPERATION)
        disconnects.order(disconnects.USER_REMOVED, *batch)
        User.delete().where(User.username.in_(batch)).execute()
    audit.record_many(actor, "user.delete", ((f"user:{user.username}", _audited(user), None) for user in removed))


def _rows(usernames: Iterable[str]) -> Iterator[tuple[str, int, datetime]]:
    for batch in chunked(usernames, _BATCH):
        query: Any = User.select(User.username, User.id, User.updated_at).where(User.username.in_(batch))
        yield from query.tuples()


def _insert_roles(holders: list[PolicyUser], ids: dict[str, int], role_ids: dict[str, int]) -> None:
    insert_rows(
        UserRole,
        ({"user": ids[user.username], "role": role_ids[role]} for user in holders for role in user.roles),
    )


def _insert_permissions(holders: list[PolicyUser], ids: dict[str, int]) -> None:
    insert_rows(
        PermissionRow,
        ({"user": ids[user.username], **each.fields()} for user in holders for each in user.permissions),
    )


def _audited(user: PolicyUser) -> audit.Fields:
    """Return the fields of a user in the form of `record_json.audit_fields`."""
    return {
        "enabled": user.enabled,
        "grantTypes": sorted(user.grant_types),
        "roles": list(user.roles),
        "permissions": [each.fields() for each in user.permissions],
        "clientIds": list(user.client_ids),
        "hasPassword": user.password_hash is not None,
    }
