"""Throttling: the database counts the attempts per minute under each key, for all workers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from authsvc.accounts import throttle
from authsvc.errors import TooMany
from authsvc.storage.database import database, database_time, is_sqlite, session
from authsvc.storage.models import Attempt
from tests.storage.environment import execute

if TYPE_CHECKING:
    from authsvc.settings import Settings

pytestmark = pytest.mark.usefixtures("prepared")

START = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)


class Clock:
    """Stands for the database's clock; a test sets the time."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    by_hand = Clock()
    monkeypatch.setattr(throttle, "database_time", by_hand)
    return by_hand


def attempt(key: str, per_minute: int) -> None:
    throttle.check_limits({key: per_minute})
    throttle.count([key])


def refusal(key: str, per_minute: int) -> TooMany:
    with pytest.raises(TooMany) as error:
        attempt(key, per_minute)
    return error.value


def test_attempts_beyond_the_limit_of_a_minute_are_refused(clock: Clock) -> None:
    for _ in range(3):
        attempt("bob", 3)
    clock.now += timedelta(seconds=20)
    for _ in range(5):
        assert refusal("bob", 3).code == "too-many-attempts"


def test_the_next_minute_starts_at_zero(clock: Clock) -> None:
    for _ in range(3):
        attempt("bob", 3)
    clock.now += timedelta(seconds=59)
    refusal("bob", 3)
    clock.now += timedelta(seconds=1)
    for _ in range(3):
        attempt("bob", 3)
    refusal("bob", 3)


def test_one_key_does_not_count_for_another(clock: Clock) -> None:
    attempt("bob", 1)
    attempt("charlie", 1)
    refusal("bob", 1)


def test_counts_older_than_ten_minutes_are_deleted(clock: Clock) -> None:
    attempt("bob", 3)
    clock.now += timedelta(minutes=9)
    attempt("charlie", 3)
    clock.now += timedelta(minutes=2)
    throttle.delete_old()
    with session():
        assert [attempt.key for attempt in Attempt.select()] == ["charlie"]


def test_concurrent_attempts_are_all_counted() -> None:
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda _: throttle.count(["bob"]), range(40)):
            pass
    with session():
        assert Attempt.get_by_id("bob").count == 40


def test_database_time_is_the_current_time() -> None:
    with session():
        assert abs(database_time() - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/Los_Angeles"])
def test_minutes_do_not_depend_on_the_time_zone_of_the_server(clock: Clock, prepared: Settings, zone: str) -> None:
    if not is_sqlite():
        name = prepared.database_url.partition("?")[0].rpartition("/")[2]
        execute(f"ALTER DATABASE {name} SET timezone = '{zone}'")
        database.obj.close_all()
    attempt("bob", 2)
    clock.now += timedelta(minutes=2)
    attempt("bob", 2)
    attempt("bob", 2)
    refusal("bob", 2)
    clock.now += timedelta(minutes=2)
    attempt("bob", 2)
