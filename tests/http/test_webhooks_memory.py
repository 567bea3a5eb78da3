"""The webhooks use memory only: they execute no SQL and work without the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import peewee
import pytest

from authsvc.accounts import api_tokens, users
from authsvc.accounts.users import UserChanges
from authsvc.storage.database import database
from tests.actors import BOBS_PASSWORD, HASHER, OPERATOR, mqtt
from tests.http.broker import YES, Broker, no

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from authsvc.settings import Settings
    from authsvc.web.request_context import Services
    from tests.http.callers import Caller

REQUESTS: dict[str, Callable[[Broker], object]] = {
    "an allowed topic": lambda broker: broker.acl("bob", "devices/bob/up", 2) == YES,
    "a topic allowed by a role": lambda broker: broker.acl("bob", "lines/7", 2) == YES,
    "a refused topic": lambda broker: broker.acl("bob", "elsewhere", 1) == no("no-permission"),
    "a subscription": lambda broker: broker.acl("bob", "sensors/#", 4) == YES,
    "an unknown user's topic": lambda broker: broker.acl("nemo", "a", 1) == no("unknown-user"),
    "a certificate": lambda broker: broker.acl("bob", "a", 1, query="grant=certificate"),
    "a right password": lambda broker: broker.logs_in("bob", BOBS_PASSWORD) == YES,
    "a wrong password": lambda broker: broker.logs_in("bob", "wrong") == no("wrong-password"),
    "an unknown user": lambda broker: broker.logs_in("nemo", "wrong") == no("unknown-user"),
    "a superuser": lambda broker: broker.ask("superuser", username="bob") == no("no-superusers"),
    "nonsense": lambda broker: broker.send("acl", b"nonsense"),
}
every_request = pytest.mark.parametrize("call", REQUESTS.values(), ids=REQUESTS.keys())


@pytest.fixture
def queries(seeded: Settings, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All SQL statements executed since the test began."""
    seen: list[str] = []
    execute = database.obj.execute_sql

    def note(sql: str, *rest: Any, **options: Any) -> Any:
        seen.append(sql)
        return execute(sql, *rest, **options)

    monkeypatch.setattr(database.obj, "execute_sql", note)
    return seen


@every_request
def test_webhook_executes_no_sql(broker: Broker, queries: list[str], call: Callable[[Broker], object]) -> None:
    queries.clear()
    assert call(broker)
    assert queries == []


def test_login_with_cached_password_executes_no_sql(broker: Broker, queries: list[str]) -> None:
    assert broker.logs_in("bob", BOBS_PASSWORD) == YES
    queries.clear()
    assert broker.logs_in("bob", BOBS_PASSWORD) == YES
    assert queries == []


def test_new_tokens_keep_cached_answers_valid(broker: Broker, services: Services, alice: Caller) -> None:
    requests_ = [("bob", "devices/bob/up", 2), ("bob", "lines/7", 2), ("bob", "elsewhere", 1), ("nemo", "a", 1)]
    before = [broker.acl(*request) for request in requests_]
    counters = services.webhooks.counters
    hits, misses = counters.hits, counters.misses
    for username in ("tom", "bob", "alice"):
        assert alice.post("/api/tokens", {"username": username}).status_code == 201
    token = api_tokens.issue_token(OPERATOR, "tom", "", 1).token
    services.policy.catch_up()
    assert [broker.acl(*request) for request in requests_] == before
    assert (counters.hits, counters.misses) == (hits + len(requests_), misses)
    assert broker.logs_in("tom", token) == YES


def test_fixture_queries_records_sql(services: Services, alice: Caller, queries: list[str]) -> None:
    services.policy.catch_up()
    seen_by_the_policy = len(queries)
    assert seen_by_the_policy > 0
    assert alice.get("/api/users/bob").status_code == 200
    assert len(queries) > seen_by_the_policy


@pytest.fixture
def lost_database(settings: Settings, services: Services) -> Iterator[Path]:
    """The database file, renamed after the policy was loaded."""
    file = settings.data_dir / "authsvc.db"
    elsewhere = file.rename(settings.data_dir / "elsewhere.db")
    with pytest.raises(peewee.OperationalError):
        services.policy.catch_up()
    yield elsewhere
    assert not file.exists(), "a new, empty database was created"


@every_request
def test_webhook_works_without_the_database(
    broker: Broker, lost_database: Path, call: Callable[[Broker], object]
) -> None:
    assert lost_database.exists()
    assert call(broker)


def test_every_request_is_denied_before_the_policy_is_loaded(broker: Broker, services: Services) -> None:
    services.policy.snapshot = type(services.policy.snapshot)()
    assert broker.logs_in("bob", BOBS_PASSWORD) == no("policy-not-loaded")
    assert broker.acl("bob", "devices/bob/up", 2) == no("policy-not-loaded")


def test_change_is_in_force_when_the_policy_has_caught_up(broker: Broker, services: Services) -> None:
    assert broker.acl("dot", "news", 1) == no("no-permission")
    users.change(OPERATOR, "dot", UserChanges(permissions=(mqtt("read", "news"),)), HASHER)
    assert broker.acl("dot", "news", 1) == no("no-permission")
    services.policy.catch_up()
    assert broker.acl("dot", "news", 1) == YES


def test_catching_up_replaces_only_changed_users(services: Services) -> None:
    before = dict(services.policy.snapshot.users)
    users.change(OPERATOR, "dot", UserChanges(enabled=False), HASHER)
    services.policy.catch_up()
    after = services.policy.snapshot.users
    assert [name for name in after if after[name] is not before[name]] == ["dot"]
