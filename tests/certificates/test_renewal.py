"""Renewal: who proves to hold the current key may have the next one certified, and nobody else may."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from authsvc.accounts import users
from tests.actors import OPERATOR
from tests.certificates.environment import ON_SQLITE, Scene, serial_of
from tests.certificates.proofs import DUE, count_of, in_, renewal, renewed, renews, signed_by, to_sign
from tests.certificates.tools import certificate_for, new_key_of, openssl, pem
from tests.http.callers import problem_of, refused_fields
from tests.registry.signing import der_of, new_key, signing_request, spki
from tests.storage.environment import events

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric import ec


KINDS = ["P-256", "P-384", "Ed25519", "RSA 2048"]
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)


# Who may.


@ON_SQLITE
@pytest.mark.parametrize("kind", KINDS)
def test_whoever_holds_the_current_key_has_the_next_one_certified(scene: Scene, kind: str) -> None:
    key, following = new_key_of(kind), new_key_of(kind)
    current = scene.certifies("bob", key)
    with in_(DUE):
        answer = renews(scene, renewal(current, key, following))
        assert answer.get_json().keys() == {"serial", "certificate", "caCertificate", "notAfter"}
        certificate = renewed(answer)
        assert certificate.not_valid_after_utc > datetime.now(UTC) + 364 * DAY
    assert spki(certificate.public_key()) == spki(following.public_key())
    assert certificate.subject == current.subject
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(scene.ca_pem().encode()))


def test_it_needs_no_administrator_and_the_trail_says_so(scene: Scene) -> None:
    key = new_key()
    current = scene.certifies("bob", key)
    with in_(DUE):
        certificate = renewed(renews(scene, renewal(current, key)))
    *_, issued, revoked = events()
    assert (issued.action, issued.actor, issued.via) == ("certificate.issue", "bob", "certificate")
    assert (revoked.action, revoked.actor, revoked.via) == ("certificate.revoke", "bob", "certificate")
    assert (issued.target, revoked.target) == (
        f"certificate:{serial_of(certificate)}",
        f"certificate:{serial_of(current)}",
    )


@ON_SQLITE
def test_it_may_be_from_two_thirds_of_its_life_on_and_not_before(scene: Scene) -> None:
    key = new_key()
    current = scene.certifies("bob", key, days=30)
    begun = current.not_valid_before_utc
    due = begun + (current.not_valid_after_utc - begun) * 2 / 3
    with in_(due - datetime.now(UTC) - MINUTE):
        problem = problem_of(renews(scene, renewal(current, key)), 403, "renewal-too-early")
        assert due.strftime("%Y-%m-%dT%H:%M:%SZ") in problem["detail"]
    with in_(due - datetime.now(UTC) + MINUTE):
        assert renews(scene, renewal(current, key)).status_code == 201


# Who may not.


@ON_SQLITE
def test_no_signature_but_the_current_keys_over_this_very_request_will_do(scene: Scene) -> None:
    key, following = new_key(), new_key()
    current = scene.certifies("bob", key)
    with in_(DUE):
        honest = renewal(current, key, following)
        message = to_sign(current, following, honest["time"])
        forged = {
            "the new key's": signed_by(following, message),
            "for another key": signed_by(key, to_sign(current, new_key(), honest["time"])),
            "for another time": signed_by(key, to_sign(current, following, "2026-11-20T08:00:00Z")),
            "without the last line break": signed_by(key, message[:-1]),
            "of another kind": signed_by(new_key_of("Ed25519"), message),
            "junk": "anVuaw==",
            "no Base64": "!!!",
            "no ASCII": "ä",
            "nothing": "",
        }
        for signature in forged.values():
            problem_of(renews(scene, {**honest, "signature": signature}), 401, "no-proof")
    assert count_of(scene) == 1


@ON_SQLITE
def test_a_key_of_ones_own_in_a_certificate_that_looks_the_same_is_no_proof(scene: Scene) -> None:
    key, mallorys = new_key(), new_key()
    current = scene.certifies("bob", key)
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
    with in_(DUE):
        problem_of(renews(scene, renewal(twin, mallorys)), 403, "certificate-not-valid")
    assert count_of(scene) == 1


@ON_SQLITE
def test_what_is_written_round_a_known_key_changes_nothing(scene: Scene) -> None:
    scene.moves_in("carol")
    key = new_key()
    scene.certifies("bob", key)
    with in_(DUE):
        problem_of(renews(scene, renewal(certificate_for("carol", key), key)), 403, "certificate-not-valid")
    assert count_of(scene, "carol") == 0


def _rewritten(current: x509.Certificate, name: str, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """Return a certificate with the serial and key of the current one and another name, signed by the key itself."""
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
def test_own_serial_and_key_in_a_self_signed_certificate_renew_nobodys_certificate(scene: Scene, name: str) -> None:
    scene.moves_in("plant-head")
    key = new_key()
    current = scene.certifies("bob", key)
    before = len(events())
    with in_(DUE):
        answer = renews(scene, renewal(_rewritten(current, name, key), key))
        problem_of(answer, 403, "certificate-not-valid")
    assert (count_of(scene, "plant-head"), count_of(scene, "bob")) == (0, 1)
    assert len(events()) == before


@ON_SQLITE
def test_a_rewritten_certificate_does_not_fetch_what_was_issued_to_another_user(scene: Scene) -> None:
    scene.moves_in("plant-head")
    key, heads_key = new_key(), new_key()
    current = scene.certifies("bob", key)
    scene.certifies("plant-head", heads_key)
    with in_(DUE):
        answer = renews(scene, renewal(_rewritten(current, "plant-head", key), key, heads_key))
        problem_of(answer, 403, "certificate-not-valid")


@ON_SQLITE
@pytest.mark.parametrize(("off", "status"), [(4, 201), (-4, 201), (6, 401), (-6, 401), (60 * 24, 401)])
def test_a_proof_is_good_for_five_minutes(scene: Scene, off: int, status: int) -> None:
    key = new_key()
    current = scene.certifies("bob", key)
    with in_(DUE):
        answer = renews(scene, renewal(current, key, at=datetime.now(UTC) + off * MINUTE))
    assert answer.status_code == status
    if status == 401:
        problem_of(answer, 401, "stale-proof")


@ON_SQLITE
@pytest.mark.parametrize(
    "time", ["", "now", "2026-11-20", "2026-11-20T08:00:00", "2026-13-20T08:00:00Z", "1", "0001-01-01T00:00:00+23:59"]
)
def test_a_time_that_is_none_is_refused(scene: Scene, time: str) -> None:
    key = new_key()
    body = renewal(scene.certifies("bob", key), key)
    answer = renews(scene, {**body, "time": time})
    assert answer.status_code in (400, 401)
    if answer.status_code == 400:
        assert refused_fields(answer) == ["time"]


@ON_SQLITE
def test_the_request_for_the_next_key_is_as_strict_as_any(scene: Scene) -> None:
    key = new_key()
    current = scene.certifies("bob", key)
    with in_(DUE):
        honest = renewal(current, key)
        for csr in ("junk", signing_request("carol"), signing_request("bob", new_key_of("RSA 1024"))):
            assert refused_fields(renews(scene, {**honest, "csr": csr})) == ["csr"]
        for field in honest:
            incomplete = {name: value for name, value in honest.items() if name != field}
            assert refused_fields(renews(scene, incomplete)) == [field]


@ON_SQLITE
@pytest.mark.parametrize(
    "certificate", ["", "junk", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "\ud800"]
)
def test_what_is_no_certificate_is_refused(scene: Scene, certificate: str) -> None:
    key = new_key()
    body = {**renewal(scene.certifies("bob", key), key), "certificate": certificate}
    assert refused_fields(renews(scene, body)) == ["certificate"]


def _unheard_of_version(directory: Path) -> str:
    der = der_of(pem(certificate_for("bob", new_key())))
    damaged = der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07", 1)
    return openssl("base64", stdin=damaged)


def _unheard_of_curve(directory: Path) -> str:
    key = directory / "odd.key"
    openssl("ecparam", "-name", "brainpoolP160r1", "-genkey", "-noout", "-out", key)
    text = openssl("req", "-x509", "-key", key, "-subj", "/CN=bob", "-days", "3")
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("-----"))


@ON_SQLITE
@pytest.mark.parametrize("make", [_unheard_of_version, _unheard_of_curve])
def test_a_certificate_that_no_library_understands_is_refused_like_any_other(
    scene: Scene, make: Any, tmp_path: Path
) -> None:
    key = new_key()
    body = renewal(scene.certifies("bob", key), key)
    strange = f"-----BEGIN CERTIFICATE-----\n{make(tmp_path)}-----END CERTIFICATE-----\n"
    assert renews(scene, {**body, "certificate": strange}).status_code in (400, 401)


@ON_SQLITE
def test_who_may_not_log_in_may_not_renew(scene: Scene) -> None:
    key = new_key()
    current = scene.certifies("bob", key)
    with in_(DUE):
        body = renewal(current, key)
        scene.changes(enabled=False)
        problem_of(renews(scene, body), 403, "certificate-not-valid")
        scene.changes(enabled=True, grant_types=frozenset({"password"}))
        problem_of(renews(scene, body), 409, "grant-type-missing")
        scene.changes(grant_types=frozenset({"certificate"}))
        users.delete(OPERATOR, "bob")
        problem_of(renews(scene, body), 403, "certificate-not-valid")
        scene.moves_in("bob")
        problem_of(renews(scene, body), 403, "certificate-not-valid")
    assert count_of(scene) == 1


@ON_SQLITE
def test_a_certificate_that_was_revoked_or_ran_out_is_not_renewed(scene: Scene) -> None:
    key, lost_key = new_key(), new_key()
    current, lost = scene.certifies("bob", key), scene.certifies("bob", lost_key)
    scene.revokes(lost, "keyCompromise")
    with in_(DUE):
        problem_of(renews(scene, renewal(lost, lost_key)), 403, "certificate-not-valid")
    with in_(366 * DAY):
        problem_of(renews(scene, renewal(current, key)), 403, "certificate-not-valid")
