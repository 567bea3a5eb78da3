"""Certificates over REST: issued, listed, shown, revoked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from cryptography import x509

from authsvc.accounts.overview import overview
from authsvc.pki.ca import RevocationReason
from tests.actors import BOBS_PASSWORD, http
from tests.certificates.environment import ON_SQLITE, Scene, serial_of
from tests.certificates.tools import pem
from tests.http.callers import basic, problem_of, refused_fields
from tests.registry.signing import new_key, signing_request, spki
from tests.storage.environment import events

DAY = timedelta(days=1)
A_SECOND = 1.0


def hours_later(hours: float) -> Any:
    return time_machine.travel(datetime.now(UTC) + timedelta(hours=hours), tick=False)


# Issuing.


def test_a_certificate_is_issued_for_the_users_own_key(scene: Scene) -> None:
    key = new_key()
    answer = scene.asks("bob", key)
    assert answer.status_code == 201
    told = answer.get_json()
    assert told.keys() == {"serial", "certificate", "caCertificate", "notAfter"}
    certificate = x509.load_pem_x509_certificate(told["certificate"].encode())
    assert spki(certificate.public_key()) == spki(key.public_key())
    assert told["serial"] == serial_of(certificate)
    assert datetime.fromisoformat(told["notAfter"]) == certificate.not_valid_after_utc
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(told["caCertificate"].encode()))
    assert told["caCertificate"] == scene.ca_pem()


@ON_SQLITE
@pytest.mark.parametrize(
    ("asked", "life"), [({}, 365), ({"days": 1}, 1), ({"days": 3650}, 3650), ({"days": None}, 365)]
)
def test_it_lives_as_long_as_is_asked_for(scene: Scene, asked: dict[str, Any], life: int) -> None:
    certificate = scene.certifies("bob", **asked)
    lived = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    # An authority of ten years began a moment ago.
    assert lived == pytest.approx(life * DAY + timedelta(minutes=5), abs=timedelta(minutes=1))


@ON_SQLITE
@pytest.mark.parametrize("days", [0, -1, 3651, 1.5, "1", True, 10**400])
def test_no_other_life_can_be_asked_for(scene: Scene, days: Any) -> None:
    assert refused_fields(scene.asks("bob", days=days)) == ["days"]


@ON_SQLITE
def test_nobody_without_the_grant_type_is_given_one(scene: Scene) -> None:
    scene.moves_in("dot", grant_types=frozenset({"password"}))
    problem_of(scene.asks("dot"), 409, "grant-type-missing")
    problem_of(scene.asks("nemo"), 404, "user-not-found")


def test_the_same_key_gives_the_same_certificate(scene: Scene) -> None:
    key = new_key()
    assert scene.certifies("bob", key) == scene.certifies("bob", key)
    assert scene.admin.get("/api/users/bob/certificates").get_json()["total"] == 1


@ON_SQLITE
def test_a_key_that_was_certified_for_another_or_revoked_is_not_certified_again(scene: Scene) -> None:
    scene.moves_in("carol")
    key = new_key()
    certificate = scene.certifies("bob", key)
    problem_of(scene.asks("carol", key), 409, "key-used")
    scene.revokes(certificate)
    problem_of(scene.asks("bob", key), 409, "key-used")


@ON_SQLITE
def test_who_looks_after_users_cannot_become_more_by_anothers_certificate(scene: Scene) -> None:
    scene.moves_in("charlie", permissions=(http("readWrite", "/api/users/#"),))
    scene.moves_in("boss", roles=("admin",))
    charlie = scene.stranger
    charlie.headers["Authorization"] = basic("charlie", BOBS_PASSWORD)
    asked = {"csr": signing_request("boss")}
    problem_of(charlie.post("/api/users/boss/certificates", asked), 403, "beyond-own-rights")
    assert charlie.post("/api/users/bob/certificates", {"csr": signing_request("bob")}).status_code == 201
    assert charlie.get("/api/certificates").status_code == 403


@ON_SQLITE
@pytest.mark.parametrize(("method", "path"), [
    ("POST", "/api/users/bob/certificates"),
    ("GET", "/api/users/bob/certificates"),
    ("GET", "/api/certificates"),
    ("GET", "/api/certificates/1"),
    ("POST", "/api/certificates/1/revoke"),
    ("POST", "/api/users/bob/disconnect"),
])  # fmt: skip
def test_strangers_may_do_nothing_of_it(scene: Scene, method: str, path: str) -> None:
    assert scene.stranger.call(method, path).status_code == 401


# Listing and showing.


def test_what_is_shown_is_what_was_issued(scene: Scene) -> None:
    certificate = scene.certifies("bob")
    shown = scene.shows(certificate)
    assert shown == {
        "serial": serial_of(certificate),
        "username": "bob",
        "status": "valid",
        "certificate": pem(certificate),
        "fingerprint": shown["fingerprint"],
        "notBefore": certificate.not_valid_before_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "notAfter": certificate.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "revoked": None,
        "reason": None,
    }
    assert scene.admin.get("/api/users/bob/certificates").get_json()["items"] == [shown]


@ON_SQLITE
@pytest.mark.parametrize("serial", ["1", "0", "nothing", "-1", "f" * 64])
def test_a_serial_that_does_not_exist_is_not_found(scene: Scene, serial: str) -> None:
    problem_of(scene.admin.get(f"/api/certificates/{serial}"), 404, "certificate-not-found")
    problem_of(scene.admin.post(f"/api/certificates/{serial}/revoke"), 404, "certificate-not-found")


@ON_SQLITE
def test_a_serial_as_openssl_prints_it_is_understood(scene: Scene) -> None:
    spelled = f"0{serial_of(scene.certifies('bob')).upper()}"
    assert scene.admin.get(f"/api/certificates/{spelled}").status_code == 200


def found(scene: Scene, query: str) -> list[str]:
    answer = scene.admin.get(f"/api/certificates?{query}")
    assert answer.status_code == 200, answer.text
    return [each["serial"] for each in answer.get_json()["items"]]


@pytest.fixture
def fleet(scene: Scene) -> dict[str, str]:
    """The serials of certificates by what became of them."""
    scene.moves_in("carol")
    made = {
        "short": scene.certifies("bob", days=10),
        "long": scene.certifies("bob", days=300),
        "lost": scene.certifies("carol", days=20),
    }
    scene.revokes(made["lost"])
    return {name: serial_of(certificate) for name, certificate in made.items()}


def test_certificates_are_listed_the_next_to_expire_first(scene: Scene, fleet: dict[str, str]) -> None:
    assert found(scene, "") == [fleet["short"], fleet["lost"], fleet["long"]]
    assert found(scene, "username=carol") == [fleet["lost"]]
    assert found(scene, "search=aro") == [fleet["lost"]]
    assert found(scene, f"search={fleet['long'][4:12]}") == [fleet["long"]]
    assert found(scene, "status=valid") == [fleet["short"], fleet["long"]]
    assert found(scene, "status=revoked") == [fleet["lost"]]
    assert found(scene, "page=2&perPage=2") == [fleet["long"]]


def test_what_expires_soon_is_listed_without_what_was_revoked(scene: Scene, fleet: dict[str, str]) -> None:
    assert found(scene, "expiringWithinDays=9") == []
    assert found(scene, "expiringWithinDays=10") == [fleet["short"]]
    assert found(scene, "expiringWithinDays=30") == [fleet["short"]]
    assert found(scene, "expiringWithinDays=365") == [fleet["short"], fleet["long"]]
    with hours_later(11 * 24):
        assert found(scene, "status=expired") == [fleet["short"]]
        assert found(scene, "expiringWithinDays=365") == [fleet["long"]]


@ON_SQLITE
def test_the_overview_counts_what_expires_within_a_month_and_names_the_first(
    scene: Scene, fleet: dict[str, str]
) -> None:
    facts = overview(scene.services.policy)
    assert (facts.expiring, [record.serial for record in facts.expiring_first]) == (1, [fleet["short"]])


@ON_SQLITE
@pytest.mark.parametrize("query", ["status=lost", "expiringWithinDays=-1", "expiringWithinDays=soon", "page=0"])
def test_what_cannot_be_looked_for_is_said(scene: Scene, query: str) -> None:
    assert refused_fields(scene.admin.get(f"/api/certificates?{query}")) == [query.partition("=")[0]]


# Revoking.


@pytest.mark.parametrize("reason", [each for each in RevocationReason if each is not RevocationReason.CERTIFICATE_HOLD])
@ON_SQLITE
def test_it_is_revoked_for_a_reason_of_rfc_5280(scene: Scene, reason: str) -> None:
    certificate = scene.certifies("bob")
    answer = scene.revokes(certificate, reason)
    assert answer.status_code == 200
    assert answer.get_json() == scene.shows(certificate)
    assert (answer.get_json()["status"], answer.get_json()["reason"]) == ("revoked", reason)
    (told,) = [each for each in events() if each.action == "certificate.revoke"]
    assert (told.actor, told.target) == ("admin", f"certificate:{serial_of(certificate)}")


@ON_SQLITE
@pytest.mark.parametrize(
    "reason", ["", "lost", "keycompromise", "removeFromCRL", "cACompromise", 1, None, ["superseded"]]
)
def test_no_other_reason_will_do(scene: Scene, reason: Any) -> None:
    certificate = scene.certifies("bob")
    assert refused_fields(scene.revokes(certificate, reason)) == ["reason"]
    assert scene.shows(certificate)["status"] == "valid"


@ON_SQLITE
def test_what_is_put_on_hold_by_hand_can_still_be_revoked_for_good(scene: Scene) -> None:
    certificate = scene.certifies("bob")
    if scene.revokes(certificate, "certificateHold").status_code == 200:
        assert scene.revokes(certificate, "keyCompromise").status_code == 200


def test_it_is_revoked_once(scene: Scene) -> None:
    certificate = scene.certifies("bob")
    assert scene.admin.post(f"/api/certificates/{serial_of(certificate)}/revoke").get_json()["reason"] == "unspecified"
    problem_of(scene.revokes(certificate, "keyCompromise"), 409, "certificate-revoked")
    assert scene.shows(certificate)["reason"] == "unspecified"
