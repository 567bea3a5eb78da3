"""Enrolment keys: secrets that vouch for so many registrations, so that nobody has to stand by an open window."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from authsvc.activity import audit
from authsvc.errors import Forbidden, NotFound, invalid
from authsvc.storage.database import database_time, transaction
from authsvc.storage.paging import Page, fetch_page
from registry import lock
from registry.models import EnrolmentKey

if TYPE_CHECKING:
    from datetime import datetime

    from authsvc.policy.actors import Actor

MAX_USES = 1_000_000


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """An enrolment key without its secret, which is shown once and stored only as a digest."""

    id: str
    label: str
    uses: int
    used: int
    roles: tuple[str, ...]
    approval_required: bool
    expires_at: datetime | None
    created_by: str
    created_at: datetime
    revoked_at: datetime | None


def create(
    actor: Actor, label: str, uses: int, roles: tuple[str, ...], expires_at: datetime | None, *, approval_required: bool
) -> tuple[str, KeyRecord]:
    """Make a key that is good for so many registrations and return its secret, to be shown this once."""
    if not 1 <= uses <= MAX_USES:
        raise invalid("uses", f"must be from 1 to {MAX_USES}")
    secret = f"ek_{secrets.token_urlsafe(24)}"
    with transaction():
        lock.check_starting_roles(actor, roles)
        row = EnrolmentKey.create(
            id=uuid.uuid4().hex,
            label=label,
            digest=digest_of(secret),
            uses=uses,
            used=0,
            roles=list(roles),
            approval_required=approval_required,
            expires_at=expires_at,
            created_by=actor.username,
            created_at=database_time(),
        )
        facts = {"label": label, "uses": uses, "roles": list(roles), "approvalRequired": approval_required}
        audit.record(actor, "enrolment-key.create", f"enrolment-key:{row.id}", after=facts)
    return secret, _record(row)


def search(page: int, per_page: int) -> Page[KeyRecord]:
    """Return one page of keys, newest first, also those that are used up or revoked."""
    query = EnrolmentKey.select()
    return fetch_page(
        query.order_by(EnrolmentKey.created_at.desc(), EnrolmentKey.id), page, per_page, convert=partial(map, _record)
    )


def revoke(actor: Actor, key_id: str) -> None:
    """End a key at once; what was registered with it stays."""
    with transaction():
        row = EnrolmentKey.get_or_none(EnrolmentKey.id == key_id)
        if row is None:
            raise NotFound("no such enrolment key", "enrolment-key-not-found")
        if row.revoked_at is None:
            EnrolmentKey.update(revoked_at=database_time()).where(EnrolmentKey.id == key_id).execute()
            audit.record(actor, "enrolment-key.revoke", f"enrolment-key:{key_id}", before={"label": row.label})


def check(secret: str) -> KeyRecord:
    """Return the key with this secret; `Forbidden`, the same for every cause, when it is not good for another use."""
    row = EnrolmentKey.get_or_none(EnrolmentKey.digest == digest_of(secret))
    if row is None or not _good(row):
        raise Forbidden("the enrolment key is not valid", "enrolment-key-invalid")
    return _record(row)


def use(key: KeyRecord) -> None:
    """Count one use, inside the transaction that registers; `Forbidden` when another took the last one meanwhile."""
    alive = (EnrolmentKey.id == key.id) & (EnrolmentKey.used < EnrolmentKey.uses) & EnrolmentKey.revoked_at.is_null()
    if not EnrolmentKey.update(used=EnrolmentKey.used + 1).where(alive).execute():
        raise Forbidden("the enrolment key is not valid", "enrolment-key-invalid")


def _good(row: EnrolmentKey) -> bool:
    expired = row.expires_at is not None and row.expires_at <= database_time()
    return row.revoked_at is None and row.used < row.uses and not expired


def digest_of(secret: str) -> str:
    """Return the form in which a random secret is stored: nobody can guess one, so a fast hash is enough."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _record(row: EnrolmentKey) -> KeyRecord:
    return KeyRecord(
        row.id,
        row.label,
        row.uses,
        row.used,
        tuple(row.roles),
        row.approval_required,
        row.expires_at,
        row.created_by,
        row.created_at,
        row.revoked_at,
    )
