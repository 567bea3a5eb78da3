"""What an administrator does with a registration: grant, deny, delete; and what time does: expire."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from authsvc import audit, certificates, signing_requests, users
from authsvc.actors import SERVICE
from authsvc.errors import AuthsvcError, Conflict
from authsvc.snapshot import GrantType
from authsvc.storage.changes import policy_change
from authsvc.storage.database import database_time, transaction
from authsvc.storage.models import Role, User
from authsvc.stored import permission
from registry import records, states, window
from registry.models import Registration
from registry.states import Event, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from authsvc.actors import Actor
    from authsvc.authorities import Issuing
    from authsvc.permissions import Permission

# Long enough for an administrator to see who asked in vain; short enough that a flood leaves no sediment.
_EXPIRED_KEPT = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a grant gives, beside the roles that a window or key let it start with. Nothing else is ever given."""

    roles: tuple[str, ...] = ()
    permissions: tuple[Permission, ...] = ()
    accept_requested: bool = False
    client_ids: tuple[str, ...] = ()


class Failure(NamedTuple):
    """One of many that could not be done, and why."""

    id: str
    error: AuthsvcError


def grant(actor: Actor, registration_id: str, given: Grant, issuing: Issuing) -> records.Record:
    """Make the user with its roles, permissions and certificate, all at once or not at all.

    `Locked` for one that was recorded while locked as long as the registry is locked; `Conflict` if it is not pending
    or the name was taken meanwhile; `Forbidden` if it would hold more than the actor.
    """
    with policy_change():
        window_state = window.hold()
        row = records.row_of(registration_id)
        states.after(Status(row.status), Event.GRANT)
        if row.recorded_while_locked and window_state.locked:
            window.require_unlocked()
        admit(actor, row, given, issuing)
        return records.record_of(row)


def deny(actor: Actor, registration_id: str, reason: str | None) -> records.Record:
    """Refuse it for good, until it is deleted; what it proved to hold is forgotten."""
    with transaction():
        window.hold()
        row = records.row_of(registration_id)
        _move(row, Event.DENY, actor, reason=reason, password_hash=None, public_key=None)
        audit.record(actor, "registration.deny", f"registration:{row.username}", after={"reason": reason})
        return records.record_of(row)


def delete(actor: Actor, registration_id: str) -> None:
    """Forget it, so that the name may ask again; a user that came of it stays."""
    with transaction():
        window.hold()
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


def admit(actor: Actor, row: Registration, given: Grant, issuing: Issuing) -> None:
    """Turn a pending registration into a user, inside the caller's `policy_change`."""
    if users.exists(row.username):
        raise Conflict(f"a user named {row.username} exists", "user-exists")
    wanted = users.UserChanges(
        grant_types=_grant_types(row),
        roles=_roles(row, given),
        permissions=_permissions(row, given),
        client_ids=given.client_ids,
    )
    record = users.create_with_hash(actor, row.username, wanted, row.password_hash)
    if row.public_key:
        issued = certificates.issue(actor, row.username, signing_requests.read_public_key(row.public_key), issuing)
        row.certificate, row.ca_certificate = issued.record.certificate, issued.ca_certificate
    row.user = User.get(User.username == row.username)
    _move(row, Event.GRANT, actor)
    given_facts = users.facts(record)
    facts = {name: given_facts[name] for name in ("roles", "permissions", "clientIds")}
    audit.record(actor, "registration.grant", f"registration:{row.username}", after=facts)


def expire(ttl_hours: int) -> int:
    """Expire pending registrations that were first seen longer ago, however often they came back; return how many."""
    with transaction():
        window.hold()
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
    return (*given.permissions, *(permission(**words) for words in requested))
