"""What an administrator does with a registration: grant, deny, delete; and what time does: expire."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from authsvc.accounts import users
from authsvc.accounts.roles import with_http_rights
from authsvc.activity import audit
from authsvc.errors import AuthsvcError, Conflict, FieldError
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
    from collections.abc import Callable, Iterable, Mapping

    from authsvc.pki.authorities import SigningPolicy
    from authsvc.policy.actors import Actor

# Long enough for an administrator to see who asked in vain; short enough that a flood leaves no sediment.
_EXPIRED_KEPT = timedelta(days=7)
_UNCERTAIN = {
    HeldReason.BINDING_NOT_MET: "it came without the secret or key that the name is bound to",
    HeldReason.TRIED_BEFORE: "somebody tried the name before it was preauthorized",
}


@dataclass(frozen=True, slots=True)
class Grant:
    """What a grant gives, beside what a window, key or preauthorization let it start with; and what was confirmed.

    Nothing else is ever given, and in bulk no right over this service.
    """

    roles: tuple[str, ...] = ()
    permissions: tuple[Permission, ...] = ()
    accept_requested: bool = False
    accept_conflicts: bool = False
    accept_http_rights: bool = False
    in_bulk: bool = False
    client_ids: tuple[str, ...] = ()


class ConfirmationNeeded(Conflict):
    """It can be granted, but only by somebody who says in `field` that they know what they do."""

    def __init__(self, message: str, code: str, field: str) -> None:
        super().__init__(message, code)
        self.errors = (FieldError(field, "must be true to grant this registration"),)


class Failure(NamedTuple):
    """One of many that could not be done, and why."""

    id: str
    error: AuthsvcError


def grant(actor: Actor, registration_id: str, given: Grant, issuing: SigningPolicy) -> records.Record:
    """Make the user with its roles, permissions and certificate, all at once or not at all.

    `Locked` for one that was recorded while locked as long as the registry is locked, and for one that finds no place
    in its unlock window any more; `Conflict` if it is not pending
    or the name was taken meanwhile; `Forbidden` if it would hold more than the actor; `ConfirmationNeeded` if it has
    conflicts or is held because another device may be meant, or would get rights over this service that the actor did
    not name.
    """
    with policy_change():
        window_state = lock.hold()
        row = records.row_of(registration_id)
        states.after(Status(row.status), Event.GRANT)
        if row.recorded_while_locked:
            lock.require_unlocked()
            row.window_opened_at = window_state.opened_at
        lock.require_place(window_state, row.window_opened_at)
        if row.damage:
            words = f"the registration of {row.username} is damaged in the database ({', '.join(row.damage)})"
            raise Conflict(f"{words}; delete it, so that the device asks again", "registration-damaged")
        if not given.accept_conflicts:
            _check_is_meant(row)
        admit(actor, row, given, issuing)
        return records.record_of(row)


def grant_many(
    actor: Actor, grants: Mapping[str, Grant], issuing: SigningPolicy
) -> tuple[list[records.Record], list[Failure]]:
    """Grant many by id, each on its own, and confirm nothing: what needs a closer look fails and is granted singly.

    What they request is accepted only if all that request something request the same, and never a right over this
    service.
    """
    differing = _with_different_requests([id_ for id_, given in grants.items() if given.accept_requested])

    def grant_one(registration_id: str) -> records.Record:
        if registration_id in differing:
            raise Conflict("the registrations request different things; grant each alone", "bulk-requests-differ")
        given = replace(grants[registration_id], in_bulk=True, accept_conflicts=False, accept_http_rights=False)
        return grant(actor, registration_id, given, issuing)

    return each(grants, grant_one)


def deny(actor: Actor, registration_id: str, reason: str | None) -> records.Record:
    """Refuse it for good, until it is deleted; what it proved to hold is forgotten."""
    with transaction():
        lock.hold()
        row = records.row_of(registration_id)
        _move(row, Event.DENY, actor, reason=reason, password_hash=None, public_key=None)
        audit.record(actor, "registration.deny", f"registration:{row.username}", after={"reason": reason})
        return records.record_of(row)


def delete(actor: Actor, registration_id: str) -> None:
    """Forget it, so that the name may ask again; a user that came of it stays."""
    with transaction():
        lock.hold()
        row = records.row_of(registration_id)
        row.delete_instance()
        audit.record(actor, "registration.delete", f"registration:{row.username}", before={"status": row.status})


def each(ids: Iterable[str], action: Callable[[str], records.Record]) -> tuple[list[records.Record], list[Failure]]:
    """Do the same to many, each on its own: what fails for one does not undo the others."""
    done, failed = [], []
    for registration_id in dict.fromkeys(ids):
        try:
            done.append(action(registration_id))
        except AuthsvcError as error:
            failed.append(Failure(registration_id, error))
    return done, failed


def admit(actor: Actor, row: Registration, given: Grant, issuing: SigningPolicy) -> None:
    """Turn a pending registration into a user, inside the caller's `policy_change`."""
    if users.exists(row.username):
        raise Conflict(f"a user named {row.username} exists", "user-exists")
    wanted = users.UserChanges(
        grant_types=_grant_types(row),
        roles=_roles(row, given),
        permissions=_permissions(row, given),
        client_ids=given.client_ids,
    )
    _check_http_rights(actor, row, wanted, given)
    record = users.create_with_hash(actor, row.username, wanted, row.password_hash)
    # A name that has become a user was expected no longer, however it was granted.
    Preauthorization.delete().where(Preauthorization.username == row.username).execute()
    if row.public_key:
        issued = certificates.issue(actor, row.username, csr.read_public_key(row.public_key), issuing)
        row.certificate, row.ca_certificate = issued.record.certificate, issued.ca_certificate
    row.user = User.get(User.username == row.username)
    _move(row, Event.GRANT, actor)
    given_facts = audit_fields(record)
    facts = {name: given_facts[name] for name in ("roles", "permissions", "clientIds")}
    audit.record(actor, "registration.grant", f"registration:{row.username}", after=facts)


def expire(ttl_hours: int) -> int:
    """Expire pending registrations that were first seen longer ago, however often they came back; return how many."""
    with transaction():
        lock.hold()
        now = database_time()
        waiting = Registration.status == Status.PENDING
        outdated = Registration.first_seen < now - timedelta(hours=ttl_hours)
        usernames = [row.username for row in Registration.select().where(waiting, outdated)]
        gone = {"status": Status.EXPIRED, "password_hash": None, "public_key": None, "decided_at": now}
        Registration.update(**gone).where(waiting, outdated).execute()
        for username in usernames:
            audit.record(SERVICE, "registration.expire", f"registration:{username}")
        long_ago = Registration.decided_at < now - _EXPIRED_KEPT
        Registration.delete().where(Registration.status == Status.EXPIRED, long_ago).execute()
        return len(usernames)


def _move(row: Registration, event: Event, actor: Actor, **changes: str | None) -> None:
    row.status = states.after(Status(row.status), event)
    row.decided_by = actor.username
    row.decided_at = database_time()
    for name, value in changes.items():
        setattr(row, name, value)
    row.save()


def _grant_types(row: Registration) -> frozenset[GrantType]:
    held = {GrantType.PASSWORD: row.password_hash, GrantType.CERTIFICATE: row.public_key}
    return frozenset(grant_type for grant_type, proof in held.items() if proof)


def _roles(row: Registration, given: Grant) -> tuple[str, ...]:
    requested = row.requested_roles if given.accept_requested else ()
    return tuple(dict.fromkeys((*existing_roles(row.starting_roles), *given.roles, *requested)))


def existing_roles(names: Iterable[str]) -> tuple[str, ...]:
    """Return those roles, promised some time ago, that there still are; a role that was removed gives nothing."""
    return tuple(name for name in names if Role.select().where(Role.name == name).exists())


def _permissions(row: Registration, given: Grant) -> tuple[Permission, ...]:
    requested = row.requested_permissions if given.accept_requested else ()
    unnamed = (*(row.starting_permissions or ()), *requested)
    return (*given.permissions, *(Permission.from_fields(**words) for words in unnamed))


def _check_http_rights(actor: Actor, row: Registration, wanted: users.UserChanges, given: Grant) -> None:
    """Refuse rights over this service that the actor lacks, that come in bulk, or that nobody named or confirmed."""
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
        words = f"{row.username} would get rights over this service (http) that the grant does not name"
        raise ConfirmationNeeded(f"{words}: {', '.join(unnamed)}", "registration-http-rights", "acceptHttpRights")


def _check_is_meant(row: Registration) -> None:
    """Raise `ConfirmationNeeded` if the name may be meant for another device than the one that is registered."""
    if row.conflicts:
        attempts = f"{row.conflicts} attempt{'' if row.conflicts == 1 else 's'}"
        addresses = f" from {', '.join(row.conflict_addresses)}" if row.conflict_addresses else ""
        words = f"{attempts}{addresses} under the name {row.username} came with another password or key"
        raise ConfirmationNeeded(words, "registration-has-conflicts", "acceptConflicts")
    if row.held_reason in _UNCERTAIN:
        why = _UNCERTAIN[HeldReason(row.held_reason)]
        words = f"{row.username} is preauthorized, and this may be another device: {why}"
        raise ConfirmationNeeded(words, "registration-held", "acceptConflicts")


def _with_different_requests(ids: list[str]) -> frozenset[str]:
    """Return those of the registrations that request something, unless all of them request the same."""
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
