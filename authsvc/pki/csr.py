"""Certificate signing requests (RFC 2986). Of a CSR only the Common Name, for checking, and the public key are used."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from authsvc.errors import InvalidInput, invalid

MAX_CHARACTERS = 16 * 1024
MAX_COMMON_NAME = 64
_CURVES = ("secp256r1", "secp384r1")
_RSA_BITS = range(2048, 4097)
_SMALLEST_EXPONENT = 65_537

ClientKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey


@dataclass(frozen=True, slots=True)
class SigningRequest:
    """The Common Name and public key of a checked CSR, whose sender holds the private key."""

    common_name: str
    public_key: ClientKey

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the public key."""
        return fingerprint_of(self.public_key)

    @property
    def public_key_pem(self) -> str:
        """The public key as PEM, the only part of a CSR that is stored."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.public_key.public_bytes(serialization.Encoding.PEM, form).decode()


def fingerprint_of(key: ClientKey) -> str:
    """Return the SHA-256 of a public key (SubjectPublicKeyInfo, DER) in hexadecimal."""
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def has_small_exponent(key: rsa.RSAPublicKey) -> bool:
    """Return whether the exponent allows forged signatures where a verifier checks the padding incompletely."""
    return key.public_numbers().e < _SMALLEST_EXPONENT


def read(text: str, username: str) -> SigningRequest:
    """Parse and check a CSR (PEM, or Base64 of PEM) for this username; raise `InvalidInput` for `csr` if wrong."""
    return _checked(_load(_pem(text), pem=True), username)


def check_common_name(username: str) -> None:
    """Raise `InvalidInput` for `csr` if a username is too long for a certificate (RFC 5280, ub-common-name)."""
    if len(username) > MAX_COMMON_NAME:
        raise invalid(
            "csr",
            f"cannot be signed: the Common Name of a certificate has at most {MAX_COMMON_NAME} characters and this "
            f"username has {len(username)}; use a shorter username, a password or an API token",
        )


def read_key(text: str) -> ClientKey:
    """Parse and check a CSR with any name and return its public key; raise `InvalidInput` for `csr` if wrong."""
    return _checked_key(_load(_pem(text), pem=True))


def read_der(der: bytes, username: str) -> SigningRequest:
    """Parse and check a CSR in DER, as EST sends it, for this username; raise `InvalidInput` for `csr` if wrong."""
    return _checked(_load(der, pem=False), username)


def read_public_key(pem: str) -> ClientKey:
    """Parse a `SigningRequest.public_key_pem`."""
    return _strong(serialization.load_pem_public_key(pem.encode()))


def _load(content: bytes, *, pem: bool) -> x509.CertificateSigningRequest:
    try:
        return x509.load_pem_x509_csr(content) if pem else x509.load_der_x509_csr(content)
    except (ValueError, x509.InvalidVersion):
        raise invalid("csr", "must be a certificate signing request as PEM, or Base64 of PEM") from None


def _checked(request: x509.CertificateSigningRequest, username: str) -> SigningRequest:
    try:
        names = [name.value for name in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except (ValueError, TypeError):
        raise _unreadable() from None
    key = _checked_key(request)
    check_common_name(username)
    if not username or names != [username]:
        raise invalid("csr", "must have exactly one Common Name, equal to username")
    return SigningRequest(username, key)


def _checked_key(request: x509.CertificateSigningRequest) -> ClientKey:
    try:
        sound = request.is_signature_valid
        key = _strong(request.public_key())
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        raise _unreadable() from None
    if not sound:
        raise invalid("csr", "must be signed with the private key of its public key")
    return key


def _unreadable() -> InvalidInput:
    return invalid("csr", "has a key, name or signature that cannot be read")


def _strong(key: object) -> ClientKey:
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return key
    if isinstance(key, rsa.RSAPublicKey) and key.key_size in _RSA_BITS:
        if has_small_exponent(key):
            raise invalid("csr", f"must hold an RSA key with a public exponent of at least {_SMALLEST_EXPONENT}")
        return key
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    raise invalid("csr", "must hold a P-256, P-384, Ed25519 or RSA key of 2048 to 4096 bits")


def _pem(text: str) -> bytes:
    if len(text) > MAX_CHARACTERS:
        raise invalid("csr", f"must be at most {MAX_CHARACTERS} characters")
    if text.lstrip().startswith("-----BEGIN"):
        return text.encode("utf-8", "replace")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise invalid("csr", "must be PEM, or Base64 of PEM") from None
