"""The life of a registration as a table: which event may follow which status, and what each refusal says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from authsvc.errors import Conflict
from registry.states import Event, Status, after
from tests.http.callers import problem_of
from tests.registry.environment import BOBS_PASSWORD, REGISTRATIONS, actions, done, expire, stored

if TYPE_CHECKING:
    from tests.registry.environment import Place

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
            after(status, event)
        assert refusal.value.code == f"registration-{status}"
    else:
        assert after(status, event) is expected


@pytest.mark.parametrize("status", DECIDED)
@pytest.mark.parametrize("decision", ["grant", "deny"])
def test_who_decides_a_second_time_is_told_what_it_is_already(place: Place, status: Status, decision: str) -> None:
    registration = place.in_status(status)
    before = place.registration(), place.user(), actions()
    answer = place.alice.post(f"{REGISTRATIONS}/{registration}/{decision}", {})
    problem_of(answer, 409, f"registration-{status}")
    assert (place.registration(), place.user(), actions()) == before


@pytest.mark.parametrize("status", DECIDED)
@pytest.mark.parametrize("decision", ["grant", "deny"])
def test_in_bulk_it_is_told_for_each(place: Place, status: Status, decision: str) -> None:
    registration = place.in_status(status)
    answer = done(place.alice.post(f"{REGISTRATIONS}/{decision}", {"ids": [registration]}))
    assert answer["items"] == []
    assert [(one["id"], one["code"]) for one in answer["failed"]] == [(registration, f"registration-{status}")]


@pytest.mark.parametrize("status", DECIDED)
def test_time_ends_nothing_but_what_is_pending(place: Place, status: Status) -> None:
    place.in_status(status)
    before = place.registration()["status"]
    assert expire() == 0
    row = stored()
    assert row
    assert row.status == before


@pytest.mark.parametrize(
    ("status", "answered", "then"),
    [(PENDING, 202, PENDING), (GRANTED, 201, GRANTED), (DENIED, 403, DENIED), (EXPIRED, 202, PENDING)],
)
def test_a_client_that_makes_contact_finds_what_the_table_says(
    place: Place, status: Status, answered: int, then: Status
) -> None:
    place.in_status(status)
    place.unlock()
    assert place.registers().status_code == answered
    assert place.registration()["status"] == then


@pytest.mark.parametrize("status", Status)
def test_a_device_that_makes_contact_finds_what_the_table_says(place: Place, status: Status) -> None:
    place.in_status(status)
    assert place.connects("bob", BOBS_PASSWORD) is (status is GRANTED)
    assert place.registration()["status"] == TABLE[status, CONTACT]


@pytest.mark.parametrize("status", Status)
def test_any_registration_can_be_forgotten_and_its_user_stays(place: Place, status: Status) -> None:
    registration = place.in_status(status)
    assert place.alice.delete(f"{REGISTRATIONS}/{registration}").status_code == 204
    assert place.registrations() == []
    assert (place.user() is not None) is (status is GRANTED)
    problem_of(place.alice.get(f"{REGISTRATIONS}/{registration}"), 404, "registration-not-found")


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", "/grant"), ("POST", "/deny"), ("DELETE", "")])
def test_what_was_never_there_is_not_found(place: Place, method: str, path: str) -> None:
    problem_of(place.alice.call(method, f"{REGISTRATIONS}/nobody{path}"), 404, "registration-not-found")
