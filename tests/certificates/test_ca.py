"""What a certificate and a revocation list of ours say, and that everybody who reads them reads the same."""

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
from tests.certificates.tools import door, handshake, new_key_of, openssl, openssl_refuses, visitor, written

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

    from authsvc.pki.csr import ClientKey

NOW = datetime.now(UTC)
YEARS = 3650
KINDS = ["P-256", "P-384", "Ed25519", "RSA 2048"]


class Made(NamedTuple):
    """A client's key with its certificate."""

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


def sign(authority: CertificateAuthority, kind: str = "P-256", *, name: str = "bob", days: int = 30) -> Made:
    key = key_of(kind)
    return Made(key, authority.sign(name, cast("ClientKey", key.public_key()), NOW, days))


def crl_of(authority: CertificateAuthority, *entries: CrlEntry) -> str:
    return authority.revocation_list(entries, 7, NOW, NOW + timedelta(days=7))


def told_revoked(made: Made, reason: RevocationReason = RevocationReason.UNSPECIFIED) -> CrlEntry:
    return CrlEntry(made.issued.serial, NOW - timedelta(minutes=1), reason)


# What a certificate says.


def test_its_subject_is_the_username_and_nothing_else(authority: CertificateAuthority) -> None:
    certificate = sign(authority).parsed
    assert [(name.oid, name.value) for name in certificate.subject] == [(NameOID.COMMON_NAME, "bob")]
    assert certificate.issuer == authority.certificate.subject
    assert certificate.version is x509.Version.v3


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_good_for_logging_in_and_for_nothing_else(authority: CertificateAuthority, kind: str) -> None:
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


def test_of_what_a_key_may_do_it_names_signing_alone(authority: CertificateAuthority) -> None:
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


def test_it_names_the_key_that_signed_it(authority: CertificateAuthority) -> None:
    own = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    above = sign(authority).parsed.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert above.key_identifier == own.digest


def test_its_serial_is_random_and_of_128_bits(authority: CertificateAuthority) -> None:
    serials = [int(sign(authority).issued.serial, 16) for _ in range(64)]
    assert len(set(serials)) == 64
    assert all(0 < serial < 2**128 for serial in serials)
    assert max(serials) > 2**122, "64 draws below that: once in 2^384"
    assert {serial & 1 for serial in serials} == {0, 1}


def test_what_is_remembered_of_it_is_what_it_says(authority: CertificateAuthority) -> None:
    made = sign(authority)
    assert f"{made.parsed.serial_number:x}" == made.issued.serial
    assert made.parsed.not_valid_before_utc == made.issued.not_before
    assert made.parsed.not_valid_after_utc == made.issued.not_after


def test_it_is_backdated_for_devices_whose_clocks_are_late(authority: CertificateAuthority) -> None:
    issued = sign(authority, days=30).issued
    moment = NOW.replace(microsecond=0)
    assert (issued.not_before, issued.not_after) == (moment - timedelta(minutes=5), moment + timedelta(days=30))


def test_it_never_outlives_its_authority() -> None:
    short = CertificateAuthority(*ca.new_authority("short-lived", NOW, 10, None))
    assert sign(short, days=9).issued.not_after == NOW.replace(microsecond=0) + timedelta(days=9)
    assert sign(short, days=365).issued.not_after == short.certificate.not_valid_after_utc


# What the authority says of itself.


def test_the_authority_is_one_and_signs_for_clients_directly(authority: CertificateAuthority) -> None:
    certificate = authority.certificate
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value) == (True, x509.BasicConstraints(ca=True, path_length=0))
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.crl_sign) == (True, True, True)
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    certificate.verify_directly_issued_by(certificate)


def test_its_key_is_encrypted_if_there_is_a_passphrase() -> None:
    certificate, key = ca.new_authority("secretive", NOW, 10, "a passphrase")
    assert key.startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert sign(CertificateAuthority(certificate, key, "a passphrase")).parsed.subject
    assert ca.new_authority("open", NOW, 10, None)[1].startswith("-----BEGIN PRIVATE KEY-----")


@pytest.mark.parametrize(("made_with", "opened_with"), [("right", "wrong"), ("right", None), (None, "needless")])
def test_a_wrong_passphrase_is_named_and_not_told(made_with: str | None, opened_with: str | None) -> None:
    certificate, key = ca.new_authority("secretive", NOW, 10, made_with)
    with pytest.raises(InvalidInput, match="AUTHSVC_CA_KEY_PASSPHRASE") as error:
        CertificateAuthority(certificate, key, opened_with)
    assert not {"right", "wrong", "needless"} & set(error.value.message.replace("?", "").split()[:-1])


# What a revocation list says.


def test_a_list_is_numbered_dated_and_names_its_signer(authority: CertificateAuthority) -> None:
    revocations = x509.load_pem_x509_crl(crl_of(authority).encode())
    assert revocations.issuer == authority.certificate.subject
    assert number_of(revocations) == 7
    assert revocations.last_update_utc == NOW.replace(microsecond=0) - timedelta(minutes=5)
    assert revocations.next_update_utc == NOW.replace(microsecond=0) + timedelta(days=7)
    identifier = revocations.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    own = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert identifier.key_identifier == own.digest
    assert revocations.is_signature_valid(authority.certificate.public_key())  # type: ignore[arg-type]


def test_a_list_names_every_reason_as_rfc_5280_spells_it(authority: CertificateAuthority) -> None:
    made = {reason: sign(authority) for reason in RevocationReason}
    entries = [told_revoked(each, reason) for reason, each in made.items()]
    read = x509.load_pem_x509_crl(crl_of(authority, *entries).encode())
    assert entries_of(read) == {each.issued.serial: reason.value for reason, each in made.items()}
    silent = read.get_revoked_certificate_by_serial_number(int(made[RevocationReason.UNSPECIFIED].issued.serial, 16))
    assert silent is not None
    assert len(silent.extensions) == 0, "RFC 5280 section 5.3.1 wants it left out"


# What others make of it.


@pytest.fixture
def trusted(authority: CertificateAuthority, tmp_path: Path) -> Path:
    """The authority's certificate in a file."""
    return written(tmp_path, "ca.pem", authority.certificate_pem)


@pytest.mark.parametrize("kind", KINDS)
def test_openssl_trusts_a_client_of_ours(authority: CertificateAuthority, trusted: Path, kind: str) -> None:
    options = ("-x509_strict", "-purpose", "sslclient", "-CAfile", trusted)
    assert "stdin: OK" in openssl("verify", *options, stdin=sign(authority, kind).pem)


def test_openssl_trusts_nobody_elses_client(another: CertificateAuthority, trusted: Path) -> None:
    assert "unable to get local issuer" in openssl_refuses("verify", "-CAfile", trusted, stdin=sign(another).pem)


def test_openssl_trusts_no_client_that_plays_the_server(authority: CertificateAuthority, trusted: Path) -> None:
    options = ("-purpose", "sslserver", "-CAfile", trusted)
    assert "purpose" in openssl_refuses("verify", *options, stdin=sign(authority).pem)


def test_openssl_knows_what_each_is_good_for(authority: CertificateAuthority) -> None:
    client = openssl("x509", "-noout", "-purpose", stdin=sign(authority).pem)
    # Any certificate is good for the last three, which openssl does not look at.
    everybody = ["Any Purpose : Yes", "Any Purpose CA : Yes", "OCSP helper : Yes"]
    assert [line for line in client.splitlines() if line.endswith(": Yes")] == ["SSL client : Yes", *everybody]
    ours = openssl("x509", "-noout", "-purpose", stdin=authority.certificate_pem)
    assert "SSL client CA : Yes" in ours
    assert "SSL client : No" in ours


def test_openssl_reads_a_list_and_trusts_its_signature(
    authority: CertificateAuthority, another: CertificateAuthority, trusted: Path
) -> None:
    made = sign(authority)
    told = openssl(
        *("crl", "-noout", "-text", "-CAfile", trusted),
        stdin=crl_of(authority, told_revoked(made, RevocationReason.KEY_COMPROMISE)),
    )
    assert "verify OK" in told
    assert made.issued.serial.upper() in told
    assert "Key Compromise" in told
    assert "issuer" in openssl_refuses("crl", "-noout", "-CAfile", trusted, stdin=crl_of(another))


def test_openssl_refuses_whom_the_list_names_and_nobody_else(
    authority: CertificateAuthority, trusted: Path, tmp_path: Path
) -> None:
    bob, carol = sign(authority), sign(authority, name="carol")
    revocations = written(tmp_path, "crl.pem", crl_of(authority, told_revoked(bob)))
    options = ("-crl_check", "-CRLfile", revocations, "-CAfile", trusted)
    assert "certificate revoked" in openssl_refuses("verify", *options, stdin=bob.pem)
    assert "stdin: OK" in openssl("verify", *options, stdin=carol.pem)


# A handshake on loopback.


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_is_let_in_under_its_username(authority: CertificateAuthority, tmp_path: Path, kind: str) -> None:
    made = sign(authority, kind)
    client = visitor(tmp_path, made.pem, made.key)
    assert handshake(door(tmp_path, authority.certificate_pem), client) == "bob"
    assert handshake(door(tmp_path, authority.certificate_pem, crl_of(authority)), client) == "bob"


def test_a_revoked_client_is_refused_where_the_list_is_asked(authority: CertificateAuthority, tmp_path: Path) -> None:
    bob = sign(authority)
    revocations = crl_of(authority, told_revoked(bob, RevocationReason.CERTIFICATE_HOLD))
    client = visitor(tmp_path, bob.pem, bob.key)
    assert handshake(door(tmp_path, authority.certificate_pem, revocations), client) == "certificate revoked"
    assert handshake(door(tmp_path, authority.certificate_pem), client) == "bob"


def test_a_client_of_another_authority_is_refused(
    authority: CertificateAuthority, another: CertificateAuthority, tmp_path: Path
) -> None:
    bob = sign(another)
    said = handshake(door(tmp_path, authority.certificate_pem), visitor(tmp_path, bob.pem, bob.key))
    assert said == "unable to get local issuer certificate"


def test_with_two_authorities_each_has_its_own_list(
    authority: CertificateAuthority, another: CertificateAuthority, tmp_path: Path
) -> None:
    bob, carol = sign(authority), sign(another, name="carol")
    ours = authority.certificate_pem + another.certificate_pem
    server = door(tmp_path, ours, crl_of(authority, told_revoked(bob)) + crl_of(another))
    assert handshake(server, visitor(tmp_path, bob.pem, bob.key)) == "certificate revoked"
    assert handshake(server, visitor(tmp_path, carol.pem, carol.key)) == "carol"
    lacking = door(tmp_path, ours, crl_of(authority))
    assert handshake(lacking, visitor(tmp_path, carol.pem, carol.key)) == "unable to get certificate CRL"
