"""Sightings: under which client ids a user was lately let in, noted in memory and written down later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import peewee
import pytest
import time_machine

from authsvc.activity import client_ids as sightings
from authsvc.activity.client_ids import MAX_CLIENT_ID, PER_USER, SeenClientIds, all_of_user, of_user
from authsvc.policy import known_client_ids
from authsvc.storage.database import session
from authsvc.storage.models import ClientIdRow
from tests.storage.environment import database_gone, execute

if TYPE_CHECKING:
    from authsvc.settings import Settings

pytestmark = pytest.mark.usefixtures("prepared")

NOW = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)


def stored() -> list[tuple[str, str, datetime]]:
    with session():
        return [
            (row.username, row.client_id, row.seen_at) for row in ClientIdRow.select().order_by(ClientIdRow.seen_at)
        ]


def see(seen: SeenClientIds, client_id: str, at: datetime = NOW) -> None:
    with time_machine.travel(at, tick=False):
        seen.note("bob", client_id)
        seen.store()


def test_what_was_noted_is_written_down_once() -> None:
    seen = SeenClientIds()
    for _ in range(3):
        seen.note("bob", "sensor-1")
    seen.note("bertha", "sensor-1")
    assert stored() == []
    seen.store()
    seen.store()
    assert sorted(row[:2] for row in stored()) == [("bertha", "sensor-1"), ("bob", "sensor-1")]


def test_the_time_of_the_last_sighting_moves_on_when_everything_is_noted_anew() -> None:
    seen = SeenClientIds()
    see(seen, "sensor-1")
    see(seen, "sensor-1", NOW + timedelta(hours=1))
    assert stored() == [("bob", "sensor-1", NOW)]
    with time_machine.travel(NOW, tick=False):
        seen.delete_expired()
    see(seen, "sensor-1", NOW + timedelta(hours=2))
    assert stored() == [("bob", "sensor-1", NOW + timedelta(hours=2))]


def test_two_workers_may_see_the_same_client() -> None:
    see(SeenClientIds(), "sensor-1")
    see(SeenClientIds(), "sensor-1", NOW + timedelta(seconds=5))
    assert stored() == [("bob", "sensor-1", NOW + timedelta(seconds=5))]


def test_a_users_client_ids_are_told_latest_first_and_not_all_of_them() -> None:
    seen = SeenClientIds()
    for n in range(PER_USER + 3):
        see(seen, f"sensor-{n}", NOW + timedelta(seconds=n))
    expected = [f"sensor-{n}" for n in reversed(range(3, PER_USER + 3))]
    assert [seen.client_id for seen in of_user("bob")] == expected
    assert all_of_user("bob") == [*expected, "sensor-2", "sensor-1", "sensor-0"]
    assert all_of_user("nobody") == []
    assert of_user("bob")[0] == (expected[0], NOW + timedelta(seconds=PER_USER + 2))


def test_what_is_long_past_is_forgotten() -> None:
    seen = SeenClientIds()
    see(seen, "long ago", NOW - timedelta(days=31))
    see(seen, "lately", NOW - timedelta(days=29))
    with time_machine.travel(NOW, tick=False):
        seen.delete_expired()
    assert all_of_user("bob") == ["lately"]


@pytest.mark.parametrize("client_id", ["", "x" * (MAX_CLIENT_ID + 1)])
def test_a_client_id_that_could_not_be_written_down_is_not_noted(client_id: str) -> None:
    seen = SeenClientIds()
    seen.note("bob", client_id)
    seen.store()
    assert stored() == []


def test_more_than_so_many_are_not_noted_until_those_are_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sightings, "MAX_NOTED", 300)
    seen = SeenClientIds()
    for n in range(500):
        seen.note("bob", f"sensor-{n}")
    seen.store()
    assert len(stored()) == 300
    seen.note("bob", "sensor-499")
    seen.store()
    assert len(stored()) == 301


def test_a_user_with_ever_new_client_ids_displaces_no_other_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sightings, "MAX_NOTED", 300)
    monkeypatch.setattr(sightings, "MAX_NOTED_OF_USER", 100)
    seen = SeenClientIds()
    for _ in range(3):
        for n in range(500):
            seen.note("mallory", f"made up {n}")
        seen.note("bob", "sensor-1", logged_in=True)
        assert len(seen._noted) <= 101
        seen.store()
        assert known_after_a_restart().known.knows("bob", "sensor-1")


def test_a_client_id_without_room_is_noted_once_earlier_ones_are_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sightings, "MAX_NOTED_OF_USER", 2)
    seen = SeenClientIds()
    for n in range(3):
        seen.note("bob", f"sensor-{n}")
    seen.note("bob", "sensor-0", logged_in=True)
    seen.store()
    seen.note("bob", "sensor-2")
    seen.store()
    assert len(stored()) == 3
    assert known_after_a_restart().known.knows("bob", "sensor-0"), "a login without room for more is still noted"


def test_so_many_are_written_at_a_time_and_the_rest_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sightings, "MAX_STORED_AT_ONCE", 250)
    seen = SeenClientIds()
    for n in range(600):
        seen.note("bob", f"sensor-{n}")
    written = []
    for _ in range(4):
        seen.store()
        written.append(len(stored()))
    assert written == [250, 500, 600, 600]


def test_what_a_database_that_is_gone_keeps_from_being_written_stays_noted(prepared: Settings) -> None:
    seen = SeenClientIds()
    seen.note("bob", "sensor-1")
    with database_gone(prepared), pytest.raises(peewee.OperationalError):
        seen.store()
    seen.store()
    assert all_of_user("bob") == ["sensor-1"]


def test_a_client_id_that_is_not_unicode_is_in_nobodys_way() -> None:
    seen = SeenClientIds()
    seen.note("bob", "\ud800")
    seen.note("bob", "sensor-1")
    seen.store()
    assert all_of_user("bob") == ["sensor-1"]


# Client ids that a user has logged in with.


def known_after_a_restart() -> SeenClientIds:
    started = SeenClientIds()
    started.load_stored()
    return started


def test_a_client_id_that_logged_in_is_known_at_once_and_after_a_restart() -> None:
    seen = SeenClientIds()
    seen.note("bob", "sensor-1", logged_in=True)
    assert seen.known.knows("bob", "sensor-1")
    seen.store()
    assert known_after_a_restart().known.knows("bob", "sensor-1")


def test_a_client_id_that_only_asked_about_a_topic_is_seen_and_not_known() -> None:
    seen = SeenClientIds()
    see(seen, "sensor-1")
    assert all_of_user("bob") == ["sensor-1"]
    assert not seen.known.knows("bob", "sensor-1")
    assert not known_after_a_restart().known.knows("bob", "sensor-1")


def test_a_client_id_stays_known_whatever_else_it_is_seen_with() -> None:
    seen = SeenClientIds()
    for logged_in in (False, True, False):
        seen.note("bob", "sensor-1", logged_in=logged_in)
        seen.store()
    seen.delete_expired()
    seen.note("bob", "sensor-1")
    seen.store()
    assert known_after_a_restart().known.knows("bob", "sensor-1")


def test_a_login_and_an_access_noted_together_are_stored_as_a_login() -> None:
    for first in (True, False):
        seen = SeenClientIds()
        seen.note(f"bob-{first}", "sensor-1", logged_in=first)
        seen.note(f"bob-{first}", "sensor-1", logged_in=not first)
        seen.store()
        assert known_after_a_restart().known.knows(f"bob-{first}", "sensor-1")


def test_client_ids_that_other_processes_stored_are_learnt_once_they_are_looked_for() -> None:
    one, other = SeenClientIds(), SeenClientIds()
    one.load_stored()
    for number in range(2):
        other.note("bob", f"sensor-{number}", logged_in=True)
        other.store()
        one.load_stored()
        assert one.known.knows("bob", f"sensor-{number}")


def test_client_ids_stored_by_an_older_process_are_not_known() -> None:
    execute("INSERT INTO sightings (username, client_id, seen_at) VALUES ('bob', 'sensor-1', '2026-11-20 08:00:00')")
    assert not known_after_a_restart().known.knows("bob", "sensor-1")


def test_of_those_that_logged_in_many_more_are_kept_than_of_those_that_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_client_ids, "PER_USER", 2 * PER_USER)
    seen = SeenClientIds()
    for number in range(3 * PER_USER):
        seen.note("bob", f"sensor-{number}", logged_in=True)
        seen.note("bob", f"asked-{number}")
        seen.note("bertha", f"sensor-{number}", logged_in=number % 2 == 0)
    seen.store()
    seen.delete_expired()
    with session():
        kept = [(row.username, row.logged_in) for row in ClientIdRow.select()]
    assert kept.count(("bob", True)) == 2 * PER_USER
    assert kept.count(("bob", False)) == PER_USER
    assert kept.count(("bertha", True)) == 1.5 * PER_USER


def test_what_was_stored_is_remembered_of_so_many_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sightings, "MAX_STORED", 100)
    seen = SeenClientIds()
    for number in range(500):
        seen.note("bob", f"sensor-{number}")
        if number % 50 == 0:
            seen.store()
    seen.store()
    assert len(seen._stored) == 100
    seen.note("bob", "sensor-499")
    assert not seen._noted
    seen.note("bob", "sensor-0")
    assert seen._noted


def test_while_the_database_is_gone_what_was_learnt_stays_known(prepared: Settings) -> None:
    seen = SeenClientIds()
    seen.note("bob", "sensor-1", logged_in=True)
    with database_gone(prepared), pytest.raises(peewee.OperationalError):
        seen.load_stored()
    assert seen.known.knows("bob", "sensor-1")
