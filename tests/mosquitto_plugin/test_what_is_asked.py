"""What the plugin sends, byte for byte, and which call it makes when."""

from __future__ import annotations

import re
from base64 import b64encode
from typing import TYPE_CHECKING

import pytest

from tests.devices import BOTH_PROTOCOLS, NOT_AUTHORIZED
from tests.mosquitto_plugin.webhooks import ALLOW, BROKEN, DENY

if TYPE_CHECKING:
    from paho.mqtt.enums import MQTTProtocolVersion

    from tests.mosquitto_plugin.conftest import Site


# ---- What is asked, byte for byte ----


def test_a_login_is_posted_as_json_with_the_headers_of_go_auth(site: Site) -> None:
    site.connected()

    [call] = site.webhooks.calls
    assert (call.method, call.target) == ("POST", "/auth/user")
    assert call.body == b'{"clientid":"c1","password":"pw","username":"bob"}'
    agent = call.headers.pop("User-Agent")
    assert re.fullmatch(r"mosquitto-\d+\.\d+\.\d+", agent)
    assert call.headers == {
        "Host": f"127.0.0.1:{site.webhooks.server_port}",
        "Content-Type": "application/json",
        "Content-Length": "50",
        "Accept-Encoding": "gzip",
    }


def test_a_subscription_is_posted_as_json_with_a_bare_number(site: Site) -> None:
    site.connected().subscribe("sensors/#")

    [call] = site.webhooks.to("/auth/acl")
    assert call.body == b'{"acc":4,"clientid":"c1","topic":"sensors/#","username":"bob"}'


def test_form_mode_posts_sorted_forms_under_the_name_of_gos_client(site: Site) -> None:
    site.configure("http_method PUT", "http_user_agent ours", params_mode="form")
    site.connected(password="a b+c&d=é~").subscribe("sensors/#")

    login, subscription = site.webhooks.calls
    assert login.body == b"clientid=c1&password=a+b%2Bc%26d%3D%C3%A9~&username=bob"
    assert subscription.body == b"acc=4&clientid=c1&topic=sensors%2F%23&username=bob"
    assert {call.method for call in site.webhooks.calls} == {"POST"}
    assert {name: value for name, value in login.headers.items() if name not in {"Host", "Content-Length"}} == {
        "User-Agent": "Go-http-client/1.1",
        "Content-Type": "application/x-www-form-urlencoded",
        "Accept-Encoding": "gzip",
    }


@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_json_goes_out_with_the_configured_method_and_user_agent(site: Site, method: str) -> None:
    site.configure(f"http_method {method}", "http_user_agent ours")
    site.connected()

    [call] = site.webhooks.calls
    assert (call.method, call.headers["User-Agent"]) == (method, "ours")
    assert call.body == b'{"clientid":"c1","password":"pw","username":"bob"}'


def test_a_secret_travels_in_the_query_or_as_basic_credentials(site: Site) -> None:
    site.configure("http_host broker:s3cret@127.0.0.1", webhook_secret="k&y")
    site.connected().subscribe("a")

    assert [call.target for call in site.webhooks.calls] == ["/auth/user?key=k%26y", "/auth/acl?key=k%26y"]
    basic = f"Basic {b64encode(b'broker:s3cret').decode()}"
    assert [call.headers["Authorization"] for call in site.webhooks.calls] == [basic, basic]


def test_json_escapes_what_go_escapes(site: Site) -> None:
    site.connected(username="<é&\U0001f600>\u2028", password='"\\/\n\x01\x7f')

    [call] = site.webhooks.calls
    assert call.body == (
        b'{"clientid":"c1","password":"\\"\\\\/\\n\\u0001\x7f",'
        b'"username":"\\u003c\xc3\xa9\\u0026\xf0\x9f\x98\x80\\u003e\\u2028"}'
    )


@pytest.mark.parametrize(
    "invalid",
    [b"\xff", b"\xc3", b"\xc0\xaf", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"],
    ids=["never", "cut", "overlong", "overlong-3", "surrogate", "beyond"],
)
def test_each_byte_of_a_password_that_is_not_utf8_becomes_a_replacement_character(site: Site, invalid: bytes) -> None:
    site.connected(password=b"a" + invalid + b"z")

    [call] = site.webhooks.calls
    assert call.fields["password"] == "a" + "\ufffd" * len(invalid) + "z"


# ---- Which call when ----


@BOTH_PROTOCOLS
def test_a_publish_asks_for_the_writer_and_then_for_each_reader(site: Site, protocol: MQTTProtocolVersion) -> None:
    readers = [site.connected(username=name, client_id=name, protocol=protocol) for name in ("ann", "eve")]
    for reader in readers:
        reader.subscribe("sensors/+")
    site.connected(protocol=protocol).publish("sensors/1", "21")

    assert [reader.received() for reader in readers] == [("sensors/1", b"21")] * 2
    first, second, publication, *deliveries = site.webhooks.accesses()
    assert [first, second] == [(4, "ann", "sensors/+"), (4, "eve", "sensors/+")]
    assert publication == (2, "bob", "sensors/1")
    assert sorted(deliveries) == [(1, "ann", "sensors/1"), (1, "eve", "sensors/1")]


def test_each_topic_filter_is_asked_for_verbatim(site: Site) -> None:
    topic_filters = ("#", "a//b", "$share/group/sensors/+", "+/é")
    site.connected().subscribe(*topic_filters)

    assert site.webhooks.accesses() == [(4, "bob", topic_filter) for topic_filter in topic_filters]


def test_a_shared_subscriber_is_asked_for_by_the_concrete_topic(site: Site) -> None:
    device = site.connected()
    device.subscribe("$share/group/sensors/+")
    device.publish("sensors/1")

    assert device.received() == ("sensors/1", b"")
    assert site.webhooks.accesses()[1:] == [(2, "bob", "sensors/1"), (1, "bob", "sensors/1")]


@pytest.mark.parametrize(("username", "password"), [("", "pw"), ("bob", ""), ("bob", None), (None, None)])
def test_a_client_without_username_or_password_is_refused_without_a_call(
    site: Site, username: str | None, password: str | None
) -> None:
    device = site.device(username=username, password=password)

    assert device.connack() == NOT_AUTHORIZED
    assert site.webhooks.calls == []


def test_a_reload_asks_for_every_connected_user_again(site: Site) -> None:
    for name in ("ann", "eve"):
        site.connected(username=name, client_id=name)
    site.broker.reload()
    site.webhooks.wait_for(4)

    assert sorted(call.fields["username"] for call in site.webhooks.calls[2:]) == ["ann", "eve"]
    assert {call.path for call in site.webhooks.calls} == {"/auth/user"}


def test_a_user_who_is_refused_at_a_reload_is_disconnected(site: Site) -> None:
    device = site.connected()
    site.webhooks.answer("/auth/user", DENY)
    site.broker.reload()

    assert device.is_disconnected()


def test_one_connection_carries_every_call(site: Site) -> None:
    site.webhooks.answer("/auth/acl", ALLOW, DENY, BROKEN, ALLOW)
    for client_id in ("c1", "c2", "c3"):
        site.connected(client_id=client_id).subscribe("a")
    site.broker.reload()
    site.webhooks.wait_for(10)

    assert len({call.connection for call in site.webhooks.calls}) == 1
