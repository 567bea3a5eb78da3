"""The front of a real service: brokers are answered there as by Flask's own view, whatever else goes on beside it."""

from __future__ import annotations

import asyncio
import json
import resource
import shutil
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests

from authsvc.front import Front
from authsvc.signals import unknown_username
from authsvc.webhook_wire import MAX_BODY
from tests.edge.broker import FORM, JSON, YES, Broker, Told, broker_by, services_of
from tests.edge.callers import basic
from tests.edge.village import ALICES_PASSWORD
from tests.edge.wire import Connection, answer_on, logs_in, webhook_request, within
from tests.people import ADMIN_PASSWORD, BOBS_PASSWORD
from tests.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping
    from pathlib import Path

    from flask_openapi3.openapi import OpenAPI

    from authsvc.webhook_wire import WebhookRequest

MANY = 1000
SLOW_HASH = "12"
QUESTION = {"username": "bob", "topic": "devices/bob/up", "acc": 2, "clientid": "c1"}
ALLOWED = (200, b'{"ok":true,"error":""}')
HEAD = b"POST /auth/acl HTTP/1.1\r\nHost: authsvc\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def room_for_many() -> Iterator[None]:
    """Enough file descriptors for this test and for what it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * MANY if hard == resource.RLIM_INFINITY else min(hard, 4 * MANY)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def served(room_for_many: None, village: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The inhabited service as a process, with few threads and slow hashes for the API; nobody changes anything in it."""
    directory = tmp_path_factory.mktemp("served")
    shutil.copytree(village, directory / "data")
    environment = {
        "AUTHSVC_ADMIN_PASSWORD": ADMIN_PASSWORD,
        "AUTHSVC_THREADS": "2",
        "AUTHSVC_BCRYPT_COST": SLOW_HASH,
    }
    with Service(directory, environment) as service:
        yield service
        service.api.close()


@pytest.fixture
def front(served: Service) -> Iterator[Broker]:
    """A broker that asks over the wire, on one kept connection."""
    with requests.Session() as session:

        def carry(asked: WebhookRequest, method: str) -> Told:
            url = f"{served.url}/auth/{asked.check}?{asked.query.decode('latin-1')}"
            headers = {"Content-Type": asked.content_type.decode("latin-1")}
            if asked.authorization:
                headers["Authorization"] = asked.authorization.decode("latin-1")
            answer = session.request(method, url, data=asked.body, headers=headers, timeout=20)
            return Told(answer.status_code, answer.headers["Content-Type"], answer.content)

        yield Broker(carry)


@pytest.fixture
def view(app: OpenAPI) -> Broker:
    """A broker that asks Flask's own view of a service like it."""
    return broker_by("view", app)


# The same answers as Flask's view.

LOGIN = {"username": "bob", "password": BOBS_PASSWORD, "clientid": "c1"}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "a login": ("user", LOGIN),
    "a wrong password": ("user", LOGIN | {"password": "wrong"}),
    "a stranger": ("user", LOGIN | {"username": "nemo"}),
    "a disabled user": ("user", LOGIN | {"username": "dora"}),
    "another grant type": ("user", LOGIN | {"username": "carol"}),
    "no password": ("user", {"username": "bob"}),
    "a superuser": ("superuser", {"username": "admin"}),
    "a publish": ("acl", QUESTION),
    "a role's publish": ("acl", QUESTION | {"topic": "lines/7"}),
    "a publish elsewhere": ("acl", QUESTION | {"topic": "elsewhere"}),
    "a delivery that is denied": ("acl", QUESTION | {"topic": "sensors/secret/1", "acc": 1}),
    "a subscription": ("acl", QUESTION | {"topic": "sensors/#", "acc": 4}),
    "a shared subscription": ("acl", QUESTION | {"topic": "$share/g/sensors/#", "acc": 4}),
    "by client id": ("acl", QUESTION | {"topic": "clients/c1/up"}),
    "no such access": ("acl", QUESTION | {"acc": 7}),
    "no topic": ("acl", {"username": "bob", "acc": 2}),
    "escapes": ("acl", QUESTION | {"topic": "devices/bob/<&>/ä/\u2028"}),
    "NUL": ("acl", QUESTION | {"topic": "devices/bob/\0"}),
}
QUERIES = ["", "response=text", "grant=certificate", "grant=certificate&response=text", "key=x", "%00=%ff&&=", "a=b;c"]


@pytest.mark.parametrize(("check", "fields"), CASES.values(), ids=CASES.keys())
def test_a_question_has_the_same_answer_either_way(
    front: Broker, view: Broker, check: str, fields: dict[str, Any]
) -> None:
    for query in QUERIES:
        for form in (JSON, FORM):
            told = front.ask(check, form, query, **fields)
            assert told == view.ask(check, form, query, **fields)
            assert told == front.ask(check, form, query, **fields), "and again, from memory"
    assert told.status in (200, 400, 403)


@pytest.mark.parametrize("content_type", [JSON, FORM, "APPLICATION/JSON", "Application/X-WWW-Form-Urlencoded", "text/plain", FORM + ";charset=latin-1", "\xe4"])  # fmt: skip
def test_what_the_content_type_says_means_the_same_either_way(front: Broker, view: Broker, content_type: str) -> None:
    for body in (json.dumps(QUESTION).encode(), b"username=bob&topic=devices%2Fbob%2Fup&acc=2&clientid=c1", b"", b"\xff"):
        assert front.send("acl", body, content_type) == view.send("acl", body, content_type)


@pytest.mark.parametrize("method", ["POST", "PUT", "GET"])
def test_each_method_that_carries_a_body_is_answered(front: Broker, method: str) -> None:
    assert front.send("acl", json.dumps(QUESTION).encode(), method=method) == YES


@pytest.mark.parametrize("method", ["DELETE", "OPTIONS", "PATCH", "HEAD"])
def test_any_other_method_is_no_error_of_ours(served: Service, view: Broker, method: str) -> None:
    body = json.dumps(QUESTION).encode()
    answer = requests.request(method, f"{served.url}/auth/acl", data=body, headers={"Content-Type": JSON}, timeout=20)
    assert answer.status_code == view.send("acl", body, method=method).status
    assert answer.status_code in (200, 405)
    assert answer.status_code == 405 or b'"ok":true' not in answer.content


@pytest.mark.parametrize("path", ["/auth/acl/", "/auth/none", "/auth/", "/auth", "/AUTH/ACL", "/auth/acl%00", "/auth/./acl"])
def test_any_other_address_is_neither_a_yes_nor_an_error(served: Service, path: str) -> None:
    body = json.dumps(QUESTION).encode()
    head = b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with Connection(served) as connection:
        connection.sendall(head % (path.encode(), len(body)) + body)
        status, _ = answer_on(connection)
    assert status in (308, 404, 405)


# Bodies that come in any way.


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_body_may_come_in_chunks(served: Service, size: int) -> None:
    with Connection(served) as connection:
        for _ in range(3):
            body = json.dumps(QUESTION).encode()
            connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body, size))
            assert answer_on(connection) == ALLOWED


def test_a_body_may_come_byte_by_byte_and_nobody_waits_for_it(served: Service) -> None:
    with Connection(served) as slow, Connection(served) as quick:
        question = webhook_request(**QUESTION)
        for position in range(len(question)):
            slow.sendall(question[position : position + 1])
            if position % 20 == 0:
                quick.sendall(question)
                assert answer_on(quick) == ALLOWED
        assert answer_on(slow) == ALLOWED


@pytest.mark.parametrize("in_chunks", [False, True])
def test_a_body_beyond_the_limit_is_malformed_and_the_connection_goes_on(served: Service, in_chunks: bool) -> None:  # noqa: FBT001
    body = json.dumps(QUESTION).encode().ljust(MAX_BODY + 1)
    with Connection(served) as connection:
        if in_chunks:
            connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body, 60_000))
        else:
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert answer_on(connection) == (400, b'{"ok":false,"error":"malformed"}')
        connection.sendall(webhook_request(**QUESTION))
        assert answer_on(connection) == ALLOWED


def test_a_body_up_to_the_limit_is_read(served: Service) -> None:
    body = json.dumps(QUESTION).encode().ljust(MAX_BODY)
    with Connection(served) as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert answer_on(connection) == ALLOWED


def test_questions_that_are_sent_ahead_are_answered_in_order(served: Service) -> None:
    elsewhere = webhook_request(**QUESTION | {"topic": "elsewhere"})
    with Connection(served) as connection:
        connection.sendall((webhook_request(**QUESTION) + elsewhere) * 5)
        # Read off one stream: whatever was sent ahead arrives together.
        with connection.makefile("rb") as stream:
            statuses = [_one_answer(stream) for _ in range(10)]
    assert statuses == [200, 403] * 5


def _one_answer(stream: Any) -> int:
    status = int(stream.readline().split()[1])
    length = 0
    while (line := stream.readline()) != b"\r\n":
        name, _, value = line.partition(b":")
        length = int(value) if name.lower() == b"content-length" else length
    stream.read(length)
    return status


# Clients that leave.

HALF_A_LOGIN = b"clientid=c1&password=let+me+in&username=press-"
LOGIN_HEAD = b"POST /auth/user HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n"


def test_a_client_that_leaves_in_the_middle_of_its_body_harms_nobody(served: Service) -> None:
    for _ in range(20):
        with Connection(served) as connection:
            connection.sendall(webhook_request(**QUESTION)[:-5])
    with Connection(served) as connection:
        connection.sendall(webhook_request(**QUESTION))
        assert answer_on(connection) == ALLOWED
    assert "Traceback" not in served.log_text()


def test_a_login_that_breaks_off_is_nobodys_attempt_on_the_wire(served: Service) -> None:
    with Connection(served) as connection:
        connection.sendall(LOGIN_HEAD + b"Content-Length: 100\r\n\r\n" + HALF_A_LOGIN)
    assert logs_in(served, "somebody-else", "let me in") == "unknown-user"
    assert within(10, lambda: "somebody-else" in _strangers(served))
    assert "press-" not in _strangers(served)


def _strangers(service: Service) -> list[str]:
    answer = service.call("GET", "/api/client-registry/registrations")
    return [each["username"] for each in answer.json()["items"]]


def told_by(app: OpenAPI, *messages: MutableMapping[str, Any]) -> list[MutableMapping[str, Any]]:
    """Let the front receive these messages of one login, and return what it sends."""
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/auth/user",
        "query_string": b"",
        "headers": [(b"content-type", FORM.encode())],
    }
    sent: list[MutableMapping[str, Any]] = []
    left = iter(messages)

    async def receive() -> MutableMapping[str, Any]:
        return next(left)

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    asyncio.run(Front(services_of(app).webhooks, app, threads=1)(scope, receive, send))
    return sent


def test_a_login_in_parts_is_read_whole(app: OpenAPI) -> None:
    first = {"type": "http.request", "body": HALF_A_LOGIN, "more_body": True}
    last = {"type": "http.request", "body": b"7", "more_body": False}
    heard: list[str] = []

    def listen(_sender: object, **words: Any) -> None:
        heard.append(words["username"])

    with unknown_username.connected_to(listen):
        start, _ = told_by(app, first, last)
    assert (start["status"], heard) == (403, ["press-7"])


def test_a_login_that_breaks_off_is_nobodys_attempt(app: OpenAPI) -> None:
    first = {"type": "http.request", "body": HALF_A_LOGIN, "more_body": True}
    heard: list[str] = []

    def listen(_sender: object, **words: Any) -> None:
        heard.append(words["username"])

    with unknown_username.connected_to(listen):
        told_by(app, first, {"type": "http.disconnect"})
    assert heard == []


# Many, and slow ones beside them.


def test_a_thousand_connections_that_say_nothing_are_in_nobodys_way(served: Service) -> None:
    question = webhook_request(**QUESTION)
    kept = [socket.create_connection(("127.0.0.1", served.port), timeout=20) for _ in range(MANY)]
    try:
        for connection in kept:
            connection.sendall(question)
        assert {answer_on(connection) for connection in kept} == {ALLOWED}
        with Connection(served) as another:
            another.sendall(question)
            assert answer_on(another) == ALLOWED
        assert requests.get(served.url + "/healthz", timeout=20).status_code == 200
        for connection in kept[:: MANY // 20]:
            connection.sendall(question)
            assert answer_on(connection) == ALLOWED
    finally:
        for connection in kept:
            connection.close()


def test_logins_to_the_api_that_take_their_time_do_not_hold_up_brokers(served: Service) -> None:
    def slow_login(number: int) -> int:
        body = {"username": f"nobody-{number}", "password": "wrong"}
        return requests.post(served.url + "/api/login", json=body, timeout=60).status_code

    question = webhook_request(**QUESTION)
    with ThreadPoolExecutor(6) as pool, Connection(served) as connection:
        logins = [pool.submit(slow_login, number) for number in range(6)]
        answered = 0
        while not all(login.done() for login in logins):
            connection.sendall(question)
            assert answer_on(connection) == ALLOWED
            answered += 1
        assert {login.result() for login in logins} <= {401, 503}
    # Two threads for the API, both taken by a hash nearly all the time; one answer for each login would mean waiting.
    assert answered > 60


def test_the_longest_wait_beside_them_is_shorter_than_one_hash(served: Service) -> None:
    begun = time.perf_counter()
    assert requests.post(served.url + "/api/login", json={"username": "nobody", "password": "x"}, timeout=60).ok is False
    one_hash = time.perf_counter() - begun
    question = webhook_request(**QUESTION)
    waits = []
    with ThreadPoolExecutor(1) as pool, Connection(served) as connection:
        headers = {"Authorization": basic("alice", ALICES_PASSWORD + "!")}
        login = pool.submit(requests.get, served.url + "/api/me", headers=headers, timeout=60)
        while not login.done():
            begun = time.perf_counter()
            connection.sendall(question)
            assert answer_on(connection) == ALLOWED
            waits.append(time.perf_counter() - begun)
    assert sorted(waits)[len(waits) // 2] < one_hash / 2
