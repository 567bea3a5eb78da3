"""Denials from the webhooks to the API: noted however they were answered, told with a remedy, and cured by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from authsvc.activity import denials
from tests.actors import BOBS_PASSWORD
from tests.http.broker import YES, Broker, no
from tests.http.callers import Caller, problem_of, refused_fields
from tests.service import permission

if TYPE_CHECKING:
    from authsvc.web.request_context import Services


@pytest.fixture(autouse=True)
def _written_down(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write down what was denied before it is asked for, as the thread beside the requests does."""
    of_user = denials.of_user

    def after_writing(username: str) -> list[denials.DenialRecord]:
        services.denials.store()
        return of_user(username)

    monkeypatch.setattr(denials, "of_user", after_writing)


def told(caller: Caller, username: str = "bob") -> list[dict[str, Any]]:
    answer = caller.get(f"/api/users/{username}/denials")
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.get_json()["items"]
    return items


def test_a_denied_publish_is_told_with_the_narrowest_rule_and_cured_by_it(broker: Broker, alice: Caller) -> None:
    assert broker.acl("bob", "machines/7/state", 2, client_id="press-7") == no("no-permission")
    (item,) = told(alice)
    assert item.pop("firstSeen") == item.pop("lastSeen")
    assert item == {
        "clientId": "press-7",
        "topic": "machines/7/state",
        "operation": "write",
        "reason": "no-permission",
        "count": 1,
        "suggestedPermission": permission("write machines/7/state"),
        "remedyNote": "this lets it publish to this one topic",
    }
    answer = alice.post("/api/users/bob/permissions", item["suggestedPermission"])
    assert answer.status_code == 200
    assert item["suggestedPermission"] in answer.get_json()["permissions"]
    assert broker.acl("bob", "machines/7/state", 2, client_id="press-7") == YES
    assert broker.acl("bob", "machines/7/state", 1, client_id="press-7") == no("no-permission")
    cured = next(item for item in told(alice) if item["operation"] == "write")
    assert (cured["suggestedPermission"], cured["remedyNote"]) == (None, "it is allowed now")


def test_an_answer_that_is_remembered_counts_like_any_other(broker: Broker, alice: Caller) -> None:
    for _ in range(5):
        assert broker.acl("bob", "elsewhere", 1) == no("no-permission")
    assert [(item["operation"], item["count"]) for item in told(alice)] == [("read", 5)]
    assert broker.acl("bob", "elsewhere", 1) == no("no-permission")
    assert [item["count"] for item in told(alice)] == [6]


@pytest.mark.parametrize(
    ("username", "password", "reason"),
    [
        ("bob", "wr0ng", "wrong-password"),
        ("dora", BOBS_PASSWORD, "user-disabled"),
        ("carol", BOBS_PASSWORD, "grant-type-missing"),
        ("tom", "eyJx.eyJy.z", "invalid-token"),
    ],
)
def test_a_denied_login_is_told_and_never_its_password(
    broker: Broker, alice: Caller, username: str, password: str, reason: str
) -> None:
    assert broker.logs_in(username, password, client_id="c7") == no(reason)
    (item,) = told(alice, username)
    assert (item["operation"], item["topic"], item["reason"]) == ("login", None, reason)
    assert (item["clientId"], item["suggestedPermission"]) == ("c7", None)
    assert item["remedyNote"]
    assert password not in str(item)


def test_each_wrong_password_counts(broker: Broker, alice: Caller) -> None:
    for password in ("wrong", "wrong", "worse"):
        broker.logs_in("bob", password)
    assert [item["count"] for item in told(alice)] == [3]


def test_a_denial_for_want_of_a_certificate_is_told(broker: Broker, alice: Caller) -> None:
    assert broker.acl("carol", "devices/carol/x", 2, query="grant=certificate") == no("no-valid-certificate")
    (item,) = told(alice, "carol")
    assert (item["topic"], item["reason"], item["suggestedPermission"]) == (
        "devices/carol/x",
        "no-valid-certificate",
        None,
    )


def test_a_deny_rule_in_the_way_is_named(broker: Broker, alice: Caller) -> None:
    assert broker.acl("bob", "sensors/secret/1", 1) == no("denied-by-permission")
    (item,) = told(alice)
    assert item["suggestedPermission"] is None
    assert "`deny readWrite sensors/secret/#` of the user's own" in item["remedyNote"]


def test_what_is_allowed_or_asked_by_nobody_we_know_is_noted_nowhere(
    broker: Broker, alice: Caller, services: Services
) -> None:
    assert broker.logs_in("bob", BOBS_PASSWORD) == YES
    assert broker.acl("bob", "devices/bob/up", 2) == YES
    assert broker.acl("nemo", "a", 2) == no("unknown-user")
    assert broker.logs_in("nemo", "whatever") == no("unknown-user")
    assert broker.ask("superuser", username="bob") == no("no-superusers")
    assert broker.acl("bob", "a/#/b", 4) == no("malformed", 400)
    alice.get("/api/users/bob/decision?topic=elsewhere&operation=read&clientId=c9")
    assert not services.denials._noted.tallies
    assert told(alice) == []


def test_topics_of_any_length_are_told_by_their_beginning(broker: Broker, alice: Caller) -> None:
    for _ in range(2):
        assert broker.acl("bob", "t" * 65_535, 2, client_id="c" * 65_535) == no("no-permission")
    (item,) = told(alice)
    assert (item["topic"], item["clientId"], item["count"]) == ("t" * 1000 + "…", "c" * 200, 2)
    assert item["suggestedPermission"] is None


def test_a_long_topic_does_not_stay_in_the_webhooks_memory(services: Services, broker: Broker) -> None:
    broker.acl("bob", "t" * 257, 2)
    assert not services.webhooks._cache
    broker.acl("bob", "t" * 256, 2)
    assert len(services.webhooks._cache) == 1


def test_a_client_that_is_only_asked_about_was_not_seen(alice: Caller, services: Services) -> None:
    answer = alice.get("/api/users/bob/decision?topic=devices/bob/up&operation=write&clientId=nowhere")
    assert answer.get_json()["allowed"]
    assert not services.client_ids._noted


@pytest.mark.parametrize("body", [{}, permission("write a/#/b"), permission("deny write a"), {"resource": "a"}])
def test_what_is_no_permission_to_add_is_refused(alice: Caller, body: dict[str, str]) -> None:
    assert refused_fields(alice.post("/api/users/bob/permissions", body))


def test_who_may_not_may_not(dot: Caller, charlie: Caller) -> None:
    problem_of(dot.get("/api/users/bob/denials"), 403, "forbidden")
    problem_of(dot.post("/api/users/bob/permissions", permission("write a")), 403, "forbidden")
    mighty = permission("http readWrite /#")
    problem_of(charlie.post("/api/users/bob/permissions", mighty), 403, "beyond-own-rights")
    problem_of(charlie.post("/api/users/alice/permissions", permission("write a")), 403, "beyond-own-rights")
    assert charlie.post("/api/users/bob/permissions", permission("write a")).status_code == 200


def test_of_nobody_nothing_is_told(alice: Caller) -> None:
    problem_of(alice.get("/api/users/nemo/denials"), 404, "user-not-found")
    problem_of(alice.post("/api/users/nemo/permissions", permission("write a")), 404, "user-not-found")
