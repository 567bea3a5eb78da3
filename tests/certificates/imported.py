"""Authorities created outside of authsvc, and their import."""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from authsvc.pki import authorities
from tests.actors import OPERATOR
from tests.certificates.tools import certificate_for, openssl, pem, write_file

if TYPE_CHECKING:
    from pathlib import Path

    from tests.certificates.environment import Environment


KEY_USAGE = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
SIGNS_NOTHING = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
IS_AUTHORITY = x509.BasicConstraints(ca=True, path_length=None)
DAY = timedelta(days=1)


def subjects_of(env: Environment) -> list[str]:
    found = x509.load_pem_x509_certificates(env.ca_pem().encode())
    return [certificate.subject.rfc4514_string() for certificate in found]


def root(name: str = "our root", *extensions: x509.ExtensionType, key: Any = None, **options: Any) -> tuple[Any, Any]:
    """Return certificate and key of an operator's own root authority."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    return certificate_for(name, key, None, *(extensions or (IS_AUTHORITY, KEY_USAGE)), **options), key


def below(issuer: tuple[Any, Any], name: str = "our intermediate") -> tuple[Any, Any]:
    key = ec.generate_private_key(ec.SECP256R1())
    return certificate_for(name, key, issuer, IS_AUTHORITY, KEY_USAGE), key


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65_537, 2048)


def imports(
    certificate: str,
    key: str,
    chain: str = "",
    *,
    given: str | None = None,
    own: str | None = None,
    overlap: timedelta = DAY,
) -> None:
    authorities.import_authority(OPERATOR, certificate, chain, key, given, own, overlap)


def verified(env: Environment, directory: Path, certificate: x509.Certificate) -> str:
    """Verify a certificate with openssl against the `cafile` and `crlfile` for brokers; return its output."""
    trusted, lists = write_file(directory, "ca.pem", env.ca_pem()), write_file(directory, "crl.pem", env.crl_pem())
    return openssl("verify", "-crl_check", "-CRLfile", lists, "-CAfile", trusted, stdin=pem(certificate))
