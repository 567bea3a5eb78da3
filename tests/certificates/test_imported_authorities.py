"""Import of a root or intermediate authority, and what is refused."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from authsvc.errors import InvalidInput
from authsvc.storage.database import session
from authsvc.storage.models import Authority
from tests.certificates.environment import ON_SQLITE, Environment
from tests.certificates.imported import (
    IS_AUTHORITY,
    KEY_USAGE,
    SIGNS_NOTHING,
    below,
    imports,
    root,
    rsa_key,
    subjects_of,
    verified,
)
from tests.certificates.tools import key_pem, pem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


DAY = timedelta(days=1)


# Accepted imports.


@ON_SQLITE
@pytest.mark.parametrize("kind", ["P-256", "P-384", "RSA"])
def test_imported_root_signs_from_then_on(env: Environment, kind: str, tmp_path: Path) -> None:
    keys: dict[str, Callable[[], Any]] = {"RSA": rsa_key, "P-384": lambda: ec.generate_private_key(ec.SECP384R1())}
    certificate, key = root(key=keys[kind]() if kind in keys else None)
    imports(pem(certificate), key_pem(key))
    issued = env.issue_certificate("bob")
    issued.verify_directly_issued_by(certificate)
    assert env.crl().is_signature_valid(certificate.public_key())
    assert "stdin: OK" in verified(env, tmp_path, issued)
    assert subjects_of(env) == ["CN=our root", "CN=authsvc certificate authority"]


@ON_SQLITE
def test_imported_intermediate_signs_and_its_chain_is_published(env: Environment, tmp_path: Path) -> None:
    top = root()
    middle = below(top, "our middle")
    last = below(middle, "our plant")
    imports(pem(last[0]), key_pem(last[1]), pem(middle[0]) + pem(top[0]))
    answer = env.request_certificate()
    issued = x509.load_pem_x509_certificate(answer.get_json()["certificate"].encode())
    assert "stdin: OK" in verified(env, tmp_path, issued)
    chain = x509.load_pem_x509_certificates(answer.get_json()["caCertificate"].encode())
    assert [each.subject.rfc4514_string() for each in chain] == ["CN=our plant", "CN=our middle", "CN=our root"]
    assert subjects_of(env)[:3] == ["CN=our plant", "CN=our middle", "CN=our root"]


@ON_SQLITE
def test_pem_files_without_a_final_line_break_are_separated(env: Environment) -> None:
    top = root()
    last = below(top)
    imports(pem(last[0]).rstrip(), key_pem(last[1]), pem(top[0]).rstrip())
    assert len(subjects_of(env)) == 3
    chain = env.request_certificate().get_json()["caCertificate"]
    assert len(x509.load_pem_x509_certificates(chain.encode())) == 2


@ON_SQLITE
def test_imported_key_is_encrypted_with_the_services_passphrase(env: Environment) -> None:
    certificate, key = root()
    imports(pem(certificate), key_pem(key, "theirs"), given="theirs", own="ours")
    with session():
        stored = Authority.get(Authority.retires_at.is_null()).key
    assert stored.startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    careful = env.with_settings(ca_key_passphrase="ours")
    careful.issue_certificate("bob").verify_directly_issued_by(certificate)
    careful.close()


def _mismatched() -> tuple[str, str, str]:
    return pem(root()[0]), key_pem(root()[1]), ""


def _certificate(*extensions: x509.ExtensionType, **options: Any) -> tuple[str, str, str]:
    certificate, key = root("ours", *extensions, **options)
    return pem(certificate), key_pem(key), ""


def _chained(*chain: tuple[Any, Any]) -> tuple[str, str, str]:
    certificate, key = below(root())
    return pem(certificate), key_pem(key), "".join(pem(each) for each, _ in chain)


def _of_another_kind() -> tuple[str, str, str]:
    return _certificate(key=ed25519.Ed25519PrivateKey.generate())


UNFIT = {
    "another's key": (_mismatched, "key"),
    "a client": (lambda: _certificate(x509.BasicConstraints(ca=False, path_length=None), SIGNS_NOTHING), "certificate"),
    "an authority that may not sign": (lambda: _certificate(IS_AUTHORITY, SIGNS_NOTHING), "certificate"),
    "no word about use": (lambda: _certificate(IS_AUTHORITY), "certificate"),
    "no extension at all": (lambda: _certificate(KEY_USAGE), "certificate"),
    "expired": (lambda: _certificate(valid=(-2 * DAY, -DAY)), "certificate"),
    "not yet valid": (lambda: _certificate(valid=(DAY, 2 * DAY)), "certificate"),
    "Ed25519": (_of_another_kind, "key"),
    "RSA with exponent 3": (lambda: _certificate(key=rsa.generate_private_key(3, 2048)), "key"),
    "a chain that leads nowhere": (lambda: _chained(root("another root")), "chain"),
    "junk": (lambda: ("junk", "junk", ""), "certificate"),
    "junk for a key": (lambda: (pem(root()[0]), "junk", ""), "key"),
    "junk for a chain": (lambda: (*_certificate()[:2], "junk"), "certificate"),
}


@ON_SQLITE
@pytest.mark.parametrize(("make", "field"), UNFIT.values(), ids=UNFIT.keys())
def test_authority_that_cannot_sign_is_refused(env: Environment, make: Any, field: str) -> None:
    certificate, key, chain = make()
    with pytest.raises(InvalidInput) as error:
        imports(certificate, key, chain)
    assert [each.field for each in error.value.errors] == [field]
    assert subjects_of(env) == ["CN=authsvc certificate authority"]


@ON_SQLITE
def test_wrong_passphrase_of_an_imported_key_is_refused(env: Environment) -> None:
    certificate, key = root()
    for given in (None, "wrong"):
        with pytest.raises(InvalidInput, match="passphrase"):
            imports(pem(certificate), key_pem(key, "theirs"), given=given)


@ON_SQLITE
@pytest.mark.parametrize("chain", [[], ["our middle"]], ids=["none", "unfinished"])
def test_intermediate_without_a_chain_to_a_root_is_refused(env: Environment, chain: list[str]) -> None:
    middle = below(root(), "our middle")
    last = below(middle, "our plant")
    with pytest.raises(InvalidInput) as error:
        imports(pem(last[0]), key_pem(last[1]), pem(middle[0]) if chain else "")
    assert [each.field for each in error.value.errors] == ["chain"]
