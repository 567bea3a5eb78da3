"""Live sessions end with the change that calls for it: ordered in its transaction, carried out once, reported."""

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
from tests.certificates.disconnects import broker_at, carry_out, claims_age, reports, seen, time_passes
from tests.certificates.environment import BOTH_WAYS, ON_POSTGRESQL, ON_SQLITE, Scene, orders
from tests.certificates.fake_broker import ACCEPTED, NOT_AUTHORIZED, Gate
from tests.registry.environment import in_parallel

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.certificates.fake_broker import Visit


NOW = datetime.now(UTC)
SECOND, MINUTE, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)


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
    assert {visit[1:4] for visit in gate.visits} == {("authsvc-sessions", "se/cret", False)}


@ON_SQLITE
def test_mqtt_sessions_of_a_removed_user_are_deleted(scene: Scene, gate: Gate) -> None:
    seen("bob", "press-7", "shared")
    seen("carol", "shared")
    scene.certifies("bob")
    users.delete(OPERATOR, "bob")
    carry_out(broker_at(gate.port))
    assert {visit.client_id: visit.expiry for visit in gate.visits} == {"press-7": 0, "shared": 0xFFFFFFFF}


@ON_SQLITE
def test_mqtt_sessions_of_a_disabled_user_are_kept(scene: Scene, gate: Gate) -> None:
    seen("bob", "press-7")
    scene.changes(enabled=False)
    carry_out(broker_at(gate.port))
    assert [visit.expiry for visit in gate.visits] == [0xFFFFFFFF]


@ON_SQLITE
def test_what_was_done_is_in_the_audit_trail(scene: Scene, gate: Gate) -> None:
    seen("bob", "press-7")
    scene.changes(enabled=False)
    carry_out(broker_at(gate.port))
    (report,) = reports()
    assert (report.actor, report.target) == ("authsvc", "user:bob")
    assert report.after == {"cause": "user disabled", "ended": ["press-7"], "failed": []}
    with session():
        (row,) = DisconnectOrder.select()
        assert (row.ended, row.failed) == (["press-7"], [])
        assert row.finished_at is not None


def test_an_order_waits_until_every_worker_has_written_down_whom_it_saw(scene: Scene, gate: Gate) -> None:
    scene.changes(enabled=False)
    assert disconnects.carry_out(broker_at(gate.port)) == 0
    assert carry_out(broker_at(gate.port)) == 1


@ON_POSTGRESQL
def test_of_several_workers_one_carries_out_each_order(scene: Scene, gate: Gate) -> None:
    several_workers_carry_out(gate, scene)


# Not strict, for it takes two workers that meet.
@ON_SQLITE
def test_so_it_is_on_sqlite(scene: Scene, gate: Gate) -> None:
    several_workers_carry_out(gate, scene)


def several_workers_carry_out(gate: Gate, scene: Scene) -> None:
    names = [f"press-{number}" for number in range(6)]
    for name in names:
        scene.moves_in(name)
        seen(name, f"{name}-a", f"{name}-b")
        scene.changes(name, enabled=False)
    time_passes(SECOND)
    done = in_parallel(3, lambda _: disconnects.carry_out(broker_at(gate.port)))
    assert sum(done) == len(names)
    assert len(reports()) == len(names)
    assert sorted(visit.client_id for visit in gate.visits) == sorted(f"{name}-{end}" for name in names for end in "ab")
    assert disconnects.carry_out(broker_at(gate.port)) == 0


def test_what_a_worker_had_in_hand_when_it_died_is_taken_by_another(scene: Scene, gate: Gate) -> None:
    seen("bob", "press-7")
    scene.changes(enabled=False)
    time_passes(SECOND)
    with session():
        DisconnectOrder.update(claim="of one that died", claimed_until=database_time() + MINUTE).execute()
    assert disconnects.carry_out(broker_at(gate.port)) == 0
    time_passes(MINUTE / 2)
    assert disconnects.carry_out(broker_at(gate.port)) == 0
    time_passes(MINUTE)
    assert disconnects.carry_out(broker_at(gate.port)) == 1
    assert len(gate.visits) == 1


# Until it is done.


def failing(*names: str) -> Callable[[Visit], int]:
    """Return what a broker answers that refuses these client ids."""
    return lambda visit: NOT_AUTHORIZED if visit.client_id in names else ACCEPTED


def test_an_order_is_attempted_again_under_the_client_ids_that_failed_until_it_is_done(scene: Scene) -> None:
    seen("bob", "press-6", "press-7", "press-8")
    scene.changes(enabled=False)
    with Gate(failing("press-7", "press-8")) as gate:
        assert carry_out(broker_at(gate.port)) == 1
    with Gate(failing("press-8")) as gate:
        assert disconnects.carry_out(broker_at(gate.port)) == 0, "not at once"
        assert carry_out(broker_at(gate.port)) == 1
        assert {visit.client_id for visit in gate.visits} == {"press-7", "press-8"}
    with Gate() as gate:
        time_passes(10 * SECOND)
        assert carry_out(broker_at(gate.port)) == 1
        assert [visit.client_id for visit in gate.visits] == ["press-8"]
        time_passes(DAY)
        assert carry_out(broker_at(gate.port)) == 0
    first, last = [report.after or {} for report in reports()]
    assert (first["ended"], sorted(first["failed"])) == (["press-6"], ["press-7", "press-8"])
    assert (sorted(last["ended"]), last["failed"]) == (["press-6", "press-7", "press-8"], [])


@ON_SQLITE
def test_the_pauses_between_attempts_grow_to_minutes_and_no_further(scene: Scene) -> None:
    seen("bob", "press-7")
    scene.changes(enabled=False)
    pauses = []
    for _ in range(10):
        carry_out(broker_at(free_port()))
        with session():
            pauses.append(round((DisconnectOrder.get().due_at - database_time()).total_seconds()))
        time_passes(timedelta(minutes=5))
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]


@ON_SQLITE
def test_an_order_that_fails_for_a_day_is_given_up_and_reported(scene: Scene) -> None:
    seen("bob", "press-7")
    scene.changes(enabled=False)
    carry_out(broker_at(free_port()))
    time_passes(DAY)
    assert carry_out(broker_at(free_port())) == 1
    time_passes(DAY)
    assert carry_out(broker_at(free_port())) == 0
    assert [(report.after or {})["failed"] for report in reports()] == [["press-7"], ["press-7"]]


def test_an_order_given_while_one_is_open_begins_it_again(scene: Scene) -> None:
    seen("bob", "press-6", "press-7")
    scene.changes(enabled=False)
    with Gate(failing("press-7")) as gate:
        carry_out(broker_at(gate.port))
    seen("bob", "press-8")
    scene.changes(password="another one")
    assert orders() == [("bob", "password changed")]
    with Gate() as gate:
        carry_out(broker_at(gate.port))
        assert {visit.client_id for visit in gate.visits} == {"press-6", "press-7", "press-8"}


def test_an_order_given_while_one_is_being_carried_out_is_carried_out_after_it(scene: Scene) -> None:
    seen("bob", "press-7")
    scene.changes(enabled=False)

    def orders_again(visit: Visit) -> int:
        if not visits:
            scene.changes(password="another one")
        visits.append(visit.client_id)
        return ACCEPTED

    visits: list[str] = []
    with Gate(orders_again) as gate:
        assert carry_out(broker_at(gate.port)) == 1
        assert carry_out(broker_at(gate.port)) == 1
        assert carry_out(broker_at(gate.port)) == 0
    assert visits == ["press-7"] * 2


def test_two_workers_never_carry_out_one_order_at_once_however_long_it_takes(scene: Scene) -> None:
    seen("bob", "press-6", "press-7")
    scene.changes(enabled=False)
    time_passes(SECOND)

    def time_passes_and_another_worker_looks(_: Visit) -> int:
        claims_age(MINUTE - 10 * SECOND)
        attempted.append(disconnects.carry_out(broker_at(free_port())))
        return ACCEPTED

    attempted: list[int] = []
    with Gate(time_passes_and_another_worker_looks) as gate:
        assert disconnects.carry_out(broker_at(gate.port)) == 1
    assert attempted == [0, 0]
    assert len(reports()) == 1


def test_sessions_ended_by_hand_are_not_ended_by_another_replica_too(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen("bob", "press-7")

    def replica_looks(_: float) -> None:
        time_passes(SECOND)
        attempted.append(disconnects.carry_out(broker_at(free_port())))

    def replicas_look(_: Visit) -> int:
        replica_looks(0)
        with pytest.raises(Conflict) as refused:
            disconnects.end_for(OPERATOR, broker_at(free_port()), "bob")
        assert refused.value.code == "being-ended"
        return ACCEPTED

    attempted: list[int] = []
    monkeypatch.setattr(disconnects, "sleep", replica_looks)
    with Gate(replicas_look) as gate:
        assert disconnects.end_for(OPERATOR, broker_at(gate.port), "bob") == disconnects.Report(["press-7"], [])
    assert attempted == [0, 0]
    assert [visit.client_id for visit in gate.visits] == ["press-7"]


@ON_SQLITE
def test_client_ids_that_an_administrator_does_not_wait_for_are_attempted_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen("bob", "press-7")
    monkeypatch.setattr(disconnects, "sleep", lambda _: None)
    monkeypatch.setattr(disconnects, "_PATIENCE_SECONDS", 0)
    with Gate() as gate:
        assert disconnects.end_for(OPERATOR, broker_at(gate.port), "bob") == disconnects.Report([], ["press-7"])
        time_passes(SECOND)
        assert disconnects.carry_out(broker_at(gate.port)) == 1
    assert [(report.actor, report.after) for report in reports()] == [
        (OPERATOR.username, {"cause": "asked for", "ended": [], "failed": ["press-7"]}),
        ("authsvc", {"cause": "asked for", "ended": ["press-7"], "failed": []}),
    ]


def test_a_worker_whose_claim_ran_out_stops_and_leaves_the_order_to_the_next(scene: Scene) -> None:
    seen("bob", "press-6", "press-7")
    scene.changes(enabled=False)
    time_passes(SECOND)
    with Gate() as other:

        def stands_still(_: Visit) -> int:
            claims_age(2 * MINUTE)
            assert disconnects.carry_out(broker_at(other.port)) == 1
            return ACCEPTED

        with Gate(stands_still) as gate:
            disconnects.carry_out(broker_at(gate.port))
            assert len(gate.visits) == 1
        assert len(other.visits) == 2
    assert len(reports()) == 1


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
def test_sessions_under_all_stored_client_ids_are_ended(scene: Scene, gate: Gate) -> None:
    names = [f"press-{number:02}" for number in range(PER_USER + 5)]
    noted = SeenClientIds()
    for name in names:
        noted.note("bob", name, logged_in=True)
    noted.store()
    noted.forget_stored()
    scene.changes(enabled=False)
    carry_out(broker_at(gate.port))
    assert {visit.client_id for visit in gate.visits} == set(names)


@ON_SQLITE
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
    disconnects.forget_old()
    assert len(orders()) == 1
    time_passes(2 * DAY)
    disconnects.forget_old()
    assert orders() == []
