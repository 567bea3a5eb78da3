"""Grant, deny, delete and expire registrations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from authsvc.accounts import users
from authsvc.accounts.bulk import Failure, apply_to_each
from authsvc.accounts.roles import with_http_rights
from authsvc.activity import audit
from authsvc.errors import Conflict, FieldError, Locked
from authsvc.pki import certificates, csr
from authsvc.policy.actors import SERVICE
from authsvc.policy.permissions import Permission
from authsvc.policy.snapshot import GrantType
from authsvc.record_json import audit_fields
from authsvc.storage import policy_reader
from authsvc.storage.changes import policy_change
from authsvc.storage.database import database_time, session, transaction
from authsvc.storage.models import Role, User
from registry import lock, records, states
from registry.models import Preauthorization, Registration
from registry.states import Event, HeldReason, Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from authsvc.pki.authorities import SigningPolicy
    from authsvc.policy.actors import Actor

# Long enough for an administrator to see whose registration expired, short enough that a flood does not accumulate.
_EXPIRED_KEPT = timedelta(days=7)
_HELD_BECAUSE = {
    HeldReason.BINDING_NOT_MET: "it lacks the secret or key that the name is bound to",
    HeldReason.TRIED_BEFORE: "somebody tried the name before it was preauthorized",
}


@dataclass(frozen=True, slots=True)
class Grant:
    """The rights that a grant adds to a registration's starting rights, and the risks that the actor accepts.

    A grant `in_bulk` is refused if it would give any right over this service.
    """

    roles: tuple[str, ...] = ()
    permissions: tuple[Permission, ...] = ()
    accept_requested: bool = False
    accept_conflicts: bool = False
    accept_http_rights: bool = False
    in_bulk: bool = False
    client_ids: tuple[str, ...] = ()


class ConfirmationNeeded(Conflict):
    """The grant needs a confirmation: the request must set `field` to true."""

    def __init__(self, message: str, code: str, field: str) -> None:
        super().__init__(message, code)
        self.errors = (FieldError(field, "must be true to grant this registration"),)


def grant(actor: Actor, registration_id: str, given: Grant, signing: SigningPolicy) -> records.RegistrationRecord:
    """Create the user with its roles, permissions and certificate in one transaction.

    Errors: `Locked` if the registration was recorded while locked and the registry is still locked, or if its unlock
    window is full; `Conflict` if it is not pending or a user has its name; `Forbidden` if it would get rights that the
    actor lacks; `ConfirmationNeeded` if another device may be meant, or if it would get rights over this service that
    the grant does not name.
    """
    with policy_change():
        lock_state = lock.state_for_update()
        row = records.row_of(registration_id)
        states.next_status(Status(row.status), Event.GRANT)
        if row.recorded_while_locked:
            if lock_state.locked:
                raise Locked("the client registry is locked", "registry-locked")
            row.window_opened_at = lock_state.opened_at
        lock.require_capacity(lock_state, row.window_opened_at)
        if row.damage:
            problem = f"the registration of {row.username} is damaged in the database ({', '.join(row.damage)})"
            raise Conflict(f"{problem}; delete it, so that the device registers again", "registration-damaged")
        if not given.accept_conflicts:
            _check_is_meant(row)
        create_user(actor, row, given, signing)
        return records.record_of(row)


def grant_many(
    actor: Actor, grants: Mapping[str, Grant], signing: SigningPolicy
) -> tuple[list[records.RegistrationRecord], list[Failure]]:
    """Grant registrations by id, each in its own transaction, without accepting any risk.

    Requested rights are accepted only if all registrations that request rights request the same ones.
    """
    differing = _with_different_requests([id_ for id_, given in grants.items() if given.accept_requested])

    def grant_one(registration_id: str) -> records.RegistrationRecord:
        if registration_id in differing:
            raise Conflict("the registrations request different things; grant each alone", "bulk-requests-differ")
        given = replace(grants[registration_id], in_bulk=True, accept_conflicts=False, accept_http_rights=False)
        return grant(actor, registration_id, given, signing)

    return apply_to_each(grants, grant_one)


def deny(actor: Actor, registration_id: str, reason: str | None) -> records.RegistrationRecord:
    """Deny a registration and delete its credentials. The username stays denied until the registration is deleted."""
    with transaction():
        lock.state_for_update()
        row = records.row_of(registration_id)
        row.reason, row.password_hash, row.public_key = reason, None, None
        _decide(row, Event.DENY, actor)
        audit.record(actor, "registration.deny", f"registration:{row.username}", after={"reason": reason})
        return records.record_of(row)


def delete(actor: Actor, registration_id: str) -> None:
    """Delete a registration, so that its username can register again; the user of a granted one stays."""
    with transaction():
        lock.state_for_update()
        row = records.row_of(registration_id)
        row.delete_instance()
        audit.record(actor, "registration.delete", f"registration:{row.username}", before={"status": row.status})


def create_user(actor: Actor, row: Registration, given: Grant, signing: SigningPolicy) -> None:
    """Turn a pending registration into a user, inside the caller's `policy_change`."""
    if users.exists(row.username):
        raise Conflict(f"a user named {row.username} exists", "user-exists")
    credentials = {GrantType.PASSWORD: row.password_hash, GrantType.CERTIFICATE: row.public_key}
    requested_roles = row.requested_roles if given.accept_requested else ()
    requested_permissions = row.requested_permissions if given.accept_requested else ()
    unnamed_permissions = (*(row.starting_permissions or ()), *requested_permissions)
    wanted = users.UserChanges(
        grant_types=frozenset(grant_type for grant_type, credential in credentials.items() if credential),
        roles=tuple(dict.fromkeys((*existing_roles(row.starting_roles), *given.roles, *requested_roles))),
        permissions=(*given.permissions, *(Permission.from_fields(**fields) for fields in unnamed_permissions)),
        client_ids=given.client_ids,
    )
    _check_http_rights(actor, row, wanted, given)
    record = users.create_with_hash(actor, row.username, wanted, row.password_hash, users.Origin.REGISTRATION)
    # However it was granted: a preauthorization for the name of a user has no purpose.
    Preauthorization.delete().where(Preauthorization.username == row.username).execute()
    if row.public_key:
        issued = certificates.issue(actor, row.username, csr.read_public_key(row.public_key), signing)
        row.certificate, row.ca_certificate = issued.record.certificate, issued.ca_certificate
    row.user = User.get(User.username == row.username)
    _decide(row, Event.GRANT, actor)
    user_fields = audit_fields(record)
    after = {name: user_fields[name] for name in ("roles", "permissions", "clientIds")}
    audit.record(actor, "registration.grant", f"registration:{row.username}", after=after)


def expire(ttl_hours: int) -> int:
    """Expire pending registrations first seen more than `ttl_hours` ago; return how many.

    Registrations that expired long ago are deleted.
    """
    with transaction():
        lock.state_for_update()
        now = database_time()
        outdated = (Registration.status == Status.PENDING) & (
            Registration.first_seen < now - timedelta(hours=ttl_hours)
        )
        usernames = [row.username for row in Registration.select().where(outdated)]
        changes = {"status": Status.EXPIRED, "password_hash": None, "public_key": None, "decided_at": now}
        Registration.update(**changes).where(outdated).execute()
        for username in usernames:
            audit.record(SERVICE, "registration.expire", f"registration:{username}")
        long_ago = Registration.decided_at < now - _EXPIRED_KEPT
        Registration.delete().where(Registration.status == Status.EXPIRED, long_ago).execute()
        return len(usernames)


def existing_roles(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names that are still roles; the role of an old promise may have been deleted since."""
    return tuple(name for name in names if Role.select().where(Role.name == name).exists())


def _decide(row: Registration, event: Event, actor: Actor) -> None:
    row.status = states.next_status(Status(row.status), event)
    row.decided_by = actor.username
    row.decided_at = database_time()
    row.save()


def _check_http_rights(actor: Actor, row: Registration, wanted: users.UserChanges, given: Grant) -> None:
    """Refuse rights that the actor lacks, and rights over this service in bulk or without a name or confirmation."""
    roles, permissions = wanted["roles"], wanted["permissions"]
    actor.must_hold([*permissions, *policy_reader.rights_of_roles(set(roles))])
    risky_roles = with_http_rights(roles)
    risky_permissions = {permission for permission in permissions if permission.is_http_right}
    if given.in_bulk and (risky_roles or risky_permissions):
        message = f"{row.username} would get rights over this service (http); grant it alone"
        raise Conflict(message, "bulk-http-rights")
    unnamed = sorted(risky_roles - set(given.roles))
    unnamed += ["permissions of its own"] if risky_permissions - set(given.permissions) else []
    if unnamed and not given.accept_http_rights:
        message = f"{row.username} would get rights over this service (http) that the grant does not name"
        raise ConfirmationNeeded(f"{message}: {', '.join(unnamed)}", "registration-http-rights", "acceptHttpRights")


def _check_is_meant(row: Registration) -> None:
    """Raise `ConfirmationNeeded` if the username may be meant for another device than the registered one."""
    if row.conflicts:
        attempts = f"{row.conflicts} attempt{'' if row.conflicts == 1 else 's'}"
        addresses = f" from {', '.join(row.conflict_addresses)}" if row.conflict_addresses else ""
        message = f"{attempts}{addresses} under the name {row.username} came with another password or key"
        raise ConfirmationNeeded(message, "registration-has-conflicts", "acceptConflicts")
    if row.held_reason in _HELD_BECAUSE:
        reason = _HELD_BECAUSE[HeldReason(row.held_reason)]
        message = f"{row.username} is preauthorized, and this may be another device: {reason}"
        raise ConfirmationNeeded(message, "registration-held", "acceptConflicts")


def _with_different_requests(ids: list[str]) -> frozenset[str]:
    """Return the ids of the registrations that request rights, unless all of them request the same."""
    columns = (Registration.id, Registration.requested_roles, Registration.requested_permissions)
    with session():
        rows = list(Registration.select(*columns).where(Registration.id.in_(ids)))
    requests = {
        row.id: (
            frozenset(row.requested_roles),
            frozenset(Permission.from_fields(**words) for words in row.requested_permissions),
        )
        for row in rows
        if row.requested_roles or row.requested_permissions
    }
    return frozenset(requests) if len(set(requests.values())) > 1 else frozenset()
