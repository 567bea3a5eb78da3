"""Denials of users: noted in memory, stored later, and listed with advice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

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
from tests.storage.environment import change_user, create_bob, create_user, database_gone

if TYPE_CHECKING:
    from authsvc.settings import Settings

pytestmark = pytest.mark.usefixtures("bob")

NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)


@pytest.fixture
def bob(prepared: Settings) -> None:
    create_bob()


def denial(topic: str = "a", username: str = "bob", client_id: str = "sensor-1", access: int = WRITE) -> Denial:
    return Denial(username, client_id, topic, access, Reason.NO_PERMISSION)


def deny(noted: Denials, *denied: Denial, at: datetime = NOW) -> None:
    """Note and store these denials."""
    with time_machine.travel(at, tick=False):
        for each in denied:
            noted.note(each)
        noted.store()


def records(username: str = "bob", at: datetime = NOW) -> list[denials.DenialRecord]:
    with time_machine.travel(at, tick=False):
        return denials.of_user(username)


def rows() -> int:
    with session():
        count: int = DenialRow.select().count()
        return count


def topics(username: str = "bob", at: datetime = NOW) -> list[str]:
    return [record.denial.topic for record in records(username, at)]


def test_equal_denials_are_stored_once_and_counted() -> None:
    noted = Denials()
    for _ in range(3):
        noted.note(denial())
    noted.note(denial("b"))
    assert rows() == 0
    noted.store()
    noted.store()
    found = {record.denial.topic: record.count for record in denials.of_user("bob")}
    assert found == {"a": 3, "b": 1}


def test_denial_record_contains_request_times_and_advice() -> None:
    noted = Denials()
    deny(noted, denial("lines/+", access=SUBSCRIBE))
    deny(noted, denial("lines/+", access=SUBSCRIBE), at=NOW + timedelta(minutes=1))
    (record,) = records()
    assert record.denial == Denial("bob", "sensor-1", "lines/+", SUBSCRIBE, Reason.NO_PERMISSION)
    assert (record.count, record.first_seen, record.last_seen) == (2, NOW, NOW + timedelta(minutes=1))
    assert record.advice.permission == mqtt("read", "lines/+")


def test_topic_access_and_reason_identify_a_denial_but_not_the_client_id() -> None:
    noted = Denials()
    deny(noted, denial(), denial("b"), denial(access=READ), denial()._replace(reason=Reason.USER_DISABLED))
    assert rows() == 4
    deny(noted, denial(client_id="sensor-2"), at=NOW + timedelta(seconds=1))
    assert rows() == 4
    assert (records()[0].count, records()[0].denial.client_id) == (2, "sensor-2")


def test_denials_of_two_workers_are_added() -> None:
    first, second = Denials(), Denials()
    deny(first, denial(), denial())
    deny(second, denial(), at=NOW + timedelta(seconds=5))
    (record,) = records()
    assert (record.count, record.first_seen, record.last_seen) == (3, NOW, NOW + timedelta(seconds=5))


def test_workers_can_store_denials_at_once() -> None:
    create_user("bertha")
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


def test_only_the_latest_denials_are_kept_latest_first() -> None:
    noted = Denials()
    create_user("bertha")
    deny(noted, denial("hers", "bertha"))
    for n in range(PER_USER + 3):
        deny(noted, denial(str(n)), at=NOW + timedelta(seconds=n))
    assert topics() == [str(n) for n in reversed(range(3, PER_USER + 3))]
    assert rows() == PER_USER + 1
    assert topics("bertha") == ["hers"]


def test_flood_of_topics_does_not_displace_denials_of_others() -> None:
    create_user("bertha")
    noted = Denials()
    for n in range(5000):
        noted.note(denial(str(n)))
    noted.note(denial("hers", "bertha"))
    noted.store()
    assert noted.dropped == 5000 - PER_USER
    assert rows() == PER_USER + 1
    assert topics("bertha", datetime.now(UTC)) == ["hers"]


def test_flood_by_many_users_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denials, "MAX_NOTED", 3)
    noted = Denials()
    for n in range(5):
        noted.note(denial(username=f"u{n}"))
    noted.note(denial(username="u0"))
    assert noted.dropped == 2
    noted.store()
    deny(noted, denial())
    assert topics() == ["a"]


def test_denials_of_unknown_users_are_not_stored() -> None:
    deny(Denials(), denial(username="nemo"), denial())
    assert rows() == 1
    with pytest.raises(NotFound):
        denials.of_user("nemo")


def test_deleted_user_loses_its_denials_even_if_created_again() -> None:
    noted = Denials()
    deny(noted, denial())
    users.delete(ALICE, "bob")
    assert rows() == 0
    deny(noted, denial())
    create_bob()
    assert topics() == []


def test_user_deleted_during_the_write_leaves_no_denials() -> None:
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


def test_expired_denials_are_hidden_and_deleted() -> None:
    noted = Denials()
    deny(noted, denial("long ago"), at=NOW - timedelta(days=7, seconds=1))
    deny(noted, denial("recent"), at=NOW - timedelta(days=6))
    assert topics() == ["recent"]
    with time_machine.travel(NOW, tick=False):
        denials.delete_expired()
    assert rows() == 1


def test_noted_entries_are_kept_while_the_database_is_gone(prepared: Settings) -> None:
    noted = Denials()
    noted.note(denial())
    with database_gone(prepared):
        for _ in range(2):
            with pytest.raises(peewee.OperationalError):
                noted.store()
            noted.note(denial())
    noted.store()
    assert [record.count for record in denials.of_user("bob")] == [3]


def test_truncated_topic_has_no_suggested_permission() -> None:
    deny(Denials(), denial("t" * MAX_DENIED_TOPIC)._replace(whole=False), denial("t" * MAX_DENIED_TOPIC))
    advice = {record.denial.whole: record.advice.permission for record in records()}
    assert advice == {False: None, True: mqtt("write", "t" * MAX_DENIED_TOPIC)}


@pytest.mark.parametrize("topic", ["\ud800", "a/#/b", "a+", "/" * 500, "$share//a"])
def test_invalid_topic_of_a_disabled_user_has_no_suggested_permission(topic: str) -> None:
    # A disabled user is denied before the topic is checked.
    deny(Denials(), denial(topic, client_id="\ud800")._replace(reason=Reason.USER_DISABLED, access=SUBSCRIBE))
    (record,) = records()
    assert record.advice.permission is None
    assert (record.denial.client_id, record.count) == ("?", 1)


def test_advice_says_if_the_request_is_allowed_now() -> None:
    deny(Denials(), denial())
    (before,) = records()
    assert before.advice.permission == mqtt("write", "a")
    users.allow(ALICE, "bob", before.advice.permission)
    (after,) = records()
    assert (after.advice.permission, after.advice.cured) == (None, True)


def test_advice_names_the_deny_rule() -> None:
    deny(Denials(), denial())
    change_user("bob", permissions=(mqtt("write", "#", "deny"),))
    (record,) = records()
    assert record.advice.permission is None
    assert "`deny write #` of the user's own" in record.advice.note


def test_denied_login_has_no_topic_and_no_suggested_permission() -> None:
    deny(Denials(), Denial("bob", "sensor-1", "", 0, Reason.WRONG_PASSWORD))
    (record,) = records()
    assert (record.denial.topic, record.advice.permission) == ("", None)
    assert "password" in record.advice.note


def found(at: datetime = NOW, **wanted: Any) -> list[tuple[str, str]]:
    with time_machine.travel(at, tick=False):
        page = denials.search(denials.DenialFilter(**wanted), 1, 50)
    assert page.total == len(page.items)
    return [(record.denial.username, record.denial.topic) for record in page.items]


def test_denials_of_all_users_are_searched_latest_first() -> None:
    create_user("bertha")
    noted = Denials()
    deny(noted, denial("plant/a"), at=NOW - timedelta(hours=2))
    deny(noted, denial("alarms", "bertha", "Press/1"), at=NOW - timedelta(hours=1))
    deny(noted, Denial("bob", "sensor-2", "", 0, Reason.WRONG_PASSWORD), denial("old"), at=NOW)
    everything = [("bob", ""), ("bob", "old"), ("bertha", "alarms"), ("bob", "plant/a")]
    assert sorted(found()) == sorted(everything)
    assert found()[2:] == everything[2:]
    assert found(username="bertha") == found(text="press/1") == found(text="BERTH") == [("bertha", "alarms")]
    assert found(text="plant") == [("bob", "plant/a")]
    assert found(reason="wrong-password") == found(kind="login") == [("bob", "")]
    assert len(found(kind="topic")) == 3
    assert found(after=NOW - timedelta(hours=1), before=NOW) == [("bertha", "alarms")]
    assert found(text="%") == found(username="ber") == []
    assert found(at=NOW + timedelta(days=8)) == []


def test_advice_for_denials_of_all_users_follows_the_rules_of_each_user() -> None:
    create_user("bertha", permissions=(mqtt("write", "a"),))
    deny(Denials(), denial("a"), denial("a", "bertha"))
    with time_machine.travel(NOW, tick=False):
        records = {one.denial.username: one.advice for one in denials.search(denials.DenialFilter(), 1, 50).items}
    assert records["bob"].permission == mqtt("write", "a")
    assert records["bertha"].cured
    users.delete(ALICE, "bertha")
    assert found() == [("bob", "a")]
