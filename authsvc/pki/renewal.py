"""Renewal by proof of possession: who signs with the current key may have the next one certified.

What is signed names the current certificate, the new key and the time, so it is good for that key alone and for
minutes. A copy of it replayed within them gives back the certificate that was made for it, for a key the copier does
not have.
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
from authsvc.pki import ca
from authsvc.pki import csr as signing_requests

if TYPE_CHECKING:
    from authsvc.pki.csr import SigningRequest

_CLOCKS_APART = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a client sends: its current certificate, a request for the new key, the time, its signature over these."""

    certificate: str
    csr: str
    time: str
    signature: str


@dataclass(frozen=True, slots=True)
class Proven:
    """A renewal signed with the key of the certificate that was sent, and a checked request for the next key.

    The certificate may be anybody's, even self-signed: nothing it says counts until it is found to equal a stored one.
    """

    certificate: x509.Certificate
    request: SigningRequest

    @property
    def serial(self) -> str:
        """The serial number of the certificate that was sent, as serials are stored."""
        return f"{self.certificate.serial_number:x}"

    def is_for(self, stored: str) -> bool:
        """Return whether the certificate that was sent equals the stored one (PEM), byte for byte."""
        ours = x509.load_pem_x509_certificate(stored.encode())
        return self.certificate.public_bytes(Encoding.DER) == ours.public_bytes(Encoding.DER)


def message(serial: str, fingerprint: str, time: str) -> bytes:
    """Return what is to be signed with the current key: ECDSA or RSA PKCS#1 v1.5 with SHA-256, or Ed25519."""
    return f"authsvc renewal\n{serial}\n{fingerprint}\n{time}\n".encode()


def prove(renewal: Renewal, now: datetime) -> Proven:
    """Check a renewal's proof; `Unauthenticated` when it does not hold, `InvalidInput` for what cannot be read.

    The caller has to compare the certificate with the stored one (`Proven.is_for`), and to check that it is valid and
    due.
    """
    try:
        certificate = x509.load_pem_x509_certificate(renewal.certificate.encode())
        username = ca.common_name_of(certificate)
        certificate.public_key()
    except (ValueError, TypeError, AttributeError, x509.InvalidVersion, UnsupportedAlgorithm):
        raise invalid("certificate", "must be the current certificate as PEM") from None
    request = signing_requests.read(renewal.csr, username)
    if abs(_moment(renewal.time) - now) > _CLOCKS_APART:
        raise Unauthenticated("the time is more than five minutes off; is the clock right?", "stale-proof")
    proven = Proven(certificate, request)
    _verify(certificate, renewal.signature, message(proven.serial, request.fingerprint, renewal.time))
    return proven


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise invalid("time", "must be a time as RFC 3339 has it, such as 2026-11-20T08:00:00Z")
    return moment


def _verify(certificate: x509.Certificate, signature: str, signed: bytes) -> None:
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
            raise InvalidSignature  # noqa: TRY301 - one way out for every key
    except (InvalidSignature, binascii.Error, ValueError):
        raise Unauthenticated("the signature does not prove possession of the current key", "no-proof") from None
