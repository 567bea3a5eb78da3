"""Renewal requests as `docs/certificates.md` describes them, valid and manipulated."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import time_machine
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from tests.certificates.environment import serial_of
from tests.certificates.tools import pem
from tests.registry.signing import new_key, signing_request, spki

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
    from werkzeug.test import TestResponse

    from tests.certificates.environment import Environment

    Key = CertificateIssuerPrivateKeyTypes


DUE = timedelta(days=250)
"""More than two thirds of a certificate's 365 days have passed by then."""


def travel(time: timedelta, *, tick: bool = False) -> time_machine.travel:
    """Move the clock forward."""
    return time_machine.travel(datetime.now(UTC) + time, tick=tick)


def message_to_sign(certificate: x509.Certificate, next_key: Key, time: str) -> bytes:
    """Return the bytes to sign according to `docs/certificates.md`."""
    fingerprint = hashlib.sha256(spki(next_key.public_key())).hexdigest()
    return f"authsvc renewal\n{serial_of(certificate)}\n{fingerprint}\n{time}\n".encode()


def signed_by(key: Key, message: bytes) -> str:
    """Return the signature of a message as Base64."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        signature = key.sign(message, ec.ECDSA(hashes.SHA256()))
    elif isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(message, padding.PKCS1v15(), hashes.SHA256())
    else:
        assert isinstance(key, ed25519.Ed25519PrivateKey)
        signature = key.sign(message)
    return base64.b64encode(signature).decode()


def renewal(
    certificate: x509.Certificate, key: Key, next_key: Key | None = None, at: datetime | None = None
) -> dict[str, Any]:
    """Return the body of a valid renewal request; the default time is now."""
    following = next_key or new_key()
    time = (at or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")
    (name,) = certificate.subject
    return {
        "certificate": pem(certificate),
        "csr": signing_request(str(name.value), following),
        "time": time,
        "signature": signed_by(key, message_to_sign(certificate, following, time)),
    }


def post_renewal(env: Environment, body: dict[str, Any]) -> TestResponse:
    return env.unauthenticated.post("/api/certificates/renew", body)


def renewed_certificate(answer: TestResponse) -> x509.Certificate:
    assert answer.status_code == 201, answer.text
    return x509.load_pem_x509_certificate(answer.get_json()["certificate"].encode())


def count_certificates(env: Environment, username: str = "bob") -> int:
    total: int = env.admin.get(f"/api/certificates?username={username}").get_json()["total"]
    return total
