"""Announces certificates and authorities that expire soon: 30, 7 and 1 days before, once for each.

Nothing is announced or marked as announced while no notification is about the event. A threshold that is as long as
the certificate's whole validity is left out: a certificate that is valid for a day is renewed every day.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from peewee import chunked

from authsvc.notifications import outbox
from authsvc.notifications.outbox import EventType
from authsvc.pki import authorities, ca
from authsvc.record_json import rfc3339
from authsvc.storage.database import session, transaction
from authsvc.storage.models import Authority, Certificate

THRESHOLDS = (1, 7, 30)
"""Days before the expiry, the shortest first: of several that are reached, only the shortest is announced."""
_PER_MESSAGE = 100


def announce(now: datetime | None = None) -> None:
    """Write the notifications of every threshold that was reached; with several replicas, one of them does."""
    now = now or datetime.now(UTC)
    with session():
        wanted = [outbox.is_wanted(event) for event in (EventType.CERTIFICATE_EXPIRING, EventType.AUTHORITY_EXPIRING)]
    for days in THRESHOLDS if wanted[0] else ():
        with transaction():
            _announce_certificates(now, days)
    if wanted[1]:
        with transaction():
            _announce_authorities(now)


def _announce_certificates(now: datetime, days: int) -> None:
    reached = (Certificate.not_after > now) & (Certificate.not_after <= now + timedelta(days=days))
    is_new = Certificate.announced_days.is_null() | (Certificate.announced_days > days)
    # A single statement, so that only one of several replicas gets a certificate.
    marking = Certificate.update(announced_days=days).where(reached, is_new, Certificate.revoked_at.is_null())
    marked: Any = marking.returning(Certificate).execute()
    rows = [row for row in marked if row.not_after - row.not_before > timedelta(days=days) + ca.BACKDATED]
    for batch in chunked(sorted(rows, key=lambda row: (row.not_after, row.serial)), _PER_MESSAGE):
        listed = [{"serial": row.serial, "username": row.username, "notAfter": rfc3339(row.not_after)} for row in batch]
        content = {"days": days, "count": len(listed), "certificates": listed}
        outbox.publish(EventType.CERTIFICATE_EXPIRING, content)


def _announce_authorities(now: datetime) -> None:
    for row in authorities.trusted():
        certificate = ca.read_certificate(row.certificate)
        not_before, not_after = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if row.retires_at is not None and row.retires_at < not_after:
            continue
        for days in THRESHOLDS:
            if not now < not_after <= now + timedelta(days=days):
                continue
            is_new = Authority.announced_days.is_null() | (Authority.announced_days > days)
            marked = Authority.update(announced_days=days).where(Authority.id == row.id, is_new).execute()
            if marked and not_after - not_before > timedelta(days=days) + ca.BACKDATED:
                subject = certificate.subject.rfc4514_string()
                content = {"days": days, "id": row.id, "subject": subject, "notAfter": not_after}
                outbox.publish(EventType.AUTHORITY_EXPIRING, content)
            break
