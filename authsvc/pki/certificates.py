"""Client certificates: signed by our own authority, remembered for as long as anybody could present them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from authsvc.activity import audit, disconnects
from authsvc.errors import Conflict, Forbidden, NotFound, invalid
from authsvc.pki import authorities
from authsvc.pki.ca import Revocation
from authsvc.pki.csr import fingerprint_of
from authsvc.policy.actors import Actor, Via
from authsvc.policy.snapshot import GrantType
from authsvc.storage.changes import ChangeKind, policy_change
from authsvc.storage.database import session
from authsvc.storage.models import Certificate, User
from authsvc.storage.paging import Page, fetch_page

if TYPE_CHECKING:
    from authsvc.pki.authorities import SigningPolicy
    from authsvc.pki.csr import ClientKey
    from authsvc.pki.renewal import Proven

MAX_DAYS = 3650


@dataclass(frozen=True, slots=True)
class CertificateRecord:
    """A certificate as administrators see it. `revoked_at` may lie ahead, at the end of a renewal's overlap."""

    serial: str
    username: str
    certificate: str
    fingerprint: str
    not_before: datetime
    not_after: datetime
    created_at: datetime
    revoked_at: datetime | None
    reason: str | None

    def status_at(self, now: datetime) -> Literal["valid", "revoked", "expired"]:
        """Say what it is worth at a time, leaving aside whether its user may use it."""
        if self.revoked_at is not None and self.revoked_at <= now:
            return "revoked"
        return "valid" if now < self.not_after else "expired"


@dataclass(frozen=True, slots=True)
class Issued:
    """A new certificate, and the authority's that signed it with its chain, as PEM."""

    record: CertificateRecord
    ca_certificate: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to look for in a list; empty fields look for nothing. `status`: valid, revoked or expired."""

    username: str = ""
    text: str = ""
    status: str = ""
    expiring_within_days: int | None = None


def issue(actor: Actor, username: str, key: ClientKey, issuing: SigningPolicy) -> Issued:
    """Sign a certificate for an existing user's key; `Conflict` unless it has the grant type.

    A key is certified once: asked again for the same user it gives the same certificate, to anybody else `Conflict`.
    """
    with policy_change() as announce:
        user: User | None = User.get_or_none(User.username == username)
        if user is None:
            raise NotFound("no such user", "user-not-found")
        if GrantType.CERTIFICATE not in user.grant_types:
            raise Conflict(f"{username} does not have the grant type certificate", "grant-type-missing")
        now = datetime.now(UTC)
        existing: Certificate | None = Certificate.get_or_none(Certificate.fingerprint == fingerprint_of(key))
        if existing:
            if existing.username != username or not _is_valid(existing, now):
                raise Conflict("this key was certified before; make a new one", "key-used")
            return _issued(existing)
        row, authority = authorities.signer(issuing.passphrase)
        made = authority.sign(username, key, now, issuing.days)
        stored: Certificate = Certificate.create(
            serial=made.serial,
            authority=row,
            user=user,
            username=username,
            fingerprint=made.fingerprint,
            certificate=made.certificate,
            not_before=made.not_before,
            not_after=made.not_after,
            created_at=now,
        )
        facts = {"username": username, "notAfter": made.not_after.isoformat()}
        audit.record(actor, "certificate.issue", f"certificate:{made.serial}", after=facts)
        announce(ChangeKind.USER, username)
        return _issued(stored)


def revoke(actor: Actor, serial: str, reason: Revocation, at: datetime | None = None) -> CertificateRecord:
    """End a certificate, at once or at a time ahead; `Conflict` when it was ended. In force with the next CRL."""
    now = datetime.now(UTC)
    with policy_change() as announce:
        row = _row(serial)
        on_hold = row.reason == Revocation.CERTIFICATE_HOLD
        if row.revoked_at is not None and row.revoked_at <= now and not on_hold:
            raise Conflict("the certificate is revoked already", "certificate-revoked")
        row.revoked_at, row.reason = (at or now).replace(microsecond=0), reason
        row.save()
        facts = {"username": row.username, "reason": reason.value, "at": row.revoked_at.isoformat()}
        audit.record(actor, "certificate.revoke", f"certificate:{serial}", after=facts)
        if row.revoked_at <= now and not authorities.is_replaced(row):
            disconnects.order(row.username, "certificate revoked")
        announce(ChangeKind.USER, row.username)
        return _record(row)


def revoke_all(actor: Actor, username: str, reason: Revocation) -> None:
    """End every certificate of a user that has not ended; for one that is removed, inside that transaction."""
    now = datetime.now(UTC)
    rows = Certificate.select().where(Certificate.username == username, Certificate.not_after > now)
    for row in rows:
        if row.revoked_at is None or row.revoked_at > now:
            revoke(actor, row.serial, reason)


def renew(
    proven: Proven, issuing: SigningPolicy, overlap: timedelta, address: str | None, request_id: str | None
) -> Issued:
    """Sign a new certificate for the proven holder of a current one, which ends after the overlap.

    The user is that of the stored certificate, never a name that the sender wrote. `Forbidden` if the certificate that
    was sent does not equal the stored one, before two thirds of its life, when it has ended, or while its user may not
    use it. A repeated request for the same next key returns the certificate that was made for it.
    """
    now = datetime.now(UTC)
    with policy_change():
        current = _stored(proven)
        actor = Actor(current.username, Via.CERTIFICATE, None, address, request_id)
        again: Certificate | None = Certificate.get_or_none(
            Certificate.fingerprint == proven.request.fingerprint, Certificate.username == current.username
        )
        if again and _is_valid(again, now):
            return _issued(again)
        if not _is_valid(current, now) or current.user is None or not current.user.enabled:
            raise _not_valid()
        due = current.not_before + (current.not_after - current.not_before) * 2 / 3
        if now < due:
            raise Forbidden(f"the certificate can be renewed from {due:%Y-%m-%dT%H:%M:%SZ} on", "renewal-too-early")
        issued = issue(actor, current.user.username, proven.request.public_key, issuing)
        if current.revoked_at is None and current.not_after > now + overlap:
            revoke(actor, current.serial, Revocation.SUPERSEDED, now + overlap)
        return issued


def is_used(fingerprint: str) -> bool:
    """Say whether a certificate was ever issued for this key."""
    return Certificate.select().where(Certificate.fingerprint == fingerprint).exists()


def get(serial: str) -> CertificateRecord:
    """Return one certificate; `NotFound` otherwise."""
    with session():
        return _record(_row(serial))


def search(wanted: Wanted, page: int, per_page: int) -> Page[CertificateRecord]:
    """Return one page of certificates, the next to expire first."""
    query = Certificate.select()
    for condition in _conditions(wanted):
        query = query.where(condition)
    return fetch_page(
        query.order_by(Certificate.not_after, Certificate.serial), page, per_page, convert=partial(map, _record)
    )


def read_reason(text: str) -> Revocation:
    """Return the reason so named; `InvalidInput` for `reason` otherwise."""
    try:
        return Revocation(text)
    except ValueError:
        raise invalid("reason", f"must be one of {', '.join(Revocation)}") from None


def _conditions(wanted: Wanted) -> list[Any]:
    now = datetime.now(UTC)
    ended = Certificate.revoked_at.is_null(False) & (Certificate.revoked_at <= now)
    by_status = {
        "valid": ~ended & (Certificate.not_after > now),
        "revoked": ended,
        "expired": ~ended & (Certificate.not_after <= now),
    }
    conditions = []
    if wanted.username:
        conditions.append(Certificate.username == wanted.username)
    if wanted.text:
        conditions.append(Certificate.username.contains(wanted.text) | Certificate.serial.contains(wanted.text))
    if wanted.status:
        conditions.append(by_status[wanted.status])
    if wanted.expiring_within_days is not None:
        conditions += [by_status["valid"], Certificate.not_after <= now + timedelta(days=wanted.expiring_within_days)]
    return conditions


def _stored(proven: Proven) -> Certificate:
    """Return the row of the certificate that was sent; `Forbidden` unless the two are equal, byte for byte.

    Anybody can make a certificate with any serial, key and name, so none of these alone identifies one of ours.
    """
    row: Certificate | None = Certificate.get_or_none(Certificate.serial == proven.serial)
    if row is None or not proven.is_for(row.certificate):
        raise _not_valid()
    return row


def _not_valid() -> Forbidden:
    return Forbidden("the certificate is not valid any more, or not one of ours", "certificate-not-valid")


def _is_valid(row: Certificate, now: datetime) -> bool:
    return row.not_after > now and (row.revoked_at is None or row.revoked_at > now)


def _issued(row: Certificate) -> Issued:
    return Issued(_record(row), row.authority.certificate + row.authority.chain)


def _row(serial: str) -> Certificate:
    # However it is spelled: openssl prints capitals, of even length, some tools with colons.
    plain = serial.replace(":", "").lower().lstrip("0")
    row: Certificate | None = Certificate.get_or_none(Certificate.serial == plain)
    if row is None:
        raise NotFound("no such certificate", "certificate-not-found")
    return row


def _record(row: Certificate) -> CertificateRecord:
    return CertificateRecord(
        row.serial,
        row.username,
        row.certificate,
        row.fingerprint,
        row.not_before,
        row.not_after,
        row.created_at,
        row.revoked_at,
        row.reason,
    )
