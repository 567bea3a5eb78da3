"""Paths that a sign-in may redirect to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authsvc.errors import InvalidInput
from authsvc.web.redirects import path_on_this_host, return_path

PATHS = ["/", "/admin", "/admin/users?search=a%20b&page=2", "/api/docs#/users", "/admin/users?next=https://x.example/"]
ELSEWHERE = [
    "",
    "admin",
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "https://evil.example",
    "https:evil.example",
    "javascript:alert(1)",
    "/%2Fevil.example",
    "/%2fevil.example",
    "%2F%2Fevil.example",
    "/%5Cevil.example",
    "/%255Cevil.example",
    "/%252Fevil.example",
    "/\t/evil.example",
    "/%09/evil.example",
    "/%0a/evil.example",
    " //evil.example",
    "/admin\r\nSet-Cookie: a=b",
    "/admin%0d%0aSet-Cookie:a=b",
    "/ümlaut",
    "/" + "a" * 2000,
]


@pytest.mark.parametrize("path", PATHS)
def test_path_on_this_host_is_accepted(path: str) -> None:
    assert path_on_this_host(path) == path


@pytest.mark.parametrize("path", ELSEWHERE)
def test_path_that_a_browser_could_read_as_another_host_is_refused(path: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        path_on_this_host(path)
    assert refused.value.errors[0].field == "redirect"


@pytest.mark.parametrize("begin", ["%65yJ", "e%79J", "%2565%2579%254a"])
def test_redirect_with_an_encoded_token_leads_to_the_overview(begin: str) -> None:
    token = f"{begin}hbGciOiJIUzI1NiJ9.eyJzdWIiOiJib2IiLCJqdGkiOiJ4In0.c2lnbmF0dXJlLW9mLXRoaXM"
    assert path_on_this_host(f"/admin/users?x={token}") == "/admin"


@given(st.text(alphabet="/\\%25cfF.:a@?#\t\n ", max_size=12))
def test_accepted_path_begins_with_a_single_slash(path: str) -> None:
    try:
        good = path_on_this_host(path)
    except InvalidInput:
        return
    assert good.startswith("/")
    assert not good.startswith(("//", "/\\", "/%2f", "/%2F", "/%5c", "/%5C", "/%09"))


@pytest.mark.parametrize(
    ("path", "query", "back"),
    [
        ("/admin/users", "", "/admin/users"),
        ("/admin/users", "search=a%20b&page=2", "/admin/users?search=a%20b&page=2"),
        ("/admin/users/müller", "", "/admin/users/m%C3%BCller"),
        ("/admin/who?", "", "/admin/who%3F"),
        ("/admin/\r\nSet-Cookie: a=b", "", "/admin"),
        ("/admin/\\evil.example", "", "/admin"),
        ("//evil.example", "", "/admin"),
        ("/admin", "x=\\", "/admin"),
    ],
)
def test_return_path_after_sign_in_is_safe(path: str, query: str, back: str) -> None:
    assert return_path(path, query) == back
