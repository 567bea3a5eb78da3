"""Keys and CSRs, valid and invalid ones."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import (
        CertificateIssuerPrivateKeyTypes,
        PublicKeyTypes,
    )


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def signing_request(
    username: str, key: CertificateIssuerPrivateKeyTypes | None = None, *extensions: x509.ExtensionType
) -> str:
    """Return a CSR as PEM, for a new key unless one is given."""
    return pem_of(request_for([username], key or new_key(), *extensions))


def request_for(
    common_names: list[str], key: CertificateIssuerPrivateKeyTypes, *extensions: x509.ExtensionType
) -> x509.CertificateSigningRequest:
    """Return a CSR with any number of Common Names."""
    # Without the library's checks, which an attacker would omit.
    names = [x509.NameAttribute(NameOID.COMMON_NAME, name, _validate=False) for name in common_names]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    hashes_itself = isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    return builder.sign(key, None if hashes_itself else hashes.SHA256())


def pem_of(request: x509.CertificateSigningRequest) -> str:
    """Return the CSR as PEM."""
    return request.public_bytes(serialization.Encoding.PEM).decode()


def der_of(text: str) -> bytes:
    """Return the bytes inside a PEM text."""
    return base64.b64decode("".join(line for line in text.splitlines() if not line.startswith("-----")))


def pem_around(der: bytes) -> str:
    """Return any bytes in the PEM armour of a CSR."""
    marker = "CERTIFICATE REQUEST-----\n"
    return f"-----BEGIN {marker}{base64.encodebytes(der).decode()}-----END {marker}"


def spki(key: PublicKeyTypes) -> bytes:
    """Return the SubjectPublicKeyInfo, to compare keys."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
