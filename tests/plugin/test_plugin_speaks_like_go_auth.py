"""The test plugin itself: what it sends for each thing a client does, and how it reads each answer.

The other broker tests trust this plugin to stand for go-auth, so here it meets a server that only records.
"""

import json
import re
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any, Self
from urllib.parse import urlsplit

import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.broker import BrokerError, Mosquitto, build_plugin, free_port, go_auth_config

SOON = 5.0  # seconds to wait for an event that is already on its way
FIRST_FAILURE = 0x80  # of MQTT 5's reason codes; and all that an MQTT 3.1.1 SUBACK can say
NOT_AUTHORIZED = 0x87
BOTH_PROTOCOLS = pytest.mark.parametrize("protocol", [MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5])


# ---- A server that records ----


@dataclass(frozen=True)
class Call:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: tuple[str, int]

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = json.loads(self.body)
        return fields


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: bytes = b'{"ok":true,"error":""}'
    location: str | None = None
    closes: bool = False  # ends the connection after the answer, without a word of it in the answer
    waits_for: threading.Event | None = None


ALLOW = Reply()
DENY = Reply(403, b'{"ok":false,"error":"no-permission"}')
BROKEN = Reply(500, b"")
HANG_UP = Reply(status=0)  # the connection ends where an answer should begin


class Webhooks(ThreadingHTTPServer):
    """Records every call; answers each path with its replies in turn, the last one for ever after."""

    daemon_threads = True
    calls: list[Call]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Conversation)
        self.calls = []
        self.closed = threading.Event()
        self._replies: dict[str, list[Reply]] = {}
        self._news = threading.Condition()

    def answer(self, path: str, *replies: Reply) -> None:
        self._replies[path] = list(replies)

    def take(self, call: Call) -> Reply:
        with self._news:
            self.calls.append(call)
            self._news.notify_all()
            replies = self._replies.get(call.path, [ALLOW])
            return replies.pop(0) if len(replies) > 1 else replies[0]

    def wait_for(self, count: int) -> None:
        with self._news:
            assert self._news.wait_for(lambda: len(self.calls) >= count, SOON), self.calls

    def to(self, path: str) -> list[Call]:
        return [call for call in self.calls if call.path == path]

    def accesses(self) -> list[tuple[int, str, str]]:
        """Who asked for what on the ACL path: `acc`, username, topic or topic filter."""
        fields = [call.fields for call in self.to("/auth/acl")]
        return [(field["acc"], field["username"], field["topic"]) for field in fields]


class Conversation(BaseHTTPRequestHandler):
    """One kept-alive connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Webhooks

    def converse(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        call = Call(self.command, self.path, dict(self.headers), body, self.client_address)
        reply = self.server.take(call)
        if reply.waits_for:
            reply.waits_for.wait(SOON)
        if reply.status:
            self.write(reply)
        self.close_connection = reply.closes or not reply.status

    do_GET = do_POST = do_PUT = converse  # noqa: N815

    def write(self, reply: Reply) -> None:
        self.send_response(reply.status)
        if reply.location:
            self.send_header("Location", reply.location)
        if reply.status != 204:
            self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    def finish(self) -> None:
        super().finish()
        self.connection.close()
        self.server.closed.set()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


# ---- A client that waits ----


class Device:
    """A paho client whose callbacks fill queues, so that a test waits for what happens and never sleeps."""

    def __init__(
        self,
        *,
        username: str | None = "bob",
        password: str | bytes | None = "pw",
        client_id: str = "c1",
        protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv311,
    ) -> None:
        self.connacks: Queue[int] = Queue()
        self.subacks: Queue[list[int]] = Queue()
        self.messages: Queue[MQTTMessage] = Queue()
        self.ends: Queue[int] = Queue()
        self._client = Client(CallbackAPIVersion.VERSION2, client_id, protocol=protocol, reconnect_on_failure=False)
        self._client.username_pw_set(username, password)  # type: ignore[arg-type]  # it takes bytes as well
        self._client.on_connect = lambda _c, _u, _flags, reason, _p: self.connacks.put(reason.value)
        self._client.on_subscribe = lambda _c, _u, _mid, reasons, _p: self.subacks.put(
            [reason.value for reason in reasons]
        )
        self._client.on_message = lambda _c, _u, message: self.messages.put(message)
        self._client.on_disconnect = lambda _c, _u, _flags, reason, _p: self.ends.put(reason.value)

    def start(self, port: int) -> None:
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def connack(self) -> int:
        return self.connacks.get(timeout=SOON)

    def subscribe(self, *topic_filters: str) -> list[int]:
        self._client.subscribe([(topic_filter, 1) for topic_filter in topic_filters])
        return self.subacks.get(timeout=SOON)

    def publish(self, topic: str, payload: str = "", qos: int = 1) -> None:
        published = self._client.publish(topic, payload, qos)
        published.wait_for_publish(SOON)
        assert published.is_published()

    def publish_unacknowledged(self, topic: str) -> None:
        self._client.publish(topic, "", 1)

    def subscribe_unacknowledged(self, topic_filter: str) -> None:
        self._client.subscribe(topic_filter)

    def received(self) -> tuple[str, bytes]:
        message = self.messages.get(timeout=SOON)
        return message.topic, bytes(message.payload)

    def is_dropped_without_connack(self) -> bool:
        self.ends.get(timeout=SOON)
        return self.connacks.empty()

    def is_disconnected(self) -> bool:
        return self.ends.get(timeout=SOON) >= FIRST_FAILURE


class Site:
    """The recording server, a broker in front of it, and devices; all end with the `with` block.

    The broker starts at its first use, or in `configure` with other options than the recommended ones.
    """

    def __init__(self, plugin: Path, directory: Path) -> None:
        self._plugin = plugin
        self._directory = directory
        self._broker: Mosquitto | None = None
        self._running = ExitStack()

    def __enter__(self) -> Self:
        self.webhooks = self._running.enter_context(Webhooks())
        server = threading.Thread(target=self.webhooks.serve_forever, args=(0.01,))
        server.start()
        self._running.callback(server.join)
        self._running.callback(self.webhooks.shutdown)
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def configure(self, *options: str, **settings: str) -> None:
        config = go_auth_config(
            plugin=self._plugin,
            service_port=self.webhooks.server_port,
            listener_port=free_port(),
            extra="\n".join(f"auth_opt_{option}" for option in options),
            **settings,
        )
        self._broker = self._running.enter_context(Mosquitto(config, self._directory))

    @property
    def broker(self) -> Mosquitto:
        if self._broker is None:
            self.configure()
        assert self._broker
        return self._broker

    def device(self, **credentials: Any) -> Device:
        """Start a device without a look at what becomes of it."""
        device = Device(**credentials)
        port = self.broker.port
        self._running.callback(device.stop)
        device.start(port)
        return device

    def connected(self, **credentials: Any) -> Device:
        device = self.device(**credentials)
        assert device.connack() == 0
        return device


@pytest.fixture(scope="session")
def plugin() -> Path:
    return build_plugin(Path(__file__).parents[1] / ".build")


@pytest.fixture
def site(plugin: Path, tmp_path: Path) -> Iterator[Site]:
    with Site(plugin, tmp_path) as site:
        yield site


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


@pytest.mark.parametrize(
    ("protocol", "code"), [(MQTTProtocolVersion.MQTTv311, FIRST_FAILURE), (MQTTProtocolVersion.MQTTv5, NOT_AUTHORIZED)]
)
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
    publisher = site.connected(protocol=MQTTProtocolVersion.MQTTv5)
    site.webhooks.answer("/auth/acl", ALLOW, BROKEN)
    publisher.publish_unacknowledged("a")

    assert publisher.is_disconnected()


# ---- The kept connection ----


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_call_that_dies_with_a_kept_connection_is_not_repeated(site: Site, method: str) -> None:
    site.configure("retry_count 0", f"http_method {method}")
    site.connected()
    site.webhooks.answer("/auth/user", HANG_UP, ALLOW)

    assert site.device(client_id="c2").is_dropped_without_connack()
    assert [call.fields["clientid"] for call in site.webhooks.calls] == ["c1", "c2"]


def test_a_get_that_dies_with_a_kept_connection_is_repeated(site: Site) -> None:
    site.configure("retry_count 0", "http_method GET")
    site.connected()
    site.webhooks.answer("/auth/user", HANG_UP, ALLOW)
    site.connected(client_id="c2")

    assert [call.fields["clientid"] for call in site.webhooks.calls] == ["c1", "c2", "c2"]


def test_a_connection_that_was_closed_while_idle_is_replaced_unseen(site: Site) -> None:
    site.configure("retry_count 0")
    site.webhooks.answer("/auth/user", Reply(closes=True))
    site.connected()
    assert site.webhooks.closed.wait(SOON)
    site.connected(client_id="c2")

    assert len({call.connection for call in site.webhooks.calls}) == 2


# ---- Superusers, and options that are refused ----


def test_a_superuser_is_asked_for_before_each_acl_and_passes_it(site: Site) -> None:
    site.webhooks.answer("/auth/superuser", DENY, BROKEN, ALLOW)
    site.configure("http_superuser_uri /auth/superuser")
    device = site.connected()

    assert device.subscribe("a", "b", "c") == [1, 1, 1]
    assert [call.path for call in site.webhooks.calls[1:]] == ["/auth/superuser", "/auth/acl"] * 2 + ["/auth/superuser"]
    assert site.webhooks.to("/auth/superuser")[0].body == b'{"username":"bob"}'


def test_an_error_about_the_superuser_counts_where_the_acl_does_not_allow(site: Site) -> None:
    site.webhooks.answer("/auth/superuser", BROKEN)
    site.webhooks.answer("/auth/acl", DENY)
    site.configure("http_superuser_uri /auth/superuser")
    device = site.connected()
    device.subscribe_unacknowledged("a")

    assert device.is_disconnected()


def test_no_superuser_is_asked_for_where_superusers_are_disabled(site: Site) -> None:
    site.configure("http_superuser_uri /auth/superuser", "disable_superuser true")
    site.connected().subscribe("a")
    assert site.webhooks.to("/auth/superuser") == []


def test_options_of_go_auth_that_change_nothing_here_are_accepted(site: Site) -> None:
    options = ("log_level debug", "hasher bcrypt", "hasher_cost 10", "http_verify_peer false", "http_with_tls false")
    site.configure(*options)
    site.connected()


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("cache true", "cache"),
        ("http_with_tls true", "http_with_tls"),
        ("backends files, http", "backends"),
        ("http_register user", "http_register"),
        ("http_method GET\nauth_opt_http_params_mode form", "http_params_mode"),
    ],
)
def test_an_option_that_would_change_go_auth_and_is_not_built_stops_the_broker(
    site: Site, option: str, named: str
) -> None:
    with pytest.raises(BrokerError, match=f"webhook plugin: wrong auth_opt: .*{named}"):
        site.configure(option)
