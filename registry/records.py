"""Registrations as administrators see them, and as the registry writes them."""

from __future__ import annotations

import secrets
import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from authsvc.allowed_client_ids import can_be_literal
from authsvc.errors import NotFound
from authsvc.paging import Page
from authsvc.storage.database import database_time, session
from registry.models import Registration
from registry.states import Status

if TYPE_CHECKING:
    from datetime import datetime

# Without letters and digits that are taken for one another when read aloud.
_PAIRING_ALPHABET = "23456789ABCDEFGHJKMNPQRSTVWXYZ"
MAX_CLIENT_IDS = 10
MAX_CLIENT_ID_LENGTH = 200


class Kind(StrEnum):
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
    attempts: int
    conflicts: int
    first_seen: datetime
    last_seen: datetime
    pairing_code: str | None
    csr_fingerprint: str | None
    has_password: bool
    context: Any
    requested_roles: list[str]
    requested_permissions: list[dict[str, str]]
    starting_roles: list[str]
    decided_by: str | None
    decided_at: datetime | None
    reason: str | None

    @property
    def literal_client_ids(self) -> list[str]:
        """The recorded client ids that can be spelled as allowed client ids; one that may have been cut cannot."""
        whole = [client_id for client_id in self.client_ids if len(client_id) < MAX_CLIENT_ID_LENGTH]
        return [client_id for client_id in whole if can_be_literal(client_id)]

    @property
    def suggested_client_ids(self) -> list[str]:
        """The one client id that all attempts came with, of which there were two or more; otherwise none."""
        one_for_all = len(self.client_ids) == 1 and self.attempts > 1
        return self.literal_client_ids if one_for_all else []


@dataclass(frozen=True, slots=True)
class Claim:
    """What a stranger brings: who it wants to be, what it holds, and what it asks for."""

    username: str
    kind: Kind
    password_hash: str | None = None
    public_key: str | None = None
    csr_fingerprint: str | None = None
    client_ids: tuple[str, ...] = ()
    attempts: int = 1
    conflicts: int = 0
    context: Any = None
    requested_roles: tuple[str, ...] = ()
    requested_permissions: tuple[dict[str, str], ...] = ()


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
    with session():
        rows = query.order_by(Registration.last_seen.desc(), Registration.id).paginate(page, per_page)
        return Page([record_of(row) for row in rows], page, per_page, query.count())


def count_pending() -> int:
    """Return how many registrations wait for a decision."""
    with session():
        count: int = Registration.select().where(Registration.status == Status.PENDING).count()
        return count


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


def write(claim: Claim, *, while_locked: bool, starting_roles: tuple[str, ...] = ()) -> Registration:
    """Record a claim as pending, in place of an expired one of that name, and return its row."""
    Registration.delete().where(
        Registration.username == claim.username, Registration.status == Status.EXPIRED
    ).execute()
    now = database_time()
    row: Registration = Registration.create(
        id=uuid.uuid4().hex,
        username=claim.username,
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
        pairing_code=_pairing_code() if claim.kind is Kind.EXPLICIT else None,
        context=claim.context,
        requested_roles=list(claim.requested_roles),
        requested_permissions=list(claim.requested_permissions),
        starting_roles=list(starting_roles),
    )
    return row


def touch(row: Registration, attempts: int, conflicts: int, client_ids: tuple[str, ...] = ()) -> None:
    """Count further contact under a name that is already recorded."""
    Registration.update(
        attempts=Registration.attempts + attempts,
        conflicts=Registration.conflicts + conflicts,
        client_ids=bounded_client_ids((*row.client_ids, *client_ids)),
        last_seen=database_time(),
    ).where(Registration.id == row.id).execute()


def bounded_client_ids(client_ids: tuple[str, ...]) -> list[str]:
    """Return the first few different client ids, none longer than anybody would read."""
    shortened = (client_id[:MAX_CLIENT_ID_LENGTH] for client_id in client_ids if client_id)
    return list(dict.fromkeys(shortened))[:MAX_CLIENT_IDS]


def record_of(row: Registration) -> Record:
    """Show a row."""
    return Record(
        id=row.id,
        username=row.username,
        kind=row.kind,
        status=row.status,
        recorded_while_locked=row.recorded_while_locked,
        client_ids=row.client_ids,
        attempts=row.attempts,
        conflicts=row.conflicts,
        first_seen=row.first_seen,
        last_seen=row.last_seen,
        pairing_code=row.pairing_code,
        csr_fingerprint=row.csr_fingerprint,
        has_password=row.password_hash is not None,
        context=row.context,
        requested_roles=row.requested_roles,
        requested_permissions=row.requested_permissions,
        starting_roles=row.starting_roles,
        decided_by=row.decided_by,
        decided_at=row.decided_at,
        reason=row.reason,
    )


def _pairing_code() -> str:
    return "".join(secrets.choice(_PAIRING_ALPHABET) for _ in range(6))
