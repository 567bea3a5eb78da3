"""Client certificates: issue, renew, revoke and list them. They stay stored after revocation and expiry.

Server certificates (`server_certificates`) are stored, revoked and listed with them.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from peewee import SQL, fn

from authsvc.activity import audit, disconnects
from authsvc.errors import Conflict, Forbidden, NotFound, invalid
from authsvc.notifications import outbox
from authsvc.notifications.outbox import EventType
from authsvc.pki import authorities, ca
from authsvc.pki.ca import RevocationReason
from authsvc.pki.csr import fingerprint_of
from authsvc.policy.actors import Actor, Via
from authsvc.policy.snapshot import GrantType
from authsvc.record_json import from_row
from authsvc.storage.changes import ChangeKind, policy_change
from authsvc.storage.database import session
from authsvc.storage.identifiers import find_id
from authsvc.storage.models import Certificate, User
from authsvc.storage.paging import Page, fetch_page, in_order

if TYPE_CHECKING:
    from authsvc.pki.authorities import SigningPolicy
    from authsvc.pki.csr import ClientKey
    from authsvc.pki.renewal import VerifiedRenewal

MAX_DAYS = 3650
SERVER = "server:"
"""The beginning of the username under which a server certificate is stored; no user's name has a colon."""


@dataclass(frozen=True, slots=True)
class CertificateRecord:
    """A certificate as administrators see it. `revoked_at` can be in the future, at the end of a renewal's overlap."""

    serial: str
    username: str
    certificate: str
    fingerprint: str
    not_before: datetime
    not_after: datetime
    created_at: datetime
    revoked_at: datetime | None
    reason: str | None

    @property
    def is_server(self) -> bool:
        """Whether this is the certificate of a broker and not of a user."""
        return self.username.startswith(SERVER)

    def status_at(self, now: datetime) -> Literal["valid", "revoked", "expired"]:
        """Return the status at a time, regardless of whether its user may use it."""
        if self.revoked_at is not None and self.revoked_at <= now:
            return "revoked"
        return "valid" if now < self.not_after else "expired"


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A certificate, and as PEM the certificate and chain of the authority that signed it."""

    record: CertificateRecord
    ca_certificate: str


@dataclass(frozen=True, slots=True)
class CertificateFilter:
    """The filter of a list; an empty field matches everything. `status` is valid, revoked or expired.

    Both `expiring_` fields match only valid certificates.
    """

    username: str = ""
    text: str = ""
    status: str = ""
    expiring_within_days: int | None = None
    expiring_before: datetime | None = None


def issue(actor: Actor, username: str, key: ClientKey, policy: SigningPolicy) -> IssuedCertificate:
    """Sign a certificate for a user's key; `NotFound` without the user, `Conflict` without the grant type.

    A key is certified once: the same user gets the same certificate again, another user `Conflict`.
    """
    with policy_change() as announce:
        user: User | None = User.get_or_none(User.username == username)
        if user is None:
            raise NotFound("no such user", "user-not-found")
        if GrantType.CERTIFICATE not in user.grant_types:
            raise Conflict(f"{username} does not have the grant type certificate; add it first", "grant-type-missing")
        now = datetime.now(UTC)
        existing: Certificate | None = Certificate.get_or_none(Certificate.fingerprint == fingerprint_of(key))
        if existing:
            if existing.username != username or not _is_valid(existing, now):
                raise Conflict("this key was certified before; create a new key", "key-used")
            return issued(existing)
        row, authority = authorities.signing_authority(policy.passphrase)
        signed = authority.sign(username, key, now, policy.days)
        stored: Certificate = Certificate.create(
            **asdict(signed), authority=row, user=user, username=username, created_at=now
        )
        after = {"username": username, "notAfter": signed.not_after.isoformat()}
        audit.record(actor, "certificate.issue", f"certificate:{signed.serial}", after=after)
        announce(ChangeKind.USER, username)
        return issued(stored)


def revoke(actor: Actor, serial: str, reason: RevocationReason, at: datetime | None = None) -> CertificateRecord:
    """Revoke a certificate now or at a future time; `Conflict` if it is revoked already. The next CRL lists it."""
    now = datetime.now(UTC)
    with policy_change() as announce:
        row = _row(serial)
        on_hold = row.reason == RevocationReason.CERTIFICATE_HOLD
        if row.revoked_at is not None and row.revoked_at <= now and not on_hold:
            raise Conflict("the certificate is revoked already", "certificate-revoked")
        row.revoked_at, row.reason = (at or now).replace(microsecond=0), reason
        row.save()
        after = {"username": row.username, "reason": reason.value, "at": row.revoked_at.isoformat()}
        audit.record(actor, "certificate.revoke", f"certificate:{serial}", after=after)
        # A renewed certificate ends with the overlap; its device has another one.
        if reason is not RevocationReason.SUPERSEDED or row.revoked_at <= now:
            content = {"serial": row.serial, "username": row.username, "reason": reason, "revokedAt": row.revoked_at}
            outbox.publish(EventType.CERTIFICATE_REVOKED, content)
        if row.revoked_at <= now and not row.username.startswith(SERVER) and not authorities.is_replaced(row):
            disconnects.order("certificate revoked", row.username)
        announce(ChangeKind.USER, row.username)
        return _record(row)


def revoke_all(actor: Actor, username: str, reason: RevocationReason) -> None:
    """Revoke the certificates of a user that are neither expired nor revoked. Call it in the user's policy change."""
    now = datetime.now(UTC)
    rows = Certificate.select().where(Certificate.username == username, Certificate.not_after > now)
    for row in rows:
        if row.revoked_at is None or row.revoked_at > now:
            revoke(actor, row.serial, reason)


def renew(
    renewal: VerifiedRenewal, policy: SigningPolicy, overlap: timedelta, address: str | None, request_id: str | None
) -> IssuedCertificate:
    """Sign a new certificate for the verified holder of a current one, which is revoked after the overlap.

    The user is that of the stored certificate, never a name from the request. `Forbidden` if the sent certificate does
    not equal the stored one, is not valid any more, or has more than a third of its validity left, or if its user is
    disabled. A repeated request for the same key returns the same certificate.
    """
    now = datetime.now(UTC)
    with policy_change():
        current = _stored(renewal)
        actor = Actor(current.username, Via.CERTIFICATE, None, address, request_id)
        again: Certificate | None = Certificate.get_or_none(
            Certificate.fingerprint == renewal.request.fingerprint, Certificate.username == current.username
        )
        if again and _is_valid(again, now):
            return issued(again)
        if not _is_valid(current, now) or current.user is None or not current.user.enabled:
            raise _not_valid()
        due = current.not_before + (current.not_after - current.not_before) * 2 / 3
        if now < due:
            raise Forbidden(f"the certificate can be renewed from {due:%Y-%m-%dT%H:%M:%SZ} on", "renewal-too-early")
        new = issue(actor, current.user.username, renewal.request.public_key, policy)
        if current.revoked_at is None and current.not_after > now + overlap:
            revoke(actor, current.serial, RevocationReason.SUPERSEDED, now + overlap)
        return new


def is_used(fingerprint: str) -> bool:
    """Return whether a certificate was ever issued for the key with this fingerprint."""
    return Certificate.select().where(Certificate.fingerprint == fingerprint).exists()


def get(serial: str) -> CertificateRecord:
    """Return one certificate; `NotFound` if there is none with this serial."""
    with session():
        return _record(_row(serial))


def of_pem(pem: str) -> CertificateRecord:
    """Return the record of a certificate that was issued here, given as PEM."""
    return get(f"{ca.read_certificate(pem).serial_number:x}")


def find(given: str) -> str:
    """Return the serial of the certificate with this serial, this beginning of it, or of a user's only valid one."""
    is_valid = Certificate.revoked_at.is_null() & (Certificate.not_after > datetime.now(UTC))
    by_name = (Certificate.username == given) & is_valid
    # A username keeps its spelling; only a text of hexadecimal digits and colons can be a serial.
    typed = _plain(given) if re.fullmatch(r"[0-9A-Fa-f:]+…?", given) else given
    return find_id(Certificate.select(), Certificate.serial, by_name, typed, "certificate")


CertificateSort = Literal["notAfter", "-notAfter", "username", "-username", "createdAt", "-createdAt"]


def search(
    wanted: CertificateFilter, page: int, per_page: int, sort: CertificateSort = "notAfter"
) -> Page[CertificateRecord]:
    """Return one page of certificates, the earliest to expire first unless `sort` says otherwise."""
    now = datetime.now(UTC)
    ended = Certificate.revoked_at.is_null(False) & (Certificate.revoked_at <= now)
    by_status = {
        "valid": ~ended & (Certificate.not_after > now),
        "revoked": ended,
        "expired": ~ended & (Certificate.not_after <= now),
    }
    columns = {
        "notAfter": Certificate.not_after,
        "username": Certificate.username,
        "createdAt": Certificate.created_at,
    }
    query = in_order(Certificate.select(), sort, columns, Certificate.serial)
    if wanted.username:
        query = query.where(Certificate.username == wanted.username)
    if wanted.text:
        query = query.where(Certificate.username.contains(wanted.text) | Certificate.serial.contains(wanted.text))
    if wanted.status:
        query = query.where(by_status[wanted.status])
    if wanted.expiring_within_days is not None:
        until = now + timedelta(days=wanted.expiring_within_days)
        query = query.where(by_status["valid"], Certificate.not_after <= until)
    if wanted.expiring_before:
        query = query.where(by_status["valid"], Certificate.not_after < wanted.expiring_before)
    return fetch_page(query, page, per_page, convert=partial(map, _record))


def first_expiry() -> datetime | None:
    """Return when the first user is left without a valid certificate; None if no user has one.

    A certificate that was renewed, or whose user was deleted, does not count.
    """
    now = datetime.now(UTC)
    valid = (Certificate.not_after > now) & (Certificate.revoked_at.is_null() | (Certificate.revoked_at > now))
    latest: Any = Certificate.select(fn.MAX(Certificate.not_after).alias("until"))
    latest = latest.where(valid, Certificate.user.is_null(False)).group_by(Certificate.username)
    with session():
        found: Any = latest.order_by(SQL("until")).limit(1).tuples().first()
    return found[0] if found else None


def read_reason(text: str) -> RevocationReason:
    """Parse a revocation reason; raise `InvalidInput` for `reason` if there is no such one."""
    try:
        return RevocationReason(text)
    except ValueError:
        raise invalid("reason", f"must be one of {', '.join(RevocationReason)}") from None


def _stored(renewal: VerifiedRenewal) -> Certificate:
    """Return the stored row of the sent certificate; `Forbidden` unless the two are equal byte for byte.

    Anybody can create a certificate with any serial, key and name, so none of these alone identifies a stored one.
    """
    row: Certificate | None = Certificate.get_or_none(Certificate.serial == renewal.serial)
    if row is None or not renewal.is_for(row.certificate):
        raise _not_valid()
    return row


def _not_valid() -> Forbidden:
    return Forbidden("the certificate is not valid any more, or this service did not issue it", "certificate-not-valid")


def _is_valid(row: Certificate, now: datetime) -> bool:
    return row.not_after > now and (row.revoked_at is None or row.revoked_at > now)


def issued(row: Certificate) -> IssuedCertificate:
    """Return a stored certificate with that of its authority."""
    return IssuedCertificate(_record(row), row.authority.certificate + row.authority.chain)


def _row(serial: str) -> Certificate:
    row: Certificate | None = Certificate.get_or_none(Certificate.serial == _plain(serial))
    if row is None:
        raise NotFound("no such certificate", "certificate-not-found")
    return row


def _plain(serial: str) -> str:
    # openssl prints upper case and an even number of digits, other tools separate them by colons.
    return serial.replace(":", "").lower().lstrip("0")


def _record(row: Certificate) -> CertificateRecord:
    return from_row(CertificateRecord, row)
