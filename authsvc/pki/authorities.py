"""The certificate authorities: the one that signs, those that are still trusted, and their revocation lists.

A list is never stored but computed: it names what was revoked, and holds what belongs to a user who may not use it at
the moment. It is signed again when its entries change and at half of its life, under a lock, so by one replica only.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from peewee import JOIN

from authsvc.activity import audit, disconnects
from authsvc.errors import InvalidInput, NotFound, SettingsError
from authsvc.pki import ca
from authsvc.pki.ca import Entry, Revocation
from authsvc.policy.snapshot import GrantType
from authsvc.storage.changes import ChangeKind, current_version, policy_change
from authsvc.storage.database import session, transaction
from authsvc.storage.models import Authority, Certificate, User

if TYPE_CHECKING:
    from authsvc.policy.actors import Actor
    from authsvc.settings import Settings

_NAME = "authsvc certificate authority"
_DAYS = 3650


class SigningPolicy(NamedTuple):
    """What signing takes: how long certificates and lists live, and the passphrase of the authority's key, if any."""

    days: int = 365
    crl_days: int = 7
    passphrase: str | None = None

    def __repr__(self) -> str:
        return f"Issuing({self.days}, {self.crl_days})"


def signing_policy(settings: Settings) -> SigningPolicy:
    """Return what signing takes under these settings."""
    return SigningPolicy(settings.certificate_days, settings.crl_days, settings.ca_key_passphrase)


@dataclass(frozen=True, slots=True)
class RevocationList:
    """An authority's list as it stands: PEM, its number, and when the next one will have come."""

    pem: str
    number: int
    this_update: datetime
    next_update: datetime


@dataclass(frozen=True, slots=True)
class AuthorityRecord:
    """An authority as administrators see it; `retires_at` None for the one that signs."""

    id: int
    subject: str
    not_after: datetime
    created_at: datetime
    retires_at: datetime | None
    crl_number: int
    crl_next_update: datetime | None


def ensure(actor: Actor, passphrase: str | None) -> None:
    """Make an authority unless there is one, inside the caller's transaction; `SettingsError` if it cannot be used.

    A key that was stored before there was a passphrase is encrypted under it.
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
        raise SettingsError("AUTHSVC_CA_KEY_PASSPHRASE does not open the certificate authority's key") from None


def rotate(actor: Actor, passphrase: str | None, overlap: timedelta) -> None:
    """Let a new authority sign from now on; the old one stays trusted, and keeps its list, for the overlap."""
    now = datetime.now(UTC)
    certificate, key = ca.new_authority(f"{_NAME} {now:%Y-%m-%d %H:%M:%S}", now, _DAYS, passphrase)
    with policy_change():
        _retire(now + overlap)
        _insert(actor, "authority.rotate", certificate, "", key)


def import_authority(
    actor: Actor,
    certificate: str,
    chain: str,
    key: str,
    given_passphrase: str | None,
    own: str | None,
    overlap: timedelta,
) -> None:
    """Let an authority that was made elsewhere sign from now on; `InvalidInput` when it could not."""
    now = datetime.now(UTC)
    ca.check_imported(certificate, chain, key, given_passphrase, now)
    with policy_change():
        _retire(now + overlap)
        _insert(actor, "authority.import", certificate, chain, ca.reencrypt_key(key, given_passphrase, own))


def records() -> list[AuthorityRecord]:
    """Return the authorities that are trusted now, the one that signs first."""
    with session():
        return [_record(row) for row in trusted()]


def certificates_pem() -> str:
    """Return all that a broker needs to trust our clients: the authorities and their chains, newest first."""
    with session():
        return "".join(_with_newline(row.certificate) + _with_newline(row.chain) for row in trusted())


def trusted() -> list[Authority]:
    """Return the rows of the authorities that are trusted now, newest first."""
    now = datetime.now(UTC)
    query = Authority.select().where(Authority.retires_at.is_null() | (Authority.retires_at > now))
    return list(query.order_by(Authority.id.desc()))


def signer(passphrase: str | None) -> tuple[Authority, ca.CertificateAuthority]:
    """Return the authority that signs, as stored and as something that can sign."""
    row = Authority.select().where(Authority.retires_at.is_null()).order_by(Authority.id.desc()).first()
    if row is None:
        raise NotFound("there is no certificate authority; `authsvc init` makes one", "no-authority")
    return row, ca.CertificateAuthority(row.certificate, row.key, passphrase)


def revocation_lists(issuing: SigningPolicy) -> list[RevocationList]:
    """Return the lists of all trusted authorities, newest authority first, signed anew where that is due."""
    with session():
        rows = trusted()
        if any(_is_due(row) for row in rows):
            _refresh(issuing)
            rows = trusted()
        return [RevocationList(row.crl or "", row.crl_number, row.crl_this_update, row.crl_next_update) for row in rows]


def refresh_if_due(issuing: SigningPolicy) -> None:
    """Sign lists anew where that is due; for the background, so that lists never run out while nobody asks."""
    revocation_lists(issuing)


def _is_due(row: Authority) -> bool:
    now = datetime.now(UTC)
    if row.crl is None or row.crl_policy_version != current_version():
        return True
    half_life = row.crl_this_update + (row.crl_next_update - row.crl_this_update) / 2
    return now >= half_life or _comes_due(row, now)


def _comes_due(row: Authority, now: datetime) -> bool:
    since = (Certificate.revoked_at > row.crl_this_update) & (Certificate.revoked_at <= now)
    return Certificate.select().where(Certificate.authority == row, since).exists()


def _refresh(issuing: SigningPolicy) -> None:
    with transaction():
        # The lock that makes one replica sign and the others find it done.
        Authority.update(crl_number=Authority.crl_number).execute()
        for row in trusted():
            if _is_due(row):
                _end_superseded_sessions(row)
                _sign_list(row, issuing)


def _sign_list(row: Authority, issuing: SigningPolicy) -> None:
    version, now = current_version(), datetime.now(UTC)
    entries = _entries(row, now)
    digest = hashlib.sha256(repr(entries).encode()).hexdigest()
    fresh = row.crl is not None and now < row.crl_this_update + (row.crl_next_update - row.crl_this_update) / 2
    row.crl_policy_version = version
    if digest != row.crl_entries or not fresh:
        authority = ca.CertificateAuthority(row.certificate, row.key, issuing.passphrase)
        row.crl_number += 1
        row.crl_this_update, row.crl_next_update = now, now + timedelta(days=issuing.crl_days)
        row.crl_entries = digest
        row.crl = authority.revocation_list(entries, row.crl_number, now, row.crl_next_update)
    elif _comes_due(row, now):
        row.crl_this_update = now
    row.save()


def _end_superseded_sessions(row: Authority) -> None:
    """Order the end of sessions whose certificate was to end at a time that has come since the last list."""
    if row.crl_this_update is None:
        return
    due = (Certificate.revoked_at > row.crl_this_update) & (Certificate.revoked_at <= datetime.now(UTC))
    superseded = Certificate.reason == Revocation.SUPERSEDED
    rows = Certificate.select().where(Certificate.authority == row, due, superseded).order_by(Certificate.username)
    for certificate in rows:
        if not is_replaced(certificate):
            disconnects.order(certificate.username, "certificate superseded")


def is_replaced(certificate: Certificate) -> bool:
    """Return whether a certificate ends as superseded while another one of its user is valid: no access ends."""
    if certificate.reason != Revocation.SUPERSEDED:
        return False
    now = datetime.now(UTC)
    trusted_now = Authority.retires_at.is_null() | (Authority.retires_at > now)
    valid = (Certificate.not_after > now) & (Certificate.revoked_at.is_null() | (Certificate.revoked_at > now))
    others = (Certificate.username == certificate.username) & (Certificate.serial != certificate.serial)
    return Certificate.select().join(Authority).where(others, valid, trusted_now).exists()


def _entries(row: Authority, now: datetime) -> list[Entry]:
    """Return what the list must name: what is revoked, and on hold what its user may not use now."""
    query = (
        Certificate.select(Certificate, User)
        .join(User, JOIN.LEFT_OUTER)
        .where(Certificate.authority == row, Certificate.not_after > now, _is_revoked(now) | _is_suspended())
    )
    return [_entry(certificate, now) for certificate in query.order_by(Certificate.serial)]


def _entry(certificate: Certificate, now: datetime) -> Entry:
    if certificate.revoked_at is not None and certificate.revoked_at <= now:
        return Entry(certificate.serial, certificate.revoked_at, Revocation(certificate.reason or "unspecified"))
    since = certificate.user.updated_at if certificate.user else now
    return Entry(certificate.serial, since, Revocation.CERTIFICATE_HOLD)


def _is_revoked(now: datetime) -> Any:
    return Certificate.revoked_at.is_null(False) & (Certificate.revoked_at <= now)


def _is_suspended() -> Any:
    may_use = User.grant_types.cast("text") ** f"%{GrantType.CERTIFICATE}%"
    return User.id.is_null(False) & (~User.enabled | ~may_use)


def _retire(at: datetime) -> None:
    Authority.update(retires_at=at).where(Authority.retires_at.is_null()).execute()


def _insert(actor: Actor, action: str, certificate: str, chain: str, key: str) -> None:
    with policy_change() as announce:
        row = Authority.create(certificate=certificate, chain=chain, key=key, created_at=datetime.now(UTC))
        audit.record(actor, action, f"authority:{row.id}")
        announce(ChangeKind.AUTHORITY, "")


def _record(row: Authority) -> AuthorityRecord:
    certificate = ca.read_certificate(row.certificate)
    return AuthorityRecord(
        row.id,
        certificate.subject.rfc4514_string(),
        certificate.not_valid_after_utc,
        row.created_at,
        row.retires_at,
        row.crl_number,
        row.crl_next_update,
    )


def _with_newline(pem: str) -> str:
    return pem if not pem or pem.endswith("\n") else pem + "\n"
