"""API tokens and the webhook secret are removed from addresses under every encoding."""

from __future__ import annotations

from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authsvc.observability.redaction import cleaned_address, gives_token, without_secrets, without_tokens

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJib2IiLCJqdGkiOiJ4In0.c2lnbmF0dXJlLW9mLXRoaXM"


def encoded(text: str, times: int) -> str:
    """Return text with every character percent-encoded, and the `%` encoded repeatedly."""
    if not times:
        return text
    once = "".join(f"%{ord(letter):02x}" for letter in text)
    return once.replace("%", "%" + "25" * (times - 1))


@st.composite
def spellings(draw: st.DrawFn) -> str:
    """Return any encoding of `apiToken=`."""
    letters = []
    for letter in "apiToken=":
        case = draw(st.sampled_from([letter, letter.lower(), letter.upper()]))
        letters.append(encoded(case, draw(st.integers(0, 3))))
    return "".join(letters)


@given(
    spellings(), st.sampled_from(["", "?", "&", ";", "/admin?", "/a;", "%3F", "%26", "%3b", "x=1&", "redirect=/b%3F"])
)
def test_token_is_removed_under_every_encoding_of_its_name(spelling: str, before: str) -> None:
    text = f"{before}{spelling}{TOKEN}"
    assert "eyJ" not in without_tokens(text)
    assert "c2ln" not in without_tokens(text) + without_secrets(text)
    assert gives_token(spelling + TOKEN)


@given(spellings(), st.text(alphabet="abcXYZ019._~%2-", min_size=5))
def test_any_value_of_api_token_is_removed(spelling: str, value: str) -> None:
    assert value not in without_tokens(f"/a?b=1&{spelling}{value}&c=2").replace("/a?b=1&c=2", "")


@pytest.mark.parametrize("dot", [".", "%2e", "%2E", "%252E"])
def test_token_is_found_under_any_other_name(dot: str) -> None:
    assert without_secrets(f"GET /x?token={TOKEN.replace('.', dot)} HTTP/1.1") == "GET /x?token=... HTTP/1.1"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/admin/users?search=a&page=2",
        "the key and the apiToken",
        "monkey=1",
        "/api/tokens/0af3",
        "eyJafjalla.example",
    ],
)
def test_text_without_a_secret_is_unchanged(text: str) -> None:
    assert (without_tokens(text), without_secrets(text)) == (text, text)


def test_webhook_secret_is_removed() -> None:
    assert without_secrets("POST /auth/user?key=abc&x=1") == "POST /auth/user?key=...&x=1"


@pytest.mark.parametrize("before", ["?", "%3F", "%253f", "%26", "%3b", "%2F", "?webhook", "&webhook_", "?x=1&webhook-"])
def test_webhook_secret_is_removed_after_an_encoded_separator(before: str) -> None:
    assert without_secrets(f"/admin{before}key=abc") == f"/admin{before}key=..."


@pytest.mark.parametrize("times", [0, 1, 2, 3])
def test_encoded_token_in_an_address_is_detected(times: int) -> None:
    shown = cleaned_address("/admin?x=" + encoded(TOKEN, times))
    assert shown == (None if times else "/admin?x=...")
    assert cleaned_address(f"/admin?x={TOKEN}&key=abc&y=" + encoded("a b", times))
    assert cleaned_address(f"/admin?y=1&apiToken={TOKEN}") == "/admin?y=1"


@pytest.mark.parametrize("piece", ["eyJ", "%25", "apiToken", "eyJaaaaaaaaaa.", "%2525", "&", ";%61"])
def test_redaction_takes_linear_time(piece: str) -> None:
    text = (piece * 64_000)[:64_000]
    started = perf_counter()
    without_secrets(without_tokens(text))
    assert perf_counter() - started < 5, "quadratic time would take 30 seconds"
