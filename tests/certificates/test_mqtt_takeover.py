"""The service as a client of the broker: let in or refused, asked for by hand, and whom it looks for."""

from __future__ import annotations

import time
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from threading import Timer
from typing import TYPE_CHECKING, Any

import pytest

from authsvc.activity import client_ids, mqtt_takeover
from authsvc.activity.client_ids import PER_USER, SeenClientIds
from authsvc.activity.mqtt_takeover import TakeoverBroker, takeover_broker
from authsvc.app import BACKGROUND
from authsvc.storage.database import session
from authsvc.storage.models import ClientIdRow
from tests.actors import BOBS_PASSWORD
from tests.broker import free_port
from tests.certificates.disconnects import broker_at, carry_out, reports, seen
from tests.certificates.environment import ON_SQLITE, Scene
from tests.certificates.fake_broker import ACCEPTED, NOT_AUTHORIZED, Gate
from tests.http.callers import problem_of
from tests.registry.environment import wait_until

if TYPE_CHECKING:
    from tests.certificates.fake_broker import Visit


NOW = datetime.now(UTC)
SECOND, MINUTE, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)


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


# Not strict, for on a busy machine three tries may take so long by themselves.
def test_a_broker_that_refuses_us_for_a_moment_lets_us_in_when_we_come_again() -> None:
    begun = time.monotonic()

    def answer(_: Visit) -> int:
        return ACCEPTED if time.monotonic() - begun > 0.3 else NOT_AUTHORIZED

    with Gate(answer) as gate:
        assert broker_at(gate.port).take_over("press-7")


def test_a_broker_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_takeover, "_PATIENCE_SECONDS", 0.2)
    begun = time.monotonic()
    with Gate(lambda _: time.sleep(0.3) or ACCEPTED) as gate:  # type: ignore[func-returns-value]
        assert not broker_at(gate.port).take_over("press-7")
    assert time.monotonic() - begun < 10


def test_an_authority_file_that_is_not_there_is_a_failure_like_any_other() -> None:
    assert not TakeoverBroker("127.0.0.1", free_port(), "a", "b", tls=True, ca_file="/nowhere/ca.pem").take_over(
        "press-7"
    )


# Without a broker, and by hand.


@ON_SQLITE
def test_without_a_broker_nothing_is_done(scene: Scene, gate: Gate) -> None:
    assert scene.services.broker is None
    with_broker = scene.under(broker_url=gate.url)
    threads = [{thread.name for thread in each.app.extensions[BACKGROUND]} for each in (with_broker, scene)]
    assert threads[0] - threads[1] == {"sessions"}
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
def test_by_hand_whoever_some_worker_saw_a_moment_ago_is_ended_too(scene: Scene, gate: Gate) -> None:
    with_broker = scene.under(broker_url=gate.url)
    with_broker.services.client_ids.note("bob", "press-7")
    written_down = Timer(0.3, with_broker.services.client_ids.store)
    written_down.start()
    assert with_broker.admin.post("/api/users/bob/disconnect").get_json()["ended"] == ["press-7"]
    written_down.join()
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
    broker = takeover_broker(with_broker.services.settings)
    with_broker.close()
    assert broker is not None
    assert (broker.host, broker.port, broker.username, broker.password, broker.tls) == expected
    assert "b" not in repr(broker).replace("broker", "").replace("Broker", "")


# Whom a broker has seen.


@ON_SQLITE
def test_who_logs_in_or_is_let_through_is_seen_and_nobody_else(scene: Scene) -> None:
    scene.services.policy.catch_up()
    access = scene.services.access
    for client_id, password in (("burglar", "wrong"), ("press-7", BOBS_PASSWORD)):
        begun = access.may_log_in("bob", client_id, password, NOW)
        assert isinstance(begun, Future)
        begun.result(10)
        wait_until(lambda: not scene.services.verifier._running)
        access.may_log_in("bob", client_id, password, NOW)
    access.may_access("bob", "press-8", "devices/bob/up", 2)
    access.may_access("bob", "press-9", "elsewhere", 2)
    scene.services.client_ids.store()
    assert set(client_ids.client_ids("bob")) == {"press-7", "press-8"}


@ON_SQLITE
def test_of_a_user_with_ever_new_client_ids_a_few_are_kept(scene: Scene) -> None:
    noted = SeenClientIds()
    for number in range(200):
        noted.note("bob", f"press-{number}")
    noted.store()
    noted.forget_stored()
    with session():
        assert ClientIdRow.select().count() <= 2 * PER_USER
