"""What a connected client may do, and how soon a change is in force for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.devices import BOTH_PROTOCOLS, FIRST_FAILURE, NOT_AUTHORIZED, V5
from tests.plugin.fake_service import wait_for
from tests.plugin.in_broker.raw_mqtt import field as mqtt_field
from tests.plugin.in_broker.raw_mqtt import packet, publish_packet
from tests.plugin.in_broker.site import seconds_until

if TYPE_CHECKING:
    from paho.mqtt.enums import MQTTProtocolVersion

    from tests.plugin.in_broker.site import Site

IN_FORCE = 1.0  # seconds


@BOTH_PROTOCOLS
def test_client_subscribes_and_receives_what_it_may_read(site: Site, protocol: MQTTProtocolVersion) -> None:
    topic = site.new_name("topic")
    reader = site.connected(site.user(f"read {topic}/#", f"deny read {topic}/hidden"), protocol=protocol)
    writer = site.connected(site.user(f"write {topic}/#"), protocol=protocol)

    refused = NOT_AUTHORIZED if protocol is V5 else FIRST_FAILURE
    assert reader.subscribe(f"{topic}/#", f"{topic}/hidden", "#", "other") == [1, refused, refused, refused]
    writer.publish(f"{topic}/hidden", "1")
    writer.publish(f"{topic}/open", "2")
    assert reader.received() == (f"{topic}/open", b"2")
    assert reader.received_so_far() == []


@BOTH_PROTOCOLS
def test_message_that_a_client_may_not_publish_is_not_delivered(site: Site, protocol: MQTTProtocolVersion) -> None:
    topic = site.new_name("topic")
    reader = site.connected(site.user(f"read {topic}/#"))
    reader.subscribe(f"{topic}/#")
    writer = site.connected(site.user(f"write {topic}/mine", f"read {topic}/#"), protocol=protocol)

    assert writer.publish(f"{topic}/other") == (NOT_AUTHORIZED if protocol is V5 else 0)
    assert writer.publish(f"{topic}/mine") == 0
    assert reader.received() == (f"{topic}/mine", b"")


def test_retained_message_is_delivered_only_to_clients_that_may_read_it(site: Site) -> None:
    topic = site.new_name("topic")
    site.connected(site.user(f"write {topic}/#")).publish(f"{topic}/a", "kept", retain=True)

    may = site.connected(site.user(f"read {topic}/#"))
    may_not = site.connected(site.user(f"read {topic}/#", f"deny read {topic}/a"))
    assert may.subscribe(f"{topic}/#") == [1]
    assert may_not.subscribe(f"{topic}/#") == [1]
    assert may.received() == (f"{topic}/a", b"kept")
    assert may_not.received_so_far() == []


def test_will_is_published_only_if_its_client_may_write_to_the_topic(site: Site) -> None:
    topic = site.new_name("topic")
    reader = site.connected(site.user(f"read {topic}/#"))
    reader.subscribe(f"{topic}/#")
    forbidden = site.connected(site.user(f"write {topic}/mine"), will=(f"{topic}/other", "gone"))
    allowed = site.connected(site.user(f"write {topic}/#"), will=(f"{topic}/mine", "gone"))

    forbidden.vanish()
    wait_for(lambda: site.denials(forbidden.username))
    allowed.vanish()
    assert reader.received() == (f"{topic}/mine", b"gone")
    assert site.denials(forbidden.username)[0]["access"] == 2


def test_will_follows_the_rules_of_when_it_is_published(site: Site) -> None:
    topic = site.new_name("topic")
    reader = site.connected(site.user(f"read {topic}/#"))
    reader.subscribe(f"{topic}/#")
    device = site.connected(site.user(f"write {topic}/#"), will=(f"{topic}/will", "gone"))
    site.service.replace(device.username, rules=[f"deny write {topic}/will", f"write {topic}/#"])
    wait_for(lambda: device.publish(f"{topic}/will") == NOT_AUTHORIZED)
    device.vanish()
    wait_for(lambda: len(site.denials(device.username)) > 1)
    sent_before_the_change = reader.received_so_far()
    assert (f"{topic}/will", b"gone") not in sent_before_the_change


def test_shared_subscription_is_refused_if_a_deny_rule_overlaps_it(site: Site) -> None:
    topic = site.new_name("topic")
    device = site.connected(site.user(f"read {topic}/#", f"deny read {topic}/hidden"))
    refused = [NOT_AUTHORIZED] * 2
    assert device.subscribe(f"$share/g/{topic}/#", f"$share/g/{topic}/hidden") == refused
    assert device.subscribe(f"$share/g/{topic}/open") == [1]
    site.connected(site.user(f"write {topic}/#")).publish(f"{topic}/open", "x")
    assert device.received() == (f"{topic}/open", b"x")
    wait_for(lambda: len(site.denials(device.username)) == 2)
    assert [denial["reason"] for denial in site.denials(device.username)] == [
        "share-reaches-denied-topics",
        "denied-by-permission",
    ]


def test_username_and_client_id_stand_for_one_level_each(site: Site) -> None:
    user = site.user("readWrite u/%u/#", "readWrite c/%c")
    device = site.connected(user, client_id=f"{user}-id")
    assert device.subscribe(f"u/{user}/a", f"c/{user}-id", "u/+/a", "c/+", "c/other") == [1, 1] + [NOT_AUTHORIZED] * 3
    assert device.publish(f"u/{user}/x/y") == 0
    assert device.publish(f"c/{user}-id") == 0
    assert device.publish("u/other/x") == NOT_AUTHORIZED


@pytest.mark.parametrize("name", ["+", "#", "a/b", "+/+", "#/x", "$share", "a+", "/"])
def test_client_id_with_topic_characters_widens_no_rule(site: Site, name: str) -> None:
    device = site.connected(site.user("readWrite c/%c/x"), client_id=name)
    assert device.subscribe("c/#", "c/other/x", "c/other/y/x", "#") == [NOT_AUTHORIZED] * 4
    assert device.publish("c/other/x") == NOT_AUTHORIZED
    assert device.publish("c/other/y/x") == NOT_AUTHORIZED
    assert device.subscribe("c/+/x") == [NOT_AUTHORIZED]


@pytest.mark.parametrize("name", ["+", "#", "a/b", "+/+", "#/x", "a#"])
def test_username_with_topic_characters_widens_no_rule(site: Site, name: str) -> None:
    site.user()
    site.service.users[name] = site.service.users[site.user("readWrite u/%u/x")]
    device = site.connected(name)
    assert device.subscribe("u/+/x", "u/#", "u/other/x", "#") == [NOT_AUTHORIZED] * 4
    assert device.publish("u/other/x") == NOT_AUTHORIZED


def test_unsubscribe_is_always_allowed(site: Site) -> None:
    device = site.connected(site.user())
    device.wait_for_broker()  # it unsubscribes from a topic without permission
    assert site.denials(device.username) == []


def test_dollar_topics_need_a_rule_that_names_them(site: Site) -> None:
    device = site.connected(site.user("readWrite #"))
    assert device.subscribe("$SYS/broker/version", "#") == [NOT_AUTHORIZED, 1]
    reader = site.connected(site.user("read $SYS/#"))
    assert reader.subscribe("$SYS/broker/version") == [1]


def test_new_rule_of_a_connected_client_is_in_force_within_a_second(site: Site) -> None:
    device = site.connected(site.user())
    assert device.publish("new/topic") == NOT_AUTHORIZED
    site.service.replace(device.username, rules=["write new/topic"])
    assert seconds_until(lambda: device.publish("new/topic") == 0) < IN_FORCE
    site.service.replace(device.username, rules=[])
    assert seconds_until(lambda: device.publish("new/topic") == NOT_AUTHORIZED) < IN_FORCE


def test_change_of_a_role_is_in_force_for_all_its_users_within_a_second(site: Site) -> None:
    role = site.new_name("role")
    members = [site.connected(site.user("write new/topic", roles=["other", role])) for _ in range(2)]
    bystander = site.connected(site.user("write new/topic", roles=["other"]))
    fetched = site.fetches(bystander.username)
    for member in members:
        site.service.users[member.username].rules = []
    site.service.version += 1
    site.service.announce(version=site.service.version, roles=[role])
    for member in members:
        assert seconds_until(lambda member=member: member.publish("new/topic") == NOT_AUTHORIZED) < IN_FORCE  # type: ignore[misc]
    assert bystander.publish("new/topic") == 0
    assert site.fetches(bystander.username) == fetched


def test_everything_that_is_held_is_fetched_when_everything_may_have_changed(site: Site) -> None:
    device = site.connected(site.user("write new/topic"))
    site.service.users[device.username].rules = []
    site.service.version += 1
    site.service.announce(version=site.service.version, all=True)
    assert seconds_until(lambda: device.publish("new/topic") == NOT_AUTHORIZED) < IN_FORCE


def test_restored_database_with_a_smaller_policy_version_is_in_force_within_a_second(site: Site) -> None:
    device = site.connected(site.user("write new/topic"))
    site.service.version += 1000
    site.service.replace(device.username, rules=["write a"])
    wait_for(lambda: device.publish("new/topic") == NOT_AUTHORIZED)
    site.service.users[device.username].rules = ["write b"]
    site.service.version -= 900
    site.service.announce(version=site.service.version, all=True)
    assert seconds_until(lambda: device.publish("b") == 0) < IN_FORCE
    site.service.version += 1000


def test_answer_older_than_the_change_is_asked_for_again(site: Site) -> None:
    device = site.connected(site.user("write new/topic"))
    fetched = site.fetches(device.username)
    site.service.announce(version=site.service.version + 1, users=[device.username])  # not read by this process yet
    wait_for(lambda: site.fetches(device.username) > fetched + 2)
    site.service.users[device.username].rules = []
    site.service.version += 1
    assert seconds_until(lambda: device.publish("new/topic") == NOT_AUTHORIZED) < IN_FORCE


def test_restored_version_does_not_leave_a_user_being_asked_for(site: Site) -> None:
    device = site.connected(site.user("write new/topic"))
    site.service.announce(version=site.service.version + 500, users=[device.username])
    fetched = site.fetches(device.username)
    wait_for(lambda: site.fetches(device.username) > fetched + 1)
    site.service.announce(version=site.service.version, all=True)
    other = site.connected(site.user())

    def is_checked_from_memory() -> bool:
        asked = len(site.logins_asked(device.username))
        assert site.code(device.username) == 0
        return len(site.logins_asked(device.username)) == asked

    def is_asked_for_no_more() -> bool:
        """Compare the number of fetches before and after another change was fetched."""
        fetched = site.fetches(device.username)
        site.service.replace(other.username, rules=[f"write {site.new_name('topic')}"])
        topic = site.service.users[other.username].rules[0].removeprefix("write ")
        wait_for(lambda: other.publish(topic) == 0)
        return site.fetches(device.username) == fetched

    wait_for(is_checked_from_memory)
    wait_for(is_asked_for_no_more)


def test_denials_are_reported_with_topic_access_and_reason(site: Site) -> None:
    user = site.user("read a/#", "deny read a/x")
    device = site.connected(user, client_id=f"{user}-1")
    device.subscribe("a/x", "b", "$share/g/a/#")
    device.publish("c/ü")
    expected = [
        ("a/x", 4, "denied-by-permission"),
        ("b", 4, "no-permission"),
        ("$share/g/a/#", 4, "share-reaches-denied-topics"),
        ("c/ü", 2, "no-permission"),
    ]
    wait_for(lambda: len(site.denials(user)) == len(expected))
    assert site.denials(user) == [
        {"username": user, "clientid": f"{user}-1", "topic": topic, "access": access, "reason": reason}
        for topic, access, reason in expected
    ]


def test_long_topic_is_cut_between_two_characters(site: Site) -> None:
    user = site.user()
    client = site.raw()
    assert client.login(site.new_name("client"), user.encode()) == 0
    topic = "ab" + "€" * 20_000  # 3 bytes each
    client.send(publish_packet(topic.encode()))
    wait_for(lambda: site.denials(user))
    reported = site.denials(user)[0]["topic"]
    assert topic.startswith(reported)
    assert len(reported.encode()) in range(4000, 4010)


def test_malformed_shared_subscription_is_denied_and_the_client_stays(site: Site) -> None:
    user = site.user("readWrite #")
    client = site.raw()
    assert client.login(site.new_name("client"), user.encode()) == 0
    client.send(packet(0x82, b"\x00\x01" + mqtt_field(b"$share/a+b/x") + b"\x00"))
    client.read(5)
    assert site.code(user) == 0
