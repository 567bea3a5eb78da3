"""The clients that brokers' plugins report: stored, listed, replaced and disconnected."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import peewee
import pytest

from authsvc.activity import live_clients
from authsvc.activity.live_clients import LiveClientFilter, LiveClientRecord, brokers, disconnect, search
from authsvc.errors import NotFound
from authsvc.storage.changes import Change, ChangeKind, changes_since
from authsvc.storage.database import session
from authsvc.storage.models import Broker, LiveClient
from tests.actors import ALICE
from tests.live_clients import BOOT, OTHER_BOOT, SINCE, age_reports, connected, report
from tests.registry.environment import in_parallel
from tests.storage.environment import all_rows, database_gone, events, loaded_policy, version

if TYPE_CHECKING:
    from collections.abc import Iterator

    from authsvc.settings import Settings

pytestmark = pytest.mark.usefixtures("prepared")

SECOND = timedelta(seconds=1)


def ids(broker: str = "", username: str = "", text: str = "") -> list[str]:
    """Return the client ids of the first page of a list."""
    return [each.client_id for each in search(LiveClientFilter(broker, username, text), 1, 50).items]


@contextmanager
def plugin_that_disconnects() -> Iterator[None]:
    """Report the end of each connection that a change of policy names, as a broker's plugin does."""
    stop = threading.Event()
    before = version()

    def answer() -> None:
        while not stop.wait(0.02):
            with session():
                names = [change.name for change in changes_since(before) or () if change.kind is ChangeKind.CLIENT]
            if names:
                report(disconnected=tuple(int(name.removeprefix(f"{BOOT}/")) for name in names))

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_reported_clients_are_listed_newest_first() -> None:
    report(connected(1), connected(3, "bertha", address=None, protocol="MQTT 3.1.1", credential="token"))
    report(connected(2))
    assert ids() == ["c-3", "c-2", "c-1"]
    assert search(LiveClientFilter(), 1, 50).items[0] == LiveClientRecord(
        "plant", "c-3", "bertha", None, "MQTT 3.1.1", SINCE + 3 * SECOND, "token"
    )


def test_list_is_paged() -> None:
    report(*(connected(number) for number in range(5)))
    page = search(LiveClientFilter(), 2, 2)
    assert [each.client_id for each in page.items] == ["c-2", "c-1"]
    assert (page.total, page.page, page.per_page) == (5, 2, 2)


def test_list_is_filtered_by_broker_username_and_part_of_a_text() -> None:
    report(connected(1), connected(2, "bobby", "Press/7", address="2001:db8::1"))
    report(connected(1, "bob", "other"), boot=OTHER_BOOT, name="hall")
    assert ids(broker="hall") == ["other"]
    assert sorted(ids(username="bob")) == ["c-1", "other"]
    assert ids(text="press/") == ids(text="db8::") == ids(text="bobb") == ["Press/7"]
    assert ids(broker="plant", username="bob", text="c-") == ["c-1"]
    assert ids(broker="plan") == ids(username="bo") == ids(text="%") == ids(text="_") == []


def test_disconnected_clients_are_no_longer_listed() -> None:
    report(connected(1), connected(2), connected(3))
    report(connected(4), disconnected=(1, 3, 4, 99))
    assert ids() == ["c-2"]


def test_repeated_report_changes_nothing() -> None:
    for _ in range(2):
        report(connected(1), connected(2), connected(1), disconnected=(2,))
        assert ids() == ["c-1"]


def test_later_report_of_a_connection_replaces_its_fields() -> None:
    report(connected(1, credential="password"))
    report(connected(1, "bertha", "new", address=None, credential="certificate"))
    (client,) = search(LiveClientFilter(), 1, 50).items
    assert (client.username, client.client_id, client.address, client.credential) == (
        "bertha",
        "new",
        None,
        "certificate",
    )


def test_greater_generation_replaces_the_clients_of_this_boot_only() -> None:
    report(connected(1), connected(2))
    report(connected(1, client_id="other"), boot=OTHER_BOOT, name="hall")
    report(connected(2), generation=2)
    assert sorted(ids()) == ["c-2", "other"]
    report(connected(3), generation=2)
    assert sorted(ids()) == ["c-2", "c-3", "other"]
    report(generation=3)
    assert ids() == ["other"]


def test_older_generation_is_ignored() -> None:
    report(connected(1), generation=2)
    age_reports(10 * SECOND)
    before = all_rows()
    report(connected(2), disconnected=(1,), generation=1)
    assert all_rows() == before


def test_reports_that_arrive_at_once_end_with_the_latest_generation() -> None:
    in_parallel(8, lambda number: report(connected(number), generation=number + 1))
    assert ids() == ["c-7"]
    in_parallel(8, lambda number: report(connected(number), generation=8))
    assert len(ids()) == 8


def test_ten_thousand_clients_are_reported_listed_and_replaced() -> None:
    for first in range(0, 10_000, 500):
        report(*(connected(number, f"user-{number % 100}") for number in range(first, first + 500)))
    assert search(LiveClientFilter(), 1, 50).total == 10_000
    assert ids()[0] == "c-9999"
    assert search(LiveClientFilter(username="user-7"), 1, 1000).total == 100
    assert ids(text="c-1234") == ["c-1234"]
    report(*(connected(number) for number in range(10_000, 10_500)), generation=2)
    assert search(LiveClientFilter(), 1, 50).total == 500
    with session():
        assert LiveClient.select().count() == 500


def test_silent_broker_is_not_live_and_its_clients_are_not_listed() -> None:
    report(connected(1))
    report(connected(1, client_id="other"), boot=OTHER_BOOT, name="hall")
    age_reports(14 * SECOND)
    assert len(ids()) == 2
    age_reports(16 * SECOND)
    assert ids() == ["other"]
    with pytest.raises(NotFound):
        disconnect(ALICE, "plant", "c-1")
    report()
    assert len(ids()) == 2


def test_brokers_are_shown_with_their_number_of_clients() -> None:
    report(connected(1), connected(2))
    report(boot=OTHER_BOOT, name="hall")
    age_reports(20 * SECOND, OTHER_BOOT)
    hall, plant = brokers()
    assert (hall.name, hall.clients, hall.is_live) == ("hall", 0, False)
    assert (plant.name, plant.plugin_version, plant.clients, plant.is_live) == ("plant", "0.1.0", 2, True)
    assert plant.reported_at - hall.reported_at > 19 * SECOND


def test_restarted_broker_is_shown_once() -> None:
    report(connected(1), connected(2))
    age_reports(20 * SECOND)
    report(connected(1, client_id="again"), boot=OTHER_BOOT)
    assert [(each.name, each.clients, each.is_live) for each in brokers()] == [("plant", 1, True)]
    assert ids() == ["again"]


def test_brokers_that_are_silent_for_an_hour_are_deleted() -> None:
    report(connected(1))
    report(connected(1), boot=OTHER_BOOT, name="hall")
    age_reports(timedelta(minutes=61))
    age_reports(timedelta(minutes=59), OTHER_BOOT)
    live_clients.delete_expired()
    with session():
        assert [row.boot for row in Broker.select()] == [OTHER_BOOT]
        assert LiveClient.select().count() == 1
    report(connected(1))
    assert ids() == ["c-1"]


def test_texts_that_no_column_could_hold_are_shortened_and_stay_different() -> None:
    long = "\U0001f600" * 70_000
    report(connected(1, "u" * 500, long), connected(2, client_id=long + "x"), connected(3, client_id="a\0b\udcff"))
    odd, *shortened = ids()
    assert odd == "a\ufffdb?"
    assert len(set(shortened)) == 2
    assert {len(each) for each in shortened} == {200}
    usernames = {each.username for each in search(LiveClientFilter(), 1, 50).items}
    assert {len(username) for username in usernames} == {3, 255}


def test_disconnect_announces_the_connection_and_returns_when_it_has_gone() -> None:
    report(connected(7), connected(8))
    before, known = version(), loaded_policy()
    started = time.monotonic()
    with plugin_that_disconnects():
        assert disconnect(ALICE, "plant", "c-7")
    assert time.monotonic() - started < live_clients.CONFIRMED_WITHIN_SECONDS
    assert ids() == ["c-8"]
    with session():
        assert changes_since(before) == {Change(ChangeKind.CLIENT, f"{BOOT}/7")}
    known.catch_up()
    assert known.snapshot.version == before + 1
    event = events()[-1]
    assert (event.actor, event.action, event.target) == ("alice", "client.disconnect", "user:bob")
    assert event.after == {"broker": "plant", "clientId": "c-7"}


def test_disconnect_that_the_broker_does_not_confirm_is_false_after_two_seconds() -> None:
    report(connected(7))
    started = time.monotonic()
    assert not disconnect(ALICE, "plant", "c-7")
    assert 2 <= time.monotonic() - started < 4


def test_reconnected_client_counts_as_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    report(connected(7, client_id="press"))
    monkeypatch.setattr(live_clients, "_order", lambda *_: report(connected(8, client_id="press"), disconnected=(7,)))
    assert disconnect(ALICE, "plant", "press")
    assert ids() == ["press"]


def test_client_that_is_not_connected_cannot_be_disconnected() -> None:
    report(connected(7))
    before = all_rows()
    for broker, client_id in (("plant", "c-8"), ("hall", "c-7"), ("", "")):
        with pytest.raises(NotFound) as refused:
            disconnect(ALICE, broker, client_id)
        assert refused.value.code == "client-not-connected"
    assert all_rows() == before


def test_all_clients_of_a_user_are_disconnected() -> None:
    report(connected(1), connected(2), connected(3, "bertha"), connected(4, client_id="c-1"))
    with plugin_that_disconnects():
        result = live_clients.disconnect_user(ALICE, "bob")
    assert (sorted(result.ended), result.failed) == (["c-1", "c-2"], [])
    assert ids() == ["c-3"]
    assert [event.action for event in events()].count("client.disconnect") == 3


def test_clients_that_stay_are_reported_as_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_clients, "CONFIRMED_WITHIN_SECONDS", 0.1)
    report(connected(1), connected(2))
    monkeypatch.setattr(live_clients, "_order", lambda *_: report(disconnected=(1,)))
    result = live_clients.disconnect_user(ALICE, "bob")
    assert (result.ended, result.failed) == (["c-1"], ["c-2"])


def test_user_without_clients_has_an_empty_result() -> None:
    before = all_rows()
    result = live_clients.disconnect_user(ALICE, "bob")
    assert (result.ended, result.failed) == ([], [])
    assert all_rows() == before


def test_store_raises_the_errors_of_the_database(prepared: Settings) -> None:
    with database_gone(prepared), pytest.raises(peewee.OperationalError):
        report(connected(1))
    report(connected(1))
    assert ids() == ["c-1"]
