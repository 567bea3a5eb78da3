"""How the plugin reads answers, and what a no and an error do to clients."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.devices import BOTH_PROTOCOLS, FIRST_FAILURE, NOT_AUTHORIZED, V5, V311
from tests.mosquitto_plugin.webhooks import ALLOW, BROKEN, DENY, HANG_UP, Reply

if TYPE_CHECKING:
    from paho.mqtt.enums import MQTTProtocolVersion

    from tests.mosquitto_plugin.conftest import Site


# ---- How answers are read ----


@pytest.mark.parametrize(
    "body",
    [
        b'{"ok":true,"error":""}',
        b' {\r\n\t"error" : "" , "ok" : true } \n',
        b'{"Ok":true}',
        b'{"ok":true,"error":null,"ttl":-1.5e+3,"why":"\\"\\u00e9\xc3\xa9"}',
    ],
)
def test_json_mode_lets_in_on_ok_true(site: Site, body: bytes) -> None:
    site.webhooks.answer("/auth/user", Reply(body=body))
    assert site.device().connack() == 0


@pytest.mark.parametrize("body", [b'{"ok":false,"error":"no"}', b"{}", b'{"ok":null}', b'{"error":"{\\"ok\\":true}"}'])
@BOTH_PROTOCOLS
def test_json_mode_refuses_without_ok_true(site: Site, body: bytes, protocol: MQTTProtocolVersion) -> None:
    site.webhooks.answer("/auth/user", Reply(body=body))

    assert site.device(protocol=protocol).connack() == NOT_AUTHORIZED
    assert len(site.webhooks.calls) == 1


ERRORS = [BROKEN, Reply(503, b'{"ok":true}'), HANG_UP]
UNREADABLE = [Reply(body=body) for body in (b"", b"ok", b"<html>", b"true", b"{'ok':true}")]
DAMAGED = [Reply(body=body) for body in (b'{"ok":true', b'{"ok":true}}', b'{"ok":true,}', b'{"ok":true,"n":01}')]
WRONG_TYPES = [Reply(body=body) for body in (b'{"ok":"true"}', b'{"ok":1}', b'{"ok":true,"error":0}')]


@pytest.mark.parametrize(
    "reply", ERRORS + UNREADABLE + DAMAGED + WRONG_TYPES, ids=lambda reply: f"{reply.status} {reply.body!r}"
)
def test_an_error_is_asked_about_again_and_then_drops_the_client_without_connack(site: Site, reply: Reply) -> None:
    site.webhooks.answer("/auth/user", reply)

    assert site.device().is_dropped_without_connack()
    assert len(site.webhooks.calls) == 2  # retry_count 1


@pytest.mark.parametrize("reply", [BROKEN, HANG_UP, Reply(body=b"")], ids=["500", "hang-up", "empty"])
def test_a_passing_error_goes_unnoticed(site: Site, reply: Reply) -> None:
    site.webhooks.answer("/auth/user", reply, ALLOW)
    site.connected()

    assert len(site.webhooks.calls) == 2


@pytest.mark.parametrize("status", [304, 400, 401, 403, 404, 429])
def test_a_plain_no_is_final(site: Site, status: int) -> None:
    site.webhooks.answer("/auth/user", Reply(status, b""), ALLOW)

    assert site.device().connack() == NOT_AUTHORIZED
    assert len(site.webhooks.calls) == 1


@pytest.mark.parametrize(
    ("reply", "connack"),
    [
        (Reply(200, b"ok"), 0),
        (Reply(200, b"ok\n"), NOT_AUTHORIZED),
        (Reply(200, b'{"ok":true}'), NOT_AUTHORIZED),
        (Reply(200, b""), NOT_AUTHORIZED),
        (Reply(403, b"ok"), NOT_AUTHORIZED),
    ],
    ids=["ok", "newline", "json", "empty", "403"],
)
def test_text_mode_wants_the_two_bytes_ok(site: Site, reply: Reply, connack: int) -> None:
    site.webhooks.answer("/auth/user", reply)
    site.configure(response_mode="text")

    assert site.device().connack() == connack
    assert [call.target for call in site.webhooks.calls] == ["/auth/user?response=text"]


@pytest.mark.parametrize(
    ("reply", "connack"),
    [(Reply(200, b'{"ok":false}'), 0), (Reply(204, b""), 0), (Reply(403, b""), NOT_AUTHORIZED)],
    ids=["200", "204", "403"],
)
def test_status_mode_reads_no_body(site: Site, reply: Reply, connack: int) -> None:
    site.webhooks.answer("/auth/user", reply)
    site.configure(response_mode="status")

    assert site.device().connack() == connack


@pytest.mark.parametrize(("status", "method"), [(302, "GET"), (303, "GET"), (307, "POST"), (308, "POST")])
def test_a_redirect_is_followed(site: Site, status: int, method: str) -> None:
    site.webhooks.answer("/auth/user", Reply(status, b"", location="/elsewhere"))
    site.connected()

    first, second = site.webhooks.calls
    assert (second.method, second.path) == (method, "/elsewhere")
    assert second.body == (first.body if method == "POST" else b"")


def test_no_answer_within_the_timeout_is_an_error(site: Site) -> None:
    over = threading.Event()
    site.webhooks.answer("/auth/user", replace(HANG_UP, waits_for=over))
    site.configure("http_timeout 1", "retry_count 0")

    assert site.device().is_dropped_without_connack()
    over.set()
    assert len(site.webhooks.calls) == 1


# ---- What a no and an error do to a client that is in ----


@pytest.mark.parametrize(("protocol", "code"), [(V311, FIRST_FAILURE), (V5, NOT_AUTHORIZED)])
def test_a_refused_subscription_shows_in_the_suback(site: Site, protocol: MQTTProtocolVersion, code: int) -> None:
    site.webhooks.answer("/auth/acl", ALLOW, DENY, ALLOW)
    assert site.connected(protocol=protocol).subscribe("a", "b", "c") == [1, code, 1]


def test_a_refused_delivery_is_skipped_and_the_next_one_arrives(site: Site) -> None:
    device = site.connected()
    device.subscribe("#")
    site.webhooks.answer("/auth/acl", ALLOW, DENY, ALLOW)
    device.publish("first")
    device.publish("second")

    assert device.received() == ("second", b"")


@BOTH_PROTOCOLS
def test_an_acl_error_disconnects_the_subscriber(site: Site, protocol: MQTTProtocolVersion) -> None:
    device = site.connected(protocol=protocol)
    site.webhooks.answer("/auth/acl", BROKEN)
    device.subscribe_unacknowledged("a")

    assert device.is_disconnected()


def test_an_error_about_a_reader_disconnects_the_innocent_publisher(site: Site) -> None:
    site.connected(username="ann", client_id="reader").subscribe("a")
    publisher = site.connected(protocol=V5)
    site.webhooks.answer("/auth/acl", ALLOW, BROKEN)
    publisher.publish_unacknowledged("a")

    assert publisher.is_disconnected()
