"""Notifications of certificates and authorities that expire soon, and of revoked certificates."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from authsvc.pki import authorities, ca, certificates, expiry
from authsvc.pki.ca import RevocationReason
from authsvc.storage.database import session
from authsvc.storage.models import Authority, Certificate, Delivery
from tests.actors import OPERATOR
from tests.certificates.environment import serial_of
from tests.notifications.environment import notify, stored

if TYPE_CHECKING:
    from authsvc.settings import Settings
    from tests.certificates.environment import Environment

NEVER_SENT = "http://192.0.2.1/"


def subscribe(settings: Settings) -> None:
    notify(settings, NEVER_SENT)


def announced(**passed: float) -> list[tuple[str, Any]]:
    """Announce expiries this long from now; return the event and content of each message, and delete them."""
    expiry.announce(datetime.now(UTC) + timedelta(**passed))
    found = [(row.event, row.content) for row in stored()]
    with session():
        Delivery.delete().execute()
    return found


def test_certificate_is_announced_once_at_each_threshold(env: Environment, prepared: Settings) -> None:
    subscribe(prepared)
    certificate = env.issue_certificate(days=100)
    listed = {
        "serial": serial_of(certificate),
        "username": "bob",
        "notAfter": f"{certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
    }
    assert announced(days=69) == []
    for days in (30, 7, 1):
        content = {"days": days, "count": 1, "certificates": [listed]}
        assert announced(days=100 - days, minutes=1) == [("certificate.expiring", content)]
        assert announced(days=100 - days, minutes=2) == []
    assert announced(days=101) == []


def test_only_the_shortest_reached_threshold_is_announced(env: Environment, prepared: Settings) -> None:
    subscribe(prepared)
    env.issue_certificate(days=100)
    assert [content["days"] for _, content in announced(days=95)] == [7]
    assert announced(days=95, minutes=1) == []


@pytest.mark.parametrize(("days", "expected"), [(1, []), (7, [1]), (30, [7, 1]), (31, [30, 7, 1])])
def test_threshold_as_long_as_the_validity_is_left_out(
    days: int, expected: list[int], env: Environment, prepared: Settings
) -> None:
    subscribe(prepared)
    env.issue_certificate(days=days)
    found = [content["days"] for hour in range(0, days * 24, 6) for _, content in announced(hours=hour, minutes=1)]
    assert found == expected


def test_revoked_and_renewed_certificates_are_not_announced(env: Environment, prepared: Settings) -> None:
    subscribe(prepared)
    env.revoke_certificate(env.issue_certificate(days=100))
    assert [event for event, _ in announced(days=99)] == ["certificate.revoked"]
    later = env.issue_certificate(days=100)
    with session():
        Certificate.update(revoked_at=datetime.now(UTC) + timedelta(days=99.5)).where(
            Certificate.serial == serial_of(later)
        ).execute()
    assert announced(days=99) == []


def test_certificates_of_one_day_share_messages(env: Environment, prepared: Settings) -> None:
    subscribe(prepared)
    env.issue_certificate(days=100)
    with session():
        row = Certificate.get()
        for number in range(204):
            fields = row.__data__ | {"serial": f"{number:x}", "fingerprint": f"{number:064x}"}
            Certificate.create(**fields)
    found = announced(days=99, hours=1)
    assert [content["count"] for _, content in found] == [100, 100, 5]
    assert len({one["serial"] for _, content in found for one in content["certificates"]}) == 205


def test_expiry_waits_for_the_first_notification_about_it(env: Environment, prepared: Settings) -> None:
    env.issue_certificate(days=100)
    assert announced(days=80) == []
    subscribe(prepared)
    assert [content["days"] for _, content in announced(days=80)] == [30]


def test_two_replicas_announce_an_expiry_once(env: Environment, prepared: Settings) -> None:
    subscribe(prepared)
    env.issue_certificate(days=100)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(expiry.announce, [datetime.now(UTC) + timedelta(days=99, hours=1)] * 4, timeout=60))
    assert len(announced(days=99, hours=1)) == 1


def test_authority_is_announced_once_at_each_threshold(env: Environment, prepared: Settings) -> None:
    assert env
    subscribe(prepared)
    certificate, key = ca.new_authority("plant", datetime.now(UTC), 90, None)
    authorities.import_authority(OPERATOR, certificate, "", key, None, None, timedelta(days=1))
    assert announced(days=59) == []
    for days in (30, 7, 1):
        ((event, content),) = announced(days=90 - days, minutes=1)
        assert (event, content["days"], content["subject"]) == ("authority.expiring", days, "CN=plant")
        assert announced(days=90 - days, minutes=2) == []


def test_authority_that_retires_before_it_expires_is_not_announced(env: Environment, prepared: Settings) -> None:
    assert env
    subscribe(prepared)
    with session():
        Authority.update(retires_at=datetime.now(UTC) + timedelta(days=3000)).execute()
    assert announced(days=2999) == []


def test_revocation_is_announced_but_not_the_end_of_a_renewed_certificate(env: Environment, prepared: Settings) -> None:
    subscribe(prepared)
    certificate = env.issue_certificate()
    assert env.revoke_certificate(certificate, "keyCompromise").status_code == 200
    ((event, content),) = announced()
    assert event == "certificate.revoked"
    assert (content["serial"], content["username"]) == (serial_of(certificate), "bob")
    assert content["reason"] == "keyCompromise"
    assert content["revokedAt"].endswith("Z")
    renewed = serial_of(env.issue_certificate())
    certificates.revoke(OPERATOR, renewed, RevocationReason.SUPERSEDED, datetime.now(UTC) + timedelta(days=1))
    assert announced() == []
