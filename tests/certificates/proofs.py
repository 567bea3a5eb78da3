"""Renewals as a client writes them by the documentation alone, honest and otherwise."""

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

    from tests.certificates.environment import Scene

    Key = CertificateIssuerPrivateKeyTypes


DUE = timedelta(days=250)
"""Of the 365 days that a certificate lives, two thirds are over by then."""


def in_(time: timedelta, *, tick: bool = False) -> time_machine.travel:
    """Let it be so much later."""
    return time_machine.travel(datetime.now(UTC) + time, tick=tick)


def to_sign(certificate: x509.Certificate, next_key: Key, time: str) -> bytes:
    """Return the lines that `docs/certificates.md` describes."""
    fingerprint = hashlib.sha256(spki(next_key.public_key())).hexdigest()
    return f"authsvc renewal\n{serial_of(certificate)}\n{fingerprint}\n{time}\n".encode()


def signed_by(key: Key, message: bytes) -> str:
    """Sign as each kind of key does, and return it as Base64."""
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
    """Return the body of an honest renewal, made now unless at another time."""
    following = next_key or new_key()
    time = (at or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")
    (name,) = certificate.subject
    return {
        "certificate": pem(certificate),
        "csr": signing_request(str(name.value), following),
        "time": time,
        "signature": signed_by(key, to_sign(certificate, following, time)),
    }


def renews(scene: Scene, body: dict[str, Any]) -> TestResponse:
    return scene.stranger.post("/api/certificates/renew", body)


def renewed(answer: TestResponse) -> x509.Certificate:
    assert answer.status_code == 201, answer.text
    return x509.load_pem_x509_certificate(answer.get_json()["certificate"].encode())


def count_of(scene: Scene, username: str = "bob") -> int:
    total: int = scene.admin.get(f"/api/certificates?username={username}").get_json()["total"]
    return total
