"""The queue behind the broker's path: bounded, never waiting, and no worse for what the database does."""

from __future__ import annotations

import threading
import tracemalloc
from contextlib import contextmanager
from time import perf_counter, sleep
from typing import TYPE_CHECKING

from authsvc.storage.database import database, is_sqlite, transaction
from registry.models import Window
from registry.mqtt_registration import contact_queue
from registry.mqtt_registration.contact_queue import QUEUE_SIZE
from registry.mqtt_registration.registration import Outcome
from tests.registry.environment import BOBS_PASSWORD, ON_BOTH_DATABASES, at_once, broken, with_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from authsvc.settings import Settings
    from tests.registry.environment import Place

AT_ONCE = 1.0  # seconds, on a busy machine; whoever waits for the database waits five


def hear_many(place: Place, number: int, name: str = "flood") -> None:
    for count in range(number):
        place.intake.enqueue(None, f"{name}-{count}", "a flood's secret", "c1")


def test_what_does_not_fit_the_queue_is_dropped_and_counted(place: Place) -> None:
    hear_many(place, QUEUE_SIZE + 100)
    assert place.intake.waiting == QUEUE_SIZE
    assert place.intake.counters == {Outcome.QUEUE_FULL: 100}


def test_a_name_that_came_back_keeps_its_place_in_a_full_queue(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact_queue, "QUEUE_SIZE", 2)
    place.hears("bob", BOBS_PASSWORD)
    place.hears("bob", BOBS_PASSWORD)
    hear_many(place, 3)
    place.hears("bob", BOBS_PASSWORD)
    place.writes_down()
    assert {one["username"]: one["attempts"] for one in place.registrations()} == {"bob": 3, "flood-2": 1}
    assert place.intake.counters == {Outcome.QUEUE_FULL: 2, Outcome.RECORDED: 2}
    assert place.intake.waiting == 0


def test_a_newcomer_is_dropped_when_every_name_in_a_full_queue_came_back(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contact_queue, "QUEUE_SIZE", 2)
    hear_many(place, 2)
    hear_many(place, 3)
    place.writes_down()
    assert {one["username"]: one["attempts"] for one in place.registrations()} == {"flood-0": 2, "flood-1": 2}
    assert place.intake.counters == {Outcome.QUEUE_FULL: 1, Outcome.RECORDED: 2}


@with_settings(registry_max_pending=3)
@ON_BOTH_DATABASES
def test_no_more_is_pending_than_fits(place: Place) -> None:
    place.unlock()
    hear_many(place, 1)
    hear_many(place, 10)
    place.writes_down()
    assert place.intake.counters == {Outcome.RECORDED: 10, Outcome.EVICTED: 7}
    # The one that came back stays, and of the others the latest.
    assert {one["username"] for one in place.registrations()} == {"flood-0", "flood-8", "flood-9"}
    place.deny(place.registration("flood-0")["id"])
    hear_many(place, 4, "later")
    place.writes_down()
    assert len(place.registrations(status="pending")) == 3


@with_settings(registry_max_pending=3)
@ON_BOTH_DATABASES
def test_no_more_is_pending_than_fits_whoever_comes_at_once(place: Place) -> None:
    place.unlock()
    hear_many(place, 5)

    def come(number: int) -> None:
        if number == 0:
            place.writes_down()
        else:
            place.registers(f"bob-{number}")

    at_once(8, come)
    assert len(place.registrations(status="pending")) == 3


@ON_BOTH_DATABASES
def test_hearing_waits_for_no_lock_of_the_database(place: Place) -> None:
    with somebody_else_writing():
        started = perf_counter()
        assert place.hears("bob", BOBS_PASSWORD) == "unknown-user"
        assert perf_counter() - started < AT_ONCE
    place.writes_down()
    assert place.registration()["attempts"] == 1


def test_hearing_waits_for_no_drain(place: Place) -> None:
    hear_many(place, 20)
    with somebody_else_writing():
        draining = threading.Thread(target=place.intake.flush)
        draining.start()
        while place.intake.waiting:
            sleep(0.001)
        started = perf_counter()
        assert place.hears("bob", BOBS_PASSWORD) == "unknown-user"
        assert perf_counter() - started < AT_ONCE
    draining.join()
    place.writes_down()
    assert place.registration("bob")["attempts"] == 1


def test_hearing_goes_on_when_the_database_is_gone(place: Place, settings: Settings) -> None:
    file = settings.data_dir / "authsvc.db"
    file.rename(file.with_suffix(".gone"))
    started = perf_counter()
    assert place.hears("bob", BOBS_PASSWORD) == "unknown-user"
    assert perf_counter() - started < AT_ONCE
    place.writes_down()
    assert place.intake.counters == {Outcome.FAILED: 1}
    file.with_suffix(".gone").rename(file)
    place.connects("bob", BOBS_PASSWORD)
    assert place.registration()["attempts"] == 1


@ON_BOTH_DATABASES
def test_what_one_contact_meets_is_not_the_next_ones_trouble(place: Place) -> None:
    with broken("registrations", "NEW.username = 'flood-1'"):
        hear_many(place, 3)
        place.writes_down()
    assert place.intake.counters == {Outcome.RECORDED: 2, Outcome.FAILED: 1}
    assert {one["username"] for one in place.registrations()} == {"flood-0", "flood-2"}


def test_what_waits_in_the_queue_is_small_whatever_strangers_send(place: Place) -> None:
    def contact(number: int) -> None:
        for client in range(10):
            place.intake.enqueue(None, f"flood-{number}", f"{number}" * 10_000, f"{client}" * 20_000)

    contact(0)
    tracemalloc.start()
    for number in range(1, 51):
        contact(number)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 50 * 4096


@contextmanager
def somebody_else_writing() -> Iterator[None]:
    """Hold the lock that every registration needs."""
    with transaction():
        Window.update(opened_at=Window.opened_at).execute()
        if not is_sqlite():
            database.execute_sql("LOCK TABLE registrations IN ACCESS EXCLUSIVE MODE")
        yield
