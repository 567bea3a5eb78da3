"""Allowed client ids: a user cannot log in with the client id of another user's device."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

import pytest

from authsvc.accounts import api_tokens, roles, users
from authsvc.activity import denials
from authsvc.pki import csr
from authsvc.pki.authorities import SigningPolicy
from authsvc.policy import allowed_client_ids
from tests.actors import BOBS_PASSWORD, HASHER, OPERATOR, mqtt
from tests.http.broker import FORM, JSON, YES, Broker, no
from tests.http.callers import Caller, everything_stored, refused_fields
from tests.registry.signing import signing_request
from tests.service import permission

if TYPE_CHECKING:
    from flask.testing import FlaskClient

    from authsvc.accounts.users import UserChanges
    from authsvc.web.request_context import Services

NOT_ALLOWED = no("client-id-not-allowed")
OWN = ("%u", "%u-*")
INBOX = (mqtt("read", "inbox/%c/#"),)


@pytest.fixture
def change(services: Services) -> Any:
    """Change a user and refresh the policy."""

    def change(username: str, **fields: Any) -> None:
        users.change(OPERATOR, username, cast("UserChanges", fields), HASHER)
        services.policy.catch_up()

    return change


@pytest.mark.parametrize("form", [JSON, FORM])
def test_a_restricted_user_logs_in_with_its_own_client_ids_and_no_other(broker: Broker, change: Any, form: str) -> None:
    change("bob", client_ids=OWN)
    assert broker.logs_in("bob", BOBS_PASSWORD, "bob", form=form) == YES
    assert broker.logs_in("bob", BOBS_PASSWORD, "bob-phone", form=form) == YES
    for client_id in ("press-7", "bobby", "BOB", "", "%u", "bob\n", "*"):
        assert broker.logs_in("bob", BOBS_PASSWORD, client_id, form=form) == NOT_ALLOWED


def test_a_login_without_a_client_id_is_refused_for_a_restricted_user(broker: Broker, change: Any) -> None:
    assert broker.ask("user", username="bob", password=BOBS_PASSWORD) == YES
    change("bob", client_ids=OWN)
    assert broker.ask("user", username="bob", password=BOBS_PASSWORD) == NOT_ALLOWED


def test_an_unrestricted_user_logs_in_with_any_client_id(broker: Broker) -> None:
    for client_id in ("bob", "press-7", "", "x" * 65_535):
        assert broker.logs_in("bob", BOBS_PASSWORD, client_id) == YES


@pytest.mark.parametrize("client_id", ["bob", "press-7"])
def test_wrong_password_is_reported_before_a_wrong_client_id(broker: Broker, change: Any, client_id: str) -> None:
    change("bob", client_ids=OWN)
    assert broker.logs_in("bob", "wrong", client_id) == no("wrong-password")


def test_a_wrong_password_costs_the_same_hash_whatever_the_client_id(
    broker: Broker, services: Services, change: Any
) -> None:
    change("bob", client_ids=OWN)
    before = services.verifier.counters.misses
    broker.logs_in("bob", "wrong with the right client id", "bob")
    in_between = services.verifier.counters.misses
    broker.logs_in("bob", "wrong with another client id", "press-7")
    assert services.verifier.counters.misses - in_between == in_between - before > 0


def test_disabled_user_is_reported_before_a_wrong_client_id(broker: Broker, change: Any) -> None:
    change("bob", client_ids=OWN, enabled=False)
    assert broker.logs_in("bob", BOBS_PASSWORD, "press-7") == no("user-disabled")


def test_allowed_client_ids_apply_to_tokens_too(broker: Broker, services: Services, change: Any) -> None:
    token = api_tokens.issue_token(OPERATOR, "tom", "", 1).token
    change("tom", client_ids=OWN)
    assert broker.logs_in("tom", token, "tom") == YES
    assert broker.logs_in("tom", token, "press-7") == NOT_ALLOWED
    assert broker.logs_in("tom", token[:-1], "press-7") == no("invalid-token")


def test_restriction_takes_effect_at_once_despite_a_cached_login(broker: Broker, change: Any) -> None:
    assert [broker.logs_in("bob", BOBS_PASSWORD, "press-7") for _ in range(3)] == [YES] * 3
    change("bob", client_ids=OWN)
    assert [broker.logs_in("bob", BOBS_PASSWORD, "press-7") for _ in range(3)] == [NOT_ALLOWED] * 3
    change("bob", client_ids=())
    assert [broker.logs_in("bob", BOBS_PASSWORD, "press-7") for _ in range(3)] == [YES] * 3


def test_cached_login_with_one_client_id_allows_no_other(broker: Broker, change: Any) -> None:
    change("bob", client_ids=OWN)
    for _ in range(2):
        assert broker.logs_in("bob", BOBS_PASSWORD, "bob") == YES
        assert broker.logs_in("bob", BOBS_PASSWORD, "press-7") == NOT_ALLOWED


def test_the_client_ids_of_a_role_restrict_each_of_its_users(broker: Broker, services: Services, change: Any) -> None:
    roles.change(OPERATOR, "line", {"client_ids": ("%u",)})
    services.policy.catch_up()
    assert broker.logs_in("bob", BOBS_PASSWORD, "bob") == YES
    assert broker.logs_in("bob", BOBS_PASSWORD, "press-7") == NOT_ALLOWED
    change("bob", client_ids=("press-7",))
    assert broker.logs_in("bob", BOBS_PASSWORD, "press-7") == YES
    assert broker.logs_in("bob", BOBS_PASSWORD, "bob") == YES
    change("bob", roles=())
    assert broker.logs_in("bob", BOBS_PASSWORD, "bob") == NOT_ALLOWED


# Topics: an MQTT session that is older than the restriction, and one that began with a certificate.


@pytest.mark.parametrize("acc", [1, 2, 4])
def test_user_with_the_client_id_of_another_can_use_none_of_its_topics(broker: Broker, change: Any, acc: int) -> None:
    change("bob", permissions=(mqtt("readWrite", "inbox/%c/#"),))
    assert broker.acl("bob", "inbox/press-7/orders", acc, "press-7") == YES
    change("bob", client_ids=OWN)
    assert [broker.acl("bob", "inbox/press-7/orders", acc, "press-7") for _ in range(2)] == [NOT_ALLOWED] * 2
    assert broker.acl("bob", "inbox/press-7/orders", acc, "bob") == no("no-permission")
    assert broker.acl("bob", "inbox/bob/orders", acc, "bob") == YES


def test_acl_request_without_a_client_id_is_denied_for_a_restricted_user(broker: Broker, change: Any) -> None:
    asked: dict[str, Any] = {"username": "bob", "topic": "lines/7", "acc": 2}
    assert broker.ask("acl", **asked) == YES
    change("bob", client_ids=OWN)
    assert broker.ask("acl", **asked) == NOT_ALLOWED


def test_certificate_allows_nothing_with_a_client_id_that_is_not_allowed(
    broker: Broker, services: Services, change: Any
) -> None:
    key = csr.read(signing_request("carol"), "carol").public_key
    users.issue_certificate(OPERATOR, "carol", key, SigningPolicy())
    change("carol", client_ids=OWN, permissions=INBOX)
    assert broker.acl("carol", "inbox/carol-1/x", 1, "carol-1", query="grant=certificate") == YES
    assert broker.acl("carol", "inbox/press-7/x", 1, "press-7", query="grant=certificate") == NOT_ALLOWED


# Denials, metrics and decisions.


def test_refused_client_id_is_listed_among_the_denials_with_advice(
    broker: Broker, services: Services, change: Any
) -> None:
    change("bob", client_ids=OWN)
    broker.logs_in("bob", BOBS_PASSWORD, "press-7")
    services.denials.store()
    (login,) = denials.of_user("bob")
    assert (login.denial.client_id, login.denial.topic, login.denial.reason) == ("press-7", "", "client-id-not-allowed")
    assert "allowed client ids" in login.advice.note
    change("bob", client_ids=("press-7",))
    (login,) = denials.of_user("bob")
    assert login.advice.note == "the user may use this client id now"


def test_denial_of_a_client_id_names_it_and_suggests_no_permission(
    broker: Broker, services: Services, change: Any
) -> None:
    change("bob", client_ids=OWN)
    broker.acl("bob", "elsewhere", 2, "press-7")
    services.denials.store()
    (access,) = denials.of_user("bob")
    assert (access.denial.reason, access.advice.permission) == ("client-id-not-allowed", None)
    assert "allowed client ids" in access.advice.note


def test_refused_client_ids_are_counted_by_reason(broker: Broker, client: FlaskClient, change: Any) -> None:
    change("bob", client_ids=OWN)
    broker.logs_in("bob", BOBS_PASSWORD, "press-7")
    assert 'decision="denied",reason="client-id-not-allowed"' in client.get("/metrics").text


def test_a_refused_client_id_is_not_listed_as_seen(broker: Broker, services: Services, change: Any) -> None:
    change("bob", client_ids=OWN)
    broker.logs_in("bob", BOBS_PASSWORD, "press-7")
    broker.logs_in("bob", BOBS_PASSWORD, "bob-1")
    services.client_ids.store()
    assert "press-7" not in {row[1] for row in everything_stored()["sightings"]}


@pytest.mark.parametrize(
    ("client_id", "allowed", "reason"),
    [("", True, "permission"), ("bob", True, "permission"), ("press-7", False, "client-id-not-allowed")],
)
def test_a_decision_checks_the_client_id_if_one_is_named(
    alice: Caller, client_id: str, allowed: bool, reason: str
) -> None:
    assert alice.patch("/api/users/bob", {"clientIds": list(OWN)}).status_code == 200
    query = {"topic": "lines/7", "operation": "write", "clientId": client_id}
    body = alice.get("/api/users/bob/decision", query_string=query).get_json()
    assert (body["allowed"], body["reason"]) == (allowed, reason)


# REST: users and roles.


@pytest.mark.parametrize(
    ("path", "body"), [("/api/users", {"username": "press-7"}), ("/api/roles", {"name": "press-7"})]
)
def test_allowed_client_ids_are_created_shown_changed_and_removed(
    alice: Caller, path: str, body: dict[str, Any]
) -> None:
    one = f"{path}/press-7"
    assert alice.post(path, {**body, "clientIds": ["%u", "%u-*", "%u"]}).get_json()["clientIds"] == ["%u", "%u-*"]
    assert alice.get(one).get_json()["clientIds"] == ["%u", "%u-*"]
    listed = alice.get(path, query_string={"search": "press-7"}).get_json()["items"]
    assert [item["clientIds"] for item in listed] == [["%u", "%u-*"]]
    assert alice.patch(one, {}).get_json()["clientIds"] == ["%u", "%u-*"]
    assert alice.patch(one, {"permissions": []}).get_json()["clientIds"] == ["%u", "%u-*"]
    assert alice.patch(one, {"clientIds": ["gateway"]}).get_json()["clientIds"] == ["gateway"]
    assert alice.patch(one, {"clientIds": []}).get_json()["clientIds"] == []
    changes = alice.get("/api/audit", query_string={"target": f"{path[5:-1]}:press-7"}).get_json()["items"]
    assert [(each["before"], each["after"]) for each in changes[:2]] == [
        ({"clientIds": ["gateway"]}, {"clientIds": []}),
        ({"clientIds": ["%u", "%u-*"]}, {"clientIds": ["gateway"]}),
    ]


@pytest.mark.parametrize("path", ["/api/users/bob", "/api/roles/line"])
@pytest.mark.parametrize(
    ("client_ids", "field"),
    [
        ([""], "clientIds[0]"),
        (["%u", "x" * 201], "clientIds[1]"),
        (["a\tb"], "clientIds[0]"),
        (["%c"], "clientIds[0]"),
        ([7], "clientIds[0]"),
        ([None], "clientIds[0]"),
        ("%u", "clientIds"),
        (None, "clientIds"),
        ([f"press-{number}" for number in range(101)], "clientIds"),
    ],
)
def test_wrong_client_ids_are_refused_by_position_and_change_nothing(
    alice: Caller, path: str, client_ids: Any, field: str
) -> None:
    before = everything_stored()
    assert refused_fields(alice.patch(path, {"clientIds": client_ids})) == [field]
    assert everything_stored() == before


def test_users_without_restriction_may_use_any_client_id(alice: Caller) -> None:
    assert alice.get("/api/users/bob").get_json()["clientIds"] == []
    assert alice.post("/api/users", {"username": "press-7"}).get_json()["clientIds"] == []


# Rules with %c without a restriction.


def test_a_user_whose_rules_depend_on_any_client_id_has_a_warning(alice: Caller) -> None:
    (warning,) = alice.get("/api/users/bob").get_json()["warnings"]
    assert warning["code"] == "any-client-id"
    assert warning["message"].startswith("a rule of its own uses %c and any client id is allowed")
    listed = {user["username"]: user["warnings"] for user in alice.get("/api/users").get_json()["items"]}
    assert listed["bob"] == [warning]
    assert listed["alice"] == []
    assert alice.patch("/api/users/bob", {"clientIds": ["%u"]}).get_json()["warnings"] == []
    assert alice.patch("/api/users/bob", {"clientIds": ["%u", "*"]}).get_json()["warnings"] == [warning]


def test_a_warning_about_a_rule_of_a_role_names_the_role_and_not_the_rule(alice: Caller) -> None:
    rule = permission("read inbox/%c/#")
    role = alice.post("/api/roles", {"name": "inboxes", "permissions": [rule]}).get_json()
    (of_role,) = role["warnings"]
    assert (of_role["code"], "the role allows any client id" in of_role["message"]) == ("any-client-id", True)
    alice.creates_user("press-7", roles=["inboxes"])
    (warning,) = alice.get("/api/users/press-7").get_json()["warnings"]
    assert "role inboxes" in warning["message"]
    assert "inbox/" not in warning["message"]
    assert alice.patch("/api/roles/inboxes", {"clientIds": ["%u"]}).get_json()["warnings"] == []
    assert alice.get("/api/users/press-7").get_json()["warnings"] == []


# Patterns that match the names of other users.


@pytest.mark.parametrize(("pattern", "taken"), [("%u-*", True), ("%u*", True), ("%u:*", False), ("%u", False)])
def test_pattern_that_matches_the_client_id_of_a_longer_username_carries_a_warning(
    alice: Caller, broker: Broker, pattern: str, taken: bool
) -> None:
    for username in ("press", "press-7"):
        alice.creates_user(username, BOBS_PASSWORD)
    shown = alice.patch("/api/users/press", {"clientIds": [pattern]}).get_json()
    assert (broker.logs_in("press", BOBS_PASSWORD, "press-7") == YES) is taken
    assert [warning["code"] for warning in shown["warnings"]] == ["prefix-client-id"] * taken
    role = alice.post("/api/roles", {"name": "presses", "clientIds": [pattern]}).get_json()
    assert [warning["code"] for warning in role["warnings"]] == ["prefix-client-id"] * taken
    through_the_role = alice.patch("/api/users/press", {"clientIds": [], "roles": ["presses"]}).get_json()["warnings"]
    assert ["the role presses" in warning["message"] for warning in through_the_role] == [True] * taken


def test_advice_to_restrict_client_ids_separates_users_with_similar_names(alice: Caller) -> None:
    (warning,) = alice.get("/api/users/bob").get_json()["warnings"]
    advised = re.findall(r"%u\S*", warning["message"])
    assert advised == ["%u", "%u:*"]
    assert not allowed_client_ids.match_longer_usernames(advised)
