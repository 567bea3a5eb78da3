"""`%u` and `%c`, topics that begin with `$`, shared subscriptions, long and unusual topics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.brokers.site import THROUGH_BOTH
from tests.devices import BOTH_PROTOCOLS, FIRST_FAILURE, NOT_AUTHORIZED, V5

if TYPE_CHECKING:
    from paho.mqtt.enums import MQTTProtocolVersion

    from tests.brokers.site import Site

pytestmark = THROUGH_BOTH

HARMLESS = ["bob 7", "bøb", "名前", "<b>&\"'", "%u", "$bob", "a\\b", "100%"]
AMBIGUOUS = ["a/b", "/", "bob/#", "+", "#"]


def test_percent_u_stands_for_the_own_username_only(site: Site) -> None:
    bob = site.connected("bob", "readWrite devices/%u/#", protocol=V5)
    carol = site.connected("carol", "readWrite devices/%u/#", protocol=V5)
    own, others = f"devices/{bob.username}", f"devices/{carol.username}"

    assert bob.subscribe(f"{own}/#", f"{others}/#", "devices/+/state") == [1, NOT_AUTHORIZED, NOT_AUTHORIZED]
    assert bob.publish(f"{others}/state") == NOT_AUTHORIZED
    assert bob.publish("devices/%u/state") == NOT_AUTHORIZED
    assert bob.publish(f"{own}/state") == 0
    assert bob.received() == (f"{own}/state", b"")


def test_percent_c_stands_for_the_own_client_id_only(site: Site) -> None:
    bob = site.add_user("bob", "readWrite clients/%c/#")
    first = site.connect(bob, f"{bob}-first", protocol=V5)
    second = site.connect(bob, f"{bob}-second", protocol=V5)

    assert first.publish(f"clients/{bob}-first/state") == 0
    assert first.publish(f"clients/{bob}-second/state") == NOT_AUTHORIZED
    assert second.subscribe(f"clients/{bob}-first/#", f"clients/{bob}-second/#") == [NOT_AUTHORIZED, 1]


@pytest.mark.parametrize("client_id", HARMLESS)
def test_percent_c_works_with_unusual_characters(site: Site, client_id: str) -> None:
    bob = site.connect(site.add_user("bob", "readWrite clients/%c/#"), client_id, protocol=V5)

    assert bob.subscribe(f"clients/{client_id}/#") == [1]
    assert bob.publish(f"clients/{client_id}/state", "on") == 0
    assert bob.received() == (f"clients/{client_id}/state", b"on")
    assert bob.publish("clients/x/state") == NOT_AUTHORIZED


@pytest.mark.parametrize("client_id", AMBIGUOUS)
def test_client_id_with_several_topic_levels_matches_no_percent_c(site: Site, client_id: str) -> None:
    bob = site.connect(site.add_user("bob", "readWrite clients/%c/#", "readWrite %c"), client_id, protocol=V5)

    assert bob.subscribe("clients/a/b/#", "clients/+/#", "#", "+", f"clients/{client_id}") == [NOT_AUTHORIZED] * 5
    assert [bob.publish(topic) for topic in ("clients/a/b/state", "clients///state")] == [NOT_AUTHORIZED] * 2
    assert bob.stayed_connected()


# ---- Topics that begin with $ ----


def test_permission_for_all_topics_does_not_cover_dollar_topics(site: Site) -> None:
    bob = site.connected("bob", "readWrite #", "readWrite +/#", "readWrite +/broker/#", protocol=V5)

    wanted = ("$SYS/#", "$SYS/broker/version", "$share/all/$SYS/#", "$CONTROL/#", "#")
    assert bob.subscribe(*wanted) == [NOT_AUTHORIZED, NOT_AUTHORIZED, NOT_AUTHORIZED, NOT_AUTHORIZED, 1]
    assert bob.publish("$CONTROL/dynamic-security/v1") == NOT_AUTHORIZED


def test_dollar_topics_need_a_permission_that_names_them(site: Site) -> None:
    bob = site.connected("bob", "read $SYS/broker/version")

    assert bob.subscribe("$SYS/broker/version", "$SYS/#") == [1, FIRST_FAILURE]
    topic, version = bob.received()
    assert topic == "$SYS/broker/version"
    assert version.startswith(b"mosquitto version 2.")


# ---- Shared subscriptions ----


@BOTH_PROTOCOLS
def test_each_message_is_delivered_to_one_member_of_a_share_group(site: Site, protocol: MQTTProtocolVersion) -> None:
    bob = site.connected("bob", "write jobs/#")
    members = [site.connected("carol", "read jobs/#", protocol=protocol) for _ in range(2)]
    for member in members:
        assert member.subscribe("$share/workers/jobs/#") == [1]
    for job in ("1", "2", "3", "4"):
        bob.publish("jobs/press", job)

    taken = [member.received_so_far() for member in members]
    assert all(taken)
    assert sorted(payload for jobs in taken for _, payload in jobs) == [b"1", b"2", b"3", b"4"]


@BOTH_PROTOCOLS
def test_shared_subscription_without_a_read_permission_is_refused(site: Site, protocol: MQTTProtocolVersion) -> None:
    charlie = site.connected("charlie", "read jobs/paint/#", "write jobs/#", protocol=protocol)

    (paint, everything) = charlie.subscribe("$share/workers/jobs/paint/#", "$share/workers/jobs/#")
    assert paint == 1
    assert everything >= FIRST_FAILURE


@BOTH_PROTOCOLS
def test_shared_subscription_is_refused_if_a_deny_rule_overlaps_it(site: Site, protocol: MQTTProtocolVersion) -> None:
    charlie = site.connected("charlie", "read jobs/#", "deny read jobs/+/secret", protocol=protocol)

    alone, shared, elsewhere = charlie.subscribe("jobs/#", "$share/workers/jobs/#", "$share/workers/jobs/+/open")
    assert (alone, elsewhere) == (1, 1)
    assert shared >= FIRST_FAILURE


# ---- Long, deep and unusual topics ----


@pytest.mark.parametrize(
    "topic",
    [
        "deep/" + "/".join(["x"] * 199),
        "deep/" + "x" * (65_535 - len("deep/")),
        "deep//x",
        "deep/x/",
        "deep/é 名 <>&\"'\\ %20 \U0001f600",
        "deep/%c/%u",
    ],
    ids=["200 levels", "65535 bytes", "empty level", "slash at the end", "odd characters", "percent"],
)
@BOTH_PROTOCOLS
def test_unusual_topics_are_allowed_and_refused_like_any_other(
    site: Site, topic: str, protocol: MQTTProtocolVersion
) -> None:
    bob = site.connected("bob", "write deep/#", protocol=protocol)
    carol = site.connected("carol", "read deep/#", protocol=protocol)
    charlie = site.connected("charlie", "write shallow/#", protocol=protocol)

    assert carol.subscribe(topic) == [1]
    charlie.publish(topic, "forged")
    bob.publish(topic, "genuine")
    assert carol.received_so_far() == [(topic, b"genuine")]
    assert charlie.stayed_connected()


def test_topic_with_a_leading_slash_is_a_different_topic(site: Site) -> None:
    bob = site.connected("bob", "readWrite line/#", protocol=V5)

    assert bob.publish("/line/1") == NOT_AUTHORIZED
    assert bob.subscribe("/line/1", "line/1") == [NOT_AUTHORIZED, 1]
