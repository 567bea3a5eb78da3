"""Every request is answered with 2xx or 4xx, because a 5xx makes go-auth drop clients."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from authsvc.broker.goauth_protocol import MAX_BODY
from tests.actors import BOBS_PASSWORD
from tests.http.broker import FORM, JSON, MALFORMED, YES, Broker, no

if TYPE_CHECKING:
    from tests.http.broker import Answer

DEEP = 100_000
CHECKS = ["user", "superuser", "acl"]
GARBAGE = {
    "nothing": b"",
    "blanks": b" \r\n\t",
    "a byte": b"\xff",
    "all bytes": bytes(range(256)) * 4,
    "a number": b"7",
    "a text": b'"bob"',
    "a list": b'["username","bob"]',
    "null": b"null",
    "half an object": b'{"username":"bob","password":"bob',
    "two objects": b'{"username":"bob"}{"username":"bob"}',
    "a comment": b'{"username":"bob" /* and so on */}',
    "not a number": b'{"username":NaN,"acc":Infinity}',
    "a huge number": b'{"username":"bob","topic":"t","acc":' + b"9" * 100_000 + b"}",
    "a huge exponent": b'{"username":"bob","topic":"t","acc":1e999999999}',
    "deep lists": b"[" * DEEP + b"]" * DEEP,
    "deep lists without an end": b"[" * DEEP,
    "deep objects": b'{"username":' * DEEP + b"1" + b"}" * DEEP,
    "deep in a field": b'{"username":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "600 KiB of letters": b"x" * 600 * 1024,
    "600 KiB of blanks round an object": b'{"username":"bob"}' + b" " * 600 * 1024,
    "600 KiB of an object": json.dumps({"username": "bob", "password": "x" * 600 * 1024}).encode(),
    "many fields": json.dumps({str(number): number for number in range(20_000)}).encode(),
    "many form fields": b"&".join(b"a%d=b" % number for number in range(20_000)),
    "bad percents": b"username=%zz%&password=%ff%fe",
    "another encoding": '{"username":"bob"}'.encode("utf-16"),
    "multipart": b'--x\r\nContent-Disposition: form-data; name="username"\r\n\r\nbob\r\n--x--\r\n',
}
CONTENT_TYPES = [
    JSON,
    FORM,
    "multipart/form-data; boundary=x",
    "text/plain",
    "image/png",
    "",
    ";;;",
    "application/json" * 50,
]


def is_an_answer(answer: Answer) -> bool:
    """Return whether go-auth can read the answer as allowed or denied."""
    body: dict[str, Any] = json.loads(answer.body)
    assert answer.status in (200, 400, 401, 403), answer
    assert answer.content_type == JSON
    assert set(body) == {"ok", "error"}
    assert body["ok"] is (answer.status == 200)
    assert bool(body["error"]) is not body["ok"]
    assert body["error"] != "internal-error"
    return True


@pytest.mark.parametrize("body", GARBAGE.values(), ids=GARBAGE.keys())
@pytest.mark.parametrize("check", CHECKS)
def test_garbage_is_denied(broker: Broker, check: str, body: bytes) -> None:
    for content_type in CONTENT_TYPES:
        answer = broker.send(check, body, content_type)
        assert is_an_answer(answer)
        assert answer.status != 200


@pytest.mark.parametrize("body", [b"x" * (MAX_BODY + 1), b" " * (MAX_BODY + 1)])
def test_body_longer_than_the_limit_is_malformed(broker: Broker, body: bytes) -> None:
    assert broker.send("user", body) == MALFORMED


def test_body_of_the_maximum_length_is_read(broker: Broker) -> None:
    body = json.dumps({"username": "bob", "password": BOBS_PASSWORD}).encode()
    assert broker.send("user", body.ljust(MAX_BODY)) == YES


def test_last_of_two_equal_fields_counts(broker: Broker) -> None:
    password = BOBS_PASSWORD.encode()
    assert broker.send("user", b'{"username":"nemo","username":"bob","password":"%s"}' % password) == YES
    assert broker.send("user", b'{"username":"bob","password":"%s","password":"x"}' % password) == no("wrong-password")


def test_lone_surrogates_are_answered_without_an_error(broker: Broker) -> None:
    assert broker.send("user", rb'{"username":"bob","password":"\ud800"}') == no("wrong-password")
    assert broker.send("user", rb'{"username":"\udfff","password":"x"}') == no("unknown-user")
    assert broker.send("acl", rb'{"username":"bob","topic":"devices/bob/up","acc":2,"clientid":"\ud800"}') == YES
    assert broker.send("acl", rb'{"username":"bob","topic":"\ud800","acc":2}') == MALFORMED


# No example changes a user, so all examples may share one service.
many = hypothesis_settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
any_text = st.text(st.characters(exclude_categories=[]), max_size=40)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=8,
)
field_names = st.sampled_from(["username", "password", "clientid", "client_id", "topic", "acc"])
likely = st.sampled_from(
    ["bob", "nemo", BOBS_PASSWORD, "devices/bob/up", "$share/g/a", "$share", "#", "+", "%u", "a/#"]
)
bodies = st.dictionaries(field_names | any_text, likely | st.integers(-1, 9) | json_values, max_size=8)
queries = st.sampled_from(["", "response=text&response=json", "grant=certificate", "key=%ff", "&&==", "?", "%00"])


@pytest.mark.parametrize("check", CHECKS)
@many
@given(body=st.binary(max_size=300), content_type=st.sampled_from(CONTENT_TYPES), query=queries)
def test_any_bytes_are_answered(broker: Broker, check: str, body: bytes, content_type: str, query: str) -> None:
    assert is_an_answer(broker.send(check, body, content_type, query))


@hypothesis_settings(many, max_examples=50)
@given(
    check=st.sampled_from(CHECKS),
    body=st.binary(max_size=300),
    content_type=st.sampled_from(CONTENT_TYPES),
    query=queries,
)
def test_any_bytes_are_answered_through_an_adapter(
    adapter: Broker, check: str, body: bytes, content_type: str, query: str
) -> None:
    assert is_an_answer(adapter.send(check, body, content_type, query))


@pytest.mark.parametrize("check", CHECKS)
@many
@given(fields=bodies, query=queries)
def test_any_json_is_answered(broker: Broker, check: str, fields: dict[str, Any], query: str) -> None:
    assert is_an_answer(broker.send(check, json.dumps(fields).encode(), JSON, query))


@pytest.mark.parametrize("check", CHECKS)
@many
@given(fields=st.dictionaries(field_names, likely | st.text(max_size=20), max_size=8))
def test_any_form_is_answered(broker: Broker, check: str, fields: dict[str, str]) -> None:
    assert is_an_answer(broker.ask(check, FORM, **fields))


@many
@given(credentials=st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=80))
def test_any_authorization_header_is_answered(adapter: Broker, credentials: str) -> None:
    for scheme in ("Basic ", "basic ", "Bearer ", ""):
        assert is_an_answer(adapter.send("user", b"{}", authorization=scheme + credentials))
