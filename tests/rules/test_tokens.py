"""API tokens: what is issued is read back, and nothing else is believed."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authsvc.credentials.jwt import MAX_LENGTH, Claims, SigningKey, issue, looks_like_token, new_signing_key, verify
from authsvc.errors import Unauthenticated

NOW = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)
LATER = NOW + timedelta(hours=12)
OLD_KEY = SigningKey("0ld", b"o" * 32)
KEY = SigningKey("c0ffee", b"k" * 32)
KEYS = {OLD_KEY.kid: OLD_KEY, KEY.kid: KEY}


def claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of a good token for Bob, but for these changes; None leaves a claim out."""
    good = {
        "iss": "authsvc",
        "sub": "bob",
        "jti": "secret id",
        "iat": int(NOW.timestamp()),
        "exp": int(LATER.timestamp()),
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


def signed(payload: dict[str, Any], key: SigningKey = KEY, algorithm: str = "HS256", **header: Any) -> str:
    """Return a token with these claims, as a forger who knows the key could make it."""
    text = ".".join(map(encoded, ({"alg": algorithm, "typ": "JWT", "kid": key.kid} | header, payload)))
    signer = jwt.get_algorithm_by_name(algorithm)
    return f"{text}.{base64url(signer.sign(text.encode(), signer.prepare_key(key.secret)))}"


def encoded(value: dict[str, Any]) -> str:
    return base64url(json.dumps(value).encode())


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def refusal(token: str, now: datetime = NOW) -> str:
    """Return the code with which a token is refused; its words must not repeat it."""
    with pytest.raises(Unauthenticated) as error:
        verify(token, KEYS, now)
    assert not token or token not in error.value.message
    return error.value.code


def test_a_token_says_what_it_was_issued_for() -> None:
    token, digest = issue("bob", NOW, LATER, KEY)
    assert looks_like_token(token)
    assert verify(token, KEYS, NOW) == Claims("bob", digest, LATER)


def test_the_forged_tokens_of_these_tests_are_believed_as_long_as_nothing_is_wrong_with_them() -> None:
    expected = hashlib.sha256(b"secret id").hexdigest()
    assert verify(signed(claims()), KEYS, NOW) == Claims("bob", expected, LATER)


def test_every_token_has_a_secret_of_its_own_that_its_digest_does_not_tell() -> None:
    (first, digest), (second, other_digest) = issue("bob", NOW, LATER, KEY), issue("bob", NOW, LATER, KEY)
    assert first != second
    assert digest != other_digest
    jti = jwt.decode(first, options={"verify_signature": False})["jti"]
    assert len(jti) >= 32
    assert digest == hashlib.sha256(jti.encode()).hexdigest()


def test_a_token_of_an_older_key_stays_valid() -> None:
    token, _ = issue("bob", NOW, LATER, OLD_KEY)
    assert verify(token, KEYS, NOW).username == "bob"


def test_a_token_signed_with_another_secret_under_the_same_key_id_is_refused() -> None:
    token, _ = issue("bob", NOW, LATER, SigningKey(KEY.kid, b"x" * 32))
    assert refusal(token) == "invalid-token"


def test_a_token_of_an_unknown_key_is_refused() -> None:
    token, _ = issue("bob", NOW, LATER, new_signing_key())
    assert refusal(token) == "invalid-token"
    with pytest.raises(Unauthenticated):
        verify(token, {}, NOW)


@pytest.mark.parametrize("kid", [None, 1, ["c0ffee"], {"c0ffee": 1}, "", "C0FFEE", "c0ffee\0"])
def test_a_token_must_name_its_key(kid: Any) -> None:
    assert refusal(signed(claims(), kid=kid)) == "invalid-token"


def test_a_token_without_a_signature_is_refused() -> None:
    header = {"alg": "none", "typ": "JWT", "kid": KEY.kid}
    assert refusal(f"{encoded(header)}.{encoded(claims())}.") == "invalid-token"
    assert refusal(signed(claims()).rpartition(".")[0] + ".") == "invalid-token"


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_a_token_signed_by_another_algorithm_is_refused(algorithm: str) -> None:
    long_key = SigningKey(KEY.kid, b"k" * 64)
    token = signed(claims(), long_key, algorithm)
    with pytest.raises(Unauthenticated):
        verify(token, {KEY.kid: long_key}, NOW)


def test_a_token_works_until_the_second_it_expires() -> None:
    token, _ = issue("bob", NOW, LATER, KEY)
    assert verify(token, KEYS, LATER - timedelta(seconds=1))
    assert refusal(token, LATER) == "expired-token"
    assert refusal(token, LATER + timedelta(days=400)) == "expired-token"


def test_a_tampered_token_is_refused() -> None:
    header, payload, signature = signed(claims()).split(".")
    other_payload = encoded(claims(sub="admin"))
    other_signature = ("B" if signature[0] == "A" else "A") + signature[1:]
    other_header = encoded({"alg": "HS256", "typ": "JWT", "kid": KEY.kid, "extra": 1})
    for tampered in (
        f"{header}.{other_payload}.{signature}",
        f"{header}.{payload}.{other_signature}",
        f"{header}.{payload}.{signature[:-4]}",
        f"{other_header}.{payload}.{signature}",
    ):
        assert refusal(tampered) == "invalid-token"


def test_a_token_issued_by_a_replica_whose_clock_is_ahead_is_believed() -> None:
    ahead = NOW + timedelta(minutes=5)
    token, digest = issue("bob", ahead, LATER, KEY)
    assert verify(token, KEYS, NOW).digest == digest
    assert verify(signed(claims(iat=2**33)), KEYS, NOW)


@pytest.mark.parametrize("missing", ["iss", "sub", "jti", "exp"])
def test_a_token_must_say_all_of_this(missing: str) -> None:
    assert refusal(signed(claims(**{missing: None}))) == "invalid-token"


@pytest.mark.parametrize(
    "wrong",
    [
        {"jti": 7},
        {"jti": ["secret id"]},
        {"sub": 7},
        {"sub": ["bob"]},
        {"sub": {"bob": 1}},
        {"exp": "tomorrow"},
        {"exp": [1]},
        {"exp": 10**30},
        {"exp": 1e300},
        {"exp": float("inf")},
        {"exp": float("nan")},
        {"exp": -(10**30)},
        {"iss": "somebody else"},
        {"iss": 7},
        {"aud": "somebody else"},
    ],
)
def test_a_claim_of_the_wrong_kind_is_refused_even_when_signed(wrong: dict[str, Any]) -> None:
    assert refusal(signed(claims(**wrong))) == "invalid-token"


@pytest.mark.parametrize("payload", [b"", b"null", b"[]", b'"bob"', b"{", b"\xff"])
def test_a_payload_that_is_no_object_is_refused_even_when_signed(payload: bytes) -> None:
    text = f"{encoded({'alg': 'HS256', 'kid': KEY.kid})}.{base64url(payload)}"
    signer = jwt.get_algorithm_by_name("HS256")
    assert refusal(f"{text}.{base64url(signer.sign(text.encode(), KEY.secret))}") == "invalid-token"


def test_a_token_for_99999_hours_works_for_as_long() -> None:
    much_later = NOW + timedelta(hours=99_999)
    token, digest = issue("bob", NOW, much_later, KEY)
    assert verify(token, KEYS, much_later - timedelta(seconds=1)) == Claims("bob", digest, much_later)


def test_a_token_longer_than_any_of_ours_is_not_even_looked_at() -> None:
    long = signed(claims(padding="x" * MAX_LENGTH))
    assert not looks_like_token(long)
    assert refusal(long) == "invalid-token"


@pytest.mark.parametrize(
    "password", ["", "eyJ", "a.b.c", "eyJ.eyJ", "eyJ.a.b.c", " eyJ.a.b", "EYJ.a.b", "bob's secret"]
)
def test_a_password_hardly_looks_like_a_token(password: str) -> None:
    assert not looks_like_token(password)
    assert refusal(password) == "invalid-token"


@given(st.lists(st.text() | st.sampled_from(signed(claims()).split(".")), min_size=3, max_size=3), st.booleans())
def test_whatever_is_offered_is_refused_in_the_same_way(parts: list[str], token_like: bool) -> None:
    offered = ("eyJ" if token_like else "") + ".".join(parts)
    if offered != signed(claims()):
        assert refusal(offered) == "invalid-token"


def test_a_lone_surrogate_is_refused_like_anything_else() -> None:
    assert refusal("eyJ\ud800.a.b") == "invalid-token"


def test_a_signing_key_is_256_random_bits_and_does_not_show_them() -> None:
    first, second = new_signing_key(), new_signing_key()
    assert first.kid != second.kid
    assert first.secret != second.secret
    assert len(first.secret) == 32
    assert repr(first) == f"SigningKey({first.kid!r})"
