"""Certificates over REST: issued, listed, shown, revoked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from cryptography import x509

from authsvc.accounts.overview import overview
from authsvc.pki.ca import RevocationReason
from authsvc.record_json import rfc3339
from tests.actors import BOBS_PASSWORD, http
from tests.certificates.environment import ON_SQLITE, Environment, serial_of
from tests.certificates.tools import pem
from tests.http.callers import basic, problem_of, refused_fields
from tests.registry.signing import new_key, signing_request, spki
from tests.storage.environment import events

DAY = timedelta(days=1)
A_SECOND = 1.0


def hours_later(hours: float) -> Any:
    return time_machine.travel(datetime.now(UTC) + timedelta(hours=hours), tick=False)


# Issuing.


def test_certificate_is_issued_for_the_users_key(env: Environment) -> None:
    key = new_key()
    answer = env.request_certificate("bob", key)
    assert answer.status_code == 201
    issued = answer.get_json()
    assert issued.keys() == {"serial", "certificate", "caCertificate", "notAfter"}
    certificate = x509.load_pem_x509_certificate(issued["certificate"].encode())
    assert spki(certificate.public_key()) == spki(key.public_key())
    assert issued["serial"] == serial_of(certificate)
    assert datetime.fromisoformat(issued["notAfter"]) == certificate.not_valid_after_utc
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(issued["caCertificate"].encode()))
    assert issued["caCertificate"] == env.ca_pem()


@ON_SQLITE
@pytest.mark.parametrize(
    ("asked", "life"), [({}, 365), ({"days": 1}, 1), ({"days": 3650}, 3650), ({"days": None}, 365)]
)
def test_certificate_has_the_requested_validity(env: Environment, asked: dict[str, Any], life: int) -> None:
    certificate = env.issue_certificate("bob", **asked)
    lived = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    # The authority, valid for 3650 days, was created when the test run began.
    assert lived == pytest.approx(life * DAY + timedelta(minutes=5), abs=timedelta(hours=1))


@ON_SQLITE
@pytest.mark.parametrize("days", [0, -1, 3651, 1.5, "1", True, 10**400])
def test_invalid_validity_is_refused(env: Environment, days: Any) -> None:
    assert refused_fields(env.request_certificate("bob", days=days)) == ["days"]


@ON_SQLITE
def test_user_without_the_grant_type_gets_no_certificate(env: Environment) -> None:
    env.create_user("dot", grant_types=frozenset({"password"}))
    problem_of(env.request_certificate("dot"), 409, "grant-type-missing")
    problem_of(env.request_certificate("nemo"), 404, "user-not-found")


def test_same_key_gets_the_same_certificate(env: Environment) -> None:
    key = new_key()
    assert env.issue_certificate("bob", key) == env.issue_certificate("bob", key)
    assert env.admin.get("/api/users/bob/certificates").get_json()["total"] == 1


@ON_SQLITE
def test_key_of_another_user_or_a_revoked_certificate_is_refused(env: Environment) -> None:
    env.create_user("carol")
    key = new_key()
    certificate = env.issue_certificate("bob", key)
    problem_of(env.request_certificate("carol", key), 409, "key-used")
    env.revoke_certificate(certificate)
    problem_of(env.request_certificate("bob", key), 409, "key-used")


@ON_SQLITE
def test_actor_cannot_issue_a_certificate_for_a_user_with_more_rights(env: Environment) -> None:
    env.create_user("charlie", permissions=(http("readWrite", "/api/users/#"),))
    env.create_user("boss", roles=("admin",))
    charlie = env.unauthenticated
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
def test_certificate_endpoints_need_authentication(env: Environment, method: str, path: str) -> None:
    assert env.unauthenticated.call(method, path).status_code == 401


# Listing and showing.


def test_shown_certificate_equals_the_issued_one(env: Environment) -> None:
    certificate = env.issue_certificate("bob")
    shown = env.show_certificate(certificate)
    assert shown == {
        "serial": serial_of(certificate),
        "username": "bob",
        "status": "valid",
        "certificate": pem(certificate),
        "fingerprint": shown["fingerprint"],
        "notBefore": certificate.not_valid_before_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "notAfter": certificate.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "revokedAt": None,
        "reason": None,
    }
    assert env.admin.get("/api/users/bob/certificates").get_json()["items"] == [shown]


@ON_SQLITE
@pytest.mark.parametrize("serial", ["1", "0", "nothing", "-1", "f" * 64])
def test_unknown_serial_is_not_found(env: Environment, serial: str) -> None:
    problem_of(env.admin.get(f"/api/certificates/{serial}"), 404, "certificate-not-found")
    problem_of(env.admin.post(f"/api/certificates/{serial}/revoke"), 404, "certificate-not-found")


@ON_SQLITE
def test_serial_in_the_format_of_openssl_is_accepted(env: Environment) -> None:
    spelled = f"0{serial_of(env.issue_certificate('bob')).upper()}"
    assert env.admin.get(f"/api/certificates/{spelled}").status_code == 200


def found(env: Environment, query: str) -> list[str]:
    answer = env.admin.get(f"/api/certificates?{query}")
    assert answer.status_code == 200, answer.text
    return [each["serial"] for each in answer.get_json()["items"]]


@pytest.fixture
def fleet(env: Environment) -> dict[str, str]:
    """Return the serials of certificates by their status."""
    env.create_user("carol")
    made = {
        "short": env.issue_certificate("bob", days=10),
        "long": env.issue_certificate("bob", days=300),
        "lost": env.issue_certificate("carol", days=20),
    }
    env.revoke_certificate(made["lost"])
    return {name: serial_of(certificate) for name, certificate in made.items()}


def test_certificates_are_listed_by_expiry(env: Environment, fleet: dict[str, str]) -> None:
    assert found(env, "") == [fleet["short"], fleet["lost"], fleet["long"]]
    assert found(env, "username=carol") == [fleet["lost"]]
    assert found(env, "search=aro") == [fleet["lost"]]
    assert found(env, f"search={fleet['long'][4:12]}") == [fleet["long"]]
    assert found(env, "status=valid") == [fleet["short"], fleet["long"]]
    assert found(env, "status=revoked") == [fleet["lost"]]
    assert found(env, "page=2&perPage=2") == [fleet["long"]]


def test_certificates_are_sorted(env: Environment, fleet: dict[str, str]) -> None:
    assert found(env, "sort=-notAfter") == [fleet["long"], fleet["lost"], fleet["short"]]
    assert found(env, "sort=-username")[0] == fleet["lost"]
    assert found(env, "sort=createdAt") == [fleet["short"], fleet["long"], fleet["lost"]]


def test_certificates_that_expire_before_a_time_are_listed(env: Environment, fleet: dict[str, str]) -> None:
    expiry = env.admin.get(f"/api/certificates/{fleet['short']}").get_json()["notAfter"]
    assert found(env, f"expiringBefore={expiry}") == []
    later = rfc3339(datetime.fromisoformat(expiry) + timedelta(seconds=1))
    assert found(env, f"expiringBefore={later}") == [fleet["short"]]
    assert found(env, f"expiringBefore={later}&status=revoked") == []


def test_list_of_expiring_certificates_omits_revoked_ones(env: Environment, fleet: dict[str, str]) -> None:
    assert found(env, "expiringWithinDays=9") == []
    assert found(env, "expiringWithinDays=10") == [fleet["short"]]
    assert found(env, "expiringWithinDays=30") == [fleet["short"]]
    assert found(env, "expiringWithinDays=365") == [fleet["short"], fleet["long"]]
    with hours_later(11 * 24):
        assert found(env, "status=expired") == [fleet["short"]]
        assert found(env, "expiringWithinDays=365") == [fleet["long"]]


@ON_SQLITE
def test_overview_counts_expiring_certificates_and_lists_the_first(env: Environment, fleet: dict[str, str]) -> None:
    facts = overview(env.services.policy)
    assert (facts.expiring, [record.serial for record in facts.expiring_first]) == (1, [fleet["short"]])


@ON_SQLITE
@pytest.mark.parametrize("query", ["status=lost", "expiringWithinDays=-1", "expiringWithinDays=soon", "page=0"])
def test_invalid_filter_is_refused(env: Environment, query: str) -> None:
    assert refused_fields(env.admin.get(f"/api/certificates?{query}")) == [query.partition("=")[0]]


# Revoking.


@pytest.mark.parametrize("reason", [each for each in RevocationReason if each is not RevocationReason.CERTIFICATE_HOLD])
@ON_SQLITE
def test_certificate_is_revoked_with_a_reason_of_rfc_5280(env: Environment, reason: str) -> None:
    certificate = env.issue_certificate("bob")
    answer = env.revoke_certificate(certificate, reason)
    assert answer.status_code == 200
    assert answer.get_json() == env.show_certificate(certificate)
    assert (answer.get_json()["status"], answer.get_json()["reason"]) == ("revoked", reason)
    (event,) = [each for each in events() if each.action == "certificate.revoke"]
    assert (event.actor, event.target) == ("admin", f"certificate:{serial_of(certificate)}")


@ON_SQLITE
@pytest.mark.parametrize(
    "reason", ["", "lost", "keycompromise", "removeFromCRL", "cACompromise", 1, None, ["superseded"]]
)
def test_unknown_reason_is_refused(env: Environment, reason: Any) -> None:
    certificate = env.issue_certificate("bob")
    assert refused_fields(env.revoke_certificate(certificate, reason)) == ["reason"]
    assert env.show_certificate(certificate)["status"] == "valid"


@ON_SQLITE
def test_certificate_on_hold_can_be_revoked(env: Environment) -> None:
    certificate = env.issue_certificate("bob")
    if env.revoke_certificate(certificate, "certificateHold").status_code == 200:
        assert env.revoke_certificate(certificate, "keyCompromise").status_code == 200


def test_revoking_twice_is_a_conflict(env: Environment) -> None:
    certificate = env.issue_certificate("bob")
    assert env.admin.post(f"/api/certificates/{serial_of(certificate)}/revoke").get_json()["reason"] == "unspecified"
    problem_of(env.revoke_certificate(certificate, "keyCompromise"), 409, "certificate-revoked")
    assert env.show_certificate(certificate)["reason"] == "unspecified"
