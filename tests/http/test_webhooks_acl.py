"""ACL requests at `/auth/acl`: a table of cases, then special cases."""

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
NO_PERMISSION = no("no-permission")
DENIED = no("denied-by-permission")

# The permissions of Bob are in `seed_data.py`; the role `line` adds `write lines/+`.
ANSWERS = [
    ("devices/bob/up", DELIVER, YES),
    ("devices/bob/up", PUBLISH, YES),
    ("devices/bob/up", BOTH, YES),
    ("devices/bob/up", SUBSCRIBE, YES),
    ("devices/bob/#", SUBSCRIBE, YES),
    ("devices/bob", PUBLISH, YES),
    ("devices/tom/up", PUBLISH, NO_PERMISSION),
    ("devices/+/up", SUBSCRIBE, NO_PERMISSION),
    ("devices/#", SUBSCRIBE, NO_PERMISSION),
    ("devices/%u/up", PUBLISH, NO_PERMISSION),
    ("sensors/1", DELIVER, YES),
    ("sensors/1", PUBLISH, NO_PERMISSION),
    ("sensors/1", BOTH, NO_PERMISSION),
    ("sensors/#", SUBSCRIBE, YES),
    ("sensors/secret/1", DELIVER, DENIED),
    ("sensors/secret/1", SUBSCRIBE, DENIED),
    ("sensors/secret/#", SUBSCRIBE, DENIED),
    ("clients/c1/up", PUBLISH, YES),
    ("clients/c1/up", BOTH, NO_PERMISSION),
    ("clients/c2/up", PUBLISH, NO_PERMISSION),
    ("clients/%c/up", PUBLISH, NO_PERMISSION),
    ("lines/7", PUBLISH, YES),
    ("lines/7", DELIVER, NO_PERMISSION),
    ("lines/7/8", PUBLISH, NO_PERMISSION),
    ("$SYS/broker/uptime", DELIVER, NO_PERMISSION),
    ("#", SUBSCRIBE, NO_PERMISSION),
    ("$share/presses/devices/bob/#", SUBSCRIBE, YES),
    ("$share/presses/devices/tom/#", SUBSCRIBE, NO_PERMISSION),
    ("$share/presses/sensors/1", SUBSCRIBE, YES),
    # A message that a member may not read would be lost for the whole group.
    ("$share/presses/sensors/#", SUBSCRIBE, no("share-reaches-denied-topics")),
    ("$share/presses/sensors/secret/1", SUBSCRIBE, DENIED),
    ("$share/presses/lines/7", SUBSCRIBE, NO_PERMISSION),
]


@pytest.mark.parametrize(("topic", "acc", "answer"), ANSWERS)
@pytest.mark.parametrize("form", [JSON, FORM])
def test_acl_request_is_answered_by_the_permissions(
    broker: Broker, form: str, topic: str, acc: int, answer: object
) -> None:
    assert broker.acl("bob", topic, acc, form=form) == answer


@pytest.mark.parametrize(
    ("username", "answer"),
    [("nemo", no("unknown-user")), ("dora", no("user-disabled")), ("tom", NO_PERMISSION), ("carol", YES)],
)
def test_acl_request_of_other_users(broker: Broker, username: str, answer: object) -> None:
    assert broker.acl(username, f"devices/{username}/up", PUBLISH) == answer


def test_first_administrator_may_use_every_topic_that_does_not_begin_with_a_dollar(broker: Broker) -> None:
    assert broker.acl("admin", "any/thing", BOTH) == YES
    assert broker.acl("admin", "#", SUBSCRIBE) == YES
    assert broker.acl("admin", "$SYS/broker/uptime", DELIVER) == NO_PERMISSION
    assert broker.acl("admin", "$CONTROL/dynamic-security/v1", PUBLISH) == NO_PERMISSION


def test_permission_for_dollar_control_allows_it(broker: Broker, services: Services) -> None:
    _permit("tom", services, mqtt("write", "$CONTROL/#"))
    assert broker.acl("tom", "$CONTROL/dynamic-security/v1", PUBLISH) == YES
    assert broker.acl("tom", "$SYS/broker/uptime", PUBLISH) == NO_PERMISSION


@pytest.mark.parametrize("name", ["clientid", "client_id"])
@pytest.mark.parametrize("form", [JSON, FORM])
def test_client_id_field_has_two_names(broker: Broker, form: str, name: str) -> None:
    fields: dict[str, Any] = {"username": "bob", "topic": "clients/c7/up", "acc": PUBLISH}
    assert broker.ask("acl", form, **fields, **{name: "c7"}) == YES
    assert broker.ask("acl", form, **fields, **{name: "c8"}) == NO_PERMISSION


@pytest.mark.parametrize("client_id", ["", "+", "#", "c1/up", "c1/up/x"])
def test_client_id_with_wildcards_or_separators_widens_no_permission(broker: Broker, client_id: str) -> None:
    topic = f"clients/{client_id}/up"
    assert broker.acl("bob", topic, SUBSCRIBE, client_id=client_id) in (NO_PERMISSION, MALFORMED)
    assert broker.acl("bob", topic, PUBLISH, client_id=client_id) in (NO_PERMISSION, MALFORMED)


def test_permission_with_percent_c_needs_a_client_id(broker: Broker) -> None:
    assert broker.ask("acl", username="bob", topic="clients//up", acc=PUBLISH) == NO_PERMISSION
    assert broker.ask("acl", username="bob", topic="devices/bob/up", acc=PUBLISH) == YES


@pytest.mark.parametrize("acc", [0, 5, 6, 7, 8, -1, 255, 10**30, True, False, "4", "", "x", 4.0, None, [4], {"acc": 4}])
def test_unknown_acc_is_malformed(broker: Broker, acc: Any) -> None:
    assert broker.acl("bob", "devices/bob/up", acc) == MALFORMED


@pytest.mark.parametrize("acc", ["0", "5", "8", "-1", "", "x", "4.0", "04", " 4", "true", "٤"])
def test_unknown_acc_in_a_form_is_malformed(broker: Broker, acc: str) -> None:
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
def test_invalid_topic_is_malformed(broker: Broker, topic: str, acc: int) -> None:
    assert broker.acl("bob", topic, acc) == MALFORMED


def test_topic_of_the_maximum_length_is_allowed(broker: Broker) -> None:
    topic = "devices/bob/" + "x" * (65_535 - len("devices/bob/"))
    assert broker.acl("bob", topic, PUBLISH) == YES


@pytest.mark.parametrize("missing", ["username", "topic", "acc"])
def test_missing_field_is_malformed(broker: Broker, missing: str) -> None:
    fields: dict[str, Any] = {"username": "bob", "topic": "devices/bob/up", "acc": PUBLISH}
    del fields[missing]
    assert broker.ask("acl", **fields) == MALFORMED


@pytest.mark.parametrize("username", ["bob", "carol", "admin"])
@pytest.mark.parametrize("acc", [DELIVER, PUBLISH, SUBSCRIBE])
def test_user_without_a_certificate_is_denied_with_grant_certificate(broker: Broker, username: str, acc: int) -> None:
    answer = broker.acl(username, f"devices/{username}/up", acc, query="grant=certificate")
    assert answer == no("no-valid-certificate")


def test_text_answers(broker: Broker) -> None:
    assert broker.acl("bob", "lines/1", PUBLISH, query="response=text").body == b"ok"
    assert broker.acl("bob", "lines/1", DELIVER, query="response=text").body == b"no-permission"


def test_changed_role_applies_to_its_users(broker: Broker, services: Services) -> None:
    assert broker.acl("bob", "lines/7", PUBLISH) == YES
    roles.change(OPERATOR, "line", roles.RoleChanges(permissions=(mqtt("read", "lines/+"),)))
    services.policy.catch_up()
    assert broker.acl("bob", "lines/7", PUBLISH) == NO_PERMISSION
    assert broker.acl("bob", "lines/7", DELIVER) == YES


def test_deny_rule_of_the_user_wins_over_an_allow_rule_of_the_role(broker: Broker, services: Services) -> None:
    _permit("bob", services, mqtt("write", "lines/7", "deny"))
    assert broker.acl("bob", "lines/7", PUBLISH) == DENIED
    assert broker.acl("bob", "lines/8", PUBLISH) == YES


def _permit(username: str, service: Services, *permissions: Any) -> None:
    users.change(OPERATOR, username, UserChanges(permissions=permissions), HASHER)
    service.policy.catch_up()
