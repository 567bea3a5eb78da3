"""What a broker is told of a user's certificates where it asks for one, in this service and in another."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import time_machine
from cryptography import x509

from authsvc.accounts import users
from authsvc.pki import certificates
from authsvc.pki.ca import RevocationReason
from tests.actors import ADMIN_PASSWORD, BOBS_PASSWORD, OPERATOR
from tests.certificates.environment import BOTH_WAYS, ON_POSTGRESQL, ON_SQLITE, Scene, number_of, serial_of
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


# What a broker is told.


def test_who_has_no_certificate_is_denied_where_one_is_asked_for(scene: Scene) -> None:
    assert scene.answers("bob") == "no-valid-certificate"
    assert scene.answers("bob", query=b"") == "ok"
    scene.certifies("bob")
    assert scene.answers("bob") == "ok"


ENDS: dict[str, tuple[Callable[[Scene, x509.Certificate], object], str]] = {
    "revoked": (lambda scene, certificate: scene.revokes(certificate), "no-valid-certificate"),
    "on hold": (lambda scene, _: scene.changes(enabled=False), "user-disabled"),
    "grant type gone": (lambda scene, _: scene.changes(grant_types=frozenset({"password"})), "no-valid-certificate"),
    "user gone": (lambda _, __: users.delete(OPERATOR, "bob"), "unknown-user"),
}


@pytest.mark.parametrize(("end", "reason"), ENDS.values(), ids=ENDS.keys())
def test_an_end_is_in_force_as_soon_as_the_policy_has_caught_up(scene: Scene, end: Any, reason: str) -> None:
    certificate = scene.certifies("bob")
    assert scene.answers("bob") == "ok"
    end(scene, certificate)
    assert scene.answers("bob") == reason


@ON_SQLITE
def test_a_certificate_that_expires_is_none_from_that_moment_on(scene: Scene) -> None:
    scene.certifies("bob", days=1)
    with hours_later(23.99):
        assert scene.answers("bob") == "ok"
    with hours_later(24.01):
        assert scene.answers("bob") == "no-valid-certificate"
        assert scene.answers("bob", query=b"") == "ok"


@ON_SQLITE
def test_as_long_as_one_is_valid_the_others_may_end(scene: Scene) -> None:
    first, second = scene.certifies("bob", days=5), scene.certifies("bob", days=1)
    scene.revokes(second)
    assert scene.answers("bob") == "ok"
    third = scene.certifies("bob", days=2)
    scene.revokes(first)
    assert scene.answers("bob") == "ok"
    scene.revokes(third)
    assert scene.answers("bob") == "no-valid-certificate"


@ON_SQLITE
def test_what_is_lifted_is_allowed_again(scene: Scene) -> None:
    scene.certifies("bob")
    scene.changes(enabled=False)
    assert scene.answers("bob") == "user-disabled"
    scene.changes(enabled=True)
    assert scene.answers("bob") == "ok"
    scene.changes(grant_types=frozenset())
    assert scene.answers("bob") == "no-valid-certificate"
    scene.changes(grant_types=BOTH_WAYS)
    assert scene.answers("bob") == "ok"


def test_the_policy_knows_until_when_the_last_one_is_valid(scene: Scene) -> None:
    def until() -> datetime | None:
        scene.services.policy.catch_up()
        return scene.services.policy.snapshot.users["bob"].certificate_until

    assert until() is None
    short, long = scene.certifies("bob", days=1), scene.certifies("bob", days=9)
    assert until() == long.not_valid_after_utc
    certificates.revoke(OPERATOR, serial_of(long), RevocationReason.SUPERSEDED, datetime.now(UTC) + 2 * DAY)
    ended = until()
    assert ended is not None
    assert short.not_valid_after_utc < ended < datetime.now(UTC) + 2 * DAY
    scene.revokes(long)
    assert until() == short.not_valid_after_utc


@ON_SQLITE
def test_a_certificate_of_somebody_else_proves_nothing_about_bob(scene: Scene) -> None:
    key = new_key()
    foreign = certificate_for("bob", key)
    body = {
        "certificate": pem(foreign),
        "csr": signing_request("bob"),
        "time": "2026-11-20T08:00:00Z",
        "signature": "x",
    }
    assert scene.stranger.post("/api/certificates/renew", body).status_code == 401
    assert scene.answers("bob") == "no-valid-certificate"


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
def test_what_one_service_revokes_the_other_denies_within_a_second_and_one_list_is_signed(
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
