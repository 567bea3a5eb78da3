"""Disconnect orders: written with the change that requires them, run once, and audited."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from authsvc.accounts import users
from authsvc.activity import disconnects
from authsvc.activity.client_ids import PER_USER, SeenClientIds
from authsvc.errors import Conflict
from authsvc.policy.snapshot import GrantType
from authsvc.storage.database import database_time, session
from authsvc.storage.models import DisconnectOrder
from tests.actors import OPERATOR, mqtt
from tests.broker import free_port
from tests.certificates.disconnects import (
    age_claims,
    age_orders,
    disconnect_events,
    run_due_orders,
    store_seen,
    takeover_at,
)
from tests.certificates.environment import BOTH_WAYS, ON_POSTGRESQL, ON_SQLITE, Environment, orders
from tests.certificates.fake_broker import ACCEPTED, NOT_AUTHORIZED, FakeBroker
from tests.registry.environment import in_parallel

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.certificates.fake_broker import ConnectPacket


NOW = datetime.now(UTC)
SECOND, MINUTE, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)


# Changes that order a disconnect.

ENDS: dict[str, tuple[Callable[[Environment], object], str]] = {
    "disabled": (lambda env: env.change_user(enabled=False), "user disabled"),
    "password changed": (lambda env: env.change_user(password="bob's next one"), "password changed"),
    "password taken": (lambda env: env.change_user(password=None), "password changed"),
    "grant type taken": (lambda env: env.change_user(grant_types=frozenset({"password"})), "grant type removed"),
    "removed": (lambda _: users.delete(OPERATOR, "bob"), "user removed"),
    "revoked": (lambda env: env.revoke_certificate(env.issue_certificate("bob")), "certificate revoked"),
}
GOES_ON: dict[str, Callable[[Environment], object]] = {
    "another permission": lambda env: env.change_user(permissions=(mqtt("read", "news"),)),
    "another role": lambda env: env.change_user(roles=("minimum-access",)),
    "another grant type": lambda env: env.change_user(grant_types=BOTH_WAYS | {GrantType.TOKEN}),
    "enabled as before": lambda env: env.change_user(enabled=True),
    "a certificate": lambda env: env.issue_certificate("bob"),
}


@ON_SQLITE
@pytest.mark.parametrize(("end", "cause"), ENDS.values(), ids=ENDS.keys())
def test_change_that_ends_access_orders_a_disconnect(env: Environment, end: Any, cause: str) -> None:
    end(env)
    assert orders() == [("bob", cause)]


@ON_SQLITE
@pytest.mark.parametrize("change", GOES_ON.values(), ids=GOES_ON.keys())
def test_change_that_keeps_access_orders_no_disconnect(env: Environment, change: Any) -> None:
    change(env)
    assert orders() == []


def test_refused_change_orders_no_disconnect(env: Environment) -> None:
    with pytest.raises(Conflict):
        env.change_user("admin", enabled=False)
    with pytest.raises(Conflict):
        users.delete(OPERATOR, "admin")
    assert orders() == []


# Running orders.


@ON_SQLITE
def test_session_is_ended_by_connecting_with_its_client_id(env: Environment, fake_broker: FakeBroker) -> None:
    store_seen("bob", "press-7", "press-8")
    store_seen("carol", "press-9")
    env.change_user(enabled=False)
    assert run_due_orders(takeover_at(fake_broker.port)) == 1
    assert {connect.client_id for connect in fake_broker.connects} == {"press-7", "press-8"}
    assert {connect[1:4] for connect in fake_broker.connects} == {("authsvc-sessions", "se/cret", False)}


@ON_SQLITE
def test_mqtt_sessions_of_a_removed_user_are_deleted(env: Environment, fake_broker: FakeBroker) -> None:
    store_seen("bob", "press-7", "shared")
    store_seen("carol", "shared")
    env.issue_certificate("bob")
    users.delete(OPERATOR, "bob")
    run_due_orders(takeover_at(fake_broker.port))
    assert {connect.client_id: connect.expiry for connect in fake_broker.connects} == {
        "press-7": 0,
        "shared": 0xFFFFFFFF,
    }


@ON_SQLITE
def test_mqtt_sessions_of_a_disabled_user_are_kept(env: Environment, fake_broker: FakeBroker) -> None:
    store_seen("bob", "press-7")
    env.change_user(enabled=False)
    run_due_orders(takeover_at(fake_broker.port))
    assert [connect.expiry for connect in fake_broker.connects] == [0xFFFFFFFF]


@ON_SQLITE
def test_disconnect_writes_an_audit_event(env: Environment, fake_broker: FakeBroker) -> None:
    store_seen("bob", "press-7")
    env.change_user(enabled=False)
    run_due_orders(takeover_at(fake_broker.port))
    (report,) = disconnect_events()
    assert (report.actor, report.target) == ("authsvc", "user:bob")
    assert report.after == {"cause": "user disabled", "ended": ["press-7"], "failed": []}
    with session():
        (row,) = DisconnectOrder.select()
        assert (row.ended, row.failed) == (["press-7"], [])
        assert row.finished_at is not None


def test_order_waits_until_workers_have_stored_their_client_ids(env: Environment, fake_broker: FakeBroker) -> None:
    env.change_user(enabled=False)
    assert disconnects.run_due_orders(takeover_at(fake_broker.port)) == 0
    assert run_due_orders(takeover_at(fake_broker.port)) == 1


@ON_POSTGRESQL
def test_only_one_worker_runs_each_order(env: Environment, fake_broker: FakeBroker) -> None:
    several_workers_run_orders(fake_broker, env)


# Not strict, because two workers must run at the same moment to fail.
@ON_SQLITE
def test_only_one_worker_runs_each_order_on_sqlite(env: Environment, fake_broker: FakeBroker) -> None:
    several_workers_run_orders(fake_broker, env)


def several_workers_run_orders(fake_broker: FakeBroker, env: Environment) -> None:
    names = [f"press-{number}" for number in range(6)]
    for name in names:
        env.create_user(name)
        store_seen(name, f"{name}-a", f"{name}-b")
        env.change_user(name, enabled=False)
    age_orders(SECOND)
    done = in_parallel(3, lambda _: disconnects.run_due_orders(takeover_at(fake_broker.port)))
    assert sum(done) == len(names)
    assert len(disconnect_events()) == len(names)
    assert sorted(connect.client_id for connect in fake_broker.connects) == sorted(
        f"{name}-{end}" for name in names for end in "ab"
    )
    assert disconnects.run_due_orders(takeover_at(fake_broker.port)) == 0


def test_order_of_a_dead_worker_is_claimed_by_another(env: Environment, fake_broker: FakeBroker) -> None:
    store_seen("bob", "press-7")
    env.change_user(enabled=False)
    age_orders(SECOND)
    with session():
        DisconnectOrder.update(claim="of one that died", claimed_until=database_time() + MINUTE).execute()
    assert disconnects.run_due_orders(takeover_at(fake_broker.port)) == 0
    age_orders(MINUTE / 2)
    assert disconnects.run_due_orders(takeover_at(fake_broker.port)) == 0
    age_orders(MINUTE)
    assert disconnects.run_due_orders(takeover_at(fake_broker.port)) == 1
    assert len(fake_broker.connects) == 1


# Repeated attempts.


def refusing(*names: str) -> Callable[[ConnectPacket], int]:
    """Return an `answer` of a `FakeBroker` that refuses these client ids."""
    return lambda connect: NOT_AUTHORIZED if connect.client_id in names else ACCEPTED


def test_failed_client_ids_are_attempted_again(env: Environment) -> None:
    store_seen("bob", "press-6", "press-7", "press-8")
    env.change_user(enabled=False)
    with FakeBroker(refusing("press-7", "press-8")) as fake_broker:
        assert run_due_orders(takeover_at(fake_broker.port)) == 1
    with FakeBroker(refusing("press-8")) as fake_broker:
        assert disconnects.run_due_orders(takeover_at(fake_broker.port)) == 0, "not at once"
        assert run_due_orders(takeover_at(fake_broker.port)) == 1
        assert {connect.client_id for connect in fake_broker.connects} == {"press-7", "press-8"}
    with FakeBroker() as fake_broker:
        age_orders(10 * SECOND)
        assert run_due_orders(takeover_at(fake_broker.port)) == 1
        assert [connect.client_id for connect in fake_broker.connects] == ["press-8"]
        age_orders(DAY)
        assert run_due_orders(takeover_at(fake_broker.port)) == 0
    first, last = [report.after or {} for report in disconnect_events()]
    assert (first["ended"], sorted(first["failed"])) == (["press-6"], ["press-7", "press-8"])
    assert (sorted(last["ended"]), last["failed"]) == (["press-6", "press-7", "press-8"], [])


@pytest.mark.slow
@ON_SQLITE
def test_delays_between_attempts_grow_to_five_minutes(env: Environment) -> None:
    store_seen("bob", "press-7")
    env.change_user(enabled=False)
    pauses = []
    for _ in range(10):
        run_due_orders(takeover_at(free_port()))
        with session():
            pauses.append(round((DisconnectOrder.get().due_at - database_time()).total_seconds()))
        age_orders(timedelta(minutes=5))
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]


@ON_SQLITE
def test_order_that_fails_for_a_day_is_abandoned_and_reported(env: Environment) -> None:
    store_seen("bob", "press-7")
    env.change_user(enabled=False)
    run_due_orders(takeover_at(free_port()))
    age_orders(DAY)
    assert run_due_orders(takeover_at(free_port())) == 1
    age_orders(DAY)
    assert run_due_orders(takeover_at(free_port())) == 0
    assert [(report.after or {})["failed"] for report in disconnect_events()] == [["press-7"], ["press-7"]]


def test_new_order_restarts_an_open_one(env: Environment) -> None:
    store_seen("bob", "press-6", "press-7")
    env.change_user(enabled=False)
    with FakeBroker(refusing("press-7")) as fake_broker:
        run_due_orders(takeover_at(fake_broker.port))
    store_seen("bob", "press-8")
    env.change_user(password="another one")
    assert orders() == [("bob", "password changed")]
    with FakeBroker() as fake_broker:
        run_due_orders(takeover_at(fake_broker.port))
        assert {connect.client_id for connect in fake_broker.connects} == {"press-6", "press-7", "press-8"}


def test_order_given_during_an_attempt_runs_afterwards(env: Environment) -> None:
    store_seen("bob", "press-7")
    env.change_user(enabled=False)

    def orders_again(connect: ConnectPacket) -> int:
        if not visits:
            env.change_user(password="another one")
        visits.append(connect.client_id)
        return ACCEPTED

    visits: list[str] = []
    with FakeBroker(orders_again) as fake_broker:
        assert run_due_orders(takeover_at(fake_broker.port)) == 1
        assert run_due_orders(takeover_at(fake_broker.port)) == 1
        assert run_due_orders(takeover_at(fake_broker.port)) == 0
    assert visits == ["press-7"] * 2


def test_two_workers_never_run_the_same_order(env: Environment) -> None:
    store_seen("bob", "press-6", "press-7")
    env.change_user(enabled=False)
    age_orders(SECOND)

    def time_passes_and_another_worker_looks(_: ConnectPacket) -> int:
        age_claims(MINUTE - 10 * SECOND)
        attempted.append(disconnects.run_due_orders(takeover_at(free_port())))
        return ACCEPTED

    attempted: list[int] = []
    with FakeBroker(time_passes_and_another_worker_looks) as fake_broker:
        assert disconnects.run_due_orders(takeover_at(fake_broker.port)) == 1
    assert attempted == [0, 0]
    assert len(disconnect_events()) == 1


def test_disconnect_by_an_administrator_is_not_repeated_by_another_replica(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_seen("bob", "press-7")

    def replica_looks(_: float) -> None:
        age_orders(SECOND)
        attempted.append(disconnects.run_due_orders(takeover_at(free_port())))

    def replicas_look(_: ConnectPacket) -> int:
        replica_looks(0)
        with pytest.raises(Conflict) as refused:
            disconnects.disconnect_now(OPERATOR, takeover_at(free_port()), "bob")
        assert refused.value.code == "being-ended"
        return ACCEPTED

    attempted: list[int] = []
    monkeypatch.setattr(disconnects, "sleep", replica_looks)
    with FakeBroker(replicas_look) as fake_broker:
        assert disconnects.disconnect_now(
            OPERATOR, takeover_at(fake_broker.port), "bob"
        ) == disconnects.DisconnectResult(["press-7"], [])
    assert attempted == [0, 0]
    assert [connect.client_id for connect in fake_broker.connects] == ["press-7"]


@ON_SQLITE
def test_client_ids_beyond_the_administrators_timeout_are_attempted_again(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_seen("bob", "press-7")
    monkeypatch.setattr(disconnects, "sleep", lambda _: None)
    monkeypatch.setattr(disconnects, "_TIMEOUT_SECONDS", 0)
    with FakeBroker() as fake_broker:
        assert disconnects.disconnect_now(
            OPERATOR, takeover_at(fake_broker.port), "bob"
        ) == disconnects.DisconnectResult([], ["press-7"])
        age_orders(SECOND)
        assert disconnects.run_due_orders(takeover_at(fake_broker.port)) == 1
    assert [(report.actor, report.after) for report in disconnect_events()] == [
        (OPERATOR.username, {"cause": "asked for", "ended": [], "failed": ["press-7"]}),
        ("authsvc", {"cause": "asked for", "ended": ["press-7"], "failed": []}),
    ]


def test_worker_with_an_expired_claim_stops(env: Environment) -> None:
    store_seen("bob", "press-6", "press-7")
    env.change_user(enabled=False)
    age_orders(SECOND)
    with FakeBroker() as other:

        def stands_still(_: ConnectPacket) -> int:
            age_claims(2 * MINUTE)
            assert disconnects.run_due_orders(takeover_at(other.port)) == 1
            return ACCEPTED

        with FakeBroker(stands_still) as fake_broker:
            disconnects.run_due_orders(takeover_at(fake_broker.port))
            assert len(fake_broker.connects) == 1
        assert len(other.connects) == 2
    assert len(disconnect_events()) == 1


@ON_SQLITE
def test_orders_run_oldest_first(env: Environment, fake_broker: FakeBroker) -> None:
    for name in ("carol", "dave"):
        env.create_user(name)
    for name in ("bob", "carol", "dave"):
        store_seen(name, f"{name}-1")
        env.change_user(name, enabled=False)
    assert run_due_orders(takeover_at(fake_broker.port)) == 3
    assert [connect.client_id for connect in fake_broker.connects] == ["bob-1", "carol-1", "dave-1"]


@ON_SQLITE
def test_user_without_client_ids_is_reported(env: Environment, fake_broker: FakeBroker) -> None:
    env.change_user(enabled=False)
    assert run_due_orders(takeover_at(fake_broker.port)) == 1
    assert fake_broker.connects == []
    assert disconnect_events()[0].after == {"cause": "user disabled", "ended": [], "failed": []}


@ON_SQLITE
def test_sessions_under_all_stored_client_ids_are_ended(env: Environment, fake_broker: FakeBroker) -> None:
    names = [f"press-{number:02}" for number in range(PER_USER + 5)]
    noted = SeenClientIds()
    for name in names:
        noted.note("bob", name, logged_in=True)
    noted.store()
    noted.delete_expired()
    env.change_user(enabled=False)
    run_due_orders(takeover_at(fake_broker.port))
    assert {connect.client_id for connect in fake_broker.connects} == set(names)


@ON_SQLITE
def test_user_with_several_certificates_is_disconnected_once(env: Environment, fake_broker: FakeBroker) -> None:
    for _ in range(3):
        env.issue_certificate("bob")
    store_seen("bob", "press-7", "press-8")
    users.delete(OPERATOR, "bob")
    run_due_orders(takeover_at(fake_broker.port))
    assert len(fake_broker.connects) == 2


@ON_SQLITE
def test_expired_orders_are_deleted(env: Environment) -> None:
    env.change_user(enabled=False)
    age_orders(6 * DAY)
    disconnects.delete_expired()
    assert len(orders()) == 1
    age_orders(2 * DAY)
    disconnects.delete_expired()
    assert orders() == []
