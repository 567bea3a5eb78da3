"""Requests that no form sends, links from other sites, and text with invisible characters."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.admin.page_objects import FormClient
from tests.registry.signing import signing_request
from tests.service import ADMIN_PASSWORD

if TYPE_CHECKING:
    from tests.service import Service

pytestmark = pytest.mark.slow

_TOO_LONG_FOR_A_NUMBER = "9" * 5000


@pytest.fixture(scope="module")
def admin_client(service: Service) -> FormClient:
    """An HTTP client, signed in as the administrator."""
    browser = FormClient(service.url)
    assert browser.sign_in("admin", ADMIN_PASSWORD).status_code == 303
    return browser


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/admin/users/admin/certificates/new", {"csr": signing_request("admin"), "days": _TOO_LONG_FOR_A_NUMBER}),
        ("/admin/tokens", {"username": "admin", "expireTimeInHours": _TOO_LONG_FOR_A_NUMBER}),
        ("/admin/tokens", {"username": "admin", "expireTimeInHours": "nan"}),
        ("/admin/registry/unlock", {"durationSeconds": _TOO_LONG_FOR_A_NUMBER}),
        ("/admin/new-user", {"username": "odd-1\0", "passwordIs": "none"}),
        ("/admin/new-user", {"username": "odd-3", "passwordIs": "none", "permission.resource": ["a"] * 10_001}),
        ("/admin/users/admin/enabled", {"enabled": "perhaps"}),
    ],
)
def test_form_with_invalid_values_returns_400_and_changes_nothing(
    service: Service, admin_client: FormClient, path: str, fields: dict[str, Any]
) -> None:
    columns = {f"permission.{name}": [name] * 10_001 for name in ("context", "operation", "effect")}
    columns = columns if "permission.resource" in fields else {}
    before = service.call("GET", "/readyz").json()["policyVersion"]
    body = {**columns, **fields, "csrf_token": admin_client.form_token("/admin")}
    answer = admin_client.session.post(service.url + path, data=body, allow_redirects=False, timeout=20)
    assert answer.status_code == 400
    assert "</html>" in answer.text
    assert service.call("GET", "/readyz").json()["policyVersion"] == before


@pytest.mark.parametrize("noun", ["users", "roles"])
def test_user_and_role_may_be_named_new(service: Service, admin_client: FormClient, noun: str) -> None:
    named = {"users": {"username": "new"}, "roles": {"name": "new"}}
    assert service.call("POST", f"/api/{noun}", json=named[noun]).status_code == 201
    shown = admin_client.get(f"/admin/{noun}/new")
    assert shown.status_code == 200
    assert f"/admin/{noun}/new/edit" in shown.text


def test_link_to_a_permission_without_a_matching_denial_shows_a_warning(admin_client: FormClient) -> None:
    shown = admin_client.get("/admin/users/admin/allow?operation=readWrite&resource=%23").text
    assert "No recent denial needs exactly this permission" in shown
    assert "narrowest" not in shown


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/admin/users/admin/allow?operation=all&resource=a", 400),
        ("/admin/users/admin/allow?operation=read&resource=a/%23/b", 400),
        ("/admin/users/nobody/allow?operation=read&resource=a", 404),
    ],
)
def test_link_to_an_invalid_permission_or_unknown_user_is_refused(
    admin_client: FormClient, path: str, status: int
) -> None:
    assert admin_client.get(path).status_code == status


def test_caller_who_may_not_read_the_user_is_redirected_to_the_overview(service: Service) -> None:
    service.create_user("odd-device", "secret")
    rights = ["http read /api/me", "http write /api/users/+/permissions", "read odd"]
    service.create_user("odd-giver", "secret", *rights)
    giver = FormClient(service.url)
    giver.sign_in("odd-giver", "secret")
    answer = giver.post("/admin/users/odd-device/allow", drawn_at="/admin", operation="read", resource="odd")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/admin")
    (given,) = service.call("GET", "/api/users/odd-device").json()["permissions"]
    assert given["resource"] == "odd"


def test_form_without_csrf_token_asks_for_a_reload(service: Service) -> None:
    answer = FormClient(service.url).session.post(service.url + "/admin/sign-in", timeout=20)
    assert answer.status_code == 400
    assert "This form is out of date; reload the page and try again" in answer.text


def test_bidirectional_characters_in_denials_are_escaped(service: Service, admin_client: FormClient) -> None:
    service.create_user("odd-turner", "secret")
    asked = {"username": "odd-turner", "clientid": "a\u202eb", "topic": "x/\u202ey", "acc": 2}
    requests.post(service.broker_url + "/auth/acl", json=asked, timeout=10)
    deadline = time.monotonic() + 20
    while "x/\\u202ey" not in (shown := admin_client.get("/admin/users/odd-turner/denials").text):
        assert time.monotonic() < deadline, shown
        time.sleep(0.05)
    assert "a\\u202eb" in shown
    assert "\u202e" not in shown


def test_bidirectional_characters_in_requested_permissions_are_escaped(
    service: Service, admin_client: FormClient
) -> None:
    asked = {"context": "mqtt", "operation": "read", "resource": "plans/\u202ex/\u2066y", "effect": "allow"}
    body = {"username": "odd-asker", "password": "secret", "permissions": [asked]}
    assert service.call("POST", "/api/client-registry/unlock", json={}).status_code == 200
    made = requests.post(service.url + "/api/client-registry/register", json=body, timeout=10)
    assert made.status_code == 202, made.text
    registration = f"/registry/registrations/{made.json()['id']}"
    shown = [admin_client.get(f"/admin{registration}").text]
    granted = service.call("POST", f"/api/client-{registration[1:]}/grant", json={"acceptRequested": True})
    assert granted.status_code == 200, granted.text
    shown += [admin_client.get(path).text for path in ("/admin/users/odd-asker", f"/admin{registration}")]
    for page in shown:
        assert "plans/\\u202ex/\\u2066y" in page
        assert not {"\u202e", "\u2066"} & set(page)


def test_bidirectional_characters_in_labels_are_escaped(service: Service, admin_client: FormClient) -> None:
    label = "for\u202ehall\u2066 3"
    service.create_user("odd-labels", "secret")
    expiry = "2100-01-01T00:00:00Z"
    key = {"label": label, "uses": 1, "expiresAt": expiry}
    assert service.call("POST", "/api/client-registry/enrolment-keys", json=key).status_code == 201
    shown = [
        admin_client.post("/admin/tokens", "/admin", username="odd-labels", label=label, expireTimeInHours="8760").text,
        admin_client.post("/admin/registry/enrolment-keys", "/admin", label=label, uses="1", expiresAt=expiry).text,
    ]
    paths = ("/admin/tokens", "/admin/users/odd-labels", "/admin/registry/enrolment-keys")
    shown += [admin_client.get(path).text for path in paths]
    for page in shown:
        assert not {"\u202e", "\u2066"} & set(page)
    assert sum("for\\u202ehall\\u2066 3" in page for page in shown) >= len(paths) + 1
