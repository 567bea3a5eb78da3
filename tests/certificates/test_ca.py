"""The content of certificates and CRLs, checked here, by openssl and by TLS."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from authsvc.errors import InvalidInput
from authsvc.pki import ca
from authsvc.pki.ca import CertificateAuthority, CrlEntry, RevocationReason
from tests.certificates.environment import entries_of, number_of
from tests.certificates.tools import (
    client_context,
    handshake,
    new_key_of,
    openssl,
    openssl_refuses,
    server_context,
    write_file,
)

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

    from authsvc.pki.csr import ClientKey

NOW = datetime.now(UTC)
YEARS = 3650
KINDS = ["P-256", "P-384", "Ed25519", "RSA 2048"]


class Client(NamedTuple):
    """A client's key and certificate."""

    key: CertificateIssuerPrivateKeyTypes
    issued: ca.SignedCertificate

    @property
    def pem(self) -> str:
        return self.issued.certificate

    @property
    def parsed(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.pem.encode())


@cache
def key_of(kind: str) -> CertificateIssuerPrivateKeyTypes:
    return new_key_of(kind)


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority(*ca.new_authority("our authority", NOW, YEARS, None))


@pytest.fixture(scope="module")
def another() -> CertificateAuthority:
    return CertificateAuthority(*ca.new_authority("another authority", NOW, YEARS, None))


def sign(authority: CertificateAuthority, kind: str = "P-256", *, name: str = "bob", days: int = 30) -> Client:
    key = key_of(kind)
    return Client(key, authority.sign(name, cast("ClientKey", key.public_key()), NOW, days))


def crl_of(authority: CertificateAuthority, *entries: CrlEntry) -> str:
    return authority.revocation_list(entries, 7, NOW, NOW + timedelta(days=7))


def crl_entry(made: Client, reason: RevocationReason = RevocationReason.UNSPECIFIED) -> CrlEntry:
    return CrlEntry(made.issued.serial, NOW - timedelta(minutes=1), reason)


# Certificates.


def test_subject_is_only_the_username(authority: CertificateAuthority) -> None:
    certificate = sign(authority).parsed
    assert [(name.oid, name.value) for name in certificate.subject] == [(NameOID.COMMON_NAME, "bob")]
    assert certificate.issuer == authority.certificate.subject
    assert certificate.version is x509.Version.v3


@pytest.mark.parametrize("kind", KINDS)
def test_certificate_is_valid_only_for_client_authentication(authority: CertificateAuthority, kind: str) -> None:
    made = sign(authority, kind)
    extensions = {each.oid: each for each in made.parsed.extensions}
    own, above = x509.SubjectKeyIdentifier, x509.AuthorityKeyIdentifier
    assert extensions.keys() == {
        each.oid for each in (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage, own, above)
    }
    assert extensions[x509.BasicConstraints.oid].critical
    assert extensions[x509.BasicConstraints.oid].value == x509.BasicConstraints(ca=False, path_length=None)
    assert extensions[x509.KeyUsage.oid].critical
    assert extensions[x509.ExtendedKeyUsage.oid].value == x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    assert extensions[own.oid].value == own.from_public_key(made.key.public_key())


def test_key_usage_is_only_digital_signature(authority: CertificateAuthority) -> None:
    usage = sign(authority).parsed.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    others = (
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
    )
    assert not any(getattr(usage, other) for other in others)


def test_certificate_has_the_key_identifier_of_its_authority(authority: CertificateAuthority) -> None:
    own = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    above = sign(authority).parsed.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert above.key_identifier == own.digest


def test_serial_is_random_and_has_128_bits(authority: CertificateAuthority) -> None:
    serials = [int(sign(authority).issued.serial, 16) for _ in range(64)]
    assert len(set(serials)) == 64
    assert all(0 < serial < 2**128 for serial in serials)
    assert max(serials) > 2**122, "64 draws below that: once in 2^384"
    assert {serial & 1 for serial in serials} == {0, 1}


def test_issued_fields_equal_those_of_the_certificate(authority: CertificateAuthority) -> None:
    made = sign(authority)
    assert f"{made.parsed.serial_number:x}" == made.issued.serial
    assert made.parsed.not_valid_before_utc == made.issued.not_before
    assert made.parsed.not_valid_after_utc == made.issued.not_after


def test_certificate_is_backdated_for_slow_clocks(authority: CertificateAuthority) -> None:
    issued = sign(authority, days=30).issued
    moment = NOW.replace(microsecond=0)
    assert (issued.not_before, issued.not_after) == (moment - timedelta(minutes=5), moment + timedelta(days=30))


def test_certificate_expires_no_later_than_its_authority() -> None:
    short = CertificateAuthority(*ca.new_authority("short-lived", NOW, 10, None))
    assert sign(short, days=9).issued.not_after == NOW.replace(microsecond=0) + timedelta(days=9)
    assert sign(short, days=365).issued.not_after == short.certificate.not_valid_after_utc


# The authority.


def test_authority_has_path_length_zero(authority: CertificateAuthority) -> None:
    certificate = authority.certificate
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value) == (True, x509.BasicConstraints(ca=True, path_length=0))
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.crl_sign) == (True, True, True)
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    certificate.verify_directly_issued_by(certificate)


def test_key_is_encrypted_with_the_passphrase() -> None:
    certificate, key = ca.new_authority("secretive", NOW, 10, "a passphrase")
    assert key.startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert sign(CertificateAuthority(certificate, key, "a passphrase")).parsed.subject
    assert ca.new_authority("open", NOW, 10, None)[1].startswith("-----BEGIN PRIVATE KEY-----")


@pytest.mark.parametrize(("made_with", "opened_with"), [("right", "wrong"), ("right", None), (None, "needless")])
def test_error_for_a_wrong_passphrase_does_not_contain_it(made_with: str | None, opened_with: str | None) -> None:
    certificate, key = ca.new_authority("secretive", NOW, 10, made_with)
    with pytest.raises(InvalidInput, match="AUTHSVC_CA_KEY_PASSPHRASE") as error:
        CertificateAuthority(certificate, key, opened_with)
    assert not {"right", "wrong", "needless"} & set(error.value.message.replace("?", "").split()[:-1])


# CRLs.


def test_crl_has_number_dates_and_issuer(authority: CertificateAuthority) -> None:
    revocations = x509.load_pem_x509_crl(crl_of(authority).encode())
    assert revocations.issuer == authority.certificate.subject
    assert number_of(revocations) == 7
    assert revocations.last_update_utc == NOW.replace(microsecond=0) - timedelta(minutes=5)
    assert revocations.next_update_utc == NOW.replace(microsecond=0) + timedelta(days=7)
    identifier = revocations.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    own = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert identifier.key_identifier == own.digest
    assert revocations.is_signature_valid(authority.certificate.public_key())  # type: ignore[arg-type]


def test_crl_has_the_reasons_of_rfc_5280(authority: CertificateAuthority) -> None:
    made = {reason: sign(authority) for reason in RevocationReason}
    entries = [crl_entry(each, reason) for reason, each in made.items()]
    read = x509.load_pem_x509_crl(crl_of(authority, *entries).encode())
    assert entries_of(read) == {each.issued.serial: reason.value for reason, each in made.items()}
    silent = read.get_revoked_certificate_by_serial_number(int(made[RevocationReason.UNSPECIFIED].issued.serial, 16))
    assert silent is not None
    assert len(silent.extensions) == 0, "RFC 5280 section 5.3.1 wants it left out"


# Verification by openssl.


@pytest.fixture
def trusted(authority: CertificateAuthority, tmp_path: Path) -> Path:
    """Return the file with the authority's certificate."""
    return write_file(tmp_path, "ca.pem", authority.certificate_pem)


@pytest.mark.parametrize("kind", KINDS)
def test_openssl_verifies_an_issued_certificate(authority: CertificateAuthority, trusted: Path, kind: str) -> None:
    options = ("-x509_strict", "-purpose", "sslclient", "-CAfile", trusted)
    assert "stdin: OK" in openssl("verify", *options, stdin=sign(authority, kind).pem)


def test_openssl_refuses_a_certificate_of_another_authority(another: CertificateAuthority, trusted: Path) -> None:
    assert "unable to get local issuer" in openssl_refuses("verify", "-CAfile", trusted, stdin=sign(another).pem)


def test_openssl_refuses_a_client_certificate_as_server(authority: CertificateAuthority, trusted: Path) -> None:
    options = ("-purpose", "sslserver", "-CAfile", trusted)
    assert "purpose" in openssl_refuses("verify", *options, stdin=sign(authority).pem)


def test_openssl_reads_the_purposes(authority: CertificateAuthority) -> None:
    client = openssl("x509", "-noout", "-purpose", stdin=sign(authority).pem)
    # openssl accepts every certificate for the last three purposes.
    everybody = ["Any Purpose : Yes", "Any Purpose CA : Yes", "OCSP helper : Yes"]
    assert [line for line in client.splitlines() if line.endswith(": Yes")] == ["SSL client : Yes", *everybody]
    ours = openssl("x509", "-noout", "-purpose", stdin=authority.certificate_pem)
    assert "SSL client CA : Yes" in ours
    assert "SSL client : No" in ours


def test_openssl_verifies_a_crl(authority: CertificateAuthority, another: CertificateAuthority, trusted: Path) -> None:
    made = sign(authority)
    output = openssl(
        *("crl", "-noout", "-text", "-CAfile", trusted),
        stdin=crl_of(authority, crl_entry(made, RevocationReason.KEY_COMPROMISE)),
    )
    assert "verify OK" in output
    assert made.issued.serial.upper() in output
    assert "Key Compromise" in output
    assert "issuer" in openssl_refuses("crl", "-noout", "-CAfile", trusted, stdin=crl_of(another))


def test_openssl_refuses_only_revoked_certificates(
    authority: CertificateAuthority, trusted: Path, tmp_path: Path
) -> None:
    bob, carol = sign(authority), sign(authority, name="carol")
    revocations = write_file(tmp_path, "crl.pem", crl_of(authority, crl_entry(bob)))
    options = ("-crl_check", "-CRLfile", revocations, "-CAfile", trusted)
    assert "certificate revoked" in openssl_refuses("verify", *options, stdin=bob.pem)
    assert "stdin: OK" in openssl("verify", *options, stdin=carol.pem)


# A handshake on loopback.


@pytest.mark.parametrize("kind", KINDS)
def test_tls_server_accepts_a_client_with_its_username(
    authority: CertificateAuthority, tmp_path: Path, kind: str
) -> None:
    made = sign(authority, kind)
    client = client_context(tmp_path, made.pem, made.key)
    assert handshake(server_context(tmp_path, authority.certificate_pem), client) == "bob"
    assert handshake(server_context(tmp_path, authority.certificate_pem, crl_of(authority)), client) == "bob"


def test_tls_server_with_a_crl_refuses_a_revoked_client(authority: CertificateAuthority, tmp_path: Path) -> None:
    bob = sign(authority)
    revocations = crl_of(authority, crl_entry(bob, RevocationReason.CERTIFICATE_HOLD))
    client = client_context(tmp_path, bob.pem, bob.key)
    assert handshake(server_context(tmp_path, authority.certificate_pem, revocations), client) == "certificate revoked"
    assert handshake(server_context(tmp_path, authority.certificate_pem), client) == "bob"


def test_tls_server_refuses_a_client_of_another_authority(
    authority: CertificateAuthority, another: CertificateAuthority, tmp_path: Path
) -> None:
    bob = sign(another)
    said = handshake(server_context(tmp_path, authority.certificate_pem), client_context(tmp_path, bob.pem, bob.key))
    assert said == "unable to get local issuer certificate"


def test_each_of_two_authorities_needs_its_own_crl(
    authority: CertificateAuthority, another: CertificateAuthority, tmp_path: Path
) -> None:
    bob, carol = sign(authority), sign(another, name="carol")
    ours = authority.certificate_pem + another.certificate_pem
    server = server_context(tmp_path, ours, crl_of(authority, crl_entry(bob)) + crl_of(another))
    assert handshake(server, client_context(tmp_path, bob.pem, bob.key)) == "certificate revoked"
    assert handshake(server, client_context(tmp_path, carol.pem, carol.key)) == "carol"
    lacking = server_context(tmp_path, ours, crl_of(authority))
    assert handshake(lacking, client_context(tmp_path, carol.pem, carol.key)) == "unable to get certificate CRL"
