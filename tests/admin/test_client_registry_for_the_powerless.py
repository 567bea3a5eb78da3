"""The pages of the Client Registry for users without the permission to change or read it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.admin.page_objects import FormClient
from tests.admin.registry_client import RegistryDriver
from tests.service import ADMIN_PASSWORD

if TYPE_CHECKING:
    from tests.service import Service

pytestmark = pytest.mark.slow

PASSWORD = "a visitor's secret"
POLLS = ("/lock", "/registrations")


@pytest.fixture(scope="module")
def registry(service: Service) -> RegistryDriver:
    """The registry, a user with read permission and one without."""
    service.create_user("reader", PASSWORD, "http read /api/client-registry/#", "http read /api/me")
    service.create_user("outsider", PASSWORD, "http read /api/me")
    return RegistryDriver(service)


def signed_in(registry: RegistryDriver, username: str, password: str = PASSWORD) -> FormClient:
    form = FormClient(registry.service.url)
    assert form.sign_in(username, password).status_code == 303
    return form


def views(registry: RegistryDriver, registration: str) -> list[str]:
    return [
        "/admin/registry",
        "/admin/registry/lock",
        "/admin/registry/registrations",
        f"/admin/registry/registrations/{registration}",
        "/admin/registry/preauthorizations",
        "/admin/registry/enrolment-keys",
    ]


def changes(registry: RegistryDriver, registration: str) -> list[tuple[str, dict[str, Any]]]:
    preauthorization = registry.call("POST", "/preauthorizations", username=f"expected-{registration[:8]}")["id"]
    key = registry.call("POST", "/enrolment-keys", label="hall 4")["id"]
    one, many = f"/admin/registry/registrations/{registration}", "/admin/registry/registrations"
    return [
        ("/admin/registry/unlock", {"durationSeconds": "300"}),
        ("/admin/registry/lock", {}),
        *((f"{one}/{verb}", {}) for verb in ("grant", "deny", "delete", "unlock")),
        *((f"{many}/{verb}", {"ids": [registration]}) for verb in ("grant", "deny")),
        *((f"{many}/selected", {"ids": [registration], "decision": verb}) for verb in ("grant", "deny")),
        ("/admin/registry/preauthorizations", {"username": "mallory"}),
        ("/admin/registry/preauthorizations/csv", {"csv": "username\nmallory"}),
        (f"/admin/registry/preauthorizations/{preauthorization}/delete", {}),
        ("/admin/registry/enrolment-keys", {"label": "mallory's", "uses": "9"}),
        (f"/admin/registry/enrolment-keys/{key}/revoke", {}),
    ]


def state(registry: RegistryDriver) -> list[Any]:
    lock = registry.call("GET", "")
    lists = ("/registrations", "/preauthorizations", "/enrolment-keys")
    return [lock["locked"], *(registry.call("GET", f"{each}?perPage=1000") for each in lists)]


def test_user_with_read_permission_sees_no_buttons(registry: RegistryDriver) -> None:
    username = registry.add_unknown_device()
    reader = signed_in(registry, "reader")
    for path in views(registry, registry.id_of(username)):
        answer = reader.get(path)
        assert answer.status_code in (200, 303), path
        assert set(re.findall(r'<form[^>]* action="([^"]+)"', answer.text)) <= {"/admin/sign-out"}, path
        assert not re.findall(r"<button[^>]*>(?!Search|Sign out)", answer.text), path
        assert 'name="ids"' not in answer.text
    assert username in reader.get("/admin/registry").text
    assert "New key" not in reader.get("/admin/registry/enrolment-keys").text
    assert reader.get("/admin/registry/enrolment-keys/new").status_code == 403


@pytest.mark.parametrize("who", ["reader", "outsider"])
def test_user_without_write_permission_changes_nothing(registry: RegistryDriver, who: str) -> None:
    registration = registry.id_of(registry.add_unknown_device())
    asked = changes(registry, registration)
    before, form = state(registry), signed_in(registry, who)
    refused = [(path, form.post(path, drawn_at="/admin", **fields).status_code) for path, fields in asked]
    assert refused == [(path, 403) for path, _ in asked]
    assert state(registry) == before


def test_user_without_read_permission_sees_no_registry_page(registry: RegistryDriver) -> None:
    outsider = signed_in(registry, "outsider")
    for path in (*views(registry, registry.id_of(registry.add_unknown_device())), "/admin/registry/enrolment-keys/new"):
        assert outsider.get(path).status_code == 403, path
    assert "Client Registry" not in outsider.get("/admin").text


def test_form_without_csrf_token_changes_nothing(registry: RegistryDriver) -> None:
    asked = changes(registry, registry.id_of(registry.add_unknown_device()))
    before, admin = state(registry), signed_in(registry, "admin", ADMIN_PASSWORD)
    for path, fields in asked:
        assert admin.session.post(registry.service.url + path, data=fields, timeout=10).status_code == 400, path
    assert state(registry) == before


@pytest.mark.parametrize("poll", POLLS)
def test_unchanged_content_is_answered_204(registry: RegistryDriver, poll: str) -> None:
    registry.add_unknown_device()
    admin = signed_in(registry, "admin", ADMIN_PASSWORD)
    address, headers = f"{registry.service.url}/admin/registry{poll}", {"HX-Request": "true"}
    first = admin.session.get(address, headers=headers, timeout=10)
    (content_hash,) = re.findall(r'name="seen" value="(\w+)"', first.text)
    assert "<html" not in first.text
    logged = registry.service.log_text().count(f'"/admin/registry{poll}"')
    again = admin.session.get(address, params={"seen": content_hash}, headers=headers, timeout=10)
    assert (again.status_code, again.text) == (204, "")
    assert registry.service.log_text().count(f'"/admin/registry{poll}"') == logged
    registry.unlock(durationSeconds=77)
    registry.add_unknown_device()
    assert admin.session.get(address, params={"seen": content_hash}, headers=headers, timeout=10).status_code == 200


def test_polled_table_redirects_to_sign_in_after_the_session(registry: RegistryDriver) -> None:
    admin = signed_in(registry, "admin", ADMIN_PASSWORD)
    assert admin.get("/admin/registry/registrations?status=denied").headers["Location"].endswith("status=denied")
    admin.session.cookies.clear()
    answer = admin.session.get(
        f"{registry.service.url}/admin/registry/registrations", headers={"HX-Request": "true"}, timeout=10
    )
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (401, "/admin/sign-in")
