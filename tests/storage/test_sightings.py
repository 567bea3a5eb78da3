"""Sightings: under which client ids a user was lately let in, noted in memory and written down later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import peewee
import pytest
import time_machine

from authsvc import sightings
from authsvc.sightings import MAX_CLIENT_ID, PER_USER, Sightings, client_ids, of_user
from authsvc.storage.database import session
from authsvc.storage.models import Sighting
from tests.storage.scene import database_gone

if TYPE_CHECKING:
    from authsvc.settings import Settings

pytestmark = pytest.mark.usefixtures("prepared")

NOW = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)


def stored() -> list[tuple[str, str, datetime]]:
    with session():
        return [(row.username, row.client_id, row.seen_at) for row in Sighting.select().order_by(Sighting.seen_at)]


def see(seen: Sightings, client_id: str, at: datetime = NOW) -> None:
    with time_machine.travel(at, tick=False):
        seen.note("bob", client_id)
        seen.store()


def test_what_was_noted_is_written_down_once() -> None:
    seen = Sightings()
    for _ in range(3):
        seen.note("bob", "sensor-1")
    seen.note("bertha", "sensor-1")
    assert stored() == []
    seen.store()
    seen.store()
    assert sorted(row[:2] for row in stored()) == [("bertha", "sensor-1"), ("bob", "sensor-1")]


def test_the_time_of_the_last_sighting_moves_on_when_everything_is_noted_anew() -> None:
    seen = Sightings()
    see(seen, "sensor-1")
    see(seen, "sensor-1", NOW + timedelta(hours=1))
    assert stored() == [("bob", "sensor-1", NOW)]
    with time_machine.travel(NOW, tick=False):
        seen.forget_stored()
    see(seen, "sensor-1", NOW + timedelta(hours=2))
    assert stored() == [("bob", "sensor-1", NOW + timedelta(hours=2))]


def test_two_workers_may_see_the_same_client() -> None:
    see(Sightings(), "sensor-1")
    see(Sightings(), "sensor-1", NOW + timedelta(seconds=5))
    assert stored() == [("bob", "sensor-1", NOW + timedelta(seconds=5))]


def test_a_users_client_ids_are_told_latest_first_and_not_all_of_them() -> None:
    seen = Sightings()
    for n in range(PER_USER + 3):
        see(seen, f"sensor-{n}", NOW + timedelta(seconds=n))
    expected = [f"sensor-{n}" for n in reversed(range(3, PER_USER + 3))]
    assert client_ids("bob") == expected
    assert client_ids("nobody") == []
    assert of_user("bob")[0] == (expected[0], NOW + timedelta(seconds=PER_USER + 2))


def test_what_is_long_past_is_forgotten() -> None:
    seen = Sightings()
    see(seen, "long ago", NOW - timedelta(days=31))
    see(seen, "lately", NOW - timedelta(days=29))
    with time_machine.travel(NOW, tick=False):
        seen.forget_stored()
    assert client_ids("bob") == ["lately"]


@pytest.mark.parametrize("client_id", ["", "x" * (MAX_CLIENT_ID + 1)])
def test_a_client_id_that_could_not_be_written_down_is_not_noted(client_id: str) -> None:
    seen = Sightings()
    seen.note("bob", client_id)
    seen.store()
    assert stored() == []


def test_more_than_so_many_are_not_noted_until_those_are_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sightings, "MAX_NOTED", 300)
    seen = Sightings()
    for n in range(500):
        seen.note("bob", f"sensor-{n}")
    seen.store()
    assert len(stored()) == 300
    seen.note("bob", "sensor-499")
    seen.store()
    assert len(stored()) == 301


def test_what_a_database_that_is_gone_keeps_from_being_written_stays_noted(prepared: Settings) -> None:
    seen = Sightings()
    seen.note("bob", "sensor-1")
    with database_gone(prepared), pytest.raises(peewee.OperationalError):
        seen.store()
    seen.store()
    assert client_ids("bob") == ["sensor-1"]


def test_a_client_id_that_is_not_unicode_is_in_nobodys_way() -> None:
    seen = Sightings()
    seen.note("bob", "\ud800")
    seen.note("bob", "sensor-1")
    seen.store()
    assert client_ids("bob") == ["sensor-1"]
