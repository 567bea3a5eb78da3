"""The certificate authority: what a certificate of ours says is decided here and nowhere else.

Bytes in, bytes out: PEM goes in and comes out, keys and clocks are handed over by the caller. From a certificate
signing request (RFC 2986) only the public key is used, after its self-signature was checked; subject, validity, usages
and extensions are ours (RFC 5280).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from authsvc.errors import InvalidInput, invalid

MAX_CSR_BYTES = 16 * 1024
_BACKDATED = timedelta(minutes=5)
_CURVES = ("secp256r1", "secp384r1")
_RSA_BITS = range(2048, 4097)

ClientKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey


@dataclass(frozen=True, slots=True)
class SigningRequest:
    """A certificate signing request that was checked: who it names, and the key its sender holds."""

    common_name: str
    public_key: ClientKey

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the public key (SubjectPublicKeyInfo, DER), in hexadecimal: what identifies the key's holder."""
        return hashlib.sha256(_spki(self.public_key)).hexdigest()

    @property
    def public_key_pem(self) -> str:
        """The public key as PEM, which is all that needs to be kept of a request."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.public_key.public_bytes(serialization.Encoding.PEM, form).decode()


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A certificate of ours, and what is known of it without parsing it again."""

    serial: str
    certificate: str
    not_before: datetime
    not_after: datetime


class CertificateAuthority:
    """A key and the certificate that goes with it."""

    def __init__(self, certificate_pem: str, key_pem: str, passphrase: str | None = None) -> None:
        self._certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        key = serialization.load_pem_private_key(key_pem.encode(), passphrase.encode() if passphrase else None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError("the authority's key must be an elliptic curve key")
        self._key = key
        self.certificate_pem = certificate_pem

    def __repr__(self) -> str:
        return f"CertificateAuthority({self._certificate.subject.rfc4514_string()})"

    def sign(self, username: str, key: ClientKey, now: datetime, days: int) -> IssuedCertificate:
        """Return a client certificate for the key: Common Name = username, client authentication and nothing else."""
        now = now.replace(microsecond=0)
        not_before = now - _BACKDATED  # devices' clocks are late now and then
        not_after = min(now + timedelta(days=days), self._certificate.not_valid_after_utc)
        serial = secrets.randbits(128) or 1
        issuer_key = self._key.public_key()
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(username))
            .issuer_name(self._certificate.subject)
            .public_key(key)
            .serial_number(serial)
            .not_valid_before(not_before)
            .not_valid_after(not_after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return IssuedCertificate(f"{serial:x}", _pem(certificate), not_before, not_after)


def new_authority(common_name: str, now: datetime, days: int, passphrase: str | None) -> tuple[str, str]:
    """Return certificate and key (ECDSA P-256) of a new authority as PEM; the passphrase, if any, encrypts the key."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = now.replace(microsecond=0)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .issuer_name(_name(common_name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase.encode())
    key_pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    return _pem(certificate), key_pem.decode()


def read_signing_request(text: str, username: str) -> SigningRequest:
    """Check a signing request (PEM, or Base64 of PEM) for that username; raise `InvalidInput` for `csr` otherwise."""
    try:
        request = x509.load_pem_x509_csr(_pem_bytes(text))
        sound = request.is_signature_valid
        names = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        key = request.public_key()
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        raise invalid("csr", "must be a certificate signing request as PEM, or Base64 of PEM") from None
    if not sound:
        raise invalid("csr", "is not signed by the key it names")
    if len(names) != 1 or not names[0].value or names[0].value != username:
        raise invalid("csr", "must have exactly one Common Name, equal to username")
    return SigningRequest(username, _strong(key))


def read_public_key(pem: str) -> ClientKey:
    """Return a key that `SigningRequest.public_key_pem` wrote."""
    return _strong(serialization.load_pem_public_key(pem.encode()))


def _strong(key: object) -> ClientKey:
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return key
    if isinstance(key, rsa.RSAPublicKey) and key.key_size in _RSA_BITS:
        return key
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    raise invalid("csr", "must hold a P-256, P-384, Ed25519 or RSA key of 2048 to 4096 bits")


def _pem_bytes(text: str) -> bytes:
    if len(text) > MAX_CSR_BYTES:
        raise invalid("csr", f"must be at most {MAX_CSR_BYTES} characters")
    if text.lstrip().startswith("-----BEGIN"):
        return text.encode()
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput(*invalid("csr", "must be PEM, or Base64 of PEM").errors) from None


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(**granted: bool) -> x509.KeyUsage:
    every = (
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
    return x509.KeyUsage(**{usage: granted.get(usage, False) for usage in every})


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _spki(key: ClientKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
