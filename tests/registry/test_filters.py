"""Denying and deleting registrations by filter."""

from __future__ import annotations

from datetime import timedelta
from time import perf_counter
from typing import TYPE_CHECKING, Any

import pytest

from authsvc.storage.database import transaction
from registry.models import Registration
from tests.http.callers import problem_of, refused_fields
from tests.registry.environment import (
    BOBS_PASSWORD,
    ON_BOTH_DATABASES,
    REGISTRATIONS,
    all_rows,
    csrf_token,
    events,
    expect_success,
    shift_time,
    stored_registration,
    with_settings,
)

if TYPE_CHECKING:
    from flask.testing import FlaskClient

    from tests.registry.environment import Environment

SECONDS = 2.0


def flood(env: Environment, number: int) -> None:
    """Create pending registrations without hashing passwords."""
    env.unlock()
    env.connect("flood-0", "a flood's secret")
    template = stored_registration("flood-0")
    assert template
    fields = template.__data__
    rows = [{**fields, "id": f"{count:032x}", "username": f"flood-{count}"} for count in range(1, number)]
    with transaction():
        for start in range(0, len(rows), 100):
            Registration.insert_many(rows[start : start + 100]).execute()


def by_status(env: Environment) -> dict[str, str]:
    return {one["username"]: one["status"] for one in env.registrations(perPage=1000)}


@with_settings(registry_max_pending=5000)
@ON_BOTH_DATABASES
@pytest.mark.parametrize("decision", ["deny", "delete"])
def test_1000_registrations_are_decided_within_2_seconds_with_one_audit_event(env: Environment, decision: str) -> None:
    flood(env, 1000)
    env.register_pending("bob")
    before = len(events())
    started = perf_counter()
    answer = expect_success(env.alice.post(f"{REGISTRATIONS}/{decision}", {"filter": {"usernamePattern": "flood-*"}}))
    assert perf_counter() - started < SECONDS
    assert answer["count"] == 1000
    (event,) = events()[before:]
    facts = event.after or event.before
    assert facts
    assert (event.actor, event.action, event.target) == ("alice", f"registration.{decision}", "registrations")
    assert (facts["filter"], facts["count"]) == ({"usernamePattern": "flood-*"}, 1000)
    assert env.registration("bob")["status"] == "pending"
    row = stored_registration("flood-999")
    assert (row is None) if decision == "delete" else row and (row.status, row.password_hash) == ("denied", None)


@ON_BOTH_DATABASES
def test_registration_must_match_every_field_of_a_filter(env: Environment) -> None:
    env.unlock()
    for name, address in (("press-1", "203.0.113.5"), ("press-2", "198.51.100.7"), ("lamp-1", "203.0.113.9")):
        env.register(name, address=address)
    env.register("press-1", address="203.0.113.5")

    def denied(**wanted: Any) -> int:
        count: int = expect_success(env.alice.post(f"{REGISTRATIONS}/deny", {"filter": wanted}))["count"]
        return count

    assert denied(usernamePattern="press-*", address="203.0.113.0/24", maxAttempts=1) == 0
    assert denied(clientIdPattern="*") == 0
    assert denied(address="203.0.113.9") == 1
    assert by_status(env) == {"press-1": "pending", "press-2": "pending", "lamp-1": "denied"}
    assert denied(usernamePattern="press-?", maxAttempts=1) == 1
    assert by_status(env) == {"press-1": "pending", "press-2": "denied", "lamp-1": "denied"}


@ON_BOTH_DATABASES
def test_filter_matches_times_and_client_ids(env: Environment) -> None:
    env.connect("press-1", BOBS_PASSWORD, "bot_1")
    shift_time(timedelta(hours=2))
    env.connect("press-2", BOBS_PASSWORD, "bot_2")
    env.connect("press-3", BOBS_PASSWORD, "plc")
    moment = env.registration("press-2")["firstSeen"]

    def deleted(**wanted: Any) -> int:
        count: int = expect_success(env.alice.post(f"{REGISTRATIONS}/delete", {"filter": wanted}))["count"]
        return count

    assert deleted(after=moment, clientIdPattern="bot_*") == 1
    assert deleted(before=moment) == 1
    assert by_status(env) == {"press-3": "pending"}


def test_granted_registrations_cannot_be_deleted_by_filter(env: Environment) -> None:
    env.create_in_status("denied", "press-1")
    env.create_in_status("granted", "press-2")
    env.register_pending("press-3")
    everyone = {"filter": {"usernamePattern": "*"}}
    assert expect_success(env.alice.post(f"{REGISTRATIONS}/delete", {**everyone, "status": "denied"})) == {"count": 1}
    assert refused_fields(env.alice.post(f"{REGISTRATIONS}/delete", {**everyone, "status": "granted"})) == ["status"]
    assert by_status(env) == {"press-2": "granted", "press-3": "pending"}
    assert expect_success(env.alice.post(f"{REGISTRATIONS}/deny", {**everyone, "reason": "not ours"}))["count"] == 1
    assert env.registration("press-3")["reason"] == "not ours"


@pytest.mark.parametrize(
    ("filter_", "field"),
    [
        ({}, "filter"),
        ({"usernamePattern": None}, "filter"),
        ({"usernamePattern": ""}, "filter.usernamePattern"),
        ({"address": "nonsense"}, "filter.address"),
        ({"before": "yesterday"}, "filter.before"),
        ({"before": "2026-11-20T08:00:00"}, "filter.before"),
        ({"maxAttempts": 0}, "filter.maxAttempts"),
        ({"status": "pending"}, "filter.status"),
        (None, None),
    ],
)
@pytest.mark.parametrize("decision", ["deny", "delete"])
def test_empty_or_invalid_filter_is_refused(env: Environment, decision: str, filter_: Any, field: str | None) -> None:
    env.unlock()
    env.register_pending()
    before = all_rows()
    answer = env.alice.post(f"{REGISTRATIONS}/{decision}", {"filter": filter_})
    expected = field or ("body" if decision == "deny" else "filter")
    assert refused_fields(answer) == [expected]
    assert all_rows() == before


def test_ids_and_filter_cannot_be_combined(env: Environment) -> None:
    env.unlock()
    body = {"ids": [env.register_pending()], "filter": {"usernamePattern": "*"}}
    assert refused_fields(env.alice.post(f"{REGISTRATIONS}/deny", body)) == ["body"]


def test_ids_are_denied_one_by_one(env: Environment) -> None:
    env.unlock()
    answer = expect_success(env.alice.post(f"{REGISTRATIONS}/deny", {"ids": [env.register_pending(), "x"]}))
    assert (answer["count"], len(answer["items"]), len(answer["failed"])) == (1, 1, 1)


@pytest.mark.parametrize("decision", ["deny", "delete"])
def test_filter_decisions_need_permission(env: Environment, decision: str) -> None:
    problem_of(env.anonymous.post(f"{REGISTRATIONS}/{decision}", {}), 401, "unauthenticated")
    assert env.charlie.post(f"{REGISTRATIONS}/{decision}", {"filter": {"maxAttempts": 1}}).status_code == 200


def test_page_and_api_refuse_the_same_reasons(env: Environment, browser: FlaskClient) -> None:
    env.unlock()
    env.register_pending()
    token = csrf_token(browser, "/admin/registry/matching?filter.usernamePattern=bob")
    fields = {"filter.usernamePattern": "bob", "reason": "x" * 1001, "csrf_token": token}
    answer = browser.post("/admin/registry/matching/deny", data=fields)
    assert answer.status_code == 400
    assert 'id="reason-wrong"' in answer.text
    assert env.registration()["status"] == "pending"
    assert browser.post("/admin/registry/matching/deny", data={**fields, "reason": "no"}).status_code == 303
    assert env.registration()["reason"] == "no"
