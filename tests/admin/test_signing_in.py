"""Signing in to the web interface by password or token, and signing out."""

from __future__ import annotations

import re
from itertools import count
from typing import TYPE_CHECKING

import pytest
import requests
from playwright.sync_api import expect

from tests.admin.page_objects import FormClient, Window
from tests.service import ADMIN_PASSWORD, Service

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser, BrowserContext, Page

_numbers = count()


def create_token(service: Service, username: str, password: str) -> tuple[str, str]:
    answer = requests.post(
        service.url + "/api/login", json={"username": username, "password": password, "label": "page"}, timeout=10
    )
    assert answer.status_code == 200, answer.text
    return answer.json()["token"], answer.json()["id"]


def new_user(service: Service, *permissions: str) -> str:
    username = f"user-{next(_numbers)}"
    service.create_user(username, "secret", *permissions)
    return username


def test_administrator_signs_in_and_out(page: Page) -> None:
    window = Window(page)
    window.open("/admin/certificates")
    expect(page).to_have_url(re.compile("/admin/sign-in"))
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill(ADMIN_PASSWORD)
    page.get_by_label("Password").press("Enter")
    expect(page).to_have_url(re.compile("/admin/certificates$"))
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Password")).to_be_visible()
    window.open("/admin/certificates")
    expect(page.get_by_label("Password")).to_be_visible()
    assert not window.script_errors


def test_sign_in_form_warns_without_tls_on_another_host(service: Service, browser: Browser) -> None:
    remote = browser.new_context(base_url=service.url.replace("127.0.0.1", "plant.example"))
    remote.route(
        "**/*", lambda route: route.fulfill(response=route.fetch(url=_rewrite_host(service, route.request.url)))
    )
    page = remote.new_page()
    page.goto("/admin/sign-in")
    expect(page.get_by_text("not opened over TLS")).to_be_visible()
    page.wait_for_load_state("networkidle")
    remote.unroute_all(behavior="wait")
    remote.close()


def test_sign_in_form_does_not_warn_on_loopback(page: Page) -> None:
    page.goto("/admin/sign-in")
    expect(page.get_by_label("Password")).to_be_visible()
    expect(page.get_by_text("not opened over TLS")).to_be_hidden()


def _rewrite_host(service: Service, url: str) -> str:
    return url.replace(url.split("/admin", maxsplit=1)[0], service.url)


def test_wrong_password_shows_a_message_and_keeps_the_username(page: Page) -> None:
    page.goto("/admin/sign-in")
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill("wrong horse")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_have_text("Username or password is wrong")
    expect(page.get_by_label("Username")).to_have_value("admin")
    expect(page.get_by_label("Password")).to_have_value("")


def test_wrong_passwords_are_throttled_for_that_username_only(service: Service) -> None:
    victim, other = new_user(service), new_user(service)
    guess = FormClient(service.url)
    statuses = [guess.sign_in(victim, f"guess {number}").status_code for number in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    refused = guess.sign_in(victim, "secret")
    assert refused.status_code == 429
    assert "too many attempts" in refused.text.lower()
    at_the_api = requests.post(service.url + "/api/login", json={"username": victim, "password": "secret"}, timeout=10)
    assert at_the_api.status_code == 429
    assert 0 < int(at_the_api.headers["Retry-After"]) <= 60
    assert FormClient(service.url).sign_in(other, "secret").status_code == 303


def test_token_in_the_url_signs_in_and_is_removed_from_the_url(service: Service, page: Page) -> None:
    token, _ = create_token(service, "admin", ADMIN_PASSWORD)
    window = Window(page)
    window.open(f"/admin?apiToken={token}")
    expect(page).to_have_url(service.url + "/admin")
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    assert token not in page.evaluate("JSON.stringify(performance.getEntriesByType('navigation').map(e => e.name))")
    assert page.evaluate("document.referrer") == ""
    assert token not in service.log_text()
    assert not window.script_errors


def test_other_query_parameters_are_kept_when_the_token_is_removed(service: Service) -> None:
    token, _ = create_token(service, "admin", ADMIN_PASSWORD)
    answer = requests.get(
        f"{service.url}/admin/certificates?status=valid&apiToken={token}", allow_redirects=False, timeout=10
    )
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/admin/certificates?status=valid"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


def test_token_sign_in_redirects_to_a_path_on_this_host(service: Service) -> None:
    token, _ = create_token(service, "admin", ADMIN_PASSWORD)
    answer = requests.get(
        service.url + "/admin",
        params={"redirect": "/api/docs?x=1", "apiToken": token},
        allow_redirects=False,
        timeout=10,
    )
    assert (answer.status_code, answer.headers["Location"]) == (303, "/api/docs?x=1")


@pytest.mark.parametrize("where", ["//evil.example", "/\\evil.example", "https://evil.example", "/%2F/evil.example"])
def test_token_sign_in_with_a_redirect_to_another_host_is_refused(service: Service, where: str) -> None:
    token, _ = create_token(service, "admin", ADMIN_PASSWORD)
    session = requests.Session()
    answer = session.get(
        service.url + "/admin", params={"redirect": where, "apiToken": token}, allow_redirects=False, timeout=10
    )
    assert answer.status_code == 400
    assert "Location" not in answer.headers
    home = session.get(service.url + "/admin", allow_redirects=False, timeout=10)
    assert home.headers["Location"].startswith("/admin/sign-in")


def test_invalid_token_shows_the_sign_in_form_and_is_not_echoed_or_logged(service: Service) -> None:
    answer = requests.get(service.url + "/admin?apiToken=eyJ.not-a.token", timeout=10)
    assert answer.status_code == 401
    assert "wrong, expired or revoked" in answer.text
    assert "eyJ.not-a.token" not in answer.text + answer.url + service.log_text()


def signed_in_username(browser: FormClient) -> str:
    found = re.search(r"You are signed in as ([\w-]+)\"", browser.get("/admin").text)
    assert found
    return found[1]


def test_token_of_another_user_replaces_a_session_only_after_confirmation(service: Service, page: Page) -> None:
    victim, attacker = new_user(service, "http read /api/#"), new_user(service, "http read /api/#")
    token, _ = create_token(service, attacker, "secret")
    window = Window(page)
    window.sign_in(victim, "secret")
    window.open(f"/admin/certificates?apiToken={token}")
    expect(page).to_have_url(service.url + "/admin/replace-session")
    expect(page.get_by_role("heading", name=f"Sign in as {attacker}?")).to_be_visible()
    expect(page.get_by_text(f"You are signed in as {victim}.")).to_be_visible()
    expect(page.locator(".who")).to_contain_text(victim)
    assert token not in page.content()
    page.get_by_role("button", name="Stay signed in").click()
    expect(page.locator(".who")).to_contain_text(victim)
    window.open("/admin/replace-session")
    page.get_by_role("button", name=f"Sign in as {attacker}").click()
    expect(page).to_have_url(service.url + "/admin/certificates")
    expect(page.locator(".who")).to_contain_text(attacker)
    assert not window.script_errors


def test_token_of_the_signed_in_user_needs_no_confirmation(service: Service) -> None:
    username = new_user(service, "http read /api/#")
    token, _ = create_token(service, username, "secret")
    browser = FormClient(service.url)
    browser.sign_in(username, "secret")
    assert browser.get(f"/admin/certificates?apiToken={token}").headers["Location"] == "/admin/certificates"


def test_replacing_a_session_needs_a_csrf_token_and_a_valid_api_token(service: Service) -> None:
    victim, attacker = new_user(service, "http read /api/#"), new_user(service, "http read /api/#")
    token, token_id = create_token(service, attacker, "secret")
    browser = FormClient(service.url)
    browser.sign_in(victim, "secret")
    browser.get(f"/admin?apiToken={token}")
    forged = browser.session.post(service.url + "/admin/replace-session", allow_redirects=False, timeout=20)
    assert forged.status_code == 400
    assert signed_in_username(browser) == victim
    assert service.call("DELETE", f"/api/tokens/{token_id}").status_code == 204
    late = browser.post("/admin/replace-session", drawn_at="/admin")
    assert late.headers["Location"].startswith("/admin/sign-in")
    assert signed_in_username(browser) == victim


def test_session_is_not_replaced_without_a_token_from_a_link(service: Service) -> None:
    username = new_user(service, "http read /api/#")
    browser = FormClient(service.url)
    browser.sign_in(username, "secret")
    assert browser.get("/admin/replace-session").headers["Location"] == "/admin"
    answer = browser.post("/admin/replace-session", drawn_at="/admin")
    assert answer.headers["Location"].startswith("/admin/sign-in")
    assert signed_in_username(browser) == username


def test_session_begun_with_a_token_ends_when_the_token_is_revoked(service: Service, admin: Window, page: Page) -> None:
    username = new_user(service, "http read /api/me")
    token, token_id = create_token(service, username, "secret")
    window = FormClient(service.url)
    window.session.get(f"{service.url}/admin?apiToken={token}", timeout=10)
    assert window.get("/admin").status_code == 200
    assert service.call("DELETE", f"/api/tokens/{token_id}").status_code == 204
    assert window.get("/admin").headers["Location"].startswith("/admin/sign-in")


def test_revoked_session_is_signed_out_at_its_next_request(service: Service, admin: Window) -> None:
    username = new_user(service, "http read /api/#")
    browser = FormClient(service.url)
    assert browser.sign_in(username, "secret").status_code == 303
    assert browser.get("/admin/certificates").status_code == 200
    admin.open(f"/admin/sessions?username={username}")
    admin.page.get_by_role("button", name="Sign out").last.click()
    expect(admin.page.get_by_role("status")).to_have_text("The browser is signed out.")
    assert browser.get("/admin/certificates").headers["Location"].startswith("/admin/sign-in")
    assert not admin.script_errors


@pytest.mark.parametrize("change", [{"password": "another secret"}, {"enabled": False}])
def test_new_password_and_disabling_end_all_sessions(service: Service, change: dict[str, object]) -> None:
    username = new_user(service, "http read /api/#")
    browser = FormClient(service.url)
    browser.sign_in(username, "secret")
    assert browser.get("/admin/certificates").status_code == 200
    assert service.call("PATCH", f"/api/users/{username}", json=change).status_code == 200
    assert browser.get("/admin/certificates").headers["Location"].startswith("/admin/sign-in")


def test_sign_in_creates_a_new_secret_and_sign_out_invalidates_it(service: Service) -> None:
    username = new_user(service, "http read /api/#")
    browser = FormClient(service.url)
    before = browser.cookie()
    browser.sign_in(username, "secret")
    stolen = browser.cookie()
    assert stolen != before
    browser.post("/admin/sign-out")
    thief = requests.get(
        service.url + "/admin/certificates", cookies={"authsvc": stolen}, allow_redirects=False, timeout=10
    )
    assert thief.headers["Location"].startswith("/admin/sign-in")


def test_cookie_is_http_only_and_a_forged_one_is_refused(service: Service, admin: Window) -> None:
    (cookie,) = [one for one in admin.page.context.cookies() if one["name"] == "authsvc"]
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Lax"
    forged = cookie["value"][:-3] + ("AAA" if not cookie["value"].endswith("AAA") else "BBB")
    answer = requests.get(service.url + "/admin", cookies={"authsvc": forged}, allow_redirects=False, timeout=10)
    assert answer.headers["Location"].startswith("/admin/sign-in")


def test_cookie_is_tls_only_for_other_hosts(service: Service) -> None:
    answer = requests.get(service.url + "/admin/sign-in", headers={"Host": "plant.example"}, timeout=10)
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("__Host-authsvc=")
    assert "Secure" in cookie
    assert "Path=/" in cookie
    assert "Domain" not in cookie


def test_form_without_the_csrf_token_of_this_session_is_refused(service: Service) -> None:
    username = new_user(service, "http readWrite /api/#")
    browser = FormClient(service.url)
    browser.sign_in(username, "secret")
    answer = browser.session.post(service.url + "/admin/tokens", data={"label": "forged"}, timeout=10)
    assert answer.status_code == 400
    assert "reload" in answer.text
    borrowed = FormClient(service.url).form_token("/admin/sign-in")
    answer = browser.session.post(
        service.url + "/admin/tokens", data={"label": "forged", "csrf_token": borrowed}, timeout=10
    )
    assert answer.status_code == 400
    listed = service.call("GET", "/api/tokens", params={"search": "forged"}).json()
    assert listed["total"] == 0


def test_every_page_has_security_headers(service: Service, admin: Window) -> None:
    for path in ("/admin", "/admin/sign-in", "/admin/nothing-here", "/admin/tokens"):
        answer = requests.get(service.url + path, timeout=10)
        policy = answer.headers["Content-Security-Policy"]
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"


def test_unknown_path_shows_a_404_page(admin: Window) -> None:
    assert admin.open("/admin/no/such/page") == 404
    expect(admin.page.get_by_role("heading", name="Not found")).to_be_visible()


def test_user_without_permissions_sees_only_the_overview(service: Service, context: BrowserContext) -> None:
    username = new_user(service, "http read /api/me")
    window = Window(context.new_page())
    window.sign_in(username, "secret")
    links = window.page.get_by_role("navigation", name="Pages").get_by_role("link")
    expect(links).to_have_count(1)
    expect(links).to_have_text("Overview")
    assert window.open("/admin/tokens") == 403
    expect(window.page.get_by_role("alert")).to_contain_text(
        "needs the permission `http read /api/tokens`", ignore_case=True
    )


def test_user_who_may_not_read_api_me_gets_403(service: Service, page: Page) -> None:
    browser = FormClient(service.url)
    browser.sign_in(new_user(service), "secret")
    assert browser.get("/admin").status_code == 403


def test_behind_a_trusted_proxy_throttling_uses_the_address_of_the_browser(tmp_path: Path) -> None:
    with Service(tmp_path, {"AUTHSVC_TRUSTED_PROXIES": "127.0.0.1"}) as service:
        attacker, administrator = FormClient(service.url), FormClient(service.url)
        attacker.session.headers["X-Forwarded-For"] = "203.0.113.66"
        administrator.session.headers["X-Forwarded-For"] = "203.0.113.5"
        assert [attacker.sign_in("admin", "guess").status_code for _ in range(11)][-1] == 429
        assert administrator.sign_in("admin", ADMIN_PASSWORD).status_code == 303
        (session,) = service.call("GET", "/api/sessions").json()["items"]
        assert session["address"] == "203.0.113.5"
