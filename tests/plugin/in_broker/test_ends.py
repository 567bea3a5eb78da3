"""When the plugin ends connections, and what is left of them."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.devices import NOT_AUTHORIZED
from tests.plugin.fake_service import wait_for
from tests.plugin.in_broker.raw_mqtt import connect_packet
from tests.plugin.in_broker.site import seconds_until

if TYPE_CHECKING:
    from tests.devices import Device
    from tests.plugin.in_broker.site import Site

IN_FORCE = 1.0  # seconds
CHANGES: dict[str, dict[str, Any]] = {
    "disabled": {"refused": "user-disabled"},
    "damaged": {"refused": "damaged-policy"},
    "password": {"password": "new"},
    "expired": {"until": 1},
}


def number_of(site: Site, device: Device) -> int:
    """Return the number of a device's connection, as the plugin reports it."""

    def numbers() -> list[int]:
        clients = site.connections(device.username)
        return [client["id"] for client in clients if client["clientid"] == device.client_id]

    wait_for(numbers)
    return max(numbers())


@pytest.mark.parametrize("change", CHANGES)
def test_client_without_a_valid_credential_is_disconnected_within_a_second(site: Site, change: str) -> None:
    devices = [site.connected(site.user()) for _ in range(2)]
    site.service.replace(devices[0].username, **CHANGES[change])
    assert seconds_until(lambda: not devices[0].ends.empty()) < IN_FORCE
    assert site.code(devices[0].username) != 0
    assert devices[1].stayed_connected()


def test_deleted_user_is_disconnected_within_a_second(site: Site) -> None:
    devices = [site.connected(site.user()) for _ in range(2)]
    site.service.change(devices[0].username, None)
    assert seconds_until(lambda: not devices[0].ends.empty()) < IN_FORCE
    assert site.code(devices[0].username) != 0
    assert devices[1].stayed_connected()


def test_credential_expires_without_a_message_from_the_service(site: Site) -> None:
    until = int(time.time()) + 2
    device = site.connected(site.user(until=until))
    assert device.is_disconnected()
    assert until <= time.time() < until + 1 + IN_FORCE
    assert site.logins_asked(device.username)
    assert site.fetches(device.username) == 0


def test_all_connections_of_a_user_are_ended(site: Site) -> None:
    user = site.user()
    devices = [site.connected(user) for _ in range(5)]
    site.service.replace(user, password="new")
    assert all(device.is_disconnected() for device in devices)
    numbers = {client["id"] for client in site.connections(user)}
    wait_for(lambda: numbers <= set(site.reported("disconnected")))


def test_disconnect_of_a_number_ends_that_connection_only(site: Site) -> None:
    user = site.user()
    devices = [site.connected(user) for _ in range(2)]
    number = number_of(site, devices[0])
    site.service.announce(disconnect=[number])
    assert seconds_until(lambda: not devices[0].ends.empty()) < IN_FORCE
    assert devices[1].stayed_connected()
    wait_for(lambda: number in site.reported("disconnected"))
    assert site.code(user) == 0


def test_disconnect_of_a_number_that_is_gone_changes_nothing(site: Site) -> None:
    device = site.connected(site.user())
    gone = site.connected(site.user())
    number = number_of(site, gone)
    gone.stop()
    wait_for(lambda: number in site.reported("disconnected"))
    last = site.connected(site.user("write a"))
    strange = [number, 0, -1, 1e300, 2**63, 0.5, "1", None, [1], {}]
    site.service.announce(disconnect=[*strange, number_of(site, last)])
    assert last.is_disconnected()
    assert device.stayed_connected()


def test_persistent_session_and_its_queued_messages_survive_a_disconnect(site: Site) -> None:
    topic = site.new_name("topic")
    user = site.user(f"read {topic}")
    device = site.connected(user, persistent=True)
    assert device.subscribe(topic) == [1]
    site.service.announce(disconnect=[number_of(site, device)])
    assert device.is_disconnected()
    device.stop()
    site.connected(site.user(f"write {topic}")).publish(topic, "queued")
    back = site.connected(user, persistent=True, client_id=device.client_id)
    assert back.received() == (topic, b"queued")


def test_persistent_session_survives_a_changed_password(site: Site) -> None:
    topic = site.new_name("topic")
    user = site.user(f"read {topic}")
    device = site.connected(user, persistent=True)
    assert device.subscribe(topic) == [1]
    site.service.replace(user, password="new")
    assert device.is_disconnected()
    device.stop()
    site.connected(site.user(f"write {topic}")).publish(topic, "queued")
    back = site.connected(user, "new", persistent=True, client_id=device.client_id)
    assert back.received() == (topic, b"queued")


def test_client_with_subscriptions_that_are_now_denied_is_disconnected(site: Site) -> None:
    topics = [site.new_name("topic") for _ in range(20)]
    user = site.user(*(f"read {topic}/#" for topic in topics))
    device = site.connected(user, persistent=True, will=(topics[0], "gone"))
    device.subscribe(*(f"{topic}/#" for topic in topics), "$share/g/" + topics[0])
    site.service.replace(user, password="new", rules=[])
    assert device.is_disconnected()
    device.stop()
    back = site.connected(user, "new", persistent=True, client_id=device.client_id)
    site.connected(site.user("write #")).publish(topics[0], "x")
    assert back.received_so_far() == []


def test_500_users_change_at_once_while_another_client_is_served(site: Site) -> None:
    users = [site.user("write a", roles=["crowd"]) for _ in range(500)]
    clients = [site.raw() for _ in users]
    for client, user in zip(clients, users, strict=True):
        client.send(connect_packet(site.new_name("client"), user.encode(), b"secret"))
    assert {client.read(4) for client in clients} == {b"\x20\x02\x00\x00"}
    bystander = site.raw()
    assert bystander.login(site.new_name("client"), site.user().encode()) == 0
    for user in users:
        site.service.users[user].password = "new"
    site.service.version += 1
    ended = threading.Thread(target=lambda: [client.read(1) for client in clients])
    ended.start()
    site.service.announce(version=site.service.version, roles=["crowd"])
    pings = [bystander.ping()]
    while ended.is_alive():
        pings.append(bystander.ping())
    assert max(pings) < IN_FORCE
    batches = [fields["usernames"] for fields in site.service.asked("/auth/plugin/users")]
    assert sum(not set(users).isdisjoint(batch) for batch in batches) < 50


def test_takeover_of_a_client_id_leaves_the_new_connection_in_the_tables(site: Site) -> None:
    user = site.user("write a")
    first = site.connected(user)
    old = number_of(site, first)
    second = site.connected(user, client_id=first.client_id)
    assert first.is_disconnected()
    first.stop()
    wait_for(lambda: number_of(site, second) != old)
    wait_for(lambda: old in site.reported("disconnected"))
    new = number_of(site, second)
    site.service.announce(disconnect=[old])
    assert second.publish("a") == 0
    site.service.announce(disconnect=[new])
    assert second.is_disconnected()
    wait_for(lambda: new in site.reported("disconnected"))


def test_takeover_of_a_client_id_by_another_user_binds_it_to_that_user(site: Site) -> None:
    first = site.connected(site.user("write a"))
    second = site.connected(site.user("write b"), client_id=first.client_id)
    assert first.is_disconnected()
    first.stop()
    site.service.replace(first.username, password="new")
    assert second.publish("b") == 0
    assert second.publish("a") == NOT_AUTHORIZED
    site.service.replace(second.username, password="new")
    assert second.is_disconnected()


def test_offline_session_receives_queued_messages_by_the_rules(site: Site) -> None:
    topic = site.new_name("topic")
    user = site.user(f"read {topic}/#")
    device = site.connected(user, persistent=True)
    assert device.subscribe(f"{topic}/#") == [1]
    device.stop()
    writer = site.connected(site.user(f"write {topic}/#", f"write {user}"))
    writer.publish(f"{topic}/before", "1")
    writer.publish(f"{topic}/hidden-later", "2")
    fetched = site.fetches(user)
    site.service.replace(
        user, rules=[f"read {topic}/#", f"deny read {topic}/hidden-later", f"deny read {topic}/hidden"]
    )
    wait_for(lambda: site.fetches(user) > fetched)
    checker = site.connected(user)
    wait_for(lambda: checker.subscribe(f"{topic}/hidden") == [NOT_AUTHORIZED])
    writer.publish(f"{topic}/hidden", "3")
    writer.publish(f"{topic}/after", "4")
    back = site.connected(user, persistent=True, client_id=device.client_id)
    assert [back.received(), back.received()] == [(f"{topic}/before", b"1"), (f"{topic}/after", b"4")]
    assert back.received_so_far() == []
