"""Enrolment keys: secrets that let a limited number of devices register while the registry is locked."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from authsvc.activity import audit
from authsvc.errors import Forbidden, NotFound, invalid
from authsvc.record_json import from_row
from authsvc.storage.database import database_time, transaction
from authsvc.storage.paging import Page, fetch_page
from registry import lock
from registry.models import EnrolmentKey

if TYPE_CHECKING:
    from datetime import datetime

    from authsvc.policy.actors import Actor

MAX_USES = 1_000_000


@dataclass(frozen=True, slots=True)
class EnrolmentKeyRecord:
    """An enrolment key without its secret. `used` counts the registrations out of at most `uses`."""

    id: str
    label: str
    uses: int
    used: int
    roles: list[str]
    approval_required: bool
    expires_at: datetime | None
    created_by: str
    created_at: datetime
    revoked_at: datetime | None


def create(
    actor: Actor, label: str, uses: int, roles: tuple[str, ...], expires_at: datetime | None, *, approval_required: bool
) -> tuple[str, EnrolmentKeyRecord]:
    """Create a key for this number of registrations. Return its secret, which is stored only as a digest."""
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
        after = {"label": label, "uses": uses, "roles": list(roles), "approvalRequired": approval_required}
        audit.record(actor, "enrolment-key.create", f"enrolment-key:{row.id}", after=after)
    return secret, _record(row)


def search(page: int, per_page: int) -> Page[EnrolmentKeyRecord]:
    """Return one page of all keys, newest first."""
    query = EnrolmentKey.select()
    return fetch_page(
        query.order_by(EnrolmentKey.created_at.desc(), EnrolmentKey.id), page, per_page, convert=partial(map, _record)
    )


def revoke(actor: Actor, key_id: str) -> None:
    """Revoke a key; registrations that were made with it stay."""
    with transaction():
        row = EnrolmentKey.get_or_none(EnrolmentKey.id == key_id)
        if row is None:
            raise NotFound("no such enrolment key", "enrolment-key-not-found")
        if row.revoked_at is None:
            EnrolmentKey.update(revoked_at=database_time()).where(EnrolmentKey.id == key_id).execute()
            audit.record(actor, "enrolment-key.revoke", f"enrolment-key:{key_id}", before={"label": row.label})


def check(secret: str) -> EnrolmentKeyRecord:
    """Return the key with this secret.

    Raise the same `Forbidden` for a key that is unknown, expired, revoked or used up.
    """
    row = EnrolmentKey.get_or_none(EnrolmentKey.digest == digest_of(secret))
    is_expired = row is not None and row.expires_at is not None and row.expires_at <= database_time()
    if row is None or is_expired or row.revoked_at is not None or row.used >= row.uses:
        raise _not_valid()
    return _record(row)


def use(key: EnrolmentKeyRecord) -> None:
    """Count one use, inside the transaction that registers; `Forbidden` if the key has been used up or revoked."""
    is_valid = (EnrolmentKey.used < EnrolmentKey.uses) & EnrolmentKey.revoked_at.is_null()
    if not EnrolmentKey.update(used=EnrolmentKey.used + 1).where(EnrolmentKey.id == key.id, is_valid).execute():
        raise _not_valid()


def digest_of(secret: str) -> str:
    """Return the stored form of a secret. A fast hash is enough, because secrets are random and long."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _not_valid() -> Forbidden:
    return Forbidden("the enrolment key is not valid", "enrolment-key-invalid")


def _record(row: EnrolmentKey) -> EnrolmentKeyRecord:
    return from_row(EnrolmentKeyRecord, row)
