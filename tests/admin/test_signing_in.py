"""Who gets in at the administrator's page, and how they get out."""

from __future__ import annotations

import re
from itertools import count
from typing import TYPE_CHECKING

import pytest
import requests
from playwright.sync_api import expect

from tests.admin.page_objects import FormFiller, Visitor
from tests.service import ADMIN_PASSWORD, Service

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser, BrowserContext, Page

_numbers = count()


def token_for(service: Service, username: str, password: str) -> tuple[str, str]:
    answer = requests.post(
        service.url + "/api/login", json={"username": username, "password": password, "label": "page"}, timeout=10
    )
    assert answer.status_code == 200, answer.text
    return answer.json()["token"], answer.json()["id"]


def new_user(service: Service, *permissions: str) -> str:
    username = f"person-{next(_numbers)}"
    service.create_user(username, "secret", *permissions)
    return username


def test_an_administrator_signs_in_and_out(page: Page) -> None:
    visitor = Visitor(page)
    visitor.open("/admin/certificates")
    expect(page).to_have_url(re.compile("/admin/sign-in"))
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill(ADMIN_PASSWORD)
    page.get_by_label("Password").press("Enter")
    expect(page).to_have_url(re.compile("/admin/certificates$"))
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Password")).to_be_visible()
    visitor.open("/admin/certificates")
    expect(page.get_by_label("Password")).to_be_visible()
    assert not visitor.complaints


def test_without_tls_from_elsewhere_the_form_says_why_nobody_can_stay(service: Service, browser: Browser) -> None:
    remote = browser.new_context(base_url=service.url.replace("127.0.0.1", "plant.example"))
    remote.route("**/*", lambda route: route.fulfill(response=route.fetch(url=_here(service, route.request.url))))
    page = remote.new_page()
    page.goto("/admin/sign-in")
    expect(page.get_by_text("not opened over TLS")).to_be_visible()
    page.wait_for_load_state("networkidle")
    remote.unroute_all(behavior="wait")
    remote.close()


def test_on_the_machine_itself_the_form_says_nothing_of_tls(page: Page) -> None:
    page.goto("/admin/sign-in")
    expect(page.get_by_label("Password")).to_be_visible()
    expect(page.get_by_text("not opened over TLS")).to_be_hidden()


def _here(service: Service, url: str) -> str:
    return url.replace(url.split("/admin", maxsplit=1)[0], service.url)


def test_a_wrong_password_is_said_in_words_and_the_name_is_kept(page: Page) -> None:
    page.goto("/admin/sign-in")
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill("wrong horse")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_have_text("Username or password is wrong")
    expect(page.get_by_label("Username")).to_have_value("admin")
    expect(page.get_by_label("Password")).to_have_value("")


def test_guessing_is_throttled_for_that_name_and_for_nobody_else(service: Service) -> None:
    victim, other = new_user(service), new_user(service)
    guess = FormFiller(service.url)
    statuses = [guess.sign_in(victim, f"guess {number}").status_code for number in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    refused = guess.sign_in(victim, "secret")
    assert refused.status_code == 429
    assert "too many attempts" in refused.text.lower()
    at_the_api = requests.post(service.url + "/api/login", json={"username": victim, "password": "secret"}, timeout=10)
    assert at_the_api.status_code == 429
    assert 0 < int(at_the_api.headers["Retry-After"]) <= 60
    assert FormFiller(service.url).sign_in(other, "secret").status_code == 303


def test_a_token_in_the_address_signs_in_and_leaves_the_address_at_once(service: Service, page: Page) -> None:
    token, _ = token_for(service, "admin", ADMIN_PASSWORD)
    visitor = Visitor(page)
    visitor.open(f"/admin?apiToken={token}")
    expect(page).to_have_url(service.url + "/admin")
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    assert token not in page.evaluate("JSON.stringify(performance.getEntriesByType('navigation').map(e => e.name))")
    assert page.evaluate("document.referrer") == ""
    assert token not in service.log_text()
    assert not visitor.complaints


def test_the_rest_of_the_address_outlives_the_token(service: Service) -> None:
    token, _ = token_for(service, "admin", ADMIN_PASSWORD)
    answer = requests.get(
        f"{service.url}/admin/certificates?status=valid&apiToken={token}", allow_redirects=False, timeout=10
    )
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/admin/certificates?status=valid"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


def test_a_token_leads_on_to_a_path_of_this_host(service: Service) -> None:
    token, _ = token_for(service, "admin", ADMIN_PASSWORD)
    answer = requests.get(
        service.url + "/admin",
        params={"redirect": "/api/docs?x=1", "apiToken": token},
        allow_redirects=False,
        timeout=10,
    )
    assert (answer.status_code, answer.headers["Location"]) == (303, "/api/docs?x=1")


@pytest.mark.parametrize("where", ["//evil.example", "/\\evil.example", "https://evil.example", "/%2F/evil.example"])
def test_a_token_leads_nowhere_else_and_signs_nobody_in_on_the_way(service: Service, where: str) -> None:
    token, _ = token_for(service, "admin", ADMIN_PASSWORD)
    session = requests.Session()
    answer = session.get(
        service.url + "/admin", params={"redirect": where, "apiToken": token}, allow_redirects=False, timeout=10
    )
    assert answer.status_code == 400
    assert "Location" not in answer.headers
    home = session.get(service.url + "/admin", allow_redirects=False, timeout=10)
    assert home.headers["Location"].startswith("/admin/sign-in")


def test_a_bad_token_gets_the_form_and_is_repeated_nowhere(service: Service) -> None:
    answer = requests.get(service.url + "/admin?apiToken=eyJ.not-a.token", timeout=10)
    assert answer.status_code == 401
    assert "wrong, expired or revoked" in answer.text
    assert "eyJ.not-a.token" not in answer.text + answer.url + service.log_text()


def signed_in_as(browser: FormFiller) -> str:
    found = re.search(r"You are signed in as ([\w-]+)\"", browser.get("/admin").text)
    assert found
    return found[1]


def test_token_of_another_user_replaces_a_session_only_after_a_question(service: Service, page: Page) -> None:
    victim, attacker = new_user(service, "http read /api/#"), new_user(service, "http read /api/#")
    token, _ = token_for(service, attacker, "secret")
    visitor = Visitor(page)
    visitor.sign_in(victim, "secret")
    visitor.open(f"/admin/certificates?apiToken={token}")
    expect(page).to_have_url(service.url + "/admin/replace-session")
    expect(page.get_by_role("heading", name=f"Sign in as {attacker}?")).to_be_visible()
    expect(page.get_by_text(f"You are signed in as {victim}.")).to_be_visible()
    expect(page.locator(".who")).to_contain_text(victim)
    assert token not in page.content()
    page.get_by_role("button", name="Stay signed in").click()
    expect(page.locator(".who")).to_contain_text(victim)
    visitor.open("/admin/replace-session")
    page.get_by_role("button", name="Replace the session").click()
    expect(page).to_have_url(service.url + "/admin/certificates")
    expect(page.locator(".who")).to_contain_text(attacker)
    assert not visitor.complaints


def test_token_of_the_same_user_asks_nothing(service: Service) -> None:
    username = new_user(service, "http read /api/#")
    token, _ = token_for(service, username, "secret")
    browser = FormFiller(service.url)
    browser.sign_in(username, "secret")
    assert browser.get(f"/admin/certificates?apiToken={token}").headers["Location"] == "/admin/certificates"


def test_session_is_replaced_by_a_form_that_was_drawn_here_alone(service: Service) -> None:
    victim, attacker = new_user(service, "http read /api/#"), new_user(service, "http read /api/#")
    token, token_id = token_for(service, attacker, "secret")
    browser = FormFiller(service.url)
    browser.sign_in(victim, "secret")
    browser.get(f"/admin?apiToken={token}")
    forged = browser.session.post(service.url + "/admin/replace-session", allow_redirects=False, timeout=20)
    assert forged.status_code == 400
    assert signed_in_as(browser) == victim
    assert service.call("DELETE", f"/api/tokens/{token_id}").status_code == 204
    late = browser.post("/admin/replace-session", drawn_at="/admin")
    assert late.headers["Location"].startswith("/admin/sign-in")
    assert signed_in_as(browser) == victim


def test_without_an_offer_no_session_is_replaced(service: Service) -> None:
    username = new_user(service, "http read /api/#")
    browser = FormFiller(service.url)
    browser.sign_in(username, "secret")
    assert browser.get("/admin/replace-session").headers["Location"] == "/admin"
    answer = browser.post("/admin/replace-session", drawn_at="/admin")
    assert answer.headers["Location"].startswith("/admin/sign-in")
    assert signed_in_as(browser) == username


def test_a_session_begun_with_a_token_ends_with_the_token(service: Service, admin: Visitor, page: Page) -> None:
    username = new_user(service, "http read /api/me")
    token, token_id = token_for(service, username, "secret")
    visitor = FormFiller(service.url)
    visitor.session.get(f"{service.url}/admin?apiToken={token}", timeout=10)
    assert visitor.get("/admin").status_code == 200
    assert service.call("DELETE", f"/api/tokens/{token_id}").status_code == 204
    assert visitor.get("/admin").headers["Location"].startswith("/admin/sign-in")


def test_a_session_that_was_revoked_is_out_at_its_next_click(service: Service, admin: Visitor) -> None:
    username = new_user(service, "http read /api/#")
    browser = FormFiller(service.url)
    assert browser.sign_in(username, "secret").status_code == 303
    assert browser.get("/admin/certificates").status_code == 200
    admin.open(f"/admin/sessions?username={username}")
    admin.page.get_by_role("button", name="Sign out").last.click()
    expect(admin.page.get_by_role("status")).to_have_text("That browser is signed out.")
    assert browser.get("/admin/certificates").headers["Location"].startswith("/admin/sign-in")
    assert not admin.complaints


@pytest.mark.parametrize("change", [{"password": "another secret"}, {"enabled": False}])
def test_a_new_password_or_a_disabled_user_ends_every_session(service: Service, change: dict[str, object]) -> None:
    username = new_user(service, "http read /api/#")
    browser = FormFiller(service.url)
    browser.sign_in(username, "secret")
    assert browser.get("/admin/certificates").status_code == 200
    assert service.call("PATCH", f"/api/users/{username}", json=change).status_code == 200
    assert browser.get("/admin/certificates").headers["Location"].startswith("/admin/sign-in")


def test_signing_in_makes_a_new_secret_and_signing_out_ends_it_everywhere(service: Service) -> None:
    username = new_user(service, "http read /api/#")
    browser = FormFiller(service.url)
    before = browser.cookie()
    browser.sign_in(username, "secret")
    stolen = browser.cookie()
    assert stolen != before
    browser.post("/admin/sign-out")
    thief = requests.get(
        service.url + "/admin/certificates", cookies={"authsvc": stolen}, allow_redirects=False, timeout=10
    )
    assert thief.headers["Location"].startswith("/admin/sign-in")


def test_the_cookie_is_out_of_reach_and_a_changed_one_is_worth_nothing(service: Service, admin: Visitor) -> None:
    (cookie,) = [one for one in admin.page.context.cookies() if one["name"] == "authsvc"]
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Lax"
    forged = cookie["value"][:-3] + ("AAA" if not cookie["value"].endswith("AAA") else "BBB")
    answer = requests.get(service.url + "/admin", cookies={"authsvc": forged}, allow_redirects=False, timeout=10)
    assert answer.headers["Location"].startswith("/admin/sign-in")


def test_a_browser_from_elsewhere_gets_a_cookie_for_tls_only(service: Service) -> None:
    answer = requests.get(service.url + "/admin/sign-in", headers={"Host": "plant.example"}, timeout=10)
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("__Host-authsvc=")
    assert "Secure" in cookie
    assert "Path=/" in cookie
    assert "Domain" not in cookie


def test_a_form_from_elsewhere_changes_nothing(service: Service) -> None:
    username = new_user(service, "http readWrite /api/#")
    browser = FormFiller(service.url)
    browser.sign_in(username, "secret")
    answer = browser.session.post(service.url + "/admin/tokens", data={"label": "forged"}, timeout=10)
    assert answer.status_code == 400
    assert "reload" in answer.text
    borrowed = FormFiller(service.url).form_token("/admin/sign-in")
    answer = browser.session.post(
        service.url + "/admin/tokens", data={"label": "forged", "csrf_token": borrowed}, timeout=10
    )
    assert answer.status_code == 400
    listed = service.call("GET", "/api/tokens", params={"search": "forged"}).json()
    assert listed["total"] == 0


def test_every_page_says_what_a_browser_may_load(service: Service, admin: Visitor) -> None:
    for path in ("/admin", "/admin/sign-in", "/admin/nothing-here", "/admin/tokens"):
        answer = requests.get(service.url + path, timeout=10)
        policy = answer.headers["Content-Security-Policy"]
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"


def test_an_address_that_is_no_page_is_answered_with_one(admin: Visitor) -> None:
    assert admin.open("/admin/no/such/page") == 404
    expect(admin.page.get_by_role("heading", name="Not found")).to_be_visible()


def test_a_powerless_user_gets_in_and_sees_nothing(service: Service, context: BrowserContext) -> None:
    username = new_user(service, "http read /api/me")
    visitor = Visitor(context.new_page())
    visitor.sign_in(username, "secret")
    links = visitor.page.get_by_role("navigation", name="Pages").get_by_role("link")
    expect(links).to_have_count(1)
    expect(links).to_have_text("Overview")
    assert visitor.open("/admin/tokens") == 403
    expect(visitor.page.get_by_role("alert")).to_contain_text("you lack http read on /api/tokens", ignore_case=True)


def test_whoever_may_not_even_read_itself_is_told_so(service: Service, page: Page) -> None:
    browser = FormFiller(service.url)
    browser.sign_in(new_user(service), "secret")
    assert browser.get("/admin").status_code == 403


def test_behind_a_trusted_proxy_each_browser_is_known_by_its_own_address(tmp_path: Path) -> None:
    with Service(tmp_path, {"AUTHSVC_TRUSTED_PROXIES": "127.0.0.1"}) as service:
        stranger, administrator = FormFiller(service.url), FormFiller(service.url)
        stranger.session.headers["X-Forwarded-For"] = "203.0.113.66"
        administrator.session.headers["X-Forwarded-For"] = "203.0.113.5"
        assert [stranger.sign_in("admin", "guess").status_code for _ in range(11)][-1] == 429
        assert administrator.sign_in("admin", ADMIN_PASSWORD).status_code == 303
        (session,) = service.call("GET", "/api/sessions").json()["items"]
        assert session["address"] == "203.0.113.5"
