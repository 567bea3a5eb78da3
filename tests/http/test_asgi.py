"""The broker listener answers like the Flask view and reads bodies in any number of parts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import requests

from authsvc.broker.goauth_protocol import MAX_BODY
from tests.actors import BOBS_PASSWORD
from tests.http.asgi_service import ALLOWED, HEAD, QUESTION, started
from tests.http.broker import FORM, JSON, YES, Answer, Broker, broker_by
from tests.http.wire import Connection, answer_on, webhook_request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flask_openapi3.openapi import OpenAPI

    from authsvc.broker.goauth_protocol import WebhookRequest
    from tests.service import Service


@pytest.fixture(scope="module")
def served(seed_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service with the seed data as a process; no test changes its data."""
    with started(seed_directory, tmp_path_factory.mktemp("served")) as service:
        yield service


@pytest.fixture
def asgi(served: Service) -> Iterator[Broker]:
    """A broker that calls the broker listener on one kept connection."""
    with requests.Session() as session:

        def carry(asked: WebhookRequest, method: str) -> Answer:
            url = f"{served.broker_url}/auth/{asked.check}?{asked.query.decode('latin-1')}"
            headers = {"Content-Type": asked.content_type.decode("latin-1")}
            if asked.authorization:
                headers["Authorization"] = asked.authorization.decode("latin-1")
            answer = session.request(method, url, data=asked.body, headers=headers, timeout=20)
            return Answer(answer.status_code, answer.headers["Content-Type"], answer.content)

        yield Broker(carry)


@pytest.fixture
def view(app: OpenAPI) -> Broker:
    """A broker that calls the Flask view of a service with the same data."""
    return broker_by("view", app)


# The same answers as the Flask view.

LOGIN = {"username": "bob", "password": BOBS_PASSWORD, "clientid": "c1"}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "a login": ("user", LOGIN),
    "a wrong password": ("user", LOGIN | {"password": "wrong"}),
    "an unknown user": ("user", LOGIN | {"username": "nemo"}),
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
def test_asgi_application_and_flask_view_return_the_same_answer(
    asgi: Broker, view: Broker, check: str, fields: dict[str, Any]
) -> None:
    for query in QUERIES:
        for form in (JSON, FORM):
            answer = asgi.ask(check, form, query, **fields)
            assert answer == view.ask(check, form, query, **fields)
            assert answer == asgi.ask(check, form, query, **fields), "cached"
    assert answer.status in (200, 400, 403)


@pytest.mark.parametrize("content_type", [JSON, FORM, "APPLICATION/JSON", "Application/X-WWW-Form-Urlencoded", "text/plain", FORM + ";charset=latin-1", "\xe4"])  # fmt: skip  # noqa: E501
def test_content_type_has_the_same_meaning_for_both(asgi: Broker, view: Broker, content_type: str) -> None:
    for body in (
        json.dumps(QUESTION).encode(),
        b"username=bob&topic=devices%2Fbob%2Fup&acc=2&clientid=c1",
        b"",
        b"\xff",
    ):
        assert asgi.send("acl", body, content_type) == view.send("acl", body, content_type)


@pytest.mark.parametrize("method", ["POST", "PUT", "GET"])
def test_post_put_and_get_are_answered(asgi: Broker, method: str) -> None:
    assert asgi.send("acl", json.dumps(QUESTION).encode(), method=method) == YES


@pytest.mark.parametrize("method", ["DELETE", "OPTIONS", "PATCH", "HEAD"])
def test_other_methods_are_refused_by_the_broker_listener(served: Service, method: str) -> None:
    body = json.dumps(QUESTION).encode()
    answer = requests.request(
        method, f"{served.broker_url}/auth/acl", data=body, headers={"Content-Type": JSON}, timeout=20
    )
    assert (answer.status_code, b"ok" in answer.content) == (404, False)


@pytest.mark.parametrize(
    "path", ["/auth/acl/", "/auth/none", "/auth/", "/auth", "/AUTH/ACL", "/auth/acl%00", "/auth/./acl"]
)
def test_other_paths_are_neither_allowed_nor_an_error(served: Service, path: str) -> None:
    body = json.dumps(QUESTION).encode()
    head = b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with Connection(served) as connection:
        connection.sendall(head % (path.encode(), len(body)) + body)
        status, _ = answer_on(connection)
    assert status in (308, 404, 405)


# Bodies in several parts.


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_chunked_body_is_accepted(served: Service, size: int) -> None:
    with Connection(served) as connection:
        for _ in range(3):
            body = json.dumps(QUESTION).encode()
            connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body, size))
            assert answer_on(connection) == ALLOWED


def test_body_sent_byte_by_byte_delays_no_other_request(served: Service) -> None:
    with Connection(served) as slow, Connection(served) as quick:
        question = webhook_request(**QUESTION)
        for position in range(len(question)):
            slow.sendall(question[position : position + 1])
            if position % 20 == 0:
                quick.sendall(question)
                assert answer_on(quick) == ALLOWED
        assert answer_on(slow) == ALLOWED


@pytest.mark.parametrize("in_chunks", [False, True])
def test_body_beyond_the_limit_is_malformed_and_the_connection_stays_open(served: Service, in_chunks: bool) -> None:
    body = json.dumps(QUESTION).encode().ljust(MAX_BODY + 1)
    with Connection(served) as connection:
        if in_chunks:
            connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body, 60_000))
        else:
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert answer_on(connection) == (400, b'{"ok":false,"error":"malformed"}')
        connection.sendall(webhook_request(**QUESTION))
        assert answer_on(connection) == ALLOWED


def test_body_of_the_maximum_size_is_read(served: Service) -> None:
    body = json.dumps(QUESTION).encode().ljust(MAX_BODY)
    with Connection(served) as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert answer_on(connection) == ALLOWED


def test_pipelined_requests_are_answered_in_order(served: Service) -> None:
    elsewhere = webhook_request(**QUESTION | {"topic": "elsewhere"})
    with Connection(served) as connection:
        connection.sendall((webhook_request(**QUESTION) + elsewhere) * 5)
        # One stream for all responses, because they can arrive in one packet.
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
