"""The transitions of a registration's status."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from authsvc.errors import Conflict
from registry.states import Event, Status, next_status
from tests.http.callers import problem_of
from tests.registry.environment import (
    BOBS_PASSWORD,
    REGISTRATIONS,
    actions,
    expect_success,
    expire,
    stored_registration,
)

if TYPE_CHECKING:
    from tests.registry.environment import Environment

PENDING, GRANTED, DENIED, EXPIRED = Status.PENDING, Status.GRANTED, Status.DENIED, Status.EXPIRED
CONTACT, GRANT, DENY, EXPIRE = Event.CONTACT, Event.GRANT, Event.DENY, Event.EXPIRE
REFUSED = None
TABLE = {
    (PENDING, CONTACT): PENDING,
    (PENDING, GRANT): GRANTED,
    (PENDING, DENY): DENIED,
    (PENDING, EXPIRE): EXPIRED,
    (GRANTED, CONTACT): GRANTED,
    (GRANTED, GRANT): REFUSED,
    (GRANTED, DENY): REFUSED,
    (GRANTED, EXPIRE): REFUSED,
    (DENIED, CONTACT): DENIED,
    (DENIED, GRANT): REFUSED,
    (DENIED, DENY): REFUSED,
    (DENIED, EXPIRE): REFUSED,
    (EXPIRED, CONTACT): PENDING,
    (EXPIRED, GRANT): REFUSED,
    (EXPIRED, DENY): REFUSED,
    (EXPIRED, EXPIRE): REFUSED,
}
DECIDED = [status for status in Status if status is not PENDING]


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("event", Event)
def test_every_status_and_event_is_in_the_table(status: Status, event: Event) -> None:
    expected = TABLE[status, event]
    if expected is REFUSED:
        with pytest.raises(Conflict) as refusal:
            next_status(status, event)
        assert refusal.value.code == f"registration-{status}"
    else:
        assert next_status(status, event) is expected


@pytest.mark.parametrize("status", DECIDED)
@pytest.mark.parametrize("decision", ["grant", "deny"])
def test_second_decision_reports_the_current_status(env: Environment, status: Status, decision: str) -> None:
    registration = env.create_in_status(status)
    before = env.registration(), env.user(), actions()
    answer = env.alice.post(f"{REGISTRATIONS}/{registration}/{decision}", {})
    problem_of(answer, 409, f"registration-{status}")
    assert (env.registration(), env.user(), actions()) == before


@pytest.mark.parametrize("status", DECIDED)
@pytest.mark.parametrize("decision", ["grant", "deny"])
def test_bulk_decision_reports_the_current_status_of_each(env: Environment, status: Status, decision: str) -> None:
    registration = env.create_in_status(status)
    answer = expect_success(env.alice.post(f"{REGISTRATIONS}/{decision}", {"ids": [registration]}))
    assert answer["items"] == []
    assert [(one["id"], one["code"]) for one in answer["failed"]] == [(registration, f"registration-{status}")]


@pytest.mark.parametrize("status", DECIDED)
def test_only_pending_registrations_expire(env: Environment, status: Status) -> None:
    env.create_in_status(status)
    before = env.registration()["status"]
    assert expire() == 0
    row = stored_registration()
    assert row
    assert row.status == before


@pytest.mark.parametrize(
    ("status", "answered", "then"),
    [(PENDING, 202, PENDING), (GRANTED, 201, GRANTED), (DENIED, 403, DENIED), (EXPIRED, 202, PENDING)],
)
def test_rest_contact_follows_the_status_table(env: Environment, status: Status, answered: int, then: Status) -> None:
    env.create_in_status(status)
    env.unlock()
    assert env.register().status_code == answered
    assert env.registration()["status"] == then


@pytest.mark.parametrize("status", Status)
def test_mqtt_contact_follows_the_status_table(env: Environment, status: Status) -> None:
    env.create_in_status(status)
    assert env.connect("bob", BOBS_PASSWORD) is (status is GRANTED)
    assert env.registration()["status"] == TABLE[status, CONTACT]


@pytest.mark.parametrize("status", Status)
def test_registration_of_any_status_can_be_deleted_and_its_user_stays(env: Environment, status: Status) -> None:
    registration = env.create_in_status(status)
    assert env.alice.delete(f"{REGISTRATIONS}/{registration}").status_code == 204
    assert env.registrations() == []
    assert (env.user() is not None) is (status is GRANTED)
    problem_of(env.alice.get(f"{REGISTRATIONS}/{registration}"), 404, "registration-not-found")


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", "/grant"), ("POST", "/deny"), ("DELETE", "")])
def test_unknown_id_is_not_found(env: Environment, method: str, path: str) -> None:
    problem_of(env.alice.call(method, f"{REGISTRATIONS}/nobody{path}"), 404, "registration-not-found")
