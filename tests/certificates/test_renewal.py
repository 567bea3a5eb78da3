"""Renewal by proof of possession of the current key."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from authsvc.accounts import users
from tests.actors import OPERATOR
from tests.certificates.environment import ON_SQLITE, Environment, serial_of
from tests.certificates.proofs import (
    DUE,
    count_certificates,
    message_to_sign,
    post_renewal,
    renewal,
    renewed_certificate,
    signed_by,
    travel,
)
from tests.certificates.tools import certificate_for, new_key_of, openssl, pem
from tests.http.callers import problem_of, refused_fields
from tests.registry.signing import der_of, new_key, signing_request, spki
from tests.storage.environment import events

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric import ec


KINDS = ["P-256", "P-384", "Ed25519", "RSA 2048"]
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)


# Accepted.


@ON_SQLITE
@pytest.mark.parametrize("kind", KINDS)
def test_holder_of_the_current_key_gets_the_next_certificate(env: Environment, kind: str) -> None:
    key, following = new_key_of(kind), new_key_of(kind)
    current = env.issue_certificate("bob", key)
    with travel(DUE):
        answer = post_renewal(env, renewal(current, key, following))
        assert answer.get_json().keys() == {"serial", "certificate", "caCertificate", "notAfter"}
        certificate = renewed_certificate(answer)
        assert certificate.not_valid_after_utc > datetime.now(UTC) + 364 * DAY
    assert spki(certificate.public_key()) == spki(following.public_key())
    assert certificate.subject == current.subject
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(env.ca_pem().encode()))


def test_renewal_is_audited_as_the_users_action(env: Environment) -> None:
    key = new_key()
    current = env.issue_certificate("bob", key)
    with travel(DUE):
        certificate = renewed_certificate(post_renewal(env, renewal(current, key)))
    *_, issued, revoked = events()
    assert (issued.action, issued.actor, issued.via) == ("certificate.issue", "bob", "certificate")
    assert (revoked.action, revoked.actor, revoked.via) == ("certificate.revoke", "bob", "certificate")
    assert (issued.target, revoked.target) == (
        f"certificate:{serial_of(certificate)}",
        f"certificate:{serial_of(current)}",
    )


@ON_SQLITE
def test_renewal_is_possible_after_two_thirds_of_the_validity(env: Environment) -> None:
    key = new_key()
    current = env.issue_certificate("bob", key, days=30)
    begun = current.not_valid_before_utc
    due = begun + (current.not_valid_after_utc - begun) * 2 / 3
    with travel(due - datetime.now(UTC) - MINUTE):
        problem = problem_of(post_renewal(env, renewal(current, key)), 403, "renewal-too-early")
        assert due.strftime("%Y-%m-%dT%H:%M:%SZ") in problem["detail"]
    with travel(due - datetime.now(UTC) + MINUTE):
        assert post_renewal(env, renewal(current, key)).status_code == 201


# Refused.


@ON_SQLITE
def test_only_the_signature_of_the_current_key_over_this_request_is_accepted(env: Environment) -> None:
    key, following = new_key(), new_key()
    current = env.issue_certificate("bob", key)
    with travel(DUE):
        honest = renewal(current, key, following)
        message = message_to_sign(current, following, honest["time"])
        forged = {
            "the new key's": signed_by(following, message),
            "for another key": signed_by(key, message_to_sign(current, new_key(), honest["time"])),
            "for another time": signed_by(key, message_to_sign(current, following, "2026-11-20T08:00:00Z")),
            "without the last line break": signed_by(key, message[:-1]),
            "of another kind": signed_by(new_key_of("Ed25519"), message),
            "junk": "anVuaw==",
            "no Base64": "!!!",
            "no ASCII": "ä",
            "nothing": "",
        }
        for signature in forged.values():
            problem_of(post_renewal(env, {**honest, "signature": signature}), 401, "no-proof")
    assert count_certificates(env) == 1


@ON_SQLITE
def test_other_key_in_a_similar_certificate_is_refused(env: Environment) -> None:
    key, mallorys = new_key(), new_key()
    current = env.issue_certificate("bob", key)
    twin = (
        x509.CertificateBuilder()
        .subject_name(current.subject)
        .issuer_name(current.issuer)
        .serial_number(current.serial_number)
        .public_key(mallorys.public_key())
        .not_valid_before(current.not_valid_before_utc)
        .not_valid_after(current.not_valid_after_utc)
        .sign(mallorys, hashes.SHA256())
    )
    with travel(DUE):
        problem_of(post_renewal(env, renewal(twin, mallorys)), 403, "certificate-not-valid")
    assert count_certificates(env) == 1


@ON_SQLITE
def test_rewritten_certificate_with_the_same_key_is_refused(env: Environment) -> None:
    env.create_user("carol")
    key = new_key()
    env.issue_certificate("bob", key)
    with travel(DUE):
        problem_of(post_renewal(env, renewal(certificate_for("carol", key), key)), 403, "certificate-not-valid")
    assert count_certificates(env, "carol") == 0


def _rewritten(current: x509.Certificate, name: str, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """Return a self-signed certificate with the serial and key of the current one and another name."""
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(current.issuer)
        .serial_number(current.serial_number)
        .public_key(key.public_key())
        .not_valid_before(current.not_valid_before_utc)
        .not_valid_after(current.not_valid_after_utc)
        .sign(key, hashes.SHA256())
    )


@pytest.mark.parametrize("name", ["plant-head", "bob"])
def test_self_signed_certificate_with_own_serial_and_key_is_refused(env: Environment, name: str) -> None:
    env.create_user("plant-head")
    key = new_key()
    current = env.issue_certificate("bob", key)
    before = len(events())
    with travel(DUE):
        answer = post_renewal(env, renewal(_rewritten(current, name, key), key))
        problem_of(answer, 403, "certificate-not-valid")
    assert (count_certificates(env, "plant-head"), count_certificates(env, "bob")) == (0, 1)
    assert len(events()) == before


@ON_SQLITE
def test_rewritten_certificate_does_not_return_another_users_certificate(env: Environment) -> None:
    env.create_user("plant-head")
    key, heads_key = new_key(), new_key()
    current = env.issue_certificate("bob", key)
    env.issue_certificate("plant-head", heads_key)
    with travel(DUE):
        answer = post_renewal(env, renewal(_rewritten(current, "plant-head", key), key, heads_key))
        problem_of(answer, 403, "certificate-not-valid")


@ON_SQLITE
@pytest.mark.parametrize(("off", "status"), [(4, 201), (-4, 201), (6, 401), (-6, 401), (60 * 24, 401)])
def test_signature_is_valid_for_five_minutes(env: Environment, off: int, status: int) -> None:
    key = new_key()
    current = env.issue_certificate("bob", key)
    with travel(DUE):
        answer = post_renewal(env, renewal(current, key, at=datetime.now(UTC) + off * MINUTE))
    assert answer.status_code == status
    if status == 401:
        problem_of(answer, 401, "stale-proof")


@ON_SQLITE
@pytest.mark.parametrize(
    "time", ["", "now", "2026-11-20", "2026-11-20T08:00:00", "2026-13-20T08:00:00Z", "1", "0001-01-01T00:00:00+23:59"]
)
def test_invalid_time_is_refused(env: Environment, time: str) -> None:
    key = new_key()
    body = renewal(env.issue_certificate("bob", key), key)
    answer = post_renewal(env, {**body, "time": time})
    assert answer.status_code in (400, 401)
    if answer.status_code == 400:
        assert refused_fields(answer) == ["time"]


@ON_SQLITE
def test_invalid_csr_for_the_next_key_is_refused(env: Environment) -> None:
    key = new_key()
    current = env.issue_certificate("bob", key)
    with travel(DUE):
        honest = renewal(current, key)
        for csr in ("junk", signing_request("carol"), signing_request("bob", new_key_of("RSA 1024"))):
            assert refused_fields(post_renewal(env, {**honest, "csr": csr})) == ["csr"]
        for field in honest:
            incomplete = {name: value for name, value in honest.items() if name != field}
            assert refused_fields(post_renewal(env, incomplete)) == [field]


@ON_SQLITE
@pytest.mark.parametrize(
    "certificate", ["", "junk", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "\ud800"]
)
def test_text_that_is_no_certificate_is_refused(env: Environment, certificate: str) -> None:
    key = new_key()
    body = {**renewal(env.issue_certificate("bob", key), key), "certificate": certificate}
    assert refused_fields(post_renewal(env, body)) == ["certificate"]


def _unsupported_version(directory: Path) -> str:
    der = der_of(pem(certificate_for("bob", new_key())))
    damaged = der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07", 1)
    return openssl("base64", stdin=damaged)


def _unsupported_curve(directory: Path) -> str:
    key = directory / "odd.key"
    openssl("ecparam", "-name", "brainpoolP160r1", "-genkey", "-noout", "-out", key)
    text = openssl("req", "-x509", "-key", key, "-subj", "/CN=bob", "-days", "3")
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("-----"))


@ON_SQLITE
@pytest.mark.parametrize("make", [_unsupported_version, _unsupported_curve])
def test_unsupported_certificate_is_refused(env: Environment, make: Any, tmp_path: Path) -> None:
    key = new_key()
    body = renewal(env.issue_certificate("bob", key), key)
    strange = f"-----BEGIN CERTIFICATE-----\n{make(tmp_path)}-----END CERTIFICATE-----\n"
    assert post_renewal(env, {**body, "certificate": strange}).status_code in (400, 401)


@ON_SQLITE
def test_disabled_user_cannot_renew(env: Environment) -> None:
    key = new_key()
    current = env.issue_certificate("bob", key)
    with travel(DUE):
        body = renewal(current, key)
        env.change_user(enabled=False)
        problem_of(post_renewal(env, body), 403, "certificate-not-valid")
        env.change_user(enabled=True, grant_types=frozenset({"password"}))
        problem_of(post_renewal(env, body), 409, "grant-type-missing")
        env.change_user(grant_types=frozenset({"certificate"}))
        users.delete(OPERATOR, "bob")
        problem_of(post_renewal(env, body), 403, "certificate-not-valid")
        env.create_user("bob")
        problem_of(post_renewal(env, body), 403, "certificate-not-valid")
    assert count_certificates(env) == 1


@ON_SQLITE
def test_revoked_or_expired_certificate_is_not_renewed(env: Environment) -> None:
    key, lost_key = new_key(), new_key()
    current, lost = env.issue_certificate("bob", key), env.issue_certificate("bob", lost_key)
    env.revoke_certificate(lost, "keyCompromise")
    with travel(DUE):
        problem_of(post_renewal(env, renewal(lost, lost_key)), 403, "certificate-not-valid")
    with travel(366 * DAY):
        problem_of(post_renewal(env, renewal(current, key)), 403, "certificate-not-valid")
