"""Denials: what users were lately denied, noted in memory, written down later, and told with what would cure it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import peewee
import pytest
import time_machine

from authsvc.accounts import users
from authsvc.activity import denials
from authsvc.activity.denials import PER_USER, Denials
from authsvc.errors import NotFound
from authsvc.policy.access import READ, SUBSCRIBE, WRITE
from authsvc.policy.decision import MAX_DENIED_TOPIC, Denial, Reason
from authsvc.storage.database import session, transaction
from authsvc.storage.models import DenialRow, User
from tests.actors import ALICE, mqtt
from tests.storage.environment import change_user, database_gone, make_bob, make_user

if TYPE_CHECKING:
    from authsvc.settings import Settings

pytestmark = pytest.mark.usefixtures("bob")

NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)


@pytest.fixture
def bob(prepared: Settings) -> None:
    make_bob()


def denial(topic: str = "a", username: str = "bob", client_id: str = "sensor-1", access: int = WRITE) -> Denial:
    return Denial(username, client_id, topic, access, Reason.NO_PERMISSION)


def deny(noted: Denials, *denied: Denial, at: datetime = NOW) -> None:
    """Note and write down."""
    with time_machine.travel(at, tick=False):
        for each in denied:
            noted.note(each)
        noted.store()


def told(username: str = "bob", at: datetime = NOW) -> list[denials.DenialRecord]:
    with time_machine.travel(at, tick=False):
        return denials.of_user(username)


def rows() -> int:
    with session():
        count: int = DenialRow.select().count()
        return count


def topics(username: str = "bob", at: datetime = NOW) -> list[str]:
    return [record.denial.topic for record in told(username, at)]


def test_what_was_noted_is_written_down_once_and_counted() -> None:
    noted = Denials()
    for _ in range(3):
        noted.note(denial())
    noted.note(denial("b"))
    assert rows() == 0
    noted.store()
    noted.store()
    found = {record.denial.topic: record.count for record in denials.of_user("bob")}
    assert found == {"a": 3, "b": 1}


def test_a_denial_is_told_with_all_that_is_known_of_it() -> None:
    noted = Denials()
    deny(noted, denial("lines/+", access=SUBSCRIBE))
    deny(noted, denial("lines/+", access=SUBSCRIBE), at=NOW + timedelta(minutes=1))
    (record,) = told()
    assert record.denial == Denial("bob", "sensor-1", "lines/+", SUBSCRIBE, Reason.NO_PERMISSION)
    assert (record.count, record.first_seen, record.last_seen) == (2, NOW, NOW + timedelta(minutes=1))
    assert record.advice.permission == mqtt("read", "lines/+")


def test_what_differs_in_topic_access_or_reason_is_another_denial_and_a_new_client_id_is_none() -> None:
    noted = Denials()
    deny(noted, denial(), denial("b"), denial(access=READ), denial()._replace(reason=Reason.USER_DISABLED))
    assert rows() == 4
    deny(noted, denial(client_id="sensor-2"), at=NOW + timedelta(seconds=1))
    assert rows() == 4
    assert (told()[0].count, told()[0].denial.client_id) == (2, "sensor-2")


def test_two_workers_add_up() -> None:
    first, second = Denials(), Denials()
    deny(first, denial(), denial())
    deny(second, denial(), at=NOW + timedelta(seconds=5))
    (record,) = told()
    assert (record.count, record.first_seen, record.last_seen) == (3, NOW, NOW + timedelta(seconds=5))


def test_workers_that_write_at_once_lose_nothing_and_do_not_block_one_another() -> None:
    make_user("bertha")
    workers = [Denials() for _ in range(4)]
    for place, worker in enumerate(workers):
        for topic in range(PER_USER):
            worker.note(denial(str(topic), ("bob", "bertha")[place % 2]))
            worker.note(denial(str(topic), ("bertha", "bob")[place % 2]))
    with ThreadPoolExecutor(len(workers)) as pool:
        list(pool.map(lambda worker: worker.store(), workers, timeout=60))
    for username in ("bob", "bertha"):
        assert {record.denial.topic: record.count for record in denials.of_user(username)} == {
            str(topic): 4 for topic in range(PER_USER)
        }


def test_the_latest_come_first_and_not_more_than_a_few_are_kept() -> None:
    noted = Denials()
    make_user("bertha")
    deny(noted, denial("hers", "bertha"))
    for n in range(PER_USER + 3):
        deny(noted, denial(str(n)), at=NOW + timedelta(seconds=n))
    assert topics() == [str(n) for n in reversed(range(3, PER_USER + 3))]
    assert rows() == PER_USER + 1
    assert topics("bertha") == ["hers"]


def test_a_flood_of_topics_leaves_a_few_rows_and_room_for_others() -> None:
    make_user("bertha")
    noted = Denials()
    for n in range(5000):
        noted.note(denial(str(n)))
    noted.note(denial("hers", "bertha"))
    noted.store()
    assert noted.dropped == 5000 - PER_USER
    assert rows() == PER_USER + 1
    assert topics("bertha", datetime.now(UTC)) == ["hers"]


def test_a_flood_by_many_users_is_bounded_too_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denials, "MAX_NOTED", 3)
    noted = Denials()
    for n in range(5):
        noted.note(denial(username=f"u{n}"))
    noted.note(denial(username="u0"))
    assert noted.dropped == 2
    noted.store()
    deny(noted, denial())
    assert topics() == ["a"]


def test_of_somebody_who_is_no_user_nothing_is_written_down() -> None:
    deny(Denials(), denial(username="nemo"), denial())
    assert rows() == 1
    with pytest.raises(NotFound):
        denials.of_user("nemo")


def test_a_users_denials_go_with_the_user_and_do_not_come_back_with_its_name() -> None:
    noted = Denials()
    deny(noted, denial())
    users.delete(ALICE, "bob")
    assert rows() == 0
    deny(noted, denial())
    make_bob()
    assert topics() == []


def test_a_user_that_is_being_removed_while_its_denials_are_written_leaves_none() -> None:
    noted = Denials()
    deny(noted, denial("before"))
    for topic in ("before", "then"):
        noted.note(denial(topic))
    with ThreadPoolExecutor(1) as beside:
        with transaction():
            User.delete().where(User.username == "bob").execute()
            writing = beside.submit(noted.store)
            with pytest.raises(TimeoutError):
                writing.result(timeout=0.3)
        writing.result(timeout=30)
    assert rows() == 0


def test_what_is_long_past_is_neither_told_nor_kept() -> None:
    noted = Denials()
    deny(noted, denial("long ago"), at=NOW - timedelta(days=7, seconds=1))
    deny(noted, denial("lately"), at=NOW - timedelta(days=6))
    assert topics() == ["lately"]
    with time_machine.travel(NOW, tick=False):
        denials.delete_expired()
    assert rows() == 1


def test_what_a_database_that_is_gone_keeps_from_being_written_stays_noted(prepared: Settings) -> None:
    noted = Denials()
    noted.note(denial())
    with database_gone(prepared):
        for _ in range(2):
            with pytest.raises(peewee.OperationalError):
                noted.store()
            noted.note(denial())
    noted.store()
    assert [record.count for record in denials.of_user("bob")] == [3]


def test_a_topic_of_which_only_the_beginning_is_kept_has_no_remedy() -> None:
    deny(Denials(), denial("t" * MAX_DENIED_TOPIC)._replace(whole=False), denial("t" * MAX_DENIED_TOPIC))
    remedies = {record.denial.whole: record.advice.permission for record in told()}
    assert remedies == {False: None, True: mqtt("write", "t" * MAX_DENIED_TOPIC)}


@pytest.mark.parametrize("topic", ["\ud800", "a/#/b", "a+", "/" * 500, "$share//a"])
def test_a_disabled_users_senseless_topic_is_told_without_a_remedy(topic: str) -> None:
    # Whoever is disabled is denied before anybody looks at the topic.
    deny(Denials(), denial(topic, client_id="\ud800")._replace(reason=Reason.USER_DISABLED, access=SUBSCRIBE))
    (record,) = told()
    assert record.advice.permission is None
    assert (record.denial.client_id, record.count) == ("?", 1)


def test_a_denial_that_was_cured_is_said_to_be() -> None:
    deny(Denials(), denial())
    (before,) = told()
    assert before.advice.permission == mqtt("write", "a")
    users.allow(ALICE, "bob", before.advice.permission)
    (after,) = told()
    assert (after.advice.permission, after.advice.cured) == (None, True)


def test_a_denial_by_a_rule_names_the_rule() -> None:
    deny(Denials(), denial())
    change_user("bob", permissions=(mqtt("write", "#", "deny"),))
    (record,) = told()
    assert record.advice.permission is None
    assert "`deny write #` of the user's own" in record.advice.note


def test_a_denied_login_is_told_without_topic_and_remedy() -> None:
    deny(Denials(), Denial("bob", "sensor-1", "", 0, Reason.WRONG_PASSWORD))
    (record,) = told()
    assert (record.denial.topic, record.advice.permission) == ("", None)
    assert "password" in record.advice.note
