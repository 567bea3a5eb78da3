"""The pages of certificates and API tokens."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import requests
from playwright.sync_api import expect

from tests.admin.page_objects import FormClient, Window
from tests.registry.signing import signing_request

if TYPE_CHECKING:
    from tests.service import Service

_numbers = count()


def new_device(service: Service, **fields: object) -> str:
    username = f"device-{next(_numbers)}"
    service.create_user(username, "secret", grantTypes=["password", "certificate", "token"], **fields)
    return username


def sign_in_new_user(service: Service, *permissions: str) -> FormClient:
    username = f"user-{next(_numbers)}"
    service.create_user(username, "secret", *permissions)
    browser = FormClient(service.url)
    assert browser.sign_in(username, "secret").status_code == 303
    return browser


def issue(service: Service, username: str, days: int = 365) -> str:
    answer = service.call(
        "POST", f"/api/users/{username}/certificates", json={"csr": signing_request(username), "days": days}
    )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["serial"])


def test_certificate_is_issued_from_a_pasted_csr_and_revoked(service: Service, admin: Window) -> None:
    username, page = new_device(service), admin.page
    admin.open(f"/admin/users/{username}/certificates/new")
    page.get_by_label("Signing request").fill(signing_request(username))
    page.get_by_label("Valid for").fill("20")
    page.get_by_role("button", name="Issue").click()
    expect(page.get_by_label("Certificate", exact=True)).to_contain_text("BEGIN CERTIFICATE")
    page.get_by_role("link", name="Show certificate").click()
    page.get_by_label("Reason").select_option("keyCompromise")
    page.get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("status")).to_contain_text("is revoked")
    expect(page.get_by_text("the private key was stolen or lost")).to_be_visible()
    expect(page.get_by_role("button", name="Revoke")).to_have_count(0)
    (kept,) = service.call("GET", f"/api/users/{username}/certificates").json()["items"]
    assert (kept["status"], kept["reason"]) == ("revoked", "keyCompromise")
    assert not admin.script_errors


def test_invalid_csr_is_kept_in_the_form_with_an_error_message(service: Service, admin: Window) -> None:
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


def test_certificates_that_expire_within_30_days_are_listed_separately(service: Service, admin: Window) -> None:
    soon, later = new_device(service), new_device(service)
    issue(service, soon, days=20)
    issue(service, later)
    admin.open("/admin/certificates")
    admin.page.get_by_role("link", name="Expiring in 30 days").click()
    expect(admin.page.get_by_role("link", name=soon)).to_be_visible()
    expect(admin.page.get_by_role("link", name=later)).to_have_count(0)
    expect(admin.page.get_by_role("rowheader", name="CN=authsvc certificate authority")).to_be_visible()


def test_token_is_shown_once_copied_and_revoked(service: Service, admin: Window) -> None:
    username, page = new_device(service), admin.page
    admin.open("/admin/tokens")
    page.get_by_text("New token").click()
    page.get_by_label("User", exact=True).fill(username)
    page.get_by_label("Label", exact=True).fill(f"label of {username}")
    page.get_by_label("Valid for").select_option("100 years")
    page.get_by_role("button", name="Create").click()
    token = page.get_by_label("Token").input_value()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == token
    login = {"username": username, "password": token, "clientid": "c"}
    assert requests.post(service.url + "/auth/user", json=login, timeout=10).status_code == 200
    page.get_by_role("link", name="Show all tokens").click()
    assert token not in page.content()
    row = page.get_by_role("row", name=f"label of {username}")
    row.get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("status")).to_contain_text("revoked")
    expect(row).to_have_count(0)
    assert requests.post(service.url + "/auth/user", json=login, timeout=10).status_code == 403
    assert not admin.script_errors


def test_token_for_an_unknown_user_is_refused_with_a_message(admin: Window) -> None:
    page = admin.page
    admin.open("/admin/tokens")
    page.get_by_text("New token").click()
    page.get_by_label("User", exact=True).fill("no-such-user")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("alert")).to_have_text("no such user", ignore_case=True)
    expect(page.get_by_label("User", exact=True)).to_have_value("no-such-user")


def test_token_with_more_permissions_than_its_creator_is_refused(service: Service) -> None:
    clerk = sign_in_new_user(service, "http readWrite /api/tokens", "http read /api/me")
    answer = clerk.post("/admin/tokens", username="admin", label="too much", expireTimeInHours="12")
    assert answer.status_code == 403
    assert service.call("GET", "/api/tokens", params={"search": "too much"}).json()["total"] == 0


def test_caller_without_write_on_users_cannot_create_a_token_for_a_device(service: Service) -> None:
    device = new_device(service)
    clerk = sign_in_new_user(service, "http readWrite /api/tokens", "http read /api/me")
    answer = clerk.post("/admin/tokens", "/admin", username=device, label="to pass as it", expireTimeInHours="12")
    assert answer.status_code == 403
    assert service.call("GET", "/api/tokens", params={"search": "to pass as it"}).json()["total"] == 0
    own = clerk.post("/admin/tokens", "/admin", label="its own", expireTimeInHours="12")
    assert own.status_code == 201


def test_read_only_user_sees_no_buttons(service: Service) -> None:
    username = new_device(service)
    serial = issue(service, username)
    clerk = sign_in_new_user(service, "http read /api/#")
    for path in ("/admin/certificates", f"/admin/certificates/{serial}", "/admin/tokens", "/admin/sessions"):
        answer = clerk.get(path)
        assert answer.status_code == 200
        assert answer.text.count("<button") == answer.text.count(">Sign out</button>") + answer.text.count(">Search<")
