"""API tokens: issued tokens are verified, all others are refused."""

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
    """Return the claims of a valid token for Bob with these changes; None removes a claim."""
    good = {
        "iss": "authsvc",
        "sub": "bob",
        "jti": "secret id",
        "iat": int(NOW.timestamp()),
        "exp": int(LATER.timestamp()),
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


def signed(payload: dict[str, Any], key: SigningKey = KEY, algorithm: str = "HS256", **header: Any) -> str:
    """Return a token with these claims and a valid signature."""
    text = ".".join(map(encoded, ({"alg": algorithm, "typ": "JWT", "kid": key.kid} | header, payload)))
    signer = jwt.get_algorithm_by_name(algorithm)
    return f"{text}.{base64url(signer.sign(text.encode(), signer.prepare_key(key.secret)))}"


def encoded(value: dict[str, Any]) -> str:
    return base64url(json.dumps(value).encode())


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def refusal(token: str, now: datetime = NOW) -> str:
    """Return the error code of a refused token; assert that the message does not contain the token."""
    with pytest.raises(Unauthenticated) as error:
        verify(token, KEYS, now)
    assert not token or token not in error.value.message
    return error.value.code


def test_issued_token_has_its_claims() -> None:
    token, digest = issue("bob", NOW, LATER, KEY)
    assert looks_like_token(token)
    assert verify(token, KEYS, NOW) == Claims("bob", digest, LATER)


def test_signed_helper_makes_valid_tokens() -> None:
    expected = hashlib.sha256(b"secret id").hexdigest()
    assert verify(signed(claims()), KEYS, NOW) == Claims("bob", expected, LATER)


def test_every_token_has_a_random_secret_and_its_digest() -> None:
    (first, digest), (second, other_digest) = issue("bob", NOW, LATER, KEY), issue("bob", NOW, LATER, KEY)
    assert first != second
    assert digest != other_digest
    jti = jwt.decode(first, options={"verify_signature": False})["jti"]
    assert len(jti) >= 32
    assert digest == hashlib.sha256(jti.encode()).hexdigest()


def test_token_of_an_older_key_is_valid() -> None:
    token, _ = issue("bob", NOW, LATER, OLD_KEY)
    assert verify(token, KEYS, NOW).username == "bob"


def test_token_signed_with_another_secret_is_refused() -> None:
    token, _ = issue("bob", NOW, LATER, SigningKey(KEY.kid, b"x" * 32))
    assert refusal(token) == "invalid-token"


def test_token_of_an_unknown_key_is_refused() -> None:
    token, _ = issue("bob", NOW, LATER, new_signing_key())
    assert refusal(token) == "invalid-token"
    with pytest.raises(Unauthenticated):
        verify(token, {}, NOW)


@pytest.mark.parametrize("kid", [None, 1, ["c0ffee"], {"c0ffee": 1}, "", "C0FFEE", "c0ffee\0"])
def test_token_without_a_valid_key_id_is_refused(kid: Any) -> None:
    assert refusal(signed(claims(), kid=kid)) == "invalid-token"


def test_token_without_a_signature_is_refused() -> None:
    header = {"alg": "none", "typ": "JWT", "kid": KEY.kid}
    assert refusal(f"{encoded(header)}.{encoded(claims())}.") == "invalid-token"
    assert refusal(signed(claims()).rpartition(".")[0] + ".") == "invalid-token"


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_token_with_another_algorithm_is_refused(algorithm: str) -> None:
    long_key = SigningKey(KEY.kid, b"k" * 64)
    token = signed(claims(), long_key, algorithm)
    with pytest.raises(Unauthenticated):
        verify(token, {KEY.kid: long_key}, NOW)


def test_token_is_valid_until_it_expires() -> None:
    token, _ = issue("bob", NOW, LATER, KEY)
    assert verify(token, KEYS, LATER - timedelta(seconds=1))
    assert refusal(token, LATER) == "expired-token"
    assert refusal(token, LATER + timedelta(days=400)) == "expired-token"


def test_changed_token_is_refused() -> None:
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


def test_token_of_a_replica_whose_clock_is_ahead_is_valid() -> None:
    ahead = NOW + timedelta(minutes=5)
    token, digest = issue("bob", ahead, LATER, KEY)
    assert verify(token, KEYS, NOW).digest == digest
    assert verify(signed(claims(iat=2**33)), KEYS, NOW)


@pytest.mark.parametrize("missing", ["iss", "sub", "jti", "exp"])
def test_token_without_a_required_claim_is_refused(missing: str) -> None:
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
def test_signed_token_with_a_wrong_claim_is_refused(wrong: dict[str, Any]) -> None:
    assert refusal(signed(claims(**wrong))) == "invalid-token"


@pytest.mark.parametrize("payload", [b"", b"null", b"[]", b'"bob"', b"{", b"\xff"])
def test_signed_token_whose_payload_is_not_an_object_is_refused(payload: bytes) -> None:
    text = f"{encoded({'alg': 'HS256', 'kid': KEY.kid})}.{base64url(payload)}"
    signer = jwt.get_algorithm_by_name("HS256")
    assert refusal(f"{text}.{base64url(signer.sign(text.encode(), KEY.secret))}") == "invalid-token"


def test_token_for_99999_hours_is_valid_until_then() -> None:
    much_later = NOW + timedelta(hours=99_999)
    token, digest = issue("bob", NOW, much_later, KEY)
    assert verify(token, KEYS, much_later - timedelta(seconds=1)) == Claims("bob", digest, much_later)


def test_token_longer_than_the_limit_is_refused() -> None:
    long = signed(claims(padding="x" * MAX_LENGTH))
    assert not looks_like_token(long)
    assert refusal(long) == "invalid-token"


@pytest.mark.parametrize(
    "password", ["", "eyJ", "a.b.c", "eyJ.eyJ", "eyJ.a.b.c", " eyJ.a.b", "EYJ.a.b", "bob's secret"]
)
def test_other_passwords_do_not_look_like_a_token(password: str) -> None:
    assert not looks_like_token(password)
    assert refusal(password) == "invalid-token"


@given(st.lists(st.text() | st.sampled_from(signed(claims()).split(".")), min_size=3, max_size=3), st.booleans())
def test_any_other_text_is_refused(parts: list[str], token_like: bool) -> None:
    offered = ("eyJ" if token_like else "") + ".".join(parts)
    if offered != signed(claims()):
        assert refusal(offered) == "invalid-token"


def test_lone_surrogate_is_refused() -> None:
    assert refusal("eyJ\ud800.a.b") == "invalid-token"


def test_signing_key_has_256_random_bits_that_repr_does_not_show() -> None:
    first, second = new_signing_key(), new_signing_key()
    assert first.kid != second.kid
    assert first.secret != second.secret
    assert len(first.secret) == 32
    assert repr(first) == f"SigningKey({first.kid!r})"
