"""Certificates for those who register with a signing request: what is taken from it, and what is refused."""

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
from tests.registry.environment import BOBS_PASSWORD, ON_BOTH_DATABASES, done
from tests.registry.signing import der_of, new_key, pem_around, pem_of, request_for, signing_request, spki

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.registry.environment import Place

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


def admitted(place: Place, csr: str, **more: Any) -> tuple[x509.Certificate, x509.Certificate]:
    """Let a client register, be granted and fetch its certificate; return it and the authority's."""
    place.unlock()
    place.granted(place.asks(csr=csr, **more))
    answer = place.registers(csr=csr, **more)
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
def test_the_certificate_says_what_the_service_decides(place: Place) -> None:
    key = new_key()
    before = datetime.now(UTC).replace(microsecond=0)
    certificate, authority = admitted(place, signing_request("bob", key))
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
def test_fetching_it_twice_gives_the_same_certificate(place: Place) -> None:
    csr = signing_request("bob")
    first, _ = admitted(place, csr)
    assert place.registers(csr=csr).get_json()["certificate"].encode() == pem(first)


def pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415

    return certificate.public_bytes(Encoding.PEM)


def test_a_new_request_for_the_same_key_is_the_same_client(place: Place) -> None:
    key = new_key()
    place.unlock()
    registration = place.asks(csr=signing_request("bob", key))
    assert place.asks(csr=signing_request("bob", key)) == registration


@pytest.mark.parametrize(
    ("brought", "grant_types"),
    [
        (("csr",), ["certificate"]),
        (("password",), ["password"]),
        (("csr", "password"), ["certificate", "password"]),
    ],
    ids=" and ".join,
)
def test_a_user_may_prove_itself_by_what_it_registered_with(
    place: Place, brought: tuple[str, ...], grant_types: list[str]
) -> None:
    everything = {"csr": signing_request("bob"), "password": BOBS_PASSWORD}
    place.unlock()
    place.granted(place.asks(**{what: everything[what] for what in brought}))
    assert done(place.alice.get("/api/users/bob"))["grantTypes"] == grant_types
    assert place.connects("bob", BOBS_PASSWORD) is ("password" in brought)


@pytest.mark.parametrize("kind", ["P-256", "P-384", "Ed25519", "RSA 2048"])
def test_a_strong_key_of_any_common_kind_is_certified(place: Place, kind: str) -> None:
    key = key_of(kind)
    certificate, authority = admitted(place, signing_request("bob", key))
    certificate.verify_directly_issued_by(authority)
    assert spki(certificate.public_key()) == spki(key.public_key())


@pytest.mark.parametrize("kind", ["RSA 1024", "RSA 2048 with exponent 3", "P-521", "secp256k1", "brainpool", "Ed448"])
def test_a_weak_or_uncommon_key_is_refused(place: Place, kind: str) -> None:
    assert_refused(place, signing_request("bob", key_of(kind)))


@pytest.mark.parametrize("names", [[], [""], ["alice"], ["bob", "bob"], ["bob", "alice"], ["bob\0"], ["bob\0alice"],
                                   ["Bob"], [" bob"], ["bob "], ["bob,CN=alice"], ["b\u043eb"]])  # fmt: skip
@pytest.mark.filterwarnings("ignore:Attribute's length")
def test_a_common_name_other_than_the_username_is_refused(place: Place, names: list[str]) -> None:
    assert_refused(place, pem_of(request_for(names, key_of("P-256"))))


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
def test_what_a_request_wishes_beyond_its_key_is_ignored(place: Place, wish: x509.ExtensionType) -> None:
    certificate, _ = admitted(place, signing_request("bob", None, wish))
    assert {each.oid for each in certificate.extensions} == {
        x509.BasicConstraints.oid,
        x509.KeyUsage.oid,
        x509.ExtendedKeyUsage.oid,
        x509.SubjectKeyIdentifier.oid,
        x509.AuthorityKeyIdentifier.oid,
    }
    assert not extension(certificate, x509.BasicConstraints).value.ca
    assert list(extension(certificate, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_a_request_that_another_key_signed_is_refused(place: Place) -> None:
    der = bytearray(der_of(signing_request("bob")))
    der[-1] ^= 1
    assert_refused(place, pem_around(bytes(der)))


def test_a_request_in_base64_is_as_good_as_plain(place: Place) -> None:
    key = new_key()
    csr = signing_request("bob", key)
    encoded = base64.encodebytes(csr.encode()).decode()
    certificate, _ = admitted(place, encoded)
    assert spki(certificate.public_key()) == spki(key.public_key())
    assert place.registers(csr=csr).status_code == 201


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
def test_junk_is_refused(place: Place, junk: str) -> None:
    assert_refused(place, junk)


def test_a_certificate_is_no_request(place: Place) -> None:
    certificate, _ = admitted(place, signing_request("bob"))
    assert_refused(place, pem(certificate).decode(), "carol")


def test_a_mebibyte_of_junk_is_refused_unread(place: Place) -> None:
    place.unlock()
    problem_of(place.registers(csr="x" * 2**20), 413, "request-entity-too-large")
    assert place.registrations() == []


def test_a_request_of_a_version_that_does_not_exist_is_refused() -> None:
    der = der_of(signing_request("bob"))
    damaged = der.replace(b"\x02\x01\x00", b"\x02\x01\x01", 1)
    assert damaged != der
    with pytest.raises(InvalidInput):
        signing_requests.read(pem_around(damaged), "bob")


@pytest.mark.filterwarnings("ignore:Attribute's length")
def test_a_request_damaged_at_any_byte_is_refused_and_never_an_error() -> None:
    whole = der_of(signing_request("bob"))
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x55
        with pytest.raises(InvalidInput):
            signing_requests.read(pem_around(bytes(damaged)), "bob")


def test_a_key_that_was_certified_before_is_refused_before_anybody_has_to_decide(place: Place) -> None:
    csr = signing_request("bob")
    admitted(place, csr)
    assert place.alice.delete("/api/users/bob").status_code == 204
    problem_of(place.registers(csr=csr), 409, "key-used")
    assert place.registrations() == []


def assert_refused(place: Place, csr: str, username: str = "bob") -> None:
    place.unlock()
    answer = place.registers(username, csr=csr)
    assert refused_fields(answer) == ["csr"]
    assert [one for one in place.registrations() if one["username"] == username and one["status"] == "pending"] == []
