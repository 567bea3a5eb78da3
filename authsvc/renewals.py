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

from authsvc import pki, signing_requests
from authsvc.errors import Unauthenticated, invalid

if TYPE_CHECKING:
    from authsvc.signing_requests import SigningRequest

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
    """A renewal whose sender holds the key with this fingerprint, in a certificate with this serial."""

    serial: str
    fingerprint: str
    username: str
    request: SigningRequest


def message(serial: str, fingerprint: str, time: str) -> bytes:
    """Return what is to be signed with the current key: ECDSA or RSA PKCS#1 v1.5 with SHA-256, or Ed25519."""
    return f"authsvc renewal\n{serial}\n{fingerprint}\n{time}\n".encode()


def prove(renewal: Renewal, now: datetime) -> Proven:
    """Check a renewal's proof; `Unauthenticated` when it does not hold, `InvalidInput` for what cannot be read.

    Whether the certificate is one of ours, valid and due is for the caller to look up by its serial and content.
    """
    try:
        certificate = x509.load_pem_x509_certificate(renewal.certificate.encode())
        username = pki.common_name_of(certificate)
        key = signing_requests.fingerprint_of(certificate.public_key())  # type: ignore[arg-type]  # any key has one
    except (ValueError, TypeError, AttributeError, x509.InvalidVersion, UnsupportedAlgorithm):
        raise invalid("certificate", "must be the current certificate as PEM") from None
    request = signing_requests.read(renewal.csr, username)
    if abs(_moment(renewal.time) - now) > _CLOCKS_APART:
        raise Unauthenticated("the time is more than five minutes off; is the clock right?", "stale-proof")
    serial = f"{certificate.serial_number:x}"
    _verify(certificate, renewal.signature, message(serial, request.fingerprint, renewal.time))
    return Proven(serial, key, username, request)


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
