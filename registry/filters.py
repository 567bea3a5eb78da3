"""Deny or delete all registrations that match a filter, in one transaction with one audit event."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from peewee import chunked
from pydantic.alias_generators import to_camel

from authsvc.activity import audit
from authsvc.errors import invalid
from authsvc.storage.database import database_time, session, transaction
from registry import lock, states
from registry.models import Registration
from registry.states import Event, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from authsvc.policy.actors import Actor

_BATCH = 500


@dataclass(frozen=True, slots=True)
class Filter:
    """A registration matches if it satisfies every field that is not None; at least one field must be set.

    Patterns may contain `*`, `?` and `[...]`. One matching client id is enough for `client_id_pattern`. `after` and
    `before` compare with `first_seen`. `address` is an IP address or a network.
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
        """The fields that are set, for the audit trail."""
        fields = {to_camel(name): value for name, value in asdict(self).items() if value is not None}
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in fields.items()}


def check_network(text: str) -> str:
    """Return the text if it is an IP address or network, otherwise raise `InvalidInput`."""
    try:
        ip_network(text, strict=False)
    except ValueError:
        raise invalid("address", "must be an IP address or a network, such as 203.0.113.0/24") from None
    return text


def matching(wanted: Filter, status: Status = Status.PENDING) -> list[tuple[str, str]]:
    """Return id and username of each matching registration of this status, oldest first."""
    with session():
        return list(_matching(wanted, status))


def deny(actor: Actor, wanted: Filter, reason: str | None) -> int:
    """Deny all pending registrations that match; return how many."""
    with transaction():
        lock.state_for_update()
        found = [registration_id for registration_id, _ in _matching(wanted, Status.PENDING)]
        changes = {
            "status": states.next_status(Status.PENDING, Event.DENY),
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
    """Delete all matching registrations of this status, so that their usernames can register again; return how many."""
    with transaction():
        lock.state_for_update()
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
        names, client_ids = [row.username], [client_id for client_id in row.client_ids if client_id]
        if _any_matches(names, wanted.username_pattern) and _any_matches(client_ids, wanted.client_id_pattern):
            yield row.id, row.username


def _any_matches(texts: list[str], pattern: str | None) -> bool:
    return pattern is None or any(fnmatchcase(text, pattern) for text in texts)
