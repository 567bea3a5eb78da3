"""Certificates and tokens at the administrator's page."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest
import requests
from playwright.sync_api import expect

from tests.admin.page_objects import FormFiller, Visitor
from tests.registry.signing import signing_request

if TYPE_CHECKING:
    from tests.service import Service

_numbers = count()


def new_device(service: Service, **fields: object) -> str:
    username = f"device-{next(_numbers)}"
    service.create_user(username, "secret", grantTypes=["password", "certificate", "token"], **fields)
    return username


def person_with(service: Service, *permissions: str) -> FormFiller:
    username = f"person-{next(_numbers)}"
    service.create_user(username, "secret", *permissions)
    browser = FormFiller(service.url)
    assert browser.sign_in(username, "secret").status_code == 303
    return browser


def issue(service: Service, username: str, days: int = 365) -> str:
    answer = service.call(
        "POST", f"/api/users/{username}/certificates", json={"csr": signing_request(username), "days": days}
    )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["serial"])


def test_a_certificate_is_issued_from_a_pasted_request_and_revoked(service: Service, admin: Visitor) -> None:
    username, page = new_device(service), admin.page
    admin.open(f"/admin/users/{username}/certificates/new")
    page.get_by_label("Signing request").fill(signing_request(username))
    page.get_by_label("Valid for").fill("20")
    page.get_by_role("button", name="Issue").click()
    expect(page.get_by_label("Certificate", exact=True)).to_contain_text("BEGIN CERTIFICATE")
    page.get_by_role("link", name="Open it").click()
    page.get_by_label("Why").select_option("keyCompromise")
    page.get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("status")).to_contain_text("is revoked")
    expect(page.get_by_text("the key was stolen or lost")).to_be_visible()
    expect(page.get_by_role("button", name="Revoke")).to_have_count(0)
    (kept,) = service.call("GET", f"/api/users/{username}/certificates").json()["items"]
    assert (kept["status"], kept["reason"]) == ("revoked", "keyCompromise")
    assert not admin.complaints


def test_a_request_that_does_not_fit_is_explained_beside_it_and_kept(service: Service, admin: Visitor) -> None:
    username, page = new_device(service), admin.page
    admin.open(f"/admin/users/{username}/certificates/new")
    page.get_by_label("Signing request").fill(signing_request("somebody-else"))
    page.get_by_label("Valid for").fill("soon")
    page.get_by_role("button", name="Issue").click()
    expect(page.locator("#days-wrong")).to_be_visible()
    page.get_by_label("Valid for").fill("")
    page.get_by_role("button", name="Issue").click()
    expect(page.locator("#csr-wrong")).to_contain_text("Common Name")
    assert "BEGIN CERTIFICATE REQUEST" in page.get_by_label("Signing request").input_value()
    assert service.call("GET", f"/api/users/{username}/certificates").json()["total"] == 0


def test_what_expires_soon_has_a_list_of_its_own(service: Service, admin: Visitor) -> None:
    soon, later = new_device(service), new_device(service)
    issue(service, soon, days=20)
    issue(service, later)
    admin.open("/admin/certificates")
    admin.page.get_by_role("link", name="Expiring in 30 days").click()
    expect(admin.page.get_by_role("link", name=soon)).to_be_visible()
    expect(admin.page.get_by_role("link", name=later)).to_have_count(0)
    expect(admin.page.get_by_role("rowheader", name="CN=authsvc certificate authority")).to_be_visible()


def test_a_token_is_shown_once_copied_and_revoked(service: Service, admin: Visitor) -> None:
    username, page = new_device(service), admin.page
    admin.open("/admin/tokens")
    page.get_by_text("New token").click()
    page.get_by_label("User", exact=True).fill(username)
    page.get_by_label("Label", exact=True).fill(f"label of {username}")
    page.get_by_label("Good for").select_option("a century")
    page.get_by_role("button", name="Create").click()
    token = page.get_by_label("Token").input_value()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == token
    login = {"username": username, "password": token, "clientid": "c"}
    assert requests.post(service.broker_url + "/auth/user", json=login, timeout=10).status_code == 200
    page.get_by_role("link", name="To the tokens").click()
    assert token not in page.content()
    row = page.get_by_role("row", name=f"label of {username}")
    row.get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("status")).to_contain_text("revoked")
    expect(row).to_have_count(0)
    assert requests.post(service.broker_url + "/auth/user", json=login, timeout=10).status_code == 403
    assert not admin.complaints


def test_a_token_for_nobody_is_refused_in_words(admin: Visitor) -> None:
    page = admin.page
    admin.open("/admin/tokens")
    page.get_by_text("New token").click()
    page.get_by_label("User", exact=True).fill("no-such-user")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("alert")).to_have_text("no such user", ignore_case=True)
    expect(page.get_by_label("User", exact=True)).to_have_value("no-such-user")


def test_nobody_makes_a_token_that_may_more_than_they_may(service: Service) -> None:
    clerk = person_with(service, "http readWrite /api/tokens", "http read /api/me")
    answer = clerk.post("/admin/tokens", username="admin", label="too much", expireTimeInHours="12")
    assert answer.status_code == 403
    assert service.call("GET", "/api/tokens", params={"search": "too much"}).json()["total"] == 0


def test_who_may_make_tokens_but_not_touch_users_makes_none_to_connect_as_a_device(service: Service) -> None:
    device = new_device(service)
    clerk = person_with(service, "http readWrite /api/tokens", "http read /api/me")
    answer = clerk.post("/admin/tokens", "/admin", username=device, label="to pass as it", expireTimeInHours="12")
    assert answer.status_code == 403
    assert service.call("GET", "/api/tokens", params={"search": "to pass as it"}).json()["total"] == 0
    own = clerk.post("/admin/tokens", "/admin", label="its own", expireTimeInHours="12")
    assert own.status_code == 201


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/admin/certificates"),
        ("GET", "/admin/certificates/{serial}"),
        ("POST", "/admin/certificates/{serial}/revoke"),
        ("GET", "/admin/users/{username}/certificates/new"),
        ("POST", "/admin/users/{username}/certificates/new"),
        ("GET", "/admin/tokens"),
        ("POST", "/admin/tokens"),
        ("POST", "/admin/tokens/{token}/revoke"),
        ("GET", "/admin/sessions"),
        ("POST", "/admin/sessions/{session}/end"),
    ],
)
def test_a_powerless_user_gets_none_of_it(service: Service, method: str, path: str) -> None:
    username = new_device(service)
    serial = issue(service, username)
    powerless = person_with(service, "http read /api/me")
    token = service.call("POST", "/api/tokens", json={"username": username}).json()["id"]
    session = service.call("GET", "/api/sessions").json()["items"][0]["id"]
    where = path.format(serial=serial, username=username, token=token, session=session)
    answer = powerless.get(where) if method == "GET" else powerless.post(where, drawn_at="/admin", csr="x")
    assert answer.status_code == 403
    assert service.call("GET", f"/api/certificates/{serial}").json()["status"] == "valid"
    assert token in {one["id"] for one in service.call("GET", "/api/tokens?perPage=1000").json()["items"]}
    assert session in {one["id"] for one in service.call("GET", "/api/sessions?perPage=1000").json()["items"]}


def test_who_may_only_look_sees_no_button(service: Service) -> None:
    username = new_device(service)
    serial = issue(service, username)
    clerk = person_with(service, "http read /api/#")
    for path in ("/admin/certificates", f"/admin/certificates/{serial}", "/admin/tokens", "/admin/sessions"):
        answer = clerk.get(path)
        assert answer.status_code == 200
        assert answer.text.count("<button") == answer.text.count("Sign out") + answer.text.count(">Search<")
