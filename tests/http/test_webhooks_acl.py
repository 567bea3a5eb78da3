"""May this client have this topic: every row that a broker can ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from authsvc.accounts import roles, users
from authsvc.accounts.users import UserChanges
from tests.actors import HASHER, OPERATOR, mqtt
from tests.http.broker import FORM, JSON, MALFORMED, YES, Broker, no

if TYPE_CHECKING:
    from authsvc.web.request_context import Services

DELIVER, PUBLISH, BOTH, SUBSCRIBE = 1, 2, 3, 4
NOTHING = no("no-permission")
FORBIDDEN = no("denied-by-permission")

# What Bob may stands in the village: his own branch, sensors but the secret ones, and the lines by his role.
ANSWERS = [
    ("devices/bob/up", DELIVER, YES),
    ("devices/bob/up", PUBLISH, YES),
    ("devices/bob/up", BOTH, YES),
    ("devices/bob/up", SUBSCRIBE, YES),
    ("devices/bob/#", SUBSCRIBE, YES),
    ("devices/bob", PUBLISH, YES),
    ("devices/tom/up", PUBLISH, NOTHING),
    ("devices/+/up", SUBSCRIBE, NOTHING),
    ("devices/#", SUBSCRIBE, NOTHING),
    ("devices/%u/up", PUBLISH, NOTHING),
    ("sensors/1", DELIVER, YES),
    ("sensors/1", PUBLISH, NOTHING),
    ("sensors/1", BOTH, NOTHING),
    ("sensors/#", SUBSCRIBE, YES),
    ("sensors/secret/1", DELIVER, FORBIDDEN),
    ("sensors/secret/1", SUBSCRIBE, FORBIDDEN),
    ("sensors/secret/#", SUBSCRIBE, FORBIDDEN),
    ("clients/c1/up", PUBLISH, YES),
    ("clients/c1/up", BOTH, NOTHING),
    ("clients/c2/up", PUBLISH, NOTHING),
    ("clients/%c/up", PUBLISH, NOTHING),
    ("lines/7", PUBLISH, YES),
    ("lines/7", DELIVER, NOTHING),
    ("lines/7/8", PUBLISH, NOTHING),
    ("$SYS/broker/uptime", DELIVER, NOTHING),
    ("#", SUBSCRIBE, NOTHING),
    ("$share/presses/devices/bob/#", SUBSCRIBE, YES),
    ("$share/presses/devices/tom/#", SUBSCRIBE, NOTHING),
    ("$share/presses/sensors/1", SUBSCRIBE, YES),
    # Who is refused at delivery swallows what another member of the group should have had.
    ("$share/presses/sensors/#", SUBSCRIBE, no("share-reaches-denied-topics")),
    ("$share/presses/sensors/secret/1", SUBSCRIBE, FORBIDDEN),
    ("$share/presses/lines/7", SUBSCRIBE, NOTHING),
]


@pytest.mark.parametrize(("topic", "acc", "answer"), ANSWERS)
@pytest.mark.parametrize("form", [JSON, FORM])
def test_bob_may_what_his_permissions_say(broker: Broker, form: str, topic: str, acc: int, answer: object) -> None:
    assert broker.acl("bob", topic, acc, form=form) == answer


@pytest.mark.parametrize(
    ("username", "answer"),
    [("nemo", no("unknown-user")), ("dora", no("user-disabled")), ("tom", NOTHING), ("carol", YES)],
)
def test_others_are_answered_by_what_they_are(broker: Broker, username: str, answer: object) -> None:
    assert broker.acl(username, f"devices/{username}/up", PUBLISH) == answer


def test_the_first_administrator_may_have_every_topic_but_the_brokers_own(broker: Broker) -> None:
    assert broker.acl("admin", "any/thing", BOTH) == YES
    assert broker.acl("admin", "#", SUBSCRIBE) == YES
    assert broker.acl("admin", "$SYS/broker/uptime", DELIVER) == NOTHING
    assert broker.acl("admin", "$CONTROL/dynamic-security/v1", PUBLISH) == NOTHING


def test_a_rule_that_spells_the_dollar_reaches_the_brokers_own_topics(broker: Broker, services: Services) -> None:
    _permit("tom", services, mqtt("write", "$CONTROL/#"))
    assert broker.acl("tom", "$CONTROL/dynamic-security/v1", PUBLISH) == YES
    assert broker.acl("tom", "$SYS/broker/uptime", PUBLISH) == NOTHING


@pytest.mark.parametrize("name", ["clientid", "client_id"])
@pytest.mark.parametrize("form", [JSON, FORM])
def test_the_client_id_has_two_spellings(broker: Broker, form: str, name: str) -> None:
    fields: dict[str, Any] = {"username": "bob", "topic": "clients/c7/up", "acc": PUBLISH}
    assert broker.ask("acl", form, **fields, **{name: "c7"}) == YES
    assert broker.ask("acl", form, **fields, **{name: "c8"}) == NOTHING


@pytest.mark.parametrize("client_id", ["", "+", "#", "c1/up", "c1/up/x"])
def test_no_client_id_widens_a_rule(broker: Broker, client_id: str) -> None:
    topic = f"clients/{client_id}/up"
    assert broker.acl("bob", topic, SUBSCRIBE, client_id=client_id) in (NOTHING, MALFORMED)
    assert broker.acl("bob", topic, PUBLISH, client_id=client_id) in (NOTHING, MALFORMED)


def test_without_a_client_id_its_rules_match_nothing(broker: Broker) -> None:
    assert broker.ask("acl", username="bob", topic="clients//up", acc=PUBLISH) == NOTHING
    assert broker.ask("acl", username="bob", topic="devices/bob/up", acc=PUBLISH) == YES


@pytest.mark.parametrize("acc", [0, 5, 6, 7, 8, -1, 255, 10**30, True, False, "4", "", "x", 4.0, None, [4], {"acc": 4}])
def test_an_access_that_no_broker_asks_for_is_malformed(broker: Broker, acc: Any) -> None:
    assert broker.acl("bob", "devices/bob/up", acc) == MALFORMED


@pytest.mark.parametrize("acc", ["0", "5", "8", "-1", "", "x", "4.0", "04", " 4", "true", "٤"])
def test_an_access_that_no_broker_asks_for_is_malformed_in_a_form_too(broker: Broker, acc: str) -> None:
    assert broker.acl("bob", "devices/bob/up", acc, form=FORM) == MALFORMED


@pytest.mark.parametrize(
    ("topic", "acc"),
    [
        ("", PUBLISH),
        ("devices/bob/\0", PUBLISH),
        ("devices/bob/\ud800", PUBLISH),
        ("devices/bob/+", PUBLISH),
        ("devices/bob/#", DELIVER),
        ("devices/bob/#/x", SUBSCRIBE),
        ("devices/bob/x#", SUBSCRIBE),
        ("devices/bob/x+", SUBSCRIBE),
        ("devices/bob" + "/x" * 200, PUBLISH),
        ("devices/bob/" + "x" * 65_536, PUBLISH),
        ("$share/presses", SUBSCRIBE),
        ("$share//devices/bob/up", SUBSCRIBE),
        ("$share/+/devices/bob/up", SUBSCRIBE),
        ("$share/presses/", SUBSCRIBE),
    ],
)
def test_a_topic_that_no_client_could_name_is_malformed(broker: Broker, topic: str, acc: int) -> None:
    assert broker.acl("bob", topic, acc) == MALFORMED


def test_a_topic_as_long_as_mqtt_allows_is_answered(broker: Broker) -> None:
    topic = "devices/bob/" + "x" * (65_535 - len("devices/bob/"))
    assert broker.acl("bob", topic, PUBLISH) == YES


@pytest.mark.parametrize("missing", ["username", "topic", "acc"])
def test_a_question_without_a_field_is_malformed(broker: Broker, missing: str) -> None:
    fields: dict[str, Any] = {"username": "bob", "topic": "devices/bob/up", "acc": PUBLISH}
    del fields[missing]
    assert broker.ask("acl", **fields) == MALFORMED


@pytest.mark.parametrize("username", ["bob", "carol", "admin"])
@pytest.mark.parametrize("acc", [DELIVER, PUBLISH, SUBSCRIBE])
def test_a_certificate_that_was_never_issued_opens_nothing(broker: Broker, username: str, acc: int) -> None:
    answer = broker.acl(username, f"devices/{username}/up", acc, query="grant=certificate")
    assert answer == no("no-valid-certificate")


def test_an_answer_as_text_is_two_letters(broker: Broker) -> None:
    assert broker.acl("bob", "lines/1", PUBLISH, query="response=text").body == b"ok"
    assert broker.acl("bob", "lines/1", DELIVER, query="response=text").body == b"no-permission"


def test_a_changed_role_counts_for_whoever_has_it(broker: Broker, services: Services) -> None:
    assert broker.acl("bob", "lines/7", PUBLISH) == YES
    roles.change(OPERATOR, "line", roles.RoleChanges(permissions=(mqtt("read", "lines/+"),)))
    services.policy.catch_up()
    assert broker.acl("bob", "lines/7", PUBLISH) == NOTHING
    assert broker.acl("bob", "lines/7", DELIVER) == YES


def test_a_deny_rule_of_the_user_wins_over_an_allow_rule_of_the_role(broker: Broker, services: Services) -> None:
    _permit("bob", services, mqtt("write", "lines/7", "deny"))
    assert broker.acl("bob", "lines/7", PUBLISH) == FORBIDDEN
    assert broker.acl("bob", "lines/8", PUBLISH) == YES


def _permit(username: str, service: Services, *permissions: Any) -> None:
    users.change(OPERATOR, username, UserChanges(permissions=permissions), HASHER)
    service.policy.catch_up()
