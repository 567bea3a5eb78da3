"""Signing in at an OpenID provider: a certified one, run by Node."""

from __future__ import annotations

import re
from itertools import count
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pyotp
import pytest
import requests

from tests.admin.page_objects import FormClient

if TYPE_CHECKING:
    from tests.identity.openid import OpenIdProvider
    from tests.service import Service

_numbers = count()
CALLBACK = "/admin/sign-in/callback"


def new_person(provider: OpenIdProvider, *groups: str, **claims: object) -> str:
    """Add an account that signs in next, and return its name, which is also its subject."""
    name = f"person-{next(_numbers)}"
    provider.has({name: {"preferred_username": name, "groups": groups, **claims}})
    provider.signs_in(name)
    return name


def at_provider(browser: FormClient, start: str = "/admin/sign-in/provider") -> str:
    """Go to the provider, sign in there, and return the address of the callback, which is not opened."""
    answer = browser.get(start)
    while not (address := answer.headers["Location"]).startswith(browser.url + CALLBACK):
        answer = browser.session.get(requests.compat.urljoin(answer.url, address), allow_redirects=False, timeout=20)
        assert answer.status_code in (302, 303), answer.text
    return address


def sign_in(service: Service, start: str = "/admin/sign-in/provider") -> tuple[FormClient, requests.Response]:
    """Sign a new browser in, and return it with the answer of the callback."""
    browser = FormClient(service.url)
    return browser, browser.session.get(at_provider(browser, start), allow_redirects=False, timeout=20)


def reason(answer: requests.Response) -> str:
    """Return the message of a sign-in form."""
    found = re.search(r'role="alert">([^<]+)<', answer.text)
    assert found, answer.text
    return found[1]


def user(service: Service, name: str) -> dict[str, object]:
    answer = service.call("GET", f"/api/users/{name}")
    assert answer.status_code == 200, answer.text
    body: dict[str, object] = answer.json()
    return body


def test_groups_give_roles_and_the_user_is_like_any_other(service: Service, provider: OpenIdProvider) -> None:
    name = new_person(provider, "operators", "visitors")
    browser, answer = sign_in(service, "/admin/sign-in/provider?redirect=/admin/tokens")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/admin/tokens")
    stored = user(service, name)
    assert (stored["origin"], stored["hasPassword"], stored["grantTypes"]) == ("oidc", False, [])
    assert (stored["roles"], stored["groupRoles"]) == ([], ["minimum-access", "operator"])
    assert browser.get("/admin").status_code == 200
    begun = service.call("GET", "/api/audit", params={"action": "session.begin", "actor": name}).json()["items"]
    assert begun[0]["after"]["signedInBy"] == "oidc"


def test_roles_follow_the_groups_and_roles_given_here_stay(service: Service, provider: OpenIdProvider) -> None:
    name = new_person(provider, "operators")
    sign_in(service)
    assert service.call("PATCH", f"/api/users/{name}", json={"roles": ["minimum-access"]}).status_code == 200
    provider.has({name: {"preferred_username": name, "groups": "plant-admins"}})
    browser, _ = sign_in(service)
    assert (user(service, name)["roles"], user(service, name)["groupRoles"]) == (["minimum-access"], ["admin"])
    assert browser.get("/admin/users").status_code == 200


def test_without_a_group_nobody_enters_and_what_was_given_ends(service: Service, provider: OpenIdProvider) -> None:
    name = new_person(provider, "plant-admins")
    browser, _ = sign_in(service)
    token = issue_token(browser, name, service)
    assert works(service, token)
    provider.has({name: {"preferred_username": name, "groups": ["visitors"]}})
    _, answer = sign_in(service)
    assert (answer.status_code, reason(answer)) == (403, "None of your groups gives access to authsvc")
    assert user(service, name)["groupRoles"] == []
    assert not works(service, token)
    assert browser.get("/admin").headers["Location"].startswith("/admin/sign-in")
    provider.has({name: {"preferred_username": name, "groups": ["plant-admins"]}})
    sign_in(service)
    assert works(service, token)


def issue_token(browser: FormClient, name: str, service: Service) -> str:
    """Return an API token that the user has made for itself on the page."""
    page = browser.post("/admin/tokens", drawn_at="/admin/tokens", username=name, label="own", expireTimeInHours="12")
    found = re.search(r"eyJ[\w.-]+", page.text)
    assert found, page.text
    assert service.call("GET", "/api/tokens", params={"username": name}).json()["total"] == 1
    return found[0]


def test_second_factor_that_was_set_up_here_is_asked_for(service: Service, provider: OpenIdProvider) -> None:
    name = new_person(provider, "plant-admins")
    browser, _ = sign_in(service)
    own = {"Authorization": f"Bearer {issue_token(browser, name, service)}"}
    secret = requests.post(service.url + "/api/me/otp", headers=own, timeout=10).json()["secret"]
    code = pyotp.TOTP(secret).now()
    confirmed = requests.post(service.url + "/api/me/otp/confirm", json={"otp": code}, headers=own, timeout=10)
    again, answer = sign_in(service, "/admin/sign-in/provider?redirect=/admin/tokens")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/admin/sign-in/code")
    assert again.get("/admin").headers["Location"].startswith("/admin/sign-in")
    entered = again.post("/admin/sign-in/code", "/admin/sign-in/code", otp=confirmed.json()["recoveryCodes"][0])
    assert (entered.status_code, entered.headers["Location"]) == (303, "/admin/tokens")


def works(service: Service, token: str) -> bool:
    answer = requests.get(f"{service.url}/api/me", headers={"Authorization": f"Bearer {token}"}, timeout=10)
    return answer.status_code == 200


def test_unknown_person_without_a_group_is_not_created(service: Service, provider: OpenIdProvider) -> None:
    name = new_person(provider)
    _, answer = sign_in(service)
    assert answer.status_code == 403
    assert service.call("GET", f"/api/users/{name}").status_code == 404


def test_renamed_account_stays_the_same_user(service: Service, provider: OpenIdProvider) -> None:
    name = new_person(provider, "operators")
    sign_in(service)
    provider.has({name: {"preferred_username": f"{name}-married", "groups": ["operators"]}})
    browser, _ = sign_in(service)
    assert f"You are signed in as {name}" in browser.get("/admin").text
    assert service.call("GET", f"/api/users/{name}-married").status_code == 404


def test_account_with_the_old_name_of_another_does_not_get_its_user(service: Service, provider: OpenIdProvider) -> None:
    name = new_person(provider, "operators")
    sign_in(service)
    provider.has({"somebody-else": {"preferred_username": name, "groups": ["plant-admins"]}})
    provider.signs_in("somebody-else")
    _, answer = sign_in(service)
    assert answer.status_code == 409
    assert "belongs to another user" in reason(answer)
    assert user(service, name)["groupRoles"] == ["minimum-access", "operator"]


@pytest.mark.parametrize(
    "username",
    [
        *(
            "admin",
            "ADMIN",
            "Admin@plant.example",
            "adm1n",
            "a.d.m.i.n",
            "\uff41\uff44\uff4d\uff49\uff4e",
            "\u0430dmin",
        ),
        *("authsvc", "root", "R00T", "a", "a/b", "", "a b", "alice\u200b", "x" * 65),
    ],
)
def test_names_of_others_and_look_alikes_are_refused(service: Service, provider: OpenIdProvider, username: str) -> None:
    if service.call("GET", "/api/users/root").status_code == 404:
        service.create_user("root")
    before = service.call("GET", "/api/users").json()["total"]
    new_person(provider, "plant-admins", preferred_username=username)
    _, answer = sign_in(service)
    assert answer.status_code == 409
    assert service.call("GET", "/api/users").json()["total"] == before


def test_name_is_folded_and_loses_its_mail_domain(service: Service, provider: OpenIdProvider) -> None:
    name = new_person(provider, "operators", preferred_username=f"Person.{next(_numbers)}@Plant.Example")
    sign_in(service)
    assert name
    assert service.call("GET", "/api/users", params={"search": "person."}).json()["total"] == 1


def test_disabled_user_does_not_enter(service: Service, provider: OpenIdProvider) -> None:
    name = new_person(provider, "operators")
    sign_in(service)
    assert service.call("PATCH", f"/api/users/{name}", json={"enabled": False}).status_code == 200
    _, answer = sign_in(service)
    assert (answer.status_code, reason(answer)) == (401, "Your account is disabled here")


def test_user_of_a_provider_gets_no_password_here(service: Service, provider: OpenIdProvider) -> None:
    name = new_person(provider, "operators")
    sign_in(service)
    answer = service.call("PATCH", f"/api/users/{name}", json={"password": "a long secret"})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "password"
    guess = {"username": name, "password": ""}
    assert requests.post(service.url + "/api/login", json=guess, timeout=10).status_code == 401


def test_sign_in_that_the_person_refuses_is_said_plainly(service: Service, provider: OpenIdProvider) -> None:
    provider.nobody_signs_in()
    _, answer = sign_in(service)
    assert (answer.status_code, reason(answer)) == (401, "The plant refused the sign-in: access_denied")


def test_request_to_the_provider_has_pkce_state_and_nonce(service: Service, provider: OpenIdProvider) -> None:
    sent = urlsplit(FormClient(service.url).get("/admin/sign-in/provider").headers["Location"])
    query = {name: values[0] for name, values in parse_qs(sent.query).items()}
    assert f"{sent.scheme}://{sent.netloc}" == provider.issuer
    assert (query["response_type"], query["code_challenge_method"]) == ("code", "S256")
    assert min(len(query[name]) for name in ("state", "nonce", "code_challenge")) >= 43
    assert "client_secret" not in query


def test_callback_works_once(service: Service, provider: OpenIdProvider) -> None:
    new_person(provider, "operators")
    browser = FormClient(service.url)
    address = at_provider(browser)
    before = browser.cookie()
    assert browser.session.get(address, allow_redirects=False, timeout=20).status_code == 303
    again = browser.session.get(address, allow_redirects=False, timeout=20)
    assert (again.status_code, reason(again)[:39]) == (401, "This browser has begun no sign-in at th")
    thief = requests.get(address, cookies={"authsvc": before}, allow_redirects=False, timeout=20)
    assert (thief.status_code, "no longer" in thief.text) == (401, False)


def test_callback_in_another_browser_is_refused(service: Service, provider: OpenIdProvider) -> None:
    new_person(provider, "operators")
    address = at_provider(FormClient(service.url))
    other = FormClient(service.url)
    assert other.session.get(address, allow_redirects=False, timeout=20).status_code == 401
    other.get("/admin/sign-in/provider")
    answer = other.session.get(address, allow_redirects=False, timeout=20)
    assert (answer.status_code, reason(answer)) == (401, "The sign-in at the provider is not valid; start it again")


def test_swapped_codes_are_refused(service: Service, provider: OpenIdProvider) -> None:
    new_person(provider, "operators")
    mine, yours = FormClient(service.url), FormClient(service.url)
    my_state = parse_qs(urlsplit(at_provider(mine)).query)["state"][0]
    your_code = parse_qs(urlsplit(at_provider(yours)).query)["code"][0]
    swapped = {"state": my_state, "code": your_code, "iss": provider.issuer}
    answer = mine.session.get(mine.url + CALLBACK, params=swapped, allow_redirects=False, timeout=20)
    assert (answer.status_code, reason(answer)) == (401, "The sign-in at the provider is not valid; start it again")
    assert mine.get("/admin").status_code == 303


@pytest.mark.parametrize(
    ("name", "value"), [("iss", "https://evil.example"), ("state", ""), ("state", "x" * 43), ("code", "guessed")]
)
def test_changed_answers_are_refused(service: Service, provider: OpenIdProvider, name: str, value: str) -> None:
    new_person(provider, "operators")
    browser = FormClient(service.url)
    answer = {key: values[0] for key, values in parse_qs(urlsplit(at_provider(browser)).query).items()}
    changed = browser.session.get(
        browser.url + CALLBACK, params={**answer, name: value}, allow_redirects=False, timeout=20
    )
    assert (changed.status_code, browser.get("/admin").status_code) == (401, 303)


@pytest.mark.parametrize("where", ["//evil.example", "/\\evil.example", "https://evil.example", "/%2F/evil.example"])
def test_redirect_to_another_host_is_refused(service: Service, provider: OpenIdProvider, where: str) -> None:
    assert provider.issuer
    answer = requests.get(
        service.url + "/admin/sign-in/provider", params={"redirect": where}, allow_redirects=False, timeout=10
    )
    assert (answer.status_code, "Location" in answer.headers) == (400, False)


def test_sign_out_ends_both_sessions(service: Service, provider: OpenIdProvider) -> None:
    new_person(provider, "operators")
    browser, _ = sign_in(service)
    page = browser.post("/admin/sign-out", drawn_at="/admin")
    assert page.status_code == 200
    address = page.headers["Refresh"].removeprefix("0; url=")
    query = parse_qs(urlsplit(address).query)
    assert address.startswith(provider.issuer)
    assert query["id_token_hint"][0].startswith("eyJ")
    assert query["post_logout_redirect_uri"] == [service.url + "/admin/sign-in"]
    assert "Sign out" not in browser.get("/admin").text
    assert browser.session.get(address, timeout=20).status_code == 200


def test_user_that_signed_in_here_is_not_sent_to_the_provider(service: Service, provider: OpenIdProvider) -> None:
    assert provider.issuer
    browser = FormClient(service.url)
    service.create_user("local-person", "secret", "http read /api/me")
    assert browser.sign_in("local-person", "secret").status_code == 303
    assert browser.post("/admin/sign-out", drawn_at="/admin").headers["Location"] == "/admin/sign-in"


@pytest.mark.slow
def test_new_keys_of_the_provider_are_used_at_once_and_its_absence_is_said(
    service: Service, provider: OpenIdProvider
) -> None:
    new_person(provider, "operators")
    sign_in(service)
    provider.stop()
    browser = FormClient(service.url)
    state = parse_qs(urlsplit(browser.get("/admin/sign-in/provider").headers["Location"]).query)["state"][0]
    answer = browser.session.get(
        browser.url + CALLBACK, params={"state": state, "code": "x", "iss": provider.issuer}, timeout=20
    )
    assert (answer.status_code, "The OpenID provider cannot be reached" in answer.text) == (503, True)
    assert FormClient(service.url).sign_in("admin", service.environment["AUTHSVC_ADMIN_PASSWORD"]).status_code == 303
    provider.start("second")
    assert sign_in(service)[1].status_code == 303
