"""The receiver in docs/operating.md, and the events and metrics that the document names."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from authsvc.notifications import sender, signing_secrets
from authsvc.notifications.outbox import EventType

TEXT = (Path(__file__).parents[2] / "docs" / "operating.md").read_text(encoding="utf-8")
BODY = '{"type": "registration.pending", "timestamp": "2026-11-20T08:00:00Z", "data": {}}'


def test_documented_receiver_verifies_the_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    secret, now = signing_secrets.create(), datetime.now(UTC)
    monkeypatch.setenv("WEBHOOK_SECRET", secret)
    names: dict[str, Any] = {"__name__": "receiver"}
    exec(code, names)
    names["app"].testing = True
    signature = Webhook(secret).sign("msg_1", now, BODY)
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}
    client = names["app"].test_client()
    answer = client.post("/hook", data=BODY, headers=headers)
    assert answer.get_json() == {"received": "registration.pending"}
    with pytest.raises(WebhookVerificationError):
        client.post("/hook", data=BODY.replace("pending", "granted"), headers=headers)


def test_every_event_and_metric_is_documented() -> None:
    assert set(re.findall(r"`([a-z]+\.[a-z]+)`", TEXT)) >= set(EventType)
    for metric in (sender._ATTEMPTS, sender._OLDEST):
        assert metric._name in TEXT
