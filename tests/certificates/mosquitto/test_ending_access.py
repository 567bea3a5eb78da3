"""What becomes of a device that is connected when its user or its certificate is no longer good."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.certificates.mosquitto.waiting import PATIENCE, until
from tests.devices import BOTH_PROTOCOLS, FIRST_FAILURE, NOT_AUTHORIZED, V5

if TYPE_CHECKING:
    from paho.mqtt.enums import MQTTProtocolVersion

    from tests.certificates.mosquitto.certified import CertifiedDevice
    from tests.certificates.mosquitto.site import PlantSite
    from tests.devices import Device

LINE = "readWrite line/#"


def is_ended(device: Device) -> bool:
    """Wait for the end of a device's connection and say whether the broker made it."""
    return device.ends.get(timeout=PATIENCE) >= FIRST_FAILURE


def neighbours(site: PlantSite) -> tuple[CertifiedDevice, Device]:
    """Return two devices that listen, one with a certificate and one with a password."""
    carol, dora = site.certified("carol", LINE), site.connected("dora", LINE)
    for each in (carol, dora):
        assert each.subscribe("line/#") == [1]
    return carol, dora


# ---- Disabled, and enabled again ----


def test_a_disabled_device_is_refused_at_once_and_its_session_ended(site: PlantSite) -> None:
    bob, carol = site.certified("bob", LINE, protocol=V5), site.certified("carol", LINE)
    for each in (bob, carol):
        assert each.subscribe("line/#") == [1]

    site.change(bob, enabled=False)
    bob.publish_unacknowledged("line/1", qos=1)
    carol.publish("line/1", "to bob")
    assert is_ended(bob)
    assert bob.heard() == []
    assert carol.received_so_far() == [("line/1", b"to bob")]


def test_it_may_come_back_until_the_next_list_and_again_once_it_is_enabled(site: PlantSite) -> None:
    bob = site.certified("bob", LINE, protocol=V5)
    with site.plant.lists_held_back():
        site.change(bob, enabled=False)
        again = site.connect_with(bob.username, site.papers_of(bob), "again", protocol=V5)
        assert again.subscribe("line/#") == [NOT_AUTHORIZED]
        assert again.publish("line/1") == NOT_AUTHORIZED

    site.is_refused_by_the_next_list(bob)
    site.change(bob, enabled=True)
    assert again.publish("line/1") == 0
    site.plant.sync()
    until(lambda: site.gets_in(bob), "the certificate is accepted again")


# ---- Revoked ----


def test_a_revoked_certificate_is_refused_after_the_next_list_and_nobody_else_notices(site: PlantSite) -> None:
    bob, (carol, dora) = site.certified("bob", LINE, protocol=V5), neighbours(site)
    assert bob.publish("line/1", "before") == 0

    site.plant.revoke(site.papers_of(bob))
    assert is_ended(bob)
    site.is_refused_by_the_next_list(bob)
    carol.publish("line/1", "after")
    heard = [("line/1", b"before"), ("line/1", b"after")]
    assert carol.received_so_far() == dora.received_so_far() == heard
    assert carol.stayed_connected()
    assert dora.stayed_connected()


# ---- Passwords, users, and by hand ----


def test_a_changed_password_ends_the_session_that_began_with_the_old_one(site: PlantSite) -> None:
    bob = site.connected("bob", LINE, protocol=V5)
    assert bob.publish("line/1") == 0

    site.change(bob, password="another")
    assert is_ended(bob)
    assert site.try_to_connect(bob.username) == NOT_AUTHORIZED
    assert site.try_to_connect(bob.username, "another") == 0


def test_a_removed_user_is_refused_at_once_and_its_session_ended(site: PlantSite) -> None:
    bob, (carol, dora) = site.certified("bob", LINE, protocol=V5), neighbours(site)
    assert bob.subscribe("line/#") == [1]

    assert site.service.call("DELETE", f"/api/users/{bob.username}").status_code == 204
    carol.publish("line/1", "to bob")
    assert is_ended(bob)
    assert bob.heard() == []
    site.is_refused_by_the_next_list(bob)
    assert carol.stayed_connected()
    assert dora.stayed_connected()


def test_alice_ends_every_session_of_a_user_who_may_come_back(site: PlantSite) -> None:
    bob, (carol, _) = site.certified("bob", LINE, protocol=V5), neighbours(site)
    second = site.connect_with(bob.username, site.papers_of(bob), client_id=f"{bob.username}-second", protocol=V5)
    for each in (bob, second):
        assert each.publish("line/1") == 0

    answer = site.service.call("POST", f"/api/users/{bob.username}/disconnect")
    assert answer.status_code == 200, answer.text
    assert {name: sorted(ids) for name, ids in answer.json().items()} == {
        "ended": sorted([bob.client_id, second.client_id]),
        "failed": [],
    }
    assert is_ended(bob)
    assert is_ended(second)
    assert site.gets_in(bob)
    assert carol.stayed_connected()


# ---- What the service has hardly seen, or not at all ----


def test_a_device_that_only_connected_is_ended_when_its_password_changes(site: PlantSite) -> None:
    bob = site.connected("bob", LINE, protocol=V5)
    site.change(bob, password="another")
    assert is_ended(bob)


# ---- What the device's session keeps ----


@BOTH_PROTOCOLS
def test_subscriptions_and_queued_messages_survive_the_end_of_a_connection(
    site: PlantSite, protocol: MQTTProtocolVersion
) -> None:
    carol = site.connected("carol", LINE)
    bob = site.connected("bob", LINE, protocol=protocol, persistent=True)
    assert bob.subscribe("line/#") == [1]
    bob.stop()
    carol.publish("line/1", "while away")

    ended = site.service.call("POST", f"/api/users/{bob.username}/disconnect").json()
    assert ended == {"ended": [bob.client_id], "failed": []}
    carol.publish("line/1", "after that")
    bob.start(site.broker.port)
    assert bob.connack() == 0
    assert [bob.received() for _ in range(2)] == [("line/1", b"while away"), ("line/1", b"after that")]
    carol.publish("line/1", "still subscribed")
    assert bob.received() == ("line/1", b"still subscribed")


@BOTH_PROTOCOLS
def test_a_connected_device_keeps_its_session_when_its_connection_is_ended(
    site: PlantSite, protocol: MQTTProtocolVersion
) -> None:
    carol = site.connected("carol", LINE)
    bob = site.connected("bob", LINE, protocol=protocol, persistent=True)
    assert bob.subscribe("line/#") == [1]
    site.change(bob, enabled=False)
    assert is_ended(bob)
    bob.stop()
    site.change(bob, enabled=True)
    carol.publish("line/1", "while away")
    bob.start(site.broker.port)
    assert bob.connack() == 0
    assert bob.received() == ("line/1", b"while away")


@BOTH_PROTOCOLS
def test_a_device_without_a_lasting_session_has_none_afterwards_and_its_will_is_published(
    site: PlantSite, protocol: MQTTProtocolVersion
) -> None:
    carol = site.connected("carol", LINE)
    assert carol.subscribe("line/wills") == [1]
    bob = site.connected("bob", LINE, protocol=protocol, will=("line/wills", "gone"))
    assert bob.subscribe("line/1") == [1]
    site.service.call("POST", f"/api/users/{bob.username}/disconnect")
    assert is_ended(bob)
    assert carol.received() == ("line/wills", b"gone")
    carol.publish("line/1", "to nobody")
    # Nothing was left in its place that would collect messages.
    again = site.connect(bob.username, client_id=bob.client_id, protocol=protocol, persistent=True)
    assert again.received_so_far() == []
