"""Registrations: reading, searching, creating and counting them."""

from __future__ import annotations

import secrets
import uuid
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from peewee import Case, chunked, fn

from authsvc.activity import audit
from authsvc.addresses import normalize_address
from authsvc.credentials.usernames import skeleton
from authsvc.errors import NotFound
from authsvc.notifications import outbox
from authsvc.notifications.outbox import EventType
from authsvc.policy.actors import SERVICE
from authsvc.policy.allowed_client_ids import can_be_literal
from authsvc.record_json import from_row
from authsvc.storage.database import DATABASE_ERRORS, database_time, session
from authsvc.storage.fields import UnreadableJson
from authsvc.storage.identifiers import find_id
from authsvc.storage.models import User
from authsvc.storage.paging import Page, fetch_page, in_order
from registry.look_alikes import similar_names
from registry.models import Registration
from registry.states import HeldReason, Status

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

# Without letters and digits that are easily confused when read aloud.
_PAIRING_ALPHABET = "23456789ABCDEFGHJKMNPQRSTVWXYZ"
_BATCH = 500
MAX_CLIENT_IDS = 10
MAX_CLIENT_ID_LENGTH = 200
MAX_ADDRESSES = 10
# Stored among the client ids for attempts whose client id is not known.
NO_CLIENT_ID = ""


class RegistrationKind(StrEnum):
    IMPLICIT = "implicit"  # by a refused CONNECT
    EXPLICIT = "explicit"  # over REST


@dataclass(frozen=True, slots=True)
class RegistrationRecord:
    """A registration as administrators see it, without its password hash and public key."""

    id: str
    username: str
    kind: str
    status: str
    recorded_while_locked: bool
    client_ids: list[str]
    suggested_client_ids: list[str]
    attempts: int
    conflicts: int
    conflict_addresses: list[str]
    similar_to: list[str]
    held_reason: str | None
    first_seen: datetime
    last_seen: datetime
    pairing_code: str | None
    csr_fingerprint: str | None
    has_password: bool
    address: str | None
    context: Any
    requested_roles: list[str]
    requested_permissions: list[dict[str, str]]
    starting_roles: list[str]
    starting_permissions: list[dict[str, str]]
    decided_by: str | None
    decided_at: datetime | None
    reason: str | None
    damage: list[str]

    @property
    def literal_client_ids(self) -> list[str]:
        """The recorded client ids that can be used as allowed client ids."""
        return _literal(self.client_ids)


@dataclass(frozen=True, slots=True)
class NewRegistration:
    """A registration to be recorded: username, credentials and requested rights."""

    username: str
    kind: RegistrationKind
    password_hash: str | None = None
    public_key: str | None = None
    csr_fingerprint: str | None = None
    address: str | None = None
    client_ids: tuple[str, ...] = ()
    attempts: int = 1
    conflicts: int = 0
    context: Any = None
    requested_roles: tuple[str, ...] = ()
    requested_permissions: tuple[dict[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class StartingRights:
    """Rights that a registration gets with any grant, from its unlock window, enrolment key or preauthorization.

    `held_reason` says why a preauthorization did not grant it at once.
    """

    roles: tuple[str, ...] = ()
    permissions: tuple[dict[str, str], ...] = ()
    held_reason: HeldReason | None = None


NO_STARTING_RIGHTS = StartingRights()


def get(registration_id: str) -> RegistrationRecord:
    with session():
        return record_of(row_of(registration_id))


def find(given: str) -> str:
    """Return the id of the registration with this id, this beginning of its id, or this username."""
    return find_id(Registration.select(), Registration.id, Registration.username == given, given, "registration")


def get_many(ids: Iterable[str]) -> list[RegistrationRecord]:
    """Return the registrations with these ids, in this order, without those that do not exist."""
    wanted = list(dict.fromkeys(ids))
    with session():
        rows = [
            row for batch in chunked(wanted, _BATCH) for row in Registration.select().where(Registration.id.in_(batch))
        ]
        found = {record.id: record for record in _records_of(rows)}
    return [found[id_] for id_ in wanted if id_ in found]


RegistrationSort = Literal[
    "lastSeen",
    "-lastSeen",
    "firstSeen",
    "-firstSeen",
    "username",
    "-username",
    "attempts",
    "-attempts",
]
_SORTED_BY = {
    "lastSeen": Registration.last_seen,
    "firstSeen": Registration.first_seen,
    "username": Registration.username,
    "attempts": Registration.attempts,
}


@dataclass(frozen=True, slots=True)
class RegistrationFilter:
    """The registrations to list; an empty field matches all.

    `text` is part of the username. `after` and `before` compare with the first contact.
    """

    status: str = ""
    text: str = ""
    kind: str = ""
    after: datetime | None = None
    before: datetime | None = None


def search(
    wanted: RegistrationFilter, page: int, per_page: int, sort: RegistrationSort = "-lastSeen"
) -> Page[RegistrationRecord]:
    """Return one page of registrations, latest contact first. A `sort` that begins with `-` is descending."""
    query = Registration.select()
    if wanted.status:
        query = query.where(Registration.status == wanted.status)
    if wanted.text:
        query = query.where(Registration.username.contains(wanted.text))
    if wanted.kind:
        query = query.where(Registration.kind == wanted.kind)
    if wanted.after is not None:
        query = query.where(Registration.first_seen >= wanted.after)
    if wanted.before is not None:
        query = query.where(Registration.first_seen < wanted.before)
    return fetch_page(in_order(query, sort, _SORTED_BY, Registration.id), page, per_page, convert=_records_of)


@dataclass(frozen=True, slots=True)
class Pending:
    """The number of pending registrations, and the seconds since the oldest was first seen; 0 without one."""

    count: int
    age: float


def pending() -> Pending:
    with session():
        query: Any = Registration.select(fn.COUNT(Registration.id), fn.MIN(Registration.first_seen))
        count, oldest = query.where(Registration.status == Status.PENDING).tuples().get()
        return Pending(count, (database_time() - oldest).total_seconds() if oldest else 0.0)


def count_pending() -> int:
    return pending().count


def count_pending_or_none() -> int | None:
    """Return the number of pending registrations, None if the database does not answer."""
    try:
        return count_pending()
    except DATABASE_ERRORS:
        return None


def count_pending_while_locked(*, never_came_back: bool = False) -> int:
    """Return how many pending registrations were recorded while locked; optionally only those of a single attempt."""
    query = Registration.select().where(Registration.status == Status.PENDING, Registration.recorded_while_locked)
    if never_came_back:
        query = query.where(Registration.attempts == 1)
    with session():
        count: int = query.count()
        return count


def evict_excess(limit: int, *, while_locked: bool) -> int:
    """Delete pending registrations until one more fits within the limit, inside a transaction; return how many.

    Registrations recorded while locked and while unlocked have separate limits. Those of a single attempt are deleted
    first, oldest first; then those with the oldest last contact.
    """
    pending = (Registration.status == Status.PENDING) & (Registration.recorded_while_locked == while_locked)
    excess = Registration.select().where(pending).count() - limit + 1
    if excess <= 0:
        return 0
    came_back = Case(None, [(Registration.attempts > 1, 1)], 0)
    order = (came_back, Registration.last_seen, Registration.first_seen, Registration.id)
    victims = Registration.select(Registration.id).where(pending).order_by(*order).limit(excess)
    deleted: int = Registration.delete().where(Registration.id.in_(victims)).execute()
    return deleted


def row_of(registration_id: str) -> Registration:
    """Return the row of a registration, or raise `NotFound`."""
    row: Registration | None = Registration.get_or_none(Registration.id == registration_id)
    if row is None:
        raise NotFound("no such registration", "registration-not-found")
    return row


def current(username: str) -> Registration | None:
    """Return the row of a username's registration unless it has expired."""
    row: Registration | None = Registration.get_or_none(
        Registration.username == username, Registration.status != Status.EXPIRED
    )
    return row


def known_names(names: Iterable[str]) -> set[str]:
    """Return the names that belong to a user or to a registration that has not expired."""
    known: set[str] = set()
    for batch in chunked(names, _BATCH):
        registered: Any = Registration.select(Registration.username).where(
            Registration.username.in_(batch), Registration.status != Status.EXPIRED
        )
        users: Any = User.select(User.username).where(User.username.in_(batch))
        known.update(name for query in (registered, users) for (name,) in query.tuples())
    return known


def is_replaceable(row: Registration) -> bool:
    """Return whether a contact that proves the preauthorization's binding replaces this registration.

    That is so if it is pending, or if it was denied as one that lacked the secret or key.
    """
    was_impostor = row.status == Status.DENIED and row.held_reason == HeldReason.BINDING_NOT_MET
    return row.status == Status.PENDING or was_impostor


def delete_replaceable(username: str) -> None:
    """Delete the registration of a username if `is_replaceable`."""
    row = current(username)
    if row and is_replaceable(row):
        row.delete_instance()
        audit.record(SERVICE, "registration.replace", f"registration:{username}", before={"status": row.status})


def create(
    new: NewRegistration,
    starting: StartingRights = NO_STARTING_RIGHTS,
    *,
    while_locked: bool,
    window_opened_at: datetime | None = None,
) -> Registration:
    """Insert a pending registration, in place of an expired one of that username, and return its row.

    `window_opened_at` identifies the unlock window that it came through, if any.
    """
    Registration.delete().where(Registration.username == new.username, Registration.status == Status.EXPIRED).execute()
    now = database_time()
    pairing_code = "".join(secrets.choice(_PAIRING_ALPHABET) for _ in range(6))
    computed = {
        "id": uuid.uuid4().hex,
        "skeleton": skeleton(new.username),
        "status": Status.PENDING,
        "recorded_while_locked": while_locked,
        "client_ids": bounded_client_ids(new.client_ids),
        "first_seen": now,
        "last_seen": now,
        "address": normalize_address(new.address),
        "pairing_code": pairing_code if new.kind is RegistrationKind.EXPLICIT else None,
        "starting_roles": starting.roles,
        "starting_permissions": starting.permissions,
        "held_reason": starting.held_reason,
        "window_opened_at": window_opened_at,
    }
    row: Registration = Registration.create(**(asdict(new) | computed))
    return row


def announce_pending(row: Registration) -> None:
    """Notify of a registration that waits for a decision, inside the transaction that creates it."""
    item = {"id": row.id, "username": row.username, "address": row.address}
    outbox.publish_in_digest(EventType.REGISTRATION_PENDING, item)


def count_contact(
    row: Registration, attempts: int, conflicts: int, client_ids: tuple[str, ...] = (), addresses: tuple[str, ...] = ()
) -> None:
    """Add further contact to a registration; `addresses` are the source addresses of the conflicts."""
    Registration.update(
        attempts=Registration.attempts + attempts,
        conflicts=Registration.conflicts + conflicts,
        client_ids=bounded_client_ids((*row.client_ids, *client_ids)),
        conflict_addresses=bounded_addresses((*(row.conflict_addresses or ()), *addresses)),
        last_seen=database_time(),
    ).where(Registration.id == row.id).execute()


def bounded_addresses(addresses: Iterable[str]) -> list[str]:
    """Return the first `MAX_ADDRESSES` different addresses."""
    return list(dict.fromkeys(addresses))[:MAX_ADDRESSES]


def bounded_client_ids(client_ids: tuple[str, ...]) -> list[str]:
    """Return the first `MAX_CLIENT_IDS` different client ids, each cut to `MAX_CLIENT_ID_LENGTH` characters."""
    shortened = (client_id[:MAX_CLIENT_ID_LENGTH] for client_id in client_ids)
    return list(dict.fromkeys(shortened))[:MAX_CLIENT_IDS]


def record_of(row: Registration) -> RegistrationRecord:
    return _records_of([row])[0]


def _records_of(rows: list[Registration]) -> list[RegistrationRecord]:
    similar = similar_names(row.username for row in rows)
    return [_record(row, similar[row.username]) for row in rows]


def _record(row: Registration, similar: list[str]) -> RegistrationRecord:
    return from_row(
        RegistrationRecord,
        row,
        client_ids=[client_id for client_id in row.client_ids if client_id != NO_CLIENT_ID],
        suggested_client_ids=_suggested_client_ids(row),
        conflict_addresses=row.conflict_addresses or [],
        similar_to=similar,
        has_password=row.password_hash is not None,
        context=None if isinstance(row.context, UnreadableJson) else row.context,
        starting_permissions=row.starting_permissions or [],
    )


def _suggested_client_ids(row: Registration) -> list[str]:
    """Return the client id of all attempts over MQTT if there were two or more, all with the same one."""
    is_only_one = (
        row.kind == RegistrationKind.IMPLICIT and row.attempts > 1 and not row.conflicts and len(row.client_ids) == 1
    )
    return _literal(row.client_ids) if is_only_one else []


def _literal(client_ids: list[str]) -> list[str]:
    # A client id of the maximum length may have been cut.
    complete = (one for one in client_ids if one != NO_CLIENT_ID and len(one) < MAX_CLIENT_ID_LENGTH)
    return [one for one in complete if can_be_literal(one)]
