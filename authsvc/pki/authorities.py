"""The certificate authorities: the one that signs, those that are still trusted, and their CRLs.

The entries of a CRL are computed from the database: revoked certificates, and on hold those whose user may not use
them. A CRL is signed again when its entries change and after half of its validity, under a lock, so by one replica.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from peewee import Value, fn

from authsvc.activity import audit, disconnects
from authsvc.errors import InvalidInput, NotFound, SettingsError
from authsvc.pki import ca
from authsvc.pki.ca import CrlEntry, RevocationReason
from authsvc.policy.snapshot import GrantType
from authsvc.record_json import from_row
from authsvc.storage.changes import ChangeKind, current_version, policy_change
from authsvc.storage.database import session, transaction
from authsvc.storage.models import Authority, Certificate, User

if TYPE_CHECKING:
    from authsvc.policy.actors import Actor
    from authsvc.settings import Settings

_NAME = "authsvc certificate authority"
_DAYS = 3650


class SigningPolicy(NamedTuple):
    """The validity of new certificates and CRLs in days, and the passphrase of the authority's key."""

    days: int = 365
    crl_days: int = 7
    passphrase: str | None = None

    def __repr__(self) -> str:
        return f"SigningPolicy({self.days}, {self.crl_days})"


def signing_policy(settings: Settings, days: int | None = None) -> SigningPolicy:
    """Return the signing policy of these settings; `days` overrides the validity of certificates."""
    return SigningPolicy(days or settings.certificate_days, settings.crl_days, settings.ca_key_passphrase)


@dataclass(frozen=True, slots=True)
class RevocationList:
    """An authority's current CRL: PEM, number and validity."""

    pem: str
    number: int
    this_update: datetime
    next_update: datetime


@dataclass(frozen=True, slots=True)
class AuthorityRecord:
    """An authority as administrators see it; `retires_at` is None for the one that signs."""

    id: int
    subject: str
    not_after: datetime
    created_at: datetime
    retires_at: datetime | None
    crl_number: int
    crl_this_update: datetime | None
    crl_next_update: datetime | None


def ensure(actor: Actor, passphrase: str | None) -> None:
    """Create an authority if there is none, inside the caller's transaction; `SettingsError` for a wrong passphrase.

    A key that was stored without a passphrase is encrypted with it.
    """
    if not Authority.select().exists():
        certificate, key = ca.new_authority(_NAME, datetime.now(UTC), _DAYS, passphrase)
        _insert(actor, "authority.create", certificate, "", key)
    try:
        for row in trusted():
            if passphrase and not ca.is_encrypted(row.key):
                row.key = ca.reencrypt_key(row.key, None, passphrase)
                row.save()
                audit.record(actor, "authority.encrypt", f"authority:{row.id}")
            ca.CertificateAuthority(row.certificate, row.key, passphrase)
    except InvalidInput:
        raise SettingsError("AUTHSVC_CA_KEY_PASSPHRASE does not decrypt the certificate authority's key") from None


def rotate(actor: Actor, passphrase: str | None, overlap: timedelta) -> None:
    """Create an authority that signs from now on; the old one stays trusted, with its CRL, for the overlap."""
    now = datetime.now(UTC)
    certificate, key = ca.new_authority(f"{_NAME} {now:%Y-%m-%d %H:%M:%S}", now, _DAYS, passphrase)
    _insert(actor, "authority.rotate", certificate, "", key, now + overlap)


def import_authority(
    actor: Actor,
    certificate: str,
    chain: str,
    key: str,
    given_passphrase: str | None,
    own: str | None,
    overlap: timedelta,
) -> None:
    """Import an authority that signs from now on; `InvalidInput` if it cannot. The old one stays for the overlap."""
    now = datetime.now(UTC)
    ca.check_imported(certificate, chain, key, given_passphrase, now)
    own_key = ca.reencrypt_key(key, given_passphrase, own)
    _insert(actor, "authority.import", certificate, chain, own_key, now + overlap)


def records() -> list[AuthorityRecord]:
    """Return the authorities that are trusted now, the one that signs first."""
    with session():
        return list(map(_record, trusted()))


def certificates_pem() -> str:
    """Return a broker's `cafile`: the trusted authorities and their chains as PEM, newest first."""
    with session():
        return "".join(_with_newline(row.certificate) + _with_newline(row.chain) for row in trusted())


def trusted() -> list[Authority]:
    """Return the authorities that are trusted now, newest first."""
    now = datetime.now(UTC)
    query = Authority.select().where(Authority.retires_at.is_null() | (Authority.retires_at > now))
    return list(query.order_by(Authority.id.desc()))


def signing_authority(passphrase: str | None) -> tuple[Authority, ca.CertificateAuthority]:
    """Return the authority that signs: its row and its loaded key; `NotFound` if there is none."""
    row = Authority.select().where(Authority.retires_at.is_null()).order_by(Authority.id.desc()).first()
    if row is None:
        raise NotFound("there is no certificate authority; create it with: authsvc init", "no-authority")
    return row, ca.CertificateAuthority(row.certificate, row.key, passphrase)


def revocation_lists(policy: SigningPolicy) -> list[RevocationList]:
    """Return the CRLs of all trusted authorities, newest first. Those that are due are signed first."""
    with session():
        rows = trusted()
        if any(map(_is_due, rows)):
            with transaction():
                # This update locks the rows: one replica signs, and the others then find nothing due.
                Authority.update(crl_number=Authority.crl_number).execute()
                rows = trusted()
                for row in filter(_is_due, rows):
                    _end_superseded_sessions(row)
                    _sign_list(row, policy)
        return [RevocationList(row.crl or "", row.crl_number, row.crl_this_update, row.crl_next_update) for row in rows]


def _record(row: Authority) -> AuthorityRecord:
    certificate = ca.read_certificate(row.certificate)
    subject = certificate.subject.rfc4514_string()
    return from_row(AuthorityRecord, row, subject=subject, not_after=certificate.not_valid_after_utc)


def _is_due(row: Authority) -> bool:
    now = datetime.now(UTC)
    if row.crl is None or row.crl_policy_version != current_version():
        return True
    return _is_past_half_life(row, now) or _revoked_since(row, now).exists()


def _is_past_half_life(row: Authority, now: datetime) -> bool:
    half_life: datetime = row.crl_this_update + (row.crl_next_update - row.crl_this_update) / 2
    return now >= half_life


def _revoked_since(row: Authority, now: datetime) -> Any:
    """Return a query of the authority's certificates whose revocation took effect after its CRL was signed."""
    since = (Certificate.revoked_at > row.crl_this_update) & (Certificate.revoked_at <= now)
    return Certificate.select().where(Certificate.authority == row, since)


def _sign_list(row: Authority, policy: SigningPolicy) -> None:
    version, now = current_version(), datetime.now(UTC)
    entries = _entries(row, now)
    digest = hashlib.sha256(repr(entries).encode()).hexdigest()
    row.crl_policy_version = version
    if row.crl is None or digest != row.crl_entries or _is_past_half_life(row, now):
        authority = ca.CertificateAuthority(row.certificate, row.key, policy.passphrase)
        row.crl_number += 1
        row.crl_this_update, row.crl_next_update = now, now + timedelta(days=policy.crl_days)
        row.crl_entries = digest
        row.crl = authority.revocation_list(entries, row.crl_number, now, row.crl_next_update)
    elif _revoked_since(row, now).exists():
        row.crl_this_update = now
    row.save()


def _end_superseded_sessions(row: Authority) -> None:
    """Order the end of the MQTT sessions whose certificate was superseded and has ended since the last CRL."""
    if row.crl_this_update is None:
        return
    now = datetime.now(UTC)
    ended = _revoked_since(row, now).where(Certificate.reason == RevocationReason.SUPERSEDED, ~_user_has_another(now))
    # Sorted, so that two transactions that order for the same users do not wait for each other.
    in_order = ended.group_by(Certificate.username).order_by(Certificate.username)
    disconnects.order_selected("certificate superseded", in_order, Certificate.username)


def is_replaced(certificate: Certificate) -> bool:
    """Return whether a certificate is superseded while its user has another valid one, so the user keeps access."""
    if certificate.reason != RevocationReason.SUPERSEDED:
        return False
    others = _user_has_another(datetime.now(UTC))
    return Certificate.select().where(Certificate.serial == certificate.serial, others).exists()


def _user_has_another(now: datetime) -> Any:
    """Return the condition that a certificate's user has another one, which is valid and of a trusted authority."""
    other: Any = Certificate.alias()
    of_user = (other.username == Certificate.username) & (other.serial != Certificate.serial)
    valid = (other.not_after > now) & (other.revoked_at.is_null() | (other.revoked_at > now))
    trusted_now = Authority.retires_at.is_null() | (Authority.retires_at > now)
    found = other.select(other.serial).join(Authority, on=other.authority == Authority.id)
    return fn.EXISTS(found.where(of_user, valid, trusted_now))


def _entries(row: Authority, now: datetime) -> list[CrlEntry]:
    """Return the entries of a CRL: revoked certificates, and on hold those that their user may not use now."""
    listed = (Certificate.authority == row) & (Certificate.not_after > now)
    has_ended = Certificate.revoked_at.is_null(False) & (Certificate.revoked_at <= now)
    may_use = User.grant_types.cast("text") ** f"%{GrantType.CERTIFICATE}%"
    revoked: Any = Certificate.select(Certificate.serial, Certificate.revoked_at, Certificate.reason)
    on_hold: Any = Certificate.select(
        Certificate.serial, User.updated_at, Value(RevocationReason.CERTIFICATE_HOLD.value)
    )
    # One statement, so that no certificate is missing that moves from one part to the other. An index finds the first.
    found = revoked.where(listed, has_ended) | on_hold.join(User).where(listed, ~has_ended, ~User.enabled | ~may_use)
    entries = (CrlEntry(serial, at, RevocationReason(why or "unspecified")) for serial, at, why in found.tuples())
    return sorted(entries, key=attrgetter("serial"))


def _insert(
    actor: Actor, action: str, certificate: str, chain: str, key: str, retire_others_at: datetime | None = None
) -> None:
    now = datetime.now(UTC)
    with policy_change() as announce:
        Authority.update(retires_at=retire_others_at).where(Authority.retires_at.is_null()).execute()
        row = Authority.create(certificate=certificate, chain=chain, key=key, created_at=now)
        audit.record(actor, action, f"authority:{row.id}")
        announce(ChangeKind.AUTHORITY, "")


def _with_newline(pem: str) -> str:
    return pem if not pem or pem.endswith("\n") else pem + "\n"
