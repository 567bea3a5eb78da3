"""All registrations that match a filter are denied or deleted at once."""

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
    csrf_token,
    done,
    events,
    everything,
    stored,
    time_passes,
    with_settings,
)

if TYPE_CHECKING:
    from flask.testing import FlaskClient

    from tests.registry.environment import Place

SECONDS = 2.0


def flood(place: Place, number: int) -> None:
    """Have so many registrations pending, without the time that it takes to hash so many passwords."""
    place.unlock()
    place.connects("flood-0", "a flood's secret")
    template = stored("flood-0")
    assert template
    fields = template.__data__
    rows = [{**fields, "id": f"{count:032x}", "username": f"flood-{count}"} for count in range(1, number)]
    with transaction():
        for start in range(0, len(rows), 100):
            Registration.insert_many(rows[start : start + 100]).execute()


def by_status(place: Place) -> dict[str, str]:
    return {one["username"]: one["status"] for one in place.registrations(perPage=1000)}


@with_settings(registry_max_pending=5000)
@ON_BOTH_DATABASES
@pytest.mark.parametrize("decision", ["deny", "delete"])
def test_1000_are_decided_within_2_seconds_and_with_one_audit_event(place: Place, decision: str) -> None:
    flood(place, 1000)
    place.asks("bob")
    before = len(events())
    started = perf_counter()
    answer = done(place.alice.post(f"{REGISTRATIONS}/{decision}", {"filter": {"usernamePattern": "flood-*"}}))
    assert perf_counter() - started < SECONDS
    assert answer["count"] == 1000
    (event,) = events()[before:]
    facts = event.after or event.before
    assert facts
    assert (event.actor, event.action, event.target) == ("alice", f"registration.{decision}", "registrations")
    assert (facts["filter"], facts["count"]) == ({"usernamePattern": "flood-*"}, 1000)
    assert place.registration("bob")["status"] == "pending"
    row = stored("flood-999")
    assert (row is None) if decision == "delete" else row and (row.status, row.password_hash) == ("denied", None)


@ON_BOTH_DATABASES
def test_everything_that_a_filter_names_must_fit(place: Place) -> None:
    place.unlock()
    for name, address in (("press-1", "203.0.113.5"), ("press-2", "198.51.100.7"), ("lamp-1", "203.0.113.9")):
        place.registers(name, address=address)
    place.registers("press-1", address="203.0.113.5")

    def denied(**wanted: Any) -> int:
        count: int = done(place.alice.post(f"{REGISTRATIONS}/deny", {"filter": wanted}))["count"]
        return count

    assert denied(usernamePattern="press-*", address="203.0.113.0/24", maxAttempts=1) == 0
    assert denied(clientIdPattern="*") == 0
    assert denied(address="203.0.113.9") == 1
    assert by_status(place) == {"press-1": "pending", "press-2": "pending", "lamp-1": "denied"}
    assert denied(usernamePattern="press-?", maxAttempts=1) == 1
    assert by_status(place) == {"press-1": "pending", "press-2": "denied", "lamp-1": "denied"}


@ON_BOTH_DATABASES
def test_a_filter_can_name_a_time_and_a_client_id(place: Place) -> None:
    place.connects("press-1", BOBS_PASSWORD, "bot_1")
    time_passes(timedelta(hours=2))
    place.connects("press-2", BOBS_PASSWORD, "bot_2")
    place.connects("press-3", BOBS_PASSWORD, "plc")
    moment = place.registration("press-2")["firstSeen"]

    def deleted(**wanted: Any) -> int:
        count: int = done(place.alice.post(f"{REGISTRATIONS}/delete", {"filter": wanted}))["count"]
        return count

    assert deleted(after=moment, clientIdPattern="bot_*") == 1
    assert deleted(before=moment) == 1
    assert by_status(place) == {"press-3": "pending"}


def test_denied_and_expired_registrations_are_deleted_by_filter_and_granted_ones_are_not(place: Place) -> None:
    place.in_status("denied", "press-1")
    place.in_status("granted", "press-2")
    place.asks("press-3")
    everyone = {"filter": {"usernamePattern": "*"}}
    assert done(place.alice.post(f"{REGISTRATIONS}/delete", {**everyone, "status": "denied"})) == {"count": 1}
    assert refused_fields(place.alice.post(f"{REGISTRATIONS}/delete", {**everyone, "status": "granted"})) == ["status"]
    assert by_status(place) == {"press-2": "granted", "press-3": "pending"}
    assert done(place.alice.post(f"{REGISTRATIONS}/deny", {**everyone, "reason": "not ours"}))["count"] == 1
    assert place.registration("press-3")["reason"] == "not ours"


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
def test_a_filter_that_is_empty_or_makes_no_sense_is_refused(
    place: Place, decision: str, filter_: Any, field: str | None
) -> None:
    place.unlock()
    place.asks()
    before = everything()
    answer = place.alice.post(f"{REGISTRATIONS}/{decision}", {"filter": filter_})
    expected = field or ("body" if decision == "deny" else "filter")
    assert refused_fields(answer) == [expected]
    assert everything() == before


def test_ids_and_a_filter_together_are_refused(place: Place) -> None:
    place.unlock()
    body = {"ids": [place.asks()], "filter": {"usernamePattern": "*"}}
    assert refused_fields(place.alice.post(f"{REGISTRATIONS}/deny", body)) == ["body"]


def test_ids_are_still_denied_each_on_its_own_and_counted(place: Place) -> None:
    place.unlock()
    answer = done(place.alice.post(f"{REGISTRATIONS}/deny", {"ids": [place.asks(), "x"]}))
    assert (answer["count"], len(answer["items"]), len(answer["failed"])) == (1, 1, 1)


@pytest.mark.parametrize("decision", ["deny", "delete"])
def test_nobody_decides_by_filter_without_the_permission(place: Place, decision: str) -> None:
    problem_of(place.stranger.post(f"{REGISTRATIONS}/{decision}", {}), 401, "unauthenticated")
    assert place.charlie.post(f"{REGISTRATIONS}/{decision}", {"filter": {"maxAttempts": 1}}).status_code == 200


def test_the_page_refuses_a_reason_that_rest_refuses(place: Place, browser: FlaskClient) -> None:
    place.unlock()
    place.asks()
    token = csrf_token(browser, "/admin/registry/matching?filter.usernamePattern=bob")
    fields = {"filter.usernamePattern": "bob", "reason": "x" * 1001, "csrf_token": token}
    answer = browser.post("/admin/registry/matching/deny", data=fields)
    assert answer.status_code == 400
    assert 'id="reason-wrong"' in answer.text
    assert place.registration()["status"] == "pending"
    assert browser.post("/admin/registry/matching/deny", data={**fields, "reason": "no"}).status_code == 303
    assert place.registration()["reason"] == "no"
