"""Takeover of client ids on the broker: accepted, refused, and started by an administrator."""

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
from tests.certificates.disconnects import disconnect_events, run_due_orders, store_seen, takeover_at
from tests.certificates.environment import ON_SQLITE, Environment
from tests.certificates.fake_broker import ACCEPTED, NOT_AUTHORIZED, FakeBroker
from tests.http.callers import problem_of
from tests.registry.environment import wait_until

if TYPE_CHECKING:
    from tests.certificates.fake_broker import ConnectPacket


NOW = datetime.now(UTC)
SECOND, MINUTE, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)


# Brokers that do not cooperate.


@ON_SQLITE
def test_refusing_broker_is_attempted_again_and_reported(env: Environment) -> None:
    store_seen("bob", "press-7")
    env.change_user(enabled=False)
    with FakeBroker(lambda _: NOT_AUTHORIZED) as fake_broker:
        run_due_orders(takeover_at(fake_broker.port))
    assert [connect.client_id for connect in fake_broker.connects] == ["press-7"] * 3
    assert disconnect_events()[0].after == {"cause": "user disabled", "ended": [], "failed": ["press-7"]}


@ON_SQLITE
def test_refused_client_id_does_not_block_others(env: Environment) -> None:
    def answer(connect: ConnectPacket) -> int:
        return NOT_AUTHORIZED if connect.client_id == "press-7" else ACCEPTED

    store_seen("bob", "press-6", "press-7", "press-8")
    env.change_user(enabled=False)
    with FakeBroker(answer) as fake_broker:
        run_due_orders(takeover_at(fake_broker.port))
    after = disconnect_events()[0].after
    assert after is not None
    assert (sorted(after["ended"]), after["failed"]) == (["press-6", "press-8"], ["press-7"])


@ON_SQLITE
def test_unreachable_broker_is_reported(env: Environment) -> None:
    store_seen("bob", "press-7")
    env.change_user(enabled=False)
    assert run_due_orders(takeover_at(free_port())) == 1
    assert disconnect_events()[0].after == {"cause": "user disabled", "ended": [], "failed": ["press-7"]}


# Not strict, because on a busy machine three attempts can take this long anyway.
def test_takeover_succeeds_after_a_temporary_refusal() -> None:
    begun = time.monotonic()

    def answer(_: ConnectPacket) -> int:
        return ACCEPTED if time.monotonic() - begun > 0.3 else NOT_AUTHORIZED

    with FakeBroker(answer) as fake_broker:
        assert takeover_at(fake_broker.port).take_over("press-7")


def test_takeover_fails_if_the_broker_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_takeover, "_TIMEOUT_SECONDS", 0.2)
    begun = time.monotonic()
    with FakeBroker(lambda _: time.sleep(0.3) or ACCEPTED) as fake_broker:  # type: ignore[func-returns-value]
        assert not takeover_at(fake_broker.port).take_over("press-7")
    assert time.monotonic() - begun < 10


def test_takeover_fails_if_the_ca_file_is_missing() -> None:
    assert not TakeoverBroker("127.0.0.1", free_port(), "a", "b", tls=True, ca_file="/nowhere/ca.pem").take_over(
        "press-7"
    )


# Settings, and the API of administrators.


@ON_SQLITE
def test_nothing_is_done_without_a_configured_broker(env: Environment, fake_broker: FakeBroker) -> None:
    assert env.services.broker is None
    with_broker = env.with_settings(broker_url=fake_broker.url)
    threads = [{thread.name for thread in each.app.extensions[BACKGROUND]} for each in (with_broker, env)]
    assert threads[0] - threads[1] == {"sessions"}
    with_broker.close()
    problem_of(env.admin.post("/api/users/bob/disconnect"), 409, "no-broker")
    problem_of(env.admin.post("/api/users/nemo/disconnect"), 404, "user-not-found")


@ON_SQLITE
def test_administrator_can_end_sessions(env: Environment, fake_broker: FakeBroker) -> None:
    with_broker = env.with_settings(broker_url=fake_broker.url)
    store_seen("bob", "press-7", "press-8")
    answer = with_broker.admin.post("/api/users/bob/disconnect")
    with_broker.close()
    assert answer.status_code == 200
    assert sorted(answer.get_json()["ended"]) == ["press-7", "press-8"]
    assert answer.get_json()["failed"] == []
    assert {(connect.username, connect.password) for connect in fake_broker.connects} == {
        ("authsvc-sessions", "se/cret")
    }
    (report,) = disconnect_events()
    assert (report.actor, report.target) == ("admin", "user:bob")


@ON_SQLITE
def test_administrators_disconnect_includes_client_ids_seen_just_before(
    env: Environment, fake_broker: FakeBroker
) -> None:
    with_broker = env.with_settings(broker_url=fake_broker.url)
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
def test_broker_is_read_from_the_settings(env: Environment, url: str, expected: tuple[Any, ...]) -> None:
    with_broker = env.with_settings(broker_url=url)
    broker = takeover_broker(with_broker.services.settings)
    with_broker.close()
    assert broker is not None
    assert (broker.host, broker.port, broker.username, broker.password, broker.tls) == expected
    assert "b" not in repr(broker).replace("broker", "").replace("Broker", "")


# Recorded client ids.


@ON_SQLITE
def test_only_allowed_clients_are_recorded(env: Environment) -> None:
    env.services.policy.catch_up()
    access = env.services.access
    for client_id, password in (("burglar", "wrong"), ("press-7", BOBS_PASSWORD)):
        begun = access.may_log_in("bob", client_id, password, NOW)
        assert isinstance(begun, Future)
        begun.result(10)
        wait_until(lambda: not env.services.verifier._running)
        access.may_log_in("bob", client_id, password, NOW)
    access.may_access("bob", "press-8", "devices/bob/up", 2)
    access.may_access("bob", "press-9", "elsewhere", 2)
    env.services.client_ids.store()
    assert set(client_ids.all_of_user("bob")) == {"press-7", "press-8"}


@ON_SQLITE
def test_number_of_client_ids_per_user_is_bounded(env: Environment) -> None:
    noted = SeenClientIds()
    for number in range(200):
        noted.note("bob", f"press-{number}")
    noted.store()
    noted.delete_expired()
    with session():
        assert ClientIdRow.select().count() <= 2 * PER_USER
