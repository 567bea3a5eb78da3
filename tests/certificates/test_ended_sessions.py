"""Live sessions end with the change that calls for it: ordered in its transaction, carried out once, reported."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from authsvc import sessions, sightings, takeover, users
from authsvc.background import certificate_jobs
from authsvc.errors import Conflict
from authsvc.sightings import PER_USER, Sightings
from authsvc.snapshot import GrantType
from authsvc.storage.database import database_time, session
from authsvc.storage.models import SessionEnding
from authsvc.takeover import Broker, broker_under
from tests.broker import free_port
from tests.certificates.gate import ACCEPTED, NOT_AUTHORIZED, Gate
from tests.certificates.scene import BOTH_WAYS, ON_SQLITE, Scene, orders
from tests.edge.callers import problem_of
from tests.people import BOBS_PASSWORD, OPERATOR, mqtt
from tests.registry.scene import at_once
from tests.storage.scene import events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from authsvc.audit import Event
    from tests.certificates.gate import Visit

SECOND, MINUTE, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A broker that lets everybody in."""
    with Gate() as gate:
        yield gate


def broker_at(port: int) -> Broker:
    return Broker("127.0.0.1", port, "authsvc-sessions", "se/cret", tls=False, ca_file=None)


def seen(username: str, *client_ids: str) -> None:
    """Let brokers have let a user in under these client ids, one after the other."""
    for client_id in client_ids:
        noted = Sightings()
        noted.note(username, client_id)
        noted.store()


def time_passes(passed: timedelta) -> None:
    """Let all orders have been given, and taken, so much earlier."""
    with session():
        for row in SessionEnding.select():
            row.requested_at -= passed
            row.claimed_at = row.claimed_at and row.claimed_at - passed
            row.save()


def carry_out(broker: Broker) -> int:
    """Carry out what was ordered, once every worker has had the time to write down whom it saw."""
    time_passes(SECOND)
    return sessions.carry_out(broker)


def reports() -> list[Event]:
    return [each for each in events() if each.action == "user.disconnect"]


# What calls for it.

ENDS: dict[str, tuple[Callable[[Scene], object], str]] = {
    "disabled": (lambda scene: scene.changes(enabled=False), "user disabled"),
    "password changed": (lambda scene: scene.changes(password="bob's next one"), "password changed"),
    "password taken": (lambda scene: scene.changes(password=None), "password changed"),
    "grant type taken": (lambda scene: scene.changes(grant_types=frozenset({"password"})), "grant type removed"),
    "removed": (lambda _: users.delete(OPERATOR, "bob"), "user removed"),
    "revoked": (lambda scene: scene.revokes(scene.certifies("bob")), "certificate revoked"),
}
GOES_ON: dict[str, Callable[[Scene], object]] = {
    "another permission": lambda scene: scene.changes(permissions=(mqtt("read", "news"),)),
    "another role": lambda scene: scene.changes(roles=("minimum-access",)),
    "another grant type": lambda scene: scene.changes(grant_types=BOTH_WAYS | {GrantType.TOKEN}),
    "enabled as before": lambda scene: scene.changes(enabled=True),
    "a certificate": lambda scene: scene.certifies("bob"),
}


@ON_SQLITE
@pytest.mark.parametrize(("end", "cause"), ENDS.values(), ids=ENDS.keys())
def test_what_ends_a_users_access_orders_the_end_of_its_sessions(scene: Scene, end: Any, cause: str) -> None:
    end(scene)
    assert orders() == [("bob", cause)]


@ON_SQLITE
@pytest.mark.parametrize("change", GOES_ON.values(), ids=GOES_ON.keys())
def test_what_leaves_its_access_alone_leaves_its_sessions_alone(scene: Scene, change: Any) -> None:
    change(scene)
    assert orders() == []


def test_a_change_that_is_not_made_orders_nothing(scene: Scene) -> None:
    with pytest.raises(Conflict):
        scene.changes("admin", enabled=False)
    with pytest.raises(Conflict):
        users.delete(OPERATOR, "admin")
    assert orders() == []


# Carrying it out.


@ON_SQLITE
def test_each_session_is_ended_by_connecting_under_its_client_id(scene: Scene, gate: Gate) -> None:
    seen("bob", "press-7", "press-8")
    seen("carol", "press-9")
    scene.changes(enabled=False)
    assert carry_out(broker_at(gate.port)) == 1
    assert {visit.client_id for visit in gate.visits} == {"press-7", "press-8"}
    assert {visit[1:] for visit in gate.visits} == {("authsvc-sessions", "se/cret", True)}


@ON_SQLITE
def test_what_was_done_is_in_the_audit_trail(scene: Scene, gate: Gate) -> None:
    seen("bob", "press-7")
    scene.changes(enabled=False)
    carry_out(broker_at(gate.port))
    (report,) = reports()
    assert (report.actor, report.target) == ("authsvc", "user:bob")
    assert report.after == {"cause": "user disabled", "ended": ["press-7"], "failed": []}
    with session():
        (row,) = SessionEnding.select()
        assert (row.ended, row.failed) == (["press-7"], [])
        assert row.finished_at is not None


def test_an_order_waits_until_every_worker_has_written_down_whom_it_saw(scene: Scene, gate: Gate) -> None:
    scene.changes(enabled=False)
    assert sessions.carry_out(broker_at(gate.port)) == 0
    assert carry_out(broker_at(gate.port)) == 1


def test_of_several_workers_one_carries_out_each_order(scene: Scene, gate: Gate) -> None:
    names = [f"press-{number}" for number in range(6)]
    for name in names:
        scene.moves_in(name)
        seen(name, f"{name}-a", f"{name}-b")
        scene.changes(name, enabled=False)
    time_passes(SECOND)
    done = at_once(3, lambda _: sessions.carry_out(broker_at(gate.port)))
    assert sum(done) == len(names)
    assert len(reports()) == len(names)
    assert sorted(visit.client_id for visit in gate.visits) == sorted(f"{name}-{end}" for name in names for end in "ab")
    assert sessions.carry_out(broker_at(gate.port)) == 0


def test_what_a_worker_had_in_hand_when_it_died_is_taken_by_another(scene: Scene, gate: Gate) -> None:
    seen("bob", "press-7")
    scene.changes(enabled=False)
    time_passes(SECOND)
    with session():
        SessionEnding.update(claimed_at=database_time()).execute()
    assert sessions.carry_out(broker_at(gate.port)) == 0
    time_passes(MINUTE)
    assert sessions.carry_out(broker_at(gate.port)) == 0
    time_passes(2 * MINUTE)
    assert sessions.carry_out(broker_at(gate.port)) == 1
    assert len(gate.visits) == 1


@ON_SQLITE
def test_orders_are_carried_out_in_the_order_they_were_given(scene: Scene, gate: Gate) -> None:
    for name in ("carol", "dave"):
        scene.moves_in(name)
    for name in ("bob", "carol", "dave"):
        seen(name, f"{name}-1")
        scene.changes(name, enabled=False)
    assert carry_out(broker_at(gate.port)) == 3
    assert [visit.client_id for visit in gate.visits] == ["bob-1", "carol-1", "dave-1"]


@ON_SQLITE
def test_a_user_who_was_never_seen_is_reported_all_the_same(scene: Scene, gate: Gate) -> None:
    scene.changes(enabled=False)
    assert carry_out(broker_at(gate.port)) == 1
    assert gate.visits == []
    assert reports()[0].after == {"cause": "user disabled", "ended": [], "failed": []}


@ON_SQLITE
def test_of_many_client_ids_the_latest_are_ended(scene: Scene, gate: Gate) -> None:
    names = [f"press-{number:02}" for number in range(PER_USER + 5)]
    seen("bob", *names)
    scene.changes(enabled=False)
    carry_out(broker_at(gate.port))
    assert {visit.client_id for visit in gate.visits} == set(names[5:])


@ON_SQLITE
@pytest.mark.xfail(strict=True, reason="each certificate orders the same again, and every session is taken over each time")
def test_however_many_certificates_end_with_a_user_each_session_is_ended_once(scene: Scene, gate: Gate) -> None:
    for _ in range(3):
        scene.certifies("bob")
    seen("bob", "press-7", "press-8")
    users.delete(OPERATOR, "bob")
    carry_out(broker_at(gate.port))
    assert len(gate.visits) == 2


@ON_SQLITE
def test_orders_that_are_long_past_are_forgotten(scene: Scene) -> None:
    scene.changes(enabled=False)
    time_passes(6 * DAY)
    sessions.forget_old()
    assert len(orders()) == 1
    time_passes(2 * DAY)
    sessions.forget_old()
    assert orders() == []


# Brokers that do not cooperate.


@ON_SQLITE
def test_a_broker_that_refuses_us_is_tried_again_and_then_reported(scene: Scene) -> None:
    seen("bob", "press-7")
    scene.changes(enabled=False)
    with Gate(lambda _: NOT_AUTHORIZED) as gate:
        carry_out(broker_at(gate.port))
    assert [visit.client_id for visit in gate.visits] == ["press-7"] * 3
    assert reports()[0].after == {"cause": "user disabled", "ended": [], "failed": ["press-7"]}


@ON_SQLITE
def test_one_client_id_that_is_refused_is_in_no_others_way(scene: Scene) -> None:
    def answer(visit: Visit) -> int:
        return NOT_AUTHORIZED if visit.client_id == "press-7" else ACCEPTED

    seen("bob", "press-6", "press-7", "press-8")
    scene.changes(enabled=False)
    with Gate(answer) as gate:
        carry_out(broker_at(gate.port))
    after = reports()[0].after
    assert after is not None
    assert (sorted(after["ended"]), after["failed"]) == (["press-6", "press-8"], ["press-7"])


@ON_SQLITE
def test_a_broker_that_is_away_is_reported(scene: Scene) -> None:
    seen("bob", "press-7")
    scene.changes(enabled=False)
    assert carry_out(broker_at(free_port())) == 1
    assert reports()[0].after == {"cause": "user disabled", "ended": [], "failed": ["press-7"]}


@pytest.mark.xfail(strict=True, reason="three tries in a few milliseconds, all of them while our own login is verified")
def test_a_broker_that_refuses_us_for_a_moment_lets_us_in_when_we_come_again() -> None:
    begun = time.monotonic()

    def answer(_: Visit) -> int:
        return ACCEPTED if time.monotonic() - begun > 0.3 else NOT_AUTHORIZED

    with Gate(answer) as gate:
        assert broker_at(gate.port).take_over("press-7")


def test_a_broker_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(takeover, "_PATIENCE_SECONDS", 0.2)
    begun = time.monotonic()
    with Gate(lambda _: time.sleep(0.3) or ACCEPTED) as gate:  # type: ignore[func-returns-value]
        assert not broker_at(gate.port).take_over("press-7")
    assert time.monotonic() - begun < 10


@pytest.mark.xfail(strict=True, raises=FileNotFoundError, reason="a 500, and orders that are taken again and again")
def test_an_authority_file_that_is_not_there_is_a_failure_like_any_other() -> None:
    assert not Broker("127.0.0.1", free_port(), "a", "b", tls=True, ca_file="/nowhere/ca.pem").take_over("press-7")


# Without a broker, and by hand.


@ON_SQLITE
def test_without_a_broker_nothing_is_done(scene: Scene, gate: Gate) -> None:
    assert scene.services.broker is None
    with_broker = scene.under(broker_url=gate.url)
    assert len(certificate_jobs(with_broker.services)) == len(certificate_jobs(scene.services)) + 1
    with_broker.close()
    problem_of(scene.admin.post("/api/users/bob/disconnect"), 409, "no-broker")
    problem_of(scene.admin.post("/api/users/nemo/disconnect"), 404, "user-not-found")


@ON_SQLITE
def test_an_administrator_may_end_them_by_hand(scene: Scene, gate: Gate) -> None:
    with_broker = scene.under(broker_url=gate.url)
    seen("bob", "press-7", "press-8")
    answer = with_broker.admin.post("/api/users/bob/disconnect")
    with_broker.close()
    assert answer.status_code == 200
    assert sorted(answer.get_json()["ended"]) == ["press-7", "press-8"]
    assert answer.get_json()["failed"] == []
    assert {(visit.username, visit.password) for visit in gate.visits} == {("authsvc-sessions", "se/cret")}
    (report,) = reports()
    assert (report.actor, report.target) == ("admin", "user:bob")


@ON_SQLITE
def test_by_hand_whoever_was_seen_a_moment_ago_is_ended_too(scene: Scene, gate: Gate) -> None:
    with_broker = scene.under(broker_url=gate.url)
    with_broker.services.sightings.note("bob", "press-7")
    assert with_broker.admin.post("/api/users/bob/disconnect").get_json()["ended"] == ["press-7"]
    with_broker.close()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mqtt://a:b@broker", ("broker", 1883, "a", "b", False)),
        ("mqtt://a:b@broker:1884", ("broker", 1884, "a", "b", False)),
        ("mqtts://a%40x:b%3A%2F@[::1]", ("::1", 8883, "a@x", "b:/", True)),
    ],
)
@ON_SQLITE
def test_the_broker_is_what_the_settings_say(scene: Scene, url: str, expected: tuple[Any, ...]) -> None:
    with_broker = scene.under(broker_url=url)
    broker = broker_under(with_broker.services.settings)
    with_broker.close()
    assert broker is not None
    assert (broker.host, broker.port, broker.username, broker.password, broker.tls) == expected
    assert "b" not in repr(broker).replace("broker", "").replace("Broker", "")


# Whom a broker has seen.


@ON_SQLITE
def test_who_logs_in_or_is_let_through_is_seen_and_nobody_else(scene: Scene) -> None:
    webhooks = scene.services
    for client_id, password in (("press-7", BOBS_PASSWORD), ("burglar", "wrong")):
        webhooks.access.may_log_in("bob", client_id, password, database_time_now())
    for _ in range(200):
        if webhooks.broker_hashing.waiting == 0:
            break
        time.sleep(0.01)
    webhooks.access.may_log_in("bob", "press-7", BOBS_PASSWORD, database_time_now())
    webhooks.access.may_access("bob", "press-8", "devices/bob/up", 2)
    webhooks.access.may_access("bob", "press-9", "elsewhere", 2)
    webhooks.sightings.store()
    assert set(sightings.client_ids("bob")) == {"press-7", "press-8"}


def database_time_now() -> Any:
    with session():
        return database_time()
