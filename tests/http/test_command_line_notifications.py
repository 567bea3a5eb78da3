"""`authsvc notifications`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from authsvc.notifications import subscriptions
from authsvc.notifications.outbox import EVENTS
from tests.http.console import Console, error_of, stdout_of
from tests.notifications.receivers import answer_with, receiving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.http.callers import Caller
    from tests.service import Service

PUBLIC = "http://93.184.215.14/hook"


@pytest.fixture
def private(shell: Service, console: Console) -> Iterator[Console]:
    """The command line of a service that runs and may send to this machine."""
    shell.environment["AUTHSVC_NOTIFY_PRIVATE"] = "yes"
    with shell:
        yield replace(console, environment=shell.environment)


def test_notification_is_created_and_listed(console: Console, alice: Caller) -> None:
    secret = stdout_of(console.command("notifications", "create", "operators", PUBLIC)).strip()
    assert secret.startswith("whsec_")
    created = json.loads(
        stdout_of(console.command("notifications", "create", "more", PUBLIC, "--event", "login.throttled", "--json"))
    )
    assert (created["events"], created["secret"][:6]) == (["login.throttled"], "whsec_")
    listed = json.loads(stdout_of(console.command("notifications", "list", "--json")))
    assert listed == alice.get("/api/notifications").get_json()
    assert listed["items"][1]["events"] == sorted(EVENTS)
    heading, first, _ = stdout_of(console.command("notifications", "list")).splitlines()
    assert heading.split() == ["ID", "NAME", "URL", "EVENTS", "ENABLED"]
    assert first.split() == [created["id"], "more", PUBLIC, "login.throttled", "yes"]
    assert secret not in stdout_of(console.command("notifications", "list", "--json"))


def test_errors_name_the_field(console: Console) -> None:
    told = error_of(console.command("notifications", "create", "x", "http://localhost/"))
    assert told.startswith("url: leads to this machine or to a private network")
    told = error_of(console.command("notifications", "create", "x", "mailto:a@example.com"))
    assert told == "url: needs a mail server; set AUTHSVC_SMTP_URL"
    assert console.command("notifications", "create", "x", PUBLIC, "--event", "nothing").returncode == 2
    for command in ("delete", "test", "deliveries"):
        assert error_of(console.command("notifications", command, "nobody")) == "no such notification"


def test_test_message_and_deliveries(private: Console) -> None:
    with receiving() as receiver:
        secret = stdout_of(private.command("notifications", "create", "operators", receiver.url)).strip()
        assert stdout_of(private.command("notifications", "test", "operators")) == "delivered to operators\n"
        receiver.received[0].verified(secret)
        receiver.answer = answer_with(418)
        told = error_of(private.command("notifications", "test", "operators"))
        assert told == "not delivered: the receiver answered 418"
    heading, failed, delivered = stdout_of(private.command("notifications", "deliveries", "operators")).splitlines()
    assert heading.startswith("ID")
    assert "pending" in failed
    assert failed.endswith("the receiver answered 418")
    assert "delivered" in delivered
    shown = stdout_of(private.command("notifications", "deliveries", "operators", "--status", "delivered", "--json"))
    assert [one["attempts"] for one in json.loads(shown)["items"]] == [1]


def test_test_without_a_running_service(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "TESTED_WITHIN_SECONDS", 0.05)
    stdout_of(console.command("notifications", "create", "operators", PUBLIC))
    told = error_of(console.command("notifications", "test", "operators"))
    assert "check that `authsvc serve` is running" in told


def test_notification_is_deleted_by_name(console: Console) -> None:
    stdout_of(console.command("notifications", "create", "operators", PUBLIC))
    assert stdout_of(console.command("notifications", "delete", "operators")) == "operators deleted\n"
    assert json.loads(stdout_of(console.command("notifications", "list", "--json")))["total"] == 0
