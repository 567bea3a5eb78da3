"""Client certificates: signed by our own authority, remembered for as long as anybody could present them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from authsvc import audit, pki
from authsvc.storage.changes import Kind, policy_change
from authsvc.storage.models import Authority, Certificate, User

if TYPE_CHECKING:
    from authsvc.actors import Actor

_AUTHORITY_NAME = "authsvc certificate authority"
_AUTHORITY_DAYS = 3650


class Issuing(NamedTuple):
    """What signing takes: how long certificates live, and the passphrase of the authority's key if it has one."""

    days: int
    passphrase: str | None = None

    def __repr__(self) -> str:
        return f"Issuing({self.days})"


class Issued(NamedTuple):
    """A new certificate and the one that signed it, as PEM."""

    serial: str
    certificate: str
    ca_certificate: str
    not_after: datetime


def ensure_authority(actor: Actor, passphrase: str | None) -> None:
    """Make the certificate authority unless there is one."""
    if Authority.select().exists():
        return
    now = datetime.now(UTC)
    certificate, key = pki.new_authority(_AUTHORITY_NAME, now, _AUTHORITY_DAYS, passphrase)
    Authority.create(certificate=certificate, key=key, created_at=now)
    audit.record(actor, "authority.create", "authority")


def issue(actor: Actor, username: str, key: pki.ClientKey, issuing: Issuing) -> Issued:
    """Sign a certificate for an existing user's key, in the caller's transaction if there is one."""
    with policy_change() as announce:
        authority = _authority(issuing.passphrase)
        now = datetime.now(UTC)
        made = authority.sign(username, key, now, issuing.days)
        Certificate.create(
            serial=made.serial,
            user=User.get(User.username == username),
            username=username,
            certificate=made.certificate,
            not_before=made.not_before,
            not_after=made.not_after,
            created_at=now,
        )
        facts = {"username": username, "notAfter": made.not_after.isoformat()}
        audit.record(actor, "certificate.issue", f"certificate:{made.serial}", after=facts)
        announce(Kind.USER, username)
    return Issued(made.serial, made.certificate, authority.certificate_pem, made.not_after)


def _authority(passphrase: str | None) -> pki.CertificateAuthority:
    newest = Authority.select().order_by(Authority.id.desc()).get()
    return pki.CertificateAuthority(newest.certificate, newest.key, passphrase)
