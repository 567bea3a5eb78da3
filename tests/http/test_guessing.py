"""Guessing over MQTT: few passwords are checked a minute, and a device that is known gets in beside any number."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import peewee
import pytest
import time_machine

from authsvc.accounts import api_tokens, users
from authsvc.activity import audit, throttled_logins
from authsvc.broker.webhooks import PendingLogin
from authsvc.jobs import client_id_jobs, record_jobs
from authsvc.pki import csr
from authsvc.pki.authorities import SigningPolicy
from authsvc.policy.access import WRITE
from authsvc.policy.guess_limit import (
    LIMIT_FOR_KNOWN_CLIENT_ID,
    LIMIT_FOR_UNKNOWN_CLIENT_IDS,
    MAX_REPORTED,
    Attempt,
    Login,
)
from tests.actors import BOBS_PASSWORD, HASHER, OPERATOR
from tests.http.broker import FORM, JSON, MALFORMED, YES, Broker, broker_by, no, services_of
from tests.http.conftest import with_parts_of
from tests.http.test_logins_that_wait import all_hashing_held_up, login, until_decided
from tests.registry.signing import signing_request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask_openapi3.openapi import OpenAPI

    from authsvc.accounts.users import UserChanges
    from authsvc.settings import Settings
    from authsvc.web.request_context import Services
    from tests.http.broker import Told
    from tests.http.callers import Caller

WRONG, THROTTLED = no("wrong-password"), no("throttled")


def answers(
    broker: Broker, guesses: int, client_id: str = "made up", username: str = "bob", **fields: Any
) -> list[Told]:
    """Return the answers to this many different wrong passwords, each with its own client id unless one is given."""
    return [
        broker.ask(
            "user",
            username=username,
            password=f"guess {number}",
            clientid=f"made up {number}" if client_id == "made up" else client_id,
            **fields,
        )
        for number in range(guesses)
    ]


def test_thirty_wrong_passwords_a_minute_are_checked_although_the_right_one_is_remembered(broker: Broker) -> None:
    assert broker.logs_in("bob", BOBS_PASSWORD) == YES
    told = answers(broker, 100)
    assert told == [WRONG] * LIMIT_FOR_UNKNOWN_CLIENT_IDS + [THROTTLED] * (100 - LIMIT_FOR_UNKNOWN_CLIENT_IDS)


def test_wrong_passwords_that_each_cost_a_hash_are_limited_alike(broker: Broker, services: Services) -> None:
    told = answers(broker, 50)
    assert told == [WRONG] * LIMIT_FOR_UNKNOWN_CLIENT_IDS + [THROTTLED] * (50 - LIMIT_FOR_UNKNOWN_CLIENT_IDS)
    assert services.verifier.counters.misses == LIMIT_FOR_UNKNOWN_CLIENT_IDS


def test_passwords_that_are_too_long_count_too(broker: Broker) -> None:
    told = [broker.logs_in("bob", "x" * (100 + number)) for number in range(50)]
    assert told.count(WRONG) == LIMIT_FOR_UNKNOWN_CLIENT_IDS


def test_beyond_the_limit_the_right_password_is_refused_alike(broker: Broker) -> None:
    assert broker.logs_in("bob", BOBS_PASSWORD) == YES
    answers(broker, LIMIT_FOR_UNKNOWN_CLIENT_IDS)
    assert broker.logs_in("bob", BOBS_PASSWORD, "made up") == THROTTLED
    assert broker.logs_in("bob", "guess 0", "made up") == THROTTLED


def test_an_administrator_is_covered_too(broker: Broker) -> None:
    assert answers(broker, 50, username="alice").count(WRONG) == LIMIT_FOR_UNKNOWN_CLIENT_IDS


def test_a_known_device_gets_in_beside_any_number_of_guesses(broker: Broker) -> None:
    assert broker.logs_in("bob", BOBS_PASSWORD, "press-7") == YES
    answers(broker, 500)
    assert broker.logs_in("bob", BOBS_PASSWORD, "press-7") == YES
    assert broker.logs_in("tom", BOBS_PASSWORD) == YES


def test_a_new_device_gets_in_within_the_limit_and_is_known_from_then_on(broker: Broker) -> None:
    answers(broker, LIMIT_FOR_UNKNOWN_CLIENT_IDS - 1)
    assert broker.logs_in("bob", BOBS_PASSWORD, "press-7") == YES
    assert answers(broker, 100).count(THROTTLED) > 0
    assert broker.logs_in("bob", BOBS_PASSWORD, "press-7") == YES


def test_a_device_that_repeats_an_old_password_does_not_reach_the_limit(broker: Broker) -> None:
    assert {broker.logs_in("bob", "last year's") for _ in range(500)} == {WRONG}
    assert broker.logs_in("bob", BOBS_PASSWORD) == YES


def test_who_knows_the_client_id_too_has_three_hundred_and_learns_nothing_beyond(broker: Broker) -> None:
    assert [broker.logs_in("bob", BOBS_PASSWORD, "press-7") for _ in range(2)] == [YES] * 2
    told = answers(broker, 350, client_id="press-7")
    assert told == [WRONG] * LIMIT_FOR_KNOWN_CLIENT_ID + [THROTTLED] * 50
    assert broker.logs_in("bob", BOBS_PASSWORD, "press-7") == THROTTLED, "an answer from memory would tell"
    assert broker.logs_in("bob", BOBS_PASSWORD, "press-8") == YES, "others have limits of their own"


def test_a_known_device_gets_in_after_a_restart_while_others_guess(routes: OpenAPI, inhabited: Settings) -> None:
    before = services_of(with_parts_of(routes, inhabited))
    assert until_decided(broker_by("function", routes), "bob", BOBS_PASSWORD) == YES
    before.client_ids.store()
    started = services_of(with_parts_of(routes, inhabited))
    for job in client_id_jobs(started):
        if job.run_at_start:
            job.work()
    broker = broker_by("function", routes)
    assert THROTTLED in answers(broker, 100)
    assert broker.logs_in("bob", BOBS_PASSWORD, "c1") == YES
    assert broker.logs_in("bob", BOBS_PASSWORD, "c2") == THROTTLED


def test_a_client_id_that_logged_in_at_another_process_becomes_known(routes: OpenAPI, inhabited: Settings) -> None:
    services = services_of(with_parts_of(routes, inhabited))
    other = services_of(with_parts_of(routes, inhabited))
    services.client_ids.load_stored()
    services.client_ids.load_stored()
    other.client_ids.note("bob", "press-7", logged_in=True)
    other.client_ids.store()
    assert not services.client_ids.known.knows("bob", "press-7")
    services.client_ids.load_stored()
    assert services.client_ids.known.knows("bob", "press-7")


def test_a_question_about_a_topic_makes_no_client_id_known_not_even_after_a_restart(
    broker: Broker, services: Services
) -> None:
    assert broker.acl("bob", "devices/bob/up", WRITE, client_id="made up") == YES
    services.client_ids.store()
    services.client_ids.load_stored()
    assert not services.client_ids.known.knows("bob", "made up")
    assert broker.logs_in("bob", BOBS_PASSWORD, "made up") == YES
    services.client_ids.store()
    assert services.client_ids.known.knows("bob", "made up")


def test_a_question_of_a_certificates_holder_makes_its_client_id_known(broker: Broker, services: Services) -> None:
    key = csr.read(signing_request("carol"), "carol").public_key
    users.issue_certificate(OPERATOR, "carol", key, SigningPolicy())
    services.policy.catch_up()
    assert broker.acl("carol", "devices/carol/up", WRITE, client_id="press-7", query="grant=certificate") == YES
    assert services.client_ids.known.knows("carol", "press-7")


def test_a_token_cannot_be_guessed_and_is_never_throttled(broker: Broker, services: Services) -> None:
    token = api_tokens.issue_token(OPERATOR, "tom", "", 1).token
    services.policy.catch_up()
    assert THROTTLED in answers(broker, 100, username="tom")
    assert broker.logs_in("tom", token, "made up") == YES


def test_a_changed_password_works_at_once_for_a_known_device(broker: Broker, services: Services) -> None:
    assert broker.logs_in("bob", BOBS_PASSWORD, "press-7") == YES
    answers(broker, 100)
    users.change(OPERATOR, "bob", cast("UserChanges", {"password": "bob's next one"}), HASHER)
    services.policy.catch_up()
    assert broker.logs_in("bob", BOBS_PASSWORD, "press-7") == WRONG
    assert broker.logs_in("bob", "bob's next one", "press-7") == YES


# What guesses must not use up.


@contextmanager
def guesses_held_up(services: Services, username: str) -> Iterator[None]:
    """Let all threads that hash be busy, and one guess at this name wait."""
    with all_hashing_held_up(services):
        begun = services.webhooks.begin(login(username, "a guess"))
        assert isinstance(begun, PendingLogin)
        yield


def test_guesses_that_are_hashed_do_not_make_a_known_device_wait_for_its_turn(
    services: Services, routes: OpenAPI
) -> None:
    services.client_ids.known.add("bob", "press-7")
    broker = broker_by("function", routes)
    with guesses_held_up(services, "bob"):
        begun = services.webhooks.begin(login("bob", client_id="press-7"))
        assert isinstance(begun, PendingLogin), "another password of the same name is not in its way"
        assert answers(broker, 5) == [no("hashing-busy")] * 5
    begun.future.result(10)
    assert services.webhooks.finish(begun).status == 200


def test_two_new_devices_that_log_in_at_the_same_time_both_become_known_and_count_nothing(services: Services) -> None:
    with all_hashing_held_up(services):
        begun = [
            services.webhooks.begin(login("bob", client_id=f"press-{number}", address=f"192.0.2.{number}"))
            for number in (7, 8)
        ]
    for each in begun:
        assert isinstance(each, PendingLogin)
        each.future.result(10)
    assert all(services.client_ids.known.knows("bob", client_id) for client_id in ("press-7", "press-8"))
    assert not services.access.guess_limit._of_unknown


def test_a_guess_that_finds_no_place_to_be_hashed_does_not_count(services: Services, routes: OpenAPI) -> None:
    broker = broker_by("function", routes)
    with guesses_held_up(services, "bob"):
        assert set(answers(broker, 200)) == {no("hashing-busy")}
    assert until_decided(broker, "bob", BOBS_PASSWORD) == YES


def test_guesses_at_the_same_time_do_not_slip_through(services: Services, routes: OpenAPI) -> None:
    broker = broker_by("function", routes)
    assert until_decided(broker, "bob", BOBS_PASSWORD) == YES

    def guess(number: int) -> Told:
        return broker.logs_in("bob", f"guess {number}", "made up")

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(guess, range(400)))
    assert told.count(WRONG) == LIMIT_FOR_UNKNOWN_CLIENT_IDS


def test_hashes_of_known_devices_come_before_guesses_that_wait_longer(services: Services) -> None:
    hashed: list[str] = []
    pool, done = services.broker_hashing, threading.Semaphore(0)

    def note(name: str) -> None:
        hashed.append(name)
        done.release()

    with all_hashing_held_up(services):
        for number in range(20):
            pool.submit(lambda number=number: note(f"guess {number}"))  # type: ignore[misc]
        for name in ("press-7", "press-8"):
            pool.submit(lambda name=name: note(name), first=True)  # type: ignore[misc]
    for _ in range(22):
        assert done.acquire(timeout=10)
    assert set(hashed[:3]) >= {"press-7", "press-8"}


def test_a_queue_full_of_guesses_has_room_for_known_devices(routes: OpenAPI, inhabited: Settings) -> None:
    full = inhabited.hash_workers + 1
    services = services_of(with_parts_of(routes, replace(inhabited, hash_queue=full, connect_budget_ms=0)))
    services.client_ids.known.add("dot", "press-7")
    broker = broker_by("function", routes)
    with all_hashing_held_up(services):
        assert broker.logs_in("bob", BOBS_PASSWORD) == no("verifying")
        assert broker.logs_in("tom", BOBS_PASSWORD) == no("hashing-busy")
        assert broker.logs_in("dot", "dot may do nothing here", "press-7") == no("verifying")
    assert until_decided(broker, "dot", "dot may do nothing here", "press-7") == YES


def test_guesses_use_up_nothing_of_the_time_that_a_broker_may_wait_for_known_devices(
    routes: OpenAPI, inhabited: Settings
) -> None:
    services = services_of(with_parts_of(routes, replace(inhabited, connect_budget_ms=100)))
    services.client_ids.known.add("bob", "press-7")
    guess = services.webhooks.begin(login("bob", "a guess"))
    assert isinstance(guess, PendingLogin)
    guess.future.result(10)
    services.webhooks.finish(guess._replace(started=guess.started - 60))
    for client_id, patience in (("made up", 0), ("press-7", 0.1)):
        begun = services.webhooks.begin(login("bob", f"by {client_id}", client_id=client_id))
        assert isinstance(begun, PendingLogin)
        assert begun.patience == pytest.approx(patience)
        begun.future.result(10)


# Brokers that tell the address.


def test_where_addresses_are_told_guesses_from_one_keep_out_nobody_at_another(broker: Broker) -> None:
    told = answers(broker, 100, address="2001:db8::1")
    assert told.count(WRONG) == LIMIT_FOR_UNKNOWN_CLIENT_IDS
    fields = {"username": "bob", "password": BOBS_PASSWORD, "clientid": "press-7"}
    assert broker.ask("user", **fields, address="2001:db8::2") == THROTTLED
    assert broker.ask("user", **fields, address="192.0.2.1") == YES


@pytest.mark.parametrize("form", [JSON, FORM])
@pytest.mark.parametrize(
    "told",
    [
        {"address": "192.0.2.1"},
        {"address": "2001:db8::1", "certificateSerial": "0a1B2c"},
        {"certificateSerial": "f" * 40},
    ],
)
def test_an_address_and_a_serial_may_be_told(broker: Broker, form: str, told: dict[str, str]) -> None:
    assert broker.logs_in("bob", BOBS_PASSWORD, form=form, **told) == YES
    assert broker.acl("bob", "devices/bob/up", WRITE, form=form, **told) == YES


@pytest.mark.parametrize("form", [JSON, FORM])
@pytest.mark.parametrize(
    "told",
    [
        {"address": ""},
        {"address": "localhost"},
        {"address": "192.0.2.1:1883"},
        {"address": "192.0.2.0/24"},
        {"address": "\0"},
        {"certificateSerial": ""},
        {"certificateSerial": "0x1f"},
        {"certificateSerial": "0a:1b"},
        {"certificateSerial": "f" * 65},
    ],
)
def test_an_address_or_serial_that_is_none_is_malformed(broker: Broker, form: str, told: dict[str, str]) -> None:
    assert broker.logs_in("bob", BOBS_PASSWORD, form=form, **told) == MALFORMED
    assert broker.acl("bob", "devices/bob/up", WRITE, form=form, **told) == MALFORMED


@pytest.mark.parametrize("value", [None, 7, ["192.0.2.1"], {}])
@pytest.mark.parametrize("field", ["address", "certificateSerial"])
def test_an_address_or_serial_of_another_type_is_malformed(broker: Broker, field: str, value: Any) -> None:
    assert broker.logs_in("bob", BOBS_PASSWORD, **{field: value}) == MALFORMED
    assert broker.acl("bob", "devices/bob/up", WRITE, **{field: value}) == MALFORMED


# What administrators see of it.


def database_lost(*_: Any, **__: Any) -> None:
    """Fail as a database that is gone."""
    raise peewee.OperationalError("gone")


def throttled_events() -> list[audit.Event]:
    return audit.events(1, 100, {"action": "login.throttled"}).items


def test_throttling_is_shown_among_the_users_denials(broker: Broker, services: Services, alice: Caller) -> None:
    answers(broker, 100)
    services.denials.store()
    items = alice.get("/api/users/bob/denials").get_json()["items"]
    counts = {item["reason"]: item["count"] for item in items}
    assert counts == {"wrong-password": LIMIT_FOR_UNKNOWN_CLIENT_IDS, "throttled": 100 - LIMIT_FOR_UNKNOWN_CLIENT_IDS}
    (note,) = {item["remedyNote"] for item in items if item["reason"] == "throttled"}
    assert "too many wrong passwords" in note


def test_one_audit_event_is_written_for_each_user_behind_the_answers(broker: Broker, services: Services) -> None:
    for username in ("bob", "tom"):
        answers(broker, 100, username=username)
    assert throttled_events() == []
    jobs = record_jobs(services)
    for job in [*jobs, *jobs]:
        job.work()
    events = throttled_events()
    assert {event.target for event in events} == {"user:bob", "user:tom"}
    assert len(events) == 2
    assert events[0].actor == "authsvc"
    assert "made up" not in str(events), "client ids that an attacker makes up are not kept"


def test_an_audit_event_names_the_known_client_id_and_the_address(broker: Broker, services: Services) -> None:
    assert broker.logs_in("bob", BOBS_PASSWORD, "press-7") == YES
    answers(broker, LIMIT_FOR_KNOWN_CLIENT_ID + 1, client_id="press-7", address="192.0.2.1")
    throttled_logins.store(services.access.guess_limit)
    (event,) = throttled_events()
    assert event.after == {"knownClientId": "press-7", "address": "192.0.2.1"}


def test_a_report_that_is_made_while_another_is_written_is_kept(
    broker: Broker, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit, record = services.access.guess_limit, audit.record

    def record_during_an_attack(*facts: Any, **more: Any) -> None:
        monkeypatch.setattr(audit, "record", record)
        for number in range(MAX_REPORTED):
            limit.reports.append(Attempt(Login(f"decoy-{number}", "made up"), known=False, limits=()))
        record(*facts, **more)

    answers(broker, 50)
    monkeypatch.setattr(audit, "record", record_during_an_attack)
    throttled_logins.store(limit)
    expected = {"user:bob"} | {f"user:decoy-{number}" for number in range(MAX_REPORTED)}
    assert {event.target for event in audit.events(1, 200, {"action": "login.throttled"}).items} == expected


def test_a_report_that_the_database_did_not_take_is_written_later_and_once(
    broker: Broker, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = services.access.guess_limit
    for username in ("bob", "tom"):
        answers(broker, 50, username=username)
    with monkeypatch.context() as gone:
        gone.setattr(audit, "record", database_lost)
        with pytest.raises(peewee.OperationalError):
            throttled_logins.store(limit)
    assert [attempt.login.username for attempt in limit.reports] == ["bob", "tom"]
    throttled_logins.store(limit)
    assert sorted(event.target for event in throttled_events()) == ["user:bob", "user:tom"]


def test_one_event_a_minute_tells_how_many_users_are_not_named(services: Services) -> None:
    limit = services.access.guess_limit
    with time_machine.travel(datetime(2026, 11, 20, 8, 0, tzinfo=UTC), tick=False) as clock:
        for unreported in (3, 4):
            limit._unreported += unreported
            throttled_logins.store(limit)
        assert limit.unreported == 4
        clock.shift(timedelta(seconds=61))
        throttled_logins.store(limit)
        throttled_logins.store(limit)
    events = [(event.target, event.after) for event in throttled_events()]
    assert events == [("users", {"users": 4}), ("users", {"users": 3})]
    assert limit.unreported == 0


def test_users_that_are_not_named_stay_counted_while_the_database_is_gone(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = services.access.guess_limit
    limit._unreported = 3
    monkeypatch.setattr(audit, "record", database_lost)
    with pytest.raises(peewee.OperationalError):
        throttled_logins.store(limit)
    assert limit.unreported == 3


def test_two_processes_write_one_event_about_one_attack(routes: OpenAPI, inhabited: Settings) -> None:
    for _ in range(2):
        services = services_of(with_parts_of(routes, inhabited))
        answers(broker_by("function", routes), 50)
        throttled_logins.store(services.access.guess_limit)
    assert len(throttled_events()) == 1


def test_the_metrics_count_throttled_logins_and_name_nobody(broker: Broker, alice: Caller) -> None:
    answers(broker, 100)
    exposed = alice.get("/metrics").text
    assert 'authsvc_decisions_total{check="user",decision="denied",reason="throttled"}' in exposed
    assert "authsvc_throttled_windows 1.0" in exposed
    assert "bob" not in exposed
