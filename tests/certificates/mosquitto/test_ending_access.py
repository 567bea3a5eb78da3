"""Connected devices whose user or certificate becomes invalid are disconnected."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests.certificates.mosquitto.site import CERTIFICATES_THROUGH_BOTH
from tests.certificates.mosquitto.waiting import TIMEOUT, until
from tests.devices import BOTH_PROTOCOLS, FIRST_FAILURE, NOT_AUTHORIZED, V5

if TYPE_CHECKING:
    from paho.mqtt.enums import MQTTProtocolVersion

    from tests.certificates.mosquitto.certified import CertifiedDevice
    from tests.certificates.mosquitto.site import CertificateSite
    from tests.devices import Device

LINE = "readWrite line/#"


def is_ended(device: Device) -> bool:
    """Wait for the end of a device's connection and return whether the broker ended it."""
    return device.ends.get(timeout=TIMEOUT) >= FIRST_FAILURE


def other_devices(site: CertificateSite) -> tuple[CertifiedDevice, Device]:
    """Return two subscribed devices, one with a certificate and one with a password."""
    carol, dora = site.certified("carol", LINE), site.connected("dora", LINE)
    for each in (carol, dora):
        assert each.subscribe("line/#") == [1]
    return carol, dora


# ---- Disabled, and enabled again ----


@CERTIFICATES_THROUGH_BOTH
def test_disabled_user_is_denied_at_once_and_disconnected(site: CertificateSite) -> None:
    bob, carol = site.certified("bob", LINE, protocol=V5), site.certified("carol", LINE)
    for each in (bob, carol):
        assert each.subscribe("line/#") == [1]

    site.change(bob, enabled=False)
    bob.publish_unacknowledged("line/1", qos=1)
    carol.publish("line/1", "to bob")
    assert is_ended(bob)
    assert bob.pending_messages() == []
    assert carol.received_so_far() == [("line/1", b"to bob")]


def test_disabled_user_can_reconnect_until_the_next_list_and_again_after_it_is_enabled(site: CertificateSite) -> None:
    bob = site.certified("bob", LINE, protocol=V5)
    with site.deployment.lists_held_back():
        site.change(bob, enabled=False)
        again = site.connect_with(bob.username, site.files_of(bob), "again", protocol=V5)
        assert again.subscribe("line/#") == [NOT_AUTHORIZED]
        assert again.publish("line/1") == NOT_AUTHORIZED

    site.is_refused_by_the_next_list(bob)
    site.change(bob, enabled=True)
    assert again.publish("line/1") == 0
    site.deployment.sync()
    until(lambda: site.is_accepted(bob), "the certificate is accepted again")


# ---- Revoked ----


@CERTIFICATES_THROUGH_BOTH
def test_revoked_certificate_is_refused_after_the_next_list_and_other_devices_stay_connected(
    site: CertificateSite,
) -> None:
    bob, (carol, dora) = site.certified("bob", LINE, protocol=V5), other_devices(site)
    assert bob.publish("line/1", "before") == 0

    site.deployment.revoke(site.files_of(bob))
    assert is_ended(bob)
    site.is_refused_by_the_next_list(bob)
    carol.publish("line/1", "after")
    pending_messages = [("line/1", b"before"), ("line/1", b"after")]
    assert carol.received_so_far() == dora.received_so_far() == pending_messages
    assert carol.stayed_connected()
    assert dora.stayed_connected()


# ---- Passwords, deleted users, disconnects by an administrator ----


@CERTIFICATES_THROUGH_BOTH
def test_changed_password_disconnects_the_device(site: CertificateSite) -> None:
    bob = site.connected("bob", LINE, protocol=V5)
    assert bob.publish("line/1") == 0

    site.change(bob, password="another")
    assert is_ended(bob)
    assert site.try_to_connect(bob.username) == NOT_AUTHORIZED
    assert site.try_to_connect(bob.username, "another") == 0


@CERTIFICATES_THROUGH_BOTH
def test_deleted_user_is_denied_at_once_and_disconnected(site: CertificateSite) -> None:
    bob, (carol, dora) = site.certified("bob", LINE, protocol=V5), other_devices(site)
    assert bob.subscribe("line/#") == [1]

    with site.in_force(bob.username):
        assert site.service.call("DELETE", f"/api/users/{bob.username}").status_code == 204
    carol.publish("line/1", "to bob")
    assert is_ended(bob)
    assert bob.pending_messages() == []
    site.is_refused_by_the_next_list(bob)
    assert carol.stayed_connected()
    assert dora.stayed_connected()


def test_administrator_disconnects_all_devices_of_a_user_and_they_can_reconnect(site: CertificateSite) -> None:
    bob, (carol, _) = site.certified("bob", LINE, protocol=V5), other_devices(site)
    second = site.connect_with(bob.username, site.files_of(bob), client_id=f"{bob.username}-second", protocol=V5)
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
    assert site.is_accepted(bob)
    assert carol.stayed_connected()


@pytest.mark.parametrize("deployment", ["authsvc"], indirect=True, scope="session")
def test_administrator_disconnects_clients_of_a_broker_with_authsvcs_own_plugin(site: CertificateSite) -> None:
    bob, carol = site.certified("bob", LINE, protocol=V5), site.connected("carol", LINE, protocol=V5)
    second = site.connect_with(bob.username, site.files_of(bob), client_id=f"{bob.username}/second", protocol=V5)
    for each in (bob, second):
        assert each.publish("line/1") == 0

    def listed() -> dict[str, dict[str, str]]:
        items = site.service.call("GET", "/api/clients", params={"perPage": 1000}).json()["items"]
        return {item["clientId"]: item for item in items}

    until(lambda: {bob.client_id, second.client_id, carol.client_id} <= listed().keys(), "the clients are reported")
    shown = listed()[second.client_id]
    assert (shown["username"], shown["credential"], shown["protocol"]) == (bob.username, "certificate", "MQTT 5.0")
    path = f"/api/clients/{shown['broker']}/{quote(second.client_id, safe='')}/disconnect"
    answer = site.service.call("POST", path)
    assert (answer.status_code, answer.json()["disconnected"]) == (200, True)
    assert is_ended(second)
    assert bob.stayed_connected()
    ended = site.service.call("POST", f"/api/users/{bob.username}/disconnect").json()
    assert ended == {"ended": [bob.client_id], "failed": []}
    assert is_ended(bob)
    assert site.is_accepted(bob)
    assert carol.stayed_connected()


# ---- Devices that sent no ACL request ----


@CERTIFICATES_THROUGH_BOTH
def test_device_that_only_logged_in_is_disconnected_after_a_password_change(site: CertificateSite) -> None:
    bob = site.connected("bob", LINE, protocol=V5)
    site.change(bob, password="another")
    assert is_ended(bob)


# ---- MQTT sessions after a disconnect ----


@BOTH_PROTOCOLS
def test_subscriptions_and_queued_messages_survive_a_disconnect(
    site: CertificateSite, protocol: MQTTProtocolVersion
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


@CERTIFICATES_THROUGH_BOTH
@BOTH_PROTOCOLS
def test_disconnected_device_keeps_its_persistent_session(site: CertificateSite, protocol: MQTTProtocolVersion) -> None:
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
def test_disconnect_of_a_device_without_a_persistent_session_publishes_its_will_and_leaves_no_session(
    site: CertificateSite, protocol: MQTTProtocolVersion
) -> None:
    carol = site.connected("carol", LINE)
    assert carol.subscribe("line/wills") == [1]
    bob = site.connected("bob", LINE, protocol=protocol, will=("line/wills", "gone"))
    assert bob.subscribe("line/1") == [1]
    site.service.call("POST", f"/api/users/{bob.username}/disconnect")
    assert is_ended(bob)
    assert carol.received() == ("line/wills", b"gone")
    carol.publish("line/1", "to nobody")
    # No session is left that would queue messages.
    again = site.connect(bob.username, client_id=bob.client_id, protocol=protocol, persistent=True)
    assert again.received_so_far() == []
