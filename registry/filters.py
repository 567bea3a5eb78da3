"""Decisions on all registrations that match a filter, in one transaction and with one audit event."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

from peewee import chunked

from authsvc.activity import audit
from authsvc.errors import invalid
from authsvc.storage.database import database_time, session, transaction
from registry import lock, states
from registry.models import Registration
from registry.states import Event, Status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from authsvc.policy.actors import Actor

_BATCH = 500


@dataclass(frozen=True, slots=True)
class Filter:
    """Which registrations: a registration matches if it fits everything that is given.

    Patterns have `*`, `?` and `[...]`, as for an unlock window. A client id pattern needs one client id that fits.
    `after` and `before` compare with the time the registration was first seen. `address` is an address or a network.
    """

    username_pattern: str | None = None
    client_id_pattern: str | None = None
    address: str | None = None
    after: datetime | None = None
    before: datetime | None = None
    max_attempts: int | None = None

    def __post_init__(self) -> None:
        if all(value is None for value in asdict(self).values()):
            raise invalid("filter", "must not be empty; usernamePattern * matches all registrations")
        if self.address is not None:
            check_network(self.address)

    @property
    def audit_fields(self) -> audit.Fields:
        """What of it is given, for the audit trail."""
        given = {
            "usernamePattern": self.username_pattern,
            "clientIdPattern": self.client_id_pattern,
            "address": self.address,
            "after": self.after and self.after.isoformat(),
            "before": self.before and self.before.isoformat(),
            "maxAttempts": self.max_attempts,
        }
        return {name: value for name, value in given.items() if value is not None}


def check_network(text: str) -> str:
    """Return an IP address or network as it is; `InvalidInput` for anything else."""
    try:
        ip_network(text, strict=False)
    except ValueError:
        raise invalid("address", "must be an IP address or a network, such as 203.0.113.0/24") from None
    return text


def matching(wanted: Filter, status: Status = Status.PENDING) -> list[tuple[str, str]]:
    """Return id and username of each registration of a status that matches, oldest first."""
    with session():
        return list(_matching(wanted, status))


def deny(actor: Actor, wanted: Filter, reason: str | None) -> int:
    """Deny all pending registrations that match and return how many; they stay denied until they are deleted."""
    denied = states.after(Status.PENDING, Event.DENY)
    with transaction():
        lock.hold()
        found = [registration_id for registration_id, _ in _matching(wanted, Status.PENDING)]
        changes = {
            "status": denied,
            "decided_by": actor.username,
            "decided_at": database_time(),
            "reason": reason,
            "password_hash": None,
            "public_key": None,
        }
        for batch in chunked(found, _BATCH):
            Registration.update(**changes).where(Registration.id.in_(batch)).execute()
        after = {"filter": wanted.audit_fields, "count": len(found), "reason": reason}
        audit.record(actor, "registration.deny", "registrations", after=after)
    return len(found)


def delete(actor: Actor, wanted: Filter, status: Status) -> int:
    """Delete all registrations of a status that match and return how many; their names may then ask again."""
    with transaction():
        lock.hold()
        found = [registration_id for registration_id, _ in _matching(wanted, status)]
        for batch in chunked(found, _BATCH):
            Registration.delete().where(Registration.id.in_(batch)).execute()
        before = {"filter": wanted.audit_fields, "count": len(found), "status": status}
        audit.record(actor, "registration.delete", "registrations", before=before)
    return len(found)


def _matching(wanted: Filter, status: Status) -> Iterator[tuple[str, str]]:
    query = Registration.select(
        Registration.id, Registration.username, Registration.client_ids, Registration.address
    ).where(Registration.status == status)
    if wanted.after is not None:
        query = query.where(Registration.first_seen >= wanted.after)
    if wanted.before is not None:
        query = query.where(Registration.first_seen < wanted.before)
    if wanted.max_attempts is not None:
        query = query.where(Registration.attempts <= wanted.max_attempts)
    network = ip_network(wanted.address, strict=False) if wanted.address else None
    for row in query.order_by(Registration.first_seen, Registration.id):
        if network and not (row.address and ip_address(row.address) in network):
            continue
        if _fits(row.username, wanted.username_pattern) and _any_fits(row.client_ids, wanted.client_id_pattern):
            yield row.id, row.username


def _fits(text: str, pattern: str | None) -> bool:
    return pattern is None or fnmatchcase(text, pattern)


def _any_fits(texts: Any, pattern: str | None) -> bool:
    return pattern is None or any(fnmatchcase(text, pattern) for text in texts if text)
