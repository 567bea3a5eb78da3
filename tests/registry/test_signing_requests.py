"""Registration with a CSR: its certificate, and refused CSRs."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from authsvc.errors import InvalidInput
from authsvc.pki import csr as signing_requests
from tests.http.callers import problem_of, refused_fields
from tests.registry.environment import BOBS_PASSWORD, ON_BOTH_DATABASES, expect_success
from tests.registry.signing import der_of, new_key, pem_around, pem_of, request_for, signing_request, spki

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.registry.environment import Environment

Key = Any
MAKERS: dict[str, Callable[[], Key]] = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "brainpool": lambda: ec.generate_private_key(ec.BrainpoolP256R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "Ed448": ed448.Ed448PrivateKey.generate,
    "RSA 1024": lambda: rsa.generate_private_key(65_537, 1024),
    "RSA 2048": lambda: rsa.generate_private_key(65_537, 2048),
    "RSA 2048 with exponent 3": lambda: rsa.generate_private_key(3, 2048),
}


@cache
def key_of(kind: str) -> Key:
    return MAKERS[kind]()


def admitted(env: Environment, csr: str, **more: Any) -> tuple[x509.Certificate, x509.Certificate]:
    """Register, grant and return the certificate and the CA certificate."""
    env.unlock()
    env.grant_successfully(env.register_pending(csr=csr, **more))
    answer = env.register(csr=csr, **more)
    assert answer.status_code == 201
    body = answer.get_json()
    assert set(body) == {"status", "username", "certificate", "caCertificate"}
    return (
        x509.load_pem_x509_certificate(body["certificate"].encode()),
        x509.load_pem_x509_certificate(body["caCertificate"].encode()),
    )


def extension(certificate: x509.Certificate, kind: type[Any]) -> Any:
    return certificate.extensions.get_extension_for_class(kind)


@ON_BOTH_DATABASES
def test_certificate_fields_are_set_by_the_service(env: Environment) -> None:
    key = new_key()
    before = datetime.now(UTC).replace(microsecond=0)
    certificate, authority = admitted(env, signing_request("bob", key))
    after = datetime.now(UTC)
    certificate.verify_directly_issued_by(authority)
    assert [(name.oid, name.value) for name in certificate.subject] == [(NameOID.COMMON_NAME, "bob")]
    assert spki(certificate.public_key()) == spki(key.public_key())
    assert list(extension(certificate, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    constraints = extension(certificate, x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca) == (True, False)
    usage = extension(certificate, x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not any((usage.value.key_cert_sign, usage.value.crl_sign, usage.value.key_encipherment))
    assert before <= certificate.not_valid_before_utc + timedelta(minutes=5) <= after
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc == timedelta(days=365, minutes=5)
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


@ON_BOTH_DATABASES
def test_repeated_request_gives_the_same_certificate(env: Environment) -> None:
    csr = signing_request("bob")
    first, _ = admitted(env, csr)
    assert env.register(csr=csr).get_json()["certificate"].encode() == pem(first)


def pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415

    return certificate.public_bytes(Encoding.PEM)


def test_new_csr_for_the_same_key_is_the_same_client(env: Environment) -> None:
    key = new_key()
    env.unlock()
    registration = env.register_pending(csr=signing_request("bob", key))
    assert env.register_pending(csr=signing_request("bob", key)) == registration


@pytest.mark.parametrize(
    ("brought", "grant_types"),
    [
        (("csr",), ["certificate"]),
        (("password",), ["password"]),
        (("csr", "password"), ["certificate", "password"]),
    ],
    ids=" and ".join,
)
def test_user_gets_the_grant_types_of_its_credentials(
    env: Environment, brought: tuple[str, ...], grant_types: list[str]
) -> None:
    everything = {"csr": signing_request("bob"), "password": BOBS_PASSWORD}
    env.unlock()
    env.grant_successfully(env.register_pending(**{what: everything[what] for what in brought}))
    assert expect_success(env.alice.get("/api/users/bob"))["grantTypes"] == grant_types
    assert env.connect("bob", BOBS_PASSWORD) is ("password" in brought)


@pytest.mark.parametrize("kind", ["P-256", "P-384", "Ed25519", "RSA 2048"])
def test_common_strong_keys_are_certified(env: Environment, kind: str) -> None:
    key = key_of(kind)
    certificate, authority = admitted(env, signing_request("bob", key))
    certificate.verify_directly_issued_by(authority)
    assert spki(certificate.public_key()) == spki(key.public_key())


@pytest.mark.parametrize("kind", ["RSA 1024", "RSA 2048 with exponent 3", "P-521", "secp256k1", "brainpool", "Ed448"])
def test_weak_or_uncommon_key_is_refused(env: Environment, kind: str) -> None:
    assert_refused(env, signing_request("bob", key_of(kind)))


@pytest.mark.parametrize("names", [[], [""], ["alice"], ["bob", "bob"], ["bob", "alice"], ["bob\0"], ["bob\0alice"],
                                   ["Bob"], [" bob"], ["bob "], ["bob,CN=alice"], ["b\u043eb"]])  # fmt: skip
@pytest.mark.filterwarnings("ignore:Attribute's length")
def test_common_name_must_equal_the_username(env: Environment, names: list[str]) -> None:
    assert_refused(env, pem_of(request_for(names, key_of("P-256"))))


@pytest.mark.parametrize(
    "wish",
    [
        x509.BasicConstraints(ca=True, path_length=None),
        x509.SubjectAlternativeName([x509.DNSName("alice"), x509.RFC822Name("alice@example.org")]),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]),
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00"),
    ],
    ids=["authority", "other names", "other uses", "unheard of"],
)
def test_csr_extensions_are_ignored(env: Environment, wish: x509.ExtensionType) -> None:
    certificate, _ = admitted(env, signing_request("bob", None, wish))
    assert {each.oid for each in certificate.extensions} == {
        x509.BasicConstraints.oid,
        x509.KeyUsage.oid,
        x509.ExtendedKeyUsage.oid,
        x509.SubjectKeyIdentifier.oid,
        x509.AuthorityKeyIdentifier.oid,
    }
    assert not extension(certificate, x509.BasicConstraints).value.ca
    assert list(extension(certificate, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_csr_signed_by_another_key_is_refused(env: Environment) -> None:
    der = bytearray(der_of(signing_request("bob")))
    der[-1] ^= 1
    assert_refused(env, pem_around(bytes(der)))


def test_base64_csr_is_accepted(env: Environment) -> None:
    key = new_key()
    csr = signing_request("bob", key)
    encoded = base64.encodebytes(csr.encode()).decode()
    certificate, _ = admitted(env, encoded)
    assert spki(certificate.public_key()) == spki(key.public_key())
    assert env.register(csr=csr).status_code == 201


@pytest.mark.parametrize(
    "junk",
    [
        "",
        "junk",
        "=",
        "ä",
        "-----BEGIN CERTIFICATE REQUEST-----",
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        pem_around(b""),
        pem_around(b"\x30\x80"),
        base64.b64encode(der_of(signing_request("bob"))).decode(),
        "x" * 20_000,
    ],
    ids=["nothing", "junk", "padding", "umlaut", "head", "zeros", "empty", "unfinished", "DER", "20 kB"],
)
def test_invalid_csr_is_refused(env: Environment, junk: str) -> None:
    assert_refused(env, junk)


def test_certificate_is_refused_as_csr(env: Environment) -> None:
    certificate, _ = admitted(env, signing_request("bob"))
    assert_refused(env, pem(certificate).decode(), "carol")


def test_body_of_one_mebibyte_is_refused_unread(env: Environment) -> None:
    env.unlock()
    problem_of(env.register(csr="x" * 2**20), 413, "request-entity-too-large")
    assert env.registrations() == []


def test_csr_of_unknown_version_is_refused() -> None:
    der = der_of(signing_request("bob"))
    damaged = der.replace(b"\x02\x01\x00", b"\x02\x01\x01", 1)
    assert damaged != der
    with pytest.raises(InvalidInput):
        signing_requests.read(pem_around(damaged), "bob")


@pytest.mark.filterwarnings("ignore:Attribute's length")
def test_csr_damaged_at_any_byte_is_refused_without_5xx() -> None:
    whole = der_of(signing_request("bob"))
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x55
        with pytest.raises(InvalidInput):
            signing_requests.read(pem_around(bytes(damaged)), "bob")


def test_certified_key_is_refused_at_registration(env: Environment) -> None:
    csr = signing_request("bob")
    admitted(env, csr)
    assert env.alice.delete("/api/users/bob").status_code == 204
    problem_of(env.register(csr=csr), 409, "key-used")
    assert env.registrations() == []


def assert_refused(env: Environment, csr: str, username: str = "bob") -> None:
    env.unlock()
    answer = env.register(username, csr=csr)
    assert refused_fields(answer) == ["csr"]
    assert [one for one in env.registrations() if one["username"] == username and one["status"] == "pending"] == []
