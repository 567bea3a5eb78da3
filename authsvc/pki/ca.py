"""The content of the certificates and CRLs that authsvc signs (RFC 5280). No database and no clock: callers pass both.

From a CSR (RFC 2986) only the public key is used, after its self-signature was checked. Subject, validity, usages and
extensions are set here.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from authsvc.errors import Conflict, invalid
from authsvc.pki.csr import fingerprint_of, has_small_exponent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from authsvc.pki.csr import ClientKey

BACKDATED = timedelta(minutes=5)
"""Certificates are valid from this much earlier, because a device's clock may be slow."""

_KEY_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


class RevocationReason(StrEnum):
    """Why a certificate was revoked: the reasons of RFC 5280 section 5.3.1 that apply to client certificates."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "keyCompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessationOfOperation"
    CERTIFICATE_HOLD = "certificateHold"
    PRIVILEGE_WITHDRAWN = "privilegeWithdrawn"


@dataclass(frozen=True, slots=True)
class SignedCertificate:
    """A newly signed certificate as PEM, with its main fields."""

    serial: str
    certificate: str
    fingerprint: str
    not_before: datetime
    not_after: datetime


class CrlEntry(NamedTuple):
    """An entry of a CRL."""

    serial: str
    revoked_at: datetime
    reason: RevocationReason


class CertificateAuthority:
    """A certificate authority: its certificate and private key."""

    def __init__(self, certificate_pem: str, key_pem: str, passphrase: str | None = None) -> None:
        self.certificate_pem = certificate_pem
        self.certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        self._key = _load_key(key_pem, passphrase)

    def __repr__(self) -> str:
        return f"CertificateAuthority({self.certificate.subject.rfc4514_string()!r})"

    def sign(self, username: str, key: ClientKey, now: datetime, days: int) -> SignedCertificate:
        """Return a certificate for this key with the username as Common Name, valid for client authentication only."""
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        return self._sign(username, key, now, days, usage)

    def sign_server(
        self, common_name: str, hosts: Iterable[x509.GeneralName], key: ClientKey, now: datetime, days: int
    ) -> SignedCertificate:
        """Return a certificate for this key and these hosts, valid for server authentication only."""
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        return self._sign(common_name, key, now, days, usage, x509.SubjectAlternativeName(hosts))

    def _sign(
        self, common_name: str, key: ClientKey, now: datetime, days: int, *extensions: x509.ExtensionType
    ) -> SignedCertificate:
        now = now.replace(microsecond=0)
        if now >= self.certificate.not_valid_after_utc:
            raise Conflict("the certificate authority has expired; rotate it or import another", "authority-expired")
        not_before = now - BACKDATED
        not_after = min(now + timedelta(days=days), self.certificate.not_valid_after_utc)
        serial = secrets.randbits(128) or 1
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(common_name))
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .serial_number(serial)
            .not_valid_before(not_before)
            .not_valid_after(not_after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage("digital_signature"), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(self._key_identifier(), critical=False)
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return SignedCertificate(f"{serial:x}", pem_of(certificate), fingerprint_of(key), not_before, not_after)

    def revocation_list(self, entries: Iterable[CrlEntry], number: int, now: datetime, next_update: datetime) -> str:
        """Return a signed CRL with these entries as PEM (RFC 5280 section 5)."""
        # All entries at once: adding them one by one copies the list for each.
        builder = (
            x509.CertificateRevocationListBuilder(revoked_certificates=list(map(_revoked, entries)))
            .issuer_name(self.certificate.subject)
            .last_update(now - BACKDATED)
            .next_update(next_update)
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(self._key_identifier(), critical=False)
        )
        signed = builder.sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM).decode()

    def _key_identifier(self) -> x509.AuthorityKeyIdentifier:
        try:
            own = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        except x509.ExtensionNotFound:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def new_authority(common_name: str, now: datetime, days: int, passphrase: str | None) -> tuple[str, str]:
    """Return the certificate and key (ECDSA P-256) of a new authority as PEM; a passphrase encrypts the key."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = now.replace(microsecond=0)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .issuer_name(_name(common_name))
        .public_key(key.public_key())
        .serial_number(secrets.randbits(128) or 1)
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return pem_of(certificate), encrypt_key(key, passphrase)


def check_imported(
    certificate_pem: str, chain_pem: str, key_pem: str, given_passphrase: str | None, now: datetime
) -> None:
    """Raise `InvalidInput` unless the certificate may sign, the key belongs to it, and the chain leads to a root."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        chain = x509.load_pem_x509_certificates(chain_pem.encode()) if chain_pem.strip() else []
    except ValueError:
        raise invalid("certificate", "must be PEM, and so must its chain") from None
    key = _load_key(key_pem, given_passphrase)
    if certificate.public_key() != key.public_key():
        raise invalid("key", "does not belong to the certificate")
    if isinstance(key, rsa.RSAPrivateKey) and has_small_exponent(key.public_key()):
        raise invalid("key", "must have an RSA public exponent of at least 65537")
    if not _may_sign(certificate):
        raise invalid("certificate", "must be that of a certificate authority (CA:TRUE, keyCertSign and cRLSign)")
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        raise invalid("certificate", "is not valid at this time")
    path = [certificate, *chain]
    for issued, issuer in zip(path, [*chain, path[-1]], strict=True):  # the last certificate, a root, is self-signed
        try:
            issued.verify_directly_issued_by(issuer)
        except Exception:  # noqa: BLE001 - every error means that the chain is broken
            raise invalid("chain", "must lead from the certificate to its root, each signed by the next") from None


def encrypt_key(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, passphrase: str | None) -> str:
    """Return an authority's key as PEM, encrypted if a passphrase is given."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase.encode())
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption).decode()


def is_encrypted(key_pem: str) -> bool:
    """Return whether an authority's stored key (PEM, PKCS#8) is encrypted."""
    return "-----BEGIN ENCRYPTED PRIVATE KEY-----" in key_pem


def reencrypt_key(key_pem: str, given_passphrase: str | None, own_passphrase: str | None) -> str:
    """Return an authority's key encrypted with its own passphrase instead of the given one; None means unencrypted."""
    return encrypt_key(_load_key(key_pem, given_passphrase), own_passphrase)


def read_certificate(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def pem_of(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def common_name_of(certificate: x509.Certificate) -> str:
    """Return the Common Name; `ValueError` unless there is exactly one."""
    (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(name.value)


def _load_key(key_pem: str, passphrase: str | None) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(key_pem.encode(), passphrase.encode() if passphrase else None)
    except (ValueError, TypeError):
        raise invalid("key", "cannot be read; check the passphrase (AUTHSVC_CA_KEY_PASSPHRASE)") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise invalid("key", "must be an elliptic curve or RSA key")
    return key


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return constraints.ca and usage.key_cert_sign and usage.crl_sign


def _revoked(entry: CrlEntry) -> x509.RevokedCertificate:
    builder = (
        x509.RevokedCertificateBuilder()
        .serial_number(int(entry.serial, 16))
        .revocation_date(entry.revoked_at.replace(microsecond=0))
    )
    if entry.reason is not RevocationReason.UNSPECIFIED:  # RFC 5280 section 5.3.1: omit the reason then
        reason = x509.CRLReason(x509.ReasonFlags(entry.reason.value))
        builder = builder.add_extension(reason, critical=False)
    return builder.build()


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(*granted: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{usage: usage in granted for usage in _KEY_USAGES})
