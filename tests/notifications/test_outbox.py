"""The outbox and its sender: transactions, retries, claims, digests and a lost database."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import peewee
import pytest
from structlog.testing import capture_logs

from authsvc.accounts import bootstrap
from authsvc.activity import audit
from authsvc.errors import Conflict, InvalidInput, NotFound, PreconditionFailed
from authsvc.notifications import outbox, signing_secrets, subscriptions
from authsvc.notifications.outbox import EventType
from authsvc.notifications.sender import Sender
from authsvc.notifications.targets import DeliveryError
from authsvc.storage.database import database, session, transaction
from authsvc.storage.models import Delivery, Notification
from tests.actors import ALICE
from tests.notifications.environment import Clock, deny, notify, private, register, sender, stored
from tests.notifications.receivers import PATIENCE, Receiver, answer_with, receiving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from http.server import BaseHTTPRequestHandler

    from authsvc.settings import Settings

pytestmark = pytest.mark.usefixtures("prepared")

CHECKOUT = Path(__file__).parents[2]
PASSPHRASE = "a passphrase of the authority"
# Sends the messages that are due, and does not return while the receiver waits.
SENDING_PROCESS = """
import sys
from pathlib import Path
from authsvc.accounts import bootstrap
from authsvc.notifications.sender import Sender
from authsvc.settings import Settings

settings = Settings(data_dir=Path(sys.argv[1]), database_url=sys.argv[2], notify_private=True)
bootstrap.open_database(settings)
Sender(settings).send_due()
"""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that answers 204."""
    with receiving() as receiver:
        yield receiver


def contents(receiver: Receiver, secret: str | None) -> list[dict[str, Any]]:
    """Return the verified messages."""
    return [one.verified(secret or "") for one in receiver.received]


def test_message_is_written_in_the_transaction_of_its_event(prepared: Settings, receiver: Receiver) -> None:
    created = notify(prepared, receiver.url)
    with transaction(), database.atomic() as savepoint:
        outbox.publish(EventType.REGISTRATION_DENIED, {"username": "rolled-back"})
        savepoint.rollback()
    assert not stored()
    deny("press-7")
    assert sender(prepared).send_due() == 1
    (message,) = contents(receiver, created.secret)
    (row,) = stored()
    assert message == {
        "type": "registration.denied",
        "timestamp": f"{row.created_at:%Y-%m-%dT%H:%M:%SZ}",
        "data": {"username": "press-7"},
    }
    assert (row.status, row.attempts, row.error, row.claim) == ("delivered", 1, None, None)
    assert row.webhook_id == receiver.received[0].id
    assert sender(prepared).send_due() == 0


def test_only_enabled_notifications_about_the_event_get_a_message(prepared: Settings, receiver: Receiver) -> None:
    wanted = notify(prepared, receiver.url, "registration.denied", "login.throttled", name="wanted").record
    notify(prepared, receiver.url, "login.throttled", name="about another event")
    disabled = notify(prepared, receiver.url, name="disabled").record
    subscriptions.change(ALICE, disabled.id, {"enabled": False}, private(prepared))
    deny()
    with session():
        assert [row.notification.id for row in Delivery.select()] == [wanted.id]


def test_waiting_messages_of_a_disabled_notification_are_held_and_then_given_up(
    prepared: Settings, receiver: Receiver
) -> None:
    record = notify(prepared, receiver.url).record
    deny()
    subscriptions.change(ALICE, record.id, {"enabled": False}, private(prepared))
    assert sender(prepared).send_due() == 0
    outbox.delete_expired()
    assert stored()[0].status == "pending"
    with session():
        age = timedelta(days=3, minutes=4)
        row = stored()[0]
        Delivery.update(scheduled_at=row.scheduled_at - age, due_at=row.due_at - age).execute()
    outbox.delete_expired()
    assert (stored()[0].status, stored()[0].error) == ("failed", "not sent")
    assert not receiver.received


def test_failed_delivery_is_repeated_with_growing_pauses_for_three_days(prepared: Settings, receiver: Receiver) -> None:
    receiver.answer = answer_with(500, body=b"top-secret")
    created = notify(prepared, receiver.url)
    deny()
    clock = Clock()
    sending = sender(prepared, clock)
    began, pauses = clock.now, []
    with capture_logs() as logged:
        while (row := stored()[0] if sending.send_due() else None) and row.status == "pending":
            pauses.append(row.due_at - clock.now)
            assert row.error == "the receiver answered 500"
            clock.advance(seconds=pauses[-1].total_seconds() - 1)
            assert sending.send_due() == 0
            clock.advance(seconds=1)
    (row,) = stored()
    assert (row.status, row.attempts, row.claim) == ("failed", len(pauses) + 1, None)
    assert timedelta(days=3) - timedelta(seconds=2) <= clock.now - began <= timedelta(days=3)
    assert [pause.total_seconds() for pause in pauses[:4]] == [30, 60, 120, 240]
    assert max(pauses) == timedelta(hours=6)
    assert len({one.id for one in receiver.received}) == 1
    assert len(receiver.received) == row.attempts
    assert all(one.verified(created.secret or "") for one in receiver.received)
    assert [entry["given_up"] for entry in logged] == [False] * len(pauses) + [True]
    assert "top-secret" not in str(logged)
    assert receiver.url not in str(logged)
    shown = outbox.deliveries(created.record.id, "failed", 1, 10).items[0]
    assert (shown.attempts, shown.error, shown.next_attempt_at) == (row.attempts, row.error, None)
    clock.advance(days=1)
    assert sending.send_due() == 0


def test_delivery_that_succeeds_later_is_delivered(prepared: Settings, receiver: Receiver) -> None:
    receiver.answer = answer_with(503)
    notify(prepared, receiver.url)
    deny()
    clock = Clock()
    sending = sender(prepared, clock)
    assert sending.send_due() == 1
    receiver.answer = answer_with(200)
    clock.advance(seconds=30)
    assert sending.send_due() == 1
    (row,) = stored()
    assert (row.status, row.attempts, row.error) == ("delivered", 2, None)


def test_receiver_that_fails_does_not_delay_the_others(prepared: Settings, receiver: Receiver) -> None:
    with receiving(answer_with(500)) as failing:
        notify(prepared, failing.url, name="failing")
        notify(prepared, receiver.url, name="working")
        for number in range(5):
            deny(f"press-{number}")
        assert sender(prepared).send_due() == 6
    assert (len(failing.received), len(receiver.received)) == (1, 5)


def test_address_is_checked_again_at_each_delivery(prepared: Settings, receiver: Receiver) -> None:
    notify(prepared, receiver.url)
    deny()
    assert Sender(prepared, Clock()).send_due() == 1
    assert "AUTHSVC_NOTIFY_PRIVATE=yes" in (stored()[0].error or "")
    assert not receiver.received


def test_new_url_applies_to_waiting_messages(prepared: Settings, receiver: Receiver) -> None:
    created = notify(prepared, "http://127.0.0.1:9/")
    deny()
    subscriptions.change(ALICE, created.record.id, {"url": receiver.url}, private(prepared))
    sender(prepared).send_due()
    assert len(contents(receiver, created.secret)) == 1


def test_each_message_is_sent_once_by_several_workers(prepared: Settings, receiver: Receiver) -> None:
    notify(prepared, receiver.url)
    for number in range(30):
        deny(f"press-{number}")
    senders = [sender(prepared) for _ in range(4)]
    start = threading.Barrier(len(senders))

    def send(one: Any) -> int:
        start.wait(PATIENCE)
        return sum(iter(one.send_due, 0))

    with ThreadPoolExecutor(len(senders)) as pool:
        assert sum(pool.map(send, senders, timeout=60)) == 30
    assert len({one.id for one in receiver.received}) == len(receiver.received) == 30


def test_message_that_is_being_sent_is_not_sent_by_another_worker(prepared: Settings, receiver: Receiver) -> None:
    notify(prepared, receiver.url)
    deny()
    clock = Clock()
    others: list[int] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        clock.advance(seconds=outbox.LEASE.total_seconds() - 1)
        others.append(sender(prepared, clock).send_due())
        answer_with(204)(request)

    receiver.answer = answer
    assert sender(prepared, clock).send_due() == 1
    assert others == [0]


def test_worker_that_is_killed_after_sending_leaves_its_claim(prepared: Settings, receiver: Receiver) -> None:
    ended = threading.Event()
    receiver.answer = lambda _: ended.wait(PATIENCE)
    created = notify(prepared, receiver.url)
    deny()
    command = [sys.executable, "-c", SENDING_PROCESS, str(prepared.data_dir), prepared.database_url]
    with subprocess.Popen(command, cwd=CHECKOUT) as process:
        receiver.wait_for(1)
        process.send_signal(signal.SIGKILL)
    ended.set()
    receiver.answer = answer_with(204)
    assert (stored()[0].status, stored()[0].attempts) == ("pending", 0)
    clock = Clock()
    assert sender(prepared, clock).send_due() == 0
    clock.advance(seconds=outbox.LEASE.total_seconds())
    assert sender(prepared, clock).send_due() == 1
    first, second = receiver.received
    assert first.id == second.id
    assert first.verified(created.secret or "") == second.verified(created.secret or "")
    assert stored()[0].status == "delivered"


def test_result_is_stored_when_the_database_is_back(
    prepared: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    notify(prepared, receiver.url)
    deny()
    sending = sender(prepared)
    with monkeypatch.context() as patch:

        def lost(*_: object) -> None:
            raise peewee.OperationalError("gone")

        patch.setattr(outbox, "finish", lost)
        for _ in range(2):
            with pytest.raises(peewee.OperationalError):
                sending.send_due()
    assert stored()[0].status == "pending"
    assert sending.send_due() == 0
    assert stored()[0].status == "delivered"
    assert len(receiver.received) == 1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True, ids=[""])
def test_database_that_is_gone_while_the_receiver_answers(prepared: Settings, receiver: Receiver) -> None:
    files = [prepared.data_dir / f"authsvc.db{suffix}" for suffix in ("", "-wal", "-shm")]

    def lose_database(request: BaseHTTPRequestHandler) -> None:
        for file in files:
            if file.exists():
                file.rename(file.with_suffix(f"{file.suffix}.away"))
        answer_with(204)(request)

    receiver.answer = lose_database
    notify(prepared, receiver.url)
    deny()
    sending = sender(prepared)
    for _ in range(2):
        with pytest.raises(peewee.OperationalError):
            sending.send_due()
    for file in files:
        away = file.with_suffix(f"{file.suffix}.away")
        if away.exists():
            away.rename(file)
    assert sending.send_due() == 0
    assert [(row.status, row.attempts) for row in stored()] == [("delivered", 1)]
    assert len(receiver.received) == 1


def test_result_of_a_lost_claim_is_not_stored(prepared: Settings, receiver: Receiver) -> None:
    notify(prepared, receiver.url)
    deny()
    clock = Clock()
    late = outbox.claim(clock.now)
    assert late
    clock.advance(seconds=outbox.LEASE.total_seconds())
    assert sender(prepared, clock).send_due() == 1
    outbox.finish(late, "too late", clock.now)
    assert (stored()[0].status, stored()[0].attempts, stored()[0].error) == ("delivered", 1, None)


def test_flood_becomes_one_message_a_minute(prepared: Settings, receiver: Receiver) -> None:
    created = notify(prepared, receiver.url)
    clock = Clock()
    sending = sender(prepared, clock)
    register("first")
    assert sending.send_due() == 1
    for number in range(25):
        register(f"press-{number}")
    assert sending.send_due() == 0
    assert len(stored()) == 2
    assert stored()[1].due_at - stored()[0].scheduled_at == outbox.DIGEST_EVERY
    clock.advance(seconds=62)
    assert sending.send_due() == 1
    register("next minute")
    first, digest = contents(receiver, created.secret)
    assert first["data"] == {"count": 1, "registrations": [{"username": "first"}]}
    assert digest["data"]["count"] == 25
    names = [one["username"] for one in digest["data"]["registrations"]]
    assert names == [f"press-{number}" for number in range(10)]
    assert stored()[2].scheduled_at - stored()[1].scheduled_at >= outbox.DIGEST_EVERY


def test_claimed_digest_is_not_changed(prepared: Settings, receiver: Receiver) -> None:
    notify(prepared, receiver.url)
    register("first")
    assert outbox.claim(Clock().now)
    register("second")
    assert [row.content["count"] for row in stored()] == [1, 1]


def test_concurrent_events_are_all_counted(prepared: Settings, receiver: Receiver) -> None:
    notify(prepared, receiver.url)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(register, map("press-{}".format, range(40)), timeout=60))
    (row,) = stored()
    assert (row.content["count"], len(row.content["registrations"])) == (40, 10)


def test_throttled_users_are_named_or_counted(prepared: Settings, receiver: Receiver) -> None:
    created = notify(prepared, receiver.url)
    with transaction():
        outbox.login_throttled({"username": "bob", "address": "192.0.2.1"}, 1)
        outbox.login_throttled(None, 7)
    sender(prepared).send_due()
    (message,) = contents(receiver, created.secret)
    assert message["data"] == {"count": 8, "users": [{"username": "bob", "address": "192.0.2.1"}]}


def test_test_message_is_sent_to_a_disabled_notification(prepared: Settings, receiver: Receiver) -> None:
    created = notify(prepared, receiver.url)
    subscriptions.change(ALICE, created.record.id, {"enabled": False}, private(prepared))
    delivery = subscriptions.send_test(ALICE, created.record.id)
    assert sender(prepared).send_due() == 1
    (message,) = contents(receiver, created.secret)
    assert message["type"] == "notification.test"
    assert message["data"]["requestedBy"] == "alice"
    assert subscriptions.wait_for_attempt(delivery).status == "delivered"


def test_old_messages_are_deleted_and_counted_until_then(prepared: Settings, receiver: Receiver) -> None:
    notify(prepared, receiver.url)
    assert outbox.oldest_age() == 0
    deny()
    with session():
        Delivery.update(scheduled_at=stored()[0].scheduled_at - timedelta(hours=1)).execute()
    assert 3600 <= outbox.oldest_age() < 3700
    sender(prepared).send_due()
    assert outbox.oldest_age() == 0
    with session():
        Delivery.update(finished_at=stored()[0].finished_at - timedelta(days=8)).execute()
    outbox.delete_expired()
    assert not stored()


def test_secret_is_stored_encrypted_if_there_is_a_passphrase(prepared: Settings, receiver: Receiver) -> None:
    plain = notify(prepared, receiver.url, name="plain")
    encrypting = private(prepared, ca_key_passphrase=PASSPHRASE)
    url = f"{receiver.url}&encrypted"
    created = subscriptions.create(ALICE, "encrypted", url, ["registration.denied"], encrypting)
    with session():
        rows = {row.name: row.secret for row in Notification.select()}
    assert rows["plain"] == plain.secret
    assert created.secret not in rows["encrypted"]
    assert signing_secrets.decrypt(rows["encrypted"], PASSPHRASE) == created.secret
    for wrong in (None, "wrong"):
        with pytest.raises(DeliveryError, match="AUTHSVC_CA_KEY_PASSPHRASE"):
            signing_secrets.decrypt(rows["encrypted"], wrong)
    # The next start encrypts what was stored without a passphrase.
    bootstrap.prepare(replace(prepared, ca_key_passphrase=PASSPHRASE))
    with session():
        stored_now = {row.name: row.secret for row in Notification.select()}
    assert stored_now["encrypted"] == rows["encrypted"]
    assert plain.secret not in stored_now["plain"]
    deny()
    sender(prepared, ca_key_passphrase=PASSPHRASE).send_due()
    assert len(receiver.received) == 2
    for message in receiver.received:
        message.verified((created if message.path.endswith("&encrypted") else plain).secret or "")


def test_audit_trail_has_changes_without_secret_and_path(prepared: Settings, receiver: Receiver) -> None:
    created = notify(prepared, receiver.url)
    notification_id = created.record.id
    changes: subscriptions.NotificationChanges = {"name": "renamed", "url": receiver.url + "2", "enabled": False}
    subscriptions.change(ALICE, notification_id, changes, private(prepared))
    subscriptions.send_test(ALICE, notification_id)
    subscriptions.delete(ALICE, notification_id)
    found = [each for each in audit.events(1, 10, audit.AuditFilter()).items if each.action.startswith("notification.")]
    assert [(each.action, each.target) for each in reversed(found)] == [
        ("notification.create", "notification:operators"),
        ("notification.change", "notification:operators"),
        ("notification.test", "notification:renamed"),
        ("notification.delete", "notification:renamed"),
    ]
    assert found[2].after == {"name": "renamed", "url": f"http://127.0.0.1:{receiver.port}", "enabled": False}
    for secret in ("top-secret", created.secret or "", "whsec_"):
        assert secret not in repr(found)
    assert not stored()


def test_notification_is_validated(prepared: Settings, receiver: Receiver) -> None:
    record = notify(prepared, receiver.url).record
    with pytest.raises(Conflict):
        notify(prepared, receiver.url)
    for name in ("", " x", "x\n", "a\x1bb", "x" * 101):
        with pytest.raises(InvalidInput, match="name"):
            notify(prepared, receiver.url, name=name)
    with pytest.raises(InvalidInput, match="events"):
        notify(prepared, receiver.url, "notification.test", name="x")
    with pytest.raises(InvalidInput, match="AUTHSVC_NOTIFY_PRIVATE"):
        subscriptions.create(ALICE, "x", receiver.url, ["login.throttled"], prepared)
    mail = private(prepared, smtp_url="smtp://localhost")
    with pytest.raises(InvalidInput, match="must stay"):
        subscriptions.change(ALICE, record.id, {"url": "mailto:a@example.com"}, mail)
    with pytest.raises(PreconditionFailed):
        subscriptions.change(ALICE, record.id, {"enabled": False}, private(prepared), frozenset({"old"}))
    changed = subscriptions.change(ALICE, record.id, {"enabled": False}, private(prepared), frozenset({record.version}))
    assert changed.version != record.version
    for act in (subscriptions.get, subscriptions.named):
        with pytest.raises(NotFound):
            act("nowhere")
    assert subscriptions.named("operators") == subscriptions.named(record.id) == changed
