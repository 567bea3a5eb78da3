"""Password guessing over MQTT: the limits per minute, and known devices that can still log in."""

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
from tests.http.conftest import with_services_of
from tests.http.test_logins_that_wait import all_hashing_busy, login, until_decided
from tests.registry.signing import signing_request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask_openapi3.openapi import OpenAPI

    from authsvc.accounts.users import UserChanges
    from authsvc.settings import Settings
    from authsvc.web.request_context import Services
    from tests.http.broker import Answer
    from tests.http.callers import Caller

WRONG, THROTTLED = no("wrong-password"), no("throttled")


def answers(
    broker: Broker, guesses: int, client_id: str = "made up", username: str = "bob", **fields: Any
) -> list[Answer]:
    """Return the answers to logins with different wrong passwords, each with its own client id unless one is given."""
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


def test_thirty_wrong_passwords_per_minute_are_checked_although_the_right_one_is_cached(broker: Broker) -> None:
    assert broker.logs_in("bob", BOBS_PASSWORD) == YES
    results = answers(broker, 100)
    assert results == [WRONG] * LIMIT_FOR_UNKNOWN_CLIENT_IDS + [THROTTLED] * (100 - LIMIT_FOR_UNKNOWN_CLIENT_IDS)


def test_wrong_passwords_without_a_cached_one_are_limited_too(broker: Broker, services: Services) -> None:
    results = answers(broker, 50)
    assert results == [WRONG] * LIMIT_FOR_UNKNOWN_CLIENT_IDS + [THROTTLED] * (50 - LIMIT_FOR_UNKNOWN_CLIENT_IDS)
    assert services.verifier.counters.misses == LIMIT_FOR_UNKNOWN_CLIENT_IDS


def test_too_long_passwords_count_as_wrong_ones(broker: Broker) -> None:
    results = [broker.logs_in("bob", "x" * (100 + number)) for number in range(50)]
    assert results.count(WRONG) == LIMIT_FOR_UNKNOWN_CLIENT_IDS


def test_right_password_is_refused_too_beyond_the_limit(broker: Broker) -> None:
    assert broker.logs_in("bob", BOBS_PASSWORD) == YES
    answers(broker, LIMIT_FOR_UNKNOWN_CLIENT_IDS)
    assert broker.logs_in("bob", BOBS_PASSWORD, "made up") == THROTTLED
    assert broker.logs_in("bob", "guess 0", "made up") == THROTTLED


def test_limit_applies_to_administrators_too(broker: Broker) -> None:
    assert answers(broker, 50, username="alice").count(WRONG) == LIMIT_FOR_UNKNOWN_CLIENT_IDS


def test_known_device_can_log_in_during_any_number_of_guesses(broker: Broker) -> None:
    assert broker.logs_in("bob", BOBS_PASSWORD, "press-7") == YES
    answers(broker, 500)
    assert broker.logs_in("bob", BOBS_PASSWORD, "press-7") == YES
    assert broker.logs_in("tom", BOBS_PASSWORD) == YES


def test_new_device_can_log_in_within_the_limit_and_is_known_afterwards(broker: Broker) -> None:
    answers(broker, LIMIT_FOR_UNKNOWN_CLIENT_IDS - 1)
    assert broker.logs_in("bob", BOBS_PASSWORD, "press-7") == YES
    assert answers(broker, 100).count(THROTTLED) > 0
    assert broker.logs_in("bob", BOBS_PASSWORD, "press-7") == YES


def test_repeated_wrong_password_counts_once(broker: Broker) -> None:
    assert {broker.logs_in("bob", "last year's") for _ in range(500)} == {WRONG}
    assert broker.logs_in("bob", BOBS_PASSWORD) == YES


def test_guesses_with_a_known_client_id_are_limited_to_three_hundred(broker: Broker) -> None:
    assert [broker.logs_in("bob", BOBS_PASSWORD, "press-7") for _ in range(2)] == [YES] * 2
    results = answers(broker, 350, client_id="press-7")
    assert results == [WRONG] * LIMIT_FOR_KNOWN_CLIENT_ID + [THROTTLED] * 50
    assert broker.logs_in("bob", BOBS_PASSWORD, "press-7") == THROTTLED, "a cached answer would reveal the password"
    assert broker.logs_in("bob", BOBS_PASSWORD, "press-8") == YES, "other client ids have their own limits"


def test_known_device_can_log_in_after_a_restart_during_guessing(routes: OpenAPI, seeded: Settings) -> None:
    before = services_of(with_services_of(routes, seeded))
    assert until_decided(broker_by("function", routes), "bob", BOBS_PASSWORD) == YES
    before.client_ids.store()
    started = services_of(with_services_of(routes, seeded))
    for job in client_id_jobs(started):
        if job.run_at_start:
            job.work()
    broker = broker_by("function", routes)
    assert THROTTLED in answers(broker, 100)
    assert broker.logs_in("bob", BOBS_PASSWORD, "c1") == YES
    assert broker.logs_in("bob", BOBS_PASSWORD, "c2") == THROTTLED


def test_a_client_id_that_logged_in_at_another_process_becomes_known(routes: OpenAPI, seeded: Settings) -> None:
    services = services_of(with_services_of(routes, seeded))
    other = services_of(with_services_of(routes, seeded))
    services.client_ids.load_stored()
    services.client_ids.load_stored()
    other.client_ids.note("bob", "press-7", logged_in=True)
    other.client_ids.store()
    assert not services.client_ids.known.knows("bob", "press-7")
    services.client_ids.load_stored()
    assert services.client_ids.known.knows("bob", "press-7")


def test_acl_request_makes_no_client_id_known(broker: Broker, services: Services) -> None:
    assert broker.acl("bob", "devices/bob/up", WRITE, client_id="made up") == YES
    services.client_ids.store()
    services.client_ids.load_stored()
    assert not services.client_ids.known.knows("bob", "made up")
    assert broker.logs_in("bob", BOBS_PASSWORD, "made up") == YES
    services.client_ids.store()
    assert services.client_ids.known.knows("bob", "made up")


def test_acl_request_with_a_certificate_makes_the_client_id_known(broker: Broker, services: Services) -> None:
    key = csr.read(signing_request("carol"), "carol").public_key
    users.issue_certificate(OPERATOR, "carol", key, SigningPolicy())
    services.policy.catch_up()
    assert broker.acl("carol", "devices/carol/up", WRITE, client_id="press-7", query="grant=certificate") == YES
    assert services.client_ids.known.knows("carol", "press-7")


def test_token_login_is_never_throttled(broker: Broker, services: Services) -> None:
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


# Resources that guesses must not exhaust.


@contextmanager
def hashing_busy_with_guess(services: Services, username: str) -> Iterator[None]:
    """Keep all hashing threads busy during the block, with one guess at this username in the queue."""
    with all_hashing_busy(services):
        begun = services.webhooks.begin(login(username, "a guess"))
        assert isinstance(begun, PendingLogin)
        yield


def test_queued_guess_does_not_block_a_login_of_a_known_device(services: Services, routes: OpenAPI) -> None:
    services.client_ids.known.add("bob", "press-7")
    broker = broker_by("function", routes)
    with hashing_busy_with_guess(services, "bob"):
        begun = services.webhooks.begin(login("bob", client_id="press-7"))
        assert isinstance(begun, PendingLogin), "a queued guess at the same username does not block it"
        assert answers(broker, 5) == [no("hashing-busy")] * 5
    begun.future.result(10)
    assert services.webhooks.finish(begun).status == 200


def test_concurrent_logins_of_two_new_devices_both_succeed_and_count_no_guess(services: Services) -> None:
    with all_hashing_busy(services):
        begun = [
            services.webhooks.begin(login("bob", client_id=f"press-{number}", address=f"192.0.2.{number}"))
            for number in (7, 8)
        ]
    for each in begun:
        assert isinstance(each, PendingLogin)
        each.future.result(10)
    assert all(services.client_ids.known.knows("bob", client_id) for client_id in ("press-7", "press-8"))
    assert not services.access.guess_limit._of_unknown


def test_guess_without_a_place_in_the_hashing_queue_does_not_count(services: Services, routes: OpenAPI) -> None:
    broker = broker_by("function", routes)
    with hashing_busy_with_guess(services, "bob"):
        assert set(answers(broker, 200)) == {no("hashing-busy")}
    assert until_decided(broker, "bob", BOBS_PASSWORD) == YES


def test_concurrent_guesses_do_not_exceed_the_limit(services: Services, routes: OpenAPI) -> None:
    broker = broker_by("function", routes)
    assert until_decided(broker, "bob", BOBS_PASSWORD) == YES

    def guess(number: int) -> Answer:
        return broker.logs_in("bob", f"guess {number}", "made up")

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(guess, range(400)))
    assert results.count(WRONG) == LIMIT_FOR_UNKNOWN_CLIENT_IDS


def test_hashes_of_known_devices_come_before_older_guesses(services: Services) -> None:
    hashed: list[str] = []
    pool, done = services.broker_hashing, threading.Semaphore(0)

    def note(name: str) -> None:
        hashed.append(name)
        done.release()

    with all_hashing_busy(services):
        for number in range(20):
            pool.submit(lambda number=number: note(f"guess {number}"))  # type: ignore[misc]
        for name in ("press-7", "press-8"):
            pool.submit(lambda name=name: note(name), first=True)  # type: ignore[misc]
    for _ in range(22):
        assert done.acquire(timeout=10)
    assert set(hashed[:3]) >= {"press-7", "press-8"}


def test_a_queue_full_of_guesses_has_room_for_known_devices(routes: OpenAPI, seeded: Settings) -> None:
    full = seeded.hash_workers + 1
    services = services_of(with_services_of(routes, replace(seeded, hash_queue=full, connect_budget_ms=0)))
    services.client_ids.known.add("dot", "press-7")
    broker = broker_by("function", routes)
    with all_hashing_busy(services):
        assert broker.logs_in("bob", BOBS_PASSWORD) == no("verifying")
        assert broker.logs_in("tom", BOBS_PASSWORD) == no("hashing-busy")
        assert broker.logs_in("dot", "dot may do nothing here", "press-7") == no("verifying")
    assert until_decided(broker, "dot", "dot may do nothing here", "press-7") == YES


def test_guesses_do_not_use_the_wait_budget_of_known_devices(routes: OpenAPI, seeded: Settings) -> None:
    services = services_of(with_services_of(routes, replace(seeded, connect_budget_ms=100)))
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


# Brokers that send the client's address.


def test_guesses_from_one_address_do_not_block_another_address(broker: Broker) -> None:
    results = answers(broker, 100, address="2001:db8::1")
    assert results.count(WRONG) == LIMIT_FOR_UNKNOWN_CLIENT_IDS
    fields = {"username": "bob", "password": BOBS_PASSWORD, "clientid": "press-7"}
    assert broker.ask("user", **fields, address="2001:db8::2") == THROTTLED
    assert broker.ask("user", **fields, address="192.0.2.1") == YES


@pytest.mark.parametrize("form", [JSON, FORM])
@pytest.mark.parametrize(
    "fields",
    [
        {"address": "192.0.2.1"},
        {"address": "2001:db8::1", "certificateSerial": "0a1B2c"},
        {"certificateSerial": "f" * 40},
    ],
)
def test_address_and_serial_are_accepted(broker: Broker, form: str, fields: dict[str, str]) -> None:
    assert broker.logs_in("bob", BOBS_PASSWORD, form=form, **fields) == YES
    assert broker.acl("bob", "devices/bob/up", WRITE, form=form, **fields) == YES


@pytest.mark.parametrize("form", [JSON, FORM])
@pytest.mark.parametrize(
    "fields",
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
def test_invalid_address_or_serial_is_malformed(broker: Broker, form: str, fields: dict[str, str]) -> None:
    assert broker.logs_in("bob", BOBS_PASSWORD, form=form, **fields) == MALFORMED
    assert broker.acl("bob", "devices/bob/up", WRITE, form=form, **fields) == MALFORMED


@pytest.mark.parametrize("value", [None, 7, ["192.0.2.1"], {}])
@pytest.mark.parametrize("field", ["address", "certificateSerial"])
def test_address_or_serial_of_another_type_is_malformed(broker: Broker, field: str, value: Any) -> None:
    assert broker.logs_in("bob", BOBS_PASSWORD, **{field: value}) == MALFORMED
    assert broker.acl("bob", "devices/bob/up", WRITE, **{field: value}) == MALFORMED


# Denials, audit events and metrics.


def database_lost(*_: Any, **__: Any) -> None:
    """Fail as if the database were unavailable."""
    raise peewee.OperationalError("gone")


def throttled_events() -> list[audit.Event]:
    return audit.events(1, 100, audit.AuditFilter(action="login.throttled")).items


def test_throttled_logins_are_listed_among_the_denials(broker: Broker, services: Services, alice: Caller) -> None:
    answers(broker, 100)
    services.denials.store()
    items = alice.get("/api/users/bob/denials").get_json()["items"]
    counts = {item["reason"]: item["count"] for item in items}
    assert counts == {"wrong-password": LIMIT_FOR_UNKNOWN_CLIENT_IDS, "throttled": 100 - LIMIT_FOR_UNKNOWN_CLIENT_IDS}
    (note,) = {item["advice"] for item in items if item["reason"] == "throttled"}
    assert "too many wrong passwords" in note


def test_one_audit_event_per_user_is_written_in_the_background(broker: Broker, services: Services) -> None:
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
    assert "made up" not in str(events), "made-up client ids are not stored"


def test_an_audit_event_names_the_known_client_id_and_the_address(broker: Broker, services: Services) -> None:
    assert broker.logs_in("bob", BOBS_PASSWORD, "press-7") == YES
    answers(broker, LIMIT_FOR_KNOWN_CLIENT_ID + 1, client_id="press-7", address="192.0.2.1")
    throttled_logins.store(services.access.guess_limit)
    (event,) = throttled_events()
    assert event.after == {"knownClientId": "press-7", "address": "192.0.2.1"}


def test_report_made_while_another_is_written_is_kept(
    broker: Broker, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit, record = services.access.guess_limit, audit.record

    def record_during_an_attack(*arguments: Any, **more: Any) -> None:
        monkeypatch.setattr(audit, "record", record)
        for number in range(MAX_REPORTED):
            limit.reports.append(Attempt(Login(f"decoy-{number}", "made up"), known=False, limits=()))
        record(*arguments, **more)

    answers(broker, 50)
    monkeypatch.setattr(audit, "record", record_during_an_attack)
    throttled_logins.store(limit)
    expected = {"user:bob"} | {f"user:decoy-{number}" for number in range(MAX_REPORTED)}
    assert {
        event.target for event in audit.events(1, 200, audit.AuditFilter(action="login.throttled")).items
    } == expected


def test_report_is_written_once_after_a_database_failure(
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


def test_one_event_per_minute_counts_the_users_that_are_not_named(services: Services) -> None:
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


def test_users_that_are_not_named_stay_counted_without_a_database(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = services.access.guess_limit
    limit._unreported = 3
    monkeypatch.setattr(audit, "record", database_lost)
    with pytest.raises(peewee.OperationalError):
        throttled_logins.store(limit)
    assert limit.unreported == 3


def test_two_processes_write_one_event_per_attack(routes: OpenAPI, seeded: Settings) -> None:
    for _ in range(2):
        services = services_of(with_services_of(routes, seeded))
        answers(broker_by("function", routes), 50)
        throttled_logins.store(services.access.guess_limit)
    assert len(throttled_events()) == 1


def test_metrics_count_throttled_logins_without_usernames(broker: Broker, alice: Caller) -> None:
    answers(broker, 100)
    exposed = alice.get("/metrics").text
    assert 'authsvc_decisions_total{check="user",decision="denied",reason="throttled"}' in exposed
    assert "authsvc_throttled_windows_total 1.0" in exposed
    assert "bob" not in exposed
