"""Notifications of registrations: pending, granted and denied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from authsvc.storage.database import session
from authsvc.storage.models import Delivery
from tests.notifications.environment import notify, stored
from tests.registry.environment import REGISTRATIONS, expect_success, failing_writes

if TYPE_CHECKING:
    from authsvc.settings import Settings
    from tests.registry.environment import Environment

NEVER_SENT = "http://192.0.2.1/"


@pytest.fixture(autouse=True)
def _notification(env: Environment, settings: Settings) -> None:
    """A notification about all events; nothing is sent."""
    assert env
    notify(settings, NEVER_SENT)


def messages() -> list[tuple[str, Any]]:
    """Return the event and content of each message, and delete them."""
    found = [(row.event, row.content) for row in stored()]
    with session():
        Delivery.delete().execute()
    return found


def test_registration_over_rest_is_announced_once(env: Environment) -> None:
    env.unlock()
    for _ in range(3):
        registration = env.register_pending("bob", address="192.0.2.7")
    content = {"id": registration, "username": "bob", "address": "192.0.2.7"}
    assert messages() == [("registration.pending", {"count": 1, "registrations": [content]})]
    expect_success(env.grant(registration))
    content = {"id": registration, "username": "bob", "decidedBy": "alice"}
    assert messages() == [("registration.granted", content)]


def test_registration_over_mqtt_is_announced_also_while_locked(env: Environment) -> None:
    assert not env.connect("bob", "a device's secret")
    assert not env.connect("bob", "a device's secret")
    assert not env.connect("carol", "a device's secret")
    ((event, content),) = messages()
    assert event == "registration.pending"
    assert (content["count"], [one["username"] for one in content["registrations"]]) == (2, ["bob", "carol"])


def test_denial_is_announced_with_its_reason(env: Environment) -> None:
    registrations = [env.create_in_status("pending", name) for name in ("bob", "carol")]
    messages()
    expect_success(env.deny(registrations[0], reason="stolen"))
    body = {"ids": registrations[1:]}
    expect_success(env.alice.post(f"{REGISTRATIONS}/deny", body))
    contents = dict(zip(("bob", "carol"), messages(), strict=True))
    content = {"id": registrations[0], "username": "bob", "decidedBy": "alice", "reason": "stolen"}
    assert contents["bob"] == ("registration.denied", content)
    assert contents["carol"][1]["reason"] is None


def test_registration_that_is_granted_at_once_is_not_pending(env: Environment) -> None:
    expect_success(env.alice.post("/api/client-registry/preauthorizations", {"username": "bob"}))
    assert env.connect("bob", "a device's secret") is False
    assert [event for event, _ in messages()] == ["registration.granted"]


def test_message_is_rolled_back_with_its_registration(env: Environment) -> None:
    env.unlock()
    with failing_writes("deliveries", "NEW.event = 'registration.pending'"):
        assert env.register("bob").status_code >= 500
    assert not env.registrations()
    assert not messages()
