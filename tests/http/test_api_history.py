"""`/api/history`: the numbers of logins and denials over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from authsvc.observability import metrics
from tests.actors import BOBS_PASSWORD
from tests.http.broker import YES, Broker, no
from tests.http.callers import Caller, problem_of, refused_fields

if TYPE_CHECKING:
    from authsvc.web.request_context import Services


def test_logins_and_denials_are_counted(broker: Broker, alice: Caller, services: Services) -> None:
    metrics.flush_decisions()  # of earlier tests
    services.decision_stats.store()
    before = alice.get("/api/history?hours=1").get_json()["buckets"]
    for _ in range(3):
        assert broker.logs_in("bob", BOBS_PASSWORD) == YES
    assert broker.logs_in("bob", "wrong") == no("wrong-password")
    assert broker.logs_in("nemo", "wrong") == no("unknown-user")
    for _ in range(4):
        assert broker.acl("bob", "elsewhere", 1) == no("no-permission")
    metrics.flush_decisions()
    services.decision_stats.store()
    after = alice.get("/api/history?hours=1").get_json()["buckets"]
    gained = {
        name: sum(bucket[name] for bucket in after) - sum(bucket[name] for bucket in before)
        for name in ("logins", "deniedLogins", "denials")
    }
    assert gained == {"logins": 3, "deniedLogins": 2, "denials": 4}


@pytest.mark.parametrize(("query", "buckets"), [("", 288), ("?hours=1", 12), ("?hours=48", 576)])
def test_history_has_every_bucket(alice: Caller, query: str, buckets: int) -> None:
    body = alice.get(f"/api/history{query}").get_json()
    assert (body["bucketSeconds"], len(body["buckets"])) == (300, buckets)
    assert set(body["buckets"][0]) == {"at", "logins", "deniedLogins", "denials"}
    times = [bucket["at"] for bucket in body["buckets"]]
    assert times == sorted(times)


@pytest.mark.parametrize("hours", ["0", "49", "-1", "x", "1.5"])
def test_hours_beyond_the_kept_time_are_refused(alice: Caller, hours: str) -> None:
    assert refused_fields(alice.get(f"/api/history?hours={hours}")) == ["hours"]


def test_callers_without_permission_are_refused(dot: Caller) -> None:
    problem_of(dot.get("/api/history"), 403, "forbidden")
