"""Which certificates are accepted; passwords work on the other listener."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from authsvc.pki import ca
from authsvc.pki.ca import CertificateAuthority
from tests.certificates.mosquitto.certified import CertificateFiles, CertifiedDevice, new_certificate_files
from tests.certificates.mosquitto.site import CERTIFICATES_THROUGH_BOTH
from tests.certificates.mosquitto.waiting import until
from tests.devices import BOTH_PROTOCOLS, NOT_AUTHORIZED, V5
from tests.service import permission

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from paho.mqtt.enums import MQTTProtocolVersion

    from tests.certificates.mosquitto.deployment import Deployment
    from tests.certificates.mosquitto.site import CertificateSite
    from tests.service import Service

pytestmark = CERTIFICATES_THROUGH_BOTH

OWN_TOPICS = "readWrite devices/%u/#"


def uses_its_own_topics(device: CertifiedDevice) -> None:
    """Check that a device can use its own topics and no others."""
    own = f"devices/{device.username}"
    assert device.subscribe(f"{own}/#", "devices/#") == [1, NOT_AUTHORIZED]
    assert device.publish(f"{own}/state", "running") == 0
    assert device.publish("devices/another/state", "forged") == NOT_AUTHORIZED
    assert device.received_so_far() == [(f"{own}/state", b"running")]


def grant(service: Service, username: str, *permissions: str) -> None:
    """Grant the pending registration of this username."""
    found = service.call("GET", "/api/client-registry/registrations", params={"search": username}).json()["items"]
    (pending,) = [each for each in found if each["username"] == username]
    body = {"permissions": list(map(permission, permissions))}
    answer = service.call("POST", f"/api/client-registry/registrations/{pending['id']}/grant", json=body)
    assert answer.status_code == 200, answer.text


def signed_by(authority: CertificateAuthority, directory: Path, username: str, days_ago: int = 0) -> CertificateFiles:
    """Return a ten-day certificate for this username that the service did not issue."""
    files, key = new_certificate_files(directory / secrets.token_hex(4))
    then = datetime.now(UTC) - timedelta(days=days_ago)
    files.certificate_file.write_text(authority.sign(username, key.public_key(), then, 10).certificate)
    return files


# ---- Accepted certificates ----


def test_device_registered_with_a_csr_can_publish_and_subscribe(site: CertificateSite, tmp_path: Path) -> None:
    service, username = site.deployment.service, f"bob-{secrets.token_hex(3)}"
    register = ("register", "--server", service.url, "--username", username, "--out", str(tmp_path), "--wait", "0")
    assert service.call("POST", "/api/client-registry/unlock").ok
    assert "waiting for an administrator" in service.command(*register).stderr
    grant(service, username, OWN_TOPICS)
    site.deployment.authsvc(*register)

    uses_its_own_topics(site.connect_with(username, CertificateFiles(tmp_path), protocol=V5))


def test_device_with_key_and_certificate_of_the_command_line_can_publish_and_subscribe(
    site: CertificateSite, tmp_path: Path
) -> None:
    bob = site.add_user("bob", OWN_TOPICS, grantTypes=["certificate"])
    site.deployment.authsvc("certificates", "issue", bob, "--out", tmp_path)
    files = CertificateFiles(tmp_path / "bob-files")
    files.directory.mkdir()
    (tmp_path / f"{bob}.key").rename(files.key_file)
    (tmp_path / f"{bob}.crt").rename(files.certificate_file)

    device = site.connect_with(bob, files, protocol=V5)
    # Another process has issued the certificate: the service knows it within its poll interval.
    until(lambda: device.subscribe(f"devices/{bob}/#") == [1], "the certificate is known")
    uses_its_own_topics(device)


@BOTH_PROTOCOLS
def test_messages_pass_between_both_listeners(site: CertificateSite, protocol: MQTTProtocolVersion) -> None:
    bob = site.certified("bob", "write line/#", protocol=protocol)
    carol = site.connected("carol", "read line/#", protocol=protocol)

    assert carol.subscribe("line/#") == [1]
    bob.publish("line/1", "running")
    bob.publish("cellar/1", "forged")
    assert carol.received_so_far() == [("line/1", b"running")]


def test_username_and_password_beside_a_certificate_are_ignored(site: CertificateSite) -> None:
    bob = site.add_user("bob", OWN_TOPICS)
    charlie = site.add_user("charlie", OWN_TOPICS, grantTypes=["certificate"])
    files = site.deployment.enrol(charlie)

    uses_its_own_topics(site.connect_with(charlie, files, protocol=V5, connect_as=(bob, "secret")))


# ---- Refused certificates ----


def of_another_authority(deployment: Deployment, directory: Path, username: str) -> CertificateFiles:
    now = datetime.now(UTC)
    another = CertificateAuthority(*ca.new_authority("authsvc certificate authority", now, 10, None))
    return signed_by(another, directory, username)


def expired(deployment: Deployment, directory: Path, username: str) -> CertificateFiles:
    return signed_by(deployment.authority(), directory, username, days_ago=30)


def not_yet_valid(deployment: Deployment, directory: Path, username: str) -> CertificateFiles:
    return signed_by(deployment.authority(), directory, username, days_ago=-1)


def no_certificate(deployment: Deployment, directory: Path, username: str) -> None:
    return None


@pytest.mark.parametrize("files", [of_another_authority, expired, not_yet_valid, no_certificate])
def test_device_without_a_valid_certificate_is_refused(
    site: CertificateSite, tmp_path: Path, files: Callable[[Deployment, Path, str], CertificateFiles | None]
) -> None:
    bob = site.certified("bob", OWN_TOPICS)
    charlie = site.connecting(
        bob.username, files(site.deployment, tmp_path, bob.username), connect_as=(bob.username, "secret")
    )

    assert not charlie.is_accepted()
    assert bob.stayed_connected()


@pytest.mark.parametrize("spelled", [str.upper, "{}x".format, "no{}".format], ids=["upper case", "longer", "other"])
def test_valid_certificate_of_an_unknown_user_allows_nothing(
    site: CertificateSite, tmp_path: Path, spelled: Callable[[str], str]
) -> None:
    bob = site.certified("bob", "readWrite line/#", protocol=V5)
    bob.subscribe("line/#")
    unknown = spelled(bob.username)
    files = signed_by(site.deployment.authority(), tmp_path, unknown)
    charlie = site.connect_with(unknown, files, protocol=V5)

    assert charlie.subscribe("line/#", "#") == [NOT_AUTHORIZED, NOT_AUTHORIZED]
    assert charlie.publish("line/1", "forged") == NOT_AUTHORIZED
    bob.publish("line/1", "genuine")
    assert bob.received_so_far() == [("line/1", b"genuine")]
    assert charlie.received_so_far() == []


# ---- The listener for passwords ----


def test_passwords_are_accepted_beside_certificates(site: CertificateSite) -> None:
    bob = site.add_user("bob")
    carol = site.add_user("carol", grantTypes=["certificate"])

    assert site.try_to_connect(bob) == 0
    assert site.try_to_connect(bob, "wrong") == NOT_AUTHORIZED
    assert site.try_to_connect("charlie") == NOT_AUTHORIZED
    assert site.try_to_connect(carol) == NOT_AUTHORIZED
