"""Who gets in by certificate, who does not, and that passwords work beside it as before."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from authsvc.pki import ca
from authsvc.pki.ca import CertificateAuthority
from tests.certificates.mosquitto.certified import CertifiedDevice, Papers, new_papers
from tests.devices import BOTH_PROTOCOLS, NOT_AUTHORIZED, V5
from tests.service import permission

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from paho.mqtt.enums import MQTTProtocolVersion

    from tests.certificates.mosquitto.plant import Plant
    from tests.certificates.mosquitto.site import PlantSite
    from tests.service import Service

OWN_TOPICS = "readWrite devices/%u/#"


def uses_its_own_topics(device: CertifiedDevice) -> None:
    """Let a device do what it may, and fail at what it may not."""
    own = f"devices/{device.username}"
    assert device.subscribe(f"{own}/#", "devices/#") == [1, NOT_AUTHORIZED]
    assert device.publish(f"{own}/state", "running") == 0
    assert device.publish("devices/another/state", "forged") == NOT_AUTHORIZED
    assert device.received_so_far() == [(f"{own}/state", b"running")]


def grant(service: Service, username: str, *permissions: str) -> None:
    """Let Alice grant the pending registration of that name."""
    found = service.call("GET", "/api/client-registry/registrations", params={"search": username}).json()["items"]
    (pending,) = [each for each in found if each["username"] == username]
    body = {"permissions": list(map(permission, permissions))}
    answer = service.call("POST", f"/api/client-registry/registrations/{pending['id']}/grant", json=body)
    assert answer.status_code == 200, answer.text


def signed_by(authority: CertificateAuthority, directory: Path, username: str, days_ago: int = 0) -> Papers:
    """Return papers for ten days in that name which the service never gave out."""
    papers, key = new_papers(directory / secrets.token_hex(4))
    then = datetime.now(UTC) - timedelta(days=days_ago)
    papers.certificate_file.write_text(authority.sign(username, key.public_key(), then, 10).certificate)
    return papers


# ---- Who gets in ----


def test_a_device_that_registered_with_a_csr_publishes_and_subscribes(site: PlantSite, tmp_path: Path) -> None:
    service, username = site.plant.service, f"bob-{secrets.token_hex(3)}"
    register = ("register", "--server", service.url, "--username", username, "--out", str(tmp_path), "--wait", "0")
    assert service.call("POST", "/api/client-registry/unlock").ok
    assert "waiting for an administrator" in service.command(*register).stderr
    grant(service, username, OWN_TOPICS)
    site.plant.authsvc(*register)

    uses_its_own_topics(site.connect_with(username, Papers(tmp_path), protocol=V5))


def test_a_device_that_got_key_and_certificate_by_hand_does_too(site: PlantSite, tmp_path: Path) -> None:
    bob = site.add_user("bob", OWN_TOPICS, grantTypes=["certificate"])
    site.plant.authsvc("certificates", "issue", bob, "--out", tmp_path)
    papers = Papers(tmp_path / "of-bob")
    papers.directory.mkdir()
    (tmp_path / f"{bob}.key").rename(papers.key_file)
    (tmp_path / f"{bob}.crt").rename(papers.certificate_file)

    uses_its_own_topics(site.connect_with(bob, papers, protocol=V5))


@BOTH_PROTOCOLS
def test_both_listeners_lead_to_the_same_topics(site: PlantSite, protocol: MQTTProtocolVersion) -> None:
    bob = site.certified("bob", "write line/#", protocol=protocol)
    carol = site.connected("carol", "read line/#", protocol=protocol)

    assert carol.subscribe("line/#") == [1]
    bob.publish("line/1", "running")
    bob.publish("cellar/1", "forged")
    assert carol.received_so_far() == [("line/1", b"running")]


def test_what_a_certified_device_claims_beside_its_certificate_counts_for_nothing(site: PlantSite) -> None:
    bob = site.add_user("bob", OWN_TOPICS)
    charlie = site.add_user("charlie", OWN_TOPICS, grantTypes=["certificate"])
    papers = site.plant.enrol(charlie)

    uses_its_own_topics(site.connect_with(charlie, papers, protocol=V5, claims=(bob, "secret")))


# ---- Who does not ----


def of_another_authority(plant: Plant, directory: Path, username: str) -> Papers:
    now = datetime.now(UTC)
    another = CertificateAuthority(*ca.new_authority("authsvc certificate authority", now, 10, None))
    return signed_by(another, directory, username)


def expired(plant: Plant, directory: Path, username: str) -> Papers:
    return signed_by(plant.authority(), directory, username, days_ago=30)


def not_yet_valid(plant: Plant, directory: Path, username: str) -> Papers:
    return signed_by(plant.authority(), directory, username, days_ago=-1)


def no_papers(plant: Plant, directory: Path, username: str) -> None:
    return None


@pytest.mark.parametrize("papers", [of_another_authority, expired, not_yet_valid, no_papers])
def test_without_a_good_certificate_nobody_gets_in(
    site: PlantSite, tmp_path: Path, papers: Callable[[Plant, Path, str], Papers | None]
) -> None:
    bob = site.certified("bob", OWN_TOPICS)
    charlie = site.arrive(bob.username, papers(site.plant, tmp_path, bob.username), claims=(bob.username, "secret"))

    assert not charlie.gets_in()
    assert bob.stayed_connected()


@pytest.mark.parametrize("spelled", [str.upper, "{}x".format, "no{}".format], ids=["upper case", "longer", "other"])
def test_a_good_certificate_of_nobody_gets_nothing_through(
    site: PlantSite, tmp_path: Path, spelled: Callable[[str], str]
) -> None:
    bob = site.certified("bob", "readWrite line/#", protocol=V5)
    bob.subscribe("line/#")
    stranger = spelled(bob.username)
    papers = signed_by(site.plant.authority(), tmp_path, stranger)
    charlie = site.connect_with(stranger, papers, protocol=V5)

    assert charlie.subscribe("line/#", "#") == [NOT_AUTHORIZED, NOT_AUTHORIZED]
    assert charlie.publish("line/1", "forged") == NOT_AUTHORIZED
    bob.publish("line/1", "genuine")
    assert bob.received_so_far() == [("line/1", b"genuine")]
    assert charlie.received_so_far() == []


# ---- The listener for passwords ----


def test_passwords_work_beside_certificates_as_before(site: PlantSite) -> None:
    bob = site.add_user("bob")
    carol = site.add_user("carol", grantTypes=["certificate"])

    assert site.try_to_connect(bob) == 0
    assert site.try_to_connect(bob, "wrong") == NOT_AUTHORIZED
    assert site.try_to_connect("charlie") == NOT_AUTHORIZED
    assert site.try_to_connect(carol) == NOT_AUTHORIZED
