"""Throttling: attempts per minute and key, counted in the database for all replicas."""

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
    """A settable clock in place of the database's."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    by_hand = Clock()
    monkeypatch.setattr(throttle, "database_time", by_hand)
    return by_hand


def refusal(key: str, per_minute: int) -> TooMany:
    with pytest.raises(TooMany) as error:
        throttle.count(key, per_minute)
    return error.value


def test_attempts_per_minute_are_limited(clock: Clock) -> None:
    for _ in range(3):
        throttle.count("bob", 3)
    clock.now += timedelta(seconds=20)
    for _ in range(5):
        assert refusal("bob", 3).code == "too-many-attempts"


def test_limit_is_reset_in_the_next_minute(clock: Clock) -> None:
    for _ in range(3):
        throttle.count("bob", 3)
    clock.now += timedelta(seconds=59)
    refusal("bob", 3)
    clock.now += timedelta(seconds=1)
    for _ in range(3):
        throttle.count("bob", 3)
    refusal("bob", 3)


def test_keys_are_counted_separately(clock: Clock) -> None:
    throttle.count("bob", 1)
    throttle.count("charlie", 1)
    refusal("bob", 1)


def test_old_counts_are_deleted(clock: Clock) -> None:
    throttle.count("bob", 3)
    clock.now += timedelta(minutes=9)
    throttle.count("charlie", 3)
    clock.now += timedelta(minutes=2)
    throttle.forget_old()
    with session():
        assert [attempt.key for attempt in Attempt.select()] == ["charlie"]


def test_simultaneous_attempts_are_all_counted() -> None:
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda _: throttle.count("bob", 100), range(40)):
            pass
    with session():
        assert Attempt.get_by_id("bob").count == 40


def test_time_is_that_of_the_database() -> None:
    with session():
        assert abs(database_time() - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/Los_Angeles"])
def test_time_zone_of_the_server_does_not_matter(clock: Clock, prepared: Settings, zone: str) -> None:
    if not is_sqlite():
        name = prepared.database_url.partition("?")[0].rpartition("/")[2]
        execute(f"ALTER DATABASE {name} SET timezone = '{zone}'")
        database.obj.close_all()
    throttle.count("bob", 2)
    clock.now += timedelta(minutes=2)
    throttle.count("bob", 2)
    throttle.count("bob", 2)
    refusal("bob", 2)
    clock.now += timedelta(minutes=2)
    throttle.count("bob", 2)
