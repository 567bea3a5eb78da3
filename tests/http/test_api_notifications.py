"""Notifications over REST, and their delivery by a running service."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from authsvc.activity import throttled_logins
from authsvc.jobs import notification_jobs
from authsvc.notifications import outbox
from authsvc.notifications.outbox import EVENTS
from authsvc.policy.guess_limit import Attempt, Login
from authsvc.web.request_context import EXTENSION
from tests.http.callers import problem_of, refused_fields
from tests.notifications.receivers import answer_with, receiving, wait_until

if TYPE_CHECKING:
    from flask_openapi3.openapi import OpenAPI

    from authsvc.web.request_context import Services
    from tests.http.callers import Caller
    from tests.service import Service

PATH = "/api/notifications"
PRIVATE = "http://127.0.0.1:9/hook?token=top-secret"
PUBLIC = "http://93.184.215.14/hook"
NEW = {"name": "operators", "url": PUBLIC, "events": ["registration.pending"]}


@pytest.fixture
def private(app: OpenAPI) -> Services:
    """The services, which may send to this machine."""
    services: Services = app.extensions[EXTENSION]
    settings = replace(services.settings, notify_private=True, smtp_url="smtp://127.0.0.1:9")
    app.extensions[EXTENSION] = replace(services, settings=settings)
    return app.extensions[EXTENSION]  # type: ignore[no-any-return]


def create(caller: Caller, **fields: Any) -> dict[str, Any]:
    """Create a notification, which must succeed."""
    answer = caller.post(PATH, NEW | fields)
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.get_json()
    assert answer.headers["Location"] == f"{PATH}/{created['id']}"
    return created


def test_secret_is_shown_once(alice: Caller) -> None:
    created = create(alice)
    secret = created.pop("secret")
    assert secret.startswith("whsec_")
    assert len(secret) == len("whsec_") + 44
    assert created["enabled"] is True
    assert created["events"] == NEW["events"]
    path = f"{PATH}/{created['id']}"
    assert alice.get(path).get_json() == created
    assert alice.get(PATH).get_json()["items"] == [created]
    for shown in (alice.get(PATH), alice.get(path), alice.get(f"{path}/deliveries"), alice.get("/api/audit")):
        assert secret not in shown.text


def test_notification_is_changed_and_deleted(alice: Caller, private: Services) -> None:
    assert private
    created = create(alice, enabled=False)
    path = f"{PATH}/{created['id']}"
    etag = alice.get(path).headers["ETag"]
    changes = {"name": "others", "url": PRIVATE, "events": sorted(EVENTS), "enabled": True}
    answer = alice.patch(path, changes, headers={"If-Match": etag})
    assert answer.status_code == 200
    assert {name: answer.get_json()[name] for name in changes} == changes
    problem_of(alice.patch(path, changes, headers={"If-Match": etag}), 412, "precondition-failed")
    assert alice.patch(path, {}).get_json()["name"] == "others"
    assert alice.delete(path).status_code == 204
    problem_of(alice.get(path), 404, "notification-not-found")
    problem_of(alice.get(f"{path}/deliveries"), 404, "notification-not-found")
    problem_of(alice.post(f"{path}/test"), 404, "notification-not-found")


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"name": ""}, ["name"]),
        ({"name": "a\nb"}, ["name"]),
        ({"name": 7}, ["name"]),
        ({"events": []}, ["events"]),
        ({"events": ["notification.test"]}, ["events[0]"]),
        ({"url": "mailto:operator@plant.example"}, ["url"]),
        ({"url": "ftp://example.com/"}, ["url"]),
        ({"url": PRIVATE}, ["url"]),
        ({"url": "http://[::ffff:127.0.0.1]/"}, ["url"]),
        ({"enabled": "yes"}, ["enabled"]),
        ({"secret": "mine"}, ["secret"]),
    ],
)
def test_invalid_field_is_named(alice: Caller, fields: dict[str, Any], refused: list[str]) -> None:
    assert refused_fields(alice.post(PATH, NEW | fields)) == refused
    created = create(alice)
    assert refused_fields(alice.patch(f"{PATH}/{created['id']}", fields)) == refused
    assert "top-secret" not in alice.post(PATH, NEW | fields).text


def test_name_is_unique(alice: Caller) -> None:
    create(alice)
    problem_of(alice.post(PATH, NEW), 409, "notification-exists")
    other = create(alice, name="others")
    problem_of(alice.patch(f"{PATH}/{other['id']}", {"name": "operators"}), 409, "notification-exists")


def test_mail_has_no_secret(alice: Caller, private: Services) -> None:
    assert private
    assert create(alice, url="mailto:operator@plant.example")["secret"] is None


def test_permissions_of_other_nouns_do_not_suffice(alice: Caller, charlie: Caller) -> None:
    created = create(alice)
    for method, path in (
        ("GET", PATH),
        ("POST", PATH),
        ("GET", f"{PATH}/{created['id']}"),
        ("PATCH", f"{PATH}/{created['id']}"),
        ("POST", f"{PATH}/{created['id']}/test"),
    ):
        problem_of(charlie.call(method, path, json={}), 403, "forbidden")


def test_deliveries_show_attempts_and_errors_without_secrets(alice: Caller, private: Services) -> None:
    job = notification_jobs(private)[0]
    with receiving(answer_with(500, body=b"top-secret")) as receiver:
        created = create(alice, url=receiver.url)
        path = f"{PATH}/{created['id']}"
        queued = alice.post(f"{path}/test")
        assert (queued.status_code, queued.get_json()["status"]) == (202, "pending")
        job.work()
    (shown,) = alice.get(f"{path}/deliveries").get_json()["items"]
    assert shown["id"] == queued.get_json()["id"] == receiver.received[0].id
    assert (shown["event"], shown["status"], shown["attempts"]) == ("notification.test", "pending", 1)
    assert shown["error"] == "the receiver answered 500"
    assert shown["nextAttemptAt"] > shown["createdAt"]
    assert shown["finishedAt"] is None
    assert alice.get(f"{path}/deliveries?status=delivered").get_json()["total"] == 0
    assert alice.get(f"{path}/deliveries?status=pending&perPage=1").get_json()["total"] == 1
    assert refused_fields(alice.get(f"{path}/deliveries?status=lost")) == ["status"]
    metrics = alice.get("/metrics").text
    assert 'authsvc_notification_attempts_total{outcome="failed"}' in metrics
    assert "authsvc_notification_oldest_seconds" in metrics


def test_throttled_login_is_announced(alice: Caller, services: Services) -> None:
    created = create(alice, events=["login.throttled"])
    limit = services.access.guess_limit
    for _ in range(2):
        limit.reports.append(Attempt(Login("bob", "made up"), known=False, limits=()))
    limit._unreported = 3
    throttled_logins.store(limit, outbox.login_throttled)
    (shown,) = outbox.deliveries(created["id"], "", 1, 10).items
    claimed = outbox.claim(shown.created_at)
    assert claimed
    assert claimed.content == {"count": 4, "users": [{"username": "bob", "address": None}]}


def test_running_service_sends_from_the_api_listener_only(running: Service) -> None:
    running.environment |= {"AUTHSVC_NOTIFY_PRIVATE": "yes", "AUTHSVC_LOG_LEVEL": "debug", "AUTHSVC_API_WORKERS": "2"}
    with receiving() as receiver, running:
        body = {"name": "all", "url": receiver.url, "events": sorted(EVENTS)}
        created = running.call("POST", PATH, json=body).json()
        for _ in range(10):
            assert running.call("POST", f"{PATH}/{created['id']}/test").status_code == 202
        received = receiver.wait_for(10)
        deliveries = f"{PATH}/{created['id']}/deliveries?status=delivered"
        wait_until(lambda: running.call("GET", deliveries).json()["total"] == 10)
        assert len({one.id for one in received}) == len(received) == 10
        for one in received:
            one.verified(created["secret"])
        wait_until(lambda: "authsvc_notification_attempts_total" in running.call("GET", "/metrics").text)
        log = running.log_text()
    assert "top-secret" not in log
    assert created["secret"] not in log


def test_broker_listener_alone_sends_nothing(running: Service) -> None:
    running.environment |= {"AUTHSVC_NOTIFY_PRIVATE": "yes"}
    with receiving() as receiver:
        running.only = "broker"
        with running:
            done = running.command("notifications", "create", "all", receiver.url)
            assert done.returncode == 0, done.stderr
            done = running.command("notifications", "test", "all")
            assert done.returncode == 1
            assert "has not been sent within 5 seconds" in done.stderr
        assert not receiver.received
