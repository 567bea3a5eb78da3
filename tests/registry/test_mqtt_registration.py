"""The queue of refused CONNECTs: bounded, not blocking, and independent of database errors."""

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
from tests.registry.environment import BOBS_PASSWORD, ON_BOTH_DATABASES, failing_writes, in_parallel, with_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from authsvc.settings import Settings
    from tests.registry.environment import Environment

AT_ONCE = 1.0  # seconds, on a busy machine; a thread that waits for the database waits 5


def authenticate_many(env: Environment, number: int, name: str = "flood") -> None:
    for count in range(number):
        env.mqtt.enqueue(None, f"{name}-{count}", "a flood's secret", "c1")


def test_full_queue_drops_and_counts_contacts(env: Environment) -> None:
    authenticate_many(env, QUEUE_SIZE + 100)
    assert env.mqtt.waiting == QUEUE_SIZE
    assert env.mqtt.counters == {Outcome.QUEUE_FULL: 100}


def test_returning_name_stays_in_a_full_queue(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact_queue, "QUEUE_SIZE", 2)
    env.authenticate("bob", BOBS_PASSWORD)
    env.authenticate("bob", BOBS_PASSWORD)
    authenticate_many(env, 3)
    env.authenticate("bob", BOBS_PASSWORD)
    env.flush()
    assert {one["username"]: one["attempts"] for one in env.registrations()} == {"bob": 3, "flood-2": 1}
    assert env.mqtt.counters == {Outcome.QUEUE_FULL: 2, Outcome.RECORDED: 2}
    assert env.mqtt.waiting == 0


def test_new_name_is_dropped_if_all_queued_names_returned(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact_queue, "QUEUE_SIZE", 2)
    authenticate_many(env, 2)
    authenticate_many(env, 3)
    env.flush()
    assert {one["username"]: one["attempts"] for one in env.registrations()} == {"flood-0": 2, "flood-1": 2}
    assert env.mqtt.counters == {Outcome.QUEUE_FULL: 1, Outcome.RECORDED: 2}


@with_settings(registry_max_pending=3)
@ON_BOTH_DATABASES
def test_pending_registrations_are_limited(env: Environment) -> None:
    env.unlock()
    authenticate_many(env, 1)
    authenticate_many(env, 10)
    env.flush()
    assert env.mqtt.counters == {Outcome.RECORDED: 10, Outcome.EVICTED: 7}
    # The returning name and the newest name stay.
    assert {one["username"] for one in env.registrations()} == {"flood-0", "flood-8", "flood-9"}
    env.deny(env.registration("flood-0")["id"])
    authenticate_many(env, 4, "later")
    env.flush()
    assert len(env.registrations(status="pending")) == 3


@with_settings(registry_max_pending=3)
@ON_BOTH_DATABASES
def test_pending_registrations_are_limited_under_concurrency(env: Environment) -> None:
    env.unlock()
    authenticate_many(env, 5)

    def come(number: int) -> None:
        if number == 0:
            env.flush()
        else:
            env.register(f"bob-{number}")

    in_parallel(8, come)
    assert len(env.registrations(status="pending")) == 3


@ON_BOTH_DATABASES
def test_enqueue_does_not_wait_for_a_database_lock(env: Environment) -> None:
    with somebody_else_writing():
        started = perf_counter()
        assert env.authenticate("bob", BOBS_PASSWORD) == "unknown-user"
        assert perf_counter() - started < AT_ONCE
    env.flush()
    assert env.registration()["attempts"] == 1


def test_enqueue_does_not_wait_for_a_flush(env: Environment) -> None:
    authenticate_many(env, 20)
    with somebody_else_writing():
        draining = threading.Thread(target=env.mqtt.flush)
        draining.start()
        while env.mqtt.waiting:
            sleep(0.001)
        started = perf_counter()
        assert env.authenticate("bob", BOBS_PASSWORD) == "unknown-user"
        assert perf_counter() - started < AT_ONCE
    draining.join()
    env.flush()
    assert env.registration("bob")["attempts"] == 1


def test_enqueue_works_without_the_database(env: Environment, settings: Settings) -> None:
    file = settings.data_dir / "authsvc.db"
    file.rename(file.with_suffix(".gone"))
    started = perf_counter()
    assert env.authenticate("bob", BOBS_PASSWORD) == "unknown-user"
    assert perf_counter() - started < AT_ONCE
    env.flush()
    assert env.mqtt.counters == {Outcome.FAILED: 1}
    file.with_suffix(".gone").rename(file)
    env.connect("bob", BOBS_PASSWORD)
    assert env.registration()["attempts"] == 1


@ON_BOTH_DATABASES
def test_error_of_one_contact_does_not_affect_the_next(env: Environment) -> None:
    with failing_writes("registrations", "NEW.username = 'flood-1'"):
        authenticate_many(env, 3)
        env.flush()
    assert env.mqtt.counters == {Outcome.RECORDED: 2, Outcome.FAILED: 1}
    assert {one["username"] for one in env.registrations()} == {"flood-0", "flood-2"}


def test_queued_contacts_are_bounded_in_size(env: Environment) -> None:
    def contact(number: int) -> None:
        for client in range(10):
            env.mqtt.enqueue(None, f"flood-{number}", f"{number}" * 10_000, f"{client}" * 20_000)

    contact(0)
    tracemalloc.start()
    for number in range(1, 51):
        contact(number)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 50 * 4096


@contextmanager
def somebody_else_writing() -> Iterator[None]:
    """Hold the database lock that every registration needs."""
    with transaction():
        Window.update(opened_at=Window.opened_at).execute()
        if not is_sqlite():
            database.execute_sql("LOCK TABLE registrations IN ACCESS EXCLUSIVE MODE")
        yield
