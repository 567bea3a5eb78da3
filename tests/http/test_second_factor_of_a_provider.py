"""Users of an OpenID provider in a service that requires a second factor."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.authenticator import Authenticator
from tests.http.conftest import with_services_of
from tests.identity.hostile_provider import CLIENT_ID, HostileProvider

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask.testing import FlaskClient
    from flask_openapi3.openapi import OpenAPI

    from authsvc.settings import Settings

CODE, SET_UP = "/admin/sign-in/code", "/admin/sign-in/set-up"


@pytest.fixture
def provider() -> Iterator[HostileProvider]:
    with HostileProvider() as provider:
        yield provider


@pytest.fixture
def strict(routes: OpenAPI, seeded: Settings, provider: HostileProvider) -> OpenAPI:
    """A service that requires a second factor of each user that may change anything, and asks this provider."""
    settings = replace(
        seeded,
        second_factor="required",
        oidc_issuer=provider.issuer,
        oidc_client_id=CLIENT_ID,
        oidc_roles={"plant-admins": ("admin",)},
    )
    return with_services_of(routes, settings)


def sign_in(app: OpenAPI, provider: HostileProvider) -> tuple[FlaskClient, str]:
    """Come back from the provider with a new browser; return it, and where it is sent."""
    browser = app.test_client()
    asked = parse_qs(urlsplit(browser.get("/admin/sign-in/provider").headers["Location"]).query)
    provider.nonce = asked["nonce"][0]
    answer = browser.get("/admin/sign-in/callback", query_string={"state": asked["state"][0], "code": "x"})
    return browser, answer.headers["Location"]


def post(browser: FlaskClient, path: str, drawn_at: str, **fields: str) -> tuple[int, str]:
    """Submit a form, and return the status and the `Refresh` of the answer."""
    token = re.search('name="csrf_token" value="([^"]+)"', browser.get(drawn_at).text)
    assert token
    answer = browser.post(path, data={**fields, "csrf_token": token[1]})
    return answer.status_code, answer.headers.get("Refresh", "")


def test_second_factor_is_required_and_signing_out_ends_the_session_of_the_provider(
    strict: OpenAPI, provider: HostileProvider
) -> None:
    provider.token = lambda claims: provider.signed(claims | {"preferred_username": "erika"})
    provider.metadata = {"end_session_endpoint": f"{provider.issuer}/end"}
    browser, leads_to = sign_in(strict, provider)
    assert leads_to == SET_UP
    secret = re.search('<code id="secret">([A-Z2-7 ]+)</code>', browser.get(SET_UP).text)
    assert secret
    app = Authenticator(secret[1].replace(" ", ""))
    assert post(browser, SET_UP, SET_UP, otp=app.next_code())[0] == 200
    again, leads_to = sign_in(strict, provider)
    assert leads_to == CODE
    assert post(again, CODE, CODE, otp=app.next_code())[0] == 303
    for signed_in in (browser, again):
        status, refresh = post(signed_in, "/admin/sign-out", "/admin/account")
        assert status == 200
        asked = parse_qs(urlsplit(refresh).query)
        assert (asked["client_id"], "id_token_hint" in asked) == ([CLIENT_ID], False)
