"""Filters and sorting of lists over REST, and their wrong values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from authsvc.activity import last_seen
from authsvc.record_json import rfc3339
from authsvc.storage.database import transaction
from tests.http.callers import refused_fields
from tests.live_clients import connected, report

if TYPE_CHECKING:
    from authsvc.settings import Settings
    from tests.http.callers import Caller

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
def _bob_was_seen(seeded: Settings) -> None:
    with transaction():
        last_seen.record(["bob"], NOON)


@pytest.mark.usefixtures("_bob_was_seen")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("lastSeenAfter=2026-11-20T12:00:00Z", "bob"),
        ("lastSeenAfter=2026-11-20T13:00:00%2B01:00", "bob"),
        ("lastSeenAfter=2026-11-20T12:00:01Z&search=bob", ""),
        ("lastSeenBefore=2026-11-20T12:00:01Z&search=bob", "bob"),
        ("grantType=certificate", "carol"),
        ("enabled=false&grantType=certificate", ""),
        ("enabled=false", "dora"),
        ("search=do&sort=-username", "dot dora"),
        ("origin=registration", ""),
    ],
)
def test_users_are_filtered_and_sorted(alice: Caller, query: str, expected: str) -> None:
    items = alice.get(f"/api/users?{query}").get_json()["items"]
    assert " ".join(user["username"] for user in items) == expected


@pytest.mark.usefixtures("_bob_was_seen")
def test_user_shows_when_it_was_last_seen(alice: Caller) -> None:
    assert alice.get("/api/users/bob").get_json()["lastSeen"] == rfc3339(NOON)
    assert alice.get("/api/users?search=bob").get_json()["items"][0]["lastSeen"] == rfc3339(NOON)
    assert alice.get("/api/users/dora").get_json()["lastSeen"] is None


def test_audit_events_are_filtered_by_time(alice: Caller) -> None:
    alice.creates_user("press-7")
    alice.creates_user("press-8")
    start = datetime.now(UTC).replace(microsecond=0)
    before, after = rfc3339(start - timedelta(hours=1)), rfc3339(start + timedelta(hours=1))

    def targets(query: str) -> list[str]:
        items = alice.get(f"/api/audit?actor=alice&{query}").get_json()["items"]
        return [event["target"] for event in items]

    everything = targets("")
    assert everything == ["user:press-8", "user:press-7"]
    assert targets(f"after={before}&before={after}") == everything
    assert targets("sort=at") == everything[::-1]
    assert targets(f"after={after}") == []
    assert targets(f"before={before}") == []


def test_connected_clients_are_filtered_and_sorted(alice: Caller) -> None:
    report(connected(1), connected(2, "carol", credential="certificate"))

    def ids(query: str) -> list[str]:
        return [client["clientId"] for client in alice.get(f"/api/clients?{query}").get_json()["items"]]

    assert ids("sort=username") == ["c-1", "c-2"]
    assert ids("credential=certificate") == ["c-2"]
    assert ids("connectedAfter=2026-11-20T08:00:02Z") == ["c-2"]
    assert ids("connectedBefore=2026-11-20T08:00:02Z") == ["c-1"]


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        ("users", "enabled", "perhaps"),
        ("users", "grantType", "oauth"),
        ("users", "lastSeenAfter", "yesterday"),
        ("users", "lastSeenAfter", "2026-11-20"),
        ("users", "lastSeenBefore", "1700000000"),
        ("users", "sort", "password"),
        ("users", "origin", "space"),
        ("users", "sort", "--username"),
        ("audit", "after", "2026-02-30T12:00:00Z"),
        ("audit", "before", "9999-12-31T23:59:59Z"),
        ("audit", "sort", "actor"),
        ("certificates", "expiringBefore", "soon"),
        ("certificates", "status", "fresh"),
        ("certificates", "sort", "key"),
        ("clients", "credential", "guess"),
        ("clients", "connectedAfter", "0"),
        ("clients", "connectedBefore", "-"),
        ("clients", "sort", "address"),
    ],
)
def test_wrong_value_of_a_filter_is_refused_by_name(alice: Caller, path: str, field: str, value: str) -> None:
    assert refused_fields(alice.get(f"/api/{path}", query_string={field: value})) == [field]
