"""Certificate renewal by proof of possession: a client signs its request for a new key with its current key.

The signature covers the serial of the current certificate, the new key and the time, so it is valid for this key and
for 5 minutes. A replay within that time returns the same certificate, whose key the attacker does not have.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from authsvc.errors import Unauthenticated, invalid
from authsvc.pki import ca, csr

if TYPE_CHECKING:
    from authsvc.pki.csr import SigningRequest

_MAX_CLOCK_DIFFERENCE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class RenewalRequest:
    """A client's current certificate, the CSR for its new key, the time, and its signature of `message`."""

    certificate: str
    csr: str
    time: str
    signature: str


@dataclass(frozen=True, slots=True)
class VerifiedRenewal:
    """A renewal with a valid signature of the key in the sent certificate, and the checked CSR for the new key.

    The certificate may be self-signed by anybody: trust nothing in it before it equals a stored one (`is_for`).
    """

    certificate: x509.Certificate
    request: SigningRequest

    @property
    def serial(self) -> str:
        """The serial number of the sent certificate, in the stored form."""
        return f"{self.certificate.serial_number:x}"

    def is_for(self, stored: str) -> bool:
        """Return whether the sent certificate equals the stored one (PEM) byte for byte."""
        return self.certificate.public_bytes(Encoding.DER) == ca.read_certificate(stored).public_bytes(Encoding.DER)


def message(serial: str, fingerprint: str, time: str) -> bytes:
    """Return the bytes to sign with the current key: ECDSA or RSA PKCS#1 v1.5 with SHA-256, or Ed25519."""
    return f"authsvc renewal\n{serial}\n{fingerprint}\n{time}\n".encode()


def verify(renewal: RenewalRequest, now: datetime) -> VerifiedRenewal:
    """Verify a renewal's signature and time; raise `Unauthenticated` if one is wrong, `InvalidInput` for a bad field.

    The caller must compare the certificate with the stored one (`VerifiedRenewal.is_for`) and check that it is valid
    and due.
    """
    try:
        certificate = x509.load_pem_x509_certificate(renewal.certificate.encode())
        username = ca.common_name_of(certificate)
        certificate.public_key()
    except (ValueError, TypeError, AttributeError, x509.InvalidVersion, UnsupportedAlgorithm):
        raise invalid("certificate", "must be the current certificate as PEM") from None
    request = csr.read(renewal.csr, username)
    if abs(_time(renewal.time) - now) > _MAX_CLOCK_DIFFERENCE:
        raise Unauthenticated(
            "the time differs by more than 5 minutes from the service's; set the clock", "stale-proof"
        )
    verified = VerifiedRenewal(certificate, request)
    _verify_signature(certificate, renewal.signature, message(verified.serial, request.fingerprint, renewal.time))
    return verified


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise invalid("time", "must be an RFC 3339 time, such as 2026-11-20T08:00:00Z")
    return time


def _verify_signature(certificate: x509.Certificate, signature: str, signed: bytes) -> None:
    key = certificate.public_key()
    try:
        proof = base64.b64decode(signature, validate=True)
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(proof, signed, ec.ECDSA(hashes.SHA256()))
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(proof, signed)
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(proof, signed, padding.PKCS1v15(), hashes.SHA256())
        else:
            raise InvalidSignature  # noqa: TRY301 - one error for every kind of key
    except (InvalidSignature, binascii.Error, ValueError):
        raise Unauthenticated("the signature does not prove possession of the current key", "no-proof") from None
