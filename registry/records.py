"""Registrations as administrators see them, and as the registry writes them."""

from __future__ import annotations

import secrets
import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from peewee import Case, chunked

from authsvc.activity import audit
from authsvc.addresses import normalize_address
from authsvc.credentials.usernames import skeleton
from authsvc.errors import NotFound
from authsvc.policy.actors import SERVICE
from authsvc.policy.allowed_client_ids import can_be_literal
from authsvc.storage.database import database_time, session
from authsvc.storage.fields import UnreadableJson
from authsvc.storage.models import User
from authsvc.storage.paging import Page, fetch_page
from registry.look_alikes import similar_names
from registry.models import Registration
from registry.states import HeldReason, Status

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

# Without letters and digits that are taken for one another when read aloud.
_PAIRING_ALPHABET = "23456789ABCDEFGHJKMNPQRSTVWXYZ"
_BATCH = 500
MAX_CLIENT_IDS = 10
MAX_CLIENT_ID_LENGTH = 200
MAX_ADDRESSES = 10
# Stored among the client ids for attempts whose client id is not known.
NO_CLIENT_ID = ""


class RegistrationKind(StrEnum):
    """How a stranger asked: by trying to connect, or over REST."""

    IMPLICIT = "implicit"
    EXPLICIT = "explicit"


@dataclass(frozen=True, slots=True)
class Record:
    """One registration; of what its holder proved to hold, only the key's fingerprint."""

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
        """The recorded client ids that can be spelled as allowed client ids."""
        return _literal(self.client_ids)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a stranger brings: who it wants to be, what it holds, and what it asks for."""

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
class Start:
    """What a registration will hold once granted, whatever the grant names; and why nobody granted it at once."""

    roles: tuple[str, ...] = ()
    permissions: tuple[dict[str, str], ...] = ()
    held: HeldReason | None = None


NOTHING = Start()


def get(registration_id: str) -> Record:
    """Return one registration; `NotFound` otherwise."""
    with session():
        return record_of(row_of(registration_id))


def search(status: str, text: str, page: int, per_page: int) -> Page[Record]:
    """Return one page of registrations, latest contact first; of one status and with the text in the name, if given."""
    query = Registration.select()
    if status:
        query = query.where(Registration.status == status)
    if text:
        query = query.where(Registration.username.contains(text))
    return fetch_page(
        query.order_by(Registration.last_seen.desc(), Registration.id), page, per_page, convert=_records_of
    )


def count_pending() -> int:
    """Return how many registrations wait for a decision."""
    with session():
        count: int = Registration.select().where(Registration.status == Status.PENDING).count()
        return count


def count_pending_while_locked(*, never_came_back: bool = False) -> int:
    """Return how many pending registrations were recorded while locked; on request only those of a single attempt."""
    query = Registration.select().where(Registration.status == Status.PENDING, Registration.recorded_while_locked)
    if never_came_back:
        query = query.where(Registration.attempts == 1)
    with session():
        count: int = query.count()
        return count


def make_room(most: int, *, while_locked: bool) -> int:
    """Delete pending registrations until one more fits below `most`, inside a transaction; return how many.

    Those recorded while locked and those recorded while unlocked have separate limits. The oldest that never came
    back go first, then those that were not seen for longest.
    """
    pending = (Registration.status == Status.PENDING) & (Registration.recorded_while_locked == while_locked)
    excess = Registration.select().where(pending).count() - most + 1
    if excess <= 0:
        return 0
    came_back = Case(None, [(Registration.attempts > 1, 1)], 0)
    order = (came_back, Registration.last_seen, Registration.first_seen, Registration.id)
    victims = Registration.select(Registration.id).where(pending).order_by(*order).limit(excess)
    deleted: int = Registration.delete().where(Registration.id.in_(victims)).execute()
    return deleted


def row_of(registration_id: str) -> Registration:
    """Return the row of one registration; `NotFound` otherwise."""
    row: Registration | None = Registration.get_or_none(Registration.id == registration_id)
    if row is None:
        raise NotFound("no such registration", "registration-not-found")
    return row


def current(username: str) -> Registration | None:
    """Return the registration under a name that counts, if any: one that ran out is as good as none."""
    row: Registration | None = Registration.get_or_none(
        Registration.username == username, Registration.status != Status.EXPIRED
    )
    return row


def known_names(names: Iterable[str]) -> set[str]:
    """Return those of the names that are a user's or registered."""
    known: set[str] = set()
    for batch in chunked(names, _BATCH):
        registered: Any = Registration.select(Registration.username).where(
            Registration.username.in_(batch), Registration.status != Status.EXPIRED
        )
        users: Any = User.select(User.username).where(User.username.in_(batch))
        known.update(name for query in (registered, users) for (name,) in query.tuples())
    return known


def yields_to_holder(row: Registration) -> bool:
    """Say whether the holder of what the name is bound to takes the place of this registration.

    It does so of a pending one, and of one that was denied because it came without that secret or key.
    """
    was_impostor = row.status == Status.DENIED and row.held_reason == HeldReason.BINDING_NOT_MET
    return row.status == Status.PENDING or was_impostor


def remove_for_holder(username: str) -> None:
    """Remove the registration of a name that yields to the holder of the secret or key, if there is one."""
    row = current(username)
    if row and yields_to_holder(row):
        row.delete_instance()
        audit.record(SERVICE, "registration.replace", f"registration:{username}", before={"status": row.status})


def write(
    claim: Claim, start: Start = NOTHING, *, while_locked: bool, window_opened_at: datetime | None = None
) -> Registration:
    """Record a claim as pending, in place of an expired one of that name, and return its row.

    One that came through an unlock window names it by the time it was opened.
    """
    Registration.delete().where(
        Registration.username == claim.username, Registration.status == Status.EXPIRED
    ).execute()
    now = database_time()
    row: Registration = Registration.create(
        id=uuid.uuid4().hex,
        username=claim.username,
        skeleton=skeleton(claim.username),
        kind=claim.kind,
        status=Status.PENDING,
        recorded_while_locked=while_locked,
        client_ids=bounded_client_ids(claim.client_ids),
        attempts=claim.attempts,
        conflicts=claim.conflicts,
        first_seen=now,
        last_seen=now,
        password_hash=claim.password_hash,
        public_key=claim.public_key,
        csr_fingerprint=claim.csr_fingerprint,
        address=normalize_address(claim.address),
        pairing_code=_pairing_code() if claim.kind is RegistrationKind.EXPLICIT else None,
        context=claim.context,
        requested_roles=list(claim.requested_roles),
        requested_permissions=list(claim.requested_permissions),
        starting_roles=list(start.roles),
        starting_permissions=list(start.permissions),
        held_reason=start.held,
        window_opened_at=window_opened_at,
    )
    return row


def touch(
    row: Registration, attempts: int, conflicts: int, client_ids: tuple[str, ...] = (), addresses: tuple[str, ...] = ()
) -> None:
    """Count further contact under a name that is already recorded; the addresses are those of the conflicts."""
    Registration.update(
        attempts=Registration.attempts + attempts,
        conflicts=Registration.conflicts + conflicts,
        client_ids=bounded_client_ids((*row.client_ids, *client_ids)),
        conflict_addresses=bounded_addresses((*(row.conflict_addresses or ()), *addresses)),
        last_seen=database_time(),
    ).where(Registration.id == row.id).execute()


def bounded_addresses(addresses: Iterable[str]) -> list[str]:
    """Return the first few different addresses."""
    return list(dict.fromkeys(addresses))[:MAX_ADDRESSES]


def bounded_client_ids(client_ids: tuple[str, ...]) -> list[str]:
    """Return the first few different client ids, none longer than anybody would read."""
    shortened = (client_id[:MAX_CLIENT_ID_LENGTH] for client_id in client_ids)
    return list(dict.fromkeys(shortened))[:MAX_CLIENT_IDS]


def record_of(row: Registration) -> Record:
    """Show a row."""
    return _records_of([row])[0]


def _records_of(rows: list[Registration]) -> list[Record]:
    similar = similar_names(row.username for row in rows)
    return [_record(row, similar[row.username]) for row in rows]


def _record(row: Registration, similar: list[str]) -> Record:
    return Record(
        id=row.id,
        username=row.username,
        kind=row.kind,
        status=row.status,
        recorded_while_locked=row.recorded_while_locked,
        client_ids=[client_id for client_id in row.client_ids if client_id != NO_CLIENT_ID],
        suggested_client_ids=_suggested_client_ids(row),
        attempts=row.attempts,
        conflicts=row.conflicts,
        conflict_addresses=row.conflict_addresses or [],
        similar_to=similar,
        held_reason=row.held_reason,
        first_seen=row.first_seen,
        last_seen=row.last_seen,
        pairing_code=row.pairing_code,
        csr_fingerprint=row.csr_fingerprint,
        has_password=row.password_hash is not None,
        address=row.address,
        context=None if isinstance(row.context, UnreadableJson) else row.context,
        requested_roles=row.requested_roles,
        requested_permissions=row.requested_permissions,
        starting_roles=row.starting_roles,
        starting_permissions=row.starting_permissions or [],
        decided_by=row.decided_by,
        decided_at=row.decided_at,
        reason=row.reason,
        damage=row.damage,
    )


def _suggested_client_ids(row: Registration) -> list[str]:
    """Return the one client id that all attempts of a device came with, of which there were two or more, if any."""
    one_for_all = (
        row.kind == RegistrationKind.IMPLICIT and row.attempts > 1 and not row.conflicts and len(row.client_ids) == 1
    )
    return _literal(row.client_ids) if one_for_all else []


def _literal(client_ids: list[str]) -> list[str]:
    """Return those that can be spelled as allowed client ids; one that may have been cut cannot."""
    whole = (one for one in client_ids if one != NO_CLIENT_ID and len(one) < MAX_CLIENT_ID_LENGTH)
    return [one for one in whole if can_be_literal(one)]


def _pairing_code() -> str:
    return "".join(secrets.choice(_PAIRING_ALPHABET) for _ in range(6))
