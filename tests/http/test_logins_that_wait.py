"""A login whose hash takes longer than the wait budget is refused at once and accepted when the device retries."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import bcrypt
import pytest

from authsvc.accounts import users
from authsvc.broker.goauth_protocol import WebhookRequest
from authsvc.broker.webhooks import PendingLogin
from authsvc.credentials import hashing
from authsvc.settings import from_environment
from tests.actors import BOBS_PASSWORD, HASHER, OPERATOR
from tests.http.broker import YES, Broker, broker_by, no, services_of
from tests.http.conftest import with_services_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask_openapi3.openapi import OpenAPI

    from authsvc.accounts.users import UserChanges
    from authsvc.settings import Settings
    from authsvc.web.request_context import Services
    from tests.http.broker import Answer


SOON = 10.0  # seconds to wait for an event that has been triggered


def change(username: str, **fields: Any) -> None:
    users.change(OPERATOR, username, cast("UserChanges", fields), HASHER)


# Logins whose hash takes longer than the wait budget.


def under(routes: OpenAPI, settings: Settings, **changes: Any) -> tuple[Broker, Services]:
    app = with_services_of(routes, replace(settings, **changes))
    return broker_by("function", app), services_of(app)


@contextmanager
def all_hashing_busy(services: Services) -> Iterator[threading.Event]:
    """Keep all hashing threads busy until the event is set or the block ends."""
    may_end, begun = threading.Event(), threading.Semaphore(0)

    def work() -> None:
        begun.release()
        assert may_end.wait(SOON)

    for _ in range(services.settings.hash_workers):
        services.broker_hashing.submit(work)
        assert begun.acquire(timeout=SOON)
    yield may_end
    may_end.set()


def until_decided(broker: Broker, username: str, password: str, client_id: str = "c1") -> Answer:
    """Retry the login, as a device does, until it is decided."""
    answers = iter(lambda: broker.logs_in(username, password, client_id), no("never"))
    return next(answer for answer in answers if answer not in (no("verifying"), no("hashing-busy")))


def test_login_waits_for_its_hash(broker: Broker) -> None:
    assert broker.logs_in("bob", BOBS_PASSWORD) == YES
    assert broker.logs_in("tom", "wrong") == no("wrong-password")


def as_long_as_cost_10(*_: bytes) -> bool:
    """Sleep for the duration of a hash at the default cost, also on a busy machine."""
    time.sleep(0.05)
    return True


def test_single_login_is_accepted_at_the_first_attempt_with_default_settings(
    routes: OpenAPI, seeded: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bcrypt, "checkpw", as_long_as_cost_10)
    broker, _ = under(routes, seeded, connect_budget_ms=from_environment({}).connect_budget_ms)
    assert broker.logs_in("bob", BOBS_PASSWORD) == YES


def test_only_the_first_of_many_concurrent_logins_make_the_broker_wait(
    routes: OpenAPI, seeded: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = [f"press-{number}" for number in range(20)]
    stored = HASHER.hash(BOBS_PASSWORD)
    for name in fleet:
        users.create_with_hash(OPERATOR, name, {}, stored)
    monkeypatch.setattr(bcrypt, "checkpw", as_long_as_cost_10)
    broker, _ = under(routes, seeded, connect_budget_ms=150, hash_workers=2)
    begun = time.monotonic()
    answers = [broker.logs_in(name, BOBS_PASSWORD) for name in fleet]
    # One after the other they would take a second.
    assert time.monotonic() - begun < 0.6
    assert answers[0] == YES
    assert answers.count(no("verifying")) > 10


def test_login_without_wait_budget_is_accepted_at_the_second_attempt(routes: OpenAPI, seeded: Settings) -> None:
    broker, services = under(routes, seeded, connect_budget_ms=0)
    with all_hashing_busy(services):
        assert broker.logs_in("bob", BOBS_PASSWORD) == no("verifying")
    assert until_decided(broker, "bob", BOBS_PASSWORD) == YES


def test_many_concurrent_logins_are_answered_at_once_and_accepted_when_retried(
    routes: OpenAPI, seeded: Settings
) -> None:
    fleet = [f"press-{number}" for number in range(40)]
    stored = HASHER.hash(BOBS_PASSWORD)
    for name in fleet:
        users.create_with_hash(OPERATOR, name, {}, stored)
    broker, services = under(routes, seeded, connect_budget_ms=100)
    with all_hashing_busy(services):
        begun = datetime.now(UTC)
        assert {broker.logs_in(name, BOBS_PASSWORD) for name in fleet} == {no("verifying")}
        # If each of the 40 logins waited, they would take 4 seconds.
        assert datetime.now(UTC) - begun < timedelta(seconds=2)
    assert {until_decided(broker, name, BOBS_PASSWORD) for name in fleet} == {YES}


def test_one_guess_per_username_is_hashed_and_a_repeated_one_shares_its_hash(routes: OpenAPI, seeded: Settings) -> None:
    broker, services = under(routes, seeded, connect_budget_ms=0)
    with all_hashing_busy(services):
        waiting = services.broker_hashing.waiting
        assert broker.logs_in("bob", BOBS_PASSWORD) == no("verifying")
        assert broker.logs_in("bob", "a guess") == no("hashing-busy")
        assert broker.logs_in("bob", BOBS_PASSWORD) == no("verifying")
        assert services.broker_hashing.waiting == waiting + 1
        assert broker.logs_in("tom", BOBS_PASSWORD) == no("verifying"), "others are not kept from theirs"
    assert until_decided(broker, "bob", BOBS_PASSWORD) == YES
    assert until_decided(broker, "bob", "a guess") == no("wrong-password")


def test_full_hashing_queue_is_reported_and_cached_logins_are_accepted(routes: OpenAPI, seeded: Settings) -> None:
    broker, services = under(routes, seeded, hash_queue=seeded.hash_workers + 1, connect_budget_ms=0)
    assert until_decided(broker, "dot", "dot may do nothing here") == YES
    with all_hashing_busy(services):
        assert broker.logs_in("bob", BOBS_PASSWORD) == no("verifying")
        assert broker.logs_in("tom", BOBS_PASSWORD) == no("hashing-busy")
        assert broker.logs_in("dot", "dot may do nothing here") == YES
        assert broker.acl("bob", "devices/bob/up", 2) == YES
    assert until_decided(broker, "tom", BOBS_PASSWORD) == YES


class Clock:
    """A clock that tests set."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_wait_budget_is_used_by_waiting_and_refills_with_time(
    routes: OpenAPI, seeded: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(hashing, "monotonic", clock)
    _, services = under(routes, seeded, connect_budget_ms=100)
    may_end = threading.Event()
    monkeypatch.setattr(bcrypt, "checkpw", lambda *_: may_end.wait(SOON))
    assert patience(services, "bob") == pytest.approx(0.1)
    services.webhooks.answer(login("bob"))
    assert patience(services, "bob") == 0
    clock.now += 10
    assert patience(services, "bob") == pytest.approx(0.1)
    may_end.set()


def test_queued_login_does_not_use_the_wait_budget(routes: OpenAPI, seeded: Settings) -> None:
    _, services = under(routes, seeded, connect_budget_ms=4000)
    with all_hashing_busy(services):
        assert patience(services, "bob") == 0
        assert patience(services, "bob") == 0, "nor when it comes again"


def login(username: str, password: str = BOBS_PASSWORD, client_id: str = "c1", **fields: str) -> WebhookRequest:
    body = json.dumps({"username": username, "password": password, "clientid": client_id} | fields)
    return WebhookRequest("user", b"", b"application/json", b"", body.encode())


def patience(services: Services, username: str) -> float:
    begun = services.webhooks.begin(login(username))
    assert isinstance(begun, PendingLogin)
    return begun.patience


@pytest.mark.parametrize(
    ("happens", "reason"),
    [
        (lambda: change("bob", enabled=False), "user-disabled"),
        # The new password is not verified yet, so the login must be hashed again.
        (lambda: change("bob", password="bob's next one"), "verifying"),
        (lambda: change("bob", grant_types=frozenset({"token"})), "grant-type-missing"),
        (lambda: users.delete(OPERATOR, "bob"), "unknown-user"),
    ],
    ids=["disabled", "password changed", "grant type gone", "removed"],
)
def test_change_during_a_hash_applies_to_its_login(services: Services, happens: Any, reason: str) -> None:
    with all_hashing_busy(services) as may_end:
        begun = services.webhooks.begin(login("bob"))
        assert isinstance(begun, PendingLogin)
        happens()
        services.policy.catch_up()
        may_end.set()
        begun.future.result(SOON)
        answer = services.webhooks.finish(begun)
    assert json.loads(answer.body) == {"ok": False, "error": reason}
