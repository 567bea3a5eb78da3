"""A login whose hash takes longer than brokers may wait is answered at once, truly, and let in when it comes again."""

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
from tests.http.conftest import with_parts_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask_openapi3.openapi import OpenAPI

    from authsvc.accounts.users import UserChanges
    from authsvc.settings import Settings
    from authsvc.web.request_context import Services
    from tests.http.broker import Told


SOON = 10.0  # seconds to wait for what is already on its way


def change(username: str, **fields: Any) -> None:
    users.change(OPERATOR, username, cast("UserChanges", fields), HASHER)


# A login whose hash takes longer than brokers may wait.


def under(routes: OpenAPI, settings: Settings, **changes: Any) -> tuple[Broker, Services]:
    app = with_parts_of(routes, replace(settings, **changes))
    return broker_by("function", app), services_of(app)


@contextmanager
def all_hashing_held_up(services: Services) -> Iterator[threading.Event]:
    """Keep every thread that hashes for brokers busy until the event is set, or the block is left."""
    may_end, begun = threading.Event(), threading.Semaphore(0)

    def work() -> None:
        begun.release()
        assert may_end.wait(SOON)

    for _ in range(services.settings.hash_workers):
        services.broker_hashing.submit(work)
        assert begun.acquire(timeout=SOON)
    yield may_end
    may_end.set()


def until_decided(broker: Broker, username: str, password: str, client_id: str = "c1") -> Told:
    """Come again, as a device does, until there is a decision."""
    answers = iter(lambda: broker.logs_in(username, password, client_id), no("never"))
    return next(answer for answer in answers if answer not in (no("verifying"), no("hashing-busy")))


def test_a_login_waits_for_its_hash_and_is_let_in_the_first_time(broker: Broker) -> None:
    assert broker.logs_in("bob", BOBS_PASSWORD) == YES
    assert broker.logs_in("tom", "wrong") == no("wrong-password")


def as_long_as_cost_10(*_: bytes) -> bool:
    """Take the time of a hash at the default cost, whatever else this machine has to do."""
    time.sleep(0.05)
    return True


def test_with_default_settings_too_a_single_login_is_let_in_the_first_time(
    routes: OpenAPI, inhabited: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bcrypt, "checkpw", as_long_as_cost_10)
    broker, _ = under(routes, inhabited, connect_budget_ms=from_environment({}).connect_budget_ms)
    assert broker.logs_in("bob", BOBS_PASSWORD) == YES


def test_of_many_at_once_only_the_first_few_keep_the_broker_waiting(
    routes: OpenAPI, inhabited: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = [f"press-{number}" for number in range(20)]
    stored = HASHER.hash(BOBS_PASSWORD)
    for name in fleet:
        users.create_with_hash(OPERATOR, name, {}, stored)
    monkeypatch.setattr(bcrypt, "checkpw", as_long_as_cost_10)
    broker, _ = under(routes, inhabited, connect_budget_ms=150, hash_workers=2)
    begun = time.monotonic()
    answers = [broker.logs_in(name, BOBS_PASSWORD) for name in fleet]
    # One by one they would take a second.
    assert time.monotonic() - begun < 0.6
    assert answers[0] == YES
    assert answers.count(no("verifying")) > 10


def test_without_a_budget_it_is_let_in_the_second_time(routes: OpenAPI, inhabited: Settings) -> None:
    broker, services = under(routes, inhabited, connect_budget_ms=0)
    with all_hashing_held_up(services):
        assert broker.logs_in("bob", BOBS_PASSWORD) == no("verifying")
    assert until_decided(broker, "bob", BOBS_PASSWORD) == YES


def test_of_a_storm_each_is_answered_at_once_and_let_in_when_it_comes_again(
    routes: OpenAPI, inhabited: Settings
) -> None:
    fleet = [f"press-{number}" for number in range(40)]
    stored = HASHER.hash(BOBS_PASSWORD)
    for name in fleet:
        users.create_with_hash(OPERATOR, name, {}, stored)
    broker, services = under(routes, inhabited, connect_budget_ms=100)
    with all_hashing_held_up(services):
        begun = datetime.now(UTC)
        assert {broker.logs_in(name, BOBS_PASSWORD) for name in fleet} == {no("verifying")}
        # 40 that each waited would take 4 seconds.
        assert datetime.now(UTC) - begun < timedelta(seconds=2)
    assert {until_decided(broker, name, BOBS_PASSWORD) for name in fleet} == {YES}


def test_one_guess_at_a_time_is_hashed_and_the_same_one_joins_it(routes: OpenAPI, inhabited: Settings) -> None:
    broker, services = under(routes, inhabited, connect_budget_ms=0)
    with all_hashing_held_up(services):
        waiting = services.broker_hashing.waiting
        assert broker.logs_in("bob", BOBS_PASSWORD) == no("verifying")
        assert broker.logs_in("bob", "a guess") == no("hashing-busy")
        assert broker.logs_in("bob", BOBS_PASSWORD) == no("verifying")
        assert services.broker_hashing.waiting == waiting + 1
        assert broker.logs_in("tom", BOBS_PASSWORD) == no("verifying"), "others are not kept from theirs"
    assert until_decided(broker, "bob", BOBS_PASSWORD) == YES
    assert until_decided(broker, "bob", "a guess") == no("wrong-password")


def test_a_full_queue_is_said_and_harms_nobody_who_is_known(routes: OpenAPI, inhabited: Settings) -> None:
    broker, services = under(routes, inhabited, hash_queue=inhabited.hash_workers + 1, connect_budget_ms=0)
    assert until_decided(broker, "dot", "dot may do nothing here") == YES
    with all_hashing_held_up(services):
        assert broker.logs_in("bob", BOBS_PASSWORD) == no("verifying")
        assert broker.logs_in("tom", BOBS_PASSWORD) == no("hashing-busy")
        assert broker.logs_in("dot", "dot may do nothing here") == YES
        assert broker.acl("bob", "devices/bob/up", 2) == YES
    assert until_decided(broker, "tom", BOBS_PASSWORD) == YES


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_allowance_is_spent_by_waiting_and_comes_back_with_time(
    routes: OpenAPI, inhabited: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(hashing, "monotonic", clock)
    _, services = under(routes, inhabited, connect_budget_ms=100)
    may_end = threading.Event()
    monkeypatch.setattr(bcrypt, "checkpw", lambda *_: may_end.wait(SOON))
    assert patience(services, "bob") == pytest.approx(0.1)
    services.webhooks.answer(login("bob"))
    assert patience(services, "bob") == 0
    clock.now += 10
    assert patience(services, "bob") == pytest.approx(0.1)
    may_end.set()


def test_nothing_is_spent_on_a_login_whose_hash_has_to_queue(routes: OpenAPI, inhabited: Settings) -> None:
    _, services = under(routes, inhabited, connect_budget_ms=4000)
    with all_hashing_held_up(services):
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
        # Against the new password nothing is known yet, and that is found out in its turn.
        (lambda: change("bob", password="bob's next one"), "verifying"),
        (lambda: change("bob", grant_types=frozenset({"token"})), "grant-type-missing"),
        (lambda: users.delete(OPERATOR, "bob"), "unknown-user"),
    ],
    ids=["disabled", "password changed", "grant type gone", "removed"],
)
def test_what_changes_while_a_hash_is_under_way_counts(services: Services, happens: Any, reason: str) -> None:
    with all_hashing_held_up(services) as may_end:
        begun = services.webhooks.begin(login("bob"))
        assert isinstance(begun, PendingLogin)
        happens()
        services.policy.catch_up()
        may_end.set()
        begun.future.result(SOON)
        answer = services.webhooks.finish(begun)
    assert json.loads(answer.body) == {"ok": False, "error": reason}
