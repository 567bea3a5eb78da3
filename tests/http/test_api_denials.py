"""`/api/users/{username}/denials`: recorded denials with advice, and the permission that allows the access."""

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
def _stored_before_reading(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """Store recorded denials before each read, as the background thread does."""
    of_user = denials.of_user

    def stored(username: str) -> list[denials.DenialRecord]:
        services.denials.store()
        return of_user(username)

    monkeypatch.setattr(denials, "of_user", stored)


def denials_of(caller: Caller, username: str = "bob") -> list[dict[str, Any]]:
    answer = caller.get(f"/api/users/{username}/denials")
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.get_json()["items"]
    return items


def test_denied_publish_is_listed_with_the_narrowest_permission_that_allows_it(broker: Broker, alice: Caller) -> None:
    assert broker.acl("bob", "machines/7/state", 2, client_id="press-7") == no("no-permission")
    (item,) = denials_of(alice)
    assert item.pop("firstSeen") == item.pop("lastSeen")
    assert item == {
        "clientId": "press-7",
        "topic": "machines/7/state",
        "operation": "write",
        "reason": "no-permission",
        "count": 1,
        "suggestedPermission": permission("write machines/7/state"),
        "advice": "this lets it publish to this one topic",
    }
    answer = alice.post("/api/users/bob/permissions", item["suggestedPermission"])
    assert answer.status_code == 200
    assert item["suggestedPermission"] in answer.get_json()["permissions"]
    assert broker.acl("bob", "machines/7/state", 2, client_id="press-7") == YES
    assert broker.acl("bob", "machines/7/state", 1, client_id="press-7") == no("no-permission")
    allowed = next(item for item in denials_of(alice) if item["operation"] == "write")
    assert (allowed["suggestedPermission"], allowed["advice"]) == (None, "it is allowed now")


def test_cached_denials_are_counted(broker: Broker, alice: Caller) -> None:
    for _ in range(5):
        assert broker.acl("bob", "elsewhere", 1) == no("no-permission")
    assert [(item["operation"], item["count"]) for item in denials_of(alice)] == [("read", 5)]
    assert broker.acl("bob", "elsewhere", 1) == no("no-permission")
    assert [item["count"] for item in denials_of(alice)] == [6]


@pytest.mark.parametrize(
    ("username", "password", "reason"),
    [
        ("bob", "wr0ng", "wrong-password"),
        ("dora", BOBS_PASSWORD, "user-disabled"),
        ("carol", BOBS_PASSWORD, "grant-type-missing"),
        ("tom", "eyJx.eyJy.z", "invalid-token"),
    ],
)
def test_denied_login_is_listed_without_its_password(
    broker: Broker, alice: Caller, username: str, password: str, reason: str
) -> None:
    assert broker.logs_in(username, password, client_id="c7") == no(reason)
    (item,) = denials_of(alice, username)
    assert (item["operation"], item["topic"], item["reason"]) == ("login", None, reason)
    assert (item["clientId"], item["suggestedPermission"]) == ("c7", None)
    assert item["advice"]
    assert password not in str(item)


def test_each_wrong_password_counts(broker: Broker, alice: Caller) -> None:
    for password in ("wrong", "wrong", "worse"):
        broker.logs_in("bob", password)
    assert [item["count"] for item in denials_of(alice)] == [3]


def test_denial_without_a_valid_certificate_is_listed(broker: Broker, alice: Caller) -> None:
    assert broker.acl("carol", "devices/carol/x", 2, query="grant=certificate") == no("no-valid-certificate")
    (item,) = denials_of(alice, "carol")
    assert (item["topic"], item["reason"], item["suggestedPermission"]) == (
        "devices/carol/x",
        "no-valid-certificate",
        None,
    )


def test_advice_names_the_denying_permission(broker: Broker, alice: Caller) -> None:
    assert broker.acl("bob", "sensors/secret/1", 1) == no("denied-by-permission")
    (item,) = denials_of(alice)
    assert item["suggestedPermission"] is None
    assert "`deny readWrite sensors/secret/#` of the user's own" in item["advice"]


def test_allowed_access_and_unknown_users_are_not_recorded_as_denials(
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
    assert denials_of(alice) == []


def test_long_topics_are_listed_truncated(broker: Broker, alice: Caller) -> None:
    for _ in range(2):
        assert broker.acl("bob", "t" * 65_535, 2, client_id="c" * 65_535) == no("no-permission")
    (item,) = denials_of(alice)
    assert (item["topic"], item["clientId"], item["count"]) == ("t" * 1000 + "…", "c" * 200, 2)
    assert item["suggestedPermission"] is None


def test_answers_for_long_topics_are_not_cached(services: Services, broker: Broker) -> None:
    broker.acl("bob", "t" * 257, 2)
    assert not services.webhooks._cache
    broker.acl("bob", "t" * 256, 2)
    assert len(services.webhooks._cache) == 1


def test_dry_run_records_no_client_id(alice: Caller, services: Services) -> None:
    answer = alice.get("/api/users/bob/decision?topic=devices/bob/up&operation=write&clientId=nowhere")
    assert answer.get_json()["allowed"]
    assert not services.client_ids._noted


@pytest.mark.parametrize("body", [{}, permission("write a/#/b"), permission("deny write a"), {"resource": "a"}])
def test_invalid_permission_is_refused(alice: Caller, body: dict[str, str]) -> None:
    assert refused_fields(alice.post("/api/users/bob/permissions", body))


def test_callers_without_permission_are_refused(dot: Caller, charlie: Caller) -> None:
    problem_of(dot.get("/api/users/bob/denials"), 403, "forbidden")
    problem_of(dot.post("/api/users/bob/permissions", permission("write a")), 403, "forbidden")
    mighty = permission("http readWrite /#")
    problem_of(charlie.post("/api/users/bob/permissions", mighty), 403, "beyond-own-rights")
    problem_of(charlie.post("/api/users/alice/permissions", permission("write a")), 403, "beyond-own-rights")
    assert charlie.post("/api/users/bob/permissions", permission("write a")).status_code == 200


def test_unknown_user_has_no_denials(alice: Caller) -> None:
    problem_of(alice.get("/api/users/nemo/denials"), 404, "user-not-found")
    problem_of(alice.post("/api/users/nemo/permissions", permission("write a")), 404, "user-not-found")
