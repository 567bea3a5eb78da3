"""The client ids that users have used: noted in memory and stored later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import peewee
import pytest
import time_machine

from authsvc.activity import client_ids
from authsvc.activity.client_ids import MAX_CLIENT_ID, PER_USER, SeenClientIds, all_of_user, of_user
from authsvc.policy import known_client_ids
from authsvc.storage.database import session
from authsvc.storage.models import ClientIdRow
from tests.storage.environment import database_gone

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


def test_noted_client_id_is_stored_once() -> None:
    seen = SeenClientIds()
    for _ in range(3):
        seen.note("bob", "sensor-1")
    seen.note("bertha", "sensor-1")
    assert stored() == []
    seen.store()
    seen.store()
    assert sorted(row[:2] for row in stored()) == [("bertha", "sensor-1"), ("bob", "sensor-1")]


def test_seen_at_is_updated_after_the_cleanup() -> None:
    seen = SeenClientIds()
    see(seen, "sensor-1")
    see(seen, "sensor-1", NOW + timedelta(hours=1))
    assert stored() == [("bob", "sensor-1", NOW)]
    with time_machine.travel(NOW, tick=False):
        seen.delete_expired()
    see(seen, "sensor-1", NOW + timedelta(hours=2))
    assert stored() == [("bob", "sensor-1", NOW + timedelta(hours=2))]


def test_two_workers_can_store_the_same_client_id() -> None:
    see(SeenClientIds(), "sensor-1")
    see(SeenClientIds(), "sensor-1", NOW + timedelta(seconds=5))
    assert stored() == [("bob", "sensor-1", NOW + timedelta(seconds=5))]


def test_only_the_latest_client_ids_of_a_user_are_listed() -> None:
    seen = SeenClientIds()
    for n in range(PER_USER + 3):
        see(seen, f"sensor-{n}", NOW + timedelta(seconds=n))
    expected = [f"sensor-{n}" for n in reversed(range(3, PER_USER + 3))]
    assert [seen.client_id for seen in of_user("bob")] == expected
    assert all_of_user("bob") == [*expected, "sensor-2", "sensor-1", "sensor-0"]
    assert all_of_user("nobody") == []
    assert of_user("bob")[0] == (expected[0], NOW + timedelta(seconds=PER_USER + 2))


def test_expired_client_ids_are_deleted() -> None:
    seen = SeenClientIds()
    see(seen, "long ago", NOW - timedelta(days=31))
    see(seen, "recent", NOW - timedelta(days=29))
    with time_machine.travel(NOW, tick=False):
        seen.delete_expired()
    assert all_of_user("bob") == ["recent"]


@pytest.mark.parametrize("client_id", ["", "x" * (MAX_CLIENT_ID + 1)])
def test_client_id_that_cannot_be_stored_is_not_noted(client_id: str) -> None:
    seen = SeenClientIds()
    seen.note("bob", client_id)
    seen.store()
    assert stored() == []


def test_number_of_noted_client_ids_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_ids, "MAX_NOTED", 300)
    seen = SeenClientIds()
    for n in range(500):
        seen.note("bob", f"sensor-{n}")
    seen.store()
    assert len(stored()) == 300
    seen.note("bob", "sensor-499")
    seen.store()
    assert len(stored()) == 301


def test_user_with_many_client_ids_does_not_displace_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_ids, "MAX_NOTED", 300)
    monkeypatch.setattr(client_ids, "MAX_NOTED_OF_USER", 100)
    seen = SeenClientIds()
    for _ in range(3):
        for n in range(500):
            seen.note("mallory", f"made up {n}")
        seen.note("bob", "sensor-1", logged_in=True)
        assert len(seen._noted) <= 101
        seen.store()
        assert known_after_a_restart().known.knows("bob", "sensor-1")


def test_client_id_beyond_the_bound_is_noted_after_the_next_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_ids, "MAX_NOTED_OF_USER", 2)
    seen = SeenClientIds()
    for n in range(3):
        seen.note("bob", f"sensor-{n}")
    seen.note("bob", "sensor-0", logged_in=True)
    seen.store()
    seen.note("bob", "sensor-2")
    seen.store()
    assert len(stored()) == 3
    assert known_after_a_restart().known.knows("bob", "sensor-0"), "a login without room for more is still noted"


def test_store_writes_a_bounded_number_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_ids, "MAX_STORED_AT_ONCE", 250)
    seen = SeenClientIds()
    for n in range(600):
        seen.note("bob", f"sensor-{n}")
    written = []
    for _ in range(4):
        seen.store()
        written.append(len(stored()))
    assert written == [250, 500, 600, 600]


def test_noted_entries_are_kept_while_the_database_is_gone(prepared: Settings) -> None:
    seen = SeenClientIds()
    seen.note("bob", "sensor-1")
    with database_gone(prepared), pytest.raises(peewee.OperationalError):
        seen.store()
    seen.store()
    assert all_of_user("bob") == ["sensor-1"]


def test_client_id_that_is_not_unicode_does_not_block_others() -> None:
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


def test_client_id_of_a_login_is_known_at_once_and_after_a_restart() -> None:
    seen = SeenClientIds()
    seen.note("bob", "sensor-1", logged_in=True)
    assert seen.known.knows("bob", "sensor-1")
    seen.store()
    assert known_after_a_restart().known.knows("bob", "sensor-1")


def test_client_id_of_an_acl_request_is_stored_but_not_known() -> None:
    seen = SeenClientIds()
    see(seen, "sensor-1")
    assert all_of_user("bob") == ["sensor-1"]
    assert not seen.known.knows("bob", "sensor-1")
    assert not known_after_a_restart().known.knows("bob", "sensor-1")


def test_client_id_stays_known_after_acl_requests() -> None:
    seen = SeenClientIds()
    for logged_in in (False, True, False):
        seen.note("bob", "sensor-1", logged_in=logged_in)
        seen.store()
    seen.delete_expired()
    seen.note("bob", "sensor-1")
    seen.store()
    assert known_after_a_restart().known.knows("bob", "sensor-1")


def test_login_and_access_noted_together_are_stored_as_login() -> None:
    for first in (True, False):
        seen = SeenClientIds()
        seen.note(f"bob-{first}", "sensor-1", logged_in=first)
        seen.note(f"bob-{first}", "sensor-1", logged_in=not first)
        seen.store()
        assert known_after_a_restart().known.knows(f"bob-{first}", "sensor-1")


def test_client_ids_stored_by_other_processes_are_loaded() -> None:
    one, other = SeenClientIds(), SeenClientIds()
    one.load_stored()
    for number in range(2):
        other.note("bob", f"sensor-{number}", logged_in=True)
        other.store()
        one.load_stored()
        assert one.known.knows("bob", f"sensor-{number}")


def test_more_client_ids_of_logins_than_of_accesses_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_memory_of_stored_client_ids_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_ids, "MAX_STORED", 100)
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


def test_known_client_ids_are_kept_while_the_database_is_gone(prepared: Settings) -> None:
    seen = SeenClientIds()
    seen.note("bob", "sensor-1", logged_in=True)
    with database_gone(prepared), pytest.raises(peewee.OperationalError):
        seen.load_stored()
    assert seen.known.knows("bob", "sensor-1")
