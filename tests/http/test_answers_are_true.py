"""Cached answers are never returned after a change, after they expire, or for another request."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
import time_machine
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from authsvc.accounts import api_tokens, roles, users
from authsvc.broker.goauth_protocol import WebhookRequest
from authsvc.broker.signals import unknown_username
from authsvc.pki import certificates, csr
from authsvc.pki.authorities import SigningPolicy
from authsvc.pki.ca import RevocationReason
from tests.actors import BOBS_PASSWORD, HASHER, OPERATOR, mqtt
from tests.http.broker import YES, Broker, broker_by, no, services_of
from tests.http.conftest import with_services_of
from tests.registry.signing import signing_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask_openapi3.openapi import OpenAPI

    from authsvc.accounts.users import UserChanges
    from authsvc.settings import Settings
    from authsvc.web.request_context import Services
    from tests.http.broker import Answer


def change(username: str, **fields: Any) -> None:
    users.change(OPERATOR, username, cast("UserChanges", fields), HASHER)


def certify(username: str) -> str:
    key = csr.read(signing_request(username), username).public_key
    return users.issue_certificate(OPERATOR, username, key, SigningPolicy()).record.serial


# A change replaces cached answers.

PUBLISHES: Callable[[Broker], Answer] = lambda broker: broker.acl("bob", "devices/bob/up", 2)  # noqa: E731
ON_THE_LINE: Callable[[Broker], Answer] = lambda broker: broker.acl("bob", "lines/7", 2)  # noqa: E731
ELSEWHERE: Callable[[Broker], Answer] = lambda broker: broker.acl("bob", "elsewhere", 2)  # noqa: E731
LOGS_IN: Callable[[Broker], Answer] = lambda broker: broker.logs_in("bob", BOBS_PASSWORD)  # noqa: E731
BY_TEXT: Callable[[Broker], Answer] = lambda broker: broker.acl(  # noqa: E731
    "bob", "devices/bob/up", 2, query="response=text"
)
DENIES = (mqtt("write", "devices/#", "deny"), mqtt("readWrite", "devices/%u/#"))
CHANGES: dict[str, tuple[Callable[[Broker], Answer], Callable[[], object], Answer, Answer]] = {
    "disabled": (PUBLISHES, lambda: change("bob", enabled=False), YES, no("user-disabled")),
    "removed": (PUBLISHES, lambda: users.delete(OPERATOR, "bob"), YES, no("unknown-user")),
    "permissions removed": (PUBLISHES, lambda: change("bob", permissions=()), YES, no("no-permission")),
    "permission denied": (PUBLISHES, lambda: change("bob", permissions=DENIES), YES, no("denied-by-permission")),
    "permission given": (
        ELSEWHERE,
        lambda: change("bob", permissions=(mqtt("write", "elsewhere"),)),
        no("no-permission"),
        YES,
    ),
    "role taken": (ON_THE_LINE, lambda: change("bob", roles=()), YES, no("no-permission")),
    "role changed": (
        ON_THE_LINE,
        lambda: roles.change(OPERATOR, "line", {"permissions": ()}),
        YES,
        no("no-permission"),
    ),
    "role given": (ELSEWHERE, lambda: change("bob", roles=("admin",)), no("no-permission"), YES),
    "password changed": (LOGS_IN, lambda: change("bob", password="bob's next one"), YES, no("wrong-password")),
    "password removed": (LOGS_IN, lambda: change("bob", password=None), YES, no("grant-type-missing")),
    "password not enough": (
        LOGS_IN,
        lambda: change("bob", grant_types=frozenset({"token"})),
        YES,
        no("grant-type-missing"),
    ),
    "disabled before a login": (LOGS_IN, lambda: change("bob", enabled=False), YES, no("user-disabled")),
}


@pytest.mark.parametrize(("ask", "do", "before", "after"), CHANGES.values(), ids=CHANGES.keys())
def test_cached_answer_is_replaced_by_a_change(
    broker: Broker, services: Services, ask: Any, do: Any, before: Answer, after: Answer
) -> None:
    assert [ask(broker) for _ in range(3)] == [before] * 3
    do()
    services.policy.catch_up()
    assert [ask(broker) for _ in range(3)] == [after] * 3


def test_cached_text_answer_is_replaced_by_a_change(broker: Broker, services: Services) -> None:
    assert [BY_TEXT(broker).body for _ in range(2)] == [b"ok"] * 2
    change("bob", enabled=False)
    services.policy.catch_up()
    assert [BY_TEXT(broker).body for _ in range(2)] == [b"user-disabled"] * 2


def test_revoked_or_expired_token_is_denied_despite_cached_answers(broker: Broker, services: Services) -> None:
    revoked, ending = (api_tokens.issue_token(OPERATOR, "tom", "", 1) for _ in range(2))
    services.policy.catch_up()
    for token in (revoked.token, ending.token):
        assert [broker.logs_in("tom", token) for _ in range(2)] == [YES] * 2
    api_tokens.revoke_token(OPERATOR, revoked.record.id)
    services.policy.catch_up()
    assert broker.logs_in("tom", revoked.token) == no("invalid-token")
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=61), tick=False):
        assert broker.logs_in("tom", ending.token) == no("invalid-token")


def test_revoked_or_expired_certificate_is_denied_despite_cached_answers(broker: Broker, services: Services) -> None:
    def ask() -> Answer:
        return broker.acl("carol", "devices/carol/up", 2, query="grant=certificate")

    serial = certify("carol")
    services.policy.catch_up()
    assert [ask() for _ in range(2)] == [YES] * 2
    with time_machine.travel(datetime.now(UTC) + timedelta(days=366), tick=False):
        assert ask() == no("no-valid-certificate")
    assert ask() == YES
    certificates.revoke(OPERATOR, serial, RevocationReason.UNSPECIFIED)
    services.policy.catch_up()
    assert ask() == no("no-valid-certificate")


# A cached answer belongs to exactly one request.

ANY_BYTES = st.binary(max_size=12) | st.sampled_from([b"", b"\n", b"user", b"acl", b"a", b"key=a"])
# A query or header cannot contain a line break.
A_LINE = ANY_BYTES.map(lambda given: given.replace(b"\n", b"").replace(b"\r", b""))
# The host name and the browser check are decided before the cache is read; authsvc's own plugin is answered from the
# same entry, to which the state of the user is added.
REQUESTS = st.builds(
    WebhookRequest,
    st.sampled_from(["user", "acl", "superuser"]),
    *(A_LINE, A_LINE, A_LINE, ANY_BYTES),
    host=st.just(b""),
    from_browser=st.just(False),
    from_plugin=st.just(False),
)
examples = hypothesis_settings(
    max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@examples
@given(REQUESTS, REQUESTS)
@example(WebhookRequest("acl", b"", b"a", b"b", b"c"), WebhookRequest("acl", b"", b"a", b"", b"b\nc"))
@example(WebhookRequest("acl", b"a", b"", b"", b""), WebhookRequest("acl", b"", b"a", b"", b""))
@example(WebhookRequest("acl", b"", b"", b"", b"\n"), WebhookRequest("acl", b"", b"", b"", b""))
def test_different_requests_have_different_cache_keys(
    services: Services, one: WebhookRequest, other: WebhookRequest
) -> None:
    memory = services.webhooks
    assert (memory._cache_key(one) == memory._cache_key(other)) is (one == other)


FIELDS = st.fixed_dictionaries(
    {
        "username": st.sampled_from(["bob", "carol", "dora", "nemo", "bob-c1"]),
        "clientid": st.sampled_from(["c1", "c1-2", "bob", ""]),
        "topic": st.sampled_from(["devices/bob/up", "devices/carol/up", "sensors/1", "clients/c1/up", "lines/7", "#"]),
        "acc": st.sampled_from([1, 2, 3, 4, "1", "2"]),
        "password": st.sampled_from([BOBS_PASSWORD, "wrong", "c1"]),
    }
)
ASKED = st.tuples(
    st.sampled_from(["user", "acl", "superuser"]),
    FIELDS,
    st.sampled_from(
        [b"", b"response=text", b"grant=certificate", b"grant=certificate&response=text", b"response=json"]
    ),
)


@examples
@given(st.lists(ASKED, min_size=2, max_size=12))
def test_order_of_requests_changes_no_answer(services: Services, asked: list[Any]) -> None:
    requests = [
        WebhookRequest(check, query, b"application/json", b"", json.dumps(fields).encode())
        for check, fields, query in asked
    ]
    cached = [services.webhooks.answer(request) for request in requests + requests]
    for request, answer in zip(requests + requests, cached, strict=True):
        services.webhooks.clear_cache()
        assert services.webhooks.answer(request) == answer


def test_wrong_webhook_secret_is_denied_despite_cached_answers(routes: OpenAPI, seeded: Settings) -> None:
    protected = broker_by("function", with_services_of(routes, replace(seeded, webhook_secret="ours")))
    for _ in range(2):
        assert protected.acl("bob", "devices/bob/up", 2, query="key=ours") == YES
        assert protected.acl("bob", "devices/bob/up", 2, query="key=theirs") == no("wrong-webhook-secret", 401)
        assert protected.acl("bob", "devices/bob/up", 2) == no("wrong-webhook-secret", 401)


def test_each_attempt_of_an_unknown_user_is_signalled(broker: Broker) -> None:
    received: list[str] = []

    def listen(_sender: object, **words: Any) -> None:
        received.append(words["username"])

    with unknown_username.connected_to(listen):
        for _ in range(3):
            assert broker.logs_in("nemo", "let me in") == no("unknown-user")
    assert received == ["nemo"] * 3


def test_cache_size_is_limited(routes: OpenAPI, seeded: Settings) -> None:
    app = with_services_of(routes, replace(seeded, answer_cache_entries=50))
    broker, memory = broker_by("function", app), services_of(app).webhooks
    for number in range(220):
        assert broker.acl("bob", f"devices/bob/{number}", 2) == YES
        assert broker.logs_in("bob", f"guess {number}").status == 403
        assert 0 < len(memory._cache) <= 50


def test_cache_has_neither_passwords_nor_secrets(broker: Broker, services: Services) -> None:
    assert broker.logs_in("bob", BOBS_PASSWORD, query="key=ours") == YES
    kept = repr(services.webhooks._cache)
    assert "ours" not in kept
    assert BOBS_PASSWORD not in kept
    assert all(len(key) == 16 for key in services.webhooks._cache)


# A restored database replaces cached answers.


def test_restored_database_replaces_cached_answers_although_the_version_number_repeats(
    broker: Broker, services: Services, seeded: Settings
) -> None:
    file = Path(seeded.database_url.removeprefix("sqlite:///"))
    with closing(sqlite3.connect(file)) as live, closing(sqlite3.connect(":memory:")) as backup:
        live.backup(backup)
        change("bob", permissions=(mqtt("write", "elsewhere"),))
        change("dot", permissions=(mqtt("write", "news"),))
        services.policy.catch_up()
        then = services.policy.snapshot.version
        assert [ELSEWHERE(broker), broker.acl("dot", "news", 2)] == [YES, YES]
        backup.backup(live)
    services.policy.catch_up()
    for enabled in (False, True):
        change("tom", enabled=enabled)
        services.policy.catch_up()
    assert services.policy.snapshot.version == then
    assert [ELSEWHERE(broker), broker.acl("dot", "news", 2)] == [no("no-permission")] * 2
    assert "elsewhere" not in {permission.resource for permission in services.policy.snapshot.users["bob"].permissions}
