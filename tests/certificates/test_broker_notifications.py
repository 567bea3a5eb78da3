"""ACL decisions that require a certificate, in one service and in two replicas."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import time_machine
from cryptography import x509

from authsvc.accounts import users
from authsvc.pki import certificates
from authsvc.pki.ca import RevocationReason
from authsvc.policy.snapshot import NO_CERTIFICATES
from tests.actors import ADMIN_PASSWORD, BOBS_PASSWORD, OPERATOR
from tests.certificates.environment import BOTH_WAYS, ON_POSTGRESQL, ON_SQLITE, Environment, number_of, serial_of
from tests.certificates.tools import certificate_for, pem
from tests.http.wire import asks, within
from tests.registry.signing import new_key, signing_request
from tests.service import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


DAY = timedelta(days=1)
A_SECOND = 1.0


def hours_later(hours: float) -> Any:
    return time_machine.travel(datetime.now(UTC) + timedelta(hours=hours), tick=False)


# ACL requests with grant=certificate.


def test_user_without_certificate_is_denied_if_one_is_required(env: Environment) -> None:
    assert env.acl_answer("bob") == "no-valid-certificate"
    assert env.acl_answer("bob", query=b"") == "ok"
    env.issue_certificate("bob")
    assert env.acl_answer("bob") == "ok"


ENDS: dict[str, tuple[Callable[[Environment, x509.Certificate], object], str]] = {
    "revoked": (lambda env, certificate: env.revoke_certificate(certificate), "no-valid-certificate"),
    "on hold": (lambda env, _: env.change_user(enabled=False), "user-disabled"),
    "grant type gone": (lambda env, _: env.change_user(grant_types=frozenset({"password"})), "no-valid-certificate"),
    "user gone": (lambda _, __: users.delete(OPERATOR, "bob"), "unknown-user"),
}


@pytest.mark.parametrize(("end", "reason"), ENDS.values(), ids=ENDS.keys())
def test_revocation_is_in_force_after_catch_up(env: Environment, end: Any, reason: str) -> None:
    certificate = env.issue_certificate("bob")
    assert env.acl_answer("bob") == "ok"
    end(env, certificate)
    assert env.acl_answer("bob") == reason


@ON_SQLITE
def test_certificate_is_not_valid_after_its_expiry(env: Environment) -> None:
    env.issue_certificate("bob", days=1)
    with hours_later(23.99):
        assert env.acl_answer("bob") == "ok"
    with hours_later(24.01):
        assert env.acl_answer("bob") == "no-valid-certificate"
        assert env.acl_answer("bob", query=b"") == "ok"


@ON_SQLITE
def test_one_valid_certificate_is_enough(env: Environment) -> None:
    first, second = env.issue_certificate("bob", days=5), env.issue_certificate("bob", days=1)
    env.revoke_certificate(second)
    assert env.acl_answer("bob") == "ok"
    third = env.issue_certificate("bob", days=2)
    env.revoke_certificate(first)
    assert env.acl_answer("bob") == "ok"
    env.revoke_certificate(third)
    assert env.acl_answer("bob") == "no-valid-certificate"


@ON_SQLITE
def test_user_is_allowed_again_after_being_enabled(env: Environment) -> None:
    env.issue_certificate("bob")
    env.change_user(enabled=False)
    assert env.acl_answer("bob") == "user-disabled"
    env.change_user(enabled=True)
    assert env.acl_answer("bob") == "ok"
    env.change_user(grant_types=frozenset())
    assert env.acl_answer("bob") == "no-valid-certificate"
    env.change_user(grant_types=BOTH_WAYS)
    assert env.acl_answer("bob") == "ok"


def test_policy_has_the_end_of_the_last_valid_certificate(env: Environment) -> None:
    def until() -> datetime | None:
        env.services.policy.catch_up()
        return env.services.policy.snapshot.users["bob"].certificate_until

    assert until() is None
    short, long = env.issue_certificate("bob", days=1), env.issue_certificate("bob", days=9)
    assert until() == long.not_valid_after_utc
    certificates.revoke(OPERATOR, serial_of(long), RevocationReason.SUPERSEDED, datetime.now(UTC) + 2 * DAY)
    ended = until()
    assert ended is not None
    assert short.not_valid_after_utc < ended < datetime.now(UTC) + 2 * DAY
    env.revoke_certificate(long)
    assert until() == short.not_valid_after_utc


def test_policy_has_the_serials_of_valid_certificates_only(env: Environment) -> None:
    def serials() -> set[str]:
        env.services.policy.catch_up()
        return set(env.services.policy.snapshot.users["bob"].certificates)

    assert serials() == set()
    first, second = env.issue_certificate("bob", days=1), env.issue_certificate("bob", days=9)
    assert serials() == {f"{each.serial_number:X}" for each in (first, second)}
    certificates.revoke(OPERATOR, serial_of(first), RevocationReason.SUPERSEDED, datetime.now(UTC) + DAY / 2)
    assert serials() == {f"{each.serial_number:X}" for each in (first, second)}
    env.revoke_certificate(second)
    assert serials() == {f"{first.serial_number:X}"}
    with hours_later(13):
        env.change_user(client_ids=("*",))
        assert serials() == set()


def test_users_without_certificates_share_one_empty_mapping(env: Environment) -> None:
    env.services.policy.catch_up()
    of_users = [user.certificates for user in env.services.policy.snapshot.users.values()]
    assert len(of_users) > 1
    assert {id(certificates) for certificates in of_users} == {id(NO_CERTIFICATES)}


@ON_SQLITE
def test_certificate_of_another_user_does_not_count(env: Environment) -> None:
    key = new_key()
    foreign = certificate_for("bob", key)
    body = {
        "certificate": pem(foreign),
        "csr": signing_request("bob"),
        "time": "2026-11-20T08:00:00Z",
        "signature": "x",
    }
    assert env.unauthenticated.post("/api/certificates/renew", body).status_code == 401
    assert env.acl_answer("bob") == "no-valid-certificate"


# Two services on one database.


@pytest.fixture
def replicas(tmp_path: Path, database_url: str) -> Iterator[tuple[Service, Service]]:
    here, there = (_replica(tmp_path / name, database_url) for name in ("here", "there"))
    with here, there:
        yield here, there
        here.api.close()
        there.api.close()


def _replica(directory: Path, database_url: str) -> Service:
    directory.mkdir()
    return Service(directory, {"AUTHSVC_DATABASE_URL": database_url, "AUTHSVC_ADMIN_PASSWORD": ADMIN_PASSWORD})


@ON_POSTGRESQL
def test_revocation_reaches_the_other_replica_within_a_second_and_one_crl_is_signed(
    replicas: tuple[Service, Service],
) -> None:
    here, there = replicas
    here.create_user("bob", BOBS_PASSWORD, "write devices/%u", grantTypes=["certificate"])
    issued = here.call("POST", "/api/users/bob/certificates", json={"csr": signing_request("bob")}).json()
    assert within(A_SECOND, lambda: _publishes(there) == "ok")
    before = x509.load_der_x509_crl(there.call("GET", "/pki/crl.der").content)
    here.call("POST", f"/api/certificates/{issued['serial']}/revoke", json={"reason": "keyCompromise"})
    assert within(A_SECOND, lambda: _publishes(there) == "no-valid-certificate")
    lists = {service.call("GET", "/pki/crl.der").content for service in (here, there, here)}
    assert len(lists) == 1, "both replicas give the very same list"
    (after,) = map(x509.load_der_x509_crl, lists)
    assert number_of(after) == number_of(before) + 1
    assert [f"{entry.serial_number:x}" for entry in after] == [issued["serial"]]


def _publishes(service: Service) -> str:
    return asks(service, "acl?grant=certificate", username="bob", topic="devices/bob", acc=2, clientid="c1")
