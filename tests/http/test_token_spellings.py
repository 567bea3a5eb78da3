"""An API token in a URL appears in no log line, redirect or error, however the parameter is spelled."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.rules.test_redaction import spellings

if TYPE_CHECKING:
    from flask.testing import FlaskClient

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJib2IiLCJqdGkiOiJ4In0.c2lnbmF0dXJlLW9mLXRoaXM"
PLACES = [
    "/admin?{0}",
    "/admin/users?page=1&{0}",
    "/admin/users?page=1;{0}",
    "/admin/users;{0}",
    "/admin;{0}/users",
    "/admin/none/{0}",
    "/admin/sign-in?redirect=/admin/users?{0}",
    "/admin?redirect=/admin/users;{0}",
    "/api/me?{0}",
    "/api/me;{0}",
    "/api/users/bob;{0}?x=1",
    "/api/none?x=1;{0}",
    "//api/me?{0}",
    "//admin/users?{0}&{0}",
    "/healthz;{0}",
    "/none;{0}",
]


def all_output(client: FlaskClient, path: str, method: str, referer: str = "") -> str:
    with capture_logs() as logged:
        answer = client.open(path, method=method, headers={"Referer": referer} if referer else {}, buffered=True)
    return f"{logged} {answer.headers} {answer.text}"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(spelling=spellings(), place=st.sampled_from(PLACES), method=st.sampled_from(["GET", "POST", "HEAD"]))
def test_token_is_redacted_for_any_spelling_of_the_parameter(
    client: FlaskClient, spelling: str, place: str, method: str
) -> None:
    # The test client decodes nothing: a server would receive these bytes.
    output = all_output(client, place.format(spelling + TOKEN), method)
    assert not [part for part in TOKEN.split(".")[1:] if part in output]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("spelling", ["apiToken=", "apitoken=", "%61piToken=", "api%2554oken%253D"])
def test_token_is_redacted_for_the_common_spellings(client: FlaskClient, place: str, spelling: str) -> None:
    output = all_output(client, place.format(spelling + TOKEN), "GET")
    assert not [part for part in TOKEN.split(".")[1:] if part in output]


def test_token_in_a_redirect_parameter_is_removed(client: FlaskClient) -> None:
    nested = quote(f"/admin/users?apiToken={TOKEN}&page=2", safe="")
    assert TOKEN not in all_output(client, f"/admin/sign-in?redirect={nested}", "GET")
    assert TOKEN not in all_output(client, f"/admin/certificates?next={nested}", "GET")


def test_token_in_another_parameter_is_removed(client: FlaskClient) -> None:
    assert TOKEN not in all_output(client, f"/admin/certificates?token={TOKEN}", "GET")


def test_token_in_a_referer_is_redacted(client: FlaskClient) -> None:
    referer = f"http://localhost/admin?apitoken={TOKEN}"
    assert TOKEN not in all_output(client, "/api/none", "GET", referer)
    assert TOKEN not in all_output(client, "/admin/none", "POST", referer)
